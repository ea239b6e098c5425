//! The endpoints of all routes, shared by all workers: who gets the next session, and who should not.
//!
//! Workers read the set of a route's endpoints at every exchange and never lock: it is swapped as a whole, by
//! the one thread ([`watch`]) that looks names up and checks health. What changes from session to session is in
//! atomics of the [`Endpoint`].

pub mod choice;
pub mod ejection;
pub mod endpoint;
pub mod hash;
pub mod ports;
pub mod view;
pub mod watch;

mod check;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use tracing::{info, warn};

use self::choice::Candidate;
use self::ejection::{Admission, Failure};
pub use self::endpoint::{Address, Endpoint, Held};
use self::ports::Use;
use crate::config::upstreams::{Balance, UpstreamRules};
use crate::config::{self, Config, EndpointTarget};

/// The upstreams of all routes.
#[derive(Debug)]
pub struct Upstreams {
    routes: Box<[Arc<Upstream>]>,
    started: Instant,
}

/// The endpoints of one route.
#[derive(Debug)]
pub struct Upstream {
    /// The route's name.
    name: Box<str>,
    rules: Arc<UpstreamRules>,
    /// How long a session that tries an ejected endpoint may take to say how that went.
    trial: Duration,
    members: ArcSwap<Members>,
    cursor: AtomicUsize,
    source: AtomicUsize,
    /// Shared by all routes of the name, before and after it was changed.
    counts: Arc<Counts>,
    complaints: AtomicU64,
}

/// What is counted of a route as a whole.
#[derive(Debug, Default)]
struct Counts {
    retries: AtomicU64,
    last_resorts: AtomicU64,
    no_ports: AtomicU64,
    failed_lookups: AtomicU64,
}

/// The set of a route's endpoints.
#[derive(Debug)]
struct Members {
    all: Vec<Member>,
    turns: Vec<u16>,
}

#[derive(Clone, Debug)]
struct Member {
    endpoint: Arc<Endpoint>,
    weight: u16,
    /// Whether the route leads elsewhere by now: it keeps the sessions that it has and gets no more.
    is_draining: bool,
}

/// Which endpoints come into question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Resort {
    First,
    /// Those that are better left alone: one of them may be back, and refusing helps nobody.
    Last,
}

/// Complaints that come in storms are logged this often at most, by route.
const COMPLAIN_EVERY: Duration = Duration::from_secs(10);

impl Upstreams {
    /// The upstreams of this configuration.
    pub fn new(config: &Config) -> Upstreams {
        Upstreams::after(None, config, |_| None)
    }

    /// The upstreams of a configuration that follows on another. `stays` says which route of that one a route is,
    /// unchanged; others of its name lend it the endpoints that it has, too, with all that is known of them.
    pub fn after(
        before: Option<&Upstreams>,
        config: &Config,
        stays: impl Fn(usize) -> Option<usize>,
    ) -> Upstreams {
        let routes = config.routes.iter().enumerate().map(|(index, route)| {
            let Some(before) = before else { return Arc::new(Upstream::new(route, &[], None)) };
            if let Some(same) = stays(index) {
                return Arc::clone(&before.routes[same]);
            }
            let namesakes = before.routes.iter().filter(|upstream| *upstream.name == *route.name);
            let counts = namesakes.clone().next().map(|upstream| Arc::clone(&upstream.counts));
            let known: Vec<Member> =
                namesakes.flat_map(|upstream| upstream.members.load().all.clone()).collect();
            Arc::new(Upstream::new(route, &known, counts))
        });
        let started = before.map_or_else(Instant::now, |before| before.started);
        Upstreams { routes: routes.collect(), started }
    }

    /// Those of the route with this index.
    pub fn route(&self, index: usize) -> &Arc<Upstream> {
        &self.routes[index]
    }

    /// The time that passed since the start: what the rules go by.
    pub fn now(&self) -> Duration {
        self.started.elapsed()
    }
}

impl Upstream {
    fn new(route: &config::Route, known: &[Member], counts: Option<Arc<Counts>>) -> Upstream {
        let members = Members::of(&route.to, known);
        Upstream {
            name: route.name.as_str().into(),
            rules: Arc::clone(&route.upstreams),
            trial: route.timeouts.connect.max(route.timeouts.handshake),
            members: ArcSwap::from_pointee(members),
            cursor: AtomicUsize::default(),
            source: AtomicUsize::default(),
            counts: counts.unwrap_or_default(),
            complaints: AtomicU64::default(),
        }
    }

    /// What its route says.
    pub fn rules(&self) -> &UpstreamRules {
        &self.rules
    }

    /// All endpoints, those included that keep their last sessions.
    pub fn endpoints(&self) -> Vec<Arc<Endpoint>> {
        self.members.load().all.iter().map(|member| Arc::clone(&member.endpoint)).collect()
    }

    /// Those that get sessions.
    fn leads_to(&self) -> Vec<Arc<Endpoint>> {
        let members = self.members.load();
        let led_to = members.all.iter().filter(|member| !member.is_draining);
        led_to.map(|member| Arc::clone(&member.endpoint)).collect()
    }

    /// The endpoint for the next session, none of those that it `tried` already. `key` is what the request hashes
    /// to; without one, the fewest sessions decide.
    pub fn choose(&self, key: Option<u64>, tried: &[Arc<Endpoint>], now: Duration) -> Option<Held> {
        let members = self.members.load();
        for resort in [Resort::First, Resort::Last] {
            // A trial that somebody else was granted in between changes what is found the next time.
            while let Some(at) = self.pick(&members, key, tried, now, resort) {
                let endpoint = &members.all[at].endpoint;
                if resort == Resort::Last {
                    self.counts.last_resorts.fetch_add(1, Relaxed);
                    if self.complains(now) {
                        let route = &*self.name;
                        warn!(route, endpoint = %endpoint.address, "no healthy endpoint is left: trying this one");
                    }
                } else if !endpoint.ejection.claim(now, self.trial) {
                    continue;
                }
                return Some(Held::new(Arc::clone(endpoint)));
            }
        }
        None
    }

    /// Whether there are endpoints that could take a session, were it not for the operator who lets them drain.
    pub fn is_drained(&self) -> bool {
        let members = self.members.load();
        let mut taking = members.all.iter().filter(|member| !member.is_draining);
        taking.any(|member| member.endpoint.is_drained())
    }

    fn pick(
        &self,
        members: &Members,
        key: Option<u64>,
        tried: &[Arc<Endpoint>],
        now: Duration,
        resort: Resort,
    ) -> Option<usize> {
        let of = |at: usize| {
            let Member { endpoint, weight, is_draining } = &members.all[at];
            let is_shunned = self.fails_checks(endpoint)
                || endpoint.ejection.admission(now) == Admission::Ejected;
            let fits = is_shunned == (resort == Resort::Last)
                && !is_draining
                && !endpoint.is_drained()
                && !tried.iter().any(|tried| Arc::ptr_eq(tried, endpoint));
            let (weight, sessions, hash) = (*weight, endpoint.sessions(), endpoint.hash);
            fits.then_some(Candidate { weight, sessions, hash })
        };
        let count = members.all.len();
        match (&self.rules.balance, key) {
            (Balance::Hash(_), Some(key)) => choice::hashed(of, count, key),
            (Balance::RoundRobin, _) => choice::in_turn(of, &members.turns, self.turn(tried)),
            _ => choice::least_sessions(of, count, self.turn(tried)),
        }
    }

    /// Whether checks find it unhealthy. A route that makes none does not go by those of another time: nothing would
    /// ever change the verdict.
    fn fails_checks(&self, endpoint: &Endpoint) -> bool {
        self.rules.health.is_some() && endpoint.is_unhealthy()
    }

    /// The place of the coming session in the row of all; a retry has the place of its first choice.
    fn turn(&self, tried: &[Arc<Endpoint>]) -> usize {
        match tried {
            [] => self.cursor.fetch_add(1, Relaxed),
            _ => self.cursor.load(Relaxed),
        }
    }

    /// The local addresses to connect from to `address`, each once, in turn; none where the kernel chooses.
    pub fn sources(&self, address: SocketAddr) -> impl Iterator<Item = IpAddr> + '_ {
        let first = match self.rules.sources.len() {
            0 => 0,
            count => self.source.fetch_add(1, Relaxed) % count,
        };
        let (before, after) = self.rules.sources.split_at(first);
        let fits = move |source: &IpAddr| source.is_ipv4() == address.is_ipv4();
        after.iter().chain(before).copied().filter(fits)
    }

    /// A session goes to another endpoint, since one could not be connected.
    pub fn retried(&self) {
        self.counts.retries.fetch_add(1, Relaxed);
    }

    /// This machine has no port left to connect from. The endpoint is not to blame.
    pub fn no_port(&self, endpoint: &Endpoint, source: Option<IpAddr>, now: Duration) {
        self.counts.no_ports.fetch_add(1, Relaxed);
        if self.complains(now) {
            let (route, endpoint) = (&*self.name, &endpoint.address);
            let source = source.map_or_else(|| "any".to_owned(), |source| source.to_string());
            warn!(
                route, %endpoint, source,
                "no local port is left to connect from: give the route more addresses with source = [...], \
                 widen net.ipv4.ip_local_port_range, or connect over a Unix socket"
            );
        }
    }

    /// Ports that there are for connects to this endpoint; `None` for one that needs none.
    pub fn ports_for(&self, endpoint: &Endpoint) -> Option<u64> {
        let Address::Tcp(address) = endpoint.address else { return None };
        let fits = |source: &&IpAddr| source.is_ipv4() == address.is_ipv4();
        // Without any it is the one that the kernel chooses.
        let sources = self.rules.sources.iter().filter(fits).count().max(1);
        Some(ports::count() * sources as u64)
    }

    /// Says so before the ports run out; once, until there are some again.
    fn watch_ports(&self, endpoint: &Endpoint) {
        let Some(ports) = self.ports_for(endpoint) else { return };
        let used = endpoint.sessions() as u64;
        match ports::judge(used, ports) {
            Use::High if !endpoint.is_short_of_ports.swap(true, Relaxed) => {
                let (route, endpoint) = (&*self.name, &endpoint.address);
                warn!(
                    route, %endpoint, used, ports,
                    "local ports to connect from run short: give the route more addresses with source = [...], \
                     widen net.ipv4.ip_local_port_range, or connect over a Unix socket"
                );
            }
            Use::Low => endpoint.is_short_of_ports.store(false, Relaxed),
            _ => {}
        }
    }

    /// A connect came about.
    pub fn connected(&self, endpoint: &Endpoint) {
        self.watch_ports(endpoint);
        if endpoint.ejection.connected(&self.rules.ejection) {
            self.say_back(endpoint);
        }
    }

    /// The endpoint answered as it should, with a 101 or not.
    pub fn answered(&self, endpoint: &Endpoint) {
        if endpoint.ejection.answered() {
            self.say_back(endpoint);
        }
    }

    /// A session failed, and the endpoint is to blame.
    pub fn failed(&self, endpoint: &Endpoint, what: Failure, now: Duration) {
        let count = match what {
            Failure::Connect => &endpoint.connect_failures,
            Failure::Answer => &endpoint.answer_failures,
        };
        count.fetch_add(1, Relaxed);
        let ejected = endpoint.ejection.failed(what, now, &self.rules.ejection, fastrand::f64());
        if let Some(time) = ejected {
            endpoint.ejections.fetch_add(1, Relaxed);
            let (route, endpoint) = (&*self.name, &endpoint.address);
            let what = match what {
                Failure::Connect => "connects",
                Failure::Answer => "answers",
            };
            warn!(route, %endpoint, what, for = ?time, "the endpoint has failed too often: ejected");
        }
    }

    fn say_back(&self, endpoint: &Endpoint) {
        info!(route = &*self.name, endpoint = %endpoint.address, "the endpoint is back");
    }

    /// Whether it is time for another complaint.
    fn complains(&self, now: Duration) -> bool {
        let now = u64::try_from(now.as_millis()).unwrap_or(u64::MAX).max(1);
        let every = COMPLAIN_EVERY.as_millis() as u64;
        let again = |last| (last == 0 || now >= last + every).then_some(now);
        self.complaints.fetch_update(Relaxed, Relaxed, again).is_ok()
    }

    /// Whether an endpoint that drains has no session left.
    fn has_spent_endpoints(&self) -> bool {
        let is_spent = |member: &Member| member.is_draining && member.endpoint.sessions() == 0;
        self.members.load().all.iter().any(is_spent)
    }

    /// Takes these as its endpoints from now on. Those it has already stay what they are; others get no more
    /// sessions, and go with the last that they have.
    pub fn lead_to(&self, to: &[config::Endpoint]) {
        self.members.store(Arc::new(Members::of(to, &self.members.load().all)));
    }
}

impl Members {
    fn of(to: &[config::Endpoint], known: &[Member]) -> Members {
        let mut all: Vec<Member> = Vec::new();
        for entry in to {
            for address in addresses(&entry.target) {
                let is = |member: &&Member| member.endpoint.address == address;
                // Two names may lead to one address.
                if all.iter().any(|member| is(&member)) {
                    continue;
                }
                let endpoint = match known.iter().find(is) {
                    Some(member) => Arc::clone(&member.endpoint),
                    None => {
                        let mut others = known.iter().chain(&all).map(|member| &member.endpoint);
                        let namesake = others.find(|other| *other.text() == *entry.text);
                        let name = namesake.map(|other| Arc::clone(other.name()));
                        Arc::new(Endpoint::new(&entry.text, address, name.unwrap_or_default()))
                    }
                };
                all.push(Member { endpoint, weight: entry.weight, is_draining: false });
            }
        }
        let weights: Vec<u16> = all.iter().map(|member| member.weight).collect();
        let turns = choice::turns(&weights);
        for old in known {
            let is_there = all.iter().any(|member| Arc::ptr_eq(&member.endpoint, &old.endpoint));
            if !is_there && old.endpoint.sessions() > 0 {
                all.push(Member { is_draining: true, ..old.clone() });
            }
        }
        Members { all, turns }
    }
}

fn addresses(target: &EndpointTarget) -> Vec<Address> {
    match target {
        EndpointTarget::Tcp(addresses) => addresses.iter().copied().map(Address::Tcp).collect(),
        EndpointTarget::Unix(path) => vec![Address::Unix(path.clone())],
    }
}

#[cfg(test)]
mod tests;
