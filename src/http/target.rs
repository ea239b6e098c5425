//! Request targets and hosts (RFC 9112 §3.2; rules H2, H3, H6).

use std::borrow::Cow;

/// A request target in one of the forms that a gateway may be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target<'b> {
    /// `/path?query`
    Origin(&'b str),
    /// `http://authority/path?query`
    Absolute {
        /// Host and port.
        authority: &'b str,
        /// From the first slash on; `/` when there is none.
        origin: &'b str,
    },
    /// `*`, with OPTIONS only.
    Asterisk,
}

impl<'b> Target<'b> {
    /// Parses a target; the error is the rule it breaks.
    pub fn parse(target: &'b str, method: &str) -> Result<Target<'b>, &'static str> {
        // Browsers send `{`, `|`, `}`, `^` and a backtick as they are, in a query also `\` (WHATWG URL).
        let path = target.split('?').next().unwrap_or(target);
        let plain = |byte: u8| byte.is_ascii_graphic() && !b"\"<>#".contains(&byte);
        if !target.bytes().all(plain) || path.contains('\\') {
            return Err("bad_target");
        }
        if target.starts_with('/') {
            return Ok(Target::Origin(target));
        }
        if target == "*" {
            return if method == "OPTIONS" { Ok(Target::Asterisk) } else { Err("bad_target") };
        }
        let (scheme, rest) = target.split_once("://").ok_or("bad_target")?;
        if !["http", "https"].iter().any(|known| scheme.eq_ignore_ascii_case(known)) {
            return Err("bad_scheme");
        }
        let end = rest.find(['/', '?']).unwrap_or(rest.len());
        let (authority, origin) = rest.split_at(end);
        if authority.is_empty() || origin.starts_with('?') {
            return Err("bad_target");
        }
        Ok(Target::Absolute { authority, origin: if origin.is_empty() { "/" } else { origin } })
    }

    /// What a server is asked for.
    pub fn origin_form(&self) -> &'b str {
        match self {
            Target::Origin(origin) | Target::Absolute { origin, .. } => origin,
            Target::Asterisk => "*",
        }
    }

    /// The authority of the absolute form.
    pub fn authority(&self) -> Option<&'b str> {
        match self {
            Target::Absolute { authority, .. } => Some(authority),
            _ => None,
        }
    }
}

/// Checks a `Host` value or authority: a name or address, and perhaps a port; nothing else. Empty is left
/// for the route to judge.
pub fn check_host(host: &str) -> Result<(), &'static str> {
    let (name, port) = split_port(host);
    let port_is_good = port.is_none_or(|port| {
        // RFC 3986 §3.2.3: a port may be empty.
        port.is_empty()
            || port.bytes().all(|byte| byte.is_ascii_digit()) && port.parse::<u16>().is_ok()
    });
    let name_is_good = match name.strip_prefix('[') {
        Some(rest) => {
            let address = rest.strip_suffix(']').unwrap_or("");
            address.parse::<std::net::Ipv6Addr>().is_ok()
        }
        None => name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte)),
    };
    let empty_name_with_port = name.is_empty() && port.is_some();
    if port_is_good && name_is_good && !empty_name_with_port { Ok(()) } else { Err("bad_host") }
}

/// The host to route on: lower case, no port, no final dot.
pub fn route_host(host: &str) -> Cow<'_, str> {
    let (name, _) = split_port(host);
    let name = name.strip_suffix('.').unwrap_or(name);
    if name.bytes().any(|byte| byte.is_ascii_uppercase()) {
        Cow::Owned(name.to_ascii_lowercase())
    } else {
        Cow::Borrowed(name)
    }
}

/// Host and port of an authority; the brackets of an IPv6 address stay.
pub fn split_port(host: &str) -> (&str, Option<&str>) {
    let after_bracket = host.rfind(']').map_or(0, |at| at + 1);
    match host[after_bracket..].find(':') {
        Some(colon) => {
            let at = after_bracket + colon;
            (&host[..at], Some(&host[at + 1..]))
        }
        None => (host, None),
    }
}

/// Whether a backend can only understand a path as it is written: no dot segments, raw or encoded, no
/// encoded slash or NUL (rule H6). A route that is bound to a path refuses others: what `/ws/..%2fadmin`
/// means is for nobody to guess.
pub fn is_plain(path: &str) -> bool {
    if path.contains('%') {
        let lower = path.to_ascii_lowercase();
        if ["%2e", "%2f", "%5c", "%00"].iter().any(|bad| lower.contains(bad)) {
            return false;
        }
    }
    // `;` starts parameters that some servers cut off before they look at dots.
    path.split('/').all(|segment| !matches!(segment.split(';').next(), Some("." | "..")))
        && !path.contains("//")
}

/// The path as a lenient server may understand it: encoded letters, digits and `-._~` decoded, parameters
/// after `;` cut off. When this leads to another route, the path as sent hides from that route (rule H6).
pub fn as_understood(path: &str) -> Cow<'_, str> {
    if !path.contains(['%', ';']) {
        return Cow::Borrowed(path);
    }
    let mut segments = path.split('/').map(|segment| {
        let bare = segment.split(';').next().unwrap_or(segment);
        decode_unreserved(bare)
    });
    let mut understood = segments.next().unwrap_or_default();
    for segment in segments {
        understood.push('/');
        understood.push_str(&segment);
    }
    Cow::Owned(understood)
}

fn decode_unreserved(segment: &str) -> String {
    let mut parts = segment.split('%');
    let mut decoded = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let byte = part.get(..2).and_then(|digits| u8::from_str_radix(digits, 16).ok());
        match byte.filter(|byte| byte.is_ascii_alphanumeric() || b"-._~".contains(byte)) {
            Some(byte) => {
                decoded.push(char::from(byte));
                decoded.push_str(&part[2..]);
            }
            None => {
                decoded.push('%');
                decoded.push_str(part);
            }
        }
    }
    decoded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_have_one_of_three_forms() {
        let origin = |t| Target::parse(t, "GET").map(|t| t.origin_form().to_owned());
        assert_eq!(origin("/"), Ok("/".into()));
        assert_eq!(origin("/a?b=c/d"), Ok("/a?b=c/d".into()));
        assert_eq!(origin("http://h:1/a"), Ok("/a".into()));
        assert_eq!(origin("HTTP://h"), Ok("/".into()));
        assert_eq!(Target::parse("*", "OPTIONS"), Ok(Target::Asterisk));
        for bad in ["*", "", "a", "h:80", "/a#b", "/a\"", "/<", "http:///a", "http://h?q", "/a\\b"]
        {
            assert_eq!(origin(bad), Err("bad_target"), "{bad}");
        }
        for bad in ["ftp://h/", "ws://h/", "wss://h/"] {
            assert_eq!(origin(bad), Err("bad_scheme"), "{bad}");
        }
        assert_eq!(origin("/a{b}|^`?c=\\"), Ok("/a{b}|^`?c=\\".into()), "as browsers send it");
    }

    #[test]
    fn hosts_are_names_or_addresses_with_an_optional_port() {
        for good in
            ["a", "A.b-c_d", "a:80", "127.0.0.1:65535", "[::1]", "[::1]:8080", "", "a.", "a:"]
        {
            assert_eq!(check_host(good), Ok(()), "{good}");
        }
        for bad in [
            "a b", "a,b", "u@a", "a:b", "a:65536", "a:1:2", "[::1", "::1", "[x]", "a/b", ":80",
            "a?b", "[::1]x", "a%2e", "é",
        ] {
            assert_eq!(check_host(bad), Err("bad_host"), "{bad}");
        }
    }

    #[test]
    fn routing_ignores_case_port_and_final_dot() {
        assert_eq!(route_host("Chat.Example.COM:8080"), "chat.example.com");
        assert_eq!(route_host("a.b."), "a.b");
        assert_eq!(route_host("[::1]:80"), "[::1]");
    }

    #[test]
    fn paths_that_hide_another_path_are_not_plain() {
        for good in ["/", "/ws", "/ws/", "/a.b/..c", "/%41", "/a;v=1"] {
            assert!(is_plain(good), "{good}");
        }
        for bad in [
            "/..",
            "/a/../b",
            "/a/.",
            "/%2e%2e/a",
            "/%2E/",
            "/a%2fb",
            "/a%00",
            "//a",
            "/..;/a",
            "/%5c",
        ] {
            assert!(!is_plain(bad), "{bad}");
        }
    }

    #[test]
    fn a_path_is_understood_without_encoding_and_parameters() {
        for (path, understood) in [
            ("/ws", "/ws"),
            ("/%77s", "/ws"),
            ("/%57S/%7e%2D", "/WS/~-"),
            ("/ws;v=1/a;b", "/ws/a"),
            ("/%zz%", "/%zz%"),
            ("/%+1%2", "/%+1%2"),
            ("/a%20b%é", "/a%20b%é"),
        ] {
            assert_eq!(as_understood(path), understood, "{path}");
        }
    }
}
