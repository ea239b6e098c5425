//! Frames on the wire: headers, and the order in which they may come (RFC 6455 §5). Nothing is allocated, and
//! nothing is kept of a payload.

use super::rules::Rule;

/// The longest header: two bytes, a 64-bit length, a mask.
pub const HEADER_BYTES_MAX: usize = 14;
/// The longest payload of a control frame (RFC 6455 §5.5).
pub const CONTROL_BYTES_MAX: u64 = 125;

/// What a frame is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Opcode {
    /// More of the message that was begun.
    Continuation,
    /// Begins a message of UTF-8 text.
    Text,
    /// Begins a message of bytes.
    Binary,
    /// The last frame of its sender.
    Close,
    /// Asks for a pong with the same payload.
    Ping,
    /// Answers a ping, or says that somebody is there.
    Pong,
}

/// A frame's header, as it was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// The last frame of its message.
    pub fin: bool,
    /// RSV1: the message that begins here is compressed (RFC 7692 §6).
    pub compressed: bool,
    /// What it is.
    pub opcode: Opcode,
    /// The mask of the payload; a client's frame has one.
    pub mask: Option<[u8; 4]>,
    /// Bytes of payload.
    pub payload: u64,
    /// Bytes of the header itself.
    pub bytes: usize,
}

/// What is agreed about the frames of one sender.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Terms {
    /// The sender is the client: its frames are masked, and only they.
    pub masked: bool,
    /// permessage-deflate was agreed on: RSV1 may begin a message.
    pub compression: bool,
}

/// The message that a direction is in the middle of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Message {
    /// Text or binary.
    pub opcode: Opcode,
    /// Whether it is compressed.
    pub compressed: bool,
}

/// Follows the frames of one direction: which header may come next, and how much payload is left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Scanner {
    terms: Terms,
    message: Option<Message>,
    /// Payload of the present frame that has not been passed yet.
    left: u64,
}

impl Opcode {
    /// All, in the order of their counters.
    pub const ALL: [Opcode; 6] = [
        Opcode::Continuation,
        Opcode::Text,
        Opcode::Binary,
        Opcode::Close,
        Opcode::Ping,
        Opcode::Pong,
    ];

    /// The word in logs, metrics and the API.
    pub fn as_str(self) -> &'static str {
        match self {
            Opcode::Continuation => "continuation",
            Opcode::Text => "text",
            Opcode::Binary => "binary",
            Opcode::Close => "close",
            Opcode::Ping => "ping",
            Opcode::Pong => "pong",
        }
    }

    /// Close, ping or pong.
    pub fn is_control(self) -> bool {
        matches!(self, Opcode::Close | Opcode::Ping | Opcode::Pong)
    }

    fn of(nibble: u8) -> Result<Opcode, Rule> {
        match nibble {
            0 => Ok(Opcode::Continuation),
            1 => Ok(Opcode::Text),
            2 => Ok(Opcode::Binary),
            8 => Ok(Opcode::Close),
            9 => Ok(Opcode::Ping),
            10 => Ok(Opcode::Pong),
            _ => Err(Rule::Opcode),
        }
    }
}

impl Scanner {
    /// At the first frame of a sender.
    pub const fn new(terms: Terms) -> Scanner {
        Scanner { terms, message: None, left: 0 }
    }

    /// Reads the header that `bytes` begin with, and enters its frame; `None` while it is not whole. Nothing is
    /// taken in then: the next call begins with the same bytes and more.
    ///
    /// # Errors
    ///
    /// The rule that is broken, as soon as the bytes that break it are there: it need not be whole.
    pub fn header(&mut self, bytes: &[u8]) -> Result<Option<Header>, Rule> {
        assert_eq!(self.left, 0, "a header was looked for within a payload");
        let Some(header) = self.peek(bytes)? else { return Ok(None) };
        self.enter(&header);
        Ok(Some(header))
    }

    /// As [`header`](Scanner::header), and does not enter the frame.
    ///
    /// # Errors
    ///
    /// The same.
    pub fn peek(&self, bytes: &[u8]) -> Result<Option<Header>, Rule> {
        let Some(&first) = bytes.first() else { return Ok(None) };
        let fin = first & 0x80 != 0;
        let compressed = self.first_byte(first)?;
        let opcode = Opcode::of(first & 0x0f)?;
        let Some(&second) = bytes.get(1) else { return Ok(None) };
        if (second & 0x80 != 0) != self.terms.masked {
            return Err(Rule::Mask);
        }
        let (payload, mut len) = match second & 0x7f {
            126 | 127 if opcode.is_control() => return Err(Rule::ControlLength),
            126 => match bytes.get(2..4) {
                Some(&[high, low]) => (u64::from(u16::from_be_bytes([high, low])), 4),
                _ => return Ok(None),
            },
            127 => match bytes.get(2..10) {
                Some(length) => (u64::from_be_bytes(length.try_into().expect("eight bytes")), 10),
                None if is_no_long_length(&bytes[2..]) => return Err(Rule::Length),
                None => return Ok(None),
            },
            short => (u64::from(short), 2),
        };
        let shortest = match payload {
            0..=125 => 2,
            126..=0xffff => 4,
            0x1_0000..=0x7fff_ffff_ffff_ffff => 10,
            _ => return Err(Rule::Length),
        };
        if len != shortest {
            return Err(Rule::Length);
        }
        let mut mask = None;
        if self.terms.masked {
            let Some(key) = bytes.get(len..len + 4) else { return Ok(None) };
            mask = Some(key.try_into().expect("four bytes"));
            len += 4;
        }
        Ok(Some(Header { fin, compressed, opcode, mask, payload, bytes: len }))
    }

    /// Whether the message is compressed that begins with this byte, if one does.
    fn first_byte(&self, first: u8) -> Result<bool, Rule> {
        let (fin, rsv1) = (first & 0x80 != 0, first & 0x40 != 0);
        let opcode = Opcode::of(first & 0x0f)?;
        if first & 0x30 != 0 {
            return Err(Rule::ReservedBit);
        }
        let begins = matches!(opcode, Opcode::Text | Opcode::Binary);
        if rsv1 && !(begins && self.terms.compression) {
            return Err(Rule::ReservedBit);
        }
        if opcode.is_control() {
            return if fin { Ok(false) } else { Err(Rule::ControlFragmented) };
        }
        if begins == self.message.is_some() {
            return Err(Rule::Fragmentation);
        }
        Ok(rsv1)
    }

    /// Enters a frame whose header was [looked at](Scanner::peek).
    pub fn enter(&mut self, header: &Header) {
        self.left = header.payload;
        match header.opcode {
            Opcode::Text | Opcode::Binary if !header.fin => {
                self.message =
                    Some(Message { opcode: header.opcode, compressed: header.compressed });
            }
            Opcode::Continuation if header.fin => self.message = None,
            _ => {}
        }
    }

    /// `bytes` of the present frame's payload have been passed.
    pub fn pass(&mut self, bytes: u64) {
        assert!(bytes <= self.left, "more was passed than the frame has");
        self.left -= bytes;
    }

    /// Payload of the present frame that has not been passed yet; zero at a boundary between frames.
    pub fn left(&self) -> u64 {
        self.left
    }

    /// The message that goes on after the present frame.
    pub fn message(&self) -> Option<Message> {
        self.message
    }

    /// What is agreed about the frames.
    pub fn terms(&self) -> Terms {
        self.terms
    }
}

/// Whether no 64-bit length that is allowed begins with these bytes: its most significant bit is set, or what is
/// left of it would have had room in 16 bits.
fn is_no_long_length(begins: &[u8]) -> bool {
    begins.first().is_some_and(|high| high & 0x80 != 0)
        || begins.len() >= 6 && begins[..6].iter().all(|byte| *byte == 0)
}

#[cfg(test)]
mod tests;
