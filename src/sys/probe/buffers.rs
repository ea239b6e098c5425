//! A ring of provided buffers with two buffers, just large enough to be tried.
//!
//! <https://man7.org/linux/man-pages/man3/io_uring_register_buf_ring.3.html>

use std::io;
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicU16, Ordering};

use io_uring::IoUring;
use io_uring::types::BufRingEntry;

use super::Host;
use super::pipes::page_bytes;
use super::why::Why;

/// The group under which the buffers are registered.
pub(super) const GROUP: u16 = 0;

/// Two pages of our own: the first is the ring of descriptions, the second holds the buffers. The
/// kernel may write to them from registration on, so they are given back only by
/// [`Buffers::unregister`], when nothing uses them any more.
pub(super) struct Buffers {
    /// Mapped, page-aligned, `2 * page` bytes.
    base: NonNull<u8>,
    page: usize,
}

impl Buffers {
    /// Maps the pages, registers them with `ring` and provides the buffers.
    pub(super) fn register(ring: &IoUring, host: &Host) -> Result<Buffers, Why> {
        let page = page_bytes();
        // JUSTIFICATION: the ring must lie on a page boundary, and the pages must be able to
        // outlive an operation that did not end; std's allocator promises neither without unsafe.
        // SAFETY: an anonymous private mapping at an address of the kernel's choice touches no
        // memory of ours.
        let mapped = unsafe {
            let access = libc::PROT_READ | libc::PROT_WRITE;
            let kind = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
            libc::mmap(ptr::null_mut(), 2 * page, access, kind, -1, 0)
        };
        let base = match NonNull::new(mapped.cast::<u8>()) {
            Some(base) if mapped != libc::MAP_FAILED => base,
            _ => return Err(Why::refused("mmap", &io::Error::last_os_error(), host)),
        };
        let buffers = Buffers { base, page };
        let address = base.as_ptr() as u64;
        // SAFETY: the address is page-aligned, has room for `COUNT` entries and stays mapped until
        // `unregister`.
        let registered = unsafe { ring.submitter().register_buf_ring(address, COUNT, GROUP) };
        if let Err(error) = registered {
            buffers.unmap();
            return Err(Why::refused("io_uring_register PBUF_RING", &error, host));
        }
        buffers.provide();
        Ok(buffers)
    }

    /// Describes both buffers and moves the tail behind them.
    fn provide(&self) {
        let entries = self.base.as_ptr().cast::<BufRingEntry>();
        let buffer_bytes = self.page / usize::from(COUNT);
        for id in 0..COUNT {
            // SAFETY: the first page has room for `COUNT` entries and is aligned for them; it came
            // zeroed, which is a valid entry, and the kernel reads none before the tail has moved
            // past it.
            let entry = unsafe { &mut *entries.add(usize::from(id)) };
            entry.set_addr(self.data().as_ptr() as u64 + u64::from(id) * buffer_bytes as u64);
            entry.set_len(u32::try_from(buffer_bytes).unwrap_or(u32::MAX));
            entry.set_bid(id);
        }
        // SAFETY: `entries` is the base of the ring and its first entry is initialised.
        let tail = unsafe { BufRingEntry::tail(entries) }.cast_mut();
        // SAFETY: the tail is an aligned u16 in our mapping that the kernel reads and only we
        // write.
        unsafe { AtomicU16::from_ptr(tail) }.store(COUNT, Ordering::Release);
    }

    /// The first byte of the first buffer: the kernel takes buffers in order.
    pub(super) fn first_byte(&self) -> u8 {
        // SAFETY: the byte is mapped; volatile because the kernel wrote it behind the compiler's
        // back.
        unsafe { self.data().as_ptr().read_volatile() }
    }

    /// Takes the buffers back. Only when no operation may use them any more.
    pub(super) fn unregister(self, ring: &IoUring) {
        match ring.submitter().unregister_buf_ring(GROUP) {
            Ok(()) => self.unmap(),
            Err(_) => self.leak(),
        }
    }

    /// Leaves the pages mapped for ever, because an operation may still write to them.
    pub(super) fn leak(self) {}

    fn data(&self) -> NonNull<u8> {
        // SAFETY: the mapping is two pages long.
        unsafe { self.base.add(self.page) }
    }

    fn unmap(self) {
        // SAFETY: this is the mapping made in `register`; the callers know that the kernel does not
        // use it, and `self` is consumed, so nor do we.
        unsafe { libc::munmap(self.base.as_ptr().cast(), 2 * self.page) };
    }
}

/// Entries and buffers; a power of two.
const COUNT: u16 = 2;
