//! The one thread beside the workers that looks names up again and checks health. It exists only where a route
//! asks for either.
//!
//! Names are looked up by the system's name service, which says nothing of a TTL: a resolver that does stands on
//! more packages than upsplice has.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::sync::{Semaphore, oneshot};
use tokio::task::JoinSet;
use tracing::{info, warn};

use super::Upstream;
use super::check::check;
use super::endpoint::{Address, Endpoint};
use crate::config::upstreams::{Health, OnUnhealthy};
use crate::config::{Endpoint as Entry, EndpointTarget, Route};

/// Looks up a name, as [`crate::config::lookup`] does. It may block.
pub type Resolver = Arc<dyn Fn(&str, u16) -> io::Result<Vec<SocketAddr>> + Send + Sync>;

/// Told of each endpoint whose sessions are to end, and over which time.
pub type OnClose = Arc<dyn Fn(&Arc<Endpoint>, Duration) + Send + Sync>;

/// Checks that are under way at once, and names that are looked up at once.
const CHECKS_MAX: usize = 64;
const LOOKUPS_MAX: usize = 4;
/// A name service that says nothing for so long has failed.
const LOOKUP_TIMEOUT: Duration = Duration::from_secs(10);

/// The thread; it ends when this is dropped.
#[derive(Debug)]
pub struct Watch {
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Watch {
    /// Starts the thread where there is something to watch.
    ///
    /// # Errors
    ///
    /// The thread, or its runtime, cannot be had.
    pub fn start<'p>(
        plan: impl Iterator<Item = (&'p Arc<Upstream>, &'p Route)>,
        resolver: Resolver,
        on_close: OnClose,
    ) -> io::Result<Option<Watch>> {
        let mut tasks = Vec::new();
        for (upstream, route) in plan {
            let has_names = route.to.iter().any(|entry| entry.name().is_some());
            let every = upstream.rules.resolve_every.filter(|_| has_names);
            if every.is_some() || upstream.rules.health.is_some() {
                tasks.push((Arc::clone(upstream), route.to.clone(), every));
            }
        }
        if tasks.is_empty() {
            return Ok(None);
        }
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_io()
            .enable_time()
            .max_blocking_threads(LOOKUPS_MAX)
            .build()?;
        let (stop, stopped) = oneshot::channel();
        let thread = std::thread::Builder::new().name("upstreams".into()).spawn(move || {
            let checks = Arc::new(Semaphore::new(CHECKS_MAX));
            for (upstream, to, every) in tasks {
                if let Some(health) = upstream.rules.health.clone() {
                    let (upstream, on_close) = (Arc::clone(&upstream), Arc::clone(&on_close));
                    runtime.spawn(check_all(upstream, health, Arc::clone(&checks), on_close));
                }
                if let Some(every) = every {
                    runtime.spawn(follow_names(upstream, to, every, Arc::clone(&resolver)));
                }
            }
            // An error is the sender's end, which is a stop as well.
            let _ = runtime.block_on(stopped);
            // A name service that hangs must not hold up the end.
            runtime.shutdown_background();
        })?;
        Ok(Some(Watch { stop: Some(stop), thread: Some(thread) }))
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // Its panic has been printed, and there is nothing left to save.
            let _ = thread.join();
        }
    }
}

/// Between three and five quarters of `time`: what was begun together does not stay together.
fn about(time: Duration) -> Duration {
    time.mul_f64(0.75 + fastrand::f64() / 2.0)
}

/// Looks the names of a route up again and again.
async fn follow_names(
    upstream: Arc<Upstream>,
    mut to: Vec<Entry>,
    every: Duration,
    resolver: Resolver,
) {
    for entry in &mut to {
        if let EndpointTarget::Tcp(addresses) = &mut entry.target {
            in_order(addresses);
        }
    }
    loop {
        tokio::time::sleep(about(every)).await;
        let mut changed = false;
        for entry in &mut to {
            let Some((name, port)) = entry.name() else { continue };
            match look_up(name.to_owned(), port, &resolver).await {
                Ok(found) => {
                    let found = EndpointTarget::Tcp(found);
                    changed |= entry.target != found;
                    entry.target = found;
                }
                Err(error) => {
                    upstream.counts.failed_lookups.fetch_add(1, Relaxed);
                    let (route, name) = (&*upstream.name, &*entry.text);
                    warn!(route, name, %error, "the name does not resolve: its addresses stay");
                }
            }
        }
        // Also without a change, while there are endpoints to be let go.
        if changed || upstream.has_spent_endpoints() {
            if changed {
                info!(route = &*upstream.name, "a name leads elsewhere: the endpoints are others");
            }
            upstream.lead_to(&to);
        }
    }
}

/// The addresses of a name, in a fixed order; at least one.
async fn look_up(name: String, port: u16, resolver: &Resolver) -> io::Result<Vec<SocketAddr>> {
    let resolver = Arc::clone(resolver);
    let looking = tokio::task::spawn_blocking(move || resolver(&name, port));
    let mut found = match tokio::time::timeout(LOOKUP_TIMEOUT, looking).await {
        Ok(found) => found.map_err(io::Error::other)??,
        Err(_) => return Err(io::ErrorKind::TimedOut.into()),
    };
    in_order(&mut found);
    if found.is_empty() { Err(io::Error::other("it has no address")) } else { Ok(found) }
}

/// Makes two answers comparable: name services shuffle them.
fn in_order(addresses: &mut Vec<SocketAddr>) {
    addresses.sort_unstable();
    addresses.dedup();
}

/// Checks all endpoints of a route, round after round.
async fn check_all(
    upstream: Arc<Upstream>,
    health: Health,
    permits: Arc<Semaphore>,
    on_close: OnClose,
) {
    let health = Arc::new(health);
    loop {
        let mut round = JoinSet::new();
        for endpoint in upstream.leads_to() {
            let (upstream, health) = (Arc::clone(&upstream), Arc::clone(&health));
            let (permits, on_close) = (Arc::clone(&permits), Arc::clone(&on_close));
            round.spawn(async move {
                // Spread over a part of the interval, for the sake of whoever is checked.
                tokio::time::sleep(health.interval.mul_f64(fastrand::f64() / 4.0)).await;
                let _permit = permits.acquire().await;
                check_one(&upstream, &endpoint, &health, &on_close).await;
            });
        }
        round.join_all().await;
        tokio::time::sleep(about(health.interval.mul_f64(0.75))).await;
    }
}

async fn check_one(
    upstream: &Upstream,
    endpoint: &Arc<Endpoint>,
    health: &Health,
    on_close: &OnClose,
) {
    let source = match &endpoint.address {
        Address::Tcp(address) => upstream.sources(*address).next(),
        Address::Unix(_) => None,
    };
    let checking = check(&endpoint.address, source, health);
    let result = tokio::time::timeout(health.timeout, checking)
        .await
        .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
    if !endpoint.checked(result.is_ok(), health.rise, health.fall) {
        return;
    }
    let (route, address) = (&*upstream.name, &endpoint.address);
    match result {
        Ok(()) => info!(route, endpoint = %address, "the endpoint passes its checks: healthy"),
        Err(error) => {
            warn!(route, endpoint = %address, %error, "the endpoint fails its checks: unhealthy");
            if let OnUnhealthy::Close { over } = health.on_unhealthy {
                on_close(endpoint, over);
            }
        }
    }
}
