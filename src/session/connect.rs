//! Reaches an endpoint of the route, one after the other, each within the `connect` timer, and says what came
//! of it.

use std::io;
use std::net::IpAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::facts::Facts;
use super::plan::Plan;
use super::request::Request;
use super::worker::Worker;
use crate::config::upstreams::{Balance, HashBy};
use crate::error::{End, Kind, Side, Stage};
use crate::http::head::RequestHead;
use crate::sys::Errno;
use crate::sys::net::{Target, start_connect};
use crate::sys::stream::Stream;
use crate::upstream::ejection::Failure;
use crate::upstream::{Address, Endpoint, Upstream, hash};

/// A Unix backlog that is full has no readiness to wait for, so it is tried again after this.
const UNIX_RETRY: Duration = Duration::from_millis(5);

/// An upstream that had less than one part in so many of its window is not to blame when time is up: most of it
/// went to somebody else.
const FAIR_PART: u32 = 2;

/// What the request hashes to, where its route hashes and the request has what is hashed.
pub fn hash_key(facts: &Facts, route: usize, head: &RequestHead) -> Option<u64> {
    let plan = facts.plan();
    let Balance::Hash(by) = &plan.upstreams.route(route).rules().balance else { return None };
    match by {
        HashBy::Client => match facts.named.as_ref().and_then(|named| named.client.as_deref()) {
            // As an address: one client has one key, however its address was written.
            Some(client) => client.parse().ok().map(hash_of_client),
            None => facts.peer.map(|peer| hash_of_client(peer.ip())),
        },
        HashBy::Header(name) => head.fields().all(name).next().map(|value| hash::of(&[value])),
        HashBy::Cookie(name) => {
            hash::cookie(head.fields().all("cookie"), name).map(|value| hash::of(&[value]))
        }
    }
}

fn hash_of_client(client: IpAddr) -> u64 {
    hash::of(&[client.to_canonical().to_string().as_bytes()])
}

/// Connects to the endpoint that the route's rule finds; when it cannot be reached, to another, until each was
/// tried once. The error is the last one's. `facts` hold the one that was tried last, and how many before it,
/// also when the future is dropped because time is up.
pub async fn connect(worker: &Worker, facts: &mut Facts, request: &Request) -> Result<Stream, End> {
    let plan = facts.plan();
    let upstream = plan.upstreams.route(request.route);
    let limit = plan.route(request.route).timeouts.connect;
    let mut tried: Vec<Arc<Endpoint>> = Vec::new();
    let mut last = None;
    while let Some(held) = upstream.choose(request.hash_key, &tried, plan.upstreams.now()) {
        let endpoint = Arc::clone(held.endpoint());
        facts.endpoint = Some(held);
        facts.retries = u16::try_from(tried.len()).unwrap_or(u16::MAX);
        if !tried.is_empty() {
            upstream.retried();
        }
        let reach = reach(worker, &plan, upstream, &endpoint);
        let reached = worker.kit.reactor.timeout(limit, pin!(reach)).await;
        let kind = match reached {
            Some(Ok(stream)) => {
                upstream.connected(&endpoint);
                return Ok(stream);
            }
            Some(Err(source)) => {
                if !is_ours(&source) {
                    upstream.failed(&endpoint, Failure::Connect, plan.upstreams.now());
                }
                match source.kind() {
                    io::ErrorKind::AddrNotAvailable => Kind::NoLocalPort,
                    _ => Kind::Io { call: "connect", source },
                }
            }
            None => {
                upstream.failed(&endpoint, Failure::Connect, plan.upstreams.now());
                Kind::ConnectTimeout
            }
        };
        last = Some(kind);
        tried.push(endpoint);
    }
    if tried.is_empty() && upstream.is_drained() {
        return Err(End::new(Side::Proxy, Stage::Connect, Kind::Drained));
    }
    let nowhere = || Kind::Io { call: "connect", source: io::ErrorKind::AddrNotAvailable.into() };
    let kind = last.unwrap_or_else(nowhere);
    let side = if matches!(kind, Kind::NoLocalPort) { Side::Proxy } else { Side::Upstream };
    Err(End::new(side, Stage::Connect, kind))
}

/// The `handshake` timer ended while an endpoint was being connected, since `began`.
pub fn ran_out(facts: &Facts, route: usize, began: Instant) {
    let plan = facts.plan();
    let limit = plan.route(route).timeouts.connect;
    if let Some(held) = facts.endpoint.as_ref().filter(|_| began.elapsed() >= limit / FAIR_PART) {
        let now = plan.upstreams.now();
        plan.upstreams.route(route).failed(held.endpoint(), Failure::Connect, now);
    }
}

/// What came of the request that the endpoint was sent, since `began`: `end` is why there is no answer.
pub fn heard(facts: &Facts, route: usize, began: Instant, end: Option<&End>) {
    let plan = facts.plan();
    let Some(held) = &facts.endpoint else { return };
    let upstream = plan.upstreams.route(route);
    let window = plan.route(route).timeouts.handshake;
    match end {
        None => upstream.answered(held.endpoint()),
        Some(End { side: Side::Upstream, kind, .. }) => {
            let is_fair =
                !matches!(kind, Kind::HandshakeTimeout) || began.elapsed() >= window / FAIR_PART;
            if is_fair {
                upstream.failed(held.endpoint(), Failure::Answer, plan.upstreams.now());
            }
        }
        // The client went away, or the gateway stops: that says nothing.
        Some(_) => {}
    }
}

/// Whether a connect failed for want of something on this machine.
fn is_ours(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::AddrNotAvailable
        || matches!(Errno::of(error), Errno::NoDescriptors | Errno::NoBuffers)
}

/// Connects to one endpoint, from one local address after the other while they have no port left.
async fn reach(
    worker: &Worker,
    plan: &Plan,
    upstream: &Upstream,
    endpoint: &Endpoint,
) -> io::Result<Stream> {
    let address = match endpoint.address() {
        Address::Unix(path) => return open(worker, Target::Unix(path), None).await,
        Address::Tcp(address) => *address,
    };
    let target = Target::Tcp(address, &plan.tcp);
    let mut sources = upstream.sources(address);
    let mut source = sources.next();
    loop {
        let opened = open(worker, target, source).await;
        match opened {
            Err(error) if error.kind() == io::ErrorKind::AddrNotAvailable => {
                upstream.no_port(endpoint, source, plan.upstreams.now());
                source = sources.next();
                if source.is_none() {
                    return Err(error);
                }
            }
            opened => return opened,
        }
    }
}

async fn open(worker: &Worker, target: Target<'_>, source: Option<IpAddr>) -> io::Result<Stream> {
    loop {
        match start_connect(target, source) {
            Ok(socket) => {
                let stream = Stream::new(socket, &worker.kit.reactor)?;
                stream.connected().await?;
                return Ok(stream);
            }
            Err(error)
                if Errno::of(&error) == Errno::Again && matches!(target, Target::Unix(_)) =>
            {
                worker.kit.reactor.sleep_until(Instant::now() + UNIX_RETRY).await;
            }
            Err(error) => return Err(error),
        }
    }
}
