//! What others may ask a worker about its live sessions: a little at a time, answered between turns, so that
//! the sessions do not notice.

use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use tokio::sync::oneshot;
use ulid::Ulid;

use super::facts::Facts;
use super::registry::{Joined, Order, Registry, Seat};
use super::worker::Worker;
use crate::config::Mode;
use crate::error::Kind;
use crate::metrics::{Direction, Engine};
use crate::relay::watch::{Unwatchable, Watch};
use crate::relay::{Carried, Relay, Violation};
use crate::upstream::Endpoint;

/// Sessions that are looked at for one answer. What a look costs, note 0023 says.
pub const LOOKED_AT_MAX: usize = 64;
/// The same of empty seats, which cost less.
const SEATS_MAX: usize = 16 * LOOKED_AT_MAX;

/// A question to one worker, and where the answer goes. Nobody need wait for it.
#[derive(Debug)]
pub enum Question {
    /// Which sessions fit, from this seat on, as far as one look goes.
    Look {
        /// Where the last look has stopped; 0 at first.
        from: usize,
        /// Which sessions are meant.
        filter: Arc<Filter>,
        /// For the answer.
        reply: oneshot::Sender<Looked>,
    },
    /// End this session; the answer is whether it is here.
    Kill {
        /// Which one.
        place: Place,
        /// For the answer.
        reply: oneshot::Sender<bool>,
    },
    /// Let this one know what the session does; `None` when it is not here.
    Watch {
        /// Which one.
        place: Place,
        /// Who wants to know.
        watch: Watch,
        /// For the answer.
        reply: oneshot::Sender<Option<Result<(), Unwatchable>>>,
    },
}

/// Where a session was seen. It may have moved since.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Index of the worker.
    pub worker: usize,
    /// Its seat there.
    pub seat: usize,
    /// Who had it.
    pub id: Ulid,
}

/// What a look has found.
#[derive(Debug)]
pub struct Looked {
    /// Sessions that fit, and where they are.
    pub found: Vec<(Place, SessionView)>,
    /// Where the next look begins; `None` when all seats were looked at.
    pub next: Option<usize>,
}

/// Which sessions are meant: those to which all of this applies.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// Only this one.
    pub id: Option<Ulid>,
    /// The slots of their route.
    pub routes: Option<Vec<usize>>,
    /// Their endpoint: its address, or as configured.
    pub endpoint: Option<String>,
    /// Where the client is, as the log tells it.
    pub client: Option<IpNet>,
    /// How they are carried.
    pub mode: Option<Mode>,
    /// What moves the bytes of one direction, or of both.
    pub engine: Option<Engine>,
    /// At least so old.
    pub age_min: Duration,
    /// At least so many bytes were taken, of both directions together.
    pub bytes_min: u64,
}

/// A session as the process shows it.
#[derive(Clone, Debug)]
pub struct SessionView {
    /// Its id, as in the log.
    pub id: String,
    /// The worker that carries it.
    pub worker: usize,
    /// Slot of its route.
    pub route: usize,
    /// Where it leads.
    pub endpoint: Option<Arc<Endpoint>>,
    /// The peer of the accepted connection; `None` over a Unix socket.
    pub peer: Option<SocketAddr>,
    /// The client as a trusted peer named it.
    pub named: Option<Box<str>>,
    /// How it is carried.
    pub mode: Mode,
    /// What moves the bytes, by [`Direction`].
    pub engines: [Engine; 2],
    /// Counts by [`Direction`].
    pub carried: [Carried; 2],
    /// Directions whose source is not read, since the sink is full.
    pub paused: [bool; 2],
    /// Whether one side has ended.
    pub half_closed: bool,
    /// Since it was accepted.
    pub age: Duration,
    /// What is told of one session, not of many.
    pub detail: Option<Box<Detail>>,
}

/// The rest of what is known of a session.
#[derive(Clone, Debug)]
pub struct Detail {
    /// Index of its listener.
    pub listener: usize,
    /// Effective host, without port.
    pub host: Option<String>,
    /// Path without query.
    pub path: Option<String>,
    /// `User-Agent`.
    pub user_agent: Option<String>,
    /// The protocol that the 101 switched to.
    pub upgrade: Option<String>,
    /// Who chose the mode: the word of the log.
    pub mode_by: &'static str,
    /// From accept to the 101.
    pub handshake: Option<Duration>,
    /// How its frames are inspected: the word of the configuration.
    pub inspect: Option<&'static str>,
    /// The first rule that was broken, if that did not end it.
    pub violation: Option<Violation>,
}

/// Answers.
pub fn answer(worker: &Rc<Worker>, question: Question) {
    let registry = &worker.registry;
    // Whoever has asked may have left meanwhile.
    match question {
        Question::Look { from, filter, reply } => drop(reply.send(look(worker, from, &filter))),
        Question::Kill { place, reply } => {
            let is_here = seat_at(registry, place).is_some();
            if is_here {
                registry.order(place.seat, Order::End(Kind::Killed));
            }
            let _ = reply.send(is_here);
        }
        Question::Watch { place, watch, reply } => {
            let seat = seat_at(registry, place);
            let watched = seat.and_then(|seat| seat.with_relay(|relay| relay.watch(watch)));
            let _ = reply.send(watched);
        }
    }
}

/// The seat, if the session still has it.
fn seat_at(registry: &Registry, place: Place) -> Option<Rc<Seat>> {
    registry.get(place.seat).filter(|seat| seat.id() == Some(place.id))
}

fn look(worker: &Worker, from: usize, filter: &Filter) -> Looked {
    let registry = &worker.registry;
    let (end, mut at, mut looked_at) = (registry.seats(), from, 0);
    let mut found = Vec::new();
    while at < end && looked_at < LOOKED_AT_MAX && at - from < SEATS_MAX {
        if let Some(seat) = registry.get(at) {
            looked_at += 1;
            found.extend(
                seat.with_joined(|joined| filter.view(worker, &seat, at, joined)).flatten(),
            );
        }
        at += 1;
    }
    let is_found = filter.id.is_some() && !found.is_empty();
    Looked { found, next: (at < end && !is_found).then_some(at) }
}

impl Filter {
    fn view(
        &self,
        worker: &Worker,
        seat: &Seat,
        at: usize,
        joined: &Joined,
    ) -> Option<(Place, SessionView)> {
        let Joined { relay, facts, .. } = joined;
        if !self.fits(facts, relay) {
            return None;
        }
        let mut view = SessionView::of(worker.index, seat, facts, relay);
        if self.id.is_some() {
            view.detail = Some(Box::new(Detail::of(facts, relay)));
        }
        Some((Place { worker: worker.index, seat: at, id: facts.id }, view))
    }

    fn fits(&self, facts: &Facts, relay: &Relay) -> bool {
        let route = facts.route_index();
        // By its address, or by the name that it was found by.
        let leads_to = |wanted: &String| {
            let endpoint = facts.endpoint.as_ref().map(|held| held.endpoint());
            endpoint.is_some_and(|endpoint| {
                endpoint.text() == wanted || endpoint.address().to_string() == *wanted
            })
        };
        let engines = || Direction::BOTH.map(|direction| relay.engine(direction));
        let taken = || {
            let carried = Direction::BOTH.map(|direction| relay.live().carried(direction).taken());
            carried.iter().sum::<u64>()
        };
        self.id.is_none_or(|id| facts.id == id)
            && self
                .routes
                .as_ref()
                .is_none_or(|slots| route.is_some_and(|slot| slots.contains(&slot)))
            && self.mode.is_none_or(|mode| facts.route.is_some_and(|r| r.chosen.mode == mode))
            && self.endpoint.as_ref().is_none_or(leads_to)
            && self.client.is_none_or(|net| client(facts).is_some_and(|ip| net.contains(&ip)))
            && self.engine.is_none_or(|engine| engines().contains(&engine))
            && (self.age_min.is_zero() || facts.accepted.elapsed() >= self.age_min)
            && (self.bytes_min == 0 || taken() >= self.bytes_min)
    }
}

/// Where the client is.
fn client(facts: &Facts) -> Option<IpAddr> {
    let named = facts.named.as_ref().and_then(|named| named.client.as_deref());
    match named {
        Some(named) => named.parse().ok(),
        None => facts.peer.map(|peer| peer.ip()),
    }
    .map(|ip: IpAddr| ip.to_canonical())
}

impl SessionView {
    /// What is to be seen of the session in `seat` now.
    pub fn of(worker: usize, seat: &Seat, facts: &Facts, relay: &Relay) -> SessionView {
        SessionView {
            id: facts.id.to_string(),
            worker,
            route: seat.route(),
            endpoint: facts.endpoint.as_ref().map(|held| Arc::clone(held.endpoint())),
            peer: facts.peer,
            named: facts.named.as_ref().and_then(|named| named.client.clone()),
            mode: facts.route.map_or(Mode::ZeroCopy, |route| route.chosen.mode),
            engines: Direction::BOTH.map(|direction| relay.engine(direction)),
            carried: Direction::BOTH.map(|direction| relay.live().carried(direction)),
            paused: Direction::BOTH.map(|direction| relay.is_paused(direction)),
            half_closed: seat.is_half_closed(),
            age: facts.accepted.elapsed(),
            detail: None,
        }
    }
}

impl Detail {
    fn of(facts: &Facts, relay: &Relay) -> Detail {
        let asked = facts.texts();
        let owned = |text: Option<&str>| text.map(str::to_owned);
        Detail {
            listener: facts.listener.into(),
            host: owned(asked.host),
            path: owned(asked.path),
            user_agent: owned(asked.user_agent),
            upgrade: owned(asked.upgrade),
            mode_by: facts.route.map_or("", |route| route.chosen.by.as_str()),
            handshake: facts.handshake,
            inspect: relay.framed().map(|framed| framed.policy().depth.as_str()),
            violation: relay.framed().and_then(|framed| framed.violation()),
        }
    }
}
