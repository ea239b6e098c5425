//! The two spans of a session: its handshake, by the conventions of OpenTelemetry for HTTP servers, and what came of
//! it. Nothing is in them that the log line may not have.

use std::time::SystemTime;

use super::facts::Facts;
use super::log::{bytes, engine_word, told_client};
use super::plan::Plan;
use super::worker::Worker;
use crate::error::{End, Kind};
use crate::http::traceparent::TraceParent;
use crate::relay::Relay;
use crate::trace::{Place, Span, Tracer, Value};

/// Methods that are well known; others would be names that a client makes up.
const METHODS: [&str; 9] =
    ["GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH"];

type Attributes = Vec<(&'static str, Value)>;

/// Sends the span of a handshake that is over: with the 101, or for the reason in `end`.
pub(super) fn handshake(worker: &Worker, plan: &Plan, facts: &Facts, end: Option<&End>) {
    let Some(tracer) = &worker.tracer else { return };
    let asked_nothing = end.is_some_and(|end| matches!(end.kind, Kind::NoRequest));
    let place = facts.trace.as_deref().copied().unwrap_or_else(|| tracer.place(None, false));
    if asked_nothing || !place.at.is_sampled() {
        return;
    }
    let now = SystemTime::now();
    let age = facts.accepted.elapsed();
    let lasted = facts.handshake.filter(|_| end.is_none()).unwrap_or(age);
    // By the conventions a client's mistake is no error of the server.
    let failed = end.filter(|_| facts.status.is_none_or(|status| status >= 500));
    let mut attributes = request(plan, facts);
    if let Some(end) = failed {
        // What an upstream has answered is known by its number.
        let status = facts.status.filter(|_| matches!(end.kind, Kind::Answered));
        let word = status.map_or_else(|| end.kind.as_str().to_owned(), |status| status.to_string());
        attributes.push(("error.type", word.into()));
    }
    if let Some(end) = end {
        attributes.push(("upsplice.close.reason", end.kind.as_str().into()));
    }
    let start = now - age;
    let Place { at, parent, link } = place;
    send(
        worker,
        tracer,
        Span {
            name: name(plan, facts),
            place: at,
            parent,
            link,
            is_server: true,
            start,
            end: start + lasted,
            attributes,
            error: failed.map(End::to_string),
        },
    );
}

/// Sends the span of a session that has ended.
pub(super) fn session(worker: &Worker, plan: &Plan, facts: &Facts, relay: &Relay, end: &End) {
    let (Some(tracer), Some(place)) = (&worker.tracer, facts.trace.as_deref()) else { return };
    if !place.at.is_sampled() {
        return;
    }
    let now = SystemTime::now();
    let lasted = facts.accepted.elapsed().saturating_sub(facts.handshake.unwrap_or_default());
    let [received, sent] = bytes(relay);
    let mut attributes = common(plan, facts);
    attributes.extend([
        ("upsplice.mode", facts.route.map_or("", |route| route.chosen.mode.as_str()).into()),
        ("upsplice.engine", engine_word(relay).into()),
        ("upsplice.bytes.received", received.into()),
        ("upsplice.bytes.sent", sent.into()),
        ("upsplice.close.reason", end.kind.as_str().into()),
        ("upsplice.close.side", end.side.as_str().into()),
    ]);
    let is_failure = matches!(end.kind, Kind::Io { .. } | Kind::Violation(_) | Kind::EngineRefused);
    send(
        worker,
        tracer,
        Span {
            name: "upsplice.session".to_owned(),
            place: Tracer::root_beside(place.at),
            parent: None,
            link: Some(place.at),
            is_server: false,
            start: now - lasted,
            end: now,
            attributes,
            error: is_failure.then(|| end.to_string()),
        },
    );
}

/// The trace that goes on upstream, for the log.
pub(super) fn trace_id(facts: &Facts) -> Option<String> {
    facts.trace.as_ref().map(|place| format!("{:032x}", place.at.trace_id))
}

/// Where a request belongs whose `traceparent` was valid, or was not; `None` when nobody can tell.
pub(super) fn place(worker: &Worker, theirs: Option<TraceParent>, trusted: bool) -> Option<Place> {
    match &worker.tracer {
        Some(tracer) => Some(tracer.place(theirs, trusted)),
        None => theirs.map(|at| Place { at, parent: None, link: None }),
    }
}

fn send(worker: &Worker, tracer: &Tracer, span: Span) {
    if !tracer.send(span) {
        worker.counters.spans_dropped.add(1);
    }
}

/// The method and the route, which a client cannot make up.
fn name(plan: &Plan, facts: &Facts) -> String {
    let method = facts.texts().method.map_or("HTTP", known);
    match facts.route_index() {
        Some(index) => format!("{method} {}", plan.route(index).path),
        None => method.to_owned(),
    }
}

fn known(method: &str) -> &'static str {
    METHODS.into_iter().find(|known| *known == method).unwrap_or("_OTHER")
}

/// What both spans have.
fn common(plan: &Plan, facts: &Facts) -> Attributes {
    let mut attributes: Attributes = vec![("upsplice.session.id", facts.id.to_string().into())];
    if let Some(index) = facts.route_index() {
        attributes.push(("upsplice.route", plan.route(index).name.as_str().into()));
    }
    if let Some(held) = &facts.endpoint {
        attributes.push(("upsplice.endpoint", held.endpoint().address().to_string().into()));
    }
    attributes
}

fn request(plan: &Plan, facts: &Facts) -> Attributes {
    let rules = &plan.config.gateway.log;
    let asked = facts.texts();
    let mut attributes = common(plan, facts);
    let mut note = |name, value: Option<Value>| {
        attributes.extend(value.map(|value| (name, value)));
    };
    let text = |field, text: Option<&str>| text.filter(|_| rules.tells(field)).map(Value::from);
    note("http.request.method", asked.method.map(|method| known(method).into()));
    note("url.scheme", Some("http".into()));
    note("url.path", text("path", asked.path));
    note("server.address", text("host", asked.host));
    let port = plan.ports[usize::from(facts.listener)];
    note("server.port", port.map(|port| u64::from(port).into()));
    note("user_agent.original", text("user_agent", asked.user_agent));
    note("client.address", told_client(plan, facts).map(Value::from));
    note("network.protocol.name", Some("http".into()));
    note("network.protocol.version", asked.method.map(|_| "1.1".into()));
    note("http.response.status_code", facts.status.map(|status| u64::from(status).into()));
    let route = facts.route_index().map(|index| &plan.route(index).path);
    note("http.route", route.map(|path| path.as_str().into()));
    note("upsplice.upgrade", asked.upgrade.map(Value::from));
    attributes
}
