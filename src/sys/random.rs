//! getrandom(2), by way of its device: bytes that a peer cannot guess.
//!
//! <https://man7.org/linux/man-pages/man4/random.4.html>.

use std::fs::File;
use std::io::Read;

/// Sixteen bytes, as many as a `Sec-WebSocket-Key` has. Should the device be missing in a sandbox, they are
/// merely pseudo-random: the key keeps replies apart, it is no secret (RFC 6455 §10.3).
pub fn bytes() -> [u8; 16] {
    let mut bytes = [0; 16];
    let read = File::open("/dev/urandom").and_then(|mut device| device.read_exact(&mut bytes));
    if read.is_err() {
        fastrand::fill(&mut bytes);
    }
    bytes
}
