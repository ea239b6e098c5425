//! The way from the admin API to the workers.

use std::sync::Arc;

use super::control::{Control, Controller};
use super::drain::Drainer;
use super::reload::Reloader;
use crate::admin::{NotReloaded, Reloaded, Reloads, Workers};
use crate::session::drains::{Drain, Drains};
use crate::session::question::Question;

/// The workers, as the admin API reaches them.
pub(super) struct Operator {
    pub controls: Arc<[Controller]>,
    pub drainer: Arc<Drainer>,
    pub reloader: Arc<Reloader>,
}

impl Workers for Operator {
    fn count(&self) -> usize {
        self.controls.len()
    }

    fn ask(&self, worker: usize, question: Question) -> bool {
        let control = self.controls.get(worker);
        control.is_some_and(|control| control.send(Control::Ask(question)).is_ok())
    }

    fn is_gone(&self, worker: usize) -> bool {
        self.controls.get(worker).is_none_or(Controller::is_closed)
    }

    fn drains(&self) -> &Drains {
        &self.drainer.drains
    }

    fn drain(&self, drain: Drain) -> bool {
        self.drainer.begin(drain)
    }

    fn reload(&self) -> Result<Reloaded, NotReloaded> {
        self.reloader.reload()
    }

    fn reloads(&self) -> Reloads {
        self.reloader.counts()
    }
}
