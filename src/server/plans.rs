//! Makes a plan of a configuration: what the kernel can do is known by now.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::SystemTime;

use tracing::info;

use super::slots::Placed;
use super::{StartError, choice, tcp_options};
use crate::config::{self, Config, Route};
use crate::metrics::Engine;
use crate::route::Routes;
use crate::session::plan::{Carriage, Plan};
use crate::sys::probe::Probe;
use crate::upstream::Upstreams;

/// The plan of a start; `ports` are those of the listeners.
///
/// # Errors
///
/// The configuration asks for what cannot be had here.
pub(super) fn first(
    config: Config,
    probe: &Probe,
    ports: Box<[Option<u16>]>,
) -> Result<Plan, StartError> {
    let routes = config.routes.iter().enumerate();
    let carriage = carriage(routes, config.gateway.no_fallback, probe)?;
    Ok(Plan {
        generation: 0,
        since: SystemTime::now(),
        live: (0..config.routes.len()).collect(),
        routes: Routes::new(config.routes.iter().enumerate()),
        carriage: carriage.into_iter().map(|(_, carriage)| carriage).collect(),
        upstreams: Upstreams::new(&config),
        tcp: tcp_options(&config.gateway.tcp),
        limiter: Arc::default(),
        ports,
        config: config.into(),
    })
}

/// How the sessions of all slots are carried that a reload has `placed` after those of `before`.
///
/// # Errors
///
/// The configuration asks for what cannot be had here.
pub(super) fn carriage_after(
    before: &Plan,
    placed: &Placed,
    gateway: &config::Gateway,
    probe: &Probe,
) -> Result<Vec<Carriage>, StartError> {
    let mut all = before.carriage.to_vec();
    let new = placed.live.iter().filter(|slot| !placed.kept.contains(slot));
    let routes = new.map(|&slot| (slot, &placed.routes[slot]));
    for (slot, carriage) in carriage(routes, gateway.no_fallback, probe)? {
        match all.get_mut(slot) {
            Some(there) => *there = carriage,
            // New slots follow on each other.
            None => all.push(carriage),
        }
    }
    Ok(all)
}

/// How each route's sessions are carried. What was taken and why is logged, one line per reason.
///
/// # Errors
///
/// The configuration asks for what cannot be had here.
fn carriage<'r>(
    routes: impl IntoIterator<Item = (usize, &'r Route)>,
    no_fallback: bool,
    probe: &Probe,
) -> Result<Vec<(usize, Carriage)>, StartError> {
    let mut carriage = Vec::new();
    let mut taken: BTreeMap<(&str, String), Vec<&str>> = BTreeMap::new();
    for (slot, route) in routes {
        let choice = choice::engine_for(probe, route.engine, no_fallback);
        let Some(engine) = choice.taken else {
            return Err(StartError::Unable(format!("route {:?}: {}", route.name, choice.why)));
        };
        carriage.push((slot, carried_by(route.engine, engine)));
        taken.entry((choice::engine_word(engine), choice.why)).or_default().push(&route.name);
    }
    for ((engine, why), routes) in &taken {
        let routes = match routes[..] {
            [route] => format!("route {route}"),
            _ => format!("{} routes", routes.len()),
        };
        info!("engine {engine} for {routes}: {why}");
    }
    Ok(carriage)
}

fn carried_by(asked: config::Engine, taken: config::Engine) -> Carriage {
    let (engine, adaptive) = match taken {
        config::Engine::Auto => (Engine::Copy, true),
        config::Engine::Copy => (Engine::Copy, false),
        config::Engine::Splice => (Engine::Splice, false),
        config::Engine::Uring => (Engine::Uring, false),
    };
    let reason = match (asked, taken) {
        (config::Engine::Auto, config::Engine::Auto) => "adaptive",
        (config::Engine::Auto, _) => "probed",
        _ if asked == taken => "configured",
        (config::Engine::Uring, _) => "uring_refused",
        _ => "splice_refused",
    };
    Carriage { engine, adaptive, reason }
}

/// The engines that a plan's sessions begin with, for people.
pub(super) fn engines(plan: &Plan) -> String {
    let word = |carriage: &Carriage| match (carriage.adaptive, carriage.engine) {
        (true, _) => config::Engine::Auto,
        (_, Engine::Copy) => config::Engine::Copy,
        (_, Engine::Splice) => config::Engine::Splice,
        (_, Engine::Uring) => config::Engine::Uring,
    };
    let carriage = plan.live.iter().map(|&slot| &plan.carriage[slot]);
    let mut engines: Vec<_> =
        carriage.map(|carriage| choice::engine_word(word(carriage))).collect();
    engines.sort_unstable();
    engines.dedup();
    let s = if engines.len() == 1 { "" } else { "s" };
    format!("engine{s} {}", engines.join(", "))
}
