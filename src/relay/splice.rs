//! Engine `splice`: socket to pipe to socket, inside the kernel (rules R1–R6, R11–R13).

use std::num::NonZeroU64;

use super::advance::{Filled, Moved};
use super::kit::Kit;
use super::pool::{PIPE_BYTES_MIN, WIDE_PIPE_BYTES};
use super::way::Way;
use crate::metrics::Reason;
use crate::sys::splice::{FILL_BYTES_MAX, splice};
use crate::sys::stream::Stream;
use crate::sys::{Errno, sockopt};
use std::os::fd::AsFd;

/// So many more fills as large as a narrow pipe than smaller ones, before a wide one is asked for; and the most
/// that are counted, so that a few small fills among large ones do not matter (kernel-notes/0015).
const FULL_FILLS_FOR_WIDE: u8 = 2;
const FULL_FILLS_MAX: u8 = 16;
/// Refusals of one kind in a row that end the tries: the next fills go by copy.
const REFUSALS_MAX: u8 = 3;

/// So many bytes the next fill of this direction could take.
pub(super) fn worth_filling(way: &Way) -> u64 {
    let wide = way.full_fills >= FULL_FILLS_FOR_WIDE;
    u64::from(if wide { WIDE_PIPE_BYTES } else { PIPE_BYTES_MIN })
}

/// Moves at most `max` bytes from `source` into a pipe of the pool; keeps the pipe only while bytes are in it.
pub(super) fn fill(way: &mut Way, source: &Stream, kit: &Kit, max: u64) -> Filled {
    let wide = way.full_fills >= FULL_FILLS_FOR_WIDE;
    let pipe = match kit.pool.borrow_mut().take(wide) {
        Ok(pipe) => pipe,
        Err(reason) => return Filled::Refused(reason),
    };
    let len = usize::try_from(max).unwrap_or(FILL_BYTES_MAX).min(FILL_BYTES_MAX);
    let answer = splice(source.as_fd(), pipe.pipe.write_end(), len);
    if let Ok(bytes) = answer
        && let Some(bytes) = NonZeroU64::new(bytes as u64)
    {
        way.half.filled(bytes);
        way.full_fills = if bytes.get() >= u64::from(PIPE_BYTES_MIN) {
            (way.full_fills + 1).min(FULL_FILLS_MAX)
        } else {
            way.full_fills.saturating_sub(1)
        };
        way.pipe = Some(pipe);
        return Filled::Bytes(bytes.get());
    }
    // Nothing went in, whatever the reason: the pipe is empty and another session may have it.
    kit.pool.borrow_mut().give(pipe);
    match answer {
        // With an urgent byte at its head and an end behind it, splice says that the end has come, and
        // would lose what is between the two. The kernel is asked itself: the reactor may not have seen
        // the urgent byte yet, and no edge will come after this end.
        Ok(_) if sockopt::at_urgent_mark(source.as_fd()) => Filled::Refused(Reason::Oob),
        Ok(_) => Filled::Ended,
        Err(error) => match Errno::of(&error) {
            Errno::Interrupted => Filled::Again,
            // The pipe was empty, so it cannot have been full: the source is empty, or an urgent byte is
            // at its head, where splice would wait for ever (rules R2, R3).
            Errno::Again if source.at_urgent_mark() => Filled::Refused(Reason::Oob),
            Errno::Again => Filled::Nothing,
            errno => match reason_for(errno) {
                Some(reason) => Filled::Refused(reason),
                None => Filled::Failed(error),
            },
        },
    }
}

/// Moves what the pipe holds into `sink`: exactly that many bytes and no more (rule R4).
pub(super) fn drain(way: &mut Way, sink: &Stream, kit: &Kit, in_pipe: NonZeroU64) -> Moved {
    let pipe = way.pipe.as_ref().expect("a pipe is kept while bytes are in it");
    let len = usize::try_from(in_pipe.get()).expect("a pipe holds less than the address space");
    match splice(pipe.pipe.read_end(), sink.as_fd(), len.min(FILL_BYTES_MAX)) {
        Ok(0) => Moved::Failed(std::io::ErrorKind::WriteZero.into()),
        Ok(bytes) => {
            way.half.drained(bytes as u64);
            // Only here: a source that can be spliced says nothing about the sink.
            way.refusals = 0;
            if way.half.held() == 0 {
                let pipe = way.pipe.take().expect("a pipe is kept while bytes are in it");
                kit.pool.borrow_mut().give(pipe);
            }
            Moved::Bytes
        }
        Err(error) => match Errno::of(&error) {
            Errno::Again => Moved::Blocked,
            Errno::Interrupted => Moved::Bytes,
            errno => match reason_for(errno) {
                Some(reason) => Moved::Refused(reason),
                None => Moved::Failed(error),
            },
        },
    }
}

/// Takes what the pipe holds into memory, where copy can send it: splice was refused half way.
pub(super) fn rescue(way: &mut Way, kit: &Kit, in_pipe: NonZeroU64) -> std::io::Result<()> {
    let pipe = way.pipe.take().expect("a pipe is kept while bytes are in it");
    let len = usize::try_from(in_pipe.get()).expect("a pipe holds less than the address space");
    match pipe.pipe.read_out(len) {
        Ok(bytes) => {
            way.owed.hold(bytes);
            way.half.rescued();
            kit.pool.borrow_mut().give(pipe);
            Ok(())
        }
        Err(error) => {
            kit.pool.borrow_mut().lost();
            Err(error)
        }
    }
}

/// Whether a refusal of a fill is for good: this direction goes by copy from now on.
///
/// A shortage of pipes passes, and an urgent byte is one byte. `EINVAL` after splice has worked is what a
/// kTLS socket says of one control record, so it is believed only when it repeats (rule R11).
pub(super) fn is_final(way: &mut Way, reason: Reason, spliced_before: bool) -> bool {
    match reason {
        Reason::Emfile | Reason::SmallPipe | Reason::PipeBudget | Reason::Oob => false,
        Reason::Einval | Reason::Unsupported => {
            way.refusals = way.refusals.saturating_add(1);
            !spliced_before || way.refusals >= REFUSALS_MAX
        }
        Reason::Disabled | Reason::Enosys | Reason::Eperm => true,
    }
}

/// The reason for an errno that says "not by this call"; `None` when it speaks of the connection.
pub(super) fn reason_for(errno: Errno) -> Option<Reason> {
    match errno {
        Errno::Invalid => Some(Reason::Einval),
        Errno::NoSys => Some(Reason::Enosys),
        Errno::Denied => Some(Reason::Eperm),
        Errno::Unsupported => Some(Reason::Unsupported),
        _ => None,
    }
}
