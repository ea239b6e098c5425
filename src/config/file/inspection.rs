//! The keys of a route that say how its sessions are inspected.

use std::time::Duration;

use toml::de::DeValue;

use super::super::inspection::{
    Deflate, Depth, Heartbeat, Inspection, MessageLimits, OnExcess, OnViolation, Rates,
};
use super::super::section::Section;
use super::super::value::TIMER;
use super::{bytes_or_off, count_or_off, duration};

/// Keys that mean nothing to a session that is not looked into.
const KEYS: [&str; 4] = ["inspect", "on_violation", "deflate", "heartbeat"];

/// The same within `[route.limits]`.
const LIMITS: [&str; 7] = [
    "frame_bytes",
    "message_bytes",
    "fragments",
    "inflated_bytes",
    "inflated_ratio",
    "to_upstream",
    "to_downstream",
];

/// deflate reaches 1032 (RFC 1951); a limit beyond that never holds.
const RATIO_MAX: u32 = 1_032;

/// How long a side may take to answer a ping, where the file does not say.
const HEARTBEAT_TIMEOUT: Duration = Duration::from_secs(10);

/// Reads them; what is left out has its default. All other keys of `limits` have been read.
pub(super) fn read(section: &Section, limits: Section) -> Inspection {
    let default = Inspection::default();
    let depth = section.text("inspect", depth).unwrap_or(default.depth);
    let deflate = deflate_of(section, depth);
    let rates = [
        rates(limits.table("to_upstream", "[route.limits.to_upstream]"), deflate),
        rates(limits.table("to_downstream", "[route.limits.to_downstream]"), deflate),
    ];
    let on_violation = section.text("on_violation", on_violation).unwrap_or(default.on_violation);
    Inspection {
        depth,
        on_violation,
        deflate,
        limits: message_limits(limits, deflate),
        rates,
        heartbeat: heartbeat(section),
    }
}

/// Notes the keys that are there as faults, for a route whose sessions are never looked into.
pub(super) fn refuse_keys(section: &Section, limits: &Section) {
    for key in KEYS {
        if let Some(value) = section.value(key) {
            section.refuse(key, value.at, "needs mode = \"inspect\"");
        }
    }
    for key in LIMITS {
        if let Some(value) = limits.value(key) {
            limits.refuse(key, value.at, "needs mode = \"inspect\"");
        }
    }
}

fn deflate_of(section: &Section, depth: Depth) -> Deflate {
    match (section.text("deflate", deflate), depth) {
        (Some(Deflate::SeeThrough), Depth::Frames) => {
            let at = section.value("deflate").map_or(section.start(), |value| value.at);
            let problem =
                "\"see_through\" needs inspect = \"payload\": else nobody would read what is seen";
            section.refuse("deflate", at, problem);
            Deflate::SeeThrough
        }
        (Some(deflate), _) => deflate,
        (None, Depth::Frames) => Deflate::Pass,
        (None, Depth::Payload) => Deflate::SeeThrough,
    }
}

fn message_limits(section: Section, deflate: Deflate) -> MessageLimits {
    let default = MessageLimits::default();
    let limits = MessageLimits {
        frame_bytes_max: bytes_or_off(&section, "frame_bytes").unwrap_or(default.frame_bytes_max),
        message_bytes_max: bytes_or_off(&section, "message_bytes")
            .unwrap_or(default.message_bytes_max),
        fragments_max: count_or_off(&section, "fragments", u32::MAX)
            .unwrap_or(default.fragments_max),
        inflated_bytes_max: bytes_or_off(&section, "inflated_bytes")
            .unwrap_or(default.inflated_bytes_max),
        inflated_ratio_max: count_or_off(&section, "inflated_ratio", RATIO_MAX)
            .unwrap_or(default.inflated_ratio_max),
    };
    only_see_through(&section, deflate, &["inflated_bytes", "inflated_ratio"]);
    section.end();
    limits
}

/// Notes keys about what nobody inflates as faults.
fn only_see_through(section: &Section, deflate: Deflate, keys: &[&'static str]) {
    if deflate == Deflate::SeeThrough {
        return;
    }
    for key in keys {
        if let Some(value) = section.value(key) {
            section.refuse(key, value.at, "needs deflate = \"see_through\"");
        }
    }
}

fn rates(section: Section, deflate: Deflate) -> Rates {
    let rates = Rates {
        messages: count_or_off(&section, "messages_per_second", u32::MAX).flatten(),
        bytes: bytes_or_off(&section, "bytes_per_second").flatten(),
        control_frames: count_or_off(&section, "control_per_second", u32::MAX).flatten(),
        inflated_bytes: bytes_or_off(&section, "inflated_bytes_per_second").flatten(),
        on_excess: section.text("on_excess", on_excess).unwrap_or_default(),
    };
    only_see_through(&section, deflate, &["inflated_bytes_per_second"]);
    section.end();
    rates
}

fn heartbeat(section: &Section) -> Option<Heartbeat> {
    let is_table = matches!(section.value("heartbeat")?.value, DeValue::Table(_));
    let table = section.table("heartbeat", "[route.heartbeat]");
    if is_table && table.value("interval").is_none() {
        table.missing("interval", "write how long a side may be quiet, \"30s\"");
    }
    let interval = duration(&table, "interval", TIMER);
    let timeout = duration(&table, "timeout", TIMER).unwrap_or(HEARTBEAT_TIMEOUT);
    table.end();
    interval.map(|interval| Heartbeat { interval, timeout })
}

fn depth(text: &str) -> Result<Depth, String> {
    match text {
        "frames" => Ok(Depth::Frames),
        "payload" => Ok(Depth::Payload),
        _ => Err(format!("must be \"frames\" or \"payload\", not {text:?}")),
    }
}

fn on_violation(text: &str) -> Result<OnViolation, String> {
    match text {
        "close" => Ok(OnViolation::Close),
        "log" => Ok(OnViolation::Log),
        _ => Err(format!("must be \"close\" or \"log\", not {text:?}")),
    }
}

fn deflate(text: &str) -> Result<Deflate, String> {
    match text {
        "see_through" => Ok(Deflate::SeeThrough),
        "strip" => Ok(Deflate::Strip),
        "pass" => Ok(Deflate::Pass),
        _ => Err(format!("must be \"see_through\", \"strip\" or \"pass\", not {text:?}")),
    }
}

fn on_excess(text: &str) -> Result<OnExcess, String> {
    match text {
        "slow" => Ok(OnExcess::Slow),
        "close" => Ok(OnExcess::Close),
        _ => Err(format!("must be \"slow\" or \"close\", not {text:?}")),
    }
}
