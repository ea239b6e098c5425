//! The four timers: what starts them, what counts as progress, and how the log names them.
//!
//! Windows are short, so that the tests are; lower bounds are exact, upper bounds only tell a timer from
//! a hang.

mod support;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use socket2::{Domain, Socket, Type};
use support::backend::wait;
use support::client::upgrade_head;
use support::process::config_to;
use support::{Backend, Client, Engine, Gw, Peer, Runtime};

/// The window of the timer under test.
const WINDOW: Duration = Duration::from_millis(400);

contract!(
    a_session_without_a_byte_ends_after_the_idle_window,
    a_byte_now_and_then_in_one_direction_keeps_a_session_alive,
    partial_writes_to_a_slow_reader_are_progress,
    a_side_that_never_ends_its_half_is_closed_after_the_half_close_window,
    progress_after_a_half_close_starts_its_window_anew,
);

fn with_timeouts(backend: &Backend, engine: Engine, runtime: Runtime, timeouts: &str) -> Gw {
    Gw::with(backend, engine, runtime, "", &format!("[route.timeouts]\n{timeouts}"))
}

fn expect_end(line: &Value, reason: &str, stage: &str) {
    assert_eq!((&line["close_reason"], &line["stage"]), (&json!(reason), &json!(stage)), "{line}");
}

/// Fails unless a timer of one window fired `since` then: not before, and not much later.
fn expect_about_a_window(since: Instant) {
    let passed = since.elapsed();
    assert!(passed >= WINDOW, "after {passed:?}");
    assert!(passed < WINDOW * 20, "after {passed:?}");
}

/// A backend that holds its connection until the test is through with it.
fn silent() -> (Backend, std::sync::mpsc::Sender<()>) {
    let (end, told) = channel::<()>();
    let told = Arc::new(Mutex::new(told));
    let backend = Backend::upgrading(move |peer| {
        wait(&told.lock().expect("one session"));
        drop(peer);
    });
    (backend, end)
}

fn a_session_without_a_byte_ends_after_the_idle_window(engine: Engine, runtime: Runtime) {
    let (backend, end) = silent();
    let gw = with_timeouts(&backend, engine, runtime, "idle = \"400ms\"");
    let since = Instant::now();
    let mut client = Client::upgraded(gw.address(), "/", "raw");
    assert_eq!(client.socket.read(&mut [0; 8]).expect("an end, not a reset"), 0);
    expect_about_a_window(since);
    let line = gw.line();
    expect_end(&line, "idle_timeout", "relay");
    assert_eq!(line["side"], "proxy");
    assert_eq!(gw.metrics().sessions_open, 0);
    end.send(()).expect("the backend waits");
    backend.join();
    gw.stop();
}

fn a_byte_now_and_then_in_one_direction_keeps_a_session_alive(engine: Engine, runtime: Runtime) {
    let (seen, was_seen) = channel();
    let backend = Backend::upgrading(move |mut peer| {
        while peer.socket.read(&mut [0; 8]).is_ok_and(|n| n > 0) {
            seen.send(()).expect("the test waits");
        }
    });
    let gw = with_timeouts(&backend, engine, runtime, "idle = \"400ms\"");
    let mut client = Client::upgraded(gw.address(), "/", "raw");
    let since = Instant::now();
    let mut last = since;
    // Nothing comes back: one direction is enough.
    while since.elapsed() < WINDOW * 4 {
        client.send(b".");
        wait(&was_seen);
        last = Instant::now();
        std::thread::park_timeout(WINDOW / 4);
    }
    assert_eq!(client.socket.read(&mut [0; 8]).expect("an end"), 0);
    expect_about_a_window(last);
    expect_end(&gw.line(), "idle_timeout", "relay");
    backend.join();
    gw.stop();
}

fn partial_writes_to_a_slow_reader_are_progress(engine: Engine, runtime: Runtime) {
    // All but the end is read so slowly that the session lasts several windows; the end is what the gateway's
    // socket may hold, which is given already and is no progress any more.
    const LEN: usize = 24 << 20;
    const END: usize = 8 << 20;
    let backend = Backend::upgrading(|mut peer| support::stream::send(&mut peer.socket, 2, LEN));
    let gw = with_timeouts(&backend, engine, runtime, "idle = \"400ms\"\nhalf_close = \"400ms\"");
    // A small receive buffer, set before the connect, keeps the window small.
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
    socket.set_recv_buffer_size(64 * 1024).expect("an option");
    socket.connect(&gw.address().into()).expect("the gateway accepts");
    let mut client = Client { socket: socket.into() };
    support::client::bound(&client.socket);
    let answer = client.ask(upgrade_head("/", "raw", ""));
    let mut pattern = support::Pattern::new(2);
    pattern.check(&answer.rest);
    let mut came = answer.rest.len();
    let mut chunk = vec![0; 1 << 20];
    let since = Instant::now();
    while came < LEN {
        let len = chunk.len().min(LEN - came);
        client.socket.read_exact(&mut chunk[..len]).expect("the session lives");
        pattern.check(&chunk[..len]);
        came += len;
        if LEN - came > END {
            std::thread::park_timeout(WINDOW / 5);
        }
    }
    assert!(since.elapsed() > WINDOW * 3, "it was read too fast to prove anything");
    drop(client);
    expect_end(&gw.line(), "completed", "relay");
    backend.join();
    gw.stop();
}

fn a_side_that_never_ends_its_half_is_closed_after_the_half_close_window(
    engine: Engine,
    runtime: Runtime,
) {
    let (backend, end) = silent();
    let gw = with_timeouts(&backend, engine, runtime, "idle = \"1h\"\nhalf_close = \"400ms\"");
    let mut client = Client::upgraded(gw.address(), "/", "raw");
    let since = Instant::now();
    client.shutdown_write();
    assert_eq!(client.socket.read(&mut [0; 8]).expect("an end"), 0);
    expect_about_a_window(since);
    expect_end(&gw.line(), "half_close_timeout", "relay");
    end.send(()).expect("the backend waits");
    backend.join();
    gw.stop();
}

fn progress_after_a_half_close_starts_its_window_anew(engine: Engine, runtime: Runtime) {
    let backend = Backend::upgrading(|mut peer: Peer| {
        assert_eq!(peer.receive_to_end().expect("an end"), b"");
        let since = Instant::now();
        while since.elapsed() < WINDOW * 3 {
            peer.send(b".");
            std::thread::park_timeout(WINDOW / 4);
        }
        peer.send(b"!");
    });
    let gw = with_timeouts(&backend, engine, runtime, "idle = \"1h\"\nhalf_close = \"400ms\"");
    let mut client = Client::upgraded(gw.address(), "/", "raw");
    client.shutdown_write();
    assert!(client.receive_to_end().expect("an end").ends_with(b"!"));
    expect_end(&gw.line(), "completed", "relay");
    backend.join();
    gw.stop();
}

#[test]
fn the_idle_window_bounds_a_half_closed_session_as_well_when_it_is_the_shorter() {
    let (backend, end) = silent();
    let timeouts = "idle = \"400ms\"\nhalf_close = \"1h\"";
    let gw = with_timeouts(&backend, Engine::Splice, Runtime::Epoll, timeouts);
    let mut client = Client::upgraded(gw.address(), "/", "raw");
    client.shutdown_write();
    assert_eq!(client.socket.read(&mut [0; 8]).expect("an end"), 0);
    let reason = gw.line()["close_reason"].clone();
    assert!(reason == "half_close_timeout" || reason == "idle_timeout", "{reason}");
    end.send(()).expect("the backend waits");
    backend.join();
    gw.stop();
}

#[test]
fn each_route_has_windows_of_its_own() {
    let (backend, end) = silent();
    let address = backend.address;
    let gw = Gw::from_toml(&format!(
        "[gateway]\nworkers = 1\n[[listener]]\naddress = \"127.0.0.1:0\"\n\
         [[route]]\nname = \"long\"\npath = \"/long\"\nprotocols = [\"any\"]\nto = [\"{address}\"]\n\
         timeouts.idle = \"1h\"\n\
         [[route]]\nname = \"short\"\npath = \"/short\"\nprotocols = [\"any\"]\nto = [\"{address}\"]\n\
         timeouts.idle = \"400ms\"\n"
    ));
    let long = Client::upgraded(gw.address(), "/long", "raw");
    let mut short = Client::upgraded(gw.address(), "/short", "raw");
    assert_eq!(short.socket.read(&mut [0; 8]).expect("an end"), 0);
    let line = gw.line();
    assert_eq!((&line["route"], &line["close_reason"]), (&json!("short"), &json!("idle_timeout")));
    assert_eq!(gw.metrics().sessions_open, 1);
    for _ in 0..2 {
        end.send(()).expect("the backend waits");
    }
    drop(long);
    backend.join();
    gw.stop();
}

/// Where connects neither succeed nor fail: a listener whose queue is full.
struct FullQueue {
    address: SocketAddr,
    _held: Vec<Socket>,
    _listener: Socket,
}

fn full_queue() -> FullQueue {
    let listener = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
    listener.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).expect("a port");
    listener.listen(0).expect("an option");
    let address = listener.local_addr().ok().and_then(|a| a.as_socket()).expect("an address");
    let connecting = |_| {
        let socket = Socket::new(Domain::IPV4, Type::STREAM.nonblocking(), None).expect("a socket");
        // In progress, for ever.
        let _ = socket.connect(&address.into());
        socket
    };
    FullQueue { address, _held: (0..4).map(connecting).collect(), _listener: listener }
}

#[test]
fn an_upstream_that_does_not_answer_the_connect_costs_the_connect_window_and_504() {
    let queue = full_queue();
    let timeouts = "[route.timeouts]\nconnect = \"400ms\"";
    let gw = Gw::from_toml(&config_to(queue.address, "", timeouts));
    let since = Instant::now();
    let answer = Client::connect(gw.address()).ask(upgrade_head("/", "raw", ""));
    expect_about_a_window(since);
    assert_eq!(answer.status, 504);
    let line = gw.line();
    expect_end(&line, "connect_timeout", "connect");
    assert_eq!((&line["side"], &line["status"]), (&json!("upstream"), &json!(504)));
    gw.stop();
}

#[test]
fn the_next_endpoint_is_tried_when_the_connect_window_is_over() {
    let queue = full_queue();
    let backend = Backend::echo();
    let timeouts = "[route.timeouts]\nconnect = \"400ms\"";
    let text = config_to(queue.address, "", timeouts).replace(
        &format!("[\"{}\"]", queue.address),
        &format!("[\"{}\", \"{}\"]", queue.address, backend.address),
    );
    let gw = Gw::from_toml(&text);
    let since = Instant::now();
    let client = Client::upgraded(gw.address(), "/", "raw");
    expect_about_a_window(since);
    drop(client);
    let line = gw.line();
    assert_eq!(
        (&line["retries"], &line["backend"]),
        (&json!(1), &json!(backend.address.to_string()))
    );
    backend.join();
    gw.stop();
}

#[test]
fn a_client_that_sends_its_head_too_slowly_costs_the_handshake_window_and_408() {
    let backend = Backend::echo();
    let gw = with_timeouts(&backend, Engine::Splice, Runtime::Epoll, "handshake = \"400ms\"");
    let since = Instant::now();
    let mut client = Client::connect(gw.address());
    let mut writer = client.socket.try_clone().expect("a descriptor");
    // Bytes are no progress here: the head as a whole has a deadline.
    let trickling = std::thread::spawn(move || {
        for byte in upgrade_head("/", "raw", "").bytes() {
            if writer.write_all(&[byte]).is_err() {
                return;
            }
            std::thread::park_timeout(WINDOW / 8);
        }
    });
    assert_eq!(client.answer().status, 408);
    expect_about_a_window(since);
    expect_end(&gw.line(), "handshake_timeout", "request");
    drop(client);
    trickling.join().expect("no panic");
    backend.join();
    gw.stop();
}

#[test]
fn an_upstream_that_never_answers_costs_the_handshake_window_and_504() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("bound");
    let gw = Gw::from_toml(&config_to(address, "", "[route.timeouts]\nhandshake = \"400ms\""));
    let since = Instant::now();
    let mut client = Client::connect(gw.address());
    assert_eq!(client.ask(upgrade_head("/", "raw", "")).status, 504);
    expect_about_a_window(since);
    let line = gw.line();
    expect_end(&line, "handshake_timeout", "response");
    assert_eq!(line["side"], "upstream");
    gw.stop();
}
