//! The live sessions of one worker, and the orders they are given.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::task::{Context, Waker};
use std::time::{Duration, Instant};

use slab::Slab;
use ulid::Ulid;

use super::facts::Facts;
use super::timers::{Due, Timers};
use crate::error::Kind;
use crate::metrics::{Direction, Engine};
use crate::relay::idle::Watch;
use crate::relay::{Carried, Live};

/// What a running session is told to do.
#[derive(Debug)]
pub enum Order {
    /// End, for this reason.
    End(Kind),
    /// Stop relaying, and go on in another worker or engine.
    Move(Move),
}

/// Where a session goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Move {
    /// Index of the worker.
    pub worker: usize,
    /// The engine from there on; `None` keeps what each direction uses.
    pub engine: Option<Engine>,
}

/// One live session.
pub struct Seat {
    facts: RefCell<Option<Box<Facts>>>,
    live: Rc<Live>,
    route: u16,
    watch: Cell<Option<Watch>>,
    serial: Cell<u64>,
    watches_half_close: Cell<bool>,
    /// Boxed, since there is none for as long as a session lives, but for a moment.
    order: Cell<Option<Box<Order>>>,
    waker: RefCell<Option<Waker>>,
}

/// A session as the process shows it.
#[derive(Clone, Debug)]
pub struct SessionView {
    /// Its id, as in the log.
    pub id: String,
    /// The worker that carries it.
    pub worker: usize,
    /// Index of its route.
    pub route: usize,
    /// Counts by [`Direction`].
    pub carried: [Carried; 2],
    /// Whether one side has ended.
    pub half_closed: bool,
}

/// The live sessions of one worker.
#[derive(Debug, Default)]
pub struct Registry {
    seats: RefCell<Slab<Rc<Seat>>>,
    timers: Timers,
}

/// The two timers of a relay.
#[derive(Clone, Copy, Debug)]
pub struct Windows {
    /// Without a byte in either direction.
    pub idle: Option<Duration>,
    /// The same, after one side has ended.
    pub half_close: Option<Duration>,
}

impl std::fmt::Debug for Seat {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Seat").field("id", &self.id()).finish_non_exhaustive()
    }
}

impl Seat {
    /// A seat for a session whose relay counts into `live`.
    pub fn new(mut facts: Box<Facts>, live: Rc<Live>) -> Rc<Seat> {
        facts.pack();
        Rc::new(Seat {
            route: facts.route.expect("a joined session has a route"),
            facts: RefCell::new(Some(facts)),
            live,
            watch: Cell::new(None),
            serial: Cell::new(0),
            watches_half_close: Cell::new(false),
            order: Cell::new(None),
            waker: RefCell::new(None),
        })
    }

    /// The session's id, until its facts are taken.
    fn id(&self) -> Option<Ulid> {
        self.facts.borrow().as_ref().map(|facts| facts.id)
    }

    /// Index of the session's route.
    pub fn route(&self) -> usize {
        usize::from(self.route)
    }

    /// The order that came since the last look.
    pub fn take_order(&self) -> Option<Order> {
        self.order.take().map(|order| *order)
    }

    /// Gives an order and wakes the session. A later order replaces an earlier one that was not seen yet.
    pub fn order(&self, order: Order) {
        self.order.set(Some(Box::new(order)));
        if let Some(waker) = &*self.waker.borrow() {
            waker.wake_by_ref();
        }
    }

    /// Remembers how to wake the session.
    pub fn wakes(&self, cx: &Context<'_>) {
        let mut waker = self.waker.borrow_mut();
        if !waker.as_ref().is_some_and(|known| known.will_wake(cx.waker())) {
            *waker = Some(cx.waker().clone());
        }
    }

    /// The facts, when the session leaves its seat.
    pub fn take_facts(&self) -> Box<Facts> {
        self.facts.borrow_mut().take().expect("facts are taken once, at the end")
    }
}

impl Registry {
    /// Gives a session its seat and starts its idle timer.
    pub fn seat(&self, seat: Rc<Seat>, windows: &Windows) -> usize {
        let key = self.seats.borrow_mut().insert(Rc::clone(&seat));
        self.watch(key, &seat, windows.idle);
        key
    }

    /// One side has ended: the shorter timer counts from now on. Costs nothing when it is known already.
    pub fn half_closed(&self, key: usize, seat: &Seat, windows: impl FnOnce() -> Windows) {
        if seat.watches_half_close.replace(true) {
            return;
        }
        let windows = windows();
        let window = match (windows.half_close, windows.idle) {
            (Some(half_close), Some(idle)) => Some(half_close.min(idle)),
            (one, other) => one.or(other),
        };
        self.watch(key, seat, window);
    }

    /// Frees the seat.
    pub fn leave(&self, key: usize) {
        self.seats.borrow_mut().remove(key);
    }

    /// Live sessions.
    pub fn len(&self) -> usize {
        self.seats.borrow().len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Gives every session an order.
    pub fn order_all(&self, order: impl Fn() -> Order) {
        for (_, seat) in self.seats.borrow().iter() {
            seat.order(order());
        }
    }

    /// Gives one session an order; false when there is no such session here.
    pub fn order_one(&self, id: &str, order: Order) -> bool {
        let Ok(id) = Ulid::from_string(id) else { return false };
        let seats = self.seats.borrow();
        let found = seats.iter().find(|(_, seat)| seat.id() == Some(id));
        if let Some((_, seat)) = found {
            seat.order(order);
        }
        found.is_some()
    }

    /// All sessions, as they are now.
    pub fn view(&self, worker: usize) -> Vec<SessionView> {
        let view = |seat: &Rc<Seat>| SessionView {
            id: seat.id().map(|id| id.to_string()).unwrap_or_default(),
            worker,
            route: seat.route(),
            carried: Direction::BOTH.map(|direction| seat.live.carried(direction)),
            half_closed: seat.watches_half_close.get(),
        };
        self.seats.borrow().iter().map(|(_, seat)| view(seat)).collect()
    }

    /// Looks at each session's progress when it is due, for as long as the worker runs.
    pub async fn watch_progress(&self) {
        loop {
            let due = self.timers.next().await;
            let seat = self.seats.borrow().get(due.seat).map(Rc::clone);
            let Some(seat) = seat.filter(|seat| seat.serial.get() == due.serial) else { continue };
            let Some(mut watch) = seat.watch.get() else { continue };
            if watch.expired(seat.live.progress()) {
                let half_closed = seat.watches_half_close.get();
                seat.order(Order::End(if half_closed {
                    Kind::HalfCloseTimeout
                } else {
                    Kind::IdleTimeout
                }));
            } else {
                seat.watch.set(Some(watch));
                self.set(Due { at: Instant::now() + watch.period(), ..due });
            }
        }
    }

    fn watch(&self, key: usize, seat: &Seat, window: Option<Duration>) {
        seat.serial.set(next_serial());
        let watch = window.map(|window| Watch::new(window, seat.live.progress()));
        seat.watch.set(watch);
        if let Some(watch) = watch {
            let at = Instant::now() + watch.period();
            self.set(Due { at, seat: key, serial: seat.serial.get() });
        }
    }

    /// Adds a due time, and throws the void ones away once they are the majority: entries of sessions that
    /// ended would else pile up for as long as their windows last.
    fn set(&self, due: Due) {
        let seats = self.seats.borrow();
        if self.timers.entries() > 2 * seats.len() + VOID_ENTRIES_MAX {
            self.timers.retain(|due| {
                seats.get(due.seat).is_some_and(|seat| seat.serial.get() == due.serial)
            });
        }
        self.timers.set(due);
    }
}

/// Void entries that are not worth a look.
const VOID_ENTRIES_MAX: usize = 64;

/// A number that no other watch of this thread has: a seat may be given to another session before an
/// entry of the former one is due.
fn next_serial() -> u64 {
    thread_local!(static LAST: Cell<u64> = const { Cell::new(0) });
    LAST.with(|last| {
        last.set(last.get() + 1);
        last.get()
    })
}

/// What a session that moves takes along.
#[derive(Debug)]
pub struct Moved {
    /// Its facts.
    pub facts: Box<Facts>,
    /// Its sockets, pipes and counts.
    pub detached: crate::relay::Detached,
}
