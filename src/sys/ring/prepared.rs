//! A ring that can do nothing yet, made while rings can be made: before the sandbox.
//!
//! What goes through a ring passes no filter of system calls, so the ring itself is told what it may do, once and
//! for all: receive, send, wait for an epoll, cancel. Linux 5.10;
//! <https://man7.org/linux/man-pages/man2/io_uring_register.2.html>.

use std::io;

use io_uring::register::Restriction;
use io_uring::{IoUring, opcode};

/// Entries that can be queued between two calls; more cost one call more.
const SUBMISSIONS: u32 = 256;
/// Completions that wait for us; more wait in the kernel's memory.
const COMPLETIONS: u32 = 4096;

/// `io_uring_register(2)`, by its numbers, which the crate keeps to itself.
pub(in crate::sys) mod register {
    /// `IORING_REGISTER_ENABLE_RINGS`
    pub const ENABLE_RINGS: u8 = 12;
    /// `IORING_REGISTER_PBUF_RING`
    pub const PBUF_RING: u8 = 22;
    /// `IORING_UNREGISTER_PBUF_RING`
    pub const NO_PBUF_RING: u8 = 23;
    /// `IORING_REGISTER_SYNC_CANCEL`
    pub const SYNC_CANCEL: u8 = 24;
    /// All that a [`Ring`](super::super::Ring) needs once it is made.
    pub const ALL: [u8; 4] = [ENABLE_RINGS, PBUF_RING, NO_PBUF_RING, SYNC_CANCEL];
}

/// `IOSQE_BUFFER_SELECT`: a receive takes one of the provided buffers.
const BUFFER_SELECT: u8 = 1 << 5;

/// A ring that waits for the thread that will own it.
pub struct Prepared(IoUring);

impl Prepared {
    /// Makes one.
    ///
    /// # Errors
    ///
    /// io_uring is refused here, the kernel is older than 6.0, or there is no descriptor or memory left.
    pub fn new() -> io::Result<Prepared> {
        let ring = IoUring::builder()
            .setup_single_issuer()
            .setup_coop_taskrun()
            .setup_submit_all()
            .setup_r_disabled()
            .setup_cqsize(COMPLETIONS)
            .dontfork()
            .build(SUBMISSIONS)?;
        let operations = [
            opcode::RecvMulti::CODE,
            opcode::Send::CODE,
            opcode::AsyncCancel::CODE,
            opcode::PollAdd::CODE,
        ];
        let mut allowed: Vec<Restriction> = operations.map(Restriction::sqe_op).into();
        allowed.extend(register::ALL.map(Restriction::register_op));
        allowed.push(Restriction::sqe_flags_allowed(BUFFER_SELECT));
        ring.submitter().register_restrictions(&mut allowed)?;
        Ok(Prepared(ring))
    }

    /// Makes it the calling thread's, and lets it work.
    pub(super) fn enable(self) -> io::Result<IoUring> {
        self.0.submitter().register_enable_rings()?;
        Ok(self.0)
    }
}

impl std::fmt::Debug for Prepared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Prepared")
    }
}
