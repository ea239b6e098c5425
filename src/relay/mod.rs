//! Bytes between two joined sockets; knows no HTTP.
//!
//! A [`Relay`] is the state of both directions; a [turn](Relay::turn) moves what can be moved, and knows no
//! runtime. Each direction is a [`half::Half`]: fill, then drain to the last byte, then fill again; so
//! backpressure is the kernel's, and an `EAGAIN` never has two meanings. `splice` and `copy` differ only in how
//! a fill is done; `uring` has a carrier of its own, with the same halves. A relay can be
//! [detached](Relay::detach) between any two turns and [resumed](Relay::resume) by any worker or engine.

pub mod alone;
pub mod half;
pub mod idle;
pub mod live;
pub mod pace;
pub mod pool;
pub mod watch;

mod advance;
mod carrier;
mod copy;
mod crowd;
mod framed;
mod kit;
mod parting;
mod splice;
mod uring;
mod way;

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::rc::Rc;
use std::time::Instant;

pub use self::advance::Share;
use self::advance::ends;
pub use self::carrier::Relay;
pub use self::framed::{Framed, Violation};
use self::half::{Close, Step};
pub use self::kit::Kit;
pub use self::live::{Carried, Live};
use self::parting::Parting;
pub use self::way::{HeadData, Way};
use crate::error::{End, Kind, Side, Stage};
pub use crate::metrics::{Direction, Engine, Reason};
use crate::sys::reactor::Reactor;
use crate::sys::sockopt;
use crate::sys::stream::Stream;

/// A joined session that is carried on readiness: by splice or copy.
#[derive(Debug)]
struct ReadyRelay {
    downstream: Stream,
    upstream: Stream,
    ways: [Way; 2],
    /// The first failure of either direction: it is the one that is reported.
    failure: Option<Box<Failure>>,
    /// What it knows of its frames, in mode `inspect`.
    framed: Option<Box<Framed>>,
    /// How it is being ended by us, when it is not inspected.
    parting: Option<Box<Parting>>,
    live: Live,
    kit: Rc<Kit>,
}

/// What a turn of a relay came to.
#[derive(Debug)]
pub enum Turn {
    /// Nothing more can be moved before one of its sockets has an event.
    Waiting,
    /// There is more to move, but it is the neighbours' turn (rule R16).
    Spent,
    /// Its traffic calls for this engine, which another carrier has: see [`Relay::change`].
    Calls(Engine),
    /// The session is over.
    Over(End),
}

/// All that a relay is: what another worker, engine or process needs to go on with it.
#[derive(Debug)]
pub struct Detached {
    /// The side that connected to us.
    pub downstream: OwnedFd,
    /// The side we connected to.
    pub upstream: OwnedFd,
    /// Both directions, by [`Direction`], with at most one pipe each.
    pub ways: [Way; 2],
    /// Their counts so far.
    pub carried: [Carried; 2],
    /// A side that was reset already, and how: the other direction is still delivering.
    failure: Option<Box<Failure>>,
    /// What it knows of its frames, in mode `inspect`.
    framed: Option<Box<Framed>>,
    /// How it is being ended by us, when it is not inspected.
    parting: Option<Box<Parting>>,
}

/// The first thing that went wrong.
#[derive(Debug)]
struct Failure {
    side: Side,
    kind: Kind,
}

impl Detached {
    /// Two sockets, both `O_NONBLOCK`, that were joined just now.
    pub fn joined(downstream: OwnedFd, upstream: OwnedFd, ways: [Way; 2]) -> Detached {
        let carried = [&ways[0], &ways[1]].map(Way::begun);
        Detached { downstream, upstream, ways, carried, failure: None, framed: None, parting: None }
    }

    /// Lets `engine` carry both directions from here on.
    pub fn switch(&mut self, engine: Engine) {
        if self.parting.is_some() {
            return;
        }
        for way in &mut self.ways {
            way.switch(engine);
        }
        if let Some(framed) = &mut self.framed {
            framed.switch(engine);
        }
    }

    /// Lets `engine` carry both directions, until their traffic calls for another.
    fn go_on_by(&mut self, engine: Engine) {
        for (way, carried) in self.ways.iter_mut().zip(&mut self.carried) {
            way.goes_on_by(engine);
            carried.switches = carried.switches.saturating_add(1);
        }
    }

    /// Whether the traffic decides about the engine.
    fn is_paced(&self) -> bool {
        self.ways.iter().any(|way| way.pace.is_some())
    }
}

impl ReadyRelay {
    /// Joins two sockets that are registered with the kit's reactor already.
    fn join(
        downstream: Stream,
        upstream: Stream,
        mut ways: [Way; 2],
        mut framed: Option<Box<Framed>>,
        kit: Rc<Kit>,
    ) -> ReadyRelay {
        if let Some(framed) = &mut framed {
            framed.attach(&mut ways);
        }
        let live = Live::resumed([&ways[0], &ways[1]].map(Way::begun));
        let [mut to_upstream, mut to_downstream] = ways;
        // Readiness is as the exchange left it, but for an urgent byte: short reads stop there too.
        to_upstream.eager = downstream.at_urgent_mark();
        to_downstream.eager = upstream.at_urgent_mark();
        let ways = [to_upstream, to_downstream];
        ReadyRelay { downstream, upstream, ways, failure: None, framed, parting: None, live, kit }
    }

    /// Goes on with `detached` in the worker of `kit`.
    ///
    /// # Errors
    ///
    /// The sockets cannot be registered with the reactor: no memory, or no room in epoll.
    fn resume(detached: Detached, kit: Rc<Kit>) -> io::Result<ReadyRelay> {
        let Detached { downstream, upstream, mut ways, carried, failure, mut framed, parting } =
            detached;
        let downstream = Stream::new(downstream, &kit.reactor)?;
        let upstream = Stream::new(upstream, &kit.reactor)?;
        let live = Live::resumed(carried);
        for way in &mut ways {
            way.eager = true;
            if !way.half.source_is_open() {
                live.set_half_closed();
            }
            if way.pipe.is_some() {
                kit.pool.borrow().adopted();
            }
        }
        if let Some(framed) = &mut framed {
            framed.forget_alarms();
        }
        Ok(ReadyRelay { downstream, upstream, ways, failure, framed, parting, live, kit })
    }

    /// The session with this key is told of events, and nobody else.
    pub fn attach(&self, session: usize) {
        self.downstream.attach(session);
        self.upstream.attach(session);
    }

    /// Stops here and hands back all that the relay is; nothing is lost, nothing is sent.
    pub fn detach(mut self) -> Detached {
        for direction in Direction::BOTH {
            self.unpause(direction);
        }
        let ReadyRelay { downstream, upstream, ways, failure, framed, parting, live, kit } = self;
        for way in &ways {
            if way.pipe.is_some() {
                kit.pool.borrow().lost();
            }
        }
        let carried = Direction::BOTH.map(|direction| live.carried(direction));
        Detached {
            downstream: downstream.into_fd(),
            upstream: upstream.into_fd(),
            ways,
            carried,
            failure,
            framed,
            parting,
        }
    }

    /// The session's counts, readable while the relay runs.
    pub fn live(&self) -> &Live {
        &self.live
    }

    /// Bytes that were taken in `direction` and not given: discarded, or held still.
    pub fn undelivered(&self, direction: Direction) -> u64 {
        let half = &self.ways[direction as usize].half;
        half.discarded() + half.held()
    }

    /// The engine that the next fill of `direction` will use.
    pub fn engine(&self, direction: Direction) -> Engine {
        self.ways[direction as usize].engine
    }

    /// [`Relay::turn`].
    pub fn turn(&mut self, share: Share) -> Turn {
        if self.parting.is_some() {
            return self.turn_parting();
        }
        let mut spent = false;
        if let Some(framed) = &mut self.framed {
            framed.begin_turn();
            self.beat();
        }
        loop {
            let before = self.closings();
            for direction in Direction::BOTH {
                match self.advance(direction, share) {
                    Ok(share_is_spent) => spent |= share_is_spent,
                    Err(end) => return Turn::Over(end),
                }
            }
            if let Some(end) = self.end() {
                return Turn::Over(end);
            }
            let said = self.framed.is_some() && self.go_on_ending();
            // What ends one direction concerns the other, which may have been looked at before: it has to
            // watch its sink from now on, or to read what a broken side sent earlier.
            if before == self.closings() && !said {
                break;
            }
        }
        if spent {
            return Turn::Spent;
        }
        if self.is_for_a_ring() {
            if self.kit.crowd.is_crowded() {
                return Turn::Calls(Engine::Uring);
            }
            self.kit.crowd.found();
        }
        Turn::Waiting
    }

    /// Whether it carries small messages and nothing else, and holds none of them.
    fn is_for_a_ring(&self) -> bool {
        let [Some(one), Some(other)] = [self.ways[0].pace, self.ways[1].pace] else { return false };
        pace::are_small([one, other])
            && self.framed.is_none()
            && self.failure.is_none()
            && self.ways.iter().all(|way| way.half.step() == Step::Fill)
    }

    /// Closes both sockets. A reset, or a connection that timed out, is passed on as a reset: an end would
    /// say that all bytes came (rule R9). What is returned still has something to wait for.
    pub fn close(mut self, end: &End) -> Option<Closing> {
        for direction in Direction::BOTH {
            // Whoever ended the session, a sink that was owed bytes must not take this for their end.
            if self.ways[direction as usize].half.held() > 0 {
                ends(&self.downstream, &self.upstream, direction).1.reset_on_close();
            }
        }
        self.reset_who_stays();
        self.discard_held();
        part(end, self.downstream, self.upstream)
    }

    /// Which directions are closed, and whether anything failed: what the directions must know of each other.
    fn closings(&self) -> ([bool; 2], bool) {
        let closed = |way: &Way| matches!(way.half.step(), Step::Closed(_));
        ([closed(&self.ways[0]), closed(&self.ways[1])], self.failure.is_some())
    }

    /// Whether the session is over, and how.
    fn end(&mut self) -> Option<End> {
        let steps = [&self.ways[0], &self.ways[1]].map(|way| way.half.step());
        let over = outcome(steps, &mut self.failure);
        // Whoever ended it first is whose doing it was.
        self.ended(over.is_some()).or(over)
    }

    fn framed_mut(&mut self) -> &mut Framed {
        self.framed.as_deref_mut().expect("an inspected session knows its frames")
    }

    /// Says how much the sink took, frames of our own aside.
    fn tell_given(&mut self, direction: Direction) {
        let given = self.ways[direction as usize].half.given();
        let given = match &self.framed {
            None => given,
            Some(framed) => {
                let told = self.live.carried(direction).given;
                given.saturating_sub(framed.injected(direction)).max(told)
            }
        };
        self.live.gave(direction, given);
    }

    /// Bytes that nobody will get count as discarded, so that the sums balance at the end (rule R20).
    fn discard_held(&mut self) {
        for direction in Direction::BOTH {
            self.drop_pipe(direction);
            self.unpause(direction);
            let half = &mut self.ways[direction as usize].half;
            if half.held() > 0 {
                half.sink_failed();
            }
        }
    }

    fn drop_pipe(&mut self, direction: Direction) {
        // With bytes in it a pipe must never go back: the next session would send them (rule R12).
        if self.ways[direction as usize].pipe.take().is_some() {
            self.kit.pool.borrow().lost();
        }
    }

    fn unpause(&mut self, direction: Direction) {
        self.ways[direction as usize].unpause(&self.kit.counters, direction);
    }
}

/// Whether a session is over whose directions stand like this.
fn is_over(steps: [Step; 2]) -> bool {
    let closed = steps.map(|step| match step {
        Step::Closed(close) => Some(close),
        _ => None,
    });
    match closed {
        [Some(_), Some(_)] => true,
        [one, other] => [one, other].contains(&Some(Close::SourceFailed)),
    }
}

/// The end of a session whose directions stand like this, if it is over.
fn outcome(steps: [Step; 2], failure: &mut Option<Box<Failure>>) -> Option<End> {
    is_over(steps).then(|| match failure.take() {
        Some(failure) => End::new(failure.side, Stage::Relay, failure.kind),
        None => End::new(Side::Proxy, Stage::Relay, Kind::Completed),
    })
}

/// Closes both sockets after `end`, with a reset where that is what has to be passed on. They are given as they
/// are, since most need only be dropped: the kernel takes them off the reactor's list by itself.
fn part<S: Into<OwnedFd>>(end: &End, downstream: S, upstream: S) -> Option<Closing> {
    if !matches!(end.kind, Kind::Reset | Kind::Io { .. }) {
        return None;
    }
    let other = match end.side {
        Side::Downstream => upstream,
        Side::Upstream => downstream,
        Side::Proxy => return None,
    };
    let other: OwnedFd = other.into();
    if sockopt::unsent_bytes(other.as_fd()) > 0 {
        return Some(Closing(other));
    }
    sockopt::reset_on_close(other.as_fd());
    None
}

/// A socket that is to be reset, with bytes in it that were never sent: a reset destroys them, so bytes
/// that were delivered in time get time to leave.
#[derive(Debug)]
pub struct Closing(OwnedFd);

impl Closing {
    /// Waits a little, then resets.
    pub async fn finish(self, reactor: &Rc<Reactor>) {
        for _ in 0..UNSENT_LOOKS {
            if sockopt::unsent_bytes(self.0.as_fd()) == 0 {
                break;
            }
            reactor.sleep_until(Instant::now() + UNSENT_PERIOD).await;
        }
        sockopt::reset_on_close(self.0.as_fd());
    }
}

/// How often, and in what steps, a reset waits for bytes that were never sent: 80 ms at most.
const UNSENT_LOOKS: u32 = 8;
const UNSENT_PERIOD: std::time::Duration = std::time::Duration::from_millis(10);
