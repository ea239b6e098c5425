//! One heap of due times per worker, looked at by one task: a session costs an entry, not a timer.

use std::cell::RefCell;
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::pin::pin;
use std::rc::Rc;
use std::time::Instant;

use tokio::sync::Notify;

use crate::sys::reactor::Reactor;

/// When a session's progress has to be looked at again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Due {
    /// The time.
    pub at: Instant,
    /// The seat in the registry.
    pub seat: usize,
    /// The seat's watch when this was set: a later watch makes it void.
    pub serial: u64,
}

/// The due times of one worker.
#[derive(Debug, Default)]
pub struct Timers {
    heap: RefCell<BinaryHeap<Reverse<Due>>>,
    earlier: Notify,
}

impl Timers {
    /// Adds a due time.
    pub fn set(&self, due: Due) {
        let mut heap = self.heap.borrow_mut();
        let earlier = heap.peek().is_none_or(|first| due.at < first.0.at);
        heap.push(Reverse(due));
        if earlier {
            self.earlier.notify_one();
        }
    }

    /// How many due times there are, void ones included.
    pub fn entries(&self) -> usize {
        self.heap.borrow().len()
    }

    /// Keeps only what `keep` says.
    pub fn retain(&self, mut keep: impl FnMut(&Due) -> bool) {
        let mut heap = self.heap.borrow_mut();
        heap.retain(|Reverse(due)| keep(due));
        let len = heap.len();
        heap.shrink_to(2 * len);
    }

    /// The next due time, once it has come.
    pub async fn next(&self, reactor: &Rc<Reactor>) -> Due {
        loop {
            let first = self.heap.borrow().peek().map(|first| first.0.at);
            let waited = match first {
                Some(at) => reactor.timeout_at(at, pin!(self.earlier.notified())).await,
                None => {
                    self.earlier.notified().await;
                    Some(())
                }
            };
            // An earlier time came in, or the first one came, or it was thrown away meanwhile.
            if waited.is_none()
                && let Some(due) = self.pop_until(first)
            {
                return due;
            }
        }
    }

    /// Takes the first entry out if it was due by `until`.
    fn pop_until(&self, until: Option<Instant>) -> Option<Due> {
        let mut heap = self.heap.borrow_mut();
        heap.peek().filter(|first| Some(first.0.at) <= until)?;
        heap.pop().map(|Reverse(due)| due)
    }
}

#[cfg(test)]
mod tests {
    use std::future::Future;
    use std::pin::pin;
    use std::task::{Context, Poll, Waker};
    use std::time::Duration;

    use super::*;

    #[test]
    fn due_times_come_in_their_order_however_they_were_set() {
        let reactor = Rc::new(Reactor::new().expect("descriptors"));
        reactor.run_alone(async {
            let (timers, now) = (Timers::default(), Instant::now());
            for (seat, ms) in [(0, 30), (1, 10), (2, 20)] {
                timers.set(Due { at: now + Duration::from_millis(ms), seat, serial: 0 });
            }
            for seat in [1, 2, 0] {
                assert_eq!(timers.next(&reactor).await.seat, seat);
            }
            assert!(Instant::now() >= now + Duration::from_millis(30));
        });
    }

    #[test]
    fn a_due_time_that_comes_in_before_the_first_wakes_the_one_who_waits() {
        let reactor = Rc::new(Reactor::new().expect("descriptors"));
        reactor.run_alone(async {
            let (timers, now) = (Timers::default(), Instant::now());
            timers.set(Due { at: now + Duration::from_secs(3600), seat: 0, serial: 0 });
            let mut next = pin!(timers.next(&reactor));
            assert!(next.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
            timers.set(Due { at: now, seat: 1, serial: 0 });
            assert_eq!(next.await.seat, 1);
        });
    }

    #[test]
    fn an_entry_thrown_away_does_not_bring_the_one_behind_it_forward() {
        let reactor = Rc::new(Reactor::new().expect("descriptors"));
        reactor.run_alone(async {
            let (timers, now) = (Timers::default(), Instant::now());
            timers.set(Due { at: now, seat: 0, serial: 0 });
            timers.set(Due { at: now + Duration::from_secs(3600), seat: 1, serial: 0 });
            let mut next = pin!(timers.next(&reactor));
            timers.retain(|due| due.seat == 1);
            assert_eq!(timers.entries(), 1);
            let polled = next.as_mut().poll(&mut Context::from_waker(Waker::noop()));
            assert_eq!(polled, Poll::Pending);
        });
    }
}
