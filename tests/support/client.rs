//! The side that connects to the gateway.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

use socket2::SockRef;

use super::BOUND;

/// A WebSocket key and the `Sec-WebSocket-Accept` that answers it (RFC 6455 §1.3).
pub const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
pub const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

/// A raw TCP client.
#[derive(Debug)]
pub struct Client {
    pub socket: TcpStream,
}

/// A response head and what came behind it in the same reads.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub head: String,
    pub rest: Vec<u8>,
}

impl Answer {
    /// The value of the only field line with this name.
    pub fn field(&self, name: &str) -> Option<&str> {
        field(&self.head, name)
    }
}

/// The value of the first field line with this name in a head.
pub fn field<'h>(head: &'h str, name: &str) -> Option<&'h str> {
    head.lines()
        .skip(1)
        .filter_map(|line| line.split_once(':'))
        .find_map(|(found, value)| found.eq_ignore_ascii_case(name).then_some(value.trim()))
}

impl Client {
    /// Connects; every read and write is bounded.
    pub fn connect(address: SocketAddr) -> Client {
        let socket = TcpStream::connect(address).expect("the gateway accepts");
        bound(&socket);
        Client { socket }
    }

    /// Connects and upgrades to `token` on `path`; fails unless the answer is 101. What came along with
    /// the 101 must be nothing: use [`Client::ask`] for head data.
    pub fn upgraded(address: SocketAddr, path: &str, token: &str) -> Client {
        let mut client = Client::connect(address);
        let answer = client.ask(upgrade_head(path, token, ""));
        assert_eq!(answer.status, 101, "{}", answer.head);
        assert!(answer.rest.is_empty(), "bytes came with the 101: {:?}", answer.rest);
        client
    }

    /// Sends bytes as they are and reads one response head.
    pub fn ask(&mut self, bytes: impl AsRef<[u8]>) -> Answer {
        self.send(bytes);
        self.answer()
    }

    /// Reads one response head; reads no further than the chunk that completes it.
    pub fn answer(&mut self) -> Answer {
        let mut bytes = Vec::new();
        loop {
            let end = bytes.windows(4).position(|window| window == b"\r\n\r\n");
            if let Some(end) = end {
                let head = String::from_utf8_lossy(&bytes[..end + 4]).into_owned();
                let status = head.get(9..12).and_then(|digits| digits.parse().ok());
                return Answer {
                    status: status.unwrap_or_else(|| panic!("no status line: {head}")),
                    head,
                    rest: bytes.split_off(end + 4),
                };
            }
            let mut chunk = [0; 4096];
            match self.socket.read(&mut chunk) {
                Ok(0) => {
                    panic!("the connection ended in a head: {:?}", String::from_utf8_lossy(&bytes))
                }
                Ok(n) => bytes.extend_from_slice(&chunk[..n]),
                // A wait that has a bound ends so when the process is stopped and goes on.
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    panic!("no head came: {error}; {:?}", String::from_utf8_lossy(&bytes))
                }
            }
        }
    }

    pub fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.socket.write_all(bytes.as_ref()).expect("the gateway reads");
    }

    /// Reads exactly `len` bytes.
    pub fn receive(&mut self, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        self.socket.read_exact(&mut bytes).expect("the bytes come");
        bytes
    }

    /// Reads until the end; a reset is an error.
    pub fn receive_to_end(&mut self) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        self.socket.read_to_end(&mut bytes).map(|_| bytes)
    }

    pub fn shutdown_write(&self) {
        self.socket.shutdown(Shutdown::Write).expect("it was open");
    }

    /// Closes with a reset.
    pub fn reset(self) {
        reset(self.socket);
    }

    /// Sends one urgent (out of band) byte.
    pub fn send_urgent(&self, byte: u8) {
        let sent = SockRef::from(&self.socket).send_out_of_band(&[byte]);
        assert_eq!(sent.expect("there is room"), 1);
    }
}

/// A request head that upgrades to `token`; `extra` are further lines, each with its CR LF.
pub fn upgrade_head(path: &str, token: &str, extra: &str) -> String {
    let websocket = if token.eq_ignore_ascii_case("websocket") {
        format!("Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {KEY}\r\n")
    } else {
        String::new()
    };
    format!(
        "GET {path} HTTP/1.1\r\nHost: gateway.test\r\nConnection: Upgrade\r\nUpgrade: {token}\r\n{websocket}{extra}\r\n"
    )
}

/// Bounds every read and write.
pub fn bound(socket: &TcpStream) {
    socket.set_read_timeout(Some(BOUND)).expect("a bound");
    socket.set_write_timeout(Some(BOUND)).expect("a bound");
    socket.set_nodelay(true).expect("an option");
}

/// Closes with a reset.
pub fn reset(socket: TcpStream) {
    SockRef::from(&socket).set_linger(Some(Duration::ZERO)).expect("an option");
    drop(socket);
}
