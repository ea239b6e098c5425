//! What is asked of an upgrade before anything is connected: the page it comes from, the mode of the session, the
//! handshake, the extensions, and that there is room for one more.

use super::facts::Facts;
use super::limiter::clients::Client;
use super::mode;
use super::plan::Plan;
use super::worker::Worker;
use crate::config::inspection::Deflate;
use crate::config::{Mode, Route};
use crate::error::Kind;
use crate::http::head::RequestHead;
use crate::http::origin;
use crate::http::reject::Refusal;
use crate::http::upgrade::{Ask, Policy, Subprotocols};
use crate::metrics::Engine;
use crate::route;
use crate::sys::random;
use crate::ws::extensions;

/// A request that may go upstream.
pub struct Admitted {
    /// What is asked of the upstream.
    pub ask: Ask,
    /// The extensions that are offered along with it, when the session will be inspected: only what is understood
    /// (rule W10). In other modes they are nobody's business.
    pub extensions: Option<extensions::Offer>,
}

/// Judges a request for the route with this index, of the protocols that the client offers.
pub fn admit(
    worker: &Worker,
    facts: &mut Facts,
    head: &RequestHead<'_>,
    index: usize,
    offered: &[&str],
) -> Result<Admitted, Refusal> {
    let plan = facts.plan();
    let route = plan.route(index);
    if let Some(origins) = &route.origins {
        origin::check(head.fields(), origins)?;
    }
    let controllers = &plan.config.gateway.trusted_controllers;
    let controls = controllers.trust(facts.peer.map(|peer| peer.ip()));
    let chosen = mode::choose(route, head.fields(), controls)?;
    if let Some(route) = &mut facts.route {
        route.chosen = chosen;
    }
    let mut tokens: Vec<&str> = route::filter(&route.protocols, offered).collect();
    if chosen.mode == Mode::Inspect {
        // Frames of nothing else can be read, and not where a ring receives them.
        tokens.retain(|token| token.eq_ignore_ascii_case("websocket"));
        if tokens.is_empty() || plan.carriage[index].engine == Engine::Uring {
            return Err(Refusal::new(400, "cannot_inspect"));
        }
    }
    let mut ask = Ask::new(head, &tokens, &policy(&plan, route, chosen.mode))?;
    let mut extensions = None;
    if chosen.mode == Mode::Inspect {
        let lines = head.fields().all("sec-websocket-extensions");
        let offer = extensions::Offer::read(lines, deflate(worker, route))
            .map_err(|rule| Refusal::new(400, rule))?;
        ask.offer_extensions(offer.field());
        extensions = Some(offer);
    }
    Ok(Admitted { ask, extensions })
}

/// Lets an accepted connection begin its exchange. A proxy is not the client: who is, its request will say.
///
/// # Errors
///
/// The limit that is in the way.
pub fn enter(facts: &mut Facts) -> Result<(), Kind> {
    let plan = facts.plan();
    let gateway = &plan.config.gateway;
    let direct = facts.peer.map(|peer| peer.ip()).filter(|peer| !gateway.trusts(*peer));
    let client = direct.map(|address| Client::of(address, &gateway.admission.client));
    facts.pass = Some(plan.limiter.enter(client, &gateway.admission)?);
    Ok(())
}

/// Gives an admitted request a place among the sessions, before anything is connected for it.
///
/// # Errors
///
/// The limit that is in the way.
pub fn take_place(facts: &mut Facts, route: usize) -> Result<(), Kind> {
    let plan = facts.plan();
    let gateway = &plan.config.gateway;
    let limits = &gateway.admission;
    let direct = facts.peer.map(|peer| peer.ip()).filter(|peer| !gateway.trusts(*peer));
    let named = facts.named.as_ref().and_then(|named| named.client.as_deref());
    let address = direct.or_else(|| named?.parse().ok());
    let client = address.map(|address| Client::of(address, &limits.client));
    let route = plan.route(route);
    match &mut facts.pass {
        Some(pass) => pass.admit(client, (&route.name, &route.admission), limits),
        None => unreachable!("it has entered"),
    }
}

/// What becomes of an offer of compression: taken out when there will be no inflater to see through it.
fn deflate(worker: &Worker, route: &Route) -> Deflate {
    match route.inspection.deflate {
        Deflate::SeeThrough if worker.inflaters.is_near_full() => Deflate::Strip,
        policy => policy,
    }
}

fn policy<'r>(plan: &Plan, route: &'r Route, mode: Mode) -> Policy<'r> {
    let inspects = mode == Mode::Inspect;
    Policy {
        websocket_strict: route.websocket_strict || inspects,
        lenient_connection: route.lenient_connection,
        empty_host: route.empty_host,
        // A path that hides another one is as bad where it leads round a route as where it leads into one.
        plain_path: plan.live_routes().any(|(_, route)| route.path != "/"),
        body_bytes_max: plan.config.gateway.limits.body_bytes_max,
        rekey: route.rekey.then(random::bytes),
        subprotocols: match &route.subprotocols {
            Some(allowed) => Subprotocols::Only(allowed),
            None if inspects => Subprotocols::Any,
            None => Subprotocols::Opaque,
        },
    }
}
