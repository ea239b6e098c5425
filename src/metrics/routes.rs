//! What became of each route's sessions, and how long they took.

use std::time::Duration;

use super::{Counter, Direction, Engine};
use crate::error::Kind;

/// Upper bounds of the handshake histogram, in seconds; above the last is one bucket more.
pub const HANDSHAKE_SECONDS: [f64; 12] =
    [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0];
/// The same of the lives of sessions: from a second to a week.
pub const SESSION_SECONDS: [f64; 11] =
    [1.0, 5.0, 15.0, 60.0, 300.0, 900.0, 3600.0, 14_400.0, 43_200.0, 86_400.0, 604_800.0];

/// What a session is, as far as it is counted apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sort {
    /// WebSocket, opaque.
    WebSocket,
    /// Another protocol, opaque.
    Other,
    /// WebSocket, inspected.
    Inspected,
}

/// One worker's counters of one route.
#[derive(Debug)]
pub struct RouteCounters {
    /// Gauge, by [`Sort`].
    open: [Counter; Sort::ALL.len()],
    /// By [`Sort`], then by how they ended.
    ended: [[Counter; Kind::WORDS.len()]; Sort::ALL.len()],
    failed: [Counter; Kind::WORDS.len()],
    bytes: [[Counter; 2]; Engine::ALL.len()],
    handshakes: [Histogram; Sort::ALL.len()],
    lives: [Histogram; Sort::ALL.len()],
}

/// How many took how long.
#[derive(Debug)]
struct Histogram {
    bounds: &'static [f64],
    /// One more than there are bounds.
    counts: Box<[Counter]>,
    nanos: Counter,
}

/// The sum of a histogram over all workers at one moment.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Times {
    /// Upper bounds in seconds; above the last is one bucket more.
    pub bounds: &'static [f64],
    /// How many are above the bound before and no longer than this one.
    pub counts: Vec<u64>,
    /// Of all together.
    pub seconds: f64,
}

/// The sum over all workers of one route's counters at one moment.
#[derive(Clone, Debug, Default)]
pub struct RouteSnapshot {
    /// Live sessions, by [`Sort`].
    pub open: [u64; Sort::ALL.len()],
    /// Sessions that ended, by [`Sort`], then as in [`Kind::WORDS`].
    pub ended: [[u64; Kind::WORDS.len()]; Sort::ALL.len()],
    /// Requests that did not become a session, as in [`Kind::WORDS`].
    pub failed: [u64; Kind::WORDS.len()],
    /// Bytes taken from their source, by [`Engine`], then [`Direction`].
    pub bytes: [[u64; 2]; Engine::ALL.len()],
    /// From accept to the 101, by [`Sort`].
    pub handshakes: [Times; Sort::ALL.len()],
    /// From accept to the end, by [`Sort`].
    pub lives: [Times; Sort::ALL.len()],
}

impl Sort {
    /// All, in the order of their counters.
    pub const ALL: [Sort; 3] = [Sort::WebSocket, Sort::Other, Sort::Inspected];

    /// Whether it is inspected, and whether it is WebSocket.
    pub fn of(inspected: bool, websocket: bool) -> Sort {
        match (inspected, websocket) {
            (true, _) => Sort::Inspected,
            (false, true) => Sort::WebSocket,
            (false, false) => Sort::Other,
        }
    }

    /// The word for its mode.
    pub fn mode(self) -> &'static str {
        if self == Sort::Inspected { "inspect" } else { "zero-copy" }
    }

    /// The word for its protocol: there is no bound to the names that a client may ask for.
    pub fn protocol(self) -> &'static str {
        if self == Sort::Other { "other" } else { "websocket" }
    }
}

impl RouteCounters {
    /// A session begins here, perhaps in another worker than before.
    pub fn begins(&self, sort: Sort) {
        self.open[sort as usize].add(1);
    }

    /// It leaves: it has ended, or goes on in another worker.
    pub fn leaves(&self, sort: Sort) {
        self.open[sort as usize].sub(1);
    }

    /// A session was joined, so long after it was accepted.
    pub fn joined(&self, sort: Sort, handshake: Duration) {
        self.handshakes[sort as usize].add(handshake);
    }

    /// A session ended, so long after it was accepted.
    pub fn ended(&self, sort: Sort, how: &Kind, life: Duration) {
        self.ended[sort as usize][how.index()].add(1);
        self.lives[sort as usize].add(life);
    }

    /// Bytes were taken from the source of `direction`.
    pub(super) fn moved(&self, engine: Engine, direction: Direction, n: u64) {
        self.bytes[engine as usize][direction as usize].add(n);
    }

    pub(super) fn taken(&self, engine: Engine, direction: Direction) -> u64 {
        self.bytes[engine as usize][direction as usize].get()
    }

    /// A request did not become a session.
    pub fn failed(&self, how: &Kind) {
        self.failed[how.index()].add(1);
    }
}

impl Default for RouteCounters {
    fn default() -> RouteCounters {
        let times = |bounds| Sort::ALL.map(|_| Histogram::new(bounds));
        RouteCounters {
            open: Default::default(),
            ended: std::array::from_fn(|_| std::array::from_fn(|_| Counter::default())),
            failed: std::array::from_fn(|_| Counter::default()),
            bytes: Default::default(),
            handshakes: times(&HANDSHAKE_SECONDS),
            lives: times(&SESSION_SECONDS),
        }
    }
}

impl Histogram {
    fn new(bounds: &'static [f64]) -> Histogram {
        let counts = (0..=bounds.len()).map(|_| Counter::default()).collect();
        Histogram { bounds, counts, nanos: Counter::default() }
    }

    fn add(&self, time: Duration) {
        let seconds = time.as_secs_f64();
        let bucket = self.bounds.iter().position(|&bound| seconds <= bound);
        self.counts[bucket.unwrap_or(self.bounds.len())].add(1);
        self.nanos.add(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX));
    }
}

impl Times {
    /// How many there were.
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    fn add(&mut self, histogram: &Histogram) {
        self.bounds = histogram.bounds;
        self.counts.resize(histogram.counts.len(), 0);
        for (sum, count) in self.counts.iter_mut().zip(&histogram.counts) {
            *sum += count.get();
        }
        self.seconds += histogram.nanos.get() as f64 / 1e9;
    }
}

impl RouteSnapshot {
    /// Sums what the workers say of one route now.
    pub fn of<'a>(workers: impl IntoIterator<Item = &'a RouteCounters>) -> RouteSnapshot {
        let mut sum = RouteSnapshot::default();
        for worker in workers {
            sum.add(worker);
        }
        sum
    }

    fn add(&mut self, worker: &RouteCounters) {
        for (sum, counter) in self.failed.iter_mut().zip(&worker.failed) {
            *sum += counter.get();
        }
        for engine in Engine::ALL {
            for direction in Direction::BOTH {
                self.bytes[engine as usize][direction as usize] += worker.taken(engine, direction);
            }
        }
        for sort in Sort::ALL {
            let at = sort as usize;
            // What one worker adds another takes off, when a session moves.
            self.open[at] = self.open[at].wrapping_add(worker.open[at].get());
            for (sum, counter) in self.ended[at].iter_mut().zip(&worker.ended[at]) {
                *sum += counter.get();
            }
            self.handshakes[at].add(&worker.handshakes[at]);
            self.lives[at].add(&worker.lives[at]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sessions_are_counted_by_what_they_are_and_how_long_they_took() {
        let workers = [RouteCounters::default(), RouteCounters::default()];
        let sort = Sort::of(false, true);
        workers[0].begins(sort);
        workers[0].joined(sort, Duration::from_millis(1));
        workers[0].joined(sort, Duration::from_secs(6));
        workers[0].leaves(sort);
        workers[1].begins(sort);
        workers[1].ended(sort, &Kind::Killed, Duration::from_secs(2));
        workers[1].failed(&Kind::NoRoute);
        for worker in &workers {
            worker.moved(Engine::Copy, Direction::ToDownstream, 7);
        }
        let sum = RouteSnapshot::of(&workers);
        assert_eq!(sum.open, [1, 0, 0]);
        assert_eq!(sum.bytes, [[0, 0], [0, 14], [0, 0]]);
        assert_eq!(sum.ended[sort as usize][Kind::Killed.index()], 1);
        assert_eq!(sum.failed[Kind::NoRoute.index()], 1);
        let times = &sum.handshakes[sort as usize];
        assert_eq!((times.counts[0], *times.counts.last().expect("one"), times.count()), (1, 1, 2));
        assert!((times.seconds - 6.001).abs() < 1e-9);
        assert_eq!(sum.lives[sort as usize].counts[1], 1);
        assert_eq!((Sort::of(true, true).mode(), Sort::Other.protocol()), ("inspect", "other"));
    }
}
