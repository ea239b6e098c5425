//! Mode `inspect`: how sessions end, by their sides or by the gateway, and whose word comes last.

mod support;

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};

use support::Engine;
use support::client::reset;
use support::frames::{BINARY, CLOSE, CONTINUATION, Inspected, PING, Sender, TEXT, code, receive};

const FRAMES: &str = "inspect = \"frames\"";
const PAYLOAD: &str = "inspect = \"payload\"";
/// A reserved opcode.
const BROKEN: u8 = 3;
const MIB: usize = 1 << 20;

/// The side that `sender` talks to.
fn other(sender: Sender) -> Sender {
    match sender {
        Sender::Client => Sender::Server,
        Sender::Server => Sender::Client,
    }
}

/// Reads until the other side closes, in order or not: `true` in order.
fn rest_of(socket: &mut TcpStream) -> (Vec<u8>, bool) {
    let mut bytes = Vec::new();
    let ended = match socket.read_to_end(&mut bytes) {
        Ok(_) => true,
        Err(error) if error.kind() == ErrorKind::ConnectionReset => false,
        Err(error) => panic!("no end: {error}"),
    };
    (bytes, ended)
}

#[test]
fn both_sides_may_say_close_at_the_same_time() {
    for depth in [FRAMES, PAYLOAD] {
        let mut session = Inspected::new(Engine::Splice, depth);
        session.client.write_all(&Sender::Client.whole(CLOSE, code(1000, "me"))).expect("sent");
        session.server.write_all(&Sender::Server.whole(CLOSE, code(3000, "I"))).expect("sent");
        let close = receive(&mut session.server).expect("a close");
        assert_eq!((close.code(), &close.payload[2..]), (1000, &b"me"[..]));
        let close = receive(&mut session.client).expect("a close");
        assert_eq!((close.code(), &close.payload[2..]), (3000, &b"I"[..]));
        let (gw, line) = session.line();
        assert_eq!(line["close_reason"], "completed", "{line}");
        let websocket = gw.metrics().websocket;
        assert_eq!(websocket.to_upstream.closes["1000"], 1);
        assert_eq!(websocket.to_downstream.closes["3xxx"], 1);
        gw.stop();
    }
}

#[test]
fn a_close_without_a_code_and_an_end_behind_it_wait_for_the_answer() {
    for sender in Sender::BOTH {
        let mut session = Inspected::new(Engine::Splice, PAYLOAD);
        let (source, sink) = session.ends(sender);
        source.write_all(&sender.whole(CLOSE, "")).expect("sent");
        source.shutdown(Shutdown::Write).expect("it was open");
        let close = receive(sink).expect("a close");
        assert_eq!((close.opcode(), &*close.payload), (CLOSE, &b""[..]));
        assert_eq!(receive(sink), None, "the end is passed on");
        let answer = other(sender);
        sink.write_all(&answer.whole(TEXT, "what was owed")).expect("sent");
        sink.write_all(&answer.whole(CLOSE, "")).expect("sent");
        sink.shutdown(Shutdown::Write).expect("it was open");
        assert_eq!(receive(source).expect("a text").payload, b"what was owed");
        assert_eq!(receive(source).expect("a close").opcode(), CLOSE);
        assert_eq!(receive(source), None);
        for side in Sender::BOTH {
            assert_eq!(session.counted(side).closes["none"], 1, "{side:?}");
        }
        let (gw, line) = session.line();
        assert_eq!(line["close_reason"], "completed", "{line}");
        gw.stop();
    }
}

#[test]
fn a_flood_behind_a_close_goes_nowhere_and_is_judged_by_nobody() {
    let limits = "control_per_second = 5\non_excess = \"close\"";
    let limits =
        format!("[route.limits.to_upstream]\n{limits}\n[route.limits.to_downstream]\n{limits}");
    for sender in Sender::BOTH {
        for engine in [Engine::Splice, Engine::Copy] {
            let mut session = Inspected::new(engine, &limits);
            let close = sender.whole(CLOSE, code(1000, ""));
            // Pings at first, then what is no frame at all.
            let mut flood = sender.whole(PING, "ping").repeat(1000);
            flood.resize(4 * MIB, 0xff);
            let (source, sink) = session.ends(sender);
            source.write_all(&[&*close, &flood].concat()).expect("it is taken");
            assert_eq!(receive(sink).expect("a close").code(), 1000);
            sink.write_all(&other(sender).whole(TEXT, "still here")).expect("sent");
            assert_eq!(receive(source).expect("a text").payload, b"still here");
            sink.write_all(&other(sender).whole(CLOSE, code(1000, ""))).expect("sent");
            sink.shutdown(Shutdown::Write).expect("it was open");
            assert_eq!(receive(source).expect("a close").code(), 1000);
            source.shutdown(Shutdown::Write).expect("it was open");
            assert_eq!(receive(sink), None, "the flood went on");
            let (gw, line) = session.line();
            assert_eq!(line["close_reason"], "completed", "{line}");
            assert_eq!(line["bytes_dropped"], flood.len(), "{line}");
            assert_eq!(line["violation"], serde_json::Value::Null, "{line}");
            gw.stop();
        }
    }
}

#[test]
fn both_sides_may_offend_at_the_same_time_and_each_is_told_once() {
    for _ in 0..10 {
        let mut session = Inspected::new(Engine::Splice, FRAMES);
        let bad = Sender::BOTH.map(|side| side.whole(BROKEN, "bad").repeat(100));
        session.client.write_all(&bad[0]).expect("sent");
        session.server.write_all(&bad[1]).expect("sent");
        let mut codes = Vec::new();
        for side in Sender::BOTH {
            let (socket, _) = session.ends(side);
            let close = receive(socket).expect("a close");
            assert_eq!(close.masked, side == Sender::Server, "{close:?}");
            codes.push(close.code());
            socket.shutdown(Shutdown::Write).expect("it was open");
            assert_eq!(receive(socket), None, "it was told twice");
        }
        // One of them was first; the other may be told the same, or that the session is over.
        assert!(codes.contains(&1002), "{codes:?}");
        assert!(codes.iter().all(|code| [1001, 1002].contains(code)), "{codes:?}");
        let (gw, line) = session.line();
        assert_eq!(
            (&line["close_reason"], &line["detail"]),
            (&"violation".into(), &"opcode".into())
        );
        gw.stop();
    }
}

#[test]
fn an_offender_is_told_even_if_the_other_side_is_reset() {
    for sender in Sender::BOTH {
        let mut session = Inspected::new(Engine::Splice, FRAMES);
        let (source, sink) = session.ends(sender);
        source.write_all(&sender.whole(BROKEN, "bad")).expect("sent");
        assert_eq!(receive(sink).expect("a close").code(), 1001);
        let mut source = source.try_clone().expect("a descriptor");
        let Inspected { gw, client, server, .. } = session;
        let (kept, gone) = match sender {
            Sender::Client => (client, server),
            Sender::Server => (server, client),
        };
        reset(gone);
        assert_eq!(receive(&mut source).expect("a close").code(), 1002);
        drop((source, kept));
        let line = gw.line();
        assert_eq!(line["close_reason"], "violation", "{line}");
        assert_eq!(line["side"], sender.word(), "{line}");
        gw.stop();
    }
}

#[test]
fn an_offender_that_is_reset_leaves_the_other_side_an_orderly_end() {
    for sender in Sender::BOTH {
        let mut session = Inspected::new(Engine::Splice, FRAMES);
        let (source, sink) = session.ends(sender);
        source.write_all(&sender.whole(BROKEN, "bad")).expect("sent");
        assert_eq!(receive(sink).expect("a close").code(), 1001);
        let mut sink = sink.try_clone().expect("a descriptor");
        let Inspected { gw, client, server, .. } = session;
        let (gone, kept) = match sender {
            Sender::Client => (client, server),
            Sender::Server => (server, client),
        };
        reset(gone);
        assert_eq!(rest_of(&mut sink).0, b"");
        drop(kept);
        let line = gw.line();
        assert_eq!(line["close_reason"], "violation", "{line}");
        assert_eq!(line["side"], sender.word(), "{line}");
        gw.stop();
    }
}

#[test]
fn a_session_ends_though_nobody_answers_a_close_of_ours() {
    for sender in Sender::BOTH {
        let mut session = Inspected::new(Engine::Splice, FRAMES);
        let (source, sink) = session.ends(sender);
        source.write_all(&sender.whole(BROKEN, "bad")).expect("sent");
        assert_eq!(receive(sink).expect("a close").code(), 1001);
        assert_eq!(receive(source).expect("a close").code(), 1002);
        // Both ends stay open here.
        let line = session.gw.line();
        assert_eq!(line["close_reason"], "violation", "{line}");
        assert_eq!(receive(&mut session.client), None);
        assert_eq!(receive(&mut session.server), None);
        session.gw.stop();
    }
}

#[test]
fn a_session_ends_though_a_side_that_is_to_be_told_reads_nothing() {
    for sender in Sender::BOTH {
        let mut session = Inspected::new(Engine::Splice, FRAMES);
        // The offender reads nothing of what it is sent.
        session.fill(other(sender));
        let (source, sink) = session.ends(sender);
        source.write_all(&sender.whole(BROKEN, "bad")).expect("sent");
        assert_eq!(receive(sink).expect("a close").code(), 1001);
        let line = session.gw.line();
        assert_eq!(line["close_reason"], "violation", "{line}");
        // What it was not given is no end in good order.
        let (source, _) = session.ends(sender);
        assert!(!rest_of(source).1, "it took the end for the end of all");
        session.gw.stop();
    }
}

#[test]
fn nothing_of_ours_is_put_into_a_frame_that_is_cut_short() {
    for sender in Sender::BOTH {
        for (engine, depth, opcode) in [
            (Engine::Splice, FRAMES, BINARY),
            (Engine::Copy, FRAMES, BINARY),
            (Engine::Splice, PAYLOAD, TEXT),
        ] {
            let mut session = Inspected::new(engine, depth);
            let begun = other(sender).whole(opcode, vec![b'x'; MIB]);
            let begun = &begun[..MIB / 2];
            session.passes(other(sender), begun);
            let (source, sink) = session.ends(sender);
            source.write_all(&sender.whole(BROKEN, "bad")).expect("sent");
            // It can be told, and has an end; the offender is owed the rest of a frame, and has an end only.
            assert_eq!(receive(sink).expect("a close").code(), 1001);
            assert_eq!(rest_of(source), (Vec::new(), true));
            let (gw, line) = session.line();
            assert_eq!(line["close_reason"], "violation", "{line}");
            gw.stop();
        }
    }
}

#[test]
fn a_close_of_ours_stands_between_frames_wherever_the_answers_stop() {
    let close = Sender::Server.whole(CLOSE, code(1002, "opcode"));
    let (mut frames, mut ends) = (Vec::new(), vec![0]);
    for size in [3, 300_000, 20_000, 0, 100_000] {
        frames.extend(Sender::Server.whole(BINARY, vec![7; size]));
        ends.push(frames.len());
    }
    // At an end, one byte around it, and in what follows.
    let stops = ends.iter().flat_map(|&end| [end.saturating_sub(1), end, end + 1, end + 9000]);
    let mut told = 0;
    for stop in stops.filter(|&stop| stop <= frames.len()) {
        let mut session = Inspected::new(Engine::Splice, FRAMES);
        session.server.write_all(&frames[..stop]).expect("sent");
        session.client.write_all(&Sender::Client.whole(BROKEN, "bad")).expect("sent");
        // How much of it comes in time a loaded machine decides.
        let (came, _) = rest_of(&mut session.client);
        let whole = came.iter().zip(&frames[..stop]).take_while(|(a, b)| a == b).count();
        let is_end = ends.contains(&whole);
        assert_eq!(
            &came[whole..],
            if is_end { &close[..] } else { &[] },
            "{whole} of {stop} bytes"
        );
        told += usize::from(is_end);
        session.line().0.stop();
    }
    assert!(told > 0, "nobody was told");
}

#[test]
fn a_side_may_end_its_direction_without_a_close() {
    for sender in Sender::BOTH {
        for depth in [FRAMES, PAYLOAD] {
            let mut session = Inspected::new(Engine::Splice, depth);
            // In the middle of a message, and of a header.
            let whole = sender.whole(TEXT, "whole");
            let begun = sender.frame(TEXT, "in a message");
            let cut = &sender.frame(CONTINUATION, [b'x'; 200])[..3];
            let (source, sink) = session.ends(sender);
            source.write_all(&[&whole, &begun, cut].concat()).expect("sent");
            source.shutdown(Shutdown::Write).expect("it was open");
            assert_eq!(rest_of(sink), ([whole, begun].concat(), true));
            // The other direction goes on.
            for size in [3, 100_000] {
                let message = other(sender).whole(TEXT, vec![b'x'; size]);
                session.passes(other(sender), &message);
            }
            let (source, sink) = session.ends(sender);
            sink.shutdown(Shutdown::Write).expect("it was open");
            assert_eq!(rest_of(source), (Vec::new(), true));
            let (gw, line) = session.line();
            assert_eq!(line["close_reason"], "completed", "{line}");
            assert_eq!(line["bytes_dropped"], cut.len(), "{line}");
            gw.stop();
        }
    }
}

#[test]
fn a_close_that_nobody_answers_is_followed_by_an_end_in_the_end() {
    for sender in Sender::BOTH {
        let timeouts = "[route.timeouts]\nidle = \"1h\"\nhalf_close = \"300ms\"\n";
        let mut session = Inspected::new(Engine::Splice, timeouts);
        let (source, sink) = session.ends(sender);
        source.write_all(&sender.whole(CLOSE, code(1000, ""))).expect("sent");
        assert_eq!(receive(sink).expect("a close").code(), 1000);
        // Both ends stay open here.
        let line = session.gw.line();
        assert_eq!(line["close_reason"], "half_close_timeout", "{line}");
        for side in Sender::BOTH {
            let (socket, _) = session.ends(side);
            // Whoever has not said it, nor been told it, may be told now.
            let (rest, _) = rest_of(socket);
            assert!(rest.is_empty() || side == sender, "{side:?}: {rest:?}");
        }
        session.gw.stop();
    }
}
