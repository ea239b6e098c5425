//! RFC 6455 frames, as far as the lab needs them: unfragmented text and binary.
//!
//! This is not upsplice's own codec on purpose: the two ends of a measurement must not share code
//! with what is measured.

use clap::ValueEnum;

/// Opcode of a text frame.
pub const TEXT: u8 = 1;
/// Opcode of a binary frame.
pub const BINARY: u8 = 2;

const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

/// What the payload that is measured travels as; the lab's own words travel as the other. A proxy
/// that looks into messages has more to do with text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Payload {
    /// In binary frames.
    Binary,
    /// In text frames, in ASCII.
    Text,
}

impl Payload {
    /// The opcode of its frames.
    pub fn opcode(self) -> u8 {
        match self {
            Self::Binary => BINARY,
            Self::Text => TEXT,
        }
    }

    /// The opcode of the lab's own words beside it.
    pub fn word(self) -> u8 {
        match self {
            Self::Binary => TEXT,
            Self::Text => BINARY,
        }
    }
}

/// Builds a masked frame, as a client sends it.
pub fn masked(opcode: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = head(opcode, payload.len(), true);
    frame.extend_from_slice(&MASK);
    let start = frame.len();
    frame.extend_from_slice(payload);
    toggle_mask(&mut frame[start..], MASK);
    frame
}

/// Builds an unmasked frame, as a server sends it.
pub fn unmasked(opcode: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = head(opcode, payload.len(), false);
    frame.extend_from_slice(payload);
    frame
}

/// Builds an unmasked frame in place of what `frame` holds.
pub fn unmasked_into(frame: &mut Vec<u8>, opcode: u8, payload: &[u8]) {
    frame.clear();
    push_head(frame, opcode, payload.len(), false);
    frame.extend_from_slice(payload);
}

fn head(opcode: u8, length: usize, mask: bool) -> Vec<u8> {
    let mut head = Vec::with_capacity(14 + length);
    push_head(&mut head, opcode, length, mask);
    head
}

fn push_head(head: &mut Vec<u8>, opcode: u8, length: usize, mask: bool) {
    let mask = if mask { 0x80 } else { 0 };
    head.push(0x80 | opcode);
    match length {
        0..=125 => head.push(mask | length as u8),
        126..=0xffff => {
            head.push(mask | 126);
            head.extend_from_slice(&(length as u16).to_be_bytes());
        }
        _ => {
            head.push(mask | 127);
            head.extend_from_slice(&(length as u64).to_be_bytes());
        }
    }
}

/// XORs `payload`, which starts at a frame's first payload byte, with `mask`.
pub fn toggle_mask(payload: &mut [u8], mask: [u8; 4]) {
    let mut words = payload.chunks_exact_mut(4);
    for word in &mut words {
        for (byte, key) in word.iter_mut().zip(mask) {
            *byte ^= key;
        }
    }
    for (byte, key) in words.into_remainder().iter_mut().zip(mask) {
        *byte ^= key;
    }
}

/// What the first bytes of a frame say.
#[derive(Clone, Copy)]
pub struct Head {
    /// [`TEXT`] or [`BINARY`].
    pub opcode: u8,
    /// Bytes before the payload.
    pub head_bytes: usize,
    /// Bytes of payload.
    pub payload_bytes: usize,
    /// Present exactly when the frame is masked.
    pub mask: Option<[u8; 4]>,
}

impl Head {
    /// Reads a frame head; `None` when `bytes` does not hold all of it yet.
    pub fn parse(bytes: &[u8]) -> Option<Head> {
        let (&first, &second) = (bytes.first()?, bytes.get(1)?);
        let (mut head_bytes, payload_bytes) = match second & 0x7f {
            126 => (4, u16::from_be_bytes(bytes.get(2..4)?.try_into().ok()?) as usize),
            127 => (10, u64::from_be_bytes(bytes.get(2..10)?.try_into().ok()?) as usize),
            short => (2, short as usize),
        };
        let mut mask = None;
        if second & 0x80 != 0 {
            mask = Some(bytes.get(head_bytes..head_bytes + 4)?.try_into().ok()?);
            head_bytes += 4;
        }
        Some(Head { opcode: first & 0x0f, head_bytes, payload_bytes, mask })
    }
}

/// Walks a stream of frames without keeping payload: counts its bytes, collects words.
pub struct Walker {
    payload: Payload,
    /// Bytes of a frame head that is not whole yet; at most 13.
    partial: Vec<u8>,
    /// The frame whose payload is being walked, and how much of it is missing.
    current: Option<(Head, usize)>,
    word: Vec<u8>,
    /// Payload bytes seen.
    pub payload_bytes: u64,
}

impl Walker {
    /// At the beginning of a stream whose payload travels like that.
    pub fn new(payload: Payload) -> Walker {
        Walker { payload, partial: Vec::new(), current: None, word: Vec::new(), payload_bytes: 0 }
    }

    /// Takes the stream's next bytes. Returns the words that ended in them, if any did.
    pub fn walk(&mut self, mut bytes: &[u8]) -> Option<Vec<u8>> {
        let mut message = None;
        while !bytes.is_empty() {
            let Some((head, missing)) = self.current.take() else {
                let before = self.partial.len();
                self.partial.extend_from_slice(&bytes[..bytes.len().min(14 - before)]);
                let Some(head) = Head::parse(&self.partial) else { break };
                bytes = &bytes[head.head_bytes - before..];
                self.partial.clear();
                self.current = (head.payload_bytes > 0).then_some((head, head.payload_bytes));
                continue;
            };
            let (now, rest) = bytes.split_at(missing.min(bytes.len()));
            bytes = rest;
            let is_payload = head.opcode == self.payload.opcode();
            if is_payload {
                self.payload_bytes += now.len() as u64;
            } else {
                self.word.extend_from_slice(now);
            }
            if now.len() < missing {
                self.current = Some((head, missing - now.len()));
            } else if !is_payload {
                let mut word = std::mem::take(&mut self.word);
                toggle_mask(&mut word, head.mask.unwrap_or_default());
                message = Some(word);
            }
        }
        message
    }
}
