//! What one session of a workload does, from the client's side.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use hdrhistogram::Histogram;

use crate::frame::{BINARY, TEXT, Walker, masked};
use crate::load::{Load, Workload};
use crate::wire::Wire;

/// What one session, or several together, have done.
pub struct Share {
    /// Payload bytes (bulk), round trips (echo), upgrades, or sessions (idle).
    pub units: u64,
    /// Nanoseconds per round trip or upgrade; empty in bulk and idle.
    pub latency: Histogram<u64>,
    /// Sessions that stay open until the measurement is over.
    held: Vec<Wire>,
}

impl Share {
    /// Nothing yet.
    pub fn new() -> Result<Share> {
        // Two digits: 1 % is finer than any two runs agree.
        Ok(Share { units: 0, latency: Histogram::new(2)?, held: Vec::new() })
    }

    /// Adds what another has done.
    pub fn add(&mut self, other: Share) -> Result<()> {
        self.units += other.units;
        self.latency.add(&other.latency)?;
        self.held.extend(other.held);
        Ok(())
    }

    fn count(&mut self, start: Instant) -> Result<()> {
        self.units += 1;
        self.latency.record(start.elapsed().as_nanos() as u64)?;
        Ok(())
    }
}

/// Opens a session; an idle one proves with one echo that its two sockets are joined.
pub async fn open(load: &Load) -> Result<Wire> {
    let mut wire = Wire::open(load.to, load.workload.path()).await.context("opening a session")?;
    if load.workload == Workload::Idle {
        Echo::new(load.size).round_trip(&mut wire).await?;
    }
    Ok(wire)
}

/// Drives a session until `end`. It was opened before, except in `upgrades`.
pub async fn drive(load: &Load, wire: Option<Wire>, end: Instant) -> Result<Share> {
    let mut share = Share::new()?;
    let mut echo = Echo::new(load.size);
    let Some(mut wire) = wire else {
        while Instant::now() < end {
            let start = Instant::now();
            let mut wire = open(load).await?;
            echo.round_trip(&mut wire).await?;
            share.count(start)?;
        }
        return Ok(share);
    };
    match load.workload {
        Workload::BulkUp => share.units = send_bulk(&mut wire, load.size, end).await?,
        Workload::BulkDown => share.units = receive_bulk(&mut wire, load.size, end).await?,
        Workload::Idle => {
            share.units = 1;
            share.held.push(wire);
        }
        Workload::Echo | Workload::Upgrades => {
            while Instant::now() < end {
                let start = Instant::now();
                echo.round_trip(&mut wire).await?;
                share.count(start)?;
            }
        }
    }
    Ok(share)
}

/// Sends frames until `end`. Returns the payload bytes that the backend says have arrived.
async fn send_bulk(wire: &mut Wire, size: usize, end: Instant) -> Result<u64> {
    let frame = masked(BINARY, &vec![b'u'; size]);
    let mut sent = 0;
    while Instant::now() < end {
        wire.write(&frame).await?;
        sent += size as u64;
    }
    wire.write(&masked(TEXT, b"how many")).await?;
    let mut answer = Vec::new();
    wire.read_frame(&mut answer).await?;
    let arrived = String::from_utf8(answer)?.parse()?;
    ensure!(arrived == sent, "{sent} bytes were sent, {arrived} arrived");
    Ok(arrived)
}

/// Has the backend send frames until `end`. Returns the payload bytes that arrived.
async fn receive_bulk(wire: &mut Wire, size: usize, end: Instant) -> Result<u64> {
    let milliseconds =
        end.saturating_duration_since(Instant::now()).max(Duration::ZERO).as_millis();
    wire.write(&masked(TEXT, format!("{size} {milliseconds}").as_bytes())).await?;
    let mut walker = Walker::default();
    loop {
        let Some(answer) = wire.read(|bytes| walker.walk(bytes)).await? else { continue };
        let (sent, arrived): (u64, _) = (String::from_utf8(answer)?.parse()?, walker.binary_bytes);
        ensure!(arrived == sent, "{sent} bytes were sent, {arrived} arrived");
        return Ok(arrived);
    }
}

/// A message that goes there and back.
struct Echo {
    payload: Vec<u8>,
    frame: Vec<u8>,
    answer: Vec<u8>,
}

impl Echo {
    fn new(size: usize) -> Echo {
        let payload: Vec<u8> = (0..size).map(|index| index as u8).collect();
        let frame = masked(BINARY, &payload);
        Echo { payload, frame, answer: Vec::new() }
    }

    async fn round_trip(&mut self, wire: &mut Wire) -> Result<()> {
        wire.write(&self.frame).await?;
        wire.read_frame(&mut self.answer).await?;
        ensure!(self.answer == self.payload, "the echo differs from what was sent");
        Ok(())
    }
}
