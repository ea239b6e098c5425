//! From samples to an answer: medians, paired ratios, who wins beyond the spread, from which size on.
//!
//! Pure. An engine is only ever compared with engine copy in the same round, because a machine that others
//! use changes from one second to the next; a difference counts when the rounds agree about it.

use std::collections::BTreeMap;

use serde::Serialize;

use super::load::Load;
use super::memory::Idle;

/// What the engines are compared with.
pub const BASELINE: &str = "copy";

/// A median ratio closer to 1 than this is no difference, however often it was seen.
const DIFFERENCE_MIN: f64 = 0.02;
/// From so many rounds on one may say otherwise: a hiccup of the machine.
const ROUNDS_FOR_DISSENT: usize = 5;

/// One engine on one load in one round.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sample {
    /// What the worker's thread ran.
    pub cpu_nanos: u64,
    /// Messages sent, and in an echo received.
    pub messages: u64,
    /// Bytes that came back, or arrived.
    pub bytes: u64,
    /// How long it took.
    pub nanos: u64,
    /// Median time of a round trip.
    pub p50_nanos: u64,
}

/// The answer of a bench.
#[derive(Clone, Debug, Serialize)]
pub struct Summary {
    /// Whether the worker had a core of its own.
    pub pinned: bool,
    /// How often each line was measured.
    pub rounds: usize,
    /// How many sessions echoed at a time.
    pub sessions: usize,
    /// The engines that were asked for, measured or refused.
    pub engines: Vec<Carrier>,
    /// By load, in the order measured.
    pub rows: Vec<Row>,
    /// For people.
    pub sentences: Vec<String>,
    /// The cost of an idle session.
    pub idle: Idle,
}

/// An engine, and whether it did the work.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Carrier {
    /// Which.
    pub engine: &'static str,
    /// Why it was not measured.
    pub refused: Option<String>,
    /// Bytes by the engine that really carried them, both ways, by the gateway's own counters.
    pub carried: BTreeMap<&'static str, u64>,
    /// Bytes that the client saw echoed, twice, or the backend counted: what must have been carried at least.
    pub delivered: u64,
}

/// One load.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// `echo` or `bulk`.
    pub load: &'static str,
    /// Bytes of a message.
    pub bytes: usize,
    /// One for each measured engine.
    pub figures: Vec<Figure>,
    /// The engine with the least CPU time, if its lead on copy, or copy's on all, is beyond the spread.
    pub cheapest: Option<&'static str>,
}

/// One engine on one load: medians over the rounds.
#[derive(Clone, Debug, Serialize)]
pub struct Figure {
    /// Which.
    pub engine: &'static str,
    /// CPU time of the worker for a message, in microseconds.
    pub cpu_us_per_message: f64,
    /// CPU time of the worker for 10⁹ bytes one way, in seconds.
    pub cpu_s_per_gb: f64,
    /// Messages in a second, all sessions together.
    pub messages_per_s: f64,
    /// 10⁹ bytes in a second, one way.
    pub gb_per_s: f64,
    /// Median time of a round trip in microseconds; 0 in bulk.
    pub p50_us: f64,
    /// CPU time for a message against copy; `None` for copy itself.
    pub cpu_against_copy: Option<Paired>,
    /// Time for a message against copy: below 1 is faster.
    pub time_against_copy: Option<Paired>,
}

/// A ratio, taken in each round.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Paired {
    /// The median.
    pub ratio: f64,
    /// The least.
    pub least: f64,
    /// The most.
    pub most: f64,
    /// Whether that is a difference.
    pub verdict: Verdict,
}

/// What the rounds of a ratio agree about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Less than the other.
    Less,
    /// More than the other.
    More,
    /// No difference beyond the spread.
    Same,
}

impl Paired {
    /// The ratios of one engine's values to another's, round by round.
    pub fn of(ours: &[f64], theirs: &[f64]) -> Option<Paired> {
        let ratios = ours.iter().zip(theirs).filter(|(_, theirs)| **theirs > 0.0);
        let ratios: Vec<f64> = ratios.map(|(ours, theirs)| ours / theirs).collect();
        let ratio = median(&ratios)?;
        let dissent_max = usize::from(ratios.len() >= ROUNDS_FOR_DISSENT);
        let above = ratios.iter().filter(|&&ratio| ratio >= 1.0).count();
        let below = ratios.iter().filter(|&&ratio| ratio <= 1.0).count();
        let verdict = match ratio {
            _ if (ratio - 1.0).abs() < DIFFERENCE_MIN => Verdict::Same,
            _ if ratio < 1.0 && above <= dissent_max => Verdict::Less,
            _ if ratio > 1.0 && below <= dissent_max => Verdict::More,
            _ => Verdict::Same,
        };
        let least = ratios.iter().copied().fold(f64::INFINITY, f64::min);
        let most = ratios.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        Some(Paired { ratio, least, most, verdict })
    }
}

impl Row {
    /// The figures of one load from the samples of each engine, in the order of the rounds.
    pub fn new(load: Load, samples: &[(&'static str, Vec<Sample>)]) -> Row {
        let copy = samples.iter().find(|(engine, _)| *engine == BASELINE).map(|(_, copy)| copy);
        let figures: Vec<Figure> =
            samples.iter().map(|(engine, own)| figure(engine, own, copy)).collect();
        Row {
            load: match load {
                Load::Echo { .. } => "echo",
                Load::Bulk { .. } => "bulk",
            },
            bytes: load.bytes(),
            cheapest: cheapest(&figures),
            figures,
        }
    }

    fn paired(&self, engine: &str) -> Option<Paired> {
        self.figures.iter().find(|figure| figure.engine == engine)?.cpu_against_copy
    }
}

fn figure(engine: &'static str, own: &[Sample], copy: Option<&Vec<Sample>>) -> Figure {
    let values = |of: fn(&Sample) -> f64| own.iter().map(of).collect::<Vec<f64>>();
    let middle = |of| median(&values(of)).unwrap_or(0.0);
    let against = |of: fn(&Sample) -> f64| {
        let copy: Vec<f64> = copy.filter(|_| engine != BASELINE)?.iter().map(of).collect();
        Paired::of(&values(of), &copy)
    };
    Figure {
        engine,
        cpu_us_per_message: middle(|s| per(s.cpu_nanos, s.messages) / 1e3),
        cpu_s_per_gb: middle(|s| per(s.cpu_nanos, s.bytes)),
        messages_per_s: middle(|s| per(s.messages, s.nanos) * 1e9),
        gb_per_s: middle(|s| per(s.bytes, s.nanos)),
        p50_us: middle(|s| s.p50_nanos as f64 / 1e3),
        cpu_against_copy: against(|s| per(s.cpu_nanos, s.bytes)),
        time_against_copy: against(|s| per(s.nanos, s.bytes)),
    }
}

fn per(what: u64, each: u64) -> f64 {
    if each == 0 { 0.0 } else { what as f64 / each as f64 }
}

/// The middle one; of an even number the mean of the middle two.
pub fn median(values: &[f64]) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let upper = *sorted.get(sorted.len() / 2)?;
    Some(if sorted.len() % 2 == 1 { upper } else { (sorted[sorted.len() / 2 - 1] + upper) / 2.0 })
}

fn cheapest(figures: &[Figure]) -> Option<&'static str> {
    let pairs = || figures.iter().filter_map(|f| Some((f.engine, f.cpu_against_copy?)));
    let least = pairs().filter(|(_, paired)| paired.verdict == Verdict::Less);
    let least = least.min_by(|(_, a), (_, b)| a.ratio.total_cmp(&b.ratio));
    match least {
        Some((engine, _)) => Some(engine),
        None if pairs().count() == 0 => None,
        None => pairs().all(|(_, paired)| paired.verdict == Verdict::More).then_some(BASELINE),
    }
}

/// In words: for every engine but copy from which size on it pays, and what a stream costs.
pub fn sentences(engines: &[Carrier], rows: &[Row]) -> Vec<String> {
    let mut said = Vec::new();
    for Carrier { engine, refused, .. } in engines {
        if let Some(why) = refused {
            said.push(format!("Engine {engine} was not measured: {why}."));
            continue;
        }
        let echoes = rows.iter().filter(|row| row.load == "echo");
        let points: Vec<(usize, Paired)> =
            echoes.filter_map(|row| Some((row.bytes, row.paired(engine)?))).collect();
        if !points.is_empty() {
            said.push(crossover(engine, &points));
        }
    }
    said.extend(rows.iter().filter(|row| row.load == "bulk").map(|row| {
        let costs = row.figures.iter();
        let costs = costs.map(|f| format!("{:.2} s by {}", f.cpu_s_per_gb, f.engine));
        format!("A GB of a bulk stream costs CPU time of {}.", costs.collect::<Vec<_>>().join(", "))
    }));
    said
}

/// `points` are message sizes, upwards, with the engine's CPU time against copy's.
fn crossover(engine: &str, points: &[(usize, Paired)]) -> String {
    let is = |verdict| move |point: &&(usize, Paired)| point.1.verdict == verdict;
    let gain = points.iter().map(|(_, paired)| 1.0 - paired.ratio).fold(0.0, f64::max);
    let gain = format!("up to {:.0} % cheaper", 100.0 * gain);
    let loss = points.iter().map(|(_, paired)| 1.0 - 1.0 / paired.ratio).fold(0.0, f64::max);
    let loss = format!("up to {:.0} % cheaper", 100.0 * loss);
    let less: Vec<usize> = points.iter().filter(is(Verdict::Less)).map(|point| point.0).collect();
    let more: Vec<usize> = points.iter().filter(is(Verdict::More)).map(|point| point.0).collect();
    match (less.first(), more.last()) {
        (None, None) => format!(
            "On this machine there is no difference beyond the spread between {engine} and copy, at any \
             message size."
        ),
        (Some(&from), None) if from == points[0].0 => {
            format!("On this machine {engine} is {gain} than copy, from the smallest messages on.")
        }
        (Some(&from), None) => format!(
            "On this machine {engine} is {gain} than copy from {} messages on; below that there is no \
             difference beyond the spread.",
            size(from)
        ),
        (None, Some(_)) => {
            format!("On this machine copy is {loss} than {engine}, and {engine} pays at no size.")
        }
        (Some(&from), Some(&until)) if until < from => format!(
            "On this machine {engine} is {gain} than copy from {} messages on; below that copy is {loss}.",
            size(from)
        ),
        (Some(_), Some(&until))
            if less.iter().all(|&bytes| bytes < until) && less.last() < more.first() =>
        {
            format!(
                "On this machine {engine} is {gain} than copy up to {} messages; above that copy is {loss}.",
                size(*less.last().expect("one is less"))
            )
        }
        _ => format!(
            "On this machine neither wins on one side of a size: {engine} is cheaper with messages of {}, \
             copy with {}.",
            sizes(&less),
            sizes(&more)
        ),
    }
}

fn sizes(all: &[usize]) -> String {
    all.iter().map(|&bytes| size(bytes)).collect::<Vec<_>>().join(", ")
}

/// `bytes` in the largest unit that divides it.
pub(super) fn size(bytes: usize) -> String {
    match bytes {
        _ if bytes >= 1 << 20 && bytes.is_multiple_of(1 << 20) => format!("{} MiB", bytes >> 20),
        _ if bytes >= 1 << 10 && bytes.is_multiple_of(1 << 10) => format!("{} KiB", bytes >> 10),
        _ => format!("{bytes} B"),
    }
}

#[cfg(test)]
mod tests;
