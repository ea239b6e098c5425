//! What holds where neither flag, environment nor file says anything.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::thread::available_parallelism;
use std::time::Duration;

use super::admission::{Admission, Crowd};
use super::log::LogRules;
use super::traces::Traces;
use super::{
    Config, Controllers, Endpoint, EndpointTarget, Engine, Gateway, Limits, Listen, Listener, Mode,
    OnChange, Protocols, Route, Runtime, Tcp, Timeouts,
};

impl Default for Gateway {
    fn default() -> Gateway {
        Gateway {
            workers: available_parallelism().map_or(1, usize::from),
            runtime: Runtime::Auto,
            busy_poll: Duration::ZERO,
            balance: true,
            drain: Duration::from_secs(30),
            drain_over: None,
            watch_file: false,
            drain_rate: Some(1000),
            no_fallback: false,
            name: "upsplice".to_owned(),
            trusted_proxies: Vec::new(),
            trusted_controllers: Controllers::default(),
            access_log: true,
            log: LogRules::default(),
            traces: Traces::default(),
            user: None,
            group: None,
            sandbox: true,
            admin: None,
            admin_token: None,
            limits: Limits::default(),
            admission: Admission::default(),
            tcp: Tcp::default(),
        }
    }
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            head_bytes_max: 32 << 10,
            fields_max: 100,
            line_bytes_max: 8 << 10,
            head_data_bytes_max: 64 << 10,
            body_bytes_max: 64 << 10,
        }
    }
}

impl Default for Tcp {
    fn default() -> Tcp {
        Tcp {
            nodelay: true,
            keepalive: Some(Duration::from_secs(60)),
            keepalive_interval: Duration::from_secs(15),
            keepalive_probes: 4,
            // It also ends sessions whose reader pauses for so long (tcp(7), zero window probes).
            user_timeout: None,
        }
    }
}

impl Default for Timeouts {
    fn default() -> Timeouts {
        Timeouts {
            connect: Duration::from_secs(5),
            handshake: Duration::from_secs(10),
            idle: Some(Duration::from_secs(3600)),
            half_close: Some(Duration::from_secs(30)),
        }
    }
}

/// `127.0.0.1:8080`: only this machine, until the operator says more.
impl Default for Listener {
    fn default() -> Listener {
        Listener { address: Listen::Tcp(SocketAddr::from((Ipv4Addr::LOCALHOST, 8080))) }
    }
}

impl Route {
    /// A route for "websocket" on every host and path.
    pub fn new(name: impl Into<String>, to: Vec<Endpoint>) -> Route {
        Route {
            name: name.into(),
            host: None,
            path: "/".to_owned(),
            protocols: Protocols::Only(vec!["websocket".to_owned()]),
            mode: Mode::ZeroCopy,
            inspection: Arc::default(),
            origins: None,
            subprotocols: None,
            engine: Engine::Auto,
            to,
            upstreams: Arc::default(),
            timeouts: Timeouts::default(),
            websocket_strict: true,
            rekey: false,
            lenient_connection: false,
            empty_host: false,
            admission: Crowd::default(),
            on_change: OnChange::default(),
        }
    }
}

impl Config {
    /// The configuration of `run` without `--config` and `--to`. The endpoint of its one route, "demo", is a
    /// placeholder with port 0, which no operator can write: whoever starts the echo backend
    /// puts the backend's address there.
    pub fn demo() -> Config {
        let placeholder = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let echo = Endpoint::new("demo", EndpointTarget::Tcp(vec![placeholder]));
        Config {
            gateway: Gateway::default(),
            listeners: vec![Listener::default()],
            routes: vec![Route::new("demo", vec![echo])],
            demo: true,
            file: None,
        }
    }
}
