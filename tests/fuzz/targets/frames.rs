//! Headers: what two other parsers see, wherever a read ends.

#![no_main]

#[path = "../../frames/follow.rs"]
mod follow;
#[path = "../../frames/oracles.rs"]
mod oracles;
#[path = "../../frames/streams.rs"]
mod streams;

use follow::follow;
use libfuzzer_sys::fuzz_target;
use streams::Stream;

fuzz_target!(|choices: &[u8]| {
    let stream = Stream::of(choices);
    let found = follow(&stream, oracles::agree);
    assert_eq!(follow(&stream.uncut(), |_, _| {}), found);
});
