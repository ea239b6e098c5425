//! How a session ended: side × stage × kind, on the two axes operators know from HAProxy's
//! termination state: who ended it, and when.

use std::fmt;
use std::io;

/// Whose doing it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Side {
    /// The side that connected to us.
    Downstream,
    /// The side we connected to.
    Upstream,
    /// upsplice itself: a timer, a limit, a stop.
    Proxy,
}

/// How far the session had come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Stage {
    /// Reading and judging the request head (and its body, if it has one).
    Request,
    /// Reaching the upstream.
    Connect,
    /// Waiting for the upstream's head, or relaying an answer that is no 101.
    Response,
    /// After the 101.
    Relay,
}

/// What happened. A closed list: logs and metrics carry [`Kind::as_str`].
#[derive(Debug)]
pub enum Kind {
    /// Both directions ended in order.
    Completed,
    /// The connection ended before it asked for anything.
    NoRequest,
    /// The connection ended in the middle of a head, a body or an answer.
    Truncated,
    /// A reset (RST) by the peer.
    Reset,
    /// A head, or what it asks for, breaks a rule; the word is the rule's short name.
    Refused(&'static str),
    /// The upstream's answer was relayed, and it was no 101.
    Answered,
    /// No route for this host, path and protocol.
    NoRoute,
    /// `connect` timer.
    ConnectTimeout,
    /// `handshake` timer.
    HandshakeTimeout,
    /// `idle` timer.
    IdleTimeout,
    /// `half_close` timer.
    HalfCloseTimeout,
    /// The `drain` deadline, or a second signal.
    Stopped,
    /// The operator ended it.
    Killed,
    /// A side broke a rule of the inspected protocol, or a limit of the route; the word is the rule's.
    Violation(&'static str),
    /// A side did not answer a ping of ours.
    HeartbeatTimeout,
    /// The endpoint fails its checks, and the route ends its sessions then.
    EndpointUnhealthy,
    /// A reload changed its route, or took it away, and the route ends its sessions then.
    RouteChanged,
    /// The gateway, its route or its endpoint drains, and it was told to leave or not let in.
    Drained,
    /// The engine cannot carry the session and `no_fallback` forbids another.
    EngineRefused,
    /// There are as many as may be, or they come too fast.
    Limited {
        /// Which limit says so.
        limit: Limit,
        /// When to try again, in seconds.
        retry_after: u32,
    },
    /// This machine has no port left to connect from.
    NoLocalPort,
    /// A system call failed; `call` is its man-page name.
    Io {
        /// Man-page name of the call.
        call: &'static str,
        /// What it said.
        source: io::Error,
    },
}

/// What there may be only so many of, or only so fast.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Limit {
    /// Sessions of the gateway.
    Sessions,
    /// Sessions of the route.
    RouteSessions,
    /// Sessions of the client.
    ClientSessions,
    /// Handshakes per second of the gateway.
    Handshakes,
    /// Handshakes per second of the route.
    RouteHandshakes,
    /// Handshakes per second of the client.
    ClientHandshakes,
    /// Connections of the gateway that are in their exchange.
    Exchanges,
    /// Connections of the client that are in their exchange.
    ClientExchanges,
}

/// Why a session ended.
#[derive(Debug)]
pub struct End {
    /// Whose doing.
    pub side: Side,
    /// When.
    pub stage: Stage,
    /// What.
    pub kind: Kind,
}

impl Side {
    /// The word in logs, metrics and the API.
    pub fn as_str(self) -> &'static str {
        match self {
            Side::Downstream => "downstream",
            Side::Upstream => "upstream",
            Side::Proxy => "proxy",
        }
    }
}

impl Stage {
    /// The word in logs, metrics and the API.
    pub fn as_str(self) -> &'static str {
        match self {
            Stage::Request => "request",
            Stage::Connect => "connect",
            Stage::Response => "response",
            Stage::Relay => "relay",
        }
    }
}

impl Limit {
    /// All, in the order of their words.
    pub const ALL: [Limit; 8] = [
        Limit::Sessions,
        Limit::RouteSessions,
        Limit::ClientSessions,
        Limit::Handshakes,
        Limit::RouteHandshakes,
        Limit::ClientHandshakes,
        Limit::Exchanges,
        Limit::ClientExchanges,
    ];

    /// Whether the client alone is to blame.
    pub fn is_of_client(self) -> bool {
        matches!(self, Limit::ClientSessions | Limit::ClientHandshakes | Limit::ClientExchanges)
    }
}

impl Kind {
    /// The words of all kinds, in the order of their counters.
    pub const WORDS: [&'static str; 29] = [
        "completed",
        "no_request",
        "truncated",
        "reset",
        "refused",
        "answered",
        "no_route",
        "connect_timeout",
        "handshake_timeout",
        "idle_timeout",
        "half_close_timeout",
        "stopped",
        "killed",
        "violation",
        "heartbeat_timeout",
        "endpoint_unhealthy",
        "route_changed",
        "drained",
        "engine_refused",
        "io",
        "limit_sessions",
        "limit_route_sessions",
        "limit_client_sessions",
        "limit_handshakes",
        "limit_route_handshakes",
        "limit_client_handshakes",
        "limit_exchanges",
        "limit_client_exchanges",
        "no_local_port",
    ];

    /// The word in logs, metrics and the API.
    pub fn as_str(&self) -> &'static str {
        Self::WORDS[self.index()]
    }

    /// The place of its word.
    pub fn index(&self) -> usize {
        match self {
            Kind::Completed => 0,
            Kind::NoRequest => 1,
            Kind::Truncated => 2,
            Kind::Reset => 3,
            Kind::Refused(_) => 4,
            Kind::Answered => 5,
            Kind::NoRoute => 6,
            Kind::ConnectTimeout => 7,
            Kind::HandshakeTimeout => 8,
            Kind::IdleTimeout => 9,
            Kind::HalfCloseTimeout => 10,
            Kind::Stopped => 11,
            Kind::Killed => 12,
            Kind::Violation(_) => 13,
            Kind::HeartbeatTimeout => 14,
            Kind::EndpointUnhealthy => 15,
            Kind::RouteChanged => 16,
            Kind::Drained => 17,
            Kind::EngineRefused => 18,
            Kind::Io { .. } => 19,
            Kind::Limited { limit, .. } => 20 + *limit as usize,
            Kind::NoLocalPort => 28,
        }
    }

    /// What `as_str` leaves out: the rule that refused, or the call that failed.
    pub fn detail(&self) -> Option<String> {
        match self {
            Kind::Refused(rule) | Kind::Violation(rule) => Some((*rule).to_owned()),
            Kind::Io { call, source } => Some(format!("{call}: {source}")),
            _ => None,
        }
    }
}

impl End {
    /// An end of this side, stage and kind.
    pub fn new(side: Side, stage: Stage, kind: Kind) -> End {
        End { side, stage, kind }
    }

    /// A failed system call; `ECONNRESET` and `EPIPE` are the peer's reset, everything else is `Io`.
    pub fn io(side: Side, stage: Stage, call: &'static str, source: io::Error) -> End {
        let reset =
            matches!(source.kind(), io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe);
        let kind = if reset { Kind::Reset } else { Kind::Io { call, source } };
        End { side, stage, kind }
    }
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}: {}", self.side.as_str(), self.stage.as_str(), self.kind.as_str())?;
        match self.kind.detail() {
            Some(detail) => write!(f, " ({detail})"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_limit_has_a_word_of_its_own() {
        let words = Limit::ALL.map(|limit| Kind::Limited { limit, retry_after: 1 }.as_str());
        assert_eq!((words[0], words[7]), ("limit_sessions", "limit_client_exchanges"));
        assert!(words.iter().all(|word| word.starts_with("limit_")), "{words:?}");
        assert_eq!(Kind::NoLocalPort.as_str(), "no_local_port");
        assert_eq!(Kind::NoLocalPort.index() + 1, Kind::WORDS.len());
    }
}
