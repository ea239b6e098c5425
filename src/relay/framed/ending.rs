//! How an inspected session is ended by us: each side is told with a Close, where a frame of ours may stand, and gets
//! what it was owed first.

use std::num::NonZeroU64;
use std::time::{Duration, Instant};

use super::super::advance::{ends, source_side};
use super::super::half::Step;
use super::super::{Direction, ReadyRelay, Way};
use super::{Following, Framed, Violation};
use crate::error::{End, Kind, Stage};
use crate::sys::stream::Stream;
use crate::ws::close::ControlFrame;
use crate::ws::policy::OnViolation;
use crate::ws::rules::Rule;

/// How long answers to earlier messages may still come after a violation (UPGRADES §1, c: without it a client
/// misses what it asked for before).
const ANSWERS: Duration = Duration::from_millis(50);
/// How long a frame that has begun may take to end, when nobody has offended: a Close may stand behind it only.
const FRAME: Duration = Duration::from_millis(500);
/// How long the sides have to close, once they were told.
const PATIENCE: Duration = Duration::from_secs(1);
/// RFC 6455 §7.4.1: going away.
const GOING_AWAY: u16 = 1001;

/// A session that is being ended.
#[derive(Debug)]
pub(super) struct Ending {
    /// What is reported.
    end: Option<End>,
    /// Whose bytes are heard no more.
    offender: Option<Direction>,
    /// The code for the sink of each direction.
    codes: [u16; 2],
    reason: &'static str,
    /// The other side is heard until then.
    answers_until: Instant,
    until: Instant,
    /// Which sinks were told.
    told: [bool; 2],
    /// Which sinks were told that no byte will follow.
    finished: [bool; 2],
}

impl ReadyRelay {
    /// What came in `direction` breaks `rule`.
    pub(super) fn broken(&mut self, direction: Direction, rule: Rule) {
        self.kit.counters.websocket.violated(direction, rule);
        let framed = self.framed_mut();
        let following = &mut framed.ways[direction as usize];
        if framed.ending.is_some() {
            // The other side has offended before. What this one said must not be judged a second time.
            following.stop_hearing();
            return;
        }
        let offset = following.inspector.offset();
        framed.violation.get_or_insert(Violation { rule, direction, offset });
        if let Some(watches) = &mut framed.watches {
            watches.violation(direction, rule);
        }
        if framed.policy.on_violation == OnViolation::Log {
            following.inspector.give_up();
            following.retry = !following.held.is_empty();
            return;
        }
        let end = End::new(source_side(direction), Stage::Relay, Kind::Violation(rule.as_str()));
        self.begin_ending(end, Some(direction), rule.close_code(), rule.as_str());
    }

    /// The source of `direction` does not answer.
    pub(super) fn silent(&mut self, direction: Direction) {
        let end = End::new(source_side(direction), Stage::Relay, Kind::HeartbeatTimeout);
        self.begin_ending(end, Some(direction), 1011, "no pong");
    }

    /// Ends the session politely for `end`: both sides are told `code` where a frame ends.
    ///
    /// # Errors
    ///
    /// `end`, when the session is not inspected, so that nothing can be said.
    pub(in super::super) fn leave(&mut self, end: End, code: u16) -> Result<(), End> {
        match &self.framed {
            None => Err(end),
            Some(framed) if framed.ending.is_some() => Ok(()),
            Some(_) => {
                self.begin_ending(end, None, code, "");
                Ok(())
            }
        }
    }

    fn begin_ending(
        &mut self,
        end: End,
        offender: Option<Direction>,
        code: u16,
        reason: &'static str,
    ) {
        let framed = self.framed_mut();
        if framed.ending.is_some() {
            return;
        }
        let mut codes = [code; 2];
        if let Some(direction) = offender {
            // The one who is told of the offence is the source of the direction that it came by.
            codes[direction as usize] = GOING_AWAY;
            framed.ways[direction as usize].stop_hearing();
            framed.ways[direction.reverse() as usize].inspector.keep_close();
        }
        let now = Instant::now();
        let answers_until = now + if offender.is_some() { ANSWERS } else { FRAME };
        framed.ending = Some(Box::new(Ending {
            end: Some(end),
            offender,
            codes,
            reason,
            answers_until,
            until: answers_until + PATIENCE,
            told: [false; 2],
            finished: [false; 2],
        }));
    }

    /// Goes on with an ending; true when something was said, so that the directions have to be looked at again.
    pub(in super::super) fn go_on_ending(&mut self) -> bool {
        let now = Instant::now();
        let mut said = false;
        for direction in Direction::BOTH {
            let framed = self.framed.as_deref_mut().expect("a framed relay ends like this");
            let Some(ending) = framed.ending.as_deref_mut() else { return false };
            let index = direction as usize;
            let way = &mut self.ways[index];
            if way.half.step() != Step::Fill {
                continue;
            }
            let following = &mut framed.ways[index];
            if !ending.told[index] {
                let heard_out = ending.offender == Some(direction)
                    || ending.offender.is_none() && following.inspector.is_at_boundary()
                    || now >= ending.answers_until
                    || following.inspector.is_closed();
                if !heard_out {
                    let answers_until = ending.answers_until;
                    framed.alarm_at(answers_until);
                    continue;
                }
                if ending.tell(following, way, direction) {
                    said = true;
                    continue;
                }
            }
            if !ending.finished[index] {
                ending.finished[index] = true;
                // The server closes first (RFC 6455 §7.1.1), and we are the client of the upstream; but a frame
                // that was cut short has no other end.
                if direction == Direction::ToDownstream || !following.said_close {
                    let (_, sink) = ends(&self.downstream, &self.upstream, direction);
                    finish(sink);
                }
            }
        }
        said
    }

    /// The source of `direction` has ended in the middle of an ending: what its sink is to be told has to be said
    /// now, before its end. True when something was said.
    pub(super) fn last_word(&mut self, direction: Direction) -> bool {
        let Some(framed) = self.framed.as_deref_mut() else { return false };
        let Some(ending) = framed.ending.as_deref_mut() else { return false };
        let index = direction as usize;
        !ending.told[index]
            && ending.tell(&mut framed.ways[index], &mut self.ways[index], direction)
    }

    /// How the session has ended, if it was ended by us and the sides have closed or had their time.
    pub(in super::super) fn ended(&mut self, is_over: bool) -> Option<End> {
        let framed = self.framed.as_deref_mut()?;
        let ending = framed.ending.as_deref_mut()?;
        if is_over || Instant::now() >= ending.until {
            return ending.end.take();
        }
        let until = ending.until;
        framed.alarm_at(until);
        None
    }
}

impl Ending {
    /// Tells the sink of `direction` why it is left, where a frame of ours may stand; true when something was said.
    fn tell(&mut self, following: &mut Following, way: &mut Way, direction: Direction) -> bool {
        let index = direction as usize;
        self.told[index] = true;
        let may_say = following.may_say();
        following.stop_hearing();
        if may_say {
            let frame = ControlFrame::close(self.codes[index], self.reason, mask_for(direction));
            following.say(&frame, way);
            following.said_close = true;
        }
        may_say
    }
}

impl Following {
    /// Nothing more that comes is for the other side.
    fn stop_hearing(&mut self) {
        self.inspector.shut();
        self.dropped += self.held.len() as u64;
        self.held = Vec::new();
        self.waits = None;
        self.retry = false;
    }

    /// Whether a frame of ours may follow what went this way.
    pub(super) fn may_say(&self) -> bool {
        self.inspector.is_at_boundary() && !self.inspector.has_passed_close() && !self.said_close
    }

    /// Sends a frame of ours, behind all that went this way: nothing may be held.
    pub(super) fn say(&mut self, frame: &ControlFrame, way: &mut Way) {
        let bytes = frame.as_bytes();
        way.owed.hold(bytes.to_vec());
        way.half.queued(NonZeroU64::new(bytes.len() as u64).expect("a frame has a header"));
        self.injected += bytes.len() as u64;
    }
}

impl Framed {
    /// Whether the session is being ended.
    pub(in super::super) fn is_ending(&self) -> bool {
        self.ending.is_some()
    }
}

/// What a frame of ours is masked with: only towards a server (RFC 6455 §5.1). The mask keeps a script in a browser
/// from choosing the bytes on the wire; nobody chooses ours, so any generator will do.
pub(super) fn mask_for(direction: Direction) -> Option<[u8; 4]> {
    (direction == Direction::ToUpstream).then(|| fastrand::u32(..).to_ne_bytes())
}

/// The sink is told that no more will come. It may be gone already, which its own direction will find out.
fn finish(sink: &Stream) {
    let _ = sink.shutdown_write();
}
