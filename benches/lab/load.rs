//! The load generator: opens sessions, drives one workload for a while, measures.
//!
//! All sessions are open before the clock and the proxy's CPU counter are read for the first time
//! (except in `upgrades`, where opening is the work), and both are read again after the last byte
//! has arrived where it was going. Every workload but `echo-open` is a closed loop: a session has
//! one message on its way, or, in bulk, as many as the sockets hold.

use std::net::SocketAddr;
use std::sync::{Arc, Barrier};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use tokio::task::JoinSet;

use crate::backend::runtime;
use crate::frame::Payload;
use crate::kernel::Kernel;
use crate::measured::Measured;
use crate::mixed::Laps;
use crate::open_loop::Sender;
use crate::process::{Busy, Cpu, pss_bytes};
use crate::schedule::Schedule;
use crate::session::{self, Seat, Share};
use crate::workload::{Role, Workload};

/// One run of one workload.
#[derive(clap::Args, Clone)]
pub struct Load {
    /// The proxy, or the backend itself.
    #[arg(long)]
    pub to: SocketAddr,
    /// What the sessions do.
    #[arg(long)]
    pub workload: Workload,
    /// Sessions at the same time, busy and other ones together.
    #[arg(long, default_value_t = 1)]
    pub sessions: usize,
    /// Payload bytes of a frame; in `mixed`, of the small ones.
    #[arg(long, default_value_t = 64)]
    pub size: usize,
    /// What the payload travels as; in `mixed` and to slow readers, always binary.
    #[arg(long, default_value = "binary")]
    pub payload: Payload,
    /// How long the workload runs.
    #[arg(long, default_value_t = 3.0)]
    pub seconds: f64,
    /// Threads that the sessions are dealt out to.
    #[arg(long, default_value_t = 1)]
    pub threads: usize,
    /// In `echo-open`: frames per second, all sessions together.
    #[arg(long, default_value_t = 1000.0)]
    pub rate: f64,
    /// In `crowd` and `slow-readers`: how many of the sessions echo.
    #[arg(long, default_value_t = 10)]
    pub busy: usize,
    /// In `slow-readers`: milliseconds between two reads of 1 KiB.
    #[arg(long, default_value_t = 10)]
    pub pace: u64,
    /// In `idle` and `slow-readers`: seconds of silence before the first look at memory; in `idle`,
    /// also before the second one.
    #[arg(long, default_value_t = 1.0)]
    pub settle: f64,
    /// Processes of the proxy, whose CPU time and memory are read.
    #[arg(long, value_delimiter = ',')]
    pub pids: Vec<u32>,
    /// Processes of the backend, to see whether it was the limit.
    #[arg(long, value_delimiter = ',')]
    pub backend_pids: Vec<u32>,
    /// Seconds after `seconds` at which a run that has not ended fails.
    #[arg(long, default_value_t = 20.0)]
    pub limit: f64,
}

impl Load {
    /// Runs the workload.
    pub fn run(&self) -> Result<Measured> {
        ensure!(self.sessions > 0 && self.threads > 0, "no sessions, or no threads");
        ensure!(self.rate > 0.0, "no rate");
        let costs_memory = self.workload.costs_memory();
        if costs_memory {
            // The proxy's first session pays for what all of them share.
            runtime()?.block_on(self.bounded(session::open(self, Role::Silent)))?;
            // What was closed before this run is not freed at once.
            std::thread::sleep(Duration::from_secs_f64(self.settle));
        }
        let kernel = || costs_memory.then(|| Kernel::read(self.workload == Workload::SlowReaders));
        let (pss_before, kernel_before) = (pss_bytes(&self.pids), kernel());
        // Two meetings: all sessions are open; the first readings are taken.
        let meeting = Arc::new(Barrier::new(self.threads + 1));
        let laps = Laps::new(self.sessions);
        let threads: Vec<_> = (0..self.threads)
            .map(|index| {
                let (load, meeting, laps) = (self.clone(), meeting.clone(), laps.clone());
                std::thread::spawn(move || load.run_share(index, &meeting, &laps))
            })
            .collect();
        meeting.wait();
        let (start, cpu_start) = (Instant::now(), Cpu::of(&self.pids));
        let backend_start = Busy::of(&self.backend_pids);
        meeting.wait();
        let mut total = Share::new()?;
        for thread in threads {
            total.add(thread.join().map_err(|_| anyhow!("a load thread panicked"))??)?;
        }
        let seconds = start.elapsed().as_secs_f64();
        let cpu = Cpu::of(&self.pids).since(cpu_start);
        let backend_busy = Busy::of(&self.backend_pids).busiest_since(&backend_start) / seconds;
        if self.workload == Workload::Idle {
            std::thread::sleep(Duration::from_secs_f64(self.settle));
        }
        let (pss_after, kernel_after) = (pss_bytes(&self.pids), kernel());
        self.has_kept_up(&total)?;
        let has_work = self.workload != Workload::Idle;
        let load_busy = total.busy / seconds;
        Ok(Measured {
            load: self.clone(),
            total,
            seconds,
            cpu,
            load_busy: has_work.then_some(load_busy),
            backend_busy: (has_work && !self.backend_pids.is_empty()).then_some(backend_busy),
            pss: (pss_before, pss_after),
            kernel: kernel_before.zip(kernel_after),
        })
    }

    /// One thread's sessions, from the first connect to the last byte.
    fn run_share(&self, thread: usize, meeting: &Barrier, laps: &Arc<Laps>) -> Result<Share> {
        let runtime = runtime()?;
        let opened = runtime.block_on(self.bounded(open_all(self, thread, laps)));
        meeting.wait();
        meeting.wait();
        let mut seats = opened?;
        let (start, busy_start) = (Instant::now(), Busy::of_this_thread());
        let sender = match self.workload {
            Workload::EchoOpen => Some(runtime.block_on(self.start_sender(&mut seats, start))?),
            _ => None,
        };
        let mut share = runtime.block_on(self.bounded(drive_all(self, seats, start)))?;
        share.busy = share.busy.max(Busy::of_this_thread().busiest_since(&busy_start));
        if let Some(sender) = sender {
            let (lag, busy) = sender.join()?;
            share.lag = lag;
            share.busy = share.busy.max(busy);
        }
        Ok(share)
    }

    /// Has a thread send for these seats.
    async fn start_sender(&self, seats: &mut [Seat], start: Instant) -> Result<Sender> {
        let mut writers = Vec::with_capacity(seats.len());
        for seat in seats {
            let (wire, writer) = seat.wire.take().context("no session")?.with_writer()?;
            seat.wire = Some(wire);
            writers.push((seat.index, writer));
        }
        Ok(Sender::start(self, writers, start))
    }

    /// An open loop whose answers did not come in time has no latency worth telling.
    fn has_kept_up(&self, total: &Share) -> Result<()> {
        if self.workload == Workload::EchoOpen {
            let wanted = self.schedule().frames(self.seconds);
            ensure!(
                total.round_trips == wanted,
                "overloaded: {} per second wanted, {:.0} % answered in time",
                self.rate,
                100.0 * total.round_trips as f64 / wanted as f64
            );
        }
        Ok(())
    }

    /// When frames are due in an open loop.
    pub fn schedule(&self) -> Schedule {
        Schedule { rate: self.rate, sessions: self.sessions }
    }

    /// What the backend is asked for.
    pub fn path(&self, role: Role) -> String {
        match self.payload {
            Payload::Text if role.path() != "/phases" && role != Role::ReadSlowly => {
                format!("{}/text", role.path())
            }
            _ => role.path().to_owned(),
        }
    }

    /// The pause of a slow reader.
    pub fn pace(&self) -> Duration {
        Duration::from_millis(self.pace)
    }

    async fn bounded<T>(&self, work: impl Future<Output = Result<T>>) -> Result<T> {
        let limit = Duration::from_secs_f64(self.seconds + self.limit);
        tokio::time::timeout(limit, work).await.context("the workload did not end in time")?
    }
}

/// Opens every session of a thread, at most [`OPENING_MAX`] at a time. In `upgrades` there is
/// nothing to open yet: each seat is a place to open connections from.
async fn open_all(load: &Load, thread: usize, laps: &Arc<Laps>) -> Result<Vec<Seat>> {
    let mut opening = JoinSet::new();
    let mut seats = Vec::new();
    for index in (thread..load.sessions).step_by(load.threads) {
        let role = load.workload.role(index, load.busy);
        if role == Role::Upgrade {
            seats.push(Seat { index, role, laps: laps.clone(), wire: None });
            continue;
        }
        if opening.len() == OPENING_MAX {
            seats.push(next(&mut opening).await?);
        }
        let (load, laps) = (load.clone(), laps.clone());
        opening.spawn(async move {
            let wire = session::open(&load, role).await?;
            Ok(Seat { index, role, laps, wire: Some(wire) })
        });
    }
    while !opening.is_empty() {
        seats.push(next(&mut opening).await?);
    }
    Ok(seats)
}

/// Drives all sessions at the same time, to their end.
async fn drive_all(load: &Load, seats: Vec<Seat>, start: Instant) -> Result<Share> {
    let mut driving = JoinSet::new();
    for seat in seats {
        let load = load.clone();
        driving.spawn(async move { session::drive(&load, seat, start).await });
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
