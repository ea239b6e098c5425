//! Puts another configuration in the place of the present one, under live sessions.
//!
//! Everything that can fail comes first: the file is checked as a whole, engines are found, listeners are bound. Then
//! the plan is swapped, and nothing that follows can fail.

use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak, mpsc};
use std::time::{Duration, Instant, SystemTime};
use std::{fmt, io};

use arc_swap::ArcSwap;
use tracing::{info, warn};

use super::bind::{self, BoundAddress, Listening, SocketFiles};
use super::control::{Control, Controller};
use super::slots::{self, Placed};
use super::{plans, tcp_options};
use crate::admin::{Listeners, NotReloaded, Reloaded, Reloads};
use crate::config::{Config, Faults, Gateway, Listen, OnChange, Route};
use crate::error::Kind;
use crate::metrics::{Counters, RouteSnapshot};
use crate::route::Routes;
use crate::session::depart::{Leaving, Whose, time_to_tell};
use crate::session::drains::{Drains, What};
use crate::session::joined::SERVICE_RESTART;
use crate::session::plan::Plan;
use crate::sys::net::TcpOptions;
use crate::sys::probe::Probe;
use crate::upstream::Upstreams;
use crate::upstream::watch::{OnClose, Resolver, Watch};

/// Reads the configuration again, from where it was read at the start.
pub type Source = Arc<dyn Fn() -> Result<Config, Faults> + Send + Sync>;

/// A worker that has not followed by then is stuck; it will follow when it is not.
const PATIENCE: Duration = Duration::from_secs(5);

/// What is there once for all reloads.
pub(super) struct Reloader {
    plans: Arc<ArcSwap<Plan>>,
    probe: Probe,
    counters: Arc<[Arc<Counters>]>,
    controls: Arc<[Controller]>,
    drains: Arc<Drains>,
    socket_files: Arc<SocketFiles>,
    resolver: Resolver,
    on_close: OnClose,
    source: OnceLock<Source>,
    succeeded: AtomicU64,
    failed: AtomicU64,
    last_failed: AtomicBool,
    state: Mutex<State>,
    /// Earlier plans: an exchange may still go by one. Apart, since others ask how many there are at any time.
    past: Mutex<Vec<Weak<Plan>>>,
    /// Whose turn it is to read the configuration: who reads it later has to be followed later.
    turn: Mutex<()>,
}

/// What a reload leaves to the next one.
struct State {
    /// By slot; a listener that is closed keeps its own.
    listening: Vec<Listening>,
    /// Looks after the endpoints of the present plan.
    watch: Option<Watch>,
}

/// What the start has made.
pub(super) struct Begun {
    pub plans: Arc<ArcSwap<Plan>>,
    pub probe: Probe,
    pub counters: Arc<[Arc<Counters>]>,
    pub controls: Arc<[Controller]>,
    pub drains: Arc<Drains>,
    pub socket_files: Arc<SocketFiles>,
    pub listening: Vec<Listening>,
    pub resolver: Resolver,
    pub on_close: OnClose,
}

impl Reloader {
    /// Looks after the endpoints from now on.
    ///
    /// # Errors
    ///
    /// No thread to do so.
    pub fn new(begun: Begun) -> std::io::Result<Reloader> {
        let Begun {
            plans,
            probe,
            counters,
            controls,
            drains,
            socket_files,
            listening,
            resolver,
            on_close,
        } = begun;
        let watch = watch(&plans.load(), &resolver, &on_close)?;
        Ok(Reloader {
            plans,
            probe,
            counters,
            controls,
            drains,
            socket_files,
            resolver,
            on_close,
            source: OnceLock::new(),
            succeeded: AtomicU64::default(),
            failed: AtomicU64::default(),
            last_failed: AtomicBool::default(),
            state: Mutex::new(State { listening, watch }),
            past: Mutex::default(),
            turn: Mutex::default(),
        })
    }

    /// Says where the configuration comes from; the first word counts.
    pub fn set_source(&self, source: Source) {
        let _ = self.source.set(source);
    }

    /// Stops looking after endpoints.
    pub fn stop(&self) {
        self.state().watch = None;
    }

    /// What came of the reloads so far.
    pub fn counts(&self) -> Reloads {
        let past = self.past().iter().filter(|past| past.strong_count() > 0).count();
        Reloads {
            succeeded: self.succeeded.load(Ordering::Relaxed),
            failed: self.failed.load(Ordering::Relaxed),
            last_failed: self.last_failed.load(Ordering::Relaxed),
            plans_alive: 1 + past,
        }
    }

    /// Where it listens now.
    pub fn listening(&self) -> Vec<BoundAddress> {
        let state = self.state();
        let open = state.listening.iter().filter(|listening| listening.is_open);
        open.map(|listening| listening.address.clone()).collect()
    }

    /// Reads the configuration again, and goes by it from now on. What came of it is logged.
    ///
    /// # Errors
    ///
    /// See [`NotReloaded`]; then nothing has changed.
    pub fn reload(&self) -> Result<Reloaded, NotReloaded> {
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        let source = self.source.get().ok_or(NotReloaded::NoFile);
        let read = source.and_then(|source| source().map_err(NotReloaded::Faults));
        let reloaded = read.and_then(|config| self.follow(config));
        let count = if reloaded.is_ok() { &self.succeeded } else { &self.failed };
        count.fetch_add(1, Ordering::Relaxed);
        self.last_failed.store(reloaded.is_err(), Ordering::Relaxed);
        match &reloaded {
            Ok(reloaded) => {
                info!("reloaded: {reloaded}");
                if !reloaded.needs_restart.is_empty() {
                    warn!("only a restart changes {}", reloaded.needs_restart.join(", "));
                }
            }
            Err(NotReloaded::Faults(faults)) => {
                for fault in faults.iter() {
                    warn!("not reloaded: {fault}");
                }
            }
            Err(why) => warn!("not reloaded: {why}"),
        }
        reloaded
    }

    /// Goes by this configuration from now on.
    ///
    /// # Errors
    ///
    /// As of [`Reloader::reload`].
    pub fn follow(&self, mut config: Config) -> Result<Reloaded, NotReloaded> {
        let mut state = self.state();
        if self.drains.is_ending() {
            return Err(NotReloaded::Draining);
        }
        let before = self.plans.load_full();
        let needs_restart = keep_what_cannot_change(&mut config.gateway, &before.config.gateway);
        let placed = self.place(&before, std::mem::take(&mut config.routes))?;
        let carriage = plans::carriage_after(&before, &placed, &config.gateway, &self.probe)
            .map_err(|error| NotReloaded::Unable(error.to_string()))?;
        let change = self.bind(&state.listening, &config)?;
        let reloaded = Reloaded {
            generation: before.generation + 1,
            routes: placed.difference(&before.config.routes, &before.live),
            listeners: Listeners {
                opened: change.opened.clone(),
                closed: change.closed(&state.listening),
            },
            needs_restart,
        };
        let Placed { routes, live, kept } = placed;
        config.routes = routes;
        let stays = |slot: usize| {
            let is_past = slot < before.config.routes.len() && !live.contains(&slot);
            (is_past || kept.contains(&slot)).then_some(slot)
        };
        let plan = Plan {
            generation: reloaded.generation,
            since: SystemTime::now(),
            routes: Routes::new(live.iter().map(|&slot| (slot, &config.routes[slot]))),
            carriage: carriage.into(),
            upstreams: Upstreams::after(Some(&before.upstreams), &config, stays),
            tcp: tcp_options(&config.gateway.tcp),
            limiter: Arc::clone(&before.limiter),
            ports: change.listening.iter().map(|listening| listening.address.port()).collect(),
            live: live.into(),
            config: config.into(),
        };
        for &slot in &kept {
            plan.upstreams.route(slot).lead_to(&plan.route(slot).to);
        }
        self.swap(&mut state, &before, plan, change);
        self.retire(&before);
        Ok(reloaded)
    }

    fn place(&self, before: &Plan, routes: Vec<Route>) -> Result<Placed, NotReloaded> {
        let mut past = self.past();
        past.retain(|past| past.strong_count() > 0);
        let is_vacant = |slot| {
            let began =
                |past: &Weak<Plan>| past.upgrade().is_some_and(|past| past.live.contains(&slot));
            let counters = self.counters.iter().map(|worker| worker.route(Some(slot)));
            RouteSnapshot::of(counters).open.iter().all(|open| *open == 0)
                && !past.iter().any(began)
        };
        slots::place(&before.config.routes, &before.live, routes, is_vacant).ok_or_else(|| {
            NotReloaded::Unable("too many changes of routes since the start: restart".to_owned())
        })
    }

    /// Binds what is new. What was bound is closed again when something else fails.
    fn bind(&self, before: &[Listening], config: &Config) -> Result<Change, NotReloaded> {
        let options = tcp_options(&config.gateway.tcp);
        let mut change = Change::of(before, config);
        let bound = self.bind_new(before, config, &options, &mut change);
        if bound.is_err() {
            for listening in change.listening.iter().filter(|listening| listening.is_open) {
                let was =
                    before.iter().any(|before| before.is_open && before.asked == listening.asked);
                if let (false, BoundAddress::Unix(path)) = (was, &listening.address) {
                    self.socket_files.remove_one(path);
                }
            }
        }
        bound.map(|()| change)
    }

    fn bind_new(
        &self,
        before: &[Listening],
        config: &Config,
        options: &TcpOptions,
        change: &mut Change,
    ) -> Result<(), NotReloaded> {
        for listener in &config.listeners {
            let asked = &listener.address;
            if before.iter().any(|listening| listening.is_open && listening.asked == *asked) {
                continue;
            }
            let (address, sockets) = bind::open(asked, self.controls.len(), options).map_err(|source| {
                NotReloaded::Unable(format!(
                    "cannot listen on {}: {source}{}",
                    bind::listen_text(asked),
                    match source.kind() {
                        io::ErrorKind::PermissionDenied =>
                            " (the gateway has given up what it needed root for, and is confined: restart it)",
                        _ => "",
                    }
                ))
            })?;
            self.socket_files.add(&address);
            change.open(asked, address, sockets);
        }
        Ok(())
    }

    /// Lets everybody go by `plan`, and waits until the workers accept where it says.
    fn swap(&self, state: &mut State, before: &Arc<Plan>, plan: Plan, change: Change) {
        let Change { listening, mut sockets, closes, .. } = change;
        self.past().push(Arc::downgrade(before));
        self.plans.store(Arc::new(plan));
        let (done, followed) = mpsc::channel();
        for (worker, control) in self.controls.iter().enumerate() {
            let open = std::mem::take(&mut sockets[worker]);
            // A worker that has ended accepts nothing.
            let _ =
                control.send(Control::Follow { open, close: closes.clone(), done: done.clone() });
        }
        drop(done);
        let until = Instant::now() + PATIENCE;
        while followed.recv_timeout(until.saturating_duration_since(Instant::now())).is_ok() {}
        for &slot in &closes {
            if let BoundAddress::Unix(path) = &listening[usize::from(slot)].address {
                self.socket_files.remove_one(path);
            }
        }
        state.listening = listening;
        // One at a time: two would look at the same endpoints.
        state.watch = None;
        state.watch = watch(&self.plans.load(), &self.resolver, &self.on_close).unwrap_or_else(|error| {
            warn!(%error, "no thread to check endpoints and look up names: they stay as they are");
            None
        });
    }

    /// Ends the sessions of routes that are not what they were, where they ask for it.
    fn retire(&self, before: &Plan) {
        let plan = self.plans.load();
        for (slot, route) in before.live_routes().filter(|(slot, _)| !plan.live.contains(slot)) {
            let namesake =
                plan.live_routes().map(|(_, now)| now).find(|now| now.name == route.name);
            let gateway = &plan.config.gateway;
            let rate_of = |per_second: Option<u32>| per_second.map(f64::from);
            let (over, rate) = match namesake.unwrap_or(route).on_change {
                OnChange::Keep => continue,
                OnChange::Drain => (gateway.drain, rate_of(gateway.drain_rate)),
                OnChange::Close => (Duration::ZERO, None),
            };
            let leaving = || {
                let whose = Whose::Retired(slot);
                Leaving::new(whose, over, || Kind::RouteChanged, SERVICE_RESTART)
            };
            if over.is_zero() {
                // Those that are there wait for nobody.
                self.depart(leaving());
            }
            let sessions = What::Route { name: route.name.clone(), slots: vec![slot] };
            let needs = time_to_tell(sessions.sessions(&self.counters), rate);
            // Exchanges that are under way become sessions there.
            let leaving = leaving().until(over.max(needs) + route.timeouts.handshake);
            self.depart(match rate {
                Some(rate) => leaving.at_most(rate),
                None => leaving,
            });
        }
    }

    fn depart(&self, leaving: Leaving) {
        let leaving = Arc::new(leaving);
        for control in self.controls.iter() {
            // A worker that has ended has no sessions.
            let _ = control.send(Control::Depart(Arc::clone(&leaving)));
        }
    }

    fn past(&self) -> MutexGuard<'_, Vec<Weak<Plan>>> {
        self.past.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What becomes of the listeners.
struct Change {
    /// By slot, as it will be.
    listening: Vec<Listening>,
    /// Sockets of those that are new, by worker, with their slots.
    sockets: Vec<Vec<(u16, OwnedFd)>>,
    opened: Vec<String>,
    closes: Vec<u16>,
}

impl Change {
    fn of(before: &[Listening], config: &Config) -> Change {
        let mut listening = before.to_vec();
        let mut closes = Vec::new();
        for (slot, listening) in (0..).zip(&mut listening) {
            let is_wanted = config.listeners.iter().any(|asked| asked.address == listening.asked);
            if listening.is_open && !is_wanted {
                listening.is_open = false;
                closes.push(slot);
            }
        }
        let sockets = (0..config.gateway.workers).map(|_| Vec::new()).collect();
        Change { listening, sockets, opened: Vec::new(), closes }
    }

    fn open(&mut self, asked: &Listen, address: BoundAddress, sockets: Vec<OwnedFd>) {
        self.opened.push(address.to_string());
        let new = Listening { asked: asked.clone(), address, is_open: true };
        let slot = match self.listening.iter().position(|listening| listening.asked == *asked) {
            Some(slot) => {
                self.listening[slot] = new;
                slot
            }
            None => {
                self.listening.push(new);
                self.listening.len() - 1
            }
        };
        let slot = u16::try_from(slot).expect("a port, or a path, has one slot");
        for (of_worker, socket) in self.sockets.iter_mut().zip(sockets) {
            of_worker.push((slot, socket));
        }
    }

    fn closed(&self, before: &[Listening]) -> Vec<String> {
        self.closes.iter().map(|&slot| before[usize::from(slot)].address.to_string()).collect()
    }
}

fn watch(plan: &Plan, resolver: &Resolver, on_close: &OnClose) -> io::Result<Option<Watch>> {
    let routes = plan.live_routes().map(|(slot, route)| (plan.upstreams.route(slot), route));
    Watch::start(routes, Arc::clone(resolver), Arc::clone(on_close))
}

/// Gives `new` the values of `old` that hold for the life of the process; the keys that would have changed.
fn keep_what_cannot_change(new: &mut Gateway, old: &Gateway) -> Vec<&'static str> {
    let mut keys = Vec::new();
    macro_rules! keep {
        ($($field:ident),*) => {$(
            if new.$field != old.$field {
                keys.push(stringify!($field));
                new.$field = old.$field.clone();
            }
        )*};
    }
    keep!(
        workers,
        runtime,
        watch_file,
        busy_poll,
        balance,
        no_fallback,
        access_log,
        user,
        group,
        sandbox,
        admin,
        traces
    );
    if new.log.file != old.log.file {
        keys.push("access_log");
        new.log.file = old.log.file.clone();
    }
    for (key, is_new) in [
        ("log.filter", new.log.filter != old.log.filter),
        ("log.format", new.log.format != old.log.format),
    ] {
        keys.extend(is_new.then_some(key));
    }
    if new.admin_token != old.admin_token {
        keys.push("admin_token_file");
        new.admin_token = old.admin_token.clone();
    }
    keys
}

impl fmt::Debug for Reloader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reloader")
            .field("plan", &self.plans.load().generation)
            .finish_non_exhaustive()
    }
}
