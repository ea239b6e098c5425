//! What is logged, where to, and what of it is hidden.

use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;

use ipnet::{Ipv4Net, Ipv6Net};
use regex::Regex;

/// `[gateway.log]`, and the file of `access_log`.
#[derive(Clone, Debug, Default)]
pub struct LogRules {
    /// Where the access log goes; `None`: to standard output.
    pub file: Option<PathBuf>,
    /// A line also when a session begins; default false.
    pub session_open: bool,
    /// What is replaced by [`REDACTED`] in all that a client says of itself: host, path, `User-Agent`, request id.
    pub redact: Vec<Regex>,
    /// Fields that are left out, of [`OMITTABLE`].
    pub omit: Vec<&'static str>,
    /// How much of the client's address is told.
    pub client_addr: ClientAddr,
    /// Which diagnostics are written to stderr, in the syntax of `RUST_LOG`; `None`: `info` and worse.
    pub filter: Option<String>,
    /// How they look.
    pub format: LogFormat,
}

/// How much of a client's address is in the log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ClientAddr {
    /// All of it, and the port.
    #[default]
    Full,
    /// The network: /24 of IPv4, /48 of IPv6.
    Network,
}

/// How diagnostics look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object per line.
    Json,
}

/// What stands where something was hidden.
pub const REDACTED: &str = "[redacted]";

/// Fields of the access log that tell of the client or what it asked, and so may be left out.
pub const OMITTABLE: [&str; 9] = [
    "request_id",
    "trace_id",
    "client_addr",
    "client_port",
    "peer_addr",
    "host",
    "method",
    "path",
    "user_agent",
];

impl LogRules {
    /// Whether this field of [`OMITTABLE`] is told.
    pub fn tells(&self, field: &str) -> bool {
        !self.omit.contains(&field)
    }

    /// `text` without what is to be hidden.
    pub fn redacted(&self, text: &str) -> Box<str> {
        let mut text = std::borrow::Cow::Borrowed(text);
        for pattern in &self.redact {
            if let std::borrow::Cow::Owned(hidden) = pattern.replace_all(&text, REDACTED) {
                text = hidden.into();
            }
        }
        text.into()
    }
}

impl ClientAddr {
    /// The address as it may be told.
    pub fn of(self, address: IpAddr) -> IpAddr {
        let network = match (self, address.to_canonical()) {
            (ClientAddr::Full, address) => return address,
            (ClientAddr::Network, IpAddr::V4(address)) => {
                Ipv4Net::new(address, 24).map(|net| IpAddr::V4(net.network()))
            }
            (ClientAddr::Network, IpAddr::V6(address)) => {
                Ipv6Net::new(address, 48).map(|net| IpAddr::V6(net.network()))
            }
        };
        network.expect("an address is longer than that")
    }
}

impl fmt::Display for LogFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            LogFormat::Text => "text",
            LogFormat::Json => "json",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_an_address_its_network_is_told() {
        for (address, network) in [
            ("192.0.2.77", "192.0.2.0"),
            ("::ffff:192.0.2.77", "192.0.2.0"),
            ("2001:db8:1:2:3::4", "2001:db8:1::"),
        ] {
            let address: IpAddr = address.parse().expect("an address");
            assert_eq!(ClientAddr::Network.of(address).to_string(), network);
            assert_eq!(ClientAddr::Full.of(address), address.to_canonical());
        }
    }

    #[test]
    fn every_pattern_hides_every_match() {
        let patterns = ["token=[^/]+", r"\d{4,}"].map(|pattern| Regex::new(pattern).expect("one"));
        let rules = LogRules { redact: patterns.into(), ..LogRules::default() };
        let hidden = rules.redacted("/a/token=x/b/token=y/12345/123");
        assert_eq!(&*hidden, "/a/[redacted]/b/[redacted]/[redacted]/123");
        assert_eq!(&*LogRules::default().redacted("/a"), "/a");
    }
}
