//! What all relays of one worker share.

use std::cell::RefCell;
use std::io;
use std::rc::Rc;
use std::sync::Arc;

use super::pool::{PipeBudget, PipePool};
use crate::metrics::Counters;
use crate::sys::reactor::Reactor;

/// The copy engine's buffer: large enough that a bulk session needs few calls, small enough to stay in
/// the second-level cache.
const BUFFER_BYTES: usize = 64 * 1024;

/// One worker's reactor, pipes, buffer and counters.
#[derive(Debug)]
pub struct Kit {
    /// Watches the sockets of all its sessions.
    pub reactor: Rc<Reactor>,
    pub(super) pool: RefCell<PipePool>,
    pub(super) buffer: RefCell<Box<[u8]>>,
    pub(super) counters: Arc<Counters>,
    pub(super) no_fallback: bool,
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
            counters,
            no_fallback,
        })
    }
}
