//! A WebSocket library at both ends of the gateway: messages, pings and close codes pass as they are.

mod support;

use std::net::TcpStream;
use std::sync::mpsc::{Sender, channel};

use support::{Backend, Client, Engine, Gw, Pattern, Peer, Runtime, backend};
use tungstenite::protocol::frame::coding::{CloseCode, Data, OpCode};
use tungstenite::protocol::frame::{CloseFrame, Frame};
use tungstenite::protocol::{Role, WebSocket};
use tungstenite::{Error, Message, accept, client};

contract!(
    messages_come_back_as_they_were_sent,
    pings_are_answered_by_the_other_end_both_ways,
    close_codes_and_reasons_reach_the_other_end,
    a_server_that_greets_with_its_101_is_heard,
);

type Socket = WebSocket<TcpStream>;

fn messages_come_back_as_they_were_sent(engine: Engine, runtime: Runtime) {
    const LEN: usize = 1 << 20;
    let backend = Backend::start(|peer| serve(accept(peer.socket).expect("a handshake"), None));
    let gw = Gw::to(&backend, engine, runtime);
    let mut socket = connect(&gw);
    for text in ["", "grüße", &"long ".repeat(30_000)] {
        socket.send(Message::text(text)).expect("sent");
        assert_eq!(socket.read().expect("an echo"), Message::text(text));
    }
    let bytes = Pattern::new(7).take(LEN);
    socket.send(Message::binary(bytes.clone())).expect("sent");
    let echo = socket.read().expect("an echo");
    assert!(echo == Message::binary(bytes), "the echo of 1 MiB differs");
    close(socket, 1000, "");
    let line = gw.line();
    engine.assert_carried(&line, 0);
    assert_eq!(line["close_reason"], "completed", "{line}");
    for side in ["bytes_in", "bytes_out"] {
        assert!(line[side].as_u64() > Some(LEN as u64), "{line}");
    }
    backend.join();
    gw.stop();
}

fn pings_are_answered_by_the_other_end_both_ways(engine: Engine, runtime: Runtime) {
    let backend = Backend::start(|peer| serve(accept(peer.socket).expect("a handshake"), None));
    let gw = Gw::to(&backend, engine, runtime);
    let mut socket = connect(&gw);
    socket.send(Message::Ping("from the client".into())).expect("sent");
    assert_eq!(socket.read().expect("a pong"), Message::Pong("from the client".into()));
    socket.send(Message::text(PING_ME)).expect("sent");
    assert_eq!(socket.read().expect("a ping"), Message::Ping("from the server".into()));
    // The library's answer to the ping goes out with this read.
    assert_eq!(socket.read().expect("a text"), Message::text("ponged: from the server"));
    close(socket, 1000, "");
    engine.assert_carried(&gw.line(), 0);
    backend.join();
    gw.stop();
}

fn close_codes_and_reasons_reach_the_other_end(engine: Engine, runtime: Runtime) {
    let (seen, closes) = channel();
    let backend = Backend::start(move |peer| {
        serve(accept(peer.socket).expect("a handshake"), Some(seen.clone()));
    });
    let gw = Gw::to(&backend, engine, runtime);
    for (code, reason) in [(1000, "done"), (3000, ""), (4001, "token expired: übermorgen")] {
        close(connect(&gw), code, reason);
        assert_eq!(backend::wait(&closes), Some((code, reason.to_owned())));
        let line = gw.line();
        engine.assert_carried(&line, 0);
        assert_eq!(line["close_reason"], "completed", "{line}");

        let mut socket = connect(&gw);
        socket.send(Message::text(format!("{CLOSE_ME}{code} {reason}"))).expect("sent");
        let Message::Close(frame) = socket.read().expect("a close") else { panic!("no close") };
        assert_eq!(frame, Some(close_frame(code, reason)));
        assert!(matches!(socket.read(), Err(Error::ConnectionClosed)));
        drop(socket);
        assert_eq!(
            backend::wait(&closes),
            Some((code, reason.to_owned())),
            "its own close, echoed"
        );
        let line = gw.line();
        engine.assert_carried(&line, 0);
        assert_eq!(line["close_reason"], "completed", "{line}");
    }
    backend.join();
    gw.stop();
}

fn a_server_that_greets_with_its_101_is_heard(engine: Engine, runtime: Runtime) {
    let glued: Vec<u8> = ["first", "second"].into_iter().flat_map(text_frame).collect();
    let head_data = glued.len() as u64;
    let backend = Backend::start(move |mut peer: Peer| {
        let head = peer.read_head();
        peer.grant(&head, &glued);
        serve(WebSocket::from_raw_socket(peer.socket, Role::Server, None), None);
    });
    let gw = Gw::to(&backend, engine, runtime);
    let mut socket = connect(&gw);
    assert_eq!(socket.read().expect("the greeting"), Message::text("first"));
    assert_eq!(socket.read().expect("the rest of it"), Message::text("second"));
    socket.send(Message::text("thanks")).expect("sent");
    assert_eq!(socket.read().expect("an echo"), Message::text("thanks"));
    close(socket, 1000, "");
    engine.assert_carried(&gw.line(), head_data);
    backend.join();
    gw.stop();
}

/// A text that makes the server ping, and tell of the pong.
const PING_ME: &str = "!ping";
/// A text that makes the server close, with the code and the reason behind it.
const CLOSE_ME: &str = "!close ";

/// Echoes until the end; `closes` is told of the close frame that came.
fn serve(mut socket: Socket, closes: Option<Sender<Option<(u16, String)>>>) {
    let mut seen = None;
    loop {
        match socket.read() {
            Ok(Message::Text(text)) if text == PING_ME => {
                socket.send(Message::Ping("from the server".into())).expect("sent");
            }
            Ok(Message::Text(text)) if text.starts_with(CLOSE_ME) => {
                let (code, reason) = text[CLOSE_ME.len()..].split_once(' ').expect("two words");
                let frame = close_frame(code.parse().expect("a number"), reason);
                socket.close(Some(frame)).expect("sent");
            }
            Ok(Message::Pong(payload)) => {
                let payload = String::from_utf8_lossy(&payload);
                socket.send(Message::text(format!("ponged: {payload}"))).expect("sent");
            }
            Ok(Message::Close(frame)) => {
                seen = frame.map(|frame| (frame.code.into(), frame.reason.to_string()));
            }
            Ok(message @ (Message::Text(_) | Message::Binary(_))) => {
                socket.send(message).expect("sent");
            }
            Ok(_) => {}
            Err(Error::ConnectionClosed) => break,
            Err(error) => panic!("the server's side broke: {error}"),
        }
    }
    if let Some(closes) = closes {
        closes.send(seen).expect("the test waits");
    }
}

/// A WebSocket through the gateway.
fn connect(gw: &Gw) -> Socket {
    let Client { socket } = Client::connect(gw.address());
    client("ws://gateway.test/chat", socket).expect("a handshake").0
}

/// Closes with `code` and `reason`, which the other end has to send back, and waits for the end.
fn close(mut socket: Socket, code: u16, reason: &str) {
    socket.close(Some(close_frame(code, reason))).expect("sent");
    let answer = socket.read().expect("the answering close");
    assert_eq!(answer, Message::Close(Some(close_frame(code, reason))));
    assert!(matches!(socket.read(), Err(Error::ConnectionClosed)));
}

fn close_frame(code: u16, reason: &str) -> CloseFrame {
    CloseFrame { code: CloseCode::from(code), reason: reason.into() }
}

/// A server's text frame, as bytes.
fn text_frame(text: &str) -> Vec<u8> {
    let frame = Frame::message(text.to_owned(), OpCode::Data(Data::Text), true);
    let mut bytes = Vec::new();
    frame.format(&mut bytes).expect("it fits");
    bytes
}
