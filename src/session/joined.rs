//! A session after the 101: a task of its own, as small as it can be, since most of its life is idle.

use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use super::facts::Facts;
use super::log;
use super::registry::{Move, Moved, Order, Seat};
use super::worker::{Open, Worker};
use crate::error::{End, Kind, Side, Stage};
use crate::relay::Relay;

/// Gives the session a seat and carries it in a new task, so that nothing of the exchange stays allocated.
///
/// The seat is taken here and not in the task: whoever lists, moves or stops sessions must find it at once.
pub fn start(worker: &Rc<Worker>, facts: Box<Facts>, relay: Relay) {
    let seated = Seated::take(worker, facts, &relay);
    if relay.live().half_closed() {
        seated.half_closed();
    }
    tokio::task::spawn_local(Joined { relay: Some((relay, seated)), begun: false });
}

/// Goes on with a session that was taken out of its relay, here or in another worker.
pub fn adopt(worker: &Rc<Worker>, moved: Moved) {
    match Relay::resume(moved.detached, Rc::clone(&worker.kit)) {
        Ok(relay) => start(worker, moved.facts, relay),
        Err(source) => {
            let kind = Kind::Io { call: "epoll_ctl", source };
            log::ended(worker, &moved.facts, None, &End::new(Side::Proxy, Stage::Relay, kind));
        }
    }
}

/// What stopped the relay.
enum Stop {
    End(End),
    Move(Move),
}

/// The task of a joined session. A future written by hand: an async function would hold its arguments
/// twice, and an idle session is hardly more than this.
struct Joined {
    /// Both are taken when the session ends or moves.
    relay: Option<(Relay, Seated)>,
    /// Whether it was polled before.
    begun: bool,
}

impl Future for Joined {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let begun = std::mem::replace(&mut self.begun, true);
        let (relay, seated) = self.relay.as_mut().expect("a task is not polled after its end");
        if !begun {
            relay.wake_only(cx);
        }
        let stop = ready!(seated.poll(relay, cx));
        if let Some((relay, seated)) = self.relay.take() {
            match stop {
                Stop::Move(to) => seated.move_to(to, relay),
                Stop::End(end) => seated.end(relay, &end),
            }
        }
        Poll::Ready(())
    }
}

/// A session's place in the worker's registry, freed when this is dropped, whatever the reason.
struct Seated {
    open: Open,
    seat: Rc<Seat>,
    key: usize,
}

impl Seated {
    fn take(worker: &Rc<Worker>, facts: Box<Facts>, relay: &Relay) -> Seated {
        let seat = Seat::new(facts, Rc::clone(relay.live()));
        let key = worker.registry.seat(Rc::clone(&seat), &worker.windows(seat.route()));
        worker.counters.sessions_open.add(1);
        if worker.stopped.get() {
            seat.order(Order::End(Kind::Stopped));
        }
        Seated { open: Open::new(Rc::clone(worker)), seat, key }
    }

    fn poll(&self, relay: &mut Relay, cx: &mut Context<'_>) -> Poll<Stop> {
        self.seat.wakes(cx);
        match self.seat.take_order() {
            Some(Order::End(kind)) => {
                return Poll::Ready(Stop::End(End::new(Side::Proxy, Stage::Relay, kind)));
            }
            Some(Order::Move(to)) => return Poll::Ready(Stop::Move(to)),
            None => {}
        }
        let polled = relay.poll(cx);
        if relay.live().half_closed() {
            self.half_closed();
        }
        polled.map(Stop::End)
    }

    fn half_closed(&self) {
        let worker = self.open.worker();
        worker.registry.half_closed(self.key, &self.seat, || worker.windows(self.seat.route()));
    }

    /// Writes the session's line and closes both sockets.
    fn end(self, relay: Relay, end: &End) {
        let (open, facts) = self.leave();
        log::ended(open.worker(), &facts, Some(&relay), end);
        if let Some(closing) = relay.close(end) {
            tokio::task::spawn_local(async move {
                closing.finish().await;
                drop(open);
            });
        }
    }

    fn move_to(self, to: Move, relay: Relay) {
        let (open, facts) = self.leave();
        let worker = open.worker();
        worker.counters.detached.add(1);
        let mut detached = relay.detach();
        if let Some(engine) = to.engine {
            detached.switch(engine);
        }
        let moved = Moved { facts, detached };
        if to.worker == worker.index {
            return adopt(worker, moved);
        }
        // The other worker is gone: the session stays here.
        if let Err(moved) = (worker.hand_over)(to.worker, Box::new(moved)) {
            adopt(worker, *moved);
        }
    }

    /// Frees the seat. The connection counts as open until the first part is dropped.
    fn leave(self) -> (Open, Box<Facts>) {
        let facts = self.seat.take_facts();
        (Open::new(Rc::clone(self.open.worker())), facts)
    }
}

impl Drop for Seated {
    fn drop(&mut self) {
        let worker = self.open.worker();
        worker.registry.leave(self.key);
        worker.counters.sessions_open.sub(1);
    }
}
