//! epoll(7) beside a ring: which sockets are gone in both directions.
//!
//! <https://man7.org/linux/man-pages/man7/epoll.7.html>. A ring's own poll cannot be asked this of a socket
//! whose peer has ended its direction: it always answers `POLLRDHUP` as well, and so at once.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use crate::sys::cvt;

/// Sockets that are watched for `EPOLLHUP` and `EPOLLERR`, each until that comes once.
#[derive(Debug)]
pub(super) struct Watches {
    epoll: OwnedFd,
}

/// Ends that are taken at once.
const EVENTS: usize = 64;

impl Watches {
    pub(super) fn new() -> io::Result<Watches> {
        // SAFETY: the call takes a flag and no pointer.
        let fd = cvt(unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) } as isize)?;
        // SAFETY: epoll_create1 returned a new descriptor that nothing else owns.
        let epoll = unsafe { OwnedFd::from_raw_fd(fd as i32) };
        Ok(Watches { epoll })
    }

    /// Readable when a socket is gone.
    pub(super) fn fd(&self) -> i32 {
        self.epoll.as_raw_fd()
    }

    /// Watches `socket`, anew if it was watched before.
    pub(super) fn add(&self, socket: BorrowedFd<'_>, owner: u64) -> io::Result<()> {
        match self.control(libc::EPOLL_CTL_ADD, socket, owner) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                self.control(libc::EPOLL_CTL_MOD, socket, owner)
            }
            done => done,
        }
    }

    /// Forgets `socket`.
    pub(super) fn remove(&self, socket: BorrowedFd<'_>) {
        // One that is not watched needs no answer.
        let _ = self.control(libc::EPOLL_CTL_DEL, socket, 0);
    }

    /// Adds the owners of sockets that are gone.
    pub(super) fn take(&self, owners: &mut Vec<u64>) {
        let mut events = [libc::epoll_event { events: 0, u64: 0 }; EVENTS];
        loop {
            // SAFETY: the kernel writes at most `EVENTS` events to the array, which we borrow mutably.
            let found =
                cvt(unsafe { libc::epoll_wait(self.fd(), events.as_mut_ptr(), EVENTS as i32, 0) }
                    as isize);
            let found = found.unwrap_or(0);
            owners.extend(events[..found].iter().map(|event| event.u64));
            if found < EVENTS {
                return;
            }
        }
    }

    fn control(&self, command: i32, socket: BorrowedFd<'_>, owner: u64) -> io::Result<()> {
        // EPOLLHUP and EPOLLERR come unasked.
        let mut event = libc::epoll_event { events: libc::EPOLLONESHOT as u32, u64: owner };
        // SAFETY: both descriptors are open, and the kernel only reads the event.
        cvt(unsafe { libc::epoll_ctl(self.fd(), command, socket.as_raw_fd(), &raw mut event) }
            as isize)?;
        Ok(())
    }
}
