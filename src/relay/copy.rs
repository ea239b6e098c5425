//! Engine `copy`: recv and send through the worker's one buffer; the fallback and the baseline.
//!
//! Nothing stays in the buffer between two polls: what a short send leaves is held by the session, so an
//! idle session owns no buffer and any number of sessions share one that stays hot in the cache.

use std::num::NonZeroU64;

use super::advance::{Filled, Moved};
use super::kit::Kit;
use super::way::Way;
use crate::sys::Errno;
use crate::sys::stream::Stream;

/// Receives once and sends at once; what the sink does not take is owed.
pub(super) fn fill(way: &mut Way, source: &Stream, sink: &Stream, kit: &Kit) -> Filled {
    let mut buffer = kit.buffer.borrow_mut();
    let received = match source.recv(&mut buffer) {
        Ok(0) => return Filled::Ended,
        Ok(received) => received,
        Err(error) => {
            return match Errno::of(&error) {
                Errno::Again => Filled::Nothing,
                Errno::Interrupted => Filled::Again,
                _ => Filled::Failed(error),
            };
        }
    };
    let bytes = NonZeroU64::new(received as u64).expect("0 was the end");
    way.half.received(bytes);
    // What this send says beyond a count, the next flush will say again: there it is judged.
    let sent = sink.send(&buffer[..received]).unwrap_or(0);
    way.half.flushed(sent as u64);
    if sent < received {
        way.owed.hold(buffer[sent..received].to_vec());
    }
    if received < buffer.len() && !source.at_urgent_mark() {
        Filled::Last(bytes.get())
    } else {
        Filled::Bytes(bytes.get())
    }
}

/// Sends what memory holds: head data, or what a short send left.
pub(super) fn flush(way: &mut Way, sink: &Stream) -> Moved {
    match sink.send(way.owed.bytes()) {
        Ok(sent) => {
            way.half.flushed(sent as u64);
            way.owed.sent(sent);
            Moved::Bytes
        }
        Err(error) => match Errno::of(&error) {
            Errno::Again => Moved::Blocked,
            Errno::Interrupted => Moved::Bytes,
            _ => Moved::Failed(error),
        },
    }
}
