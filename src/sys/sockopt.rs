//! Socket options and questions that std and socket2 do not offer.
//!
//! <https://man7.org/linux/man-pages/man7/tcp.7.html>, <https://man7.org/linux/man-pages/man7/socket.7.html>.

use std::io;
use std::mem;
use std::os::fd::{AsRawFd, BorrowedFd};

use socket2::{Domain, SockRef};

use super::cvt;

/// Linux' SIOCOUTQNSD, which libc does not name: bytes in the send queue that were never sent.
const SIOCOUTQNSD: libc::c_ulong = 0x894B;
/// Linux' SIOCATMARK, asm-generic value.
const SIOCATMARK: libc::c_ulong = 0x8905;

/// Whether the next byte to read is the urgent byte: where splice(2) stops for ever (rule R3).
pub fn at_urgent_mark(socket: BorrowedFd<'_>) -> bool {
    ioctl_int(socket, SIOCATMARK).is_ok_and(|answer| answer != 0)
}

/// Bytes written to a TCP socket that were not sent even once; 0 for other sockets.
pub fn unsent_bytes(socket: BorrowedFd<'_>) -> usize {
    ioctl_int(socket, SIOCOUTQNSD).map_or(0, |bytes| usize::try_from(bytes).unwrap_or(0))
}

/// Bytes that a stream socket could be read of now (`SIOCINQ`); none are counted beyond an urgent byte.
pub fn unread_bytes(socket: BorrowedFd<'_>) -> Option<usize> {
    ioctl_int(socket, libc::FIONREAD).ok().and_then(|bytes| usize::try_from(bytes).ok())
}

/// Where the next `MSG_PEEK` looks: so many bytes behind the front of what is queued, `None` at the front as ever
/// (`SO_PEEK_OFF`; Unix sockets since Linux 3.4, TCP over IPv4 since 6.9, over IPv6 since 6.11).
///
/// # Errors
///
/// `EOPNOTSUPP` where the kernel is older.
pub fn set_peek_offset(socket: BorrowedFd<'_>, offset: Option<u32>) -> io::Result<()> {
    let offset: libc::c_int = offset.map_or(Ok(-1), TryInto::try_into).unwrap_or(libc::c_int::MAX);
    // SAFETY: the kernel reads an int from `offset`, which lives for the call.
    let ret = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_PEEK_OFF,
            (&raw const offset).cast(),
            mem::size_of_val(&offset) as libc::socklen_t,
        )
    };
    if ret == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Takes the pending error off the socket (`SO_ERROR`): a later read or splice will not report it again.
pub fn take_error(socket: BorrowedFd<'_>) -> Option<io::Error> {
    let mut errno: libc::c_int = 0;
    let mut len = mem::size_of_val(&errno) as libc::socklen_t;
    // SAFETY: the kernel writes at most `len` bytes to `errno`, an int of that size.
    let ret = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_ERROR,
            (&raw mut errno).cast(),
            &raw mut len,
        )
    };
    (cvt(ret as isize).is_ok() && errno != 0).then(|| io::Error::from_raw_os_error(errno))
}

/// Whether this is a Unix socket, where a hangup is also what a close in good order looks like.
pub fn is_unix(socket: BorrowedFd<'_>) -> bool {
    SockRef::from(&socket).domain().is_ok_and(|domain| domain == Domain::UNIX)
}

/// Ends the direction that we write (`SHUT_WR`).
pub fn shutdown_write(socket: BorrowedFd<'_>) -> io::Result<()> {
    SockRef::from(&socket).shutdown(std::net::Shutdown::Write)
}

/// Lets bind(2) choose an address alone, and connect(2) the port (`IP_BIND_ADDRESS_NO_PORT`, ip(7)); IPv6 sockets
/// have the same option.
pub fn bind_address_no_port(socket: BorrowedFd<'_>) -> io::Result<()> {
    let on: libc::c_int = 1;
    // SAFETY: the kernel reads one int of the length that is given.
    cvt(unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_IP,
            libc::IP_BIND_ADDRESS_NO_PORT,
            (&raw const on).cast(),
            mem::size_of_val(&on) as libc::socklen_t,
        )
    } as isize)?;
    Ok(())
}

/// Makes the coming close a reset (`SO_LINGER` 0).
pub fn reset_on_close(socket: BorrowedFd<'_>) {
    // A socket that is gone already needs no reset, so the answer does not matter.
    let _ = SockRef::from(&socket).set_linger(Some(std::time::Duration::ZERO));
}

fn ioctl_int(socket: BorrowedFd<'_>, request: libc::c_ulong) -> io::Result<libc::c_int> {
    let mut answer: libc::c_int = 0;
    // SAFETY: these requests write one int to the pointer, which outlives the call.
    cvt(unsafe { libc::ioctl(socket.as_raw_fd(), request, &raw mut answer) } as isize)?;
    Ok(answer)
}
