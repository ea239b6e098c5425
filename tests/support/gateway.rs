//! The gateway under test, in this process.

use std::net::SocketAddr;
use std::sync::mpsc::{Receiver, channel};

use serde_json::Value;
use upsplice::metrics::Snapshot;
use upsplice::server::{AccessLog, BoundAddress, Gateway};

use super::{BOUND, Backend};

/// The engine that the test's route asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Engine {
    Splice,
    Copy,
    /// Copy or splice, as the traffic of each direction asks.
    Auto,
    Uring,
}

/// The runtime that the test's workers run in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Runtime {
    Epoll,
    Uring,
}

/// A gateway and its access log.
pub struct Gw {
    pub gateway: Gateway,
    lines: Receiver<String>,
}

impl Gw {
    /// Starts a gateway from a configuration file's text.
    pub fn from_toml(text: &str) -> Gw {
        let config = upsplice::config::from_toml(text, "test.toml").expect("a good configuration");
        let (log, lines) = channel();
        let gateway = Gateway::start(config, AccessLog::Channel(log)).expect("it starts");
        Gw { gateway, lines }
    }

    /// One worker, one listener on a free port, one route for any protocol to `backend`.
    pub fn to(backend: &Backend, engine: Engine, runtime: Runtime) -> Gw {
        Gw::with(backend, engine, runtime, "", "")
    }

    /// The same with further lines for `[gateway]` and for `[[route]]` (which may end in its tables).
    pub fn with(
        backend: &Backend,
        engine: Engine,
        runtime: Runtime,
        gateway: &str,
        route: &str,
    ) -> Gw {
        let (engine, runtime) = (engine.word(), runtime.word());
        let to = backend.address;
        // Workers and runtime come first, so that `gateway` may end in tables of its own.
        let workers = if gateway.contains("workers") { "" } else { "workers = 1" };
        Gw::from_toml(&format!(
            "[gateway]\n{workers}\nruntime = \"{runtime}\"\n{gateway}\n\
             [[listener]]\naddress = \"127.0.0.1:0\"\n\
             [[route]]\nname = \"test\"\nprotocols = [\"any\"]\nengine = \"{engine}\"\nto = [\"{to}\"]\n{route}\n"
        ))
    }

    /// Where the first listener listens.
    pub fn address(&self) -> SocketAddr {
        match &self.gateway.addresses()[0] {
            BoundAddress::Tcp(address) => *address,
            BoundAddress::Unix(path) => panic!("a Unix socket: {path:?}"),
        }
    }

    /// The next access log line.
    pub fn line(&self) -> Value {
        let line = self.lines.recv_timeout(BOUND).expect("a log line comes");
        serde_json::from_str(&line).expect("a JSON object")
    }

    /// The counters now.
    pub fn metrics(&self) -> Snapshot {
        self.gateway.metrics()
    }

    /// Stops at once; fails when a worker panicked.
    pub fn stop(self) {
        self.gateway.stop_now();
        assert!(self.gateway.join(), "a worker panicked");
    }
}

impl Engine {
    pub fn word(self) -> &'static str {
        match self {
            Engine::Splice => "splice",
            Engine::Copy => "copy",
            Engine::Uring => "uring",
            Engine::Auto => "auto",
        }
    }

    /// Fails unless `line` names this engine; any will do where the traffic decides.
    pub fn assert_named(self, line: &Value) {
        if self != Engine::Auto {
            assert_eq!(line["engine"], self.word(), "{line}");
            assert_eq!(line["engine_switches"], 0, "{line}");
        }
    }

    /// Fails unless this engine alone carried the session of `line`, head data aside.
    pub fn assert_carried(self, line: &Value, head_data: u64) {
        let total = |name: &str| line[name].as_u64().unwrap_or_else(|| panic!("no {name}: {line}"));
        self.assert_named(line);
        match self {
            Engine::Splice => {
                assert_eq!(total("bytes_copy"), head_data, "splice fell back to copy: {line}");
                assert!(total("bytes_splice") > 0, "nothing was spliced: {line}");
                assert_eq!(line["fallback"], serde_json::json!([]), "{line}");
            }
            Engine::Copy => assert_eq!(total("bytes_splice"), 0, "{line}"),
            Engine::Auto => {
                assert_eq!(line["mode_reason"], "adaptive", "{line}");
                assert_eq!(line["fallback"], serde_json::json!([]), "{line}");
                // Only after a switch can bytes be spliced; after the last bytes, a switch has none left.
                let has_switched = total("engine_switches") > 0;
                assert!(has_switched || total("bytes_splice") == 0, "{line}");
            }
            Engine::Uring => {
                assert_eq!(total("bytes_copy"), head_data, "uring fell back to copy: {line}");
                assert_eq!(total("bytes_splice"), 0, "{line}");
                assert!(total("bytes_uring") > 0, "nothing went by the ring: {line}");
                assert_eq!(line["fallback"], serde_json::json!([]), "{line}");
            }
        }
    }
}

impl Runtime {
    pub fn word(self) -> &'static str {
        match self {
            Runtime::Epoll => "epoll",
            Runtime::Uring => "uring",
        }
    }
}
