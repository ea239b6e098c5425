//! What the operator sees of a running gateway, and steers it by: an HTTP API, metrics, and the client of both.
//!
//! It runs in a thread of its own, with a runtime that no session knows. Counters are read as they are; what only
//! a worker knows is [asked](Workers), one small [question](crate::session::question) at a time, so that a worker
//! with a hundred thousand sessions answers between two turns of them. Over a Unix socket only root and the
//! gateway's own user are heard (`SO_PEERCRED`); over TCP, who brings the token. Connections, heads, answers
//! and patience are bounded.

pub mod client;
pub mod print;

mod api;
mod browser;
mod bulk;
mod door;
mod drain;
mod family;
mod health;
mod limits;
mod openmetrics;
mod process;
mod query;
mod reload;
mod reply;
mod serve;
mod sessions;
mod tap;
mod ui;
mod view;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::sync::{Semaphore, oneshot};

pub use self::door::{Address, Door};
pub use self::reload::{Difference, Listeners, NotReloaded, Reloaded, Reloads};
use crate::metrics::{Counters, RouteSnapshot};
use crate::session::drains::{Drain, Drains};
use crate::session::plan::Plan;
use crate::session::question::Question;

/// A worker that takes longer to answer is stuck.
const ANSWER_PATIENCE: Duration = Duration::from_secs(5);

/// The way to the workers.
pub trait Workers: Send + Sync {
    /// How many there were at the start.
    fn count(&self) -> usize;
    /// Puts a question to one of them; false when it is gone.
    fn ask(&self, worker: usize, question: Question) -> bool;
    /// Whether that worker has ended.
    fn is_gone(&self, worker: usize) -> bool;
    /// Reads the configuration again, and goes by it from now on. May block.
    ///
    /// # Errors
    ///
    /// Then nothing has changed.
    fn reload(&self) -> Result<Reloaded, NotReloaded>;
    /// What came of the reloads so far.
    fn reloads(&self) -> Reloads;
    /// What drains.
    fn drains(&self) -> &Drains;
    /// Begins a drain; false when too many go on.
    fn drain(&self, drain: Drain) -> bool;
}

/// The gateway that is looked at.
pub struct Subject {
    plans: Arc<ArcSwap<Plan>>,
    /// Of each worker.
    counters: Arc<[Arc<Counters>]>,
    workers: Box<dyn Workers>,
    /// Kills that may still be spread over time.
    spreads: Arc<Semaphore>,
    /// Sessions that may still be watched.
    taps: Arc<Semaphore>,
}

/// A running admin API; ends when it is dropped.
#[derive(Debug)]
pub struct Admin {
    address: Address,
    /// The file of a Unix socket.
    file: Option<SocketFile>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

/// Removed once: by then another process may own the path.
#[derive(Debug)]
struct SocketFile(PathBuf);

impl Admin {
    /// Answers at `door` from now on.
    ///
    /// # Errors
    ///
    /// No thread, or no runtime for it.
    pub fn start(door: Door, gateway: Subject) -> io::Result<Admin> {
        let address = door.address().clone();
        let file = match &address {
            Address::Unix(path) => Some(SocketFile(path.clone())),
            Address::Tcp(_) => None,
        };
        let (stop, stopped) = oneshot::channel();
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_io().enable_time().build()?;
        let gateway = Arc::new(gateway);
        let thread = std::thread::Builder::new().name("admin".into()).spawn(move || {
            runtime.block_on(async {
                tokio::spawn(serve::serve(door, gateway));
                // Nothing is ever sent: the other end is dropped. All tasks end with the runtime.
                let _ = stopped.await;
            });
        })?;
        Ok(Admin { address, file, stop: Some(stop), thread: Some(thread) })
    }

    /// Where it answers.
    pub fn address(&self) -> &Address {
        &self.address
    }
}

impl Drop for Admin {
    fn drop(&mut self) {
        drop(self.stop.take());
        drop(self.file.take());
        if let Some(thread) = self.thread.take() {
            // A panic in there has been told on stderr.
            let _ = thread.join();
        }
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        // A file that somebody else removed is removed.
        let _ = std::fs::remove_file::<&Path>(&self.0);
    }
}

impl Subject {
    /// A gateway with these plans, and its workers.
    pub fn new(
        plans: Arc<ArcSwap<Plan>>,
        counters: Arc<[Arc<Counters>]>,
        workers: Box<dyn Workers>,
    ) -> Subject {
        let spreads = Arc::new(Semaphore::new(bulk::SPREADS_MAX));
        let taps = Arc::new(Semaphore::new(tap::TAPS_MAX));
        Subject { plans, counters, workers, spreads, taps }
    }

    /// What sessions go by now.
    fn plan(&self) -> Arc<Plan> {
        self.plans.load_full()
    }

    /// What all workers say of the route of this name, as it is and as it was.
    fn counts_of(&self, plan: &Plan, name: &str) -> RouteSnapshot {
        let slots = plan.slots_of(name);
        let counters = self.counters.iter();
        RouteSnapshot::of(
            counters.flat_map(|worker| slots.iter().map(|&slot| worker.route(Some(slot)))),
        )
    }
}

impl std::fmt::Debug for Subject {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Subject").field("plan", &self.plan().generation).finish_non_exhaustive()
    }
}
