//! A relay, by whichever engine: on readiness (`splice`, `copy`) or on the worker's ring (`uring`).

use std::io;
use std::rc::Rc;
use std::time::Instant;

use super::uring::{Parts, RingRelay};
use super::watch::{Unwatchable, Watch};
use super::{
    Closing, Detached, Direction, Engine, Framed, Kit, Live, ReadyRelay, Reason, Share, Turn, Way,
};
use crate::error::{End, Kind, Side, Stage};
use crate::sys::stream::Stream;

/// A joined session at work.
#[derive(Debug)]
pub struct Relay {
    carrier: Carrier,
    /// Why it ends before it has begun: its engine is refused and no other may be taken.
    refused: Option<Box<End>>,
}

#[expect(
    clippy::large_enum_variant,
    reason = "most sessions are of the large kind: a box costs more"
)]
#[derive(Debug)]
enum Carrier {
    Ready(ReadyRelay),
    Ring(RingRelay),
}

impl Relay {
    /// Joins two sockets that are registered with the kit's reactor already.
    pub fn join(downstream: Stream, upstream: Stream, mut ways: [Way; 2], kit: Rc<Kit>) -> Relay {
        let hub = match asks_for_ring(&ways) {
            false => return Relay::from(ReadyRelay::join(downstream, upstream, ways, None, kit)),
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
                let relay = ReadyRelay::join(downstream, upstream, ways, None, Rc::clone(&kit));
                Relay::from(relay).without_ring(reason, &kit)
            }
        }
    }

    /// The same, following the frames of the session.
    pub fn join_framed(
        downstream: Stream,
        upstream: Stream,
        ways: [Way; 2],
        framed: Box<Framed>,
        kit: Rc<Kit>,
    ) -> Relay {
        Relay::from(ReadyRelay::join(downstream, upstream, ways, Some(framed), kit))
    }

    /// Goes on with `detached` in the worker of `kit`.
    ///
    /// # Errors
    ///
    /// The sockets cannot be registered with the reactor: no memory, or no room in epoll.
    pub fn resume(mut detached: Detached, kit: Rc<Kit>) -> io::Result<Relay> {
        let is_opaque = detached.framed.is_none() && detached.parting.is_none();
        let hub = match asks_for_ring(&detached.ways) && is_opaque {
            false => return ReadyRelay::resume(detached, kit).map(Relay::from),
            true => kit.hub(),
        };
        match hub {
            Ok(hub) => {
                let Detached { downstream, upstream, ways, carried, failure, .. } = detached;
                let live = Rc::new(Live::resumed(carried));
                if ways.iter().any(|way| !way.half.source_is_open()) {
                    live.set_half_closed();
                }
                let parts = Parts { downstream, upstream, ways, failure };
                Ok(Relay::from(RingRelay::new(parts, live, hub, kit)))
            }
            // The ring was the worker's choice, and here there is none to choose.
            Err(_) if detached.is_paced() => {
                detached.go_on_by(Engine::Copy);
                ReadyRelay::resume(detached, kit).map(Relay::from)
            }
            Err(reason) => {
                detached.switch(Engine::Copy);
                let relay = ReadyRelay::resume(detached, Rc::clone(&kit))?;
                Ok(Relay::from(relay).without_ring(reason, &kit))
            }
        }
    }

    /// Goes on by the engine that a [turn](Turn::Calls) has called for. Nobody is told of its events until it is
    /// [attached](Relay::attach) again.
    ///
    /// # Errors
    ///
    /// As for [`Relay::resume`]; both sockets are closed then.
    pub fn change(self, engine: Engine) -> io::Result<Relay> {
        let kit = Rc::clone(self.kit());
        if engine == Engine::Uring && kit.hub().is_err() {
            kit.crowd.close();
            return Ok(self);
        }
        let route = self.live().route();
        let mut detached = self.detach();
        detached.go_on_by(engine);
        let relay = Relay::resume(detached, Rc::clone(&kit))?;
        for direction in Direction::BOTH {
            kit.counters.switched(relay.engine(direction));
        }
        if let Some(route) = route {
            relay.live().count_for(u16::try_from(route).expect("it was one"));
        }
        Ok(relay)
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

    /// What is known of its frames, in mode `inspect`.
    pub fn framed(&self) -> Option<&Framed> {
        match &self.carrier {
            Carrier::Ready(relay) => relay.framed.as_deref(),
            Carrier::Ring(_) => None,
        }
    }

    /// From now on `watch` is told what passes.
    ///
    /// # Errors
    ///
    /// Nobody knows its frames, or enough watch it already.
    pub fn watch(&mut self, watch: Watch) -> Result<(), Unwatchable> {
        match &mut self.carrier {
            Carrier::Ready(ReadyRelay { framed: Some(framed), .. }) => framed.watch(watch),
            _ => Err(Unwatchable::Opaque),
        }
    }

    /// When it wants a turn though its sockets may have no event; said once for each time.
    pub fn take_alarm(&mut self) -> Option<Instant> {
        match &mut self.carrier {
            Carrier::Ready(relay) => relay.framed.as_deref_mut()?.take_alarm(),
            Carrier::Ring(_) => None,
        }
    }

    /// Ends an inspected session politely for `end`, with a Close of this code to both sides; its turns go on
    /// until they had their time to answer.
    ///
    /// # Errors
    ///
    /// `end`, when the session is not inspected, so that nothing can be said.
    pub fn leave(&mut self, end: End, code: u16) -> Result<(), End> {
        match &mut self.carrier {
            Carrier::Ready(relay) => relay.leave(end, code),
            Carrier::Ring(_) => Err(end),
        }
    }

    /// Ends the session in good order for `end`, an inspected one with a Close of this code to both sides. Its turns go
    /// on until both have said their end; only an inspected one has a time for that.
    ///
    /// # Errors
    ///
    /// `end`, when the ring carries it.
    pub fn part(&mut self, end: End, code: u16) -> Result<(), End> {
        match &mut self.carrier {
            Carrier::Ready(relay) => relay.part(end, code),
            Carrier::Ring(_) => return Err(end),
        }
        Ok(())
    }

    /// Whether it is told to end already.
    pub fn is_leaving(&self) -> bool {
        match &self.carrier {
            Carrier::Ready(relay) => relay.is_leaving(),
            Carrier::Ring(_) => false,
        }
    }

    /// What is reported when it ends like this: the reason why it was told to end, if it was.
    pub fn reported(&mut self, end: End) -> End {
        match &mut self.carrier {
            Carrier::Ready(relay) => relay.reported(end),
            Carrier::Ring(_) => end,
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

    /// Whether the source of `direction` is not read, since its sink takes no more for now.
    pub fn is_paused(&self, direction: Direction) -> bool {
        match &self.carrier {
            Carrier::Ready(relay) => relay.ways[direction as usize].paused_since.is_some(),
            Carrier::Ring(relay) => relay.is_paused(direction),
        }
    }

    /// Moves what can be moved now, up to a share in each direction; a ring moves its sessions' bytes by itself. Over
    /// when both directions are closed, or one failed and the other has nothing left to deliver.
    pub fn turn(&mut self, share: Share) -> Turn {
        if let Some(end) = self.refused.take() {
            return Turn::Over(*end);
        }
        match &mut self.carrier {
            Carrier::Ready(relay) => relay.turn(share),
            Carrier::Ring(relay) => relay.turn(),
        }
    }

    pub(super) fn kit(&self) -> &Rc<Kit> {
        match &self.carrier {
            Carrier::Ready(relay) => &relay.kit,
            Carrier::Ring(relay) => relay.kit(),
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
