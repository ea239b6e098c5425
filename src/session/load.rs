//! How much each worker carries: the only numbers that workers write for each other.
//!
//! A connection is counted from the moment at which it is meant for a worker, so that a burst that is handed
//! out does not pile onto the one that was idle a moment ago. Every change is one atomic operation on one
//! number, whose order alone decides whether a worker that wants to leave may: nothing else is published.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// Set for a worker that takes nothing new.
const CLOSED: usize = 1 << (usize::BITS - 1);

/// The loads of all workers.
#[derive(Debug)]
pub struct Loads(Box<[Line]>);

/// One worker's, on a cache line of its own; prefetchers take them in pairs.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Line {
    /// Connections that are open or on their way, and [`CLOSED`].
    connections: AtomicUsize,
    /// Those of them that are joined sessions.
    sessions: AtomicUsize,
}

/// What a worker carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A connection before its 101.
    Connection,
    /// A joined session, which is a connection as well.
    Session,
}

impl Loads {
    /// For this many workers.
    pub fn new(workers: usize) -> Loads {
        Loads((0..workers).map(|_| Line::default()).collect())
    }

    /// One more connection of worker `at`, which says so itself.
    pub fn raise(&self, at: usize, kind: Kind) {
        self.count(at, kind).fetch_add(1, Relaxed);
    }

    /// One less.
    pub fn lower(&self, at: usize, kind: Kind) {
        self.count(at, kind).fetch_sub(1, Relaxed);
    }

    /// How many connections worker `at` has, those on their way to it included.
    pub fn connections(&self, at: usize) -> usize {
        self.0[at].connections.load(Relaxed) & !CLOSED
    }

    /// Lets worker `at` take nothing new.
    pub fn close(&self, at: usize) {
        self.0[at].connections.fetch_or(CLOSED, Relaxed);
    }

    /// Whether worker `at` takes nothing new.
    pub fn is_closed(&self, at: usize) -> bool {
        self.0[at].connections.load(Relaxed) & CLOSED != 0
    }

    /// The load of each worker in connections or sessions; `None` for those that take nothing new.
    pub fn all(&self, kind: Kind) -> impl Iterator<Item = Option<usize>> {
        self.0.iter().map(move |line| {
            let connections = line.connections.load(Relaxed);
            match kind {
                _ if connections & CLOSED != 0 => None,
                Kind::Connection => Some(connections),
                Kind::Session => Some(line.sessions.load(Relaxed)),
            }
        })
    }

    fn count(&self, at: usize, kind: Kind) -> &AtomicUsize {
        match kind {
            Kind::Connection => &self.0[at].connections,
            Kind::Session => &self.0[at].sessions,
        }
    }
}

/// A connection on its way to a worker, counted there until this is dropped: when that worker has counted
/// it itself, or when nobody will.
#[derive(Debug)]
pub struct OnTheWay {
    loads: Arc<Loads>,
    to: usize,
    kind: Kind,
}

impl OnTheWay {
    /// Counts it with the worker it is meant for. `None` when there is no such worker, or when that one has
    /// nothing left and takes nothing new: it may be gone before the connection comes.
    pub fn new(loads: &Arc<Loads>, to: usize, kind: Kind) -> Option<OnTheWay> {
        let stays = |old| (old != CLOSED).then_some(old + 1);
        loads.0.get(to)?.connections.fetch_update(Relaxed, Relaxed, stays).ok()?;
        if kind == Kind::Session {
            loads.raise(to, kind);
        }
        Some(OnTheWay { loads: Arc::clone(loads), to, kind })
    }
}

impl Drop for OnTheWay {
    fn drop(&mut self) {
        if self.kind == Kind::Session {
            self.loads.lower(self.to, self.kind);
        }
        self.loads.lower(self.to, Kind::Connection);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(loads: &Loads, kind: Kind) -> Vec<Option<usize>> {
        loads.all(kind).collect()
    }

    #[test]
    fn what_is_on_its_way_counts_where_it_goes_until_it_is_there() {
        let loads = Arc::new(Loads::new(2));
        let connection = OnTheWay::new(&loads, 1, Kind::Connection).unwrap();
        let session = OnTheWay::new(&loads, 1, Kind::Session).unwrap();
        assert_eq!(of(&loads, Kind::Connection), [Some(0), Some(2)]);
        assert_eq!(of(&loads, Kind::Session), [Some(0), Some(1)]);
        loads.raise(1, Kind::Connection);
        drop(connection);
        drop(session);
        assert_eq!(of(&loads, Kind::Connection), [Some(0), Some(1)]);
        assert_eq!(of(&loads, Kind::Session), [Some(0), Some(0)]);
    }

    #[test]
    fn a_worker_that_takes_nothing_new_is_reached_only_while_it_has_something_left() {
        let loads = Arc::new(Loads::new(1));
        loads.raise(0, Kind::Connection);
        loads.close(0);
        assert_eq!((of(&loads, Kind::Session), loads.is_closed(0)), (vec![None], true));
        let last = OnTheWay::new(&loads, 0, Kind::Session).expect("it has one left");
        loads.lower(0, Kind::Connection);
        assert_eq!(loads.connections(0), 1);
        drop(last);
        assert_eq!(loads.connections(0), 0);
        assert!(OnTheWay::new(&loads, 0, Kind::Session).is_none());
        assert!(OnTheWay::new(&loads, 1, Kind::Session).is_none(), "nobody is there");
    }
}
