use super::*;

const PLAIN: &str = "GET /a?b HTTP/1.1\r\nHost: h\r\nX: \tv \r\n\r\n";

fn scan_all(bytes: &[u8], kind: HeadKind, limits: &Limits) -> Result<Option<usize>, Refusal> {
    HeadScanner::new(limits, kind).scan(bytes)
}

/// The answer when the bytes come in pieces that end at `cuts`.
fn scan_cut(bytes: &[u8], cuts: &[usize], kind: HeadKind) -> Result<Option<usize>, Refusal> {
    let mut scanner = HeadScanner::new(&Limits::default(), kind);
    for &cut in cuts {
        match scanner.scan(&bytes[..cut])? {
            Some(len) => return Ok(Some(len)),
            None => assert_eq!(scanner.scanned, cut, "every byte is looked at once"),
        }
    }
    scanner.scan(bytes)
}

const SCANNED: &[(&str, Result<Option<usize>, &str>)] = &[
    ("GET / HTTP/1.1\r\n\r\n", Ok(Some(18))),
    ("GET / HTTP/1.1\r\n\r\nGET /admin", Ok(Some(18))),
    ("GET / HTTP/1.1\r\nA: b\r\n\r\n\r\n", Ok(Some(24))),
    ("GET / HTTP/1.1\r\nA: \t\u{e9} \r\n\r\n", Ok(Some(27))),
    ("", Ok(None)),
    ("GET / HTTP/1.1\r\nA: b\r\n\r", Ok(None)),
    ("GET / HTTP/1.1\n\r\n", Err("bare_lf")),
    ("GET / HTTP/1.1\r\nA: b\n\r\n", Err("bare_lf")),
    ("GET / HTTP/1.1\r\nA: b\r\n\n", Err("bare_lf")),
    ("\nGET / HTTP/1.1\r\n\r\n", Err("bare_lf")),
    ("GET / HTTP/1.1\r\nA: b\rc\r\n\r\n", Err("bare_cr")),
    ("GET / HTTP/1.1\r\r\n\r\n", Err("bare_cr")),
    ("GET / HTTP/1.1\r\n\rA: b\r\n\r\n", Err("bare_cr")),
    ("\r\nGET / HTTP/1.1\r\n\r\n", Err("blank_before_head")),
    (" GET / HTTP/1.1\r\n\r\n", Err("bad_start_line")),
    ("\u{16}\u{3}\u{1}", Err("bad_start_line")),
    (":", Err("bad_start_line")),
    ("GET / HTTP/1.1\r\n A: b\r\n\r\n", Err("folded_line")),
    ("GET / HTTP/1.1\r\nA: b\r\n\tc\r\n\r\n", Err("folded_line")),
    ("GET / HTTP/1.1\r\nA: b\r\n \r\n\r\n", Err("folded_line")),
    ("GET / HTTP/1.1\r\n: b\r\n\r\n", Err("empty_field_name")),
    ("GET / HTTP/1.1\r\nA: b\0\r\n\r\n", Err("control_character")),
    ("GET / HTTP/1.1\r\nA: \x7f\r\n\r\n", Err("control_character")),
    ("GET / HTTP/1.1\r\nA: \x1b[2J\r\n\r\n", Err("control_character")),
    ("GET\t/ HTTP/1.1\r\n\r\n", Err("control_character")),
    ("GET /\u{e9} HTTP/1.1\r\n\r\n", Err("bad_target")),
];

#[test]
fn heads_are_found_or_refused_however_they_are_cut() {
    for (text, expected) in SCANNED {
        let bytes = text.as_bytes();
        let expected = expected.map_err(|rule| Refusal::new(400, rule));
        assert_eq!(scan_all(bytes, HeadKind::Request, &Limits::default()), expected, "{text:?}");
        for cut in 0..=bytes.len() {
            assert_eq!(scan_cut(bytes, &[cut], HeadKind::Request), expected, "{text:?} at {cut}");
        }
        let each: Vec<usize> = (0..bytes.len()).collect();
        assert_eq!(scan_cut(bytes, &each, HeadKind::Request), expected, "{text:?} by byte");
    }
}

#[test]
fn a_response_may_have_a_reason_beyond_ascii_and_nothing_else_is_looser() {
    let limits = Limits::default();
    let scan = |text: &str| scan_all(text.as_bytes(), HeadKind::Response, &limits);
    assert_eq!(scan("HTTP/1.1 200 \u{e9}\r\n\r\n"), Ok(Some(19)));
    assert_eq!(scan("HTTP/1.1 200 OK\n\n").map_err(|r| r.rule), Err("bare_lf"));
    assert_eq!(scan("HTTP/1.1 200 \0\r\n\r\n").map_err(|r| r.rule), Err("control_character"));
    assert_eq!(scan("\r\nHTTP/1.1 200 OK\r\n").map_err(|r| r.rule), Err("blank_before_head"));
}

#[test]
fn a_head_may_be_as_long_as_the_limit_and_no_longer() {
    let head = PLAIN.as_bytes();
    for (slack, expected) in [(1, Ok(Some(head.len()))), (0, Ok(Some(head.len()))), (-1, Err(431))]
    {
        let max = head.len().saturating_add_signed(slack);
        let limits = Limits { head_bytes_max: max, ..Limits::default() };
        let found = scan_all(head, HeadKind::Request, &limits).map_err(|refusal| refusal.status);
        assert_eq!(found, expected, "limit {max}");
    }
    // No blank line is waited for beyond the limit.
    let limits = Limits { head_bytes_max: 20, ..Limits::default() };
    assert_eq!(scan_all(&head[..19], HeadKind::Request, &limits), Ok(None));
    let refusal = Refusal::new(431, "head_too_large");
    assert_eq!(scan_all(&head[..20], HeadKind::Request, &limits), Err(refusal));
}

#[test]
fn a_line_may_be_as_long_as_the_limit_without_its_end() {
    const MAX: usize = 30;
    let limits = Limits { line_bytes_max: MAX, ..Limits::default() };
    for (len, fits) in [(MAX - 1, true), (MAX, true), (MAX + 1, false), (MAX + 2, false)] {
        let path = "p".repeat(len - "GET / HTTP/1.1".len());
        let start = format!("GET /{path} HTTP/1.1\r\n\r\n");
        let found = scan_all(start.as_bytes(), HeadKind::Request, &limits);
        let expected = if fits { Ok(Some(start.len())) } else { Err((414, "target_too_long")) };
        assert_eq!(found.map_err(|r| (r.status, r.rule)), expected, "start line of {len}");

        let field = format!("GET / HTTP/1.1\r\nA: {}\r\n\r\n", "v".repeat(len - 3));
        let found = scan_all(field.as_bytes(), HeadKind::Request, &limits);
        let expected = if fits { Ok(Some(field.len())) } else { Err((431, "line_too_long")) };
        assert_eq!(found.map_err(|r| (r.status, r.rule)), expected, "field line of {len}");

        let status = format!("HTTP/1.1 200 {}\r\n\r\n", "r".repeat(len - 13));
        let found = scan_all(status.as_bytes(), HeadKind::Response, &limits);
        let expected = if fits { Ok(Some(status.len())) } else { Err((431, "line_too_long")) };
        assert_eq!(found.map_err(|r| (r.status, r.rule)), expected, "status line of {len}");
    }
}

#[test]
fn a_head_may_have_as_many_fields_as_the_limit_and_no_more() {
    let limits = Limits { fields_max: 3, ..Limits::default() };
    for (count, fits) in [(2, true), (3, true), (4, false)] {
        let text = format!("GET / HTTP/1.1\r\n{}\r\n", "Host: h\r\n".repeat(count));
        let found = scan_all(text.as_bytes(), HeadKind::Request, &limits);
        let expected = if fits { Ok(Some(text.len())) } else { Err("too_many_fields") };
        assert_eq!(found.map_err(|r| r.rule), expected, "{count} fields");
        let parsed = RequestHead::parse(text.as_bytes(), &limits).map(drop);
        let rule = if fits { "two_hosts" } else { "too_many_fields" };
        assert_eq!(parsed.unwrap_err().rule, rule, "the parser has room for {count}");
    }
}

#[test]
fn a_huge_head_is_refused_at_the_limit_and_read_once() {
    let limits = Limits::default();
    let mut scanner = HeadScanner::new(&limits, HeadKind::Request);
    let mut bytes = b"GET / HTTP/1.1\r\n".to_vec();
    let mut before = 0;
    let refusal = loop {
        bytes.extend_from_slice(b"A: b\r\nB");
        bytes.extend_from_slice(&[b'c'; 2000]);
        bytes.extend_from_slice(b":\r\n");
        match scanner.scan(&bytes) {
            Ok(found) => assert_eq!(found, None),
            Err(refusal) => break refusal,
        }
        assert!(scanner.scanned > before && scanner.scanned == bytes.len(), "never goes back");
        before = scanner.scanned;
    };
    assert_eq!((refusal.status, refusal.rule), (431, "head_too_large"));
    assert_eq!(scanner.scanned, limits.head_bytes_max, "nothing beyond the limit is looked at");
}

fn parse(text: &str) -> Result<RequestHead<'_>, Refusal> {
    RequestHead::parse(text.as_bytes(), &Limits::default())
}

#[test]
fn a_request_is_taken_apart() {
    let head =
        parse("GET http://A.Test:81/p/q?x=/y HTTP/1.1\r\nHost: other\r\nN: 1\r\nn:2\r\n\r\n");
    let head = head.unwrap();
    assert_eq!((head.method(), head.origin_form(), head.path()), ("GET", "/p/q?x=/y", "/p/q"));
    assert_eq!((head.host(), head.route_host()), ("A.Test:81", Some("a.test")), "target first");
    assert_eq!(head.fields().all("N").collect::<Vec<_>>(), [b"1", b"2"], "lines stay lines");
    assert_eq!(head.fields().only("n"), Err(2));
    assert_eq!(head.content_length(), None);
    let head = parse("OPTIONS * HTTP/1.1\r\nHost:\r\n\r\n").unwrap();
    assert_eq!((head.origin_form(), head.path(), head.route_path()), ("*", "*", "/"));
    assert_eq!((head.host(), head.route_host()), ("", None));
}

#[test]
fn request_lines_follow_rfc_9112() {
    for (start, status, rule) in [
        ("PRI * HTTP/2.0", 505, "http2_preface"),
        ("GET / HTTP/1.0", 505, "http_1_0"),
        ("GET / HTTP/1.2", 505, "bad_version"),
        ("GET / HTTP/2.0", 505, "bad_version"),
        ("GET / HTTP/0.9", 505, "bad_version"),
        ("GET / http/1.1", 505, "bad_version"),
        ("GET /", 400, "bad_head"),
        ("GET  / HTTP/1.1", 400, "bad_head"),
        ("GET / HTTP/1.1 ", 400, "bad_head"),
        ("GET /a b HTTP/1.1", 505, "bad_version"),
        ("get / HTTP/1.1", 400, "bad_method"),
        ("Get / HTTP/1.1", 400, "bad_method"),
        ("CONNECT h:80 HTTP/1.1", 501, "connect"),
        ("CONNECT / HTTP/1.1", 501, "connect"),
        ("connect h:80 HTTP/1.1", 400, "bad_method"),
        ("GET h:80 HTTP/1.1", 400, "bad_target"),
        ("GET * HTTP/1.1", 400, "bad_target"),
        ("GET /a#b HTTP/1.1", 400, "bad_target"),
        ("GET ftp://h/ HTTP/1.1", 400, "bad_scheme"),
        ("GET http://u@h/ HTTP/1.1", 400, "bad_host"),
        ("GET http://u:p@h:80/ HTTP/1.1", 400, "bad_host"),
        ("GET http://h:99999/ HTTP/1.1", 400, "bad_host"),
    ] {
        let text = format!("{start}\r\nHost: h\r\n\r\n");
        let refusal = parse(&text).map(drop).unwrap_err();
        assert_eq!((refusal.status, refusal.rule), (status, rule), "{start}");
    }
}

#[test]
fn fields_follow_rfc_9112() {
    for (fields, rule) in [
        ("", "no_host"),
        ("Host: a\r\nHost: a\r\n", "two_hosts"),
        ("Host: a\r\nhOST: b\r\n", "two_hosts"),
        ("Host: a, b\r\n", "bad_host"),
        ("Host: a b\r\n", "bad_host"),
        ("Host: a@b\r\n", "bad_host"),
        ("Host: a:port\r\n", "bad_host"),
        ("Host: a/b\r\n", "bad_host"),
        ("Host: \u{e9}\r\n", "bad_host"),
        ("Host : a\r\n", "bad_head"),
        ("Host: a\r\nB C: d\r\n", "bad_head"),
        ("Host: a\r\nB\u{e9}: d\r\n", "bad_head"),
        ("Host: a\r\nB(: d\r\n", "bad_head"),
        ("Host: a\r\nno colon\r\n", "bad_head"),
    ] {
        let text = format!("GET / HTTP/1.1\r\n{fields}\r\n");
        let refusal = parse(&text).map(drop).unwrap_err();
        assert_eq!((refusal.status, refusal.rule), (400, rule), "{fields:?}");
    }
    // The field is checked even where the target's authority replaces it.
    let absolute = "GET http://h/ HTTP/1.1\r\nHost: a, b\r\n\r\n";
    assert_eq!(parse(absolute).unwrap_err().rule, "bad_host");
    assert_eq!(parse("GET http://h/ HTTP/1.1\r\n\r\n").unwrap_err().rule, "no_host");
}

#[test]
fn a_content_length_is_one_decimal_number() {
    for (fields, expected) in [
        ("", Ok(None)),
        ("Content-Length: 0\r\n", Ok(Some(0))),
        ("content-length: 007\r\n", Ok(Some(7))),
        ("Content-Length: 18446744073709551615\r\n", Ok(Some(u64::MAX))),
        ("Content-Length: 18446744073709551616\r\n", Err("bad_content_length")),
        ("Content-Length:\r\n", Err("bad_content_length")),
        ("Content-Length: +5\r\n", Err("bad_content_length")),
        ("Content-Length: -5\r\n", Err("bad_content_length")),
        ("Content-Length: 5, 5\r\n", Err("bad_content_length")),
        ("Content-Length: 5 5\r\n", Err("bad_content_length")),
        ("Content-Length: 0x5\r\n", Err("bad_content_length")),
        ("Content-Length: 5.0\r\n", Err("bad_content_length")),
        ("Content-Length: 5\r\nContent-Length: 5\r\n", Err("two_content_lengths")),
        ("Content-Length: 5\r\ncontent-length: 6\r\n", Err("two_content_lengths")),
        ("Content-Length: 5\r\nTransfer-Encoding: chunked\r\n", Err("length_and_encoding")),
        ("Transfer-Encoding: x\r\nContent-Length: 0\r\n", Err("length_and_encoding")),
    ] {
        let text = format!("POST / HTTP/1.1\r\nHost: h\r\n{fields}\r\n");
        let found = parse(&text).map(|head| head.content_length()).map_err(|r| r.rule);
        assert_eq!(found, expected, "{fields:?}");
        if !fields.contains("Transfer-Encoding") {
            let text = format!("HTTP/1.1 200 OK\r\n{fields}\r\n");
            let head = ResponseHead::parse(text.as_bytes(), &Limits::default());
            assert_eq!(head.map(|head| head.content_length()), expected, "response, {fields:?}");
        }
    }
}

#[test]
fn responses_have_a_version_and_a_status_of_three_digits() {
    let parse = |text: &str| {
        let head = ResponseHead::parse(text.as_bytes(), &Limits::default());
        head.map(|head| (head.minor_version, head.status, head.reason.to_owned()))
    };
    assert_eq!(parse("HTTP/1.1 101 UPGRADED\r\n\r\n"), Ok((1, 101, "UPGRADED".into())));
    assert_eq!(parse("HTTP/1.0 200\r\n\r\n"), Ok((0, 200, String::new())));
    assert_eq!(parse("HTTP/1.1 599 \u{e9}\r\n\r\n"), Ok((1, 599, String::new())));
    for text in ["HTTP/1.1 099 A\r\n\r\n", "HTTP/1.1 600 A\r\n\r\n", "HTTP/1.1 999 A\r\n\r\n"] {
        assert_eq!(parse(text), Err("bad_status"), "{text:?}");
    }
    for text in [
        "HTTP/1.1 20 A\r\n\r\n",
        "HTTP/1.1 2000 A\r\n\r\n",
        "HTTP/1.1 +20 A\r\n\r\n",
        "HTTP/2 200 A\r\n\r\n",
        "HTTP/1.1  200 A\r\n\r\n",
        "ICY 200 OK\r\n\r\n",
        "HTTP/1.1 200 OK\r\nA : b\r\n\r\n",
        "HTTP/1.1 200 OK\r\nA\r\n\r\n",
    ] {
        assert_eq!(parse(text), Err("bad_response_head"), "{text:?}");
    }
}

#[test]
fn lists_may_be_split_over_lines_and_have_empty_elements() {
    let head = parse(
        "GET / HTTP/1.1\r\nHost: h\r\nConnection: a ,, B\r\nCONNECTION:\r\nconnection: ,c\t\r\n\r\n",
    )
    .unwrap();
    let list: Vec<&[u8]> = head.fields().list("connection").collect();
    assert_eq!(list, [&b"a"[..], b"B", b"c"]);
    assert!(head.fields().lists("Connection", "b") && !head.fields().lists("connection", "bc"));
}
