//! A connected stream socket, registered once with the worker's reactor.
//!
//! The socket's readiness is edge-triggered: "ready" means that a call is worth trying, and is cleared
//! only when a call said `EAGAIN`. One task owns a stream, so one waker per direction is enough.

use std::future::poll_fn;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::task::{Context, Poll, ready};

use socket2::SockRef;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::{Errno, cvt, sockopt};

/// A non-blocking TCP or Unix stream socket; closed on drop.
#[derive(Debug)]
pub struct Stream {
    io: AsyncFd<OwnedFd>,
}

/// Edges that wake or inform the task that owns a stream; `PRIORITY` is an urgent byte.
const INTEREST: Interest = Interest::READABLE.add(Interest::WRITABLE).add(Interest::PRIORITY);

/// What [`Stream::poll_readable`] saw.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Readable {
    /// Bytes may be there.
    Maybe,
    /// The peer ended this direction, or the connection: what is queued can still be read, then the end.
    Ended,
}

impl Stream {
    /// Registers `fd`, which must be `O_NONBLOCK`, with the reactor of the current thread's runtime.
    pub fn new(fd: OwnedFd) -> io::Result<Stream> {
        // SAFETY: `OwnedFd` always answers with the one descriptor that it owns, and it is not closed
        // before `AsyncFd` deregisters it, on drop or in `into_inner`.
        let io = unsafe { AsyncFd::register_with_interest(fd, INTEREST) }?;
        Ok(Stream { io })
    }

    /// Deregisters the socket and hands it back, open.
    pub fn into_fd(self) -> OwnedFd {
        self.io.into_inner()
    }

    /// recv(2); 0 is the end.
    pub fn recv(&self, buf: &mut [u8]) -> io::Result<usize> {
        // SAFETY: the kernel writes at most `buf.len()` bytes to `buf`, which we borrow mutably.
        cvt(unsafe {
            libc::recv(self.raw(), buf.as_mut_ptr().cast(), buf.len(), libc::MSG_DONTWAIT)
        })
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
        SockRef::from(&self.io).shutdown(std::net::Shutdown::Write)
    }

    /// Makes the coming close a reset (`SO_LINGER` 0).
    pub fn reset_on_close(&self) {
        // A socket that is gone already needs no reset, so the answer does not matter.
        let _ = SockRef::from(&self.io).set_linger(Some(std::time::Duration::ZERO));
    }

    /// Whether the next byte to read is the urgent byte (rule R3). The kernel is asked only where the reactor
    /// has seen an urgent byte, or an end, at all: most sessions never see one.
    pub fn at_urgent_mark(&self) -> bool {
        let seen = self.io.try_io(Interest::PRIORITY, |_| Ok(())).is_ok();
        seen && sockopt::at_urgent_mark(self.as_fd())
    }

    /// Whether a read is worth trying; registers the task when not.
    pub fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<io::Result<Readable>> {
        let guard = ready!(self.io.poll_read_ready(cx))?;
        let ended = guard.ready().is_read_closed();
        Poll::Ready(Ok(if ended { Readable::Ended } else { Readable::Maybe }))
    }

    /// A read said `EAGAIN`: forget the readiness that led to it.
    ///
    /// Nothing is lost between the call and this: the reactor of a current-thread runtime runs only
    /// between polls, and an edge that arrives in between is still queued in epoll.
    pub fn clear_readable(&self, cx: &mut Context<'_>) {
        if let Poll::Ready(Ok(mut guard)) = self.io.poll_read_ready(cx) {
            guard.clear_ready();
        }
    }

    /// A write said `EAGAIN`: registers the task for the next edge. True when the connection is gone in
    /// both directions (`EPOLLHUP`, `EPOLLERR`): no edge will come.
    ///
    /// Every write is tried before it waits, so readiness seen here is always stale and is cleared.
    pub fn poll_hangup(&self, cx: &mut Context<'_>) -> bool {
        loop {
            match self.io.poll_write_ready(cx) {
                Poll::Ready(Ok(guard)) if guard.ready().is_write_closed() => return true,
                Poll::Ready(Ok(mut guard)) => guard.clear_ready(),
                Poll::Ready(Err(_)) => return true,
                Poll::Pending => return false,
            }
        }
    }

    /// Waits until a started connect has come to its end, and says which.
    pub async fn connected(&self) -> io::Result<()> {
        // On a short path the answer is there already, and asking costs less than a turn of the reactor.
        if SockRef::from(&self.io).peer_addr().is_ok() {
            return Ok(());
        }
        poll_fn(|cx| self.io.poll_write_ready(cx).map_ok(drop)).await?;
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
            let readable = ready!(self.poll_readable(cx))?;
            match self.recv(buf) {
                Err(e) if Errno::of(&e) == Errno::Interrupted => {}
                Err(e) if Errno::of(&e) == Errno::Again && readable == Readable::Maybe => {
                    self.clear_readable(cx);
                }
                Ok(n) if n > 0 && n < buf.len() => {
                    self.clear_readable(cx);
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
        self.io.get_ref().as_raw_fd()
    }
}

impl AsFd for Stream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.io.get_ref().as_fd()
    }
}
