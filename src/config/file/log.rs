//! `access_log` and `[gateway.log]`.

use std::path::PathBuf;

use toml::de::DeValue;

use crate::config::log::{ClientAddr, LogRules, OMITTABLE};
use crate::config::section::{Section, shown};
use crate::config::value;

use super::without_offsets;

/// `access_log`: a switch, or a file.
pub(super) fn is_on(section: &Section) -> Option<bool> {
    section.key("access_log", |value| match (value, file(value)) {
        (_, Some(_)) => Ok(true),
        (DeValue::Boolean(is_on), _) => Ok(*is_on),
        (other, _) => Err(format!(
            "must be true, false or a file like \"/var/log/upsplice/access.log\", not {}",
            shown(other)
        )),
    })
}

/// Without a slash a text is rather a "yes" or "off".
fn file(value: &DeValue) -> Option<PathBuf> {
    match value {
        DeValue::String(text) if text.contains('/') && !text.ends_with('/') => {
            Some(PathBuf::from(&**text))
        }
        _ => None,
    }
}

/// `[gateway.log]`, and the file of `access_log`.
pub(super) fn rules(gateway: &Section) -> LogRules {
    let section = gateway.table("log", "[gateway.log]");
    let default = LogRules::default();
    let rules = LogRules {
        file: gateway.value("access_log").and_then(|found| file(found.value)),
        session_open: section.switch("session_open").unwrap_or(default.session_open),
        redact: section.list("redact", value::pattern).map_or(default.redact, without_offsets),
        omit: section.list("omit", omittable).map_or(default.omit, without_offsets),
        client_addr: section.text("client_addr", client_addr).unwrap_or(default.client_addr),
        filter: section.text("filter", value::log_filter),
        format: section.text("format", value::log_format).unwrap_or(default.format),
    };
    section.end();
    rules
}

fn omittable(text: &str) -> Result<&'static str, String> {
    let found = OMITTABLE.into_iter().find(|field| *field == text);
    found.ok_or_else(|| format!("must be one of {}, not {text:?}", OMITTABLE.join(", ")))
}

fn client_addr(text: &str) -> Result<ClientAddr, String> {
    match text {
        "full" => Ok(ClientAddr::Full),
        "network" => Ok(ClientAddr::Network),
        _ => Err(format!("must be \"full\" or \"network\", not {text:?}")),
    }
}
