//! Descriptors: accepting pauses while what is left is needed for what was accepted already, so that nobody ever
//! sees the last one go.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};

use tracing::{info, warn};

use crate::config::admission::reserve_of;
use crate::metrics::Counters;
use crate::session::load::Loads;
use crate::sys::net::open_descriptors;

/// A connection has a socket, and is owed one upstream.
const PER_CONNECTION: u64 = 2;
const PER_PIPE: u64 = 2;
/// Descriptors are looked for up to this number: new ones have the lowest that is free.
const OWN_DESCRIPTORS_MAX: u64 = 4096;
/// What each worker, and all other threads together, will open for themselves.
const OWN_BY_WORKER: u64 = 4;
const OWN_BY_OTHERS: u64 = 12;

/// What is there, and what is needed. Nothing is known until the gateway starts.
#[derive(Debug, Default)]
pub struct Descriptors {
    known: OnceLock<Known>,
    is_short: AtomicBool,
    pauses: AtomicU64,
}

/// What is known from the start on.
#[derive(Debug)]
pub struct Known {
    /// As many as the process may have.
    pub limit: u64,
    /// Those that are not for connections.
    pub own: u64,
    /// What the workers carry.
    pub loads: Arc<Loads>,
    /// By worker.
    pub counters: Arc<[Arc<Counters>]>,
}

impl Descriptors {
    /// Says what is known; the first word counts.
    pub fn begin(&self, known: Known) {
        let _ = self.known.set(known);
    }

    /// Whether one more connection may be accepted while so many are `reserved`. A change is logged and counted.
    pub fn has_room(&self, reserved: Option<u32>) -> bool {
        let Some(known) = self.known.get() else { return true };
        if reserved == Some(0) {
            return true;
        }
        let reserved = reserved.map_or_else(|| reserve_of(known.limit), u64::from);
        let (needed, room) =
            (known.needed(), known.limit.saturating_sub(known.own).saturating_sub(reserved));
        let has_room = needed + PER_CONNECTION <= room;
        if !has_room && !self.is_short.swap(true, Relaxed) {
            self.pauses.fetch_add(1, Relaxed);
            warn!(
                limit = known.limit,
                needed,
                reserved,
                "accepting pauses: the descriptors that are left are reserved; raise the limit of open files"
            );
        }
        // Not at the first that is free again: a gateway at its limit would say so with each session.
        let is_over = needed + needed / 8 <= room;
        if is_over && self.is_short.load(Relaxed) && self.is_short.swap(false, Relaxed) {
            info!(needed, room, "accepting goes on without pauses: there are descriptors again");
        }
        has_room
    }

    /// How often accepting had to pause.
    pub fn pauses(&self) -> u64 {
        self.pauses.load(Relaxed)
    }
}

impl Known {
    /// What is known before workers start: what is open by now is not for connections, nor is what they will open
    /// for themselves. The first of them may have a full backlog to accept.
    pub fn before_workers(limit: u64, loads: Arc<Loads>, counters: Arc<[Arc<Counters>]>) -> Known {
        let to_come = OWN_BY_WORKER * counters.len() as u64 + OWN_BY_OTHERS;
        let own = open_descriptors(limit.min(OWN_DESCRIPTORS_MAX)) + to_come;
        Known { limit, own, loads, counters }
    }

    /// For connections that are there.
    fn needed(&self) -> u64 {
        let connections: usize =
            (0..self.counters.len()).map(|worker| self.loads.connections(worker)).sum();
        let pipes: u64 = self
            .counters
            .iter()
            .map(|worker| worker.pipes_used.get().wrapping_add(worker.pipes_free.get()))
            .fold(0, u64::wrapping_add);
        PER_CONNECTION * connections as u64 + PER_PIPE * pipes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::load::Kind;

    #[test]
    fn there_is_room_until_the_reserve_is_touched_and_a_pause_counts_once() {
        let descriptors = Descriptors::default();
        assert!(descriptors.has_room(Some(10)), "nothing is known yet");
        let loads = Arc::new(Loads::new(2));
        let counters: Arc<[Arc<Counters>]> = (0..2).map(|_| Arc::default()).collect();
        let known = Known {
            limit: 64,
            own: 20,
            loads: Arc::clone(&loads),
            counters: Arc::clone(&counters),
        };
        descriptors.begin(known);
        let accepted = (0..100)
            .take_while(|at| {
                let has_room = descriptors.has_room(Some(10));
                loads.raise(at % 2, Kind::Connection);
                has_room
            })
            .count();
        assert_eq!(accepted, (64 - 20 - 10) / 2);
        assert!(!descriptors.has_room(Some(10)));
        assert!(descriptors.has_room(Some(0)), "no reserve, no pause");
        assert_eq!(descriptors.pauses(), 1);
        for at in 0..accepted {
            loads.lower(at % 2, Kind::Connection);
        }
        assert!(descriptors.has_room(Some(10)));
        counters[1].pipes_used.add(20);
        assert!(!descriptors.has_room(Some(10)), "pipes count, too");
        assert_eq!(descriptors.pauses(), 2);
    }
}
