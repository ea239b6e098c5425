//! The usual numbers of a process, as proc(5) tells them; what a sandbox hides is left out.

use std::fmt;
use std::fs;

use super::family::Families;

/// proc(5): times in /proc/self/stat are in these, on every Linux that user space may see.
const TICKS_PER_SECOND: f64 = 100.0;
const KIB: u64 = 1024;

/// Writes `process_*`.
pub(super) fn encode(page: &mut Families<'_>) -> fmt::Result {
    if let Some([user, system, started]) = times() {
        let cpu = (user + system) / TICKS_PER_SECOND;
        page.counter("process_cpu_seconds", "User and system time.", cpu)?;
        if let Some(boot) = boot_time() {
            let started = boot + started / TICKS_PER_SECOND;
            let help = "When the process started, in seconds since 1970.";
            page.gauge("process_start_time_seconds", help, started)?;
        }
    }
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    for (key, name, help) in [
        ("VmRSS:", "process_resident_memory_bytes", "Resident memory."),
        ("VmSize:", "process_virtual_memory_bytes", "Virtual memory."),
    ] {
        if let Some(kib) = number_after(&status, key) {
            page.gauge(name, help, kib * KIB)?;
        }
    }
    if let Some(threads) = number_after(&status, "Threads:") {
        page.gauge("process_threads", "Threads.", threads)?;
    }
    if let Ok(open) = fs::read_dir("/proc/self/fd") {
        // The one that reads the folder is gone again.
        let open = open.count().saturating_sub(1) as u64;
        page.gauge("process_open_fds", "Open descriptors.", open)?;
    }
    let limits = fs::read_to_string("/proc/self/limits").unwrap_or_default();
    if let Some(max) = number_after(&limits, "Max open files") {
        page.gauge("process_max_fds", "How many descriptors may be open.", max)?;
    }
    Ok(())
}

/// User time, system time, and when it started after boot.
fn times() -> Option<[f64; 3]> {
    let stat = fs::read_to_string("/proc/self/stat").ok()?;
    // The name of the program may hold blanks and brackets; the last bracket ends it.
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let field = |number: usize| fields.get(number - 3)?.parse().ok();
    Some([field(14)?, field(15)?, field(22)?])
}

fn boot_time() -> Option<f64> {
    let stat = fs::read_to_string("/proc/stat").ok()?;
    number_after(&stat, "btime").map(|seconds| seconds as f64)
}

fn number_after(text: &str, key: &str) -> Option<u64> {
    let rest = text.lines().find_map(|line| line.strip_prefix(key))?;
    rest.split_whitespace().next()?.parse().ok()
}
