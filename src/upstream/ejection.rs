//! What failures of sessions say about an endpoint: after some in a row it is left alone for a while, then
//! one session tries it. Pure: time is passed in.
//!
//! All that is known fits into one number, so that a change is one atomic operation and two workers cannot
//! both send the one session that tries.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use crate::config::upstreams::Ejection as Rules;

/// What went wrong with a session before it was joined.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// It could not be connected.
    Connect,
    /// It was connected, and no usable answer came.
    Answer,
}

/// Whether an endpoint may be given a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admission {
    /// Like any other.
    Open,
    /// One, to see whether it is back: see [`Ejection::claim`].
    Due,
    /// Not before its time.
    Ejected,
}

/// What is held against one endpoint.
#[derive(Debug, Default)]
pub struct Ejection(AtomicU64);

/// The same as fields.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct State {
    /// Milliseconds; 0: it is not ejected.
    until: u64,
    /// Whether a session tries it.
    tried: bool,
    /// How often it was ejected since it last answered.
    level: u8,
    connects_failed: u8,
    answers_failed: u8,
}

/// 34 years.
const UNTIL_BITS: u32 = 40;
const UNTIL_MAX: u64 = (1 << UNTIL_BITS) - 1;
const LEVEL_MAX: u8 = 127;

impl State {
    fn of(bits: u64) -> State {
        let [level, connects_failed, answers_failed] =
            [1, 8, 16].map(|shift| (bits >> (UNTIL_BITS + shift)) as u8);
        let tried = (bits >> UNTIL_BITS) & 1 == 1;
        let level = level & LEVEL_MAX;
        State { until: bits & UNTIL_MAX, tried, level, connects_failed, answers_failed }
    }

    fn bits(self) -> u64 {
        let State { until, tried, level, connects_failed, answers_failed } = self;
        until.min(UNTIL_MAX)
            | u64::from(tried) << UNTIL_BITS
            | u64::from(level.min(LEVEL_MAX)) << (UNTIL_BITS + 1)
            | u64::from(connects_failed) << (UNTIL_BITS + 8)
            | u64::from(answers_failed) << (UNTIL_BITS + 16)
    }

    fn admission(self, now: u64) -> Admission {
        match self.until {
            0 => Admission::Open,
            until if now >= until => Admission::Due,
            _ => Admission::Ejected,
        }
    }

    /// After a failure, and for how long it is ejected by it.
    fn failed(self, what: Failure, now: u64, rules: &Rules, chance: f64) -> (State, Option<u64>) {
        let mut next = self;
        let (count, limit) = match what {
            Failure::Connect => (&mut next.connects_failed, rules.after),
            Failure::Answer => (&mut next.answers_failed, rules.after),
        };
        *count = count.saturating_add(1);
        let reached = limit.is_some_and(|limit| *count >= limit);
        // One that is ejected already is not ejected for longer by those who were on their way to it.
        if !reached || (self.until != 0 && !self.tried && now < self.until) {
            return (next, None);
        }
        let time = time_for(self.level, rules, chance);
        next.until = now.saturating_add(time).max(1);
        next.tried = false;
        next.level = self.level.saturating_add(1);
        (next, Some(time))
    }

    /// After a connect: what was held against its connects is void.
    fn connected(self, rules: &Rules) -> State {
        let is_back = rules.after.is_none_or(|after| self.answers_failed < after);
        let free = State { until: 0, tried: false, ..self };
        State { connects_failed: 0, ..if is_back { free } else { self } }
    }
}

/// Milliseconds for the next time, doubled with each before it, and up to a quarter more by `chance`, which
/// is from 0 to 1: endpoints that failed together are not all tried at one moment.
fn time_for(level: u8, rules: &Rules, chance: f64) -> u64 {
    let millis = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    let doubled = millis(rules.first).saturating_mul(1 << level.min(30));
    let time = doubled.min(millis(rules.longest));
    time + (time as f64 * chance / 4.0) as u64
}

impl Ejection {
    /// Whether the endpoint may be given a session at `now`.
    pub fn admission(&self, now: Duration) -> Admission {
        State::of(self.0.load(Relaxed)).admission(millis(now))
    }

    /// Asks to send it a session: always granted to one that is open; to one of those who ask while it is
    /// due. Until `within` is over, or the session has said more, nobody else is granted one.
    pub fn claim(&self, now: Duration, within: Duration) -> bool {
        let (now, within) = (millis(now), millis(within));
        let claimed = self.0.fetch_update(Relaxed, Relaxed, |bits| {
            let state = State::of(bits);
            let tried = State { until: now + within.max(1), tried: true, ..state };
            match state.admission(now) {
                Admission::Open => Some(bits),
                Admission::Due => Some(tried.bits()),
                Admission::Ejected => None,
            }
        });
        claimed.is_ok()
    }

    /// Notes a failure; says for how long the endpoint is ejected, if it is by this one.
    pub fn failed(
        &self,
        what: Failure,
        now: Duration,
        rules: &Rules,
        chance: f64,
    ) -> Option<Duration> {
        let mut ejected = None;
        let _ = self.0.fetch_update(Relaxed, Relaxed, |bits| {
            let (state, time) = State::of(bits).failed(what, millis(now), rules, chance);
            ejected = time;
            Some(state.bits())
        });
        ejected.map(Duration::from_millis)
    }

    /// Notes a connect; true when it ends an ejection.
    pub fn connected(&self, rules: &Rules) -> bool {
        self.change(|state| state.connected(rules))
    }

    /// Notes an answer: nothing is held against the endpoint any more. True when that ends an ejection.
    pub fn answered(&self) -> bool {
        self.change(|_| State::default())
    }

    fn change(&self, change: impl Fn(State) -> State) -> bool {
        // Nearly always nothing is held against it, and a load costs nothing.
        let mut bits = self.0.load(Relaxed);
        while bits != 0 {
            let (before, after) = (State::of(bits), change(State::of(bits)));
            match self.0.compare_exchange_weak(bits, after.bits(), Relaxed, Relaxed) {
                Ok(_) => return before.until != 0 && after.until == 0,
                Err(now) => bits = now,
            }
        }
        false
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(UNTIL_MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const RULES: Rules =
        Rules { after: Some(3), first: Duration::from_secs(2), longest: Duration::from_secs(10) };

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    /// As many connects fail at once as it takes.
    fn ejected() -> Ejection {
        let ejection = Ejection::default();
        for _ in 0..2 {
            assert_eq!(ejection.failed(Failure::Connect, at(100), &RULES, 0.0), None);
            assert_eq!(ejection.admission(at(100)), Admission::Open);
        }
        let time = ejection.failed(Failure::Connect, at(100), &RULES, 0.0);
        assert_eq!(time, Some(RULES.first));
        ejection
    }

    #[test]
    fn it_is_left_alone_after_failures_in_a_row_and_then_tried_by_one() {
        let ejection = ejected();
        assert_eq!(ejection.admission(at(101)), Admission::Ejected);
        assert!(!ejection.claim(at(101), at(5)));
        assert_eq!(ejection.admission(at(102)), Admission::Due);
        assert!(ejection.claim(at(102), at(5)), "the first who asks");
        assert!(!ejection.claim(at(102), at(5)), "there is only one");
        assert!(ejection.connected(&RULES), "it is back");
        assert_eq!(ejection.admission(at(102)), Admission::Open);
    }

    #[test]
    fn each_time_it_is_left_alone_for_longer_up_to_the_longest() {
        let ejection = ejected();
        let mut now = 102;
        for wanted in [4, 8, 10, 10] {
            assert!(ejection.claim(at(now), at(5)));
            let time = ejection.failed(Failure::Connect, at(now), &RULES, 0.0);
            assert_eq!(time, Some(at(wanted)));
            now += wanted;
        }
        assert!(ejection.claim(at(now), at(5)));
        assert!(ejection.answered());
        assert_eq!(ejection.0.load(Relaxed), 0, "all is forgotten");
    }

    #[test]
    fn a_connect_ends_the_ejection_and_only_an_answer_the_doubling() {
        let ejection = ejected();
        assert!(ejection.claim(at(102), at(5)));
        assert!(ejection.connected(&RULES));
        for _ in 0..2 {
            assert_eq!(ejection.failed(Failure::Connect, at(103), &RULES, 0.0), None);
        }
        assert_eq!(ejection.failed(Failure::Connect, at(103), &RULES, 0.0), Some(at(4)));
    }

    #[test]
    fn answers_count_by_themselves_and_a_connect_says_nothing_of_them() {
        let ejection = Ejection::default();
        for what in [Failure::Answer, Failure::Connect, Failure::Answer, Failure::Connect] {
            assert_eq!(ejection.failed(what, at(1), &RULES, 0.0), None, "two of each");
        }
        assert!(!ejection.connected(&RULES), "it was not ejected");
        assert_eq!(ejection.failed(Failure::Answer, at(1), &RULES, 0.0), Some(RULES.first));
        assert!(!ejection.connected(&RULES), "it has not answered yet");
        assert_eq!(ejection.admission(at(2)), Admission::Ejected);
        assert!(ejection.answered());
    }

    #[test]
    fn those_who_were_on_their_way_do_not_make_it_longer() {
        let ejection = ejected();
        for _ in 0..50 {
            assert_eq!(ejection.failed(Failure::Connect, at(101), &RULES, 0.0), None);
        }
        assert_eq!(ejection.admission(at(102)), Admission::Due);
    }

    #[test]
    fn a_session_that_tries_and_says_nothing_blocks_nobody_for_ever() {
        let ejection = ejected();
        assert!(ejection.claim(at(102), at(5)));
        assert_eq!(ejection.admission(at(106)), Admission::Ejected);
        assert!(ejection.claim(at(107), at(5)));
    }

    #[test]
    fn nothing_is_ejected_where_that_is_off() {
        let off = Rules { after: None, ..RULES };
        let ejection = Ejection::default();
        for _ in 0..1000 {
            assert_eq!(ejection.failed(Failure::Connect, at(1), &off, 0.0), None);
        }
        assert_eq!(ejection.admission(at(1)), Admission::Open);
    }

    proptest! {
        #[test]
        fn the_fields_survive_their_number(
            until in 0..=UNTIL_MAX, tried: bool, level in 0..=LEVEL_MAX,
            connects_failed: u8, answers_failed: u8,
        ) {
            let state = State { until, tried, level, connects_failed, answers_failed };
            prop_assert_eq!(State::of(state.bits()), state);
        }

        #[test]
        fn a_time_is_within_its_bounds(level: u8, chance in 0.0..1.0) {
            let time = Duration::from_millis(time_for(level, &RULES, chance));
            prop_assert!(RULES.first <= time && time <= RULES.longest * 5 / 4);
        }
    }
}
