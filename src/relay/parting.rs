//! How an opaque session is ended by us in good order: each side gets what it is owed and then our end, and the socket
//! is closed once it has said its own. What comes meanwhile is thrown away: closed with that unread, a socket
//! would be reset, and its peer might lose what it was sent before.

use super::advance::ends;
use super::half::{Close, Step};
use super::{Detached, Direction, Engine, ReadyRelay, Share, Turn};
use crate::error::End;
use crate::sys::Errno;
use crate::sys::stream::Readable;

/// Bytes that are thrown away before the neighbours have their turn.
const DISCARD_BYTES_MAX: usize = 1 << 20;

/// A session that is being ended.
#[derive(Debug)]
pub(super) struct Parting {
    /// What is reported.
    end: Option<End>,
    /// What had come by then was taken, as far as one turn goes: nothing more is for the other side.
    heard: bool,
    /// Which directions have a source that has ended, or failed.
    ended: [bool; 2],
}

impl Parting {
    /// At the beginning.
    pub fn new(end: End) -> Box<Parting> {
        Box::new(Parting { end: Some(end), heard: false, ended: [false; 2] })
    }
}

impl Detached {
    /// From now on the session ends in good order, for `end`.
    pub fn part(&mut self, end: End) {
        self.parting.get_or_insert_with(|| Parting::new(end));
    }
}

impl ReadyRelay {
    /// Ends the session in good order, for `end`; an inspected one with a Close of this code.
    pub(super) fn part(&mut self, end: End, code: u16) {
        if let Err(end) = self.leave(end, code) {
            self.parting.get_or_insert_with(|| Parting::new(end));
        }
    }

    /// Whether the session is told to end already.
    pub(super) fn is_leaving(&self) -> bool {
        self.parting.is_some() || self.framed.as_ref().is_some_and(|framed| framed.is_ending())
    }

    /// Whether nothing more is taken for the other side.
    pub(super) fn has_heard(&self) -> bool {
        self.parting.as_ref().is_some_and(|parting| parting.heard)
    }

    /// What is reported of a session that ends like this: whatever became of it, we ended it first.
    pub(super) fn reported(&mut self, end: End) -> End {
        let parting = self.parting.as_deref_mut();
        parting.and_then(|parting| parting.end.take()).unwrap_or(end)
    }

    /// A turn of a session that is being ended.
    pub(super) fn turn_parting(&mut self) -> Turn {
        let mut spent = false;
        // The first time with what has come so far, the second time to its end.
        for _ in 0..2 {
            for direction in Direction::BOTH {
                if let Err(end) = self.advance(direction, Share::Alone) {
                    return Turn::Over(self.reported(end));
                }
            }
            self.parting.as_mut().expect("it is being ended").heard = true;
        }
        for direction in Direction::BOTH {
            if let Step::Closed(close) = self.ways[direction as usize].half.step() {
                spent |= self.discard(direction, close);
            }
        }
        let parting = self.parting.as_mut().expect("it is being ended");
        match parting.end.take_if(|_| parting.ended == [true; 2]) {
            Some(end) => Turn::Over(end),
            None if spent => Turn::Spent,
            None => Turn::Waiting,
        }
    }

    /// Throws away what comes in a direction that is closed, until its source ends; true when there is more.
    fn discard(&mut self, direction: Direction, close: Close) -> bool {
        let (source, _) = ends(&self.downstream, &self.upstream, direction);
        let mut total = 0;
        let mut ended = close == Close::SourceFailed;
        while !ended && total < DISCARD_BYTES_MAX && source.readable().is_some() {
            match source.recv(&mut self.kit.buffer.borrow_mut()) {
                Ok(0) => ended = true,
                Ok(bytes) => total += bytes,
                Err(error) => match Errno::of(&error) {
                    // As at an urgent mark: what comes no more need not be waited for.
                    Errno::Again if source.readable() == Some(Readable::Ended) => ended = true,
                    Errno::Again => source.clear_readable(),
                    Errno::Interrupted => {}
                    _ => ended = true,
                },
            }
        }
        if total > 0 {
            let bytes = total as u64;
            self.kit.counters.moved(self.live.route(), Engine::Copy, direction, bytes);
            self.live.took(direction, Engine::Copy, bytes);
            self.ways[direction as usize].half.came_too_late(bytes);
        }
        self.parting.as_mut().expect("it is being ended").ended[direction as usize] |= ended;
        total >= DISCARD_BYTES_MAX
    }

    /// A side that was told our end and did not say its own is reset.
    pub(super) fn reset_who_stays(&self) {
        let Some(parting) = &self.parting else { return };
        for direction in Direction::BOTH {
            if !parting.ended[direction as usize] {
                ends(&self.downstream, &self.upstream, direction).0.reset_on_close();
            }
        }
    }
}
