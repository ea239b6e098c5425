//! Flags and environment over the file over the defaults.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use super::admin;
use super::fault::{Fault, Faults};
use super::log::LogFormat;
use super::value::{self, Resolve};
use super::{Config, Engine, Gateway, Listen, Listener, Mode, Route, Runtime, Token, file};

/// What flags and environment say; whatever is absent is left to the file.
///
/// - `listen` replaces all listeners of the file.
/// - `to` without a file makes one route, "default": "websocket" on every host and path. With a file it replaces
///   the endpoints of the file's only route; a file with several routes is a fault, since nobody could
///   tell which was meant.
/// - `mode` and `engine` hold for every route.
/// - Neither `file` nor `to`: the demo, see [`Config::demo`].
#[derive(Clone, Debug, Default)]
pub struct Sources {
    /// `--config`
    pub file: Option<PathBuf>,
    /// `--listen`, each one
    pub listen: Vec<Listen>,
    /// `--to`, each one, as written
    pub to: Vec<String>,
    /// `--mode`
    pub mode: Option<Mode>,
    /// `--engine`
    pub engine: Option<Engine>,
    /// `--no-fallback`
    pub no_fallback: Option<bool>,
    /// `--workers`
    pub workers: Option<usize>,
    /// `--runtime`
    pub runtime: Option<Runtime>,
    /// `--busy-poll`
    pub busy_poll: Option<Duration>,
    /// `--admin`
    pub admin: Option<Listen>,
    /// `--admin-token-file`
    pub admin_token_file: Option<PathBuf>,
    /// `--drain`
    pub drain: Option<Duration>,
    /// Not `--no-access-log`
    pub access_log: Option<bool>,
    /// `--log`
    pub log_filter: Option<String>,
    /// `--log-format`
    pub log_format: Option<LogFormat>,
    /// `--user`
    pub user: Option<String>,
    /// `--group`
    pub group: Option<String>,
    /// Not `--no-sandbox`
    pub sandbox: Option<bool>,
}

/// The configuration these sources amount to, or every fault in them.
pub(super) fn load(sources: Sources, resolve: Resolve<'_>) -> Result<Config, Faults> {
    let mut faults = Vec::new();
    let base = match &sources.file {
        Some(path) => read(path, resolve).map_err(|found| faults.extend(found.iter().cloned())),
        None => Ok(Config::demo()),
    };
    let mut endpoints = Vec::new();
    for to in &sources.to {
        match value::endpoint(to, resolve) {
            Ok(endpoint) => endpoints.push(endpoint),
            Err(problem) => faults.push(flag("--to", problem)),
        }
    }
    let token = sources.admin_token_file.as_ref();
    let token = token.map(|path| Token::read(&path.display().to_string())).transpose();
    let token = token.unwrap_or_else(|problem| {
        faults.push(flag("--admin-token-file", problem));
        None
    });
    let mut listeners: Vec<Listener> = Vec::new();
    for address in &sources.listen {
        let listener = Listener { address: address.clone() };
        match listener.clashes_with(&listeners) {
            true => faults.push(flag("--listen", "is there twice with one address; keep one")),
            false => listeners.push(listener),
        }
    }
    if let (Ok(config), Some(path)) = (&base, &sources.file)
        && !sources.to.is_empty()
        && config.routes.len() > 1
    {
        let (file, count) = (path.display(), config.routes.len());
        let problem = format!("{file} has {count} routes; leave --to out and edit the file");
        faults.push(flag("--to", problem));
    }
    let Ok(mut config) = base else { return Err(Faults::some(faults)) };
    Faults::check(faults)?;

    if !listeners.is_empty() {
        config.listeners = listeners;
    }
    if !endpoints.is_empty() {
        match sources.file {
            Some(_) => config.routes[0].to = endpoints,
            None => config.routes = vec![Route::new("default", endpoints)],
        }
        config.demo = false;
    }
    for route in &mut config.routes {
        route.mode = sources.mode.unwrap_or(route.mode);
        route.engine = sources.engine.unwrap_or(route.engine);
    }
    overlay(&mut config.gateway, &sources);
    config.gateway.admin_token = token.or(config.gateway.admin_token);
    if let (Some(Listen::Tcp(_)), None) = (&config.gateway.admin, &config.gateway.admin_token) {
        return Err(Faults::some(vec![flag("--admin", admin::NEEDS_TOKEN)]));
    }
    Faults::check(clashes_with_inspection(&config, &sources))?;
    config.file = sources.file;
    if config.gateway.group.is_some() && config.gateway.user.is_none() {
        return Err(Faults::some(vec![flag(
            "--group",
            "means nothing without --user; name that, too",
        )]));
    }
    Ok(config)
}

fn read(path: &PathBuf, resolve: Resolve<'_>) -> Result<Config, Faults> {
    let name = path.display().to_string();
    match fs::read_to_string(path) {
        Ok(text) => file::parse(&text, &name, resolve),
        Err(error) => {
            let message = format!("cannot be read: {error}");
            Err(Faults::some(vec![Fault { place: name, line: None, message }]))
        }
    }
}

/// What flags make of routes that the file had nothing against.
fn clashes_with_inspection(config: &Config, sources: &Sources) -> Vec<Fault> {
    let name = if sources.mode.is_some() { "--mode" } else { "--engine" };
    let mut faults = Vec::new();
    for route in config.routes.iter().filter(|route| route.mode == Mode::Inspect) {
        for (key, problem) in route.obstacles_to_inspection() {
            faults.push(flag(name, format!("route {:?}: {key}: {problem}", route.name)));
        }
    }
    faults
}

fn overlay(gateway: &mut Gateway, sources: &Sources) {
    gateway.no_fallback = sources.no_fallback.unwrap_or(gateway.no_fallback);
    gateway.workers = sources.workers.unwrap_or(gateway.workers);
    gateway.runtime = sources.runtime.unwrap_or(gateway.runtime);
    gateway.busy_poll = sources.busy_poll.unwrap_or(gateway.busy_poll);
    gateway.admin = sources.admin.clone().or(gateway.admin.take());
    gateway.drain = sources.drain.unwrap_or(gateway.drain);
    gateway.access_log = sources.access_log.unwrap_or(gateway.access_log);
    gateway.log.filter = sources.log_filter.clone().or(gateway.log.filter.take());
    gateway.log.format = sources.log_format.unwrap_or(gateway.log.format);
    gateway.sandbox = sources.sandbox.unwrap_or(gateway.sandbox);
    gateway.user = sources.user.clone().or(gateway.user.take());
    gateway.group = sources.group.clone().or(gateway.group.take());
}

fn flag(name: &str, message: impl Into<String>) -> Fault {
    Fault { place: name.to_owned(), line: None, message: message.into() }
}

#[cfg(test)]
mod tests {
    use std::io::{self, Write};
    use std::net::SocketAddr;

    use super::*;
    use crate::config::Protocols;

    fn resolve(name: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
        match name {
            "app.test" => Ok(vec![SocketAddr::from(([192, 0, 2, 1], port))]),
            _ => Err(io::Error::other("no such name")),
        }
    }

    fn file(text: &str) -> tempfile::NamedTempFile {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(text.as_bytes()).unwrap();
        file
    }

    fn to(endpoints: &[&str]) -> Sources {
        Sources { to: endpoints.iter().map(|to| to.to_string()).collect(), ..Sources::default() }
    }

    const ONE: &str = "[gateway]\nworkers = 2\ndrain = 7\n\
        [[listener]]\naddress = \"127.0.0.1:1\"\n\
        [[route]]\nname = \"a\"\nengine = \"copy\"\npath = \"/a\"\nto = [\"127.0.0.1:9\"]\n";
    const OTHER: &str = "[[route]]\nname = \"b\"\nto = [\"127.0.0.1:9\"]\n";

    #[test]
    fn nothing_at_all_is_the_demo() {
        let config = load(Sources::default(), &resolve).unwrap();
        assert!(config.demo);
        assert_eq!(config.routes[0].name, "demo");
        assert_eq!(config.listeners[0].address, value::listen("127.0.0.1:8080").unwrap());
        let listen = vec![value::listen("[::1]:0").unwrap()];
        let config = load(Sources { listen: listen.clone(), ..Sources::default() }, &resolve);
        let config = config.unwrap();
        assert!(config.demo && config.listeners.len() == 1);
        assert_eq!(config.listeners[0].address, listen[0]);
    }

    #[test]
    fn to_without_a_file_is_one_websocket_route_for_everything() {
        let config = load(to(&["app.test:80", "unix:/run/x"]), &resolve).unwrap();
        let [route] = &config.routes[..] else { panic!("one route") };
        assert!(!config.demo);
        assert_eq!(
            (route.name.as_str(), &route.host, route.path.as_str()),
            ("default", &None, "/")
        );
        assert_eq!(route.protocols, Protocols::Only(vec!["websocket".into()]));
        assert_eq!(route.to.len(), 2);
    }

    #[test]
    fn to_replaces_the_endpoints_of_an_only_route() {
        let file = file(ONE);
        let sources = Sources { file: Some(file.path().into()), ..to(&["app.test:80"]) };
        let config = load(sources, &resolve).unwrap();
        let [route] = &config.routes[..] else { panic!("one route") };
        assert_eq!((route.path.as_str(), route.to[0].text.as_str()), ("/a", "app.test:80"));
    }

    #[test]
    fn to_beside_several_routes_is_refused() {
        let file = file(&(ONE.to_owned() + OTHER));
        let sources = Sources { file: Some(file.path().into()), ..to(&["app.test:80"]) };
        let faults = load(sources, &resolve).unwrap_err().to_string();
        assert!(faults.starts_with("--to: ") && faults.contains("has 2 routes"), "{faults}");
    }

    #[test]
    fn a_flag_beats_the_file_and_the_file_beats_the_default() {
        let file = file(ONE);
        let path = Some(file.path().into());
        let plain = load(Sources { file: path.clone(), ..Sources::default() }, &resolve).unwrap();
        assert_eq!((plain.gateway.workers, plain.gateway.drain.as_secs()), (2, 7));
        assert_eq!((plain.routes[0].engine, plain.gateway.access_log), (Engine::Copy, true));
        let sources = Sources {
            file: path,
            listen: vec![value::listen("127.0.0.1:2").unwrap()],
            engine: Some(Engine::Splice),
            no_fallback: Some(true),
            workers: Some(3),
            runtime: Some(Runtime::Epoll),
            drain: Some(Duration::from_secs(9)),
            access_log: Some(false),
            ..Sources::default()
        };
        let config = load(sources, &resolve).unwrap();
        let gateway = &config.gateway;
        assert_eq!((gateway.workers, gateway.drain.as_secs()), (3, 9));
        assert_eq!((gateway.runtime, gateway.no_fallback), (Runtime::Epoll, true));
        assert_eq!((config.routes[0].engine, gateway.access_log), (Engine::Splice, false));
        assert_eq!(config.listeners.len(), 1);
        assert_eq!(config.listeners[0].address, value::listen("127.0.0.1:2").unwrap());
    }

    #[test]
    fn a_flag_that_asks_for_what_cannot_be_inspected_is_refused() {
        let any = file(&ONE.replace("engine = \"copy\"", "protocols = [\"any\"]"));
        let inspected = file(&ONE.replace("engine = \"copy\"", "mode = \"inspect\""));
        let (mode, engine) = (Some(Mode::Inspect), Some(Engine::Uring));
        for (file, mode, engine, fault) in [
            (Some(&any), mode, None, "--mode: route \"a\": protocols: must be \"websocket\" alone"),
            (Some(&inspected), None, engine, "--engine: route \"a\": engine: cannot be \"uring\""),
            (None, mode, engine, "--mode: route \"demo\": engine: cannot be \"uring\""),
        ] {
            let file = file.map(|file| file.path().into());
            let faults = load(Sources { file, mode, engine, ..Sources::default() }, &resolve);
            let faults = faults.unwrap_err().to_string();
            assert!(faults.starts_with(fault), "{faults}");
        }
        let sources = Sources { mode, ..to(&["app.test:80"]) };
        assert_eq!(load(sources, &resolve).unwrap().routes[0].mode, Mode::Inspect);
        let zero_copy = Some(Mode::ZeroCopy);
        let path = Some(inspected.path().into());
        let sources = Sources { file: path, mode: zero_copy, engine, ..Sources::default() };
        assert_eq!(load(sources, &resolve).unwrap().routes[0].mode, Mode::ZeroCopy);
    }

    #[test]
    fn faults_of_flags_and_file_come_together() {
        let file = file("[gateway]\nworkers = 0\n");
        let twice = value::listen("127.0.0.1:1").unwrap();
        let sources = Sources {
            file: Some(file.path().into()),
            listen: vec![twice.clone(), twice],
            ..to(&["nowhere.test:80", "app.test"])
        };
        let faults = load(sources, &resolve).unwrap_err();
        let places: Vec<_> = faults.iter().map(|f| (f.place.as_str(), f.line)).collect();
        let name = file.path().to_str().unwrap();
        let flags = [("--to", None), ("--to", None), ("--listen", None)];
        assert_eq!(places, [&flags[..], &[(name, Some(1)), (name, Some(2))]].concat());
    }

    #[test]
    fn a_file_that_cannot_be_read_is_a_fault() {
        let sources = Sources { file: Some("/nonexistent/x.toml".into()), ..Sources::default() };
        let faults = load(sources, &resolve).unwrap_err().to_string();
        assert!(faults.starts_with("/nonexistent/x.toml: cannot be read: "), "{faults}");
    }
}
