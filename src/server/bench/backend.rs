//! The backend of the bench: it grants its own protocol and does what the path says.
//!
//! A path names the load: `/hold` keeps the connection and reads nothing, `/echo/SIZE` sends every message
//! of SIZE bytes back once it is whole, `/sink` counts bytes and says at the end how many there were.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::thread;

use super::client::PATIENCE;
use crate::sys::thread::keep_to;

/// The protocol of the bench; only its own client asks for it.
pub(super) const PROTOCOL: &str = "upsplice-bench";

/// As much as a head of the bench can be.
const HEAD_BYTES_MAX: usize = 4096;

/// Listens on loopback, in a thread of its own for as long as the process lives; says where.
pub(super) fn start(core: Option<usize>) -> io::Result<SocketAddr> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let address = listener.local_addr()?;
    thread::Builder::new().name("bench-backend".into()).spawn(move || {
        if let Some(core) = core {
            // Then it runs anywhere: less exact, no reason to end.
            let _ = keep_to(&[core]);
        }
        let mut held = Vec::new();
        for stream in listener.incoming().flatten() {
            // What fails here fails in the client, too, which is the one that says so.
            let _ = serve(stream, &mut held);
        }
    })?;
    Ok(address)
}

/// Idle sessions take no thread: their number is only bounded by descriptors.
fn serve(mut stream: TcpStream, held: &mut Vec<TcpStream>) -> io::Result<()> {
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let path = read_path(&mut stream)?;
    let grant = format!(
        "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: {PROTOCOL}\r\n\r\n"
    );
    stream.write_all(grant.as_bytes())?;
    let size = path.strip_prefix("/echo/").and_then(|size| size.parse().ok());
    match (path.as_str(), size) {
        ("/hold", _) => held.push(stream),
        ("/release", _) => held.clear(),
        (_, Some(size)) => spawn(move || echo(stream, size))?,
        _ => spawn(move || sink(stream))?,
    }
    Ok(())
}

fn spawn(work: impl FnOnce() -> io::Result<()> + Send + 'static) -> io::Result<()> {
    // An error is the end of the connection, which the client sees.
    thread::Builder::new().name("bench-backend".into()).spawn(|| drop(work()))?;
    Ok(())
}

/// Byte by byte: nothing behind the head may be taken.
fn read_path(stream: &mut TcpStream) -> io::Result<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte)?;
        head.push(byte[0]);
        if head.len() > HEAD_BYTES_MAX {
            return Err(io::ErrorKind::InvalidData.into());
        }
    }
    let head = String::from_utf8_lossy(&head);
    Ok(head.split(' ').nth(1).unwrap_or_default().to_owned())
}

fn echo(mut stream: TcpStream, size: usize) -> io::Result<()> {
    let mut message = vec![0; size];
    loop {
        stream.read_exact(&mut message)?;
        stream.write_all(&message)?;
    }
}

fn sink(mut stream: TcpStream) -> io::Result<()> {
    let mut buffer = vec![0; 256 << 10];
    let mut count = 0_u64;
    loop {
        match stream.read(&mut buffer)? {
            0 => return stream.write_all(&count.to_be_bytes()),
            bytes => count += bytes as u64,
        }
    }
}
