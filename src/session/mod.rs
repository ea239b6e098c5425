//! One downstream connection, from accept to close.
//!
//! [`run`] is the way of a session until its sockets are joined; [`joined`] is the rest of its life.

pub mod access_log;
pub mod facts;
pub mod joined;
pub mod limiter;
pub mod load;
pub mod mode;
pub mod plan;
pub mod question;
pub mod registry;
pub mod timers;
pub mod worker;

mod admit;
mod answer;
mod connect;
pub mod depart;
pub mod drains;
mod farewell;
mod input;
mod log;
mod log_file;
mod plain;
mod request;
mod response;
mod spans;
mod untrusted;

use std::future::{Future, poll_fn};
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::os::fd::OwnedFd;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::time::Instant;

use self::facts::Facts;
use self::response::Verdict;
use self::worker::{Open, Worker};
use crate::error::{End, Kind, Side, Stage};
use crate::http::reject;
use crate::metrics::{Direction, Engine, UpgradeResult};
use crate::relay::{Framed, Relay, Way};
use crate::sys::stream::Stream;

/// Carries an accepted connection to its end, or to the relay that goes on with it.
pub async fn run(open: Open, socket: OwnedFd, peer: Option<SocketAddr>, listener: u16) {
    let worker = open.worker();
    let mut facts = Box::new(Facts::new(peer, listener));
    facts.plan = Some(worker.plan());
    let outcome = match Stream::new(socket, &worker.kit.reactor) {
        Ok(downstream) => {
            unless_stopped(worker, pin!(exchange(worker, &mut facts, downstream))).await
        }
        Err(source) => {
            let kind = Kind::Io { call: "epoll_ctl", source };
            Err(End::new(Side::Proxy, Stage::Request, kind))
        }
    };
    match outcome {
        Ok(relay) => {
            let route = worker.counters.route(facts.route_index());
            route.joined(facts.sort(), facts.handshake.unwrap_or_default());
            log::opened(worker, &facts);
            joined::start(worker, facts, relay);
        }
        Err(end) => log::ended(worker, &facts, None, &end),
    }
}

/// Seconds after which a client that was refused may ask again: by chance, so that they do not come all at once.
const RETRY_AFTER: RangeInclusive<u32> = 1..=10;

/// What ends an exchange without a tunnel, and what the client is told.
struct Leave {
    end: End,
    parting: Parting,
}

/// How the client is left.
enum Parting {
    /// With this complete response.
    Say(Vec<u8>),
    /// With nothing more: all has been said, or there is nobody to tell.
    Quiet,
    /// With a reset: what was said is not all there is.
    Reset,
}

impl Leave {
    /// An end that the client is told about, as [`reject::status_for`] says.
    fn telling(facts: &mut Facts, end: End) -> Leave {
        let status = reject::status_for(&end);
        facts.status = status;
        let name = &facts.plan().config.gateway.name;
        let parting = match status {
            Some(_) if matches!(end.kind, Kind::Drained) => {
                let seconds = fastrand::u32(RETRY_AFTER);
                Parting::Say(reject::drained(seconds, name))
            }
            Some(status) => Parting::Say(reject::failure(status, &end, name)),
            None => Parting::Quiet,
        };
        Leave { end, parting }
    }
}

/// From the first byte to two sockets that can be joined.
async fn exchange(worker: &Worker, facts: &mut Facts, downstream: Stream) -> Result<Relay, End> {
    let switched = switch(worker, facts, &downstream).await;
    if let Some(pass) = &mut facts.pass {
        pass.end_exchange();
        // Before the parting, which takes as long as the client likes.
        if switched.is_err() {
            pass.end_session();
        }
    }
    match switched {
        Ok(Switched { upstream, to_upstream, to_downstream, framed }) => {
            let ways = [to_upstream, to_downstream];
            let kit = Rc::clone(&worker.kit);
            Ok(match framed {
                Some(framed) => Relay::join_framed(downstream, upstream, ways, framed, kit),
                None => Relay::join(downstream, upstream, ways, kit),
            })
        }
        Err(Leave { end, parting }) => {
            let reactor = &worker.kit.reactor;
            let to_head = facts.asked.as_ref().is_some_and(|asked| &*asked.method == "HEAD");
            match parting {
                Parting::Say(answer) if to_head => {
                    farewell::say(reactor, &downstream, Some(&reject::without_body(answer))).await;
                }
                Parting::Say(answer) => farewell::say(reactor, &downstream, Some(&answer)).await,
                Parting::Quiet => farewell::say(reactor, &downstream, None).await,
                Parting::Reset => downstream.reset_on_close(),
            }
            Err(end)
        }
    }
}

/// An upstream that granted what was asked, and what each side is owed.
struct Switched {
    upstream: Stream,
    to_upstream: Way,
    to_downstream: Way,
    /// What follows its frames, in mode `inspect`.
    framed: Option<Box<Framed>>,
}

/// The exchange proper: read head, route, connect, send head, read answer, judge it.
async fn switch(
    worker: &Worker,
    facts: &mut Facts,
    downstream: &Stream,
) -> Result<Switched, Leave> {
    let reactor = &worker.kit.reactor;
    admit::enter(facts).map_err(|kind| request::over_limit(worker, facts, kind))?;
    let plan = facts.plan();
    let by = deadline(facts, plan.handshake_longest());
    let request = reactor.timeout_at(by, pin!(request::read(worker, facts, downstream))).await;
    let mut request = request.unwrap_or_else(|| Err(request::late(facts)))?;

    let by = deadline(facts, plan.route(request.route).timeouts.handshake);
    match reactor.timeout_at(by, pin!(request.complete_body(downstream))).await {
        Some(complete) if Instant::now() < by => complete?,
        // Its body is late, or it had used up its time before its route was known.
        _ => return Err(request::late(facts)),
    }

    let began = Instant::now();
    let connected = reactor.timeout_at(by, pin!(connect::connect(worker, facts, &request))).await;
    if connected.is_none() {
        connect::ran_out(facts, request.route, began);
    }
    let upstream = connected
        .unwrap_or_else(|| Err(response::late(Stage::Connect)))
        .map_err(|end| response::failed(worker, facts, end))?;

    let began = Instant::now();
    let answer = response::read(worker, facts, &request, downstream, upstream);
    let answered = reactor.timeout_at(by, pin!(answer)).await;
    let verdict = match answered {
        Some(verdict) => verdict,
        None => Err(response::failed(worker, facts, response::late(Stage::Response))),
    };
    connect::heard(facts, request.route, began, verdict.as_ref().err().map(|l| &l.end));
    let verdict = verdict?;

    match verdict {
        Verdict::Switch { upstream, head_data, sent, agreement } => {
            worker.counters.upgrade(UpgradeResult::Switched);
            facts.handshake = Some(facts.accepted.elapsed());
            let carriage = plan.carriage[request.route];
            let route = plan.route(request.route);
            let is_inspected = request.is_inspected();
            let mut head_data = [request.head_data(), head_data];
            let framed = is_inspected.then(|| {
                let head_data = std::mem::take(&mut head_data);
                let policy = Arc::clone(&route.inspection);
                Box::new(Framed::new(policy, agreement.as_ref(), &worker.inflaters, head_data))
            });
            let [to_upstream, to_downstream] = head_data;
            let to_upstream = carriage.way(to_upstream, 0);
            let to_downstream = carriage.way(to_downstream, sent);
            for (way, direction) in [&to_upstream, &to_downstream].into_iter().zip(Direction::BOTH)
            {
                let half = way.half();
                worker.counters.moved(
                    facts.route_index(),
                    Engine::Copy,
                    direction,
                    half.given() + half.held(),
                );
            }
            Ok(Switched { upstream, to_upstream, to_downstream, framed })
        }
        Verdict::Answer { upstream, answer } => {
            worker.counters.upgrade(UpgradeResult::Answered);
            let idle = plan.route(request.route).timeouts.idle;
            Err(answer::relay(reactor, &upstream, downstream, answer, idle).await)
        }
    }
}

/// The `handshake` timer counts from accept, whatever was reached meanwhile.
fn deadline(facts: &Facts, handshake: std::time::Duration) -> Instant {
    facts.accepted + handshake
}

/// Runs an exchange until it is over or the worker stops.
async fn unless_stopped<T>(
    worker: &Worker,
    mut exchange: Pin<&mut impl Future<Output = Result<T, End>>>,
) -> Result<T, End> {
    let mut stopping = pin!(worker.stopping.notified());
    poll_fn(|cx| {
        if worker.stopped.get() || stopping.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Err(End::new(Side::Proxy, Stage::Request, Kind::Stopped)));
        }
        exchange.as_mut().poll(cx)
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of a task that is `spawned` for each connection: in bytes.
    fn size_of_task<F>(_spawned: impl Fn(Open, OwnedFd, Option<SocketAddr>, u16) -> F) -> usize {
        size_of::<F>()
    }

    /// It is moved several times, and held for as long as a client takes for its request.
    #[test]
    fn the_task_of_an_exchange_is_small() {
        assert!(size_of_task(run) <= 2560, "{} bytes", size_of_task(run));
    }
}
