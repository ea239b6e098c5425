//! Which of a route's endpoints a session is given to, and what is held against an endpoint.

use std::net::IpAddr;
use std::time::Duration;

/// How a route uses its endpoints.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UpstreamRules {
    /// Who gets the next session.
    pub balance: Balance,
    /// For how long an endpoint that fails is left alone.
    pub ejection: Ejection,
    /// Checks beside the sessions; `None`, the default: none.
    pub health: Option<Health>,
    /// Local addresses to connect from, in turn; empty, the default: the kernel chooses.
    pub sources: Vec<IpAddr>,
    /// How often the names in `to` are looked up again; `None`: never.
    pub resolve_every: Option<Duration>,
}

/// Who gets the next session.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Balance {
    /// The endpoint with the fewest live sessions for its weight.
    #[default]
    LeastSessions,
    /// Each in turn, as often as its weight says.
    RoundRobin,
    /// The one that rendezvous hashing finds for the request.
    Hash(HashBy),
}

/// What of a request is hashed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HashBy {
    /// The client's address, as a trusted proxy tells it, else the peer's.
    Client,
    /// The first field line of this name, in lower case.
    Header(String),
    /// The first cookie of this name.
    Cookie(String),
}

/// For how long an endpoint that fails is left alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ejection {
    /// Failures in a row until then, of connects and of answers each; `None`: never.
    pub after: Option<u8>,
    /// The first time; it doubles each time the endpoint fails again.
    pub first: Duration,
    /// The longest time.
    pub longest: Duration,
}

/// Checks of every endpoint, beside the sessions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Health {
    /// Between two checks.
    pub interval: Duration,
    /// For one check as a whole.
    pub timeout: Duration,
    /// What is asked for with GET; `None`: a connect is enough.
    pub path: Option<String>,
    /// The answers that count as healthy, from and to; default 2xx.
    pub status: (u16, u16),
    /// Checks in a row that make an unhealthy endpoint healthy.
    pub rise: u16,
    /// Failed checks in a row that make it unhealthy.
    pub fall: u16,
    /// What becomes of its sessions then.
    pub on_unhealthy: OnUnhealthy,
}

/// What becomes of the sessions of an endpoint that its checks found unhealthy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnUnhealthy {
    /// They stay.
    Keep,
    /// They end, spread evenly over this time.
    Close {
        /// Zero: at once.
        over: Duration,
    },
}

impl Default for UpstreamRules {
    fn default() -> UpstreamRules {
        UpstreamRules {
            balance: Balance::default(),
            ejection: Ejection::default(),
            health: None,
            sources: Vec::new(),
            resolve_every: Some(Duration::from_secs(30)),
        }
    }
}

impl Default for Ejection {
    fn default() -> Ejection {
        Ejection {
            after: Some(3),
            first: Duration::from_secs(2),
            longest: Duration::from_secs(120),
        }
    }
}

impl Default for Health {
    fn default() -> Health {
        Health {
            interval: Duration::from_secs(5),
            timeout: Duration::from_secs(2),
            path: None,
            status: (200, 299),
            rise: 2,
            fall: 3,
            on_unhealthy: OnUnhealthy::Keep,
        }
    }
}
