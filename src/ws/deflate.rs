//! Compressed messages, looked into (RFC 7692 §7.2.2): inflated through a small buffer, piece by piece, and never kept.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use zlib_rs::{Inflate, InflateFlush, Status};

use super::rules::Rule;

/// A window of 15 bits reads what was written with any smaller one.
const WINDOW_BITS: u8 = 15;
/// What the sender took off the end of each message.
const TAIL: [u8; 4] = [0x00, 0x00, 0xff, 0xff];
/// Below this many inflated bytes no ratio is judged: a few zeros compress well.
const RATIO_FROM: u64 = 64 * 1024;
/// Inflaters of a process, unless said otherwise: each takes about 48 KB (kernel-notes/0021).
const INFLATERS_MAX: usize = 8192;

/// How much a message may become; `None` is unlimited.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bounds {
    /// Bytes of a message once inflated.
    pub inflated_bytes_max: Option<u64>,
    /// Inflated bytes per byte on the wire, from 64 KiB inflated on.
    pub inflated_ratio_max: Option<u32>,
}

/// How many inflaters there are, and may be.
#[derive(Debug)]
pub struct InflaterBudget {
    live: AtomicUsize,
    max: usize,
}

/// Inflates the messages of one direction.
pub struct Inflater {
    inflate: Inflate,
    no_context_takeover: bool,
    /// The last byte taken in was the end of a final block.
    ended: bool,
    /// Of the present message.
    wire: u64,
    inflated: u64,
    /// Of all messages.
    total: u64,
    budget: Arc<InflaterBudget>,
}

/// Is given what a message holds.
pub type Look<'l> = dyn FnMut(&[u8]) -> Result<(), Rule> + 'l;

impl Default for InflaterBudget {
    fn default() -> InflaterBudget {
        InflaterBudget::new(INFLATERS_MAX)
    }
}

impl InflaterBudget {
    /// So many at once.
    pub fn new(max: usize) -> InflaterBudget {
        InflaterBudget { live: AtomicUsize::new(0), max }
    }

    /// Inflaters that there are now.
    pub fn live(&self) -> usize {
        self.live.load(Ordering::Relaxed)
    }

    /// Whether new sessions should do without compression: what is left is for those that agreed on it.
    pub fn is_near_full(&self) -> bool {
        self.live() >= self.max - self.max / 8
    }

    fn take(&self) -> bool {
        let one_more = |live: usize| (live < self.max).then_some(live + 1);
        self.live.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more).is_ok()
    }
}

impl Inflater {
    /// For the first message of a direction; `None` when there are as many as there may be.
    pub fn new(no_context_takeover: bool, budget: &Arc<InflaterBudget>) -> Option<Inflater> {
        budget.take().then(|| Inflater {
            inflate: Inflate::new(false, WINDOW_BITS),
            no_context_takeover,
            ended: false,
            wire: 0,
            inflated: 0,
            total: 0,
            budget: Arc::clone(budget),
        })
    }

    /// Bytes that were inflated so far, of all messages.
    pub fn total(&self) -> u64 {
        self.total
    }

    /// Takes in payload of the present message, unmasked; `look` is given what it holds, through `scratch`.
    ///
    /// # Errors
    ///
    /// It cannot be inflated, becomes more than `bounds` allow, or is refused by `look`.
    pub fn feed(
        &mut self,
        payload: &[u8],
        scratch: &mut [u8],
        bounds: Bounds,
        look: &mut Look<'_>,
    ) -> Result<(), Rule> {
        self.wire += payload.len() as u64;
        self.inflate(payload, scratch, bounds, look)
    }

    /// The present message has ended; how many bytes it holds.
    ///
    /// # Errors
    ///
    /// As of [`feed`](Inflater::feed): its last bytes may come out only now.
    pub fn finish(
        &mut self,
        scratch: &mut [u8],
        bounds: Bounds,
        look: &mut Look<'_>,
    ) -> Result<u64, Rule> {
        // No byte at all is no block that the tail could complete; an empty message is one zero (§7.2.3.6).
        // Nor is a final block with nothing behind it: a sender should add a zero (§7.2.3.4), but endpoints read it
        // without, and half a header left behind would spoil the next message.
        if self.wire > 0 && !self.ended {
            self.inflate(&TAIL, scratch, bounds, look)?;
        }
        if self.no_context_takeover {
            self.inflate.reset(false);
        }
        self.ended = false;
        self.wire = 0;
        Ok(std::mem::take(&mut self.inflated))
    }

    fn inflate(
        &mut self,
        mut input: &[u8],
        scratch: &mut [u8],
        bounds: Bounds,
        look: &mut Look<'_>,
    ) -> Result<(), Rule> {
        loop {
            let (before_in, before_out) = (self.inflate.total_in(), self.inflate.total_out());
            let answer = self.inflate.decompress(input, scratch, InflateFlush::SyncFlush);
            let taken = (self.inflate.total_in() - before_in) as usize;
            let made = (self.inflate.total_out() - before_out) as usize;
            input = &input[taken..];
            self.ended &= taken == 0;
            self.inflated += made as u64;
            self.total += made as u64;
            self.check(bounds)?;
            look(&scratch[..made])?;
            // What came out before is looked at first: which rule was broken does not hang on where a read ended.
            match answer.map_err(|_| Rule::Deflate)? {
                // A final block in the middle of a session begins a new stream (RFC 7692 §7.2.3.4).
                Status::StreamEnd => {
                    self.inflate.reset(false);
                    self.ended = true;
                }
                // A full buffer may have more behind it.
                _ if input.is_empty() && made < scratch.len() => return Ok(()),
                _ if taken == 0 && made == 0 => return Err(Rule::Deflate),
                _ => {}
            }
        }
    }

    fn check(&self, bounds: Bounds) -> Result<(), Rule> {
        if bounds.inflated_bytes_max.is_some_and(|max| self.inflated > max) {
            return Err(Rule::InflatedBytes);
        }
        let ratio = |ratio: u32| self.inflated > self.wire.saturating_mul(ratio.into());
        if self.inflated >= RATIO_FROM && bounds.inflated_ratio_max.is_some_and(ratio) {
            return Err(Rule::InflatedRatio);
        }
        Ok(())
    }
}

impl Drop for Inflater {
    fn drop(&mut self) {
        self.budget.live.fetch_sub(1, Ordering::Relaxed);
    }
}

impl fmt::Debug for Inflater {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Inflater").field("inflated", &self.inflated).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
