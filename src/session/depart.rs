//! Sessions that are told to leave, spread evenly over a time: of a gateway, a route or an endpoint that drains, of a
//! route that a reload has changed or taken away, of an endpoint that became unhealthy.

use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use super::facts::Facts;
use super::registry::{Order, Seat};
use super::worker::Worker;
use crate::error::Kind;
use crate::upstream::Endpoint;

/// How many looks there are in the time, and what lies between two of them.
const LOOKS: u32 = 100;
const LOOK_SHORTEST: Duration = Duration::from_millis(10);
const LOOK_LONGEST: Duration = Duration::from_millis(100);
/// Looks after the end of the time: a session may be on its way between workers at any one of them.
const LOOKS_BEYOND: u32 = 5;
/// Seats that are looked at before the sessions have their turns.
const SEATS_AT_ONCE: usize = 1024;
/// How long after the deadline those that were told at the last moment may take.
pub const LAST_GRACE: Duration = Duration::from_secs(1);

/// No drain takes longer: a longer one is a slip of the finger.
pub const DEADLINE_MAX: Duration = Duration::from_secs(7 * 24 * 3600);

/// How long it takes to tell so many sessions at this rate per second, with a little to spare: a deadline that
/// came earlier would have the rest told all at once.
pub fn time_to_tell(sessions: u64, rate: Option<f64>) -> Duration {
    let seconds = rate.map_or(0.0, |rate| 1.2 * sessions as f64 / rate);
    Duration::from_secs_f64(seconds.min(DEADLINE_MAX.as_secs_f64()))
}

/// Which sessions are meant.
#[derive(Clone, Debug)]
pub enum Whose {
    /// All of the gateway.
    All,
    /// Those of the routes in these slots.
    Routes(Vec<usize>),
    /// Those that lead to one of these.
    Endpoints(Vec<Arc<Endpoint>>),
    /// Those of the route in this slot, for as long as a reload does not bring it back.
    Retired(usize),
    /// Those of an endpoint, for as long as its checks have not changed their mind: so often they had.
    Unhealthy(Arc<Endpoint>, u32),
}

/// Sessions that leave: which, when, and with what words. Shared by all workers.
#[derive(Debug)]
pub struct Leaving {
    whose: Whose,
    began: Instant,
    over: Duration,
    kind: fn() -> Kind,
    code: u16,
    deadline: Option<Instant>,
    rate: Option<Rate>,
    told: AtomicU64,
    called_off: AtomicBool,
}

/// At most so many per second, of all workers together: each takes its place in one row.
#[derive(Debug)]
struct Rate {
    /// Nanoseconds between two places.
    apart: u64,
    /// When the next place is, in nanoseconds since the beginning.
    next: AtomicU64,
}

impl Whose {
    /// Whether the session of these facts is one of them.
    pub fn are(&self, facts: &Facts) -> bool {
        let leads_to = |wanted: &Arc<Endpoint>| {
            facts.endpoint.as_ref().is_some_and(|held| Arc::ptr_eq(held.endpoint(), wanted))
        };
        match self {
            Whose::All => true,
            Whose::Routes(slots) => facts.route_index().is_some_and(|slot| slots.contains(&slot)),
            Whose::Retired(slot) => facts.route_index() == Some(*slot),
            Whose::Endpoints(endpoints) => endpoints.iter().any(leads_to),
            Whose::Unhealthy(endpoint, _) => leads_to(endpoint),
        }
    }
}

impl Leaving {
    /// From now on, `over` this time. An inspected session is told with a Close of this `code`; an opaque one is
    /// closed at once, unless there is a deadline.
    pub fn new(whose: Whose, over: Duration, kind: fn() -> Kind, code: u16) -> Leaving {
        Leaving {
            whose,
            began: Instant::now(),
            over,
            kind,
            code,
            deadline: None,
            rate: None,
            told: AtomicU64::default(),
            called_off: AtomicBool::default(),
        }
    }

    /// Those that are left by then are told all at once, and a little later ended. Until then an opaque session
    /// gets what it is owed and the ends of both sides, and waits for theirs.
    #[must_use]
    pub fn until(mut self, deadline: Duration) -> Leaving {
        self.deadline = Some(self.began + deadline);
        self
    }

    /// No more than so many are told in any second, whatever the time, until the deadline.
    #[must_use]
    pub fn at_most(mut self, per_second: f64) -> Leaving {
        self.rate = Some(Rate::new(per_second));
        self
    }

    /// Which sessions are meant.
    pub fn whose(&self) -> &Whose {
        &self.whose
    }

    /// How many were told so far.
    pub fn told(&self) -> u64 {
        self.told.load(Relaxed)
    }

    /// When those that are left are ended.
    pub fn deadline(&self) -> Option<Instant> {
        self.deadline
    }

    /// Nobody more is told.
    pub fn call_off(&self) {
        self.called_off.store(true, Relaxed);
    }

    /// Whether it was called off, or its reason is gone.
    fn is_void(&self, worker: &Worker) -> bool {
        let was_reversed = match &self.whose {
            Whose::Retired(slot) => worker.plans.load().live.contains(slot),
            Whose::Unhealthy(endpoint, changes) => endpoint.changes() != *changes,
            _ => false,
        };
        was_reversed || self.called_off.load(Relaxed)
    }

    fn order(&self) -> Order {
        match self.deadline {
            Some(_) => Order::Leave { kind: (self.kind)(), code: self.code },
            None => Order::End((self.kind)()),
        }
    }

    fn concerns(&self, seat: &Seat) -> bool {
        let concerns = |facts: &Facts| {
            // An endpoint that is unhealthy may be the last resort; what drains gets none of those at all.
            let came_knowing =
                matches!(self.whose, Whose::Unhealthy(..)) && facts.accepted >= self.began;
            !came_knowing && self.whose.are(facts)
        };
        seat.with_joined(|joined| concerns(&joined.facts)).unwrap_or(false)
    }
}

impl Rate {
    fn new(per_second: f64) -> Rate {
        // A look takes all places since the last one: so many may come together, and they count, too.
        let apart = (1.0 + LOOK_LONGEST.as_secs_f64()) / per_second;
        Rate { apart: Duration::from_secs_f64(apart).as_nanos() as u64, next: AtomicU64::default() }
    }

    /// Takes a place, if one is free at this time since the beginning. Places that nobody took do not add up.
    fn take(&self, now: Duration) -> bool {
        let now = u64::try_from(now.as_nanos()).unwrap_or(u64::MAX);
        let oldest = now.saturating_sub(LOOK_LONGEST.as_nanos() as u64);
        let take = |next: u64| (next <= now).then(|| next.max(oldest) + self.apart);
        self.next.fetch_update(Relaxed, Relaxed, take).is_ok()
    }
}

/// Lets this worker's part of the sessions leave.
///
/// Each look tells each session by chance, in the measure in which the time has passed. So nothing has to be
/// kept of a session, and one that moves to another worker meets the same chances there.
pub async fn depart(worker: Rc<Worker>, leaving: Arc<Leaving>) {
    let until = leaving.began + leaving.over;
    let pause = (leaving.over / LOOKS).clamp(LOOK_SHORTEST, LOOK_LONGEST);
    let mut looks_beyond = 0;
    loop {
        let now = Instant::now();
        let left = until.saturating_duration_since(now);
        let is_late = leaving.deadline.is_some_and(|deadline| now >= deadline);
        let chance = pause.as_secs_f64() / left.max(pause).as_secs_f64();
        tell(&worker, &leaving, if is_late { 1.0 } else { chance }, is_late).await;
        worker.kit.reactor.sleep_until(now + pause).await;
        looks_beyond += u32::from(left <= pause);
        let is_over = match leaving.deadline {
            Some(deadline) => Instant::now() >= deadline + LAST_GRACE,
            None => looks_beyond >= LOOKS_BEYOND,
        };
        if leaving.is_void(&worker) {
            return;
        }
        if is_over {
            break;
        }
    }
    if leaving.deadline.is_some() {
        // More than once: a session that is on its way between two workers is in neither.
        for _ in 0..LOOKS_BEYOND {
            let order = || Order::End((leaving.kind)());
            walk(&worker, |seat| leaving.concerns(seat), order).await;
            worker.kit.reactor.sleep_until(Instant::now() + pause).await;
            if leaving.is_void(&worker) {
                return;
            }
        }
    }
}

/// One look at all seats. Where it `is_late` the rate counts no more.
async fn tell(worker: &Rc<Worker>, leaving: &Leaving, chance: f64, is_late: bool) {
    let goes = |seat: &Seat| {
        let has_place = || {
            let rate = leaving.rate.as_ref().filter(|_| !is_late);
            rate.is_none_or(|rate| rate.take(leaving.began.elapsed()))
        };
        // In the order of what they cost: most looks end with the first.
        let goes = fastrand::f64() < chance
            && !seat.is_told()
            && !leaving.called_off.load(Relaxed)
            && leaving.concerns(seat)
            && has_place();
        if goes {
            seat.tell();
            leaving.told.fetch_add(1, Relaxed);
        }
        goes
    };
    walk(worker, goes, || leaving.order()).await;
}

/// Orders all those sessions, a part of the seats at a time: the others have their turns in between.
async fn walk(worker: &Rc<Worker>, goes: impl Fn(&Seat) -> bool, order: impl Fn() -> Order) {
    let mut from = 0;
    while let Some(next) = worker.registry.order_some(from, SEATS_AT_ONCE, &goes, &order) {
        from = next;
        worker.kit.reactor.yield_now().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deadline_leaves_time_for_all_at_the_rate() {
        for (sessions, rate, seconds) in [
            (0, Some(10.0), 0),
            (100_000, None, 0),
            (100_000, Some(1000.0), 120),
            (u64::MAX, Some(0.5), DEADLINE_MAX.as_secs()),
        ] {
            let expected = Duration::from_secs(seconds);
            assert_eq!(time_to_tell(sessions, rate), expected, "{sessions} {rate:?}");
        }
    }

    #[test]
    fn a_rate_is_kept_in_every_second_and_what_nobody_took_does_not_add_up() {
        let rate = Rate::new(50.0);
        let mut taken: Vec<Duration> = Vec::new();
        // Looked at seldom, not at all for a while, then all the time.
        let seldom = (0..30).map(|look| Duration::from_millis(100) * look);
        let often = (6000..9000).map(Duration::from_millis);
        for now in seldom.chain(often) {
            while rate.take(now) {
                taken.push(now);
            }
        }
        for (at, from) in taken.iter().enumerate() {
            let second = Duration::from_secs(1);
            let within = taken[at..].iter().take_while(|other| **other - *from < second).count();
            assert!(within <= 50, "{within} from {from:?} on");
        }
        assert!(taken.len() >= 45 * 6, "{}", taken.len());
    }

    #[test]
    fn less_than_one_per_second_is_a_rate_too() {
        let rate = Rate::new(0.5);
        let takes: Vec<u64> =
            (0..10_000).filter(|&ms| rate.take(Duration::from_millis(ms))).collect();
        assert_eq!(takes.len(), 5, "{takes:?}");
    }
}
