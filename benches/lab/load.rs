//! The load generator: opens sessions, drives one workload for a while, measures.
//!
//! All sessions are open before the clock and the proxy's CPU counter are read for the first time
//! (except in `upgrades`, where opening is the work), and both are read again after the last byte
//! has arrived where it was going. Every workload is a closed loop: a session has one message on
//! its way, or, in bulk, as many as the sockets hold.

use std::fmt;
use std::net::SocketAddr;
use std::sync::{Arc, Barrier};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use clap::ValueEnum;
use serde_json::json;
use tokio::task::JoinSet;

use crate::backend::runtime;
use crate::process::{Cpu, pss_bytes};
use crate::session::{self, Share};
use crate::wire::Wire;

/// One run of one workload.
#[derive(clap::Args, Clone)]
pub struct Load {
    /// The proxy, or the backend itself.
    #[arg(long)]
    pub to: SocketAddr,
    /// What the sessions do.
    #[arg(long)]
    pub workload: Workload,
    /// Sessions at the same time.
    #[arg(long, default_value_t = 1)]
    pub sessions: usize,
    /// Payload bytes of a frame.
    #[arg(long, default_value_t = 64)]
    pub size: usize,
    /// How long the workload runs.
    #[arg(long, default_value_t = 3.0)]
    pub seconds: f64,
    /// Threads that the sessions are dealt out to.
    #[arg(long, default_value_t = 1)]
    pub threads: usize,
    /// In `idle`: seconds between the last echo and the look at memory.
    #[arg(long, default_value_t = 1.0)]
    pub settle: f64,
    /// Processes of the proxy, whose CPU time and memory are read.
    #[arg(long, value_delimiter = ',')]
    pub pids: Vec<u32>,
    /// Seconds after `seconds` at which a run that has not ended fails.
    #[arg(long, default_value_t = 20.0)]
    pub limit: f64,
}

/// What the sessions of a run do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Workload {
    /// Client to backend, as fast as it goes.
    BulkUp,
    /// Backend to client, as fast as it goes.
    BulkDown,
    /// One frame there and back, again and again.
    Echo,
    /// Connect, upgrade, one echo, close, again and again.
    Upgrades,
    /// Open, one echo each, then silence.
    Idle,
}

impl Workload {
    /// Every workload.
    pub const ALL: [Workload; 5] =
        [Self::BulkUp, Self::BulkDown, Self::Echo, Self::Upgrades, Self::Idle];

    /// What the backend is asked for.
    pub fn path(self) -> &'static str {
        match self {
            Self::BulkUp => "/sink",
            Self::BulkDown => "/push",
            Self::Echo | Self::Upgrades | Self::Idle => "/echo",
        }
    }
}

/// What a run measured.
pub struct Measured {
    total: Share,
    seconds: f64,
    cpu: Cpu,
    pss_before: u64,
    pss_after: u64,
}

impl Measured {
    /// Payload bytes (bulk), round trips (echo), upgrades, or sessions (idle).
    pub fn units(&self) -> u64 {
        self.total.units
    }
}

impl fmt::Display for Measured {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let quantile = |at| self.total.latency.value_at_quantile(at) as f64 / 1e3;
        let line = json!({
            "units": self.units(),
            "seconds": self.seconds,
            "cpu_seconds": self.cpu.ran,
            "wait_seconds": self.cpu.waited,
            "pss_before": self.pss_before,
            "pss_after": self.pss_after,
            "p50_us": quantile(0.5),
            "p99_us": quantile(0.99),
            "p999_us": quantile(0.999),
        });
        line.fmt(f)
    }
}

impl Load {
    /// Runs the workload.
    pub fn run(&self) -> Result<Measured> {
        if self.workload == Workload::Idle {
            // The proxy's first session pays for what all of them share.
            runtime()?.block_on(self.bounded(session::open(self)))?;
        }
        let pss_before = pss_bytes(&self.pids);
        // Two meetings: all sessions are open; the first readings are taken.
        let meeting = Arc::new(Barrier::new(self.threads + 1));
        let threads: Vec<_> = (0..self.threads)
            .map(|index| {
                let (load, meeting) = (self.clone(), meeting.clone());
                std::thread::spawn(move || load.run_share(index, &meeting))
            })
            .collect();
        meeting.wait();
        let (start, cpu_start) = (Instant::now(), Cpu::of(&self.pids));
        meeting.wait();
        let mut total = Share::new()?;
        for thread in threads {
            total.add(thread.join().map_err(|_| anyhow!("a load thread panicked"))??)?;
        }
        let seconds = start.elapsed().as_secs_f64();
        let cpu = Cpu::of(&self.pids).since(cpu_start);
        if self.workload == Workload::Idle {
            std::thread::sleep(Duration::from_secs_f64(self.settle));
        }
        let pss_after = pss_bytes(&self.pids);
        Ok(Measured { total, seconds, cpu, pss_before, pss_after })
    }

    /// One thread's sessions, from the first connect to the last byte.
    fn run_share(&self, index: usize, meeting: &Barrier) -> Result<Share> {
        let mut sessions = self.sessions / self.threads;
        sessions += usize::from(index < self.sessions % self.threads);
        let runtime = runtime()?;
        let opened = runtime.block_on(self.bounded(open_all(self, sessions)));
        meeting.wait();
        meeting.wait();
        let drives = opened?;
        runtime.block_on(self.bounded(drive_all(self, drives)))
    }

    async fn bounded<T>(&self, work: impl Future<Output = Result<T>>) -> Result<T> {
        let limit = Duration::from_secs_f64(self.seconds + self.limit);
        tokio::time::timeout(limit, work).await.context("the workload did not end in time")?
    }
}

/// Opens `count` sessions, at most [`OPENING_MAX`] at a time. In `upgrades` there is nothing to
/// open yet: each session gets a place to open its connections from.
async fn open_all(load: &Load, count: usize) -> Result<Vec<Option<Wire>>> {
    if load.workload == Workload::Upgrades {
        return Ok((0..count).map(|_| None).collect());
    }
    let mut opening = JoinSet::new();
    let mut wires = Vec::with_capacity(count);
    for _ in 0..count {
        if opening.len() == OPENING_MAX {
            wires.push(Some(next(&mut opening).await?));
        }
        let load = load.clone();
        opening.spawn(async move { session::open(&load).await });
    }
    while !opening.is_empty() {
        wires.push(Some(next(&mut opening).await?));
    }
    Ok(wires)
}

/// Drives all sessions at the same time, to their end.
async fn drive_all(load: &Load, wires: Vec<Option<Wire>>) -> Result<Share> {
    let end = Instant::now() + Duration::from_secs_f64(load.seconds);
    let mut driving = JoinSet::new();
    for wire in wires {
        let load = load.clone();
        driving.spawn(async move { session::drive(&load, wire, end).await });
    }
    let mut total = Share::new()?;
    while !driving.is_empty() {
        total.add(next(&mut driving).await?)?;
    }
    Ok(total)
}

/// The next finished task's result; the set is not empty.
async fn next<T: 'static>(tasks: &mut JoinSet<Result<T>>) -> Result<T> {
    tasks.join_next().await.context("no task is left")?.context("a session panicked")?
}

/// At most as many handshakes at once: what is measured is not the proxy's backlog.
const OPENING_MAX: usize = 32;
