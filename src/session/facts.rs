//! What is known about a session from its exchange, packed small for as long as it lives.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ulid::Ulid;

use super::limiter::Pass;
use super::mode::{Chosen, ChosenBy};
use super::plan::Plan;
use crate::config::Mode;
use crate::metrics::Sort;
use crate::trace::Place;
use crate::upstream::Held;

/// What is known about a session from its exchange; goes along when the session moves.
#[derive(Debug)]
pub struct Facts {
    /// Unique, in every log line of the session.
    pub id: Ulid,
    /// Slot of the listener.
    pub listener: u16,
    /// What it goes by until it is joined; then, whatever plan there is has its route.
    pub plan: Option<Arc<Plan>>,
    /// The route, once there is one.
    pub route: Option<Routed>,
    /// Its share in the endpoint that was tried last.
    pub endpoint: Option<Held>,
    /// Its places among those that are limited, once it has some.
    pub pass: Option<Pass>,
    /// The peer of the accepted connection; `None` over a Unix socket.
    pub peer: Option<SocketAddr>,
    /// What a trusted peer said of its client.
    pub named: Option<Box<Named>>,
    /// What was asked, during the exchange.
    pub asked: Option<Box<Asked>>,
    /// The same once the session is joined.
    pub packed: Option<Packed>,
    /// Where its handshake stands among the traces, if it does.
    pub trace: Option<Box<Place>>,
    /// Status sent downstream.
    pub status: Option<u16>,
    /// When it was accepted.
    pub accepted: Instant,
    /// How long the exchange took, once it is over.
    pub handshake: Option<Duration>,
    /// Endpoints that did not answer before one did.
    pub retries: u16,
}

/// The route of a session, and how the session is carried there.
#[derive(Clone, Copy, Debug)]
pub struct Routed {
    /// Slot of the route.
    pub index: u16,
    /// The route's own mode until a controller was heard.
    pub chosen: Chosen,
}

/// What a trusted peer said of its client.
#[derive(Debug)]
pub struct Named {
    /// The last address in `X-Forwarded-For` that is no trusted proxy.
    pub client: Option<Box<str>>,
    /// `X-Request-ID`, which goes upstream instead of our own.
    pub request_id: Option<Box<str>>,
}

/// The request, as far as it is logged. Query strings are not: they hold tokens.
#[derive(Debug)]
pub struct Asked {
    /// Request method.
    pub method: Box<str>,
    /// Effective host, without port.
    pub host: Box<str>,
    /// Path without query.
    pub path: Box<str>,
    /// `User-Agent`.
    pub user_agent: Option<Box<str>>,
    /// The protocol that the 101 switched to.
    pub upgrade: Option<Box<str>>,
}

/// [`Asked`] in one piece, for as long as the session lives: five small allocations cost more than what
/// they hold. In front stand the ends of its texts; an absent one ends before it begins.
#[derive(Debug)]
pub struct Packed(Box<[u8]>);

/// [`Asked`] as the log line wants it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AskedTexts<'a> {
    /// Request method.
    pub method: Option<&'a str>,
    /// Effective host, without port.
    pub host: Option<&'a str>,
    /// Path without query.
    pub path: Option<&'a str>,
    /// `User-Agent`.
    pub user_agent: Option<&'a str>,
    /// The protocol that the 101 switched to.
    pub upgrade: Option<&'a str>,
}

impl Packed {
    const TEXTS: usize = 5;
    const ABSENT: [u8; 4] = u32::MAX.to_ne_bytes();

    fn new(asked: &Asked) -> Packed {
        let Asked { method, host, path, user_agent, upgrade } = asked;
        let texts = [Some(method), Some(host), Some(path), user_agent.as_ref(), upgrade.as_ref()];
        let len = 4 * Self::TEXTS + texts.iter().flatten().map(|text| text.len()).sum::<usize>();
        let mut bytes = Vec::with_capacity(len);
        bytes.resize(4 * Self::TEXTS, 0);
        for (at, text) in texts.into_iter().enumerate() {
            let end = text.map_or(Self::ABSENT, |text| {
                bytes.extend_from_slice(text.as_bytes());
                u32::try_from(bytes.len()).expect("a head is shorter than that").to_ne_bytes()
            });
            bytes[4 * at..4 * at + 4].copy_from_slice(&end);
        }
        Packed(bytes.into_boxed_slice())
    }

    fn texts(&self) -> AskedTexts<'_> {
        let mut begin = 4 * Self::TEXTS;
        let mut next = |at: usize| {
            let end =
                self.0[4 * at..4 * at + 4].try_into().ok().filter(|&end| end != Self::ABSENT)?;
            let end = u32::from_ne_bytes(end) as usize;
            let text = str::from_utf8(&self.0[begin..end]).expect("it was text");
            begin = end;
            Some(text)
        };
        let [method, host, path, user_agent, upgrade] =
            [next(0), next(1), next(2), next(3), next(4)];
        AskedTexts { method, host, path, user_agent, upgrade }
    }
}

impl Facts {
    /// The plan of the exchange.
    pub fn plan(&self) -> Arc<Plan> {
        Arc::clone(self.plan.as_ref().expect("an exchange has a plan"))
    }

    /// Notes the route in this slot; its mode is the session's for now.
    pub fn note_route(&mut self, index: usize) {
        let mode = self.plan().route(index).mode;
        let chosen = Chosen { mode, by: ChosenBy::Configured };
        self.route = u16::try_from(index).ok().map(|index| Routed { index, chosen });
    }

    /// Slot of its route, once there is one.
    pub fn route_index(&self) -> Option<usize> {
        self.route.map(|route| usize::from(route.index))
    }

    /// What it is counted as.
    pub fn sort(&self) -> Sort {
        let inspected = self.route.is_some_and(|route| route.chosen.mode == Mode::Inspect);
        let upgrade = self.texts().upgrade.unwrap_or_default();
        Sort::of(inspected, upgrade.eq_ignore_ascii_case("websocket"))
    }

    /// What was asked.
    pub fn texts(&self) -> AskedTexts<'_> {
        match (&self.packed, self.asked.as_deref()) {
            (Some(packed), _) => packed.texts(),
            (None, Some(asked)) => AskedTexts {
                method: Some(&asked.method),
                host: Some(&asked.host),
                path: Some(&asked.path),
                user_agent: asked.user_agent.as_deref(),
                upgrade: asked.upgrade.as_deref(),
            },
            (None, None) => AskedTexts::default(),
        }
    }

    /// Makes them as small as they can be: the exchange is over, and the session may live for days.
    pub(super) fn pack(&mut self) {
        if let Some(asked) = self.asked.take() {
            self.packed = Some(Packed::new(&asked));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packed_texts_are_those_that_were_asked_also_where_some_are_absent_or_empty() {
        for (user_agent, upgrade) in
            [(Some("agent \u{fffd}"), Some("websocket")), (None, Some("raw")), (Some(""), None)]
        {
            let mut facts = Facts::new(None, 0);
            facts.asked = Some(Box::new(Asked {
                method: "GET".into(),
                host: "".into(),
                path: "/chat".into(),
                user_agent: user_agent.map(Into::into),
                upgrade: upgrade.map(Into::into),
            }));
            let expected = AskedTexts {
                method: Some("GET"),
                host: Some(""),
                path: Some("/chat"),
                user_agent,
                upgrade,
            };
            assert_eq!(facts.texts(), expected);
            facts.pack();
            assert!(facts.asked.is_none());
            assert_eq!(facts.texts(), expected);
        }
        assert_eq!(Facts::new(None, 0).texts(), AskedTexts::default());
    }
}
