//! Frames that pass unseen: their headers are looked at where they are, and their payload stays there.

use super::{Events, Inspector, State, Tools};
use crate::ws::rules::Rule;

/// Smaller frames are not worth being looked at where they are: a receive brings many of them at once.
const AHEAD_FROM: u64 = 4096;

impl Inspector {
    /// Looks at the header that `bytes` begin with, and enters its frame if that is a data frame whose payload need
    /// not be looked at: so many bytes from here on may pass unseen, the header's among them. `None`: the bytes have
    /// to be [judged](Inspector::next).
    pub fn enter<E: Events>(
        &mut self,
        bytes: &[u8],
        tools: &mut Tools<'_, E>,
    ) -> Result<Option<u64>, Rule> {
        if self.state != State::Open || !self.at_boundary {
            return Ok(None);
        }
        let Some(header) = self.scanner.peek(bytes)? else { return Ok(None) };
        let reads = self.will_read(&header, tools.events);
        if reads || header.opcode.is_control() || self.wait(&header, tools.now)?.is_some() {
            return Ok(None);
        }
        self.begin(&header, tools)?;
        self.header_left = header.bytes as u8;
        self.at_boundary = false;
        Ok(Some(self.unseen()))
    }

    /// As [`enter`](Inspector::enter), for the header behind the [unseen](Inspector::unseen) bytes: it is there, so
    /// the frame before it is there as a whole. False when its frame cannot pass unseen, too; what is wrong with it is
    /// found when it is received.
    pub fn enter_next<E: Events>(&mut self, bytes: &[u8], tools: &mut Tools<'_, E>) -> bool {
        let Some(message) = self.message.filter(|message| !message.read) else { return false };
        let mut scanner = self.scanner;
        scanner.pass(scanner.left());
        let Ok(Some(header)) = scanner.peek(bytes) else { return false };
        let continues = !self.frame.fin;
        let reads = if continues { message.read } else { self.reads(&header, tools.events) };
        if reads || header.opcode.is_control() || header.payload < AHEAD_FROM {
            return false;
        }
        self.ahead += self.scanner.left() + u64::from(self.header_left);
        self.header_left = 0;
        self.scanner = scanner;
        let ended = self.frame_ended(tools);
        debug_assert!(ended.is_ok(), "nothing was read that could be wrong");
        let may_come = matches!(self.wait(&header, tools.now), Ok(None));
        if !may_come || self.begin(&header, tools).is_err() {
            return false;
        }
        self.header_left = header.bytes as u8;
        true
    }

    /// Bytes that may pass without being looked at: what is left of frames that were entered.
    pub fn unseen(&self) -> u64 {
        match (self.state, &self.message) {
            (State::Opaque, _) => u64::MAX,
            (State::Open, Some(message)) if !message.read => {
                self.ahead + u64::from(self.header_left) + self.scanner.left()
            }
            (State::Open, _) => self.ahead,
            (State::Closed, _) => 0,
        }
    }

    /// So many of the [unseen](Inspector::unseen) bytes have passed.
    pub fn passed<E: Events>(&mut self, bytes: u64, tools: &mut Tools<'_, E>) {
        self.offset += bytes;
        if self.state == State::Opaque {
            return;
        }
        self.paid(bytes, tools.now);
        let ahead = bytes.min(self.ahead);
        let header = (bytes - ahead).min(u64::from(self.header_left));
        self.ahead -= ahead;
        self.header_left -= header as u8;
        self.scanner.pass(bytes - ahead - header);
        self.at_boundary = self.ahead == 0 && self.header_left == 0 && self.scanner.left() == 0;
        // A frame that ended ahead was told of then.
        if self.at_boundary && ahead < bytes {
            let ended = self.frame_ended(tools);
            debug_assert!(ended.is_ok(), "nothing was read that could be wrong");
        }
    }
}
