//! The worker's ring and all sessions on it, and the one task that waits for it.
//!
//! A turn takes all completions that are due, lets their sessions begin what follows, and submits all of that
//! in one call: this is where the ring gains over a call for every step.

use std::cell::RefCell;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use slab::Slab;

use super::pair::{Desk, Pair, Work, watch_of};
use crate::error::{End, Kind, Side, Stage};
use crate::metrics::{Counters, Direction};
use crate::sys::reactor::Reactor;
use crate::sys::ring::{Ring, Setup};

/// Turns in a row before the worker looks at its other tasks (rule R16).
const TURNS_PER_POLL: usize = 8;
/// Waits for what was cancelled, and the length of each: a socket's operation ends at once.
const CANCEL_WAITS: usize = 100;
const CANCEL_WAIT: Duration = Duration::from_millis(20);

/// One worker's ring with its sessions.
pub(in crate::relay) struct Hub {
    ring: RefCell<Ring>,
    pairs: RefCell<Slab<Rc<RefCell<Pair>>>>,
    /// Directions whose receive found no buffer, by session.
    starved: RefCell<Vec<(u32, Direction)>>,
    counters: Arc<Counters>,
    reactor: Rc<Reactor>,
    credit: u64,
    driver: RefCell<Option<Waker>>,
}

/// The task that waits for the ring. It ends with the hub.
struct Driver(Weak<Hub>);

impl Hub {
    /// Makes the ring, and a task of the current local runtime that drives it.
    pub fn new(
        setup: Setup,
        counters: Arc<Counters>,
        reactor: &Rc<Reactor>,
    ) -> io::Result<Rc<Hub>> {
        let hub = Rc::new(Hub {
            ring: RefCell::new(Ring::new(setup, reactor)?),
            reactor: Rc::clone(reactor),
            pairs: RefCell::default(),
            starved: RefCell::default(),
            counters,
            credit: u64::from(setup.receive_bytes_max),
            driver: RefCell::default(),
        });
        tokio::task::spawn_local(Driver(Rc::downgrade(&hub)));
        Ok(hub)
    }

    /// Begins to carry a session; its key.
    pub(super) fn seat(&self, pair: &Rc<RefCell<Pair>>) -> u32 {
        let key = self.pairs.borrow_mut().insert(Rc::clone(pair));
        let key = u32::try_from(key).expect("fewer sessions than that");
        self.with_desk(key, |desk| pair.borrow_mut().pump(desk));
        self.schedule();
        key
    }

    /// Stops carrying a session: ends all that is in flight, and takes what had been received.
    ///
    /// False when the kernel would not let go of it in time, which it never does for a socket: then the
    /// session keeps its place, so that whatever still comes finds it.
    pub(super) fn unseat(&self, key: u32, pair: &Rc<RefCell<Pair>>) -> bool {
        self.with_desk(key, |desk| pair.borrow_mut().stop(desk));
        for wait in 0..CANCEL_WAITS {
            if !pair.borrow().is_in_flight() {
                break;
            }
            let entered = match wait {
                0 => self.ring.borrow_mut().enter(),
                _ => self.ring.borrow_mut().enter_and_wait(CANCEL_WAIT),
            };
            if entered.is_err() {
                break;
            }
            self.take_completions();
        }
        // What other sessions have begun meanwhile is to be submitted.
        self.schedule();
        let free = !pair.borrow().is_in_flight();
        if free {
            self.starved.borrow_mut().retain(|&(starved, _)| starved != key);
            self.pairs.borrow_mut().remove(key as usize);
        }
        free
    }

    fn drive(&self, cx: &mut Context<'_>) -> Poll<()> {
        {
            let mut driver = self.driver.borrow_mut();
            if !driver.as_ref().is_some_and(|driver| driver.will_wake(cx.waker())) {
                *driver = Some(cx.waker().clone());
            }
        }
        for _ in 0..TURNS_PER_POLL {
            {
                let mut ring = self.ring.borrow_mut();
                let due = ring.poll_due(cx).is_ready();
                let has_work = ring.has_work();
                if !due && !has_work {
                    return Poll::Pending;
                }
                if has_work && let Err(error) = ring.enter() {
                    drop(ring);
                    self.abandon_all(&error);
                    return Poll::Ready(());
                }
            }
            self.take_completions();
            self.feed();
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Hands every completion that was made to its session.
    fn take_completions(&self) {
        let pairs = self.pairs.borrow();
        loop {
            let Some(done) = self.ring.borrow_mut().completion() else { break };
            let (key, work) = Work::of(done.owner);
            let pair = pairs.get(key as usize).expect("a session stays while it is in flight");
            self.with_desk(key, |desk| pair.borrow_mut().complete(work, done, desk));
        }
        let mut gone = Vec::new();
        self.ring.borrow_mut().take_hung_up(&mut gone);
        for (key, place) in gone.into_iter().map(watch_of) {
            if let Some(pair) = pairs.get(key as usize) {
                self.with_desk(key, |desk| pair.borrow_mut().gone(place, desk));
            }
        }
    }

    /// Arms the receives that found no buffer, if there is one now. Buffers are held only until the next send
    /// completes, which is in the same turn or the next: so this needs no timer (rule R22).
    fn feed(&self) {
        if self.starved.borrow().is_empty() || !self.ring.borrow().has_free_buffer() {
            return;
        }
        let starved = self.starved.take();
        let pairs = self.pairs.borrow();
        for (key, direction) in starved {
            if let Some(pair) = pairs.get(key as usize) {
                self.with_desk(key, |desk| pair.borrow_mut().feed(direction, desk));
            }
        }
    }

    fn abandon_all(&self, error: &io::Error) {
        for (_, pair) in self.pairs.borrow().iter() {
            let source = io::Error::from(error.kind());
            let kind = Kind::Io { call: "io_uring_enter", source };
            let end = End::new(Side::Proxy, Stage::Relay, kind);
            pair.borrow_mut().abandon(end, &self.reactor);
        }
    }

    fn with_desk(&self, key: u32, event: impl FnOnce(&mut Desk<'_>)) {
        event(&mut Desk {
            ring: &mut self.ring.borrow_mut(),
            counters: &self.counters,
            reactor: &self.reactor,
            starved: &mut self.starved.borrow_mut(),
            key,
            credit: self.credit,
        });
    }

    fn schedule(&self) {
        if let Some(driver) = &*self.driver.borrow() {
            driver.wake_by_ref();
        }
    }
}

impl std::fmt::Debug for Hub {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Hub").field("ring", &self.ring).finish_non_exhaustive()
    }
}

impl Drop for Hub {
    fn drop(&mut self) {
        // The driver ends when it is polled and the hub is gone.
        self.schedule();
    }
}

impl Future for Driver {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        match self.0.upgrade() {
            Some(hub) => hub.drive(cx),
            None => Poll::Ready(()),
        }
    }
}
