//! The worker's pipes: taken to fill, given back empty, so an idle session holds none (rules R12, R13).
//!
//! All workers draw on one [`PipeBudget`], since the kernel's soft limit counts pages per user: past it
//! every new pipe of that user has two slots, and costs more CPU than a copy.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::metrics::{Counters, Reason};
use crate::sys::Errno;
use crate::sys::pipe::Pipe;

/// The least size worth splicing through; smaller pipes are refused.
pub const PIPE_BYTES_MIN: u32 = 64 * 1024;
/// The size of a wide pipe, for a direction that keeps filling its pipe.
pub const WIDE_PIPE_BYTES: u32 = 1024 * 1024;
/// Empty pipes kept per worker: a fill and its drain follow each other, so few are in use at once.
const FREE_MAX: usize = 64;
const FREE_WIDE_MAX: usize = 8;
/// Takes that are refused at once after the kernel gave no good pipe, before it is asked again.
const RETRY_AFTER: u32 = 1024;

/// How many bytes of pipe the whole process may own.
#[derive(Debug)]
pub struct PipeBudget {
    bytes_max: usize,
    bytes: AtomicUsize,
}

impl PipeBudget {
    /// A budget of `bytes_max`: half of `pipe-user-pages-soft` leaves room for the user's other programs.
    pub fn new(bytes_max: usize) -> Arc<PipeBudget> {
        Arc::new(PipeBudget { bytes_max, bytes: AtomicUsize::new(0) })
    }

    fn reserve(&self, bytes: u32) -> bool {
        self.reserve_within(bytes, self.bytes_max)
    }

    /// Room to widen a pipe: half of the budget at most is ever spent while anything is widened, so that
    /// there are narrow pipes for all the others.
    fn reserve_wide(&self, bytes: u32) -> bool {
        self.reserve_within(bytes, self.bytes_max / 2)
    }

    fn reserve_within(&self, bytes: u32, bytes_max: usize) -> bool {
        let bytes = bytes as usize;
        // Pipes are made rarely, so workers may meet here; the pool in front keeps them apart.
        let before = self.bytes.fetch_add(bytes, Ordering::Relaxed);
        let granted = before + bytes <= bytes_max;
        if !granted {
            self.bytes.fetch_sub(bytes, Ordering::Relaxed);
        }
        granted
    }

    fn release(&self, bytes: u32) {
        self.bytes.fetch_sub(bytes as usize, Ordering::Relaxed);
    }
}

/// A pipe that counts against the budget for as long as it lives.
#[derive(Debug)]
pub struct Charged {
    /// The pipe.
    pub pipe: Pipe,
    budget: Arc<PipeBudget>,
}

impl Drop for Charged {
    fn drop(&mut self) {
        self.budget.release(self.pipe.size());
    }
}

/// One worker's pipes.
#[derive(Debug)]
#[expect(
    clippy::vec_box,
    reason = "a session holds its pipe by one word; boxed once, at its making"
)]
pub struct PipePool {
    narrow: Vec<Box<Charged>>,
    wide: Vec<Box<Charged>>,
    budget: Arc<PipeBudget>,
    counters: Arc<Counters>,
    /// Why the last try failed, and how many takes are still refused for it.
    shortage: Option<(Reason, u32)>,
}

impl PipePool {
    /// An empty pool.
    pub fn new(budget: Arc<PipeBudget>, counters: Arc<Counters>) -> PipePool {
        PipePool { narrow: Vec::new(), wide: Vec::new(), budget, counters, shortage: None }
    }

    /// An empty pipe; `wide` asks for a bigger one and takes what there is. The error says why there is none.
    pub fn take(&mut self, wide: bool) -> Result<Box<Charged>, Reason> {
        let free = if wide {
            self.wide.pop().or_else(|| self.narrow_pop(wide))
        } else {
            self.narrow_pop(wide)
        };
        let pipe = match free {
            Some(pipe) => {
                self.counters.pipes_free.sub(1);
                pipe
            }
            None => self.make(wide)?,
        };
        self.counters.pipes_used.add(1);
        Ok(pipe)
    }

    /// Takes back an **empty** pipe. One that may hold bytes must be dropped instead: [`PipePool::lost`].
    pub fn give(&mut self, pipe: Box<Charged>) {
        self.counters.pipes_used.sub(1);
        let (shelf, free_max) = match pipe.pipe.size() {
            WIDE_PIPE_BYTES.. => (&mut self.wide, FREE_WIDE_MAX),
            _ => (&mut self.narrow, FREE_MAX),
        };
        if shelf.len() < free_max {
            shelf.push(pipe);
            self.counters.pipes_free.add(1);
        }
    }

    /// A pipe left this worker, with bytes in it: closed, or handed over.
    pub fn lost(&self) {
        self.counters.pipes_used.sub(1);
    }

    /// A pipe with bytes in it came to this worker.
    pub fn adopted(&self) {
        self.counters.pipes_used.add(1);
    }

    /// A narrow pipe, unless a wide one is wanted and can be made.
    fn narrow_pop(&mut self, wide: bool) -> Option<Box<Charged>> {
        let can_widen = wide && self.shortage.is_none();
        if can_widen { None } else { self.narrow.pop() }
    }

    fn make(&mut self, wide: bool) -> Result<Box<Charged>, Reason> {
        if let Some((reason, refusals_left)) = self.shortage {
            self.shortage = refusals_left.checked_sub(1).map(|left| (reason, left));
            return self.any_free().ok_or(reason);
        }
        match self.try_make() {
            Ok(mut pipe) => {
                if wide {
                    widen(&mut pipe);
                }
                Ok(pipe)
            }
            Err(reason) => {
                self.shortage = Some((reason, RETRY_AFTER));
                self.any_free().ok_or(reason)
            }
        }
    }

    /// A free pipe of whatever width: better than none.
    fn any_free(&mut self) -> Option<Box<Charged>> {
        let free = self.narrow.pop().or_else(|| self.wide.pop());
        if free.is_some() {
            self.counters.pipes_free.sub(1);
        }
        free
    }

    fn try_make(&self) -> Result<Box<Charged>, Reason> {
        if !self.budget.reserve(PIPE_BYTES_MIN) {
            return Err(Reason::PipeBudget);
        }
        let pipe = Pipe::new().map_err(|error| {
            self.budget.release(PIPE_BYTES_MIN);
            reason_for(&error)
        })?;
        if pipe.size() < PIPE_BYTES_MIN {
            self.budget.release(PIPE_BYTES_MIN);
            self.counters.pipes_degraded.add(1);
            return Err(Reason::SmallPipe);
        }
        // Pages may be larger than 4 KiB: charge what the kernel really gave.
        if pipe.size() > PIPE_BYTES_MIN {
            self.budget.bytes.fetch_add((pipe.size() - PIPE_BYTES_MIN) as usize, Ordering::Relaxed);
        }
        Ok(Box::new(Charged { pipe, budget: Arc::clone(&self.budget) }))
    }
}

/// Grows a pipe when budget and kernel allow it; else it stays as it is, which is no error.
fn widen(charged: &mut Charged) {
    let Some(more) = WIDE_PIPE_BYTES.checked_sub(charged.pipe.size()) else { return };
    if charged.budget.reserve_wide(more) && charged.pipe.grow(WIDE_PIPE_BYTES).is_err() {
        charged.budget.release(more);
    }
}

/// The reason for a pipe that could not be made.
fn reason_for(error: &io::Error) -> Reason {
    match Errno::of(error) {
        Errno::NoDescriptors => Reason::Emfile,
        Errno::NoSys => Reason::Enosys,
        Errno::Denied => Reason::Eperm,
        Errno::Invalid => Reason::Einval,
        _ => Reason::Unsupported,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NARROW: usize = PIPE_BYTES_MIN as usize;
    const WIDE: usize = WIDE_PIPE_BYTES as usize;

    fn pool(bytes_max: usize) -> (PipePool, Arc<Counters>, Arc<PipeBudget>) {
        let (budget, counters) = (PipeBudget::new(bytes_max), Arc::new(Counters::default()));
        (PipePool::new(Arc::clone(&budget), Arc::clone(&counters)), counters, budget)
    }

    fn gauges(counters: &Counters) -> (u64, u64) {
        (counters.pipes_used.get(), counters.pipes_free.get())
    }

    #[test]
    fn a_pipe_given_back_is_the_next_one_taken() {
        let (mut pool, counters, budget) = pool(NARROW);
        for _ in 0..3 {
            let pipe = pool.take(false).expect("the budget allows one");
            assert_eq!(gauges(&counters), (1, 0));
            pool.give(pipe);
            assert_eq!(gauges(&counters), (0, 1));
        }
        assert_eq!(budget.bytes.load(Ordering::Relaxed), NARROW);
    }

    #[test]
    fn a_pipe_that_is_dropped_returns_to_the_budget_and_not_to_the_pool() {
        let (mut pool, counters, budget) = pool(NARROW);
        drop(pool.take(false).expect("the budget allows one"));
        pool.lost();
        assert_eq!(gauges(&counters), (0, 0));
        assert_eq!(budget.bytes.load(Ordering::Relaxed), 0);
        assert!(pool.take(false).is_ok());
    }

    #[test]
    fn past_the_budget_there_is_no_pipe_until_one_comes_back() {
        let (mut pool, counters, _budget) = pool(NARROW);
        let only = pool.take(false).expect("the budget allows one");
        for _ in 0..3 {
            assert_eq!(pool.take(false).expect_err("it is used up"), Reason::PipeBudget);
        }
        pool.give(only);
        assert!(pool.take(false).is_ok(), "a shortage is no reason to leave a free pipe alone");
        assert_eq!(gauges(&counters), (1, 0));
    }

    #[test]
    fn a_shortage_is_asked_about_again_after_a_while() {
        let (mut pool, _counters, _budget) = pool(0);
        assert_eq!(pool.take(false).expect_err("nothing is allowed"), Reason::PipeBudget);
        pool.budget = PipeBudget::new(NARROW);
        let refused = (0..).take_while(|_| pool.take(false).is_err()).count();
        assert_eq!(refused, RETRY_AFTER as usize + 1);
    }

    #[test]
    fn a_wide_pipe_is_charged_in_full_and_kept_apart() {
        let (mut pool, counters, budget) = pool(2 * WIDE);
        let wide = pool.take(true).expect("the budget allows it");
        assert_eq!(wide.pipe.size(), WIDE_PIPE_BYTES);
        assert_eq!(budget.bytes.load(Ordering::Relaxed), WIDE);
        pool.give(wide);
        let narrow = pool.take(false).expect("the budget allows it");
        assert_eq!(narrow.pipe.size(), PIPE_BYTES_MIN);
        assert_eq!(gauges(&counters), (1, 1));
        drop((pool, narrow));
        assert_eq!(budget.bytes.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn a_wish_for_a_wide_pipe_takes_what_there_is() {
        let (mut pool, _counters, budget) = pool(NARROW);
        let pipe = pool.take(true).expect("a narrow one is better than none");
        assert_eq!(pipe.pipe.size(), PIPE_BYTES_MIN);
        assert_eq!(
            budget.bytes.load(Ordering::Relaxed),
            NARROW,
            "what was not given is not charged"
        );
        pool.give(pipe);
        assert!(pool.take(true).is_ok(), "no other can be made");
    }

    #[test]
    fn a_free_wide_pipe_serves_when_no_narrow_one_can_be_made() {
        let (mut pool, counters, _budget) = pool(2 * WIDE);
        let wide = pool.take(true).expect("the budget allows it");
        // From here on the budget is spent, as by other workers.
        pool.budget.bytes.store(2 * WIDE, Ordering::Relaxed);
        assert!(pool.take(false).is_err());
        pool.give(wide);
        assert!(pool.take(false).is_ok());
        assert_eq!(gauges(&counters), (1, 0));
    }

    #[test]
    fn widening_leaves_half_of_the_budget_to_narrow_pipes() {
        let (mut pool, _counters, _budget) = pool(2 * WIDE);
        let wide = pool.take(true).expect("the budget allows it");
        let second = pool.take(true).expect("a narrow one is better than none");
        assert_eq!(wide.pipe.size(), WIDE_PIPE_BYTES);
        assert_eq!(second.pipe.size(), PIPE_BYTES_MIN);
    }

    #[test]
    fn free_pipes_are_bounded_per_width() {
        let (mut pool, counters, budget) = pool((FREE_MAX + 2) * NARROW);
        let taken: Vec<_> =
            (0..FREE_MAX + 2).map(|_| pool.take(false).expect("the budget allows it")).collect();
        for pipe in taken {
            pool.give(pipe);
        }
        assert_eq!(gauges(&counters), (0, FREE_MAX as u64));
        assert_eq!(budget.bytes.load(Ordering::Relaxed), FREE_MAX * NARROW);
    }
}
