//! The deadlines of one worker, and one timer descriptor that fires at the earliest.
//!
//! The descriptor is set anew only for a deadline that is earlier than what it stands at, so a worker that
//! carries messages reads no clock: deadlines are put in and taken out without a system call.
//! <https://man7.org/linux/man-pages/man2/timerfd_create.2.html>.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::future::Future;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use super::super::cvt;
use super::Reactor;

/// When, and a number that no other deadline of the clock has.
type Key = (Instant, u64);

#[derive(Debug)]
pub(super) struct Clock {
    timer: OwnedFd,
    deadlines: RefCell<BTreeMap<Key, Waker>>,
    last: Cell<u64>,
    /// What the descriptor stands at; `None` when it does not run.
    armed: Cell<Option<Instant>>,
}

impl Clock {
    pub(super) fn new() -> io::Result<Clock> {
        // SAFETY: no pointers are passed.
        let fd = cvt(unsafe {
            libc::timerfd_create(libc::CLOCK_MONOTONIC, libc::TFD_NONBLOCK | libc::TFD_CLOEXEC)
        } as isize)?;
        // SAFETY: timerfd_create returned a new descriptor that nothing else owns.
        let timer = unsafe { OwnedFd::from_raw_fd(fd as i32) };
        Ok(Clock {
            timer,
            deadlines: RefCell::default(),
            last: Cell::new(0),
            armed: Cell::new(None),
        })
    }

    pub(super) fn as_fd(&self) -> BorrowedFd<'_> {
        self.timer.as_fd()
    }

    /// Wakes everybody whose time has come; true when there was somebody.
    pub(super) fn fire(&self) -> bool {
        self.armed.set(None);
        let now = Instant::now();
        let mut due = self.deadlines.take();
        let later = due.split_off(&(now, u64::MAX));
        *self.deadlines.borrow_mut() = later;
        let next = self.deadlines.borrow().first_key_value().map(|(key, _)| key.0);
        if let Some(next) = next {
            self.arm(next, now);
        }
        let any = !due.is_empty();
        due.into_values().for_each(Waker::wake);
        any
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.deadlines.borrow().is_empty()
    }

    fn set(&self, at: Instant, waker: Waker) -> Key {
        self.last.set(self.last.get() + 1);
        let key = (at, self.last.get());
        self.deadlines.borrow_mut().insert(key, waker);
        if self.armed.get().is_none_or(|armed| at < armed) {
            self.arm(at, Instant::now());
        }
        key
    }

    fn arm(&self, at: Instant, now: Instant) {
        self.armed.set(Some(at));
        // A value of 0 would stop the timer, and it may not fire before its time.
        let left = at.saturating_duration_since(now) + Duration::from_nanos(1);
        let value = libc::timespec {
            tv_sec: libc::time_t::try_from(left.as_secs()).unwrap_or(libc::time_t::MAX),
            tv_nsec: libc::c_long::from(left.subsec_nanos().cast_signed()),
        };
        let never = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        let setting = libc::itimerspec { it_interval: never, it_value: value };
        // SAFETY: the kernel reads one itimerspec; the old one is not asked for.
        let set = cvt(unsafe {
            let fd = self.timer.as_raw_fd();
            libc::timerfd_settime(fd, 0, &raw const setting, std::ptr::null_mut())
        } as isize);
        debug_assert!(set.is_ok(), "a timer cannot be set: {set:?}");
    }
}

/// Ready at its time, or soon after it.
#[derive(Debug)]
pub struct Sleep {
    reactor: Rc<Reactor>,
    at: Instant,
    key: Option<Key>,
}

impl Sleep {
    pub(super) fn new(reactor: Rc<Reactor>, at: Instant) -> Sleep {
        Sleep { reactor, at, key: None }
    }
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        match self.key {
            None => self.key = Some(self.reactor.clock.set(self.at, cx.waker().clone())),
            Some(key) => match self.reactor.clock.deadlines.borrow_mut().get_mut(&key) {
                Some(waker) => waker.clone_from(cx.waker()),
                None => return Poll::Ready(()),
            },
        }
        Poll::Pending
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        if let Some(key) = &self.key {
            let waker = self.reactor.clock.deadlines.borrow_mut().remove(key);
            drop(waker);
        }
    }
}
