//! Mode `inspect`: a relay that follows the frames of the session it carries.
//!
//! It is a [`ReadyRelay`](super::ReadyRelay) whose fills ask an [`Inspector`] first. Payload that nobody has to read
//! is spliced, exactly to the end of its frame; everything else is received, judged, and sent as it came. What is not
//! whole yet (a header, a control frame) is held here, at most a few bytes, or what a rate keeps back.

mod ending;
mod fill;
mod heart;
mod tell;

use std::sync::Arc;
use std::time::{Duration, Instant};

use self::ending::Ending;
use self::heart::Heart;
use super::watch::{Unwatchable, Watch, Watches};
use super::{Direction, Engine, Way};
use crate::ws::deflate::InflaterBudget;
use crate::ws::extensions::Agreement;
use crate::ws::inspect::{Inspector, PLAIN_BYTES, Sender};
use crate::ws::policy::Inspection;
use crate::ws::rules::Rule;

/// What an inspected session knows of its frames; goes along when it moves.
#[derive(Debug)]
pub struct Framed {
    policy: Arc<Inspection>,
    ways: [Following; 2],
    /// Rates and timers count from here.
    since: Instant,
    ending: Option<Box<Ending>>,
    heart: Option<Box<Heart>>,
    violation: Option<Violation>,
    /// When it wants a turn of its own, and the turns that it will have, the next one last.
    alarm: Option<Instant>,
    told: Vec<Instant>,
    /// Who is told what passes, if somebody is.
    watches: Option<Box<Watches>>,
}

/// The first rule that was broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Which one.
    pub rule: Rule,
    /// Whose bytes: those that went this way.
    pub direction: Direction,
    /// Bytes that had passed before.
    pub offset: u64,
}

/// One direction, as it is followed.
#[derive(Debug)]
struct Following {
    inspector: Inspector,
    /// Received and not judged: an incomplete header or control frame, or what has to wait.
    held: Vec<u8>,
    /// Look at `held` again without new bytes.
    retry: bool,
    /// A rate is used up until then.
    waits: Option<u64>,
    may_splice: bool,
    /// The last data frame was worth a splice: look at the next header before receiving.
    large: bool,
    /// The kernel lets headers be looked at that are not at the front.
    looks_ahead: bool,
    /// Frames of our own that went this way, in bytes.
    injected: u64,
    /// Bytes that were not for the other side.
    dropped: u64,
    /// A Close of our own went this way.
    said_close: bool,
}

/// Worker-wide memory for unmasking and inflating; made for the first session that needs it.
#[derive(Debug)]
pub(super) struct Scratch {
    plain: Box<[u8]>,
    inflated: Box<[u8]>,
}

impl Default for Scratch {
    fn default() -> Scratch {
        let room = || vec![0; PLAIN_BYTES].into_boxed_slice();
        Scratch { plain: room(), inflated: room() }
    }
}

impl Framed {
    /// At the beginning of a session in which `agreement` was made about compression. `head_data` is what came
    /// along with the heads, by direction: it is judged like all the rest.
    pub fn new(
        policy: Arc<Inspection>,
        agreement: Option<&Agreement>,
        budget: &Arc<InflaterBudget>,
        head_data: [Vec<u8>; 2],
    ) -> Framed {
        let [to_upstream, to_downstream] = head_data;
        let following = |sender, held: Vec<u8>| Following {
            inspector: Inspector::new(Arc::clone(&policy), sender, agreement, budget),
            retry: !held.is_empty(),
            held,
            waits: None,
            may_splice: false,
            large: false,
            looks_ahead: true,
            injected: 0,
            dropped: 0,
            said_close: false,
        };
        let ways =
            [following(Sender::Client, to_upstream), following(Sender::Server, to_downstream)];
        let since = Instant::now();
        let mut framed = Framed {
            ways,
            since,
            ending: None,
            heart: policy.heartbeat.map(|heartbeat| Box::new(Heart::new(heartbeat, since))),
            violation: None,
            alarm: None,
            told: Vec::new(),
            watches: None,
            policy,
        };
        if let Some(heart) = &framed.heart {
            let pongs = heart.pongs();
            framed.ways.iter_mut().for_each(|way| way.inspector.expect_pongs(pongs));
        }
        framed
    }

    /// From now on `watch` is told what passes.
    ///
    /// # Errors
    ///
    /// Enough watch it already.
    pub(super) fn watch(&mut self, watch: Watch) -> Result<(), Unwatchable> {
        self.watches.get_or_insert_default().add(watch)
    }

    /// Nobody has to be told what nobody hears.
    fn forget_watches(&mut self) {
        if self.watches.as_ref().is_some_and(|watches| watches.is_empty()) {
            self.watches = None;
        }
    }

    /// How the session is inspected.
    pub fn policy(&self) -> &Inspection {
        &self.policy
    }

    /// The first rule that was broken.
    pub fn violation(&self) -> Option<Violation> {
        self.violation
    }

    /// Bytes of `direction` that were not for the other side, or never became a whole frame.
    pub fn dropped(&self, direction: Direction) -> u64 {
        let way = &self.ways[direction as usize];
        way.dropped + way.held.len() as u64
    }

    /// Whether both directions are between two messages, with nothing held: the session could go on opaque.
    pub fn is_idle(&self) -> bool {
        let is_idle = |way: &Following| way.held.is_empty() && way.inspector.is_between_messages();
        self.ending.is_none() && self.ways.iter().all(is_idle)
    }

    /// Takes over the directions of a session: their engine is decided frame by frame.
    pub(super) fn attach(&mut self, ways: &mut [Way; 2]) {
        for (following, way) in self.ways.iter_mut().zip(ways) {
            following.may_splice = way.engine() != Engine::Copy || way.pace.is_some();
            way.switch(Engine::Copy);
        }
    }

    /// Lets `engine` carry what nobody has to read; the ring stands for splice here.
    pub(super) fn switch(&mut self, engine: Engine) {
        self.ways.iter_mut().for_each(|way| way.may_splice = engine != Engine::Copy);
    }

    /// The kernel cannot splice in this direction.
    pub(super) fn never_splice(&mut self, direction: Direction) {
        self.ways[direction as usize].may_splice = false;
    }

    /// Bytes of our own that went in `direction`.
    pub(super) fn injected(&self, direction: Direction) -> u64 {
        self.ways[direction as usize].injected
    }

    /// Whether what is held can be judged without new bytes.
    pub(super) fn looks_again(&self, direction: Direction) -> bool {
        self.ways[direction as usize].retry
    }

    /// When the session wants a turn though its sockets have no event; nothing if it will have one by then.
    pub(super) fn take_alarm(&mut self) -> Option<Instant> {
        let alarm = self.alarm?;
        if self.told.last().is_some_and(|told| *told <= alarm) {
            return None;
        }
        self.told.push(alarm);
        Some(alarm)
    }

    /// The session goes on elsewhere, where its alarms are not known.
    pub(super) fn forget_alarms(&mut self) {
        self.told.clear();
    }

    /// A turn begins: alarms are set anew.
    pub(super) fn begin_turn(&mut self) {
        self.alarm = None;
        if self.told.is_empty() {
            return;
        }
        let now = Instant::now();
        while self.told.last().is_some_and(|told| *told <= now) {
            self.told.pop();
        }
    }

    fn alarm_at(&mut self, at: Instant) {
        if self.alarm.is_none_or(|alarm| at < alarm) {
            self.alarm = Some(at);
        }
    }

    /// The time as rates count it.
    fn now(&self) -> u64 {
        u64::try_from(self.since.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    fn instant(&self, nanos: u64) -> Instant {
        self.since + Duration::from_nanos(nanos)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_turn_that_is_to_come_is_asked_for_once() {
        let policy = Arc::new(Inspection::default());
        let mut framed = Framed::new(policy, None, &Arc::default(), Default::default());
        let now = Instant::now();
        let far = now + Duration::from_secs(60);
        framed.alarm_at(far);
        assert_eq!(framed.take_alarm(), Some(far));
        for _ in 0..100 {
            framed.begin_turn();
            framed.alarm_at(far);
            // One that is due at once, as when a rate lets a little pass every now and then.
            framed.alarm_at(now);
            assert_eq!(framed.take_alarm(), Some(now), "it is asked for before");
            framed.begin_turn();
            framed.alarm_at(far);
            assert_eq!(framed.take_alarm(), None, "it will come already");
        }
        assert_eq!(framed.told, [far]);
    }
}
