//! Figures in words: the lines above the table, on the screen and in a report.

use super::figures::{Counts, DIRECTIONS, Figures, of};
use crate::admin::print::size;

/// A line: what it is about, and what there is to say.
pub type Line = (&'static str, String);

/// Whether the gateway takes sessions, and how many there are.
pub fn state(figures: &Figures) -> Line {
    let word = if figures.reasons.is_empty() { "ready" } else { "not ready" };
    let why: Vec<String> = figures.reasons.iter().map(|reason| format!(": {reason}")).collect();
    let mut counts =
        vec![(figures.sessions_open, "session"), (figures.connections_open, "connection")];
    counts.extend(figures.workers.map(|workers| (workers, "worker")));
    let counts: Vec<String> =
        counts.into_iter().map(|(count, what)| counted(count, what)).collect();
    let rest = counts.join(", ");
    ("upsplice", format!("{} {word}{}, {rest}", figures.version, why.concat()))
}

/// Bytes per second of one direction.
pub fn throughput(figures: &Figures, direction: usize) -> Line {
    let words = ["to upstream", "to downstream"];
    (words[direction], format!("{}/s", size(figures.bytes[direction])))
}

/// All others, the most telling first.
pub fn others(figures: &Figures) -> Vec<Line> {
    let switched = of(&figures.upgrades, "switched");
    let refused = match total(&figures.refusals) {
        0.0 => "0/s".to_owned(),
        all => format!("{}: {}", per_second(all), words(&figures.refusals, per_second)),
    };
    let mut lines =
        vec![("upgrades", format!("{} switched, refused {refused}", per_second(switched)))];
    let rates = words(&figures.engines, |bytes| format!("{}/s", size(bytes)));
    let fallbacks = match total(&figures.fallbacks) {
        0.0 => "no fallback".to_owned(),
        all => format!(
            "{}: {}",
            counted(all, "fallback"),
            words(&figures.fallbacks, |n| n.to_string())
        ),
    };
    lines.push(("engines", format!("{}, {fallbacks}", or_none(rates))));
    let closes = words(&figures.closes, per_second);
    lines.push(("closes", or_none(closes)));
    lines.push(("paused", paused(figures)));
    if let Some([used, free]) = figures.pipes {
        lines.push(("pipes", format!("{used} used, {free} free")));
    }
    lines
}

/// What drains, one line each.
pub fn drains(figures: &Figures) -> impl Iterator<Item = Line> {
    figures.drains.iter().map(|drain| ("drain", drain.line.clone()))
}

/// How many sessions the table has, when they are not all.
pub fn listed(figures: &Figures) -> Option<String> {
    figures.more.then(|| format!("first {} sessions", figures.sessions.len()))
}

/// So many of them.
pub fn counted(count: f64, what: &str) -> String {
    let s = if count == 1.0 { "" } else { "s" };
    format!("{count} {what}{s}")
}

/// Three digits at most behind which nobody looks.
pub fn per_second(count: f64) -> String {
    match count {
        0.0 => "0/s".to_owned(),
        0.0..10.0 => format!("{count:.1}/s"),
        _ => format!("{count:.0}/s"),
    }
}

fn paused(figures: &Figures) -> String {
    let now = DIRECTIONS.iter().zip(figures.paused);
    let now: Vec<String> = now.map(|(way, count)| format!("{count} {way}")).collect();
    let began = per_second(figures.pauses.iter().sum());
    let who = match &*figures.paused_clients {
        [] => String::new(),
        clients => format!(": {}", clients.join(", ")),
    };
    format!("{}, {began} new{who}", now.join(", "))
}

fn total(counts: &Counts) -> f64 {
    counts.values().sum()
}

/// Those that there are, the greatest first.
fn words(counts: &Counts, number: impl Fn(f64) -> String) -> String {
    let mut met: Vec<(&String, &f64)> = counts.iter().filter(|(_, count)| **count > 0.0).collect();
    met.sort_by(|(_, one), (_, other)| other.total_cmp(one));
    let met: Vec<String> =
        met.iter().map(|(word, count)| format!("{word} {}", number(**count))).collect();
    met.join(", ")
}

fn or_none(words: String) -> String {
    if words.is_empty() { "none".to_owned() } else { words }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(entries: &[(&str, f64)]) -> Counts {
        entries.iter().map(|(name, value)| ((*name).to_owned(), *value)).collect()
    }

    #[test]
    fn what_there_is_none_of_is_left_out_and_the_most_comes_first() {
        let figures = Figures {
            upgrades: counts(&[("switched", 12.4), ("failed", 1.0)]),
            refusals: counts(&[("no_route", 0.5), ("reset", 0.0), ("limit_sessions", 2.0)]),
            engines: counts(&[("copy", 2048.0), ("splice", 1e6), ("uring", 0.0)]),
            closes: counts(&[]),
            paused: [0, 2],
            paused_clients: vec!["a:1".to_owned(), "b:2".to_owned()],
            pauses: [0.0, 1.0],
            ..Figures::default()
        };
        let expected = [
            ("upgrades", "12/s switched, refused 2.5/s: limit_sessions 2.0/s, no_route 0.5/s"),
            ("engines", "splice 977 KiB/s, copy 2.0 KiB/s, no fallback"),
            ("closes", "none"),
            ("paused", "0 to_upstream, 2 to_downstream, 1.0/s new: a:1, b:2"),
        ];
        assert_eq!(others(&figures), expected.map(|(name, text)| (name, text.to_owned())));
    }

    #[test]
    fn a_gateway_that_is_not_ready_says_why() {
        let mut figures = Figures { workers: Some(4.0), ..Figures::default() };
        assert_eq!(state(&figures).1, " ready, 0 sessions, 0 connections, 4 workers");
        figures.reasons = vec!["the gateway drains".to_owned()];
        assert!(state(&figures).1.starts_with(" not ready: the gateway drains, "));
    }

    #[test]
    fn a_list_that_is_not_whole_says_so() {
        let mut figures = Figures::default();
        assert_eq!(listed(&figures), None);
        figures.more = true;
        assert_eq!(listed(&figures).as_deref(), Some("first 0 sessions"));
    }
}
