//! What passes is counted, and told to those who watch.

use super::super::Direction;
use super::super::watch::Watches;
use crate::metrics::WebSocketCounters;
use crate::ws::frame::{Header, Opcode};
use crate::ws::inspect::{Events, Whole};

/// Tells the worker's counters of one direction.
pub(super) struct Teller<'t> {
    direction: Direction,
    counters: &'t WebSocketCounters,
    watches: Option<&'t mut Watches>,
    last_data_frame: Option<u64>,
}

impl<'t> Teller<'t> {
    pub(super) fn new(
        direction: Direction,
        counters: &'t WebSocketCounters,
        watches: Option<&'t mut Watches>,
    ) -> Teller<'t> {
        Teller { direction, counters, watches, last_data_frame: None }
    }

    /// Payload of the last data frame that began.
    pub(super) fn last_data_frame(&self) -> Option<u64> {
        self.last_data_frame
    }
}

impl Events for Teller<'_> {
    fn frame(&mut self, header: &Header) {
        self.counters.frame(self.direction, header.opcode, header.payload);
        if let Some(watches) = &mut self.watches {
            watches.frame(self.direction, header);
        }
        if !header.opcode.is_control() {
            self.last_data_frame = Some(header.payload);
        }
    }

    fn message(&mut self, message: &Whole) {
        let is_text = message.opcode == Opcode::Text;
        self.counters.message(self.direction, is_text, message.bytes, message.inflated);
        if let Some(watches) = &mut self.watches {
            watches.message(self.direction, message);
        }
    }

    fn close(&mut self, code: Option<u16>) {
        self.counters.closed(self.direction, code);
        if let Some(watches) = &mut self.watches {
            watches.close(self.direction, code);
        }
    }

    fn wants_payload(&self) -> bool {
        self.watches.as_ref().is_some_and(|watches| watches.want_payload())
    }

    fn payload(&mut self, bytes: &[u8]) {
        if let Some(watches) = &mut self.watches {
            watches.payload(self.direction, bytes);
        }
    }
}
