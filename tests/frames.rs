//! Frames at random: our scanner beside two other parsers, on streams that are whole, cut and spoilt.

#[path = "frames/follow.rs"]
mod follow;
#[path = "frames/oracles.rs"]
mod oracles;
#[path = "frames/streams.rs"]
mod streams;

use follow::follow;
use proptest::prelude::*;
use streams::Stream;
use upsplice::ws::frame::{Scanner, Terms};

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
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

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
    fn a_stream_is_judged_alike_however_it_is_cut(choices in choices(), spoilt in spoilt()) {
        let mut stream = Stream::of(&choices);
        for (at, byte) in spoilt {
            let len = stream.bytes.len();
            if len > 0 {
                stream.bytes[at.index(len)] = byte;
            }
        }
        let whole = stream.clone().uncut();
        assert_eq!(follow(&stream, |_, _| {}), follow(&whole, |_, _| {}));
    }
}

/// Bytes of a stream that are replaced.
fn spoilt() -> impl Strategy<Value = Vec<(prop::sample::Index, u8)>> {
    prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4)
}
