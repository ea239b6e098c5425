//! Streams of frames, mostly such as a peer may send, made from choices: bytes that a generator or a fuzzer makes up.

use std::ops::Range;

use upsplice::ws::frame::Terms;

/// What one side sends, and where it is cut.
#[derive(Clone, Debug)]
pub struct Stream {
    /// What was agreed on.
    pub terms: Terms,
    /// All of it.
    pub bytes: Vec<u8>,
    /// Where reads end, in order.
    cuts: Vec<usize>,
}

impl Stream {
    /// What these choices say. Each byte more makes it longer.
    pub fn of(choices: &[u8]) -> Stream {
        let mut choices = Choices(choices);
        let kind = choices.next();
        let terms = Terms { masked: kind & 1 != 0, compression: kind & 2 != 0 };
        let mut maker = Maker { terms, bytes: Vec::new(), in_message: false };
        let cutting = choices.next();
        while !choices.0.is_empty() && maker.bytes.len() < BYTES_MAX {
            maker.one_more(&mut choices);
        }
        let bytes = maker.bytes;
        let cuts = match cutting % 4 {
            0 => Vec::new(),
            1 => (1..bytes.len()).collect(),
            step => (1..bytes.len()).step_by(usize::from(cutting) + usize::from(step)).collect(),
        };
        Stream { terms, bytes, cuts }
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
    in_message: bool,
}

impl Maker {
    fn one_more(&mut self, choices: &mut Choices<'_>) {
        match choices.next() % 16 {
            0..=8 => self.data(choices),
            9..=11 => self.control(choices),
            12 => self.close(choices),
            // Anything at all, with a header that fits its payload.
            13 | 14 => {
                let first = choices.next();
                let payload = payload(choices);
                self.frame(first, &payload, choices.next(), choices);
            }
            _ => {
                let count = choices.next() % 16;
                let raw: Vec<u8> = (0..count).map(|_| choices.next()).collect();
                self.bytes.extend(raw);
            }
        }
    }

    fn data(&mut self, choices: &mut Choices<'_>) {
        let choice = choices.next();
        let fin = choice & 0x80;
        let opcode = match self.in_message {
            true => 0,
            false => 1 + (choice & 1),
        };
        let compressed = self.terms.compression && !self.in_message && choice & 2 != 0;
        self.in_message = fin == 0;
        let payload = payload(choices);
        let first = fin | if compressed { 0x40 } else { 0 } | opcode;
        self.frame(first, &payload, 0, choices);
    }

    fn control(&mut self, choices: &mut Choices<'_>) {
        let mut payload = payload(choices);
        payload.truncate(125);
        self.frame(0x80 | 9 + (choices.next() & 1), &payload, 0, choices);
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
                [&code.to_be_bytes(), reason].concat()
            }
        };
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
        0x80..=0xbf => (0..choice & 0x3f).map(|_| choices.next()).collect(),
        _ => {
            const LENGTHS: [usize; 8] = [125, 126, 127, 1000, 16_384, 65_535, 65_536, 70_000];
            vec![choices.next(); LENGTHS[usize::from(choice) % LENGTHS.len()]]
        }
    }
}
