//! Streams of frames, mostly such as a peer may send, made from choices: bytes that a generator or a fuzzer makes up.

use std::fmt;
use std::ops::Range;

use upsplice::ws::frame::Terms;
use zlib_rs::{Deflate, DeflateFlush};

/// What one side sends, and where it is cut.
#[derive(Clone)]
pub struct Stream {
    /// What was agreed on.
    pub terms: Terms,
    /// All of it.
    pub bytes: Vec<u8>,
    /// The messages up to its first Close, if all of it is such as a peer may send, but for what texts hold.
    pub lawful: Option<Vec<Message>>,
    /// Where reads end, in order.
    cuts: Vec<usize>,
}

impl fmt::Debug for Stream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Stream { terms, bytes, lawful, cuts } = self;
        let first = &bytes[..bytes.len().min(500)];
        write!(f, "{terms:?}, {} bytes cut at {cuts:?}: {first:02x?}, {lawful:02x?}", bytes.len())
    }
}

/// What was sent with one opcode.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Message {
    /// Text or binary.
    pub is_text: bool,
    /// In the clear.
    pub payload: Vec<u8>,
    /// Its last frame is there, too.
    pub is_whole: bool,
}

impl Stream {
    /// What these choices say. Each byte more makes it longer.
    pub fn of(choices: &[u8]) -> Stream {
        let mut choices = Choices(choices);
        let kind = choices.next();
        let terms = Terms { masked: kind & 1 != 0, compression: kind & 2 != 0 };
        let mut maker = Maker {
            terms,
            bytes: Vec::new(),
            lawful: Some(Vec::new()),
            message: Begun::None,
            deflater: None,
            closed: false,
        };
        let cutting = choices.next();
        while !choices.0.is_empty() && maker.bytes.len() < BYTES_MAX {
            maker.one_more(&mut choices);
        }
        let Maker { bytes, lawful, .. } = maker;
        let cuts = match cutting % 4 {
            0 => Vec::new(),
            1 if bytes.len() < 4096 => (1..bytes.len()).collect(),
            step => (1..bytes.len()).step_by(usize::from(cutting) + usize::from(step)).collect(),
        };
        Stream { terms, bytes, lawful, cuts }
    }

    /// The same, in one piece.
    pub fn uncut(self) -> Stream {
        Stream { cuts: Vec::new(), ..self }
    }

    /// The pieces in which it comes.
    pub fn pieces(&self) -> impl Iterator<Item = Range<usize>> {
        let ends = self.cuts.iter().copied().chain([self.bytes.len()]);
        let begins = [0].into_iter().chain(self.cuts.iter().copied());
        begins.zip(ends).map(|(begin, end)| begin..end)
    }
}

/// A stream ends soon after so many bytes.
const BYTES_MAX: usize = 200_000;

/// Pieces of text, some of which are none.
const TEXTS: [&[u8]; 16] = [
    b"plain",
    "gr\u{fc}\u{df}e".as_bytes(),
    "\u{20ac}".as_bytes(),
    "\u{10ffff}\u{10348}".as_bytes(),
    b"\xe2",
    b"\x82",
    b"\xac",
    b"\xf0\x9f",
    b"\x98\x80",
    b"\xed\xa0\x80",
    b"\xc0\xaf",
    b"\xf4\x90",
    b"\xff",
    b"",
    b"\0",
    b"{\"key\": \"value\"}",
];

struct Choices<'c>(&'c [u8]);

impl Choices<'_> {
    /// Zero when there are no more.
    fn next(&mut self) -> u8 {
        let Some((&first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        first
    }
}

struct Maker {
    terms: Terms,
    bytes: Vec<u8>,
    lawful: Option<Vec<Message>>,
    message: Begun,
    /// Made for the first compressed message.
    deflater: Option<Deflate>,
    closed: bool,
}

/// The message that was begun, if one was.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Begun {
    None,
    Plain,
    Compressed,
}

impl Maker {
    fn one_more(&mut self, choices: &mut Choices<'_>) {
        match choices.next() % 32 {
            0..=19 => self.data(choices),
            20..=27 => self.control(choices),
            28 => self.close(choices),
            // Anything at all, with a header that fits its payload.
            29 | 30 => {
                self.lawful = None;
                let first = choices.next();
                let payload = payload(choices);
                let oddity = choices.next();
                self.frame(first, &payload, oddity, choices);
            }
            _ => {
                self.lawful = None;
                let count = choices.next() % 16;
                let raw: Vec<u8> = (0..count).map(|_| choices.next()).collect();
                self.bytes.extend(raw);
            }
        }
    }

    fn data(&mut self, choices: &mut Choices<'_>) {
        let choice = choices.next();
        let fin = choice & 0x80;
        let begins = self.message == Begun::None;
        let opcode = if begins { 1 + (choice & 1) } else { 0 };
        if begins {
            let compressed = self.terms.compression && choice & 2 != 0;
            self.message = if compressed { Begun::Compressed } else { Begun::Plain };
        }
        let compressed = self.message == Begun::Compressed;
        let payload = payload(choices);
        self.expect(begins.then_some(opcode == 1), &payload, fin != 0);
        if fin != 0 {
            self.message = Begun::None;
        }
        let first = fin | if compressed && begins { 0x40 } else { 0 } | opcode;
        let payload = if compressed { self.deflated(&payload, fin != 0) } else { payload };
        self.frame(first, &payload, 0, choices);
    }

    /// Notes what the other side should be told; `begins` says whether a text or another message begins.
    fn expect(&mut self, begins: Option<bool>, payload: &[u8], fin: bool) {
        let Some(messages) = self.lawful.as_mut().filter(|_| !self.closed) else { return };
        if let Some(is_text) = begins {
            messages.push(Message { is_text, ..Message::default() });
        }
        if let Some(message) = messages.last_mut() {
            message.payload.extend_from_slice(payload);
            message.is_whole = fin;
        }
    }

    /// The next piece of a compressed message (RFC 7692 §7.2.1).
    fn deflated(&mut self, payload: &[u8], fin: bool) -> Vec<u8> {
        let deflater = self.deflater.get_or_insert_with(|| Deflate::new(1, false, 15));
        let mut out = vec![0; payload.len() + 1024];
        let before = deflater.total_out();
        deflater.compress(payload, &mut out, DeflateFlush::SyncFlush).expect("there is room");
        let len = (deflater.total_out() - before) as usize;
        match (fin, len) {
            // Nothing to flush is nothing at all; the first byte of an empty block stands for it.
            (true, 0) => return vec![0],
            (true, _) => out.truncate(len - 4),
            (false, _) => out.truncate(len),
        }
        out
    }

    fn control(&mut self, choices: &mut Choices<'_>) {
        let mut payload = payload(choices);
        payload.truncate(125);
        self.frame(0x89 + (choices.next() & 1), &payload, 0, choices);
    }

    fn close(&mut self, choices: &mut Choices<'_>) {
        const CODES: [u16; 8] = [1000, 1001, 1002, 1005, 1014, 1016, 3000, 4999];
        let choice = choices.next();
        let payload = match choice % 4 {
            0 => Vec::new(),
            1 => vec![choices.next()],
            _ => {
                let code = CODES[usize::from(choice >> 2) % CODES.len()];
                let reason = TEXTS[usize::from(choices.next()) % TEXTS.len()];
                if matches!(code, 1005 | 1016) || std::str::from_utf8(reason).is_err() {
                    self.lawful = None;
                }
                [&code.to_be_bytes(), reason].concat()
            }
        };
        if payload.len() == 1 {
            self.lawful = None;
        }
        self.closed = true;
        self.frame(0x88, &payload, 0, choices);
    }

    /// `oddity` is zero for a frame as it should be.
    fn frame(&mut self, first: u8, payload: &[u8], oddity: u8, choices: &mut Choices<'_>) {
        let masked = self.terms.masked != (oddity & 0x0f == 1);
        let mask = masked.then(|| [choices.next(), choices.next(), 0x5a, 0xa5]);
        let bit = if masked { 0x80 } else { 0 };
        self.bytes.push(first);
        match (payload.len(), oddity & 0x0f) {
            (len @ 0..=125, 0..=7) => self.bytes.push(bit | len as u8),
            (len @ 0..=0xffff, 0..=11) => {
                self.bytes.push(bit | 126);
                self.bytes.extend((len as u16).to_be_bytes());
            }
            (len, _) => {
                self.bytes.push(bit | 127);
                self.bytes.extend((len as u64).to_be_bytes());
            }
        }
        self.bytes.extend(mask.into_iter().flatten());
        let key = mask.unwrap_or_default();
        self.bytes.extend(payload.iter().enumerate().map(|(at, byte)| byte ^ key[at % 4]));
    }
}

fn payload(choices: &mut Choices<'_>) -> Vec<u8> {
    let choice = choices.next();
    match choice {
        0..=0x7f => (0..choice & 7)
            .flat_map(|_| TEXTS[usize::from(choices.next()) % TEXTS.len()].iter().copied())
            .collect(),
        0x80..=0xf3 => (0..choice & 0x3f).map(|_| choices.next()).collect(),
        _ => {
            const LENGTHS: [usize; 8] = [125, 126, 127, 1000, 16_384, 65_535, 65_536, 70_000];
            vec![choices.next(); LENGTHS[usize::from(choice) % LENGTHS.len()]]
        }
    }
}
