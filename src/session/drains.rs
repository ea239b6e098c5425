//! What drains: the gateway, routes, endpoints. Whoever takes new sessions looks here first.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;

use super::depart::{Leaving, Whose};
use crate::error::Kind;
use crate::metrics::{Counters, RouteSnapshot, Snapshot};
use crate::upstream::Endpoint;

/// Drains at once.
pub const DRAINS_MAX: usize = 64;

/// All drains that go on, shared by the workers and those who ask.
#[derive(Debug, Default)]
pub struct Drains {
    all: Mutex<Vec<Arc<Drain>>>,
    refused: ArcSwap<Refused>,
    /// Sessions that were told to leave by drains that are over.
    told_before: AtomicU64,
    ends: AtomicBool,
}

/// What takes no new sessions. Endpoints know it of themselves.
#[derive(Debug, Default)]
struct Refused {
    gateway: bool,
    routes: Vec<String>,
}

/// One drain.
#[derive(Debug)]
pub struct Drain {
    what: What,
    pace: Pace,
    began: Instant,
    /// `None` where sessions are only waited for.
    leaving: Option<Arc<Leaving>>,
}

/// What a drain takes new sessions away from.
#[derive(Clone, Debug)]
pub enum What {
    /// Everything.
    Gateway {
        /// Whether the process ends when no session is left.
        stop: bool,
    },
    /// The routes of this name.
    Route {
        /// As configured.
        name: String,
        /// The slots that they have, or had.
        slots: Vec<usize>,
    },
    /// Some endpoints.
    Endpoint {
        /// As the operator named them.
        name: String,
        /// Only those of this route.
        route: Option<String>,
        /// What was found by that name.
        found: Vec<Arc<Endpoint>>,
    },
}

/// When and how the sessions of a drain go.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// They are told spread over this time; `None`: never.
    pub over: Option<Duration>,
    /// Those that are left by then are told at once, and a little later ended.
    pub deadline: Duration,
    /// How many are told per second at most.
    pub rate: Option<f64>,
    /// What the Close of inspected ones says.
    pub code: u16,
}

/// Why a drain cannot be undone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotUndone {
    /// This does not drain.
    Unknown,
    /// The listeners are closed, and the process ends.
    Ends,
}

impl What {
    /// Whether both mean the same, whatever is to become of it.
    pub fn is_same(&self, other: &What) -> bool {
        match (self, other) {
            (What::Gateway { .. }, What::Gateway { .. }) => true,
            (What::Route { name, .. }, What::Route { name: other, .. }) => name == other,
            (
                What::Endpoint { name, route, .. },
                What::Endpoint { name: other, route: others, .. },
            ) => name == other && route == others,
            _ => false,
        }
    }

    /// Whether the process ends with it.
    pub fn stops(&self) -> bool {
        matches!(self, What::Gateway { stop: true })
    }

    fn whose(&self) -> Whose {
        match self {
            What::Gateway { .. } => Whose::All,
            What::Route { slots, .. } => Whose::Routes(slots.clone()),
            What::Endpoint { found, .. } => Whose::Endpoints(found.clone()),
        }
    }
}

impl fmt::Display for What {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            What::Gateway { .. } => f.write_str("the gateway"),
            What::Route { name, .. } => write!(f, "route {name}"),
            What::Endpoint { name, route: None, .. } => write!(f, "endpoint {name}"),
            What::Endpoint { name, route: Some(route), .. } => {
                write!(f, "endpoint {name} of route {route}")
            }
        }
    }
}

impl Drain {
    /// A drain that begins now.
    pub fn new(what: What, pace: Pace) -> Drain {
        let leaving = pace.over.map(|over| {
            let leaving = Leaving::new(what.whose(), over, || Kind::Drained, pace.code);
            let leaving = leaving.until(pace.deadline);
            Arc::new(match pace.rate {
                Some(rate) => leaving.at_most(rate),
                None => leaving,
            })
        });
        Drain { what, pace, began: Instant::now(), leaving }
    }

    /// What drains.
    pub fn what(&self) -> &What {
        &self.what
    }

    /// When and how.
    pub fn pace(&self) -> &Pace {
        &self.pace
    }

    /// For how long.
    pub fn age(&self) -> Duration {
        self.began.elapsed()
    }

    /// The sessions that are told to leave, if they are.
    pub fn leaving(&self) -> Option<&Arc<Leaving>> {
        self.leaving.as_ref()
    }

    /// How many sessions were told to leave.
    pub fn told(&self) -> u64 {
        self.leaving.as_ref().map_or(0, |leaving| leaving.told())
    }

    /// How many sessions are left.
    pub fn left(&self, counters: &[Arc<Counters>]) -> u64 {
        self.what.sessions(counters)
    }
}

impl What {
    /// How many sessions there are, by the counters of all workers; of an endpoint also those in their exchange.
    pub fn sessions(&self, counters: &[Arc<Counters>]) -> u64 {
        match self {
            What::Gateway { .. } => Snapshot::of(counters.iter().map(AsRef::as_ref)).sessions_open,
            What::Route { slots, .. } => {
                let of_routes = counters
                    .iter()
                    .flat_map(|all| slots.iter().map(move |&slot| all.route(Some(slot))));
                RouteSnapshot::of(of_routes).open.iter().sum()
            }
            What::Endpoint { found, .. } => {
                found.iter().map(|endpoint| endpoint.sessions() as u64).sum()
            }
        }
    }
}

impl Drains {
    /// Takes new sessions away from what `drain` says. A drain of the same is replaced by it; true when there was
    /// room.
    pub fn begin(&self, drain: Arc<Drain>) -> bool {
        let mut all = self.all.lock().unwrap_or_else(PoisonError::into_inner);
        let replaced = all.iter().position(|other| other.what.is_same(&drain.what));
        if replaced.is_none() && all.len() == DRAINS_MAX {
            return false;
        }
        if let Some(at) = replaced {
            self.forget(&all.remove(at));
        }
        all.push(drain);
        self.publish(&all);
        true
    }

    /// Gives what drains its sessions again: those that were told go, the others stay.
    ///
    /// # Errors
    ///
    /// See [`NotUndone`].
    pub fn undo(&self, what: &What) -> Result<Arc<Drain>, NotUndone> {
        let mut all = self.all.lock().unwrap_or_else(PoisonError::into_inner);
        let at = all.iter().position(|drain| drain.what.is_same(what));
        let at = at.ok_or(NotUndone::Unknown)?;
        if all[at].what.stops() {
            return Err(NotUndone::Ends);
        }
        let drain = all.remove(at);
        self.forget(&drain);
        self.publish(&all);
        Ok(drain)
    }

    /// All sessions are being ended, whatever drains.
    pub fn end(&self) {
        self.ends.store(true, Relaxed);
    }

    /// All drains, in the order in which they began.
    pub fn all(&self) -> Vec<Arc<Drain>> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Whether a new session of this route is refused.
    pub fn refuses(&self, route: &str) -> bool {
        let refused = self.refused.load();
        refused.gateway || refused.routes.iter().any(|name| name == route)
    }

    /// Whether the whole gateway drains.
    pub fn is_gateway_draining(&self) -> bool {
        let is_gateway = |drain: &Arc<Drain>| matches!(drain.what, What::Gateway { .. });
        self.is_ending() || self.all().iter().any(is_gateway)
    }

    /// Whether the process ends with its sessions.
    pub fn is_ending(&self) -> bool {
        self.ends.load(Relaxed) || self.all().iter().any(|drain| drain.what.stops())
    }

    /// How many sessions were told to leave so far, by all drains there were.
    pub fn told(&self) -> u64 {
        let now: u64 = self.all().iter().map(|drain| drain.told()).sum();
        self.told_before.load(Relaxed) + now
    }

    /// How many sessions are left of all that drains.
    pub fn left(&self, counters: &[Arc<Counters>]) -> u64 {
        let all = self.all();
        let is_gateway = |drain: &&Arc<Drain>| matches!(drain.what, What::Gateway { .. });
        match all.iter().find(is_gateway) {
            Some(gateway) => gateway.left(counters),
            None => all.iter().map(|drain| drain.left(counters)).sum(),
        }
    }

    /// `drain` goes on no more.
    fn forget(&self, drain: &Drain) {
        if let Some(leaving) = &drain.leaving {
            leaving.call_off();
            self.told_before.fetch_add(leaving.told(), Relaxed);
        }
        if let What::Endpoint { name, found, .. } = &drain.what {
            found.iter().for_each(|endpoint| endpoint.set_drained(name, false));
        }
    }

    /// Lets everybody see what takes no new sessions.
    fn publish(&self, all: &[Arc<Drain>]) {
        let mut refused = Refused::default();
        for drain in all {
            match &drain.what {
                // Where sessions are only waited for, what was accepted before is served as well.
                What::Gateway { .. } => refused.gateway |= drain.leaving.is_some(),
                What::Route { name, .. } => refused.routes.push(name.clone()),
                What::Endpoint { name, found, .. } => {
                    found.iter().for_each(|endpoint| endpoint.set_drained(name, true));
                }
            }
        }
        self.refused.store(Arc::new(refused));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn route(name: &str) -> What {
        What::Route { name: name.to_owned(), slots: Vec::new() }
    }

    fn drain(what: What) -> Arc<Drain> {
        let second = Duration::from_secs(1);
        let pace = Pace { over: Some(second), deadline: second, rate: None, code: 1012 };
        Arc::new(Drain::new(what, pace))
    }

    #[test]
    fn what_drains_takes_nothing_new_until_that_is_undone() {
        let drains = Drains::default();
        assert!(drains.begin(drain(route("chat"))) && drains.begin(drain(route("game"))));
        assert!(drains.refuses("chat") && drains.refuses("game") && !drains.refuses("other"));
        assert!(!drains.is_gateway_draining());
        drains.undo(&route("chat")).expect("it drains");
        assert_eq!(drains.undo(&route("chat")).err(), Some(NotUndone::Unknown));
        assert!(!drains.refuses("chat") && drains.refuses("game"));
        assert!(drains.begin(drain(What::Gateway { stop: false })));
        assert!(drains.refuses("chat") && drains.is_gateway_draining() && !drains.is_ending());
        drains.undo(&What::Gateway { stop: true }).expect("it drains");
        assert!(!drains.refuses("chat"));
        assert!(drains.begin(drain(What::Gateway { stop: true })));
        assert_eq!(drains.undo(&What::Gateway { stop: false }).err(), Some(NotUndone::Ends));
        assert!(drains.is_ending());
    }

    #[test]
    fn a_drain_of_the_same_replaces_the_one_before_and_there_is_a_bound_to_them() {
        let drains = Drains::default();
        let first = drain(route("0"));
        assert!(drains.begin(Arc::clone(&first)));
        for name in 0..DRAINS_MAX {
            assert!(drains.begin(drain(route(&name.to_string()))), "{name}");
        }
        assert_eq!(drains.all().len(), DRAINS_MAX);
        assert!(!drains.all().iter().any(|drain| Arc::ptr_eq(drain, &first)));
        assert!(!drains.begin(drain(route("one too many"))) && !drains.refuses("one too many"));
    }
}
