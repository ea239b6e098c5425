//! The echo backend of the demo, as a WebSocket client and as a thread list see it.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use tungstenite::protocol::CloseFrame;
use tungstenite::protocol::frame::coding::CloseCode;
use tungstenite::{Bytes, Error, Message, WebSocket};
use upsplice::server::demo::{EchoBackend, EchoLimits};

/// Only turns a hang into a failure.
const BOUND: Duration = Duration::from_secs(20);

type Client = WebSocket<TcpStream>;

fn tcp(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect_timeout(&address, BOUND).expect("connect");
    stream.set_read_timeout(Some(BOUND)).expect("read timeout");
    stream.set_write_timeout(Some(BOUND)).expect("write timeout");
    stream
}

fn client(address: SocketAddr) -> Client {
    let (socket, response) =
        tungstenite::client(format!("ws://{address}/echo"), tcp(address)).expect("handshake");
    assert_eq!(response.status(), 101);
    socket
}

fn round_trip(client: &mut Client, message: Message) -> Message {
    client.send(message).expect("send");
    client.read().expect("read")
}

/// How many threads this process has that belong to the backend at `address`.
fn threads_of(address: SocketAddr) -> usize {
    let name = format!("echo-{}", address.port());
    let tasks = fs::read_dir("/proc/self/task").expect("a thread list");
    // A thread may end between the listing and the reading.
    let names =
        tasks.flatten().filter_map(|task| fs::read_to_string(task.path().join("comm")).ok());
    names.filter(|comm| comm.trim_end() == name).count()
}

/// Waits for a thread count; the kernel takes a thread off the list a moment after it has ended.
fn expect_threads(address: SocketAddr, expected: usize) {
    let give_up = Instant::now() + BOUND;
    while threads_of(address) != expected {
        let left = threads_of(address);
        assert!(Instant::now() < give_up, "{left} threads, not {expected}");
        thread::yield_now();
    }
}

#[test]
fn text_and_binary_come_back_as_they_were() {
    let backend = EchoBackend::start().expect("start");
    let mut client = client(backend.address());
    let mebibyte: Vec<u8> =
        (0..1u32 << 20).map(|at| (at.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    for message in [
        Message::text("hello"),
        Message::text("Grüße, 世界"),
        Message::text(""),
        Message::binary(mebibyte),
        Message::binary(Vec::new()),
    ] {
        assert_eq!(round_trip(&mut client, message.clone()), message);
    }
}

#[test]
fn a_ping_is_answered_without_waiting_for_a_message() {
    let backend = EchoBackend::start().expect("start");
    let mut client = client(backend.address());
    let answer = round_trip(&mut client, Message::Ping(Bytes::from_static(b"are you there")));
    assert_eq!(answer, Message::Pong(Bytes::from_static(b"are you there")));
}

#[test]
fn a_close_is_answered_with_its_code_and_ends_the_thread() {
    let backend = EchoBackend::start().expect("start");
    let mut client = client(backend.address());
    expect_threads(backend.address(), 2);
    let bye = CloseFrame { code: CloseCode::Normal, reason: "bye".into() };
    client.close(Some(bye.clone())).expect("close");
    assert_eq!(client.read().expect("the close answered"), Message::Close(Some(bye)));
    assert!(matches!(client.read(), Err(Error::ConnectionClosed)));
    expect_threads(backend.address(), 1);
}

#[test]
fn a_message_over_the_limit_is_closed_with_1009_and_one_at_the_limit_is_not() {
    let limits = EchoLimits { message_bytes_max: 1000, ..EchoLimits::default() };
    let backend = EchoBackend::with_limits(limits).expect("start");
    let mut client = client(backend.address());
    let at_limit = Message::binary(vec![7; 1000]);
    assert_eq!(round_trip(&mut client, at_limit.clone()), at_limit);
    match round_trip(&mut client, Message::binary(vec![7; 1001])) {
        Message::Close(Some(frame)) => assert_eq!(frame.code, CloseCode::Size),
        other => panic!("not a close: {other}"),
    }
}

#[test]
fn a_connection_over_the_limit_is_refused_and_its_place_can_be_taken_later() {
    let limits = EchoLimits { connections_max: 1, ..EchoLimits::default() };
    let backend = EchoBackend::with_limits(limits).expect("start");
    let address = backend.address();
    let first = client(address);
    match tungstenite::client(format!("ws://{address}/echo"), tcp(address)) {
        Err(tungstenite::HandshakeError::Failure(Error::Http(response))) => {
            assert_eq!(response.status(), 503);
        }
        other => panic!("not refused: {other:?}"),
    }
    drop(first);
    expect_threads(address, 1);
    let hello = Message::text("hello");
    assert_eq!(round_trip(&mut client(address), hello.clone()), hello);
}

#[test]
fn a_client_that_goes_away_without_a_close_leaves_no_thread() {
    let backend = EchoBackend::start().expect("start");
    let clients: Vec<Client> = (0..5).map(|_| client(backend.address())).collect();
    expect_threads(backend.address(), 1 + 5);
    drop(clients);
    expect_threads(backend.address(), 1);
}

#[test]
fn a_client_that_stays_mute_is_pinged_once_and_then_given_up() {
    let limits = EchoLimits { ping_interval: Duration::from_millis(50), ..EchoLimits::default() };
    let backend = EchoBackend::with_limits(limits).expect("start");
    let mut stream = tcp(backend.address());
    stream
        .write_all(
            b"GET /echo HTTP/1.1\r\nHost: test\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
              Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
        )
        .expect("send the handshake");
    let mut received = Vec::new();
    stream.read_to_end(&mut received).expect("read to the end");
    let blank_line = received.windows(4).position(|four| four == b"\r\n\r\n").expect("a head");
    assert!(received.starts_with(b"HTTP/1.1 101 "));
    assert_eq!(received[blank_line + 4..], [0x89, 0], "exactly one empty ping");
    expect_threads(backend.address(), 1);
}

#[test]
fn a_client_that_answers_pings_stays() {
    let limits = EchoLimits { ping_interval: Duration::from_millis(50), ..EchoLimits::default() };
    let backend = EchoBackend::with_limits(limits).expect("start");
    let mut client = client(backend.address());
    // Each read answers the ping before it, so a third ping means that two pongs were believed.
    for _ in 0..3 {
        assert_eq!(client.read().expect("a ping"), Message::Ping(Bytes::new()));
    }
    client.send(Message::text("still here")).expect("send");
    let echoed = std::iter::repeat_with(|| client.read().expect("read")).find(Message::is_text);
    assert_eq!(echoed, Some(Message::text("still here")));
}

#[test]
fn what_is_not_websocket_ends_its_thread() {
    let backend = EchoBackend::start().expect("start");
    let mut stream = tcp(backend.address());
    stream.write_all(b"GET / HTTP/1.1\r\nHost: test\r\n\r\n").expect("send");
    let mut received = Vec::new();
    // The end may come as a reset.
    let _ = stream.read_to_end(&mut received);
    assert!(!received.starts_with(b"HTTP/1.1 101"));
    expect_threads(backend.address(), 1);
}

#[test]
fn stopping_ends_open_connections_and_every_thread() {
    let backend = EchoBackend::start().expect("start");
    let address = backend.address();
    let mut idle = client(address);
    // Half a frame: its thread waits in the middle of a message.
    let mut halfway = client(address);
    halfway.get_mut().write_all(&[0x81, 0xff]).expect("send");
    // Not even a handshake.
    let mute = tcp(address);
    expect_threads(address, 1 + 3);
    backend.stop();
    expect_threads(address, 0);
    assert!(idle.read().is_err());
    assert!(TcpStream::connect(address).is_err(), "still listening");
    drop(mute);
}

#[test]
fn dropping_stops_as_well() {
    let backend = EchoBackend::start().expect("start");
    let address = backend.address();
    let _client = client(address);
    expect_threads(address, 2);
    drop(backend);
    expect_threads(address, 0);
}
