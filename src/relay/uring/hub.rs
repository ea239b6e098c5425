//! The worker's ring and all sessions on it, and the one task that waits for it.
//!
//! A turn takes all completions that are due, lets their sessions begin what follows, and submits all of that
//! in one call: this is where the ring gains over a call for every step.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use slab::Slab;

use super::pair::{Desk, Pair, Work, watch_of};
use crate::error::{End, Kind, Side, Stage};
use crate::metrics::{Counters, Direction};
use crate::relay::Kit;
use crate::relay::crowd::Crowd;
use crate::sys::reactor::Reactor;
use crate::sys::ring::{Ring, Setup};

/// Turns in a row before the worker looks at its other tasks (rule R16).
const TURNS_PER_POLL: usize = 8;
/// How long to wait for what was cancelled, and how long at once: a socket's operation ends at once.
const CANCEL_TIME: Duration = Duration::from_secs(2);
const CANCEL_WAIT: Duration = Duration::from_millis(20);

/// One worker's ring with its sessions.
pub(in crate::relay) struct Hub {
    ring: RefCell<Ring>,
    pairs: RefCell<Slab<Rc<RefCell<Pair>>>>,
    /// Directions whose receive found no buffer, by session.
    starved: RefCell<Vec<(u32, Direction)>>,
    counters: Arc<Counters>,
    crowd: Rc<Crowd>,
    credit: u64,
    reactor: Rc<Reactor>,
    driver: RefCell<Option<Waker>>,
    /// Whether the ring cannot be entered any more: then it is nobody's.
    is_broken: Cell<bool>,
}

/// The task that waits for the ring. It ends with the hub.
struct Driver(Weak<Hub>);

impl Hub {
    /// Takes the ring, which was made like `setup`, and makes a task of the current local runtime that drives it.
    pub fn new(ring: Ring, setup: Setup, kit: &Kit) -> Rc<Hub> {
        let hub = Rc::new(Hub {
            ring: RefCell::new(ring),
            pairs: RefCell::default(),
            starved: RefCell::default(),
            counters: Arc::clone(&kit.counters),
            crowd: Rc::clone(&kit.crowd),
            credit: u64::from(setup.receive_bytes_max),
            reactor: Rc::clone(&kit.reactor),
            driver: RefCell::default(),
            is_broken: Cell::new(false),
        });
        tokio::task::spawn_local(Driver(Rc::downgrade(&hub)));
        hub
    }

    /// Whether its ring has failed, so that another is needed.
    pub(in crate::relay) fn is_broken(&self) -> bool {
        self.is_broken.get()
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
        // As a rule all is over when the call comes back, and no clock is needed.
        let mut entered = self.ring.borrow_mut().enter();
        self.take_completions();
        let mut until = None;
        while entered.is_ok() && pair.borrow().is_in_flight() {
            if Instant::now() >= *until.get_or_insert_with(|| Instant::now() + CANCEL_TIME) {
                break;
            }
            entered = self.ring.borrow_mut().enter_and_wait(CANCEL_WAIT);
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
            // Buffers also come back when a session leaves, and then no completion says so.
            self.feed();
            {
                let mut ring = self.ring.borrow_mut();
                let due = match ring.poll_due(cx) {
                    Poll::Ready(()) => true,
                    Poll::Pending => false,
                };
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
            if self.crowd.is_crowded() {
                self.crowd.looked();
            }
        }
        cx.waker().wake_by_ref();
        // On a busy ring each turn brings the next one.
        self.reactor.nudge();
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
        self.is_broken.set(true);
        self.crowd.close();
        for (_, pair) in self.pairs.borrow().iter() {
            let source = io::Error::from(error.kind());
            let kind = Kind::Io { call: "io_uring_enter", source };
            pair.borrow_mut().abandon(End::new(Side::Proxy, Stage::Relay, kind));
        }
    }

    fn with_desk(&self, key: u32, event: impl FnOnce(&mut Desk<'_>)) {
        event(&mut Desk {
            ring: &mut self.ring.borrow_mut(),
            counters: &self.counters,
            crowd: &self.crowd,
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
