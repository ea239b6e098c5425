//! A session after the 101: a seat in the registry, as small as it can be, since most of its life is idle.
//!
//! One task per worker, [`carry`], gives turns to the sessions whose sockets have events. A session has no
//! task, no waker and no registration with the runtime of its own.

use std::future::poll_fn;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::task::Poll;

use super::facts::Facts;
use super::load::{self, OnTheWay};
use super::log;
use super::registry::{Joined, Move, Moved, Order, Seat};
use super::worker::{Open, Worker};
use crate::error::{End, Kind, Side, Stage};
use crate::metrics::Engine;
use crate::relay::{Relay, Turn};

/// Events at once that promise more: the reactor is asked again before the runtime is.
const EVENTS_FOR_MORE: usize = 4;
/// Looks at the reactor in a row before the runtime has a turn: it has exchanges to serve.
const LOOKS_IN_A_ROW: u32 = 16;

/// Gives a new session a seat and its first turn.
pub fn start(worker: &Rc<Worker>, mut facts: Box<Facts>, relay: Relay) {
    if let Some(route) = facts.route_index() {
        worker.counters.route(Some(route)).begins(facts.sort());
    }
    // Not before it is counted: from here on that keeps its route in its slot.
    facts.plan = None;
    seat(worker, facts, relay);
}

fn seat(worker: &Rc<Worker>, facts: Box<Facts>, relay: Relay) {
    if let Some(route) = facts.route {
        relay.live().count_for(route.index);
    }
    let half_closed = relay.live().half_closed();
    let seat = Seat::new(Joined { relay, facts, open: Open::new(Rc::clone(worker)) });
    let key = worker.registry.seat(Rc::clone(&seat), &worker.windows(seat.route()));
    worker.counters.sessions_open.add(1);
    worker.loads.raise(worker.index, load::Kind::Session);
    if half_closed {
        worker.registry.half_closed(key, &seat, || worker.windows(seat.route()));
    }
    if worker.stopped.get() {
        worker.registry.order(key, Order::End(Kind::Stopped));
    }
    turn(worker, key, &seat);
}

/// Goes on with a session that was taken out of its relay, here or in another worker.
pub fn adopt(worker: &Rc<Worker>, moved: Moved) {
    let Moved { facts, detached, on_the_way } = moved;
    match Relay::resume(detached, Rc::clone(&worker.kit)) {
        Ok(relay) => seat(worker, facts, relay),
        Err(source) => lost(worker, &facts, source),
    }
    // Not before it is counted as open here.
    drop(on_the_way);
}

/// The reactor has no place for a session that was to go on.
fn lost(worker: &Rc<Worker>, facts: &Facts, source: std::io::Error) {
    worker.counters.route(facts.route_index()).leaves(facts.sort());
    let kind = Kind::Io { call: "epoll_ctl", source };
    log::ended(worker, facts, None, &End::new(Side::Proxy, Stage::Relay, kind));
}

/// Gives turns to the worker's sessions for as long as it runs.
pub async fn carry(worker: &Rc<Worker>) {
    let (registry, reactor) = (&worker.registry, &worker.kit.reactor);
    let mut looks = 0;
    loop {
        let collected = reactor.collect(|key| registry.enqueue(key));
        registry.take_turns(|key, seat| turn(worker, key, &seat));
        worker.kit.looked();
        if registry.has_queue() || collected.events >= EVENTS_FOR_MORE {
            looks += 1;
            // What is woken and what is left to do waits until the runtime has looked at its own.
            if collected.woke_tasks || looks == LOOKS_IN_A_ROW {
                looks = 0;
                tokio::task::yield_now().await;
            }
            continue;
        }
        looks = 0;
        // Whatever wakes this task, it looks at everything.
        let mut waits = false;
        poll_fn(|cx| {
            if std::mem::replace(&mut waits, true) {
                return Poll::Ready(());
            }
            registry.bell_for(cx);
            reactor.poll_carry(cx)
        })
        .await;
    }
}

/// One turn of one session. A panic ends this session and no other.
fn turn(worker: &Rc<Worker>, key: usize, seat: &Rc<Seat>) {
    if catch_unwind(AssertUnwindSafe(|| obey_or_move(worker, key, seat))).is_err() {
        worker.panicked.set(true);
        drop(leave_for_good(worker, key));
    }
}

fn obey_or_move(worker: &Rc<Worker>, key: usize, seat: &Rc<Seat>) {
    match seat.take_order() {
        Some(Order::End(kind)) => {
            let how = End::new(Side::Proxy, Stage::Relay, kind);
            if let Err(how) = leave_politely(seat, how) {
                return end(worker, key, how);
            }
        }
        Some(Order::Leave { kind, code }) => {
            let how = End::new(Side::Proxy, Stage::Relay, kind);
            if let Some(Err(how)) = seat.with_relay(|relay| relay.part(how, code)) {
                return part_off_the_ring(worker, key, how);
            }
        }
        Some(Order::Move(to)) => return move_to(worker, key, to),
        None => {}
    }
    let turned = seat.with_relay(|relay| {
        let before = relay.live().progress();
        let turned = relay.turn(seat.share());
        let moved = relay.live().progress().wrapping_sub(before) / 2;
        seat.turned(moved);
        worker.kit.moved(moved);
        (turned, relay.live().half_closed(), relay.take_alarm())
    });
    let Some((turned, half_closed, alarm)) = turned else { return };
    if let Some(at) = alarm {
        worker.registry.alarm(key, at);
    }
    if half_closed {
        worker.registry.half_closed(key, seat, || worker.windows(seat.route()));
    }
    match turned {
        Turn::Waiting => {}
        Turn::Spent => worker.registry.enqueue(key),
        Turn::Calls(engine) => change(worker, key, seat, engine),
        Turn::Over(how) => end(worker, key, how),
    }
}

/// Lets the engine go on that the session's traffic has called for.
fn change(worker: &Rc<Worker>, key: usize, seat: &Rc<Seat>, engine: Engine) {
    let Some(Joined { relay, facts, open }) = seat.stand_up() else { return };
    match relay.change(engine) {
        Ok(relay) => {
            relay.attach(key);
            seat.sit_down(Joined { relay, facts, open });
            worker.registry.enqueue(key);
        }
        Err(source) => {
            // Nobody sits there any more.
            let _ = worker.registry.leave(key);
            left(worker);
            lost(worker, &facts, source);
        }
    }
}

/// RFC 6455 §7.4.1: going away.
pub const GOING_AWAY: u16 = 1001;
/// As registered with IANA: the service restarts, so the client may come again.
pub const SERVICE_RESTART: u16 = 1012;

/// Lets an inspected session tell both sides that it ends, where there is time for that.
fn leave_politely(seat: &Seat, how: End) -> Result<(), End> {
    let code = match how.kind {
        Kind::IdleTimeout | Kind::HalfCloseTimeout | Kind::Killed | Kind::EndpointUnhealthy => {
            GOING_AWAY
        }
        Kind::RouteChanged => SERVICE_RESTART,
        _ => return Err(how),
    };
    seat.with_relay(|relay| relay.leave(how, code)).unwrap_or(Ok(()))
}

/// Takes a session off the ring, which ends it at once or not at all, and lets it end in good order.
fn part_off_the_ring(worker: &Rc<Worker>, key: usize, how: End) {
    let Some(Joined { relay, facts, open }) = leave(worker, key) else { return };
    worker.counters.detached.add(1);
    let mut detached = relay.detach();
    detached.switch(Engine::Copy);
    detached.part(how);
    adopt(worker, Moved { facts, detached, on_the_way: None });
    drop(open);
}

/// Writes the session's line and closes both sockets.
fn end(worker: &Rc<Worker>, key: usize, end: End) {
    let Some(Joined { mut relay, facts, open }) = leave_for_good(worker, key) else { return };
    let end = relay.reported(end);
    log::ended(worker, &facts, Some(&relay), &end);
    if let Some(closing) = relay.close(&end) {
        tokio::task::spawn_local(async move {
            closing.finish(&open.worker().kit.reactor).await;
            drop(open);
        });
    }
}

fn move_to(worker: &Rc<Worker>, key: usize, to: Move) {
    let Some(Joined { relay, facts, open }) = leave(worker, key) else { return };
    worker.counters.detached.add(1);
    let mut detached = relay.detach();
    if let Some(engine) = to.engine {
        detached.switch(engine);
    }
    let leaves = to.worker != worker.index;
    let way = || OnTheWay::new(&worker.loads, to.worker, load::Kind::Session);
    let moved = Moved { facts, detached, on_the_way: leaves.then(way).flatten() };
    if moved.on_the_way.is_none() {
        // It is meant for here, or the other worker is gone or about to go.
        adopt(worker, moved);
    } else if let Err(mut moved) = (worker.hand_over)(to.worker, Box::new(moved)) {
        // That worker is gone, and its load will never say so.
        worker.loads.close(to.worker);
        moved.on_the_way = None;
        adopt(worker, *moved);
    }
    // Counted until now: a worker that drains must not take itself for empty in between.
    drop(open);
}

/// Frees the seat. The connection counts as open until its [`Open`] is dropped.
fn leave(worker: &Worker, key: usize) -> Option<Joined> {
    let joined = worker.registry.leave(key);
    if joined.is_some() {
        left(worker);
    }
    joined
}

/// One session less sits here.
fn left(worker: &Worker) {
    worker.counters.sessions_open.sub(1);
    worker.loads.lower(worker.index, load::Kind::Session);
}

/// The same of a session that goes on nowhere: one that moves counts for its route all the time.
fn leave_for_good(worker: &Worker, key: usize) -> Option<Joined> {
    let joined = leave(worker, key);
    if let Some(Joined { facts, .. }) = &joined {
        worker.counters.route(facts.route_index()).leaves(facts.sort());
    }
    joined
}
