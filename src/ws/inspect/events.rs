//! What an inspector is told, and tells of what passes.

use crate::ws::frame::{Header, Opcode};

/// Who sends what an inspector looks at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sender {
    /// The side that asked for the upgrade: it masks.
    Client,
    /// The side that granted it.
    Server,
}

/// What the front of the bytes is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Piece {
    /// So many bytes may go on as they are.
    Pass(usize),
    /// So many bytes are not for the other side.
    Drop(usize),
    /// Not whole: the next call begins with the same bytes and more.
    More,
    /// A rate is used up until then.
    Wait(u64),
}

/// Is told what passes.
pub trait Events {
    /// A frame began.
    fn frame(&mut self, header: &Header);
    /// A message ended.
    fn message(&mut self, message: &Whole);
    /// A Close, with its code if it has one.
    fn close(&mut self, code: Option<u16>);
    /// Whether [`Events::payload`] is of any use.
    fn wants_payload(&self) -> bool;
    /// Payload of the present message, unmasked and inflated; only where it is looked at.
    fn payload(&mut self, bytes: &[u8]);
}

/// A message that ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Whole {
    /// Text or binary.
    pub opcode: Opcode,
    /// Payload on the wire.
    pub bytes: u64,
    /// Frames.
    pub fragments: u32,
    /// Payload once inflated, if it was compressed and looked into.
    pub inflated: Option<u64>,
}
