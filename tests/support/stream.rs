//! Byte streams that check themselves: made from a seed, compared as they come, never stored.

use std::io::{Read, Write};

/// An endless stream of pseudo-random bytes; the same seed gives the same bytes, however they are cut.
#[derive(Clone, Debug)]
pub struct Pattern {
    state: u64,
    word: [u8; 8],
    used: usize,
}

impl Pattern {
    pub fn new(seed: u64) -> Pattern {
        Pattern { state: seed, word: [0; 8], used: 8 }
    }

    /// The next bytes of the stream.
    pub fn fill(&mut self, out: &mut [u8]) {
        for byte in out {
            if self.used == 8 {
                self.word = self.next_word().to_le_bytes();
                self.used = 0;
            }
            *byte = self.word[self.used];
            self.used += 1;
        }
    }

    /// The next `len` bytes of the stream.
    pub fn take(&mut self, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        self.fill(&mut bytes);
        bytes
    }

    /// Fails unless `bytes` are the next ones of the stream.
    pub fn check(&mut self, bytes: &[u8]) {
        let expected = self.take(bytes.len());
        if expected != bytes {
            let at = expected.iter().zip(bytes).position(|(a, b)| a != b);
            panic!("the stream differs at byte {at:?} of this piece of {}", bytes.len());
        }
    }

    /// splitmix64.
    fn next_word(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }
}

/// Sends `len` bytes of the stream of `seed`.
pub fn send(sink: &mut impl Write, seed: u64, len: usize) {
    let mut pattern = Pattern::new(seed);
    let mut chunk = vec![0; 64 * 1024];
    let mut left = len;
    while left > 0 {
        let n = left.min(chunk.len());
        pattern.fill(&mut chunk[..n]);
        sink.write_all(&chunk[..n]).expect("the other side reads");
        left -= n;
    }
}

/// Reads to the end and checks every byte against the stream of `seed`; how many came.
pub fn check_to_end(source: &mut impl Read, seed: u64) -> usize {
    let mut pattern = Pattern::new(seed);
    let mut chunk = vec![0; 64 * 1024];
    let mut total = 0;
    loop {
        match source.read(&mut chunk).expect("the bytes come") {
            0 => return total,
            n => {
                pattern.check(&chunk[..n]);
                total += n;
            }
        }
    }
}

/// Sends `len` bytes of one stream while checking that `len` bytes of another come back, then ends.
///
/// With `answering` the first byte is waited for before anything is sent: a backend that sends at once may
/// glue bytes to its 101, which are head data, and go by copy.
pub fn pump(
    socket: &std::net::TcpStream,
    send_seed: u64,
    receive_seed: u64,
    len: usize,
    answering: bool,
) {
    let mut writer = socket.try_clone().expect("a descriptor");
    if answering {
        let first = socket.peek(&mut [0]).expect("the first byte comes");
        assert_eq!(first, 1, "the stream ended before its first byte");
    }
    let sending = std::thread::spawn(move || {
        send(&mut writer, send_seed, len);
        writer.shutdown(std::net::Shutdown::Write).expect("it was open");
    });
    let mut reader = socket;
    assert_eq!(check_to_end(&mut reader, receive_seed), len, "bytes are missing");
    sending.join().expect("all was sent");
}
