//! The JSON line that a session leaves, another if asked for when it begins, and the names of their fields (PEERS §4c).

use std::sync::Arc;
use std::time::Instant;

use serde::Serialize;

use super::facts::Facts;
use super::plan::Plan;
use super::spans;
use super::worker::Worker;
use crate::config::log::ClientAddr;
use crate::error::{End, Kind, Side};
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
    #[serde(skip_serializing_if = "Option::is_none")]
    trace_id: Option<String>,
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
    #[serde(skip_serializing_if = "Option::is_none")]
    duration_ms: Option<f64>,
    retries: u16,
    #[serde(skip_serializing_if = "Option::is_none")]
    side: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    stage: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    close_reason: Option<&'static str>,
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
    let plan = plan_of(worker, facts);
    match relay {
        Some(relay) => spans::session(worker, &plan, facts, relay, end),
        None => spans::handshake(worker, &plan, facts, Some(end)),
    }
    if !worker.log.is_on() {
        return;
    }
    let line = Line {
        event: event(relay.is_some(), end),
        relay: relay.map(|relay| RelayPart::new(&plan, facts, relay)),
        duration_ms: Some(millis(Instant::now().duration_since(facts.accepted).as_secs_f64())),
        side: Some(end.side.as_str()),
        stage: Some(end.stage.as_str()),
        close_reason: Some(end.kind.as_str()),
        detail: end.kind.detail(),
        ..Line::new(worker, &plan, facts)
    };
    send(worker, &line);
}

/// Writes a line for a session that begins, where that is asked for, and ends the span of its handshake.
pub fn opened(worker: &Worker, facts: &Facts) {
    tracing::debug!(session = %facts.id, "joined");
    let plan = plan_of(worker, facts);
    spans::handshake(worker, &plan, facts, None);
    if worker.log.is_on() && plan.config.gateway.log.session_open {
        send(worker, &Line::new(worker, &plan, facts));
    }
}

/// The plan of its exchange; after that any has its route.
fn plan_of(worker: &Worker, facts: &Facts) -> Arc<Plan> {
    facts.plan.clone().unwrap_or_else(|| worker.plan())
}

fn send(worker: &Worker, line: &Line<'_>) {
    let text = serde_json::to_string(line).expect("strings and numbers always serialise");
    if !worker.log.send(text) {
        worker.counters.log_dropped.add(1);
    }
}

fn event(was_joined: bool, end: &End) -> &'static str {
    match (was_joined, &end.kind, end.side) {
        (true, ..) => "session_close",
        // By us: what an upstream breaks is a failure of it.
        (false, Kind::Refused(_) | Kind::NoRoute, Side::Downstream | Side::Proxy) => "refused",
        _ => "request",
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
    /// What is known of the session, whether it begins or has ended.
    fn new(worker: &Worker, plan: &'a Plan, facts: &'a Facts) -> Line<'a> {
        let rules = &plan.config.gateway.log;
        let told = |field: &str| rules.tells(field);
        let route = facts.route_index().map(|slot| plan.route(slot));
        let endpoint = facts.endpoint.as_ref().map(|held| &**held.endpoint());
        let asked = facts.texts();
        let named = facts.named.as_ref().and_then(|named| named.client.as_deref());
        let peer = facts.peer.map(|peer| peer.ip().to_canonical());
        // Of a proxy's own address there is nothing to hide.
        let peer_addr = peer.filter(|_| named.is_some());
        let port_told = told("client_port") && rules.client_addr == ClientAddr::Full;
        let request_id = facts.named.as_ref().and_then(|named| named.request_id.as_deref());
        Line {
            ts: jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%S%.3fZ").to_string(),
            level: "info",
            event: "session_open",
            session_id: facts.id.to_string(),
            request_id: request_id.filter(|_| told("request_id")),
            trace_id: spans::trace_id(facts).filter(|_| told("trace_id")),
            listener: facts.listener,
            worker: worker.index,
            route: route.map(|route| &*route.name),
            backend: endpoint.map(|endpoint| endpoint.text()),
            endpoint: endpoint.map(|endpoint| endpoint.address().to_string()),
            client_port: facts
                .peer
                .filter(|_| named.is_none() && port_told)
                .map(|peer| peer.port()),
            peer_addr: peer_addr.filter(|_| told("peer_addr")).map(|peer| peer.to_string()),
            client_addr: told_client(plan, facts),
            host: asked.host.filter(|_| told("host")),
            method: asked.method.filter(|_| told("method")),
            path: asked.path.filter(|_| told("path")),
            user_agent: asked.user_agent.filter(|_| told("user_agent")),
            status: facts.status,
            upgrade: asked.upgrade,
            relay: None,
            handshake_ms: facts.handshake.map(|time| millis(time.as_secs_f64())),
            duration_ms: None,
            retries: facts.retries,
            side: None,
            stage: None,
            close_reason: None,
            detail: None,
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

/// The client's address, as far as it may be told: as a trusted peer named it, else the peer.
pub(super) fn told_client(plan: &Plan, facts: &Facts) -> Option<String> {
    let rules = &plan.config.gateway.log;
    let named = facts.named.as_ref().and_then(|named| named.client.as_deref()?.parse().ok());
    let client = named.or(facts.peer.map(|peer| peer.ip()));
    let told = client.filter(|_| rules.tells("client_addr"));
    told.map(|client| rules.client_addr.of(client).to_canonical().to_string())
}

/// Taken from the client, given to the client.
pub(super) fn bytes(relay: &Relay) -> [u64; 2] {
    let [to_upstream, to_downstream] =
        Direction::BOTH.map(|direction| relay.live().carried(direction));
    [to_upstream.taken(), to_downstream.given]
}

/// The engine that really carried the session: the one in use at its end, or both.
pub(super) fn engine_word(relay: &Relay) -> &'static str {
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
