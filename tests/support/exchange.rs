//! Backends for one answer, and what is left of a connection after it.

use std::io::Read;
use std::sync::mpsc::{Receiver, channel};

use super::{Backend, Client, Peer};

/// A second request, sent along with the first.
pub const PIPELINED: &str = "GET /admin HTTP/1.1\r\nHost: gateway.test\r\n\r\n";

/// Reads until the connection is gone, however it goes.
pub fn drain(peer: &mut Peer) -> Vec<u8> {
    let mut bytes = std::mem::take(&mut peer.rest);
    let mut chunk = [0; 4096];
    while let Ok(n) = peer.socket.read(&mut chunk) {
        if n == 0 {
            break;
        }
        bytes.extend_from_slice(&chunk[..n]);
    }
    bytes
}

/// A backend that answers a request with these bytes, perhaps ends, and tells all that it was sent once the
/// gateway has closed.
pub fn answering(answer: &str, ends: bool) -> (Backend, Receiver<String>) {
    let (tell, told) = channel();
    let answer = answer.to_owned();
    let backend = Backend::start(move |mut peer| {
        let head = peer.read_head();
        peer.send(&answer);
        if ends {
            peer.shutdown_write();
        }
        let all = [head.into_bytes(), drain(&mut peer)].concat();
        tell.send(String::from_utf8_lossy(&all).into_owned()).expect("the test listens");
    });
    (backend, told)
}

/// A backend that no request may reach.
pub fn unreachable() -> (Backend, Receiver<String>) {
    answering("HTTP/1.1 200 OK\r\n\r\n", true)
}

/// Reads to the end and ends in turn, so that the gateway need not wait for it.
pub fn to_end(client: &mut Client) -> String {
    let bytes = client.receive_to_end().expect("an orderly end");
    // It may have ended before, or be gone by now.
    let _ = client.socket.shutdown(std::net::Shutdown::Write);
    String::from_utf8(bytes).expect("only ASCII was sent")
}

pub fn status(response: &str) -> u16 {
    response.get(9..12).and_then(|s| s.parse().ok()).unwrap_or_else(|| panic!("{response:?}"))
}
