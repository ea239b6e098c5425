//! The responses of the demo, as tables.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest, Sha256};

use super::*;

const COUNTERS: &str = r#"{"sessions_open":1}"#;

/// Head and body of a response.
fn split(response: &[u8]) -> (String, String) {
    let text = std::str::from_utf8(response).expect("responses are text");
    let (head, body) = text.split_once("\r\n\r\n").expect("a blank line ends the head");
    (format!("{head}\r\n"), body.to_owned())
}

/// The value of the only field called `name`.
fn field<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    let mut found = head.lines().skip(1).filter_map(|line| {
        let (field, value) = line.split_once(": ")?;
        field.eq_ignore_ascii_case(name).then_some(value)
    });
    let value = found.next();
    assert_eq!(found.next(), None, "{name} is there twice:\n{head}");
    value
}

fn between<'a>(text: &'a str, open: &str, close: &str) -> &'a str {
    let (_, rest) = text.split_once(open).expect("the opening tag");
    assert!(!rest.contains(open), "{open} opens twice");
    rest.split_once(close).expect("the closing tag").0
}

fn csp_hash(text: &str) -> String {
    format!("sha256-{}", STANDARD.encode(Sha256::digest(text.as_bytes())))
}

#[test]
fn every_method_and_path_has_its_answer() {
    let html = "text/html; charset=utf-8";
    let text = "text/plain; charset=utf-8";
    let json = "application/json";
    let table = [
        ("GET", "/", "200 OK", Some(html), page()),
        ("GET", "/?theme=dark", "200 OK", Some(html), page()),
        ("HEAD", "/", "200 OK", Some(html), ""),
        ("POST", "/", "405 Method Not Allowed", Some(text), "Only GET"),
        ("get", "/", "405 Method Not Allowed", Some(text), "Only GET"),
        ("GET", "/upsplice/counters", "200 OK", Some(json), COUNTERS),
        ("GET", "/upsplice/counters?1", "200 OK", Some(json), COUNTERS),
        ("HEAD", "/upsplice/counters", "200 OK", Some(json), ""),
        ("DELETE", "/upsplice/counters", "405 Method Not Allowed", Some(text), "Only GET"),
        ("GET", "/upsplice/counters/", "404 Not Found", Some(text), "Nothing is here."),
        ("GET", "/favicon.ico", "204 No Content", None, ""),
        ("HEAD", "/favicon.ico", "204 No Content", None, ""),
        ("GET", "/echo", "426 Upgrade Required", Some(text), "This path speaks WebSocket."),
        ("HEAD", "/echo", "426 Upgrade Required", Some(text), ""),
        ("GET", "/index.html", "404 Not Found", Some(text), "Nothing is here."),
        ("HEAD", "/index.html", "404 Not Found", Some(text), ""),
        ("POST", "/index.html", "404 Not Found", Some(text), "Nothing is here."),
        ("GET", "//", "404 Not Found", Some(text), "Nothing is here."),
        ("GET", "", "404 Not Found", Some(text), "Nothing is here."),
    ];
    for (method, target, status, media_type, body_start) in table {
        let (head, body) = split(&respond(method, target, COUNTERS));
        let case = format!("{method} {target}");
        assert_eq!(head.lines().next(), Some(&*format!("HTTP/1.1 {status}")), "{case}");
        assert_eq!(field(&head, "Content-Type"), media_type, "{case}");
        assert!(body.starts_with(body_start), "{case}: {body}");
        assert_eq!(body.is_empty(), body_start.is_empty(), "{case}: {body}");
    }
}

#[test]
fn every_response_ends_the_connection_and_is_neither_kept_nor_guessed_at() {
    for method in ["GET", "HEAD", "PUT"] {
        for path in ["/", COUNTERS_PATH, ECHO_PATH, "/favicon.ico", "/none"] {
            let (head, _) = split(&respond(method, path, COUNTERS));
            let connection = field(&head, "Connection").expect("Connection");
            assert!(connection.starts_with("close"), "{method} {path}: {connection}");
            assert_eq!(field(&head, "Cache-Control"), Some("no-store"), "{method} {path}");
            assert_eq!(field(&head, "X-Content-Type-Options"), Some("nosniff"), "{method} {path}");
            let policy = field(&head, "Content-Security-Policy").expect("a policy");
            assert!(policy.starts_with("default-src 'none'; "), "{method} {path}: {policy}");
            assert!(!policy.contains("unsafe"), "{method} {path}: {policy}");
        }
    }
}

#[test]
fn content_length_counts_the_body_that_a_get_sends_also_for_head() {
    for path in ["/", COUNTERS_PATH, ECHO_PATH, "/none"] {
        let (get, body) = split(&respond("GET", path, COUNTERS));
        let (head, nothing) = split(&respond("HEAD", path, COUNTERS));
        assert_eq!(field(&get, "Content-Length"), Some(&*body.len().to_string()), "{path}");
        assert_eq!(head, get, "{path}");
        assert_eq!(nothing, "", "{path}");
    }
    let (no_content, _) = split(&respond("GET", "/favicon.ico", COUNTERS));
    assert_eq!(field(&no_content, "Content-Length"), None);
}

#[test]
fn refusals_name_what_would_be_accepted() {
    let (refused, _) = split(&respond("POST", "/", COUNTERS));
    assert_eq!(field(&refused, "Allow"), Some("GET, HEAD"));
    let (plain, _) = split(&respond("GET", ECHO_PATH, COUNTERS));
    assert_eq!(field(&plain, "Upgrade"), Some("websocket"));
    assert_eq!(field(&plain, "Connection"), Some("close, upgrade"));
    let (_, hint) = split(&respond("GET", "/none", COUNTERS));
    for named in ["/echo", COUNTERS_PATH, "upsplice run --to"] {
        assert!(hint.contains(named), "{named}: {hint}");
    }
}

#[test]
fn the_policy_admits_exactly_the_script_and_the_style_of_the_page() {
    let script = csp_hash(between(page(), "<script>", "</script>"));
    let style = csp_hash(between(page(), "<style>", "</style>"));
    assert_eq!(SCRIPT_HASH, script, "the script changed: set SCRIPT_HASH to {script}");
    assert_eq!(STYLE_HASH, style, "the style sheet changed: set STYLE_HASH to {style}");
}

#[test]
fn the_page_asks_nobody_else_for_anything() {
    for outside in ["http://", "https://", "src=\"/", "@import", "url(", " style=", " onclick="] {
        assert!(!page().contains(outside), "the page contains {outside:?}");
    }
    for ours in [ECHO_PATH, COUNTERS_PATH, "rel=\"icon\" href=\"data:"] {
        assert!(page().contains(ours), "the page lacks {ours:?}");
    }
}
