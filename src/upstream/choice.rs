//! Who gets the next session, as arithmetic over what is known of the endpoints. Pure.

/// What the choice knows of an endpoint that may be chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// Its share beside the others; at least 1.
    pub weight: u16,
    /// Its live sessions.
    pub sessions: usize,
    /// A number that follows from its address alone.
    pub hash: u64,
}

/// The one with the fewest sessions for its weight, the coming one included; among equals the first from
/// `start` on. `of` says who may be chosen.
pub fn least_sessions(
    of: impl Fn(usize) -> Option<Candidate>,
    count: usize,
    start: usize,
) -> Option<usize> {
    let mut best: Option<(usize, Candidate)> = None;
    for at in (0..count).map(|step| (start % count + step) % count) {
        let Some(found) = of(at) else { continue };
        if best.is_none_or(|(_, best)| load(found, best) < load(best, found)) {
            best = Some((at, found));
        }
    }
    best.map(|(at, _)| at)
}

/// What `one` would carry for its weight, to be compared with the same of `other`.
fn load(one: Candidate, other: Candidate) -> u128 {
    (one.sessions as u128 + 1) * u128::from(other.weight)
}

/// The one that rendezvous hashing finds for `key`: each scores by itself, so that one which goes takes only its
/// own keys along. The score is the logarithmic one, by which shares are as the weights are.
pub fn hashed(of: impl Fn(usize) -> Option<Candidate>, count: usize, key: u64) -> Option<usize> {
    let scored = (0..count).filter_map(|at| Some((at, score(of(at)?, key))));
    scored.max_by(|(_, one), (_, other)| one.total_cmp(other)).map(|(at, _)| at)
}

fn score(candidate: Candidate, key: u64) -> f64 {
    // 53 bits, in (0, 1): neither end has a logarithm that is of use.
    let part = ((mixed(key ^ candidate.hash) >> 11) as f64 + 0.5) / (1u64 << 53) as f64;
    f64::from(candidate.weight) / -part.ln()
}

/// The finaliser of splitmix64: every bit of the input reaches every bit of the output.
fn mixed(mut bits: u64) -> u64 {
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
}

/// The next in `turns` from `start` on that may be chosen.
pub fn in_turn(
    of: impl Fn(usize) -> Option<Candidate>,
    turns: &[u16],
    start: usize,
) -> Option<usize> {
    let from = start % turns.len().max(1);
    let (before, after) = turns.split_at(from);
    after.iter().chain(before).map(|&at| usize::from(at)).find(|&at| of(at).is_some())
}

/// Turns in which each appears as often as its weight says, as evenly as can be: the one that is the furthest
/// behind its share comes next.
pub fn turns(weights: &[u16]) -> Vec<u16> {
    let divisor = weights.iter().copied().fold(0, common_divisor).max(1);
    let weights: Vec<i64> = weights.iter().map(|weight| i64::from(weight / divisor)).collect();
    let sum: i64 = weights.iter().sum();
    let mut behind = vec![0; weights.len()];
    let next = |_| {
        for (behind, weight) in behind.iter_mut().zip(&weights) {
            *behind += weight;
        }
        // The first of the largest.
        let (at, _) = behind.iter().enumerate().rev().max_by_key(|(_, behind)| **behind)?;
        behind[at] -= sum;
        u16::try_from(at).ok()
    };
    (0..sum).filter_map(next).collect()
}

fn common_divisor(one: u16, other: u16) -> u16 {
    if other == 0 { one } else { common_divisor(other, one % other) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn candidates(each: &[(u16, usize)]) -> Vec<Option<Candidate>> {
        let hash = |at: usize| mixed(at as u64 + 1);
        each.iter()
            .enumerate()
            .map(|(at, &(weight, sessions))| Some(Candidate { weight, sessions, hash: hash(at) }))
            .collect()
    }

    #[test]
    fn the_fewest_sessions_for_the_weight_win_and_equals_take_turns() {
        for (each, start, wanted) in [
            (vec![(1, 0), (1, 0), (1, 0)], 0, 0),
            (vec![(1, 0), (1, 0), (1, 0)], 4, 1),
            (vec![(1, 3), (1, 2), (1, 3)], 0, 1),
            (vec![(2, 1), (1, 0)], 0, 0),
            (vec![(2, 2), (1, 0)], 0, 1),
            (vec![(100, 99), (1, 1)], 1, 0),
        ] {
            let all = candidates(&each);
            let found = least_sessions(|at| all[at], all.len(), start);
            assert_eq!(found, Some(wanted), "{each:?} from {start}");
        }
        assert_eq!(least_sessions(|_| None, 3, 1), None);
        assert_eq!(least_sessions(|_| None, 0, 1), None);
    }

    #[test]
    fn turns_are_as_many_as_the_weights_say_and_spread() {
        for (weights, wanted) in [
            (vec![1, 1, 1], vec![0, 1, 2]),
            (vec![5, 5], vec![0, 1]),
            (vec![4, 2], vec![0, 1, 0]),
            (vec![5, 1, 1], vec![0, 0, 1, 0, 2, 0, 0]),
        ] {
            assert_eq!(turns(&weights), wanted, "{weights:?}");
        }
    }

    #[test]
    fn a_turn_of_one_that_may_not_be_chosen_is_the_next_ones() {
        let all = candidates(&[(1, 0), (1, 0), (1, 0)]);
        let without = |gone: usize| move |at: usize| (at != gone).then_some(()).and(Some(at));
        let turns = turns(&[1, 1, 1]);
        for (gone, start, wanted) in [(0, 0, 1), (1, 0, 0), (2, 2, 0), (9, 7, 1)] {
            let of = |at| without(gone)(at).and_then(|at| all[at]);
            assert_eq!(in_turn(of, &turns, start), Some(wanted), "without {gone} from {start}");
        }
        assert_eq!(in_turn(|_| None, &turns, 0), None);
        assert_eq!(in_turn(|_| None, &[], 5), None);
    }

    #[test]
    fn hashing_shares_as_the_weights_say() {
        let all = candidates(&[(1, 0), (2, 0), (5, 0)]);
        let mut found = [0i32; 3];
        for key in 0..16_000 {
            found[hashed(|at| all[at], 3, mixed(key)).unwrap()] += 1;
        }
        for (found, wanted) in found.into_iter().zip([2_000, 4_000, 10_000]) {
            assert!((found - wanted).abs() < wanted / 10, "{found} for {wanted}");
        }
    }

    proptest! {
        #[test]
        fn whoever_goes_takes_only_his_own_keys_along(
            weights in prop::collection::vec(1u16..=100, 2..12),
            gone in any::<prop::sample::Index>(),
            keys in prop::collection::vec(any::<u64>(), 64),
        ) {
            let each: Vec<_> = weights.iter().map(|&weight| (weight, 0)).collect();
            let all = candidates(&each);
            let gone = gone.index(all.len());
            for key in keys {
                let before = hashed(|at| all[at], all.len(), key).unwrap();
                let left = |at| if at == gone { None } else { all[at] };
                let after = hashed(left, all.len(), key).unwrap();
                prop_assert!(before == gone || before == after);
                prop_assert!(after != gone);
            }
        }

        #[test]
        fn every_endpoint_has_its_turns(weights in prop::collection::vec(1u16..=100, 1..12)) {
            let turns = turns(&weights);
            let count = |at: usize| turns.iter().filter(|&&turn| usize::from(turn) == at).count();
            for (at, &weight) in weights.iter().enumerate() {
                prop_assert_eq!(
                    count(at) * usize::from(weights[0]),
                    count(0) * usize::from(weight)
                );
            }
        }
    }
}
