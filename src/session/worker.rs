//! What all sessions of one worker share. It lives on the worker's thread and is never locked.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;

use super::access_log::LogSender;
use super::load::{Kind, Loads};
use super::registry::{Moved, Order, Registry, Windows};
use crate::config::Config;
use crate::metrics::{Counters, Engine};
use crate::relay::{Kit, Way};
use crate::route::Routes;
use crate::sys::net::TcpOptions;
use crate::upstream::Upstreams;
use crate::ws::deflate::InflaterBudget;

/// Answers a request that asks for no upgrade with a complete response.
pub type Page = Box<dyn Fn(&str, &str) -> Vec<u8>>;

/// How the sessions of a route are carried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Carriage {
    /// The engine that both directions begin with.
    pub engine: Engine,
    /// Whether the traffic of a direction decides from then on.
    pub adaptive: bool,
    /// The word for why, in the log.
    pub reason: &'static str,
}

/// Gives a session to the worker with this index, or gives it back.
type HandOver = Box<dyn Fn(usize, Box<Moved>) -> Result<(), Box<Moved>>>;

/// The worker as its sessions see it.
pub struct Worker {
    /// Its place among the workers.
    pub index: usize,
    /// The configuration, shared by all workers.
    pub config: Arc<Config>,
    /// Routes made ready for look-up.
    pub routes: Arc<Routes>,
    /// How the sessions of each route are carried, by index.
    pub carriage: Arc<[Carriage]>,
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
    /// Hands a session to another worker; gives it back when that worker is gone.
    pub hand_over: HandOver,
    /// Answers plain requests, by method and target, where something does: the test page in demo mode.
    pub page: Option<Page>,
    /// The port of each listener, by index; `None` for Unix sockets.
    pub local_ports: Arc<[Option<u16>]>,
    /// TCP options of connects.
    pub tcp: TcpOptions,
    /// The endpoints of each route, shared by all workers.
    pub upstreams: Arc<Upstreams>,
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

impl Carriage {
    /// A direction at its beginning, owing `head_data`, of which `given` bytes went out with the head.
    pub fn way(&self, head_data: Vec<u8>, given: usize) -> Way {
        let way = Way::new(self.engine, head_data, given);
        if self.adaptive { way.adaptive() } else { way }
    }
}

impl Worker {
    /// The relay timers of a route.
    pub fn windows(&self, route: usize) -> Windows {
        let timeouts = &self.config.routes[route].timeouts;
        Windows { idle: timeouts.idle, half_close: timeouts.half_close }
    }

    /// The longest time that any route gives an exchange: the bound until the route is known.
    pub fn handshake_longest(&self) -> Duration {
        self.config.routes.iter().map(|route| route.timeouts.handshake).max().unwrap_or_default()
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
