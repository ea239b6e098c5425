//! The accept loop: takes connections as fast as they come, pauses while descriptors are short, and backs off when
//! there are none all the same.
//!
//! Who accepts a connection need not serve it: see [`super::balance`].

use std::future::poll_fn;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tracing::warn;

use super::balance;
use super::control::{Accepted, Control, Controller};
use crate::session::load::{Kind, OnTheWay};
use crate::session::worker::{Open, Worker};
use crate::sys::net::{AcceptFault, Acceptor, accept_fault};

/// Connections taken before the worker's sessions get their turn.
const ACCEPTS_PER_TURN: u32 = 32;
/// The first wait after a shortage; doubled each time up to the longest.
const BACKOFF_FIRST: Duration = Duration::from_millis(5);
const BACKOFF_LONGEST: Duration = Duration::from_secs(1);
/// Shortages are logged this often at most: they come in storms.
const WARN_EVERY: Duration = Duration::from_secs(5);
/// How often a paused listener looks whether it may go on. The kernel's backlog holds those who come meanwhile.
const PAUSE: Duration = Duration::from_millis(10);

/// Accepts until it is dropped. `index` is the listener's slot.
pub(super) async fn accept(
    acceptor: Rc<Acceptor>,
    index: u16,
    worker: Rc<Worker>,
    others: Arc<[Controller]>,
) {
    let mut backoff = BACKOFF_FIRST;
    let mut warned: Option<Instant> = None;
    let mut turn = 0;
    loop {
        while !has_room(&worker) {
            worker.kit.reactor.sleep_until(Instant::now() + PAUSE).await;
        }
        match poll_fn(|cx| acceptor.poll_accept(cx)).await {
            Ok((socket, peer)) => {
                backoff = BACKOFF_FIRST;
                worker.counters.accepted.add(1);
                let accepted = Accepted { socket, peer, listener: index, on_the_way: None };
                if let Some(stays) = hand_over(accepted, &worker, &others) {
                    admit(stays, &worker);
                }
                turn += 1;
                if turn == ACCEPTS_PER_TURN {
                    turn = 0;
                    worker.kit.reactor.yield_now().await;
                }
            }
            Err(error) => match accept_fault(&error) {
                AcceptFault::Connection => worker.kit.reactor.yield_now().await,
                AcceptFault::Shortage => {
                    worker.counters.accept_backoffs.add(1);
                    if warned.is_none_or(|at| at.elapsed() >= WARN_EVERY) {
                        warned = Some(Instant::now());
                        warn!(%error, wait = ?backoff, "cannot accept: raise the limit of open files, or lower the load");
                    }
                    worker.kit.reactor.sleep_until(Instant::now() + backoff).await;
                    backoff = (backoff * 2).min(BACKOFF_LONGEST);
                }
            },
        }
    }
}

/// Whether there are descriptors for one more connection.
fn has_room(worker: &Worker) -> bool {
    let plan = worker.plans.load();
    plan.limiter.descriptors.has_room(plan.config.gateway.admission.descriptors_reserved)
}

/// Takes what already waits: a listener that is closed would reset these connections.
pub(super) fn accept_waiting(acceptor: &Acceptor, index: u16, worker: &Rc<Worker>) {
    while let Ok((socket, peer)) = acceptor.accept_now() {
        worker.counters.accepted.add(1);
        admit(Accepted { socket, peer, listener: index, on_the_way: None }, worker);
    }
}

/// Serves the connection here.
pub(super) fn admit(accepted: Accepted, worker: &Rc<Worker>) {
    let Accepted { socket, peer, listener, on_the_way } = accepted;
    let open = Open::new(Rc::clone(worker));
    // Not before it is counted as open here.
    drop(on_the_way);
    tokio::task::spawn_local(crate::session::run(open, socket, peer, listener));
}

/// Hands the connection to a worker that has less to do, if there is one; else gives it back.
fn hand_over(mut accepted: Accepted, worker: &Worker, others: &[Controller]) -> Option<Accepted> {
    let Some(to) = balance::for_accepted(worker) else { return Some(accepted) };
    accepted.on_the_way = OnTheWay::new(&worker.loads, to, Kind::Connection);
    if accepted.on_the_way.is_none() {
        return Some(accepted);
    }
    match others[to].send(Control::Admit(accepted)) {
        Ok(()) => {
            worker.counters.handed_over.add(1);
            None
        }
        Err(Control::Admit(mut accepted)) => {
            // That worker is gone, and its load will never say so.
            worker.loads.close(to);
            accepted.on_the_way = None;
            Some(accepted)
        }
        Err(_) => unreachable!("what was sent comes back"),
    }
}
