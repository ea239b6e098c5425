//! A WebSocket echo server on loopback, blocking, one thread for each connection.
//!
//! It is the upstream of the demo and a backend for tests; it is not built for load. Every thread ends:
//! a connection that says nothing is pinged, one that stays mute is closed, and stopping shuts the
//! sockets down, which wakes whoever waits on them.

use std::collections::HashMap;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle, Scope};
use std::time::Duration;

use socket2::SockRef;
use tungstenite::error::{CapacityError, Error};
use tungstenite::protocol::frame::coding::CloseCode;
use tungstenite::protocol::{CloseFrame, WebSocket, WebSocketConfig};
use tungstenite::{Bytes, Message};

/// What one [`EchoBackend`] puts up with.
#[derive(Clone, Copy, Debug)]
pub struct EchoLimits {
    /// Connections at the same time; one more is answered 503. Default 64.
    pub connections_max: usize,
    /// The largest message that is echoed; a larger one ends its connection with 1009. Default 16 MiB.
    pub message_bytes_max: usize,
    /// Silence before a ping, and again before the connection is given up. Default 20 s.
    pub ping_interval: Duration,
}

impl Default for EchoLimits {
    fn default() -> EchoLimits {
        EchoLimits {
            connections_max: 64,
            message_bytes_max: 16 << 20,
            ping_interval: Duration::from_secs(20),
        }
    }
}

/// An echo server that runs until it is stopped or dropped.
///
/// Its threads are called `echo-PORT`, so that they can be told apart in a thread list.
#[derive(Debug)]
pub struct EchoBackend {
    shared: Arc<Shared>,
    address: SocketAddr,
    /// `None` exactly when it has been stopped.
    acceptor: Option<JoinHandle<()>>,
}

impl EchoBackend {
    /// Starts on a loopback port that the kernel chooses. It accepts when this returns.
    pub fn start() -> io::Result<EchoBackend> {
        EchoBackend::with_limits(EchoLimits::default())
    }

    /// Starts with other limits than the default.
    pub fn with_limits(limits: EchoLimits) -> io::Result<EchoBackend> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared {
            listener,
            thread_name: format!("echo-{}", address.port()),
            limits,
            stopping: AtomicBool::new(false),
            connections: Mutex::default(),
        });
        let acceptor = thread::Builder::new().name(shared.thread_name.clone()).spawn({
            let shared = Arc::clone(&shared);
            move || shared.accept_until_stopped()
        })?;
        Ok(EchoBackend { shared, address, acceptor: Some(acceptor) })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Closes every connection and returns when all threads have ended. Dropping does the same.
    pub fn stop(mut self) {
        self.end();
    }

    fn end(&mut self) {
        let Some(acceptor) = self.acceptor.take() else { return };
        self.shared.stopping.store(true, Ordering::SeqCst);
        // On Linux this wakes a blocked accept(2) with EINVAL, and needs no descriptor to do so. The
        // only error is ENOTCONN, for a socket that has been shut down already.
        let _ = SockRef::from(&self.shared.listener).shutdown(Shutdown::Both);
        // A panic of a connection's thread was printed when it happened.
        let _ = acceptor.join();
    }
}

impl Drop for EchoBackend {
    fn drop(&mut self) {
        self.end();
    }
}

/// What the acceptor and the threads of the connections share.
#[derive(Debug)]
struct Shared {
    listener: TcpListener,
    thread_name: String,
    limits: EchoLimits,
    stopping: AtomicBool,
    /// The open connections, by a number of their own. Only the acceptor inserts.
    connections: Mutex<HashMap<u64, Arc<TcpStream>>>,
}

impl Shared {
    fn accept_until_stopped(&self) {
        thread::scope(|scope| {
            for number in 0.. {
                let accepted = self.listener.accept();
                if self.stopping.load(Ordering::SeqCst) {
                    break;
                }
                match accepted {
                    Ok((stream, _)) => self.admit(scope, number, stream),
                    // Out of descriptors or memory, most likely: the connection stays in the backlog,
                    // so another try at once would only spin.
                    Err(_) => thread::park_timeout(Duration::from_millis(50)),
                }
            }
            for stream in self.open().values() {
                let _ = stream.shutdown(Shutdown::Both);
            }
        });
    }

    fn admit<'scope>(
        &'scope self,
        scope: &'scope Scope<'scope, '_>,
        number: u64,
        stream: TcpStream,
    ) {
        if self.open().len() >= self.limits.connections_max {
            return refuse(&stream);
        }
        let stream = Arc::new(stream);
        self.open().insert(number, Arc::clone(&stream));
        let leave = Leave { shared: self, number };
        // Without a thread there is nobody to serve it: the closure is dropped, and `leave` with it.
        let _ =
            thread::Builder::new().name(self.thread_name.clone()).spawn_scoped(scope, move || {
                let _leave = leave;
                serve(&stream, &self.limits);
            });
    }

    fn open(&self) -> MutexGuard<'_, HashMap<u64, Arc<TcpStream>>> {
        // Every change under this lock is one call, so a panic elsewhere cannot leave it half done.
        self.connections.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Takes a connection off the list when its thread ends, however it ends.
struct Leave<'a> {
    shared: &'a Shared,
    number: u64,
}

impl Drop for Leave<'_> {
    fn drop(&mut self) {
        self.shared.open().remove(&self.number);
    }
}

/// Answers 503. The request is read first: closing over unread bytes would reset the connection and
/// could take the answer along.
fn refuse(mut stream: &TcpStream) {
    let _ = stream.set_read_timeout(Some(Duration::from_millis(100)));
    let _ = stream.set_write_timeout(Some(Duration::from_millis(100)));
    let _ = stream.read(&mut [0; 8192]);
    let _ = stream.write_all(
        b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
    );
}

/// Echoes until either side has closed. Errors end the connection and concern nobody else.
fn serve(stream: &TcpStream, limits: &EchoLimits) {
    let config = WebSocketConfig::default()
        .read_buffer_size(64 << 10)
        .max_message_size(Some(limits.message_bytes_max))
        .max_frame_size(Some(limits.message_bytes_max));
    let prepared = stream
        .set_nodelay(true)
        .and_then(|()| stream.set_read_timeout(Some(limits.ping_interval)))
        .and_then(|()| stream.set_write_timeout(Some(WRITE_TIMEOUT)));
    if prepared.is_err() {
        return;
    }
    let Ok(mut socket) = tungstenite::accept_with_config(stream, Some(config)) else { return };
    let code = match echo(&mut socket) {
        Error::Capacity(CapacityError::MessageTooLong { .. }) => CloseCode::Size,
        Error::Utf8(_) => CloseCode::Invalid,
        Error::Protocol(_) => CloseCode::Protocol,
        _ => return,
    };
    let frame = CloseFrame { code, reason: "".into() };
    if socket.close(Some(frame)).and_then(|()| socket.flush()).is_ok() {
        linger(stream, limits.message_bytes_max);
    }
}

/// Sends every message back; returns why it stopped, which is never success: tungstenite reports a
/// proper close as [`Error::ConnectionClosed`].
fn echo(socket: &mut WebSocket<&TcpStream>) -> Error {
    let mut pinged = false;
    loop {
        let step = match socket.read() {
            Ok(message) => {
                pinged = false;
                match message {
                    Message::Text(_) | Message::Binary(_) => socket.send(message),
                    // Pongs and the answer to a close are queued by `read`; they go out here, not
                    // when the next message arrives.
                    _ => socket.flush(),
                }
            }
            // The read timeout: nothing, or not yet a whole message, arrived for one interval.
            Err(Error::Io(error)) if is_timeout(&error) && !pinged => {
                pinged = true;
                socket.send(Message::Ping(Bytes::new()))
            }
            Err(error) => return error,
        };
        if let Err(error) = step {
            return error;
        }
    }
}

fn is_timeout(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut)
}

/// Lets the peer read the close frame: what it still sends is thrown away, up to `bytes_max` and
/// [`LINGER`] of silence, because closing over unread bytes would reset the connection.
fn linger(mut stream: &TcpStream, bytes_max: usize) {
    let _ = stream.shutdown(Shutdown::Write);
    let _ = stream.set_read_timeout(Some(LINGER));
    let mut scratch = [0; 8192];
    let mut dropped = 0;
    while dropped < bytes_max {
        match stream.read(&mut scratch) {
            Ok(0) | Err(_) => return,
            Ok(count) => dropped += count,
        }
    }
}

/// How long a client may refuse to read its echo.
const WRITE_TIMEOUT: Duration = Duration::from_secs(60);

const LINGER: Duration = Duration::from_secs(2);
