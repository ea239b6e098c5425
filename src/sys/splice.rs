//! splice(2): moves bytes between a socket and a pipe without a visit to user memory.
//!
//! <https://man7.org/linux/man-pages/man2/splice.2.html>. Both descriptors must be `O_NONBLOCK`: for a
//! socket the flag of the call alone does not make it so (rule R1).

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr;

use super::cvt;

/// The longest fill to ask for (rule R5): since 6.8 a length past `isize::MAX` is `EINVAL`, and a relay
/// that falls back on `EINVAL` would copy for ever without a word.
pub const FILL_BYTES_MAX: usize = 1 << 30;

/// Moves at most `len` bytes; 0 is the end of `from`.
///
/// Never `SPLICE_F_MORE`: it holds short messages back for 200 ms (DATAPATH rule R1). When draining a
/// pipe, `len` must be exactly what it holds (rule R4): kernels since 6.5 cork the last batch otherwise.
pub fn splice(from: BorrowedFd<'_>, to: BorrowedFd<'_>, len: usize) -> io::Result<usize> {
    debug_assert!(len <= FILL_BYTES_MAX);
    // SAFETY: both descriptors are borrowed, so open for the time of the call; both offsets are null,
    // so the kernel reads and writes no memory of ours.
    cvt(unsafe {
        libc::splice(
            from.as_raw_fd(),
            ptr::null_mut(),
            to.as_raw_fd(),
            ptr::null_mut(),
            len,
            libc::SPLICE_F_NONBLOCK | libc::SPLICE_F_MOVE,
        )
    })
}
