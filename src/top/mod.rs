//! `upsplice top`: a running gateway, watched from a terminal.
//!
//! A [`sample`] is what the admin API says at one moment, two of them are [`figures`], figures are [`lines`] and a
//! [`report`], or with keys a [`state`], which is [drawn](draw). All of that is decided without a socket or a terminal;
//! [`ask`] has the one, [`screen`] the other, [`watch`] both.

pub mod ask;
#[cfg(feature = "top")]
pub mod columns;
#[cfg(feature = "top")]
pub mod draw;
pub mod exposition;
pub mod figures;
pub mod lines;
pub mod report;
pub mod sample;
#[cfg(feature = "top")]
pub mod screen;
#[cfg(feature = "top")]
pub mod state;
#[cfg(feature = "top")]
pub mod watch;

use std::io::{self, ErrorKind, Write};
use std::thread;
use std::time::{Duration, Instant};

use self::ask::Asker;
use self::figures::Tracker;
use crate::admin::client::Failed;
pub(crate) use crate::admin::print::plain;

/// How figures are shown where there is no screen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// Text for people.
    Text,
    /// One object per line.
    Json,
}

/// Why there is nothing more to see.
#[derive(Debug)]
pub enum Ended {
    /// The gateway does not answer, or not as it should.
    Failed(Failed),
    /// The terminal, or whoever reads.
    Io(io::Error),
}

impl From<Failed> for Ended {
    fn from(failed: Failed) -> Ended {
        Ended::Failed(failed)
    }
}

impl From<io::Error> for Ended {
    fn from(error: io::Error) -> Ended {
        Ended::Io(error)
    }
}

/// One interval on stdout.
///
/// # Errors
///
/// See [`Ended`].
pub fn once(asker: &Asker, interval: Duration, form: Form) -> Result<(), Ended> {
    let mut tracker = Tracker::default();
    tracker.take(asker.sample()?);
    thread::sleep(interval);
    let figures = tracker.take(asker.sample()?);
    let text = match form {
        Form::Text => report::text(&figures),
        Form::Json => format!("{}\n", report::json(&figures)),
    };
    print(&text)?;
    Ok(())
}

/// One JSON object per interval on stdout, until nobody reads them any more. A gateway that goes away may come back.
///
/// # Errors
///
/// See [`Ended`]; of the gateway only what it says at first.
pub fn stream(asker: &Asker, interval: Duration) -> Result<(), Ended> {
    let mut tracker = Tracker::default();
    tracker.take(asker.sample()?);
    let mut next = Instant::now();
    loop {
        // An answer that was late is no reason to ask twice at once.
        next = (next + interval).max(Instant::now());
        thread::sleep(next.saturating_duration_since(Instant::now()));
        let line = match asker.sample() {
            Ok(sample) => report::json(&tracker.take(sample)),
            Err(failed) => report::untold(&failed),
        };
        if !print(&format!("{line}\n"))? {
            return Ok(());
        }
    }
}

/// False when nobody reads any more, which is no failure.
fn print(text: &str) -> io::Result<bool> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(false),
        done => done.map(|()| true),
    }
}
