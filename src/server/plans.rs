//! Makes a plan of a configuration: what the kernel can do is known by now.

use std::collections::BTreeMap;

use tracing::info;

use super::{StartError, choice, tcp_options};
use crate::config::{self, Config};
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
    let carriage = carriage(&config, probe)?;
    Ok(Plan {
        generation: 0,
        live: (0..config.routes.len()).collect(),
        routes: Routes::new(config.routes.iter().enumerate()),
        carriage: carriage.into(),
        upstreams: Upstreams::new(&config),
        tcp: tcp_options(&config.gateway.tcp),
        ports,
        config: config.into(),
    })
}

/// How each route's sessions are carried. What was taken and why is logged, one line per reason.
///
/// # Errors
///
/// The configuration asks for what cannot be had here.
fn carriage(config: &Config, probe: &Probe) -> Result<Vec<Carriage>, StartError> {
    let mut carriage = Vec::new();
    let mut taken: BTreeMap<(&str, String), Vec<&str>> = BTreeMap::new();
    for route in &config.routes {
        let choice = choice::engine_for(probe, route.engine, config.gateway.no_fallback);
        let Some(engine) = choice.taken else {
            return Err(StartError::Unable(format!("route {:?}: {}", route.name, choice.why)));
        };
        carriage.push(carried_by(route.engine, engine));
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
