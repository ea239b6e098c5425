//! Who watches an inspected session, and what they are told: never more than they take.
//!
//! An event is put into a bounded channel or counted as dropped; nothing waits. What it costs is paid only while
//! somebody watches.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::mpsc::{Receiver, Sender, channel};

use crate::metrics::Direction;
use crate::ws::frame::{Header, Opcode};
use crate::ws::inspect::Whole;
use crate::ws::rules::Rule;

/// Events that may wait for a watcher.
const EVENTS_MAX: usize = 256;
/// Watchers of one session.
const WATCHES_MAX: usize = 4;

/// Something that a watched session did.
#[derive(Clone, Debug)]
pub struct Event {
    /// When.
    pub at: Instant,
    /// Whose doing: what went this way.
    pub direction: Direction,
    /// What.
    pub what: What,
}

/// What a watched session did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum What {
    /// A frame began.
    Frame {
        /// Its opcode.
        opcode: Opcode,
        /// Whether it is the last of its message.
        fin: bool,
        /// Its payload.
        bytes: u64,
    },
    /// A message ended.
    Message {
        /// Text or binary.
        opcode: Opcode,
        /// Its payload on the wire.
        bytes: u64,
        /// Its payload once inflated, if it was.
        inflated: Option<u64>,
        /// Since the last message that went the other way.
        latency: Option<Duration>,
        /// What it begins with, where that was asked for and its payload is read.
        preview: Option<Arc<[u8]>>,
    },
    /// A Close, with its code if it has one.
    Close(Option<u16>),
    /// A rule was broken.
    Violation(Rule),
}

/// One watcher, on the side of the session.
#[derive(Debug)]
pub struct Watch {
    events: Sender<Event>,
    dropped: Arc<AtomicU64>,
    /// Bytes that it wants to see of a message.
    preview: usize,
}

/// The watcher's own side.
#[derive(Debug)]
pub struct Watcher {
    /// What happens; ends with the session.
    pub events: Receiver<Event>,
    dropped: Arc<AtomicU64>,
}

/// Why a session cannot be watched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unwatchable {
    /// It is carried as it comes: nobody knows its frames.
    Opaque,
    /// Enough watch it already.
    Crowded,
}

/// All watchers of a session.
#[derive(Debug, Default)]
pub(super) struct Watches {
    all: Vec<Watch>,
    /// What the present message of each direction begins with; `None` when its beginning was not seen.
    previews: [Option<Vec<u8>>; 2],
    /// When the last message of each direction ended.
    ended: [Option<Instant>; 2],
}

impl Watch {
    /// Both sides; `preview` bytes of each message are shown, as far as its payload is read.
    pub fn new(preview: usize) -> (Watch, Watcher) {
        let (events, receiver) = channel(EVENTS_MAX);
        let dropped = Arc::<AtomicU64>::default();
        let watch = Watch { events, dropped: Arc::clone(&dropped), preview };
        (watch, Watcher { events: receiver, dropped })
    }

    /// False when nobody watches any more.
    fn tell(&self, event: &Event) -> bool {
        match self.events.try_send(event.clone()) {
            Ok(()) => true,
            Err(TrySendError::Full(_)) => {
                self.dropped.fetch_add(1, Ordering::Relaxed);
                true
            }
            Err(TrySendError::Closed(_)) => false,
        }
    }
}

impl Watcher {
    /// Events that it was too slow for, so far.
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }
}

impl Watches {
    /// One more watcher.
    pub fn add(&mut self, watch: Watch) -> Result<(), Unwatchable> {
        self.all.retain(|watch| !watch.events.is_closed());
        if self.all.len() == WATCHES_MAX {
            return Err(Unwatchable::Crowded);
        }
        self.all.push(watch);
        Ok(())
    }

    /// Whether nobody watches any more.
    pub fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// Whether somebody wants to see payload.
    pub fn want_payload(&self) -> bool {
        self.preview_max() > 0
    }

    pub fn frame(&mut self, direction: Direction, header: &Header) {
        let Header { opcode, fin, payload: bytes, .. } = *header;
        if matches!(opcode, Opcode::Text | Opcode::Binary) {
            self.previews[direction as usize] = Some(Vec::new());
        }
        self.tell(direction, Instant::now(), What::Frame { opcode, fin, bytes });
    }

    pub fn payload(&mut self, direction: Direction, bytes: &[u8]) {
        let room = self.preview_max();
        let Some(preview) = &mut self.previews[direction as usize] else { return };
        let room = room.saturating_sub(preview.len());
        preview.extend_from_slice(&bytes[..room.min(bytes.len())]);
    }

    pub fn message(&mut self, direction: Direction, message: &Whole) {
        let now = Instant::now();
        let index = direction as usize;
        let preview = self.previews[index].take().filter(|preview| !preview.is_empty());
        let latency = self.ended[direction.reverse() as usize].map(|at| now - at);
        self.ended[index] = Some(now);
        let what = What::Message {
            opcode: message.opcode,
            bytes: message.bytes,
            inflated: message.inflated,
            latency,
            preview: preview.map(Into::into),
        };
        self.tell(direction, now, what);
    }

    pub fn close(&mut self, direction: Direction, code: Option<u16>) {
        self.tell(direction, Instant::now(), What::Close(code));
    }

    pub fn violation(&mut self, direction: Direction, rule: Rule) {
        self.tell(direction, Instant::now(), What::Violation(rule));
    }

    fn preview_max(&self) -> usize {
        self.all.iter().map(|watch| watch.preview).max().unwrap_or(0)
    }

    fn tell(&mut self, direction: Direction, at: Instant, what: What) {
        let event = Event { at, direction, what };
        self.all.retain(|watch| watch.tell(&event));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const UP: Direction = Direction::ToUpstream;

    fn whole(bytes: u64) -> Whole {
        Whole { opcode: Opcode::Text, bytes, fragments: 1, inflated: None }
    }

    #[test]
    fn who_is_too_slow_misses_events_and_is_told_how_many() {
        let mut watches = Watches::default();
        let (watch, mut slow) = Watch::new(0);
        watches.add(watch).expect("there is room");
        for _ in 0..EVENTS_MAX + 3 {
            watches.close(UP, None);
        }
        assert_eq!(slow.dropped(), 3);
        assert!(slow.events.try_recv().is_ok());
        watches.close(UP, None);
        assert_eq!(slow.dropped(), 3, "there was room again");
    }

    #[test]
    fn who_has_left_makes_room_and_nobody_is_told_any_more() {
        let mut watches = Watches::default();
        let mut there = Vec::new();
        for _ in 0..WATCHES_MAX {
            let (watch, watcher) = Watch::new(0);
            watches.add(watch).expect("there is room");
            there.push(watcher);
        }
        assert_eq!(watches.add(Watch::new(0).0), Err(Unwatchable::Crowded));
        there.pop();
        watches.add(Watch::new(0).0).expect("there is room again");
        drop(there);
        watches.violation(UP, Rule::Mask);
        assert!(watches.is_empty());
    }

    #[test]
    fn a_preview_is_the_beginning_of_its_message_and_no_longer_than_wanted() {
        let mut watches = Watches::default();
        let (watch, mut watcher) = Watch::new(5);
        watches.add(watch).expect("there is room");
        assert!(watches.want_payload());
        let payload = |watches: &mut Watches| {
            for part in [&b"abc"[..], b"defg", b"h"] {
                watches.payload(UP, part);
            }
            watches.message(UP, &whole(8));
        };
        payload(&mut watches);
        let event = watcher.events.try_recv().expect("an event");
        let What::Message { preview: None, .. } = event.what else { panic!("{event:?}") };
        let header = Header {
            fin: true,
            compressed: false,
            opcode: Opcode::Text,
            mask: None,
            payload: 8,
            bytes: 2,
        };
        watches.frame(UP, &header);
        payload(&mut watches);
        watches.message(UP.reverse(), &whole(0));
        let event = watcher.events.try_recv().expect("an event");
        let What::Frame { fin: true, bytes: 8, .. } = event.what else { panic!("{event:?}") };
        let event = watcher.events.try_recv().expect("an event");
        let What::Message { preview, latency: None, .. } = event.what else { panic!("{event:?}") };
        assert_eq!(preview.as_deref(), Some(&b"abcde"[..]));
        let event = watcher.events.try_recv().expect("an event");
        let What::Message { preview: None, latency: Some(_), .. } = event.what else {
            panic!("{event:?}")
        };
    }
}
