use zlib_rs::{Deflate as Deflater, DeflateFlush};

use super::*;
use crate::ws::policy::{MessageLimits, OnExcess, Rates};

const MASK: [u8; 4] = [0x12, 0x34, 0x56, 0x78];

/// What one direction came to.
#[derive(Debug, Default, PartialEq, Eq)]
struct Seen {
    passed: Vec<u8>,
    dropped: usize,
    broken: Option<Rule>,
    said: Said,
}

#[derive(Debug, Default, PartialEq, Eq)]
struct Said {
    frames: Vec<(Opcode, u64)>,
    messages: Vec<Whole>,
    closes: Vec<Option<u16>>,
    text: Vec<u8>,
}

impl Events for Said {
    fn frame(&mut self, header: &Header) {
        self.frames.push((header.opcode, header.payload));
    }

    fn message(&mut self, message: &Whole) {
        self.messages.push(*message);
    }

    fn close(&mut self, code: Option<u16>) {
        self.closes.push(code);
    }

    fn wants_payload(&self) -> bool {
        true
    }

    fn payload(&mut self, bytes: &[u8]) {
        self.text.extend_from_slice(bytes);
    }
}

/// Counts, and wants to see no payload.
struct Quiet<'s>(&'s mut Said);

impl Events for Quiet<'_> {
    fn frame(&mut self, header: &Header) {
        self.0.frame(header);
    }

    fn message(&mut self, message: &Whole) {
        self.0.message(message);
    }

    fn close(&mut self, code: Option<u16>) {
        self.0.close(code);
    }

    fn wants_payload(&self) -> bool {
        false
    }

    fn payload(&mut self, _: &[u8]) {}
}

fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![first];
    match payload.len() {
        len @ 0..=125 => bytes.push(0x80 | len as u8),
        len => {
            bytes.push(0x80 | 126);
            bytes.extend((len as u16).to_be_bytes());
        }
    }
    bytes.extend(MASK);
    bytes.extend(payload.iter().enumerate().map(|(at, byte)| byte ^ MASK[at % 4]));
    bytes
}

fn policy(depth: Depth) -> Inspection {
    let deflate = if depth == Depth::Payload { Deflate::SeeThrough } else { Deflate::Pass };
    Inspection { depth, deflate, ..Inspection::default() }
}

const AGREED: Agreement = Agreement {
    client_no_context_takeover: false,
    server_no_context_takeover: false,
    client_max_window_bits: 15,
    server_max_window_bits: 15,
};

fn client(policy: Inspection) -> Inspector {
    Inspector::new(Arc::new(policy), Sender::Client, Some(&AGREED), &Arc::default())
}

/// Feeds `pieces` as they would be received: what is not whole comes again, with more behind it.
fn feed<'p>(inspector: &mut Inspector, pieces: impl IntoIterator<Item = &'p [u8]>) -> Seen {
    let (mut plain, mut inflated) = (vec![0; PLAIN_BYTES], vec![0; PLAIN_BYTES]);
    let mut seen = Seen::default();
    let mut held = Vec::new();
    for piece in pieces {
        held.extend_from_slice(piece);
        while !held.is_empty() && seen.broken.is_none() {
            let mut tools = Tools {
                now: 0,
                plain: &mut plain,
                inflated: &mut inflated,
                events: &mut seen.said,
            };
            match inspector.next(&held, &mut tools) {
                Ok(Piece::Pass(count)) => seen.passed.extend(held.drain(..count)),
                Ok(Piece::Drop(count)) => {
                    held.drain(..count);
                    seen.dropped += count;
                }
                Ok(Piece::More | Piece::Wait(_)) => break,
                Err(rule) => seen.broken = Some(rule),
            }
        }
    }
    seen
}

fn compressed(plain: &[u8]) -> Vec<u8> {
    let mut out = vec![0; plain.len() + 1024];
    let mut deflate = Deflater::new(6, false, 15);
    deflate.compress(plain, &mut out, DeflateFlush::SyncFlush).expect("it compresses");
    out.truncate(deflate.total_out() as usize - 4);
    out
}

#[test]
fn wherever_a_stream_is_cut_it_comes_to_the_same() {
    let text = "grüße ".repeat(30);
    let streams: [Vec<u8>; 9] = [
        [frame(0x81, text.as_bytes()), frame(0x82, &[0xff; 200]), frame(0x88, b"\x03\xe8bye")]
            .concat(),
        [frame(0x01, "gr\u{fc}".as_bytes()), frame(0x89, b"there?"), frame(0x80, b"!")].concat(),
        [frame(0x01, b"gr\xc3"), frame(0x00, b""), frame(0x80, b"\xbc")].concat(),
        [frame(0x01, b"gr\xc3"), frame(0x80, b"")].concat(),
        [frame(0xc1, &compressed(text.as_bytes())), frame(0x81, b"plain")].concat(),
        [frame(0x82, b"fine"), frame(0xc1, &compressed(b"caf\xe9"))].concat(),
        [frame(0x82, b"fine"), frame(0x88, b"\x03\xed")].concat(),
        [frame(0x82, b"fine"), frame(0x93, b"")].concat(),
        [frame(0x88, b""), frame(0x81, b"too late")].concat(),
    ];
    for stream in streams {
        let whole = feed(&mut client(policy(Depth::Payload)), [&stream[..]]);
        for cut in 1..stream.len() {
            let (one, other) = stream.split_at(cut);
            let seen = feed(&mut client(policy(Depth::Payload)), [one, other]);
            // More may pass before a violation is met; what is said of it does not change.
            let same =
                |seen: &Seen| (seen.broken, seen.said.messages.clone(), seen.said.closes.clone());
            assert_eq!(same(&seen), same(&whole), "{stream:x?} cut at {cut}");
            assert!(stream.starts_with(&seen.passed));
            if whole.broken.is_none() {
                assert_eq!((&seen.passed, seen.dropped), (&whole.passed, whole.dropped));
            }
        }
        let bytes = feed(&mut client(policy(Depth::Payload)), stream.chunks(1));
        assert_eq!(bytes.broken, whole.broken, "{stream:x?} byte by byte");
    }
}

#[test]
fn a_text_that_ends_within_a_character_is_never_whole_on_the_other_side() {
    let stream = [frame(0x01, b"gr\xc3"), frame(0x80, b"")].concat();
    let seen = feed(&mut client(policy(Depth::Payload)), [&stream[..]]);
    assert_eq!(seen.broken, Some(Rule::Utf8));
    assert_eq!(seen.passed, frame(0x01, b"gr\xc3"), "the empty last frame would complete it");
    // Nobody looks at it in depth frames.
    let seen = feed(&mut client(policy(Depth::Frames)), [&stream[..]]);
    assert_eq!((seen.broken, seen.passed), (None, stream));
}

#[test]
fn control_frames_pass_whole_or_not_at_all() {
    let ping = frame(0x89, b"there?");
    let mut inspector = client(policy(Depth::Frames));
    let seen = feed(&mut inspector, [&ping[..ping.len() - 1]]);
    assert_eq!(seen, Seen::default());
    assert!(inspector.is_at_boundary());
}

#[test]
fn answers_to_our_own_pings_are_kept_and_all_others_pass() {
    let mut inspector = client(policy(Depth::Frames));
    inspector.expect_pongs(*b"mark");
    let ours = frame(0x8a, b"mark0001");
    let others = [
        frame(0x8a, b""),
        frame(0x8a, b"mark"),
        frame(0x8a, b"mark00012"),
        frame(0x89, b"mark0001"),
    ];
    let stream = [&ours[..], &others.concat()].concat();
    let seen = feed(&mut inspector, [&stream[..]]);
    assert_eq!((seen.passed, seen.dropped), (others.concat(), ours.len()));
    assert_eq!(seen.said.frames.len(), 4, "what is kept is not counted");
}

#[test]
fn nothing_follows_a_close_and_a_kept_one_is_only_told() {
    let stream = [frame(0x88, b"\x0f\xa0"), frame(0x81, b"late")].concat();
    let mut inspector = client(policy(Depth::Frames));
    let seen = feed(&mut inspector, [&stream[..]]);
    assert_eq!(seen.passed, frame(0x88, b"\x0f\xa0"));
    assert_eq!((seen.dropped, &*seen.said.closes), (frame(0x81, b"late").len(), &[Some(4000)][..]));
    assert!(inspector.is_closed() && inspector.has_passed_close());

    let mut inspector = client(policy(Depth::Frames));
    inspector.keep_close();
    let seen = feed(&mut inspector, [&stream[..]]);
    assert_eq!((seen.passed, seen.dropped), (Vec::new(), stream.len()));
    assert!(inspector.is_closed() && !inspector.has_passed_close());
}

#[test]
fn compressed_text_is_judged_by_what_it_holds() {
    let fine = "grüße ".repeat(100);
    let stream = frame(0xc1, &compressed(fine.as_bytes()));
    let seen = feed(&mut client(policy(Depth::Payload)), [&stream[..]]);
    assert_eq!((seen.broken, &seen.passed), (None, &stream));
    assert_eq!(seen.said.text, fine.as_bytes());
    assert_eq!(seen.said.messages[0].inflated, Some(fine.len() as u64));

    let mut limited = policy(Depth::Payload);
    limited.limits.inflated_bytes_max = Some(fine.len() as u64 - 1);
    let seen = feed(&mut client(limited), [&stream[..]]);
    assert_eq!((seen.broken, seen.passed), (Some(Rule::InflatedBytes), Vec::new()));

    let garbage = frame(0xc2, b"\x07 no deflate");
    let seen = feed(&mut client(policy(Depth::Payload)), [&garbage[..]]);
    assert_eq!(seen.broken, Some(Rule::Deflate));
    // Opaque where it is only carried.
    let seen = feed(&mut client(policy(Depth::Frames)), [&garbage[..]]);
    assert_eq!((seen.broken, seen.passed), (None, garbage));
}

#[test]
fn without_room_for_an_inflater_compressed_messages_are_opaque() {
    let none = Arc::new(InflaterBudget::new(0));
    let policy = Arc::new(policy(Depth::Payload));
    let mut inspector = Inspector::new(policy, Sender::Client, Some(&AGREED), &none);
    let stream = [frame(0xc1, b"\x07 no deflate"), frame(0x81, b"caf\xe9")].concat();
    let seen = feed(&mut inspector, [&stream[..]]);
    assert_eq!(seen.passed, frame(0xc1, b"\x07 no deflate"));
    assert_eq!(seen.broken, Some(Rule::Utf8), "plain text is read all the same");
}

#[test]
fn limits_count_what_a_message_is_and_not_what_is_in_between() {
    let limits = MessageLimits {
        frame_bytes_max: Some(10),
        message_bytes_max: Some(15),
        fragments_max: Some(3),
        ..MessageLimits::default()
    };
    let limited = || client(Inspection { limits, ..policy(Depth::Frames) });
    let fits = [
        frame(0x02, &[0; 10]),
        frame(0x89, &[0; 100]),
        frame(0x00, &[0; 5]),
        frame(0x80, b""),
        frame(0x82, &[0; 10]),
    ];
    assert_eq!(feed(&mut limited(), [&fits.concat()[..]]).broken, None);
    for (broken, rule) in [
        (vec![frame(0x82, &[0; 11])], Rule::FrameBytes),
        (vec![frame(0x02, &[0; 10]), frame(0x80, &[0; 6])], Rule::MessageBytes),
        (vec![frame(0x02, b""), frame(0, b""), frame(0, b""), frame(0x80, b"")], Rule::Fragments),
    ] {
        let seen = feed(&mut limited(), [&broken.concat()[..]]);
        assert_eq!(seen.broken, Some(rule));
        assert_eq!(seen.passed, broken[..broken.len() - 1].concat());
    }
}

#[test]
fn a_rate_holds_the_next_frame_back_until_its_time() {
    let rates = Rates { messages: Some(2), ..Rates::default() };
    let mut inspector = client(Inspection { rates: [rates; 2], ..policy(Depth::Frames) });
    let stream: Vec<u8> = (0..3).flat_map(|_| frame(0x82, b"m")).collect();
    let seen = feed(&mut inspector, [&stream[..]]);
    assert_eq!((seen.broken, seen.passed.len()), (None, 2 * frame(0x82, b"m").len()));

    let rates = Rates { on_excess: OnExcess::Close, ..rates };
    let mut inspector = client(Inspection { rates: [rates; 2], ..policy(Depth::Frames) });
    let seen = feed(&mut inspector, [&stream[..]]);
    assert_eq!(seen.broken, Some(Rule::MessageRate));
}

#[test]
fn what_passes_unseen_counts_as_what_is_judged() {
    let mut inspector = client(policy(Depth::Frames));
    let (mut plain, mut inflated) = (vec![0; PLAIN_BYTES], vec![0; PLAIN_BYTES]);
    let mut said = Said::default();
    let mut quiet = Quiet(&mut said);
    let mut tools =
        Tools { now: 0, plain: &mut plain, inflated: &mut inflated, events: &mut quiet };
    let first = frame(0x02, &[0; 60_000]);
    assert_eq!(inspector.enter(&first[..7], &mut tools), Ok(None), "its mask is not there yet");
    let unseen = inspector.enter(&first[..14], &mut tools).expect("it is in order");
    assert_eq!(unseen, Some(first.len() as u64));
    // In three pieces: within the header, within the payload, to its end.
    for (piece, left) in [(3, first.len() - 3), (1000, first.len() - 1003), (first.len() - 1003, 0)]
    {
        assert!(
            inspector.enter(&first, &mut tools).is_ok_and(|entered| entered.is_none() || left == 0)
        );
        inspector.passed(piece as u64, &mut tools);
        assert_eq!(inspector.unseen(), left as u64);
        assert_eq!(inspector.is_at_boundary(), left == 0);
    }
    // The rest of its message may be judged, and what is wrong with it is found.
    assert_eq!(inspector.enter(&frame(0x82, b"x"), &mut tools), Err(Rule::Fragmentation));
    assert_eq!(inspector.next(&frame(0x80, b"x"), &mut tools), Ok(Piece::Pass(7)));
    let whole = Whole { opcode: Opcode::Binary, bytes: 60_001, fragments: 2, inflated: None };
    assert_eq!(said.messages, [whole]);
    assert_eq!(inspector.offset(), first.len() as u64 + 7);
}

#[test]
fn headers_that_are_looked_at_ahead_count_as_if_they_came_one_by_one() {
    let sizes = [60_000, 5000, 0, 7000, 9000];
    let mut firsts = [0x02, 0x80, 0x82, 0x82, 0x82];
    for ends_badly in [false, true] {
        if ends_badly {
            // A second beginning within a message.
            firsts[4] = 0x93;
        }
        let frames: Vec<Vec<u8>> =
            firsts.iter().zip(sizes).map(|(&first, size)| frame(first, &vec![7; size])).collect();
        let stream = frames.concat();
        let mut inspector = client(policy(Depth::Frames));
        let (mut plain, mut inflated) = (vec![0; PLAIN_BYTES], vec![0; PLAIN_BYTES]);
        let mut said = Said::default();
        let mut quiet = Quiet(&mut said);
        let mut tools =
            Tools { now: 0, plain: &mut plain, inflated: &mut inflated, events: &mut quiet };
        let header = |at: usize| &stream[at..(at + 14).min(stream.len())];
        inspector.enter(header(0), &mut tools).expect("it is in order");
        let mut ends = 1;
        while inspector.enter_next(header(inspector.unseen() as usize), &mut tools) {
            ends += 1;
        }
        // The third frame is too small to be looked at where it is.
        assert_eq!(ends, 2);
        let unseen = inspector.unseen();
        assert_eq!(unseen as usize, frames[0].len() + frames[1].len());
        // What is spliced ends anywhere, and the rest is received.
        inspector.passed(unseen - 1, &mut tools);
        assert!(!inspector.is_at_boundary());
        let mut at = unseen as usize - 1;
        let broken = loop {
            if at == stream.len() {
                break None;
            }
            match inspector.next(&stream[at..], &mut tools) {
                Ok(Piece::Pass(count)) => at += count,
                other => break Some(other),
            }
        };
        assert_eq!(inspector.offset(), at as u64);
        let messages: Vec<u64> = said.messages.iter().map(|message| message.bytes).collect();
        if ends_badly {
            assert_eq!(broken, Some(Err(Rule::Opcode)));
            assert_eq!(messages, [65_000, 0, 7000]);
        } else {
            assert_eq!(broken, None);
            assert_eq!(messages, [65_000, 0, 7000, 9000]);
        }
    }
}

/// Feeds a stream from `now` on: bytes that passed, and what stopped it.
fn feed_at(
    inspector: &mut Inspector,
    bytes: &[u8],
    now: u64,
) -> (usize, Option<Result<Piece, Rule>>) {
    let (mut plain, mut inflated) = (vec![0; PLAIN_BYTES], vec![0; PLAIN_BYTES]);
    let mut said = Said::default();
    let mut quiet = Quiet(&mut said);
    let mut tools = Tools { now, plain: &mut plain, inflated: &mut inflated, events: &mut quiet };
    let mut at = 0;
    while at < bytes.len() {
        match inspector.next(&bytes[at..], &mut tools) {
            Ok(Piece::Pass(count)) => at += count,
            other => return (at, Some(other)),
        }
    }
    (at, None)
}

const SECOND: u64 = 1_000_000_000;

#[test]
fn a_byte_rate_counts_what_passes_and_not_what_a_header_says() {
    let rates = Rates { bytes: Some(10_000), ..Rates::default() };
    let mut inspector = client(Inspection { rates: [rates; 2], ..policy(Depth::Frames) });
    let stream = [frame(0x82, &[0; 25_000]), frame(0x89, b"hi")].concat();
    let mut at = 0;
    // A hundredth of a second is too little to look again for: it has to be a packet, or what is left.
    for (now, passes, wait) in [
        (0, 10_000, 102_400_000),
        (0, 0, 102_400_000),
        (SECOND / 2, 5000, 102_400_000),
        (60 * SECOND, 10_000, 1_600_000),
    ] {
        let (passed, stopped) = feed_at(&mut inspector, &stream[at..], now);
        assert_eq!(passed, passes, "at {now}");
        assert_eq!(stopped, Some(Ok(Piece::Wait(now + wait))));
        at += passed;
        assert!(at == stream.len() || !inspector.is_at_boundary());
    }
    let left = stream.len() - at;
    assert_eq!(left, 16);
    assert_eq!(inspector.room(60 * SECOND), 0);
    assert_eq!(feed_at(&mut inspector, &stream[at..], 61 * SECOND), (left, None));

    // What passes unseen is counted as well.
    let mut inspector = client(Inspection { rates: [rates; 2], ..policy(Depth::Frames) });
    let (mut plain, mut inflated) = (vec![0; PLAIN_BYTES], vec![0; PLAIN_BYTES]);
    let mut said = Said::default();
    let mut quiet = Quiet(&mut said);
    let mut tools =
        Tools { now: 0, plain: &mut plain, inflated: &mut inflated, events: &mut quiet };
    let unseen = inspector.enter(&stream[..14], &mut tools).expect("it is in order");
    assert_eq!((unseen, inspector.room(0)), (Some(25_008), 10_000));
    inspector.passed(9000, &mut tools);
    assert_eq!(inspector.room(0), 1000);
}

#[test]
fn where_too_much_is_a_violation_a_frame_is_judged_by_its_header() {
    let rates = Rates { bytes: Some(10_000), on_excess: OnExcess::Close, ..Rates::default() };
    let limited = || client(Inspection { rates: [rates; 2], ..policy(Depth::Frames) });
    let fits = frame(0x82, &[0; 10_000 - 8]);
    let mut inspector = limited();
    assert_eq!(feed_at(&mut inspector, &fits, 0), (fits.len(), None));
    let more = Some(Err(Rule::ByteRate));
    assert_eq!(feed_at(&mut inspector, &frame(0x82, b""), 0), (0, more));
    // No second could hold it.
    assert_eq!(feed_at(&mut limited(), &frame(0x82, &[0; 10_001 - 8]), 60 * SECOND), (0, more));
}

#[test]
fn what_inflates_to_more_than_a_second_may_hold_waits_or_breaks_the_rule() {
    let mut deflater = Deflater::new(1, false, 15);
    let mut packed = vec![0; 60_000];
    let zeros = vec![0; 4 << 20];
    deflater.compress(&zeros, &mut packed, DeflateFlush::SyncFlush).expect("there is room");
    packed.truncate(deflater.total_out() as usize - 4);
    let stream = frame(0xc2, &packed);
    let rates = Rates { inflated_bytes: Some(1 << 20), ..Rates::default() };
    let limited = |rates| client(Inspection { rates: [rates; 2], ..policy(Depth::Payload) });
    // A compressed binary message is read as well.
    let mut inspector = limited(rates);
    let (mut at, mut now, mut waits) = (0, 0, 0);
    loop {
        let (passed, stopped) = feed_at(&mut inspector, &stream[at..], now);
        at += passed;
        match stopped {
            Some(Ok(Piece::Wait(until))) => (now, waits) = (until, waits + 1),
            other => break assert_eq!(other, None),
        }
    }
    assert_eq!(inspector.inflated(), 4 << 20);
    assert!(waits >= 2 && now > 2 * SECOND, "{waits} waits until {now}");
    let mut inspector = limited(Rates { on_excess: OnExcess::Close, ..rates });
    let (passed, stopped) = feed_at(&mut inspector, &stream, 0);
    assert!(passed < stream.len() && stopped == Some(Err(Rule::InflatedRate)), "{stopped:?}");
}
