//! The exchange against slow, silent and absent peers: each ends in time, with the status that says whose
//! doing it was (rule H7).

mod support;

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::mpsc::channel;
use std::time::Duration;

use socket2::{Domain, Socket, Type};
use support::backend::wait;
use support::client::upgrade_head;
use support::{Backend, Client, Engine, Gw, Runtime};

/// A gateway to an address where nothing of this test's language listens.
fn gw_to(address: impl std::fmt::Display, route: &str) -> Gw {
    Gw::from_toml(&format!(
        "[gateway]\nworkers = 1\nruntime = \"epoll\"\n[[listener]]\naddress = \"127.0.0.1:0\"\n\
         [[route]]\nname = \"test\"\nprotocols = [\"any\"]\nto = [\"{address}\"]\n{route}\n"
    ))
}

fn answered(gw: &Gw, request: &str) -> (u16, String) {
    let mut client = Client::connect(gw.address());
    client.send(request);
    let bytes = client.receive_to_end().expect("an orderly end");
    drop(client);
    let text = String::from_utf8(bytes).expect("only ASCII was sent");
    (text[9..12].parse().expect("a status"), text)
}

#[test]
fn a_head_that_comes_byte_by_byte_ends_at_the_deadline() {
    let backend = Backend::echo();
    let route = "[route.timeouts]\nhandshake = \"300ms\"";
    let gw = Gw::with(&backend, Engine::Splice, Runtime::Epoll, "", route);
    let mut client = Client::connect(gw.address());
    client.send("GET / HTTP/1.1\r\nHost: h\r\nX: ");
    // One byte whenever nothing came for a while: the deadline is absolute, no byte puts it off.
    client.socket.set_read_timeout(Some(Duration::from_millis(10))).expect("a bound");
    let mut sent = 0;
    let answer = loop {
        let mut first = [0; 4096];
        match client.socket.read(&mut first) {
            Ok(n) => break String::from_utf8_lossy(&first[..n]).into_owned(),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                assert!(sent < 2000, "the deadline never came");
                client.socket.write_all(b"x").expect("the gateway reads");
                sent += 1;
            }
            Err(error) => panic!("no answer: {error}"),
        }
    };
    assert!(
        answer.starts_with("HTTP/1.1 408 Request Timeout\r\nConnection: close\r\n"),
        "{answer}"
    );
    assert!(sent > 0);
    drop(client);
    let line = gw.line();
    assert_eq!((&line["side"], &line["stage"]), (&"downstream".into(), &"request".into()));
    assert_eq!(line["close_reason"], "handshake_timeout");
    gw.stop();
    backend.join();
}

#[test]
fn a_body_that_does_not_come_is_the_clients_delay() {
    let backend = Backend::echo();
    let route = "[route.timeouts]\nhandshake = \"200ms\"";
    let gw = Gw::with(&backend, Engine::Splice, Runtime::Epoll, "", route);
    let head = upgrade_head("/", "tcp", "Content-Length: 5\r\n");
    assert_eq!(answered(&gw, &(head + "1234")).0, 408);
    assert_eq!(gw.line()["side"], "downstream");
    gw.stop();
    backend.join();
}

#[test]
fn a_huge_head_is_refused_while_it_still_comes() {
    let backend = Backend::echo();
    let gw = Gw::to(&backend, Engine::Splice, Runtime::Epoll);
    for (filler, status) in [("X: y\r\nZ", 431), ("a", 431)] {
        let head =
            format!("GET / HTTP/1.1\r\nHost: h\r\nA: {}", filler.repeat((1 << 20) / filler.len()));
        assert_eq!(answered(&gw, &head).0, status);
        assert_eq!(gw.line()["close_reason"], "refused");
    }
    assert_eq!(answered(&gw, &format!("GET /{}", "a".repeat(1 << 20))).0, 414);
    gw.stop();
    backend.join();
}

#[test]
fn a_client_that_asks_for_nothing_is_told_nothing() {
    let backend = Backend::echo();
    let gw = Gw::to(&backend, Engine::Splice, Runtime::Epoll);
    for (sent, reason) in [("", "no_request"), ("GET / HT", "truncated")] {
        let mut client = Client::connect(gw.address());
        client.send(sent);
        client.shutdown_write();
        assert_eq!(client.receive_to_end().expect("an orderly end"), b"");
        assert_eq!(gw.line()["close_reason"], reason);
    }
    gw.stop();
    backend.join();
}

#[test]
fn a_silent_upstream_is_a_504_and_is_left() {
    let (tell, told) = channel();
    let backend = Backend::start(move |mut peer| {
        peer.read_head();
        peer.send("HTTP/1.1 101 Switching");
        tell.send(peer.receive_to_end()).expect("the test listens");
    });
    let route = "[route.timeouts]\nhandshake = \"200ms\"";
    let gw = Gw::with(&backend, Engine::Splice, Runtime::Epoll, "", route);
    let (status, text) = answered(&gw, &upgrade_head("/", "raw", ""));
    assert_eq!(status, 504);
    assert!(text.contains("error=http_response_timeout"), "{text}");
    assert_eq!(wait(&told).expect("an orderly end"), b"");
    let line = gw.line();
    assert_eq!((&line["side"], &line["stage"]), (&"upstream".into(), &"response".into()));
    assert_eq!(line["close_reason"], "handshake_timeout");
    gw.stop();
    backend.join();
}

#[test]
fn a_refused_connect_is_a_502_that_says_so() {
    // Bound, so that nobody else gets the port, and not listening.
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
    socket.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).expect("a port");
    let address = socket.local_addr().expect("bound").as_socket().expect("IPv4");
    let gw = gw_to(address, "");
    let (status, text) = answered(&gw, &upgrade_head("/", "raw", ""));
    assert_eq!(status, 502);
    assert!(text.contains("\r\nProxy-Status: upsplice; error=connection_refused\r\n"), "{text}");
    let line = gw.line();
    assert_eq!((&line["side"], &line["stage"]), (&"upstream".into(), &"connect".into()));
    assert_eq!(line["backend"], address.to_string(), "the log says which one it was");
    gw.stop();

    // With another endpoint beside it, that one takes over.
    let backend = Backend::echo();
    let to = format!("{address}\", \"{}", backend.address);
    let gw = gw_to(&to, "");
    let mut client = Client::connect(gw.address());
    assert_eq!(client.ask(upgrade_head("/", "raw", "")).status, 101);
    drop(client);
    let line = gw.line();
    assert_eq!(
        (&line["backend"], &line["retries"]),
        (&backend.address.to_string().into(), &1.into())
    );
    gw.stop();
    backend.join();
}

#[test]
fn a_connect_that_nobody_answers_is_a_504() {
    // A backlog that is full: the kernel drops further SYNs.
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
    socket.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).expect("a port");
    socket.listen(0).expect("it listens");
    let address = socket.local_addr().expect("bound").as_socket().expect("IPv4");
    let _queued = TcpStream::connect(address).expect("one fits");
    for (timers, reason) in [
        ("connect = \"100ms\"", "connect_timeout"),
        ("connect = \"20s\"\nhandshake = \"100ms\"", "handshake_timeout"),
    ] {
        let gw = gw_to(address, &format!("[route.timeouts]\n{timers}"));
        let (status, text) = answered(&gw, &upgrade_head("/", "raw", ""));
        assert_eq!(status, 504);
        assert!(text.contains("error=connection_timeout"), "{text}");
        let line = gw.line();
        assert_eq!((&line["stage"], &line["close_reason"]), (&"connect".into(), &reason.into()));
        gw.stop();
    }
}

#[test]
fn a_host_without_route_is_a_404() {
    let backend = Backend::echo();
    let gw = Gw::with(&backend, Engine::Splice, Runtime::Epoll, "", "host = \"only.test\"");
    let head = upgrade_head("/", "raw", "");
    assert_eq!(answered(&gw, &head).0, 404);
    assert_eq!(gw.line()["close_reason"], "no_route");
    assert_eq!(answered(&gw, "GET / HTTP/1.1\r\nHost: h\r\n\r\n").0, 404);
    // The target's authority counts, whatever Host says.
    let absolute = head.replacen("GET /", "GET http://only.test/", 1);
    let mut client = Client::connect(gw.address());
    assert_eq!(client.ask(absolute).status, 101);
    drop(client);
    gw.stop();
    backend.join();
}

#[test]
fn a_path_that_hides_another_route_is_refused() {
    let backend = Backend::echo();
    let limited = format!(
        "[[route]]\nname = \"limited\"\npath = \"/ws\"\nprotocols = [\"websocket\"]\nto = [\"{}\"]",
        backend.address
    );
    let gw = Gw::with(&backend, Engine::Splice, Runtime::Epoll, "", &limited);
    for path in ["/%77s", "/ws;v=1", "/x/../ws", "/%2e/ws", "//ws", "/a%2f..%2fws"] {
        let (status, text) = answered(&gw, &upgrade_head(path, "raw", ""));
        assert_eq!(status, 400, "{path}: {text}");
    }
    let mut client = Client::connect(gw.address());
    assert_eq!(client.ask(upgrade_head("/a%20b;c?x=../%77s", "raw", "")).status, 101);
    drop(client);
    gw.stop();
    backend.join();
}
