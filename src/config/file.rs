//! The file: TOML to [`Config`], noting every fault with its line.

mod admission;
mod inspection;
mod log;
mod traces;
mod upstreams;

use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use toml::de::{DeTable, DeValue};

use super::admin;
use super::admission::Admission;
use super::fault::Faults;
use super::section::{Notes, Section, integer, shown};
use super::value::{self, Resolve, TIMER};
use super::{
    Config, Controllers, Gateway, Limits, Listener, Mode, Origins, Protocols, Route, Tcp, Timeouts,
    Token,
};

/// `MAX_TCP_KEEPIDLE` and `MAX_TCP_KEEPINTVL` of the kernel.
const KEEPALIVE: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(32_767);
/// A limit beyond this is a slip of the finger; "off" is how to say none.
const BYTES_MAX: u64 = 1 << 40;
/// More sessions per second than any gateway ends.
const DRAIN_RATE_MAX: u32 = 100_000;
/// An idle session may well be meant to last.
const LONG_TIMER: RangeInclusive<Duration> =
    Duration::from_millis(1)..=Duration::from_secs(365 * 24 * 3600);

/// Reads the text of a configuration file; `file` is its name in faults. `resolve` looks up the names in `to`.
pub(super) fn parse(text: &str, file: &str, resolve: Resolve<'_>) -> Result<Config, Faults> {
    let notes = Notes::new(text, file);
    let document = match DeTable::parse(text) {
        Ok(document) => document.into_inner(),
        Err(error) => {
            // Nothing behind a syntax error can be relied on, so this fault stands alone.
            let span = error.span().unwrap_or_default();
            let near = text.get(span.clone()).unwrap_or_default().trim();
            let near = if near.is_empty() { String::new() } else { format!(" at {near:?}") };
            let problem = error.message().trim().replace('\n', ", ");
            notes.fault(span.start, format_args!("not valid TOML{near}: {problem}"));
            return Err(Faults::some(notes.into_faults()));
        }
    };
    let root = Section::new(&notes, "", Some(&document), 0);
    let gateway = gateway(root.table("gateway", "[gateway]"));
    let listeners = listeners(root.tables("listener", "[[listener]]"));
    let routes = routes(&root, resolve, &gateway.trusted_controllers);
    root.end();
    Faults::check(notes.into_faults())?;
    Ok(Config { gateway, listeners, routes, demo: false, file: None })
}

fn gateway(section: Section) -> Gateway {
    let default = Gateway::default();
    let (limits, admission) = limits(section.table("limits", "[gateway.limits]"));
    let gateway = Gateway {
        workers: number(&section, "workers", value::WORKERS).unwrap_or(default.workers),
        runtime: section.text("runtime", value::runtime).unwrap_or(default.runtime),
        busy_poll: section.text("busy_poll", value::busy_poll).unwrap_or(default.busy_poll),
        balance: section.switch("balance").unwrap_or(default.balance),
        drain: duration(&section, "drain", TIMER).unwrap_or(default.drain),
        watch_file: section.switch("watch_file").unwrap_or(default.watch_file),
        drain_over: duration_or_off(&section, "drain_over", TIMER).unwrap_or(default.drain_over),
        drain_rate: count_or_off(&section, "drain_rate", DRAIN_RATE_MAX)
            .unwrap_or(default.drain_rate),
        no_fallback: section.switch("no_fallback").unwrap_or(default.no_fallback),
        name: section.text("name", value::gateway_name).unwrap_or(default.name),
        trusted_proxies: section
            .list("trusted_proxies", value::network)
            .map_or(default.trusted_proxies, without_offsets),
        trusted_controllers: section
            .list("trusted_controllers", value::controller)
            .map_or(default.trusted_controllers, Controllers::of),
        access_log: log::is_on(&section).unwrap_or(default.access_log),
        log: log::rules(&section),
        traces: traces::traces(section.table("traces", "[gateway.traces]")),
        user: section.text("user", value::account),
        group: section.text("group", value::account),
        sandbox: section.switch("sandbox").unwrap_or(default.sandbox),
        admin: section.text("admin", value::listen),
        admin_token: section.text("admin_token_file", Token::read),
        limits,
        admission,
        tcp: tcp(section.table("tcp", "[gateway.tcp]")),
    };
    if let (None, Some(group)) = (&gateway.user, section.value("group")) {
        section.refuse("group", group.at, "means nothing without user; name that, too");
    }
    if let (Some(over), Some(value)) = (gateway.drain_over, section.value("drain_over"))
        && over >= gateway.drain
    {
        let drain = gateway.drain;
        let problem =
            format_args!("must be shorter than drain ({drain:?}): who is told needs time to go");
        section.refuse("drain_over", value.at, problem);
    }
    admin::check(&section, gateway.admin.as_ref());
    section.end();
    gateway
}

fn limits(section: Section) -> (Limits, Admission) {
    let default = Limits::default();
    let head_bytes_max =
        number(&section, "head_bytes", 256..=1 << 20).unwrap_or(default.head_bytes_max);
    let line_bytes_max = number(&section, "line_bytes", 64..=1 << 20)
        .unwrap_or(default.line_bytes_max.min(head_bytes_max));
    if line_bytes_max > head_bytes_max && section.is_sound() {
        let at = section.value("line_bytes").map_or(section.start(), |value| value.at);
        let problem =
            format_args!("must not exceed head_bytes ({head_bytes_max}), but is {line_bytes_max}");
        section.refuse("line_bytes", at, problem);
    }
    let limits = Limits {
        head_bytes_max,
        line_bytes_max,
        fields_max: number(&section, "fields", 1..=1000).unwrap_or(default.fields_max),
        head_data_bytes_max: number(&section, "head_data_bytes", 0..=16 << 20)
            .unwrap_or(default.head_data_bytes_max),
        body_bytes_max: number(&section, "body_bytes", 0..=16 << 20)
            .unwrap_or(default.body_bytes_max),
    };
    let admission = admission::admission(&section);
    section.end();
    (limits, admission)
}

fn tcp(section: Section) -> Tcp {
    let default = Tcp::default();
    let tcp = Tcp {
        nodelay: section.switch("nodelay").unwrap_or(default.nodelay),
        keepalive: duration_or_off(&section, "keepalive", KEEPALIVE).unwrap_or(default.keepalive),
        keepalive_interval: duration(&section, "keepalive_interval", KEEPALIVE)
            .unwrap_or(default.keepalive_interval),
        keepalive_probes: section
            .number("keepalive_probes", 1..=127)
            .map_or(default.keepalive_probes, |probes| probes as u32),
        user_timeout: duration_or_off(&section, "user_timeout", TIMER)
            .unwrap_or(default.user_timeout),
    };
    section.end();
    tcp
}

fn listeners(sections: Vec<Section>) -> Vec<Listener> {
    let mut listeners: Vec<Listener> = Vec::new();
    if sections.is_empty() {
        listeners.push(Listener::default());
    }
    for section in sections {
        match section.value("address") {
            None => section.missing("address", "write where to accept, \"127.0.0.1:8080\""),
            Some(found) => {
                if let Some(address) = section.text("address", value::listen) {
                    let listener = Listener { address };
                    match listener.clashes_with(&listeners) {
                        true => section.refuse("address", found.at, "is there twice; keep one"),
                        false => listeners.push(listener),
                    }
                }
            }
        }
        section.end();
    }
    listeners
}

fn routes(root: &Section, resolve: Resolve<'_>, controllers: &Controllers) -> Vec<Route> {
    let sections = root.tables("route", "[[route]]");
    if sections.is_empty() && root.is_sound() {
        root.missing("[[route]]", "write at least one, with name and to");
    }
    let mut routes: Vec<Route> = Vec::new();
    for section in sections {
        let name = section.value("name");
        let route = route(&section, resolve, controllers);
        if let Some(name) = name
            && !route.name.is_empty()
            && routes.iter().any(|other| other.name == route.name)
        {
            let problem = format_args!("{:?} is there twice; a name is unique", route.name);
            section.refuse("name", name.at, problem);
        }
        if section.is_sound()
            && let Some(other) = routes.iter().find(|other| route.clashes_with(other))
        {
            let problem = format_args!(
                "claims the same host, path and protocol as {:?}; change one of the three",
                other.name
            );
            section.refuse(&format!("{:?}", route.name), section.start(), problem);
        }
        section.end();
        routes.push(route);
    }
    routes
}

/// A route whose refused keys hold the default, or nothing; the noted fault keeps it from being used.
fn route(section: &Section, resolve: Resolve<'_>, controllers: &Controllers) -> Route {
    let name = section.text("name", value::route_name);
    if section.value("name").is_none() {
        section.missing("name", "give the route a unique one, for logs and metrics");
    }
    let mut route = Route::new(name.unwrap_or_default(), Vec::new());
    route.host = section.text("host", value::host);
    route.path = section.text("path", value::path).unwrap_or(route.path);
    if let Some(tokens) = section.list("protocols", value::protocol) {
        route.protocols = Protocols::of(without_offsets(tokens));
    }
    let mode = section.text("mode", value::mode);
    route.mode = mode.unwrap_or(route.mode);
    route.engine = section.text("engine", value::engine).unwrap_or(route.engine);
    route.to = upstreams::endpoints(section, resolve).unwrap_or(route.to);
    route.upstreams = Arc::new(upstreams::rules(section));
    route.websocket_strict = section.switch("websocket_strict").unwrap_or(route.websocket_strict);
    route.rekey = section.switch("rekey").unwrap_or(route.rekey);
    route.lenient_connection =
        section.switch("lenient_connection").unwrap_or(route.lenient_connection);
    route.empty_host = section.switch("empty_host").unwrap_or(route.empty_host);
    route.on_change = section.text("on_change", value::on_change).unwrap_or(route.on_change);
    if route.empty_host && route.host.is_some() {
        let at = section.value("empty_host").map_or(section.start(), |value| value.at);
        section.refuse("empty_host", at, "never applies beside host; leave one of the two out");
    }
    route.origins = origins(section);
    route.subprotocols = subprotocols(section, &route.protocols);
    route.timeouts = timeouts(section.table("timeouts", "[route.timeouts]"));
    let limits = section.table("limits", "[route.limits]");
    route.admission = admission::crowd(&limits);
    let is_zero_copy = mode == Some(Mode::ZeroCopy) || section.value("mode").is_none();
    if is_zero_copy && controllers.is_empty() {
        inspection::refuse_keys(section, &limits);
    }
    route.inspection = Arc::new(inspection::read(section, limits));
    if route.mode == Mode::Inspect {
        for (key, problem) in route.obstacles_to_inspection() {
            let at = section.value(key).map_or(section.start(), |value| value.at);
            section.refuse(key, at, problem);
        }
    }
    route
}

fn origins(section: &Section) -> Option<Origins> {
    let allowed = section.list("allowed_origins", value::origin).map(without_offsets);
    let required = section.switch("origin_required");
    if let (None, Some(value)) =
        (&section.value("allowed_origins"), section.value("origin_required"))
    {
        section.refuse("origin_required", value.at, "needs allowed_origins: which ones are meant?");
    }
    allowed.map(|allowed| Origins { allowed, required: required.unwrap_or(false) })
}

fn subprotocols(section: &Section, protocols: &Protocols) -> Option<Vec<String>> {
    let subprotocols = section.list("subprotocols", value::subprotocol).map(without_offsets);
    let carries_websocket = match protocols {
        Protocols::Any { .. } => true,
        Protocols::Only(tokens) => tokens.iter().any(|token| token == "websocket"),
    };
    if let Some(value) = section.value("subprotocols").filter(|_| !carries_websocket) {
        section.refuse("subprotocols", value.at, "needs \"websocket\" among protocols");
    }
    subprotocols
}

fn timeouts(section: Section) -> Timeouts {
    let default = Timeouts::default();
    let timeouts = Timeouts {
        connect: duration(&section, "connect", TIMER).unwrap_or(default.connect),
        handshake: duration(&section, "handshake", TIMER).unwrap_or(default.handshake),
        idle: duration_or_off(&section, "idle", LONG_TIMER).unwrap_or(default.idle),
        half_close: duration_or_off(&section, "half_close", LONG_TIMER)
            .unwrap_or(default.half_close),
    };
    section.end();
    timeouts
}

fn number(section: &Section, key: &'static str, range: RangeInclusive<u64>) -> Option<usize> {
    section.number(key, range).map(|number| number as usize)
}

fn duration(
    section: &Section,
    key: &'static str,
    range: RangeInclusive<Duration>,
) -> Option<Duration> {
    section.key(key, |value| {
        length(value).filter(|length| range.contains(length)).ok_or_else(|| {
            format!("must be {}, not {}", value::duration_wanted(&range), shown(value))
        })
    })
}

/// As [`duration`]; 0 and "off" turn the timer off.
fn duration_or_off(
    section: &Section,
    key: &'static str,
    range: RangeInclusive<Duration>,
) -> Option<Option<Duration>> {
    section.key(key, |value| match (value, length(value)) {
        (DeValue::String(text), _) if text == "off" => Ok(None),
        (_, Some(Duration::ZERO)) => Ok(None),
        (_, Some(length)) if range.contains(&length) => Ok(Some(length)),
        _ => {
            let wanted = value::duration_wanted(&range);
            Err(format!("must be {wanted}, or \"off\", not {}", shown(value)))
        }
    })
}

/// A number of bytes from 1 on; "off" is no limit.
fn bytes_or_off(section: &Section, key: &'static str) -> Option<Option<u64>> {
    section.key(key, |value| {
        let bytes = match value {
            DeValue::String(text) if text == "off" => return Ok(None),
            DeValue::String(text) => value::parse_bytes(text),
            other => integer(other),
        };
        bytes.filter(|bytes| (1..=BYTES_MAX).contains(bytes)).map(Some).ok_or_else(|| {
            format!(
                "must be bytes or a size like \"64KiB\", \"16MiB\", \"1GiB\", from 1 to 1024GiB, or \
                 \"off\", not {}",
                shown(value)
            )
        })
    })
}

/// A whole number from 1 on; "off" is no limit.
fn count_or_off(section: &Section, key: &'static str, max: u32) -> Option<Option<u32>> {
    section.key(key, |value| match (value, integer(value).map(u32::try_from)) {
        (DeValue::String(text), _) if text == "off" => Ok(None),
        (_, Some(Ok(count))) if (1..=max).contains(&count) => Ok(Some(count)),
        _ => {
            Err(format!("must be a whole number from 1 to {max}, or \"off\", not {}", shown(value)))
        }
    })
}

fn length(value: &DeValue) -> Option<Duration> {
    match value {
        DeValue::String(text) => value::parse_duration(text),
        other => integer(other).map(Duration::from_secs),
    }
}

fn without_offsets<T>(list: Vec<(usize, T)>) -> Vec<T> {
    list.into_iter().map(|(_, value)| value).collect()
}

impl Controllers {
    fn of(listed: Vec<(usize, Option<IpNet>)>) -> Controllers {
        let listed = without_offsets(listed);
        let unix = listed.contains(&None);
        Controllers { networks: listed.into_iter().flatten().collect(), unix }
    }
}

impl Listener {
    /// Whether one of `others` accepts at the very same place; port 0 never clashes.
    pub(super) fn clashes_with(&self, others: &[Listener]) -> bool {
        let free = matches!(self.address, super::Listen::Tcp(address) if address.port() == 0);
        !free && others.iter().any(|other| other.address == self.address)
    }
}

impl Route {
    /// Whether some request would fit both equally well.
    fn clashes_with(&self, other: &Route) -> bool {
        self.host == other.host
            && self.path == other.path
            && self.protocols.clash_with(&other.protocols)
    }
}

impl Protocols {
    /// Tokens as listed, in lower case, "any" among them or not.
    fn of(mut tokens: Vec<String>) -> Protocols {
        let listed = tokens.len();
        tokens.retain(|token| token != "any");
        match tokens.len() == listed {
            true => Protocols::Only(tokens),
            false => Protocols::Any { also: tokens },
        }
    }

    /// A named token comes before "any", so only two of a kind clash.
    fn clash_with(&self, other: &Protocols) -> bool {
        let both_any = matches!((self, other), (Protocols::Any { .. }, Protocols::Any { .. }));
        both_any || self.named().iter().any(|token| other.named().contains(token))
    }

    /// The tokens the operator wrote out, "any" aside.
    pub(crate) fn named(&self) -> &[String] {
        let (Protocols::Only(named) | Protocols::Any { also: named }) = self;
        named
    }
}
