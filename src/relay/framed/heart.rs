//! Pings of our own to a side that is quiet, beside those of the application.

use std::os::fd::AsFd;
use std::time::Instant;

use super::super::advance::ends;
use super::super::half::Step;
use super::super::{Direction, ReadyRelay};
use super::ending::mask_for;
use crate::sys::sockopt;
use crate::ws::close::ControlFrame;
use crate::ws::inspect::PING_BYTES;
use crate::ws::policy::Heartbeat;

/// Both sides, as their frames show that they are there. The clock is read when something is due, not per message.
#[derive(Debug)]
pub(super) struct Heart {
    heartbeat: Heartbeat,
    /// What the payload of our pings begins with: the answer is ours by it.
    mark: [u8; PING_BYTES - 4],
    sent: u32,
    /// By the direction that the side is the source of.
    sides: [Pulse; 2],
}

#[derive(Clone, Copy, Debug)]
struct Pulse {
    /// How much had come from it when it was last looked at.
    seen: u64,
    due: Instant,
    /// The ping that it owes an answer to.
    asked: Option<Asked>,
}

/// A ping on its way.
#[derive(Clone, Copy, Debug)]
struct Asked {
    /// Bytes that went to this side, up to its end.
    end: u64,
    /// How many of them had left for it when that was last looked at.
    taken: u64,
}

/// What is due for one side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Nothing,
    /// Ask it, if it can be asked now.
    Ask,
    /// It has had its time.
    Silent,
}

impl Heart {
    pub(super) fn new(heartbeat: Heartbeat, now: Instant) -> Heart {
        let pulse = Pulse { seen: 0, due: now + heartbeat.interval, asked: None };
        let mark = fastrand::u32(..).to_ne_bytes();
        Heart { heartbeat, mark, sent: 0, sides: [pulse; 2] }
    }

    /// What answers to our pings begin with.
    pub(super) fn pongs(&self) -> [u8; PING_BYTES - 4] {
        self.mark
    }

    fn ping(&mut self, mask: Option<[u8; 4]>) -> ControlFrame {
        let mut payload = [0; PING_BYTES];
        payload[..self.mark.len()].copy_from_slice(&self.mark);
        payload[self.mark.len()..].copy_from_slice(&self.sent.to_be_bytes());
        self.sent = self.sent.wrapping_add(1);
        ControlFrame::ping(&payload, mask)
    }
}

impl Asked {
    /// What it means that there is no answer yet, and `taken` of the bytes have left by now. A ping behind much else waits:
    /// the time for the answer begins when it has left, and until then all that matters is that bytes do.
    fn is_given_up(&mut self, taken: u64) -> bool {
        let is_stuck = self.taken >= self.end || taken <= self.taken;
        self.taken = taken;
        is_stuck
    }
}

impl ReadyRelay {
    /// Looks whether both sides are there, as far as that is due.
    pub(in super::super) fn beat(&mut self) {
        let framed = self.framed_mut();
        if framed.is_ending() || framed.heart.is_none() {
            return;
        }
        let now = Instant::now();
        // Both before one is asked: a ping that is on its way to one side is in the way of the other's bytes.
        let verdicts = Direction::BOTH.map(|direction| (direction, self.pulse(direction, now)));
        for (direction, verdict) in verdicts {
            match verdict {
                Verdict::Nothing => {}
                Verdict::Ask => self.ask(direction, now),
                Verdict::Silent => return self.silent(direction),
            }
        }
    }

    /// How the source of `direction` does. Says when to look again.
    fn pulse(&mut self, direction: Direction, now: Instant) -> Verdict {
        let half = &self.ways[direction as usize].half;
        let to_it = &self.ways[direction.reverse() as usize].half;
        let framed = self.framed.as_deref_mut().expect("a framed relay has a heart");
        let following = &framed.ways[direction as usize];
        // A side that has closed owes no answer.
        if !half.source_is_open() || following.inspector.is_closed() {
            return Verdict::Nothing;
        }
        let heart = framed.heart.as_deref_mut().expect("it was looked at");
        let Heartbeat { interval, timeout } = heart.heartbeat;
        let pulse = &mut heart.sides[direction as usize];
        let heard = following.inspector.offset();
        let mut verdict = Verdict::Nothing;
        if pulse.asked.is_some() && heard != pulse.seen {
            *pulse = Pulse { seen: heard, due: now + interval, asked: None };
        } else if now >= pulse.due {
            let (source, _) = ends(&self.downstream, &self.upstream, direction);
            // What it says was not read yet: that is not its fault.
            let is_heard = heard != pulse.seen
                || following.waits.is_some()
                || half.step() != Step::Fill
                || source.unread_bytes() > 0;
            match &mut pulse.asked {
                _ if is_heard => *pulse = Pulse { seen: heard, due: now + interval, asked: None },
                None => {
                    pulse.due = now + interval;
                    verdict = Verdict::Ask;
                }
                Some(asked) => {
                    let unsent = sockopt::unsent_bytes(source.as_fd()) as u64;
                    pulse.due = now + timeout;
                    if asked.is_given_up(to_it.given().saturating_sub(unsent)) {
                        verdict = Verdict::Silent;
                    }
                }
            }
        }
        let due = pulse.due;
        framed.alarm_at(due);
        verdict
    }

    /// Sends the source of `direction` a ping. In the middle of a frame, or with its socket full, it is asked next
    /// time.
    fn ask(&mut self, direction: Direction, now: Instant) {
        let back = direction.reverse();
        let (source, _) = ends(&self.downstream, &self.upstream, direction);
        let framed = self.framed.as_deref_mut().expect("a framed relay has a heart");
        let to_it = &mut framed.ways[back as usize];
        let way = &mut self.ways[back as usize];
        if way.half.step() != Step::Fill || !to_it.may_say() {
            return;
        }
        let taken = way.half.given().saturating_sub(sockopt::unsent_bytes(source.as_fd()) as u64);
        let is_next = taken == way.half.given();
        let heart = framed.heart.as_deref_mut().expect("it was looked at");
        to_it.say(&heart.ping(mask_for(back)), way);
        self.kit.counters.websocket.pinged(back);
        let end = way.half.given() + way.half.held();
        // With nothing before it, it is as good as taken.
        let asked = Asked { end, taken: if is_next { end } else { taken } };
        let pulse = &mut heart.sides[direction as usize];
        *pulse = Pulse { due: now + heart.heartbeat.timeout, asked: Some(asked), ..*pulse };
        let due = pulse.due;
        framed.alarm_at(due);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_for_an_answer_begins_when_the_ping_was_taken() {
        // A thousand bytes wait before it.
        let mut asked = Asked { end: 5010, taken: 4000 };
        assert!(!asked.is_given_up(4500), "it takes what it is sent");
        assert!(!asked.is_given_up(5010), "it has only just got it");
        assert!(asked.is_given_up(5010));
        let mut asked = Asked { end: 5010, taken: 4000 };
        assert!(asked.is_given_up(4000), "it takes nothing");
        let mut asked = Asked { end: 10, taken: 10 };
        assert!(asked.is_given_up(0), "it was next, and nobody took it");
    }
}
