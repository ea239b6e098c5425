//! The exchange, end to end: what reaches a backend before the 101 and without it, and what a client gets
//! instead of a tunnel (rules U1, U2, U8).

mod support;

use std::sync::mpsc::channel;

use support::backend::wait;
use support::client::{field, upgrade_head};
use support::exchange::{PIPELINED, answering, drain, status, to_end};
use support::{Backend, Client, Engine, Gw, Pattern, Runtime};

fn gw(backend: &Backend) -> Gw {
    gw_with(backend, "", "")
}

fn gw_with(backend: &Backend, gateway: &str, route: &str) -> Gw {
    Gw::with(backend, Engine::Splice, Runtime::Epoll, gateway, route)
}

#[test]
fn nothing_pipelined_behind_an_upgrade_reaches_the_backend_without_a_101() {
    for (answer, told) in [
        ("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", 200),
        ("HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n", 400),
        ("HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n", 404),
        ("HTTP/1.1 426 Upgrade Required\r\nUpgrade: x\r\nContent-Length: 0\r\n\r\n", 426),
        ("HTTP/1.1 101 Switching Protocols\r\n\r\n", 502),
        ("garbage garbage\r\n\r\n", 502),
    ] {
        let (backend, seen) = answering(answer, false);
        let gw = gw(&backend);
        let mut client = Client::connect(gw.address());
        client.send(upgrade_head("/", "raw", "") + PIPELINED + PIPELINED);
        let got = to_end(&mut client);
        assert_eq!(status(&got), told, "{got}");
        assert_eq!(got.matches("\r\n\r\n").count(), 1, "one response: {got}");
        let seen = wait(&seen);
        assert_eq!(seen.matches(" HTTP/1.1\r\n").count(), 1, "one request: {seen}");
        assert!(seen.ends_with("\r\n\r\n") && !seen.contains("/admin"), "{seen}");
        assert_eq!(gw.line()["status"], told);
        gw.stop();
        backend.join();
    }
}

#[test]
fn bytes_behind_an_upgrade_arrive_in_order_after_the_101() {
    let (tell, told) = channel();
    let backend = Backend::start(move |mut peer| {
        let head = peer.read_head();
        assert!(peer.rest.is_empty(), "something came before the 101: {:?}", peer.rest);
        peer.grant(&head, "");
        tell.send(drain(&mut peer)).expect("the test listens");
    });
    let gw = gw(&backend);
    let mut client = Client::connect(gw.address());
    let answer = client.ask(upgrade_head("/", "raw", "") + PIPELINED);
    assert_eq!(answer.status, 101);
    client.send("second");
    client.shutdown_write();
    assert_eq!(wait(&told), format!("{PIPELINED}second").into_bytes());
    gw.stop();
    backend.join();
}

#[test]
fn what_a_client_sends_before_the_101_stays_in_its_socket() {
    const LEN: usize = 10 << 20;
    // More than one read is never held, and less where the limit says so.
    for (limit, held_max) in [("65536", 4096), ("100", 100), ("0", 0)] {
        let (go, wait_for_go) = channel::<()>();
        let gate = std::sync::Arc::new(std::sync::Mutex::new(wait_for_go));
        let backend = Backend::start(move |mut peer| {
            let head = peer.read_head();
            wait(&gate.lock().expect("one connection"));
            assert!(peer.rest.is_empty(), "something came before the 101");
            peer.grant(&head, "");
            let mut pattern = Pattern::new(1);
            let all = peer.receive_to_end().expect("an orderly end");
            assert_eq!(all.len(), LEN);
            pattern.check(&all);
        });
        let limits = format!("[gateway.limits]\nhead_data_bytes = {limit}");
        let gw = gw_with(&backend, &limits, "");
        let mut client = Client::connect(gw.address());
        let bytes = Pattern::new(1).take(LEN);
        // The kernel has taken the first part before the 101 is allowed.
        client.send([upgrade_head("/", "raw", "").as_bytes(), &bytes[..64 << 10]].concat());
        go.send(()).expect("the backend waits");
        client.send(&bytes[64 << 10..]);
        client.shutdown_write();
        assert_eq!(client.answer().status, 101);
        assert_eq!(client.receive_to_end().expect("an orderly end"), b"");
        let line = gw.line();
        assert_eq!(line["bytes_in"], LEN, "{line}");
        let copied = line["bytes_copy"].as_u64().expect("a number");
        assert!(copied <= held_max, "{copied} bytes were held with a limit of {limit}: {line}");
        Engine::Splice.assert_carried(&line, copied);
        backend.join();
        gw.stop();
    }
}

/// What the backend says, whether it then ends, and all that the client gets.
const ANSWERS: &[(&str, bool, &str)] = &[
    (
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhelloMORE",
        false,
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello",
    ),
    (
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nConnection: keep-alive\r\n\r\n\
         3;x\r\nabc\r\n0\r\nT: 1\r\n\r\nHTTP/1.1 200 OK\r\n\r\n",
        false,
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n\
         3;x\r\nabc\r\n0\r\nT: 1\r\n\r\n",
    ),
    (
        "HTTP/1.1 200 OK\r\n\r\nuntil the end",
        true,
        "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nuntil the end",
    ),
    (
        "HTTP/1.0 200 OK\r\nUpgrade: raw\r\nConnection: upgrade\r\n\r\nold",
        true,
        "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nold",
    ),
    (
        "HTTP/1.1 204 No Content\r\n\r\n",
        false,
        "HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n",
    ),
    (
        "HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n\r\n",
        false,
        "HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\nConnection: close\r\n\r\n",
    ),
    (
        "HTTP/1.1 302 Found\r\nLocation: /x\r\nContent-Length: 0\r\n\r\n",
        false,
        "HTTP/1.1 302 Found\r\nLocation: /x\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
    ),
    (
        "HTTP/1.1 401 Who\r\nWWW-Authenticate: Basic\r\nSet-Cookie: a\r\nSet-Cookie: b\r\n\
         Content-Length: 0\r\n\r\n",
        false,
        "HTTP/1.1 401 Who\r\nWWW-Authenticate: Basic\r\nSet-Cookie: a\r\nSet-Cookie: b\r\n\
         Content-Length: 0\r\nConnection: close\r\n\r\n",
    ),
    (
        "HTTP/1.1 426 Upgrade Required\r\nUpgrade: HTTP/3.0\r\nContent-Length: 0\r\n\r\n",
        false,
        "HTTP/1.1 426 Upgrade Required\r\nContent-Length: 0\r\nUpgrade: HTTP/3.0\r\n\
         Connection: Upgrade, close\r\n\r\n",
    ),
    (
        "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n\
         HTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 500 Oh\r\nContent-Length: 0\r\n\r\n",
        false,
        "HTTP/1.1 500 Oh\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
    ),
];

#[test]
fn an_answer_that_is_no_101_is_relayed_whole_and_both_sides_are_closed() {
    for (answer, ends, expected) in ANSWERS {
        let (backend, seen) = answering(answer, *ends);
        let gw = gw(&backend);
        let mut client = Client::connect(gw.address());
        client.send(upgrade_head("/", "raw", ""));
        assert_eq!(to_end(&mut client), *expected);
        assert!(wait(&seen).ends_with("Upgrade: raw\r\n\r\n"), "and the backend's end came");
        let line = gw.line();
        assert_eq!(
            (&line["close_reason"], &line["side"]),
            (&"answered".into(), &"upstream".into())
        );
        assert_eq!(line["event"], "request");
        gw.stop();
        backend.join();
    }
}

#[test]
fn a_large_answer_is_relayed_exactly() {
    const LEN: usize = 3 << 20;
    let backend = Backend::start(|mut peer| {
        peer.read_head();
        peer.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {LEN}\r\n\r\n"));
        peer.send(Pattern::new(3).take(LEN));
        drain(&mut peer);
    });
    let gw = gw(&backend);
    let mut client = Client::connect(gw.address());
    let answer = client.ask(upgrade_head("/", "raw", ""));
    let body = [answer.rest, client.receive_to_end().expect("an orderly end")].concat();
    assert_eq!(body.len(), LEN);
    Pattern::new(3).check(&body);
    gw.stop();
    backend.join();
}

#[test]
fn interim_responses_and_an_empty_length_do_not_keep_a_101_from_opening() {
    let backend = Backend::start(|mut peer| {
        let head = peer.read_head();
        peer.send("HTTP/1.1 100 Continue\r\n\r\n".repeat(8));
        let token = field(&head, "upgrade").expect("an offer").to_owned();
        peer.send(format!(
            "HTTP/1.1 101 UPGRADED\r\nContent-Length: 0\r\nConnection: Upgrade\r\nUpgrade: {token}\r\n\r\nhi"
        ));
        assert_eq!(drain(&mut peer), b"there");
    });
    let gw = gw(&backend);
    let mut client = Client::connect(gw.address());
    let answer = client.ask(upgrade_head("/", "raw", ""));
    let expected =
        "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: raw\r\n\r\n";
    assert_eq!((&*answer.head, &*answer.rest), (expected, &b"hi"[..]));
    client.send("there");
    client.shutdown_write();
    assert_eq!(client.receive_to_end().expect("an orderly end"), b"");
    gw.stop();
    backend.join();
}

#[test]
fn a_body_that_breaks_off_is_seen_to_break_off() {
    for answer in [
        "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n",
    ] {
        let (backend, _seen) = answering(answer, true);
        let gw = gw(&backend);
        let mut client = Client::connect(gw.address());
        client.send(upgrade_head("/", "raw", ""));
        let got = to_end(&mut client);
        let body = answer.split_once("\r\n\r\n").expect("a head").1;
        assert!(got.ends_with(&format!("\r\n\r\n{body}")), "not one byte more: {got}");
        assert_eq!(gw.line()["close_reason"], "truncated");
        gw.stop();
        backend.join();
    }
}

#[test]
fn a_reset_in_a_body_without_length_is_a_reset_for_the_client() {
    let (go, wait_for_go) = channel::<()>();
    let gate = std::sync::Arc::new(std::sync::Mutex::new(wait_for_go));
    let backend = Backend::start(move |mut peer| {
        peer.read_head();
        peer.send("HTTP/1.1 200 OK\r\n\r\nhalf");
        wait(&gate.lock().expect("one connection"));
        peer.reset();
    });
    let gw = gw(&backend);
    let mut client = Client::connect(gw.address());
    let answer = client.ask(upgrade_head("/", "raw", ""));
    let missing = 4 - answer.rest.len();
    client.receive(missing);
    go.send(()).expect("the backend waits");
    let error = client.receive_to_end().expect_err("an orderly end would say that this was all");
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
    assert_eq!(gw.line()["close_reason"], "reset");
    gw.stop();
    backend.join();
}

#[test]
fn a_client_that_resets_before_the_101_ends_the_wait_for_it() {
    let (tell, told) = channel();
    let backend = Backend::start(move |mut peer| {
        peer.read_head();
        tell.send(Vec::new()).expect("the test listens");
        tell.send(drain(&mut peer)).expect("the test listens");
    });
    let gw = gw(&backend);
    let mut client = Client::connect(gw.address());
    client.send(upgrade_head("/", "raw", ""));
    wait(&told);
    client.reset();
    assert_eq!(wait(&told), b"", "the upstream connection ends, with nothing more on it");
    let line = gw.line();
    assert_eq!((&line["side"], &line["close_reason"]), (&"downstream".into(), &"reset".into()));
    assert_eq!(line["stage"], "response");
    gw.stop();
    backend.join();
}

#[test]
fn a_body_goes_upstream_whole_before_the_101_is_awaited() {
    const BODY: &str = "{\"Detach\":false,\"Tty\":true}";
    for (expect, glued) in [(true, false), (false, false), (false, true)] {
        let backend = Backend::start(|mut peer| {
            let head = peer.read_head();
            assert!(head.starts_with("POST /exec/1/start HTTP/1.1\r\n"), "{head}");
            assert!(head.contains("\r\nContent-Length: 27\r\n"), "{head}");
            assert!(!head.contains("Expect"), "{head}");
            assert_eq!(peer.receive(BODY.len()), BODY.as_bytes());
            peer.grant(&head, "ready");
            assert_eq!(drain(&mut peer), b"stdin");
        });
        let gw = gw(&backend);
        let mut client = Client::connect(gw.address());
        let more = format!("Content-Length: {}\r\n", BODY.len());
        let more = if expect { more + "Expect: 100-continue\r\n" } else { more };
        let head = upgrade_head("/exec/1/start", "tcp", &more).replacen("GET", "POST", 1);
        if glued {
            client.send(head + BODY + "stdin");
        } else if expect {
            let go_on = client.ask(head);
            assert_eq!(&*go_on.head, "HTTP/1.1 100 Continue\r\n\r\n");
            client.send(BODY.to_owned() + "stdin");
        } else {
            client.send(head);
            client.send(&BODY[..5]);
            client.send(&BODY[5..]);
        }
        let answer = client.answer();
        assert_eq!((answer.status, &*answer.rest), (101, &b"ready"[..]));
        if !glued && !expect {
            client.send("stdin");
        }
        client.shutdown_write();
        assert_eq!(client.receive_to_end().expect("an orderly end"), b"");
        assert_eq!(gw.line()["bytes_in"], 5, "the body is no head data");
        gw.stop();
        backend.join();
    }
}

#[test]
fn only_a_trusted_peer_speaks_for_another_client() {
    let said = "X-Forwarded-For: 9.9.9.9, 192.0.2.7, 127.0.0.9\r\nX-Request-ID: theirs\r\n";
    for (trusted, client_addr, forwarded) in [
        ("127.0.0.0/8", "192.0.2.7", "9.9.9.9, 192.0.2.7, 127.0.0.9, 127.0.0.1"),
        ("10.0.0.0/8", "127.0.0.1", "127.0.0.1"),
    ] {
        let (backend, seen) = answering("HTTP/1.1 404 No\r\nContent-Length: 0\r\n\r\n", false);
        let gw = gw_with(&backend, &format!("trusted_proxies = [\"{trusted}\"]"), "");
        let mut client = Client::connect(gw.address());
        client.send(upgrade_head("/?secret=1", "raw", said));
        assert_eq!(status(&to_end(&mut client)), 404);
        let head = wait(&seen);
        assert_eq!(field(&head, "x-forwarded-for"), Some(forwarded), "{head}");
        let line = gw.line();
        assert_eq!(line["client_addr"], client_addr, "{line}");
        let id = field(&head, "x-request-id").expect("there is one");
        let logged =
            if trusted.starts_with("127") { &line["request_id"] } else { &line["session_id"] };
        assert_eq!(logged, id, "the log and the backend have the same id");
        assert!(!line.to_string().contains("secret"), "queries are not logged: {line}");
        gw.stop();
        backend.join();
    }
}

#[test]
fn a_client_that_resets_in_an_answer_ends_the_wait_for_its_rest() {
    let (backend, seen) = answering("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello", false);
    let gw = gw(&backend);
    let mut client = Client::connect(gw.address());
    let answer = client.ask(upgrade_head("/", "raw", ""));
    client.receive(5 - answer.rest.len());
    client.reset();
    wait(&seen);
    let line = gw.line();
    assert_eq!((&line["side"], &line["close_reason"]), (&"downstream".into(), &"reset".into()));
    gw.stop();
    backend.join();
}
