//! What a pipe is worth: the size a fresh one gets, how far it grows, and the user's page
//! accounting.
//!
//! Over `pipe-user-pages-soft` (per user, over all processes) the kernel silently hands out pipes
//! of two pages and refuses to grow any, so the size has to be read back and the total kept below a
//! budget. <https://man7.org/linux/man-pages/man7/pipe.7.html>

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use serde::Serialize;

use super::Host;
use super::host::number;
use super::why::{Ability, Why};

/// What pipes are worth to this user, at this moment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Pipes {
    /// Whether a pipe could be made at all.
    pub create: Ability,
    /// `F_GETPIPE_SZ` of a fresh pipe; `None` without a pipe.
    pub fresh_bytes: Option<usize>,
    /// True exactly when a fresh pipe is smaller than [`PIPE_BYTES_MIN`]: the user's pages are used
    /// up.
    pub degraded: bool,
    /// Whether a pipe could be made [`PIPE_BYTES_LARGE`] large.
    pub grow: Ability,
    /// True exactly when a pipe could be made larger than `pipe-max-size`: `CAP_SYS_RESOURCE` has
    /// its effect here, and no page limit binds this process.
    pub above_max: bool,
    /// `fs.pipe-max-size`, if readable.
    pub max_bytes: Option<usize>,
    /// `fs.pipe-user-pages-soft`, if readable; 0 is no limit.
    pub user_pages_soft: Option<usize>,
    /// `fs.pipe-user-pages-hard`, if readable; 0 is no limit.
    pub user_pages_hard: Option<usize>,
    /// Bytes in a page here.
    pub page_bytes: usize,
    /// Pages that all our pipes together should not exceed: half of the user's limit, because the
    /// limit counts every process of the same user. The kernel's default stands in for limits that
    /// are off or unreadable.
    pub budget_pages: usize,
}

/// Makes a pipe, measures it and grows it.
pub(super) fn probe(host: &Host) -> Pipes {
    let user_pages_soft = number("/proc/sys/fs/pipe-user-pages-soft");
    let user_pages_hard = number("/proc/sys/fs/pipe-user-pages-hard");
    let mut found = Pipes {
        create: Ability::Yes,
        fresh_bytes: None,
        degraded: false,
        grow: Ability::Yes,
        above_max: false,
        max_bytes: number("/proc/sys/fs/pipe-max-size"),
        user_pages_soft,
        user_pages_hard,
        page_bytes: page_bytes(),
        budget_pages: budget(user_pages_soft, user_pages_hard),
    };
    let (_read_end, write_end) = match io::pipe() {
        Ok(pipe) => pipe,
        Err(error) => {
            let why = Why::refused("pipe2", &error, host);
            (found.create, found.grow) = (Ability::No(why.clone()), Ability::Untried(why));
            return found;
        }
    };
    let pipe = write_end.as_fd();
    match size(pipe) {
        Ok(bytes) => {
            found.fresh_bytes = Some(bytes);
            found.degraded = bytes < PIPE_BYTES_MIN;
        }
        Err(error) => found.create = Ability::No(Why::refused("fcntl F_GETPIPE_SZ", &error, host)),
    }
    found.grow = Ability::from_attempt(grow(pipe, host));
    found.above_max = found.max_bytes.is_some_and(|max| exceeds(pipe, max));
    found
}

/// Half of the limit that binds first.
fn budget(soft: Option<usize>, hard: Option<usize>) -> usize {
    let limits = [soft, hard].into_iter().flatten().filter(|&pages| pages > 0);
    limits.min().unwrap_or(USER_PAGES_DEFAULT) / 2
}

fn grow(pipe: BorrowedFd, host: &Host) -> Result<(), Why> {
    const CALL: &str = "fcntl F_SETPIPE_SZ";
    set_size(pipe, PIPE_BYTES_LARGE).map_err(|error| Why::refused(CALL, &error, host))?;
    match size(pipe) {
        Ok(bytes) if bytes >= PIPE_BYTES_LARGE => Ok(()),
        Ok(bytes) => Err(Why::wrong(CALL, format!("the pipe holds only {bytes} bytes after it"))),
        Err(error) => Err(Why::refused("fcntl F_GETPIPE_SZ", &error, host)),
    }
}

/// Whether `pipe` may grow beyond `max` bytes. A maximum so large that the pipe's own table would
/// cost megabytes is not tried.
fn exceeds(pipe: BorrowedFd, max: usize) -> bool {
    max <= ABOVE_MAX_BYTES_MAX && set_size(pipe, max + 1).is_ok()
}

fn size(pipe: BorrowedFd) -> io::Result<usize> {
    // SAFETY: `pipe` is borrowed, hence open during the call; F_GETPIPE_SZ takes no argument.
    let answer = unsafe { libc::fcntl(pipe.as_raw_fd(), libc::F_GETPIPE_SZ) };
    usize::try_from(answer).map_err(|_| io::Error::last_os_error())
}

fn set_size(pipe: BorrowedFd, bytes: usize) -> io::Result<()> {
    let bytes = libc::c_int::try_from(bytes).map_err(io::Error::other)?;
    // SAFETY: `pipe` is borrowed, hence open during the call; F_SETPIPE_SZ takes an int by value.
    match unsafe { libc::fcntl(pipe.as_raw_fd(), libc::F_SETPIPE_SZ, bytes) } {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}

pub(super) fn page_bytes() -> usize {
    // SAFETY: sysconf takes and returns numbers only.
    let answer = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    usize::try_from(answer).unwrap_or(4096)
}

/// A pipe below this costs more than it saves: an 8 KiB pipe was measured at 2.7 times the CPU of
/// this one.
pub const PIPE_BYTES_MIN: usize = 64 << 10;

/// The size worth having for bulk: 64 slots take a whole backlog of small messages in one call.
pub const PIPE_BYTES_LARGE: usize = 256 << 10;

/// `pipe-user-pages-soft` as the kernel sets it.
const USER_PAGES_DEFAULT: usize = 16_384;

const ABOVE_MAX_BYTES_MAX: usize = 16 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_budget_is_half_of_the_limit_that_binds() {
        for (soft, hard, pages) in [
            (Some(16_384), Some(0), 8_192),
            (Some(1_000), Some(0), 500),
            (Some(0), Some(4_000), 2_000),
            (Some(16_384), Some(4_000), 2_000),
            (Some(0), Some(0), 8_192),
            (None, None, 8_192),
        ] {
            assert_eq!(budget(soft, hard), pages, "soft {soft:?}, hard {hard:?}");
        }
    }

    #[test]
    fn a_pipe_is_measured_and_grown() {
        let pipes = probe(&Host::default());
        assert_eq!(pipes.create, Ability::Yes);
        let fresh = pipes.fresh_bytes.expect("a pipe was made");
        assert!(fresh.is_multiple_of(pipes.page_bytes), "{pipes:?}");
        assert_eq!(pipes.degraded, fresh < PIPE_BYTES_MIN);
    }
}
