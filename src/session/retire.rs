//! Ends the sessions of routes that a reload has changed or taken away, where their route asks for it.

use std::rc::Rc;
use std::time::{Duration, Instant};

use super::facts::Facts;
use super::registry::Order;
use super::worker::Worker;
use crate::error::Kind;

/// How many looks there are in the time, and what lies between two of them.
const LOOKS: u32 = 100;
const LOOK_SHORTEST: Duration = Duration::from_millis(10);
const LOOK_LONGEST: Duration = Duration::from_secs(1);

/// Ends this worker's sessions in `slot` evenly `over` a time, unless another reload brings the route back. Exchanges
/// that were under way become sessions there, so it looks for as long as one may take.
///
/// Each look ends each session by chance, in the measure in which the time has passed, as [`super::depart`] does.
pub async fn retire(worker: Rc<Worker>, slot: usize, over: Duration) {
    let until = Instant::now() + over;
    let exchanges = worker.plans.load().route(slot).timeouts.handshake;
    let pause = (over / LOOKS).clamp(LOOK_SHORTEST, LOOK_LONGEST);
    while Instant::now() < until + exchanges + LOOK_LONGEST && !worker.plan().live.contains(&slot) {
        let left = until.saturating_duration_since(Instant::now());
        let chance = pause.as_secs_f64() / left.max(pause).as_secs_f64();
        let goes = |facts: &Facts| facts.route_index() == Some(slot) && fastrand::f64() < chance;
        worker.registry.order_those(goes, || Order::End(Kind::RouteChanged));
        worker.kit.reactor.sleep_until(Instant::now() + pause).await;
    }
}
