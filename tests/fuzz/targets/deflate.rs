//! Compressed messages: what another inflater makes of them, in whatever pieces they come.

#![no_main]

use std::sync::Arc;

use libfuzzer_sys::fuzz_target;
use miniz_oxide::inflate::TINFLStatus;
use miniz_oxide::inflate::core::{DecompressorOxide, decompress, inflate_flags};
use upsplice::ws::deflate::{Bounds, Inflater};
use upsplice::ws::rules::Rule;

const INFLATED_BYTES_MAX: usize = 256 * 1024;
const TAIL: [u8; 4] = [0x00, 0x00, 0xff, 0xff];

fuzz_target!(|data: &[u8]| {
    let Some((&[kind, step], data)) = data.split_first_chunk::<2>() else { return };
    let no_context_takeover = kind & 1 != 0;
    let step = usize::from(step).max(1);
    let mut inflater = Inflater::new(no_context_takeover, &Arc::default()).expect("there is room");
    let mut other = Other::new();
    // A message ends where a byte says so.
    for message in data.split(|byte| *byte == b'|') {
        if no_context_takeover {
            other = Other::new();
        }
        let begin = other.out;
        let expected = if message.is_empty() { Ok(()) } else { other.message(message) };
        let (plain, ours) = inflate(&mut inflater, message, step);
        match (ours, expected) {
            // Beyond what the other one is given room for.
            (_, Err(Fault::TooLong)) | (Err(Rule::InflatedBytes), _) => return,
            (Ok(()), Ok(())) => assert!(plain == other.window[begin..other.out], "other bytes"),
            (Err(Rule::Deflate), Err(Fault::NoDeflate)) => return,
            // It sees sooner that a code has gaps; we, like zlib, when a gap is met. Of a code without an end of block
            // we, like zlib, say so at once; it waits for more. Nothing came out since.
            (Ok(()), Err(Fault::NoDeflate)) | (Err(Rule::Deflate), Ok(())) => {
                assert!(plain == other.window[begin..other.out], "bytes out of nothing");
                return;
            }
            (ours, expected) => panic!("{} bytes, {ours:?}, {expected:?}", plain.len()),
        }
    }
});

/// What came out, also before a fault.
fn inflate(inflater: &mut Inflater, message: &[u8], step: usize) -> (Vec<u8>, Result<(), Rule>) {
    let bounds =
        Bounds { inflated_bytes_max: Some(INFLATED_BYTES_MAX as u64), ..Bounds::default() };
    let mut scratch = vec![0; 1000];
    let mut plain = Vec::new();
    let mut look = |bytes: &[u8]| {
        plain.extend_from_slice(bytes);
        Ok(())
    };
    let mut pieces = message.chunks(step);
    let fed = pieces.try_for_each(|piece| inflater.feed(piece, &mut scratch, bounds, &mut look));
    let finished = fed.and_then(|()| inflater.finish(&mut scratch, bounds, &mut look));
    assert!(finished.is_err() || finished == Ok(plain.len() as u64));
    (plain, finished.map(|_| ()))
}

/// Another inflater, which keeps all that came out of a stream.
struct Other {
    inflater: Box<DecompressorOxide>,
    window: Vec<u8>,
    /// Where the stream begins that began last: nothing before is referred to.
    stream: usize,
    out: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    NoDeflate,
    TooLong,
}

impl Other {
    fn new() -> Other {
        let window = vec![0; 4 * INFLATED_BYTES_MAX];
        Other { inflater: Box::default(), window, stream: 0, out: 0 }
    }

    fn message(&mut self, message: &[u8]) -> Result<(), Fault> {
        // A final block with nothing behind it is whole without the tail.
        let is_whole = self.feed(message)?;
        if !is_whole {
            self.feed(&TAIL)?;
        }
        Ok(())
    }

    /// Takes in some bytes; whether a stream ends where they do.
    fn feed(&mut self, mut rest: &[u8]) -> Result<bool, Fault> {
        let flags = inflate_flags::TINFL_FLAG_USING_NON_WRAPPING_OUTPUT_BUF
            | inflate_flags::TINFL_FLAG_HAS_MORE_INPUT;
        loop {
            let window = &mut self.window[self.stream..];
            let at = self.out - self.stream;
            let (status, taken, made) = decompress(&mut self.inflater, rest, window, at, flags);
            rest = &rest[taken..];
            self.out += made;
            match status {
                TINFLStatus::Done => {
                    // RFC 7692 §7.2.3.4: a final block ends a stream, not the session.
                    self.inflater = Box::default();
                    self.stream = self.out;
                    if rest.is_empty() {
                        return Ok(true);
                    }
                }
                TINFLStatus::NeedsMoreInput => return Ok(false),
                TINFLStatus::HasMoreOutput => return Err(Fault::TooLong),
                _ => return Err(Fault::NoDeflate),
            }
        }
    }
}
