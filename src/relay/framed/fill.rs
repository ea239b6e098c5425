//! A fill that looks at frames first.

use std::num::NonZeroU64;

use super::super::advance::{Filled, ends};
use super::super::pace::SPLICE_FROM;
use super::super::{Direction, Engine, Kit, ReadyRelay, Way, splice};
use super::tell::Teller;
use super::{Following, Scratch};
use crate::error::End;
use crate::sys::Errno;
use crate::sys::stream::{Readable, Stream};
use crate::ws::frame::HEADER_BYTES_MAX;
use crate::ws::inspect::{Piece, Tools};
use crate::ws::rules::Rule;

/// So much of a frame is worth leaving in the kernel.
const UNSEEN_FROM: u64 = SPLICE_FROM as u64;

/// Headers that are looked at for one fill: what is not there yet cannot be looked at, so there is no end else.
const HEADERS_AHEAD_MAX: usize = 64;

/// Bytes that are inflated for one look: others want their turn.
const INFLATED_PER_LOOK: u64 = 256 * 1024;

/// What a look at a source came to.
struct Looked {
    /// What went on from it, as of any fill.
    filled: Filled,
    /// What it took, for the sink or not: bytes that came, or were made of those.
    received: usize,
    /// What stopped it.
    stopped: Option<Stopped>,
}

enum Stopped {
    /// A rate is used up until then.
    Wait(u64),
    /// What comes next breaks a rule.
    Broken(Rule),
}

impl ReadyRelay {
    /// Takes bytes from the source as far as they may go on; `None` when there is nothing to take now.
    pub(in super::super) fn fill_framed(
        &mut self,
        direction: Direction,
    ) -> Result<Option<usize>, End> {
        let Some(readable) = self.may_look(direction) else {
            self.watch_sink(direction);
            return Ok(None);
        };
        let mut looked = self.look(direction, true);
        if let Filled::Refused(reason) = looked.filled {
            self.refused(direction, reason)?;
            looked = self.look(direction, false);
        }
        let Looked { filled, received, stopped } = looked;
        // An end is there still once that was said; a failure reads as an end then, and is nobody's doing.
        if matches!(filled, Filled::Ended | Filled::Failed(_)) && self.last_word(direction) {
            return Ok(Some(0));
        }
        let engine = self.ways[direction as usize].engine;
        let took = self.filled(direction, engine, filled, readable)?;
        match stopped {
            Some(Stopped::Wait(until)) => {
                let framed = self.framed_mut();
                framed.ways[direction as usize].waits = Some(until);
                // Here, since nobody may look at this direction again before then.
                let at = framed.instant(until);
                framed.alarm_at(at);
                self.kit.counters.websocket.slowed(direction);
            }
            Some(Stopped::Broken(rule)) => self.broken(direction, rule),
            None => {}
        }
        if self.framed_mut().ways[direction as usize].inspector.is_closed() {
            // The other side has to close, too: the shorter timer counts.
            self.live.set_half_closed();
        }
        Ok(took.map(|took| took.max(received)))
    }

    /// Whether there may be something to look at, new or held back.
    fn may_look(&mut self, direction: Direction) -> Option<Readable> {
        let eager = std::mem::take(&mut self.ways[direction as usize].eager);
        let framed = self.framed_mut();
        let now = framed.now();
        let following = &mut framed.ways[direction as usize];
        if let Some(until) = following.waits {
            if now < until {
                let until = framed.instant(until);
                framed.alarm_at(until);
                return None;
            }
            following.waits = None;
        }
        let retry = following.retry;
        let (source, _) = ends(&self.downstream, &self.upstream, direction);
        source.readable().or_else(|| (eager || retry).then_some(Readable::Maybe))
    }

    fn look(&mut self, direction: Direction, may_splice: bool) -> Looked {
        let framed = self.framed.as_deref_mut().expect("a framed relay looks");
        let needs_time = framed.ways[direction as usize].inspector.needs_time();
        let now = if needs_time { framed.now() } else { 0 };
        let (source, sink) = ends(&self.downstream, &self.upstream, direction);
        let mut scratch = self.kit.scratch.borrow_mut();
        let Scratch { plain, inflated } = scratch.get_or_insert_default();
        framed.forget_watches();
        let watches = framed.watches.as_deref_mut();
        let events = &mut Teller::new(direction, &self.kit.counters.websocket, watches);
        let mut tools = Tools { now, plain, inflated, events };
        let following = &mut framed.ways[direction as usize];
        let way = &mut self.ways[direction as usize];
        let may_splice = may_splice && following.may_splice && following.held.is_empty();
        if may_splice && following.has_unseen(source, splice::worth_filling(way), &mut tools) {
            way.engine = Engine::Splice;
            return following.splice(way, source, &self.kit, &mut tools);
        }
        way.engine = Engine::Copy;
        let looked = following.receive(way, source, sink, &self.kit, &mut tools);
        if let Some(payload) = tools.events.last_data_frame() {
            following.large = payload >= UNSEEN_FROM;
        }
        looked
    }
}

impl Following {
    /// Whether enough of what comes next may stay in the kernel. Headers are looked at where they are, if the last
    /// frame was a large one: what is received with a small one has to be copied.
    fn has_unseen(
        &mut self,
        source: &Stream,
        wanted: u64,
        tools: &mut Tools<'_, Teller<'_>>,
    ) -> bool {
        if self.large && self.inspector.unseen() == 0 {
            let mut header = [0; HEADER_BYTES_MAX];
            if let Ok(peeked) = source.peek(&mut header)
                && peeked > 0
            {
                // What is wrong with it is found again, and judged, when it is received.
                self.large = match self.inspector.enter(&header[..peeked], tools) {
                    Ok(Some(unseen)) => unseen >= UNSEEN_FROM,
                    Ok(None) | Err(_) => false,
                };
            }
        }
        let unseen = self.inspector.unseen();
        if self.large && self.looks_ahead && unseen > 0 && unseen < wanted {
            self.look_ahead(source, wanted, tools);
        }
        self.may_pass(tools.now) >= UNSEEN_FROM
    }

    /// Bytes that may pass unseen now.
    fn may_pass(&self, now: u64) -> u64 {
        self.inspector.unseen().min(self.inspector.room(now))
    }

    /// Looks at the headers behind what may pass already, so that one fill takes several frames.
    fn look_ahead(&mut self, source: &Stream, wanted: u64, tools: &mut Tools<'_, Teller<'_>>) {
        let mut header = [0; HEADER_BYTES_MAX];
        // Up to an urgent byte: the kernel counts it where it looks behind the front, and a splice stops there.
        let there = source.unread_bytes();
        for _ in 0..HEADERS_AHEAD_MAX {
            let unseen = self.inspector.unseen();
            if unseen >= wanted || unseen + HEADER_BYTES_MAX as u64 > there {
                break;
            }
            match source.peek_behind(unseen as u32, &mut header) {
                Ok(peeked) if self.inspector.enter_next(&header[..peeked], tools) => {}
                Ok(_) => break,
                Err(error) => {
                    self.looks_ahead = Errno::of(&error) == Errno::Again;
                    break;
                }
            }
        }
        source.peek_at_front();
    }

    fn splice(
        &mut self,
        way: &mut Way,
        source: &Stream,
        kit: &Kit,
        tools: &mut Tools<'_, Teller<'_>>,
    ) -> Looked {
        let filled = splice::fill(way, source, kit, self.may_pass(tools.now));
        let mut received = 0;
        if let Filled::Bytes(bytes) | Filled::Last(bytes) = filled {
            self.inspector.passed(bytes, tools);
            received = usize::try_from(bytes).unwrap_or(usize::MAX);
        }
        Looked { filled, received, stopped: None }
    }

    /// Receives once, behind what is held, and sends at once what may go on.
    fn receive(
        &mut self,
        way: &mut Way,
        source: &Stream,
        sink: &Stream,
        kit: &Kit,
        tools: &mut Tools<'_, Teller<'_>>,
    ) -> Looked {
        let mut buffer = kit.buffer.borrow_mut();
        let held = self.held.len();
        buffer[..held].copy_from_slice(&self.held);
        let nothing = |filled| Looked { filled, received: 0, stopped: None };
        let received = if std::mem::take(&mut self.retry) {
            0
        } else {
            match source.recv(&mut buffer[held..]) {
                Ok(0) => return nothing(Filled::Ended),
                Ok(received) => received,
                Err(error) => {
                    return nothing(match Errno::of(&error) {
                        Errno::Again => Filled::Nothing,
                        Errno::Interrupted => Filled::Again,
                        _ => Filled::Failed(error),
                    });
                }
            }
        };
        let is_last = held + received < buffer.len() && received > 0 && !source.at_urgent_mark();
        let inflated = self.inspector.inflated();
        let (passed, stopped) = self.judge(&mut buffer[..held + received], tools);
        let inflated = usize::try_from(self.inspector.inflated() - inflated).unwrap_or(usize::MAX);
        if let Some(bytes) = NonZeroU64::new(passed as u64) {
            way.half.received(bytes);
            // What this send says beyond a count, the next flush will say again: there it is judged.
            let sent = sink.send(&buffer[..passed]).unwrap_or(0);
            way.half.flushed(sent as u64);
            if sent < passed {
                way.owed.hold(buffer[sent..passed].to_vec());
            }
        }
        let passed = passed as u64;
        let filled = if is_last { Filled::Last(passed) } else { Filled::Bytes(passed) };
        Looked { filled, received: received.max(inflated), stopped }
    }

    /// Judges what was received. What may go on stands in front then; what is not whole, or has to wait, is held.
    fn judge(
        &mut self,
        bytes: &mut [u8],
        tools: &mut Tools<'_, Teller<'_>>,
    ) -> (usize, Option<Stopped>) {
        let (mut at, mut passed) = (0, 0);
        let enough = self.inspector.inflated() + INFLATED_PER_LOOK;
        let stopped = loop {
            if at == bytes.len() {
                break None;
            }
            if self.inspector.inflated() >= enough {
                self.retry = true;
                break None;
            }
            match self.inspector.next(&bytes[at..], tools) {
                Ok(Piece::Pass(count)) => {
                    if passed != at {
                        bytes.copy_within(at..at + count, passed);
                    }
                    passed += count;
                    at += count;
                }
                Ok(Piece::Drop(count)) => {
                    self.dropped += count as u64;
                    at += count;
                }
                Ok(Piece::More) => break None,
                Ok(Piece::Wait(until)) => {
                    self.retry = true;
                    break Some(Stopped::Wait(until));
                }
                Err(rule) => break Some(Stopped::Broken(rule)),
            }
        };
        self.held = bytes[at..].to_vec();
        (passed, stopped)
    }
}
