//! Head data: bytes glued to a head go to the other side first, once, in order, and are counted (rule U9).

mod support;

use std::io::Read;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use serde_json::Value;
use support::client::{field, upgrade_head};
use support::{Backend, Client, Engine, Gw, Pattern, Runtime};

contract!(
    bytes_glued_to_either_head_arrive_first_and_once,
    an_end_right_behind_head_data_follows_it,
    a_half_closed_client_still_gets_what_comes_later,
);

/// At most this much came with one read of a head, on each side; the rest was moved by the engine.
const HELD_MAX: u64 = 4096;

fn check_counts(engine: Engine, line: &Value, bytes_in: usize, bytes_out: usize) {
    assert_eq!(line["bytes_in"], bytes_in, "{line}");
    assert_eq!(line["bytes_out"], bytes_out, "{line}");
    assert_eq!(line["close_reason"], "completed", "{line}");
    let copied = line["bytes_copy"].as_u64().expect("a number");
    if matches!(engine, Engine::Splice | Engine::Uring) {
        assert!(copied <= 2 * HELD_MAX, "more than head data was copied: {line}");
        engine.assert_carried(line, copied);
    }
}

fn bytes_glued_to_either_head_arrive_first_and_once(engine: Engine, runtime: Runtime) {
    const MORE: usize = 100_000;
    for up in [0, 1, 1500, 65_536] {
        for down in [0, 1, 1500, 65_536] {
            let backend = Backend::start(move |mut peer| {
                let head = peer.read_head();
                let mut ours = Pattern::new(2);
                peer.grant(&head, ours.take(down));
                // Nothing more is sent before the client's bytes are here: what comes then is no head data.
                Pattern::new(1).check(&peer.receive(up + MORE));
                peer.send(ours.take(MORE));
                assert_eq!(peer.receive_to_end().expect("an orderly end"), b"");
            });
            let gw = Gw::to(&backend, engine, runtime);
            let mut client = Client::connect(gw.address());
            let mut ours = Pattern::new(1);
            client.send([upgrade_head("/", "raw", "").into_bytes(), ours.take(up)].concat());
            let answer = client.answer();
            assert_eq!(answer.status, 101);
            client.send(ours.take(MORE));
            let mut theirs = Pattern::new(2);
            theirs.check(&answer.rest);
            theirs.check(&client.receive(down + MORE - answer.rest.len()));
            client.shutdown_write();
            assert_eq!(client.receive_to_end().expect("an orderly end"), b"");
            check_counts(engine, &gw.line(), up + MORE, down + MORE);
            backend.join();
            gw.stop();
        }
    }
}

fn an_end_right_behind_head_data_follows_it(engine: Engine, runtime: Runtime) {
    // The client asks, says all it has to say, and ends, before it has heard a word.
    let backend = Backend::start(|mut peer| {
        let head = peer.read_head();
        assert!(peer.rest.is_empty(), "something came before the 101");
        peer.grant(&head, "");
        assert_eq!(peer.receive_to_end().expect("an orderly end"), b"all");
        peer.send("later");
    });
    let gw = Gw::to(&backend, engine, runtime);
    let mut client = Client::connect(gw.address());
    client.send(upgrade_head("/", "raw", "") + "all");
    client.shutdown_write();
    let answer = client.answer();
    let rest = client.receive_to_end().expect("an orderly end");
    assert_eq!([answer.rest, rest].concat(), b"later");
    let line = gw.line();
    assert_eq!((line["bytes_in"].as_u64(), line["bytes_out"].as_u64()), (Some(3), Some(5)));
    backend.join();
    gw.stop();

    // The backend grants, says all it has to say, and ends, in one breath.
    let backend = Backend::start(|mut peer| {
        let head = peer.read_head();
        peer.grant(&head, "all");
        peer.shutdown_write();
        assert_eq!(peer.receive_to_end().expect("an orderly end"), b"later");
    });
    let gw = Gw::to(&backend, engine, runtime);
    let mut client = Client::connect(gw.address());
    let answer = client.ask(upgrade_head("/", "raw", ""));
    let rest = client.receive_to_end().expect("an orderly end");
    assert_eq!([answer.rest, rest].concat(), b"all");
    client.send("later");
    client.shutdown_write();
    let line = gw.line();
    assert_eq!((line["bytes_in"].as_u64(), line["bytes_out"].as_u64()), (Some(5), Some(3)));
    backend.join();
    gw.stop();
}

/// The shape of Caddy #8026: the client has nothing more to say and waits for what the server has.
fn a_half_closed_client_still_gets_what_comes_later(engine: Engine, runtime: Runtime) {
    const LEN: usize = 1 << 20;
    let backend = Backend::upgrading(|mut peer| {
        assert_eq!(peer.receive_to_end().expect("an orderly end"), b"");
        peer.send(Pattern::new(2).take(LEN));
    });
    let gw = Gw::to(&backend, engine, runtime);
    let mut client = Client::upgraded(gw.address(), "/", "raw");
    client.shutdown_write();
    let all = client.receive_to_end().expect("an orderly end");
    assert_eq!(all.len(), LEN);
    Pattern::new(2).check(&all);
    check_counts(engine, &gw.line(), 0, LEN);
    backend.join();
    gw.stop();
}

fn gw(backend: &Backend) -> Gw {
    Gw::to(backend, Engine::Splice, Runtime::Epoll)
}

#[test]
fn the_101_and_what_is_glued_to_it_are_one_write() {
    for len in [1, 1500] {
        let backend = Backend::start(move |mut peer| {
            let head = peer.read_head();
            peer.grant(&head, Pattern::new(2).take(len));
            assert_eq!(peer.receive_to_end().expect("an orderly end"), b"");
        });
        let gw = gw(&backend);
        let mut client = Client::connect(gw.address());
        client.send(upgrade_head("/", "raw", ""));
        let mut once = [0; 4096];
        let n = client.socket.read(&mut once).expect("the 101 comes");
        let end = once.windows(4).position(|four| four == b"\r\n\r\n").expect("a whole head") + 4;
        assert!(once.starts_with(b"HTTP/1.1 101 "));
        assert_eq!(n - end, len, "one read brings both");
        Pattern::new(2).check(&once[end..n]);
        client.shutdown_write();
        assert_eq!(client.receive_to_end().expect("an orderly end"), b"");
        assert_eq!(gw.line()["bytes_out"], len);
        backend.join();
        gw.stop();
    }
}

#[test]
fn heads_with_head_data_may_be_cut_anywhere() {
    let request = upgrade_head("/", "raw", "") + "client";
    let response =
        "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: raw\r\n\r\nserver";
    let cut = Arc::new(AtomicUsize::new(0));
    let at = Arc::clone(&cut);
    let backend = Backend::start(move |mut peer| {
        peer.read_head();
        let (first, second) = response.split_at(at.load(Ordering::SeqCst) % response.len());
        // Two segments: no delay gathers them (TCP_NODELAY).
        peer.send(first);
        peer.send(second);
        assert_eq!(peer.receive_to_end().expect("an orderly end"), b"client");
    });
    let gw = gw(&backend);
    for at in 0..=request.len() {
        cut.store(at, Ordering::SeqCst);
        let (first, second) = request.split_at(at);
        let mut client = Client::connect(gw.address());
        client.send(first);
        client.send(second);
        client.shutdown_write();
        let answer = client.answer();
        let rest = client.receive_to_end().expect("an orderly end");
        assert_eq!([answer.rest, rest].concat(), b"server", "cut at {at}");
        let line = gw.line();
        assert_eq!((&line["bytes_in"], &line["bytes_out"]), (&6.into(), &6.into()), "cut at {at}");
    }
    gw.stop();
    backend.join();
}

#[test]
fn what_comes_behind_a_body_is_head_data() {
    let seen = Arc::new(Mutex::new(String::new()));
    let note = Arc::clone(&seen);
    let backend = Backend::start(move |mut peer| {
        let head = peer.read_head();
        let len = field(&head, "content-length").and_then(|len| len.parse().ok()).unwrap_or(0);
        assert_eq!(peer.receive(len), vec![b'b'; len]);
        note.lock().expect("no panic").push_str(&head);
        peer.grant(&head, "");
        assert_eq!(peer.receive_to_end().expect("an orderly end"), b"tail");
    });
    let gw = gw(&backend);
    for len in [0, 1, 4096, 65_536] {
        let head = upgrade_head("/", "tcp", &format!("Content-Length: {len}\r\n"));
        let mut client = Client::connect(gw.address());
        client.send([head.as_bytes(), &vec![b'b'; len], b"tail"].concat());
        assert_eq!(client.answer().status, 101);
        client.shutdown_write();
        assert_eq!(client.receive_to_end().expect("an orderly end"), b"");
        assert_eq!(gw.line()["bytes_in"], 4, "a body of {len} is not counted");
    }
    assert_eq!(seen.lock().expect("no panic").matches("GET / HTTP/1.1\r\n").count(), 4);
    gw.stop();
    backend.join();
}
