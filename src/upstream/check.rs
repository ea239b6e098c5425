//! One health check: a connect, or a GET whose status counts.

use std::io;
use std::net::IpAddr;

use tokio::io::Interest;
use tokio::net::{TcpStream, UnixStream};

use super::endpoint::Address;
use crate::config::upstreams::Health;
use crate::sys::net::{Target, TcpOptions, start_connect};

/// What is read of an answer at most: its first line is within.
const ANSWER_MAX: usize = 1024;

/// Options of a connection that ends at once.
const PLAIN: TcpOptions = TcpOptions {
    nodelay: true,
    keepalive: None,
    keepalive_interval: std::time::Duration::ZERO,
    keepalive_probes: 0,
    user_timeout: None,
};

/// A connection of this thread's runtime.
enum Socket {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Socket {
    /// Begins to connect.
    fn start(address: &Address, source: Option<IpAddr>) -> io::Result<Socket> {
        match address {
            Address::Tcp(to) => {
                let socket = start_connect(Target::Tcp(*to, &PLAIN), source)?;
                TcpStream::from_std(socket.into()).map(Socket::Tcp)
            }
            Address::Unix(path) => {
                let socket = start_connect(Target::Unix(path), None)?;
                UnixStream::from_std(socket.into()).map(Socket::Unix)
            }
        }
    }

    async fn ready(&self, interest: Interest) -> io::Result<()> {
        match self {
            Socket::Tcp(socket) => socket.ready(interest).await,
            Socket::Unix(socket) => socket.ready(interest).await,
        }
        .map(drop)
    }

    /// The error that is pending, such as that of a connect.
    fn take_error(&self) -> io::Result<()> {
        let error = match self {
            Socket::Tcp(socket) => socket.take_error()?,
            Socket::Unix(socket) => socket.take_error()?,
        };
        error.map_or(Ok(()), Err)
    }

    fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Socket::Tcp(socket) => socket.try_write(bytes),
            Socket::Unix(socket) => socket.try_write(bytes),
        }
    }

    fn try_read(&self, bytes: &mut [u8]) -> io::Result<usize> {
        match self {
            Socket::Tcp(socket) => socket.try_read(bytes),
            Socket::Unix(socket) => socket.try_read(bytes),
        }
    }
}

/// Whether the endpoint passes, and if not, why. The caller bounds the time.
pub async fn check(address: &Address, source: Option<IpAddr>, health: &Health) -> io::Result<()> {
    let socket = Socket::start(address, source)?;
    socket.ready(Interest::WRITABLE).await?;
    socket.take_error()?;
    let Some(path) = &health.path else { return Ok(()) };
    let answer = ask(&socket, path, address).await?;
    let (from, to) = health.status;
    match status(&answer) {
        Some(status) if (from..=to).contains(&status) => Ok(()),
        Some(status) => Err(io::Error::other(format!("it answers {status}"))),
        None => Err(io::Error::other("its answer is not HTTP/1")),
    }
}

/// Sends a GET; the beginning of what comes back, its first line at least, unless it ends before.
async fn ask(socket: &Socket, path: &str, address: &Address) -> io::Result<Vec<u8>> {
    let host = match address {
        Address::Tcp(address) => address.to_string(),
        Address::Unix(_) => "localhost".to_owned(),
    };
    let request = format!(
        "GET {path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: upsplice-health\r\nConnection: close\r\n\r\n"
    );
    // A fresh socket takes so little at once.
    if socket.try_write(request.as_bytes())? < request.len() {
        return Err(io::ErrorKind::WriteZero.into());
    }
    let mut answer = Vec::new();
    while !answer.contains(&b'\n') && answer.len() < ANSWER_MAX {
        socket.ready(Interest::READABLE).await?;
        let mut chunk = [0; ANSWER_MAX];
        match socket.try_read(&mut chunk) {
            Ok(0) => break,
            Ok(read) => answer.extend_from_slice(&chunk[..read]),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
    Ok(answer)
}

/// The status of an answer that begins so.
fn status(answer: &[u8]) -> Option<u16> {
    let rest = answer.strip_prefix(b"HTTP/1.")?;
    let digits = rest.get(2..5).filter(|_| rest[1] == b' ')?;
    let ends = matches!(rest.get(5), Some(b' ' | b'\r' | b'\n'));
    str::from_utf8(digits).ok().filter(|_| ends)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_is_three_digits_behind_the_version() {
        for (answer, wanted) in [
            (&b"HTTP/1.1 204 No Content\r\n\r\n"[..], Some(204)),
            (b"HTTP/1.0 503\r\n", Some(503)),
            (b"HTTP/1.1 2000 OK\r\n", None),
            (b"HTTP/1.1 200", None),
            (b"HTTP/2 200 OK\r\n", None),
            (b"SSH-2.0-OpenSSH\r\n", None),
            (b"", None),
        ] {
            assert_eq!(status(answer), wanted, "{:?}", String::from_utf8_lossy(answer));
        }
    }
}
