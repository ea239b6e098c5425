//! One upstream address, shared by all workers: who uses it, and how it has behaved. Atomics only.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{
    AtomicBool, AtomicI32, AtomicU32, AtomicU64, AtomicUsize, Ordering::Relaxed,
};

use super::ejection::Ejection;
use super::hash;

/// Where an endpoint is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Address {
    /// IPv4 or IPv6.
    Tcp(SocketAddr),
    /// A path.
    Unix(PathBuf),
}

/// One upstream address of one route.
#[derive(Debug)]
pub struct Endpoint {
    /// As the operator wrote it, which may be a name for several.
    pub(super) text: Box<str>,
    pub(super) address: Address,
    /// Follows from the address alone, so that it is the same after a restart.
    pub(super) hash: u64,
    sessions: AtomicUsize,
    pub(super) chosen: AtomicU64,
    pub(super) connect_failures: AtomicU64,
    pub(super) answer_failures: AtomicU64,
    pub(super) ejections: AtomicU64,
    pub(super) ejection: Ejection,
    /// Whether that was said, and still holds.
    pub(super) is_short_of_ports: AtomicBool,
    /// Odd while the checks find it unhealthy: each change counts, so that what was begun for one ends with it.
    changes: AtomicU32,
    /// Checks of one kind in a row: passed above zero, failed below. Written by the one who checks.
    streak: AtomicI32,
    /// The operator lets it drain, by its address.
    drained: AtomicBool,
    /// What holds for all addresses of its name.
    name: Arc<Name>,
}

/// What a route's endpoints of one text have in common, those included that its name has yet to bring.
#[derive(Debug, Default)]
pub(super) struct Name {
    /// The operator lets them drain.
    drained: AtomicBool,
}

/// A session's share in the count of its endpoint, from the choice until this is dropped: at the session's end,
/// in whichever worker that is, or with a panic.
#[derive(Debug)]
pub struct Held(Arc<Endpoint>);

impl Endpoint {
    pub(super) fn new(text: &str, address: Address, name: Arc<Name>) -> Endpoint {
        Endpoint {
            text: text.into(),
            hash: hash::of(&[address.to_string().as_bytes()]),
            address,
            sessions: AtomicUsize::default(),
            chosen: AtomicU64::default(),
            connect_failures: AtomicU64::default(),
            answer_failures: AtomicU64::default(),
            ejections: AtomicU64::default(),
            ejection: Ejection::default(),
            is_short_of_ports: AtomicBool::default(),
            changes: AtomicU32::default(),
            streak: AtomicI32::default(),
            drained: AtomicBool::default(),
            name,
        }
    }

    /// As the operator wrote it.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// What it has in common with the others of its text.
    pub(super) fn name(&self) -> &Arc<Name> {
        &self.name
    }

    /// Where it is.
    pub fn address(&self) -> &Address {
        &self.address
    }

    /// Sessions that use it, those included that are being connected.
    pub fn sessions(&self) -> usize {
        self.sessions.load(Relaxed)
    }

    /// Whether its checks find it unhealthy.
    pub fn is_unhealthy(&self) -> bool {
        self.changes.load(Relaxed) % 2 == 1
    }

    /// How often its checks have changed their mind: odd while they find it unhealthy.
    pub fn changes(&self) -> u32 {
        self.changes.load(Relaxed)
    }

    /// Whether the operator lets it drain: it gets no more sessions until that is undone.
    pub fn is_drained(&self) -> bool {
        self.drained.load(Relaxed) || self.name.drained.load(Relaxed)
    }

    /// Says whether the operator lets it drain, who called it so. By its text, that holds for all that it stands
    /// for in the route, also for addresses that a lookup finds later.
    pub fn set_drained(&self, called: &str, drained: bool) {
        let is_text = *self.text == *called;
        let flag = if is_text { &self.name.drained } else { &self.drained };
        flag.store(drained, Relaxed);
    }

    /// Notes a check; says whether it was the one that changed the verdict.
    pub(super) fn checked(&self, passed: bool, rise: u16, fall: u16) -> bool {
        let streak = next_streak(self.streak.load(Relaxed), passed);
        self.streak.store(streak, Relaxed);
        let changed = changes_verdict(streak, self.is_unhealthy(), rise, fall);
        if changed {
            self.changes.fetch_add(1, Relaxed);
        }
        changed
    }
}

fn next_streak(streak: i32, passed: bool) -> i32 {
    if passed { streak.max(0).saturating_add(1) } else { streak.min(0).saturating_sub(1) }
}

fn changes_verdict(streak: i32, is_unhealthy: bool, rise: u16, fall: u16) -> bool {
    if is_unhealthy { streak >= i32::from(rise) } else { streak <= -i32::from(fall) }
}

impl Held {
    pub(super) fn new(endpoint: Arc<Endpoint>) -> Held {
        endpoint.sessions.fetch_add(1, Relaxed);
        endpoint.chosen.fetch_add(1, Relaxed);
        Held(endpoint)
    }

    /// The endpoint.
    pub fn endpoint(&self) -> &Arc<Endpoint> {
        &self.0
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.0.sessions.fetch_sub(1, Relaxed);
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Address::Tcp(address) => address.fmt(f),
            Address::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checks_change_the_verdict_only_so_many_in_a_row() {
        let endpoint = Endpoint::new("unix:/x", Address::Unix("/x".into()), Arc::default());
        let mut unhealthy = Vec::new();
        for check in "--+---+-++".chars() {
            let changed = endpoint.checked(check == '+', 2, 3);
            assert_eq!(
                changed,
                unhealthy.last().copied().unwrap_or(false) != endpoint.is_unhealthy()
            );
            unhealthy.push(endpoint.is_unhealthy());
        }
        let (no, yes) = (false, true);
        assert_eq!(unhealthy, [no, no, no, no, no, yes, yes, yes, yes, no]);
        assert_eq!(endpoint.changes(), 2);
    }

    #[test]
    fn a_session_counts_until_it_is_dropped_also_by_a_panic() {
        let endpoint =
            Arc::new(Endpoint::new("unix:/x", Address::Unix("/x".into()), Arc::default()));
        let held = Held::new(Arc::clone(&endpoint));
        let other = Held::new(Arc::clone(&endpoint));
        assert_eq!(endpoint.sessions(), 2);
        let panicked = std::thread::spawn(move || {
            let _held = held;
            panic!("on purpose");
        });
        assert!(panicked.join().is_err());
        assert_eq!(endpoint.sessions(), 1);
        drop(other);
        assert_eq!((endpoint.sessions(), endpoint.chosen.load(Relaxed)), (0, 2));
    }
}
