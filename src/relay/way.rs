//! One direction of a relay: its state, and all that it holds.

use std::time::Instant;

use super::half::Half;
use super::live::Carried;
use super::pace::Pace;
use super::pool::Charged;
use crate::metrics::{Counters, Direction, Engine};

/// Bytes read beyond a head, owed to the other side before anything else; later, whatever a short send
/// left in memory. Empty, it owns no memory and is one word: most sessions are idle most of the time.
#[derive(Debug, Default)]
pub struct HeadData(Option<Box<Owed>>);

#[derive(Debug)]
struct Owed {
    bytes: Vec<u8>,
    sent: usize,
}

impl HeadData {
    /// Owes `bytes`.
    pub fn new(bytes: Vec<u8>) -> HeadData {
        HeadData((!bytes.is_empty()).then(|| Box::new(Owed { bytes, sent: 0 })))
    }

    /// What is still owed.
    pub fn bytes(&self) -> &[u8] {
        self.0.as_ref().map_or(&[], |owed| &owed.bytes[owed.sent..])
    }

    pub(super) fn hold(&mut self, bytes: Vec<u8>) {
        debug_assert!(self.bytes().is_empty(), "bytes would overtake others");
        *self = HeadData::new(bytes);
    }

    /// What is still owed, to be sent by somebody else.
    pub(super) fn take(&mut self) -> Option<Vec<u8>> {
        let Owed { mut bytes, sent } = *self.0.take()?;
        bytes.drain(..sent);
        Some(bytes)
    }

    pub(super) fn sent(&mut self, sent: usize) {
        if let Some(owed) = &mut self.0 {
            owed.sent += sent;
            if owed.sent == owed.bytes.len() {
                self.0 = None;
            }
        }
    }
}

/// One direction: what a detached relay hands over, and a few hints that may be lost.
#[derive(Debug)]
pub struct Way {
    /// Where it stands.
    pub(super) half: Half,
    /// Kept exactly while bytes are in it.
    pub(super) pipe: Option<Box<Charged>>,
    /// Bytes in memory; empty unless the next step is `Flush`.
    pub(super) owed: HeadData,
    /// How the next fill is done.
    pub(super) engine: Engine,
    /// What its fills bring, where that decides about the engine.
    pub(super) pace: Option<Pace>,
    /// Refusals of splice since it last moved bytes.
    pub(super) refusals: u8,
    /// Fills that filled a narrow pipe, less those that did not.
    pub(super) full_fills: u8,
    /// Try the next fill even if no readiness was seen: set at the start and when the source failed elsewhere.
    pub(super) eager: bool,
    /// Since when the sink takes nothing.
    pub(super) paused_since: Option<Instant>,
}

impl Way {
    /// A direction at its beginning, owing `head_data`, of which `given` bytes went out with the head.
    pub fn new(engine: Engine, head_data: Vec<u8>, given: usize) -> Way {
        Way {
            half: Half::owing(head_data.len(), given),
            pipe: None,
            owed: HeadData::new(head_data),
            engine,
            pace: None,
            refusals: 0,
            full_fills: 0,
            eager: true,
            paused_since: None,
        }
    }

    /// Its counts at the beginning: head data was copied, whatever the engine.
    pub(super) fn begun(&self) -> Carried {
        let given = self.half.given();
        Carried { copied: given + self.half.held(), given, ..Carried::default() }
    }

    /// The sink takes bytes again, or nobody waits for it any more.
    pub(super) fn unpause(&mut self, counters: &Counters, direction: Direction) {
        if let Some(since) = self.paused_since.take() {
            let nanos = u64::try_from(since.elapsed().as_nanos()).unwrap_or(u64::MAX);
            counters.resumed(direction, nanos);
        }
    }

    /// Where it stands.
    pub fn half(&self) -> &Half {
        &self.half
    }

    /// How the next fill will be done.
    pub fn engine(&self) -> Engine {
        self.engine
    }

    /// The same, whose traffic will decide between the engines; it begins with copy.
    #[must_use]
    pub fn adaptive(mut self) -> Way {
        self.engine = Engine::Copy;
        self.pace = Some(Pace::default());
        self
    }

    /// Lets another engine go on, and no traffic change that. What the pipe or memory holds goes out first, in
    /// order.
    pub fn switch(&mut self, engine: Engine) {
        self.engine = engine;
        self.pace = None;
        self.refusals = 0;
    }

    /// Lets another engine go on, as its traffic asks, which may ask for another later.
    pub(super) fn goes_on_by(&mut self, engine: Engine) {
        self.engine = engine;
        self.refusals = 0;
        if let Some(pace) = &mut self.pace {
            pace.changed();
        }
    }

    /// Takes in what a fill brought; the engine that goes on from here, when that is another.
    pub(super) fn paced(&mut self, bytes: u64) -> Option<Engine> {
        let engine = self.pace.as_mut()?.after_fill(bytes, self.engine);
        (engine != std::mem::replace(&mut self.engine, engine)).then_some(engine)
    }
}
