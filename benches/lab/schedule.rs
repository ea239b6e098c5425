//! When the frames of an open loop are due. Pure: times are offsets from the start of the run.

use std::time::Duration;

/// Frames at a steady rate, dealt out to sessions in turn.
#[derive(Clone, Copy, Debug)]
pub struct Schedule {
    /// Frames per second, all sessions together.
    pub rate: f64,
    /// Sessions that take turns.
    pub sessions: usize,
}

impl Schedule {
    /// When `session` has to send its frame number `turn`; both count from 0.
    pub fn due(&self, session: usize, turn: u64) -> Duration {
        let place = session as f64 + turn as f64 * self.sessions as f64;
        Duration::from_secs_f64(place / self.rate)
    }

    /// How many frames `session` has to send in a run of `seconds`.
    pub fn turns(&self, session: usize, seconds: f64) -> u64 {
        let places = (seconds * self.rate).ceil() as u64;
        places.saturating_sub(session as u64).div_ceil(self.sessions as u64)
    }

    /// How many frames all sessions together have to send in a run of `seconds`.
    pub fn frames(&self, seconds: f64) -> u64 {
        (0..self.sessions).map(|session| self.turns(session, seconds)).sum()
    }
}
