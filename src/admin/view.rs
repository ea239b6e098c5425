//! Sessions and routes as the API shows them. The words are those of the access log.

use std::collections::BTreeMap;

use hyper::StatusCode;
use serde::Serialize;

use super::Subject;
use super::reply::{self, Answer};
use crate::config::{HostPattern, Protocols, Route};
use crate::error::Kind;
use crate::metrics::{Direction, RouteSnapshot, Sort};
use crate::session::plan::Plan;
use crate::session::question::{Detail, SessionView};
use crate::upstream::view::{EndpointView, UpstreamView};

/// A live session.
#[derive(Serialize)]
pub(super) struct Shown<'a> {
    id: &'a str,
    worker: usize,
    route: &'a str,
    /// As configured.
    backend: Option<&'a str>,
    /// Its address.
    endpoint: Option<String>,
    /// As a trusted peer named it; else the peer. `null` over a Unix socket.
    client_addr: Option<String>,
    client_port: Option<u16>,
    mode: &'static str,
    engine: ByDirection<&'static str>,
    bytes_in: u64,
    bytes_out: u64,
    age_seconds: f64,
    /// Directions whose source is not read, since the other side takes no more.
    paused: Vec<&'static str>,
    half_closed: bool,
    #[serde(flatten)]
    detail: Option<ShownDetail<'a>>,
}

#[derive(Serialize)]
struct ByDirection<T> {
    to_upstream: T,
    to_downstream: T,
}

#[derive(Serialize)]
struct ShownDetail<'a> {
    listener: usize,
    host: Option<&'a str>,
    path: Option<&'a str>,
    user_agent: Option<&'a str>,
    upgrade: Option<&'a str>,
    mode_by: &'static str,
    handshake_ms: Option<f64>,
    inspect: Option<&'static str>,
    violation: Option<&'static str>,
    directions: ByDirection<ShownCounts>,
}

/// Counts of one direction.
#[derive(Serialize)]
struct ShownCounts {
    taken: u64,
    given: u64,
    splice: u64,
    copy: u64,
    uring: u64,
    paused: u32,
    engine_switches: u32,
    fallback: Vec<&'static str>,
}

impl<T> ByDirection<T> {
    fn of(by_direction: [T; 2]) -> ByDirection<T> {
        let [to_upstream, to_downstream] = by_direction;
        ByDirection { to_upstream, to_downstream }
    }
}

impl<'a> Shown<'a> {
    pub fn new(plan: &'a Plan, view: &'a SessionView) -> Shown<'a> {
        let route = plan.config.routes.get(view.route);
        let endpoint = view.endpoint.as_deref();
        let peer = view.peer.map(|peer| peer.ip().to_canonical().to_string());
        let paused = Direction::BOTH.into_iter().zip(view.paused);
        let [to_upstream, to_downstream] = &view.carried;
        Shown {
            id: &view.id,
            worker: view.worker,
            route: route.map_or("", |route| &route.name),
            backend: endpoint.map(|endpoint| endpoint.text()),
            endpoint: endpoint.map(|endpoint| endpoint.address().to_string()),
            client_port: view.peer.filter(|_| view.named.is_none()).map(|peer| peer.port()),
            client_addr: view.named.as_deref().map(str::to_owned).or(peer),
            mode: view.mode.as_str(),
            engine: ByDirection::of(view.engines.map(|engine| engine.as_str())),
            bytes_in: to_upstream.taken(),
            bytes_out: to_downstream.given,
            age_seconds: view.age.as_secs_f64(),
            paused: paused.filter(|(_, is)| *is).map(|(direction, _)| direction.as_str()).collect(),
            half_closed: view.half_closed,
            detail: view.detail.as_deref().map(|detail| ShownDetail::new(view, detail)),
        }
    }
}

impl<'a> ShownDetail<'a> {
    fn new(view: &SessionView, detail: &'a Detail) -> ShownDetail<'a> {
        let counts = view.carried.map(|carried| ShownCounts {
            taken: carried.taken(),
            given: carried.given,
            splice: carried.spliced,
            copy: carried.copied,
            uring: carried.ringed,
            paused: carried.paused,
            engine_switches: carried.switches,
            fallback: carried.reasons.iter().map(|reason| reason.as_str()).collect(),
        });
        ShownDetail {
            listener: detail.listener,
            host: detail.host.as_deref(),
            path: detail.path.as_deref(),
            user_agent: detail.user_agent.as_deref(),
            upgrade: detail.upgrade.as_deref(),
            mode_by: detail.mode_by,
            handshake_ms: detail.handshake.map(|time| time.as_secs_f64() * 1e3),
            inspect: detail.inspect,
            violation: detail.violation.map(|violation| violation.rule.as_str()),
            directions: ByDirection::of(counts),
        }
    }
}

#[derive(Serialize)]
struct ShownRoutes<'a> {
    routes: Vec<ShownRoute<'a>>,
}

#[derive(Serialize)]
struct ShownRoute<'a> {
    name: &'a str,
    host: Option<String>,
    path: &'a str,
    protocols: Vec<&'a str>,
    mode: &'static str,
    to: Vec<&'a str>,
    endpoints: Vec<EndpointView>,
    sessions_open: u64,
    sessions_total: u64,
    /// Requests that did not become a session, by reason.
    failures: BTreeMap<&'static str, u64>,
    /// Sessions that have ended, by reason.
    ended: BTreeMap<&'static str, u64>,
}

/// `GET /v1/routes`
pub(super) fn routes(gateway: &Subject) -> Answer {
    let plan = gateway.plan();
    let upstreams = plan.upstreams.view(&plan.live);
    let routes = plan.live_routes().zip(upstreams).map(|((_, route), upstream)| {
        ShownRoute::new(route, upstream, &gateway.counts_of(&plan, &route.name))
    });
    let routes = routes.collect();
    reply::json(StatusCode::OK, &ShownRoutes { routes })
}

impl<'a> ShownRoute<'a> {
    fn new(route: &'a Route, upstream: UpstreamView, counts: &RouteSnapshot) -> ShownRoute<'a> {
        let ended = counts.ended.iter().fold([0; Kind::WORDS.len()], |mut sum, sort| {
            sum.iter_mut().zip(sort).for_each(|(sum, count)| *sum += count);
            sum
        });
        ShownRoute {
            name: &route.name,
            host: route.host.as_ref().map(|host| match host {
                HostPattern::Exact(name) => name.clone(),
                HostPattern::Suffix(suffix) => format!("*{suffix}"),
            }),
            path: &route.path,
            protocols: match &route.protocols {
                Protocols::Only(named) => named.iter().map(String::as_str).collect(),
                Protocols::Any { also } => {
                    ["any"].into_iter().chain(also.iter().map(String::as_str)).collect()
                }
            },
            mode: route.mode.as_str(),
            to: route.to.iter().map(|endpoint| &*endpoint.text).collect(),
            endpoints: upstream.endpoints,
            sessions_open: counts.open.iter().fold(0, |sum, open| sum.wrapping_add(*open)),
            sessions_total: Sort::ALL.iter().map(|&s| counts.handshakes[s as usize].count()).sum(),
            failures: by_reason(&counts.failed),
            ended: by_reason(&ended),
        }
    }
}

/// Those that there were.
fn by_reason(counts: &[u64; Kind::WORDS.len()]) -> BTreeMap<&'static str, u64> {
    let all = Kind::WORDS.into_iter().zip(counts.iter().copied());
    all.filter(|(_, count)| *count > 0).collect()
}
