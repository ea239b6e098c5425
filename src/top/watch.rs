//! The screen while it lives: one thread asks, one reads keys, one waits for signals, and this one draws.

use std::future::poll_fn;
use std::io;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::task::Poll;
use std::thread;
use std::time::{Duration, Instant};

use ratatui::crossterm::event::{self, KeyEvent};
use serde_json::Value;
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::Ended;
use super::ask::Asker;
use super::draw::Colours;
use super::sample::Sample;
use super::screen::Screen;
use super::state::{Command, State};
use crate::admin::client::Failed;
use crate::admin::print;

/// How often a frame is drawn when nothing happens, so that a silence shows.
const TICK: Duration = Duration::from_secs(1);
/// An answer that is later than the interval and this is missed.
const LATE: Duration = Duration::from_secs(2);

enum Event {
    Sampled(Result<Sample, Failed>),
    Facts(String, Result<Value, Failed>),
    Killed(String, Result<Value, Failed>),
    Key(KeyEvent),
    /// The terminal has another size.
    Resized,
    Signal,
    /// A thread has ended; why, when it knows.
    Ended(&'static str, Option<io::Error>),
}

/// Watches until a key or a signal ends it.
///
/// # Errors
///
/// See [`Ended`]; of the gateway only what it says at first, before there is a screen.
pub fn watch(asker: Asker, interval: Duration, colours: Colours) -> Result<(), Ended> {
    let mut state = State::default();
    state.take(asker.sample()?);
    let (send, events) = channel();
    // From here on a signal may not end the process before the terminal is given back.
    listen(send.clone())?;
    let mut screen = Screen::open(colours)?;
    screen.show(&state)?;
    let (ask, asked) = channel();
    start("keys", send.clone(), read_keys)?;
    start("asker", send, move |send| {
        answer(&asker, interval, &asked, send);
        Ok(())
    })?;
    let mut answered = Instant::now();
    loop {
        let first = match events.recv_timeout(TICK) {
            Ok(event) => Some(event),
            Err(RecvTimeoutError::Timeout) => None,
            Err(RecvTimeoutError::Disconnected) => return Ok(()),
        };
        for event in first.into_iter().chain(events.try_iter()) {
            if let Event::Sampled(_) = event {
                answered = Instant::now();
            }
            match take(&mut state, event)? {
                Some(Command::Quit) => return Ok(()),
                // Who does not ask any more has said so.
                Some(command) => drop(ask.send(command)),
                None => {}
            }
        }
        let silence = answered.elapsed();
        state.silent = (silence > interval + LATE).then_some(silence.as_secs());
        screen.show(&state)?;
    }
}

/// What an event makes of the state.
fn take(state: &mut State, event: Event) -> Result<Option<Command>, Ended> {
    match event {
        Event::Sampled(Ok(sample)) => state.take(sample),
        Event::Sampled(Err(failed)) => state.fail(&match failed {
            Failed::NoGateway { .. } => format!("gone: {failed}"),
            Failed::NotFound(_) | Failed::Refused(_) => format!("not told: {failed}"),
        }),
        Event::Facts(id, Ok(facts)) => state.show(&id, &print::facts(&facts)),
        Event::Facts(id, Err(failed)) => state.show(&id, &failed.to_string()),
        Event::Killed(id, Ok(_)) => state.notify(&format!("{id} is told to end")),
        Event::Killed(_, Err(failed)) => state.notify(&failed.to_string()),
        Event::Key(key) => return Ok(state.press(key)),
        Event::Resized => {}
        Event::Signal => return Ok(Some(Command::Quit)),
        Event::Ended(_, Some(error)) => return Err(error.into()),
        Event::Ended(name, None) => {
            return Err(io::Error::other(format!("thread {name} has ended")).into());
        }
    }
    Ok(None)
}

/// Asks every interval, and does in between what is wanted, until nobody wants anything.
fn answer(asker: &Asker, interval: Duration, wanted: &Receiver<Command>, send: &Sender<Event>) {
    let mut next = Instant::now() + interval;
    loop {
        let event = match wanted.recv_timeout(next.saturating_duration_since(Instant::now())) {
            Ok(Command::Show(id)) => {
                let facts = asker.show(&id);
                Event::Facts(id, facts)
            }
            Ok(Command::Kill(id)) => {
                let told = asker.kill(&id);
                Event::Killed(id, told)
            }
            Ok(Command::Quit) | Err(RecvTimeoutError::Disconnected) => return,
            Err(RecvTimeoutError::Timeout) => {
                let sampled = asker.sample();
                // An answer that was late is no reason to ask twice at once.
                next = (next + interval).max(Instant::now());
                Event::Sampled(sampled)
            }
        };
        if send.send(event).is_err() {
            return;
        }
    }
}

fn read_keys(send: &Sender<Event>) -> io::Result<()> {
    loop {
        let event = match event::read()? {
            event::Event::Key(key) => Event::Key(key),
            event::Event::Resize(..) => Event::Resized,
            _ => continue,
        };
        if send.send(event).is_err() {
            return Ok(());
        }
    }
}

/// Runs `work` in a thread of that name, and tells when it has ended, be it by a panic.
fn start(
    name: &'static str,
    send: Sender<Event>,
    work: impl FnOnce(&Sender<Event>) -> io::Result<()> + Send + 'static,
) -> io::Result<()> {
    let mut last = Last { name, send, error: None };
    let run = move || {
        let done = work(&last.send);
        last.tell(done);
    };
    thread::Builder::new().name(name.to_owned()).spawn(run).map(|_| ())
}

/// Tells that a thread has ended, however it did.
struct Last {
    name: &'static str,
    send: Sender<Event>,
    error: Option<io::Error>,
}

impl Last {
    fn tell(&mut self, done: io::Result<()>) {
        self.error = done.err();
    }
}

impl Drop for Last {
    fn drop(&mut self) {
        // Nobody listens when the screen has gone before.
        let _ = self.send.send(Event::Ended(self.name, self.error.take()));
    }
}

/// SIGTERM, SIGINT and SIGHUP are events from now on.
fn listen(send: Sender<Event>) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    let mut signals = {
        let _in_it = runtime.enter();
        let kinds = [SignalKind::terminate(), SignalKind::interrupt(), SignalKind::hangup()];
        kinds.into_iter().map(signal).collect::<io::Result<Vec<Signal>>>()?
    };
    start("signals", send, move |send| {
        runtime.block_on(poll_fn(|context| {
            match signals.iter_mut().any(|signal| signal.poll_recv(context).is_ready()) {
                true => Poll::Ready(()),
                false => Poll::Pending,
            }
        }));
        // What comes after it is not heard: the screen is gone by then.
        drop(send.send(Event::Signal));
        Ok(())
    })
}
