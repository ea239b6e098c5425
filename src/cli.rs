//! The command line: flags and `UPSPLICE_*` to a [`Config`]. A value that cannot be what its flag wants is a
//! usage error and clap's to report (exit 2); what only shows together with the file is a fault (exit 78).

mod drain;
mod steer;
mod top;

use std::path::PathBuf;
use std::time::Duration;

use clap::builder::BoolishValueParser;
use clap::{Args, Parser, Subcommand};

pub use self::drain::DrainVerb;
pub use self::steer::{
    Chosen, Completions, Reaching, Reload, Routes, SessionsAction, SessionsVerb, manual,
};
pub use self::top::TopVerb;
use crate::config::log::LogFormat;
use crate::config::{self, Config, Engine, Faults, Listen, Mode, Runtime, Sources, value};

/// A gateway for WebSocket and every other HTTP Upgrade that joins the two sockets with splice(2).
#[derive(Debug, Parser)]
#[command(name = "upsplice", version, arg_required_else_help = true)]
#[command(
    after_help = "Exit codes: 0 done, 1 failure, 2 wrong usage, 66 no such session or route, 69 no gateway there, \
    78 wrong configuration."
)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub verb: Verb,
}

/// What upsplice can be asked to do.
#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Serve until SIGTERM. Without --config and --to: an echo backend and a test page on 127.0.0.1:8080.
    Run(Run),
    /// Read a configuration file and report every fault as FILE:LINE: MESSAGE.
    Check(Check),
    /// Show what this kernel and sandbox allow, and which engine each route would get.
    Probe(Probe),
    /// List, show, watch and kill the live sessions of a running gateway.
    Sessions(SessionsVerb),
    /// Show the routes of a running gateway, and what became of their sessions.
    Routes(Routes),
    /// Let a running gateway read its configuration file again; a bad one changes nothing.
    Reload(Reload),
    /// Let the sessions of a running gateway, of a route or of an endpoint leave, spread over a time.
    Drain(DrainVerb),
    /// Watch a running gateway: throughput, upgrades, backpressure, drains, and its sessions or routes.
    Top(TopVerb),
    /// Print the completions of this command line for a shell.
    Completions(Completions),
    /// Print the manual page.
    Man,
    /// Client and backend of `probe --bench`, which starts them.
    #[command(hide = true)]
    BenchPeers(BenchPeers),
}

/// `upsplice run`
#[derive(Args, Clone, Debug, Default)]
#[command(
    after_help = "A flag comes before its environment variable, that before the file, that before \
    the default.\nSIGTERM stops accepting and ends after --drain; a second one ends at once. SIGHUP reads the file again."
)]
pub struct Run {
    /// Configuration file (TOML).
    #[arg(long, value_name = "FILE", env = "UPSPLICE_CONFIG")]
    pub config: Option<PathBuf>,

    /// Where to accept; replaces the file's listeners.
    #[arg(
        help = "Accept here: IP:PORT, [IPV6]:PORT or unix:PATH; replaces the file's listeners; may be \
        repeated [default: 127.0.0.1:8080]"
    )]
    #[arg(long, value_name = "ADDR", env = "UPSPLICE_LISTEN", value_delimiter = ',')]
    #[arg(value_parser = value::listen)]
    pub listen: Vec<Listen>,

    /// Upstreams of the only route, see [`Sources`].
    #[arg(
        help = "Upstream: HOST:PORT, [IPV6]:PORT or unix:PATH; makes one route for \"websocket\" on every \
        host and path, or replaces the endpoints of the file's only route; may be repeated"
    )]
    #[arg(long, value_name = "ADDR", env = "UPSPLICE_TO", value_delimiter = ',')]
    pub to: Vec<String>,

    /// How sessions are carried, on every route.
    #[arg(
        help = "How sessions are carried, on every route: zero-copy or inspect [default: zero-copy]"
    )]
    #[arg(long, value_name = "MODE", env = "UPSPLICE_MODE", value_parser = value::mode)]
    pub mode: Option<Mode>,

    /// What moves the bytes, on every route.
    #[arg(
        help = "What moves the bytes, on every route: auto, splice, copy or uring [default: auto]"
    )]
    #[arg(long, value_name = "ENGINE", env = "UPSPLICE_ENGINE", value_parser = value::engine)]
    pub engine: Option<Engine>,

    /// Refuse a session rather than carry it by another engine than the one configured.
    #[arg(long, value_name = "BOOL", env = "UPSPLICE_NO_FALLBACK", num_args = 0..=1)]
    #[arg(require_equals = true, default_missing_value = "true")]
    #[arg(value_parser = BoolishValueParser::new())]
    pub no_fallback: Option<bool>,

    /// Threads that carry sessions.
    #[arg(help = "Threads that carry sessions [default: one per core]")]
    #[arg(long, value_name = "N", env = "UPSPLICE_WORKERS", value_parser = value::workers)]
    pub workers: Option<usize>,

    /// Runtime of the workers.
    #[arg(help = "Runtime of the workers: auto, uring or epoll [default: auto]")]
    #[arg(long, value_name = "RUNTIME", env = "UPSPLICE_RUNTIME", value_parser = value::runtime)]
    pub runtime: Option<Runtime>,

    /// How long a worker looks for events before it sleeps.
    #[arg(
        help = "Microseconds that a worker looks for events before it sleeps, or off: less latency for \
        more CPU time [default: off]"
    )]
    #[arg(long, value_name = "US", env = "UPSPLICE_BUSY_POLL", value_parser = value::busy_poll)]
    pub busy_poll: Option<Duration>,

    /// How long sessions may go on after SIGTERM.
    #[arg(
        help = "How long sessions may go on after SIGTERM: 30, 500ms, 30s, 5m, 1h [default: 30s]"
    )]
    #[arg(long, value_name = "TIME", env = "UPSPLICE_DRAIN", value_parser = value::drain)]
    pub drain: Option<Duration>,

    /// Write no JSON line to stdout when a session ends.
    #[arg(long, value_name = "BOOL", env = "UPSPLICE_NO_ACCESS_LOG", num_args = 0..=1)]
    #[arg(require_equals = true, default_missing_value = "true")]
    #[arg(value_parser = BoolishValueParser::new())]
    pub no_access_log: Option<bool>,

    /// Which diagnostics are written to stderr.
    #[arg(
        help = "Write these diagnostics to stderr: error, warn, info, debug or trace, and by module, like \
        warn,upsplice::upstream=debug [default: info]"
    )]
    #[arg(long, value_name = "FILTER", env = "RUST_LOG", value_parser = value::log_filter)]
    pub log: Option<String>,

    /// How they look.
    #[arg(help = "Write diagnostics as text or json [default: text]")]
    #[arg(long, value_name = "FORMAT", env = "UPSPLICE_LOG_FORMAT", value_parser = value::log_format)]
    pub log_format: Option<LogFormat>,

    /// The user to become once the listeners are bound.
    #[arg(
        help = "Become this user once the listeners are bound, by name or number [default: stay]"
    )]
    #[arg(long, value_name = "USER", env = "UPSPLICE_USER", value_parser = value::account)]
    pub user: Option<String>,

    /// Its group.
    #[arg(help = "The group to have then [default: the user's own]")]
    #[arg(long, value_name = "GROUP", env = "UPSPLICE_GROUP", value_parser = value::account)]
    pub group: Option<String>,

    /// Keep the system calls, files and capabilities that a running gateway does not need.
    #[arg(long, value_name = "BOOL", env = "UPSPLICE_NO_SANDBOX", num_args = 0..=1)]
    #[arg(require_equals = true, default_missing_value = "true")]
    #[arg(value_parser = BoolishValueParser::new())]
    pub no_sandbox: Option<bool>,

    /// Where the operator is answered.
    #[arg(
        help = "Answer the operator here: unix:PATH, or IP:PORT with a token [default: nowhere]"
    )]
    #[arg(long, value_name = "ADDR", env = "UPSPLICE_ADMIN", value_parser = value::listen)]
    pub admin: Option<Listen>,

    /// File with the secret that requests to --admin over TCP must bring along.
    #[arg(long, value_name = "FILE", env = "UPSPLICE_ADMIN_TOKEN_FILE")]
    pub admin_token_file: Option<PathBuf>,
}

/// `upsplice check`
#[derive(Args, Clone, Debug)]
pub struct Check {
    /// Configuration file (TOML).
    #[arg(long, value_name = "FILE", env = "UPSPLICE_CONFIG")]
    pub config: PathBuf,
}

/// `upsplice probe`
#[derive(Args, Clone, Debug)]
pub struct Probe {
    /// Print JSON instead of text.
    #[arg(long)]
    pub json: bool,

    /// Also measure, for some ten seconds on loopback: from which message size on splice is cheaper than copy
    /// here, and what an idle session costs.
    #[arg(long)]
    pub bench: bool,

    /// A second of the bench, for tests: no figure means anything.
    #[arg(long, hide = true, requires = "bench")]
    pub quick: bool,

    /// Sessions that echo at a time in the bench.
    #[arg(long, hide = true, requires = "bench", default_value_t = 1)]
    #[arg(value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub sessions: u16,

    /// Also say which engine each route of this file would get.
    #[arg(long, value_name = "FILE", env = "UPSPLICE_CONFIG")]
    pub config: Option<PathBuf>,
}

/// `upsplice bench-peers`
#[derive(Args, Clone, Debug)]
pub struct BenchPeers {
    /// The client's core and the backend's; without them both run anywhere.
    pub cores: Vec<usize>,
}

/// The command line of this process; exits with 2 (or 0 for `--help` and `--version`) if it is not one.
pub fn parse() -> Cli {
    Cli::parse()
}

impl Run {
    /// What to run. Reads the file, and looks up the names in `to`.
    pub fn into_config(self) -> Result<Config, Faults> {
        config::load(Sources {
            file: self.config,
            listen: self.listen,
            to: self.to,
            mode: self.mode,
            engine: self.engine,
            no_fallback: self.no_fallback,
            workers: self.workers,
            runtime: self.runtime,
            busy_poll: self.busy_poll,
            admin: self.admin,
            admin_token_file: self.admin_token_file,
            drain: self.drain,
            access_log: self.no_access_log.map(|no| !no),
            log_filter: self.log.filter(|filter| !filter.is_empty()),
            log_format: self.log_format,
            user: self.user,
            group: self.group,
            sandbox: self.no_sandbox.map(|no| !no),
        })
    }
}

impl Check {
    /// The line to print for a file without fault, or its faults.
    pub fn summary(self) -> Result<String, Faults> {
        let file = self.config.display().to_string();
        let config = config::load(Sources { file: Some(self.config), ..Sources::default() })?;
        let listeners = counted(config.listeners.len(), "listener");
        let routes = counted(config.routes.len(), "route");
        Ok(format!("{file}: ok: {listeners}, {routes}"))
    }
}

impl Probe {
    /// The configuration whose routes are asked about; the demo's without a file.
    pub fn into_config(self) -> Result<Config, Faults> {
        config::load(Sources { file: self.config, ..Sources::default() })
    }
}

fn counted(number: usize, what: &str) -> String {
    let s = if number == 1 { "" } else { "s" };
    format!("{number} {what}{s}")
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    fn run(flags: &[&str]) -> Result<Run, clap::Error> {
        let Cli { verb: Verb::Run(run) } =
            Cli::try_parse_from([&["upsplice", "run"], flags].concat())?
        else {
            panic!("the verb is run");
        };
        Ok(run)
    }

    #[test]
    fn the_definition_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn flags_reach_the_configuration() {
        let flags = "--listen 127.0.0.1:0 --listen unix:/x,[::1]:0 --to 127.0.0.1:9,unix:/y \
            --mode zero-copy --engine copy --no-fallback --workers 3 --runtime epoll --drain 500ms \
            --no-access-log";
        let flags: Vec<&str> = flags.split_whitespace().collect();
        let config = run(&flags).unwrap().into_config().unwrap();
        assert_eq!((config.listeners.len(), config.routes[0].to.len()), (3, 2));
        assert_eq!(config.routes[0].engine, Engine::Copy);
        let gateway = &config.gateway;
        assert_eq!((gateway.workers, gateway.runtime), (3, Runtime::Epoll));
        assert_eq!((gateway.no_fallback, gateway.access_log), (true, false));
        assert_eq!(gateway.drain, Duration::from_millis(500));
    }

    #[test]
    fn sessions_are_inspected_on_request_of_the_flag() {
        for flags in [&["--mode", "inspect"][..], &["--mode=inspect", "--to", "127.0.0.1:9"]] {
            let config = run(flags).unwrap().into_config().unwrap();
            assert_eq!(config.routes[0].mode, Mode::Inspect, "{flags:?}");
        }
    }

    #[test]
    fn a_switch_can_be_turned_back() {
        assert_eq!(run(&["--no-fallback=false"]).unwrap().no_fallback, Some(false));
        assert_eq!(run(&["--no-fallback"]).unwrap().no_fallback, Some(true));
        assert_eq!(run(&["--no-access-log=off"]).unwrap().no_access_log, Some(false));
    }

    #[test]
    fn wrong_values_are_usage_errors() {
        let cases: &[&[&str]] = &[
            &["--listen", ":8080"],
            &["--listen", "localhost:80"],
            &["--engine", "fast"],
            &["--mode", "look"],
            &["--workers", "0"],
            &["--workers", "1025"],
            &["--runtime", "tokio"],
            &["--drain", "off"],
            &["--drain", "0"],
            &["--admin", "unix"],
            &["--log", "upsplice=loud"],
            &["--log-format", "xml"],
            &["--no-such-flag"],
            &["stray"],
        ];
        for flags in cases {
            let error = run(flags).expect_err(&format!("{flags:?}"));
            assert_eq!(error.exit_code(), 2, "{flags:?}");
        }
    }

    #[test]
    fn the_operator_is_answered_over_tcp_only_with_a_token() {
        let over = |flags: &[&str]| run(flags).unwrap().into_config();
        assert_eq!(over(&[]).unwrap().gateway.admin, None);
        let unix = over(&["--admin", "unix:/x"]).unwrap().gateway.admin;
        assert_eq!(unix, Some(Listen::Unix("/x".into())));
        let faults = over(&["--admin", "127.0.0.1:0"]).unwrap_err().to_string();
        assert!(faults.starts_with("--admin: needs admin_token_file"), "{faults}");
        let faults = over(&["--admin-token-file", "/nonexistent"]).unwrap_err().to_string();
        assert!(faults.starts_with("--admin-token-file: "), "{faults}");
    }
}
