//! The one JSON line that a session leaves, and the names of its fields (PEERS §4c).

use std::time::Instant;

use serde::Serialize;

use super::facts::Facts;
use super::plan::Plan;
use super::worker::Worker;
use crate::error::{End, Kind};
use crate::metrics::{Direction, Engine, Reasons};
use crate::relay::{Carried, Framed, Relay};

/// Fields in the order in which a person reads them; absent ones are left out.
#[derive(Serialize)]
struct Line<'a> {
    ts: String,
    level: &'static str,
    event: &'static str,
    session_id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    request_id: Option<&'a str>,
    listener: u16,
    worker: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    route: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    backend: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    endpoint: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    client_addr: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    client_port: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    peer_addr: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    host: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    method: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    path: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    user_agent: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    upgrade: Option<&'a str>,
    #[serde(flatten)]
    relay: Option<RelayPart>,
    #[serde(skip_serializing_if = "Option::is_none")]
    handshake_ms: Option<f64>,
    duration_ms: f64,
    retries: u16,
    side: &'static str,
    stage: &'static str,
    close_reason: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    detail: Option<String>,
}

/// What only a joined session has.
#[derive(Serialize)]
struct RelayPart {
    mode: &'static str,
    mode_by: &'static str,
    mode_reason: &'static str,
    engine: &'static str,
    bytes_in: u64,
    bytes_out: u64,
    bytes_splice: u64,
    bytes_copy: u64,
    bytes_uring: u64,
    bytes_discarded: u64,
    paused: u64,
    engine_switches: u64,
    fallback: Vec<&'static str>,
    #[serde(flatten)]
    inspected: Option<InspectedPart>,
}

/// What only an inspected session has.
#[derive(Serialize)]
struct InspectedPart {
    inspect: &'static str,
    /// Bytes that were not for the other side: after a Close, of a violation, answers to our own pings.
    bytes_dropped: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    violation: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    violation_direction: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    violation_offset: Option<u64>,
}

/// Writes the line of a session that has ended. `relay` is there when it was joined.
pub fn ended(worker: &Worker, facts: &Facts, relay: Option<&Relay>, end: &End) {
    tracing::debug!(session = %facts.id, %end, "ended");
    count(worker, facts, relay.is_some(), end);
    if !worker.log.is_on() {
        return;
    }
    let plan = facts.plan.clone().unwrap_or_else(|| worker.plan());
    let line = Line::new(worker, &plan, facts, relay, end);
    let text = serde_json::to_string(&line).expect("strings and numbers always serialise");
    if !worker.log.send(text) {
        worker.counters.log_dropped.add(1);
    }
}

fn count(worker: &Worker, facts: &Facts, was_joined: bool, end: &End) {
    let route = worker.counters.route(facts.route_index());
    match end.kind {
        _ if was_joined => route.ended(facts.sort(), &end.kind, facts.accepted.elapsed()),
        // Nothing was asked, so nothing has failed.
        Kind::NoRequest => {}
        _ => route.failed(&end.kind),
    }
}

impl<'a> Line<'a> {
    fn new(
        worker: &Worker,
        plan: &'a Plan,
        facts: &'a Facts,
        relay: Option<&Relay>,
        end: &End,
    ) -> Line<'a> {
        let route = facts.route_index().map(|slot| plan.route(slot));
        let endpoint = facts.endpoint.as_ref().map(|held| &**held.endpoint());
        let asked = facts.texts();
        let peer = facts.peer.map(|peer| peer.ip().to_canonical().to_string());
        let named =
            facts.named.as_ref().and_then(|named| named.client.as_deref()).map(str::to_owned);
        Line {
            ts: jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%S%.3fZ").to_string(),
            level: "info",
            event: if relay.is_some() { "session_close" } else { "request" },
            session_id: facts.id.to_string(),
            request_id: facts.named.as_ref().and_then(|named| named.request_id.as_deref()),
            listener: facts.listener,
            worker: worker.index,
            route: route.map(|route| &*route.name),
            backend: endpoint.map(|endpoint| endpoint.text()),
            endpoint: endpoint.map(|endpoint| endpoint.address().to_string()),
            client_port: facts.peer.filter(|_| named.is_none()).map(|peer| peer.port()),
            peer_addr: peer.clone().filter(|_| named.is_some()),
            client_addr: named.or(peer),
            host: asked.host,
            method: asked.method,
            path: asked.path,
            user_agent: asked.user_agent,
            status: facts.status,
            upgrade: asked.upgrade,
            relay: relay.map(|relay| RelayPart::new(plan, facts, relay)),
            handshake_ms: facts.handshake.map(|time| millis(time.as_secs_f64())),
            duration_ms: millis(Instant::now().duration_since(facts.accepted).as_secs_f64()),
            retries: facts.retries,
            side: end.side.as_str(),
            stage: end.stage.as_str(),
            close_reason: end.kind.as_str(),
            detail: end.kind.detail(),
        }
    }
}

impl RelayPart {
    fn new(plan: &Plan, facts: &Facts, relay: &Relay) -> RelayPart {
        let [to_upstream, to_downstream] =
            Direction::BOTH.map(|direction| relay.live().carried(direction));
        let sum = |field: fn(&Carried) -> u64| field(&to_upstream) + field(&to_downstream);
        let undelivered = |direction| relay.undelivered(direction);
        let reasons: Reasons = to_upstream.reasons.union(to_downstream.reasons);
        RelayPart {
            mode: facts.route.map_or("", |route| route.chosen.mode.as_str()),
            mode_by: facts.route.map_or("", |route| route.chosen.by.as_str()),
            mode_reason: facts.route_index().map_or("", |slot| plan.carriage[slot].reason),
            engine: engine_word(relay),
            bytes_in: to_upstream.taken(),
            bytes_out: to_downstream.given,
            bytes_splice: sum(|carried| carried.spliced),
            bytes_copy: sum(|carried| carried.copied),
            bytes_uring: sum(|carried| carried.ringed),
            bytes_discarded: Direction::BOTH.into_iter().map(undelivered).sum(),
            paused: sum(|carried| u64::from(carried.paused)),
            engine_switches: sum(|carried| u64::from(carried.switches)),
            fallback: reasons.iter().map(|reason| reason.as_str()).collect(),
            inspected: relay.framed().map(InspectedPart::new),
        }
    }
}

impl InspectedPart {
    fn new(framed: &Framed) -> InspectedPart {
        let violation = framed.violation();
        InspectedPart {
            inspect: framed.policy().depth.as_str(),
            bytes_dropped: Direction::BOTH.into_iter().map(|way| framed.dropped(way)).sum(),
            violation: violation.map(|violation| violation.rule.as_str()),
            violation_direction: violation.map(|violation| violation.direction.as_str()),
            violation_offset: violation.map(|violation| violation.offset),
        }
    }
}

/// The engine that really carried the session: the one in use at its end, or both.
fn engine_word(relay: &Relay) -> &'static str {
    match Direction::BOTH.map(|direction| relay.engine(direction)) {
        [Engine::Splice, Engine::Splice] => "splice",
        [Engine::Copy, Engine::Copy] => "copy",
        [Engine::Uring, Engine::Uring] => "uring",
        _ => "mixed",
    }
}

/// Seconds as milliseconds, to a microsecond.
fn millis(seconds: f64) -> f64 {
    (seconds * 1e6).round() / 1e3
}
