use super::*;
use crate::config::Limits;

/// RFC 6455 §1.3.
const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

const POLICY: Policy<'_> = Policy {
    websocket_strict: true,
    lenient_connection: false,
    empty_host: false,
    plain_path: false,
    body_bytes_max: 100,
    rekey: None,
    subprotocols: Subprotocols::Opaque,
};

/// A request with these further field lines, separated by `|`.
fn text(start: &str, lines: &str) -> String {
    let lines: String =
        lines.split('|').filter(|l| !l.is_empty()).map(|line| format!("{line}\r\n")).collect();
    format!("{start} HTTP/1.1\r\nHost: h\r\n{lines}\r\n")
}

/// What becomes of a request when every token it offers is allowed.
fn ask(start: &str, lines: &str, policy: &Policy<'_>) -> Result<Ask, (u16, &'static str)> {
    let text = text(start, lines);
    let head = RequestHead::parse(text.as_bytes(), &Limits::default()).expect("sound");
    let told = |refusal: Refusal| (refusal.status, refusal.rule);
    let offer = Offer::of(&head).map_err(told)?;
    Ask::new(&head, &offer.tokens, policy).map_err(told)
}

fn websocket(more: &str) -> String {
    format!("Upgrade: websocket|Sec-WebSocket-Version: 13|Sec-WebSocket-Key: {KEY}|{more}")
}

fn tokens(ask: &Ask) -> Vec<&str> {
    ask.tokens().collect()
}

#[test]
fn an_offer_keeps_tokens_in_order_and_case() {
    for (lines, expected, connected) in [
        ("", &[][..], false),
        ("Upgrade: websocket|Connection: Upgrade", &["websocket"], true),
        ("Upgrade:  h2c|Connection: keep-alive, uPGRADE", &["h2c"], true),
        ("Upgrade: websocket, H2C|Connection: close", &["websocket", "H2C"], false),
        ("Upgrade: websocket|upgrade: h2c", &["websocket", "h2c"], false),
        ("Upgrade: IRC/6.9,,RTA/x11 ,", &["IRC/6.9", "RTA/x11"], false),
        ("Upgrade: ,", &[], false),
        ("Upgrade:|Connection: Upgraded", &[], false),
    ] {
        let text = text("GET /", lines);
        let head = RequestHead::parse(text.as_bytes(), &Limits::default()).unwrap();
        let offer = Offer::of(&head).unwrap();
        assert_eq!((&offer.tokens[..], offer.connected), (expected, connected), "{lines}");
    }
}

#[test]
fn what_is_no_token_is_refused() {
    for value in [
        "h2c\tx",
        "h2c x",
        "web socket",
        "a/b/c",
        "/1",
        "a/",
        "a;b",
        "a=b",
        "\"a\"",
        "a@b",
        "é",
        "websocket, é",
        "(h2c)",
        "a:b",
    ] {
        let lines = format!("Upgrade: {value}");
        let refused = ask("GET /", &lines, &POLICY).map(drop);
        assert_eq!(refused, Err((400, "bad_upgrade")), "{value:?}");
    }
}

#[test]
fn a_websocket_handshake_is_sound_or_refused() {
    let key = |key: &str| format!("Upgrade: websocket|Sec-WebSocket-Version: 13|{key}");
    let version = |v: &str| format!("Upgrade: websocket|Sec-WebSocket-Key: {KEY}|{v}");
    for (start, lines, expected) in [
        ("GET /", websocket(""), Ok(())),
        ("GET /", websocket("Content-Length: 0"), Ok(())),
        ("GET /", websocket("").replace("websocket", "WebSocket"), Ok(())),
        ("GET /", websocket("").replace("websocket", "websocket/13"), Ok(())),
        ("POST /", websocket(""), Err((405, "websocket_method"))),
        ("HEAD /", websocket(""), Err((405, "websocket_method"))),
        ("POST /", "Upgrade: websocket/13".into(), Err((405, "websocket_method"))),
        ("GET /", websocket("Content-Length: 1"), Err((400, "websocket_body"))),
        ("GET /", websocket("Transfer-Encoding: chunked"), Err((400, "encoding_with_upgrade"))),
        ("GET /", key(""), Err((400, "websocket_key"))),
        ("GET /", key("Sec-WebSocket-Key:"), Err((400, "websocket_key"))),
        ("GET /", key("Sec-WebSocket-Key: MTIzNDU2Nzg5MDEyMzQ1"), Err((400, "websocket_key"))),
        ("GET /", key("Sec-WebSocket-Key: MTIzNDU2Nzg5MDEyMzQ1Njc="), Err((400, "websocket_key"))),
        ("GET /", key("Sec-WebSocket-Key: !!!"), Err((400, "websocket_key"))),
        ("GET /", websocket(&format!("Sec-WebSocket-Key: {KEY}")), Err((400, "websocket_key"))),
        ("GET /", version(""), Err((426, "websocket_version"))),
        ("GET /", version("Sec-WebSocket-Version: 8"), Err((426, "websocket_version"))),
        ("GET /", version("Sec-WebSocket-Version: 013"), Err((426, "websocket_version"))),
        ("GET /", version("Sec-WebSocket-Version: 13, 8"), Err((426, "websocket_version"))),
        ("GET /", websocket("Sec-WebSocket-Version: 13"), Err((426, "websocket_version"))),
    ] {
        assert_eq!(ask(start, &lines, &POLICY).map(drop), expected, "{start} {lines}");
    }
}

#[test]
fn a_lenient_route_takes_websocket_without_key() {
    let lenient = Policy { websocket_strict: false, ..POLICY };
    assert_eq!(tokens(&ask("GET /", "Upgrade: websocket", &lenient).unwrap()), ["websocket"]);
}

#[test]
fn websocket_without_key_beside_another_token_is_left_out() {
    let asked = ask("GET /", "Upgrade: websocket, alpn, alpn-ping", &POLICY).unwrap();
    assert_eq!(tokens(&asked), ["alpn", "alpn-ping"]);
    let asked = ask("GET /", &websocket("Upgrade: alpn"), &POLICY).unwrap();
    assert_eq!(tokens(&asked), ["websocket", "alpn"]);
}

#[test]
fn what_goes_along_with_an_upgrade_is_bounded() {
    for (lines, expected) in [
        ("Content-Length: 100", Ok((100, false))),
        ("Content-Length: 101", Err((413, "body_too_large"))),
        ("Content-Length: 18446744073709551615", Err((413, "body_too_large"))),
        ("Transfer-Encoding: chunked", Err((400, "encoding_with_upgrade"))),
        ("Transfer-Encoding: identity", Err((400, "encoding_with_upgrade"))),
        ("Transfer-Encoding:", Err((400, "encoding_with_upgrade"))),
        ("Expect: 100-Continue|Content-Length: 5", Ok((5, true))),
        ("Expect: 200-ok", Err((417, "bad_expect"))),
        ("Expect: 100-continue|Expect: 100-continue", Err((417, "bad_expect"))),
    ] {
        let asked = ask("POST /", &format!("Upgrade: tcp|{lines}"), &POLICY);
        let found = asked.map(|ask| (ask.body_len(), ask.expects_continue()));
        assert_eq!(found, expected, "{lines}");
    }
}

#[test]
fn hosts_and_paths_are_judged_by_the_routes_policy() {
    let empty = "GET / HTTP/1.1\r\nHost:\r\nUpgrade: raw\r\n\r\n";
    let head = RequestHead::parse(empty.as_bytes(), &Limits::default()).unwrap();
    let refused = Ask::new(&head, &["raw"], &POLICY).map(drop);
    assert_eq!(refused.unwrap_err(), Refusal::new(400, "empty_host"));
    assert!(Ask::new(&head, &["raw"], &Policy { empty_host: true, ..POLICY }).is_ok());

    let plain = Policy { plain_path: true, ..POLICY };
    assert!(ask("GET /ws", "Upgrade: raw", &plain).is_ok());
    assert!(ask("GET /ws?a=/../b", "Upgrade: raw", &plain).is_ok(), "queries are no paths");
    for path in ["/ws/../admin", "/ws/%2e%2e/admin", "/ws//a", "/ws/%2Fa", "/ws/%00"] {
        let refused = ask(&format!("GET {path}"), "Upgrade: raw", &plain).map(drop);
        assert_eq!(refused, Err((400, "path_not_plain")), "{path}");
        assert!(ask(&format!("GET {path}"), "Upgrade: raw", &POLICY).is_ok(), "{path}");
    }
}

/// The judgement on a response with these lines, separated by `|`.
fn judge(ask: &Ask, start: &str, lines: &str) -> Judgement {
    let lines: String =
        lines.split('|').filter(|l| !l.is_empty()).map(|line| format!("{line}\r\n")).collect();
    let text = format!("HTTP/{start}\r\n{lines}\r\n");
    ask.judge(&ResponseHead::parse(text.as_bytes(), &Limits::default()).expect("sound"))
}

fn switch(protocol: &str) -> Judgement {
    Judgement::Switch { protocol: protocol.to_owned() }
}

#[test]
fn only_a_101_of_http_1_1_opens_a_tunnel() {
    let asked = ask("GET /", "Upgrade: raw", &POLICY).unwrap();
    let granted = "Connection: Upgrade|Upgrade: raw";
    for (start, expected) in [
        ("1.1 101 Switching Protocols", switch("raw")),
        ("1.1 101", switch("raw")),
        ("1.1 101 UPGRADED", switch("raw")),
        ("1.0 101 Switching Protocols", Judgement::Fault("switch_in_http_1_0")),
        ("1.1 100 Continue", Judgement::Interim),
        ("1.1 102 Processing", Judgement::Interim),
        ("1.1 103 Early Hints", Judgement::Interim),
        ("1.1 199 Odd", Judgement::Interim),
        ("1.1 200 OK", Judgement::Answer),
        ("1.1 204 No Content", Judgement::Answer),
        ("1.1 302 Found", Judgement::Answer),
        ("1.1 426 Upgrade Required", Judgement::Answer),
        ("1.1 500 No", Judgement::Answer),
    ] {
        assert_eq!(judge(&asked, start, granted), expected, "{start}");
    }
}

#[test]
fn a_101_must_grant_what_was_offered() {
    const OTHER: Judgement = Judgement::Fault("switch_to_other_protocol");
    const SEVERAL: Judgement = Judgement::Fault("switch_to_several");
    for (offered, granted, expected) in [
        ("raw", "raw", switch("raw")),
        ("raw", "RAW", switch("RAW")),
        ("Raw", "raw", switch("raw")),
        ("raw", "raw/2", switch("raw/2")),
        ("raw/1", "raw/1", switch("raw/1")),
        ("raw/1", "RAW/1", switch("RAW/1")),
        ("raw/1", "raw/2", OTHER),
        ("raw/1", "raw", OTHER),
        ("raw", "raw2", OTHER),
        ("raw", "websocket", OTHER),
        ("raw", "", Judgement::Fault("switch_without_upgrade")),
        ("a, b", "b", switch("b")),
        ("a, b", "a, b", SEVERAL),
        ("a", "a, a", SEVERAL),
        ("a", "a, b", SEVERAL),
        ("a", "b, a", OTHER),
        ("TLS/1.0", "TLS/1.0, HTTP/1.1", switch("TLS/1.0, HTTP/1.1")),
        ("TLS/1.0", "TLS/1.0", switch("TLS/1.0")),
        ("TLS/1.0", "HTTP/1.1, TLS/1.0", OTHER),
        ("TLS/1.0", "TLS/1.0, raw", SEVERAL),
        ("TLS/1.0", "TLS/1.2, HTTP/1.1", OTHER),
        ("a", "a, HTTP/1.1", SEVERAL),
    ] {
        let asked = ask("GET /", &format!("Upgrade: {offered}"), &POLICY).unwrap();
        let found = judge(&asked, "1.1 101 S", &format!("Connection: upgrade|Upgrade: {granted}"));
        assert_eq!(found, expected, "{offered} -> {granted}");
    }
}

#[test]
fn a_101_has_both_fields_and_no_body() {
    let asked = ask("GET /", "Upgrade: raw", &POLICY).unwrap();
    let fault = Judgement::Fault;
    for (lines, expected) in [
        ("Connection: keep-alive, UPGRADE|Upgrade: raw", switch("raw")),
        ("Upgrade: raw", fault("switch_without_connection")),
        ("Connection: close|Upgrade: raw", fault("switch_without_connection")),
        ("Connection: upgraded|Upgrade: raw", fault("switch_without_connection")),
        ("Connection: Upgrade", fault("switch_without_upgrade")),
        ("Connection: Upgrade|Upgrade: raw|Content-Length: 0", switch("raw")),
        ("Connection: Upgrade|Upgrade: raw|Content-Length: 1", fault("switch_with_body")),
        ("Connection: Upgrade|Upgrade: raw|Transfer-Encoding: chunked", fault("switch_with_body")),
        ("Connection: Upgrade|Upgrade: raw|Transfer-Encoding:", fault("switch_with_body")),
        ("Connection: Upgrade|Upgrade: raw|Upgrade: raw", fault("switch_to_several")),
        ("Connection: Upgrade|Upgrade: \u{e9}", fault("switch_to_other_protocol")),
    ] {
        assert_eq!(judge(&asked, "1.1 101 S", lines), expected, "{lines}");
    }
    let lenient = Policy { lenient_connection: true, ..POLICY };
    let asked = ask("GET /", "Upgrade: raw", &lenient).unwrap();
    assert_eq!(judge(&asked, "1.1 101 S", "Upgrade: raw"), switch("raw"));
}

#[test]
fn a_websocket_101_must_answer_the_key() {
    let bad = || Judgement::Fault("bad_websocket_accept");
    let good = format!("Sec-WebSocket-Accept: {ACCEPT}");
    for offered in ["", "Upgrade: raw"] {
        let asked = ask("GET /", &websocket(offered), &POLICY).unwrap();
        for (granted, lines, expected) in [
            ("websocket", good.as_str(), switch("websocket")),
            ("WebSocket", &good, switch("WebSocket")),
            ("websocket", "", bad()),
            ("websocket", "Sec-WebSocket-Accept:", bad()),
            ("websocket", "Sec-WebSocket-Accept: S3PPLMBITXAQ9KYGZZHZRBK+XOO=", bad()),
            ("websocket", &format!("{good}|{good}"), bad()),
            ("websocket/13", "", bad()),
            ("WEBSOCKET/1", "", bad()),
        ] {
            let lines = format!("Connection: Upgrade|Upgrade: {granted}|{lines}");
            assert_eq!(judge(&asked, "1.1 101 S", &lines), expected, "{lines}");
        }
    }
}

#[test]
fn our_own_key_is_checked_upstream_and_the_clients_is_answered() {
    let rekey = Policy { rekey: Some([7; 16]), ..POLICY };
    let asked = ask("GET /", &websocket("Upgrade: raw"), &rekey).unwrap();
    let ours = asked.upstream_key().expect("a key of ours");
    assert_eq!(ours, BASE64.encode([7; 16]));
    assert_eq!(asked.downstream_accept("websocket").as_deref(), Some(ACCEPT));
    assert_eq!(asked.downstream_accept("raw"), None, "only a WebSocket has one");
    let granted = |accept: &str| {
        format!("Connection: Upgrade|Upgrade: websocket|Sec-WebSocket-Accept: {accept}")
    };
    let reflected = judge(&asked, "1.1 101 S", &granted(ACCEPT));
    assert_eq!(reflected, Judgement::Fault("bad_websocket_accept"), "the client's own does not do");
    assert_eq!(judge(&asked, "1.1 101 S", &granted(&accept_for(ours))), switch("websocket"));
    let plain = ask("GET /", &websocket(""), &POLICY).unwrap();
    assert_eq!((plain.upstream_key(), plain.downstream_accept("websocket")), (None, None));
}

#[test]
fn the_accept_is_the_one_of_rfc_6455() {
    assert_eq!(accept_for(KEY), ACCEPT);
}

fn protocols(offered: &str) -> String {
    websocket(&format!("Sec-WebSocket-Protocol: {offered}"))
}

/// What is written anew of the field with this name.
fn rewritten<'a>(ask: &'a Ask, name: &str) -> Option<&'a str> {
    ask.rewritten().into_iter().find_map(|(found, value)| value.filter(|_| found == name))
}

#[test]
fn only_allowed_subprotocols_are_offered_in_the_clients_order() {
    let allowed = ["chat".to_owned(), "Super-Chat".to_owned()];
    let only = Policy { subprotocols: Subprotocols::Only(&allowed), ..POLICY };
    let any = Policy { subprotocols: Subprotocols::Any, ..POLICY };
    for (policy, offered, expected) in [
        (&only, "chat", Ok(Some("chat"))),
        (&only, "evil, Super-Chat,chat", Ok(Some("Super-Chat, chat"))),
        (
            &only,
            "chat|Sec-WebSocket-Protocol: evil|Sec-WebSocket-Protocol: chat",
            Ok(Some("chat, chat")),
        ),
        (&only, "evil", Err((403, "subprotocol"))),
        (&only, "super-chat", Err((403, "subprotocol"))),
        (&only, "chats, cha", Err((403, "subprotocol"))),
        (&only, "chat, a b", Err((400, "bad_subprotocol"))),
        (&only, "chat, \u{e9}", Err((400, "bad_subprotocol"))),
        (&only, "chat;q=1", Err((400, "bad_subprotocol"))),
        (&only, " , ", Ok(Some(""))),
        (&any, "b,a", Ok(Some("b, a"))),
        (&any, "a b", Err((400, "bad_subprotocol"))),
        (&POLICY, "a b", Ok(None)),
    ] {
        let asked = ask("GET /", &protocols(offered), policy);
        let field = asked.as_ref().map(|ask| rewritten(ask, "Sec-WebSocket-Protocol"));
        assert_eq!(field.map_err(|refused| *refused), expected, "{offered}");
    }
    let asked = ask("GET /", &websocket(""), &only).expect("nobody has to offer any");
    assert_eq!(rewritten(&asked, "Sec-WebSocket-Protocol"), Some(""));
    let lines = "Upgrade: raw|Sec-WebSocket-Protocol: evil";
    let asked = ask("GET /", lines, &only).expect("they mean something to WebSocket alone");
    assert_eq!(rewritten(&asked, "Sec-WebSocket-Protocol"), None);
    let keyless = Policy { websocket_strict: false, ..only };
    let refused = ask("GET /", &format!("{lines}|Upgrade: websocket"), &keyless).map(drop);
    assert_eq!(refused, Err((403, "subprotocol")), "a handshake without key is no way round");
}

#[test]
fn a_101_may_choose_only_a_subprotocol_that_was_forwarded() {
    let allowed = ["chat".to_owned(), "b".to_owned()];
    let only = Policy { subprotocols: Subprotocols::Only(&allowed), ..POLICY };
    let any = Policy { subprotocols: Subprotocols::Any, ..POLICY };
    let fault = || Judgement::Fault("subprotocol_not_offered");
    let chosen = |name: &str| format!("|Sec-WebSocket-Protocol: {name}");
    for (policy, offered, granted, expected) in [
        (&only, "evil, chat, b", chosen("chat"), switch("websocket")),
        (&only, "evil, chat, b", chosen("b"), switch("websocket")),
        (&only, "evil, chat, b", String::new(), switch("websocket")),
        (&only, "evil, chat", chosen("evil"), fault()),
        (&only, "evil, chat", chosen("b"), fault()),
        (&only, "chat", chosen("CHAT"), fault()),
        (&only, "chat, b", chosen("chat, b"), fault()),
        (&only, "chat, b", chosen("chat") + &chosen("chat"), fault()),
        (&only, "chat", chosen(""), fault()),
        (&only, "", chosen(""), fault()),
        (&only, "", chosen("chat"), fault()),
        (&any, "evil", chosen("evil"), switch("websocket")),
        (&any, "evil", chosen("chat"), fault()),
        (&POLICY, "evil", chosen("chat"), switch("websocket")),
    ] {
        let asked = ask("GET /", &protocols(offered), policy).expect("a good request");
        let lines = format!(
            "Connection: Upgrade|Upgrade: websocket|Sec-WebSocket-Accept: {ACCEPT}{granted}"
        );
        assert_eq!(judge(&asked, "1.1 101 S", &lines), expected, "{offered} -> {granted}");
    }
}
