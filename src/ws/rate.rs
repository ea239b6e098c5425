//! How much may come per second: a bucket that holds a second's worth, as one number. Time is given, in
//! nanoseconds since any fixed moment.

use super::frame::{Header, Opcode};
use super::policy::{OnExcess, Rates};
use super::rules::Rule;

/// The most that may come at once is what may come in a second.
const BURST: u64 = 1_000_000_000;

/// What may come per second in one direction.
#[derive(Debug)]
pub struct Rate {
    bytes: Option<Bucket>,
    messages: Option<Bucket>,
    control_frames: Option<Bucket>,
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
        let Rates { messages, bytes, control_frames, on_excess } = *rates;
        let any = messages.is_some() || bytes.is_some() || control_frames.is_some();
        any.then(|| {
            Box::new(Rate {
                bytes: bytes.map(Bucket::new),
                messages: messages.map(|rate| Bucket::new(rate.into())),
                control_frames: control_frames.map(|rate| Bucket::new(rate.into())),
                on_excess,
            })
        })
    }

    /// When the frame with this header may come, if it may not now.
    ///
    /// # Errors
    ///
    /// It is too much, and that is not to be waited for.
    pub fn wait(&self, header: &Header, now: u64) -> Result<Option<u64>, Rule> {
        let [bytes, messages, control] = units(header);
        let asked = [
            (&self.bytes, bytes, Rule::ByteRate),
            (&self.messages, messages, Rule::MessageRate),
            (&self.control_frames, control, Rule::ControlRate),
        ];
        let too_much = asked.into_iter().filter(|(_, units, _)| *units > 0).filter_map(
            |(bucket, units, rule)| bucket.as_ref()?.wait(units, now).map(|until| (until, rule)),
        );
        match too_much.max_by_key(|(until, _)| *until) {
            Some((_, rule)) if self.on_excess == OnExcess::Close => Err(rule),
            Some((until, _)) => Ok(Some(until)),
            None => Ok(None),
        }
    }

    /// The frame with this header has come.
    pub fn take(&mut self, header: &Header, now: u64) {
        let Rate { bytes, messages, control_frames, .. } = self;
        for (bucket, units) in [bytes, messages, control_frames].into_iter().zip(units(header)) {
            if let Some(bucket) = bucket {
                bucket.take(units, now);
            }
        }
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
    fn numbers_that_no_second_can_hold_do_not_wrap() {
        let mut bucket = Bucket::new(1);
        bucket.take(u64::MAX, u64::MAX - 1);
        assert_eq!(bucket.wait(u64::MAX, 0), Some(u64::MAX));
    }
}
