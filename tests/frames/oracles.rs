//! What two other parsers say of a frame's header, and where they are known to say less than this one.

use std::io::Cursor;

use soketto::Parsing;
use soketto::base::{Codec, OpCode as SokettoOpcode};
use tungstenite::protocol::frame::FrameHeader;
use upsplice::ws::frame::{Header, Opcode, Scanner};
use upsplice::ws::rules::Rule;

/// A header as all can tell of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Told {
    fin: bool,
    reserved: [bool; 3],
    opcode: u8,
    mask: Option<[u8; 4]>,
    payload: u64,
    bytes: usize,
}

/// What an oracle says of some bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Answer {
    Whole(Told),
    More,
    Refused,
}

/// Asks both about the header that `bytes` begin with; fails where they differ from `scanner` and are not known to.
pub fn agree(scanner: &Scanner, bytes: &[u8]) {
    let ours = scanner.peek(bytes);
    // Whatever is refused is refused whatever follows; they only look at what is whole.
    let enough;
    let asked = match ours {
        Err(_) => {
            enough = [bytes, &[0xff; 14]].concat();
            &enough[..]
        }
        Ok(_) => bytes,
    };
    let compression = scanner.terms().compression;
    let told = [
        ("tungstenite", tungstenite(asked), tungstenite_knows as Knows),
        ("soketto", soketto(asked, compression), soketto_knows),
    ];
    for (name, theirs, knows) in told {
        let agreed = match (ours, theirs) {
            (Ok(Some(header)), Answer::Whole(told)) => told_of(&header) == told,
            (Ok(None), Answer::More) | (Err(_), Answer::Refused) => true,
            (Err(rule), Answer::Whole(told)) => !knows(rule, &told, compression),
            (Err(_), Answer::More) | (Ok(_), _) => false,
        };
        assert!(agreed, "{bytes:02x?} to {scanner:?}: {ours:?}, {name} says {theirs:?}");
    }
}

/// Whether an oracle knows this rule, as far as this header breaks it.
type Knows = fn(Rule, &Told, bool) -> bool;

/// It refuses what has no meaning at all, and leaves the rest to its session.
fn tungstenite_knows(rule: Rule, _: &Told, _: bool) -> bool {
    rule == Rule::Opcode
}

/// It knows no state and no direction, and takes any form of a length.
fn soketto_knows(rule: Rule, told: &Told, compression: bool) -> bool {
    match rule {
        Rule::Opcode | Rule::ControlFragmented => true,
        // Once RSV1 may be set it may be set anywhere.
        Rule::ReservedBit => !(compression && told.reserved == [true, false, false]),
        // It looks at the length, not at its form.
        Rule::ControlLength => told.payload > 125,
        // What is no length to us is one to it, up to the largest usize.
        _ => false,
    }
}

fn told_of(header: &Header) -> Told {
    let opcode = match header.opcode {
        Opcode::Continuation => 0,
        Opcode::Text => 1,
        Opcode::Binary => 2,
        Opcode::Close => 8,
        Opcode::Ping => 9,
        Opcode::Pong => 10,
    };
    Told {
        fin: header.fin,
        reserved: [header.compressed, false, false],
        opcode,
        mask: header.mask,
        payload: header.payload,
        bytes: header.bytes,
    }
}

fn tungstenite(bytes: &[u8]) -> Answer {
    let mut cursor = Cursor::new(bytes);
    match FrameHeader::parse(&mut cursor) {
        Err(_) => Answer::Refused,
        Ok(None) => Answer::More,
        Ok(Some((header, payload))) => Answer::Whole(Told {
            fin: header.is_final,
            reserved: [header.rsv1, header.rsv2, header.rsv3],
            opcode: header.opcode.into(),
            mask: header.mask,
            payload,
            bytes: usize::try_from(cursor.position()).expect("a header is short"),
        }),
    }
}

fn soketto(bytes: &[u8], compression: bool) -> Answer {
    let mut codec = Codec::new();
    codec.set_max_data_size(usize::MAX).add_reserved_bits((compression, false, false));
    match codec.decode_header(bytes) {
        Err(_) => Answer::Refused,
        Ok(Parsing::NeedMore(_)) => Answer::More,
        Ok(Parsing::Done { value: header, offset }) => Answer::Whole(Told {
            fin: header.is_fin(),
            reserved: [header.is_rsv1(), header.is_rsv2(), header.is_rsv3()],
            opcode: opcode_of(header.opcode()),
            mask: header.is_masked().then(|| header.mask().to_be_bytes()),
            payload: header.payload_len() as u64,
            bytes: offset,
        }),
    }
}

fn opcode_of(opcode: SokettoOpcode) -> u8 {
    opcode.into()
}
