//! What the operator asked for: values that are valid because they exist.
//!
//! [`Config`] is built by [`load()`] from flags, environment and a TOML file, or by [`from_toml`] from the text of
//! a file alone; all faults are reported at once, as [`Faults`]. Nothing here opens a socket.

mod admin;
pub mod admission;
mod defaults;
mod fault;
mod file;
pub mod inspection;
mod load;
pub mod log;
mod origin;
mod section;
pub mod traces;
pub mod upstreams;
pub mod value;

use std::io;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;

use admission::{Admission, Crowd};
use inspection::Inspection;
use log::LogRules;
use traces::Traces;
use upstreams::UpstreamRules;

pub use admin::{ADMIN_SOCKET, Reach, Token};
pub use fault::{Fault, Faults};
pub use load::Sources;
pub use origin::{Origin, OriginPattern, Origins};

/// Everything a gateway needs to start.
#[derive(Clone, Debug)]
pub struct Config {
    /// Settings of the process as a whole.
    pub gateway: Gateway,
    /// Where downstream connections are accepted; never empty.
    pub listeners: Vec<Listener>,
    /// In the order of the file; never empty.
    pub routes: Vec<Route>,
    /// True when neither `--config` nor `--to` was given: the embedded echo backend and test page.
    pub demo: bool,
    /// Where it was read from.
    pub file: Option<PathBuf>,
}

/// `[gateway]`
#[derive(Clone, Debug)]
pub struct Gateway {
    /// Threads that carry sessions; default: one per core. At least 1.
    pub workers: usize,
    /// Which async runtime each worker runs in.
    pub runtime: Runtime,
    /// How long a worker looks for events before it sleeps; zero, the default: not at all. It trades CPU time
    /// for latency.
    pub busy_poll: Duration,
    /// Give connections and sessions to the worker that has the least; default true.
    pub balance: bool,
    /// How long sessions may go on after SIGTERM.
    pub drain: Duration,
    /// Over which time SIGTERM tells them to leave; `None`, the default: they are waited for.
    pub drain_over: Option<Duration>,
    /// How many sessions a drain tells to leave per second at most, of the whole gateway; `None`: any number.
    /// Default 1,000: their clients come back somewhere, all at once if nobody prevents it.
    pub drain_rate: Option<u32>,
    /// Refuse a session rather than carry it by another engine than the one configured.
    pub no_fallback: bool,
    /// The name in `Via` and in the loop check (RFC 9110 §7.6.3). A token.
    pub name: String,
    /// Peers whose `Forwarded`, `X-Forwarded-*` and `X-Request-ID` are believed and appended to.
    pub trusted_proxies: Vec<IpNet>,
    /// Peers that may choose the mode of a session; default: nobody.
    pub trusted_controllers: Controllers,
    /// One JSON line per session end, to stdout or a file.
    pub access_log: bool,
    /// Where the log goes, and what of it is hidden.
    pub log: LogRules,
    /// Whether spans are exported, and whose traces are continued.
    pub traces: Traces,
    /// The user to become once the listeners are bound, by name or number; `None`: stay who we are.
    pub user: Option<String>,
    /// Its group; `None`: the user's own.
    pub group: Option<String>,
    /// Give up what a running gateway does not do: system calls, files, capabilities; default true.
    pub sandbox: bool,
    /// Reload whenever the file has become another; default false.
    pub watch_file: bool,
    /// Where the operator is answered; `None`: nowhere.
    pub admin: Option<Listen>,
    /// What requests over TCP must know there.
    pub admin_token: Option<Token>,
    /// Limits of a head.
    pub limits: Limits,
    /// Who is let in.
    pub admission: Admission,
    /// Socket options of both legs.
    pub tcp: Tcp,
}

/// Who may choose the mode of a session with `Upsplice-Use-Zero-Copy`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Controllers {
    /// Peers over TCP.
    pub networks: Vec<IpNet>,
    /// Peers over Unix sockets.
    pub unix: bool,
}

/// Limits of the exchange.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Start line, fields and the blank line together; default 32 KiB.
    pub head_bytes_max: usize,
    /// Field lines in a head; default 100.
    pub fields_max: usize,
    /// One line of a head; default 8 KiB.
    pub line_bytes_max: usize,
    /// Bytes beyond a client's head and body that are held until the 101; the rest stays in the socket. A read
    /// makes room for 4 KiB, so more than that changes nothing. Default 64 KiB.
    pub head_data_bytes_max: usize,
    /// Request body along with an Upgrade (`Content-Length` only); default 64 KiB.
    pub body_bytes_max: usize,
}

/// `[gateway.tcp]`: options of every TCP socket, both legs.
#[derive(Clone, Copy, Debug)]
pub struct Tcp {
    /// `TCP_NODELAY`; default true (rule R17).
    pub nodelay: bool,
    /// Idle time before the first keepalive probe; `None` turns keepalive off. Default 60 s.
    pub keepalive: Option<Duration>,
    /// Time between probes; default 15 s.
    pub keepalive_interval: Duration,
    /// Probes unanswered until the connection is dropped; default 4.
    pub keepalive_probes: u32,
    /// `TCP_USER_TIMEOUT`: how long sent bytes may stay unacknowledged, **and** how long a peer may leave
    /// its window closed, so a client that pauses is ended too; `None`, the default, leaves the kernel's.
    pub user_timeout: Option<Duration>,
}

/// Which runtime carries a worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Runtime {
    /// What the probe and the lab say is best here.
    Auto,
    /// tokio-uring.
    Uring,
    /// plain tokio.
    Epoll,
}

/// `[[listener]]`
#[derive(Clone, Debug)]
pub struct Listener {
    /// Where it accepts.
    pub address: Listen,
}

/// An address to accept on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Listen {
    /// IPv4 or IPv6; port 0 lets the kernel choose.
    Tcp(SocketAddr),
    /// A path; a stale socket file is replaced.
    Unix(PathBuf),
}

/// `[[route]]`
#[derive(Clone, Debug, PartialEq)]
pub struct Route {
    /// Unique; in logs and metrics.
    pub name: String,
    /// Which hosts; `None`: every host.
    pub host: Option<HostPattern>,
    /// Path prefix on a segment boundary; starts with `/`.
    pub path: String,
    /// Upgrade tokens this route carries.
    pub protocols: Protocols,
    /// How a session is carried, unless a controller says otherwise.
    pub mode: Mode,
    /// How it is looked into in mode `inspect`.
    pub inspection: Arc<Inspection>,
    /// Which pages may open sessions; `None`: any.
    pub origins: Option<Origins>,
    /// The WebSocket subprotocols that may be offered and chosen; `None`: any. Never empty.
    pub subprotocols: Option<Vec<String>>,
    /// Which engine moves the bytes.
    pub engine: Engine,
    /// Upstream addresses; never empty.
    pub to: Vec<Endpoint>,
    /// How they are used.
    pub upstreams: Arc<UpstreamRules>,
    /// The four timers.
    pub timeouts: Timeouts,
    /// Check `Sec-WebSocket-*` (rules U4, U5); default true. False admits key-less "websocket".
    pub websocket_strict: bool,
    /// Send our own `Sec-WebSocket-Key` upstream and answer the client's ourselves (rule U4); default false.
    pub rekey: bool,
    /// Accept `Upgrade` without `Connection: upgrade` (old dqlite clients); default false.
    pub lenient_connection: bool,
    /// Accept an empty `Host` (Docker over a Unix socket); default false.
    pub empty_host: bool,
    /// How many sessions it takes, and how fast.
    pub admission: Crowd,
    /// What becomes of its sessions when a reload changes it, or takes it away.
    pub on_change: OnChange,
}

/// What becomes of a route's sessions when a reload changes it, or takes it away.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnChange {
    /// They go on as they began.
    #[default]
    Keep,
    /// They end one after the other, spread over the gateway's `drain`.
    Drain,
    /// They end at once.
    Close,
}

/// A route's `host`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HostPattern {
    /// Lower case, no port.
    Exact(String),
    /// `*.example.com` is kept as `.example.com`: any number of labels below it, not the name itself.
    Suffix(String),
}

/// A route's upgrade tokens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Protocols {
    /// `"any"`: every token except h2c, HTTP/2.0 and TLS/*, unless one of them is named beside it.
    Any {
        /// Tokens named beside `"any"`, lower case.
        also: Vec<String>,
    },
    /// Only these, lower case.
    Only(Vec<String>),
}

/// How a session is carried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Opaque bytes, moved by the kernel where it may.
    ZeroCopy,
    /// WebSocket, looked into frame by frame.
    Inspect,
}

/// How a relay moves bytes, as configured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Engine {
    /// splice where the probe finds it, else copy.
    Auto,
    /// splice(2), with copy as the fallback.
    Splice,
    /// recv and send.
    Copy,
    /// A ring per worker, with copy as the fallback.
    Uring,
}

/// One upstream address, or one name for several.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// As the operator wrote it: for logs.
    pub text: String,
    /// Where it leads, or where its name led when the file was read. Never empty.
    pub target: EndpointTarget,
    /// Its share of the sessions, beside those of the route's others; each address of a name has it.
    pub weight: u16,
}

/// What a weight may be.
pub(crate) const WEIGHT: RangeInclusive<u64> = 1..=100;

/// Where an endpoint leads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EndpointTarget {
    /// An address, or those of one name.
    Tcp(Vec<SocketAddr>),
    /// A path.
    Unix(PathBuf),
}

/// A route's timers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// Until the upstream accepts; default 5 s.
    pub connect: Duration,
    /// Accept to 101; default 10 s.
    pub handshake: Duration,
    /// Relay without a byte in either direction; `None` is off. Default 1 h.
    pub idle: Option<Duration>,
    /// One side has ended, the other makes no progress; `None` is off. Default 30 s.
    pub half_close: Option<Duration>,
}

/// Reads the text of a configuration file; `file` is its name in faults. Names in `to` are looked up here.
pub fn from_toml(text: &str, file: &str) -> Result<Config, Faults> {
    file::parse(text, file, &lookup)
}

/// As [`from_toml`], with `resolve` instead of the system's name service.
pub fn from_toml_with(
    text: &str,
    file: &str,
    resolve: value::Resolve<'_>,
) -> Result<Config, Faults> {
    file::parse(text, file, resolve)
}

/// What flags, environment and file amount to; a flag comes before the file, the file before the default.
pub fn load(sources: Sources) -> Result<Config, Faults> {
    load::load(sources, &lookup)
}

/// Asks the system's name service for the addresses of a name. Blocks for as long as that takes.
pub fn lookup(name: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
    (name, port).to_socket_addrs().map(Iterator::collect)
}

impl Endpoint {
    /// An endpoint of weight 1; `text` is what the operator wrote.
    pub fn new(text: impl Into<String>, target: EndpointTarget) -> Endpoint {
        Endpoint { text: text.into(), target, weight: 1 }
    }

    /// The name and port that it was written as; `None` for an address or a path.
    pub fn name(&self) -> Option<(&str, u16)> {
        let is_name = matches!(self.target, EndpointTarget::Tcp(_))
            && self.text.parse::<SocketAddr>().is_err();
        let (name, port) = self.text.rsplit_once(':').filter(|_| is_name)?;
        Some((name, port.parse().ok()?))
    }
}

impl Mode {
    /// The word in configuration, logs and API.
    pub fn as_str(self) -> &'static str {
        match self {
            Mode::ZeroCopy => "zero-copy",
            Mode::Inspect => "inspect",
        }
    }
}

impl Route {
    /// What keeps the route's sessions from being inspected: the key, and what is wrong with it.
    pub fn obstacles_to_inspection(&self) -> Vec<(&'static str, &'static str)> {
        let only_websocket = match &self.protocols {
            Protocols::Any { .. } => false,
            Protocols::Only(tokens) => tokens.iter().all(|token| token == "websocket"),
        };
        let obstacles = [
            (
                !only_websocket,
                "protocols",
                "must be \"websocket\" alone with mode = \"inspect\", whose frames alone can be read; give \
                 the others a route of their own",
            ),
            (
                self.engine == Engine::Uring,
                "engine",
                "cannot be \"uring\" with mode = \"inspect\", whose sessions are carried on readiness; \
                 take \"auto\", \"splice\" or \"copy\"",
            ),
            (
                !self.websocket_strict,
                "websocket_strict",
                "cannot be false with mode = \"inspect\", since what follows need not be WebSocket; leave \
                 one of the two out",
            ),
        ];
        let there = obstacles.into_iter().filter(|(is_there, ..)| *is_there);
        there.map(|(_, key, problem)| (key, problem)).collect()
    }
}

impl Controllers {
    /// Whether there is nobody to trust.
    pub fn is_empty(&self) -> bool {
        self.networks.is_empty() && !self.unix
    }

    /// Whether `peer` may choose; `None` is a peer over a Unix socket.
    pub fn trust(&self, peer: Option<IpAddr>) -> bool {
        match peer.map(|peer| peer.to_canonical()) {
            Some(peer) => self.networks.iter().any(|net| net.contains(&peer)),
            None => self.unix,
        }
    }
}

impl Gateway {
    /// Whether `peer` may tell us about other clients.
    pub fn trusts(&self, peer: IpAddr) -> bool {
        let peer = peer.to_canonical();
        self.trusted_proxies.iter().any(|net| net.contains(&peer))
    }
}
