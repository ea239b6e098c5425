use super::*;
use crate::config::Limits;
use crate::http::head::ResponseHead;

fn io(kind: ErrorKind) -> Kind {
    Kind::Io { call: "connect", source: kind.into() }
}

#[test]
fn the_status_follows_from_side_stage_and_kind() {
    use Side::{Downstream, Proxy, Upstream};
    use Stage::{Connect, Relay, Request, Response};
    for (side, stage, kind, status) in [
        (Downstream, Request, Kind::HandshakeTimeout, Some(408)),
        (Downstream, Request, Kind::NoRequest, None),
        (Downstream, Request, Kind::Truncated, None),
        (Downstream, Request, Kind::Reset, None),
        (Downstream, Response, Kind::Reset, None),
        (Downstream, Relay, Kind::Reset, None),
        (Proxy, Request, Kind::NoRoute, Some(404)),
        (Upstream, Connect, io(ErrorKind::ConnectionRefused), Some(502)),
        (Upstream, Connect, Kind::ConnectTimeout, Some(504)),
        (Upstream, Connect, Kind::HandshakeTimeout, Some(504)),
        (Upstream, Response, Kind::HandshakeTimeout, Some(504)),
        (Upstream, Response, Kind::Truncated, Some(502)),
        (Upstream, Response, Kind::Reset, Some(502)),
        (Upstream, Response, Kind::Refused("bad_websocket_accept"), Some(502)),
        (Upstream, Response, Kind::Answered, None),
        (Upstream, Relay, Kind::Reset, None),
        (Proxy, Relay, Kind::IdleTimeout, None),
        (Proxy, Request, Kind::Stopped, None),
        (Proxy, Response, Kind::EngineRefused, Some(503)),
        (Proxy, Request, io(ErrorKind::OutOfMemory), Some(503)),
        (Proxy, Request, Kind::Drained, Some(503)),
        (Proxy, Connect, Kind::Drained, Some(503)),
        (Proxy, Relay, Kind::Drained, None),
    ] {
        let end = End::new(side, stage, kind);
        assert_eq!(status_for(&end), status, "{end}");
    }
}

#[test]
fn a_failure_names_its_error_as_rfc_9209_does() {
    use Stage::{Connect, Request, Response};
    for (side, stage, kind, error) in [
        (Side::Downstream, Request, Kind::HandshakeTimeout, "http_request_error"),
        (Side::Proxy, Request, Kind::NoRoute, "destination_not_found"),
        (Side::Upstream, Connect, io(ErrorKind::ConnectionRefused), "connection_refused"),
        (Side::Upstream, Connect, io(ErrorKind::HostUnreachable), "destination_ip_unroutable"),
        (Side::Upstream, Connect, io(ErrorKind::NotFound), "destination_unavailable"),
        (Side::Upstream, Connect, Kind::ConnectTimeout, "connection_timeout"),
        (Side::Upstream, Connect, Kind::HandshakeTimeout, "connection_timeout"),
        (Side::Upstream, Response, Kind::HandshakeTimeout, "http_response_timeout"),
        (Side::Upstream, Response, Kind::Truncated, "http_response_incomplete"),
        (Side::Upstream, Response, Kind::Refused("bare_lf"), "http_protocol_error"),
    ] {
        let end = End::new(side, stage, kind);
        let status = status_for(&end).expect("there is somebody to tell");
        let text = String::from_utf8(failure(status, &end, "gw")).unwrap();
        let expected = format!("\r\nProxy-Status: gw; error={error}\r\n");
        assert!(text.contains(&expected), "{end}: {text}");
        check_response(&text, status);
    }
}

/// Sound, complete, closing: whatever else it says.
fn check_response(text: &str, status: u16) {
    let (head, body) = text.split_once("\r\n\r\n").expect("a head");
    let head = format!("{head}\r\n\r\n");
    let parsed = ResponseHead::parse(head.as_bytes(), &Limits::default()).expect("a sound head");
    assert_eq!(parsed.status, status);
    assert_ne!(parsed.reason, "Refused", "{status} has a reason phrase");
    assert!(parsed.fields().lists("connection", "close"), "{text}");
    assert_eq!(parsed.content_length(), Some(body.len() as u64));
    assert!(body.ends_with(".\n"), "{body}");
}

#[test]
fn every_refusal_closes_and_says_which_rule_was_broken() {
    for status in [400, 403, 405, 413, 414, 417, 426, 431, 501, 505, 508] {
        let text = String::from_utf8(refusal(&Refusal::new(status, "some_rule"), "gw")).unwrap();
        check_response(&text, status);
        assert!(text.contains("`some_rule`"), "{text}");
    }
    let refused = Refusal::new(426, "websocket_version");
    let text = String::from_utf8(refusal(&refused, "gw")).unwrap();
    assert!(text.contains("\r\nConnection: Upgrade, close\r\n"), "{text}");
    assert!(text.contains("\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"), "{text}");
    let text = String::from_utf8(refusal(&Refusal::new(405, "websocket_method"), "gw")).unwrap();
    assert!(text.contains("\r\nAllow: GET\r\n"), "{text}");
}

#[test]
fn an_upgrade_required_names_what_is_carried() {
    let allowed = ["websocket".to_owned(), "irc/6.9".to_owned()];
    let text = String::from_utf8(upgrade_required(&allowed, "gw")).unwrap();
    check_response(&text, 426);
    assert!(text.contains("\r\nUpgrade: websocket, irc/6.9\r\n"), "{text}");
    assert!(text.contains("\r\nSec-WebSocket-Version: 13\r\n"), "{text}");
    let text = String::from_utf8(upgrade_required(&allowed[1..], "gw")).unwrap();
    assert!(!text.contains("Sec-WebSocket"), "{text}");
}

#[test]
fn the_answer_to_head_is_the_same_head() {
    let whole = refusal(&Refusal::new(400, "no_host"), "gw");
    let bare = without_body(whole.clone());
    assert!(whole.starts_with(&bare) && bare.ends_with(b"\r\n\r\n") && bare.len() < whole.len());
    assert_eq!(without_body(bare.clone()), bare);
}
