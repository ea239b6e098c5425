//! Which engine suits the traffic of one direction; pure (rule R14).
//!
//! splice(2) spends more per call and nothing per byte, a copy the other way round. So what a fill brings
//! decides: where a direction's fills are large on average it is spliced, where they are small it is copied. The
//! average follows the last few fills, and the two marks lie apart, so that traffic between them changes nothing.
//! Where it has been very small for a while the worker's ring can have it (`relay::crowd`), until it is not.

use crate::metrics::Engine;

/// Fills of this size on average are spliced (kernel-notes/0018).
pub const SPLICE_FROM: u32 = 12 * 1024;
/// Fills below this size on average are copied.
pub const COPY_BELOW: u32 = 6 * 1024;
/// Fills below this size on average may be the ring's: with 4 KiB it gains, with 6 KiB nothing any more, and a
/// message beyond one of its buffers costs more than it would elsewhere (kernel-notes/0034).
pub const RING_BELOW: u32 = 5 * 1024;
/// Fills of this size on average leave the ring.
pub const RING_UP_TO: u32 = 8 * 1024;
/// A fill counts as no more than this: one large message must not outweigh dozens of small ones.
const COUNTED_MAX: u32 = 32 * 1024;
/// The share of one fill in the average, as a shift.
const SHARE: u32 = 2;
/// Fills by one engine after which a direction is known well enough for a move, which costs as much as a dozen.
const KNOWN_AFTER: u16 = 64;

/// The running average of one direction's fills.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pace {
    average: u16,
    /// By the same engine, up to a bound.
    fills: u16,
}

impl Pace {
    /// Takes in a fill of `bytes` by `engine`; the engine for the next fill.
    pub fn after_fill(&mut self, bytes: u64, engine: Engine) -> Engine {
        let counted = u32::try_from(bytes).unwrap_or(u32::MAX).min(COUNTED_MAX);
        let before = u32::from(self.average);
        let average = before - (before >> SHARE) + (counted >> SHARE);
        self.average = u16::try_from(average).expect("it is no more than what counts at most");
        let next = match engine {
            Engine::Copy if average >= SPLICE_FROM => Engine::Splice,
            Engine::Splice if average < COPY_BELOW => Engine::Copy,
            Engine::Uring if average >= RING_UP_TO => Engine::Copy,
            engine => engine,
        };
        self.fills = if next == engine { self.fills.saturating_add(1) } else { 0 };
        next
    }

    /// Another engine goes on, whoever chose it.
    pub fn changed(&mut self) {
        self.fills = 0;
    }
}

/// Whether both directions of a session carry small messages only, and have for a while: one may be silent.
pub fn are_small(paces: [Pace; 2]) -> bool {
    let fills = paces.iter().fold(0, |sum: u16, pace| sum.saturating_add(pace.fills));
    fills >= KNOWN_AFTER && paces.iter().all(|pace| u32::from(pace.average) < RING_BELOW)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The engine after each of `fills`, from the engine that sessions start with.
    fn engines(fills: &[u64]) -> Vec<Engine> {
        let (mut pace, mut engine) = (Pace::default(), Engine::Copy);
        let mut next = |&bytes| {
            engine = pace.after_fill(bytes, engine);
            engine
        };
        fills.iter().map(&mut next).collect()
    }

    const LARGE: u64 = 64 * 1024;

    #[test]
    fn small_messages_are_copied_for_ever() {
        assert!(engines(&[64; 1000]).iter().all(|&engine| engine == Engine::Copy));
    }

    #[test]
    fn bulk_is_spliced_from_the_third_large_fill_on() {
        use Engine::{Copy, Splice};
        assert_eq!(engines(&[LARGE; 5]), [Copy, Splice, Splice, Splice, Splice]);
    }

    #[test]
    fn one_large_message_among_small_ones_changes_nothing() {
        let fills: Vec<u64> = (0..100).map(|at| if at % 10 == 0 { 1 << 20 } else { 100 }).collect();
        assert!(engines(&fills).iter().all(|&engine| engine == Engine::Copy));
    }

    #[test]
    fn small_messages_after_bulk_are_copied_again_soon_but_not_at_once() {
        let mut fills = vec![LARGE; 20];
        fills.extend([100; 20]);
        let engines = engines(&fills);
        assert_eq!(engines[20], Engine::Splice, "the rest of a message is small, too");
        let back = engines.iter().rposition(|&engine| engine == Engine::Splice);
        assert!(back.is_some_and(|back| (22..28).contains(&back)), "{back:?}");
    }

    #[test]
    fn fills_between_the_marks_leave_the_engine_alone() {
        let between = u64::from(SPLICE_FROM + COPY_BELOW) / 2;
        assert!(engines(&[between; 100]).iter().all(|&engine| engine == Engine::Copy));
        let mut fills = vec![LARGE; 20];
        fills.extend([between; 100]);
        assert!(engines(&fills)[20..].iter().all(|&engine| engine == Engine::Splice));
    }

    #[test]
    fn the_average_never_leaves_its_bounds() {
        let mut pace = Pace::default();
        for bytes in [u64::MAX, 0, u64::MAX, 1 << 40, 0, 0, 1].into_iter().cycle().take(1000) {
            pace.after_fill(bytes, Engine::Copy);
            assert!(u32::from(pace.average) <= COUNTED_MAX);
        }
    }

    /// A direction after `fills` of `bytes` each, by `engine`.
    fn paced(bytes: u64, fills: u16, engine: Engine) -> Pace {
        let mut pace = Pace::default();
        for _ in 0..fills {
            pace.after_fill(bytes, engine);
        }
        pace
    }

    #[test]
    fn small_messages_are_known_for_such_after_a_while_whichever_way_they_go() {
        let silent = Pace::default();
        for (one, other, expected) in [
            (paced(64, KNOWN_AFTER, Engine::Copy), silent, true),
            (silent, paced(64, KNOWN_AFTER, Engine::Copy), true),
            (
                paced(64, KNOWN_AFTER / 2, Engine::Copy),
                paced(64, KNOWN_AFTER / 2, Engine::Copy),
                true,
            ),
            (paced(64, KNOWN_AFTER - 1, Engine::Copy), silent, false),
            (paced(4104, 1000, Engine::Copy), silent, true),
            (paced(6000, 1000, Engine::Copy), silent, false),
            (paced(64, 1000, Engine::Copy), paced(6000, 1000, Engine::Copy), false),
            (silent, silent, false),
        ] {
            assert_eq!(are_small([one, other]), expected, "{one:?} {other:?}");
        }
    }

    #[test]
    fn a_change_of_engine_begins_a_new_while() {
        let mut pace = paced(64, 1000, Engine::Copy);
        pace.changed();
        assert!(!are_small([pace, Pace::default()]));
        pace = paced(64, 1000, Engine::Copy);
        while pace.after_fill(LARGE, Engine::Copy) == Engine::Copy {}
        assert_eq!(pace.fills, 0);
    }

    #[test]
    fn the_ring_keeps_small_messages_and_gives_large_ones_back_to_copy() {
        let mut pace = Pace::default();
        assert!((0..1000).all(|_| pace.after_fill(64, Engine::Uring) == Engine::Uring));
        assert!((0..3).any(|_| pace.after_fill(LARGE, Engine::Uring) == Engine::Copy));
    }
}
