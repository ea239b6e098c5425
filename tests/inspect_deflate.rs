//! Mode `inspect` with permessage-deflate: what compressed messages may become, and what they may hold.

mod support;

use std::io::{Read, Write};

use support::frames::{
    BINARY, CLOSE, CONTINUATION, FIN, Inspected, MASK, PING, TEXT, code, frame, ours, receive,
    theirs,
};
use support::{Engine, Pattern};
use zlib_rs::{Deflate, DeflateFlush};

const RSV1: u8 = 0x40;

/// The compressing half of an endpoint.
struct Compressor(Deflate);

impl Compressor {
    fn new(window_bits: u8) -> Compressor {
        Compressor(Deflate::new(6, false, window_bits))
    }

    /// A message without the tail that permessage-deflate leaves out (RFC 7692 §7.2.1).
    fn pack(&mut self, plain: &[u8]) -> Vec<u8> {
        let mut packed = vec![0; plain.len() + 1024];
        let (taken, made) = (self.0.total_in(), self.0.total_out());
        self.0.compress(plain, &mut packed, DeflateFlush::SyncFlush).expect("it compresses");
        assert_eq!(self.0.total_in() - taken, plain.len() as u64, "there was no room");
        packed.truncate((self.0.total_out() - made) as usize - 4);
        packed
    }
}

fn packed(plain: &[u8]) -> Vec<u8> {
    Compressor::new(15).pack(plain)
}

/// A compressed message of a client, in one frame.
fn message(opcode: u8, packed: &[u8]) -> Vec<u8> {
    frame(FIN | RSV1 | opcode, Some(MASK), packed)
}

/// Sends; the same has to come to the other side.
fn passes(session: &mut Inspected, bytes: &[u8]) {
    session.client.write_all(bytes).expect("sent");
    let mut came = vec![0; bytes.len()];
    session.server.read_exact(&mut came).expect("all comes");
    assert!(came == bytes, "it came differently");
}

/// Sends what may not pass; the client is told why, and the server hears nothing of it.
fn is_refused(mut session: Inspected, bytes: &[u8], expected: u16, rule: &str) {
    session.client.write_all(bytes).expect("sent");
    let close = receive(&mut session.client).expect("a close");
    assert_eq!((close.code(), &close.payload[2..]), (expected, rule.as_bytes()));
    let (gw, line) = session.line();
    assert_eq!(line["violation"], rule, "{line}");
    gw.stop();
}

#[test]
fn compressed_messages_pass_as_they_are_whatever_was_agreed() {
    let mut text = Pattern::new(3);
    for (parameters, bits, keeps) in [
        ("", 15, true),
        ("; client_no_context_takeover; server_no_context_takeover", 15, false),
        ("; client_max_window_bits=9; server_max_window_bits=9", 9, true),
    ] {
        let mut session = Inspected::compressing(Engine::Splice, parameters, "");
        let (mut compressor, mut wire, mut plain) = (Compressor::new(bits), 0, 0);
        for size in [1, 100, 5000, 70_000, 300_000, 3] {
            // Half of it repeats, so that later messages refer to earlier ones where they may.
            let bytes = [vec![b'a'; size / 2], text.take(size - size / 2)].concat();
            if !keeps {
                compressor = Compressor::new(bits);
            }
            let packed = compressor.pack(&bytes);
            (wire, plain) = (wire + packed.len() as u64, plain + bytes.len() as u64);
            // In fragments, with a control frame in between: only the first has the bit.
            let (front, back) = packed.split_at(packed.len() / 2);
            passes(
                &mut session,
                &[
                    frame(RSV1 | BINARY, Some(MASK), front),
                    ours(PING, "in between"),
                    frame(CONTINUATION, Some(MASK), b""),
                    frame(FIN | CONTINUATION, Some(MASK), back),
                ]
                .concat(),
            );
        }
        passes(&mut session, &ours(TEXT, "plain"));
        let up = session.gw.metrics().websocket.to_upstream;
        assert_eq!((up.compressed_bytes, up.inflated_bytes), (wire, plain), "{parameters}");
        assert_eq!(up.messages(), 7, "{parameters}");
        session.line().0.stop();
    }
}

#[test]
fn a_message_that_becomes_as_much_as_it_may_passes_and_one_byte_more_does_not() {
    let limits = "[route.limits]\ninflated_bytes = 100000";
    for size in [99_999, 100_000] {
        let mut session = Inspected::compressing(Engine::Splice, "", limits);
        passes(&mut session, &message(BINARY, &packed(&vec![7; size])));
        session.line().0.stop();
    }
    for size in [100_001, 100_002, 10_000_000] {
        let session = Inspected::compressing(Engine::Splice, "", limits);
        is_refused(session, &message(BINARY, &packed(&vec![7; size])), 1009, "inflated_bytes");
    }
    // It is a limit of each message, not of the session, and fragments are one message.
    let mut session = Inspected::compressing(Engine::Splice, "", limits);
    let half = Pattern::new(1).take(50_000);
    let mut compressor = Compressor::new(15);
    for _ in 0..3 {
        passes(&mut session, &message(BINARY, &compressor.pack(&half)));
    }
    let first = frame(RSV1 | BINARY, Some(MASK), &compressor.pack(&half));
    // A flush in between is part of a message, too.
    passes(&mut session, &[first, frame(CONTINUATION, Some(MASK), &[0, 0, 0xff, 0xff])].concat());
    let rest = compressor.pack(&[&half[..], b"!"].concat());
    is_refused(session, &frame(FIN | CONTINUATION, Some(MASK), &rest), 1009, "inflated_bytes");
}

#[test]
fn what_compresses_better_than_it_may_is_refused_from_where_it_matters() {
    let limits = "[route.limits]\ninflated_ratio = 20";
    // Below 64 KiB no ratio is judged: a few zeros compress well.
    let mut session = Inspected::compressing(Engine::Splice, "", limits);
    passes(&mut session, &message(BINARY, &packed(&vec![7; 65_535])));
    session.line().0.stop();
    let session = Inspected::compressing(Engine::Splice, "", limits);
    is_refused(session, &message(BINARY, &packed(&vec![7; 65_536])), 1009, "inflated_ratio");
    // A ratio that is allowed passes at any size.
    let mut session = Inspected::compressing(Engine::Splice, "", limits);
    let plain = [Pattern::new(5).take(20_000), vec![7; 300_000]].concat();
    passes(&mut session, &message(BINARY, &packed(&plain)));
    session.line().0.stop();
}

#[test]
fn what_cannot_be_inflated_or_holds_no_text_is_refused() {
    let text = packed("grüße".as_bytes());
    let cut = packed(&"grüße".as_bytes()[..3]);
    for (bytes, expected, rule) in [
        (message(TEXT, &[0xff; 20]), 1007, "deflate"),
        (message(BINARY, &[0x07]), 1007, "deflate"),
        (message(TEXT, &packed(b"caf\xe9 ol\xe9")), 1007, "utf8"),
        // In the middle of a character.
        (message(TEXT, &cut), 1007, "utf8"),
        // Only the first frame of a message has the bit, and no control frame does.
        (
            [
                frame(RSV1 | TEXT, Some(MASK), &text[..2]),
                frame(FIN | RSV1 | CONTINUATION, Some(MASK), &text[2..]),
            ]
            .concat(),
            1002,
            "reserved_bit",
        ),
        (frame(FIN | RSV1 | PING, Some(MASK), b""), 1002, "reserved_bit"),
    ] {
        is_refused(Inspected::compressing(Engine::Splice, "", ""), &bytes, expected, rule);
    }
    // Nobody has agreed on it.
    let session = Inspected::new(Engine::Splice, "inspect = \"payload\"");
    is_refused(session, &message(TEXT, &text), 1002, "reserved_bit");
}

#[test]
fn a_final_block_begins_a_new_stream_and_an_empty_message_is_one() {
    let mut session = Inspected::compressing(Engine::Splice, "", "");
    // "Hello" in a final block with fixed codes, and the zero that RFC 7692 §7.2.3.4 adds.
    let hello = [0xf3, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00, 0x00];
    for _ in 0..3 {
        passes(&mut session, &message(TEXT, &hello));
    }
    passes(&mut session, &message(TEXT, &[0x00]));
    passes(&mut session, &message(TEXT, b""));
    passes(&mut session, &message(TEXT, &packed(b"goes on")));
    let up = session.gw.metrics().websocket.to_upstream;
    assert_eq!((up.messages(), up.inflated_bytes), (6, 3 * 5 + 7));
    session.line().0.stop();
}

#[test]
fn what_is_carried_unread_or_never_offered_is_not_inflated() {
    // Carried: frames are counted, and nobody minds what they hold.
    let mut session = Inspected::compressing(Engine::Splice, "", "deflate = \"pass\"");
    passes(&mut session, &message(TEXT, &[0xff; 20]));
    let up = session.gw.metrics().websocket.to_upstream;
    assert_eq!((up.messages(), up.inflated_bytes), (1, 0));
    // The other direction has an inflater of its own, or none.
    session.server.write_all(&frame(FIN | RSV1 | TEXT, None, &packed(b"down"))).expect("sent");
    assert_eq!(receive(&mut session.client).expect("a frame").payload, packed(b"down"));
    session.client.write_all(&ours(CLOSE, code(1000, ""))).expect("sent");
    assert_eq!(receive(&mut session.server).expect("a close").code(), 1000);
    session.server.write_all(&theirs(CLOSE, code(1000, ""))).expect("sent");
    assert_eq!(receive(&mut session.client).expect("a close").code(), 1000);
    session.line().0.stop();
}
