//! Mode `inspect`: limits hold to the byte, the frame and the message, for either side and at either depth.

mod support;

use std::io::{Read, Write};

use support::Engine;
use support::frames::{BINARY, CONTINUATION, FIN, Inspected, PING, PONG, Sender, TEXT, receive};

const DEPTHS: [&str; 2] = ["inspect = \"frames\"", "inspect = \"payload\""];

fn limited(engine: Engine, depth: &str, limits: &str) -> Inspected {
    Inspected::new(engine, &format!("{depth}\n[route.limits]\n{limits}"))
}

/// Sends `bytes`, of which only the first `fine` may pass; the offender is told, and the other side sent away.
fn is_refused(
    mut session: Inspected,
    sender: Sender,
    bytes: &[u8],
    fine: usize,
    told: (u16, &str),
) {
    let (source, sink) = session.ends(sender);
    source.write_all(bytes).expect("sent");
    let mut came = vec![0; fine];
    sink.read_exact(&mut came).expect("what is fine passes");
    assert!(came == bytes[..fine], "it came differently");
    let close = receive(source).expect("a close");
    assert_eq!((close.code(), String::from_utf8_lossy(&close.payload[2..]).as_ref()), told);
    // A frame that was cut short has an end and no Close.
    if let Some(close) = receive(sink) {
        assert_eq!((close.code(), close.masked), (1001, sender == Sender::Client));
    }
    let (gw, line) = session.line();
    assert_eq!((&line["violation"], &line["side"]), (&told.1.into(), &sender.word().into()));
    assert_eq!(line["violation_direction"], sender.direction(), "{line}");
    assert_eq!(line["violation_offset"], fine, "{line}");
    gw.stop();
}

#[test]
fn a_frame_may_be_as_large_as_is_said_and_no_byte_larger() {
    for sender in Sender::BOTH {
        for depth in DEPTHS {
            // In each form of a length, and with a payload that is spliced.
            for limit in [1_usize, 125, 126, 65_535, 65_536, 200_000] {
                let limits = format!("frame_bytes = {limit}");
                let mut session = limited(Engine::Splice, depth, &limits);
                let fits = [limit - 1, limit, limit]
                    .map(|size| sender.whole(BINARY, vec![7; size]))
                    .concat();
                session.passes(sender, &fits);
                // What a control frame holds is no matter of this limit.
                session.passes(sender, &sender.whole(PING, [b'p'; 125]));
                session.passes(sender, &sender.frame(BINARY, vec![7; limit]));
                assert_eq!(session.counted(sender).messages(), 3);
                session.line().0.stop();
                for beyond in [1, 2] {
                    let session = limited(Engine::Splice, depth, &limits);
                    let bytes = sender.whole(BINARY, vec![7; limit + beyond]);
                    let bytes = [sender.whole(TEXT, "x"), bytes].concat();
                    let fine = sender.whole(TEXT, "x").len();
                    is_refused(session, sender, &bytes, fine, (1009, "frame_bytes"));
                }
            }
        }
    }
}

#[test]
fn a_message_may_be_as_large_as_is_said_however_it_is_cut() {
    for sender in Sender::BOTH {
        for (depth, limit) in [(DEPTHS[0], 1000), (DEPTHS[1], 1000), (DEPTHS[0], 300_000)] {
            let limits = format!("message_bytes = {limit}");
            let message = |size: usize| {
                let (front, rest) = (vec![b'x'; size / 3], vec![b'x'; size - size / 3]);
                let first = sender.frame(TEXT, front);
                let pong = sender.whole(PONG, "in between");
                let last = sender.whole(CONTINUATION, rest);
                (first.len() + pong.len(), [first, pong, last].concat())
            };
            let mut session = limited(Engine::Splice, depth, &limits);
            for size in [limit - 1, limit, limit] {
                session.passes(sender, &message(size).1);
                session.passes(sender, &sender.whole(BINARY, vec![7; size]));
            }
            session.line().0.stop();
            for size in [limit + 1, limit + 2] {
                let (fine, bytes) = message(size);
                let session = limited(Engine::Splice, depth, &limits);
                is_refused(session, sender, &bytes, fine, (1009, "message_bytes"));
                let session = limited(Engine::Splice, depth, &limits);
                let whole = sender.whole(BINARY, vec![7; size]);
                is_refused(session, sender, &whole, 0, (1009, "message_bytes"));
            }
        }
    }
}

#[test]
fn a_message_may_have_as_many_fragments_as_is_said() {
    for sender in Sender::BOTH {
        for limit in [1, 2, 5] {
            let limits = format!("fragments = {limit}");
            let message = |count: usize| -> Vec<u8> {
                let last = if count == 1 { FIN } else { 0 };
                let first = sender.frame(TEXT | last, "a");
                let between = (2..count).flat_map(|_| sender.frame(CONTINUATION, ""));
                let end = (count > 1).then(|| sender.whole(CONTINUATION, "z"));
                first.into_iter().chain(between).chain(end.into_iter().flatten()).collect()
            };
            let mut session = limited(Engine::Splice, DEPTHS[1], &limits);
            for count in [1, limit] {
                session.passes(sender, &message(count));
            }
            session.line().0.stop();
            for count in [limit + 1, limit + 2] {
                let session = limited(Engine::Splice, DEPTHS[1], &limits);
                let bytes = message(count);
                // All but those beyond the limit.
                let beyond = sender.whole(CONTINUATION, "z").len()
                    + (count - limit - 1) * sender.frame(CONTINUATION, "").len();
                is_refused(session, sender, &bytes, bytes.len() - beyond, (1009, "fragments"));
            }
        }
    }
}

#[test]
fn a_message_has_no_end_of_fragments_unless_one_is_said() {
    const FRAGMENTS: usize = 70_000;
    for depth in DEPTHS {
        let mut session = Inspected::new(Engine::Splice, depth);
        let mut message = Sender::Client.frame(TEXT, "");
        for _ in 2..FRAGMENTS {
            message.extend(Sender::Client.frame(CONTINUATION, "x"));
        }
        message.extend(Sender::Client.whole(CONTINUATION, ""));
        session.passes(Sender::Client, &message);
        let way = session.counted(Sender::Client);
        assert_eq!((way.messages(), way.message_bytes), (1, FRAGMENTS as u64 - 2), "{depth}");
        assert_eq!(way.frames["continuation"], FRAGMENTS as u64 - 1, "{depth}");
        session.line().0.stop();
    }
}

#[test]
fn what_is_too_much_per_second_is_told_by_the_frame_that_was() {
    for sender in Sender::BOTH {
        let text = sender.whole(TEXT, [b'x'; 94]);
        let ping = sender.whole(PING, "p");
        for (limit, rule, each, count) in [
            ("messages_per_second = 4", "message_rate", &text, 4),
            ("control_per_second = 4", "control_rate", &ping, 4),
            // To the byte, header and mask included.
            (&*format!("bytes_per_second = {}", 5 * text.len()), "byte_rate", &text, 5),
        ] {
            let table = sender.direction();
            let limits = format!("[route.limits.{table}]\n{limit}\non_excess = \"close\"");
            let session = Inspected::new(Engine::Splice, &limits);
            let bytes = each.repeat(count + 1);
            is_refused(session, sender, &bytes, count * each.len(), (1008, rule));
            // The other side may send as much as it likes.
            let other = if sender == Sender::Client { Sender::Server } else { Sender::Client };
            let mut session = Inspected::new(Engine::Splice, &limits);
            let many = [other.whole(TEXT, [b'x'; 94]), other.whole(PING, "p")].concat().repeat(50);
            session.passes(other, &many);
            session.line().0.stop();
        }
    }
}
