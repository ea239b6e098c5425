//! Sessions with as many bytes on their way as the sockets hold, and those that take few of them.

use std::time::{Duration, Instant};

use anyhow::{Result, anyhow, ensure};
use tokio::net::TcpStream;

use crate::backend::runtime;
use crate::frame::{Payload, Walker, masked};
use crate::load::Load;
use crate::process::Busy;
use crate::session::Share;
use crate::wire::{Reader, Wire, Writer};

/// What a slow reader asks the kernel to keep for it, at most; Linux doubles it.
pub const SLOW_UNREAD_MAX: u32 = 8 * 1024;

/// Bytes that a slow reader takes at a time.
const SLOW_READ: usize = 1024;
/// Payload of the frames that slow readers are sent.
const SLOW_FRAME: usize = 16 * 1024;

/// Sends frames until `end`. Returns the payload bytes that the backend says have arrived.
pub async fn send(wire: &mut Wire, load: &Load, end: Instant) -> Result<u64> {
    let sent = send_until(&mut wire.split().1, load.size, load.payload, end).await?;
    let mut answer = Vec::new();
    wire.read_frame(&mut answer).await?;
    agreed(sent, String::from_utf8(answer)?.parse()?)
}

/// Sends frames until `end`, and the question how many bytes they were. Returns how many.
async fn send_until(
    writer: &mut Writer<'_>,
    size: usize,
    payload: Payload,
    end: Instant,
) -> Result<u64> {
    let frame = masked(payload.opcode(), &vec![b'u'; size]);
    let mut sent = 0;
    while Instant::now() < end {
        writer.write(&frame).await?;
        sent += size as u64;
    }
    writer.write(&masked(payload.word(), b"how many")).await?;
    Ok(sent)
}

/// Has the backend send frames until `end`. Returns the payload bytes that arrived.
pub async fn receive(wire: &mut Wire, load: &Load, end: Instant) -> Result<u64> {
    wire.write(&order(load.size, load.payload, end)).await?;
    let (said, arrived) = receive_all(&mut wire.split().0, load.payload).await?;
    agreed(said.parse()?, arrived)
}

/// Sends and has the backend send until `end`, at the same time. Counts the payload bytes of both
/// directions. A thread of its own sends: on a connection without a proxy one thread has no time
/// left.
pub async fn both(mut wire: Wire, load: &Load, end: Instant, share: &mut Share) -> Result<()> {
    let (size, payload) = (load.size, load.payload);
    wire.write(&order(size, payload, end)).await?;
    let (mut wire, writer) = wire.with_writer()?;
    let sending = std::thread::spawn(move || {
        let busy = Busy::of_this_thread();
        let sent = runtime()?.block_on(async {
            let stream = TcpStream::from_std(writer)?;
            send_until(&mut Wire::new(stream)?.split().1, size, payload, end).await
        })?;
        anyhow::Ok((sent, Busy::of_this_thread().busiest_since(&busy)))
    });
    let (said, arrived) = receive_all(&mut wire.split().0, payload).await?;
    // The backend has answered the last thing that the thread sends.
    let (sent, busy) = sending.join().map_err(|_| anyhow!("a sending thread panicked"))??;
    let (pushed, taken) = said.split_once(' ').unwrap_or_default();
    share.bulk_bytes += agreed(sent, taken.parse()?)? + agreed(pushed.parse()?, arrived)?;
    share.busy = share.busy.max(busy);
    Ok(())
}

/// Takes [`SLOW_READ`] bytes of what the backend sends, pauses, and so on until `end`. Returns the
/// bytes taken, frame heads included.
pub async fn read_slowly(wire: &mut Wire, pace: Duration, end: Instant) -> Result<u64> {
    wire.write(&order(SLOW_FRAME, Payload::Binary, end)).await?;
    let mut reader = wire.split().0;
    let mut taken = 0;
    while Instant::now() < end {
        taken += reader.read(SLOW_READ, |bytes| bytes.len() as u64).await?;
        tokio::time::sleep(pace).await;
    }
    Ok(taken)
}

/// What has the backend push until `end`.
fn order(size: usize, payload: Payload, end: Instant) -> Vec<u8> {
    let milliseconds = end.saturating_duration_since(Instant::now()).as_millis();
    masked(payload.word(), format!("{size} {milliseconds}").as_bytes())
}

/// Reads until the backend says something. Returns that, and the payload bytes before it.
pub async fn receive_all(reader: &mut Reader<'_>, payload: Payload) -> Result<(String, u64)> {
    let mut walker = Walker::new(payload);
    loop {
        let Some(said) = reader.read(usize::MAX, |bytes| walker.walk(bytes)).await? else {
            continue;
        };
        return Ok((String::from_utf8(said)?, walker.payload_bytes));
    }
}

/// The number of bytes, on which both ends have to agree.
pub fn agreed(sent: u64, arrived: u64) -> Result<u64> {
    ensure!(arrived == sent, "{sent} bytes were sent, {arrived} arrived");
    Ok(sent)
}
