//! Counters: one set per worker, written by that worker alone, summed by whoever reads.
//!
//! A counter is an atomic only so that another thread may read it: its writer loads and stores, so the
//! data path pays for no locked instruction and no shared cache line.

mod labels;
mod routes;
mod slots;
mod websocket;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};

use serde::Serialize;

pub use self::labels::{Direction, Engine, Reason, Reasons, UpgradeResult};
pub use self::routes::{RouteCounters, RouteSnapshot, Sort, Times};
use self::slots::Slots;
pub use self::websocket::{MESSAGE_BYTES, WayWebSocket, WebSocketCounters, WebSocketSnapshot};

/// A number with one writer.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds `n`. Only the owning worker may call this.
    pub fn add(&self, n: u64) {
        self.0.store(self.0.load(Ordering::Relaxed).wrapping_add(n), Ordering::Relaxed);
    }

    /// Takes `n` off a gauge. Only the owning worker may call this.
    pub fn sub(&self, n: u64) {
        self.0.store(self.0.load(Ordering::Relaxed).wrapping_sub(n), Ordering::Relaxed);
    }

    /// What it says now.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// One worker's counters.
#[derive(Debug, Default)]
pub struct Counters {
    /// Connections accepted.
    pub accepted: Counter,
    /// Times accept had to back off: no descriptors, no memory.
    pub accept_backoffs: Counter,
    /// Gauge: connections accepted and not ended.
    pub connections_open: Counter,
    /// Gauge: joined sessions.
    pub sessions_open: Counter,
    /// Sessions that were taken out of a relay to go on in another.
    pub detached: Counter,
    /// Connections that were given to another worker before anything was read from them.
    pub handed_over: Counter,
    /// Access log lines that were dropped because the writer was behind.
    pub log_dropped: Counter,
    /// Writes of the access log that failed. Those of the first worker are written by the log's thread, and by nobody
    /// else.
    pub log_write_failures: Counter,
    /// Spans dropped because their exporter was behind.
    pub spans_dropped: Counter,
    /// Spans that a collector has taken. As for the log, those of the first worker are written by one thread.
    pub spans_exported: Counter,
    /// Spans that it has not taken; the same.
    pub spans_failed: Counter,
    /// Gauge: pipes that hold bytes.
    pub pipes_used: Counter,
    /// Gauge: pipes kept for the next fill.
    pub pipes_free: Counter,
    /// Pipes that came smaller than 64 KiB and were refused.
    pub pipes_degraded: Counter,
    /// What inspected sessions said.
    pub websocket: WebSocketCounters,
    /// By slot.
    routes: Slots,
    /// Of requests that no route was found for.
    unrouted: RouteCounters,
    upgrades: [Counter; UpgradeResult::ALL.len()],
    fallbacks: [Counter; Reason::ALL.len()],
    switches: [Counter; Engine::ALL.len()],
    paused: [Counter; 2],
    paused_nanos: [Counter; 2],
}

impl Counters {
    /// Those of the route in this slot; without one those of all that found none.
    pub fn route(&self, slot: Option<usize>) -> &RouteCounters {
        slot.map_or(&self.unrouted, |slot| self.routes.get(slot))
    }

    /// One request for an upgrade came to this.
    pub fn upgrade(&self, result: UpgradeResult) {
        self.upgrades[result as usize].add(1);
    }

    /// `n` bytes were taken from the source of `direction` by `engine`, in a session of `route`.
    pub fn moved(&self, route: Option<usize>, engine: Engine, direction: Direction, n: u64) {
        self.route(route).moved(engine, direction, n);
    }

    /// A direction fell back for `reason`.
    pub fn fallback(&self, reason: Reason) {
        self.fallbacks[reason as usize].add(1);
    }

    /// The traffic of a direction called for `engine`, and it goes on with it.
    pub fn switched(&self, engine: Engine) {
        self.switches[engine as usize].add(1);
    }

    /// The sink of `direction` takes no more for now: its source is not read.
    pub fn paused(&self, direction: Direction) {
        self.paused[direction as usize].add(1);
    }

    /// A pause of `direction` ended after `nanos`.
    pub fn resumed(&self, direction: Direction, nanos: u64) {
        self.paused_nanos[direction as usize].add(nanos);
    }
}

/// The sum over all workers at one moment.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Snapshot {
    /// See [`Counters::accepted`].
    pub accepted: u64,
    /// See [`Counters::accept_backoffs`].
    pub accept_backoffs: u64,
    /// See [`Counters::connections_open`].
    pub connections_open: u64,
    /// See [`Counters::sessions_open`].
    pub sessions_open: u64,
    /// See [`Counters::detached`].
    pub detached: u64,
    /// See [`Counters::handed_over`].
    pub handed_over: u64,
    /// See [`Counters::log_dropped`].
    pub log_dropped: u64,
    /// See [`Counters::log_write_failures`].
    pub log_write_failures: u64,
    /// Of spans, by what became of them: `exported`, `dropped` or `failed`.
    pub spans: BTreeMap<&'static str, u64>,
    /// See [`Counters::pipes_used`].
    pub pipes_used: u64,
    /// See [`Counters::pipes_free`].
    pub pipes_free: u64,
    /// See [`Counters::pipes_degraded`].
    pub pipes_degraded: u64,
    /// By [`UpgradeResult`].
    pub upgrades: BTreeMap<&'static str, u64>,
    /// By engine, then direction.
    pub bytes: BTreeMap<&'static str, BTreeMap<&'static str, u64>>,
    /// By reason.
    pub fallbacks: BTreeMap<&'static str, u64>,
    /// By engine: how often a direction's traffic called for it.
    pub engine_switches: BTreeMap<&'static str, u64>,
    /// By direction: how often a source was not read because its sink was full.
    pub paused: BTreeMap<&'static str, u64>,
    /// By direction: for how long, in seconds.
    pub paused_seconds: BTreeMap<&'static str, f64>,
    /// What inspected sessions said.
    pub websocket: WebSocketSnapshot,
}

impl Snapshot {
    /// Sums what the workers say now.
    pub fn of<'a>(workers: impl IntoIterator<Item = &'a Counters>) -> Snapshot {
        let mut sum = Snapshot::default();
        for worker in workers {
            sum.add(worker);
        }
        sum
    }

    /// Bytes that `engine` carried in `direction`.
    pub fn bytes_by(&self, engine: Engine, direction: Direction) -> u64 {
        self.bytes[engine.as_str()][direction.as_str()]
    }

    /// Bytes taken in the direction of this name, by all engines.
    pub fn taken(&self, direction: &str) -> u64 {
        self.bytes.values().filter_map(|ways| ways.get(direction)).sum()
    }

    fn add(&mut self, worker: &Counters) {
        self.accepted += worker.accepted.get();
        self.accept_backoffs += worker.accept_backoffs.get();
        self.connections_open = self.connections_open.wrapping_add(worker.connections_open.get());
        self.sessions_open = self.sessions_open.wrapping_add(worker.sessions_open.get());
        self.detached += worker.detached.get();
        self.handed_over += worker.handed_over.get();
        self.log_dropped += worker.log_dropped.get();
        self.log_write_failures += worker.log_write_failures.get();
        for (word, count) in [
            ("exported", &worker.spans_exported),
            ("dropped", &worker.spans_dropped),
            ("failed", &worker.spans_failed),
        ] {
            *self.spans.entry(word).or_default() += count.get();
        }
        self.pipes_used += worker.pipes_used.get();
        self.pipes_free += worker.pipes_free.get();
        self.pipes_degraded += worker.pipes_degraded.get();
        self.websocket.add(&worker.websocket);
        for result in UpgradeResult::ALL {
            *self.upgrades.entry(result.as_str()).or_default() +=
                worker.upgrades[result as usize].get();
        }
        for reason in Reason::ALL {
            *self.fallbacks.entry(reason.as_str()).or_default() +=
                worker.fallbacks[reason as usize].get();
        }
        for engine in Engine::ALL {
            *self.engine_switches.entry(engine.as_str()).or_default() +=
                worker.switches[engine as usize].get();
        }
        for direction in Direction::BOTH {
            let (index, word) = (direction as usize, direction.as_str());
            for engine in Engine::ALL {
                let routes = worker.routes.iter().chain([&worker.unrouted]);
                *self.bytes.entry(engine.as_str()).or_default().entry(word).or_default() +=
                    routes.map(|route| route.taken(engine, direction)).sum::<u64>();
            }
            *self.paused.entry(word).or_default() += worker.paused[index].get();
            *self.paused_seconds.entry(word).or_default() +=
                worker.paused_nanos[index].get() as f64 / 1e9;
        }
    }
}
