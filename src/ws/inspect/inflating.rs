//! The inflater of one direction, made when it is needed.

use std::sync::Arc;

use crate::ws::deflate::{Inflater, InflaterBudget};

/// permessage-deflate in this direction.
#[derive(Debug)]
pub(super) struct Inflating {
    no_context_takeover: bool,
    budget: Arc<InflaterBudget>,
    /// Made for the first compressed message.
    inflater: Option<Inflater>,
    /// There was no room for one: its messages are opaque for good, since what comes later may refer to them.
    given_up: bool,
}

impl Inflating {
    pub(super) fn new(no_context_takeover: bool, budget: Arc<InflaterBudget>) -> Inflating {
        Inflating { no_context_takeover, budget, inflater: None, given_up: false }
    }

    /// The inflater, once there is one.
    pub(super) fn inflater(&mut self) -> Option<&mut Inflater> {
        self.inflater.as_mut()
    }

    /// Bytes that were inflated so far.
    pub(super) fn total(&self) -> u64 {
        self.inflater.as_ref().map_or(0, Inflater::total)
    }

    /// Whether a compressed message can be looked into.
    pub(super) fn is_ready(&mut self) -> bool {
        if self.inflater.is_none() && !self.given_up {
            self.inflater = Inflater::new(self.no_context_takeover, &self.budget);
            self.given_up = self.inflater.is_none();
        }
        self.inflater.is_some()
    }
}
