//! Engine `uring`: a ring per worker; receives that stay armed, provided buffers, sends in batches (rule R22).
//!
//! For many small messages over many sessions (kernel-notes/0012). The sockets are not registered with the
//! reactor: the ring waits for them, and one descriptor, the ring's, stands for all. A session has no
//! turn until its end; its bytes are moved by the worker's [`hub`].

mod flow;
pub(super) mod hub;
mod pair;

use std::cell::RefCell;
use std::os::fd::{AsFd, OwnedFd};
use std::rc::Rc;

use self::hub::Hub;
use self::pair::Pair;
use super::half::Step;
use super::kit::Kit;
use super::live::Live;
use super::way::Way;
use super::{Closing, Detached, Direction, Engine, Failure, Turn, part, splice};
use crate::error::{End, Kind};
use crate::metrics::Counters;
use crate::sys::ring::{Chunk, Setup};
use crate::sys::sockopt;

/// How a worker's ring is made: see kernel-notes/0012.
pub const SETUP: Setup =
    Setup { buffers: 256, buffer_bytes: 16 << 10, receive_bytes_max: 64 << 10 };

/// A joined session that is carried by the worker's ring.
#[derive(Debug)]
pub(super) struct RingRelay {
    hub: Rc<Hub>,
    key: u32,
    /// `None` after it was taken apart.
    pair: Option<Rc<RefCell<Pair>>>,
    live: Rc<Live>,
    kit: Rc<Kit>,
}

/// What is left of a session when the ring has let go of it.
pub(super) struct Parts {
    pub downstream: OwnedFd,
    pub upstream: OwnedFd,
    pub ways: [Way; 2],
    pub failure: Option<Box<Failure>>,
}

impl RingRelay {
    /// Goes on with two sockets that no reactor knows.
    pub fn new(parts: Parts, live: Rc<Live>, hub: Rc<Hub>, kit: Rc<Kit>) -> RingRelay {
        let Parts { downstream, upstream, mut ways, failure } = parts;
        let mut broken = [None, None];
        for (way, broken) in ways.iter_mut().zip(&mut broken) {
            way.engine = Engine::Uring;
            // A ring has no use for a pipe: what it holds goes out from memory.
            if let Step::Drain { in_pipe } = way.half.step() {
                kit.pool.borrow().adopted();
                *broken = splice::rescue(way, &kit, in_pipe).err();
            }
        }
        let sockets = [Rc::new(downstream), Rc::new(upstream)];
        let mut pair = Pair::new(sockets, ways, failure, Rc::clone(&live), Rc::clone(&kit.reactor));
        for (direction, broken) in Direction::BOTH.into_iter().zip(broken) {
            if let Some(source) = broken {
                pair.sink_failed(direction, Kind::Io { call: "read", source });
            }
        }
        let pair = Rc::new(RefCell::new(pair));
        let key = hub.seat(&pair);
        RingRelay { hub, key, pair: Some(pair), live, kit }
    }

    pub fn live(&self) -> &Live {
        &self.live
    }

    pub fn undelivered(&self, direction: Direction) -> u64 {
        let half = self.pair().borrow().lanes[direction as usize].way.half;
        half.discarded() + half.held()
    }

    pub fn is_paused(&self, direction: Direction) -> bool {
        self.pair().borrow().lanes[direction as usize].way.paused_since.is_some()
    }

    pub fn kit(&self) -> &Rc<Kit> {
        &self.kit
    }

    /// The session with this key is told of its end, and of half of it.
    pub fn attach(&self, session: usize) {
        self.pair().borrow_mut().session = Some(session);
    }

    /// Whether the end has come, or it is no session for a ring: that moves the bytes by itself.
    pub fn turn(&mut self) -> Turn {
        let mut pair = self.pair().borrow_mut();
        match pair.over.take() {
            Some(end) => Turn::Over(end),
            None if pair.leaves => Turn::Calls(Engine::Copy),
            None => Turn::Waiting,
        }
    }

    /// Takes the session off the ring; what was received and not sent is owed from memory.
    pub fn detach(mut self) -> Detached {
        let parts = self.take_apart();
        let parts = parts.expect("a socket's operation ends at once when it is cancelled");
        let Parts { downstream, upstream, ways, failure } = parts;
        let carried = Direction::BOTH.map(|direction| self.live.carried(direction));
        Detached { downstream, upstream, ways, carried, failure, framed: None, parting: None }
    }

    /// Closes both sockets, as [`super::Relay::close`] says.
    pub fn close(mut self, end: &End) -> Option<Closing> {
        // What the kernel does not let go of is closed with the ring.
        let Parts { downstream, upstream, ways, .. } = self.take_apart()?;
        for (way, sink) in ways.iter().zip([&upstream, &downstream]) {
            if way.half.held() > 0 {
                sockopt::reset_on_close(sink.as_fd());
            }
        }
        part(end, downstream, upstream)
    }

    fn pair(&self) -> &Rc<RefCell<Pair>> {
        self.pair.as_ref().expect("only the last call takes it")
    }

    /// `None` when the kernel does not let go of a socket.
    fn take_apart(&mut self) -> Option<Parts> {
        let pair = self.pair.take().expect("only the last call takes it");
        if !self.hub.unseat(self.key, &pair) {
            return None;
        }
        let pair = Rc::into_inner(pair).expect("the hub has let go of it").into_inner();
        Some(pair.into_parts(&self.kit.counters))
    }
}

impl Pair {
    fn into_parts(mut self, counters: &Counters) -> Parts {
        for direction in Direction::BOTH {
            // The next reader would take the silence after a reset for an end.
            self.take_source_error(direction);
            let lane = &mut self.lanes[direction as usize];
            lane.way.unpause(counters, direction);
            let held: Vec<u8> = lane.chunks.drain(..).flat_map(Chunk::into_bytes).collect();
            assert_eq!(held.len() as u64, lane.way.half.held(), "bytes were lost or repeated");
            if !held.is_empty() {
                lane.way.owed.hold(held);
            }
        }
        let Pair { sockets, lanes, failure, .. } = self;
        let [downstream, upstream] = sockets
            .map(|socket| Rc::into_inner(socket).expect("nothing is in flight for this socket"));
        Parts { downstream, upstream, ways: lanes.map(|lane| lane.way), failure }
    }
}

impl Drop for RingRelay {
    fn drop(&mut self) {
        if let Some(pair) = self.pair.take() {
            // What the kernel does not let go of stays in the hub.
            let _ = self.hub.unseat(self.key, &pair);
        }
    }
}
