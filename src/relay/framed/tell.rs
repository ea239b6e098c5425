//! What passes is counted.

use super::super::Direction;
use crate::metrics::WebSocketCounters;
use crate::ws::frame::{Header, Opcode};
use crate::ws::inspect::{Events, Whole};

/// Tells the worker's counters of one direction.
pub(super) struct Teller<'t> {
    direction: Direction,
    counters: &'t WebSocketCounters,
    last_data_frame: Option<u64>,
}

impl<'t> Teller<'t> {
    pub(super) fn new(direction: Direction, counters: &'t WebSocketCounters) -> Teller<'t> {
        Teller { direction, counters, last_data_frame: None }
    }

    /// Payload of the last data frame that began.
    pub(super) fn last_data_frame(&self) -> Option<u64> {
        self.last_data_frame
    }
}

impl Events for Teller<'_> {
    fn frame(&mut self, header: &Header) {
        self.counters.frame(self.direction, header.opcode, header.payload);
        if !header.opcode.is_control() {
            self.last_data_frame = Some(header.payload);
        }
    }

    fn message(&mut self, message: &Whole) {
        let is_text = message.opcode == Opcode::Text;
        self.counters.message(self.direction, is_text, message.bytes, message.inflated);
    }

    fn close(&mut self, code: Option<u16>) {
        self.counters.closed(self.direction, code);
    }

    fn wants_payload(&self) -> bool {
        false
    }

    fn payload(&mut self, _: &[u8]) {}
}
