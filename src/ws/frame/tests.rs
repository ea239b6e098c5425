use super::*;

const SERVER: Terms = Terms { masked: false, compression: false };
const CLIENT: Terms = Terms { masked: true, compression: false };
const KEY: [u8; 4] = [0xde, 0xad, 0xbe, 0xef];

const FIN: u8 = 0x80;
const RSV1: u8 = 0x40;
const RSV2: u8 = 0x20;
const RSV3: u8 = 0x10;

const CONTINUATION: u8 = 0;
const TEXT: u8 = 1;
const BINARY: u8 = 2;
const CLOSE: u8 = 8;
const PING: u8 = 9;
const PONG: u8 = 10;

fn compressing(terms: Terms) -> Terms {
    Terms { compression: true, ..terms }
}

/// A scanner in the middle of a message that began with `first`.
fn within(terms: Terms, first: u8) -> Scanner {
    let mut scanner = Scanner::new(terms);
    let begun = header(first, terms, 0);
    assert!(scanner.header(&begun).is_ok_and(|header| header.is_some()), "{first:#x}");
    scanner
}

/// A header whose length is in its shortest form.
fn header(first: u8, terms: Terms, payload: u64) -> Vec<u8> {
    let form = match payload {
        0..=125 => 0,
        126..=0xffff => 126,
        _ => 127,
    };
    header_in_form(first, terms, form, payload)
}

/// A header whose length is written in 7 bits (0), 16 (126) or 64 (127).
fn header_in_form(first: u8, terms: Terms, form: u8, payload: u64) -> Vec<u8> {
    let masked = if terms.masked { 0x80 } else { 0 };
    let mut bytes = vec![first];
    match form {
        126 => {
            bytes.push(masked | 126);
            bytes.extend(u16::try_from(payload).expect("fits the form").to_be_bytes());
        }
        127 => {
            bytes.push(masked | 127);
            bytes.extend(payload.to_be_bytes());
        }
        _ => bytes.push(masked | u8::try_from(payload).expect("fits the form")),
    }
    if terms.masked {
        bytes.extend(KEY);
    }
    bytes
}

/// What comes of `bytes`, of which one more is seen each time: how many it took, and the answer.
fn one_by_one(scanner: &Scanner, bytes: &[u8]) -> (usize, Result<Option<Header>, Rule>) {
    for end in 0..bytes.len() {
        let answer = scanner.peek(&bytes[..end]);
        if answer != Ok(None) {
            return (end, answer);
        }
    }
    (bytes.len(), scanner.peek(bytes))
}

/// `bytes` break `rule`, and it shows after `after` of them, neither earlier nor later.
fn breaks(scanner: &Scanner, bytes: &[u8], rule: Rule, after: usize) {
    assert_eq!(one_by_one(scanner, bytes), (after, Err(rule)), "{bytes:02x?} to {scanner:?}");
    // What follows makes no difference.
    let more = [bytes, &[0xff; 20]].concat();
    assert_eq!(scanner.peek(&more), Err(rule), "{bytes:02x?} and more");
}

/// `bytes` are a header, whole at their last byte and not before, whatever follows.
fn passes(scanner: &Scanner, bytes: &[u8]) -> Header {
    let (took, answer) = one_by_one(scanner, bytes);
    let header = answer.expect("it is allowed").expect("it is whole");
    assert_eq!((took, header.bytes), (bytes.len(), bytes.len()), "{bytes:02x?}");
    for filling in [0x00, 0xff] {
        let more = [bytes, &[filling; 20]].concat();
        assert_eq!(scanner.peek(&more), Ok(Some(header)), "{bytes:02x?} and more");
    }
    header
}

#[test]
fn a_header_is_read_as_it_was_written() {
    for terms in [CLIENT, SERVER] {
        for payload in [0, 1, 125, 126, 127, 0xff, 0x100, 0xffff, 0x1_0000, 1 << 32, u64::MAX >> 1]
        {
            for fin in [true, false] {
                let first = BINARY | if fin { FIN } else { 0 };
                let bytes = header(first, terms, payload);
                let expected = Header {
                    fin,
                    compressed: false,
                    opcode: Opcode::Binary,
                    mask: terms.masked.then_some(KEY),
                    payload,
                    bytes: bytes.len(),
                };
                assert_eq!(passes(&Scanner::new(terms), &bytes), expected);
                assert!(bytes.len() <= HEADER_BYTES_MAX);
            }
        }
    }
    assert_eq!(header(BINARY, CLIENT, 1 << 20).len(), HEADER_BYTES_MAX, "the longest is there");
}

#[test]
fn a_clients_frames_are_masked_and_only_they() {
    for first in [FIN | TEXT, BINARY, FIN | CLOSE, FIN | PING, FIN | PONG] {
        for payload in [0, 5] {
            breaks(&Scanner::new(CLIENT), &header(first, SERVER, payload), Rule::Mask, 2);
            breaks(&Scanner::new(SERVER), &header(first, CLIENT, payload), Rule::Mask, 2);
        }
    }
    breaks(&within(CLIENT, TEXT), &header(CONTINUATION, SERVER, 300), Rule::Mask, 2);
}

#[test]
fn a_mask_of_zeros_is_a_mask() {
    let bytes = [FIN | TEXT, 0x81, 0, 0, 0, 0];
    assert_eq!(passes(&Scanner::new(CLIENT), &bytes).mask, Some([0; 4]));
}

#[test]
fn a_reserved_bit_breaks_the_first_byte() {
    for terms in [CLIENT, SERVER, compressing(CLIENT), compressing(SERVER)] {
        let between = Scanner::new(terms);
        for reserved in [RSV2, RSV3, RSV2 | RSV3, RSV1 | RSV2, RSV1 | RSV3, RSV1 | RSV2 | RSV3] {
            for opcode in [TEXT, BINARY, CLOSE, PING, PONG] {
                breaks(&between, &[FIN | reserved | opcode], Rule::ReservedBit, 1);
            }
            breaks(&within(terms, TEXT), &[reserved | CONTINUATION], Rule::ReservedBit, 1);
        }
    }
}

#[test]
fn compression_is_told_by_the_first_frame_of_a_message_where_it_was_agreed() {
    for terms in [CLIENT, SERVER] {
        let (plain, agreed) = (Scanner::new(terms), Scanner::new(compressing(terms)));
        for first in [TEXT, BINARY, FIN | TEXT, FIN | BINARY] {
            breaks(&plain, &[RSV1 | first], Rule::ReservedBit, 1);
            assert!(passes(&agreed, &header(RSV1 | first, terms, 7)).compressed);
            assert!(!passes(&agreed, &header(first, terms, 7)).compressed, "nobody has to");
        }
        for control in [CLOSE, PING, PONG] {
            breaks(&agreed, &[FIN | RSV1 | control], Rule::ReservedBit, 1);
        }
        for begun in [TEXT, RSV1 | TEXT] {
            let mut scanner = within(compressing(terms), begun);
            assert_eq!(scanner.message().expect("one goes on").compressed, begun & RSV1 != 0);
            breaks(&scanner, &[RSV1 | CONTINUATION], Rule::ReservedBit, 1);
            breaks(&scanner, &[FIN | RSV1 | CONTINUATION], Rule::ReservedBit, 1);
            // A control frame in between does not change what the message is.
            scanner.header(&header(FIN | PING, terms, 0)).expect("a ping").expect("a whole one");
            assert_eq!(scanner.message().expect("one goes on").compressed, begun & RSV1 != 0);
        }
    }
}

#[test]
fn a_reserved_opcode_breaks_the_first_byte() {
    for opcode in (3..=7).chain(11..=15) {
        for bits in [0, FIN] {
            breaks(&Scanner::new(CLIENT), &[bits | opcode], Rule::Opcode, 1);
            breaks(&within(SERVER, BINARY), &[bits | opcode], Rule::Opcode, 1);
        }
    }
}

#[test]
fn a_control_frame_is_whole_and_short_by_its_first_two_bytes() {
    for (terms, masked) in [(CLIENT, 0x80), (SERVER, 0)] {
        for scanner in [Scanner::new(terms), within(terms, TEXT)] {
            for control in [CLOSE, PING, PONG] {
                breaks(&scanner, &[control], Rule::ControlFragmented, 1);
                for length in [126, 127] {
                    breaks(&scanner, &[FIN | control, masked | length], Rule::ControlLength, 2);
                }
                for payload in [0, 1, CONTROL_BYTES_MAX] {
                    let whole = header(FIN | control, terms, payload);
                    assert_eq!(passes(&scanner, &whole).payload, payload);
                }
            }
        }
    }
}

#[test]
fn a_length_is_in_its_shortest_form_and_breaks_as_soon_as_it_cannot_be() {
    // The form, the length, and how many bytes of the header show that it is wrong.
    let wrong = [
        (126, 0, 4),
        (126, 1, 4),
        (126, 125, 4),
        (127, 0, 8),
        (127, 125, 8),
        (127, 126, 8),
        (127, 0xffff, 8),
        (127, 1 << 63, 3),
        (127, (1 << 63) | 0x1_0000, 3),
        (127, u64::MAX, 3),
    ];
    let right = [
        (0, 125),
        (126, 126),
        (126, 0xff),
        (126, 0x100),
        (126, 0xffff),
        (127, 0x1_0000),
        (127, 0x1_0001),
        (127, u64::MAX >> 1),
    ];
    for terms in [CLIENT, SERVER] {
        for first in [FIN | TEXT, BINARY] {
            let scanner = Scanner::new(terms);
            for (form, payload, after) in wrong {
                let bytes = header_in_form(first, terms, form, payload);
                breaks(&scanner, &bytes, Rule::Length, after);
            }
            for (form, payload) in right {
                let bytes = header_in_form(first, terms, form, payload);
                assert_eq!(passes(&scanner, &bytes).payload, payload);
            }
        }
    }
}

#[test]
fn a_message_is_continued_until_its_last_frame_and_only_then_another_begins() {
    for terms in [CLIENT, SERVER] {
        for first in [CONTINUATION, FIN | CONTINUATION] {
            breaks(&Scanner::new(terms), &[first], Rule::Fragmentation, 1);
        }
        for begun in [TEXT, BINARY] {
            let opcode = if begun == TEXT { Opcode::Text } else { Opcode::Binary };
            let mut scanner = within(terms, begun);
            for _ in 0..3 {
                for first in [TEXT, BINARY, FIN | TEXT, FIN | BINARY] {
                    breaks(&scanner, &[first], Rule::Fragmentation, 1);
                }
                let message = Some(Message { opcode, compressed: false });
                for between in [FIN | PING, FIN | PONG, FIN | CLOSE, CONTINUATION] {
                    let bytes = header(between, terms, 0);
                    scanner.header(&bytes).expect("allowed").expect("whole");
                    assert_eq!(scanner.message(), message, "{between:#x}");
                }
            }
            let last = header(FIN | CONTINUATION, terms, 0);
            scanner.header(&last).expect("allowed").expect("whole");
            assert_eq!(scanner.message(), None);
            breaks(&scanner, &[CONTINUATION], Rule::Fragmentation, 1);
            passes(&scanner, &header(FIN | TEXT, terms, 0));
        }
    }
}

#[test]
fn the_first_byte_that_breaks_a_rule_names_it() {
    let scanner = Scanner::new(CLIENT);
    // Several rules at once: the answer is of the earliest byte, and the same each time.
    breaks(&scanner, &[RSV2 | 3, 0x00], Rule::Opcode, 1);
    breaks(&scanner, &[RSV2 | PING, 0x7f], Rule::ReservedBit, 1);
    breaks(&scanner, &[RSV1 | CONTINUATION, 0x00], Rule::ReservedBit, 1);
    breaks(&scanner, &[PING, 0x7f], Rule::ControlFragmented, 1);
    breaks(&scanner, &[FIN | PING, 0x7f], Rule::Mask, 2);
    breaks(&scanner, &[TEXT, 0x7f, 0xff], Rule::Mask, 2);
}

#[test]
fn a_header_that_is_not_whole_changes_nothing() {
    let mut scanner = within(CLIENT, TEXT);
    let before = scanner;
    let bytes = header(FIN | CONTINUATION, CLIENT, 1 << 20);
    for end in 0..bytes.len() {
        assert_eq!(scanner.header(&bytes[..end]), Ok(None), "{end} bytes");
        assert_eq!(scanner, before, "{end} bytes");
    }
    scanner.header(&bytes).expect("allowed").expect("whole");
    assert_eq!((scanner.left(), scanner.message()), (1 << 20, None));
}

#[test]
fn payload_is_passed_in_pieces_and_ends_at_a_boundary() {
    let mut scanner = Scanner::new(SERVER);
    scanner.header(&header(FIN | BINARY, SERVER, 10)).expect("allowed").expect("whole");
    for (bytes, left) in [(0, 10), (3, 7), (7, 0)] {
        scanner.pass(bytes);
        assert_eq!(scanner.left(), left);
    }
    passes(&scanner, &header(FIN | BINARY, SERVER, 0));
}

#[test]
#[should_panic(expected = "more was passed than the frame has")]
fn no_more_payload_is_passed_than_the_frame_has() {
    let mut scanner = Scanner::new(SERVER);
    scanner.header(&header(FIN | BINARY, SERVER, 10)).expect("allowed").expect("whole");
    scanner.pass(11);
}

#[test]
#[should_panic(expected = "a header was looked for within a payload")]
fn no_header_is_looked_for_within_a_payload() {
    let mut scanner = Scanner::new(SERVER);
    let bytes = header(FIN | BINARY, SERVER, 10);
    scanner.header(&bytes).expect("allowed").expect("whole");
    let _ = scanner.header(&bytes);
}

/// Every first and second byte there is, in every state: what is refused is exactly what the RFC forbids.
#[test]
fn the_first_two_bytes_are_judged_as_the_rfc_says() {
    for terms in [CLIENT, SERVER, compressing(CLIENT), compressing(SERVER)] {
        for begun in [None, Some(TEXT), Some(BINARY)] {
            let scanner = begun.map_or(Scanner::new(terms), |first| within(terms, first));
            for first in 0..=u8::MAX {
                for second in 0..=u8::MAX {
                    let refused = scanner.peek(&[first, second]).is_err();
                    let allowed = allows(terms, begun.is_some(), first, second);
                    assert_eq!(refused, !allowed, "{first:#x} {second:#x} to {scanner:?}");
                }
            }
        }
    }
}

/// RFC 6455 §5.1, §5.2, §5.4 and §5.5, RFC 7692 §6.1, put the other way round: what is allowed.
fn allows(terms: Terms, in_message: bool, first: u8, second: u8) -> bool {
    let fin = first & FIN != 0;
    let opcode = match first & 0x0f {
        CONTINUATION => in_message,
        TEXT | BINARY => !in_message,
        CLOSE | PING | PONG => fin && second & 0x7f <= 125,
        _ => false,
    };
    let reserved = match first & 0x70 {
        0 => true,
        RSV1 => terms.compression && matches!(first & 0x0f, TEXT | BINARY),
        _ => false,
    };
    opcode && reserved && (second & 0x80 != 0) == terms.masked
}
