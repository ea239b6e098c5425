//! What the measured processes cost, as the kernel counts it.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

/// How long processes have been on a core, and how long they have waited for one.
#[derive(Clone, Copy)]
pub struct Cpu {
    /// User and system time, in seconds.
    pub ran: f64,
    /// Time that they could have run but another program had the core, in seconds.
    pub waited: f64,
}

impl Cpu {
    /// All threads of `pids` together.
    ///
    /// From `schedstat`, which counts nanoseconds; from `stat`, in ticks of 10 ms and without the
    /// waiting, where the kernel was built without it.
    pub fn of(pids: &[u32]) -> Cpu {
        pids.iter().map(|&pid| from_schedstat(pid).unwrap_or_else(|| from_stat(pid))).fold(
            Cpu { ran: 0.0, waited: 0.0 },
            |sum, one| Cpu { ran: sum.ran + one.ran, waited: sum.waited + one.waited },
        )
    }

    /// What came on top since `earlier`.
    pub fn since(self, earlier: Cpu) -> Cpu {
        Cpu { ran: self.ran - earlier.ran, waited: self.waited - earlier.waited }
    }
}

fn from_schedstat(pid: u32) -> Option<Cpu> {
    let (mut ran, mut waited) = (0, 0);
    for task in fs::read_dir(format!("/proc/{pid}/task")).ok()? {
        let text = fs::read_to_string(task.ok()?.path().join("schedstat")).ok()?;
        let mut numbers = text.split(' ').map(|number| number.parse::<u64>().ok());
        ran += numbers.next()??;
        waited += numbers.next()??;
    }
    Some(Cpu { ran: ran as f64 / 1e9, waited: waited as f64 / 1e9 })
}

fn from_stat(pid: u32) -> Cpu {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // The second field is the program's name in brackets and may hold blanks.
    let after_name = text.rsplit(") ").next().unwrap_or_default();
    let ticks = |index| {
        after_name.split(' ').nth(index).and_then(|field| field.parse::<u64>().ok()).unwrap_or(0)
    };
    Cpu { ran: (ticks(11) + ticks(12)) as f64 / 100.0, waited: 0.0 }
}

/// How long each of some threads has been on a core, in seconds by thread number.
#[derive(Default)]
pub struct Busy {
    threads: BTreeMap<String, f64>,
}

impl Busy {
    /// All threads of `pids`.
    pub fn of(pids: &[u32]) -> Busy {
        let tasks = pids.iter().filter_map(|pid| fs::read_dir(format!("/proc/{pid}/task")).ok());
        let paths = tasks.flatten().flatten().map(|task| task.path());
        Busy { threads: paths.filter_map(|path| ran(&path)).collect() }
    }

    /// Only the thread that asks.
    pub fn of_this_thread() -> Busy {
        Busy { threads: ran(Path::new("/proc/thread-self")).into_iter().collect() }
    }

    /// How long the thread that ran most since `earlier` did so; 0 when the kernel does not count.
    pub fn busiest_since(&self, earlier: &Busy) -> f64 {
        let before = |thread| earlier.threads.get(thread).copied().unwrap_or_default();
        self.threads.iter().map(|(thread, ran)| ran - before(thread)).fold(0.0, f64::max)
    }
}

/// A thread by its folder, and how long it has run.
fn ran(thread: &Path) -> Option<(String, f64)> {
    let text = fs::read_to_string(thread.join("schedstat")).ok()?;
    let nanoseconds: u64 = text.split(' ').next()?.parse().ok()?;
    Some((thread.file_name()?.to_string_lossy().into_owned(), nanoseconds as f64 / 1e9))
}

/// Proportional set size of `pids` together, in bytes.
pub fn pss_bytes(pids: &[u32]) -> u64 {
    let of = |pid: &u32| {
        let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
        let line = text.lines().find_map(|line| line.strip_prefix("Pss:")).unwrap_or_default();
        line.split_whitespace().next().and_then(|number| number.parse::<u64>().ok()).unwrap_or(0)
    };
    pids.iter().map(of).sum::<u64>() * 1024
}
