//! Reads the request head, judges it, finds its route, and writes the head that goes upstream.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::{Instant, SystemTime};

use ulid::Ulid;

use super::admit::{Admitted, admit, take_place};
use super::connect::hash_key;
use super::facts::{Asked, Facts, Named};
use super::input::Input;
use super::worker::Worker;
use super::{Leave, Parting, plain, spans, untrusted};
use crate::error::{End, Kind, Side, Stage};
use crate::http::fields::{self, Arrival, TraceHop};
use crate::http::head::{HeadKind, HeadScanner, RequestHead, ResponseHead};
use crate::http::reject::{self, Refusal};
use crate::http::target;
use crate::http::traceparent::TraceParent;
use crate::http::upgrade::{Ask, Offer};
use crate::metrics::UpgradeResult;
use crate::route::Found;
use crate::sys::stream::Stream;
use crate::ws::extensions::{self, Agreement};

/// A request that may go upstream.
pub struct Request {
    /// Index of its route.
    pub route: usize,
    /// What its choice of an endpoint hashes to, where it does.
    pub hash_key: Option<u64>,
    /// What was asked for, to judge the answer by.
    pub ask: Ask,
    /// What was offered of extensions, when the session will be inspected.
    extensions: Option<extensions::Offer>,
    /// HEAD has answers without a body.
    pub method: Box<str>,
    /// The filtered head, and the body once it is complete.
    pub upstream_bytes: Vec<u8>,
    /// Bytes of the body that are still to come.
    body_missing: usize,
    /// What came beyond head and body: held until a valid 101 (rule U1).
    held: Input,
}

/// Reads and judges the head. Reads no further than the chunk that completes it (rule U1).
pub async fn read(
    worker: &Worker,
    facts: &mut Facts,
    downstream: &Stream,
) -> Result<Request, Leave> {
    let plan = facts.plan();
    let limits = &plan.config.gateway.limits;
    let mut input = Input::holding(limits.head_data_bytes_max);
    let mut scanner = HeadScanner::new(limits, HeadKind::Request);
    // Most clients have sent their head by the time they are accepted: look before waiting.
    let mut early = input.read_now(downstream, 1);
    let head_len = loop {
        let read = match early.take() {
            Some(read) => read,
            None => input.read_more(downstream, 1).await,
        };
        match read {
            Ok(0) => return Err(gone(None, "recv", !input.bytes().is_empty())),
            Ok(_) => {}
            Err(error) => return Err(gone(Some(error), "recv", true)),
        }
        match scanner.scan(input.bytes()) {
            Ok(Some(len)) => break len,
            Ok(None) => {}
            Err(refusal) => return Err(refused(worker, facts, refusal)),
        }
    };
    let head = input.cut(head_len);
    let mut request = judge(worker, facts, &head, input)?;
    request.take_body();
    Ok(request)
}

/// Everything between the blank line and the connect: needs no socket.
fn judge(
    worker: &Worker,
    facts: &mut Facts,
    head_bytes: &[u8],
    held: Input,
) -> Result<Request, Leave> {
    let plan = facts.plan();
    let gateway = &plan.config.gateway;
    let head = match RequestHead::parse(head_bytes, &gateway.limits) {
        Ok(head) => head,
        Err(refusal) => return Err(refused(worker, facts, refusal)),
    };
    note(facts, &head);
    let trusted = facts.peer.is_some_and(|peer| gateway.trusts(peer.ip()));
    untrusted::look(gateway, facts.peer.map(|peer| peer.ip()), &head);
    let theirs = TraceParent::of(head.fields());
    facts.trace = spans::place(worker, theirs, trusted).map(Box::new);
    let offer = Offer::of(&head).map_err(|refusal| refused(worker, facts, refusal))?;
    if offer.tokens.is_empty() {
        return Err(plain::answer(worker, facts, &head));
    }
    let find = |path: &str| plan.routes.find(head.route_host(), path, &offer.tokens);
    let found = find(head.route_path());
    if found != find(&target::as_understood(head.route_path())) {
        return Err(refused(worker, facts, Refusal::new(400, "path_hides_route")));
    }
    let index = match found {
        Found::Route(index) => index,
        Found::NoRoute => return Err(plain::no_route(worker, facts)),
        Found::ProtocolRefused { route, allowed } => {
            facts.note_route(route);
            return Err(plain::upgrade_required(worker, facts, allowed, "protocol_not_allowed"));
        }
    };
    facts.note_route(index);
    let route = plan.route(index);
    if worker.drains.refuses(&route.name) {
        worker.counters.upgrade(UpgradeResult::Refused);
        let end = End::new(Side::Proxy, Stage::Request, Kind::Drained);
        return Err(Leave::telling(facts, end));
    }
    if !offer.connected && !route.lenient_connection {
        return Err(plain::answer(worker, facts, &head));
    }
    let Admitted { ask, extensions } = admit(worker, facts, &head, index, &offer.tokens)
        .map_err(|refusal| refused(worker, facts, refusal))?;

    if trusted {
        name_client(facts, &head);
    }
    take_place(facts, index).map_err(|kind| over_limit(worker, facts, kind))?;
    let hash_key = hash_key(facts, index, &head);
    let id = facts.id.to_string();
    let hop = facts
        .trace
        .as_ref()
        .filter(|_| worker.tracer.is_some())
        .map(|place| TraceHop { parent: place.at, is_continued: place.parent.is_some() });
    let arrival = Arrival {
        peer: facts.peer,
        local_port: plan.ports[usize::from(facts.listener)],
        trusted,
        name: &gateway.name,
        request_id: &id,
        trace: hop,
    };
    let mut upstream_bytes = Vec::with_capacity(head_bytes.len() + 512);
    fields::write_request(&head, &ask, &arrival, &mut upstream_bytes)
        .map_err(|refusal| refused(worker, facts, refusal))?;
    let body_missing = usize::try_from(ask.body_len()).expect("bounded by the limit of bodies");
    let method = head.method().into();
    Ok(Request {
        route: index,
        hash_key,
        ask,
        extensions,
        method,
        upstream_bytes,
        body_missing,
        held,
    })
}

/// Notes for the log and the operator what was asked, without what is to be hidden. Query strings are left out: they
/// hold tokens.
fn note(facts: &mut Facts, head: &RequestHead<'_>) {
    let plan = facts.plan();
    let rules = &plan.config.gateway.log;
    let user_agent = head.fields().only("user-agent").ok();
    facts.asked = Some(Box::new(Asked {
        method: head.method().into(),
        host: rules.redacted(head.route_host().unwrap_or_default()),
        path: rules.redacted(head.path()),
        user_agent: user_agent.map(|value| rules.redacted(&String::from_utf8_lossy(value))),
        upgrade: None,
    }));
}

/// The client and the request's id as a trusted peer tells them: the last address in `X-Forwarded-For` that
/// is no proxy of ours.
fn name_client(facts: &mut Facts, head: &RequestHead<'_>) {
    let plan = facts.plan();
    let fields = head.fields();
    let addresses: Vec<&str> =
        fields.list("x-forwarded-for").filter_map(|value| str::from_utf8(value).ok()).collect();
    let is_proxy = |address: &str| {
        address.parse::<IpAddr>().is_ok_and(|address| plan.config.gateway.trusts(address))
    };
    let client = addresses
        .iter()
        .rev()
        .find(|address| !is_proxy(address))
        .filter(|address| address.parse::<IpAddr>().is_ok())
        .map(|&address| address.into());
    let request_id = fields
        .only("x-request-id")
        .ok()
        .filter(|id| fields::is_request_id(id))
        .and_then(|id| str::from_utf8(id).ok())
        .map(|id| plan.config.gateway.log.redacted(id));
    facts.named = Some(Box::new(Named { client, request_id }));
}

impl Request {
    /// Reads what is missing of the body: it goes upstream as a whole (rules U1, H1).
    pub async fn complete_body(&mut self, downstream: &Stream) -> Result<(), Leave> {
        if self.body_missing > 0 && self.ask.expects_continue() {
            // The client waits for this word before it sends its body, and the upstream gets both at once.
            let sent = downstream.send_all(b"HTTP/1.1 100 Continue\r\n\r\n").await;
            sent.map_err(|error| gone(Some(error), "send", true))?;
        }
        while self.body_missing > 0 {
            match self.held.read_more(downstream, self.body_missing).await {
                Ok(0) => return Err(gone(None, "recv", true)),
                Ok(_) => self.take_body(),
                Err(error) => return Err(gone(Some(error), "recv", true)),
            }
        }
        Ok(())
    }

    /// Whether the session will be inspected once it is joined.
    pub fn is_inspected(&self) -> bool {
        self.extensions.is_some()
    }

    /// The extension that this 101 agrees to; `None` also where nobody will look at frames.
    ///
    /// # Errors
    ///
    /// The rule that the upstream broke: it chose what was not offered, or wrongly (rule W10).
    pub fn agreement(&self, head: &ResponseHead<'_>) -> Result<Option<Agreement>, &'static str> {
        match &self.extensions {
            Some(offer) => offer.accept(head.fields().all("sec-websocket-extensions")),
            None => Ok(None),
        }
    }

    /// What the client sent beyond its request: head data, once there is a tunnel.
    pub fn head_data(self) -> Vec<u8> {
        self.held.into_rest()
    }

    fn take_body(&mut self) {
        let here = self.body_missing.min(self.held.bytes().len());
        let body = self.held.cut(here);
        self.upstream_bytes.extend_from_slice(&body);
        self.body_missing -= here;
    }
}

impl Facts {
    /// What is known at accept.
    pub fn new(peer: Option<SocketAddr>, listener: u16) -> Facts {
        let millis = SystemTime::now()
            .duration_since(SystemTime::UNIX_EPOCH)
            .map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX));
        Facts {
            id: Ulid::from_parts(millis, fastrand::u128(..)),
            listener,
            plan: None,
            route: None,
            endpoint: None,
            pass: None,
            peer,
            named: None,
            asked: None,
            packed: None,
            trace: None,
            status: None,
            accepted: Instant::now(),
            handshake: None,
            retries: 0,
        }
    }
}

/// The `handshake` timer ended before the head was complete.
pub fn late(facts: &mut Facts) -> Leave {
    let end = End::new(Side::Downstream, Stage::Request, Kind::HandshakeTimeout);
    Leave::telling(facts, end)
}

/// The answer to a request that breaks a rule: say which, then close (rule U7).
fn refused(worker: &Worker, facts: &mut Facts, refusal: Refusal) -> Leave {
    worker.counters.upgrade(UpgradeResult::Refused);
    facts.status = Some(refusal.status);
    let answer = reject::refusal(&refusal, &facts.plan().config.gateway.name);
    let end = End::new(Side::Downstream, Stage::Request, Kind::Refused(refusal.rule));
    Leave { end, parting: Parting::Say(answer) }
}

/// There is no room for it, or it comes too early.
pub fn over_limit(worker: &Worker, facts: &mut Facts, kind: Kind) -> Leave {
    worker.counters.upgrade(UpgradeResult::Refused);
    Leave::telling(facts, End::new(Side::Proxy, Stage::Request, kind))
}

/// The client closed or was reset before its request was complete.
fn gone(error: Option<io::Error>, call: &'static str, begun: bool) -> Leave {
    let end = match (error, begun) {
        (Some(error), _) => End::io(Side::Downstream, Stage::Request, call, error),
        (None, true) => End::new(Side::Downstream, Stage::Request, Kind::Truncated),
        (None, false) => End::new(Side::Downstream, Stage::Request, Kind::NoRequest),
    };
    Leave { end, parting: Parting::Quiet }
}
