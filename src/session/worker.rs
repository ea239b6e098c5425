//! What all sessions of one worker share. It lives on the worker's thread and is never locked.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;

use arc_swap::ArcSwap;
use tokio::sync::Notify;

use super::access_log::LogSender;
use super::drains::Drains;
use super::load::{Kind, Loads};
use super::plan::Plan;
use super::registry::{Moved, Order, Registry, Windows};
use crate::metrics::Counters;
use crate::relay::Kit;
use crate::trace::Tracer;
use crate::ws::deflate::InflaterBudget;

/// Answers a request that asks for no upgrade with a complete response.
pub type Page = Box<dyn Fn(&str, &str) -> Vec<u8>>;

/// Gives a session to the worker with this index, or gives it back.
type HandOver = Box<dyn Fn(usize, Box<Moved>) -> Result<(), Box<Moved>>>;

/// The worker as its sessions see it.
pub struct Worker {
    /// Its place among the workers.
    pub index: usize,
    /// What sessions go by, shared by all workers.
    pub plans: Arc<ArcSwap<Plan>>,
    /// Its counters.
    pub counters: Arc<Counters>,
    /// What its relays share.
    pub kit: Rc<Kit>,
    /// How many inflaters there may be, of all workers.
    pub inflaters: Arc<InflaterBudget>,
    /// Its live sessions.
    pub registry: Registry,
    /// Where its log lines go.
    pub log: LogSender,
    /// Where its spans go, if anywhere.
    pub tracer: Option<Tracer>,
    /// Hands a session to another worker; gives it back when that worker is gone.
    pub hand_over: HandOver,
    /// Answers plain requests, by method and target, where something does: the test page in demo mode.
    pub page: Option<Page>,
    /// What drains, and takes no new sessions; shared by all workers.
    pub drains: Arc<Drains>,
    /// What every worker carries.
    pub loads: Arc<Loads>,
    /// Whether connections and sessions go to the worker that has the least.
    pub balances: bool,
    /// How many connections it has accepted lately, if it balances.
    pub accepted_lately: Cell<u32>,
    /// Connections that have not ended.
    pub connections: Cell<usize>,
    /// Told whenever the last connection ends.
    pub quiet: Notify,
    /// Told when sessions that are still in their exchange must end.
    pub stopping: Notify,
    /// True from then on.
    pub stopped: Cell<bool>,
    /// Whether a connection's task panicked: a defect, which [`crate::server::Gateway::join`] reports.
    pub panicked: Cell<bool>,
}

impl Worker {
    /// What sessions go by now.
    pub fn plan(&self) -> Arc<Plan> {
        self.plans.load_full()
    }

    /// The relay timers of the route in this slot.
    pub fn windows(&self, route: usize) -> Windows {
        self.plans.load().windows(route)
    }

    /// Ends everything: exchanges at once, relays by order.
    pub fn stop(&self) {
        self.stopped.set(true);
        self.stopping.notify_waiters();
        self.registry.order_all(|| Order::End(crate::error::Kind::Stopped));
    }
}

/// A connection that counts as open until this is dropped.
pub struct Open(Rc<Worker>);

impl Open {
    /// Counts one more connection.
    pub fn new(worker: Rc<Worker>) -> Open {
        worker.connections.set(worker.connections.get() + 1);
        worker.counters.connections_open.add(1);
        worker.loads.raise(worker.index, Kind::Connection);
        Open(worker)
    }

    /// The worker that it belongs to.
    pub fn worker(&self) -> &Rc<Worker> {
        &self.0
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        // The runtime catches the panic of a task, and nobody else would ever hear of it.
        if std::thread::panicking() {
            self.0.panicked.set(true);
        }
        let left = self.0.connections.get() - 1;
        self.0.connections.set(left);
        self.0.counters.connections_open.sub(1);
        self.0.loads.lower(self.0.index, Kind::Connection);
        if left == 0 {
            self.0.quiet.notify_waiters();
        }
    }
}
