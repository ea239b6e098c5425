//! The keys of a route that say which endpoints it has and how they are used.

use std::net::IpAddr;
use std::time::Duration;

use toml::de::DeValue;

use super::super::section::{Section, Value, integer, shown};
use super::super::upstreams::{Balance, Ejection, HashBy, Health, OnUnhealthy, UpstreamRules};
use super::super::value::{self, Resolve, TIMER};
use super::super::{Endpoint, WEIGHT};
use super::{count_or_off, duration, duration_or_off, without_offsets};

/// How long sessions take to end by default, once their endpoint is unhealthy.
const CLOSE_OVER: Duration = Duration::from_secs(30);

/// The endpoints of `to`: addresses, or tables of an address and a weight. `None` when the key is wrong, or
/// missing, which is noted.
pub(super) fn endpoints(section: &Section, resolve: Resolve<'_>) -> Option<Vec<Endpoint>> {
    let Some(Value { value, at }) = section.value("to") else {
        section.missing("to", "name at least one upstream, to = [\"127.0.0.1:9000\"]");
        return None;
    };
    let DeValue::Array(array) = value else {
        let to = section.list("to", |text| value::endpoint(text, resolve));
        return to.map(without_offsets);
    };
    if array.is_empty() {
        section.refuse("to", at, "must not be an empty list; leave the key out or fill it in");
        return None;
    }
    let mut endpoints = Vec::new();
    for element in array {
        let at = element.span().start;
        match element.get_ref() {
            DeValue::String(text) => match value::endpoint(text, resolve) {
                Ok(endpoint) => endpoints.push(endpoint),
                Err(problem) => section.refuse("to", at, problem),
            },
            DeValue::Table(table) => {
                endpoints.extend(weighted(section.within("to", table, at), resolve));
            }
            other => section.refuse(
                "to",
                at,
                format_args!(
                    "must be a string in quotes, or {{ address = \"…\", weight = 2 }}, not {}",
                    shown(other)
                ),
            ),
        }
    }
    Some(endpoints)
}

fn weighted(section: Section, resolve: Resolve<'_>) -> Option<Endpoint> {
    let endpoint = section.text("address", |text| value::endpoint(text, resolve));
    if section.value("address").is_none() {
        section.missing("address", "write where it leads, \"127.0.0.1:9000\"");
    }
    let weight = section.number("weight", WEIGHT).map(|weight| weight as u16);
    section.end();
    endpoint.map(|endpoint| Endpoint { weight: weight.unwrap_or(endpoint.weight), ..endpoint })
}

/// Everything but the endpoints themselves; what is left out has its default.
pub(super) fn rules(section: &Section) -> UpstreamRules {
    let default = UpstreamRules::default();
    let balancing = section.table("balance", "[route.balance]");
    let rules = UpstreamRules {
        balance: balance(&balancing),
        ejection: ejection(&balancing),
        health: health(section),
        sources: section.list("source", source).map(without_offsets).unwrap_or_default(),
        resolve_every: duration_or_off(section, "resolve_every", TIMER)
            .unwrap_or(default.resolve_every),
    };
    balancing.end();
    rules
}

fn balance(section: &Section) -> Balance {
    let by = section.text("by", |text| match text {
        "least_sessions" => Ok(Some(Balance::LeastSessions)),
        "round_robin" => Ok(Some(Balance::RoundRobin)),
        "hash" => Ok(None),
        _ => Err(format!("must be \"least_sessions\", \"round_robin\" or \"hash\", not {text:?}")),
    });
    let hash = section.text("hash", hash_by);
    match (by, section.value("hash")) {
        (Some(None), Some(_)) => hash.map_or_else(Balance::default, Balance::Hash),
        (Some(None), None) => {
            section.missing("hash", "write what is hashed, \"client\" or \"header:NAME\"");
            Balance::default()
        }
        (by, Some(value)) => {
            // Where `by` is wrong itself, there is nothing more to say.
            if by.is_some() || section.value("by").is_none() {
                section.refuse("hash", value.at, "needs by = \"hash\"");
            }
            by.flatten().unwrap_or_default()
        }
        (by, None) => by.flatten().unwrap_or_default(),
    }
}

fn hash_by(text: &str) -> Result<HashBy, String> {
    let token = |name: &str| value::is_token(name).then(|| name.to_owned());
    let found = match text.split_once(':') {
        None if text == "client" => Some(HashBy::Client),
        Some(("header", name)) => token(&name.to_ascii_lowercase()).map(HashBy::Header),
        Some(("cookie", name)) => token(name).map(HashBy::Cookie),
        _ => None,
    };
    found.ok_or_else(|| {
        format!("must be \"client\", \"header:NAME\" or \"cookie:NAME\", not {text:?}")
    })
}

fn ejection(section: &Section) -> Ejection {
    let default = Ejection::default();
    let after = count_or_off(section, "eject_after", u32::from(u8::MAX));
    let first = duration(section, "eject_for", TIMER);
    let longest = duration(section, "eject_max", TIMER);
    let ejection = Ejection {
        after: after.map_or(default.after, |after| after.map(|count| count as u8)),
        first: first.unwrap_or(default.first.min(longest.unwrap_or(default.first))),
        longest: longest.unwrap_or(default.longest.max(first.unwrap_or_default())),
    };
    if ejection.longest < ejection.first {
        let at = section.value("eject_max").map_or(section.start(), |value| value.at);
        section.refuse("eject_max", at, "must not be shorter than eject_for");
    }
    ejection
}

fn health(section: &Section) -> Option<Health> {
    section.value("health")?;
    let table = section.table("health", "[route.health]");
    let default = Health::default();
    let path = table.text("path", value::path);
    let status = table.key("status", status);
    let close = table.text("on_unhealthy", |text| match text {
        "keep" => Ok(false),
        "close" => Ok(true),
        _ => Err(format!("must be \"keep\" or \"close\", not {text:?}")),
    });
    let over = duration_or_off(&table, "close_over", TIMER);
    let closes = close == Some(true);
    for (key, is_void, problem) in [
        ("status", path.is_none(), "needs path: a connect has no status"),
        ("close_over", !closes, "needs on_unhealthy = \"close\""),
    ] {
        if let Some(value) = table.value(key).filter(|_| is_void) {
            table.refuse(key, value.at, problem);
        }
    }
    let count = |key, default| table.number(key, 1..=1000).map_or(default, |count| count as u16);
    let over = over.map_or(CLOSE_OVER, Option::unwrap_or_default);
    let health = Health {
        interval: duration(&table, "interval", TIMER).unwrap_or(default.interval),
        timeout: duration(&table, "timeout", TIMER).unwrap_or(default.timeout),
        path,
        status: status.unwrap_or(default.status),
        rise: count("rise", default.rise),
        fall: count("fall", default.fall),
        on_unhealthy: if closes { OnUnhealthy::Close { over } } else { OnUnhealthy::Keep },
    };
    table.end();
    Some(health)
}

/// `200`, or `"2xx"` for a hundred of them.
fn status(value: &DeValue) -> Result<(u16, u16), String> {
    let range = match value {
        DeValue::String(text) => match text.as_bytes() {
            [digit @ b'1'..=b'5', b'x', b'x'] => {
                let first = u16::from(digit - b'0') * 100;
                Some((first, first + 99))
            }
            _ => None,
        },
        other => integer(other)
            .and_then(|status| u16::try_from(status).ok())
            .filter(|status| (100..=599).contains(status))
            .map(|status| (status, status)),
    };
    range.ok_or_else(|| {
        format!("must be a status like 200, or \"2xx\" for all of them, not {}", shown(value))
    })
}

/// An address of this machine.
fn source(text: &str) -> Result<IpAddr, String> {
    text.parse::<IpAddr>()
        .ok()
        .filter(|address| !address.is_unspecified() && !address.is_multicast())
        .ok_or_else(|| {
            format!("must be IP addresses of this machine like \"10.0.0.2\", not {text:?}")
        })
}
