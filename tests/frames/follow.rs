//! A scanner on a stream that comes in pieces.

use upsplice::ws::frame::{Header, Scanner};
use upsplice::ws::rules::Rule;

use super::streams::Stream;

/// What was found on the way.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// Each header, and where it begins.
    pub headers: Vec<(usize, Header)>,
    /// The rule that was broken first, and where its header begins.
    pub broken: Option<(usize, Rule)>,
}

/// Reads all headers; `look` sees each place where one was looked for, and the bytes that were there.
pub fn follow(stream: &Stream, mut look: impl FnMut(&Scanner, &[u8])) -> Found {
    let mut scanner = Scanner::new(stream.terms);
    let mut found = Found::default();
    let mut at = 0;
    for piece in stream.pieces() {
        while at < piece.end {
            let bytes = &stream.bytes[at..piece.end];
            if scanner.left() > 0 {
                let passed = bytes.len().min(usize::try_from(scanner.left()).unwrap_or(usize::MAX));
                scanner.pass(passed as u64);
                at += passed;
                continue;
            }
            look(&scanner, bytes);
            match scanner.header(bytes) {
                Ok(None) => break,
                Ok(Some(header)) => {
                    found.headers.push((at, header));
                    at += header.bytes;
                }
                Err(rule) => {
                    found.broken = Some((at, rule));
                    return found;
                }
            }
        }
    }
    found
}
