//! Reaches an endpoint of the route, one after the other, each within the `connect` timer.

use std::io;
use std::time::{Duration, Instant};

use super::facts::Facts;
use super::worker::Worker;
use crate::config::{Endpoint, EndpointTarget};
use crate::error::{End, Kind, Side, Stage};
use crate::sys::Errno;
use crate::sys::net::{Target, start_connect};
use crate::sys::stream::Stream;

/// A Unix backlog that is full has no readiness to wait for, so it is tried again after this.
const UNIX_RETRY: Duration = Duration::from_millis(5);

/// Connects to the route's next endpoint; when it cannot be reached, to the one after it, and so on once
/// round. The error is the last endpoint's. `facts` say which one was tried last and how many before it, also
/// when the future is dropped because time is up.
pub async fn connect(worker: &Worker, facts: &mut Facts, route: usize) -> Result<Stream, End> {
    let endpoints = &worker.config.routes[route].to;
    let limit = worker.config.routes[route].timeouts.connect;
    let first = worker.next_endpoint(route);
    let mut last = None;
    for tried in 0..endpoints.len() {
        let endpoint = (first + tried) % endpoints.len();
        facts.endpoint = u16::try_from(endpoint).ok();
        facts.retries = u16::try_from(tried).unwrap_or(u16::MAX);
        let reach = reach(worker, &endpoints[endpoint]);
        let reached = worker.kit.reactor.timeout(limit, reach).await;
        let kind = match reached {
            Some(Ok(stream)) => return Ok(stream),
            Some(Err(source)) => Kind::Io { call: "connect", source },
            None => Kind::ConnectTimeout,
        };
        last = Some(kind);
    }
    Err(End::new(Side::Upstream, Stage::Connect, last.expect("a route has an endpoint")))
}

/// Tries each address of one endpoint.
async fn reach(worker: &Worker, endpoint: &Endpoint) -> io::Result<Stream> {
    let addresses = match &endpoint.target {
        EndpointTarget::Unix(path) => return open(worker, Target::Unix(path)).await,
        EndpointTarget::Tcp(addresses) => addresses,
    };
    let mut last = io::Error::from(io::ErrorKind::AddrNotAvailable);
    for &address in addresses {
        match open(worker, Target::Tcp(address, &worker.tcp)).await {
            Ok(stream) => return Ok(stream),
            Err(error) => last = error,
        }
    }
    Err(last)
}

async fn open(worker: &Worker, target: Target<'_>) -> io::Result<Stream> {
    loop {
        match start_connect(target) {
            Ok(socket) => {
                let stream = Stream::new(socket, &worker.kit.reactor)?;
                stream.connected().await?;
                return Ok(stream);
            }
            Err(error)
                if Errno::of(&error) == Errno::Again && matches!(target, Target::Unix(_)) =>
            {
                worker.kit.reactor.sleep_until(Instant::now() + UNIX_RETRY).await;
            }
            Err(error) => return Err(error),
        }
    }
}
