//! Whether small messages come in crowds, so that the ring is worth its price; pure.
//!
//! A ring saves a call for each message beyond the first that a look at the sockets finds: for one at a time it costs
//! more than it saves, for many it saves a third (kernel-notes/0012). So what counts is how many come at once, over the
//! worker's last few hundred looks. A look that brought bulk as well counts as if it had brought none: there the worker
//! is busy with that, and small messages wait longer for two places to be looked at than for one. The two marks lie
//! apart, and the window starts anew after each change, so that a traffic between them changes nothing.

use std::cell::Cell;

/// Looks that found something, until they are judged.
const LOOKS: u32 = 256;
/// So many small messages in all of them are a crowd: two and a half at a look.
const CROWD_FROM: u32 = LOOKS * 5 / 2;
/// Fewer than this are none any more: one and a half.
const CROWD_TO: u32 = LOOKS * 3 / 2;

/// What one worker has seen of late.
#[derive(Debug, Default)]
pub(super) struct Crowd {
    /// Whether there is a ring to go to.
    is_open: Cell<bool>,
    is_crowded: Cell<bool>,
    looks: Cell<u32>,
    messages: Cell<u32>,
    /// Messages of the look that is not over.
    at_this_look: Cell<u32>,
    /// Whether it brought bulk.
    has_bulk: Cell<bool>,
}

/// What moves so much at once is bulk.
const BULK_BYTES: u64 = 32 * 1024;

impl Crowd {
    /// From now on there may be crowds.
    pub fn open(&self) {
        self.is_open.set(true);
    }

    /// There is no ring after all.
    pub fn close(&self) {
        self.is_open.set(false);
        self.is_crowded.set(false);
    }

    /// Whether small messages belong on the ring.
    pub fn is_crowded(&self) -> bool {
        self.is_crowded.get()
    }

    /// A small message was found: on readiness where there is no crowd, by the ring where there is one.
    pub fn found(&self) {
        self.at_this_look.set(self.at_this_look.get() + 1);
    }

    /// A session's turn has moved so much.
    pub fn moved(&self, bytes: u64) {
        if bytes >= BULK_BYTES {
            self.has_bulk.set(true);
        }
    }

    /// A look is over. Those that found nothing say nothing.
    pub fn looked(&self) {
        let (found, has_bulk) = (self.at_this_look.take(), self.has_bulk.take());
        if (found == 0 && !has_bulk) || !self.is_open.get() {
            return;
        }
        let counted = if has_bulk { 0 } else { found };
        let (looks, messages) = (self.looks.get() + 1, self.messages.get() + counted);
        self.looks.set(looks % LOOKS);
        self.messages.set(messages);
        if looks == LOOKS {
            self.messages.set(0);
            let mark = if self.is_crowded() { CROWD_TO } else { CROWD_FROM };
            self.is_crowded.set(messages >= mark);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open() -> Crowd {
        let crowd = Crowd::default();
        crowd.open();
        crowd
    }

    fn look(crowd: &Crowd, found: u32, times: u32) {
        for _ in 0..times {
            (0..found).for_each(|_| crowd.found());
            crowd.looked();
        }
    }

    /// More than enough, and between the marks; one at a time is less than the lower one.
    const MANY: u32 = 3;
    const BETWEEN: u32 = 2;

    #[test]
    fn many_at_once_are_a_crowd_and_few_are_none() {
        for (found, expected) in [(1, false), (BETWEEN, false), (MANY, true)] {
            let crowd = open();
            look(&crowd, found, LOOKS);
            assert_eq!(crowd.is_crowded(), expected, "{found}");
        }
    }

    #[test]
    fn a_crowd_stays_one_between_the_marks_and_ends_below_the_lower_one() {
        let crowd = open();
        look(&crowd, MANY, LOOKS);
        look(&crowd, BETWEEN, 10 * LOOKS);
        assert!(crowd.is_crowded());
        look(&crowd, 1, LOOKS);
        assert!(!crowd.is_crowded());
        look(&crowd, BETWEEN, 10 * LOOKS);
        assert!(!crowd.is_crowded());
    }

    #[test]
    fn a_burst_among_single_messages_is_no_crowd() {
        let crowd = open();
        look(&crowd, 100, 2);
        look(&crowd, 1, LOOKS - 2);
        assert!(!crowd.is_crowded());
    }

    #[test]
    fn looks_that_found_nothing_do_not_dilute_it() {
        let crowd = open();
        for _ in 0..LOOKS {
            look(&crowd, MANY, 1);
            look(&crowd, 0, 10);
        }
        assert!(crowd.is_crowded());
    }

    #[test]
    fn bulk_at_the_same_time_is_no_place_for_a_crowd() {
        let bulk = |crowd: &Crowd, found, times| {
            for _ in 0..times {
                crowd.moved(1 << 20);
                look(crowd, found, 1);
            }
        };
        let crowd = open();
        bulk(&crowd, 100, 2 * LOOKS);
        assert!(!crowd.is_crowded());
        look(&crowd, MANY, LOOKS);
        assert!(crowd.is_crowded());
        // Small messages are the ring's by now; bulk is found on readiness.
        for _ in 0..LOOKS {
            look(&crowd, MANY, 1);
            bulk(&crowd, 0, 2);
        }
        assert!(!crowd.is_crowded());
        crowd.moved(BULK_BYTES - 1);
        look(&crowd, MANY, LOOKS);
        assert!(crowd.is_crowded(), "a large message is no bulk");
    }

    #[test]
    fn without_a_ring_there_is_no_crowd() {
        let crowd = Crowd::default();
        look(&crowd, 100, 2 * LOOKS);
        assert!(!crowd.is_crowded());
        crowd.open();
        look(&crowd, 100, LOOKS);
        assert!(crowd.is_crowded());
        crowd.close();
        assert!(!crowd.is_crowded());
    }
}
