//! The live sessions of one worker, and the orders they are given.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;
use std::task::{Context, Waker};
use std::time::{Duration, Instant};

use slab::Slab;
use ulid::Ulid;

use super::facts::Facts;
use super::load::OnTheWay;
use super::question::SessionView;
use super::timers::{Due, Timers};
use super::worker::Open;
use crate::error::Kind;
use crate::metrics::Engine;
use crate::relay::idle::Watch;
use crate::relay::{Relay, Share};
use crate::sys::reactor::Reactor;

/// What a running session is told to do.
#[derive(Debug)]
pub enum Order {
    /// End, for this reason.
    End(Kind),
    /// End in good order, for this reason: both sides are told and have their time to go.
    Leave {
        /// Why.
        kind: Kind,
        /// What an inspected session's Close says.
        code: u16,
    },
    /// Stop relaying, and go on in another worker or engine.
    Move(Move),
}

impl Order {
    /// Whether this order, not obeyed yet, stays when `later` comes.
    fn outranks(&self, later: &Order) -> bool {
        let urgency = |order: &Order| match order {
            Order::Move(_) => 0,
            Order::Leave { .. } => 1,
            Order::End(_) => 2,
        };
        urgency(self) > urgency(later)
    }
}

/// Where a session goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Move {
    /// Index of the worker.
    pub worker: usize,
    /// The engine from there on; `None` keeps what each direction uses.
    pub engine: Option<Engine>,
}

/// A session after its 101: all that it is.
pub struct Joined {
    /// Its sockets, pipes and counts.
    pub relay: Relay,
    /// What is known of its exchange.
    pub facts: Box<Facts>,
    /// Its share in the worker's count of connections.
    pub open: Open,
}

/// One live session, and what the worker around it has to know.
pub struct Seat {
    /// Taken when the session ends or moves.
    joined: RefCell<Option<Joined>>,
    route: u16,
    /// Whether it waits for its turn already.
    queued: Cell<bool>,
    /// Whether its last turn was a long one.
    heavy: Cell<bool>,
    watches_half_close: Cell<bool>,
    /// Whether it was told to leave.
    told: Cell<bool>,
    watch: Cell<Option<Watch>>,
    serial: Cell<u64>,
    /// Boxed, since there is none for as long as a session lives, but for a moment.
    order: Cell<Option<Box<Order>>>,
}

/// The live sessions of one worker.
#[derive(Debug, Default)]
pub struct Registry {
    seats: RefCell<Slab<Rc<Seat>>>,
    timers: Timers,
    /// When sessions want a turn though nothing happened to their sockets.
    alarms: Timers,
    /// Keys of the sessions that have something to do.
    queue: RefCell<Vec<usize>>,
    /// The same, of those whose turns are long: they have them one at a time, so that the others wait for one
    /// at most.
    heavy: RefCell<VecDeque<usize>>,
    /// Wakes the one who goes through the queue.
    bell: RefCell<Option<Waker>>,
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
    /// A seat for a joined session.
    pub fn new(mut joined: Joined) -> Rc<Seat> {
        joined.facts.pack();
        Rc::new(Seat {
            route: joined.facts.route.expect("a joined session has a route").index,
            queued: Cell::new(false),
            heavy: Cell::new(false),
            watches_half_close: Cell::new(false),
            told: Cell::new(joined.relay.is_leaving()),
            joined: RefCell::new(Some(joined)),
            watch: Cell::new(None),
            serial: Cell::new(0),
            order: Cell::new(None),
        })
    }

    /// Lets `look` look at the session; `None` when it has left.
    pub fn with_joined<T>(&self, look: impl FnOnce(&Joined) -> T) -> Option<T> {
        self.joined.borrow().as_ref().map(look)
    }

    /// Whether one side has ended.
    pub fn is_half_closed(&self) -> bool {
        self.watches_half_close.get()
    }

    /// Whether the session was told to leave, here or where it was before.
    pub fn is_told(&self) -> bool {
        self.told.get()
    }

    /// Notes that it is told to leave.
    pub fn tell(&self) {
        self.told.set(true);
    }

    /// The session's id, until it has left.
    pub fn id(&self) -> Option<Ulid> {
        self.joined.borrow().as_ref().map(|joined| joined.facts.id)
    }

    /// Index of the session's route.
    pub fn route(&self) -> usize {
        usize::from(self.route)
    }

    /// The order that came since the last look.
    pub fn take_order(&self) -> Option<Order> {
        self.order.take().map(|order| *order)
    }

    /// Lets `look` look at the relay, or change it; `None` when the session has left.
    pub fn with_relay<T>(&self, look: impl FnOnce(&mut Relay) -> T) -> Option<T> {
        self.joined.borrow_mut().as_mut().map(|joined| look(&mut joined.relay))
    }

    /// Takes the session for a moment, to be given back at once.
    pub fn stand_up(&self) -> Option<Joined> {
        self.joined.take()
    }

    /// Gives it back.
    pub fn sit_down(&self, joined: Joined) {
        let before = self.joined.replace(Some(joined));
        debug_assert!(before.is_none(), "two sessions on one seat");
    }

    /// What its next turn may move.
    pub fn share(&self) -> Share {
        if self.heavy.get() { Share::Alone } else { Share::AmongOthers }
    }

    /// Says how many bytes its turn has moved.
    pub fn turned(&self, bytes: u64) {
        self.heavy.set(bytes >= HEAVY_BYTES);
    }

    /// Bytes moved so far, as a number that changes with each.
    fn progress(&self) -> u64 {
        self.with_relay(|relay| relay.live().progress()).unwrap_or_default()
    }
}

impl Registry {
    /// Gives a session its seat and starts its idle timer.
    pub fn seat(&self, seat: Rc<Seat>, windows: &Windows) -> usize {
        let key = self.seats.borrow_mut().insert(Rc::clone(&seat));
        seat.with_relay(|relay| relay.attach(key));
        self.watch(key, &seat, windows.idle);
        key
    }

    /// The seat with this key.
    pub fn get(&self, key: usize) -> Option<Rc<Seat>> {
        self.seats.borrow().get(key).map(Rc::clone)
    }

    /// Lets the session have a turn, soon. Somebody else may have its seat by then: a turn does no harm.
    pub fn enqueue(&self, key: usize) {
        if let Some(seat) = self.seats.borrow().get(key)
            && !seat.queued.replace(true)
        {
            if seat.heavy.get() {
                self.heavy.borrow_mut().push_back(key);
            } else {
                self.queue.borrow_mut().push(key);
            }
        }
    }

    /// Gives each session of the queue its turn, then one of those whose turns are long. Who is put in meanwhile
    /// comes next time.
    pub fn take_turns(&self, mut turn: impl FnMut(usize, Rc<Seat>)) {
        let mut queue = self.queue.take();
        for key in queue.drain(..) {
            if let Some(seat) = self.get(key) {
                seat.queued.set(false);
                turn(key, seat);
            }
        }
        // The larger of the two keeps its memory for the next time.
        let mut next = self.queue.borrow_mut();
        if next.is_empty() {
            *next = queue;
        }
        drop(next);
        let heavy = self.heavy.borrow_mut().pop_front();
        if let Some((key, seat)) = heavy.and_then(|key| Some((key, self.get(key)?))) {
            seat.queued.set(false);
            turn(key, seat);
        }
    }

    /// Whether somebody waits for a turn.
    pub fn has_queue(&self) -> bool {
        !self.queue.borrow().is_empty() || !self.heavy.borrow().is_empty()
    }

    /// Names the task that is woken when an order is given.
    pub fn bell_for(&self, cx: &Context<'_>) {
        let mut bell = self.bell.borrow_mut();
        if !bell.as_ref().is_some_and(|known| known.will_wake(cx.waker())) {
            *bell = Some(cx.waker().clone());
        }
    }

    /// Gives an order and a turn to obey it. A later order replaces an earlier one that was not seen yet, but for
    /// one that ends the session: it was promised.
    pub fn order(&self, key: usize, order: Order) {
        if let Some(seat) = self.get(key) {
            let before = seat.order.take();
            let stays = before.as_ref().is_some_and(|before| before.outranks(&order));
            seat.order.set(if stays { before } else { Some(Box::new(order)) });
        }
        self.enqueue(key);
        self.ring_bell();
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

    /// Frees the seat, and hands back who had it.
    pub fn leave(&self, key: usize) -> Option<Joined> {
        let seat = self.seats.borrow_mut().try_remove(key);
        seat.and_then(|seat| seat.joined.take())
    }

    /// Drops all sessions: each of them keeps its worker, which keeps them.
    pub fn clear(&self) {
        let seats = std::mem::take(&mut *self.seats.borrow_mut());
        for (_, seat) in seats {
            drop(seat.joined.take());
        }
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
        let keys: Vec<usize> = self.seats.borrow().iter().map(|(key, _)| key).collect();
        for key in keys {
            self.order(key, order());
        }
    }

    /// Gives an order to those sessions that `goes` names, of `count` seats from this one on. Where to go on with
    /// the next; `None` when there are no more.
    pub fn order_some(
        &self,
        from: usize,
        count: usize,
        goes: impl Fn(&Seat) -> bool,
        order: impl Fn() -> Order,
    ) -> Option<usize> {
        let seats = self.seats.borrow();
        let to = (from + count).min(seats.capacity());
        let goes = |key: &usize| seats.get(*key).is_some_and(|seat| goes(seat));
        let keys: Vec<usize> = (from..to).filter(goes).collect();
        let is_end = to == seats.capacity();
        drop(seats);
        for key in keys {
            self.order(key, order());
        }
        (!is_end).then_some(to)
    }

    /// Gives one session an order; false when there is no such session here.
    pub fn order_one(&self, id: &str, order: Order) -> bool {
        let Ok(id) = Ulid::from_string(id) else { return false };
        let key =
            self.seats.borrow().iter().find(|(_, seat)| seat.id() == Some(id)).map(|(key, _)| key);
        if let Some(key) = key {
            self.order(key, order);
        }
        key.is_some()
    }

    /// Gives each of these orders to some session that has none yet.
    pub fn order_any(&self, orders: Vec<Order>) {
        let has_none = |seat: &Seat| {
            let order = seat.order.take();
            let none = order.is_none();
            seat.order.set(order);
            none
        };
        let free: Vec<usize> = {
            let seats = self.seats.borrow();
            let free = seats.iter().filter(|(_, seat)| has_none(seat)).map(|(key, _)| key);
            free.take(orders.len()).collect()
        };
        for (key, order) in free.into_iter().zip(orders) {
            self.order(key, order);
        }
    }

    /// All sessions, as they are now.
    pub fn view(&self, worker: usize) -> Vec<SessionView> {
        let view = |seat: &Rc<Seat>| {
            seat.with_joined(|joined| SessionView::of(worker, seat, &joined.facts, &joined.relay))
        };
        self.seats.borrow().iter().filter_map(|(_, seat)| view(seat)).collect()
    }

    /// One more than the highest seat that may be taken.
    pub fn seats(&self) -> usize {
        self.seats.borrow().capacity()
    }

    /// The session wants a turn then. Whoever has its seat by then has one more than it needs.
    pub fn alarm(&self, key: usize, at: Instant) {
        let seats = self.seats.borrow();
        if self.alarms.entries() > 2 * seats.len() + VOID_ENTRIES_MAX {
            self.alarms.retain(|due| seats.contains(due.seat));
        }
        self.alarms.set(Due { at, seat: key, serial: 0 });
    }

    /// Gives sessions the turns that they asked for, for as long as the worker runs.
    pub async fn watch_alarms(&self, reactor: &Rc<Reactor>) {
        loop {
            let due = self.alarms.next(reactor).await;
            self.enqueue(due.seat);
            self.ring_bell();
        }
    }

    fn ring_bell(&self) {
        if let Some(bell) = &*self.bell.borrow() {
            bell.wake_by_ref();
        }
    }

    /// Looks at each session's progress when it is due, for as long as the worker runs.
    pub async fn watch_progress(&self, reactor: &Rc<Reactor>) {
        loop {
            let due = self.timers.next(reactor).await;
            let Some(seat) = self.get(due.seat).filter(|seat| seat.serial.get() == due.serial)
            else {
                continue;
            };
            let Some(mut watch) = seat.watch.get() else { continue };
            if watch.expired(seat.progress()) {
                let half_closed = seat.watches_half_close.get();
                let kind = if half_closed { Kind::HalfCloseTimeout } else { Kind::IdleTimeout };
                self.order(due.seat, Order::End(kind));
            } else {
                seat.watch.set(Some(watch));
                self.set(Due { at: Instant::now() + watch.period(), ..due });
            }
        }
    }

    fn watch(&self, key: usize, seat: &Seat, window: Option<Duration>) {
        seat.serial.set(next_serial());
        let watch = window.map(|window| Watch::new(window, seat.progress()));
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

/// Whose turn moves so much has its next ones alone: that takes longer than many small ones.
const HEAVY_BYTES: u64 = Share::AmongOthers.bytes() as u64;
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
    /// Its share in the load of the worker that it goes to, unless it stays.
    pub on_the_way: Option<OnTheWay>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_end_that_was_ordered_is_not_forgotten_for_a_move() {
        let end = || Order::End(Kind::Killed);
        let leave = || Order::Leave { kind: Kind::Drained, code: 1001 };
        let moves = || Order::Move(Move { worker: 0, engine: None });
        assert!(end().outranks(&moves()) && end().outranks(&leave()) && leave().outranks(&moves()));
        for (before, later) in
            [(end(), end()), (leave(), end()), (moves(), end()), (moves(), leave())]
        {
            assert!(!before.outranks(&later), "{before:?} {later:?}");
        }
        assert!(!moves().outranks(&moves()));
    }
}
