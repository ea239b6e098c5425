//! Provided buffers: memory that the kernel takes from when bytes arrive, so that a socket which is waited
//! for owns none.
//!
//! <https://man7.org/linux/man-pages/man3/io_uring_register_buf_ring.3.html>. One mapping: first the ring of
//! descriptions, then the buffers. The kernel takes a description from the head, we return one at the tail.

use std::cell::Cell;
use std::io;
use std::ptr::{self, NonNull};
use std::rc::Rc;
use std::sync::atomic::{AtomicU16, Ordering};

use io_uring::IoUring;
use io_uring::types::BufRingEntry;

/// The group under which the buffers are registered.
pub(super) const GROUP: u16 = 0;

/// The mapping, and how many buffers are ours at the moment.
#[derive(Debug)]
pub(super) struct Pool {
    base: NonNull<u8>,
    /// A power of two.
    count: u16,
    buffer_bytes: u32,
    tail: Cell<u16>,
    taken: Cell<u16>,
}

impl Pool {
    /// Maps the memory, registers it with `ring`, and provides all buffers.
    pub(super) fn register(ring: &IoUring, count: u16, buffer_bytes: u32) -> io::Result<Rc<Pool>> {
        assert!(count.is_power_of_two(), "the kernel takes powers of two only");
        // JUSTIFICATION: the ring must lie on a page boundary, and the memory must be able to outlive an
        // operation that did not end; std's allocator promises neither without unsafe.
        // SAFETY: an anonymous private mapping at an address of the kernel's choice touches no memory of ours.
        let mapped = unsafe {
            let access = libc::PROT_READ | libc::PROT_WRITE;
            let kind = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
            libc::mmap(ptr::null_mut(), mapping_bytes(count, buffer_bytes), access, kind, -1, 0)
        };
        if mapped == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let base = NonNull::new(mapped.cast::<u8>()).expect("a mapping is never at 0");
        let pool = Pool { base, count, buffer_bytes, tail: Cell::new(0), taken: Cell::new(count) };
        // SAFETY: the address is page-aligned and has room for `count` entries. It stays mapped until the ring
        // is closed or the buffers are unregistered: `Ring` keeps the pool, and leaks it if need be.
        unsafe { ring.submitter().register_buf_ring(base.as_ptr() as u64, count, GROUP)? };
        (0..count).for_each(|id| pool.provide(id));
        Ok(Rc::new(pool))
    }

    /// How many buffers the kernel has given to us and not got back.
    pub(super) fn taken(&self) -> u16 {
        self.taken.get()
    }

    /// How many there are.
    pub(super) fn count(&self) -> u16 {
        self.count
    }

    /// The token for a buffer that a completion brought, with `len` bytes in it.
    pub(super) fn buffer(self: &Rc<Pool>, id: u16, len: u32) -> Buffer {
        assert!(id < self.count, "the kernel named a buffer that it was not given");
        assert!(len <= self.buffer_bytes, "the kernel wrote past a buffer");
        self.taken.set(self.taken.get() + 1);
        Buffer { pool: Rc::clone(self), id, len }
    }

    fn provide(&self, id: u16) {
        let tail = self.tail.get();
        let entries = self.base.as_ptr().cast::<BufRingEntry>();
        // SAFETY: the mapping begins with `count` aligned entries, and this one is behind the tail: the kernel
        // does not read it before the store below. Zeroes, as it came, are a valid entry.
        let entry = unsafe { &mut *entries.add(usize::from(tail & (self.count - 1))) };
        entry.set_addr(self.address(id).as_ptr() as u64);
        entry.set_len(self.buffer_bytes);
        entry.set_bid(id);
        let tail = tail.wrapping_add(1);
        // SAFETY: `entries` is the base of the ring; the tail lies in its first entry.
        let shared = unsafe { BufRingEntry::tail(entries) }.cast_mut();
        // SAFETY: an aligned u16 in our mapping that the kernel reads and only we write.
        unsafe { AtomicU16::from_ptr(shared) }.store(tail, Ordering::Release);
        self.tail.set(tail);
        self.taken.set(self.taken.get() - 1);
    }

    fn address(&self, id: u16) -> NonNull<u8> {
        let offset = ring_bytes(self.count) + usize::from(id) * self.buffer_bytes as usize;
        // SAFETY: `id < count`, so the offset lies within the mapping.
        unsafe { self.base.add(offset) }
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        // SAFETY: this is the mapping made in `register`. Every `Buffer` and the ring hold a reference, so
        // nobody uses it; a ring that cannot be sure of the kernel leaks its reference.
        unsafe {
            let len = mapping_bytes(self.count, self.buffer_bytes);
            libc::munmap(self.base.as_ptr().cast(), len)
        };
    }
}

/// One buffer with received bytes in it, ours until this is dropped; then the kernel may fill it again.
#[derive(Debug)]
pub(super) struct Buffer {
    pool: Rc<Pool>,
    id: u16,
    len: u32,
}

impl Buffer {
    pub(super) fn bytes(&self) -> &[u8] {
        // SAFETY: the buffer is mapped as long as `pool` lives, holds `len` bytes that the kernel wrote before
        // the completion, and nobody writes to it before `provide` gives it back, on drop.
        unsafe {
            std::slice::from_raw_parts(self.pool.address(self.id).as_ptr(), self.len as usize)
        }
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        self.pool.provide(self.id);
    }
}

/// The descriptions take whole pages, so that the buffers begin on one.
fn ring_bytes(count: u16) -> usize {
    (usize::from(count) * size_of::<BufRingEntry>()).next_multiple_of(4096)
}

fn mapping_bytes(count: u16, buffer_bytes: u32) -> usize {
    ring_bytes(count) + usize::from(count) * buffer_bytes as usize
}
