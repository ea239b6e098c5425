//! What sessions go by: one configuration, made ready. It never changes; a reload puts another in its place.
//!
//! Routes and listeners have **slots**: a route that a reload leaves as it is keeps its own, a route that it
//! changes gets another, and the old one stays for as long as it has sessions. So the index that a session holds
//! means the same for all its life, in whatever plan it is looked up.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::limiter::Limiter;
use super::registry::Windows;
use crate::config::{Config, Route};
use crate::metrics::Engine;
use crate::relay::Way;
use crate::route::Routes;
use crate::sys::net::TcpOptions;
use crate::upstream::Upstreams;

/// How the sessions of a route are carried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Carriage {
    /// The engine that both directions begin with.
    pub engine: Engine,
    /// Whether the traffic of a direction decides from then on.
    pub adaptive: bool,
    /// The word for why, in the log.
    pub reason: &'static str,
}

/// One configuration, made ready.
#[derive(Debug)]
pub struct Plan {
    /// How many plans there were before this one.
    pub generation: u64,
    /// When it was made.
    pub since: SystemTime,
    /// The configuration. Its routes are by slot, those included that take no more sessions.
    pub config: Arc<Config>,
    /// The slots whose routes take sessions, in the order of the file.
    pub live: Box<[usize]>,
    /// The routes that take sessions, made ready for look-up: it finds slots.
    pub routes: Routes,
    /// How the sessions of each route are carried, by slot.
    pub carriage: Box<[Carriage]>,
    /// The endpoints of each route, by slot.
    pub upstreams: Upstreams,
    /// TCP options of connects.
    pub tcp: TcpOptions,
    /// What is counted against limits; the same in all plans.
    pub limiter: Arc<Limiter>,
    /// The port of each listener, by slot; `None` for Unix sockets.
    pub ports: Box<[Option<u16>]>,
}

impl Carriage {
    /// A direction at its beginning, owing `head_data`, of which `given` bytes went out with the head.
    pub fn way(&self, head_data: Vec<u8>, given: usize) -> Way {
        let way = Way::new(self.engine, head_data, given);
        if self.adaptive { way.adaptive() } else { way }
    }
}

impl Plan {
    /// The route in this slot, which a session has found there.
    pub fn route(&self, slot: usize) -> &Route {
        &self.config.routes[slot]
    }

    /// The routes that take sessions, with their slots.
    pub fn live_routes(&self) -> impl Iterator<Item = (usize, &Route)> {
        self.live.iter().map(|&slot| (slot, self.route(slot)))
    }

    /// All slots that the routes of this name have, or had.
    pub fn slots_of(&self, name: &str) -> Vec<usize> {
        let routes = self.config.routes.iter().enumerate();
        routes.filter(|(_, route)| route.name == name).map(|(slot, _)| slot).collect()
    }

    /// The names of all routes, each once: those that take sessions first, in the order of the file.
    pub fn names(&self) -> Vec<&str> {
        let mut names: Vec<&str> = self.live_routes().map(|(_, route)| &*route.name).collect();
        for route in &self.config.routes {
            if !names.contains(&&*route.name) {
                names.push(&route.name);
            }
        }
        names
    }

    /// The relay timers of a route.
    pub fn windows(&self, slot: usize) -> Windows {
        let timeouts = &self.route(slot).timeouts;
        Windows { idle: timeouts.idle, half_close: timeouts.half_close }
    }

    /// The longest time that any route gives an exchange: the bound until the route is known.
    pub fn handshake_longest(&self) -> Duration {
        let handshakes = self.live_routes().map(|(_, route)| route.timeouts.handshake);
        handshakes.max().unwrap_or_default()
    }
}
