use proptest::prelude::*;
use zlib_rs::{Deflate, DeflateFlush};

use super::*;

/// Compresses as a peer does: a message at a time, its tail cut off.
struct Sender {
    deflate: Deflate,
    no_context_takeover: bool,
}

impl Sender {
    fn new(no_context_takeover: bool, window_bits: u8) -> Sender {
        Sender { deflate: Deflate::new(6, false, window_bits), no_context_takeover }
    }

    fn message(&mut self, plain: &[u8], flush: DeflateFlush) -> Vec<u8> {
        let mut out = vec![0; plain.len() + plain.len() / 8 + 1024];
        let before = self.deflate.total_out();
        self.deflate.compress(plain, &mut out, flush).expect("it compresses");
        out.truncate((self.deflate.total_out() - before) as usize);
        match flush {
            // A final block ends in the middle of a byte, and one more opens the block that the tail completes.
            DeflateFlush::Finish => out.push(0),
            // Nothing new, nothing flushed: RFC 7692 §7.2.3.6.
            _ if out.is_empty() => out.push(0),
            _ => assert_eq!(out.split_off(out.len() - 4), TAIL),
        }
        if self.no_context_takeover || flush == DeflateFlush::Finish {
            self.deflate.reset();
        }
        out
    }
}

fn inflater(no_context_takeover: bool) -> Inflater {
    Inflater::new(no_context_takeover, &Arc::new(InflaterBudget::new(1))).expect("there is room")
}

/// The message that these pieces hold, inflated through a small buffer.
fn inflated(
    inflater: &mut Inflater,
    pieces: impl IntoIterator<Item = Vec<u8>>,
    bounds: Bounds,
) -> Result<Vec<u8>, Rule> {
    let mut scratch = [0; 100];
    let mut all = Vec::new();
    let mut look = |bytes: &[u8]| {
        all.extend_from_slice(bytes);
        Ok(())
    };
    for piece in pieces {
        inflater.feed(&piece, &mut scratch, bounds, &mut look)?;
    }
    let len = inflater.finish(&mut scratch, bounds, &mut look)?;
    assert_eq!(len, all.len() as u64);
    Ok(all)
}

fn text(len: usize) -> Vec<u8> {
    (0..len).map(|at| b"the quick brown fox "[(at * at / 7) % 20]).collect()
}

#[test]
fn messages_are_inflated_with_and_without_context_and_with_every_window() {
    for no_context_takeover in [false, true] {
        for window_bits in 9..=15 {
            let mut sender = Sender::new(no_context_takeover, window_bits);
            let mut inflater = inflater(no_context_takeover);
            for len in [0, 1, 100, 40_000, 5, 0, 100_000] {
                let plain = text(len);
                let message = sender.message(&plain, DeflateFlush::SyncFlush);
                let came = inflated(&mut inflater, [message], Bounds::default());
                assert_eq!(came.as_ref(), Ok(&plain), "{window_bits} bits, {len} bytes");
            }
        }
    }
}

#[test]
fn a_message_may_be_cut_at_any_byte_and_come_in_empty_pieces() {
    let plain = text(300);
    let message = Sender::new(true, 15).message(&plain, DeflateFlush::SyncFlush);
    for cut in 0..=message.len() {
        let pieces = [message[..cut].to_vec(), Vec::new(), message[cut..].to_vec()];
        let came = inflated(&mut inflater(true), pieces, Bounds::default());
        assert_eq!(came.as_ref(), Ok(&plain), "cut at {cut}");
    }
}

#[test]
fn an_empty_message_is_a_zero_byte_or_nothing_at_all() {
    let mut inflater = inflater(false);
    for pieces in [vec![vec![0]], vec![], vec![vec![]], vec![vec![], vec![0], vec![]]] {
        assert_eq!(inflated(&mut inflater, pieces, Bounds::default()), Ok(Vec::new()));
    }
}

#[test]
fn a_final_block_ends_a_stream_and_the_next_message_begins_another() {
    let mut sender = Sender::new(false, 15);
    let mut inflater = inflater(false);
    for len in [50, 20_000, 0, 7] {
        let plain = text(len);
        let message = sender.message(&plain, DeflateFlush::Finish);
        assert_eq!(inflated(&mut inflater, [message], Bounds::default()).as_ref(), Ok(&plain));
    }
    // RFC 7692 §7.2.3.4.
    let hello = vec![0xf3, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00, 0x00];
    assert_eq!(inflated(&mut inflater, [hello], Bounds::default()).as_deref(), Ok(&b"Hello"[..]));
}

#[test]
fn a_final_block_with_nothing_behind_it_leaves_the_next_message_alone() {
    let hello = [0xf3, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00];
    let whole = vec![hello.to_vec()];
    let bytes = hello.iter().map(|byte| vec![*byte]).chain([Vec::new()]).collect();
    for pieces in [whole, bytes] {
        let mut inflater = inflater(false);
        let came = inflated(&mut inflater, pieces, Bounds::default());
        assert_eq!(came.as_deref(), Ok(&b"Hello"[..]));
        let next = Sender::new(false, 15).message(b"next", DeflateFlush::SyncFlush);
        let came = inflated(&mut inflater, [next], Bounds::default());
        assert_eq!(came.as_deref(), Ok(&b"next"[..]));
    }
}

#[test]
fn a_ratio_is_exact_and_judged_from_64_kib_on() {
    // Bytes that came before, and held nothing, make the ratio come out even.
    let judged = |len: usize, wire: u64, max: u32| {
        let message = Sender::new(true, 15).message(&vec![0; len], DeflateFlush::SyncFlush);
        let mut inflater = inflater(true);
        inflater.wire = wire - message.len() as u64;
        let bounds = Bounds { inflated_ratio_max: Some(max), ..Bounds::default() };
        inflated(&mut inflater, [message], bounds).map(|all| all.len())
    };
    let len = 128 * 1024;
    assert_eq!(judged(len, 1024, 127), Err(Rule::InflatedRatio));
    assert_eq!(judged(len, 1024, 128), Ok(len));
    assert_eq!(judged(len, 1024, 129), Ok(len));
    assert_eq!(judged(len + 1, 1024, 128), Err(Rule::InflatedRatio));
    let from = RATIO_FROM as usize;
    assert_eq!(judged(from - 1, 1024, 1), Ok(from - 1));
    assert_eq!(judged(from, 1024, 1), Err(Rule::InflatedRatio));
}

#[test]
fn limits_hold_to_the_byte() {
    let len = 64 << 20;
    let bomb = Sender::new(true, 15).message(&vec![0; len], DeflateFlush::SyncFlush);
    let judged = |bounds| {
        let mut scratch = [0; 16 * 1024];
        let mut inflater = inflater(true);
        let mut count = 0;
        let mut look = |bytes: &[u8]| {
            count += bytes.len();
            Ok(())
        };
        let fed = inflater.feed(&bomb, &mut scratch, bounds, &mut look);
        let fed = fed.and_then(|()| inflater.finish(&mut scratch, bounds, &mut look));
        (fed, count)
    };
    let most = |max: usize| Bounds { inflated_bytes_max: Some(max as u64), ..Bounds::default() };
    assert_eq!(judged(most(len)).0, Ok(len as u64));
    assert_eq!(judged(most(len + 1)).0, Ok(len as u64));
    let (refused, seen) = judged(most(len - 1));
    assert_eq!(refused, Err(Rule::InflatedBytes));
    assert!(seen < len, "more came out than may");

    let ratio = |max| Bounds { inflated_ratio_max: Some(max), ..Bounds::default() };
    let exact = u32::try_from(len / bomb.len()).expect("about a thousand");
    assert_eq!(judged(ratio(exact + 1)).0, Ok(len as u64));
    assert_eq!(judged(ratio(exact / 2)).0, Err(Rule::InflatedRatio));
    // A short message may be as dense as it likes.
    let short = Sender::new(true, 15).message(&[0; 60_000], DeflateFlush::SyncFlush);
    assert!(inflated(&mut inflater(true), [short], ratio(2)).is_ok());
}

#[test]
fn there_are_no_more_inflaters_than_may_be() {
    let budget = Arc::new(InflaterBudget::new(8));
    let mut all: Vec<_> = (0..7).map(|_| Inflater::new(false, &budget)).collect();
    assert!(budget.is_near_full());
    all.push(Inflater::new(false, &budget));
    assert!(all.iter().all(Option::is_some));
    assert!(Inflater::new(false, &budget).is_none());
    all.truncate(3);
    assert_eq!((budget.live(), budget.is_near_full()), (3, false));
    assert!(Inflater::new(false, &budget).is_some());
}

#[test]
fn what_is_no_deflate_is_a_violation() {
    // A reserved block type, and a stored block whose length does not match its complement.
    for wrong in [vec![0x07], vec![0x00, 0x05, 0x00, 0x00, 0x00]] {
        let came = inflated(&mut inflater(false), [wrong], Bounds::default());
        assert_eq!(came, Err(Rule::Deflate));
    }
}

proptest! {
    #[test]
    fn any_message_in_any_pieces_comes_out_as_it_went_in(
        messages in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..3000), 1..6),
        cuts in prop::collection::vec(1_usize..500, 1..8),
        no_context_takeover: bool,
    ) {
        let mut sender = Sender::new(no_context_takeover, 15);
        let mut inflater = inflater(no_context_takeover);
        for plain in messages {
            let message = sender.message(&plain, DeflateFlush::SyncFlush);
            let mut left = &message[..];
            let mut pieces = Vec::new();
            for cut in cuts.iter().cycle() {
                if left.is_empty() {
                    break;
                }
                let (piece, rest) = left.split_at((*cut).min(left.len()));
                pieces.push(piece.to_vec());
                left = rest;
            }
            prop_assert_eq!(inflated(&mut inflater, pieces, Bounds::default()), Ok(plain));
        }
    }

    #[test]
    fn whatever_comes_is_inflated_or_refused(
        wrong in prop::collection::vec(any::<u8>(), 0..400),
    ) {
        let bounds = Bounds { inflated_bytes_max: Some(1 << 20), inflated_ratio_max: None };
        let _ = inflated(&mut inflater(false), [wrong], bounds);
    }
}
