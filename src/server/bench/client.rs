//! The other program of the bench: client and backend in a process of their own, so that neither their
//! memory nor their CPU time is counted as the gateway's.
//!
//! It obeys lines on stdin and answers each with one line on stdout; it ends with stdin.
//!
//! | told | answers |
//! | --- | --- |
//! | `hold PORT COUNT` | `held` when as many sessions are open |
//! | `release PORT` | `released` when they are closed |
//! | `echo PORT SESSIONS SIZE`, `bulk PORT SIZE` | `ready` when sessions are open and warm |
//! | `go NANOS` | `done MESSAGES BYTES NANOS P50`, where BYTES came back, or arrived |

use std::io::{self, BufRead, Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpStream};
use std::time::{Duration, Instant};

use super::backend::{self, PROTOCOL};
use super::load::Load;
use crate::sys::net::raise_nofile_limit;
use crate::sys::thread::keep_to;

/// How long a byte may take. Nothing in a bench lasts longer than that without an answer.
pub(super) const PATIENCE: Duration = Duration::from_secs(5);

/// Messages before a measurement: windows have opened, pages are there.
const WARM_UP: usize = 4;

/// Serves until stdin ends. With `cores`: the client keeps to the first, the backend to the second.
///
/// # Errors
///
/// A session broke, or a line was none of the table's.
pub fn serve(cores: &[usize]) -> io::Result<()> {
    // With fewer descriptors fewer sessions are asked for.
    let _ = raise_nofile_limit();
    let backend = backend::start(cores.get(1).copied())?;
    if let Some(&core) = cores.first() {
        let _ = keep_to(&[core]);
    }
    println!("backend {}", backend.port());
    let mut held = Vec::new();
    let mut ready: Option<Session> = None;
    for line in io::stdin().lock().lines() {
        let line = line?;
        let words: Vec<&str> = line.split(' ').collect();
        let number = |index: usize| words.get(index)?.parse::<usize>().ok();
        let unknown = || io::Error::other(format!("{line:?} is not understood"));
        let port = u16::try_from(number(1).ok_or_else(unknown)? % 65_536).map_err(io::Error::other);
        let answer = match (words[0], number(2), number(3)) {
            ("hold", Some(count), _) => {
                let port = port?;
                for _ in 0..count {
                    held.push(open(port, "/hold")?);
                }
                "held".to_owned()
            }
            ("release", ..) => {
                held.clear();
                drop(open(port?, "/release")?);
                "released".to_owned()
            }
            ("echo", Some(sessions), Some(size)) => {
                ready = Some(Session::open(port?, Load::Echo { bytes: size }, sessions)?);
                "ready".to_owned()
            }
            ("bulk", Some(size), _) => {
                ready = Some(Session::open(port?, Load::Bulk { bytes: size }, 1)?);
                "ready".to_owned()
            }
            ("go", ..) => {
                let nanos = number(1).ok_or_else(unknown)? as u64;
                ready.take().ok_or_else(unknown)?.run(Duration::from_nanos(nanos))?
            }
            _ => return Err(unknown()),
        };
        println!("{answer}");
    }
    Ok(())
}

/// Open connections of one load.
struct Session {
    load: Load,
    streams: Vec<TcpStream>,
    message: Vec<u8>,
}

impl Session {
    fn open(port: u16, load: Load, sessions: usize) -> io::Result<Session> {
        let path = match load {
            Load::Echo { bytes } => format!("/echo/{bytes}"),
            Load::Bulk { .. } => "/sink".to_owned(),
        };
        let streams: io::Result<Vec<_>> = (0..sessions).map(|_| open(port, &path)).collect();
        let mut session = Session { load, streams: streams?, message: vec![0x5a; load.bytes()] };
        if let Load::Echo { .. } = load {
            for _ in 0..WARM_UP {
                session.round_trips()?;
            }
        }
        Ok(session)
    }

    /// One message to every session, then all the echoes: with one session that is ping-pong.
    fn round_trips(&mut self) -> io::Result<()> {
        for stream in &mut self.streams {
            stream.write_all(&self.message)?;
        }
        for stream in &mut self.streams {
            stream.read_exact(&mut self.message)?;
        }
        Ok(())
    }

    fn run(mut self, length: Duration) -> io::Result<String> {
        let began = Instant::now();
        let (messages, bytes, p50) = match self.load {
            Load::Echo { bytes } => {
                let mut times = Vec::new();
                let mut last = began;
                while last - began < length {
                    self.round_trips()?;
                    let now = Instant::now();
                    times.push((now - last).as_nanos());
                    last = now;
                }
                times.sort_unstable();
                let messages = times.len() * self.streams.len();
                (messages, (messages * bytes) as u64, times[times.len() / 2])
            }
            Load::Bulk { .. } => {
                let mut messages = 0;
                let stream = &mut self.streams[0];
                while began.elapsed() < length {
                    stream.write_all(&self.message)?;
                    messages += 1;
                }
                stream.shutdown(Shutdown::Write)?;
                let mut count = [0; 8];
                stream.read_exact(&mut count)?;
                (messages, u64::from_be_bytes(count), 0)
            }
        };
        Ok(format!("done {messages} {bytes} {} {p50}", began.elapsed().as_nanos()))
    }
}

/// One session through the gateway on `port`.
fn open(port: u16, path: &str) -> io::Result<TcpStream> {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let head = format!(
        "GET {path} HTTP/1.1\r\nHost: bench\r\nConnection: upgrade\r\nUpgrade: {PROTOCOL}\r\n\r\n"
    );
    stream.write_all(head.as_bytes())?;
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte)?;
        answer.push(byte[0]);
    }
    if answer.starts_with(b"HTTP/1.1 101 ") {
        return Ok(stream);
    }
    let answer = String::from_utf8_lossy(&answer);
    Err(io::Error::other(format!("no session: {}", answer.lines().next().unwrap_or_default())))
}
