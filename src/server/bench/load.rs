//! What is measured, for how long, and the other program's end of it.

use std::io::{self, BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::Duration;

use super::client::PATIENCE;
use super::summary::Sample;

/// Fewer say nothing about a spread.
const ROUNDS_MIN: usize = 3;

/// As much as all sessions together may have in a round trip.
const ROUND_TRIP_BYTES_MAX: usize = 8 << 20;

/// What the client does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Load {
    /// Sends a message of this size and waits for its echo.
    Echo {
        /// Bytes of a message.
        bytes: usize,
    },
    /// Writes without a pause, this much at a time.
    Bulk {
        /// Bytes of a write.
        bytes: usize,
    },
}

impl Load {
    /// Bytes of a message.
    pub fn bytes(self) -> usize {
        match self {
            Load::Echo { bytes } | Load::Bulk { bytes } => bytes,
        }
    }
}

/// How much is measured.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The lines of the table; echoes by size, upwards.
    pub loads: Vec<Load>,
    /// How often each line is measured, with every engine in turn.
    pub rounds: usize,
    /// How long all lines are to be measured together. Opening and warming sessions comes on top of it, so
    /// after half as much again no further round begins.
    pub length: Duration,
    /// Sessions that echo at a time.
    pub sessions: usize,
    /// Idle sessions whose memory is measured.
    pub idle: usize,
}

impl Plan {
    /// About ten seconds with two engines.
    pub fn new(sessions: usize) -> Plan {
        let sizes = [64, 256, 1 << 10, 4 << 10, 8 << 10, 16 << 10, 32 << 10, 64 << 10, 256 << 10];
        let sizes = sizes.into_iter().chain([1 << 20]);
        // One round trip of all sessions has to fit into a slice.
        let sizes = sizes.filter(|bytes| bytes * sessions <= ROUND_TRIP_BYTES_MAX);
        let mut loads: Vec<Load> = sizes.map(|bytes| Load::Echo { bytes }).collect();
        loads.push(Load::Bulk { bytes: 64 << 10 });
        Plan { loads, rounds: 7, length: Duration::from_secs(8), sessions, idle: 1000 }
    }

    /// A second of the same: it shows that all of it works, and no figure means anything.
    pub fn quick(sessions: usize) -> Plan {
        let mut loads: Vec<Load> =
            [64, 16 << 10, 1 << 20].map(|bytes| Load::Echo { bytes }).to_vec();
        loads.push(Load::Bulk { bytes: 64 << 10 });
        Plan { loads, rounds: 3, length: Duration::from_millis(600), sessions, idle: 50 }
    }

    /// Whether a further round may begin.
    pub(super) fn goes_on(&self, done: usize, took: Duration) -> bool {
        done < self.rounds && (done < ROUNDS_MIN || took < self.length + self.length / 2)
    }

    /// How long one engine has for one line in one round.
    pub(super) fn slice(&self, engines: usize) -> Duration {
        let slices = self.loads.len() * self.rounds * engines.max(1);
        self.length / u32::try_from(slices).unwrap_or(u32::MAX)
    }
}

/// The process of client and backend; ended when dropped.
#[derive(Debug)]
pub(super) struct Peers {
    child: Child,
    stdin: ChildStdin,
    lines: Receiver<String>,
    /// Where the backend listens.
    pub backend_port: u16,
}

impl Peers {
    /// Starts this program once more, as client and backend.
    pub fn start(cores: &[usize]) -> io::Result<Peers> {
        let mut child = Command::new("/proc/self/exe")
            .arg("bench-peers")
            .args(cores.iter().map(usize::to_string))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let stdin = child.stdin.take().expect("it was piped");
        let stdout = child.stdout.take().expect("it was piped");
        let (send, lines) = channel();
        let mut peers = Peers { child, stdin, lines, backend_port: 0 };
        thread::Builder::new().name("bench-lines".into()).spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                if send.send(line).is_err() {
                    return;
                }
            }
        })?;
        let [port] = peers.numbers("backend")?;
        peers.backend_port = u16::try_from(port).map_err(io::Error::other)?;
        Ok(peers)
    }

    /// Opens idle sessions through the gateway on `port`.
    pub fn hold(&mut self, port: u16, count: usize) -> io::Result<()> {
        self.tell(&format!("hold {port} {count}"))?;
        self.numbers::<0>("held").map(drop)
    }

    /// Closes them.
    pub fn release(&mut self, port: u16) -> io::Result<()> {
        self.tell(&format!("release {port}"))?;
        self.numbers::<0>("released").map(drop)
    }

    /// One measurement through the gateway on `port`, whose worker's time `clock` reads.
    pub fn measure(
        &mut self,
        port: u16,
        (load, sessions): (Load, usize),
        slice: Duration,
        clock: impl Fn() -> io::Result<Duration>,
    ) -> io::Result<Sample> {
        self.tell(&match load {
            Load::Echo { bytes } => format!("echo {port} {sessions} {bytes}"),
            Load::Bulk { bytes } => format!("bulk {port} {bytes}"),
        })?;
        self.numbers::<0>("ready")?;
        let before = clock()?;
        self.tell(&format!("go {}", slice.as_nanos()))?;
        let [messages, bytes, nanos, p50_nanos] = self.numbers("done")?;
        let cpu_nanos = u64::try_from((clock()? - before).as_nanos()).map_err(io::Error::other)?;
        Ok(Sample { cpu_nanos, messages, bytes, nanos, p50_nanos })
    }

    fn tell(&mut self, line: &str) -> io::Result<()> {
        writeln!(self.stdin, "{line}")
    }

    /// The numbers in the next line, which has to begin with `word`.
    fn numbers<const N: usize>(&mut self, word: &str) -> io::Result<[u64; N]> {
        let line = self.lines.recv_timeout(2 * PATIENCE).map_err(|error| {
            io::Error::other(format!("client and backend do not answer ({error})"))
        })?;
        let mut words = line.split(' ');
        let first = words.next();
        let numbers: Option<Vec<u64>> = words.map(|word| word.parse().ok()).collect();
        let numbers = numbers.and_then(|numbers| numbers.try_into().ok());
        numbers.filter(|_| first == Some(word)).ok_or_else(|| {
            io::Error::other(format!("client and backend answer {line:?} instead of {word:?}"))
        })
    }
}

impl Drop for Peers {
    fn drop(&mut self) {
        // Both fail when it has ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
