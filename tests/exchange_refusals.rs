//! Requests and answers that are refused: by whose rule, with which status, and that nothing comes of them
//! (rules U3–U7).

mod support;

use std::sync::mpsc::channel;

use support::backend::wait;
use support::client::{ACCEPT, KEY, upgrade_head};
use support::exchange::{PIPELINED, answering, drain, status, to_end, unreachable};
use support::{Backend, Client, Engine, Gw, Runtime};

fn gw(backend: &Backend) -> Gw {
    gw_with(backend, "", "")
}

fn gw_with(backend: &Backend, gateway: &str, route: &str) -> Gw {
    Gw::with(backend, Engine::Splice, Runtime::Epoll, gateway, route)
}

#[test]
fn the_answer_to_head_has_no_body() {
    let (backend, seen) = answering("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", false);
    let gw = gw(&backend);
    let mut client = Client::connect(gw.address());
    client.send(upgrade_head("/", "raw", "").replacen("GET", "HEAD", 1));
    let expected = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\n";
    assert_eq!(to_end(&mut client), expected);
    assert!(wait(&seen).starts_with("HEAD / "));
    let mut client = Client::connect(gw.address());
    client.send("HEAD / HTTP/1.1\r\nHost: h\r\n\r\n");
    let refused = to_end(&mut client);
    assert_eq!(status(&refused), 426);
    assert!(refused.ends_with("\r\n\r\n") && refused.contains("Content-Length: "), "{refused}");
    gw.stop();
    backend.join();
}

#[test]
fn an_answer_that_breaks_a_rule_is_a_502_and_opens_nothing() {
    let granted = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: raw\r\n";
    let interims = "HTTP/1.1 100 Continue\r\n\r\n".repeat(9) + granted + "\r\n";
    let lines = |lines: &str| format!("HTTP/1.1 101 Switching Protocols\r\n{lines}\r\n");
    for (answer, ends, rule) in [
        (format!("{granted}\r\n").replace("1.1 101", "1.0 101"), false, "switch_in_http_1_0"),
        (format!("{granted}Content-Length: 1\r\n\r\n"), false, "switch_with_body"),
        (format!("{granted}Transfer-Encoding: chunked\r\n\r\n"), false, "switch_with_body"),
        (lines("Upgrade: raw\r\n"), false, "switch_without_connection"),
        (lines("Connection: Upgrade\r\n"), false, "switch_without_upgrade"),
        (lines("Connection: Upgrade\r\nUpgrade: no\r\n"), false, "switch_to_other_protocol"),
        (lines("Connection: Upgrade\r\nUpgrade: raw, no\r\n"), false, "switch_to_several"),
        (interims, false, "too_many_interim"),
        ("SSH-2.0-OpenSSH_9\r\n\r\n".into(), false, "bad_response_head"),
        ("\0\0\0".into(), false, "bad_start_line"),
        ("HTTP/1.1 200 OK\nContent-Length: 0\n\n".into(), false, "bare_lf"),
        ("HTTP/1.1 200 OK\r\nContent-Length: 1, 1\r\n\r\n".into(), false, "bad_content_length"),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n".into(), false, "unknown_encoding"),
        (format!("HTTP/1.1 200 OK\r\nA: {}\r\n\r\n", "a".repeat(9000)), false, "line_too_long"),
        (String::new(), true, ""),
        ("HTTP/1.1 100 Continue\r\n\r\n".into(), true, ""),
        ("HTTP/1.1 101 Switching Pro".into(), true, ""),
        (granted.into(), true, ""),
    ] {
        let (backend, seen) = answering(&answer, ends);
        let gw = gw(&backend);
        let mut client = Client::connect(gw.address());
        client.send(upgrade_head("/", "raw", ""));
        let got = to_end(&mut client);
        assert_eq!(status(&got), 502, "{answer:?}: {got}");
        let error =
            if rule.is_empty() { "http_response_incomplete" } else { "http_protocol_error" };
        assert!(got.contains(&format!("\r\nProxy-Status: upsplice; error={error}\r\n")), "{got}");
        wait(&seen);
        let line = gw.line();
        assert_eq!((&line["side"], &line["stage"]), (&"upstream".into(), &"response".into()));
        match rule {
            "" => assert_eq!(line["close_reason"], "truncated", "{answer:?}"),
            rule => assert_eq!(line["detail"], rule, "{answer:?}"),
        }
        gw.stop();
        backend.join();
    }
}

#[test]
fn a_websocket_101_must_answer_the_clients_key() {
    let granted = |more: &str| {
        format!("HTTP/1.1 101 S\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n{more}\r\n")
    };
    let accept = format!("Sec-WebSocket-Accept: {ACCEPT}\r\n");
    for (answer, status) in [
        (granted(&accept), 101),
        (granted(""), 502),
        (granted("Sec-WebSocket-Accept: AAAAAAAAAAAAAAAAAAAAAAAAAAA=\r\n"), 502),
        (granted(&accept.repeat(2)), 502),
        (granted("").replace("websocket", "websocket/13"), 502),
    ] {
        let (backend, seen) = answering(&answer, true);
        let gw = gw(&backend);
        let mut client = Client::connect(gw.address());
        assert_eq!(client.ask(upgrade_head("/", "websocket", "")).status, status, "{answer}");
        drop(client);
        wait(&seen);
        gw.stop();
        backend.join();
    }
}

#[test]
fn with_rekey_the_backend_never_learns_the_clients_key() {
    let backend = Backend::start(|mut peer| {
        let head = peer.read_head();
        assert!(!head.contains(KEY), "{head}");
        peer.grant(&head, "");
        drain(&mut peer);
    });
    let gw = gw_with(&backend, "", "rekey = true");
    let mut client = Client::connect(gw.address());
    let answer = client.ask(upgrade_head("/", "websocket", ""));
    assert_eq!(answer.status, 101, "{}", answer.head);
    assert_eq!(answer.head.matches(ACCEPT).count(), 1, "{}", answer.head);
    drop(client);
    gw.stop();
    backend.join();
    // A backend that is made to reflect the Accept of the client's key does not get through (rule U4).
    let reflected = format!(
        "HTTP/1.1 101 S\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: {ACCEPT}\r\n\r\n"
    );
    let (backend, _seen) = answering(&reflected, false);
    let gw = gw_with(&backend, "", "rekey = true");
    let mut client = Client::connect(gw.address());
    assert_eq!(client.ask(upgrade_head("/", "websocket", "")).status, 502);
    drop(client);
    gw.stop();
    backend.join();
}

#[test]
fn a_refused_request_gets_one_answer_and_an_end_and_reaches_nobody() {
    let websocket = upgrade_head("/", "websocket", "");
    let upgrade =
        |lines: &str| format!("GET / HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\n{lines}\r\n");
    let (backend, seen) = unreachable();
    let route = "protocols = [\"websocket\"]";
    let toml = |route: &str| {
        format!(
            "[gateway]\nworkers = 1\nruntime = \"epoll\"\n[[listener]]\naddress = \"127.0.0.1:0\"\n\
             [[route]]\nname = \"test\"\nto = [\"{}\"]\n{route}\n",
            backend.address
        )
    };
    let gw = Gw::from_toml(&toml(route));
    for (request, told) in [
        ("GET / HTTP/1.1\r\nHost: h\r\n\r\n".to_owned(), 426),
        (upgrade("Upgrade: h2c\r\n"), 426),
        (upgrade("Upgrade:  H2C\r\nHTTP2-Settings: AAM\r\n"), 426),
        (upgrade("Upgrade: h2c\tx\r\n"), 400),
        (upgrade("Upgrade: raw\r\nUpgrade: TLS/1.0\r\n"), 426),
        (websocket.replace("Version: 13", "Version: 8"), 426),
        (websocket.replace("Sec-WebSocket-Key", "X-Key"), 400),
        (websocket.replacen("GET", "POST", 1), 405),
        (websocket.replace("Connection: Upgrade", "Connection: close"), 426),
        (websocket.replace("Connection: Upgrade", "Connection: Upgrade, Cookie"), 400),
        (websocket.replace("HTTP/1.1", "HTTP/1.0"), 505),
        (websocket.replace("Host: gateway.test\r\n", ""), 400),
        (websocket.replace("\r\n", "\n"), 400),
        (websocket.replace("\r\n\r\n", "\r\nTransfer-Encoding: chunked\r\n\r\n"), 400),
        (websocket.replace("\r\n\r\n", "\r\nVia: 1.1 upsplice\r\n\r\n"), 508),
        ("CONNECT h:80 HTTP/1.1\r\nHost: h:80\r\n\r\n".to_owned(), 501),
        ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_owned(), 505),
    ] {
        let mut client = Client::connect(gw.address());
        client.send(request.clone() + PIPELINED);
        let got = to_end(&mut client);
        assert_eq!(status(&got), told, "{request:?}: {got}");
        assert_eq!(got.matches("\r\n\r\n").count(), 1, "one response: {got}");
        assert!(got.contains("close\r\n"), "{got}");
        let line = gw.line();
        assert_eq!((&line["close_reason"], &line["status"]), (&"refused".into(), &told.into()));
    }
    assert!(seen.try_recv().is_err(), "a refused request reached the backend");
    gw.stop();
    backend.join();
}

#[test]
fn a_request_without_upgrade_is_told_what_to_ask_for() {
    let (backend, _seen) = unreachable();
    let gw = gw(&backend);
    let mut client = Client::connect(gw.address());
    client.send("GET / HTTP/1.1\r\nHost: h\r\n\r\n");
    let got = to_end(&mut client);
    assert!(got.starts_with("HTTP/1.1 426 Upgrade Required\r\nConnection: Upgrade, close\r\n"));
    assert!(got.contains("\r\nUpgrade: websocket\r\n"), "{got}");
    assert!(got.contains("carries upgraded connections only"), "{got}");
    gw.stop();
    backend.join();
}

#[test]
fn offers_are_filtered_to_what_the_route_carries() {
    for (offer, rest) in [
        ("Upgrade: websocket, h2c\r\n", "websocket"),
        ("Upgrade: h2c\r\nUpgrade: websocket\r\n", "websocket"),
        ("Upgrade: TLS/1.0, WebSocket, raw\r\n", "WebSocket, raw"),
    ] {
        let (tell, told) = channel();
        let backend = Backend::start(move |mut peer| {
            let head = peer.read_head();
            peer.grant(&head, "");
            tell.send(head).expect("the test listens");
        });
        let gw = gw(&backend);
        let mut client = Client::connect(gw.address());
        let head = upgrade_head("/", "websocket", "HTTP2-Settings: AAM\r\n")
            .replace("Upgrade: websocket\r\n", offer)
            .replace("Connection: Upgrade", "Connection: HTTP2-Settings, Upgrade");
        assert_eq!(client.ask(head).status, 101);
        let head = wait(&told);
        assert!(
            head.ends_with(&format!("Connection: Upgrade\r\nUpgrade: {rest}\r\n\r\n")),
            "{head}"
        );
        assert!(!head.to_lowercase().contains("http2"), "{head}");
        gw.stop();
        backend.join();
    }
}

#[test]
fn a_refusal_is_not_lost_in_a_large_upload() {
    const LEN: usize = 10 << 20;
    let (backend, seen) = unreachable();
    let gw = gw(&backend);
    let mut client = Client::connect(gw.address());
    client.send(format!(
        "POST / HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: tcp\r\nContent-Length: {LEN}\r\n\r\n"
    ));
    client.send(vec![b'x'; LEN]);
    client.shutdown_write();
    let got = to_end(&mut client);
    assert_eq!(status(&got), 413);
    assert!(got.ends_with("(rule `body_too_large`).\n"), "all of it: {got}");
    assert!(seen.try_recv().is_err());
    gw.stop();
    backend.join();
}
