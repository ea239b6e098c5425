//! The keys that say who is let in, and how many.

use std::ops::RangeInclusive;

use super::super::admission::{Admission, ClientLimits, Crowd, Pace};
use super::super::section::Section;
use super::count_or_off;

/// A descriptor each would be more than a process can have.
const COUNT_MAX: u32 = 100_000_000;
const PACE_MAX: u32 = 10_000_000;

/// Reads those of `[gateway.limits]`.
pub(super) fn admission(section: &Section) -> Admission {
    Admission {
        all: crowd(section),
        exchanges_max: count_or_off(section, "exchanges", COUNT_MAX).flatten(),
        client: client(section.table("client", "[gateway.limits.client]")),
        descriptors_reserved: section
            .number("descriptors_reserved", 0..=1 << 20)
            .map(|number| number as u32),
    }
}

fn client(section: Section) -> ClientLimits {
    let default = ClientLimits::default();
    let prefix = |key, range: RangeInclusive<u64>, default| {
        section.number(key, range).map_or(default, |bits| bits as u8)
    };
    let limits = ClientLimits {
        crowd: crowd(&section),
        exchanges_max: count_or_off(&section, "exchanges", COUNT_MAX).flatten(),
        ipv4_prefix: prefix("ipv4_prefix", 8..=32, default.ipv4_prefix),
        ipv6_prefix: prefix("ipv6_prefix", 16..=128, default.ipv6_prefix),
    };
    section.end();
    limits
}

/// Reads those that the gateway, a client and a route have in common.
pub(super) fn crowd(section: &Section) -> Crowd {
    let sessions_max = count_or_off(section, "sessions", COUNT_MAX).flatten();
    let per_second = count_or_off(section, "handshakes_per_second", PACE_MAX);
    let burst = section.number("handshakes_burst", 1..=u64::from(PACE_MAX));
    // Where the pace is wrong itself, there is nothing more to say.
    let is_wrong = per_second.is_none() && section.value("handshakes_per_second").is_some();
    let per_second = per_second.flatten();
    if let (None, false, Some(value)) = (per_second, is_wrong, section.value("handshakes_burst")) {
        section.refuse("handshakes_burst", value.at, "needs handshakes_per_second");
    }
    let handshakes = per_second.map(|per_second| Pace {
        per_second,
        burst: burst.map_or(per_second, |burst| burst as u32),
    });
    Crowd { sessions_max, handshakes }
}
