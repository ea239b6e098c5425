//! Two joined sockets on a ring: every completion is an event, and what follows from it is begun at once.

use std::collections::VecDeque;
use std::io;
use std::num::NonZeroU64;
use std::os::fd::{AsFd, OwnedFd};
use std::rc::Rc;
use std::time::Instant;

use super::flow::{Action, Flow};
use crate::error::{End, Kind, Side, Stage};
use crate::metrics::{Counters, Direction, Engine};
use crate::relay::advance::{gone, sink_side, source_side};
use crate::relay::crowd::Crowd;
use crate::relay::half::{Close, Step};
use crate::relay::live::Live;
use crate::relay::way::Way;
use crate::relay::{Failure, is_over, outcome};
use crate::sys::reactor::Reactor;
use crate::sys::ring::{Chunk, Done, Patience, Ring, Ticket};
use crate::sys::{Errno, sockopt};

/// A joined session at work on the worker's ring.
#[derive(Debug)]
pub(super) struct Pair {
    /// Downstream, upstream.
    pub sockets: [Rc<OwnedFd>; 2],
    pub lanes: [Lane; 2],
    /// Whether a socket is watched for its end, by its place in `sockets`.
    watched: [bool; 2],
    pub failure: Option<Box<Failure>>,
    pub live: Rc<Live>,
    /// How it ended, until its task has taken it.
    pub over: Option<End>,
    /// Whether its traffic is not, or no longer, what a ring is for.
    pub leaves: bool,
    /// Nothing is begun any more.
    stopping: bool,
    /// Both directions are closed; what is in flight is waited for.
    ending: bool,
    /// The session that waits for the end, or for half of it.
    pub session: Option<usize>,
    reactor: Rc<Reactor>,
}

/// One direction.
#[derive(Debug)]
pub(super) struct Lane {
    pub way: Way,
    flow: Flow,
    /// What waits to be sent, in order, behind the send in flight.
    pub chunks: VecDeque<Chunk>,
    receiving: Option<Ticket>,
    sending: Option<Ticket>,
    /// How the source failed, until what came before has gone out.
    source_error: Option<io::Error>,
}

/// What an event may use.
pub(super) struct Desk<'d> {
    pub ring: &'d mut Ring,
    pub counters: &'d Counters,
    pub crowd: &'d Crowd,
    /// Directions whose receive found no buffer.
    pub starved: &'d mut Vec<(u32, Direction)>,
    pub key: u32,
    pub credit: u64,
}

/// What a completion belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Work {
    Receive(Direction),
    Send(Direction),
}

impl Pair {
    pub fn new(
        sockets: [Rc<OwnedFd>; 2],
        ways: [Way; 2],
        failure: Option<Box<Failure>>,
        live: Rc<Live>,
        reactor: Rc<Reactor>,
    ) -> Pair {
        let lanes = ways.map(Lane::new);
        Pair {
            sockets,
            lanes,
            watched: [false; 2],
            failure,
            live,
            over: None,
            leaves: false,
            stopping: false,
            ending: false,
            session: None,
            reactor,
        }
    }

    /// Begins whatever can be begun, until nothing can.
    pub fn pump(&mut self, desk: &mut Desk<'_>) {
        loop {
            let mut acted = false;
            for direction in Direction::BOTH {
                let lane = &self.lanes[direction as usize];
                if let Some(action) = lane.flow.next(&lane.way.half, desk.credit) {
                    self.act(direction, action, desk);
                    acted = true;
                }
            }
            if !acted {
                break;
            }
        }
        Direction::BOTH.into_iter().for_each(|direction| self.watch_sink(direction, desk));
        let steps = [&self.lanes[0], &self.lanes[1]].map(|lane| lane.way.half.step());
        if self.over.is_none() && (self.ending || !self.stopping) && is_over(steps) {
            self.ending = true;
            self.stop(desk);
            // What is on its way may have gone out already, and what is reported counts it.
            if self.lanes.iter().all(|lane| lane.sending.is_none()) {
                self.over = outcome(steps, &mut self.failure);
                self.wake();
            }
        }
    }

    /// Something that was begun has completed, or goes on.
    pub fn complete(&mut self, work: Work, done: Done, desk: &mut Desk<'_>) {
        match work {
            Work::Receive(direction) => self.received(direction, done, desk),
            Work::Send(direction) => self.sent(direction, done, desk),
        }
        self.pump(desk);
    }

    /// A watched socket is gone in both directions.
    pub fn gone(&mut self, place: usize, desk: &mut Desk<'_>) {
        self.watched[place] = false;
        if !self.stopping {
            self.hung_up(place);
            self.pump(desk);
        }
    }

    /// A buffer is free again for the receive that found none.
    pub fn feed(&mut self, direction: Direction, desk: &mut Desk<'_>) {
        self.lanes[direction as usize].flow.fed();
        self.pump(desk);
    }

    /// Ends all that is in flight; nothing is begun any more.
    pub fn stop(&mut self, desk: &mut Desk<'_>) {
        if std::mem::replace(&mut self.stopping, true) {
            return;
        }
        for lane in &mut self.lanes {
            lane.flow.stop();
            for ticket in [lane.receiving, lane.sending].into_iter().flatten() {
                lane.flow.cancelled();
                desk.ring.cancel(ticket);
            }
        }
        for (socket, watched) in self.sockets.iter().zip(self.watched) {
            if watched {
                desk.ring.unwatch(socket.as_fd());
            }
        }
    }

    /// Whether the kernel still works for this session.
    pub fn is_in_flight(&self) -> bool {
        self.lanes.iter().any(|lane| lane.receiving.is_some() || lane.sending.is_some())
    }

    /// The session cannot go on, for a reason of ours.
    pub fn abandon(&mut self, end: End) {
        self.over.get_or_insert(end);
        self.wake();
    }

    fn act(&mut self, direction: Direction, action: Action, desk: &mut Desk<'_>) {
        let sockets = &self.sockets;
        let (source, sink) = (&sockets[direction as usize], &sockets[1 - direction as usize]);
        let lane = &mut self.lanes[direction as usize];
        match action {
            Action::Receive => {
                let owner = Work::Receive(direction).owner(desk.key);
                lane.receiving = Some(desk.ring.receive(source, owner));
                lane.flow.armed();
            }
            Action::CancelReceive => {
                if let Some(ticket) = lane.receiving {
                    desk.ring.cancel(ticket);
                }
                lane.flow.cancelled();
            }
            Action::Send => {
                let chunk = lane.chunks.pop_front().expect("what the half holds is here");
                let patience = match lane.flow.is_blocked() {
                    true => Patience::UntilRoom,
                    false => Patience::None,
                };
                let owner = Work::Send(direction).owner(desk.key);
                lane.sending = Some(desk.ring.send(sink, chunk, patience, owner));
                lane.flow.sending();
            }
            Action::End => self.source_ended(direction),
            Action::Fail => self.source_failed(direction),
            Action::Finish => self.finish(direction),
        }
    }

    fn received(&mut self, direction: Direction, done: Done, desk: &mut Desk<'_>) {
        let lane = &mut self.lanes[direction as usize];
        if !done.goes_on {
            lane.receiving = None;
            lane.flow.disarmed();
        }
        match done.result {
            Ok(0) => lane.flow.source_ended(),
            Ok(bytes) => {
                let bytes = NonZeroU64::new(u64::from(bytes)).expect("0 was the end");
                desk.counters.moved(self.live.route(), Engine::Uring, direction, bytes.get());
                self.live.took(direction, Engine::Uring, bytes.get());
                self.pace(direction, bytes.get(), desk.crowd);
                let lane = &mut self.lanes[direction as usize];
                if let Step::Closed(_) = lane.way.half.step() {
                    return lane.way.half.came_too_late(bytes.get());
                }
                lane.way.half.queued(bytes);
                let chunk = done.chunk.expect("bytes come in a buffer");
                // The pool belongs to those whose bytes move.
                let keeps = !lane.flow.is_blocked();
                lane.chunks.push_back(if keeps { chunk } else { chunk.into_owned() });
            }
            Err(error) => match Errno::of(&error) {
                Errno::NoBuffers => {
                    lane.flow.starved();
                    desk.starved.push((desk.key, direction));
                }
                Errno::Cancelled | Errno::Interrupted | Errno::Again => {}
                _ => {
                    lane.flow.source_failed();
                    lane.source_error = Some(error);
                }
            },
        }
    }

    /// Where its traffic decides: leaves the ring when that is not small any more, or comes in no crowd.
    fn pace(&mut self, direction: Direction, bytes: u64, crowd: &Crowd) {
        let Some(pace) = &mut self.lanes[direction as usize].way.pace else { return };
        let is_small = pace.after_fill(bytes, Engine::Uring) == Engine::Uring;
        if is_small && crowd.is_crowded() {
            crowd.found();
        } else if !std::mem::replace(&mut self.leaves, true) {
            self.wake();
        }
    }

    fn sent(&mut self, direction: Direction, done: Done, desk: &mut Desk<'_>) {
        let lane = &mut self.lanes[direction as usize];
        lane.sending = None;
        lane.flow.sent();
        let mut chunk = done.chunk.expect("a send gives its bytes back");
        if let Step::Closed(_) = lane.way.half.step() {
            if let Ok(bytes) = done.result {
                lane.way.half.went_out(u64::from(bytes));
                self.live.gave(direction, lane.way.half.given());
            }
            return;
        }
        let full = match done.result {
            Ok(bytes) => {
                chunk.advance(bytes as usize);
                lane.way.half.flushed(u64::from(bytes));
                self.live.gave(direction, lane.way.half.given());
                true
            }
            Err(error) => match Errno::of(&error) {
                Errno::Again => true,
                Errno::Interrupted | Errno::Cancelled => false,
                _ => {
                    let end = End::io(sink_side(direction), Stage::Relay, "send", error);
                    return self.sink_failed(direction, end.kind);
                }
            },
        };
        if !chunk.bytes().is_empty() {
            lane.chunks.push_front(chunk);
            if full && !self.stopping {
                self.pause(direction, desk);
            }
        } else if lane.flow.is_blocked() && lane.chunks.is_empty() {
            lane.flow.unblock();
            lane.way.unpause(desk.counters, direction);
        }
    }

    /// The sink is full: the source is not read, what is held leaves the pool, and the source is watched
    /// meanwhile, since nobody would see its reset (rule R9).
    fn pause(&mut self, direction: Direction, desk: &mut Desk<'_>) {
        let lane = &mut self.lanes[direction as usize];
        lane.flow.block();
        // Something may have gone out since the last time: then this is a new one.
        lane.way.unpause(desk.counters, direction);
        lane.way.paused_since = Some(Instant::now());
        desk.counters.paused(direction);
        self.live.paused(direction);
        if lane.chunks.iter().any(Chunk::is_pooled) {
            let rest = lane.chunks.drain(..).flat_map(Chunk::into_bytes).collect();
            lane.chunks.push_back(Chunk::owned(rest));
        }
        self.watch(direction as usize, desk);
    }

    /// Nothing to send, and nobody reads the sink any more: only this notices its reset.
    fn watch_sink(&mut self, direction: Direction, desk: &mut Desk<'_>) {
        let reverse = &self.lanes[direction.reverse() as usize].way.half;
        let idle = self.lanes[direction as usize].way.half.step() == Step::Fill;
        if idle && !reverse.source_is_open() && !self.stopping {
            self.watch(1 - direction as usize, desk);
        }
    }

    fn watch(&mut self, place: usize, desk: &mut Desk<'_>) {
        if !self.watched[place] {
            let owner = watch_owner(desk.key, place);
            // Without room in epoll a reset is found by the next send, or by the timers.
            self.watched[place] = desk.ring.watch(self.sockets[place].as_fd(), owner).is_ok();
        }
    }

    /// A socket is gone in both directions.
    fn hung_up(&mut self, place: usize) {
        let outgoing = Direction::BOTH[place];
        let incoming = outgoing.reverse();
        let socket = self.sockets[place].as_fd();
        if !self.lanes[outgoing as usize].way.half.source_is_open() {
            if !matches!(self.lanes[incoming as usize].way.half.step(), Step::Closed(_)) {
                let kind = gone(socket);
                self.sink_failed(incoming, kind);
            }
            return;
        }
        // A Unix socket hangs up when its peer closes in good order, too: the receive will tell.
        if !self.lanes[outgoing as usize].flow.is_blocked() || sockopt::is_unix(socket) {
            return;
        }
        if let Some(error) = sockopt::take_error(socket) {
            let end = End::io(source_side(outgoing), Stage::Relay, "poll", error);
            self.fail(end.side, end.kind);
        }
        if self.has_failed(source_side(outgoing)) {
            self.source_failed(outgoing);
        }
    }

    /// The sink is told that no more will come.
    fn finish(&mut self, direction: Direction) {
        let reverse = self.lanes[direction.reverse() as usize].way.half.step();
        // When this is the last thing that happens the close says it as well. ENOTCONN: the sink is gone
        // already, which its own direction will find out.
        if reverse != Step::Closed(Close::Ended) {
            let _ = sockopt::shutdown_write(self.sockets[1 - direction as usize].as_fd());
        }
        self.lanes[direction as usize].way.half.finished();
        self.live.set_half_closed();
        self.wake();
    }

    fn source_ended(&mut self, direction: Direction) {
        // A side whose reset was seen by a write reads as an end: it was none.
        if self.has_failed(source_side(direction)) {
            self.source_failed(direction);
        } else {
            self.lanes[direction as usize].way.half.source_ended();
        }
    }

    fn source_failed(&mut self, direction: Direction) {
        let lane = &mut self.lanes[direction as usize];
        lane.chunks.clear();
        lane.way.half.source_failed();
        self.take_source_error(direction);
    }

    /// Lets a failure of the source that was held back be the session's.
    pub fn take_source_error(&mut self, direction: Direction) {
        if let Some(error) = self.lanes[direction as usize].source_error.take() {
            let end = End::io(source_side(direction), Stage::Relay, "recv", error);
            self.fail(end.side, end.kind);
        }
    }

    /// The sink takes no more. Its own direction may still deliver what it sent before (rule R9).
    pub fn sink_failed(&mut self, direction: Direction, kind: Kind) {
        self.fail(sink_side(direction), kind);
        let lane = &mut self.lanes[direction as usize];
        lane.chunks.clear();
        lane.way.half.sink_failed();
    }

    fn has_failed(&self, side: Side) -> bool {
        self.failure.as_ref().is_some_and(|failure| failure.side == side)
    }

    fn fail(&mut self, side: Side, kind: Kind) {
        if self.failure.is_none() {
            self.failure = Some(Box::new(Failure { side, kind }));
        }
    }

    fn wake(&mut self) {
        // One that drives a relay alone has no key, and is told all the same.
        self.reactor.tell(self.session.unwrap_or(usize::MAX));
    }
}

impl Lane {
    fn new(way: Way) -> Lane {
        let mut way = way;
        let owed = way.owed.take();
        let chunks = owed.into_iter().map(Chunk::owned).collect();
        let flow = Flow::default();
        Lane { way, flow, chunks, receiving: None, sending: None, source_error: None }
    }
}

impl Work {
    /// The mark of an operation of the session `key`.
    pub fn owner(self, key: u32) -> u64 {
        let (kind, direction) = match self {
            Work::Receive(direction) => (0, direction as u64),
            Work::Send(direction) => (1, direction as u64),
        };
        u64::from(key) << 2 | kind << 1 | direction
    }

    /// The reverse of [`Work::owner`].
    pub fn of(owner: u64) -> (u32, Work) {
        let direction = Direction::BOTH[(owner & 1) as usize];
        let work = match owner >> 1 & 1 {
            0 => Work::Receive(direction),
            _ => Work::Send(direction),
        };
        (u32::try_from(owner >> 2).expect("a key of ours"), work)
    }
}

/// The mark of the watch over the socket at `place` of the session `key`.
fn watch_owner(key: u32, place: usize) -> u64 {
    u64::from(key) << 1 | place as u64
}

/// The reverse of [`watch_owner`].
pub(super) fn watch_of(owner: u64) -> (u32, usize) {
    (u32::try_from(owner >> 1).expect("a key of ours"), (owner & 1) as usize)
}
