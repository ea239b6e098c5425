//! A live session, watched: one JSON line per frame, message, close and violation, as they pass.
//!
//! The session's worker puts events into a bounded channel and goes on; whoever is too slow misses some, and is told
//! how many. A session that is carried opaque has no frames to show: what is known of it is told once a second.

use std::sync::Arc;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use hyper::StatusCode;
use hyper::body::Bytes;
use regex::bytes::{NoExpand, Regex, RegexBuilder};
use serde::Serialize;
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot};
use tokio::time::{Interval, MissedTickBehavior, interval};
use ulid::Ulid;

use super::query::{Query, id};
use super::reply::{self, Answer, Problem};
use super::sessions::{ask, search};
use super::{Subject, sessions};
use crate::config::log::LogRules;
use crate::metrics::Direction;
use crate::relay::watch::{Event, Unwatchable, Watch, Watcher, What};
use crate::session::question::{Place, Question, SessionView};
use crate::ws::frame::Opcode;

/// Sessions watched at a time: the rest of the API keeps connections for itself.
pub(super) const TAPS_MAX: usize = 16;
/// Bytes of a message that may be shown.
const PREVIEW_MAX: usize = 1024;
/// So much more is looked at where something may have to be hidden: what begins within the preview may end there.
const HIDDEN_MAX: usize = 1024;
const HIDDEN: &[u8] = b"[redacted]";
const PATTERNS_MAX: usize = 8;
const PATTERN_BYTES_MAX: usize = 256;
/// Memory of one compiled pattern.
const PATTERN_SIZE_MAX: usize = 1 << 18;
/// How often bytes and pace are told.
const PERIOD: Duration = Duration::from_secs(1);
/// Lines that may wait for the connection.
const LINES_MAX: usize = 16;
/// Events that become one write.
const EVENTS_AT_ONCE: usize = 64;

/// What is shown of payload, and what of that is hidden.
struct Shows {
    preview: usize,
    hides: Vec<Regex>,
}

#[derive(Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
enum Line<'l> {
    Opened {
        id: String,
        mode: &'static str,
        /// Whether frames are told.
        frames: bool,
        preview: usize,
        #[serde(skip_serializing_if = "Option::is_none")]
        why: Option<&'static str>,
    },
    Frame {
        at_ms: f64,
        direction: &'static str,
        opcode: &'static str,
        fin: bool,
        bytes: u64,
    },
    Message {
        at_ms: f64,
        direction: &'static str,
        opcode: &'static str,
        bytes: u64,
        #[serde(skip_serializing_if = "Option::is_none")]
        inflated: Option<u64>,
        #[serde(skip_serializing_if = "Option::is_none")]
        latency_us: Option<u64>,
        #[serde(skip_serializing_if = "Option::is_none")]
        preview: Option<String>,
        #[serde(skip_serializing_if = "Option::is_none")]
        preview_base64: Option<String>,
    },
    Close {
        at_ms: f64,
        direction: &'static str,
        code: Option<u16>,
    },
    Violation {
        at_ms: f64,
        direction: &'static str,
        rule: &'static str,
    },
    Pace {
        at_ms: f64,
        bytes_in: u64,
        bytes_out: u64,
        bytes_in_per_second: f64,
        bytes_out_per_second: f64,
        paused: &'l [&'static str],
    },
    /// Events that the watcher was too slow for, since the last of these lines.
    Dropped {
        at_ms: f64,
        events: u64,
    },
    Ended {
        at_ms: f64,
    },
}

/// `GET /v1/sessions/{id}/tap`
pub(super) async fn answer(
    gateway: &Arc<Subject>,
    text: &str,
    query: Option<&str>,
) -> Result<Answer, Problem> {
    let query = Query::with_lists(query, &["preview"], &["redact"])?;
    let shows = Shows::read(&query, &gateway.plan().config.gateway.log)?;
    let id = id(text)?;
    let turn = Arc::clone(&gateway.taps).try_acquire_owned().map_err(|_| {
        let error = format!("{TAPS_MAX} sessions are watched already");
        Problem::new(StatusCode::TOO_MANY_REQUESTS, error, "wait until one of them is not any more")
    })?;
    let (place, view) = search(gateway, id).await?;
    let watcher = watch(gateway, place, &shows).await?;
    let (lines, receiver) = mpsc::channel(LINES_MAX);
    let tap = Tap { gateway: Arc::clone(gateway), id, shows, since: Instant::now(), lines };
    tokio::spawn(tap.run(view, watcher, turn));
    Ok(reply::lines(receiver))
}

/// The events of the session; `None` when it has none to show.
async fn watch(
    gateway: &Subject,
    mut place: Place,
    shows: &Shows,
) -> Result<Option<Watcher>, Problem> {
    for _ in 0..sessions::SEARCHES {
        let (watch, watcher) = Watch::new(shows.collected());
        let (reply, answer) = oneshot::channel();
        let question = Question::Watch { place, watch, reply };
        match ask(gateway, place.worker, question, answer).await?.flatten() {
            Some(Ok(())) => return Ok(Some(watcher)),
            Some(Err(Unwatchable::Opaque)) => return Ok(None),
            Some(Err(Unwatchable::Crowded)) => {
                return Err(Problem::new(
                    StatusCode::TOO_MANY_REQUESTS,
                    "enough watch this session already",
                    "wait until one of them does not any more",
                ));
            }
            None => place = search(gateway, place.id).await?.0,
        }
    }
    Err(sessions::no_session(place.id))
}

/// A watched session, on the side of the watcher.
struct Tap {
    gateway: Arc<Subject>,
    id: Ulid,
    shows: Shows,
    since: Instant,
    lines: mpsc::Sender<Bytes>,
}

/// The watcher has left.
struct Left;

impl Tap {
    async fn run(self, view: SessionView, watcher: Option<Watcher>, turn: OwnedSemaphorePermit) {
        let opened = Line::Opened {
            id: self.id.to_string(),
            mode: view.mode.as_str(),
            frames: watcher.is_some(),
            preview: self.shows.preview,
            why: watcher.is_none().then_some(
                "its bytes pass unseen: without its frames from the beginning, only bytes and pace are known",
            ),
        };
        // Whoever has left needs no end.
        let _ = async {
            self.tell(&[opened]).await?;
            match watcher {
                Some(watcher) => self.follow(watcher).await?,
                None => self.pace(&view).await?,
            }
            self.tell(&[Line::Ended { at_ms: self.at(Instant::now()) }]).await
        }
        .await;
        drop(turn);
    }

    /// Tells events until the session ends.
    async fn follow(&self, mut watcher: Watcher) -> Result<(), Left> {
        let (mut events, mut told) = (Vec::new(), 0);
        loop {
            let more = watcher.events.recv_many(&mut events, EVENTS_AT_ONCE);
            let count = self.unless_left(more).await?;
            let mut lines: Vec<Line> = events.drain(..).map(|event| self.line(event)).collect();
            let dropped = watcher.dropped();
            if dropped > told {
                let at_ms = self.at(Instant::now());
                lines.push(Line::Dropped { at_ms, events: dropped - told });
                told = dropped;
            }
            if count == 0 {
                return self.tell(&lines).await;
            }
            self.tell(&lines).await?;
        }
    }

    /// Tells bytes and pace until the session ends.
    async fn pace(&self, view: &SessionView) -> Result<(), Left> {
        let mut ticks = every(PERIOD);
        let mut last = (Instant::now(), counts(view));
        loop {
            self.unless_left(ticks.tick()).await?;
            let view = match search(&self.gateway, self.id).await {
                Ok((_, view)) => view,
                Err(problem) if problem.status == StatusCode::NOT_FOUND => return Ok(()),
                // A worker that does not answer may do so later.
                Err(_) => continue,
            };
            let now = (Instant::now(), counts(&view));
            let seconds = (now.0 - last.0).as_secs_f64();
            let pace = |at: usize| (now.1[at] - last.1[at]) as f64 / seconds;
            let paused = Direction::BOTH.into_iter().zip(view.paused);
            let paused: Vec<&str> =
                paused.filter(|(_, is)| *is).map(|(direction, _)| direction.as_str()).collect();
            let line = Line::Pace {
                at_ms: self.at(now.0),
                bytes_in: now.1[0],
                bytes_out: now.1[1],
                bytes_in_per_second: pace(0),
                bytes_out_per_second: pace(1),
                paused: &paused,
            };
            self.tell(&[line]).await?;
            last = now;
        }
    }

    /// What `work` comes to, unless the watcher leaves first.
    async fn unless_left<T>(&self, work: impl Future<Output = T>) -> Result<T, Left> {
        let mut work = std::pin::pin!(work);
        let mut left = std::pin::pin!(self.lines.closed());
        std::future::poll_fn(|cx| {
            if left.as_mut().poll(cx).is_ready() {
                return std::task::Poll::Ready(Err(Left));
            }
            work.as_mut().poll(cx).map(Ok)
        })
        .await
    }

    async fn tell(&self, lines: &[Line<'_>]) -> Result<(), Left> {
        let mut text = Vec::new();
        for line in lines {
            serde_json::to_writer(&mut text, line).expect("strings and numbers always serialise");
            text.push(b'\n');
        }
        if text.is_empty() {
            return Ok(());
        }
        self.lines.send(text.into()).await.map_err(|_| Left)
    }

    fn line(&self, event: Event) -> Line<'static> {
        let Event { at, direction, what } = event;
        let (at_ms, direction) = (self.at(at), direction.as_str());
        match what {
            What::Frame { opcode, fin, bytes } => {
                Line::Frame { at_ms, direction, opcode: opcode.as_str(), fin, bytes }
            }
            What::Message { opcode, bytes, inflated, latency, preview } => {
                let shown = preview.map(|preview| self.shows.show(&preview)).unwrap_or_default();
                let is_text = opcode == Opcode::Text;
                let text = || String::from_utf8_lossy(&shown).into_owned();
                let shows = !shown.is_empty();
                Line::Message {
                    at_ms,
                    direction,
                    opcode: opcode.as_str(),
                    bytes,
                    inflated,
                    latency_us: latency.map(|time| time.as_micros() as u64),
                    preview: (shows && is_text).then(text),
                    preview_base64: (shows && !is_text).then(|| BASE64_STANDARD.encode(&shown)),
                }
            }
            What::Close(code) => Line::Close { at_ms, direction, code },
            What::Violation(rule) => Line::Violation { at_ms, direction, rule: rule.as_str() },
        }
    }

    fn at(&self, at: Instant) -> f64 {
        at.saturating_duration_since(self.since).as_micros() as f64 / 1e3
    }
}

fn counts(view: &SessionView) -> [u64; 2] {
    [view.carried[0].taken(), view.carried[1].given]
}

fn every(period: Duration) -> Interval {
    let mut ticks = interval(period);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    // The first comes at once, when nothing has happened yet.
    ticks.reset();
    ticks
}

impl Shows {
    /// What the request asks to see, without what it wants hidden and what the configuration hides everywhere.
    fn read(query: &Query, rules: &LogRules) -> Result<Shows, Problem> {
        let preview = query.read("preview", preview)?.unwrap_or(0);
        let patterns: Vec<&str> = query.all("redact").collect();
        if patterns.len() > PATTERNS_MAX {
            let hint = format!("at most {PATTERNS_MAX} patterns; join some with |");
            return Err(Problem::wrong("redact is there too often", hint));
        }
        // Sound as text, so sound for bytes; a limit of memory was theirs as well.
        let configured = rules.redact.iter().map(|pattern| Regex::new(pattern.as_str()));
        let configured = configured.map(|built| built.map_err(|error| error.to_string()));
        let hides = configured.chain(patterns.into_iter().map(pattern)).collect::<Result<_, _>>();
        let hides = hides
            .map_err(|problem| Problem::wrong("redact is wrong", format!("redact: {problem}")))?;
        Ok(Shows { preview, hides })
    }

    /// Bytes that have to be seen of a message.
    fn collected(&self) -> usize {
        match self.preview {
            0 => 0,
            preview if self.hides.is_empty() => preview,
            preview => preview + HIDDEN_MAX,
        }
    }

    /// What is shown of a message that begins like this.
    fn show(&self, begins: &[u8]) -> Vec<u8> {
        let mut shown = begins.to_vec();
        for pattern in &self.hides {
            shown = pattern.replace_all(&shown, NoExpand(HIDDEN)).into_owned();
        }
        shown.truncate(self.preview);
        shown
    }
}

fn preview(text: &str) -> Result<usize, String> {
    let number = text.parse().ok().filter(|number| *number <= PREVIEW_MAX);
    number.ok_or_else(|| format!("must be bytes from 0 to {PREVIEW_MAX}, not {text:?}"))
}

fn pattern(text: &str) -> Result<Regex, String> {
    if text.is_empty() || text.len() > PATTERN_BYTES_MAX {
        return Err(format!("must be a pattern of 1 to {PATTERN_BYTES_MAX} bytes"));
    }
    RegexBuilder::new(text)
        .size_limit(PATTERN_SIZE_MAX)
        .dfa_size_limit(PATTERN_SIZE_MAX)
        .build()
        .map_err(|error| error.to_string().replace('\n', " "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shows(preview: usize, patterns: &[&str]) -> Shows {
        let hides = patterns.iter().map(|text| pattern(text).expect("a pattern")).collect();
        Shows { preview, hides }
    }

    #[test]
    fn what_has_to_be_hidden_is_hidden_also_where_the_preview_ends_within_it() {
        let secret = [&b"user=1 token="[..], &[b'x'; 900], b" more"].concat();
        let shown = shows(20, &["token=x+"]).show(&secret);
        assert_eq!(String::from_utf8_lossy(&shown), "user=1 [redacted] mo");
        assert_eq!(shows(20, &["token=x+"]).collected(), 20 + HIDDEN_MAX);
        assert_eq!(shows(0, &["x"]).collected(), 0);
        assert_eq!(shows(9, &[]).show(&secret), b"user=1 to");
        assert_eq!(shows(30, &["[0-9]+", "\\$0"]).show(b"a1b22"), b"a[redacted]b[redacted]");
    }

    #[test]
    fn what_the_configuration_hides_is_hidden_here_too() {
        let redact = vec![regex::Regex::new("token-[a-z]+").expect("a pattern")];
        let rules = LogRules { redact, ..LogRules::default() };
        let query = Some("preview=40&redact=%5B0-9%5D");
        let query = Query::with_lists(query, &["preview"], &["redact"]).expect("a query");
        let shows = Shows::read(&query, &rules).expect("what it wants");
        assert_eq!(shows.show(b"1 token-abc \xff"), b"[redacted] [redacted] \xff");
        assert_eq!(shows.collected(), 40 + HIDDEN_MAX);
    }

    #[test]
    fn patterns_are_bounded() {
        assert!(pattern("").is_err() && pattern("(").is_err());
        assert!(pattern(&"x".repeat(PATTERN_BYTES_MAX + 1)).is_err());
        assert!(pattern("(?:x{1000}){1000}").is_err(), "too much memory");
        assert!(preview("1025").is_err() && preview("-1").is_err());
        assert_eq!(preview("1024"), Ok(1024));
    }
}
