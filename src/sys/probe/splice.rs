//! splice(2) from socket to pipe to socket, with the bytes compared at the end.
//!
//! <https://man7.org/linux/man-pages/man2/splice.2.html>

use std::io::{self, PipeReader, PipeWriter, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::{ptr, thread};

use serde::Serialize;

use super::why::{Ability, Why};
use super::{Host, WAIT_MAX, loopback};

/// Whether splice moves bytes, by kind of socket: the kernel has one function for each.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Splice {
    /// Between two TCP connections over loopback.
    pub tcp: Ability,
    /// Between two Unix stream socketpairs.
    pub unix: Ability,
}

/// Tries both kinds.
pub(super) fn probe(host: &Host) -> Splice {
    match (io::pipe(), io::pipe()) {
        (Ok(first), Ok(second)) => Splice { tcp: tcp(first, host), unix: unix(second, host) },
        (Err(error), _) | (_, Err(error)) => {
            let untried = Ability::Untried(Why::refused("pipe2", &error, host));
            Splice { tcp: untried.clone(), unix: untried }
        }
    }
}

fn tcp(pipe: Pipe, host: &Host) -> Ability {
    let (source, sink) = match (loopback::pair(host), loopback::pair(host)) {
        (Ok(source), Ok(sink)) => (source, sink),
        (Err(why), _) | (_, Err(why)) => return Ability::Untried(why),
    };
    Ability::from_attempt(relay(source, pipe, sink, host))
}

fn unix(pipe: Pipe, host: &Host) -> Ability {
    let pair = || -> io::Result<(UnixStream, UnixStream)> {
        let pair = UnixStream::pair()?;
        for end in [&pair.0, &pair.1] {
            end.set_read_timeout(Some(WAIT_MAX))?;
            end.set_write_timeout(Some(WAIT_MAX))?;
        }
        Ok(pair)
    };
    match (pair(), pair()) {
        (Ok(source), Ok(sink)) => Ability::from_attempt(relay(source, pipe, sink, host)),
        (Err(error), _) | (_, Err(error)) => {
            Ability::Untried(Why::refused("socketpair", &error, host))
        }
    }
}

/// Writes a message into one end of `source`, splices it from the other end through a pipe into one
/// end of `sink`, reads it from the other, compares. The sockets block up to [`WAIT_MAX`] per call.
fn relay<S: Read + Write + AsFd>(
    source: (S, S),
    (pipe_out, pipe_in): Pipe,
    sink: (S, S),
    host: &Host,
) -> Result<(), Why> {
    let (mut writer, fill_end) = source;
    let (drain_end, mut reader) = sink;
    let message: Vec<u8> = (0..MESSAGE_BYTES).map(|i| (i % 251) as u8).collect();
    writer.write_all(&message).map_err(|error| Why::refused("write", &error, host))?;

    let mut moved = 0;
    while moved < message.len() {
        let mut in_pipe = once(fill_end.as_fd(), pipe_in.as_fd(), message.len() - moved, host)?;
        while in_pipe > 0 {
            // Never more than the pipe holds: an over-long length may delay the tail by 200 ms.
            let drained = once(pipe_out.as_fd(), drain_end.as_fd(), in_pipe, host)?;
            in_pipe -= drained;
            moved += drained;
        }
    }
    let mut arrived = vec![0; message.len()];
    reader.read_exact(&mut arrived).map_err(|error| Why::refused("read", &error, host))?;
    match arrived == message {
        true => Ok(()),
        false => Err(Why::wrong(CALL, "other bytes arrived than were sent")),
    }
}

/// One splice of at most `bytes`, of which at least one moved. Interruptions are tried again, but
/// not for ever.
fn once(from: BorrowedFd, to: BorrowedFd, bytes: usize, host: &Host) -> Result<usize, Why> {
    for _ in 0..INTERRUPTIONS_MAX {
        // SAFETY: both descriptors are borrowed, hence open during the call. The offsets are null,
        // so the kernel takes no pointer from us.
        let answer = unsafe {
            libc::splice(
                from.as_raw_fd(),
                ptr::null_mut(),
                to.as_raw_fd(),
                ptr::null_mut(),
                bytes,
                0,
            )
        };
        match usize::try_from(answer) {
            Ok(0) => return Err(Why::wrong(CALL, "it reports an end that nobody sent")),
            Ok(moved) if moved > bytes => return Err(Why::wrong(CALL, "it moved too many bytes")),
            Ok(moved) => return Ok(moved),
            Err(_) => match io::Error::last_os_error() {
                error if error.kind() == io::ErrorKind::Interrupted => thread::yield_now(),
                error => return Err(Why::refused(CALL, &error, host)),
            },
        }
    }
    Err(Why::wrong(CALL, "signals kept interrupting it"))
}

/// The end to read from and the end to write to.
type Pipe = (PipeReader, PipeWriter);

const CALL: &str = "splice";

/// More than a degraded pipe of two pages holds, less than any socket buffer.
const MESSAGE_BYTES: usize = 10_000;

const INTERRUPTIONS_MAX: usize = 100;
