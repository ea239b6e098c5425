//! What a worker can be told by other threads, and the bell that wakes it.

use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::{Arc, mpsc};
use std::time::Instant;

use tokio::sync::mpsc::error::SendError;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::oneshot;

use crate::session::depart::Leaving;
use crate::session::load::OnTheWay;
use crate::session::question::{Question, SessionView};
use crate::session::registry::{Move, Moved};
use crate::sys::reactor::Doorbell;

/// What a worker can be told.
#[derive(Debug)]
pub(super) enum Control {
    /// Stop accepting, end when the sessions have, and then at the latest.
    Drain(Instant),
    /// End now.
    Stop,
    /// Serve a connection that another worker accepted.
    Admit(Accepted),
    /// Go on with a session of another worker.
    Adopt(Box<Moved>),
    /// Move a session; the answer says whether it is here.
    Move {
        /// The session's id.
        id: String,
        /// Where to.
        to: Move,
        /// For the answer.
        reply: mpsc::Sender<bool>,
    },
    /// Let sessions leave, spread over a time.
    Depart(Arc<Leaving>),
    /// Go by the plan that is there now: accept at these listeners, by slot, and no more at those.
    Follow {
        /// Sockets of new ones.
        open: Vec<(u16, OwnedFd)>,
        /// Slots of those that are not wanted any more.
        close: Vec<u16>,
        /// Dropped when that is done.
        done: mpsc::Sender<()>,
    },
    /// List the sessions.
    Sessions(mpsc::Sender<Vec<SessionView>>),
    /// Say that you are there.
    Ping(oneshot::Sender<()>),
    /// Answer a question of the operator.
    Ask(Question),
}

/// A connection of which nothing has been read.
#[derive(Debug)]
pub(super) struct Accepted {
    pub socket: OwnedFd,
    pub peer: Option<SocketAddr>,
    /// The listener's slot.
    pub listener: u16,
    /// Its share in the load of the worker that it goes to.
    pub on_the_way: Option<OnTheWay>,
}

/// Tells one worker.
#[derive(Clone, Debug)]
pub(super) struct Controller {
    sender: UnboundedSender<Control>,
    doorbell: Doorbell,
}

/// The worker's end.
#[derive(Debug)]
pub(super) struct Controls {
    pub receiver: UnboundedReceiver<Control>,
    /// The worker sleeps in its reactor, which a message alone would not wake.
    pub doorbell: Doorbell,
}

/// Both ends.
///
/// # Errors
///
/// No descriptor for the doorbell.
pub(super) fn channel() -> io::Result<(Controller, Controls)> {
    let (sender, receiver) = unbounded_channel();
    let doorbell = Doorbell::new()?;
    Ok((Controller { sender, doorbell: doorbell.clone() }, Controls { receiver, doorbell }))
}

impl Controller {
    /// Whether the worker is gone.
    pub fn is_closed(&self) -> bool {
        self.sender.is_closed()
    }

    /// Tells the worker; gives back what was said when the worker is gone.
    pub fn send(&self, control: Control) -> Result<(), Control> {
        self.sender.send(control).map_err(|SendError(control)| control)?;
        self.doorbell.ring();
        Ok(())
    }
}
