//! The payload of a message that is read: unmasked, inflated, judged.

use super::inflating::Inflating;
use super::{Events, Inspector, PLAIN_BYTES, Tools};
use crate::ws::deflate::Bounds;
use crate::ws::frame::{Message, Opcode};
use crate::ws::mask::unmask_into;
use crate::ws::policy::Inspection;
use crate::ws::rules::Rule;
use crate::ws::utf8::Utf8;

impl Inspector {
    /// Reads payload, from `position` in its frame on.
    pub(super) fn read<E: Events>(
        &mut self,
        kind: Message,
        payload: &[u8],
        position: u64,
        tools: &mut Tools<'_, E>,
    ) -> Result<(), Rule> {
        let Tools { plain, inflated, events, .. } = tools;
        let mut offset = (position % 4) as usize;
        for piece in payload.chunks(PLAIN_BYTES) {
            let plain: &[u8] = match self.frame.mask {
                Some(mask) => {
                    unmask_into(piece, mask, offset, &mut plain[..piece.len()]);
                    offset = (offset + piece.len()) % 4;
                    &plain[..piece.len()]
                }
                None => piece,
            };
            let utf8 = &mut self.utf8;
            let mut look = |bytes: &[u8]| look_at(kind, bytes, utf8, &mut **events);
            match self.inflating.as_deref_mut().and_then(Inflating::inflater) {
                Some(inflater) if kind.compressed => {
                    inflater.feed(plain, inflated, bounds(&self.policy), &mut look)?;
                }
                _ => look(plain)?,
            }
        }
        Ok(())
    }

    /// The present message was read to its end; how long it is once inflated, if it was compressed.
    pub(super) fn message_read<E: Events>(
        &mut self,
        kind: Message,
        tools: &mut Tools<'_, E>,
    ) -> Result<Option<u64>, Rule> {
        let mut length = None;
        if kind.compressed
            && let Some(inflater) = self.inflating.as_deref_mut().and_then(Inflating::inflater)
        {
            let Tools { inflated, events, .. } = tools;
            let utf8 = &mut self.utf8;
            let mut look = |bytes: &[u8]| look_at(kind, bytes, utf8, &mut **events);
            length = Some(inflater.finish(inflated, bounds(&self.policy), &mut look)?);
        }
        if kind.opcode == Opcode::Text && !self.utf8.is_complete() {
            return Err(Rule::Utf8);
        }
        Ok(length)
    }
}

/// Payload in the clear.
fn look_at(
    kind: Message,
    bytes: &[u8],
    utf8: &mut Utf8,
    events: &mut impl Events,
) -> Result<(), Rule> {
    if kind.opcode == Opcode::Text {
        utf8.feed(bytes).map_err(|_| Rule::Utf8)?;
    }
    if events.wants_payload() {
        events.payload(bytes);
    }
    Ok(())
}

fn bounds(policy: &Inspection) -> Bounds {
    Bounds {
        inflated_bytes_max: policy.limits.inflated_bytes_max,
        inflated_ratio_max: policy.limits.inflated_ratio_max,
    }
}
