//! Which page asks: browsers let any page open a WebSocket anywhere, with the cookies of the place, and leave it
//! to the server to look at `Origin` (cross-site WebSocket hijacking, rule H8).

use super::head::Fields;
use super::reject::Refusal;
use crate::config::{Origin, Origins};

/// Judges the `Origin` of a request.
///
/// # Errors
///
/// 403 for one that is not allowed, that no browser writes, or that is there twice; for none, where one is
/// required.
pub fn check(fields: &Fields<'_>, origins: &Origins) -> Result<(), Refusal> {
    let refused = Refusal::new(403, "origin");
    let value = match fields.only("origin") {
        Ok(value) => str::from_utf8(value).map_err(|_| refused)?,
        Err(0) if !origins.required => return Ok(()),
        Err(_) => return Err(refused),
    };
    let origin = match value {
        "null" => None,
        value => Some(Origin::parse(value).ok_or(refused)?),
    };
    let is_allowed = origins.allowed.iter().any(|allowed| allowed.matches(origin.as_ref()));
    if is_allowed { Ok(()) } else { Err(refused) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Limits, value};
    use crate::http::head::RequestHead;

    /// Whether a request with these field lines, separated by `|`, gets past the check.
    fn passes(lines: &str, allowed: &[&str], required: bool) -> bool {
        let allowed = allowed.iter().map(|text| value::origin(text).expect("a pattern")).collect();
        let lines: String =
            lines.split('|').filter(|l| !l.is_empty()).map(|line| format!("{line}\r\n")).collect();
        let text = format!("GET / HTTP/1.1\r\nHost: h\r\n{lines}\r\n");
        let head = RequestHead::parse(text.as_bytes(), &Limits::default()).expect("sound");
        match check(head.fields(), &Origins { allowed, required }) {
            Ok(()) => true,
            Err(refusal) => {
                assert_eq!(refusal, Refusal::new(403, "origin"), "{lines}");
                false
            }
        }
    }

    const ALLOWED: [&str; 3] =
        ["https://good.com", "http://good.com:8080", "https://*.apps.good.com"];

    #[test]
    fn allowed_origins_pass_in_every_spelling() {
        for line in [
            "Origin: https://good.com",
            "origin: HTTPS://GOOD.com:443",
            "Origin:   https://good.com  ",
            "Origin: http://good.com:8080",
            "Origin: https://a.apps.good.com",
            "Origin: https://a.b.APPS.good.com:443",
        ] {
            assert!(passes(line, &ALLOWED, true), "{line}");
        }
    }

    #[test]
    fn other_origins_and_their_tricks_are_refused() {
        for line in [
            "Origin: https://evil.com",
            "Origin: http://good.com",
            "Origin: https://good.com:8080",
            "Origin: http://good.com:80",
            "Origin: https://good.com.evil.com",
            "Origin: https://evilgood.com",
            "Origin: https://www.good.com",
            "Origin: https://good.com.",
            "Origin: https://good.com@evil.com",
            "Origin: https://evil.com@good.com",
            "Origin: https://good.com:443@evil.com",
            "Origin: https://good.com/",
            "Origin: https://evil.com/https://good.com",
            "Origin: https://good.com https://evil.com",
            "Origin: https://evil.com, https://good.com",
            "Origin: https://good.com, https://good.com",
            "Origin: https://apps.good.com",
            "Origin: https://evilapps.good.com",
            "Origin: https://*.apps.good.com",
            "Origin: https://.apps.good.com",
            "Origin: https://evil.com#.apps.good.com",
            "Origin: https://evil.com/.apps.good.com",
            "Origin: https://evil.com\\.apps.good.com",
            "Origin: https://evil.com:443.apps.good.com",
            "Origin: good.com",
            "Origin: null",
            "Origin: undefined",
            "Origin: *",
            "Origin:",
            "Origin: https://g\u{f6}\u{f6}d.com",
            "Origin: https://good.com|Origin: https://good.com",
            "Origin: https://good.com|origin: https://evil.com",
        ] {
            assert!(!passes(line, &ALLOWED, false), "{line}");
        }
    }

    #[test]
    fn a_request_without_origin_passes_unless_one_is_required() {
        assert!(passes("", &ALLOWED, false));
        assert!(!passes("", &ALLOWED, true));
        // What only looks like it does not count.
        assert!(!passes("X-Origin: https://good.com", &ALLOWED, true));
    }

    #[test]
    fn null_passes_only_where_it_is_listed() {
        assert!(passes("Origin: null", &["null"], true));
        assert!(!passes("Origin: NULL", &["null"], true));
        assert!(!passes("Origin: https://good.com", &["null"], true));
    }
}
