//! Limits at the door: what may be there only so often, or come only so fast.
//!
//! Counts are exact over all workers: a place is taken by one atomic step that finds room, and given back when the
//! [`Pass`] is dropped, however its session ends. They stay through reloads: limits are those of the plan of the
//! moment, and routes go by name. Clients are counted from the plan on that has a limit for them.

pub mod bucket;
pub mod clients;
pub mod descriptors;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;

use self::bucket::Bucket;
use self::clients::{Client, Clients, Counted};
use self::descriptors::Descriptors;
use crate::config::admission::{Admission, Crowd, Pace};
use crate::error::{Kind, Limit};

/// Those who are refused for want of a place come back in between one second and this.
const RETRY_SECONDS_MAX: u32 = 5;

/// What there is at the moment, of all workers.
#[derive(Debug)]
pub struct Limiter {
    started: Instant,
    sessions: AtomicU32,
    exchanges: AtomicU32,
    handshakes: Bucket,
    /// By name; as many as the operator ever wrote.
    routes: ArcSwap<HashMap<Box<str>, Arc<OfRoute>>>,
    clients: Clients,
    /// What is left of descriptors.
    pub descriptors: Descriptors,
}

/// What a route has.
#[derive(Debug, Default)]
struct OfRoute {
    sessions: AtomicU32,
    handshakes: Bucket,
}

/// The places that a connection has, until this is dropped.
#[derive(Debug)]
pub struct Pass {
    limiter: Arc<Limiter>,
    route: Option<Arc<OfRoute>>,
    /// Set once anything of it is counted.
    client: Option<Client>,
    has: Has,
}

/// Which places those are.
#[derive(Debug, Default)]
struct Has {
    exchange: bool,
    session: bool,
    client_exchange: bool,
    client_session: bool,
}

impl Default for Limiter {
    fn default() -> Limiter {
        Limiter {
            started: Instant::now(),
            sessions: AtomicU32::default(),
            exchanges: AtomicU32::default(),
            handshakes: Bucket::default(),
            routes: ArcSwap::default(),
            clients: Clients::default(),
            descriptors: Descriptors::default(),
        }
    }
}

impl Limiter {
    /// Lets a connection begin its exchange. `client` is known if there is no proxy in between.
    ///
    /// # Errors
    ///
    /// The limit that is in the way.
    pub fn enter(
        self: &Arc<Limiter>,
        client: Option<Client>,
        limits: &Admission,
    ) -> Result<Pass, Kind> {
        let mut pass =
            Pass { limiter: Arc::clone(self), route: None, client: None, has: Has::default() };
        if let Some(client) = client.filter(|_| limits.client.is_on()) {
            pass.enter_client(client, limits)?;
        }
        pass.has.exchange = raise(&self.exchanges, limits.exchanges_max);
        if pass.has.exchange { Ok(pass) } else { Err(no_place(Limit::Exchanges)) }
    }

    /// Sessions, those included that are about to become one.
    pub fn sessions(&self) -> u32 {
        self.sessions.load(Relaxed)
    }

    /// The same of the route of this name.
    pub fn sessions_of(&self, route: &str) -> u32 {
        self.routes.load().get(route).map_or(0, |route| route.sessions.load(Relaxed))
    }

    /// Connections in their exchange.
    pub fn exchanges(&self) -> u32 {
        self.exchanges.load(Relaxed)
    }

    /// Clients that are known at the moment.
    pub fn clients(&self) -> usize {
        self.clients.known()
    }

    fn route(&self, name: &str) -> Arc<OfRoute> {
        if let Some(route) = self.routes.load().get(name) {
            return Arc::clone(route);
        }
        let new = Arc::<OfRoute>::default();
        self.routes.rcu(|routes| {
            let mut routes = HashMap::clone(routes);
            routes.entry(name.into()).or_insert_with(|| Arc::clone(&new));
            routes
        });
        // Another worker may have been the first.
        Arc::clone(&self.routes.load()[name])
    }

    /// Nanoseconds since the start.
    fn now(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }
}

impl Pass {
    /// Lets the connection become a session of the route. `client` is who asks, as far as it is to be trusted. The
    /// client comes first: what it may not have, it shall not take from the others.
    ///
    /// # Errors
    ///
    /// The limit that is in the way.
    pub fn admit(
        &mut self,
        client: Option<Client>,
        route: (&str, &Crowd),
        limits: &Admission,
    ) -> Result<(), Kind> {
        let limiter = Arc::clone(&self.limiter);
        let now = limiter.now();
        if let Some(client) = client.filter(|_| limits.client.is_on()) {
            self.enter_client(client, limits)?;
            let Crowd { sessions_max, handshakes } = limits.client.crowd;
            self.has.client_session =
                limiter.clients.raise(client, Counted::Session, sessions_max, now);
            if !self.has.client_session {
                return Err(no_place(Limit::ClientSessions));
            }
            let take = |pace| limiter.clients.take(client, now, pace);
            in_time(handshakes, take, Limit::ClientHandshakes)?;
        }
        let (name, crowd) = route;
        let of_route = limiter.route(name);
        if !raise(&of_route.sessions, crowd.sessions_max) {
            return Err(no_place(Limit::RouteSessions));
        }
        let of_route = self.route.insert(of_route);
        self.has.session = raise(&limiter.sessions, limits.all.sessions_max);
        if !self.has.session {
            return Err(no_place(Limit::Sessions));
        }
        let take = |pace| of_route.handshakes.take(now, pace);
        in_time(crowd.handshakes, take, Limit::RouteHandshakes)?;
        let take = |pace| limiter.handshakes.take(now, pace);
        let of_all = in_time(limits.all.handshakes, take, Limit::Handshakes);
        // What all together are too many for is not held against the route. The client has asked all the same.
        if let (Err(_), Some(pace)) = (&of_all, crowd.handshakes) {
            of_route.handshakes.put_back(pace);
        }
        of_all
    }

    /// The exchange is over: its place is free.
    pub fn end_exchange(&mut self) {
        if std::mem::take(&mut self.has.exchange) {
            lower(&self.limiter.exchanges);
        }
        if std::mem::take(&mut self.has.client_exchange) {
            self.lower_client(Counted::Exchange);
        }
    }

    /// There is no session, or no more.
    pub fn end_session(&mut self) {
        if let Some(route) = self.route.take() {
            lower(&route.sessions);
        }
        if std::mem::take(&mut self.has.session) {
            lower(&self.limiter.sessions);
        }
        if std::mem::take(&mut self.has.client_session) {
            self.lower_client(Counted::Session);
        }
    }

    /// Counts the exchange for its client, unless that was done already.
    fn enter_client(&mut self, client: Client, limits: &Admission) -> Result<(), Kind> {
        if self.has.client_exchange {
            return Ok(());
        }
        let (max, now) = (limits.client.exchanges_max, self.limiter.now());
        self.has.client_exchange = self.limiter.clients.raise(client, Counted::Exchange, max, now);
        if !self.has.client_exchange {
            return Err(no_place(Limit::ClientExchanges));
        }
        self.client = Some(client);
        Ok(())
    }

    fn lower_client(&self, what: Counted) {
        if let Some(client) = self.client {
            self.limiter.clients.lower(client, what, self.limiter.now());
        }
    }
}

impl Drop for Pass {
    fn drop(&mut self) {
        self.end_exchange();
        self.end_session();
    }
}

fn raise(count: &AtomicU32, max: Option<u32>) -> bool {
    let one_more = |count| max.is_none_or(|max| count < max).then_some(count + 1);
    count.fetch_update(Relaxed, Relaxed, one_more).is_ok()
}

fn lower(count: &AtomicU32) {
    count.fetch_sub(1, Relaxed);
}

/// Nobody knows when a place will be free: spread, so that those who wait do not come all at once.
fn no_place(limit: Limit) -> Kind {
    Kind::Limited { limit, retry_after: fastrand::u32(1..=RETRY_SECONDS_MAX) }
}

fn in_time(
    pace: Option<Pace>,
    take: impl FnOnce(Pace) -> Result<(), Duration>,
    limit: Limit,
) -> Result<(), Kind> {
    let Some(pace) = pace else { return Ok(()) };
    take(pace).map_err(|wait| {
        let seconds = wait.as_nanos().div_ceil(1_000_000_000);
        Kind::Limited { limit, retry_after: u32::try_from(seconds).unwrap_or(u32::MAX) }
    })
}

#[cfg(test)]
mod tests;
