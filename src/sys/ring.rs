//! io_uring(7): one ring for many sockets, with provided buffers.
//!
//! <https://man7.org/linux/man-pages/man7/io_uring.7.html>. Linux 6.0. Completions are made whenever this
//! thread enters the kernel for any reason (`COOP_TASKRUN`). Made only when asked for (`DEFER_TASKRUN`) they
//! would be cheaper, but then the ring's descriptor does not become readable (kernel-notes/0012).
//!
//! Whatever an operation refers to is kept in its `Flight` until its last completion: the socket, so that no
//! other file can get its number, and the bytes that it sends. Provided buffers are kept by the ring.

mod chunk;
mod pool;
mod prepared;
mod watches;

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

pub use self::chunk::Chunk;
use self::pool::Pool;
pub use self::prepared::Prepared;
pub(super) use self::prepared::register;
use self::watches::Watches;
use super::reactor::{Place, Reactor, Ready};
use io_uring::{IoUring, cqueue, opcode, squeue, types};
use slab::Slab;

/// How a ring is made.
#[derive(Clone, Copy, Debug)]
pub struct Setup {
    /// Provided buffers; a power of two.
    pub buffers: u16,
    /// The size of each.
    pub buffer_bytes: u32,
    /// What one receive may take before it has to be armed anew, where the kernel can be told (6.17). The
    /// buffer that reaches it is filled all the same, so a multiple of `buffer_bytes` is exact.
    pub receive_bytes_max: u32,
}

/// A ring and its provided buffers. It belongs to the thread that made it.
pub struct Ring {
    io: IoUring,
    place: Place,
    reactor: Rc<Reactor>,
    pool: Rc<Pool>,
    flights: Slab<Flight>,
    /// Entries that the queue has no room for.
    backlog: VecDeque<squeue::Entry>,
    watches: Watches,
    /// Whether the ring waits for the watches.
    is_watching: bool,
    /// Whether a watched socket is gone that was not told of yet.
    hung_up: bool,
    /// What one receive may take; 0 where the kernel cannot be told.
    receive_bytes_max: u32,
}

/// What the kernel still refers to on behalf of one operation.
#[derive(Debug)]
struct Flight {
    owner: u64,
    /// Held, not used: the operation was given the descriptor's number.
    _socket: Rc<OwnedFd>,
    sending: Option<Chunk>,
}

/// The name of an operation that has not had its last completion.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ticket(u32);

/// One completion.
#[derive(Debug)]
pub struct Done {
    /// As it was given with the operation.
    pub owner: u64,
    /// What the system call would have returned.
    pub result: io::Result<u32>,
    /// Bytes that were received; or those that were to be sent, of which `result` went out.
    pub chunk: Option<Chunk>,
    /// Whether the operation goes on: its ticket is still good.
    pub goes_on: bool,
}

/// What a send does when the socket has no room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Patience {
    /// It ends with what went out, or `EAGAIN`.
    None,
    /// It waits until something can go out.
    UntilRoom,
}

impl Ring {
    /// A ring whose descriptor is watched by `reactor`.
    ///
    /// # Errors
    ///
    /// io_uring is refused here, the kernel is older than 6.0, or there is no descriptor or memory left.
    pub fn new(setup: Setup, reactor: &Rc<Reactor>) -> io::Result<Ring> {
        Ring::begin(Prepared::new()?, setup, reactor)
    }

    /// The same with a ring that was made before; it becomes the calling thread's.
    ///
    /// # Errors
    ///
    /// As for [`Ring::new`].
    pub fn begin(ring: Prepared, setup: Setup, reactor: &Rc<Reactor>) -> io::Result<Ring> {
        let ring = ring.enable()?;
        let pool = Pool::register(&ring, setup.buffers, setup.buffer_bytes)?;
        // SAFETY: the ring is open, and stays so for as long as it is watched.
        let place = reactor.add_readable(unsafe { BorrowedFd::borrow_raw(ring.as_raw_fd()) })?;
        let mut ring = Ring {
            io: ring,
            place,
            reactor: Rc::clone(reactor),
            pool,
            flights: Slab::new(),
            backlog: VecDeque::new(),
            watches: Watches::new()?,
            is_watching: false,
            hung_up: false,
            receive_bytes_max: 0,
        };
        if ring.can_limit()? {
            ring.receive_bytes_max = setup.receive_bytes_max;
        }
        Ok(ring)
    }

    /// Whether a receive ends by itself after so many bytes.
    pub fn is_limited(&self) -> bool {
        self.receive_bytes_max > 0
    }

    /// Operations that have not had their last completion.
    pub fn in_flight(&self) -> usize {
        self.flights.len()
    }

    /// Provided buffers that hold bytes.
    pub fn buffers_taken(&self) -> u16 {
        self.pool.taken()
    }

    /// Whether a receive would find a buffer.
    pub fn has_free_buffer(&self) -> bool {
        self.pool.taken() < self.pool.count()
    }

    /// Receives again and again, one completion for each time; ends after an error, an end, or as much as one
    /// receive may take. `ENOBUFS` says that all buffers are taken.
    pub fn receive(&mut self, socket: &Rc<OwnedFd>, owner: u64) -> Ticket {
        let mut entry = opcode::RecvMulti::new(types::Fd(socket.as_raw_fd()), pool::GROUP).build();
        if self.receive_bytes_max > 0 {
            set_limit(&mut entry, self.receive_bytes_max);
        }
        self.push(entry, Flight { owner, _socket: Rc::clone(socket), sending: None })
    }

    /// Sends what `chunk` has left, or a part of it. The chunk comes back with the completion.
    pub fn send(
        &mut self,
        socket: &Rc<OwnedFd>,
        chunk: Chunk,
        patience: Patience,
        owner: u64,
    ) -> Ticket {
        let flags = match patience {
            Patience::None => libc::MSG_NOSIGNAL | libc::MSG_DONTWAIT,
            Patience::UntilRoom => libc::MSG_NOSIGNAL,
        };
        let bytes = chunk.bytes();
        let len = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        let entry = opcode::Send::new(types::Fd(socket.as_raw_fd()), bytes.as_ptr(), len);
        let entry = entry.flags(flags).build();
        self.push(entry, Flight { owner, _socket: Rc::clone(socket), sending: Some(chunk) })
    }

    /// Lets [`Ring::take_hung_up`] say, once, when the connection is gone in both directions or has an error.
    ///
    /// # Errors
    ///
    /// There is no memory or no room in epoll.
    pub fn watch(&mut self, socket: BorrowedFd<'_>, owner: u64) -> io::Result<()> {
        self.watches.add(socket, owner)?;
        if !std::mem::replace(&mut self.is_watching, true) {
            self.wait_for_watches();
        }
        Ok(())
    }

    /// Forgets a socket that is watched, or was.
    pub fn unwatch(&mut self, socket: BorrowedFd<'_>) {
        if self.is_watching {
            self.watches.remove(socket);
        }
    }

    /// Adds the owners of watched sockets that are gone, if completions have told of any.
    pub fn take_hung_up(&mut self, owners: &mut Vec<u64>) {
        if self.hung_up {
            self.hung_up = false;
            self.watches.take(owners);
            self.wait_for_watches();
        }
    }

    /// Ends an operation. Its last completion is still to come: with what it had done, or `ECANCELED`.
    pub fn cancel(&mut self, ticket: Ticket) {
        // The number may be given to another operation before this one is looked at, but only to one that
        // is queued behind it.
        let entry = opcode::AsyncCancel::new(u64::from(ticket.0)).build().user_data(NOBODY);
        self.push_entry(&entry);
    }

    /// The next completion that has been made.
    pub fn completion(&mut self) -> Option<Done> {
        loop {
            let done = self.io.completion().next()?;
            let buffer = cqueue::buffer_select(done.flags()).map(|id| {
                let len = u32::try_from(done.result()).unwrap_or(0);
                Chunk::pooled(self.pool.buffer(id, len))
            });
            match done.user_data() {
                NOBODY => continue,
                WATCHES => {
                    self.hung_up = true;
                    continue;
                }
                _ => {}
            }
            let goes_on = cqueue::more(done.flags());
            let result = u32::try_from(done.result())
                .map_err(|_| io::Error::from_raw_os_error(-done.result()));
            let at = usize::try_from(done.user_data()).expect("it is a key of ours");
            let (owner, sent) = if goes_on {
                (self.flights[at].owner, None)
            } else {
                let flight = self.flights.remove(at);
                (flight.owner, flight.sending)
            };
            return Some(Done { owner, result, chunk: buffer.or(sent), goes_on });
        }
    }

    /// Submits what is queued.
    pub fn enter(&mut self) -> io::Result<()> {
        self.queue_backlog();
        let queued = u32::try_from(self.io.submission().len()).unwrap_or(u32::MAX);
        // SAFETY: no argument is passed. What the entries refer to is kept by their flights.
        let entered =
            unsafe { self.io.submitter().enter::<libc::sigset_t>(queued, 0, GETEVENTS, None) };
        passable(entered)
    }

    /// The same, and waits for one completion, for a while.
    pub fn enter_and_wait(&mut self, at_most: Duration) -> io::Result<()> {
        self.queue_backlog();
        let bound = types::Timespec::new().sec(at_most.as_secs()).nsec(at_most.subsec_nanos());
        let arguments = types::SubmitArgs::new().timespec(&bound);
        passable(self.io.submitter().submit_with_args(1, &arguments))
    }

    /// Whether [`Ring::enter`] has something to do: entries to submit, or completions for which there was no
    /// room.
    pub fn has_work(&mut self) -> bool {
        let queue = self.io.submission();
        !queue.is_empty() || !self.backlog.is_empty() || queue.cq_overflow()
    }

    /// Ready when there may be completions; the task is woken when there are.
    pub fn poll_due(&self, cx: &Context<'_>) -> Poll<()> {
        let due = self.reactor.ready(self.place).has(Ready::READABLE);
        self.reactor.clear(self.place, Ready::READABLE);
        self.reactor.wake_task(self.place, cx);
        if due { Poll::Ready(()) } else { Poll::Pending }
    }

    fn wait_for_watches(&mut self) {
        let readable = u32::from(libc::POLLIN.unsigned_abs());
        let entry = opcode::PollAdd::new(types::Fd(self.watches.fd()), readable).build();
        self.push_entry(&entry.user_data(WATCHES));
    }

    fn push(&mut self, entry: squeue::Entry, flight: Flight) -> Ticket {
        let key = u32::try_from(self.flights.insert(flight)).expect("fewer operations than that");
        self.push_entry(&entry.user_data(u64::from(key)));
        Ticket(key)
    }

    fn push_entry(&mut self, entry: &squeue::Entry) {
        // In order, since a cancellation must not overtake what it cancels.
        if self.backlog.is_empty() && self.queue(entry) {
            return;
        }
        self.backlog.push_back(entry.clone());
        // This makes room, as a rule. Where the kernel is short of memory it is for a later turn to try again,
        // which also finds out when the ring is broken.
        let _ = self.enter();
    }

    /// False when the queue is full.
    fn queue(&mut self, entry: &squeue::Entry) -> bool {
        // SAFETY: the socket and the bytes that the entry names are kept by its flight until its last
        // completion; provided buffers are kept by the pool. A cancellation names neither, and the watches
        // are kept by the ring.
        unsafe { self.io.submission().push(entry) }.is_ok()
    }

    fn queue_backlog(&mut self) {
        while let Some(entry) = self.backlog.pop_front() {
            if !self.queue(&entry) {
                self.backlog.push_front(entry);
                return;
            }
        }
    }

    /// Whether this kernel knows a limit for a receive: one byte is taken with a limit of one.
    fn can_limit(&mut self) -> io::Result<bool> {
        let (near, far) = std::os::unix::net::UnixStream::pair()?;
        std::io::Write::write_all(&mut &near, &[0])?;
        drop(near);
        self.receive_bytes_max = 1;
        self.receive(&Rc::new(far.into()), 0);
        self.receive_bytes_max = 0;
        let mut known = false;
        while self.in_flight() > 0 {
            self.enter_and_wait(PROBE_WAIT)?;
            while let Some(done) = self.completion() {
                // Without a limit it would go on to the end of the stream; where it is unknown it is EINVAL.
                known |= done.result.is_ok_and(|bytes| bytes == 1) && !done.goes_on;
            }
        }
        Ok(known)
    }
}

impl std::fmt::Debug for Ring {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ring").field("in_flight", &self.in_flight()).finish_non_exhaustive()
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        self.reactor.forget(self.place);
        let _ = self.enter();
        let all = types::CancelBuilder::any();
        let bound = types::Timespec::new().sec(CANCEL_WAIT.as_secs());
        if !self.flights.is_empty() {
            let _ = self.io.submitter().register_sync_cancel(Some(bound), all);
        }
        for _ in 0..CANCEL_ROUNDS {
            while self.completion().is_some() {}
            if self.flights.is_empty() {
                break;
            }
            let _ = self.enter_and_wait(CANCEL_WAIT);
        }
        if self.io.submitter().unregister_buf_ring(pool::GROUP).is_err() || !self.flights.is_empty()
        {
            // The kernel may still write to the buffers and read what is being sent.
            std::mem::forget((Rc::clone(&self.pool), std::mem::take(&mut self.flights)));
        }
    }
}

/// A call that could not be made now changes nothing: what is queued stays so.
fn passable(entered: io::Result<usize>) -> io::Result<()> {
    match entered {
        Ok(_) => Ok(()),
        // EBUSY: completions have to be taken first. ETIME: none came within the bound.
        Err(error) => match error.raw_os_error() {
            Some(libc::EINTR | libc::EBUSY | libc::EAGAIN | libc::ETIME) => Ok(()),
            _ => Err(error),
        },
    }
}

/// Sets `optlen`, which the crate does not name: the bytes after which a multishot receive ends.
fn set_limit(entry: &mut squeue::Entry, bytes: u32) {
    const OPTLEN: usize = 44;
    const { assert!(size_of::<squeue::Entry>() == 64) };
    // SAFETY: an entry is the kernel's `struct io_uring_sqe`, 64 bytes without padding or pointers that own,
    // and `optlen` is its aligned u32 at offset 44.
    unsafe { std::ptr::from_mut(entry).cast::<u8>().add(OPTLEN).cast::<u32>().write(bytes) };
}

/// `IORING_ENTER_GETEVENTS`
const GETEVENTS: u32 = 1;
/// Marks cancellations: what they cancel completes, too.
const NOBODY: u64 = u64::MAX;
/// Marks the wait for the watches.
const WATCHES: u64 = u64::MAX - 1;
/// How long the one byte of the probe may take.
const PROBE_WAIT: Duration = Duration::from_millis(100);
/// A cancelled socket operation ends at once; the bound is for kernels with defects.
const CANCEL_WAIT: Duration = Duration::from_secs(1);
const CANCEL_ROUNDS: usize = 3;

#[cfg(test)]
#[path = "ring/tests.rs"]
mod tests;
