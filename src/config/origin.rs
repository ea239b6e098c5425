//! Origins (RFC 6454): which pages a browser may open sessions from, and how one is written.

use std::net::Ipv6Addr;

use super::value::is_name;

/// Which origins a route takes (rule H8).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origins {
    /// One of these has to match; never empty.
    pub allowed: Vec<OriginPattern>,
    /// Refuse a request without `Origin`, too; only browsers send it.
    pub required: bool,
}

/// One entry of `allowed_origins`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OriginPattern {
    /// `null`: what a browser says of sandboxed frames and files, whoever made them.
    Null,
    /// This one.
    Exact(Origin),
    /// `https://*.example.com`: the host is kept as `.example.com`, with one label or more before it.
    Below(Origin),
}

/// Scheme, host and port in one spelling, so that equal origins are equal values.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    /// Lower case.
    scheme: String,
    /// Lower case; IPv6 in brackets and in its shortest form.
    host: String,
    /// The scheme's own where none is written; `None` for schemes that have none.
    port: Option<u16>,
}

impl Origin {
    /// Reads `scheme://host[:port]`, nothing before, between or behind it; `None` if it is anything else.
    pub fn parse(text: &str) -> Option<Origin> {
        Origin::parse_with(text, host)
    }

    fn parse_with(text: &str, host: impl Fn(&str) -> Option<String>) -> Option<Origin> {
        let (scheme, authority) = text.split_once("://")?;
        let scheme = scheme.to_ascii_lowercase();
        let in_scheme = |byte: u8| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte);
        if !scheme.starts_with(|first: char| first.is_ascii_lowercase())
            || !scheme.bytes().all(in_scheme)
        {
            return None;
        }
        // The colon of a port stands behind the bracket of an IPv6 address.
        let port_at = match authority.rfind(']') {
            Some(bracket) => bracket + 1,
            None => authority.find(':').unwrap_or(authority.len()),
        };
        let (name, port) = authority.split_at(port_at);
        let port = match port.strip_prefix(':') {
            None if port.is_empty() => default_port(&scheme),
            Some(digits) if digits.bytes().all(|byte| byte.is_ascii_digit()) => {
                Some(digits.parse().ok().filter(|port| *port > 0)?)
            }
            _ => return None,
        };
        Some(Origin { host: host(name)?, scheme, port })
    }

    /// The scheme, in lower case.
    pub fn scheme(&self) -> &str {
        &self.scheme
    }
}

impl OriginPattern {
    /// Reads one entry of `allowed_origins`.
    pub(super) fn parse(text: &str) -> Option<OriginPattern> {
        if text == "null" {
            return Some(OriginPattern::Null);
        }
        let below = |name: &str| {
            let suffix = name.strip_prefix('*').filter(|suffix| suffix.starts_with('.'))?;
            is_name(&suffix[1..]).then(|| suffix.to_ascii_lowercase())
        };
        let exact = Origin::parse(text).map(OriginPattern::Exact);
        exact.or_else(|| Origin::parse_with(text, below).map(OriginPattern::Below))
    }

    /// Whether this is the origin, or stands for it; `None` is `null`.
    pub fn matches(&self, origin: Option<&Origin>) -> bool {
        match (self, origin) {
            (OriginPattern::Null, origin) => origin.is_none(),
            (_, None) => false,
            (OriginPattern::Exact(allowed), Some(origin)) => allowed == origin,
            (OriginPattern::Below(allowed), Some(origin)) => {
                allowed.scheme == origin.scheme
                    && allowed.port == origin.port
                    && origin.host.len() > allowed.host.len()
                    && origin.host.ends_with(&allowed.host)
            }
        }
    }
}

fn host(text: &str) -> Option<String> {
    if let Some(address) = text.strip_prefix('[') {
        let address = address.strip_suffix(']')?.parse::<Ipv6Addr>().ok()?;
        return Some(format!("[{address}]"));
    }
    is_name(text).then(|| text.to_ascii_lowercase())
}

fn default_port(scheme: &str) -> Option<u16> {
    match scheme {
        "http" | "ws" => Some(80),
        "https" | "wss" => Some(443),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn origin(text: &str) -> Origin {
        Origin::parse(text).unwrap_or_else(|| panic!("{text:?} is an origin"))
    }

    #[test]
    fn spellings_of_one_origin_are_equal() {
        for (one, other) in [
            ("https://example.com", "HTTPS://Example.COM:443"),
            ("http://example.com", "http://example.com:80"),
            ("http://example.com:8080", "http://EXAMPLE.com:08080"),
            ("http://[2001:db8::1]", "http://[2001:DB8:0::1]:80"),
            ("chrome-extension://abcdef", "Chrome-Extension://ABCDEF"),
        ] {
            assert_eq!(origin(one), origin(other), "{one} {other}");
        }
    }

    #[test]
    fn origins_that_differ_are_not_equal() {
        let one = origin("https://example.com");
        for other in [
            "http://example.com",
            "https://example.com:80",
            "https://example.com:8443",
            "https://example.com.evil",
            "https://evilexample.com",
            "https://www.example.com",
            "https://example.co",
            "app://example.com:443",
        ] {
            assert_ne!(one, origin(other), "{other}");
        }
    }

    #[test]
    fn what_no_browser_writes_is_no_origin() {
        for text in [
            "",
            "null",
            "example.com",
            "//example.com",
            "://example.com",
            "https:example.com",
            "https:/example.com",
            "https://",
            "https://example.com/",
            "https://example.com/path",
            "https://example.com?q",
            "https://example.com#f",
            "https://example.com.",
            "https://.example.com",
            "https://user@example.com",
            "https://user:secret@example.com",
            "https://example.com@evil.com",
            "https://example.com:",
            "https://example.com:0",
            "https://example.com:65536",
            "https://example.com:+443",
            "https://example.com:443:443",
            "https://example.com https://evil.com",
            "https://example.com,https://evil.com",
            "https://*.example.com",
            "https://exam ple.com",
            "https://ex\u{e4}mple.com",
            "https://[::1",
            "https://::1",
            "https://[::1]x",
            "https://[example.com]",
            "https://example.com\\evil.com",
            "1https://example.com",
            "ht_tp://example.com",
            " https://example.com",
        ] {
            assert_eq!(Origin::parse(text), None, "{text:?}");
        }
    }

    #[test]
    fn a_wildcard_stands_for_one_label_or_more_and_for_nothing_else() {
        let pattern = OriginPattern::parse("https://*.Example.com:8443").expect("a pattern");
        for text in ["https://a.example.com:8443", "https://A.B.EXAMPLE.com:8443"] {
            assert!(pattern.matches(Some(&origin(text))), "{text}");
        }
        for text in [
            "https://example.com:8443",
            "https://a.example.com",
            "http://a.example.com:8443",
            "https://aexample.com:8443",
            "https://a.example.com.evil:8443",
            "https://a.example.org:8443",
        ] {
            assert!(!pattern.matches(Some(&origin(text))), "{text}");
        }
        assert!(!pattern.matches(None), "null has no host");
    }

    #[test]
    fn null_is_matched_only_where_it_is_listed() {
        let [null, exact] =
            ["null", "https://a.b"].map(|text| OriginPattern::parse(text).expect("a pattern"));
        assert!(null.matches(None) && !null.matches(Some(&origin("https://a.b"))));
        assert!(!exact.matches(None) && exact.matches(Some(&origin("https://a.b:443"))));
    }

    #[test]
    fn a_wildcard_stands_in_front_and_has_a_name_below_it() {
        for text in [
            "*",
            "https://*",
            "https://*.",
            "https://*.*.com",
            "https://a.*.com",
            "https://*example.com",
            "*://example.com",
            "https://*.example.com/",
            "https://*.example.com:*",
            "NULL",
        ] {
            assert_eq!(OriginPattern::parse(text), None, "{text:?}");
        }
    }
}
