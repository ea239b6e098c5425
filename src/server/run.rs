//! The `run` verb: a gateway, and the signals that steer it.

use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing::{error, info, warn};

use super::file_watch;
use super::notify::Notifier;
use super::{AccessLog, Bound, Gateway, NotReloaded, Source, StartError};
use crate::config::{Config, lookup};
use crate::sys::activation;

/// How often a gateway is asked whether its workers have ended, once one has said that it will.
const FINISHED_PERIOD: Duration = Duration::from_millis(20);

/// Runs until it is told to stop and has. True when every worker ended in order.
///
/// SIGTERM and SIGINT drain, a second one stops at once, SIGHUP reads the configuration again from `source`, SIGUSR1
/// prints the counters on stderr. A service manager is told how far it is, and may have opened the listeners.
///
/// # Errors
///
/// The gateway did not start: see [`StartError`].
pub fn run(config: Config, source: Source) -> Result<bool, StartError> {
    if let Err(error) = crate::sys::net::raise_nofile_limit() {
        warn!(%error, "cannot raise the limit of open files to its hard limit");
    }
    let notifier = Notifier::from_environment();
    let passed = activation::take().map_err(|error| {
        StartError::Unable(format!("cannot take the service manager's sockets: {error}"))
    })?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .enable_time()
        .build()
        .map_err(StartError::Spawn)?;
    // Before anybody can connect, and so take it for started: a signal must not kill the process then.
    let mut signals = {
        let _entered = runtime.enter();
        Signals::new().map_err(StartError::Spawn)?
    };
    let mut bound = Bound::new(&config, passed)?;
    let has_rings = bound.prepare_rings(&config);
    super::confine::confine(&config, has_rings)?;
    let log = match (config.gateway.access_log, &config.gateway.log.file) {
        (false, _) => AccessLog::Off,
        (true, None) => AccessLog::Stdout,
        (true, Some(file)) => AccessLog::File(file.clone()),
    };
    let patience = config.gateway.drain;
    let demo = config.demo;
    let has_file = config.file.is_some();
    let watched = config.file.clone().filter(|_| config.gateway.watch_file);
    runtime.block_on(async {
        let gateway = Gateway::serve(config, bound, log, Arc::new(lookup))?;
        if has_file {
            gateway.reloads_from(source);
        }
        notifier.ready(&gateway);
        if demo && let Some(address) = gateway.addresses().first() {
            info!("no --config and no --to: serving the test page, open http://{address}/");
        }
        let stop = signals.wait_for_stop(&gateway, &notifier);
        let stop = beside(stop, file_watch::follow(watched, &gateway, &notifier));
        let stop = beside(stop, notifier.watch(&gateway)).await;
        if stop == Stop::WorkerEnded {
            error!(
                "a worker ended unasked: draining the others, so that a supervisor can start anew"
            );
        }
        let is_shortened = stop != Stop::Operator;
        if is_shortened {
            drain(&gateway, patience);
        }
        notifier.stopping(&gateway);
        let end = signals.wait_for_end(&gateway, is_shortened, patience);
        beside(end, notifier.watch(&gateway)).await;
        let sound = gateway.join();
        info!("stopped");
        Ok(sound)
    })
}

/// Does `work`, and meanwhile what never ends.
async fn beside<T>(work: impl Future<Output = T>, endless: impl Future<Output = Infallible>) -> T {
    let (mut work, mut endless) = (pin!(work), pin!(endless));
    poll_fn(|cx| {
        let Poll::Pending = endless.as_mut().poll(cx);
        work.as_mut().poll(cx)
    })
    .await
}

/// Reads the configuration again. What comes of it is logged.
pub(super) async fn reload(gateway: &Gateway, notifier: &Notifier) {
    notifier.reloading();
    // Elsewhere, since names are looked up: the watchdog is fed meanwhile.
    let reloader = Arc::clone(&gateway.reloader);
    drop(tokio::task::spawn_blocking(move || reloader.reload()).await);
    notifier.ready(gateway);
}

/// Stops accepting, and gives the sessions so long.
fn drain(gateway: &Gateway, patience: Duration) {
    let open = gateway.metrics().connections_open;
    info!("draining: {open} connections open, {patience:?} at most; signal again to stop at once");
    gateway.drain();
}

/// Why the gateway is to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stop {
    Signal,
    /// Who has begun a drain of his own.
    Operator,
    WorkerEnded,
}

/// What a signal says.
enum Told {
    Stop,
    Counters,
    Reload,
}

struct Signals {
    terminate: Signal,
    interrupt: Signal,
    counters: Signal,
    reload: Signal,
}

impl Signals {
    fn new() -> std::io::Result<Signals> {
        Ok(Signals {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            counters: signal(SignalKind::user_defined1())?,
            reload: signal(SignalKind::hangup())?,
        })
    }

    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Told> {
        if self.terminate.poll_recv(cx).is_ready() || self.interrupt.poll_recv(cx).is_ready() {
            return Poll::Ready(Told::Stop);
        }
        if self.reload.poll_recv(cx).is_ready() {
            return Poll::Ready(Told::Reload);
        }
        self.counters.poll_recv(cx).map(|_| Told::Counters)
    }

    /// Until a stop signal, or the operator's word, or until a worker ends unasked.
    async fn wait_for_stop(&mut self, gateway: &Gateway, notifier: &Notifier) -> Stop {
        let (mut ended, mut asked) = (pin!(gateway.worker_ended()), pin!(gateway.drain_asked()));
        loop {
            let told = poll_fn(|cx| {
                if asked.as_mut().poll(cx).is_ready() {
                    return Poll::Ready(Err(Stop::Operator));
                }
                if ended.as_mut().poll(cx).is_ready() {
                    return Poll::Ready(Err(Stop::WorkerEnded));
                }
                self.poll_next(cx).map(Ok)
            });
            match told.await {
                Ok(Told::Counters) => print_counters(gateway),
                Ok(Told::Reload) => reload(gateway, notifier).await,
                Ok(Told::Stop) => return Stop::Signal,
                Err(Stop::WorkerEnded) => {
                    // It has said so in its last moment: the thread is still about to end.
                    while !gateway.has_ended_worker() {
                        tokio::time::sleep(FINISHED_PERIOD).await;
                    }
                    return Stop::WorkerEnded;
                }
                Err(stop) => return stop,
            }
        }
    }

    /// A signal ends all at once if a drain of ours `is_shortened` to our patience already; else it is the first
    /// one, and does that to the operator's.
    async fn wait_for_end(
        &mut self,
        gateway: &Gateway,
        mut is_shortened: bool,
        patience: Duration,
    ) {
        while !gateway.is_finished() {
            match tokio::time::timeout(FINISHED_PERIOD, poll_fn(|cx| self.poll_next(cx))).await {
                Ok(Told::Stop) if !std::mem::replace(&mut is_shortened, true) => {
                    drain(gateway, patience);
                }
                Ok(Told::Stop) => gateway.stop_now(),
                Ok(Told::Counters) => print_counters(gateway),
                Ok(Told::Reload) => warn!("not reloaded: {}", NotReloaded::Draining),
                Err(_) => {}
            }
        }
    }
}

fn print_counters(gateway: &Gateway) {
    let counters = serde_json::to_string(&gateway.metrics()).expect("numbers always serialise");
    eprintln!("counters {counters}");
}
