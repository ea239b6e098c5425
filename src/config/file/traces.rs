//! `[gateway.traces]`.

use toml::de::DeValue;

use super::{TIMER, duration};
use crate::config::section::{Section, integer, shown};
use crate::config::traces::{Sampler, Traces, Trust, endpoint, ratio};

pub(super) fn traces(section: Section) -> Traces {
    let default = Traces::default();
    let share = section.key("sample", |value| {
        let found = match value {
            DeValue::Float(number) => ratio(number.as_str()),
            other => integer(other).and_then(|number| ratio(&number.to_string())),
        };
        found.ok_or_else(|| format!("must be a number from 0 to 1, not {}", shown(value)))
    });
    let traces = Traces {
        endpoint: section.text("endpoint", endpoint),
        service_name: section.text("service_name", name).unwrap_or(default.service_name),
        trust: section.text("trust", trust).unwrap_or(default.trust),
        sampler: share.map_or(default.sampler, |ratio| Sampler { ratio, ..default.sampler }),
        delay: duration(&section, "delay", TIMER).unwrap_or(default.delay),
    };
    section.end();
    traces
}

fn name(text: &str) -> Result<String, String> {
    let is_name = !text.is_empty() && text.len() <= 255 && !text.contains(char::is_control);
    is_name.then(|| text.to_owned()).ok_or_else(|| format!("must be a name, not {text:?}"))
}

fn trust(text: &str) -> Result<Trust, String> {
    match text {
        "trusted_proxies" => Ok(Trust::TrustedProxies),
        "any" => Ok(Trust::Any),
        _ => Err(format!("must be \"trusted_proxies\" or \"any\", not {text:?}")),
    }
}
