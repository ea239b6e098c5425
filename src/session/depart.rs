//! Ends the sessions of an endpoint that became unhealthy, spread over a time.

use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::registry::Order;
use super::worker::Worker;
use crate::error::Kind;
use crate::upstream::Endpoint;

/// How many looks there are in the time, and what lies between two of them.
const LOOKS: u32 = 100;
const LOOK_SHORTEST: Duration = Duration::from_millis(10);
const LOOK_LONGEST: Duration = Duration::from_secs(1);
/// Looks after the end of the time: a session may be on its way between workers at any one of them.
const LOOKS_BEYOND: u32 = 5;

/// Ends this worker's sessions of `endpoint` evenly `over` a time, unless its checks change their mind. Sessions
/// that were accepted since stay: they got there knowing.
///
/// Each look ends each session by chance, in the measure in which the time has passed. So nothing has to be
/// kept of a session, and one that moves to another worker meets the same chances there.
pub async fn depart(worker: Rc<Worker>, endpoint: Arc<Endpoint>, over: Duration) {
    let (began, changes) = (Instant::now(), endpoint.changes());
    let until = began + over;
    let pause = (over / LOOKS).clamp(LOOK_SHORTEST, LOOK_LONGEST);
    let mut looks_beyond = 0;
    while looks_beyond < LOOKS_BEYOND && endpoint.is_unhealthy() && endpoint.changes() == changes {
        let left = until.saturating_duration_since(Instant::now());
        let chance = pause.as_secs_f64() / left.max(pause).as_secs_f64();
        if left <= pause {
            looks_beyond += 1;
        }
        let goes = |facts: &super::facts::Facts| {
            let held = facts.endpoint.as_ref();
            held.is_some_and(|held| Arc::ptr_eq(held.endpoint(), &endpoint))
                && facts.accepted < began
                && fastrand::f64() < chance
        };
        worker.registry.order_those(goes, || Order::End(Kind::EndpointUnhealthy));
        worker.kit.reactor.sleep_until(Instant::now() + pause).await;
    }
}
