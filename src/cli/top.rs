//! The verb that watches a running gateway.

use std::time::Duration;

use clap::Args;

use super::{Chosen, Reaching};
use crate::config::value;

/// A gateway that is asked more often is kept from its work.
const INTERVAL_MIN: Duration = Duration::from_millis(100);
/// A longer one is a slip of the finger.
const INTERVAL_MAX: Duration = Duration::from_secs(3600);

/// `upsplice top`
#[derive(Args, Clone, Debug)]
#[command(
    after_help = "Keys: q or Esc ends, arrows and PageUp/PageDown select, Enter shows all of a session, k kills it (and \
    asks first), s sorts by the next column, r the other way round, / filters by text, t switches between sessions \
    and routes, p pauses, ? helps.\nWhat chooses sessions chooses those in the table; all else is of the whole gateway."
)]
pub struct TopVerb {
    /// Between two looks: 500ms, 1s, 1m.
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = interval)]
    pub interval: Duration,
    /// Print one interval and end; also what happens when stdout is no terminal.
    #[arg(long)]
    pub once: bool,
    /// Which sessions are listed.
    #[command(flatten)]
    pub chosen: Chosen,
    /// Where to ask.
    #[command(flatten)]
    pub reaching: Reaching,
}

fn interval(text: &str) -> Result<Duration, String> {
    let interval = value::duration(text)?;
    match (INTERVAL_MIN..=INTERVAL_MAX).contains(&interval) {
        true => Ok(interval),
        false => Err(format!("must be between 100ms and 1h, not {text:?}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interval_is_neither_a_flood_nor_a_day() {
        for (text, expected) in [("1s", 1000), ("100ms", 100), ("1h", 3_600_000), ("2", 2000)] {
            assert_eq!(interval(text), Ok(Duration::from_millis(expected)), "{text}");
        }
        for text in ["99ms", "0s", "61m", "-1s", "x", ""] {
            assert!(interval(text).is_err(), "{text}");
        }
    }
}
