//! The kernel's monotonic clock as a number, which std keeps to itself.
//!
//! <https://man7.org/linux/man-pages/man2/clock_gettime.2.html>.

use std::time::Duration;

/// `CLOCK_MONOTONIC`: what other programs of this machine compare with their own.
pub fn monotonic() -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is a live timespec that the call fills; this clock is there on every Linux.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut time) };
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_goes_on_and_never_back() {
        let first = monotonic();
        assert!(first > Duration::ZERO);
        let mut last = first;
        while last == first {
            last = monotonic();
        }
        assert!(last > first);
    }
}
