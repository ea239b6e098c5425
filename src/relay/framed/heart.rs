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
    /// It was sent a ping.
    asked: bool,
}

impl Heart {
    pub(super) fn new(heartbeat: Heartbeat, now: Instant) -> Heart {
        let pulse = Pulse { seen: 0, due: now + heartbeat.interval, asked: false };
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

impl ReadyRelay {
    /// Looks whether both sides are there, as far as that is due.
    pub(in super::super) fn beat(&mut self) {
        let framed = self.framed_mut();
        if framed.is_ending() || framed.heart.is_none() {
            return;
        }
        let now = Instant::now();
        for direction in Direction::BOTH {
            if self.is_silent(direction, now) {
                self.silent(direction);
                return;
            }
        }
    }

    /// Whether the source of `direction` has left a ping unanswered. Sends one where that is due.
    fn is_silent(&mut self, direction: Direction, now: Instant) -> bool {
        let back = direction.reverse();
        let framed = self.framed.as_deref_mut().expect("a framed relay has a heart");
        let (source_open, reply_free) = (
            self.ways[direction as usize].half.source_is_open(),
            self.ways[back as usize].half.step() == Step::Fill,
        );
        let following = &framed.ways[direction as usize];
        // A side that has closed owes no answer.
        if !source_open || following.inspector.is_closed() {
            return false;
        }
        let heard = following.inspector.offset();
        let (source, _) = ends(&self.downstream, &self.upstream, direction);
        // What it says was not read yet, or what it is sent has not left yet: that is not its fault.
        let unheard = following.waits.is_some()
            || self.ways[direction as usize].half.step() != Step::Fill
            || source.unread_bytes() > 0
            || sockopt::unsent_bytes(source.as_fd()) > 0;
        let heart = framed.heart.as_deref_mut().expect("it was looked at");
        let Heartbeat { interval, timeout } = heart.heartbeat;
        let mut pulse = heart.sides[direction as usize];
        if now >= pulse.due {
            let is_quiet = heard == pulse.seen && !unheard;
            if is_quiet && pulse.asked {
                return true;
            }
            pulse = Pulse { seen: heard, due: now + interval, asked: false };
            let to_it = &mut framed.ways[back as usize];
            // In the middle of a frame, or with its socket full, it is asked next time.
            if is_quiet && reply_free && to_it.may_say() {
                to_it.say(&heart.ping(mask_for(back)), &mut self.ways[back as usize]);
                self.kit.counters.websocket.pinged(back);
                pulse = Pulse { due: now + timeout, asked: true, ..pulse };
            }
            heart.sides[direction as usize] = pulse;
        }
        framed.alarm_at(pulse.due);
        false
    }
}
