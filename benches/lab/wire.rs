//! One WebSocket connection of the lab, from either end: the handshake by hand, then raw bytes.

use std::cell::RefCell;
use std::future::poll_fn;
use std::io::{Error, ErrorKind, Result};
use std::net::{SocketAddr, TcpStream as StdStream};
use std::pin::Pin;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use sha1::{Digest, Sha1};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::net::{TcpSocket, TcpStream};

use crate::frame::{Head, toggle_mask};

/// A connection and the bytes that were read but not used yet.
pub struct Wire {
    stream: TcpStream,
    ahead: Vec<u8>,
}

impl Wire {
    /// Wraps an accepted connection.
    pub fn new(stream: TcpStream) -> Result<Wire> {
        stream.set_nodelay(true)?;
        Ok(Wire { stream, ahead: Vec::new() })
    }

    /// Connects and upgrades `path`; verifies the answer as a browser would. The kernel keeps at
    /// most about twice `unread_max` bytes that were not read yet, if that is given.
    pub async fn open(to: SocketAddr, path: &str, unread_max: Option<u32>) -> Result<Wire> {
        let socket = if to.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
        if let Some(bytes) = unread_max {
            socket.set_recv_buffer_size(bytes)?;
        }
        let mut wire = Wire::new(socket.connect(to).await?)?;
        let key = STANDARD.encode(fastrand::u128(..).to_ne_bytes());
        let request = format!(
            "GET {path} HTTP/1.1\r\nHost: lab.example\r\nConnection: Upgrade\r\n\
             Upgrade: websocket\r\nOrigin: http://lab.example\r\nUser-Agent: upsplice-lab\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n\r\n"
        );
        wire.write(request.as_bytes()).await?;
        let head = wire.read_head().await?;
        let status = head.split("\r\n").next().unwrap_or_default();
        if status.split(' ').nth(1) != Some("101") {
            return Err(Error::other(format!("no upgrade: {status}")));
        }
        if field(&head, "sec-websocket-accept") != Some(&accept_of(&key)) {
            return Err(Error::other("wrong Sec-WebSocket-Accept"));
        }
        Ok(wire)
    }

    /// Answers the handshake of an accepted connection. Returns the path it asked for.
    pub async fn accept(&mut self) -> Result<String> {
        let head = self.read_head().await?;
        let key = field(&head, "sec-websocket-key").ok_or(ErrorKind::InvalidData)?;
        let answer = format!(
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Accept: {}\r\n\r\n",
            accept_of(key)
        );
        self.write(answer.as_bytes()).await?;
        Ok(head.split(' ').nth(1).unwrap_or_default().to_owned())
    }

    async fn read_head(&mut self) -> Result<String> {
        loop {
            if let Some(end) = self.ahead.windows(4).position(|four| four == b"\r\n\r\n") {
                let rest = self.ahead.split_off(end + 4);
                let head = std::mem::replace(&mut self.ahead, rest);
                return String::from_utf8(head).map_err(Error::other);
            }
            self.read_ahead().await?;
        }
    }

    /// Hands `use_bytes` the next bytes of the stream, as many as one read gives.
    pub async fn read<T>(&mut self, use_bytes: impl FnMut(&[u8]) -> T) -> Result<T> {
        self.split().0.read(usize::MAX, use_bytes).await
    }

    async fn read_ahead(&mut self) -> Result<()> {
        self.split().0.read_ahead().await
    }

    /// Reads one whole frame, unmasked, into `payload`. Returns its opcode.
    pub async fn read_frame(&mut self, payload: &mut Vec<u8>) -> Result<u8> {
        self.split().0.read_frame(payload).await
    }

    /// Writes all of `bytes`.
    pub async fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.split().1.write(bytes).await
    }

    /// The two directions, for use at the same time.
    pub fn split(&mut self) -> (Reader<'_>, Writer<'_>) {
        let (stream, writer) = self.stream.split();
        (Reader { stream, ahead: &mut self.ahead }, Writer { stream: writer })
    }

    /// The same connection a second time, to be written to by a thread outside the runtime; it does
    /// not wait either.
    pub fn with_writer(self) -> Result<(Wire, StdStream)> {
        let stream = self.stream.into_std()?;
        let writer = stream.try_clone()?;
        Ok((Wire { stream: TcpStream::from_std(stream)?, ahead: self.ahead }, writer))
    }
}

/// The direction of a [`Wire`] that comes in.
pub struct Reader<'wire> {
    stream: ReadHalf<'wire>,
    ahead: &'wire mut Vec<u8>,
}

impl Reader<'_> {
    /// Hands `use_bytes` the next bytes of the stream, as many as one read of at most `limit`
    /// gives.
    pub async fn read<T>(
        &mut self,
        limit: usize,
        mut use_bytes: impl FnMut(&[u8]) -> T,
    ) -> Result<T> {
        if !self.ahead.is_empty() {
            return Ok(use_bytes(&std::mem::take(self.ahead)));
        }
        let stream = &mut self.stream;
        poll_fn(|context| {
            SCRATCH.with_borrow_mut(|scratch| {
                let size = limit.min(scratch.len());
                let mut buffer = ReadBuf::new(&mut scratch[..size]);
                // Partial reads clear the readiness here, which saves the read that would only
                // say EAGAIN.
                std::task::ready!(Pin::new(&mut *stream).poll_read(context, &mut buffer))?;
                match buffer.filled() {
                    [] => Err(Error::from(ErrorKind::UnexpectedEof)),
                    bytes => Ok(use_bytes(bytes)),
                }
                .into()
            })
        })
        .await
    }

    async fn read_ahead(&mut self) -> Result<()> {
        let mut ahead = std::mem::take(self.ahead);
        let read = self.read(usize::MAX, |bytes| ahead.extend_from_slice(bytes)).await;
        *self.ahead = ahead;
        read
    }

    /// Reads one whole frame, unmasked, into `payload`. Returns its opcode.
    pub async fn read_frame(&mut self, payload: &mut Vec<u8>) -> Result<u8> {
        loop {
            if let Some(head) = Head::parse(self.ahead) {
                let end = head.head_bytes + head.payload_bytes;
                if self.ahead.len() >= end {
                    payload.clear();
                    payload.extend_from_slice(&self.ahead[head.head_bytes..end]);
                    self.ahead.drain(..end);
                    if let Some(mask) = head.mask {
                        toggle_mask(payload, mask);
                    }
                    return Ok(head.opcode);
                }
            }
            self.read_ahead().await?;
        }
    }
}

/// The direction of a [`Wire`] that goes out.
pub struct Writer<'wire> {
    stream: WriteHalf<'wire>,
}

impl Writer<'_> {
    /// Writes all of `bytes`.
    pub async fn write(&mut self, mut bytes: &[u8]) -> Result<()> {
        while !bytes.is_empty() {
            let stream = &mut self.stream;
            let written =
                poll_fn(|context| Pin::new(&mut *stream).poll_write(context, bytes)).await?;
            bytes = &bytes[written..];
        }
        Ok(())
    }
}

/// The value of a field of `head`; `name` in lower case.
fn field<'head>(head: &'head str, name: &str) -> Option<&'head str> {
    head.split("\r\n").skip(1).find_map(|line| {
        let (found, value) = line.split_once(':')?;
        found.eq_ignore_ascii_case(name).then_some(value.trim())
    })
}

fn accept_of(key: &str) -> String {
    let digest = Sha1::new().chain_update(key).chain_update("258EAFA5-E914-47DA-95CA-C5AB0DC85B11");
    STANDARD.encode(digest.finalize())
}

thread_local! {
    /// One read buffer per thread: bulk payload is only counted, so no session keeps it.
    static SCRATCH: RefCell<Vec<u8>> = RefCell::new(vec![0; 256 * 1024]);
}
