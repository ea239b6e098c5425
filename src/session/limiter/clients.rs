//! What each client has at the moment: a table of many parts, each with a lock of its own.
//!
//! An entry is [`ENTRY_BYTES`] long. There is one for each client that has something open, and for those that had
//! lately and whose bucket is not full again: of these at most [`IDLE_MAX`]. Beyond that their buckets are forgotten,
//! rather than memory taken without bound.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::bucket;
use crate::config::admission::{ClientLimits, Pace};

/// Bytes of an entry, its key included.
pub const ENTRY_BYTES: usize = size_of::<(Client, Entry)>();
/// Entries without anything open, in all parts together.
pub const IDLE_MAX: usize = PARTS * 2 * IDLE_KEPT;

const PARTS: usize = 64;
/// Of one part, when it is looked through; as many may come until it is again.
const IDLE_KEPT: usize = 1024;
/// Room that is not worth giving back.
const ROOM_KEPT: usize = 64;

/// An address without the bits that its owner may choose.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Client([u8; 16]);

/// All clients. Which part a client is in, nobody outside can know.
#[derive(Debug)]
pub struct Clients {
    parts: Box<[Mutex<Part>]>,
    hasher: RandomState,
}

#[derive(Debug, Default)]
struct Part {
    entries: HashMap<Client, Entry>,
    /// Looked through when it has grown to this.
    sweep_at: usize,
}

/// What one client has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Entry {
    sessions: u32,
    exchanges: u32,
    /// When its bucket is full again.
    full_at: u64,
}

/// What of a client is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Counted {
    /// Sessions, those included that are about to become one.
    Session,
    /// Connections in their exchange.
    Exchange,
}

impl Client {
    /// The client at this address.
    pub fn of(address: IpAddr, limits: &ClientLimits) -> Client {
        let (bits, prefix) = match address.to_canonical() {
            IpAddr::V4(v4) => (v4.to_ipv6_mapped().to_bits(), 96 + u32::from(limits.ipv4_prefix)),
            IpAddr::V6(v6) => (v6.to_bits(), u32::from(limits.ipv6_prefix)),
        };
        let kept = u128::MAX.checked_shl(128 - prefix).unwrap_or_default();
        Client((bits & kept).to_be_bytes())
    }
}

impl Default for Clients {
    fn default() -> Clients {
        let parts = (0..PARTS).map(|_| Mutex::default()).collect();
        Clients { parts, hasher: RandomState::new() }
    }
}

impl Clients {
    /// Counts one more of `what`, unless there are `max` already.
    pub fn raise(&self, client: Client, what: Counted, max: Option<u32>, now: u64) -> bool {
        let mut part = self.part(client);
        part.sweep(now);
        let count = part.entries.entry(client).or_default().count(what);
        let is_room = max.is_none_or(|max| *count < max);
        *count += u32::from(is_room);
        is_room
    }

    /// One less; the entry goes with the last.
    pub fn lower(&self, client: Client, what: Counted, now: u64) {
        let mut part = self.part(client);
        let Some(entry) = part.entries.get_mut(&client) else { return };
        *entry.count(what) -= 1;
        if !entry.matters(now) {
            part.entries.remove(&client);
            part.give_back();
        }
    }

    /// Takes one from the client's bucket.
    ///
    /// # Errors
    ///
    /// None is left: the time until there is one.
    pub fn take(&self, client: Client, now: u64, pace: Pace) -> Result<(), Duration> {
        let mut part = self.part(client);
        part.sweep(now);
        let entry = part.entries.entry(client).or_default();
        entry.full_at = bucket::take(entry.full_at, now, pace)?;
        Ok(())
    }

    /// Clients that are known at the moment.
    pub fn known(&self) -> usize {
        self.parts.iter().map(|part| lock(part).entries.len()).sum()
    }

    fn part(&self, client: Client) -> MutexGuard<'_, Part> {
        let hash = self.hasher.hash_one(client);
        lock(&self.parts[hash as usize % PARTS])
    }
}

fn lock(part: &Mutex<Part>) -> MutexGuard<'_, Part> {
    part.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Part {
    /// Lets those go that had something lately, now and then.
    fn sweep(&mut self, now: u64) {
        if self.entries.len() < self.sweep_at.max(IDLE_KEPT) {
            return;
        }
        self.entries.retain(|_, entry| entry.matters(now));
        let idle = self.entries.values().filter(|entry| entry.is_idle()).count();
        if idle > IDLE_KEPT {
            self.entries.retain(|_, entry| !entry.is_idle());
        }
        self.sweep_at = self.entries.len() + IDLE_KEPT;
        self.give_back();
    }

    /// Gives back what a crowd has left behind.
    fn give_back(&mut self) {
        if self.entries.capacity() > ROOM_KEPT.max(8 * self.entries.len()) {
            self.entries.shrink_to(2 * self.entries.len());
        }
    }
}

impl Entry {
    fn count(&mut self, what: Counted) -> &mut u32 {
        match what {
            Counted::Session => &mut self.sessions,
            Counted::Exchange => &mut self.exchanges,
        }
    }

    fn is_idle(&self) -> bool {
        self.sessions == 0 && self.exchanges == 0
    }

    fn matters(&self, now: u64) -> bool {
        !self.is_idle() || self.full_at > now
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(address: &str) -> Client {
        Client::of(address.parse().expect("an address"), &ClientLimits::default())
    }

    #[test]
    fn a_client_is_one_ipv4_address_or_one_network_of_ipv6() {
        assert_eq!(client("192.0.2.7"), client("::ffff:192.0.2.7"));
        assert_ne!(client("192.0.2.7"), client("192.0.2.6"));
        assert_eq!(client("2001:db8::1"), client("2001:db8:0:0:ffff::"));
        assert_ne!(client("2001:db8::1"), client("2001:db8:0:1::1"));
        let wide = ClientLimits { ipv4_prefix: 24, ipv6_prefix: 128, ..ClientLimits::default() };
        let of = |address: &str| Client::of(address.parse().expect("an address"), &wide);
        assert_eq!(of("192.0.2.7"), of("192.0.2.200"));
        assert_ne!(of("2001:db8::1"), of("2001:db8::2"));
    }

    #[test]
    fn a_client_gets_so_many_and_its_entry_goes_with_the_last() {
        let clients = Clients::default();
        let one = client("192.0.2.7");
        let raise = || clients.raise(one, Counted::Session, Some(2), 0);
        assert_eq!([raise(), raise(), raise()], [true, true, false]);
        assert!(clients.raise(client("192.0.2.8"), Counted::Session, Some(2), 0));
        clients.lower(one, Counted::Session, 0);
        assert_eq!([raise(), raise()], [true, false]);
        for _ in 0..2 {
            clients.lower(one, Counted::Session, 0);
        }
        assert_eq!(clients.known(), 1);
    }

    #[test]
    fn clients_that_left_are_forgotten_when_their_buckets_are_full() {
        let clients = Clients::default();
        let pace = Pace { per_second: 1, burst: 1 };
        let one = client("192.0.2.7");
        assert!(clients.raise(one, Counted::Session, None, 0));
        assert_eq!(clients.take(one, 0, pace), Ok(()));
        clients.lower(one, Counted::Session, 0);
        assert_eq!(clients.take(one, 0, pace), Err(Duration::from_secs(1)), "no way round");
        assert!(clients.raise(one, Counted::Session, None, 2_000_000_000));
        clients.lower(one, Counted::Session, 2_000_000_000);
        assert_eq!(clients.known(), 0);
    }

    #[test]
    fn ever_new_clients_take_a_bounded_memory() {
        let clients = Clients::default();
        let pace = Pace { per_second: 1, burst: 1 };
        for at in 0..400_000_u32 {
            let address = IpAddr::V4(at.into());
            let _ = clients.take(Client::of(address, &ClientLimits::default()), 0, pace);
        }
        assert!(clients.known() <= IDLE_MAX, "{} clients", clients.known());
        assert_eq!(ENTRY_BYTES, 32);
    }
}
