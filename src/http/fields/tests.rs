use proptest::prelude::*;

use super::*;
use crate::config::Limits;
use crate::http::head::{HeadKind, HeadScanner};
use crate::http::upgrade::{Offer, Policy, Subprotocols};

const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";

const POLICY: Policy<'_> = Policy {
    websocket_strict: true,
    lenient_connection: true,
    empty_host: true,
    plain_path: false,
    body_bytes_max: 100,
    rekey: None,
    subprotocols: Subprotocols::Opaque,
};

fn arrival(trusted: bool) -> Arrival<'static> {
    Arrival {
        peer: Some(([192, 0, 2, 1], 4000).into()),
        local_port: Some(8080),
        trusted,
        name: "gw",
        request_id: "ID",
        trace: None,
    }
}

/// The head that goes upstream for a request with these lines, separated by `|`.
fn forwarded(lines: &str, arrival: &Arrival<'_>) -> Result<String, Refusal> {
    forwarded_by(lines, arrival, &POLICY)
}

fn forwarded_by(
    lines: &str,
    arrival: &Arrival<'_>,
    policy: &Policy<'_>,
) -> Result<String, Refusal> {
    let lines: String =
        lines.split('|').filter(|l| !l.is_empty()).map(|line| format!("{line}\r\n")).collect();
    let host = if lines.contains("Host:") { "" } else { "Host: h\r\n" };
    let text = format!("GET /p?q HTTP/1.1\r\n{host}{lines}\r\n");
    let head = RequestHead::parse(text.as_bytes(), &Limits::default())?;
    let offer = Offer::of(&head)?;
    let ask = Ask::new(&head, &offer.tokens, policy)?;
    let mut out = Vec::new();
    write_request(&head, &ask, arrival, &mut out)?;
    Ok(String::from_utf8(out).expect("only ASCII went in"))
}

/// The lines with this name, whole.
fn lines<'t>(text: &'t str, name: &str) -> Vec<&'t str> {
    let is_it = |line: &&str| {
        line.split_once(':').is_some_and(|(found, _)| found.eq_ignore_ascii_case(name))
    };
    text.split("\r\n").skip(1).filter(is_it).collect()
}

#[test]
fn a_request_is_written_anew() {
    let text = forwarded("upgrade: Raw|connection: close, Upgrade|A: b|a:c", &arrival(false));
    let expected = [
        "GET /p?q HTTP/1.1",
        "Host: h",
        "A: b",
        "a: c",
        "Via: 1.1 gw",
        "X-Request-ID: ID",
        "Forwarded: for=192.0.2.1;host=\"h\";proto=http",
        "X-Forwarded-For: 192.0.2.1",
        "X-Forwarded-Proto: http",
        "X-Forwarded-Host: h",
        "X-Forwarded-Port: 8080",
        "X-Real-IP: 192.0.2.1",
        "Connection: Upgrade",
        "Upgrade: Raw",
        "",
        "",
    ];
    assert_eq!(text.unwrap(), expected.join("\r\n"));
}

#[test]
fn connection_may_not_name_a_protected_field_in_any_case() {
    let protected = [
        "Host",
        "Content-Length",
        "Transfer-Encoding",
        "Authorization",
        "Cookie",
        "Origin",
        "Forwarded",
        "X-Forwarded-For",
        "X-Forwarded-Proto",
        "X-Forwarded-Anything",
        "X-Real-IP",
        "X-Request-ID",
        "Via",
        "Sec-WebSocket-Key",
        "Sec-WebSocket-Protocol",
        "Cache-Control",
    ];
    for name in protected {
        for name in [name.to_owned(), name.to_lowercase(), name.to_uppercase()] {
            for value in [name.clone(), format!("Upgrade, {name}"), format!("a,,{name} ,b")] {
                let lines = format!("Upgrade: raw|Connection: {value}");
                let refused = forwarded(&lines, &arrival(false)).unwrap_err();
                assert_eq!(refused, Refusal::new(400, "connection_names_protected"), "{value}");
            }
            let lines = format!("Upgrade: raw|Connection: Upgrade|X: y|connection: {name}");
            assert!(forwarded(&lines, &arrival(true)).is_err(), "{name} in a second line");
        }
    }
    for value in ["a b", "\"close\"", "a;b", "é"] {
        let refused = forwarded(&format!("Upgrade: raw|Connection: {value}"), &arrival(false));
        assert_eq!(refused.unwrap_err().rule, "bad_connection", "{value}");
    }
}

#[test]
fn hop_by_hop_fields_end_here() {
    let text = forwarded(
        "Upgrade: raw|Connection: close, X-Mine|CONNECTION: x-other, Upgrade|X-Mine: 1|x-OTHER: 2\
         |Keep-Alive: 5|Proxy-Connection: close|Proxy-Authorization: b|TE: trailers|Trailer: X\
         |HTTP2-Settings: AAM|Expect: 100-continue|X-Kept: 3|Derp-Fast-Start: 1",
        &arrival(false),
    )
    .unwrap();
    for gone in [
        "x-mine",
        "x-other",
        "keep-alive",
        "proxy-connection",
        "proxy-authorization",
        "te",
        "trailer",
        "http2-settings",
        "expect",
        "derp-fast-start",
    ] {
        assert!(lines(&text, gone).is_empty(), "{gone} in {text}");
    }
    assert_eq!(lines(&text, "X-Kept"), ["X-Kept: 3"]);
    assert_eq!(lines(&text, "Connection"), ["Connection: Upgrade"]);
}

#[test]
fn http2_settings_go_along_with_h2c_only() {
    let both = "Upgrade: h2c|Connection: Upgrade, HTTP2-Settings|HTTP2-Settings: AAM";
    let text = forwarded(both, &arrival(false)).unwrap();
    assert_eq!(lines(&text, "connection"), ["Connection: Upgrade, HTTP2-Settings"]);
    assert_eq!(lines(&text, "http2-settings"), ["HTTP2-Settings: AAM"]);
    let without = forwarded("Upgrade: h2c", &arrival(false)).unwrap();
    assert_eq!(lines(&without, "connection"), ["Connection: Upgrade"], "nothing is named in vain");
    let other = forwarded(&both.replace("h2c", "raw"), &arrival(false)).unwrap();
    assert!(!other.to_lowercase().contains("http2"), "{other}");
}

#[test]
fn repeated_lines_stay_separate_and_in_order() {
    let method = "X-Docker-Expose-Session-Grpc-Method";
    let text = forwarded(
        &format!("Upgrade: h2c|{method}: /b|A: 1|{method}: /a|{method}: /b,c"),
        &arrival(false),
    );
    let expected = [format!("{method}: /b"), format!("{method}: /a"), format!("{method}: /b,c")];
    assert_eq!(lines(&text.unwrap(), method), expected);
}

#[test]
fn a_stranger_says_nothing_about_clients() {
    let spoofed = "Upgrade: raw|X-Forwarded-For: 1.1.1.1|x-forwarded-proto: https\
        |X-Forwarded-Prefix: /x|Forwarded: for=1.1.1.1|X-Real-Ip: 1.1.1.1|X-Request-Id: theirs\
        |X_Forwarded_For: 1.1.1.1|x-forwarded_for: 1.1.1.1|X_Real_IP: 1.1.1.1\
        |Content_Length: 5|Transfer_Encoding: chunked|Sec_WebSocket_Key: k|X_REQUEST_ID: x\
        |Proxy_Authorization: x|X_Kept: 1";
    let text = forwarded(spoofed, &arrival(false)).unwrap();
    assert!(!text.contains("1.1.1.1") && !text.contains("theirs"), "{text}");
    let names: Vec<&str> = text.lines().filter_map(|line| Some(line.split_once(':')?.0)).collect();
    let underscored: Vec<_> = names.iter().filter(|name| name.contains('_')).collect();
    assert_eq!(underscored, [&"X_Kept"]);
    assert!(lines(&text, "x-forwarded-prefix").is_empty());
    assert_eq!(lines(&text, "x-forwarded-proto"), ["X-Forwarded-Proto: http"]);
    assert_eq!(lines(&text, "x-request-id"), ["X-Request-ID: ID"]);
}

#[test]
fn a_trusted_proxy_is_believed_and_added_to() {
    let said = "Upgrade: raw|X-Forwarded-For: 1.1.1.1|X-Forwarded-For: 2.2.2.2\
        |X-Forwarded-Proto: https|X-Forwarded-Prefix: /x|Forwarded: for=1.1.1.1\
        |X-Real-IP: 1.1.1.1|X-Request-ID: theirs|Via: 1.0 first|X_Forwarded_For: 3.3.3.3";
    let text = forwarded(said, &arrival(true)).unwrap();
    for (name, expected) in [
        ("X-Forwarded-For", "X-Forwarded-For: 1.1.1.1, 2.2.2.2, 192.0.2.1"),
        ("X-Forwarded-Proto", "X-Forwarded-Proto: https"),
        ("X-Forwarded-Prefix", "X-Forwarded-Prefix: /x"),
        ("X-Forwarded-Host", "X-Forwarded-Host: h"),
        ("Forwarded", "Forwarded: for=1.1.1.1, for=192.0.2.1;host=\"h\";proto=http"),
        ("X-Real-IP", "X-Real-IP: 1.1.1.1"),
        ("X-Request-ID", "X-Request-ID: theirs"),
        ("Via", "Via: 1.0 first, 1.1 gw"),
    ] {
        assert_eq!(lines(&text, name), [expected]);
    }
    assert!(!text.contains("3.3.3.3"), "an alias is nobody's: {text}");
    let odd = forwarded("Upgrade: raw|X-Request-ID: a b", &arrival(true)).unwrap();
    assert_eq!(lines(&odd, "x-request-id"), ["X-Request-ID: ID"]);
}

#[test]
fn addresses_are_written_as_rfc_7239_says() {
    for (peer, node, address) in [
        (Some("[2001:db8::1]:1"), "\"[2001:db8::1]\"", "2001:db8::1"),
        (Some("[::ffff:192.0.2.7]:1"), "192.0.2.7", "192.0.2.7"),
        (None, "unknown", "unknown"),
    ] {
        let peer = peer.map(|peer| peer.parse().unwrap());
        let text = forwarded("Upgrade: raw", &Arrival { peer, ..arrival(false) }).unwrap();
        let element = format!("Forwarded: for={node};host=\"h\";proto=http");
        assert_eq!(lines(&text, "Forwarded"), [element]);
        assert_eq!(lines(&text, "X-Forwarded-For"), [format!("X-Forwarded-For: {address}")]);
    }
    let unix = Arrival { peer: None, local_port: None, ..arrival(false) };
    let text = forwarded("Upgrade: raw|Host:", &unix).unwrap();
    assert!(lines(&text, "X-Forwarded-Port").is_empty());
    assert_eq!(lines(&text, "Host"), ["Host: "], "an empty Host stays one");
}

#[test]
fn a_request_that_was_here_before_is_refused() {
    for via in ["1.1 gw", "1.0 first, 1.1 GW", "HTTP/1.1 gw (comment)", "1.1 a|Via: 1.1 gw"] {
        let refused = forwarded(&format!("Upgrade: raw|Via: {via}"), &arrival(false));
        assert_eq!(refused.unwrap_err(), Refusal::new(508, "via_loop"), "{via}");
    }
    for via in ["1.1 gw2", "gw", "1.1 first"] {
        assert!(forwarded(&format!("Upgrade: raw|Via: {via}"), &arrival(false)).is_ok(), "{via}");
    }
}

#[test]
fn the_host_is_the_targets_authority() {
    let text = "GET http://Real:81/p HTTP/1.1\r\nHost: other\r\nUpgrade: raw\r\n\r\n";
    let head = RequestHead::parse(text.as_bytes(), &Limits::default()).unwrap();
    let ask = Ask::new(&head, &["raw"], &POLICY).unwrap();
    let mut out = Vec::new();
    write_request(&head, &ask, &arrival(false), &mut out).unwrap();
    let out = String::from_utf8(out).unwrap();
    assert!(out.starts_with("GET /p HTTP/1.1\r\nHost: Real:81\r\n"), "{out}");
    assert!(!out.contains("other"), "{out}");
}

#[test]
fn a_key_of_ours_replaces_the_clients() {
    let websocket =
        format!("Upgrade: websocket|Sec-WebSocket-Version: 13|Sec-WebSocket-Key: {KEY}");
    let text = forwarded(&websocket, &arrival(false)).unwrap();
    assert_eq!(lines(&text, "sec-websocket-key"), [format!("Sec-WebSocket-Key: {KEY}")]);
    let rekey = Policy { rekey: Some([0; 16]), ..POLICY };
    let text = forwarded_by(&websocket, &arrival(false), &rekey).unwrap();
    let ours = ["Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA=="];
    assert_eq!(lines(&text, "sec-websocket-key"), ours);
}

fn response(text: &str, then: impl FnOnce(&ResponseHead<'_>) -> Vec<u8>) -> String {
    let text = format!("HTTP/1.1 {}\r\n\r\n", text.replace('|', "\r\n"));
    let head = ResponseHead::parse(text.as_bytes(), &Limits::default()).expect("sound");
    String::from_utf8(then(&head)).expect("only ASCII went in")
}

const ANSWERED: &str = "Connection: close, X-Hop|X-Hop: 1|Keep-Alive: 5|Proxy-Authenticate: b\
    |Trailer: x|TE: x|Set-Cookie: a=1|Set-Cookie: b=2|X-Stream-Protocol-Version: v4";

#[test]
fn a_101_is_written_anew() {
    let request = "GET / HTTP/1.1\r\nHost: h\r\nUpgrade: raw\r\n\r\n";
    let head = RequestHead::parse(request.as_bytes(), &Limits::default()).unwrap();
    let ask = Ask::new(&head, &["raw"], &POLICY).unwrap();
    let text = response(
        &format!("101 UPGRADED|Upgrade: Raw|{ANSWERED}|Content-Length: 0|Content-Type: x/y"),
        |head| {
            let mut out = Vec::new();
            write_switch(head, &ask, "Raw", &mut out);
            out
        },
    );
    let expected = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: Raw\r\n\
        Set-Cookie: a=1\r\nSet-Cookie: b=2\r\nX-Stream-Protocol-Version: v4\r\n\
        Content-Type: x/y\r\n\r\n";
    assert_eq!(text, expected);
}

#[test]
fn an_answer_is_written_anew() {
    let answer = |text: &str, framing| {
        response(text, |head| {
            let mut out = Vec::new();
            write_answer(head, framing, &mut out);
            out
        })
    };
    let text =
        answer(&format!("404 Gone Fishing|{ANSWERED}|Content-Length: 5"), Framing::Length(5));
    let expected = "HTTP/1.1 404 Gone Fishing\r\nSet-Cookie: a=1\r\nSet-Cookie: b=2\r\n\
        X-Stream-Protocol-Version: v4\r\nContent-Length: 5\r\nConnection: close\r\n\r\n";
    assert_eq!(text, expected);
    let text = answer("200 OK|Transfer-Encoding: chunked|Upgrade: h2c", Framing::Chunked);
    let expected = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n";
    assert_eq!(text, expected, "what is offered besides is for the next hop only");
    let text = answer("426 Upgrade Required|Upgrade: a|Upgrade: b/2", Framing::UntilClose);
    let expected = "HTTP/1.1 426 Upgrade Required\r\nUpgrade: a\r\nUpgrade: b/2\r\n\
        Connection: Upgrade, close\r\n\r\n";
    assert_eq!(text, expected);
    let text = answer("204 No Content|Content-Length: 5", Framing::None);
    assert_eq!(text, "HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n");
    // A response may name what it likes in `Connection`; its cookies still are the client's.
    let text = answer("200 OK|Connection: Cache-Control|Cache-Control: x", Framing::UntilClose);
    assert!(text.contains("Cache-Control: x"), "{text}");
}

/// Names and values as they may come, sound and unsound.
fn field_line() -> impl Strategy<Value = String> {
    let name = prop_oneof![
        "[A-Za-z][A-Za-z_-]{0,12}",
        proptest::sample::select(vec![
            "Connection",
            "Upgrade",
            "TE",
            "X-Forwarded-For",
            "Via",
            "Cookie",
            "Keep-Alive",
            "X_Real_IP",
            "Content-Length",
            "Transfer-Encoding",
            "Host",
            "Expect",
        ])
        .prop_map(str::to_owned),
    ];
    let value = prop_oneof![
        "[ -~]{0,20}",
        "[ -~\t\r\n\0\u{e9}]{0,8}",
        proptest::sample::select(vec!["close", "upgrade", "raw", "a, b", "0", "chunked"])
            .prop_map(str::to_owned),
    ];
    (name, value).prop_map(|(name, value)| format!("{name}: {value}\r\n"))
}

proptest! {
    /// Whatever is accepted is written as a head of the same fields minus those that end here, and every
    /// line of it ends in CR LF.
    #[test]
    fn what_is_accepted_is_written_as_the_same_fields(
        more in proptest::collection::vec(field_line(), 0..8),
        trusted: bool,
    ) {
        let text = format!("GET / HTTP/1.1\r\nHost: h\r\nUpgrade: raw\r\n{}\r\n", more.concat());
        let limits = Limits::default();
        let bytes = text.as_bytes();
        let Ok(Some(len)) = HeadScanner::new(&limits, HeadKind::Request).scan(bytes) else {
            return Ok(());
        };
        let Ok(head) = RequestHead::parse(&bytes[..len], &limits) else { return Ok(()) };
        let Ok(offer) = Offer::of(&head) else { return Ok(()) };
        let Ok(ask) = Ask::new(&head, &offer.tokens, &POLICY) else { return Ok(()) };
        let mut out = Vec::new();
        if write_request(&head, &ask, &arrival(trusted), &mut out).is_err() {
            return Ok(());
        }
        let found = HeadScanner::new(&limits, HeadKind::Request).scan(&out);
        prop_assert_eq!(found, Ok(Some(out.len())), "one sound head and nothing else");
        let again = RequestHead::parse(&out, &limits).expect("it parses");
        prop_assert_eq!(again.method(), head.method());
        prop_assert_eq!(again.origin_form(), head.origin_form());
        prop_assert_eq!(again.host(), head.host());
        prop_assert_eq!(again.content_length(), head.content_length());
        prop_assert_eq!(again.fields().only("connection"), Ok(&b"Upgrade"[..]));

        let ours = |field: &&Field<'_>| {
            !is_replaced(field, &ask) && !HOP_BY_HOP.iter().any(|name| field.is(name))
        };
        let nominated = |field: &&Field<'_>| !head.fields().lists("connection", field.name);
        let sent: Vec<_> = head.fields().iter().filter(ours).filter(nominated).collect();
        let got: Vec<_> = again.fields().iter().filter(ours).collect();
        prop_assert_eq!(got, sent);
    }
}

#[test]
fn what_a_controller_says_goes_no_further_whoever_says_it() {
    for name in ["Upsplice-Use-Zero-Copy", "UPSPLICE-USE-ZERO-COPY", "upsplice-use-zero-copy"] {
        for name in [name.to_owned(), name.replace('-', "_"), name.replacen('-', "_", 1)] {
            for trusted in [true, false] {
                let text = forwarded(&format!("Upgrade: raw|{name}: true"), &arrival(trusted));
                assert!(!text.unwrap().to_lowercase().contains("zero"), "{name}");
            }
        }
    }
    let named = "Upgrade: raw|Connection: Upgrade, upsplice-use-zero-copy";
    assert_eq!(forwarded(named, &arrival(true)).unwrap_err().rule, "connection_names_protected");
}

#[test]
fn a_controllers_word_is_true_or_false_and_there_once() {
    let bad = || Err(Refusal::new(400, "bad_use_zero_copy"));
    for (lines, expected) in [
        ("", Ok(None)),
        ("upsplice-USE-zero-copy: true", Ok(Some(true))),
        ("Upsplice-Use-Zero-Copy: 1", Ok(Some(true))),
        ("Upsplice-Use-Zero-Copy: False", Ok(Some(false))),
        ("Upsplice-Use-Zero-Copy: 0", Ok(Some(false))),
        ("Upsplice-Use-Zero-Copy:", bad()),
        ("Upsplice-Use-Zero-Copy: yes", bad()),
        ("Upsplice-Use-Zero-Copy: true, true", bad()),
        ("Upsplice-Use-Zero-Copy: true|Upsplice-Use-Zero-Copy: true", bad()),
        ("Upsplice_Use_Zero_Copy: true", Ok(None)),
    ] {
        let lines_of: String =
            lines.split('|').filter(|l| !l.is_empty()).map(|l| format!("{l}\r\n")).collect();
        let text = format!("GET / HTTP/1.1\r\nHost: h\r\n{lines_of}\r\n");
        let head = RequestHead::parse(text.as_bytes(), &Limits::default()).unwrap();
        assert_eq!(use_zero_copy(head.fields()), expected, "{lines}");
    }
}

#[test]
fn an_offer_of_extensions_is_replaced_or_dropped_as_a_whole() {
    let lines_of = "Upgrade: raw|Sec-WebSocket-Extensions: a|sec-websocket-extensions: b";
    assert_eq!(
        lines(&forwarded(lines_of, &arrival(false)).unwrap(), "sec-websocket-extensions").len(),
        2
    );
    for (field, expected) in [
        (Some("permessage-deflate"), &["Sec-WebSocket-Extensions: permessage-deflate"][..]),
        (None, &[]),
    ] {
        let text = "GET / HTTP/1.1\r\nHost: h\r\n".to_owned()
            + &lines_of.replace('|', "\r\n")
            + "\r\n\r\n";
        let head = RequestHead::parse(text.as_bytes(), &Limits::default()).unwrap();
        let mut ask = Ask::new(&head, &["raw"], &POLICY).unwrap();
        ask.offer_extensions(field.map(str::to_owned));
        let mut out = Vec::new();
        write_request(&head, &ask, &arrival(false), &mut out).unwrap();
        let text = String::from_utf8(out).unwrap();
        assert_eq!(lines(&text, "sec-websocket-extensions"), expected);
    }
}

#[test]
fn a_trace_goes_on_as_it_came_or_with_our_own_span_as_the_parent() {
    const THEIRS: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let of = |trace| {
        let fields = format!("Upgrade: raw|traceparent: {THEIRS}|TraceParent: bad|tracestate: a=1");
        let text = forwarded(&fields, &Arrival { trace, ..arrival(false) }).unwrap();
        let found =
            |name| lines(&text, name).iter().map(|line| line.to_string()).collect::<Vec<_>>();
        [found("traceparent"), found("tracestate")].concat()
    };
    let theirs = format!("traceparent: {THEIRS}");
    assert_eq!(
        of(None),
        [&theirs, "TraceParent: bad", "tracestate: a=1"],
        "not even a bad one changes"
    );
    let parent = TraceParent { trace_id: 1, span_id: 2, flags: 1 };
    let ours = format!("traceparent: {parent}");
    assert_eq!(of(Some(TraceHop { parent, is_continued: true })), [&ours, "tracestate: a=1"]);
    assert_eq!(of(Some(TraceHop { parent, is_continued: false })), [&*ours]);
}
