//! WebSocket frames by hand, also such as no library would send.

#![allow(dead_code, reason = "each test program uses its own part of the language")]

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;

use serde_json::Value;

use super::{Backend, Client, Engine, Gw, Pattern, Peer, Runtime, eventually};
use crate::support::client::upgrade_head;

pub const CONTINUATION: u8 = 0;
pub const TEXT: u8 = 1;
pub const BINARY: u8 = 2;
pub const CLOSE: u8 = 8;
pub const PING: u8 = 9;
pub const PONG: u8 = 10;
pub const FIN: u8 = 0x80;
pub const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

/// A frame whose first byte is `first`; masked as a client's, or not as a server's.
pub fn frame(first: u8, mask: Option<[u8; 4]>, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![first];
    let bit = if mask.is_some() { 0x80 } else { 0 };
    match payload.len() {
        len @ 0..=125 => bytes.push(bit | len as u8),
        len @ 126..=0xffff => {
            bytes.push(bit | 126);
            bytes.extend((len as u16).to_be_bytes());
        }
        len => {
            bytes.push(bit | 127);
            bytes.extend((len as u64).to_be_bytes());
        }
    }
    bytes.extend(mask.into_iter().flatten());
    let key = mask.unwrap_or_default();
    bytes.extend(payload.iter().enumerate().map(|(at, byte)| byte ^ key[at % 4]));
    bytes
}

/// A client's whole frame of this opcode.
pub fn ours(opcode: u8, payload: impl AsRef<[u8]>) -> Vec<u8> {
    frame(FIN | opcode, Some(MASK), payload.as_ref())
}

/// A server's whole frame of this opcode.
pub fn theirs(opcode: u8, payload: impl AsRef<[u8]>) -> Vec<u8> {
    frame(FIN | opcode, None, payload.as_ref())
}

/// Who sends. What one side may do and what it may not is the same for the other, but for the mask.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sender {
    Client,
    Server,
}

impl Sender {
    pub const BOTH: [Sender; 2] = [Sender::Client, Sender::Server];

    /// A frame of this side whose first byte is `first`.
    pub fn frame(self, first: u8, payload: impl AsRef<[u8]>) -> Vec<u8> {
        frame(first, (self == Sender::Client).then_some(MASK), payload.as_ref())
    }

    /// A whole frame of this side.
    pub fn whole(self, opcode: u8, payload: impl AsRef<[u8]>) -> Vec<u8> {
        self.frame(FIN | opcode, payload)
    }

    /// The word in the access log.
    pub fn word(self) -> &'static str {
        match self {
            Sender::Client => "downstream",
            Sender::Server => "upstream",
        }
    }

    /// The word for the direction that it sends in.
    pub fn direction(self) -> &'static str {
        match self {
            Sender::Client => "to_upstream",
            Sender::Server => "to_downstream",
        }
    }
}

/// What a Close with this code holds.
pub fn code(code: u16, reason: &str) -> Vec<u8> {
    [&code.to_be_bytes(), reason.as_bytes()].concat()
}

/// A frame as it was received.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Received {
    pub first: u8,
    pub masked: bool,
    pub payload: Vec<u8>,
}

impl Received {
    pub fn opcode(&self) -> u8 {
        self.first & 0x0f
    }

    /// The code of a Close.
    pub fn code(&self) -> u16 {
        assert_eq!(self.opcode(), CLOSE, "{self:?}");
        u16::from_be_bytes(self.payload[..2].try_into().expect("a code"))
    }
}

/// The next frame; `None` at an orderly end between two frames.
pub fn receive(socket: &mut impl Read) -> Option<Received> {
    let mut head = [0; 2];
    match socket.read_exact(&mut head[..1]) {
        Ok(()) => {}
        Err(error) if error.kind() == ErrorKind::UnexpectedEof => return None,
        Err(error) => panic!("no frame and no end: {error}"),
    }
    let mut exactly = |buffer: &mut [u8]| socket.read_exact(buffer).expect("the rest of a frame");
    exactly(&mut head[1..]);
    let len = match head[1] & 0x7f {
        126 => {
            let mut len = [0; 2];
            exactly(&mut len);
            u16::from_be_bytes(len).into()
        }
        127 => {
            let mut len = [0; 8];
            exactly(&mut len);
            u64::from_be_bytes(len)
        }
        len => len.into(),
    };
    let masked = head[1] & 0x80 != 0;
    let mut mask = [0; 4];
    if masked {
        exactly(&mut mask);
    }
    let mut payload = vec![0; usize::try_from(len).expect("it fits")];
    exactly(&mut payload);
    payload.iter_mut().enumerate().for_each(|(at, byte)| *byte ^= mask[at % 4]);
    Some(Received { first: head[0], masked, payload })
}

/// An inspected session with both of its ends in the test's hands.
pub struct Inspected {
    pub gw: Gw,
    pub client: TcpStream,
    pub server: TcpStream,
    /// What came with the 101.
    pub rest: Vec<u8>,
    _backend: Backend,
}

impl Inspected {
    /// With further lines for `[[route]]`, which may end in its tables.
    pub fn new(engine: Engine, route: &str) -> Inspected {
        Inspected::with_head_data(engine, route, &[], &[])
    }

    /// In a gateway of two workers, neither of which takes what the other has.
    pub fn in_two_workers(engine: Engine, runtime: Runtime, route: &str) -> Inspected {
        let runtime = runtime.word();
        let gateway = format!("workers = 2\nbalance = false\nruntime = \"{runtime}\"");
        Inspected::in_gateway(&gateway, engine, route, &[], &[])
    }

    /// The same; `ours` comes along with the request, `theirs` with the 101.
    pub fn with_head_data(engine: Engine, route: &str, ours: &[u8], theirs: &[u8]) -> Inspected {
        Inspected::in_gateway("workers = 1", engine, route, ours, theirs)
    }

    /// With further lines for `[gateway]`, too, and one worker.
    pub fn with_gateway(engine: Engine, gateway: &str, route: &str) -> Inspected {
        Inspected::in_gateway(&format!("workers = 1\n{gateway}"), engine, route, &[], &[])
    }

    /// At the depth payload, with permessage-deflate agreed on with these parameters.
    pub fn compressing(engine: Engine, parameters: &str, route: &str) -> Inspected {
        let line = format!("Sec-WebSocket-Extensions: permessage-deflate{parameters}\r\n");
        let route = format!("inspect = \"payload\"\n{route}");
        Inspected::open("workers = 1", engine, &route, &line, &[], &[])
    }

    /// With these lines in `[gateway]`.
    pub fn in_gateway(
        gateway: &str,
        engine: Engine,
        route: &str,
        ours: &[u8],
        theirs: &[u8],
    ) -> Inspected {
        Inspected::open(gateway, engine, route, "", ours, theirs)
    }

    /// With `lines` in the request, and in the 101.
    fn open(
        gateway: &str,
        engine: Engine,
        route: &str,
        lines: &str,
        ours: &[u8],
        theirs: &[u8],
    ) -> Inspected {
        let (given, taken) = std::sync::mpsc::channel();
        let (theirs, agreed) = (theirs.to_vec(), lines.to_owned());
        let backend = Backend::start(move |mut peer: Peer| {
            let head = peer.read_head();
            peer.grant_with(&head, &agreed, &theirs);
            let _ = given.send(peer);
        });
        let (engine, to) = (engine.word(), backend.address);
        let gw = Gw::from_toml(&format!(
            "[gateway]\n{gateway}\n[[listener]]\naddress = \"127.0.0.1:0\"\n\
             [[route]]\nname = \"test\"\nmode = \"inspect\"\nengine = \"{engine}\"\nto = [\"{to}\"]\n{route}\n"
        ));
        let mut client = Client::connect(gw.address());
        client.send([upgrade_head("/", "websocket", lines).into_bytes(), ours.to_vec()].concat());
        let answer = client.answer();
        assert_eq!(answer.status, 101, "{answer:?}");
        let peer = super::backend::wait(&taken);
        assert!(peer.rest.is_empty(), "something came before the 101");
        Inspected {
            gw,
            client: client.socket,
            server: peer.socket,
            rest: answer.rest,
            _backend: backend,
        }
    }

    /// The end of `sender`, and the other.
    pub fn ends(&mut self, sender: Sender) -> (&mut TcpStream, &mut TcpStream) {
        match sender {
            Sender::Client => (&mut self.client, &mut self.server),
            Sender::Server => (&mut self.server, &mut self.client),
        }
    }

    /// Sends from one side; fails unless the same comes to the other.
    pub fn passes(&mut self, sender: Sender, bytes: &[u8]) {
        let (source, sink) = self.ends(sender);
        std::thread::scope(|scope| {
            scope.spawn(|| source.write_all(bytes).expect("sent"));
            let mut came = vec![0; bytes.len()];
            sink.read_exact(&mut came).expect("all comes");
            assert!(came == bytes, "it came differently");
        });
    }

    /// Sends whole frames until the gateway reads no more, since nobody reads behind it; what was sent, and what is
    /// left of the last frame.
    pub fn fill(&mut self, sender: Sender) -> (Vec<u8>, Vec<u8>) {
        let message = sender.whole(BINARY, Pattern::new(2).take(16 * 1024));
        let (mut sent, mut left, mut refused) = (Vec::new(), message.clone(), 0);
        let mut source = self.ends(sender).0.try_clone().expect("a descriptor");
        source.set_nonblocking(true).expect("an option");
        eventually("the gateway pauses", || {
            refused += 1;
            let error = loop {
                match source.write(&left) {
                    Ok(count) => {
                        sent.extend(left.drain(..count));
                        refused = 0;
                    }
                    Err(error) => break error,
                }
                if left.is_empty() {
                    left.clone_from(&message);
                }
            };
            assert_eq!(error.kind(), ErrorKind::WouldBlock, "{error}");
            // Buffers grow for a while: only a socket that refuses again and again is really full.
            refused > 4 && self.gw.metrics().paused[sender.direction()] > 0
        });
        source.set_nonblocking(false).expect("an option");
        (sent, left)
    }

    /// What was counted of the frames of `sender`.
    pub fn counted(&self, sender: Sender) -> upsplice::metrics::WayWebSocket {
        let websocket = self.gw.metrics().websocket;
        match sender {
            Sender::Client => websocket.to_upstream,
            Sender::Server => websocket.to_downstream,
        }
    }

    /// What the log says of the session, once both ends are closed.
    pub fn line(self) -> (Gw, Value) {
        let Inspected { gw, client, server, .. } = self;
        drop((client, server));
        let line = gw.line();
        (gw, line)
    }
}
