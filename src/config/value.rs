//! Single values, as flags, environment and file write them. Each `Err` completes "KEY: …": what the value
//! must be, and what it is.

use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;
use regex::{Regex, RegexBuilder};
use tracing_subscriber::EnvFilter;

use super::log::LogFormat;
use super::{
    Endpoint, EndpointTarget, Engine, HostPattern, Listen, Mode, OnChange, OriginPattern, Runtime,
};

/// The addresses of a name; given as a parameter so that tests need no name service.
pub type Resolve<'r> = &'r dyn Fn(&str, u16) -> io::Result<Vec<SocketAddr>>;

/// `sun_path` without its final NUL, unix(7).
const UNIX_PATH_BYTES_MAX: usize = 107;

/// A worker is a thread; more of them than this is a slip of the finger.
pub(super) const WORKERS: RangeInclusive<u64> = 1..=1024;
/// A worker that looks for longer than this takes its core from others.
const BUSY_POLL_MAX_US: u64 = 1_000;
/// What most timers may be set to.
pub(super) const TIMER: RangeInclusive<Duration> =
    Duration::from_millis(1)..=Duration::from_secs(24 * 3600);

/// How long a drain may take: `"30"`, `"30s"`, `"500ms"`, `"5m"` or `"1h"`.
pub fn drain(text: &str) -> Result<Duration, String> {
    let wanted = || format!("must be {}, not {text:?}", duration_wanted(&TIMER));
    parse_duration(text).filter(|value| TIMER.contains(value)).ok_or_else(wanted)
}

/// A time of any length: `"30"` seconds, `"500ms"`, `"30s"`, `"5m"`, `"1h"`.
pub fn duration(text: &str) -> Result<Duration, String> {
    let wanted = "seconds or a duration like \"500ms\", \"30s\", \"5m\", \"1h\"";
    parse_duration(text).ok_or_else(|| format!("must be {wanted}, not {text:?}"))
}

/// A number of bytes: `"1000"`, `"64KiB"`, `"16MiB"`, `"1GiB"`.
pub fn bytes(text: &str) -> Result<u64, String> {
    let wanted = "bytes or a size like \"64KiB\", \"16MiB\", \"1GiB\"";
    parse_bytes(text).ok_or_else(|| format!("must be {wanted}, not {text:?}"))
}

/// How long a worker looks for events before it sleeps: `"50us"`, `"50"` microseconds, or `"off"`.
pub fn busy_poll(text: &str) -> Result<Duration, String> {
    let number = match text {
        "off" => Some(0),
        text => text.strip_suffix("us").unwrap_or(text).parse().ok(),
    };
    number.filter(|us| *us <= BUSY_POLL_MAX_US).map(Duration::from_micros).ok_or_else(|| {
        format!("must be microseconds like \"50us\", at most {BUSY_POLL_MAX_US}, or \"off\", not {text:?}")
    })
}

/// A user or a group: a name, or a number.
pub fn account(text: &str) -> Result<String, String> {
    let sound = !text.is_empty() && !text.contains(['\0', ':', '/']) && text.trim() == text;
    if sound {
        Ok(text.to_owned())
    } else {
        Err(format!("must be a name or a number, not {text:?}"))
    }
}

/// A number of workers.
pub fn workers(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(number) if WORKERS.contains(&number) => Ok(number as usize),
        _ => {
            let (low, high) = WORKERS.into_inner();
            Err(format!("must be a whole number from {low} to {high}, not {text:?}"))
        }
    }
}

/// What a duration within `range` looks like, for messages.
pub(super) fn duration_wanted(range: &RangeInclusive<Duration>) -> String {
    let (low, high) = (in_words(*range.start()), in_words(*range.end()));
    format!("seconds or a duration like \"500ms\", \"30s\", \"5m\", \"1h\", from {low} to {high}")
}

/// The duration a text means, of any length.
pub(super) fn parse_duration(text: &str) -> Option<Duration> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let number: u64 = number.parse().ok()?;
    let milliseconds = match unit {
        "ms" => number,
        "s" | "" => number.checked_mul(1_000)?,
        "m" => number.checked_mul(60_000)?,
        "h" => number.checked_mul(3_600_000)?,
        _ => return None,
    };
    Some(Duration::from_millis(milliseconds))
}

fn in_words(value: Duration) -> String {
    match value.as_millis() {
        ms if ms % 3_600_000 == 0 => format!("{}h", ms / 3_600_000),
        ms if ms % 1_000 == 0 => format!("{}s", ms / 1_000),
        ms => format!("{ms}ms"),
    }
}

/// `auto`, `uring` or `epoll`.
pub fn runtime(text: &str) -> Result<Runtime, String> {
    match text {
        "auto" => Ok(Runtime::Auto),
        "uring" => Ok(Runtime::Uring),
        "epoll" => Ok(Runtime::Epoll),
        _ => Err(format!("must be \"auto\", \"uring\" or \"epoll\", not {text:?}")),
    }
}

/// `zero-copy` or `inspect`.
pub fn mode(text: &str) -> Result<Mode, String> {
    match text {
        "zero-copy" => Ok(Mode::ZeroCopy),
        "inspect" => Ok(Mode::Inspect),
        _ => Err(format!("must be \"zero-copy\" or \"inspect\", not {text:?}")),
    }
}

/// `keep`, `drain` or `close`.
pub fn on_change(text: &str) -> Result<OnChange, String> {
    match text {
        "keep" => Ok(OnChange::Keep),
        "drain" => Ok(OnChange::Drain),
        "close" => Ok(OnChange::Close),
        _ => Err(format!("must be \"keep\", \"drain\" or \"close\", not {text:?}")),
    }
}

/// `auto`, `splice`, `copy` or `uring`.
pub fn engine(text: &str) -> Result<Engine, String> {
    match text {
        "auto" => Ok(Engine::Auto),
        "splice" => Ok(Engine::Splice),
        "copy" => Ok(Engine::Copy),
        "uring" => Ok(Engine::Uring),
        _ => Err(format!("must be \"auto\", \"splice\", \"copy\" or \"uring\", not {text:?}")),
    }
}

/// `127.0.0.1:8080`, `[::]:8080` or `unix:/path`. A port alone is refused: how far a gateway can be reached is
/// not something to guess.
pub fn listen(text: &str) -> Result<Listen, String> {
    if let Some(path) = text.strip_prefix("unix:") {
        return unix(path).map(Listen::Unix);
    }
    text.parse().map(Listen::Tcp).map_err(|_| {
        format!(
            "must be an IP address and a port (\"127.0.0.1:8080\", \"0.0.0.0:8080\", \"[::]:8080\") \
             or \"unix:/path\", not {text:?}"
        )
    })
}

/// `host:port`, `[v6]:port` or `unix:/path`; a name is looked up through `resolve`.
pub fn endpoint(text: &str, resolve: Resolve<'_>) -> Result<Endpoint, String> {
    let wanted = || {
        format!(
            "must be \"host:port\", \"[v6]:port\" or \"unix:/path\", without scheme or path, not {text:?}"
        )
    };
    let target = if let Some(path) = text.strip_prefix("unix:") {
        EndpointTarget::Unix(unix(path)?)
    } else if let Ok(address) = text.parse::<SocketAddr>() {
        EndpointTarget::Tcp(vec![address])
    } else {
        let (name, port) = text.rsplit_once(':').ok_or_else(wanted)?;
        let port = port.parse().map_err(|_| wanted())?;
        if !is_name(name) {
            return Err(wanted());
        }
        match resolve(name, port) {
            Ok(addresses) if !addresses.is_empty() => EndpointTarget::Tcp(addresses),
            Ok(_) => return Err(format!("{text:?}: the name has no address; check its spelling")),
            Err(error) => return Err(format!("{text:?}: the name does not resolve: {error}")),
        }
    };
    match &target {
        EndpointTarget::Tcp(addresses) if addresses.iter().any(|address| address.port() == 0) => {
            Err(format!("must have a port from 1 to 65535, not {text:?}"))
        }
        _ => Ok(Endpoint::new(text, target)),
    }
}

/// `chat.example.com`, `*.example.com` or an IP address, in any case, without port.
pub fn host(text: &str) -> Result<HostPattern, String> {
    let lower = text.to_ascii_lowercase();
    if text == "*" {
        return Err("\"*\" is what a route without host means; leave the key out".to_owned());
    }
    if let Some(suffix) = lower.strip_prefix('*')
        && suffix.strip_prefix('.').is_some_and(is_name)
    {
        return Ok(HostPattern::Suffix(suffix.to_owned()));
    }
    if let Some(address) = lower.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'))
        && let Ok(address) = address.parse::<Ipv6Addr>()
    {
        return Ok(HostPattern::Exact(format!("[{address}]")));
    }
    if is_name(&lower) {
        return Ok(HostPattern::Exact(lower));
    }
    Err(format!("must be \"name.example.com\" or \"*.example.com\", without port, not {text:?}"))
}

/// A path prefix: starts with `/`, and is what a client would send unencoded.
pub fn path(text: &str) -> Result<String, String> {
    let sane = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=:@/".contains(&byte);
    let problem = if !text.starts_with('/') {
        "start with \"/\""
    } else if text.contains(['?', '#']) {
        "be a path alone, without query or fragment"
    } else if text.contains('%') {
        "be written without %-encoding"
    } else if text.split('/').any(|segment| segment == "." || segment == "..") {
        "not have \".\" or \"..\" as a segment"
    } else if !text.bytes().all(sane) {
        "consist of characters that a URL path may have"
    } else {
        return Ok(text.to_owned());
    };
    Err(format!("must {problem}, not {text:?}"))
}

/// An upgrade token: a name, or a name and a version (RFC 9110 §7.8); returned in lower case.
pub fn protocol(text: &str) -> Result<String, String> {
    let (name, version) = text.split_once('/').unwrap_or((text, "x"));
    if is_token(name) && is_token(version) {
        return Ok(text.to_ascii_lowercase());
    }
    Err(format!("must be tokens like \"websocket\" or \"IRC/6.9\", or \"any\", not {text:?}"))
}

/// A name for logs and metrics.
pub fn route_name(text: &str) -> Result<String, String> {
    let sane = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    if (1..=64).contains(&text.len()) && text.bytes().all(sane) {
        return Ok(text.to_owned());
    }
    Err(format!("must be 1 to 64 of A-Z, a-z, 0-9, \"-\", \"_\" and \".\", not {text:?}"))
}

/// The gateway's name: a token, for `Via`.
pub fn gateway_name(text: &str) -> Result<String, String> {
    if text.len() <= 64 && is_token(text) {
        return Ok(text.to_owned());
    }
    Err(format!("must be a token of at most 64 characters (RFC 9110 §5.6.2), not {text:?}"))
}

/// `10.0.0.0/8`, or a single address.
pub fn network(text: &str) -> Result<IpNet, String> {
    text.parse::<IpNet>()
        .or_else(|_| text.parse::<IpAddr>().map(IpNet::from))
        .map_err(|_| format!("must be networks like \"10.0.0.0/8\" or addresses, not {text:?}"))
}

/// A network as [`network`] reads it, or `unix` for whoever comes over a Unix socket: then `None`.
pub fn controller(text: &str) -> Result<Option<IpNet>, String> {
    if text == "unix" {
        return Ok(None);
    }
    network(text).map(Some).map_err(|_| {
        format!("must be networks like \"10.0.0.0/8\", addresses or \"unix\", not {text:?}")
    })
}

/// `https://example.com`, `https://*.example.com` or `null`, as browsers write it in `Origin`.
pub fn origin(text: &str) -> Result<OriginPattern, String> {
    let scheme = text.split("://").next().unwrap_or_default();
    if ["ws", "wss"].iter().any(|wrong| scheme.eq_ignore_ascii_case(wrong)) {
        return Err(format!(
            "must be the page's origin, which browsers write with http or https, not {text:?}"
        ));
    }
    OriginPattern::parse(text).ok_or_else(|| {
        format!(
            "must be origins like \"https://example.com\", \"https://*.example.com:8443\" or \"null\", \
             without path, not {text:?}"
        )
    })
}

/// A WebSocket subprotocol: a token, whose case counts (RFC 6455 §4.1).
pub fn subprotocol(text: &str) -> Result<String, String> {
    if is_token(text) {
        return Ok(text.to_owned());
    }
    Err(format!("must be tokens like \"chat\" (RFC 6455 §4.1), not {text:?}"))
}

/// A regular expression for what is to be hidden.
pub fn pattern(text: &str) -> Result<Regex, String> {
    let fail = |why: &dyn std::fmt::Display| {
        let why = why.to_string();
        format!("{text:?} is no regular expression: {}", why.lines().last().unwrap_or_default())
    };
    let pattern = RegexBuilder::new(text).size_limit(1 << 20).build().map_err(|e| fail(&e))?;
    match pattern.is_match("") {
        true => Err(format!("{text:?} matches the empty text, and so would hide nothing")),
        false => Ok(pattern),
    }
}

/// Which diagnostics are wanted, as in `RUST_LOG`: a level, and levels by module.
pub fn log_filter(text: &str) -> Result<String, String> {
    match EnvFilter::builder().parse(text) {
        Ok(_) => Ok(text.to_owned()),
        Err(error) => Err(format!(
            "must be like \"info\" or \"warn,upsplice::upstream=debug\", not {text:?}: {error}"
        )),
    }
}

/// `text` or `json`.
pub fn log_format(text: &str) -> Result<LogFormat, String> {
    match text {
        "text" => Ok(LogFormat::Text),
        "json" => Ok(LogFormat::Json),
        _ => Err(format!("must be \"text\" or \"json\", not {text:?}")),
    }
}

/// A number of bytes: `"4096"`, `"64KiB"`, `"16MiB"` or `"1GiB"`.
pub(super) fn parse_bytes(text: &str) -> Option<u64> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let shift = match unit {
        "" => 0,
        "KiB" => 10,
        "MiB" => 20,
        "GiB" => 30,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(1 << shift)
}

fn unix(path: &str) -> Result<PathBuf, String> {
    if path.is_empty() || path.contains('\0') {
        return Err("must have a path after \"unix:\"".to_owned());
    }
    if path.len() > UNIX_PATH_BYTES_MAX {
        return Err(format!(
            "must have at most {UNIX_PATH_BYTES_MAX} bytes of path, not {}",
            path.len()
        ));
    }
    Ok(path.into())
}

/// A DNS name, underscores admitted as in service names.
pub(super) fn is_name(text: &str) -> bool {
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
    };
    text.len() <= 253 && text.split('.').all(label)
}

pub(super) fn is_token(text: &str) -> bool {
    let tchar = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    !text.is_empty() && text.bytes().all(tchar)
}

#[cfg(test)]
mod tests;
