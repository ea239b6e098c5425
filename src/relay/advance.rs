//! One direction of a relay at work: the step that its [`half`](super::half) names, again and again, until it
//! waits for something or has spent its share.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Instant;

use super::half::{Close, Step};
use super::pool::PIPE_BYTES_MIN;
use super::{Direction, Engine, Failure, ReadyRelay, Reason, copy, splice};
use crate::error::{End, Kind, Side, Stage};
use crate::sys::sockopt;
use crate::sys::stream::{Readable, Stream};

/// What each direction may take in one turn before somebody else has one (rule R16).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Share {
    /// Of a turn that is had alone, between two looks at the sockets: less costs more, since what is left in
    /// the cache is lost between two turns (kernel-notes/0015).
    Alone,
    /// Of one turn among those of many, where a small message waits for all that come before it.
    AmongOthers,
}

impl Share {
    /// In bytes.
    pub const fn bytes(self) -> usize {
        match self {
            Share::Alone => 4 << 20,
            Share::AmongOthers => 256 << 10,
        }
    }
}

/// A fill counts as no less than this: a peer that sends byte by byte must not have thousands of fills in a turn.
const COUNTED_LEAST: usize = 32 << 10;

/// What a fill came to.
pub(super) enum Filled {
    /// Bytes were taken; more may be there.
    Bytes(u64),
    /// Bytes were taken, and there were no more.
    Last(u64),
    /// Nothing is there now.
    Nothing,
    /// A signal came between; try again.
    Again,
    /// The source ended.
    Ended,
    /// This call cannot do it.
    Refused(Reason),
    /// The source failed.
    Failed(io::Error),
}

/// What a drain or a flush came to.
pub(super) enum Moved {
    /// Some bytes went out.
    Bytes,
    /// The sink takes nothing now.
    Blocked,
    /// This call cannot do it.
    Refused(Reason),
    /// The sink failed.
    Failed(io::Error),
}

impl ReadyRelay {
    /// One direction, until it waits for something or has spent its share; true in the latter case.
    pub(super) fn advance(&mut self, direction: Direction, share: Share) -> Result<bool, End> {
        let mut allowance = share.bytes();
        let mut took = 0;
        loop {
            match self.ways[direction as usize].half.step() {
                Step::Closed(_) => return Ok(false),
                Step::Finish => self.finish(direction),
                Step::Drain { .. } | Step::Flush { .. } => {
                    if !self.deliver(direction)? {
                        return Ok(false);
                    }
                }
                Step::Fill if self.has_heard() => self.source_ended(direction),
                Step::Fill if allowance == 0 => return Ok(true),
                Step::Fill if took > 0 && self.is_drained(direction, took) => {
                    self.watch_sink(direction);
                    return Ok(false);
                }
                Step::Fill => match self.fill(direction)? {
                    Some(taken) => {
                        allowance = allowance.saturating_sub(taken.max(COUNTED_LEAST));
                        took = taken;
                    }
                    None => return Ok(false),
                },
            }
        }
    }

    /// Whether a fill of `took` bytes just now was all there is: asked for less than a fill in vain costs. A
    /// large one has more behind it as a rule, and a pipe can be full of a few bytes.
    fn is_drained(&self, direction: Direction, took: usize) -> bool {
        let (source, _) = ends(&self.downstream, &self.upstream, direction);
        let drained = took < PIPE_BYTES_MIN as usize
            && !self.framed.as_deref().is_some_and(|framed| framed.looks_again(direction))
            && source.readable() == Some(Readable::Maybe)
            && source.has_no_bytes();
        if drained {
            source.clear_readable();
        }
        drained
    }

    /// Takes bytes from the source; `None` when there is nothing to take now.
    fn fill(&mut self, direction: Direction) -> Result<Option<usize>, End> {
        if self.framed.is_some() {
            return self.fill_framed(direction);
        }
        let (source, sink) = ends(&self.downstream, &self.upstream, direction);
        let way = &mut self.ways[direction as usize];
        let eager = std::mem::take(&mut way.eager);
        let readable = match source.readable() {
            Some(readable) => readable,
            None if eager => Readable::Maybe,
            None => {
                self.watch_sink(direction);
                return Ok(None);
            }
        };
        let mut engine = way.engine;
        let mut filled = match engine {
            Engine::Splice => splice::fill(way, source, &self.kit, u64::MAX),
            Engine::Copy => copy::fill(way, source, sink, &self.kit),
            Engine::Uring => unreachable!("a ring has a relay of its own"),
        };
        if let Filled::Refused(reason) = filled {
            self.refused(direction, reason)?;
            let (source, sink) = ends(&self.downstream, &self.upstream, direction);
            engine = Engine::Copy;
            filled = copy::fill(&mut self.ways[direction as usize], source, sink, &self.kit);
        }
        self.filled(direction, engine, filled, readable)
    }

    /// Takes in what a fill came to; how much it brought, `None` when there is nothing to take now.
    pub(super) fn filled(
        &mut self,
        direction: Direction,
        engine: Engine,
        filled: Filled,
        readable: Readable,
    ) -> Result<Option<usize>, End> {
        let (source, _) = ends(&self.downstream, &self.upstream, direction);
        match filled {
            Filled::Bytes(bytes) | Filled::Last(bytes) => {
                if matches!(filled, Filled::Last(_)) {
                    source.clear_readable();
                }
                self.kit.counters.moved(self.live.route(), engine, direction, bytes);
                self.live.took(direction, engine, bytes);
                self.tell_given(direction);
                if let Some(engine) = self.ways[direction as usize].paced(bytes) {
                    self.kit.counters.switched(engine);
                    self.live.switched(direction);
                }
                Ok(Some(usize::try_from(bytes).unwrap_or(usize::MAX)))
            }
            Filled::Again => Ok(Some(0)),
            Filled::Nothing if readable == Readable::Ended => {
                self.ended_without_end(direction).map(Some)
            }
            Filled::Nothing => {
                source.clear_readable();
                Ok(Some(0))
            }
            Filled::Ended => {
                self.source_ended(direction);
                Ok(Some(0))
            }
            Filled::Failed(error) => self.source_failed(direction, error).map(Some),
            Filled::Refused(_) => unreachable!("copy refuses nothing"),
        }
    }

    /// Gives the sink what is held; false when it takes nothing now.
    fn deliver(&mut self, direction: Direction) -> Result<bool, End> {
        let (_, sink) = ends(&self.downstream, &self.upstream, direction);
        let way = &mut self.ways[direction as usize];
        let moved = match way.half.step() {
            Step::Drain { in_pipe } => splice::drain(way, sink, &self.kit, in_pipe),
            _ => copy::flush(way, sink),
        };
        match moved {
            Moved::Bytes => {
                self.tell_given(direction);
                self.unpause(direction);
                Ok(true)
            }
            Moved::Blocked => Ok(self.pause(direction)),
            Moved::Refused(reason) => {
                self.refused(direction, reason)?;
                let way = &mut self.ways[direction as usize];
                if let Step::Drain { in_pipe } = way.half.step()
                    && let Err(error) = splice::rescue(way, &self.kit, in_pipe)
                {
                    self.sink_failed(direction, Kind::Io { call: "read", source: error });
                }
                Ok(true)
            }
            Moved::Failed(error) => {
                let end = End::io(sink_side(direction), Stage::Relay, "send", error);
                self.sink_failed(direction, end.kind);
                Ok(true)
            }
        }
    }

    /// The sink is full. Waits for room, and watches both ends for a reset meanwhile (rule R9): the source
    /// is not read, so its reset would not be seen. True when something changed at once.
    fn pause(&mut self, direction: Direction) -> bool {
        let way = &mut self.ways[direction as usize];
        if way.paused_since.is_none() {
            way.paused_since = Some(Instant::now());
            // A sink that is slower than its source needs no wide pipe: it would only hold more.
            way.full_fills /= 2;
            self.kit.counters.paused(direction);
            self.live.paused(direction);
        }
        let (source, sink) = ends(&self.downstream, &self.upstream, direction);
        if sink.hangup() {
            let kind = gone(sink.as_fd());
            self.sink_failed(direction, kind);
            return true;
        }
        // A Unix socket hangs up when its peer closes in good order, too, and a reset of it leaves what
        // came before readable: the read will tell, once there is room for what it brings.
        if !source.hangup() || sockopt::is_unix(source.as_fd()) {
            return false;
        }
        if let Some(error) = sockopt::take_error(source.as_fd()) {
            let end = End::io(source_side(direction), Stage::Relay, "poll", error);
            self.fail(end.side, end.kind);
        }
        if self.has_failed(source_side(direction)) {
            self.drop_pipe(direction);
            self.ways[direction as usize].half.source_failed();
            return true;
        }
        false
    }

    /// Nothing to fill. When the sink's own direction is over, nobody reads it: only this notices its reset.
    pub(super) fn watch_sink(&mut self, direction: Direction) {
        if self.ways[direction.reverse() as usize].half.source_is_open() {
            return;
        }
        let (_, sink) = ends(&self.downstream, &self.upstream, direction);
        if sink.hangup() {
            let kind = gone(sink.as_fd());
            self.sink_failed(direction, kind);
        }
    }

    /// The sink is told that no more will come.
    fn finish(&mut self, direction: Direction) {
        let (_, sink) = ends(&self.downstream, &self.upstream, direction);
        let is_last = matches!(
            self.ways[direction.reverse() as usize].half.step(),
            Step::Closed(Close::Ended)
        );
        // When this is the last thing that happens the close says it as well. ENOTCONN: the sink is gone
        // already, which its own direction will find out.
        if !is_last || self.parting.is_some() {
            let _ = sink.shutdown_write();
        }
        self.ways[direction as usize].half.finished();
        self.live.set_half_closed();
    }

    fn source_ended(&mut self, direction: Direction) {
        // A side whose reset was seen by a write reads as an end: it was none.
        if self.has_failed(source_side(direction)) {
            self.ways[direction as usize].half.source_failed();
        } else {
            self.ways[direction as usize].half.source_ended();
        }
    }

    /// Readiness says that the source is over, and yet a read would wait: believe the socket's error.
    fn ended_without_end(&mut self, direction: Direction) -> Result<usize, End> {
        let (source, _) = ends(&self.downstream, &self.upstream, direction);
        let error = sockopt::take_error(source.as_fd())
            .unwrap_or_else(|| io::ErrorKind::ConnectionReset.into());
        self.source_failed(direction, error)
    }

    /// The source was reset, or timed out: nothing more can come, and nothing can be sent to it either.
    fn source_failed(&mut self, direction: Direction, error: io::Error) -> Result<usize, End> {
        let end = End::io(source_side(direction), Stage::Relay, "recv", error);
        self.fail(end.side, end.kind);
        self.ways[direction as usize].half.source_failed();
        Ok(0)
    }

    /// The sink takes no more. Its own direction may still deliver what it sent before (rule R9).
    fn sink_failed(&mut self, direction: Direction, kind: Kind) {
        self.fail(sink_side(direction), kind);
        self.drop_pipe(direction);
        self.ways[direction as usize].half.sink_failed();
        self.ways[direction.reverse() as usize].eager = true;
    }

    fn has_failed(&self, side: Side) -> bool {
        self.failure.as_ref().is_some_and(|failure| failure.side == side)
    }

    fn fail(&mut self, side: Side, kind: Kind) {
        if self.failure.is_none() {
            self.failure = Some(Box::new(Failure { side, kind }));
        }
    }

    /// splice cannot do what was asked: note why, and go on by copy unless that is forbidden.
    pub(super) fn refused(&mut self, direction: Direction, reason: Reason) -> Result<(), End> {
        if self.live.met(direction, reason) {
            self.kit.counters.fallback(reason);
        }
        // An urgent byte is no matter of the engine: only a receive can take it.
        if self.kit.no_fallback && reason != Reason::Oob {
            return Err(End::new(Side::Proxy, Stage::Relay, Kind::EngineRefused));
        }
        let spliced_before = self.live.carried(direction).spliced > 0;
        let way = &mut self.ways[direction as usize];
        if splice::is_final(way, reason, spliced_before) {
            way.switch(Engine::Copy);
            if let Some(framed) = &mut self.framed {
                framed.never_splice(direction);
            }
        }
        Ok(())
    }
}

/// Source and sink of a direction.
pub(super) fn ends<'s>(
    down: &'s Stream,
    up: &'s Stream,
    direction: Direction,
) -> (&'s Stream, &'s Stream) {
    match direction {
        Direction::ToUpstream => (down, up),
        Direction::ToDownstream => (up, down),
    }
}

pub(super) fn source_side(direction: Direction) -> Side {
    match direction {
        Direction::ToUpstream => Side::Downstream,
        Direction::ToDownstream => Side::Upstream,
    }
}

pub(super) fn sink_side(direction: Direction) -> Side {
    source_side(direction.reverse())
}

/// How a socket that hung up is gone: by an error, or because its peer closed it in both directions, as
/// only a Unix socket can say.
pub(super) fn gone(socket: BorrowedFd<'_>) -> Kind {
    match sockopt::take_error(socket) {
        Some(error) => End::io(Side::Proxy, Stage::Relay, "poll", error).kind,
        None => Kind::Completed,
    }
}
