//! A joined session with both of its outer ends in the test's own hands, over any kind of socket.

#![allow(dead_code, reason = "each test program uses its own part of the language")]

use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::thread;

use serde_json::Value;
use socket2::SockRef;
use upsplice::server::BoundAddress;

use crate::support::client::{bound, upgrade_head};
use crate::support::{BOUND, Client, Engine, Gw, Pattern, Peer, Runtime, eventually};

/// What a leg of the session is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Leg {
    V4,
    V6,
    Unix,
}

/// One end of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    Downstream,
    Upstream,
}

/// A gateway with one session open.
pub struct Joined {
    pub gw: Gw,
    pub client: Client,
    pub peer: Peer,
    pub door: Door,
}

/// Where the gateway connects to. Accepts only when asked, in the test's own thread.
pub struct Door {
    listener: OwnedFd,
    address: String,
    /// Holds the socket files of Unix legs.
    folder: tempfile::TempDir,
}

impl Leg {
    pub const ALL: [Leg; 3] = [Leg::V4, Leg::V6, Leg::Unix];
}

impl Side {
    pub const BOTH: [Side; 2] = [Side::Downstream, Side::Upstream];

    /// The word in the access log.
    pub fn word(self) -> &'static str {
        match self {
            Side::Downstream => "downstream",
            Side::Upstream => "upstream",
        }
    }

    /// The word for the direction that this side sends in.
    pub fn direction(self) -> &'static str {
        match self {
            Side::Downstream => "to_upstream",
            Side::Upstream => "to_downstream",
        }
    }
}

impl Joined {
    pub fn new(engine: Engine, runtime: Runtime) -> Joined {
        Joined::over(Leg::V4, Leg::V4, engine, runtime)
    }

    pub fn over(down: Leg, up: Leg, engine: Engine, runtime: Runtime) -> Joined {
        let door = Door::new(up);
        let text = door.config(down, engine, runtime, "");
        Joined::in_gateway(Gw::from_toml(&text), door)
    }

    /// With further lines for `[gateway]`.
    pub fn with(engine: Engine, runtime: Runtime, gateway: &str) -> Joined {
        let door = Door::new(Leg::V4);
        let text = door.config(Leg::V4, engine, runtime, gateway);
        Joined::in_gateway(Gw::from_toml(&text), door)
    }

    pub fn in_gateway(gw: Gw, door: Door) -> Joined {
        let (client, peer) = open(&gw, &door);
        Joined { gw, client, peer, door }
    }

    /// One more session through the same gateway.
    pub fn another(&self) -> (Client, Peer) {
        open(&self.gw, &self.door)
    }

    /// The ends of this session as sockets: first the one on `side`, then the other.
    pub fn from(&self, side: Side) -> (&TcpStream, &TcpStream) {
        match side {
            Side::Downstream => (&self.client.socket, &self.peer.socket),
            Side::Upstream => (&self.peer.socket, &self.client.socket),
        }
    }

    /// Closes the end on `side` with a reset; the other end is kept.
    pub fn reset(self, side: Side) -> (Gw, TcpStream) {
        let Joined { gw, client, peer, door: _door } = self;
        match side {
            Side::Downstream => {
                client.reset();
                (gw, peer.socket)
            }
            Side::Upstream => {
                peer.reset();
                (gw, client.socket)
            }
        }
    }

    /// Ends whatever is left, in whatever way.
    pub fn ended_any(self) {
        let Joined { gw, client, peer, door: _door } = self;
        drop((client, peer));
        eventually("all sessions are over", || gw.metrics().sessions_open == 0);
        eventually("all pipes are back", || gw.metrics().pipes_used == 0);
        gw.stop();
    }

    /// Ends the session in order and checks that `engine` alone carried it.
    pub fn completed(self, engine: Engine) {
        let line = self.ended();
        assert_eq!(line["close_reason"], "completed", "{line}");
        assert_eq!(line["bytes_discarded"], 0, "{line}");
        engine.assert_carried(&line, 0);
    }

    /// Closes both ends, each in order; the log line of the session.
    pub fn ended(self) -> Value {
        let Joined { gw, client, peer, door: _door } = self;
        // An end that was told already cannot be told again.
        let _ = client.socket.shutdown(std::net::Shutdown::Write);
        let _ = peer.socket.shutdown(std::net::Shutdown::Write);
        let line = gw.line();
        eventually("all pipes are back", || gw.metrics().pipes_used == 0);
        gw.stop();
        line
    }
}

/// Connects, asks, grants: a session through `gw` whose upstream is `door`.
pub fn open(gw: &Gw, door: &Door) -> (Client, Peer) {
    let mut client = connect(gw);
    client.send(upgrade_head("/", "raw", ""));
    let mut peer = Peer { socket: door.accept(), rest: Vec::new() };
    let head = peer.read_head();
    assert!(peer.rest.is_empty(), "bytes came with the head");
    peer.grant(&head, "");
    let answer = client.answer();
    assert_eq!(answer.status, 101, "{}", answer.head);
    assert!(answer.rest.is_empty(), "bytes came with the 101");
    (client, peer)
}

/// Connects to the gateway's first listener.
pub fn connect(gw: &Gw) -> Client {
    match &gw.gateway.addresses()[0] {
        BoundAddress::Tcp(address) => Client::connect(*address),
        BoundAddress::Unix(path) => {
            Client { socket: unix(UnixStream::connect(path).expect("the gateway accepts")) }
        }
    }
}

impl Door {
    pub fn new(leg: Leg) -> Door {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let (listener, address): (OwnedFd, _) = match leg {
            Leg::V4 | Leg::V6 => {
                let any = if leg == Leg::V4 { "127.0.0.1:0" } else { "[::1]:0" };
                let listener = TcpListener::bind(any).expect("a port");
                let address = listener.local_addr().expect("bound");
                (listener.into(), address.to_string())
            }
            Leg::Unix => {
                let path = folder.path().join("backend");
                let listener = UnixListener::bind(&path).expect("a socket file");
                (listener.into(), format!("unix:{}", path.display()))
            }
        };
        // The receive timeout of a listener bounds its accept.
        SockRef::from(&listener).set_read_timeout(Some(BOUND)).expect("a bound");
        Door { listener, address, folder }
    }

    /// A configuration with one worker, one listener of kind `down`, and one route to this door.
    pub fn config(&self, down: Leg, engine: Engine, runtime: Runtime, gateway: &str) -> String {
        let listen = match down {
            Leg::V4 => "127.0.0.1:0".to_owned(),
            Leg::V6 => "[::1]:0".to_owned(),
            Leg::Unix => format!("unix:{}", self.downstream_path().display()),
        };
        let (engine, runtime, to) = (engine.word(), runtime.word(), &self.address);
        format!(
            "[gateway]\nworkers = 1\nruntime = \"{runtime}\"\n{gateway}\n\
             [[listener]]\naddress = \"{listen}\"\n\
             [[route]]\nname = \"test\"\nprotocols = [\"any\"]\nengine = \"{engine}\"\nto = [\"{to}\"]\n"
        )
    }

    pub fn accept(&self) -> TcpStream {
        let (socket, address) =
            SockRef::from(&self.listener).accept().expect("the gateway connects");
        if address.is_unix() {
            return unix(OwnedFd::from(socket));
        }
        let socket = TcpStream::from(socket);
        bound(&socket);
        socket
    }

    fn downstream_path(&self) -> PathBuf {
        self.folder.path().join("gateway")
    }
}

/// A Unix socket under the type of a TCP socket: reads, writes, timeouts and shutdowns are the same calls.
fn unix(socket: impl Into<OwnedFd>) -> TcpStream {
    let socket = TcpStream::from(socket.into());
    socket.set_read_timeout(Some(BOUND)).expect("a bound");
    socket.set_write_timeout(Some(BOUND)).expect("a bound");
    socket
}

/// Sends bytes of the stream of `seed` until the gateway has paused `direction` and the socket takes no
/// more; how many were sent.
pub fn send_until_paused(gw: &Gw, socket: &TcpStream, direction: &str, seed: u64) -> usize {
    send_pieces_until_paused(gw, socket, direction, seed, 16 * 1024)
}

/// The same in writes of `len` bytes.
pub fn send_pieces_until_paused(
    gw: &Gw,
    mut socket: &TcpStream,
    direction: &str,
    seed: u64,
    len: usize,
) -> usize {
    let mut pattern = Pattern::new(seed);
    let mut piece = pattern.take(len);
    let (mut total, mut refused) = (0, 0);
    let paused_before = gw.metrics().paused[direction];
    socket.set_nonblocking(true).expect("an option");
    eventually("the gateway pauses", || {
        refused += 1;
        let error = loop {
            match socket.write(&piece) {
                Ok(sent) => {
                    total += sent;
                    piece.drain(..sent);
                    piece.extend_from_slice(&pattern.take(sent));
                    refused = 0;
                }
                Err(error) => break error,
            }
        };
        assert_eq!(error.kind(), ErrorKind::WouldBlock, "{error}");
        // Buffers grow for a while: only a socket that refuses again and again is really full.
        refused > 4 && gw.metrics().paused[direction] > paused_before
    });
    socket.set_nonblocking(false).expect("an option");
    total
}

/// Reads and discards until the socket has been reset; fails when that never happens.
pub fn expect_reset(mut socket: &TcpStream) -> usize {
    let mut scratch = vec![0; 64 * 1024];
    let mut total = 0;
    let reset = |error: &std::io::Error| {
        matches!(error.kind(), ErrorKind::ConnectionReset | ErrorKind::BrokenPipe)
    };
    socket.set_nonblocking(true).expect("an option");
    eventually("the reset is passed on", || match socket.read(&mut scratch) {
        // After an end only the pending error tells.
        Ok(0) => socket.take_error().expect("an option").is_some_and(|error| reset(&error)),
        Ok(read) => {
            total += read;
            false
        }
        Err(error) => reset(&error),
    });
    total
}

/// A thread that answers every `len` bytes with themselves, until the end comes.
pub fn echoing(mut peer: Peer, len: usize) -> thread::JoinHandle<()> {
    thread::spawn(move || {
        let mut bytes = vec![0; len];
        while peer.socket.read_exact(&mut bytes).is_ok() {
            peer.send(&bytes);
        }
    })
}

/// Sends `len` bytes one way and `len` bytes the other way at once, checks all, and ends both ways.
pub fn both_ways(client: &TcpStream, peer: &TcpStream, len: usize) {
    thread::scope(|scope| {
        scope.spawn(|| crate::support::pump(client, 1, 2, len, false));
        scope.spawn(|| crate::support::pump(peer, 2, 1, len, false));
    });
}
