//! What an inflater costs: resident memory of one, and time of a message. `scripts/notes/0021.py` runs it.

use std::fs;
use std::hint::black_box;
use std::sync::Arc;
use std::time::Instant;

use upsplice::ws::deflate::{Bounds, Inflater, InflaterBudget};
use zlib_rs::{Deflate, DeflateFlush};

const TAIL: usize = 4;
const SCRATCH: usize = 16 * 1024;

fn main() {
    // Without a number it only shows that it works: that is what `cargo test --benches` wants.
    let word = std::env::args().skip(1).find(|word| !word.starts_with("--"));
    let rounds: usize = word.map_or(1, |word| word.parse().expect("a number of rounds"));
    let inflaters = if rounds == 1 { 10 } else { 2000 };
    println!("resident {} {}", inflaters, resident(inflaters) / inflaters as u64);
    for size in [256, 64 * 1024] {
        for no_context_takeover in [false, true] {
            let messages = messages(size, (4 << 20) / size, no_context_takeover);
            let wire: usize = messages.iter().map(Vec::len).sum();
            for _ in 0..rounds {
                let nanoseconds = inflate(&messages, size, no_context_takeover);
                let context = if no_context_takeover { "reset" } else { "kept" };
                println!("message {size} {context} {} {nanoseconds}", wire / messages.len());
            }
        }
    }
}

/// Bytes by which this process grows through so many inflaters that have each filled their window.
fn resident(count: usize) -> u64 {
    let budget = Arc::new(InflaterBudget::new(count));
    let message = &messages(64 * 1024, 1, false)[0];
    let mut scratch = vec![0; SCRATCH];
    let mut all = Vec::with_capacity(count);
    let before = resident_bytes();
    for _ in 0..count {
        let mut inflater = Inflater::new(false, &budget).expect("there is room");
        feed(&mut inflater, message, &mut scratch);
        all.push(inflater);
    }
    resident_bytes().saturating_sub(before)
}

fn resident_bytes() -> u64 {
    let status = fs::read_to_string("/proc/self/status").expect("procfs");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("a line");
    let kib: u64 = line.trim().trim_end_matches(" kB").parse().expect("a number");
    kib * 1024
}

/// Nanoseconds of one message, the making of the inflater spread over all of them.
fn inflate(messages: &[Vec<u8>], size: usize, no_context_takeover: bool) -> u128 {
    let budget = Arc::new(InflaterBudget::new(1));
    let mut scratch = vec![0; SCRATCH];
    let start = Instant::now();
    let mut inflater = Inflater::new(no_context_takeover, &budget).expect("there is room");
    for message in messages {
        assert_eq!(feed(&mut inflater, message, &mut scratch), size as u64);
    }
    start.elapsed().as_nanos() / messages.len() as u128
}

fn feed(inflater: &mut Inflater, message: &[u8], scratch: &mut [u8]) -> u64 {
    let mut look = |bytes: &[u8]| {
        black_box(bytes);
        Ok(())
    };
    inflater.feed(message, scratch, Bounds::default(), &mut look).expect("it inflates");
    inflater.finish(scratch, Bounds::default(), &mut look).expect("it ends")
}

/// Records as an application sends them: the same keys, other numbers.
fn messages(size: usize, count: usize, no_context_takeover: bool) -> Vec<Vec<u8>> {
    let mut deflate = Deflate::new(6, false, 15);
    let mut state = 1_u32;
    let mut message = || {
        let mut plain = String::new();
        while plain.len() < size {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            plain.push_str(&format!("{{\"id\":{},\"price\":{}}},", state >> 8, state >> 20));
        }
        let mut out = vec![0; size * 2 + 1024];
        let before = deflate.total_out();
        let plain = &plain.as_bytes()[..size];
        deflate.compress(plain, &mut out, DeflateFlush::SyncFlush).expect("it compresses");
        out.truncate((deflate.total_out() - before) as usize - TAIL);
        if no_context_takeover {
            deflate.reset();
        }
        out
    };
    (0..count).map(|_| message()).collect()
}
