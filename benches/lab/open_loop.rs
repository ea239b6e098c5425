//! Frames on a schedule that does not wait for answers.
//!
//! A closed loop that meets a stall of 10 ms measures it once, because it sends nothing meanwhile;
//! users would have met it with every message of those 10 ms. Here every frame has a time at which
//! it is due, and its latency counts from there, whenever it was really sent. A thread of its own
//! sends: the runtime's timers are a millisecond wide.

use std::fs;
use std::io::{ErrorKind, Write};
use std::net::TcpStream as StdStream;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow};

use crate::latency::Latency;
use crate::load::Load;
use crate::process::Busy;
use crate::session::{Echo, Share};
use crate::wire::Wire;

/// Pause before another attempt to write into a full socket.
const FULL_SOCKET_PAUSE: Duration = Duration::from_micros(50);

/// When a run with such a start stops to wait for answers: a tenth of its time and a tenth of a
/// second after its end. Whoever needs longer does not keep up.
pub fn gives_up(load: &Load, start: Instant) -> Instant {
    start + Duration::from_secs_f64(load.seconds * 1.1 + 0.1)
}

/// The thread that sends for some of a run's sessions.
pub struct Sender {
    thread: JoinHandle<Result<(Latency, f64)>>,
}

impl Sender {
    /// Starts to send; `writers` are sessions by their place among all of the run's.
    pub fn start(load: &Load, writers: Vec<(usize, StdStream)>, start: Instant) -> Sender {
        let load = load.clone();
        let thread = thread::spawn(move || {
            let busy = Busy::of_this_thread();
            let lag = send(&load, writers, start)?;
            Ok((lag, Busy::of_this_thread().busiest_since(&busy)))
        });
        Sender { thread }
    }

    /// How late its frames were, and for how many seconds the thread ran.
    pub fn join(self) -> Result<(Latency, f64)> {
        self.thread.join().map_err(|_| anyhow!("the sending thread panicked"))?
    }
}

fn send(load: &Load, mut writers: Vec<(usize, StdStream)>, start: Instant) -> Result<Latency> {
    sharpen_timers();
    let (schedule, give_up) = (load.schedule(), gives_up(load, start));
    let echo = Echo::new(load.size, load.payload);
    let mut lag = Latency::new()?;
    writers.sort_by_key(|(session, _)| *session);
    for turn in 0.. {
        let mut sent = false;
        for (session, writer) in &mut writers {
            if turn >= schedule.turns(*session, load.seconds) {
                continue;
            }
            let due = start + schedule.due(*session, turn);
            wait_until(due);
            lag.record(due.elapsed())?;
            if !write_all(writer, echo.frame(), give_up)? {
                return Ok(lag);
            }
            sent = true;
        }
        if !sent {
            break;
        }
    }
    Ok(lag)
}

fn wait_until(due: Instant) {
    while let Some(rest) = due.checked_duration_since(Instant::now()).filter(|rest| !rest.is_zero())
    {
        thread::sleep(rest);
    }
}

/// Writes all of `bytes`; `false` when the socket was full until `give_up`. The sessions behind a
/// full one wait, too, but a socket that is full of small frames belongs to a run that has failed.
fn write_all(writer: &mut StdStream, mut bytes: &[u8], give_up: Instant) -> Result<bool> {
    while !bytes.is_empty() {
        match writer.write(bytes) {
            Ok(written) => bytes = &bytes[written..],
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                if Instant::now() >= give_up {
                    return Ok(false);
                }
                thread::sleep(FULL_SOCKET_PAUSE);
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(Instant::now() < give_up)
}

/// Asks the kernel to end this thread's sleeps on time; usually it may add 50 µs. Where it says no,
/// the lag that is reported is that much greater.
fn sharpen_timers() {
    let Ok(path) = fs::read_link("/proc/thread-self") else { return };
    let Some(thread) = path.file_name() else { return };
    let slack = std::path::Path::new("/proc").join(thread).join("timerslack_ns");
    let _refused = fs::write(slack, "1").is_err();
}

/// Takes a session's answers; stops early when they take too long.
pub async fn receive(
    load: &Load,
    session: usize,
    wire: &mut Wire,
    start: Instant,
    share: &mut Share,
) -> Result<()> {
    let schedule = load.schedule();
    let mut echo = Echo::new(load.size, load.payload);
    let answers = async {
        for turn in 0..schedule.turns(session, load.seconds) {
            echo.come_back(wire).await?;
            let due = start + schedule.due(session, turn);
            share.count(due.elapsed())?;
        }
        anyhow::Ok(())
    };
    let give_up = tokio::time::Instant::from_std(gives_up(load, start));
    // Whether all have come is judged by the number of them, for all sessions together.
    tokio::time::timeout_at(give_up, answers).await.unwrap_or(Ok(()))
}
