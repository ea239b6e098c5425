//! From process to accepted socket: listeners, workers, signals, stop.

pub mod bench;
pub mod choice;
pub mod demo;
pub mod report;

mod balance;
mod bind;
mod confine;
mod control;
mod drain;
mod file_watch;
mod listener;
pub mod notify;
mod operator;
mod plans;
mod reload;
mod run;
mod slots;
mod worker;

use std::io;
use std::iter::repeat_with;
use std::net::SocketAddr;
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;

use arc_swap::ArcSwap;
use tokio::sync::{Notify, oneshot};
use tracing::info;

use self::bind::SocketFiles;
pub use self::bind::{Bound, BoundAddress};
use self::control::{Control, Controller, Controls};
use self::demo::EchoBackend;
use self::drain::{Drainer, on_close};
use self::operator::Operator;
pub use self::reload::Source;
use self::reload::{Begun, Reloader};
pub use self::run::run;
use self::worker::{Means, Shared};
use crate::admin::{Address, Admin, Subject};
pub use crate::admin::{Difference, NotReloaded, Reloaded};
use crate::config::{self, Config, Endpoint, EndpointTarget};
use crate::metrics::{Counters, Snapshot};
use crate::relay::pool::PipeBudget;
pub use crate::session::access_log::AccessLog;
use crate::session::access_log::{LogSender, LogWriter};
pub use crate::session::drains::{Drain, What};
use crate::session::limiter::descriptors::Known;
use crate::session::load::Loads;
use crate::session::plan::Plan;
pub use crate::session::question::SessionView;
pub use crate::session::registry::Move;
use crate::sys::net::TcpOptions;
use crate::sys::probe::Probe;
use crate::trace::Exporter;
pub use crate::upstream::view::{EndpointState, EndpointView, UpstreamView};
pub use crate::upstream::watch::Resolver;

/// A running gateway: its workers, and the ways to speak to them.
pub struct Gateway {
    workers: Vec<Handle>,
    addresses: Vec<BoundAddress>,
    counters: Arc<[Arc<Counters>]>,
    log: LogWriter,
    exporter: Exporter,
    demo: Option<EchoBackend>,
    socket_files: Arc<SocketFiles>,
    ended: Arc<Notify>,
    plans: Arc<ArcSwap<Plan>>,
    reloader: Arc<Reloader>,
    drainer: Arc<Drainer>,
    /// Answers until all workers have ended.
    admin: Option<Admin>,
}

/// Why a gateway did not start.
#[derive(Debug)]
pub enum StartError {
    /// A listener could not be bound.
    Listen {
        /// As configured.
        address: String,
        /// What the kernel said.
        source: io::Error,
    },
    /// The configuration asks for what this kernel or sandbox refuses.
    Unable(String),
    /// A thread, or the embedded backend, could not be started.
    Spawn(io::Error),
}

#[derive(Debug)]
struct Handle {
    control: Controller,
    thread: JoinHandle<bool>,
}

/// Says that a worker's thread ends, also when it panics.
struct SaysEnd(Arc<Notify>);

impl Gateway {
    /// Binds all listeners, starts all workers, and returns when all of them accept.
    ///
    /// Ignores SIGPIPE for the whole process: splice(2) has no other way (rule R10).
    ///
    /// # Errors
    ///
    /// See [`StartError`]; nothing keeps running then.
    pub fn start(config: Config, log: AccessLog) -> Result<Gateway, StartError> {
        Gateway::start_with(config, log, Arc::new(config::lookup))
    }

    /// The same with a name service of its own for the names in `to`.
    ///
    /// # Errors
    ///
    /// As for [`Gateway::start`].
    pub fn start_with(
        config: Config,
        log: AccessLog,
        resolver: Resolver,
    ) -> Result<Gateway, StartError> {
        let bound = Bound::new(&config, Vec::new())?;
        Gateway::serve(config, bound, log, resolver)
    }

    /// The same on listeners that are bound already: what is allowed may have become less since.
    ///
    /// # Errors
    ///
    /// As for [`Gateway::start`].
    pub fn serve(
        mut config: Config,
        bound: Bound,
        log: AccessLog,
        resolver: Resolver,
    ) -> Result<Gateway, StartError> {
        crate::sys::ignore_sigpipe();
        let probe = Probe::run();
        let uring = runs_in_uring(&config, &probe)?;
        let nofile = probe.nofile.map(|limit| limit.soft);
        let demo = config.demo.then(EchoBackend::start).transpose().map_err(StartError::Spawn)?;
        if let Some(backend) = &demo {
            point_to(&mut config, backend.address());
        }
        let ports = bound.listening.iter().map(|listening| listening.address.port()).collect();
        let plan = plans::first(config, &probe, ports)?;
        let workers = plan.config.gateway.workers;
        let counters: Arc<[Arc<Counters>]> = (0..workers).map(|_| Arc::default()).collect();
        let (log_sender, log) = LogWriter::start(log, Arc::clone(&counters[0]))
            .map_err(|error| StartError::Unable(error.to_string()))?;
        let (tracer, exporter) = Exporter::start(&plan.config.gateway, &counters[0])
            .map_err(|error| StartError::Unable(error.to_string()))?;
        let channels = (0..workers).map(|_| control::channel());
        let channels = channels.collect::<io::Result<Vec<_>>>().map_err(StartError::Spawn)?;
        let (controllers, controls): (Vec<_>, Vec<_>) = channels.into_iter().unzip();
        let shared = Shared {
            plans: Arc::new(ArcSwap::from_pointee(plan)),
            budget: PipeBudget::new(probe.pipe_budget_pages() * probe.pipes.page_bytes),
            inflaters: Arc::default(),
            counters: Arc::clone(&counters),
            controls: controllers.clone().into(),
            drains: Arc::default(),
            loads: Arc::new(Loads::new(workers)),
            tracer,
            uring,
        };
        let drainer = Arc::new(Drainer {
            controls: Arc::clone(&shared.controls),
            plans: Arc::clone(&shared.plans),
            drains: Arc::clone(&shared.drains),
            asked: Notify::new(),
        });
        let Bound { listening, sockets, rings, socket_files, admin: door } = bound;
        let addresses: Vec<BoundAddress> =
            listening.iter().map(|listening| listening.address.clone()).collect();
        let ended = Arc::new(Notify::new());
        if let Some(limit) = nofile {
            let (loads, counters) = (Arc::clone(&shared.loads), Arc::clone(&shared.counters));
            let known = Known::before_workers(limit, loads, counters);
            shared.plans.load().limiter.descriptors.begin(known);
        }
        let means =
            sockets.into_iter().zip(rings.into_iter().map(Some).chain(repeat_with(|| None)));
        let means = means.map(|(sockets, ring)| Means { sockets, ring }).collect();
        let workers = spawn(&shared, controllers, controls, means, &log_sender, &ended)?;
        let plans = Arc::clone(&shared.plans);
        let reloader = Reloader::new(Begun {
            plans: Arc::clone(&plans),
            probe,
            counters: Arc::clone(&counters),
            controls: Arc::clone(&shared.controls),
            drains: Arc::clone(&shared.drains),
            socket_files: Arc::clone(&socket_files),
            listening,
            resolver,
            on_close: on_close(&shared.controls),
        });
        let reloader = match reloader {
            Ok(reloader) => Arc::new(reloader),
            Err(error) => return Err(abandon(workers, error)),
        };
        for address in &addresses {
            info!("listening on {address}");
        }
        let operator = Operator {
            controls: Arc::clone(&shared.controls),
            drainer: Arc::clone(&drainer),
            reloader: Arc::clone(&reloader),
        };
        let subject = Subject::new(Arc::clone(&plans), Arc::clone(&counters), Box::new(operator));
        let admin = door.map(|door| Admin::start(door, subject)).transpose();
        let mut gateway = Gateway {
            workers,
            addresses,
            counters,
            log,
            exporter,
            demo,
            socket_files,
            ended,
            plans,
            reloader,
            drainer,
            admin: None,
        };
        match admin {
            Ok(admin) => gateway.admin = admin,
            Err(error) => {
                gateway.stop_now();
                gateway.join();
                return Err(StartError::Spawn(error));
            }
        }
        if let Some(address) = gateway.admin_address() {
            info!("answering the operator on {address}");
        }
        Ok(gateway)
    }

    /// Where it listened at the start, in the order of the configuration.
    pub fn addresses(&self) -> &[BoundAddress] {
        &self.addresses
    }

    /// Where it listens now.
    pub fn listening(&self) -> Vec<BoundAddress> {
        self.reloader.listening()
    }

    /// Slots that routes have, those included whose routes take no more sessions.
    pub fn slots(&self) -> usize {
        self.plans.load().config.routes.len()
    }

    /// Says where [`Gateway::reload`] reads the configuration; the first word counts.
    pub fn reloads_from(&self, source: Source) {
        self.reloader.set_source(source);
    }

    /// Reads the configuration again, and goes by it from now on; sessions of routes that are as they were do not
    /// notice.
    ///
    /// # Errors
    ///
    /// See [`NotReloaded`]; then nothing has changed.
    pub fn reload(&self) -> Result<Reloaded, NotReloaded> {
        self.reloader.reload()
    }

    /// Goes by this configuration from now on, as [`Gateway::reload`] does by the one that it reads.
    ///
    /// # Errors
    ///
    /// As of [`Gateway::reload`].
    pub fn follow(&self, config: Config) -> Result<Reloaded, NotReloaded> {
        self.reloader.follow(config)
    }

    /// Where it answers the operator, if it does.
    pub fn admin_address(&self) -> Option<&Address> {
        self.admin.as_ref().map(Admin::address)
    }

    /// The sum of all workers' counters now.
    pub fn metrics(&self) -> Snapshot {
        Snapshot::of(self.counters.iter().map(AsRef::as_ref))
    }

    /// The endpoints of each route, and how they do.
    pub fn upstreams(&self) -> Vec<UpstreamView> {
        let plan = self.plans.load();
        plan.upstreams.view(&plan.live)
    }

    /// All live sessions, worker by worker.
    pub fn sessions(&self) -> Vec<SessionView> {
        let (reply, answers) = mpsc::channel();
        for worker in &self.workers {
            // A worker that has ended has no sessions.
            let _ = worker.control.send(Control::Sessions(reply.clone()));
        }
        drop(reply);
        answers.iter().flatten().collect()
    }

    /// Moves a live session to another worker or engine, while it goes on; false when no worker has it, which
    /// may be for the moment in which it is on its way between two.
    pub fn move_session(&self, id: &str, to: Move) -> bool {
        // One after the other: asked all at once, the worker that it moves to would find it too.
        self.workers.iter().any(|worker| {
            let (reply, answer) = mpsc::channel();
            let control = Control::Move { id: id.to_owned(), to, reply };
            worker.control.send(control).is_ok() && answer.recv() == Ok(true)
        })
    }

    /// Stops accepting; sessions go on until they end, or until the `drain` deadline, unless the configuration lets
    /// them be told to leave before. Returns at once.
    pub fn drain(&self) {
        self.drainer.begin_for_signal();
        self.socket_files.remove();
    }

    /// Waits until the operator lets the process end with its sessions, or has done so since this was asked last.
    pub async fn drain_asked(&self) {
        self.drainer.asked.notified().await;
    }

    /// What drains, with the number of sessions that are left of it.
    pub fn drains(&self) -> Vec<(Arc<Drain>, u64)> {
        let all = self.drainer.drains.all();
        all.into_iter().map(|drain| (Arc::clone(&drain), drain.left(&self.counters))).collect()
    }

    /// Ends all sessions now.
    pub fn stop_now(&self) {
        self.drainer.drains.end();
        for worker in &self.workers {
            let _ = worker.control.send(Control::Stop);
        }
        self.socket_files.remove();
    }

    /// Whether all workers have ended.
    pub fn is_finished(&self) -> bool {
        self.workers.iter().all(|worker| worker.thread.is_finished())
    }

    /// Whether a worker has ended.
    pub fn has_ended_worker(&self) -> bool {
        self.workers.iter().any(|worker| worker.thread.is_finished())
    }

    /// The workers that are there and do not answer until `deadline`.
    pub async fn silent_workers(&self, deadline: tokio::time::Instant) -> Vec<usize> {
        let ask = |worker: &Handle| {
            let (reply, answer) = oneshot::channel();
            worker.control.send(Control::Ping(reply)).map(|()| answer).ok()
        };
        let asked: Vec<_> = self.workers.iter().map(ask).collect();
        let mut silent = Vec::new();
        for (index, answer) in asked.into_iter().enumerate() {
            // One that has ended, or ends before it answers, has nothing to be silent about.
            let Some(answer) = answer else { continue };
            if tokio::time::timeout_at(deadline, answer).await.is_err() {
                silent.push(index);
            }
        }
        silent
    }

    /// The engines that routes start their sessions with, for people.
    pub fn engines(&self) -> String {
        plans::engines(&self.plans.load())
    }

    /// Waits until a worker ends, or has ended since this was asked last.
    pub async fn worker_ended(&self) {
        self.ended.notified().await;
    }

    /// Waits until all workers have ended and all log lines are written; [`Gateway::drain`] or
    /// [`Gateway::stop_now`] must have been called. False when a worker, or a session in it, panicked.
    pub fn join(self) -> bool {
        let Gateway { workers, log, exporter, demo, reloader, admin, .. } = self;
        // It speaks to the workers: none of them may be waited for by it.
        reloader.stop();
        let mut sound = true;
        for Handle { control, thread } in workers {
            drop(control);
            sound &= thread.join().unwrap_or(false);
        }
        drop(admin);
        drop(demo);
        log.join();
        exporter.join();
        sound
    }
}

impl Drop for SaysEnd {
    fn drop(&mut self) {
        self.0.notify_one();
    }
}

/// Starts the workers and waits until each of them accepts.
fn spawn(
    shared: &Shared,
    controllers: Vec<Controller>,
    controls: Vec<Controls>,
    means: Vec<Means>,
    log: &LogSender,
    ended: &Arc<Notify>,
) -> Result<Vec<Handle>, StartError> {
    let mut workers = Vec::new();
    let (ready, started) = mpsc::channel();
    let parts = controllers.into_iter().zip(controls).zip(means);
    for (index, ((control, controls), means)) in parts.enumerate() {
        let (shared, log, ready) = (shared.clone(), log.clone(), ready.clone());
        let says_end = SaysEnd(Arc::clone(ended));
        let thread = std::thread::Builder::new().name(format!("worker-{index}")).spawn(move || {
            let _says_end = says_end;
            worker::main(index, shared, means, controls, log, &ready)
        });
        match thread {
            Ok(thread) => workers.push(Handle { control, thread }),
            Err(error) => return Err(abandon(workers, error)),
        }
    }
    drop(ready);
    for _ in 0..workers.len() {
        match started.recv() {
            Ok(Ok(())) => {}
            Ok(Err(error)) => return Err(abandon(workers, error)),
            Err(_) => {
                return Err(abandon(workers, io::Error::other("a worker ended before it started")));
            }
        }
    }
    Ok(workers)
}

/// One worker did not start: ends the others.
fn abandon(workers: Vec<Handle>, error: io::Error) -> StartError {
    for Handle { control, thread } in workers {
        let _ = control.send(Control::Stop);
        let _ = thread.join();
    }
    StartError::Spawn(error)
}

/// Whether workers run in tokio-uring, which panics where it cannot have a ring: the probe was asked.
fn runs_in_uring(config: &Config, probe: &Probe) -> Result<bool, StartError> {
    let choice = choice::runtime_for(probe, config.gateway.runtime);
    match choice.taken {
        Some(taken) => Ok(taken == config::Runtime::Uring),
        None => Err(StartError::Unable(choice.why)),
    }
}

/// Makes the demo route lead to the embedded backend.
fn point_to(config: &mut Config, backend: SocketAddr) {
    for route in &mut config.routes {
        route.to = vec![Endpoint::new(backend.to_string(), EndpointTarget::Tcp(vec![backend]))];
    }
}

pub(crate) fn tcp_options(tcp: &config::Tcp) -> TcpOptions {
    TcpOptions {
        nodelay: tcp.nodelay,
        keepalive: tcp.keepalive,
        keepalive_interval: tcp.keepalive_interval,
        keepalive_probes: tcp.keepalive_probes,
        user_timeout: tcp.user_timeout,
    }
}

impl std::fmt::Display for StartError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            StartError::Listen { address, source } => {
                write!(f, "cannot listen on {address}: {source}")
            }
            StartError::Unable(why) => f.write_str(why),
            StartError::Spawn(source) => write!(f, "cannot start a worker: {source}"),
        }
    }
}

impl std::error::Error for StartError {}
