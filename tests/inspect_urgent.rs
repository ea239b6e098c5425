//! Mode `inspect` and urgent (out of band) bytes, where the gateway looks at headers ahead of what it splices.
//!
//! As for opaque sessions (rule R3), an urgent byte is no part of the stream: all others arrive, and are judged, as if
//! it had never been sent.

mod support;

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};

use socket2::SockRef;
use support::frames::{BINARY, Inspected, PING, Sender, TEXT, receive};
use support::{Engine, Pattern};

const ENGINES: [(Engine, &str); 4] = [
    (Engine::Splice, "frames"),
    (Engine::Auto, "frames"),
    (Engine::Copy, "frames"),
    (Engine::Splice, "payload"),
];

/// Frames of which several are looked at for one splice, with some between them that have to be received.
fn frames(sender: Sender) -> Vec<Vec<u8>> {
    let mut payload = Pattern::new(1);
    let mut frames: Vec<_> = [20_000, 5000, 5000, 16_000, 4096, 4095, 20_000, 3, 13_000, 5000]
        .map(|size| sender.whole(BINARY, payload.take(size)))
        .into();
    frames.insert(4, sender.whole(PING, "between"));
    frames.push(sender.whole(TEXT, "the last"));
    frames
}

fn urgent(socket: &TcpStream) {
    let sent = SockRef::from(socket).send_out_of_band(b"!");
    assert_eq!(sent.expect("there is room"), 1);
}

/// Sends, with an urgent byte before the byte `at`.
fn send(mut socket: &TcpStream, bytes: &[u8], at: usize) {
    socket.write_all(&bytes[..at]).expect("the gateway reads");
    urgent(socket);
    socket.write_all(&bytes[at..]).expect("the gateway reads");
}

#[test]
fn an_urgent_byte_anywhere_among_queued_frames_changes_nothing_about_them() {
    for sender in Sender::BOTH {
        let frames = frames(sender);
        let bytes = frames.concat();
        // Before a frame, in its header, behind that, and in its payload.
        let mut begin = 0;
        let mut places = Vec::new();
        for frame in &frames {
            places.extend([0, 1, 3, 8, 14, frame.len() / 2].map(|place| begin + place));
            begin += frame.len();
        }
        places.retain(|&place| place < bytes.len());
        for (engine, depth) in ENGINES {
            let mut session = Inspected::new(engine, &format!("inspect = \"{depth}\""));
            for &place in &places {
                let (source, sink) = session.ends(sender);
                std::thread::scope(|scope| {
                    let source = &*source;
                    let bytes = &bytes;
                    scope.spawn(move || send(source, bytes, place));
                    let mut came = vec![0; bytes.len()];
                    sink.read_exact(&mut came).expect("all comes");
                    assert!(came == *bytes, "{engine:?}, {depth}: differs with one at {place}");
                });
            }
            let (gw, line) = session.line();
            assert_eq!(line["close_reason"], "completed", "{line}");
            assert_eq!(line["violation"], serde_json::Value::Null, "{line}");
            gw.stop();
        }
    }
}

#[test]
fn frames_around_an_urgent_byte_behind_a_full_pipe_all_come_before_the_end() {
    for sender in Sender::BOTH {
        let frames = frames(sender);
        for (engine, depth) in ENGINES {
            // Between two frames that one splice would take, and at the very end.
            let first_two = frames[0].len() + frames[1].len();
            for at in [frames[0].len(), first_two, first_two + 1, frames.concat().len()] {
                let mut session = Inspected::new(engine, &format!("inspect = \"{depth}\""));
                let (mut expected, left) = session.fill(sender);
                let behind = [left.clone(), frames.concat()].concat();
                expected.extend(&behind);
                let (source, sink) = session.ends(sender);
                std::thread::scope(|scope| {
                    let (source, behind, at) = (&*source, &behind, left.len() + at);
                    scope.spawn(move || {
                        send(source, behind, at);
                        source.shutdown(Shutdown::Write).expect("it was open");
                    });
                    let mut came = Vec::new();
                    sink.read_to_end(&mut came).expect("an end");
                    assert_eq!(came.len(), expected.len(), "{engine:?}, {depth}, at {at}");
                    assert!(came == expected, "{engine:?}, {depth}, at {at}: it differs");
                });
                let (gw, line) = session.line();
                assert_eq!(line["close_reason"], "completed", "{line}");
                assert_eq!(line["violation"], serde_json::Value::Null, "{line}");
                gw.stop();
            }
        }
    }
}

#[test]
fn what_breaks_a_rule_behind_an_urgent_byte_goes_nowhere() {
    for sender in Sender::BOTH {
        for (engine, depth) in ENGINES {
            let fine = sender.whole(BINARY, [7; 20_000]);
            let bad = sender.whole(3, "a reserved opcode");
            for at in [0, fine.len() / 2, fine.len(), fine.len() + 1] {
                let mut session = Inspected::new(engine, &format!("inspect = \"{depth}\""));
                // The next header is looked at where it is.
                session.passes(sender, &fine);
                let (source, sink) = session.ends(sender);
                send(source, &[&*fine, &bad].concat(), at);
                assert_eq!(receive(sink).expect("a frame").payload, [7; 20_000]);
                assert_eq!(receive(sink).expect("a close").code(), 1001);
                assert_eq!(receive(source).expect("a close").code(), 1002);
                let (gw, line) = session.line();
                assert_eq!(line["violation"], "opcode", "{line}");
                assert_eq!(line["violation_offset"], 2 * fine.len(), "{line}");
                gw.stop();
            }
        }
    }
}
