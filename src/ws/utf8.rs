//! UTF-8 as it arrives (RFC 3629), in pieces that may end anywhere.

/// Follows a text; as small as what may be left of a character.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Utf8 {
    /// The bytes of a character that is not whole yet, all of which may still become one.
    carry: [u8; 3],
    carried: u8,
}

impl Utf8 {
    /// At the beginning of a text.
    pub const fn new() -> Utf8 {
        Utf8 { carry: [0; 3], carried: 0 }
    }

    /// Takes in the next piece.
    ///
    /// # Errors
    ///
    /// The offset in `bytes` of the first byte after which the text can never be UTF-8.
    pub fn feed(&mut self, bytes: &[u8]) -> Result<(), usize> {
        let mut begin = 0;
        while self.carried > 0 {
            let Some(&byte) = bytes.get(begin) else { return Ok(()) };
            self.complete(byte).map_err(|()| begin)?;
            begin += 1;
        }
        let rest = &bytes[begin..];
        let Err(error) = std::str::from_utf8(rest) else { return Ok(()) };
        let tail = &rest[error.valid_up_to()..];
        if let Some(wrong) = error.error_len() {
            // The bytes before the wrong one could have become a character, unless it is the first.
            return Err(begin + error.valid_up_to() + first_wrong(&tail[..wrong]));
        }
        self.carry[..tail.len()].copy_from_slice(tail);
        self.carried = tail.len() as u8;
        Ok(())
    }

    /// Whether the text may end here.
    pub fn is_complete(&self) -> bool {
        self.carried == 0
    }

    /// Takes in one more byte of the character that is not whole.
    fn complete(&mut self, byte: u8) -> Result<(), ()> {
        let carried = usize::from(self.carried);
        let mut character = [0; 4];
        character[..carried].copy_from_slice(&self.carry[..carried]);
        character[carried] = byte;
        match std::str::from_utf8(&character[..=carried]) {
            Ok(_) => self.carried = 0,
            Err(error) if error.error_len().is_none() => {
                self.carry[carried] = byte;
                self.carried += 1;
            }
            Err(_) => return Err(()),
        }
        Ok(())
    }
}

/// Where the byte is that makes `sequence` no character: behind it, if it could have begun one.
fn first_wrong(sequence: &[u8]) -> usize {
    match std::str::from_utf8(sequence) {
        Err(error) if error.error_len().is_none() => sequence.len(),
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What std says of the whole, and where.
    fn first_fault(bytes: &[u8]) -> Option<usize> {
        (1..=bytes.len()).find_map(|end| {
            let error = std::str::from_utf8(&bytes[..end]).err()?;
            error.error_len().is_some().then_some(end - 1)
        })
    }

    #[test]
    fn every_text_is_judged_alike_wherever_it_is_cut() {
        let texts: [&[u8]; 16] = [
            b"",
            "plain".as_bytes(),
            "\u{e4}\u{20ac}\u{10348}\u{10ffff}\0".as_bytes(),
            b"\xc0\xaf",
            b"\xc1\x80",
            b"\xe0\x80\xaf",
            b"\xe0\x9f\xbf",
            b"\xed\xa0\x80",
            b"\xed\xbf\xbf",
            b"\xf0\x80\x80\xaf",
            b"\xf4\x90\x80\x80",
            b"\xf5\x80",
            b"\x80",
            b"ab\xe2\x82A",
            b"ab\xf0\x9f\x98",
            b"\xe2\x28\xa1",
        ];
        for text in texts {
            let expected = first_fault(text);
            for first in 0..=text.len() {
                for second in first..=text.len() {
                    let mut utf8 = Utf8::new();
                    let mut at = 0;
                    let mut fault = None;
                    for piece in [&text[..first], &text[first..second], &text[second..]] {
                        if let Err(offset) = utf8.feed(piece) {
                            fault = Some(at + offset);
                            break;
                        }
                        at += piece.len();
                    }
                    assert_eq!(fault, expected, "{text:x?} cut at {first} and {second}");
                    if fault.is_none() {
                        let whole = std::str::from_utf8(text).is_ok();
                        assert_eq!(utf8.is_complete(), whole, "{text:x?}");
                    }
                }
            }
        }
    }
}
