//! Which engine suits the traffic of one direction; pure (rule R14).
//!
//! splice(2) spends more per call and nothing per byte, a copy the other way round. So what a fill brings
//! decides: where a direction's fills are large on average it is spliced, where they are small it is copied. The
//! average follows the last few fills, and the two marks lie apart, so that traffic between them changes nothing.

use crate::metrics::Engine;

/// Fills of this size on average are spliced (kernel-notes/0018).
pub const SPLICE_FROM: u32 = 12 * 1024;
/// Fills below this size on average are copied.
pub const COPY_BELOW: u32 = 6 * 1024;
/// A fill counts as no more than this: one large message must not outweigh dozens of small ones.
const COUNTED_MAX: u32 = 32 * 1024;
/// The share of one fill in the average, as a shift.
const SHARE: u32 = 2;

/// The running average of one direction's fills.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pace {
    average: u32,
}

impl Pace {
    /// Takes in a fill of `bytes` by `engine`; the engine for the next fill.
    pub fn after_fill(&mut self, bytes: u64, engine: Engine) -> Engine {
        let counted = u32::try_from(bytes).unwrap_or(u32::MAX).min(COUNTED_MAX);
        self.average = self.average - (self.average >> SHARE) + (counted >> SHARE);
        match engine {
            Engine::Copy if self.average >= SPLICE_FROM => Engine::Splice,
            Engine::Splice if self.average < COPY_BELOW => Engine::Copy,
            engine => engine,
        }
    }
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
            assert!(pace.average <= COUNTED_MAX);
        }
    }
}
