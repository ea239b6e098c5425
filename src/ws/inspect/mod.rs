//! One direction of an inspected session: what of it may go on, what is wrong with it, what it says.
//!
//! Fed with what was received, in any pieces, an [`Inspector`] says of the front of it whether it may be forwarded
//! as it is, is kept from the other side, or is not whole yet. Headers and control frames pass whole; the payload of
//! data frames passes as it comes, once it was judged, and so the end of a message only when all of it was.

mod ahead;
mod events;
mod inflating;
mod reading;

use std::sync::Arc;

pub use self::events::{Events, Piece, Sender, Whole};
use self::inflating::Inflating;
use super::close;
use super::deflate::InflaterBudget;
use super::extensions::Agreement;
use super::frame::{Header, Message, Opcode, Scanner, Terms};
use super::mask::unmask_into;
use super::policy::{Deflate, Depth, Inspection};
use super::rate::Rate;
use super::rules::Rule;
use super::utf8::Utf8;

/// Bytes that are unmasked at a time.
pub const PLAIN_BYTES: usize = 16 * 1024;
/// Compressed bytes that are read at a time: they may become a thousand times as many.
const COMPRESSED_BYTES: u64 = 1024;
/// Payload of our own pings: who answers it answers us.
pub const PING_BYTES: usize = 8;

/// What an [`Inspector`] borrows for a call.
pub struct Tools<'t, E> {
    /// The time, in nanoseconds since any fixed moment; only looked at if [`Inspector::needs_time`].
    pub now: u64,
    /// At least [`PLAIN_BYTES`].
    pub plain: &'t mut [u8],
    /// As large.
    pub inflated: &'t mut [u8],
    /// Who is told.
    pub events: &'t mut E,
}

/// Follows one direction of a session.
#[derive(Debug)]
pub struct Inspector {
    policy: Arc<Inspection>,
    scanner: Scanner,
    state: State,
    close_passed: bool,
    keeps_close: bool,
    /// Whether what was passed ends where a frame does.
    at_boundary: bool,
    /// Bytes of frames that were entered and ended, and did not pass yet.
    ahead: u64,
    /// Header bytes of the present frame that were looked at and not passed yet.
    header_left: u8,
    frame: Frame,
    /// The present message.
    message: Option<Current>,
    utf8: Utf8,
    /// Bytes that were passed or dropped.
    offset: u64,
    rates: Option<Box<Rate>>,
    inflating: Option<Box<Inflating>>,
    /// Our own pings that the sender may answer: what they have in common, and how many there were.
    pings: Option<[u8; PING_BYTES - 4]>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Open,
    /// After its Close: nothing more is for the other side (RFC 6455 §5.5.1).
    Closed,
    /// Not followed any more.
    Opaque,
}

/// What is known of the present data frame.
#[derive(Clone, Copy, Debug)]
struct Frame {
    fin: bool,
    mask: Option<[u8; 4]>,
    payload: u64,
}

#[derive(Clone, Copy, Debug)]
struct Current {
    kind: Message,
    bytes: u64,
    fragments: u32,
    /// Whether its payload is read.
    read: bool,
}

impl Inspector {
    /// At the first frame of `sender`.
    pub fn new(
        policy: Arc<Inspection>,
        sender: Sender,
        agreement: Option<&Agreement>,
        budget: &Arc<InflaterBudget>,
    ) -> Inspector {
        let terms = Terms { masked: sender == Sender::Client, compression: agreement.is_some() };
        let inflates = policy.depth == Depth::Payload && policy.deflate == Deflate::SeeThrough;
        let inflating = agreement.filter(|_| inflates).map(|agreement| {
            Box::new(Inflating::new(
                match sender {
                    Sender::Client => agreement.client_no_context_takeover,
                    Sender::Server => agreement.server_no_context_takeover,
                },
                Arc::clone(budget),
            ))
        });
        Inspector {
            rates: Rate::new(&policy.rates[usize::from(sender == Sender::Server)]),
            policy,
            scanner: Scanner::new(terms),
            state: State::Open,
            close_passed: false,
            keeps_close: false,
            at_boundary: true,
            ahead: 0,
            header_left: 0,
            frame: Frame { fin: true, mask: None, payload: 0 },
            message: None,
            utf8: Utf8::new(),
            offset: 0,
            inflating,
            pings: None,
        }
    }

    /// Judges the front of `bytes`, which are not empty.
    ///
    /// # Errors
    ///
    /// The rule that is broken; nothing of `bytes` may go on.
    pub fn next<E: Events>(
        &mut self,
        bytes: &[u8],
        tools: &mut Tools<'_, E>,
    ) -> Result<Piece, Rule> {
        let piece = match self.state {
            State::Closed => Piece::Drop(bytes.len()),
            State::Opaque => Piece::Pass(bytes.len()),
            State::Open => match self.room(tools.now) {
                0 => Piece::Wait(self.until_room(bytes.len(), tools.now)),
                room if self.ahead > 0 || self.header_left > 0 => {
                    let seen = self.ahead + u64::from(self.header_left);
                    let seen = part_of(bytes, seen.min(room)).len();
                    self.passed(seen as u64, tools);
                    return Ok(Piece::Pass(seen));
                }
                room if self.scanner.left() > 0 => self.rest_of_frame(bytes, room, tools)?,
                room => self.frame(bytes, room, tools)?,
            },
        };
        if let Piece::Pass(passed) | Piece::Drop(passed) = piece {
            self.offset += passed as u64;
        }
        // What is dropped changes nothing about what was passed.
        if let Piece::Pass(passed) = piece {
            self.paid(passed as u64, tools.now);
            self.at_boundary = self.scanner.left() == 0;
        }
        Ok(piece)
    }

    /// Bytes that a rate lets pass now.
    pub fn room(&self, now: u64) -> u64 {
        match self.state {
            State::Open => self.rates.as_deref().map_or(u64::MAX, |rates| rates.room(now)),
            _ => u64::MAX,
        }
    }

    /// Whether what was passed ends where a frame does: only there may a frame of ours follow.
    pub fn is_at_boundary(&self) -> bool {
        self.at_boundary && self.state != State::Opaque
    }

    /// Whether nothing more that comes is for the other side: after a Close.
    pub fn is_closed(&self) -> bool {
        self.state == State::Closed
    }

    /// Whether its sender's Close has gone on to the other side.
    pub fn has_passed_close(&self) -> bool {
        self.close_passed
    }

    /// Its sender's Close is not for the other side, who is told otherwise.
    pub fn keep_close(&mut self) {
        self.keeps_close = true;
    }

    /// Bytes that were passed or dropped so far.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// Bytes that were inflated so far: what they cost cannot be seen from those that came.
    pub fn inflated(&self) -> u64 {
        self.inflating.as_deref().map_or(0, Inflating::total)
    }

    /// Whether rates are limited.
    pub fn needs_time(&self) -> bool {
        self.rates.is_some()
    }

    /// Follows the direction no more: all that comes passes.
    pub fn give_up(&mut self) {
        self.state = State::Opaque;
        self.inflating = None;
    }

    /// Nothing more that comes is for the other side.
    pub fn shut(&mut self) {
        self.state = State::Closed;
        self.inflating = None;
    }

    /// Pongs with these first bytes answer pings of ours.
    pub fn expect_pongs(&mut self, begin_with: [u8; PING_BYTES - 4]) {
        self.pings = Some(begin_with);
    }

    /// Whether this side owes the answer to nothing: it is in no message. Between messages a session may go on
    /// elsewhere without its inspector.
    pub fn is_between_messages(&self) -> bool {
        self.is_at_boundary() && self.scanner.message().is_none()
    }

    /// At the beginning of a frame.
    fn frame<E: Events>(
        &mut self,
        bytes: &[u8],
        room: u64,
        tools: &mut Tools<'_, E>,
    ) -> Result<Piece, Rule> {
        let Some(header) = self.scanner.peek(bytes)? else { return Ok(Piece::More) };
        self.check_size(&header)?;
        if header.opcode.is_control() {
            let payload = usize::try_from(header.payload).expect("at most 125 bytes");
            let Some(payload) = bytes.get(header.bytes..header.bytes + payload) else {
                return Ok(Piece::More);
            };
            return match self.wait(&header, tools.now)? {
                Some(until) => Ok(Piece::Wait(until)),
                None => self.control(&header, payload, tools),
            };
        }
        if let Some(until) = self.wait(&header, tools.now)? {
            return Ok(Piece::Wait(until));
        }
        self.begin(&header, tools)?;
        let room = room.saturating_sub(header.bytes as u64);
        let payload = part_of(&bytes[header.bytes..], header.payload.min(room));
        match self.part_to_read(payload, tools.now)? {
            Ok(payload) => {
                self.payload(payload, tools)?;
                Ok(Piece::Pass(header.bytes + payload.len()))
            }
            Err(_) => Ok(Piece::Pass(header.bytes)),
        }
    }

    /// In the middle of a data frame.
    fn rest_of_frame<E: Events>(
        &mut self,
        bytes: &[u8],
        room: u64,
        tools: &mut Tools<'_, E>,
    ) -> Result<Piece, Rule> {
        let payload = part_of(bytes, self.scanner.left().min(room));
        match self.part_to_read(payload, tools.now)? {
            Ok(payload) => {
                self.payload(payload, tools)?;
                Ok(Piece::Pass(payload.len()))
            }
            Err(until) => Ok(Piece::Wait(until)),
        }
    }

    /// As much of the payload as is judged at a time; or until when that has to wait.
    fn part_to_read<'p>(&self, payload: &'p [u8], now: u64) -> Result<Result<&'p [u8], u64>, Rule> {
        let inflates = self.message.is_some_and(|message| message.read && message.kind.compressed);
        if !inflates || payload.is_empty() {
            return Ok(Ok(payload));
        }
        let rates = self.rates.as_deref();
        match rates.map_or(Ok(None), |rates| rates.wait_to_inflate(now))? {
            None => Ok(Ok(part_of(payload, COMPRESSED_BYTES))),
            Some(until) => Ok(Err(until)),
        }
    }

    /// A control frame, which is there as a whole.
    fn control<E: Events>(
        &mut self,
        header: &Header,
        masked: &[u8],
        tools: &mut Tools<'_, E>,
    ) -> Result<Piece, Rule> {
        let whole = header.bytes + masked.len();
        let payload = &mut tools.plain[..masked.len()];
        unmask_into(masked, header.mask.unwrap_or_default(), 0, payload);
        let code = match header.opcode {
            Opcode::Close => close::judge(payload)?,
            _ => None,
        };
        self.pay(header, tools.now);
        self.scanner.enter(header);
        self.scanner.pass(header.payload);
        let is_ours = header.opcode == Opcode::Pong
            && payload.len() == PING_BYTES
            && self.pings.is_some_and(|pings| payload.starts_with(&pings));
        if is_ours {
            return Ok(Piece::Drop(whole));
        }
        tools.events.frame(header);
        if header.opcode == Opcode::Close {
            tools.events.close(code);
            self.shut();
            if self.keeps_close {
                return Ok(Piece::Drop(whole));
            }
            self.close_passed = true;
        }
        Ok(Piece::Pass(whole))
    }

    /// Enters a data frame whose header was judged.
    fn begin<E: Events>(&mut self, header: &Header, tools: &mut Tools<'_, E>) -> Result<(), Rule> {
        self.check_size(header)?;
        self.pay(header, tools.now);
        let read = self.will_read(header, tools.events);
        self.scanner.enter(header);
        let Header { fin, mask, payload, .. } = *header;
        self.frame = Frame { fin, mask, payload };
        match &mut self.message {
            Some(message) => {
                message.bytes += payload;
                message.fragments = message.fragments.saturating_add(1);
            }
            None => {
                let kind = Message { opcode: header.opcode, compressed: header.compressed };
                self.message = Some(Current { kind, bytes: payload, fragments: 1, read });
                self.utf8 = Utf8::new();
            }
        }
        tools.events.frame(header);
        Ok(())
    }

    /// Payload of the present data frame, perhaps none.
    fn payload<E: Events>(&mut self, payload: &[u8], tools: &mut Tools<'_, E>) -> Result<(), Rule> {
        let message = self.message.as_ref().expect("a data frame is of a message");
        let inflated = self.inflated();
        if message.read {
            let position = self.frame.payload - self.scanner.left();
            self.read(message.kind, payload, position, tools)?;
        }
        self.scanner.pass(payload.len() as u64);
        if self.scanner.left() == 0 {
            self.frame_ended(tools)?;
        }
        let inflated = self.inflated() - inflated;
        if inflated > 0
            && let Some(rates) = self.rates.as_deref_mut()
        {
            rates.inflated(inflated, tools.now);
        }
        Ok(())
    }

    /// The present data frame has passed.
    fn frame_ended<E: Events>(&mut self, tools: &mut Tools<'_, E>) -> Result<(), Rule> {
        if !self.frame.fin {
            return Ok(());
        }
        let message = self.message.expect("a data frame is of a message");
        let inflated = if message.read { self.message_read(message.kind, tools)? } else { None };
        self.message = None;
        let Current { kind: Message { opcode, .. }, bytes, fragments, .. } = message;
        tools.events.message(&Whole { opcode, bytes, fragments, inflated });
        Ok(())
    }

    /// Whether the payload of the frame with this header is read.
    fn will_read(&mut self, header: &Header, events: &impl Events) -> bool {
        match &self.message {
            Some(message) => message.read,
            None => self.reads(header, events),
        }
    }

    /// Whether the payload of the message that this header begins is read.
    fn reads(&mut self, header: &Header, events: &impl Events) -> bool {
        if self.policy.depth == Depth::Frames {
            return false;
        }
        if !header.compressed {
            return header.opcode == Opcode::Text || events.wants_payload();
        }
        self.inflating.as_deref_mut().is_some_and(Inflating::is_ready)
    }

    fn check_size(&self, header: &Header) -> Result<(), Rule> {
        let limits = &self.policy.limits;
        if header.opcode.is_control() {
            return Ok(());
        }
        let (bytes, fragments) =
            self.message.as_ref().map_or((0, 0), |message| (message.bytes, message.fragments));
        if limits.frame_bytes_max.is_some_and(|max| header.payload > max) {
            return Err(Rule::FrameBytes);
        }
        // A sum that no u64 holds is too much for any limit, and a message of so many bytes never ends.
        let message = bytes.checked_add(header.payload).ok_or(Rule::MessageBytes)?;
        if limits.message_bytes_max.is_some_and(|max| message > max) {
            return Err(Rule::MessageBytes);
        }
        if limits.fragments_max.is_some_and(|max| fragments >= max) {
            return Err(Rule::Fragments);
        }
        Ok(())
    }

    /// When the frame with this header may come, if it may not now.
    fn wait(&self, header: &Header, now: u64) -> Result<Option<u64>, Rule> {
        self.rates.as_deref().map_or(Ok(None), |rates| rates.wait(header, now))
    }

    /// When there is room again for so many bytes, or enough of them.
    fn until_room(&self, bytes: usize, now: u64) -> u64 {
        self.rates.as_deref().map_or(now, |rates| rates.until_room(bytes as u64, now))
    }

    fn paid(&mut self, bytes: u64, now: u64) {
        if let Some(rates) = self.rates.as_deref_mut() {
            rates.passed(bytes, now);
        }
    }

    fn pay(&mut self, header: &Header, now: u64) {
        if let Some(rates) = self.rates.as_deref_mut() {
            rates.take(header, now);
        }
    }
}

/// The first bytes of `bytes` that belong to a payload of which `left` is left.
fn part_of(bytes: &[u8], left: u64) -> &[u8] {
    &bytes[..usize::try_from(left).unwrap_or(usize::MAX).min(bytes.len())]
}

#[cfg(test)]
mod tests;
