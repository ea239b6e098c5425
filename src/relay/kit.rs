//! What all relays of one worker share.

use std::cell::RefCell;
use std::io;
use std::rc::Rc;
use std::sync::Arc;

use super::crowd::Crowd;
use super::framed::Scratch;
use super::pool::{PipeBudget, PipePool};
use super::splice;
use super::uring::{self, hub::Hub};
use crate::metrics::{Counters, Reason};
use crate::sys::Errno;
use crate::sys::reactor::Reactor;
use crate::sys::ring::{Prepared, Ring, Setup};

/// The copy engine's buffer: large enough that a bulk session needs few calls, small enough to stay in
/// the second-level cache.
const BUFFER_BYTES: usize = 64 * 1024;

/// One worker's reactor, pipes, buffer, ring and counters.
#[derive(Debug)]
pub struct Kit {
    /// Watches the sockets of all its sessions.
    pub reactor: Rc<Reactor>,
    pub(super) pool: RefCell<PipePool>,
    pub(super) buffer: RefCell<Box<[u8]>>,
    /// For sessions that are inspected.
    pub(super) scratch: RefCell<Option<Scratch>>,
    pub(super) counters: Arc<Counters>,
    pub(super) no_fallback: bool,
    pub(super) crowd: Rc<Crowd>,
    ring: Setup,
    /// Made beforehand, and not taken yet.
    prepared: RefCell<Option<Prepared>>,
    hub: RefCell<Option<Rc<Hub>>>,
}

impl Kit {
    /// A worker's kit. With `no_fallback` a relay ends rather than copy what was to be spliced.
    ///
    /// # Errors
    ///
    /// No descriptor for the reactor.
    pub fn new(
        budget: Arc<PipeBudget>,
        counters: Arc<Counters>,
        no_fallback: bool,
    ) -> io::Result<Kit> {
        Ok(Kit {
            reactor: Rc::new(Reactor::new()?),
            pool: RefCell::new(PipePool::new(budget, Arc::clone(&counters))),
            buffer: RefCell::new(vec![0; BUFFER_BYTES].into_boxed_slice()),
            scratch: RefCell::default(),
            counters,
            no_fallback,
            crowd: Rc::default(),
            ring: uring::SETUP,
            prepared: RefCell::default(),
            hub: RefCell::new(None),
        })
    }

    /// The same with another kind of ring.
    pub fn with_ring(self, ring: Setup) -> Kit {
        Kit { ring, ..self }
    }

    /// The same with a ring that was made beforehand: engine `auto` may choose it.
    pub fn with_prepared(self, ring: Option<Prepared>) -> Kit {
        if ring.is_some() {
            self.crowd.open();
        }
        Kit { prepared: RefCell::new(ring), ..self }
    }

    /// A session's turn has moved so many bytes.
    pub fn moved(&self, bytes: u64) {
        self.crowd.moved(bytes);
    }

    /// A look at the sockets is over: all that it found have had their turns.
    pub fn looked(&self) {
        self.crowd.looked();
    }

    /// The worker's ring, set to work when the first session asks for it. A refusal is not remembered: there may
    /// be descriptors again.
    pub(super) fn hub(&self) -> Result<Rc<Hub>, Reason> {
        if let Some(hub) = self.hub.borrow().as_ref().filter(|hub| !hub.is_broken()) {
            return Ok(Rc::clone(hub));
        }
        let made = self.new_ring().map(|ring| Hub::new(ring, self.ring, self));
        let hub = made.map_err(|error| match Errno::of(&error) {
            Errno::NoDescriptors => Reason::Emfile,
            errno => splice::reason_for(errno).unwrap_or(Reason::Unsupported),
        })?;
        *self.hub.borrow_mut() = Some(Rc::clone(&hub));
        Ok(hub)
    }

    /// The ring that was made beforehand, if there is one; else a new one.
    fn new_ring(&self) -> io::Result<Ring> {
        match self.prepared.take() {
            Some(prepared) => Ring::begin(prepared, self.ring, &self.reactor),
            None => Ring::new(self.ring, &self.reactor),
        }
    }
}
