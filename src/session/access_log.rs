//! One JSON line per session end, written by a thread of its own: a slow reader of stdout must not
//! hold up a worker.

use std::convert::Infallible;
use std::io::{self, Write};
use std::sync::mpsc::{Receiver, Sender, SyncSender, TrySendError, channel, sync_channel};
use std::thread;
use std::time::Duration;

/// Where the lines go.
#[derive(Clone, Debug)]
pub enum AccessLog {
    /// Nowhere.
    Off,
    /// Standard output.
    Stdout,
    /// A channel, line by line: for a program that has the gateway inside.
    Channel(Sender<String>),
}

/// Lines that may wait for the writer; past it lines are dropped and counted.
const LINES_MAX: usize = 8192;

/// How long lines wait for others, and how much is written at once.
const COLLECT: Duration = Duration::from_millis(10);
const WRITE_BYTES: usize = 1 << 20;

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
#[derive(Debug)]
pub struct LogWriter(Option<Receiver<Infallible>>);

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
    /// Starts the writer where one is needed.
    pub fn start(log: AccessLog) -> io::Result<(LogSender, LogWriter)> {
        Ok(match log {
            AccessLog::Off => (LogSender(Target::Off), LogWriter(None)),
            AccessLog::Channel(channel) => (LogSender(Target::Channel(channel)), LogWriter(None)),
            AccessLog::Stdout => {
                let (sender, lines) = sync_channel(LINES_MAX);
                let (writing, written) = channel::<Infallible>();
                thread::Builder::new().name("access-log".into()).spawn(move || {
                    let _writing = writing;
                    write(&lines);
                })?;
                (LogSender(Target::Writer(sender)), LogWriter(Some(written)))
            }
        })
    }

    /// Waits until all lines are written; every [`LogSender`] must be gone. Gives up when the reader of
    /// stdout takes nothing: a process that was told to stop must not hang on a stopped pager.
    pub fn join(self) {
        if let Some(written) = self.0 {
            // Nothing is ever sent: the thread drops its end when it is through.
            let _ = written.recv_timeout(FLUSH_MAX);
        }
    }
}

fn write(lines: &Receiver<String>) {
    let mut out = io::stdout().lock();
    while let Ok(line) = lines.recv() {
        let mut text = line;
        // Lines are collected for a moment: a wake-up and a write per line would cost more than the lines.
        thread::sleep(COLLECT);
        while let Ok(more) = lines.try_recv() {
            text.push('\n');
            text.push_str(&more);
            if text.len() > WRITE_BYTES {
                break;
            }
        }
        text.push('\n');
        if out.write_all(text.as_bytes()).and_then(|()| out.flush()).is_err() {
            // The reader of stdout is gone. Go on taking lines, so that none pile up.
            for _ in lines {}
            return;
        }
    }
}
