//! How long messages took, from many sessions, as quantiles.

use std::time::Duration;

use anyhow::Result;
use hdrhistogram::Histogram;

/// The quantiles of a latency curve: closer together where they grow.
pub const CURVE: [f64; 20] = [
    0.0, 0.1, 0.25, 0.4, 0.5, 0.6, 0.7, 0.75, 0.8, 0.85, 0.9, 0.925, 0.95, 0.975, 0.99, 0.995,
    0.998, 0.999, 0.9995, 0.9999,
];

/// Measured times.
pub struct Latency {
    /// Nanoseconds.
    times: Histogram<u64>,
}

impl Latency {
    /// None yet.
    pub fn new() -> Result<Latency> {
        // Two digits: 1 % is finer than any two runs agree.
        Ok(Latency { times: Histogram::new(2)? })
    }

    /// Adds one time.
    pub fn record(&mut self, time: Duration) -> Result<()> {
        Ok(self.times.record(time.as_nanos() as u64)?)
    }

    /// Adds all times of another session or thread.
    pub fn add(&mut self, other: &Latency) -> Result<()> {
        Ok(self.times.add(&other.times)?)
    }

    /// Whether nothing was measured.
    pub fn is_empty(&self) -> bool {
        self.times.is_empty()
    }

    /// The time that `quantile` of the messages did not exceed, in microseconds.
    pub fn at(&self, quantile: f64) -> f64 {
        microseconds(self.times.value_at_quantile(quantile))
    }

    /// The longest time, in microseconds.
    pub fn max(&self) -> f64 {
        microseconds(self.times.max())
    }

    /// Pairs of quantile and microseconds; empty when nothing was measured.
    pub fn curve(&self) -> Vec<(f64, f64)> {
        let quantiles = CURVE.iter().filter(|_| !self.is_empty());
        quantiles.map(|&quantile| (quantile, self.at(quantile))).collect()
    }
}

/// With one digit after the point: finer than the histogram from 10 µs on.
fn microseconds(nanoseconds: u64) -> f64 {
    (nanoseconds as f64 / 100.0).round() / 10.0
}
