//! How much may come per second: a bucket that holds a second's worth, as one number. Time is given, in
//! nanoseconds since any fixed moment.

use super::frame::{Header, Opcode};
use super::policy::{OnExcess, Rates};
use super::rules::Rule;

/// The most that may come at once is what may come in a second.
const BURST: u64 = 1_000_000_000;
/// What has to wait is looked at again after each wait, so that it should be worth it: so long,
const WAIT: u64 = BURST / 100;
/// or for so many bytes.
const WAIT_BYTES: u64 = 1024;

/// What may come per second in one direction.
///
/// Messages and control frames are paid for when their header comes. So are the bytes of a frame where too much is a
/// violation, since a frame that was cut short could not be told of; else bytes are paid for as they pass.
#[derive(Debug)]
pub struct Rate {
    bytes: Option<Bucket>,
    messages: Option<Bucket>,
    control_frames: Option<Bucket>,
    inflated: Option<Bucket>,
    on_excess: OnExcess,
}

/// Lets so many units pass per second.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bucket {
    per_second: u64,
    /// When all that has passed would have, at this rate and not before.
    paid_until: u64,
}

impl Rate {
    /// What `rates` allow; `None` when that is anything.
    pub fn new(rates: &Rates) -> Option<Box<Rate>> {
        let Rates { messages, bytes, control_frames, inflated_bytes, on_excess } = *rates;
        let bucket = |rate: Option<u32>| rate.map(|rate| Bucket::new(rate.into()));
        let rate = Rate {
            bytes: bytes.map(Bucket::new),
            messages: bucket(messages),
            control_frames: bucket(control_frames),
            inflated: inflated_bytes.map(Bucket::new),
            on_excess,
        };
        let Rate { bytes, messages, control_frames, inflated, .. } = &rate;
        let any = [bytes, messages, control_frames, inflated].into_iter().any(Option::is_some);
        any.then(|| Box::new(rate))
    }

    /// When the frame with this header may come, if it may not now.
    ///
    /// # Errors
    ///
    /// It is too much, and that is not to be waited for.
    pub fn wait(&self, header: &Header, now: u64) -> Result<Option<u64>, Rule> {
        let [bytes, messages, control] = units(header);
        if self.closes() && self.bytes.is_some_and(|bucket| !bucket.admits(bytes, now)) {
            return Err(Rule::ByteRate);
        }
        let asked = [
            (&self.messages, messages, Rule::MessageRate),
            (&self.control_frames, control, Rule::ControlRate),
        ];
        let too_much = asked.into_iter().filter(|(_, units, _)| *units > 0).filter_map(
            |(bucket, units, rule)| bucket.as_ref()?.wait(units, now).map(|until| (until, rule)),
        );
        match too_much.max_by_key(|(until, _)| *until) {
            Some((_, rule)) if self.closes() => Err(rule),
            Some((until, _)) => Ok(Some(until.max(now.saturating_add(WAIT)))),
            None => Ok(None),
        }
    }

    /// The frame with this header has come.
    pub fn take(&mut self, header: &Header, now: u64) {
        let [bytes, messages, control] = units(header);
        let bytes = if self.closes() { bytes } else { 0 };
        let Rate { bytes: of_bytes, messages: of_messages, control_frames, .. } = self;
        for (bucket, units) in
            [(of_bytes, bytes), (of_messages, messages), (control_frames, control)]
        {
            if let Some(bucket) = bucket {
                bucket.take(units, now);
            }
        }
    }

    /// Bytes that may pass now.
    pub fn room(&self, now: u64) -> u64 {
        self.slowed_bytes().map_or(u64::MAX, |bucket| bucket.room(now))
    }

    /// When there is room again, for all of `wanted` bytes or enough of them.
    pub fn until_room(&self, wanted: u64, now: u64) -> u64 {
        let Some(bucket) = self.slowed_bytes() else { return now };
        let enough = (bucket.per_second / (BURST / WAIT)).max(WAIT_BYTES.min(bucket.per_second));
        bucket.wait(wanted.clamp(1, enough), now).unwrap_or(now)
    }

    /// So many bytes have passed.
    pub fn passed(&mut self, bytes: u64, now: u64) {
        if !self.closes()
            && let Some(bucket) = &mut self.bytes
        {
            bucket.take(bytes, now);
        }
    }

    /// When more may be inflated, if it may not now.
    ///
    /// # Errors
    ///
    /// It is too much, and that is not to be waited for.
    pub fn wait_to_inflate(&self, now: u64) -> Result<Option<u64>, Rule> {
        match self.inflated.as_ref().and_then(|bucket| bucket.wait(1, now)) {
            Some(_) if self.closes() => Err(Rule::InflatedRate),
            Some(until) => Ok(Some(until.max(now.saturating_add(WAIT)))),
            None => Ok(None),
        }
    }

    /// So many bytes came out of compressed ones: before that, nobody could say how many.
    pub fn inflated(&mut self, bytes: u64, now: u64) {
        if let Some(bucket) = &mut self.inflated {
            bucket.take(bytes, now);
        }
    }

    fn closes(&self) -> bool {
        self.on_excess == OnExcess::Close
    }

    fn slowed_bytes(&self) -> Option<&Bucket> {
        self.bytes.as_ref().filter(|_| !self.closes())
    }
}

/// What a frame takes: bytes, messages, control frames.
fn units(header: &Header) -> [u64; 3] {
    let begins = matches!(header.opcode, Opcode::Text | Opcode::Binary);
    let bytes = header.payload.saturating_add(header.bytes as u64);
    [bytes, u64::from(begins), u64::from(header.opcode.is_control())]
}

impl Bucket {
    /// A full bucket. At least one unit per second.
    pub fn new(per_second: u64) -> Bucket {
        Bucket { per_second: per_second.max(1), paid_until: 0 }
    }

    /// Whether `units` may pass now; never more than a second's worth.
    pub fn admits(&self, units: u64, now: u64) -> bool {
        units <= self.per_second && self.wait(units, now).is_none()
    }

    /// How many units may pass now.
    pub fn room(&self, now: u64) -> u64 {
        let credit = BURST.saturating_sub(self.paid_until.saturating_sub(now));
        let units = u128::from(credit) * u128::from(self.per_second) / u128::from(BURST);
        u64::try_from(units).unwrap_or(u64::MAX)
    }

    /// When `units` may pass; `None`: now. More than fits in at all passes when the bucket is full.
    pub fn wait(&self, units: u64, now: u64) -> Option<u64> {
        let until = self.paid_until.saturating_sub(BURST.saturating_sub(self.cost(units)));
        (until > now).then_some(until)
    }

    /// `units` have passed.
    pub fn take(&mut self, units: u64, now: u64) {
        self.paid_until = self.paid_until.max(now).saturating_add(self.cost(units));
    }

    fn cost(&self, units: u64) -> u64 {
        let nanos = u128::from(units) * u128::from(BURST) / u128::from(self.per_second);
        u64::try_from(nanos).unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A moment that is not the beginning of time.
    const NOW: u64 = 5_000_000_000;

    #[test]
    fn a_seconds_worth_passes_at_once_and_the_next_unit_has_to_wait() {
        let mut bucket = Bucket::new(10);
        for unit in 0..10 {
            assert_eq!(bucket.wait(1, NOW), None, "unit {unit}");
            bucket.take(1, NOW);
        }
        assert_eq!(bucket.wait(1, NOW), Some(NOW + 100_000_000));
        assert_eq!(bucket.wait(1, NOW + 100_000_000), None);
    }

    #[test]
    fn what_is_more_than_a_seconds_worth_passes_when_the_bucket_is_full_and_is_paid_for_after() {
        let mut bucket = Bucket::new(1000);
        assert_eq!(bucket.wait(5000, NOW), None);
        bucket.take(5000, NOW);
        assert_eq!(bucket.wait(1, NOW), Some(NOW + 4_001_000_000));
        assert_eq!(bucket.wait(5000, NOW), Some(NOW + 5_000_000_000));
    }

    #[test]
    fn a_pause_fills_it_to_a_seconds_worth_and_no_more() {
        let mut bucket = Bucket::new(2);
        bucket.take(2, NOW);
        let later = NOW + 60_000_000_000;
        bucket.take(1, later);
        bucket.take(1, later);
        assert_eq!(bucket.wait(1, later), Some(later + 500_000_000));
    }

    #[test]
    fn there_is_room_for_what_has_not_passed_in_the_last_second() {
        let mut bucket = Bucket::new(1000);
        assert_eq!(bucket.room(NOW), 1000);
        bucket.take(1000, NOW);
        assert_eq!((bucket.room(NOW), bucket.room(NOW + 250_000_000)), (0, 250));
        bucket.take(600, NOW);
        assert_eq!((bucket.room(NOW + 600_000_000), bucket.room(NOW + 601_000_000)), (0, 1));
        assert_eq!(bucket.room(NOW + 60_000_000_000), 1000);
    }

    #[test]
    fn nothing_is_waited_for_that_is_not_worth_a_look() {
        let bytes = |bytes| {
            let rates = Rates { bytes: Some(bytes), ..Rates::default() };
            let mut rate = Rate::new(&rates).expect("a rate");
            rate.passed(bytes, NOW);
            rate
        };
        // A hundredth of a second's worth of a fast one, a packet's worth of a slow one, or all that is wanted.
        let fast = bytes(10_000_000);
        assert_eq!((fast.room(NOW), fast.until_room(1 << 20, NOW)), (0, NOW + 10_000_000));
        assert_eq!(bytes(2048).until_room(1 << 20, NOW), NOW + 500_000_000);
        assert_eq!(bytes(2048).until_room(512, NOW), NOW + 250_000_000);
        assert_eq!(bytes(10).until_room(1 << 20, NOW), NOW + 1_000_000_000);
    }

    #[test]
    fn what_was_inflated_is_paid_for_before_more_is() {
        let rates = Rates { inflated_bytes: Some(1000), ..Rates::default() };
        let mut rate = Rate::new(&rates).expect("a rate");
        assert_eq!(rate.wait_to_inflate(NOW), Ok(None));
        rate.inflated(999, NOW);
        assert_eq!(rate.wait_to_inflate(NOW), Ok(None));
        rate.inflated(2001, NOW);
        assert_eq!(rate.wait_to_inflate(NOW), Ok(Some(NOW + 2_001_000_000)));
        rate.on_excess = OnExcess::Close;
        assert_eq!(rate.wait_to_inflate(NOW), Err(Rule::InflatedRate));
    }

    #[test]
    fn numbers_that_no_second_can_hold_do_not_wrap() {
        let mut bucket = Bucket::new(1);
        bucket.take(u64::MAX, u64::MAX - 1);
        assert_eq!(bucket.wait(u64::MAX, 0), Some(u64::MAX));
    }
}
