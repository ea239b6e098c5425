//! Where the body of an answer ends (RFC 9112 §6.3; rules H1, U2). Bytes are followed, never changed.

use super::head::ResponseHead;

/// How a body is delimited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// There is none: the answer to HEAD, 204, 304.
    None,
    /// So many bytes.
    Length(u64),
    /// `Transfer-Encoding: chunked`.
    Chunked,
    /// All that comes until the upstream closes.
    UntilClose,
}

impl Framing {
    /// The framing of a final answer to a request with `method`; the error is the rule it breaks.
    pub fn of_answer(response: &ResponseHead<'_>, method: &str) -> Result<Framing, &'static str> {
        let fields = response.fields();
        let mut encodings = fields.list("transfer-encoding");
        let encoding = (encodings.next(), encodings.next());
        let length = response.content_length();
        match encoding {
            (Some(_), _) if length.is_some() => return Err("length_and_encoding"),
            (Some(_), _) if response.minor_version == 0 => return Err("encoding_in_http_1_0"),
            (Some(chunked), None) if chunked.eq_ignore_ascii_case(b"chunked") => {}
            (None, _) => {}
            _ => return Err("unknown_encoding"),
        }
        Ok(match (response.status, encoding.0, length) {
            (204 | 304, _, _) => Framing::None,
            _ if method == "HEAD" => Framing::None,
            (_, Some(_), _) => Framing::Chunked,
            (_, None, Some(length)) => Framing::Length(length),
            (_, None, None) => Framing::UntilClose,
        })
    }
}

/// Follows a body as its bytes pass.
#[derive(Debug)]
pub struct BodyFollower {
    state: State,
}

/// What a piece of bytes did to the body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Bytes that belong to the body; what comes after is not relayed.
    pub taken: usize,
    /// Whether the body is complete.
    pub done: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Done,
    UntilClose,
    Length(u64),
    /// In the line that says a chunk's size: digits seen, and the line's length.
    Size {
        size: u64,
        digits: u32,
        line: u32,
        part: SizePart,
    },
    /// Bytes of a chunk that are still to come.
    Data(u64),
    /// The CR LF behind a chunk: the byte that must come next.
    DataEnd {
        lf: bool,
    },
    /// In the trailer: length of the line so far, of all lines, and whether a CR came last.
    Trailer {
        line: u32,
        total: u32,
        cr: bool,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum SizePart {
    Digits,
    Extension,
    Cr,
}

/// A size line, with its extensions, and a trailer may be so long.
const LINE_BYTES_MAX: u32 = 4096;
const TRAILER_BYTES_MAX: u32 = 16 * 1024;

const NEW_SIZE: State = State::Size { size: 0, digits: 0, line: 0, part: SizePart::Digits };

impl BodyFollower {
    /// At the first byte of a body.
    pub fn new(framing: Framing) -> BodyFollower {
        let state = match framing {
            Framing::None | Framing::Length(0) => State::Done,
            Framing::Length(length) => State::Length(length),
            Framing::Chunked => NEW_SIZE,
            Framing::UntilClose => State::UntilClose,
        };
        BodyFollower { state }
    }

    /// Whether the end of the connection is the end of this body, and no truncation.
    pub fn ends_with_connection(&self) -> bool {
        matches!(self.state, State::Done | State::UntilClose)
    }

    /// Goes on with `bytes`; the error is the rule they break.
    pub fn feed(&mut self, bytes: &[u8]) -> Result<Progress, &'static str> {
        let mut taken = 0;
        while taken < bytes.len() && self.state != State::Done {
            taken += self.step(&bytes[taken..])?;
        }
        Ok(Progress { taken, done: self.state == State::Done })
    }

    /// Takes at least one byte.
    fn step(&mut self, bytes: &[u8]) -> Result<usize, &'static str> {
        let available = bytes.len() as u64;
        let byte = bytes[0];
        match self.state {
            State::Done => unreachable!("nothing is fed to a complete body"),
            State::UntilClose => return Ok(bytes.len()),
            State::Length(left) => {
                let taken = left.min(available);
                self.state = if taken == left { State::Done } else { State::Length(left - taken) };
                return Ok(taken as usize);
            }
            State::Data(left) => {
                let taken = left.min(available);
                self.state = match left - taken {
                    0 => State::DataEnd { lf: false },
                    left => State::Data(left),
                };
                return Ok(taken as usize);
            }
            State::DataEnd { lf } => {
                self.state = match (lf, byte) {
                    (false, b'\r') => State::DataEnd { lf: true },
                    (true, b'\n') => NEW_SIZE,
                    _ => return Err("bad_chunk_end"),
                };
            }
            State::Size { size, digits, line, part } => {
                self.state = size_byte(byte, size, digits, line, part)?;
            }
            State::Trailer { line, total, cr } => {
                self.state = match byte {
                    _ if total >= TRAILER_BYTES_MAX => return Err("trailer_too_large"),
                    b'\n' if cr && line == 1 => State::Done,
                    b'\n' if cr => State::Trailer { line: 0, total: total + 1, cr: false },
                    _ if cr || byte == b'\n' => return Err("bad_trailer"),
                    _ => State::Trailer { line: line + 1, total: total + 1, cr: byte == b'\r' },
                };
            }
        }
        Ok(1)
    }
}

/// One byte of a line that says a chunk's size: hex digits, perhaps extensions, CR LF.
fn size_byte(
    byte: u8,
    size: u64,
    digits: u32,
    line: u32,
    part: SizePart,
) -> Result<State, &'static str> {
    if line >= LINE_BYTES_MAX {
        return Err("chunk_line_too_long");
    }
    let line = line + 1;
    let next = |part| Ok(State::Size { size, digits, line, part });
    match (part, byte) {
        (SizePart::Digits, _) if byte.is_ascii_hexdigit() => {
            if digits >= 15 {
                return Err("chunk_too_large");
            }
            let digit = char::from(byte).to_digit(16).expect("a hex digit");
            let size = size * 16 + u64::from(digit);
            Ok(State::Size { size, digits: digits + 1, line, part })
        }
        (SizePart::Digits, _) if digits == 0 => Err("bad_chunk_size"),
        (SizePart::Digits, b';' | b' ' | b'\t') => next(SizePart::Extension),
        (SizePart::Digits | SizePart::Extension, b'\r') => next(SizePart::Cr),
        (SizePart::Cr, b'\n') if size == 0 => Ok(State::Trailer { line: 0, total: 0, cr: false }),
        (SizePart::Cr, b'\n') => Ok(State::Data(size)),
        (SizePart::Extension, b'\t' | 32..=126 | 128..) => next(SizePart::Extension),
        _ => Err("bad_chunk_size"),
    }
}

#[cfg(test)]
mod tests;
