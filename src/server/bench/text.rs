//! A [`Summary`] for people.

use std::fmt::{self, Display, Formatter};

use super::summary::{BASELINE, Figure, Summary, Verdict, size};

impl Display for Summary {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "bench: one worker, {} of an echo, medians of {} rounds:",
            self.peers(),
            self.rounds
        )?;
        writeln!(
            f,
            "  {:12}{:8}{:>12}{:>14}{:>10}  CPU against copy",
            "message", "engine", "CPU", "rate", "p50"
        )?;
        for row in &self.rows {
            let mut name = format!("{} {}", row.load, size(row.bytes));
            for figure in &row.figures {
                let mark = if row.cheapest == Some(figure.engine) { ", cheapest" } else { "" };
                writeln!(f, "  {name:13}{}{mark}", line(figure, row.load == "bulk"))?;
                name.clear();
            }
        }
        writeln!(f)?;
        for sentence in &self.sentences {
            writeln!(f, "{sentence}")?;
        }
        writeln!(f, "{}", self.idle_sentence())?;
        for carrier in self.engines.iter().filter(|carrier| carrier.refused.is_none()) {
            let all: u64 = carrier.carried.values().sum();
            let shares = carrier.carried.iter().filter(|(_, bytes)| **bytes > 0);
            let shares = shares
                .map(|(by, bytes)| format!("{by} {:.0} %", 100.0 * *bytes as f64 / all as f64));
            writeln!(
                f,
                "What carried the bytes of engine {}: {}.",
                carrier.engine,
                shares.collect::<Vec<_>>().join(", ")
            )?;
        }
        if !self.pinned {
            writeln!(
                f,
                "Fewer than 3 cores: worker, client and backend share them, so this is rough."
            )?;
        }
        writeln!(f, "Loopback: no network card, and large fragments, which flatters splice.")
    }
}

impl Summary {
    fn peers(&self) -> String {
        match self.sessions {
            1 => "1 session".into(),
            sessions => format!("{sessions} sessions"),
        }
    }

    fn idle_sentence(&self) -> String {
        let kilobytes = |bytes: Option<u64>| match bytes {
            Some(bytes) => format!("{:.1} KiB", bytes as f64 / 1024.0),
            None => "an unknown amount".into(),
        };
        let source = self.idle.kernel_source.map(|source| format!(" ({source})"));
        format!(
            "An idle session costs {} of user memory and {} of the kernel's{}, by {} sessions.",
            kilobytes(self.idle.user_bytes),
            kilobytes(self.idle.kernel_bytes),
            source.unwrap_or_default(),
            self.idle.sessions,
        )
    }
}

fn line(figure: &Figure, bulk: bool) -> String {
    let (cpu, rate, p50) = if bulk {
        let rate = format!("{:.2} GB/s", figure.gb_per_s);
        (format!("{:.2} s/GB", figure.cpu_s_per_gb), rate, String::new())
    } else {
        let rate = format!("{:.0}/s", figure.messages_per_s);
        (format!("{:.1} µs", figure.cpu_us_per_message), rate, format!("{:.0} µs", figure.p50_us))
    };
    let against = match figure.cpu_against_copy {
        Some(paired) => {
            let verdict = match paired.verdict {
                Verdict::Same => ", no difference beyond the spread",
                Verdict::Less | Verdict::More => "",
            };
            format!("  {:.2} ({:.2} to {:.2}){verdict}", paired.ratio, paired.least, paired.most)
        }
        None if figure.engine == BASELINE => "  1".into(),
        None => String::new(),
    };
    format!("{:8}{cpu:>11}{rate:>14}{p50:>10}{against}", figure.engine)
}
