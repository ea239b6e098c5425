//! Two samples to rates, and many to a history. No clock: samples say when they were taken.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::time::Duration;

use super::exposition::{Exposition, Labels};
use super::sample::{Drain, Route, Sample, Session};

/// Intervals that are remembered: as wide as terminals get.
const HISTORY: usize = 300;
/// Clocks are set; a process that began so much later is another one.
const ANOTHER_START_SECONDS: f64 = 2.0;
/// Clients that are named where directions are paused.
const PAUSED_NAMED: usize = 3;
/// The words of the two directions.
pub const DIRECTIONS: [&str; 2] = ["to_upstream", "to_downstream"];

/// Numbers by a word of some closed list.
pub type Counts = BTreeMap<String, f64>;

/// What an interval was like. What is per second is 0 after the first sample.
#[derive(Clone, Debug, Default)]
pub struct Figures {
    /// In seconds; `None` after the first sample.
    pub interval: Option<f64>,
    /// Why new connections should not come.
    pub reasons: Vec<String>,
    /// The gateway's.
    pub version: String,
    /// Threads that carry sessions.
    pub workers: Option<f64>,
    /// Live sessions.
    pub sessions_open: f64,
    /// Connections, those of sessions included.
    pub connections_open: f64,
    /// Bytes per second by direction.
    pub bytes: [f64; 2],
    /// Bytes per second by engine.
    pub engines: Counts,
    /// Directions that fell back to copy since the start, by reason.
    pub fallbacks: Counts,
    /// Requests for an upgrade per second, by result.
    pub upgrades: Counts,
    /// Requests per second that did not become a session, by reason.
    pub refusals: Counts,
    /// Ends of sessions per second, by reason.
    pub closes: Counts,
    /// Directions of the listed sessions that are paused.
    pub paused: [usize; 2],
    /// Whose they are: some of the clients.
    pub paused_clients: Vec<String>,
    /// Pauses that began per second, by direction.
    pub pauses: [f64; 2],
    /// Pipes that hold bytes, and those kept for the next.
    pub pipes: Option<[f64; 2]>,
    /// What drains.
    pub drains: Vec<Drain>,
    /// Sessions that fit.
    pub sessions: Vec<SessionFigures>,
    /// Whether there are more than those.
    pub more: bool,
    /// All routes.
    pub routes: Vec<RouteFigures>,
}

/// A session in an interval.
#[derive(Clone, Debug, Default)]
pub struct SessionFigures {
    /// As it is.
    pub session: Session,
    /// Bytes per second from the client and to it.
    pub rate: [f64; 2],
    /// Seconds since bytes were seen to pass; at most as long as somebody looks.
    pub idle: f64,
}

/// A route in an interval.
#[derive(Clone, Debug, Default)]
pub struct RouteFigures {
    /// As it is.
    pub route: Route,
    /// Bytes per second by direction.
    pub rate: [f64; 2],
    /// Sessions that began per second.
    pub began: f64,
}

/// Makes figures of one sample after another.
#[derive(Debug, Default)]
pub struct Tracker {
    last: Option<Sample>,
    /// Of each session: bytes when it was last seen, and when they were others.
    moved: HashMap<String, (u64, Duration)>,
    /// Bytes per second, the latest last.
    history: [VecDeque<u64>; 2],
}

impl Tracker {
    /// What has become of the last sample.
    pub fn take(&mut self, sample: Sample) -> Figures {
        let last = self.last.take();
        let last = last.filter(|last| !is_another_process(&last.metrics, &sample.metrics));
        let interval = last.as_ref().map(|last| (sample.at - last.at).as_secs_f64());
        let interval = interval.filter(|interval| *interval > 0.0);
        let page = &sample.metrics;
        let per_second = |name: &str, label: &str| match (&last, interval) {
            (Some(last), Some(seconds)) => {
                let grown = page.growth_by(&last.metrics, name, label);
                grown.into_iter().map(|(word, count)| (word, count / seconds)).collect()
            }
            _ => Counts::new(),
        };
        let directed = |counts: Counts| DIRECTIONS.map(|way| of(&counts, way));
        let pipes = page.value("upsplice_pipes_used").zip(page.value("upsplice_pipes_free"));
        let mut figures = Figures {
            interval,
            version: page.label("upsplice_build_info", "version").unwrap_or("?").to_owned(),
            workers: page.value("upsplice_workers"),
            sessions_open: page.value("upsplice_sessions_open").unwrap_or_default(),
            connections_open: page.value("upsplice_connections_open").unwrap_or_default(),
            bytes: directed(per_second("upsplice_bytes_total", "direction")),
            engines: per_second("upsplice_bytes_total", "engine"),
            fallbacks: page.by("upsplice_splice_fallbacks_total", "reason"),
            upgrades: per_second("upsplice_upgrades_total", "result"),
            refusals: per_second("upsplice_upgrade_failures_total", "reason"),
            closes: per_second("upsplice_sessions_total", "close_reason"),
            pauses: directed(per_second("upsplice_backpressure_paused_total", "direction")),
            pipes: pipes.map(|(used, free)| [used, free]),
            routes: routes(&sample, last.as_ref(), interval),
            ..Figures::default()
        };
        figures.sessions = self.sessions(&sample, last.as_ref());
        for session in &sample.sessions {
            figures.count_paused(session);
        }
        if interval.is_some() {
            self.remember(figures.bytes);
        }
        (figures.reasons, figures.drains) = (sample.reasons.clone(), sample.drains.clone());
        figures.more = sample.more;
        self.last = Some(sample);
        figures
    }

    /// Bytes per second of the intervals so far in this direction, the latest last.
    pub fn history(&self, direction: usize) -> &VecDeque<u64> {
        &self.history[direction]
    }

    fn remember(&mut self, bytes: [f64; 2]) {
        for (history, rate) in self.history.iter_mut().zip(bytes) {
            history.push_back(rate as u64);
            history.drain(..history.len().saturating_sub(HISTORY));
        }
    }

    fn sessions(&mut self, sample: &Sample, last: Option<&Sample>) -> Vec<SessionFigures> {
        let seconds = last.map(|last| (sample.listed_at - last.listed_at).as_secs_f64());
        let before = last.map(|last| &*last.sessions).unwrap_or_default();
        let before: HashMap<&str, &Session> =
            before.iter().map(|session| (&*session.id, session)).collect();
        let known = std::mem::take(&mut self.moved);
        let all = sample.sessions.iter().map(|session| {
            let bytes = session.bytes();
            let unmoved = known.get(&session.id).filter(|(then, _)| *then == bytes);
            let moved_at = unmoved.map_or(sample.listed_at, |(_, at)| *at);
            self.moved.insert(session.id.clone(), (bytes, moved_at));
            let was = before.get(&*session.id).zip(seconds.filter(|seconds| *seconds > 0.0));
            let rate = was.map_or([0.0; 2], |(was, seconds)| {
                [0, 1].map(|way| session.bytes[way].saturating_sub(was.bytes[way]) as f64 / seconds)
            });
            let idle = (sample.listed_at - moved_at).as_secs_f64();
            SessionFigures { session: session.clone(), rate, idle }
        });
        all.collect()
    }
}

impl Figures {
    fn count_paused(&mut self, session: &Session) {
        for (way, count) in DIRECTIONS.iter().zip(&mut self.paused) {
            *count += usize::from(session.paused.iter().any(|paused| paused == way));
        }
        if !session.paused.is_empty() && self.paused_clients.len() < PAUSED_NAMED {
            self.paused_clients.push(session.client.clone());
        }
    }
}

impl SessionFigures {
    /// Bytes per second of both directions.
    pub fn rate(&self) -> f64 {
        self.rate.iter().sum()
    }
}

/// The count of that word.
pub fn of(counts: &Counts, word: &str) -> f64 {
    counts.get(word).copied().unwrap_or_default()
}

fn is_another_process(before: &Exposition, now: &Exposition) -> bool {
    let started = |page: &Exposition| page.value("process_start_time_seconds");
    let both = started(before).zip(started(now));
    both.is_some_and(|(before, now)| (now - before).abs() > ANOTHER_START_SECONDS)
}

fn routes(sample: &Sample, last: Option<&Sample>, interval: Option<f64>) -> Vec<RouteFigures> {
    let growth = last.map(|last| {
        DIRECTIONS.map(|way| {
            let fits = |labels: &Labels| labels.get("direction").is_some_and(|is| is == way);
            sample.metrics.growth_where(&last.metrics, "upsplice_bytes_total", "route", fits)
        })
    });
    let all = sample.routes.iter().map(|route| {
        let before = last.and_then(|last| last.routes.iter().find(|was| was.name == route.name));
        let per_second = |count: f64| interval.map_or(0.0, |seconds| count / seconds);
        let began = before.map_or(0, |before| route.total.saturating_sub(before.total));
        let bytes =
            |way: usize| growth.as_ref().map_or(0.0, |growth| of(&growth[way], &route.name));
        RouteFigures {
            route: route.clone(),
            rate: [0, 1].map(|way| per_second(bytes(way))),
            began: per_second(began as f64),
        }
    });
    all.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(seconds: u64, page: &str, sessions: &[(&str, u64)]) -> Sample {
        let session = |(id, bytes): &(&str, u64)| Session {
            id: (*id).to_owned(),
            client: format!("client of {id}"),
            bytes: [*bytes, 0],
            paused: if *bytes == 7 { vec!["to_downstream".to_owned()] } else { Vec::new() },
            ..Session::default()
        };
        Sample {
            at: Duration::from_secs(seconds),
            listed_at: Duration::from_secs(seconds),
            metrics: Exposition::parse(&format!("{page}# EOF\n")).expect("a page"),
            sessions: sessions.iter().map(session).collect(),
            ..Sample::default()
        }
    }

    fn bytes(up: u64, down: u64, started: u64) -> String {
        let line = |way: &str, engine: &str, bytes: u64| {
            format!(
                "upsplice_bytes_total{{route=\"r\",direction=\"{way}\",engine=\"{engine}\"}} {bytes}\n"
            )
        };
        let [first, second] = DIRECTIONS;
        line(first, "copy", up)
            + &line(second, "splice", down)
            + &format!("process_start_time_seconds {started}\n")
    }

    #[test]
    fn rates_are_growth_over_time() {
        let mut tracker = Tracker::default();
        let first = tracker.take(sample(10, &bytes(100, 0, 5), &[("a", 100)]));
        assert_eq!((first.interval, first.bytes), (None, [0.0; 2]));
        assert!(tracker.history(0).is_empty(), "there was no interval yet");
        let second = tracker.take(sample(12, &bytes(300, 50, 5), &[("a", 300), ("b", 9)]));
        assert_eq!((second.interval, second.bytes), (Some(2.0), [100.0, 25.0]));
        assert_eq!((of(&second.engines, "copy"), of(&second.engines, "splice")), (100.0, 25.0));
        assert_eq!(second.sessions[0].rate, [100.0, 0.0]);
        assert_eq!(second.sessions[1].rate, [0.0; 2], "nobody saw where it began");
        assert_eq!(tracker.history(0), &[100]);
    }

    #[test]
    fn a_gateway_that_began_anew_has_no_rate_at_first() {
        let mut tracker = Tracker::default();
        tracker.take(sample(1, &bytes(1000, 1000, 5), &[]));
        let smaller = tracker.take(sample(2, &bytes(10, 20, 6), &[]));
        assert_eq!(smaller.bytes, [10.0, 20.0], "the same process as far as clocks tell");
        let other = tracker.take(sample(3, &bytes(5000, 5000, 500), &[]));
        assert_eq!((other.interval, other.bytes), (None, [0.0; 2]));
    }

    #[test]
    fn a_session_is_idle_since_its_bytes_are_the_same() {
        let mut tracker = Tracker::default();
        let idle = |figures: Figures| figures.sessions[0].idle;
        assert_eq!(idle(tracker.take(sample(1, "", &[("a", 5)]))), 0.0);
        assert_eq!(idle(tracker.take(sample(4, "", &[("a", 5)]))), 3.0);
        assert_eq!(idle(tracker.take(sample(5, "", &[("a", 6)]))), 0.0);
        assert_eq!(idle(tracker.take(sample(7, "", &[("a", 6)]))), 2.0);
        tracker.take(sample(8, "", &[]));
        assert!(tracker.moved.is_empty(), "who has ended is forgotten");
    }

    #[test]
    fn paused_directions_are_counted_and_some_clients_named() {
        let sessions: Vec<(&str, u64)> =
            ["a", "b", "c", "d", "e"].into_iter().zip([7, 7, 1, 7, 7]).collect();
        let figures = Tracker::default().take(sample(1, "", &sessions));
        assert_eq!(figures.paused, [0, 4]);
        assert_eq!(figures.paused_clients, ["client of a", "client of b", "client of d"]);
    }

    #[test]
    fn two_samples_of_one_moment_have_no_rate() {
        let mut tracker = Tracker::default();
        tracker.take(sample(1, &bytes(1, 1, 5), &[("a", 1)]));
        let figures = tracker.take(sample(1, &bytes(9, 9, 5), &[("a", 9)]));
        assert_eq!((figures.interval, figures.bytes), (None, [0.0; 2]));
        assert_eq!(figures.sessions[0].rate, [0.0; 2]);
    }

    #[test]
    fn the_history_is_bounded() {
        let mut tracker = Tracker::default();
        for second in 0..2 * HISTORY as u64 {
            tracker.take(sample(second, &bytes(second * second, 0, 5), &[]));
        }
        assert_eq!(tracker.history(0).len(), HISTORY);
        assert_eq!(tracker.history(0).back(), Some(&(4 * HISTORY as u64 - 3)));
    }
}
