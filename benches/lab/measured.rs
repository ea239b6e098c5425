//! The result of a run, as the JSON line that `scripts/lab` reads.

use std::fmt;

use serde_json::{Value, json};

use crate::kernel::Kernel;
use crate::load::Load;
use crate::mixed::BULK_FRAME;
use crate::process::Cpu;
use crate::session::Share;
use crate::workload::Workload;

/// What a run measured.
pub struct Measured {
    /// What was asked for.
    pub load: Load,
    /// What all sessions have done.
    pub total: Share,
    /// From the first byte to the last.
    pub seconds: f64,
    /// What the proxy has spent.
    pub cpu: Cpu,
    /// For which share of the time the busiest load thread ran, where there was work all the time.
    pub load_busy: Option<f64>,
    /// For which share of the time the busiest backend thread ran.
    pub backend_busy: Option<f64>,
    /// Memory of the proxy before the sessions and with them.
    pub pss: (u64, u64),
    /// Memory of the kernel before the sessions and with them.
    pub kernel: Option<(Kernel, Kernel)>,
}

impl Measured {
    /// Payload bytes (bulk), upgrades, sessions (idle), or round trips; in `mixed`, round trips and
    /// 64 KiB of bulk payload count the same.
    pub fn units(&self) -> u64 {
        match self.load.workload {
            Workload::BulkUp | Workload::BulkDown | Workload::BulkBoth => self.total.bulk_bytes,
            Workload::Idle => self.total.held() as u64,
            Workload::Mixed => self.total.round_trips + self.total.bulk_bytes / BULK_FRAME as u64,
            _ => self.total.round_trips,
        }
    }

    /// Payload that has passed the proxy for certain, both directions together.
    fn payload_bytes(&self) -> u64 {
        let size = self.load.size as u64;
        let round_trips = match self.load.workload {
            Workload::Idle | Workload::Crowd => self.total.round_trips + self.total.held() as u64,
            _ => self.total.round_trips,
        };
        self.total.bulk_bytes + 2 * size * round_trips
    }
}

impl fmt::Display for Measured {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (total, latency) = (&self.total, &self.total.latency);
        let at = |quantile| known(!latency.is_empty(), || json!(latency.at(quantile)));
        let is_open = self.load.workload == Workload::EchoOpen;
        let kernel = self.kernel.as_ref();
        let line = json!({
            "units": self.units(),
            "seconds": self.seconds,
            "round_trips": total.round_trips,
            "bulk_bytes": total.bulk_bytes,
            "payload_bytes": self.payload_bytes(),
            "cpu_seconds": self.cpu.ran,
            "wait_seconds": self.cpu.waited,
            "load_busy": self.load_busy.map(rounded),
            "backend_busy": self.backend_busy.map(rounded),
            "rate_wanted": known(is_open, || json!(self.load.rate)),
            "lag_p99_us": known(is_open, || json!(total.lag.at(0.99))),
            "p50_us": at(0.5),
            "p90_us": at(0.9),
            "p99_us": at(0.99),
            "p999_us": at(0.999),
            "p9999_us": at(0.9999),
            "max_us": known(!latency.is_empty(), || json!(latency.max())),
            "latencies": known(!latency.is_empty(), || json!(latency.curve())),
            "pss_before": self.pss.0,
            "pss_after": self.pss.1,
            "kernel_before": kernel.map(|(before, _)| before.bytes()),
            "kernel_after": kernel.map(|(_, after)| after.bytes()),
            "kernel_parts": kernel.map(|(before, after)| after.since(before)),
        });
        line.fmt(f)
    }
}

/// `null` for what a workload does not have.
fn known(is_known: bool, value: impl FnOnce() -> Value) -> Value {
    if is_known { value() } else { Value::Null }
}

fn rounded(share: f64) -> f64 {
    (share * 1000.0).round() / 1000.0
}
