//! A relay, by whichever engine: on readiness (`splice`, `copy`) or on the worker's ring (`uring`).

use std::io;
use std::rc::Rc;
use std::task::{Context, Poll};

use super::uring::{Parts, RingRelay};
use super::{Closing, Detached, Direction, Engine, Kit, Live, ReadyRelay, Reason, Turn, Way};
use crate::error::{End, Kind, Side, Stage};
use crate::sys::stream::Stream;

/// A joined session at work.
#[derive(Debug)]
pub struct Relay {
    carrier: Carrier,
    /// Why it ends before it has begun: its engine is refused and no other may be taken.
    refused: Option<Box<End>>,
}

#[derive(Debug)]
#[expect(
    clippy::large_enum_variant,
    reason = "the larger one is the usual one: a box would only cost"
)]
enum Carrier {
    Ready(ReadyRelay),
    Ring(RingRelay),
}

impl Relay {
    /// Joins two sockets that are registered with the runtime of the current thread already.
    pub fn join(downstream: Stream, upstream: Stream, mut ways: [Way; 2], kit: Rc<Kit>) -> Relay {
        let hub = match asks_for_ring(&ways) {
            false => return Relay::from(ReadyRelay::join(downstream, upstream, ways, kit)),
            true => kit.hub(),
        };
        match hub {
            Ok(hub) => {
                let live = Rc::new(Live::resumed([&ways[0], &ways[1]].map(Way::begun)));
                let (downstream, upstream) = (downstream.into_fd(), upstream.into_fd());
                let parts = Parts { downstream, upstream, ways, failure: None };
                Relay::from(RingRelay::new(parts, live, hub, kit))
            }
            Err(reason) => {
                ways.iter_mut().for_each(|way| way.switch(Engine::Copy));
                let relay = ReadyRelay::join(downstream, upstream, ways, Rc::clone(&kit));
                Relay::from(relay).without_ring(reason, &kit)
            }
        }
    }

    /// Goes on with `detached` in the runtime of the current thread.
    ///
    /// # Errors
    ///
    /// The sockets cannot be registered with the reactor: no memory, or no room in epoll.
    pub fn resume(mut detached: Detached, kit: Rc<Kit>) -> io::Result<Relay> {
        let hub = match asks_for_ring(&detached.ways) {
            false => return ReadyRelay::resume(detached, kit).map(Relay::from),
            true => kit.hub(),
        };
        match hub {
            Ok(hub) => {
                let Detached { downstream, upstream, ways, carried, failure } = detached;
                let live = Rc::new(Live::resumed(carried));
                if ways.iter().any(|way| !way.half.source_is_open()) {
                    live.set_half_closed();
                }
                let parts = Parts { downstream, upstream, ways, failure };
                Ok(Relay::from(RingRelay::new(parts, live, hub, kit)))
            }
            Err(reason) => {
                detached.switch(Engine::Copy);
                let relay = ReadyRelay::resume(detached, Rc::clone(&kit))?;
                Ok(Relay::from(relay).without_ring(reason, &kit))
            }
        }
    }

    /// The session with this key is told of events, and nobody else.
    pub fn attach(&self, session: usize) {
        match &self.carrier {
            Carrier::Ready(relay) => relay.attach(session),
            Carrier::Ring(relay) => relay.attach(session),
        }
    }

    /// Stops here and hands back all that the relay is; nothing is lost, nothing is sent.
    pub fn detach(self) -> Detached {
        match self.carrier {
            Carrier::Ready(relay) => relay.detach(),
            Carrier::Ring(relay) => relay.detach(),
        }
    }

    /// The session's counts, readable while the relay runs.
    pub fn live(&self) -> &Live {
        match &self.carrier {
            Carrier::Ready(relay) => relay.live(),
            Carrier::Ring(relay) => relay.live(),
        }
    }

    /// Bytes that were taken in `direction` and not given: discarded, or held still.
    pub fn undelivered(&self, direction: Direction) -> u64 {
        match &self.carrier {
            Carrier::Ready(relay) => relay.undelivered(direction),
            Carrier::Ring(relay) => relay.undelivered(direction),
        }
    }

    /// The engine that the next fill of `direction` will use.
    pub fn engine(&self, direction: Direction) -> Engine {
        match &self.carrier {
            Carrier::Ready(relay) => relay.engine(direction),
            Carrier::Ring(_) => Engine::Uring,
        }
    }

    /// Moves what can be moved now. Over when both directions are closed, or one failed and the other has
    /// nothing left to deliver.
    pub fn turn(&mut self) -> Turn {
        if let Some(end) = self.refused.take() {
            return Turn::Over(*end);
        }
        match &mut self.carrier {
            Carrier::Ready(relay) => relay.turn(),
            Carrier::Ring(relay) => relay.turn(),
        }
    }

    /// Turn after turn, for one that drives a relay and its reactor alone: ready when the relay is over.
    pub fn poll(&mut self, cx: &mut Context<'_>) -> Poll<End> {
        if let Some(end) = self.refused.take() {
            return Poll::Ready(*end);
        }
        match &mut self.carrier {
            Carrier::Ready(relay) => relay.poll(cx),
            Carrier::Ring(relay) => relay.poll(cx),
        }
    }

    /// Closes both sockets. A reset, or a connection that timed out, is passed on as a reset: an end would
    /// say that all bytes came (rule R9). What is returned still has something to wait for.
    pub fn close(self, end: &End) -> Option<Closing> {
        match self.carrier {
            Carrier::Ready(relay) => relay.close(end),
            Carrier::Ring(relay) => relay.close(end),
        }
    }

    /// The ring is refused: notes why; the relay copies, unless that is forbidden.
    fn without_ring(mut self, reason: Reason, kit: &Kit) -> Relay {
        for direction in Direction::BOTH {
            if self.live().met(direction, reason) {
                kit.counters.fallback(reason);
            }
        }
        if kit.no_fallback {
            let end = End::new(Side::Proxy, Stage::Relay, Kind::EngineRefused);
            self.refused = Some(Box::new(end));
        }
        self
    }
}

/// Whether the ring is asked for. It carries both directions of a session or none.
fn asks_for_ring(ways: &[Way; 2]) -> bool {
    ways.iter().any(|way| way.engine() == Engine::Uring)
}

impl From<ReadyRelay> for Relay {
    fn from(relay: ReadyRelay) -> Relay {
        Relay { carrier: Carrier::Ready(relay), refused: None }
    }
}

impl From<RingRelay> for Relay {
    fn from(relay: RingRelay) -> Relay {
        Relay { carrier: Carrier::Ring(relay), refused: None }
    }
}
