//! The accept loop: takes connections as fast as they come, and backs off when it cannot.

use std::future::poll_fn;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::time::{Duration, Instant};

use tracing::warn;

use crate::session::worker::{Open, Worker};
use crate::sys::net::{AcceptFault, Acceptor, accept_fault};

/// Connections taken before the worker's sessions get their turn.
const ACCEPTS_PER_TURN: u32 = 32;
/// The first wait after a shortage; doubled each time up to the longest.
const BACKOFF_FIRST: Duration = Duration::from_millis(5);
const BACKOFF_LONGEST: Duration = Duration::from_secs(1);
/// Shortages are logged this often at most: they come in storms.
const WARN_EVERY: Duration = Duration::from_secs(5);

/// Accepts until it is dropped. `index` is the listener's place in the configuration.
pub async fn accept(acceptor: Rc<Acceptor>, index: u16, worker: Rc<Worker>) {
    let mut backoff = BACKOFF_FIRST;
    let mut warned: Option<Instant> = None;
    let mut turn = 0;
    loop {
        match poll_fn(|cx| acceptor.poll_accept(cx)).await {
            Ok((socket, peer)) => {
                backoff = BACKOFF_FIRST;
                admit(socket, peer, index, &worker);
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

/// Takes what already waits: a listener that is closed would reset these connections.
pub fn accept_waiting(acceptor: &Acceptor, index: u16, worker: &Rc<Worker>) {
    while let Ok((socket, peer)) = acceptor.accept_now() {
        admit(socket, peer, index, worker);
    }
}

fn admit(socket: OwnedFd, peer: Option<SocketAddr>, index: u16, worker: &Rc<Worker>) {
    worker.counters.accepted.add(1);
    let open = Open::new(Rc::clone(worker));
    tokio::task::spawn_local(crate::session::run(open, socket, peer, index));
}
