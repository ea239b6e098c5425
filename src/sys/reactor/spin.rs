//! Whether to look at the sockets for a while before going to sleep; pure.
//!
//! A wake-up costs more than a look, and far more where the core has gone to rest meanwhile. A worker whose
//! looks were all in vain sleeps at once, and tries again only now and then: idle sessions cost no core.

use std::time::Duration;

/// Vain tries in a row after which most parks go to sleep at once.
const VAIN_MAX: u32 = 8;
/// One park of so many tries again then.
const RETRY_EVERY: u32 = 16;

/// How long a worker looks before it sleeps, and what came of that lately.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Spin {
    pub longest: Duration,
    vain: u32,
}

impl Spin {
    pub fn new(longest: Duration) -> Spin {
        Spin { longest, vain: 0 }
    }

    /// Whether this park should begin with looks.
    pub fn should_try(&mut self) -> bool {
        if self.longest.is_zero() {
            return false;
        }
        if self.vain < VAIN_MAX {
            return true;
        }
        self.vain += 1;
        (self.vain - VAIN_MAX).is_multiple_of(RETRY_EVERY)
    }

    /// What a try came to.
    pub fn tried(&mut self, saw_events: bool) {
        if saw_events {
            self.vain = 0;
        } else if self.vain < VAIN_MAX {
            self.vain += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_a_time_nothing_is_tried() {
        assert!(!Spin::default().should_try());
    }

    #[test]
    fn a_worker_that_looks_in_vain_sleeps_and_tries_again_now_and_then() {
        let mut spin = Spin::new(Duration::from_micros(50));
        let mut tries = 0;
        for _ in 0..1000 {
            if spin.should_try() {
                tries += 1;
                spin.tried(false);
            }
        }
        assert!((8 + 50..8 + 70).contains(&tries), "{tries} of 1000");
        while !spin.should_try() {}
        spin.tried(true);
        assert!((0..8).all(|_| {
            let again = spin.should_try();
            spin.tried(false);
            again
        }));
    }
}
