//! The kernel edge: the only module with `unsafe`, and the only one that names `libc`.
//!
//! One file per kernel interface. Nothing here knows what a session or a route is, and nothing here
//! decides: each function makes one call and says what the kernel answered.

pub mod activation;
pub mod alloc;
pub mod clock;
pub mod credentials;
pub mod net;
pub mod pipe;
pub mod probe;
pub mod random;
pub mod reactor;
pub mod ring;
pub mod sandbox;
pub mod sockopt;
pub mod splice;
pub mod stream;
pub mod thread;

use std::io;

/// Turns the `-1` of a system call into the error it set; the only place that reads `errno`.
fn cvt(ret: libc::ssize_t) -> io::Result<usize> {
    usize::try_from(ret).map_err(|_| io::Error::last_os_error())
}

/// What a failed call means to a relay, in words instead of numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Errno {
    /// `EAGAIN`: nothing can move now; readiness will say when.
    Again,
    /// `EINTR`: nothing happened; call again.
    Interrupted,
    /// `EINVAL`: this descriptor, or the record at its head, cannot be spliced.
    Invalid,
    /// `ENOSYS`: the call does not exist here.
    NoSys,
    /// `EPERM`, `EACCES`: a sandbox refused the call.
    Denied,
    /// `EBADF`, `EOPNOTSUPP`, `ENOMEM`: this call cannot do it, another may.
    Unsupported,
    /// `ECONNRESET`: the peer sent RST.
    Reset,
    /// `EPIPE`: the peer, or we, closed the direction that was written to.
    Broken,
    /// `EMFILE`, `ENFILE`: no descriptors left.
    NoDescriptors,
    /// `ENOBUFS`: all of a ring's buffers are taken.
    NoBuffers,
    /// `ECANCELED`: an operation of a ring was ended by us.
    Cancelled,
    /// Everything else, e.g. `ETIMEDOUT`, `EHOSTUNREACH`: the connection is gone.
    Other,
}

impl Errno {
    /// The word for `error`.
    pub fn of(error: &io::Error) -> Errno {
        match error.raw_os_error() {
            Some(libc::EAGAIN) => Errno::Again,
            Some(libc::EINTR) => Errno::Interrupted,
            Some(libc::EINVAL) => Errno::Invalid,
            Some(libc::ENOSYS) => Errno::NoSys,
            Some(libc::EPERM | libc::EACCES) => Errno::Denied,
            Some(libc::EBADF | libc::EOPNOTSUPP | libc::ENOMEM) => Errno::Unsupported,
            Some(libc::ECONNRESET) => Errno::Reset,
            Some(libc::EPIPE) => Errno::Broken,
            Some(libc::EMFILE | libc::ENFILE) => Errno::NoDescriptors,
            Some(libc::ENOBUFS) => Errno::NoBuffers,
            Some(libc::ECANCELED) => Errno::Cancelled,
            _ => Errno::Other,
        }
    }
}

/// Makes a write to a closed socket an `EPIPE` instead of the end of the process (rule R10).
///
/// splice(2) has no `MSG_NOSIGNAL`. Rust programs start with SIGPIPE ignored; a library in a program
/// with another `main` may not.
pub fn ignore_sigpipe() {
    // SAFETY: SIG_IGN is a valid disposition, installs no handler, and touches no memory of ours.
    unsafe {
        libc::signal(libc::SIGPIPE, libc::SIG_IGN);
    }
}
