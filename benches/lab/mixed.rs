//! Sessions of different kinds that share a proxy, each with the same work in every lap.
//!
//! Were every session as fast as it could be, bulk would take nearly all of the time, and the sum
//! would say little about small messages. So a lap gives every session [`UNITS_OF_A_LAP`], small
//! messages or bulk frames, and the next lap begins when all of them are done: whoever lets one
//! kind wait has to make up for it within the lap.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use anyhow::{Result, ensure};
use tokio::sync::Barrier;

use crate::bulk::{agreed, receive_all};
use crate::frame::{BINARY, Payload, TEXT, masked};
use crate::session::{Echo, Share};
use crate::wire::Wire;
use crate::workload::Kind;

/// What a session does in a lap: so many round trips, or so many bulk frames one way, or half of
/// each.
const UNITS_OF_A_LAP: usize = 64;

/// Payload bytes of a bulk frame, which is a unit like a round trip of a small message: one takes
/// about as long as the other on a connection without a proxy.
pub const BULK_FRAME: usize = 64 * 1024;

/// Where the sessions of a run wait for each other.
pub struct Laps {
    barrier: Barrier,
    over: AtomicBool,
}

impl Laps {
    /// For a run of so many sessions.
    pub fn new(sessions: usize) -> Arc<Laps> {
        Arc::new(Laps { barrier: Barrier::new(sessions), over: AtomicBool::new(false) })
    }

    /// Waits until all sessions have done their lap. Returns whether there is another one; all of
    /// them hear the same.
    async fn another(&self, end: Instant) -> bool {
        if self.barrier.wait().await.is_leader() {
            self.over.store(Instant::now() >= end, Ordering::Relaxed);
        }
        self.barrier.wait().await;
        !self.over.load(Ordering::Relaxed)
    }
}

/// Does laps until the first that ends after `end`; `size` is of small messages.
pub async fn drive(
    kind: Kind,
    wire: &mut Wire,
    size: usize,
    (laps, end): (&Laps, Instant),
    share: &mut Share,
) -> Result<()> {
    let (mut echo, bulk, mut odd) = (Echo::new(size, Payload::Binary), Bulk::new(), false);
    loop {
        odd = !odd;
        match kind {
            Kind::Small => small(&mut echo, wire, UNITS_OF_A_LAP, share).await?,
            Kind::Up => bulk.up(wire, UNITS_OF_A_LAP, share).await?,
            Kind::Down => bulk.down(wire, UNITS_OF_A_LAP, share).await?,
            Kind::Alternate => {
                small(&mut echo, wire, UNITS_OF_A_LAP / 2, share).await?;
                match odd {
                    true => bulk.up(wire, UNITS_OF_A_LAP / 2, share).await?,
                    false => bulk.down(wire, UNITS_OF_A_LAP / 2, share).await?,
                }
            }
        }
        if !laps.another(end).await {
            return Ok(());
        }
    }
}

async fn small(echo: &mut Echo, wire: &mut Wire, count: usize, share: &mut Share) -> Result<()> {
    for _ in 0..count {
        echo.timed(wire, share).await?;
    }
    Ok(())
}

/// A bulk frame to be sent.
struct Bulk {
    frame: Vec<u8>,
}

impl Bulk {
    fn new() -> Bulk {
        Bulk { frame: masked(BINARY, &vec![b'u'; BULK_FRAME]) }
    }

    /// Sends so many frames, and waits until the backend has them.
    async fn up(&self, wire: &mut Wire, count: usize, share: &mut Share) -> Result<()> {
        wire.write(&masked(TEXT, b"take")).await?;
        for _ in 0..count {
            wire.write(&self.frame).await?;
        }
        wire.write(&masked(TEXT, b"count")).await?;
        let (said, _) = receive_all(&mut wire.split().0, Payload::Binary).await?;
        share.bulk_bytes += agreed((count * BULK_FRAME) as u64, said.parse()?)?;
        Ok(())
    }

    /// Has the backend send so many frames.
    async fn down(&self, wire: &mut Wire, count: usize, share: &mut Share) -> Result<()> {
        let wanted = (count * BULK_FRAME) as u64;
        wire.write(&masked(TEXT, format!("push {BULK_FRAME} {count}").as_bytes())).await?;
        let (said, arrived) = receive_all(&mut wire.split().0, Payload::Binary).await?;
        ensure!(arrived == wanted, "{wanted} bytes were asked for, {arrived} arrived");
        share.bulk_bytes += agreed(said.parse()?, arrived)?;
        Ok(())
    }
}
