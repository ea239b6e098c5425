//! Text in pieces: what std says of the whole, at the first byte at which it can be said.

#![no_main]

use libfuzzer_sys::fuzz_target;
use upsplice::ws::mask::unmask_into;
use upsplice::ws::utf8::Utf8;

fuzz_target!(|data: &[u8]| {
    let Some((&[step, a, b, c], text)) = data.split_first_chunk::<4>() else { return };
    let (expected, complete) = judge(text);
    let masked: Vec<u8> = text.iter().zip([a, b, c, step].iter().cycle()).map(xor).collect();
    let mut utf8 = Utf8::new();
    let mut fault = None;
    let mut at = 0;
    for piece in masked.chunks(usize::from(step).max(1)) {
        let mut plain = vec![0; piece.len()];
        unmask_into(piece, [a, b, c, step], at, &mut plain);
        if let Err(offset) = utf8.feed(&plain) {
            fault = Some(at + offset);
            break;
        }
        at += piece.len();
    }
    assert_eq!(fault, expected, "{text:02x?}");
    assert!(fault.is_some() || utf8.is_complete() == complete, "{text:02x?}");
});

fn xor((byte, key): (&u8, &u8)) -> u8 {
    byte ^ key
}

/// Where the byte is after which it can never be text, and else whether it is whole.
fn judge(text: &[u8]) -> (Option<usize>, bool) {
    let Err(error) = std::str::from_utf8(text) else { return (None, true) };
    if error.error_len().is_none() {
        return (None, false);
    }
    let begin = error.valid_up_to();
    let is_lost = |end: &usize| {
        let begun = std::str::from_utf8(&text[begin..*end]);
        begun.is_err_and(|error| error.error_len().is_some())
    };
    let end = (begin + 1..=text.len()).find(is_lost).expect("std found it");
    (Some(end - 1), false)
}
