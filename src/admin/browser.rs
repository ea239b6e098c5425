//! Requests that a browser makes for somebody else's page.
//!
//! A socket that is forwarded to an operator's machine (`ssh -L`) is a port there, and every page that is open in a
//! browser can send requests to it, though it cannot read the answers. Where a token is asked for that is of no use to
//! them; where none is, whoever asks has to come from a page of ours, under a name that nobody else can give out.

use std::net::IpAddr;

use hyper::HeaderMap;
use hyper::header::{HOST, ORIGIN};

/// Whether a request was made by a browser for a page that is not ours. What no browser says, such as a command line,
/// is never foreign.
pub(super) fn is_foreign(headers: &HeaderMap) -> bool {
    let text = |name: &str| headers.get(name).map(|value| value.to_str().unwrap_or("?"));
    let (host, origin, site) = (text(HOST.as_str()), text(ORIGIN.as_str()), text("sec-fetch-site"));
    if origin.is_none() && site.is_none() {
        return false;
    }
    let host = host.unwrap_or_default();
    let other_origin =
        origin.is_some_and(|origin| origin.split_once("://").is_none_or(|(_, from)| from != host));
    let other_site = site.is_some_and(|site| !matches!(site, "same-origin" | "none"));
    other_origin || other_site || !is_a_place(host)
}

/// Whether this is an address or `localhost`: any other name can be made to lead here by whoever owns it.
fn is_a_place(host: &str) -> bool {
    let name = match host.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((inside, _)) => inside,
        None => host.rsplit_once(':').map_or(host, |(name, _)| name),
    };
    name.eq_ignore_ascii_case("localhost") || name.parse::<IpAddr>().is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_of_ours_and_programs_are_heard_and_others_are_not() {
        for (host, origin, site, expected) in [
            ("upsplice", None, None, false),
            ("127.0.0.1:9090", None, Some("none"), false),
            ("127.0.0.1:9090", Some("http://127.0.0.1:9090"), Some("same-origin"), false),
            ("localhost:9090", Some("http://localhost:9090"), None, false),
            ("[::1]:9090", Some("http://[::1]:9090"), Some("same-origin"), false),
            ("127.0.0.1:9090", Some("https://evil.test"), Some("cross-site"), true),
            ("127.0.0.1:9090", Some("https://evil.test"), None, true),
            ("127.0.0.1:9090", Some("http://127.0.0.1:8080"), Some("same-site"), true),
            ("127.0.0.1:9090", Some("null"), None, true),
            ("127.0.0.1:9090", None, Some("cross-site"), true),
            // A name that its owner has made to lead here.
            ("evil.test:9090", Some("http://evil.test:9090"), Some("same-origin"), true),
            ("", Some("http://127.0.0.1"), None, true),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(HOST, host.parse().unwrap());
            for (name, value) in [("origin", origin), ("sec-fetch-site", site)] {
                if let Some(value) = value {
                    headers.insert(name, value.parse().unwrap());
                }
            }
            assert_eq!(is_foreign(&headers), expected, "{host} {origin:?} {site:?}");
        }
    }
}
