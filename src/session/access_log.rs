//! One JSON line per session end, written by a thread of its own: neither a slow reader of stdout nor a full disk
//! may hold up a worker. What cannot be written waits, as far as there is room; then lines are dropped and counted.

use std::convert::Infallible;
use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, SyncSender, TrySendError, channel, sync_channel};
use std::thread;
use std::time::Duration;

use tracing::{info, warn};

use super::log_file::{Batch, LogFile};
use crate::metrics::Counters;

/// Where the lines go.
#[derive(Clone, Debug)]
pub enum AccessLog {
    /// Nowhere.
    Off,
    /// Standard output.
    Stdout,
    /// A file, which others may rename, remove or truncate.
    File(PathBuf),
    /// A channel, line by line: for a program that has the gateway inside.
    Channel(Sender<String>),
}

/// Lines that may wait for the writer; past it lines are dropped and counted.
const LINES_MAX: usize = 8192;

/// How long lines wait for others, and how much is written at once.
const COLLECT: Duration = Duration::from_millis(10);
const WRITE_BYTES: usize = 1 << 20;

/// How long a file that could not be written is left alone.
const RETRY: Duration = Duration::from_millis(200);

/// A worker's way to the log.
#[derive(Clone, Debug)]
pub struct LogSender(Target);

#[derive(Clone, Debug)]
enum Target {
    Off,
    Writer(SyncSender<String>),
    Channel(Sender<String>),
}

/// How long the end of the gateway waits for a reader of stdout that does not read.
const FLUSH_MAX: Duration = Duration::from_secs(5);

/// The writing thread; ends when the last [`LogSender`] is gone.
#[derive(Debug, Default)]
pub struct LogWriter {
    written: Option<Receiver<Infallible>>,
    /// Says to the thread that what cannot be written need not be tried again.
    closing: Arc<AtomicBool>,
}

/// Where the thread writes.
enum Out {
    Stdout,
    File(LogFile),
}

/// The thread at work.
struct Writing {
    out: Out,
    /// The thread is the only one that counts failed writes here.
    counters: Arc<Counters>,
    closing: Arc<AtomicBool>,
    is_failing: bool,
}

impl LogSender {
    /// Whether lines are wanted at all.
    pub fn is_on(&self) -> bool {
        !matches!(self.0, Target::Off)
    }

    /// Hands over one line without its newline; false when it was dropped.
    pub fn send(&self, line: String) -> bool {
        match &self.0 {
            Target::Off => true,
            Target::Writer(writer) => !matches!(writer.try_send(line), Err(TrySendError::Full(_))),
            // A receiver that is gone wants no more lines.
            Target::Channel(channel) => {
                let _ = channel.send(line);
                true
            }
        }
    }
}

impl LogWriter {
    /// Starts the writer where one is needed. Of `counters` it is the only one to count failed writes.
    ///
    /// # Errors
    ///
    /// The file cannot be opened, or there is no thread.
    pub fn start(log: AccessLog, counters: Arc<Counters>) -> io::Result<(LogSender, LogWriter)> {
        let out = match log {
            AccessLog::Off => return Ok((LogSender(Target::Off), LogWriter::default())),
            AccessLog::Channel(channel) => {
                return Ok((LogSender(Target::Channel(channel)), LogWriter::default()));
            }
            AccessLog::Stdout => Out::Stdout,
            AccessLog::File(path) => Out::File(LogFile::open(&path).map_err(|error| {
                let path = path.display();
                io::Error::new(error.kind(), format!("access_log: cannot open {path}: {error}"))
            })?),
        };
        let closing = Arc::<AtomicBool>::default();
        let (sender, lines) = sync_channel(LINES_MAX);
        let (writing, written) = channel::<Infallible>();
        let thread = Writing { out, counters, closing: Arc::clone(&closing), is_failing: false };
        thread::Builder::new().name("access-log".into()).spawn(move || {
            let _writing = writing;
            thread.run(&lines);
        })?;
        Ok((LogSender(Target::Writer(sender)), LogWriter { written: Some(written), closing }))
    }

    /// Waits until all lines are written; every [`LogSender`] must be gone. Gives up when the reader of
    /// stdout takes nothing, or the disk: a process that was told to stop must not hang on a stopped pager.
    pub fn join(mut self) {
        self.closing.store(true, Ordering::Relaxed);
        if let Some(written) = self.written.take() {
            // Nothing is ever sent: the thread drops its end when it is through.
            let _ = written.recv_timeout(FLUSH_MAX);
        }
    }
}

impl Drop for LogWriter {
    fn drop(&mut self) {
        self.closing.store(true, Ordering::Relaxed);
    }
}

impl Writing {
    fn run(mut self, lines: &Receiver<String>) {
        let mut batch = Batch::default();
        while let Ok(line) = lines.recv() {
            batch.push(&line);
            // Lines are collected for a moment: a wake-up and a write per line would cost more than the lines.
            thread::sleep(COLLECT);
            while batch.left().len() < WRITE_BYTES
                && let Ok(more) = lines.try_recv()
            {
                batch.push(&more);
            }
            while let Err(error) = self.out.write(&mut batch) {
                if !self.goes_on_after(&error) {
                    // Go on taking lines, so that none pile up.
                    for _ in lines {}
                    return;
                }
                thread::sleep(RETRY);
            }
            if std::mem::take(&mut self.is_failing) {
                info!("the access log is written again");
            }
        }
    }

    /// Counts a failed write, says so once, and whether another may do better.
    fn goes_on_after(&mut self, error: &io::Error) -> bool {
        self.counters.log_write_failures.add(1);
        if !std::mem::replace(&mut self.is_failing, true) {
            warn!("the access log cannot be written: {error}; lines wait, and then are dropped");
        }
        // A reader of stdout that is gone does not come back.
        matches!(self.out, Out::File(_)) && !self.closing.load(Ordering::Relaxed)
    }
}

impl Out {
    fn write(&mut self, batch: &mut Batch) -> io::Result<()> {
        match self {
            Out::Stdout => {
                let mut stdout = io::stdout().lock();
                batch.write_to(&mut stdout).and_then(|()| stdout.flush())
            }
            Out::File(file) => file.append(batch),
        }
    }
}
