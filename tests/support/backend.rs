//! The side that the gateway connects to: answers by script, remembers what it was sent.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::{self, JoinHandle};

use super::BOUND;
use super::client::{ACCEPT, bound, field};

/// A backend that serves one script per connection, each in its own thread.
#[derive(Debug)]
pub struct Backend {
    pub address: SocketAddr,
    accepting: Option<JoinHandle<()>>,
    scripts: Receiver<JoinHandle<()>>,
    stop: Sender<()>,
}

/// One connection from the gateway.
#[derive(Debug)]
pub struct Peer {
    pub socket: TcpStream,
    /// Bytes that were read beyond the request head.
    pub rest: Vec<u8>,
}

impl Backend {
    /// Runs `script` for each connection.
    pub fn start(script: impl Fn(Peer) + Send + Sync + Clone + 'static) -> Backend {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("bound");
        let (stop, stopped) = channel();
        let (started, scripts) = channel();
        let accepting = thread::spawn(move || {
            for socket in listener.incoming() {
                if stopped.try_recv().is_ok() {
                    return;
                }
                let socket = socket.expect("a connection");
                bound(&socket);
                let script = script.clone();
                let thread = thread::spawn(move || script(Peer { socket, rest: Vec::new() }));
                if started.send(thread).is_err() {
                    return;
                }
            }
        });
        Backend { address, accepting: Some(accepting), scripts, stop }
    }

    /// Grants every upgrade, then runs `script` on the tunnel.
    pub fn upgrading(script: impl Fn(Peer) + Send + Sync + Clone + 'static) -> Backend {
        Backend::start(move |mut peer| {
            let head = peer.read_head();
            peer.grant(&head, "");
            script(peer);
        })
    }

    /// Grants every upgrade and echoes every byte, until the end, which it answers with its own.
    pub fn echo() -> Backend {
        Backend::upgrading(|mut peer| {
            let mut bytes = std::mem::take(&mut peer.rest);
            loop {
                if !bytes.is_empty() && peer.socket.write_all(&bytes).is_err() {
                    return;
                }
                bytes.resize(64 * 1024, 0);
                match peer.socket.read(&mut bytes) {
                    Ok(0) | Err(_) => return,
                    Ok(n) => bytes.truncate(n),
                }
            }
        })
    }

    /// Ends accepting and waits for every script; a panic in one fails the test.
    pub fn join(mut self) {
        let _ = self.stop.send(());
        let _ = TcpStream::connect(self.address);
        if let Some(accepting) = self.accepting.take() {
            accepting.join().expect("the accept loop ends");
        }
        for script in self.scripts.try_iter() {
            script.join().expect("the backend's script held");
        }
    }
}

impl Peer {
    /// Reads a request head, exactly as it came; what is beyond it stays in `rest`.
    pub fn read_head(&mut self) -> String {
        self.try_read_head().expect("a request head comes")
    }

    /// The same; `None` when the connection ends before it.
    pub fn try_read_head(&mut self) -> Option<String> {
        loop {
            if let Some(end) = self.rest.windows(4).position(|window| window == b"\r\n\r\n") {
                let after = self.rest.split_off(end + 4);
                let head = std::mem::replace(&mut self.rest, after);
                return Some(String::from_utf8_lossy(&head).into_owned());
            }
            let mut chunk = [0; 4096];
            match self.socket.read(&mut chunk) {
                Ok(0) | Err(_) => return None,
                Ok(n) => self.rest.extend_from_slice(&chunk[..n]),
            }
        }
    }

    /// Answers 101 to the first token that `head` offers, with `glued` in the same write.
    pub fn grant(&mut self, head: &str, glued: impl AsRef<[u8]>) {
        self.grant_with(head, "", glued);
    }

    /// The same with further lines in the head.
    pub fn grant_with(&mut self, head: &str, lines: &str, glued: impl AsRef<[u8]>) {
        let offered = field(head, "upgrade").unwrap_or("none");
        let token = offered.split(',').next().unwrap_or(offered).trim();
        let accept = if token.eq_ignore_ascii_case("websocket") {
            let key = field(head, "sec-websocket-key").unwrap_or_default();
            let accept = upsplice::http::upgrade::accept_for(key);
            debug_assert!(key != super::client::KEY || accept == ACCEPT);
            format!("Sec-WebSocket-Accept: {accept}\r\n")
        } else {
            String::new()
        };
        let mut bytes = format!(
            "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: {token}\r\n{accept}{lines}\r\n"
        )
        .into_bytes();
        bytes.extend_from_slice(glued.as_ref());
        self.send(bytes);
    }

    pub fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.socket.write_all(bytes.as_ref()).expect("the gateway reads");
    }

    /// Reads exactly `len` bytes, first those that came with the head.
    pub fn receive(&mut self, len: usize) -> Vec<u8> {
        let mut bytes: Vec<u8> = self.rest.drain(..len.min(self.rest.len())).collect();
        let have = bytes.len();
        bytes.resize(len, 0);
        self.socket.read_exact(&mut bytes[have..]).expect("the bytes come");
        bytes
    }

    /// Reads until the end; a reset is an error.
    pub fn receive_to_end(&mut self) -> std::io::Result<Vec<u8>> {
        let mut bytes = std::mem::take(&mut self.rest);
        self.socket.read_to_end(&mut bytes).map(|_| bytes)
    }

    pub fn shutdown_write(&self) {
        self.socket.shutdown(std::net::Shutdown::Write).expect("it was open");
    }

    /// Closes with a reset.
    pub fn reset(self) {
        super::client::reset(self.socket);
    }
}

/// A bound on waits for events from scripts.
pub fn wait<T>(events: &Receiver<T>) -> T {
    events.recv_timeout(BOUND).expect("the event comes")
}
