//! Counters of routes that grow in number while others count: a reload may bring new ones.

use std::sync::OnceLock;

use super::RouteCounters;

/// So many as a `u16` can name.
const CHUNKS: usize = 17;

/// Counters by slot. Those that are there never move: chunks double in size, and come when one of theirs is asked
/// for.
#[derive(Debug, Default)]
pub(super) struct Slots([OnceLock<Box<[RouteCounters]>>; CHUNKS]);

impl Slots {
    /// Those of this slot, which is below 65,536.
    pub fn get(&self, slot: usize) -> &RouteCounters {
        let chunk = (slot + 1).ilog2();
        let len = 1 << chunk;
        let of_chunk = self.0[chunk as usize]
            .get_or_init(|| (0..len).map(|_| RouteCounters::default()).collect());
        &of_chunk[slot + 1 - len]
    }

    /// All that are there.
    pub fn iter(&self) -> impl Iterator<Item = &RouteCounters> {
        self.0.iter().filter_map(OnceLock::get).flat_map(|chunk| chunk.iter())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Kind;

    #[test]
    fn every_slot_has_counters_of_its_own_that_stay_where_they_are() {
        let slots = Slots::default();
        let first: *const RouteCounters = slots.get(0);
        for slot in [1, 2, 3, 100, 65_535] {
            for _ in 0..=slot % 7 {
                slots.get(slot).failed(&Kind::NoRoute);
            }
        }
        assert_eq!(first, slots.get(0) as *const _);
        let failed = |slot| super::super::RouteSnapshot::of([slots.get(slot)]).failed;
        let count = |slot| failed(slot)[Kind::NoRoute.index()];
        assert_eq!([0, 1, 2, 3, 100, 65_535].map(count), [0, 2, 3, 4, 3, 2]);
        let all = super::super::RouteSnapshot::of(slots.iter()).failed[Kind::NoRoute.index()];
        assert_eq!(all, 14);
    }
}
