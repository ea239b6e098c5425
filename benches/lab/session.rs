//! What one session of a workload does, from the client's side.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use crate::bulk;
use crate::frame::{Payload, masked};
use crate::latency::Latency;
use crate::load::Load;
use crate::mixed::{self, Laps};
use crate::open_loop;
use crate::wire::Wire;
use crate::workload::Role;

/// What one session, or several together, have done.
pub struct Share {
    /// Messages that went there and back; upgrades, each of which has one.
    pub round_trips: u64,
    /// Payload bytes that went one way.
    pub bulk_bytes: u64,
    /// Time of a round trip or an upgrade; empty in bulk and idle.
    pub latency: Latency,
    /// In an open loop: how late frames were sent, which is part of their latency.
    pub lag: Latency,
    /// Seconds for which the busiest thread ran.
    pub busy: f64,
    /// Sessions that stay open until the measurement is over.
    held: Vec<Wire>,
}

impl Share {
    /// Nothing yet.
    pub fn new() -> Result<Share> {
        Ok(Share {
            round_trips: 0,
            bulk_bytes: 0,
            latency: Latency::new()?,
            lag: Latency::new()?,
            busy: 0.0,
            held: Vec::new(),
        })
    }

    /// Adds what another has done.
    pub fn add(&mut self, other: Share) -> Result<()> {
        self.round_trips += other.round_trips;
        self.bulk_bytes += other.bulk_bytes;
        self.latency.add(&other.latency)?;
        self.lag.add(&other.lag)?;
        self.busy = self.busy.max(other.busy);
        self.held.extend(other.held);
        Ok(())
    }

    /// Counts a message that has come back.
    pub fn count(&mut self, time: Duration) -> Result<()> {
        self.round_trips += 1;
        self.latency.record(time)
    }

    /// Keeps a session open until the measurement is over.
    pub fn hold(&mut self, wire: Wire) {
        self.held.push(wire);
    }

    /// Sessions that are kept open.
    pub fn held(&self) -> usize {
        self.held.len()
    }
}

/// One session and its place among all sessions of the run.
pub struct Seat {
    /// Counts from 0 over all threads.
    pub index: usize,
    /// What it does.
    pub role: Role,
    /// Where all sessions of `mixed` meet.
    pub laps: Arc<Laps>,
    /// Open, except in `upgrades`, where opening is the work.
    pub wire: Option<Wire>,
}

/// Opens the session of a role; a silent one proves with one echo that its two sockets are joined.
pub async fn open(load: &Load, role: Role) -> Result<Wire> {
    // What a slow reader leaves unread shall wait in the proxy, or in front of it.
    let unread_max = (role == Role::ReadSlowly).then_some(bulk::SLOW_UNREAD_MAX);
    let mut wire =
        Wire::open(load.to, &load.path(role), unread_max).await.context("opening a session")?;
    if role == Role::Silent {
        Echo::new(load.size, load.payload).round_trip(&mut wire).await?;
    }
    Ok(wire)
}

/// Plays a session's role from `start` until the run's seconds are over.
pub async fn drive(load: &Load, seat: Seat, start: Instant) -> Result<Share> {
    let end = start + Duration::from_secs_f64(load.seconds);
    let mut share = Share::new()?;
    let Some(mut wire) = seat.wire else {
        upgrade_again_and_again(load, end, &mut share).await?;
        return Ok(share);
    };
    match seat.role {
        Role::Send => share.bulk_bytes = bulk::send(&mut wire, load, end).await?,
        Role::Receive => share.bulk_bytes = bulk::receive(&mut wire, load, end).await?,
        Role::SendAndReceive => {
            bulk::both(wire, load, end, &mut share).await?;
        }
        Role::Laps(kind) => {
            let laps = (seat.laps.as_ref(), end);
            mixed::drive(kind, &mut wire, load.size, laps, &mut share).await?;
        }
        Role::ReadSlowly => {
            share.bulk_bytes = bulk::read_slowly(&mut wire, load.pace(), end).await?;
            share.hold(wire);
        }
        Role::Silent => share.hold(wire),
        Role::EchoOnSchedule => {
            open_loop::receive(load, seat.index, &mut wire, start, &mut share).await?;
        }
        Role::Echo | Role::Upgrade => {
            let mut echo = Echo::new(load.size, load.payload);
            while Instant::now() < end {
                echo.timed(&mut wire, &mut share).await?;
            }
        }
    }
    Ok(share)
}

async fn upgrade_again_and_again(load: &Load, end: Instant, share: &mut Share) -> Result<()> {
    let mut echo = Echo::new(load.size, load.payload);
    while Instant::now() < end {
        let start = Instant::now();
        let mut wire = open(load, Role::Upgrade).await?;
        echo.round_trip(&mut wire).await?;
        share.count(start.elapsed())?;
    }
    Ok(())
}

/// A message that goes there and back.
pub struct Echo {
    payload: Vec<u8>,
    frame: Vec<u8>,
    answer: Vec<u8>,
}

impl Echo {
    /// A message of `size` payload bytes.
    pub fn new(size: usize, payload: Payload) -> Echo {
        let opcode = payload.opcode();
        let values = if payload == Payload::Text { 128 } else { 256 };
        let payload: Vec<u8> = (0..size).map(|index| (index % values) as u8).collect();
        let frame = masked(opcode, &payload);
        Echo { payload, frame, answer: Vec::new() }
    }

    /// What is to be sent.
    pub fn frame(&self) -> &[u8] {
        &self.frame
    }

    /// Sends it and waits until it is back.
    pub async fn round_trip(&mut self, wire: &mut Wire) -> Result<()> {
        wire.write(&self.frame).await?;
        self.come_back(wire).await
    }

    /// Waits until one that was sent is back.
    pub async fn come_back(&mut self, wire: &mut Wire) -> Result<()> {
        wire.read_frame(&mut self.answer).await?;
        ensure!(self.answer == self.payload, "the echo differs from what was sent");
        Ok(())
    }

    /// One round trip, counted with its time.
    pub async fn timed(&mut self, wire: &mut Wire, share: &mut Share) -> Result<()> {
        let start = Instant::now();
        self.round_trip(wire).await?;
        share.count(start.elapsed())
    }
}
