//! The inspector of one direction: what passes is what came, wherever a read ends; it is told as it was made, and
//! whoever receives it finds nothing wrong.

#![no_main]

#[path = "../../frames/inspected.rs"]
mod inspected;
#[path = "../../frames/streams.rs"]
mod streams;

use inspected::inspect;
use libfuzzer_sys::fuzz_target;
use streams::Stream;
use upsplice::ws::policy::Depth;

fuzz_target!(|choices: &[u8]| {
    let stream = Stream::of(choices);
    let seen = inspect(&stream, Depth::Payload, false);
    inspected::tells_what_was_sent(&stream, &seen);
    inspected::is_what_a_receiver_judges(&stream, &seen);
    let whole = stream.clone().uncut();
    for (depth, enters) in [(Depth::Payload, false), (Depth::Frames, false), (Depth::Frames, true)]
    {
        let seen = inspect(&stream, depth, enters);
        inspected::passes_in_order(&stream, &seen);
        inspected::are_alike(&inspect(&whole, depth, enters), &seen);
    }
});
