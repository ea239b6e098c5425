//! Many sessions killed, spread over time: their clients will be back, and should not come all at once.

use std::sync::Arc;
use std::time::Duration;

use hyper::StatusCode;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Instant, sleep_until};

use super::query::Query;
use super::reply::Problem;
use super::{Subject, sessions};
use crate::config::value;
use crate::session::question::Place;

/// Sessions per second, unless the request says otherwise.
const RATE: f64 = 1000.0;
const RATE_MAX: f64 = 100_000.0;
const JITTER_MAX: Duration = Duration::from_secs(3600);
/// Spreads that may be going on at once.
pub(super) const SPREADS_MAX: usize = 8;

/// How fast sessions are told to end.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pace {
    /// Per second.
    rate: f64,
    /// Each is put off by a random time up to this.
    jitter: Duration,
}

impl Pace {
    /// `rate` and `jitter` of a request.
    pub fn read(query: &Query) -> Result<Pace, Problem> {
        Ok(Pace {
            rate: query.read("rate", rate)?.unwrap_or(RATE),
            jitter: query.read("jitter", jitter)?.unwrap_or(Duration::ZERO),
        })
    }

    /// How long so many sessions take at most.
    pub fn seconds(self, sessions: usize) -> f64 {
        sessions.saturating_sub(1) as f64 / self.rate
            + if sessions > 0 { self.jitter.as_secs_f64() } else { 0.0 }
    }

    /// When each of so many is told, from now on, in order.
    fn times(self, sessions: usize) -> Vec<Duration> {
        let mut times: Vec<Duration> = (0..sessions)
            .map(|at| {
                let put_off = self.jitter.mul_f64(fastrand::f64());
                Duration::from_secs_f64(at as f64 / self.rate) + put_off
            })
            .collect();
        times.sort();
        times
    }
}

/// Sessions per second.
pub(super) fn rate(text: &str) -> Result<f64, String> {
    let number = text.strip_suffix("/s").unwrap_or(text).parse().ok();
    let number = number.filter(|rate| (0.01..=RATE_MAX).contains(rate));
    number.ok_or_else(|| {
        format!("must be sessions per second like \"50/s\", from 0.01 to {RATE_MAX}, not {text:?}")
    })
}

fn jitter(text: &str) -> Result<Duration, String> {
    let jitter = value::duration(text)?;
    if jitter > JITTER_MAX {
        return Err(format!("must be an hour at most, not {text:?}"));
    }
    Ok(jitter)
}

/// Leave to spread one more kill over time.
pub(super) fn turn(gateway: &Subject) -> Result<OwnedSemaphorePermit, Problem> {
    Arc::clone(&gateway.spreads).try_acquire_owned().map_err(|_| {
        let error = format!("{SPREADS_MAX} kills are going on");
        Problem::new(StatusCode::TOO_MANY_REQUESTS, error, "wait until one of them is over")
    })
}

/// Tells these sessions to end, each in its time, after this has returned.
pub(super) fn spread(
    gateway: &Arc<Subject>,
    places: Vec<Place>,
    pace: Pace,
    turn: OwnedSemaphorePermit,
) {
    let gateway = Arc::clone(gateway);
    let begin = Instant::now();
    tokio::spawn(async move {
        for (time, place) in pace.times(places.len()).into_iter().zip(places) {
            sleep_until(begin + time).await;
            // What has ended meanwhile, or a worker that is stuck, is no reason to spare the others.
            let _ = sessions::end(&gateway, place).await;
        }
        drop(turn);
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sessions_are_told_one_by_one_at_the_rate_and_put_off_no_longer_than_the_jitter() {
        let pace = Pace { rate: 50.0, jitter: Duration::ZERO };
        let times = pace.times(101);
        let begun = |until: f64| times.iter().filter(|at| at.as_secs_f64() < until).count();
        assert_eq!((begun(0.019), begun(0.99), pace.seconds(101)), (1, 50, 2.0));
        let jitter = Duration::from_secs(3);
        let pace = Pace { jitter, ..pace };
        let times = pace.times(101);
        assert!(times.is_sorted() && *times.last().expect("many") <= Duration::from_secs(5));
        assert_eq!((pace.seconds(0), pace.seconds(1)), (0.0, 3.0));
    }

    #[test]
    fn a_rate_is_sessions_per_second() {
        assert_eq!((rate("50/s"), rate("0.5")), (Ok(50.0), Ok(0.5)));
        for wrong in ["", "0", "-1", "50/m", "1e9", "NaN", "inf"] {
            assert!(rate(wrong).is_err(), "{wrong}");
        }
        assert!(jitter("2h").is_err());
    }
}
