//! What a route asks of an upgrade before anything is connected: the page it comes from, the mode of the
//! session, the handshake.

use super::facts::Facts;
use super::mode;
use super::worker::Worker;
use crate::config::{Mode, Route};
use crate::http::head::RequestHead;
use crate::http::origin;
use crate::http::reject::Refusal;
use crate::http::upgrade::{Ask, Policy, Subprotocols};
use crate::metrics::Engine;
use crate::route;
use crate::sys::random;

/// Judges a request for the route with this index, of the protocols that the client offers.
pub fn admit(
    worker: &Worker,
    facts: &mut Facts,
    head: &RequestHead<'_>,
    index: usize,
    offered: &[&str],
) -> Result<Ask, Refusal> {
    let route = &worker.config.routes[index];
    if let Some(origins) = &route.origins {
        origin::check(head.fields(), origins)?;
    }
    let controllers = &worker.config.gateway.trusted_controllers;
    let controls = controllers.trust(facts.peer.map(|peer| peer.ip()));
    let chosen = mode::choose(route, head.fields(), controls)?;
    if let Some(route) = &mut facts.route {
        route.chosen = chosen;
    }
    let mut tokens: Vec<&str> = route::filter(&route.protocols, offered).collect();
    if chosen.mode == Mode::Inspect {
        // Frames of nothing else can be read, and not where a ring receives them.
        tokens.retain(|token| token.eq_ignore_ascii_case("websocket"));
        if tokens.is_empty() || worker.carriage[index].engine == Engine::Uring {
            return Err(Refusal::new(400, "cannot_inspect"));
        }
    }
    Ask::new(head, &tokens, &policy(worker, route, chosen.mode))
}

fn policy<'r>(worker: &Worker, route: &'r Route, mode: Mode) -> Policy<'r> {
    let inspects = mode == Mode::Inspect;
    let config = &worker.config;
    Policy {
        websocket_strict: route.websocket_strict || inspects,
        lenient_connection: route.lenient_connection,
        empty_host: route.empty_host,
        // A path that hides another one is as bad where it leads round a route as where it leads into one.
        plain_path: config.routes.iter().any(|route| route.path != "/"),
        body_bytes_max: config.gateway.limits.body_bytes_max,
        rekey: route.rekey.then(random::bytes),
        subprotocols: match &route.subprotocols {
            Some(allowed) => Subprotocols::Only(allowed),
            None if inspects => Subprotocols::Any,
            None => Subprotocols::Opaque,
        },
    }
}
