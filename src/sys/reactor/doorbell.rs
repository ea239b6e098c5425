//! Wakes a sleeping worker from another thread.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::sync::Arc;

use super::super::cvt;

/// An eventfd(2) that a reactor answers. Its clones ring the same bell.
#[derive(Clone, Debug)]
pub struct Doorbell(Arc<OwnedFd>);

impl Doorbell {
    /// A bell that nobody answers yet: what is rung before is heard later.
    ///
    /// # Errors
    ///
    /// `EMFILE`, `ENFILE`, `ENOMEM`: eventfd(2).
    pub fn new() -> io::Result<Doorbell> {
        // SAFETY: no pointers are passed.
        let fd = cvt(unsafe { libc::eventfd(0, libc::EFD_NONBLOCK | libc::EFD_CLOEXEC) } as isize)?;
        // SAFETY: eventfd returned a new descriptor that nothing else owns.
        Ok(Doorbell(Arc::new(unsafe { OwnedFd::from_raw_fd(fd as i32) })))
    }

    /// Wakes the reactor's thread.
    pub fn ring(&self) {
        let one = 1u64.to_ne_bytes();
        // SAFETY: the kernel reads the eight bytes of `one`. A counter that is full, the only error, has rung.
        unsafe { libc::write(self.0.as_raw_fd(), one.as_ptr().cast(), one.len()) };
    }

    pub(super) fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
