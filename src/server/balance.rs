//! Which worker a connection or a session should rather be in: every one is as good as any other, so what
//! counts is how many there are.
//!
//! The kernel deals connections out by a hash, which is fair to many and not to few: of four workers with
//! four sessions about a third are idle (note 0017). A connection that was accepted is handed to the least
//! loaded worker before anything is read from it, and a worker that is left with more sessions than another,
//! since others ended, gives some away once a second.

use std::rc::Rc;
use std::time::{Duration, Instant};

use crate::session::load::Kind;
use crate::session::registry::{Move, Order};
use crate::session::worker::Worker;

/// Between two looks at the other workers' sessions.
const PERIOD: Duration = Duration::from_secs(1);
/// Sessions given away at one look: each costs both workers some system calls.
const MOVES_MAX: usize = 16;
/// So many connections of late (the count is halved each period) are a storm of short ones, which the hash deals
/// out fairly enough; a hand-over wakes another thread, and of a storm it would be every third connection.
const STORM: u32 = 128;
/// A difference below this cannot be made smaller.
const DIFFERENCE_LEAST: usize = 2;
/// One part in so many of the own load is not worth a move.
const PARTS: usize = 8;

/// The least loaded worker, if it has so much less than `own`'s load that one should go there. Among equals
/// the next after `own` in the ring, so that not all workers choose the same. Who is `None` takes nothing.
fn better(own: usize, load: usize, loads: impl Iterator<Item = Option<usize>>) -> Option<usize> {
    let after = |at: usize| if at > own { (0, at) } else { (1, at) };
    let open = loads.enumerate().filter_map(|(at, load)| Some((load?, at)));
    let (least, at) =
        open.filter(|&(_, at)| at != own).min_by_key(|&(load, at)| (load, after(at)))?;
    (load.saturating_sub(least) >= DIFFERENCE_LEAST.max(load / PARTS)).then_some(at)
}

/// Where a worker's surplus should go, one by one, `MOVES_MAX` at most.
fn surplus(own: usize, mut loads: Vec<Option<usize>>) -> Vec<usize> {
    let mut moves = Vec::new();
    while moves.len() < MOVES_MAX
        && let Some(load) = loads[own]
        && let Some(to) = better(own, load, loads.iter().copied())
    {
        loads[own] = Some(load - 1);
        loads[to] = loads[to].map(|load| load + 1);
        moves.push(to);
    }
    moves
}

/// What counts as accepted lately once a period is over: half of what did, and never so much that a storm
/// is felt for longer than a period after its end.
fn faded(lately: u32) -> u32 {
    lately.min(2 * STORM) / 2
}

/// The worker that should carry a connection which `worker` has just accepted, if it is not `worker` itself.
pub(super) fn for_accepted(worker: &Worker) -> Option<usize> {
    if !worker.balances {
        return None;
    }
    worker.accepted_lately.update(|lately| lately.saturating_add(1));
    let load = worker.loads.connections(worker.index) + 1;
    // Who had nothing cannot have too much, and need not look at the others.
    if load < DIFFERENCE_LEAST || worker.accepted_lately.get() > STORM {
        return None;
    }
    better(worker.index, load, worker.loads.all(Kind::Connection))
}

/// Gives surplus sessions to other workers, for as long as the worker runs.
pub(super) async fn rebalance(worker: &Rc<Worker>) {
    // Not all at the same moment: two that see the same idle worker would both give to it.
    let share = u32::try_from(worker.plans.load().config.gateway.workers)
        .expect("the configuration bounds it");
    let place = u32::try_from(worker.index).expect("it is one of them");
    let mut due = Instant::now() + PERIOD + PERIOD * place / share;
    loop {
        worker.kit.reactor.sleep_until(due).await;
        due = Instant::now() + PERIOD;
        worker.accepted_lately.update(faded);
        if worker.registry.len() < DIFFERENCE_LEAST {
            continue;
        }
        let moves = surplus(worker.index, worker.loads.all(Kind::Session).collect());
        let order = |to| Order::Move(Move { worker: to, engine: None });
        worker.registry.order_any(moves.into_iter().map(order).collect());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_goes_to_the_least_loaded_when_that_makes_the_difference_smaller() {
        let none = None;
        for (own, loads, wanted) in [
            (0, vec![Some(1)], none),
            (0, vec![Some(1), Some(0)], none),
            (0, vec![Some(2), Some(0)], Some(1)),
            (0, vec![Some(2), Some(1)], none),
            (1, vec![Some(3), Some(3), Some(1), Some(2)], Some(2)),
            (1, vec![Some(0), Some(3), Some(1), Some(0)], Some(3)),
            (3, vec![Some(0), Some(3), Some(0), Some(2)], Some(0)),
            (0, vec![Some(5), None, Some(3)], Some(2)),
            (0, vec![Some(5), None], none),
            (0, vec![Some(23), Some(21)], Some(1)),
            (0, vec![Some(24), Some(22)], none),
            (0, vec![Some(24), Some(21)], Some(1)),
            (0, vec![Some(800), Some(701)], none),
            (0, vec![Some(800), Some(700)], Some(1)),
            (0, vec![Some(0), Some(7)], none),
        ] {
            let load = loads[own].expect("the own load is known");
            let found = better(own, load, loads.iter().copied());
            assert_eq!(found, wanted, "{own} of {loads:?}");
        }
    }

    #[test]
    fn a_surplus_is_spread_one_by_one_and_no_further_than_evenly() {
        for (own, loads, wanted) in [
            (0, vec![Some(1), Some(0)], vec![]),
            (0, vec![Some(4), Some(0)], vec![1, 1]),
            (0, vec![Some(5), Some(0)], vec![1, 1]),
            (1, vec![Some(0), Some(4), Some(0), Some(0)], vec![2, 3, 0]),
            (1, vec![Some(0), Some(4), None, Some(3)], vec![0, 0]),
            (0, vec![None, Some(0)], vec![]),
            (0, vec![Some(1000), Some(0)], vec![1; MOVES_MAX]),
        ] {
            assert_eq!(surplus(own, loads.clone()), wanted, "{own} of {loads:?}");
        }
    }

    #[test]
    fn a_storm_is_one_from_its_first_period_to_one_after_its_end() {
        let (calm, storm) = (STORM / 4, 10 * STORM);
        let mut lately = 0;
        let mut hands_over = |accepted: u32| {
            let first = lately < STORM;
            lately += accepted;
            let last = lately <= STORM;
            lately = faded(lately);
            (first, last)
        };
        let found = [calm, calm, storm, storm, calm, calm].map(&mut hands_over);
        let yes = (true, true);
        let wanted = [yes, yes, (true, false), (false, false), (false, false), yes];
        assert_eq!(found, wanted);
    }

    #[test]
    fn admission_keeps_any_sequence_within_one_of_another() {
        let mut random = fastrand::Rng::with_seed(17);
        for _ in 0..200 {
            let mut loads = [0; 4];
            for _ in 0..17 {
                let own = random.usize(..4);
                let seen = loads.map(Some).into_iter();
                loads[better(own, loads[own] + 1, seen).unwrap_or(own)] += 1;
                let (least, most) = (loads.iter().min(), loads.iter().max());
                assert!(most.unwrap() - least.unwrap() <= 1, "{loads:?}");
            }
        }
    }
}
