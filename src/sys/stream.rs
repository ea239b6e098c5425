//! A connected stream socket, registered once with the worker's reactor.
//!
//! During the exchange one task owns a stream and waits for it; after the join a session does, which is told
//! of events by its key and asks here what they were.

use std::future::poll_fn;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use socket2::SockRef;

use super::reactor::{Place, Reactor, Ready};
use super::{Errno, cvt, sockopt};

/// A non-blocking TCP or Unix stream socket; closed on drop.
#[derive(Debug)]
pub struct Stream {
    /// There until it is handed back.
    fd: Option<OwnedFd>,
    place: Place,
    reactor: Rc<Reactor>,
}

/// What a look at a socket's readiness saw.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Readable {
    /// Bytes may be there.
    Maybe,
    /// The peer ended this direction, or the connection: what is queued can still be read, then the end.
    Ended,
}

impl Drop for Stream {
    fn drop(&mut self) {
        if self.fd.is_some() {
            self.reactor.forget(self.place);
        }
    }
}

impl Stream {
    /// Registers `fd`, which must be `O_NONBLOCK`.
    ///
    /// # Errors
    ///
    /// epoll_ctl(2): no memory, or no room in epoll.
    pub fn new(fd: OwnedFd, reactor: &Rc<Reactor>) -> io::Result<Stream> {
        let place = reactor.add(fd.as_fd())?;
        Ok(Stream { fd: Some(fd), place, reactor: Rc::clone(reactor) })
    }

    /// Deregisters the socket and hands it back, open.
    pub fn into_fd(mut self) -> OwnedFd {
        self.reactor.remove(self.place, self.as_fd());
        self.fd.take().expect("it is handed back once")
    }

    /// The reactor that watches it.
    pub fn reactor(&self) -> &Rc<Reactor> {
        &self.reactor
    }

    /// recv(2); 0 is the end.
    pub fn recv(&self, buf: &mut [u8]) -> io::Result<usize> {
        // SAFETY: the kernel writes at most `buf.len()` bytes to `buf`, which we borrow mutably.
        cvt(unsafe {
            libc::recv(self.raw(), buf.as_mut_ptr().cast(), buf.len(), libc::MSG_DONTWAIT)
        })
    }

    /// As [`recv`](Stream::recv), and leaves the bytes where they are (`MSG_PEEK`).
    pub fn peek(&self, buf: &mut [u8]) -> io::Result<usize> {
        let flags = libc::MSG_DONTWAIT | libc::MSG_PEEK;
        // SAFETY: the kernel writes at most `buf.len()` bytes to `buf`, which we borrow mutably.
        cvt(unsafe { libc::recv(self.raw(), buf.as_mut_ptr().cast(), buf.len(), flags) })
    }

    /// As [`peek`](Stream::peek), so many bytes behind the front. To be followed by
    /// [`peek_at_front`](Stream::peek_at_front) in the end.
    ///
    /// # Errors
    ///
    /// `EOPNOTSUPP`: this kernel cannot; `EAGAIN`: nothing is there yet.
    pub fn peek_behind(&self, offset: u32, buf: &mut [u8]) -> io::Result<usize> {
        sockopt::set_peek_offset(self.as_fd(), Some(offset))?;
        self.peek(buf)
    }

    /// From here on [`peek`](Stream::peek) looks at the front again.
    pub fn peek_at_front(&self) {
        // Only a kernel that has never looked elsewhere can refuse.
        let _ = sockopt::set_peek_offset(self.as_fd(), None);
    }

    /// send(2) without SIGPIPE.
    pub fn send(&self, buf: &[u8]) -> io::Result<usize> {
        // SAFETY: the kernel only reads `buf.len()` bytes of `buf`, borrowed for the call.
        cvt(unsafe {
            libc::send(
                self.raw(),
                buf.as_ptr().cast(),
                buf.len(),
                libc::MSG_NOSIGNAL | libc::MSG_DONTWAIT,
            )
        })
    }

    /// Ends the direction that we write (`SHUT_WR`).
    pub fn shutdown_write(&self) -> io::Result<()> {
        SockRef::from(self).shutdown(std::net::Shutdown::Write)
    }

    /// Makes the coming close a reset (`SO_LINGER` 0).
    pub fn reset_on_close(&self) {
        // A socket that is gone already needs no reset, so the answer does not matter.
        let _ = SockRef::from(self).set_linger(Some(std::time::Duration::ZERO));
    }

    /// Events are told to the session with this key from now on.
    pub fn attach(&self, session: usize) {
        self.reactor.wake_session(self.place, session);
    }

    /// Events are told to nobody: whoever drives the reactor looks by himself.
    pub fn attach_nobody(&self) {
        self.reactor.wake_nobody(self.place);
    }

    /// Whether the next byte to read is the urgent byte (rule R3). The kernel is asked only where the reactor
    /// has seen an urgent byte, or an end, at all: most sessions never see one.
    pub fn at_urgent_mark(&self) -> bool {
        let ready = self.reactor.ready(self.place);
        ready.has(Ready::PRIORITY.or(Ready::READ_CLOSED)) && sockopt::at_urgent_mark(self.as_fd())
    }

    /// Whether there is nothing to read now: no byte, no urgent byte. An end that was not seen yet brings an
    /// event of its own.
    pub fn has_no_bytes(&self) -> bool {
        let ready = self.reactor.ready(self.place);
        !ready.has(Ready::PRIORITY) && sockopt::unread_bytes(self.as_fd()) == Some(0)
    }

    /// Bytes that could be read now; none are counted beyond an urgent byte.
    pub fn unread_bytes(&self) -> u64 {
        sockopt::unread_bytes(self.as_fd()).unwrap_or_default() as u64
    }

    /// Whether a read is worth trying.
    pub fn readable(&self) -> Option<Readable> {
        let ready = self.reactor.ready(self.place);
        if ready.has(Ready::READ_CLOSED) {
            return Some(Readable::Ended);
        }
        ready.has(Ready::READABLE).then_some(Readable::Maybe)
    }

    /// A read said `EAGAIN`, or took all there was: forget the readiness that led to it. An end stays known.
    ///
    /// Nothing is lost between the call and this: an edge that arrives in between is still queued in epoll.
    pub fn clear_readable(&self) {
        self.reactor.clear(self.place, Ready::READABLE);
    }

    /// Whether the connection is gone in both directions (`EPOLLHUP`, `EPOLLERR`): then no edge will come for
    /// a write that said `EAGAIN`, for which else there will be one.
    ///
    /// Every write is tried before it waits, so readiness seen here is always stale and is cleared.
    pub fn hangup(&self) -> bool {
        self.reactor.clear(self.place, Ready::WRITABLE);
        self.reactor.ready(self.place).has(Ready::WRITE_CLOSED)
    }

    /// [`Stream::readable`]; the task is woken by the next event when there is nothing to read.
    pub fn poll_readable(&self, cx: &Context<'_>) -> Poll<Readable> {
        match self.readable() {
            Some(readable) => Poll::Ready(readable),
            None => {
                self.reactor.wake_task(self.place, cx);
                Poll::Pending
            }
        }
    }

    /// [`Stream::hangup`]; the task is woken by the next event when it is not.
    pub fn poll_hangup(&self, cx: &Context<'_>) -> bool {
        let gone = self.hangup();
        if !gone {
            self.reactor.wake_task(self.place, cx);
        }
        gone
    }

    /// Waits until a started connect has come to its end, and says which.
    pub async fn connected(&self) -> io::Result<()> {
        // On a short path the answer is there already, and asking costs less than a turn of the reactor.
        if SockRef::from(self).peer_addr().is_ok() {
            return Ok(());
        }
        poll_fn(|cx| {
            let ready = self.reactor.ready(self.place);
            if ready.has(Ready::WRITABLE.or(Ready::WRITE_CLOSED)) {
                return Poll::Ready(());
            }
            self.reactor.wake_task(self.place, cx);
            Poll::Pending
        })
        .await;
        sockopt::take_error(self.as_fd()).map_or(Ok(()), Err)
    }

    /// Waits for bytes, then receives once; 0 is the end.
    pub async fn receive(&self, buf: &mut [u8]) -> io::Result<usize> {
        poll_fn(|cx| self.poll_receive(cx, buf)).await
    }

    /// The poll form of [`Stream::receive`].
    ///
    /// A read that leaves room in `buf` has taken all there was: what comes later brings an edge of its own.
    pub fn poll_receive(&self, cx: &mut Context<'_>, buf: &mut [u8]) -> Poll<io::Result<usize>> {
        loop {
            let readable = ready!(self.poll_readable(cx));
            match self.recv(buf) {
                Err(e) if Errno::of(&e) == Errno::Interrupted => {}
                Err(e) if Errno::of(&e) == Errno::Again && readable == Readable::Maybe => {
                    self.clear_readable();
                }
                Ok(n) if n > 0 && n < buf.len() => {
                    self.clear_readable();
                    return Poll::Ready(Ok(n));
                }
                result => return Poll::Ready(result),
            }
        }
    }

    /// Sends all of `buf`, waiting as often as it must.
    pub async fn send_all(&self, buf: &[u8]) -> io::Result<()> {
        let mut sent = 0;
        poll_fn(|cx| {
            while sent < buf.len() {
                match self.send(&buf[sent..]) {
                    Ok(n) => sent += n,
                    Err(e) if Errno::of(&e) == Errno::Interrupted => {}
                    Err(e) if Errno::of(&e) == Errno::Again => {
                        // A hangup is not waited for: the next send says what it was.
                        if !self.poll_hangup(cx) {
                            return Poll::Pending;
                        }
                    }
                    Err(e) => return Poll::Ready(Err(e)),
                }
            }
            Poll::Ready(Ok(()))
        })
        .await
    }

    fn raw(&self) -> i32 {
        self.as_fd().as_raw_fd()
    }
}

impl From<Stream> for OwnedFd {
    fn from(stream: Stream) -> OwnedFd {
        stream.into_fd()
    }
}

impl AsFd for Stream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_ref().expect("it was not handed back").as_fd()
    }
}
