//! One direction of a relay, as a value: no socket, no clock, no runtime.
//!
//! ```text
//!            received              flushed to 0
//!   Fill ───────────────► Flush ──────────────► Fill      bytes held in memory
//!   Fill ──── filled ───► Drain ── drained to 0 ► Fill    bytes held in a pipe
//!   Fill ── source ended ► Finish ── sink told ──► Closed
//!   any ── source reset, sink broken ────────────► Closed  what was held is discarded
//! ```
//!
//! Invariant: `taken == given + held + discarded`, and never are bytes held in memory and in the pipe at
//! once, so their order cannot be mistaken.

use std::num::NonZeroU64;

/// Where one direction stands, and what it has moved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Half {
    step: Step,
    given: u64,
    discarded: u64,
}

/// What has to happen next in this direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Nothing is held: take bytes from the source.
    Fill,
    /// The pipe holds `in_pipe` bytes: move them into the sink.
    Drain {
        /// Exactly what the pipe holds.
        in_pipe: NonZeroU64,
    },
    /// Memory holds `owed` bytes (head data, or what a short send left): send them to the sink.
    Flush {
        /// Exactly what memory holds.
        owed: NonZeroU64,
    },
    /// The source ended and nothing is held: tell the sink (`SHUT_WR`), once.
    Finish,
    /// Nothing more happens in this direction.
    Closed(Close),
}

/// How a direction ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Close {
    /// The source ended, the sink was told.
    Ended,
    /// The source was reset.
    SourceFailed,
    /// The sink was reset or is gone.
    SinkFailed,
}

impl Half {
    /// A direction that owes its sink `owed` bytes of head data before anything else, after `given` that
    /// went out along with the head.
    pub fn owing(owed: usize, given: usize) -> Half {
        let step = match NonZeroU64::new(owed as u64) {
            Some(owed) => Step::Flush { owed },
            None => Step::Fill,
        };
        Half { step, given: given as u64, discarded: 0 }
    }

    /// What has to happen next.
    pub fn step(&self) -> Step {
        self.step
    }

    /// Bytes that the sink's socket took.
    pub fn given(&self) -> u64 {
        self.given
    }

    /// Bytes that were taken and could not be given.
    pub fn discarded(&self) -> u64 {
        self.discarded
    }

    /// Bytes taken and neither given nor discarded yet.
    pub fn held(&self) -> u64 {
        match self.step {
            Step::Drain { in_pipe: held } | Step::Flush { owed: held } => held.get(),
            Step::Fill | Step::Finish | Step::Closed(_) => 0,
        }
    }

    /// Whether the source can still bring bytes.
    pub fn source_is_open(&self) -> bool {
        matches!(self.step, Step::Fill | Step::Drain { .. } | Step::Flush { .. })
    }

    /// `bytes` went from the source into the pipe.
    pub fn filled(&mut self, bytes: NonZeroU64) {
        assert_eq!(self.step, Step::Fill, "a fill while bytes were held");
        self.step = Step::Drain { in_pipe: bytes };
    }

    /// `bytes` went from the source into memory.
    pub fn received(&mut self, bytes: NonZeroU64) {
        assert_eq!(self.step, Step::Fill, "a receive while bytes were held");
        self.step = Step::Flush { owed: bytes };
    }

    /// `bytes` went from the source into memory, behind those that are there already, if any.
    pub fn queued(&mut self, bytes: NonZeroU64) {
        let owed = match self.step {
            Step::Fill => bytes,
            Step::Flush { owed } => owed.saturating_add(bytes.get()),
            step => panic!("bytes were queued where none can be held: {step:?}"),
        };
        self.step = Step::Flush { owed };
    }

    /// `bytes` were on their way when the sink failed: nobody will get them.
    pub fn came_too_late(&mut self, bytes: u64) {
        assert!(matches!(self.step, Step::Closed(_)), "bytes were dropped on an open direction");
        self.discarded += bytes;
    }

    /// `bytes` were on their way to the sink when this direction was closed, and went out all the same.
    pub fn went_out(&mut self, bytes: u64) {
        assert!(matches!(self.step, Step::Closed(_)), "what an open direction gives is flushed");
        assert!(bytes <= self.discarded, "more went out than was held");
        self.discarded -= bytes;
        self.given += bytes;
    }

    /// `bytes` went from the pipe into the sink.
    pub fn drained(&mut self, bytes: u64) {
        let Step::Drain { in_pipe } = self.step else {
            panic!("a drain without bytes in the pipe: {:?}", self.step);
        };
        assert!(bytes <= in_pipe.get(), "drained more than the pipe held");
        self.given += bytes;
        self.step = match NonZeroU64::new(in_pipe.get() - bytes) {
            Some(in_pipe) => Step::Drain { in_pipe },
            None => Step::Fill,
        };
    }

    /// `bytes` went from memory into the sink.
    pub fn flushed(&mut self, bytes: u64) {
        let Step::Flush { owed } = self.step else {
            panic!("a flush without bytes owed: {:?}", self.step);
        };
        assert!(bytes <= owed.get(), "flushed more than was owed");
        self.given += bytes;
        self.step = match NonZeroU64::new(owed.get() - bytes) {
            Some(owed) => Step::Flush { owed },
            None => Step::Fill,
        };
    }

    /// What the pipe held is in memory now: splice was refused with bytes in the pipe.
    pub fn rescued(&mut self) {
        let Step::Drain { in_pipe } = self.step else {
            panic!("a rescue without bytes in the pipe: {:?}", self.step);
        };
        self.step = Step::Flush { owed: in_pipe };
    }

    /// The source said that no more bytes will come.
    pub fn source_ended(&mut self) {
        assert_eq!(self.step, Step::Fill, "an end was read while bytes were held");
        self.step = Step::Finish;
    }

    /// The sink was told that no more bytes will come.
    pub fn finished(&mut self) {
        assert_eq!(self.step, Step::Finish, "the sink was told before the source ended");
        self.step = Step::Closed(Close::Ended);
    }

    /// The source was reset; what is held is lost.
    pub fn source_failed(&mut self) {
        self.fail(Close::SourceFailed);
    }

    /// The sink takes no more; what is held is lost.
    pub fn sink_failed(&mut self) {
        self.fail(Close::SinkFailed);
    }

    fn fail(&mut self, close: Close) {
        assert!(!matches!(self.step, Step::Closed(_)), "a direction failed after it was closed");
        self.discarded += self.held();
        self.step = Step::Closed(close);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn n(bytes: u64) -> NonZeroU64 {
        NonZeroU64::new(bytes).expect("not zero")
    }

    #[test]
    fn a_pipe_is_drained_to_the_last_byte_before_the_next_fill() {
        let mut half = Half::owing(0, 0);
        half.filled(n(10));
        half.drained(4);
        assert_eq!(half.step(), Step::Drain { in_pipe: n(6) });
        half.drained(0);
        half.drained(6);
        assert_eq!(half.step(), Step::Fill);
        assert_eq!((half.given(), half.held()), (10, 0));
    }

    #[test]
    fn head_data_goes_first_and_keeps_its_rest_after_a_short_send() {
        let mut half = Half::owing(5, 0);
        assert_eq!(half.step(), Step::Flush { owed: n(5) });
        half.flushed(2);
        assert_eq!(half.held(), 3);
        half.flushed(3);
        assert_eq!(half.step(), Step::Fill);
    }

    #[test]
    fn an_end_is_told_once_and_only_when_nothing_is_held() {
        let mut half = Half::owing(0, 0);
        half.source_ended();
        assert_eq!(half.step(), Step::Finish);
        assert!(!half.source_is_open());
        half.finished();
        assert_eq!(half.step(), Step::Closed(Close::Ended));
    }

    #[test]
    #[should_panic(expected = "an end was read while bytes were held")]
    fn an_end_cannot_overtake_bytes_in_the_pipe() {
        let mut half = Half::owing(0, 0);
        half.filled(n(1));
        half.source_ended();
    }

    #[test]
    #[should_panic(expected = "drained more than the pipe held")]
    fn a_pipe_cannot_give_more_than_it_holds() {
        let mut half = Half::owing(0, 0);
        half.filled(n(1));
        half.drained(2);
    }

    #[test]
    fn a_broken_sink_discards_what_is_held_and_the_sums_balance() {
        let mut half = Half::owing(0, 0);
        half.filled(n(10));
        half.drained(3);
        half.sink_failed();
        assert_eq!((half.given(), half.discarded(), half.held()), (3, 7, 0));
        assert_eq!(half.step(), Step::Closed(Close::SinkFailed));
    }

    #[test]
    fn what_was_on_its_way_when_the_source_failed_counts_as_given() {
        let mut half = Half::owing(0, 0);
        half.queued(n(10));
        half.source_failed();
        half.went_out(4);
        assert_eq!((half.given(), half.discarded(), half.held()), (4, 6, 0));
    }

    #[test]
    fn bytes_queue_up_in_memory_and_count_as_discarded_after_the_end() {
        let mut half = Half::owing(0, 0);
        half.queued(n(5));
        half.queued(n(2));
        half.flushed(6);
        assert_eq!(half.step(), Step::Flush { owed: n(1) });
        half.sink_failed();
        half.came_too_late(4);
        assert_eq!((half.given(), half.held(), half.discarded()), (6, 0, 5));
    }

    #[test]
    fn bytes_rescued_from_the_pipe_are_owed_from_memory() {
        let mut half = Half::owing(0, 0);
        half.filled(n(10));
        half.drained(3);
        half.rescued();
        assert_eq!(half.step(), Step::Flush { owed: n(7) });
        half.flushed(7);
        half.received(n(2));
        half.flushed(2);
        assert_eq!(half.given(), 12);
    }
}
