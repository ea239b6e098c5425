//! What a running relay shows to the worker around it.

use std::cell::Cell;

use crate::metrics::{Direction, Engine, Reasons};

/// Counts of one session, written by its relay, readable at any time in the same worker.
#[derive(Debug, Default)]
pub struct Live {
    ways: [WayLive; 2],
    half_closed: Cell<bool>,
    route: Cell<Option<u16>>,
}

/// Counts of one direction.
#[derive(Clone, Debug, Default)]
struct WayLive {
    spliced: Cell<u64>,
    copied: Cell<u64>,
    ringed: Cell<u64>,
    given: Cell<u64>,
    paused: Cell<u32>,
    switches: Cell<u32>,
    reasons: Cell<Reasons>,
}

/// The same counts as plain values: what goes with a detached relay.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Carried {
    /// Bytes taken from the source by splice.
    pub spliced: u64,
    /// Bytes taken from the source by copy; head data included.
    pub copied: u64,
    /// Bytes taken from the source by the ring.
    pub ringed: u64,
    /// Bytes that the sink's socket took.
    pub given: u64,
    /// Times that the source was not read because the sink was full.
    pub paused: u32,
    /// Times that its traffic called for another engine.
    pub switches: u32,
    /// Why splice was not used, where it was asked for.
    pub reasons: Reasons,
}

impl Carried {
    /// Bytes taken from the source.
    pub fn taken(&self) -> u64 {
        self.spliced + self.copied + self.ringed
    }
}

impl Live {
    /// Counts that go on from those of an earlier relay.
    pub fn resumed(carried: [Carried; 2]) -> Live {
        let live = Live::default();
        for (way, carried) in live.ways.iter().zip(carried) {
            way.spliced.set(carried.spliced);
            way.copied.set(carried.copied);
            way.ringed.set(carried.ringed);
            way.given.set(carried.given);
            way.paused.set(carried.paused);
            way.switches.set(carried.switches);
            way.reasons.set(carried.reasons);
        }
        live
    }

    /// The counts of `direction` now.
    pub fn carried(&self, direction: Direction) -> Carried {
        let way = self.way(direction);
        Carried {
            spliced: way.spliced.get(),
            copied: way.copied.get(),
            ringed: way.ringed.get(),
            given: way.given.get(),
            paused: way.paused.get(),
            switches: way.switches.get(),
            reasons: way.reasons.get(),
        }
    }

    /// A number that changes whenever a byte moves, in or out, either way (rule R8).
    pub fn progress(&self) -> u64 {
        Direction::BOTH.iter().fold(0, |sum, &direction| {
            let carried = self.carried(direction);
            sum.wrapping_add(carried.taken()).wrapping_add(carried.given)
        })
    }

    /// Says whose bytes these are: they count for the route with this index.
    pub fn count_for(&self, route: u16) {
        self.route.set(Some(route));
    }

    pub(super) fn route(&self) -> Option<usize> {
        self.route.get().map(usize::from)
    }

    /// Whether one side has ended and the other goes on.
    pub fn half_closed(&self) -> bool {
        self.half_closed.get()
    }

    pub(super) fn set_half_closed(&self) {
        self.half_closed.set(true);
    }

    pub(super) fn took(&self, direction: Direction, engine: Engine, bytes: u64) {
        let way = self.way(direction);
        let count = match engine {
            Engine::Splice => &way.spliced,
            Engine::Copy => &way.copied,
            Engine::Uring => &way.ringed,
        };
        count.set(count.get() + bytes);
    }

    pub(super) fn gave(&self, direction: Direction, total: u64) {
        self.way(direction).given.set(total);
    }

    pub(super) fn paused(&self, direction: Direction) {
        let way = self.way(direction);
        way.paused.set(way.paused.get().saturating_add(1));
    }

    pub(super) fn switched(&self, direction: Direction) {
        let way = self.way(direction);
        way.switches.set(way.switches.get().saturating_add(1));
    }

    /// True when `reason` is new for this direction.
    pub(super) fn met(&self, direction: Direction, reason: crate::metrics::Reason) -> bool {
        let way = self.way(direction);
        let mut reasons = way.reasons.get();
        let new = reasons.insert(reason);
        way.reasons.set(reasons);
        new
    }

    fn way(&self, direction: Direction) -> &WayLive {
        &self.ways[direction as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::Reason;

    #[test]
    fn a_resumed_relay_counts_on_where_the_last_one_stopped() {
        let first = Live::default();
        first.took(Direction::ToUpstream, Engine::Splice, 5);
        first.took(Direction::ToUpstream, Engine::Copy, 2);
        first.took(Direction::ToUpstream, Engine::Uring, 4);
        first.gave(Direction::ToUpstream, 6);
        first.paused(Direction::ToUpstream);
        first.switched(Direction::ToUpstream);
        first.met(Direction::ToUpstream, Reason::Oob);
        let carried = Direction::BOTH.map(|direction| first.carried(direction));
        let second = Live::resumed(carried);
        assert_eq!(Direction::BOTH.map(|direction| second.carried(direction)), carried);
        assert!(!second.met(Direction::ToUpstream, Reason::Oob), "it was met before");
        second.took(Direction::ToUpstream, Engine::Splice, 1);
        assert_eq!(second.carried(Direction::ToUpstream).taken(), 12);
        assert_eq!(second.carried(Direction::ToDownstream), Carried::default());
    }

    #[test]
    fn a_byte_in_and_a_byte_out_are_both_progress() {
        let live = Live::default();
        let mut seen = vec![live.progress()];
        live.took(Direction::ToDownstream, Engine::Splice, 1);
        seen.push(live.progress());
        live.gave(Direction::ToDownstream, 1);
        seen.push(live.progress());
        live.took(Direction::ToUpstream, Engine::Copy, 1);
        seen.push(live.progress());
        assert_eq!(seen, [0, 1, 2, 3]);
    }

    #[test]
    fn a_reason_is_new_once_per_direction() {
        let live = Live::default();
        let reason = Reason::Emfile;
        assert!(live.met(Direction::ToUpstream, reason));
        assert!(!live.met(Direction::ToUpstream, reason));
        assert!(live.met(Direction::ToDownstream, reason));
    }
}
