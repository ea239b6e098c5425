//! A token bucket in one number: the moment at which it is full again.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use crate::config::admission::Pace;

/// A bucket that all workers take from.
#[derive(Debug, Default)]
pub struct Bucket(AtomicU64);

impl Bucket {
    /// Takes one at `now`, in nanoseconds.
    ///
    /// # Errors
    ///
    /// None is left: the time until there is one.
    pub fn take(&self, now: u64, pace: Pace) -> Result<(), Duration> {
        let mut wait = Duration::ZERO;
        let taken = self.0.fetch_update(Relaxed, Relaxed, |full_at| {
            take(full_at, now, pace).map_err(|time| wait = time).ok()
        });
        taken.map(|_| ()).map_err(|_| wait)
    }

    /// Puts one back that was taken.
    pub fn put_back(&self, pace: Pace) {
        // A bucket that was full before this is as full after it: whoever takes goes by the later of full and now.
        let put_back = |full_at: u64| Some(full_at.saturating_sub(each(pace)));
        let _ = self.0.fetch_update(Relaxed, Relaxed, put_back);
    }
}

/// Nanoseconds in which one comes.
fn each(pace: Pace) -> u64 {
    1_000_000_000 / u64::from(pace.per_second)
}

/// One is taken at `now` from the bucket that is full at `full_at`: when it is full then.
///
/// # Errors
///
/// None is left: the time until there is one.
pub fn take(full_at: u64, now: u64, pace: Pace) -> Result<u64, Duration> {
    let each = each(pace);
    let full_at = full_at.max(now) + each;
    match (full_at - now).checked_sub(each * u64::from(pace.burst)) {
        None | Some(0) => Ok(full_at),
        Some(wait) => Err(Duration::from_nanos(wait)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_gives_its_burst_and_then_as_many_as_the_pace_says() {
        let pace = Pace { per_second: 10, burst: 3 };
        let bucket = Bucket::default();
        let second = 1_000_000_000;
        let taken = |now| (0..).take_while(|_| bucket.take(now, pace).is_ok()).count();
        assert_eq!(taken(5 * second), 3);
        assert_eq!(bucket.take(5 * second, pace), Err(Duration::from_millis(100)));
        assert_eq!(taken(5 * second + second / 10 - 1), 0);
        assert_eq!(taken(5 * second + second / 10), 1);
        assert_eq!(taken(6 * second), 3, "a pause fills it no higher than its burst");
    }

    #[test]
    fn a_bucket_gives_no_more_to_many_threads_than_to_one() {
        let bucket = Bucket::default();
        let pace = Pace { per_second: 1, burst: 1000 };
        let take = || (0..1000).filter(|_| bucket.take(0, pace).is_ok()).count();
        let taken: usize = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(take)).collect();
            threads.into_iter().map(|thread| thread.join().expect("no panic")).sum()
        });
        assert_eq!(taken, 1000);
    }
}
