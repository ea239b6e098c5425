//! Frames at random: the scanner and the inspector beside other implementations, on streams that are whole, cut and
//! spoilt.

#[path = "frames/follow.rs"]
mod follow;
#[path = "frames/inspected.rs"]
mod inspected;
#[path = "frames/oracles.rs"]
mod oracles;
#[path = "frames/streams.rs"]
mod streams;

use follow::follow;
use inspected::inspect;
use proptest::prelude::*;
use streams::Stream;
use upsplice::ws::frame::{Scanner, Terms};
use upsplice::ws::policy::Depth;

fn terms() -> impl Strategy<Value = Terms> {
    any::<(bool, bool)>().prop_map(|(masked, compression)| Terms { masked, compression })
}

/// A scanner that is in a message, or in none.
fn scanner() -> impl Strategy<Value = Scanner> {
    (terms(), any::<bool>()).prop_map(|(terms, in_message)| {
        let mut scanner = Scanner::new(terms);
        if in_message {
            let begun = if terms.masked { &[0x01, 0x80, 0, 0, 0, 0][..] } else { &[0x01, 0][..] };
            scanner.header(begun).expect("allowed").expect("whole");
        }
        scanner
    })
}

fn choices() -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(any::<u8>(), 0..400)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_bytes_are_the_header_that_other_parsers_see(
        scanner in scanner(),
        bytes in prop::collection::vec(any::<u8>(), 0..20),
    ) {
        oracles::agree(&scanner, &bytes);
    }

    #[test]
    fn every_header_of_a_stream_is_what_other_parsers_see(choices in choices()) {
        follow(&Stream::of(&choices), oracles::agree);
    }

    #[test]
    fn a_stream_is_judged_alike_however_it_is_cut(stream in stream()) {
        let whole = stream.clone().uncut();
        assert_eq!(follow(&stream, |_, _| {}), follow(&whole, |_, _| {}));
    }

    #[test]
    fn what_passes_an_inspector_is_what_came_however_it_is_cut(stream in stream()) {
        let whole = stream.clone().uncut();
        for (depth, enters) in [(Depth::Payload, false), (Depth::Frames, false), (Depth::Frames, true)] {
            let seen = inspect(&stream, depth, enters);
            inspected::passes_in_order(&stream, &seen);
            inspected::are_alike(&inspect(&whole, depth, enters), &seen);
        }
    }

    #[test]
    fn an_inspector_tells_messages_as_they_were_made(choices in choices()) {
        let stream = Stream::of(&choices);
        inspected::tells_what_was_sent(&stream, &inspect(&stream, Depth::Payload, false));
    }

    #[test]
    fn a_receiver_finds_nothing_wrong_with_what_passed_and_something_with_what_did_not(
        stream in stream(),
    ) {
        inspected::is_what_a_receiver_judges(&stream, &inspect(&stream, Depth::Payload, false));
    }
}

/// A stream of which some bytes may be others.
fn stream() -> impl Strategy<Value = Stream> {
    let spoilt = prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4);
    (choices(), prop_oneof![2 => Just(Vec::new()), 1 => spoilt]).prop_map(|(choices, spoilt)| {
        let mut stream = Stream::of(&choices);
        for (at, byte) in spoilt {
            let len = stream.bytes.len();
            if len > 0 {
                stream.bytes[at.index(len)] = byte;
                stream.lawful = None;
            }
        }
        stream
    })
}
