//! Mode `inspect`: frames may be cut anywhere, also between what came along with the heads and what came later.

mod support;

use std::io::{Read, Write};

use support::frames::{
    BINARY, CONTINUATION, FIN, Inspected, PING, PONG, Sender, TEXT, frame, receive,
};
use support::{Engine, Pattern};

const ENGINES: [(Engine, &str); 3] =
    [(Engine::Splice, "frames"), (Engine::Copy, "frames"), (Engine::Splice, "payload")];

/// Frames in a row, and for each how many of its bytes come only all at once.
struct Frames {
    bytes: Vec<u8>,
    /// Where each begins, up to where it may not be cut on the other side, and where it ends.
    places: Vec<(usize, usize, usize)>,
}

impl Frames {
    fn new(sender: Sender, frames: &[(u8, &[u8])]) -> Frames {
        let (mut bytes, mut places) = (Vec::new(), Vec::new());
        for (first, payload) in frames {
            let frame = sender.frame(*first, payload);
            let is_control = first & 0x08 != 0;
            let whole = if is_control { frame.len() } else { frame.len() - payload.len() };
            places.push((bytes.len(), bytes.len() + whole, bytes.len() + frame.len()));
            bytes.extend(frame);
        }
        Frames { bytes, places }
    }

    /// How many of the first `cut` bytes may go on before the others have come.
    fn may_go_on(&self, cut: usize) -> usize {
        let begun = |&&(begin, _, end): &&(usize, usize, usize)| begin < cut && cut < end;
        match self.places.iter().find(begun) {
            Some(&(begin, whole, _)) if cut < whole => begin,
            _ => cut,
        }
    }
}

/// Of every kind, with headers of two and four bytes, and characters of more than one.
fn small(sender: Sender) -> Frames {
    Frames::new(
        sender,
        &[
            (FIN | TEXT, "grüße, 世界".as_bytes()),
            (TEXT, "begun, ü".as_bytes()),
            (FIN | PING, b"in between"),
            (CONTINUATION, b""),
            (FIN | CONTINUATION, "€, and ended".as_bytes()),
            (FIN | BINARY, &[7; 126]),
            (FIN | PONG, &[b'p'; 125]),
            (FIN | BINARY, b""),
            (FIN | BINARY, &[8; 200]),
        ],
    )
}

/// Sends the first `cut` bytes behind a frame, sees what may go on come, and sends the others.
fn cut_passes(session: &mut Inspected, sender: Sender, frames: &Frames, cut: usize) {
    // What is behind this frame is received along with it.
    let marker = sender.whole(TEXT, "go");
    let (source, sink) = session.ends(sender);
    source.write_all(&[&marker, &frames.bytes[..cut]].concat()).expect("sent");
    let goes_on = frames.may_go_on(cut);
    let mut came = vec![0; marker.len() + goes_on];
    sink.read_exact(&mut came).expect("it goes on");
    assert!(came == [&marker, &frames.bytes[..goes_on]].concat(), "cut at {cut}");
    source.write_all(&frames.bytes[cut..]).expect("sent");
    came.resize(frames.bytes.len() - goes_on, 0);
    sink.read_exact(&mut came).expect("the rest comes");
    assert!(came == frames.bytes[goes_on..], "cut at {cut}");
}

#[test]
fn frames_that_are_cut_at_any_byte_come_as_they_were_sent() {
    for sender in Sender::BOTH {
        let frames = small(sender);
        for (engine, depth) in ENGINES {
            let mut session = Inspected::new(engine, &format!("inspect = \"{depth}\""));
            for cut in 1..frames.bytes.len() {
                cut_passes(&mut session, sender, &frames, cut);
            }
            let rounds = frames.bytes.len() as u64 - 1;
            let way = session.counted(sender);
            assert_eq!(way.messages(), rounds * 6, "{depth}");
            assert_eq!((way.frames["ping"], way.frames["continuation"]), (rounds, rounds * 2));
            let (gw, line) = session.line();
            assert_eq!(line["close_reason"], "completed", "{line}");
            gw.stop();
        }
    }
}

#[test]
fn large_frames_that_are_cut_around_their_headers_come_as_they_were_sent() {
    let mut payload = Pattern::new(1);
    let sizes = [20_000, 70_000, 5000, 13_000, 3, 65_536].map(|size| payload.take(size));
    for sender in Sender::BOTH {
        let mut parts: Vec<(u8, &[u8])> =
            sizes.iter().map(|payload| (FIN | BINARY, &**payload)).collect();
        parts.insert(3, (FIN | PING, b"between large ones"));
        let frames = Frames::new(sender, &parts);
        for (engine, depth) in ENGINES {
            let mut session = Inspected::new(engine, &format!("inspect = \"{depth}\""));
            for &(begin, ..) in &frames.places {
                for cut in begin.saturating_sub(3).max(1)..begin + 16 {
                    cut_passes(&mut session, sender, &frames, cut);
                }
            }
            let (gw, line) = session.line();
            assert_eq!(line["close_reason"], "completed", "{line}");
            assert_eq!(line["violation"], serde_json::Value::Null, "{line}");
            gw.stop();
        }
    }
}

#[test]
fn frames_that_come_byte_by_byte_go_on_as_soon_as_they_may() {
    for sender in Sender::BOTH {
        let frames = small(sender);
        for (engine, depth) in ENGINES {
            let mut session = Inspected::new(engine, &format!("inspect = \"{depth}\""));
            let (source, sink) = session.ends(sender);
            let mut gone = 0;
            for cut in 1..=frames.bytes.len() {
                source.write_all(&frames.bytes[cut - 1..cut]).expect("sent");
                let goes_on = frames.may_go_on(cut);
                let mut came = vec![0; goes_on - gone];
                sink.read_exact(&mut came).expect("it goes on");
                assert!(came == frames.bytes[gone..goes_on], "byte {cut}");
                gone = goes_on;
            }
            assert_eq!(gone, frames.bytes.len());
            session.line().0.stop();
        }
    }
}

#[test]
fn what_breaks_a_rule_goes_nowhere_wherever_it_is_cut() {
    for sender in Sender::BOTH {
        let mut long = sender.frame(FIN | BINARY, [0; 70_000]);
        // The same number of bytes as 126 would say.
        long[2..10].copy_from_slice(&200_u64.to_be_bytes());
        let ping = sender.whole(PING, "p");
        let other_mask = if sender == Sender::Client { None } else { Some([1, 2, 3, 4]) };
        for (rule, bad) in [
            ("length", &long[..10]),
            ("close_code", &sender.whole(8, [3, 0xed])),
            ("control_fragmented", &sender.frame(PING, "p")[..ping.len()]),
            ("mask", &frame(FIN | TEXT, other_mask, b"x")),
        ] {
            for cut in 1..bad.len() {
                let mut session = Inspected::new(Engine::Splice, "inspect = \"frames\"");
                let fine = sender.whole(TEXT, "fine");
                let (source, sink) = session.ends(sender);
                source.write_all(&[&fine, &bad[..cut]].concat()).expect("sent");
                assert_eq!(receive(sink).expect("a text").payload, b"fine", "{rule}");
                // It may have been told already.
                let _ = source.write_all(&bad[cut..]);
                assert_eq!(receive(sink).expect("a close").code(), 1001, "{rule} cut at {cut}");
                assert_eq!(receive(source).expect("a close").code(), 1002, "{rule} cut at {cut}");
                let (gw, line) = session.line();
                assert_eq!(line["violation"], rule, "{line}");
                assert_eq!(line["violation_offset"], fine.len(), "{line}");
                gw.stop();
            }
        }
    }
}

/// A session to which `sender` says `bytes` along with its head; the other side has read nothing of them.
fn begun_by(sender: Sender, engine: Engine, route: &str, bytes: &[u8]) -> Inspected {
    match sender {
        Sender::Client => Inspected::with_head_data(engine, route, bytes, &[]),
        Sender::Server => Inspected::with_head_data(engine, route, &[], bytes),
    }
}

/// Reads what comes to the other side of `sender` from the beginning.
fn came_first(session: &mut Inspected, sender: Sender, len: usize) -> Vec<u8> {
    let rest = std::mem::take(&mut session.rest);
    let (_, sink) = session.ends(sender);
    let mut came = vec![0; len];
    rest.chain(sink).read_exact(&mut came).expect("it comes");
    assert!(rest.len() <= len, "more came than may go on: {rest:?}");
    came
}

#[test]
fn frames_may_be_cut_between_what_came_with_a_head_and_what_came_later() {
    for sender in Sender::BOTH {
        let frames = Frames::new(
            sender,
            &[
                (TEXT, "ü".as_bytes()),
                (FIN | PING, b"p"),
                (FIN | CONTINUATION, "€".as_bytes()),
                (FIN | BINARY, &[7; 126]),
            ],
        );
        let header_of_last = frames.places[3].1;
        for (engine, depth) in [ENGINES[0], ENGINES[2]] {
            for cut in (1..header_of_last + 2).chain([frames.bytes.len()]) {
                let route = format!("inspect = \"{depth}\"");
                let mut session = begun_by(sender, engine, &route, &frames.bytes[..cut]);
                let goes_on = frames.may_go_on(cut);
                let came = came_first(&mut session, sender, goes_on);
                assert!(came == frames.bytes[..goes_on], "cut at {cut}");
                let (source, sink) = session.ends(sender);
                source.write_all(&frames.bytes[cut..]).expect("sent");
                let mut came = vec![0; frames.bytes.len() - goes_on];
                sink.read_exact(&mut came).expect("the rest comes");
                assert!(came == frames.bytes[goes_on..], "cut at {cut}");
                assert_eq!(session.counted(sender).messages(), 2, "cut at {cut}");
                session.line().0.stop();
            }
        }
        // A large frame, of which most is spliced later.
        let frames = Frames::new(sender, &[(FIN | BINARY, &[7; 500_000])]);
        let mut session =
            begun_by(sender, Engine::Splice, "inspect = \"frames\"", &frames.bytes[..10_000]);
        let came = came_first(&mut session, sender, 10_000);
        assert!(came == frames.bytes[..10_000], "the front differs");
        session.passes(sender, &frames.bytes[10_000..]);
        session.passes(sender, &frames.bytes);
        let (gw, line) = session.line();
        assert!(line["bytes_splice"].as_u64() > Some(500_000), "{line}");
        gw.stop();
    }
}

#[test]
fn what_breaks_a_rule_behind_a_head_goes_nowhere_and_what_was_before_it_does() {
    for sender in Sender::BOTH {
        let fine = [sender.whole(TEXT, "fine"), sender.whole(PING, "so far")].concat();
        for bad in [sender.whole(3, "bad"), sender.frame(FIN | CONTINUATION, "of nothing")] {
            let route = "inspect = \"payload\"";
            let bytes = [&*fine, &bad].concat();
            let mut session = begun_by(sender, Engine::Splice, route, &bytes);
            let rest = std::mem::take(&mut session.rest);
            let (source, sink) = session.ends(sender);
            let mut sink = rest.chain(sink);
            assert_eq!(receive(&mut sink).expect("a text").payload, b"fine");
            assert_eq!(receive(&mut sink).expect("a ping").payload, b"so far");
            let close = receive(&mut sink).expect("a close");
            assert_eq!((close.code(), close.masked), (1001, sender == Sender::Client));
            assert_eq!(receive(source).expect("a close").code(), 1002);
            let (gw, line) = session.line();
            assert_eq!(line["violation_offset"], fine.len(), "{line}");
            assert_eq!(line["side"], sender.word(), "{line}");
            gw.stop();
        }
    }
}
