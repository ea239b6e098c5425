//! What one direction on a ring does next, as a value: no socket, no ring, no clock.
//!
//! A receive is armed only while nothing is held, and takes no more than the credit: so what a direction can
//! hold is bounded, and a sink that takes nothing closes its source's window. One send is in flight at most,
//! which keeps the order (rule R22).

use crate::relay::half::{Half, Step};

/// Where the operations of one direction stand.
#[derive(Clone, Copy, Debug, Default)]
pub struct Flow {
    receive: Receive,
    source: Source,
    /// Whether a send is in flight.
    sending: bool,
    /// Whether the sink had no room: the send in flight, or the next one, waits for it.
    blocked: bool,
    /// Whether the relay is being taken apart: nothing is begun any more.
    stopping: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Receive {
    #[default]
    Idle,
    Armed,
    /// Cancelled, and its last completion is still to come.
    Cancelled,
    /// It found no buffer, and waits until there is one.
    Starved,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Source {
    #[default]
    Open,
    Ended,
    Failed,
}

/// What has to be done now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Arm the receive.
    Receive,
    /// Cancel the receive that is armed.
    CancelReceive,
    /// Send the first of what is held.
    Send,
    /// The source ended and nothing is held: say so to the half.
    End,
    /// The source failed, and what is held cannot go out, or nothing is held.
    Fail,
    /// Tell the sink.
    Finish,
}

impl Flow {
    /// What to do now; to be asked again after it is done. `credit` is what may be held at most.
    pub fn next(&self, half: &Half, credit: u64) -> Option<Action> {
        let armed = self.receive == Receive::Armed;
        let held = half.held();
        match half.step() {
            Step::Drain { .. } => unreachable!("a ring has no pipe"),
            _ if self.stopping => armed.then_some(Action::CancelReceive),
            Step::Closed(_) => armed.then_some(Action::CancelReceive),
            Step::Finish => Some(Action::Finish),
            Step::Fill | Step::Flush { .. } => match self.source {
                Source::Failed if held == 0 || self.blocked => Some(Action::Fail),
                Source::Ended if held == 0 => Some(Action::End),
                _ if held > 0 && !self.sending => Some(Action::Send),
                Source::Open if armed && (self.blocked || held > credit) => {
                    Some(Action::CancelReceive)
                }
                Source::Open if self.receive == Receive::Idle && held == 0 => Some(Action::Receive),
                _ => None,
            },
        }
    }

    /// The receive was armed.
    pub fn armed(&mut self) {
        self.receive = Receive::Armed;
    }

    /// The receive was cancelled; it may complete with bytes all the same.
    pub fn cancelled(&mut self) {
        self.receive = Receive::Cancelled;
    }

    /// The receive had its last completion.
    pub fn disarmed(&mut self) {
        self.receive = Receive::Idle;
    }

    /// The receive ended because no buffer was free.
    pub fn starved(&mut self) {
        self.receive = Receive::Starved;
    }

    /// Buffers are free.
    pub fn fed(&mut self) {
        if self.receive == Receive::Starved {
            self.receive = Receive::Idle;
        }
    }

    /// The source ended.
    pub fn source_ended(&mut self) {
        self.source = Source::Ended;
    }

    /// The source failed.
    pub fn source_failed(&mut self) {
        self.source = Source::Failed;
    }

    /// A send is on its way.
    pub fn sending(&mut self) {
        assert!(!self.sending, "two sends at once would race");
        self.sending = true;
    }

    /// The send completed.
    pub fn sent(&mut self) {
        self.sending = false;
    }

    /// The sink has no room.
    pub fn block(&mut self) {
        self.blocked = true;
    }

    /// All that was held went out.
    pub fn unblock(&mut self) {
        self.blocked = false;
    }

    /// Whether the sink has no room.
    pub fn is_blocked(&self) -> bool {
        self.blocked
    }

    /// Begins nothing any more.
    pub fn stop(&mut self) {
        self.stopping = true;
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU64;

    use super::*;

    const CREDIT: u64 = 100;

    fn holding(bytes: u64) -> Half {
        let mut half = Half::owing(0, 0);
        if let Some(bytes) = NonZeroU64::new(bytes) {
            half.queued(bytes);
        }
        half
    }

    fn flow(changes: &[fn(&mut Flow)]) -> Flow {
        let mut flow = Flow::default();
        changes.iter().for_each(|change| change(&mut flow));
        flow
    }

    #[test]
    fn what_is_held_and_what_is_in_flight_decide_what_comes_next() {
        use Action::{CancelReceive, End, Fail, Receive, Send};
        type Row = (&'static str, &'static [fn(&mut Flow)], u64, Option<Action>);
        let rows: &[Row] = &[
            ("a new direction receives", &[], 0, Some(Receive)),
            ("head data goes first", &[], 5, Some(Send)),
            ("one receive is enough", &[Flow::armed], 0, None),
            ("one send at a time", &[Flow::armed, Flow::sending], 5, None),
            ("the next send follows", &[Flow::armed, Flow::sending, Flow::sent], 5, Some(Send)),
            ("no receive while bytes are held", &[Flow::sending], 5, None),
            ("up to the credit", &[Flow::armed, Flow::sending], CREDIT, None),
            ("not past it", &[Flow::armed, Flow::sending], CREDIT + 1, Some(CancelReceive)),
            (
                "a full sink stops the source",
                &[Flow::armed, Flow::sending, Flow::block],
                1,
                Some(CancelReceive),
            ),
            (
                "it is cancelled once",
                &[Flow::armed, Flow::sending, Flow::block, Flow::cancelled],
                1,
                None,
            ),
            ("a cancelled receive has to end first", &[Flow::armed, Flow::cancelled], 0, None),
            ("then it is armed anew", &[Flow::cancelled, Flow::disarmed], 0, Some(Receive)),
            ("without buffers it waits", &[Flow::starved], 0, None),
            ("until there are some", &[Flow::starved, Flow::fed], 0, Some(Receive)),
            ("buffers arm nothing that is armed", &[Flow::armed, Flow::fed], 0, None),
            ("an end waits for what is held", &[Flow::source_ended, Flow::sending], 5, None),
            ("then it is passed on", &[Flow::source_ended], 0, Some(End)),
            ("so does a reset", &[Flow::source_failed], 5, Some(Send)),
            ("unless the sink is full", &[Flow::source_failed, Flow::block], 5, Some(Fail)),
            ("a reset ends an empty direction", &[Flow::source_failed], 0, Some(Fail)),
            ("nothing begins while stopping", &[Flow::stop], 5, None),
            ("nor is it ended", &[Flow::source_ended, Flow::stop], 0, None),
            ("but what is armed is cancelled", &[Flow::armed, Flow::stop], 0, Some(CancelReceive)),
        ];
        for (name, changes, held, expected) in rows {
            assert_eq!(flow(changes).next(&holding(*held), CREDIT), *expected, "{name}");
        }
    }

    #[test]
    fn a_closed_direction_cancels_its_receive_and_does_nothing_else() {
        let mut half = holding(5);
        half.sink_failed();
        assert_eq!(flow(&[Flow::armed]).next(&half, CREDIT), Some(Action::CancelReceive));
        assert_eq!(flow(&[]).next(&half, CREDIT), None);
        let mut ended = holding(0);
        ended.source_ended();
        assert_eq!(flow(&[Flow::source_ended]).next(&ended, CREDIT), Some(Action::Finish));
        ended.finished();
        assert_eq!(flow(&[Flow::source_ended]).next(&ended, CREDIT), None);
    }

    #[test]
    #[should_panic(expected = "two sends at once would race")]
    fn two_sends_of_one_direction_are_a_defect() {
        flow(&[Flow::sending, Flow::sending]);
    }
}
