//! Has anything moved? A timer that looks at a byte count now and then; pure.
//!
//! No clock is read and no timer is touched when bytes move. Instead the count is looked at four times
//! per window: four looks in a row without a change are a window without progress, so a quiet session
//! ends between one window and one and a quarter after its last byte (rule R8).

use std::time::Duration;

/// How often a count is looked at per window.
const LOOKS_PER_WINDOW: u32 = 4;

/// The watch over one session's progress.
#[derive(Clone, Copy, Debug)]
pub struct Watch {
    window: Duration,
    seen: u64,
    quiet_looks: u32,
}

impl Watch {
    /// A watch over a count that stands at `total` now.
    pub fn new(window: Duration, total: u64) -> Watch {
        Watch { window, seen: total, quiet_looks: 0 }
    }

    /// The time until the next look is due.
    pub fn period(&self) -> Duration {
        (self.window / LOOKS_PER_WINDOW).max(Duration::from_millis(1))
    }

    /// Looks at the count, which is the sum of all bytes moved; true when the window has passed.
    pub fn expired(&mut self, total: u64) -> bool {
        if total != self.seen {
            self.seen = total;
            self.quiet_looks = 0;
            return false;
        }
        self.quiet_looks += 1;
        self.quiet_looks >= LOOKS_PER_WINDOW
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn four_quiet_looks_are_a_window() {
        let mut watch = Watch::new(Duration::from_secs(4), 0);
        assert_eq!(watch.period(), Duration::from_secs(1));
        assert_eq!([0; 4].map(|total| watch.expired(total)), [false, false, false, true]);
    }

    #[test]
    fn one_byte_starts_the_window_anew() {
        let mut watch = Watch::new(Duration::from_secs(4), 0);
        let looks = [0, 0, 0, 1, 1, 1, 1, 2].map(|total| watch.expired(total));
        assert_eq!(looks, [false; 8]);
        assert_eq!([2, 2, 2].map(|total| watch.expired(total)), [false; 3]);
        assert!(watch.expired(2));
    }

    #[test]
    fn a_tiny_window_still_waits_between_looks() {
        assert_eq!(Watch::new(Duration::from_nanos(1), 0).period(), Duration::from_millis(1));
    }
}
