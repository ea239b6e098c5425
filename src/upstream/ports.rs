//! How many connects this machine has ports for: to one address, from one address.

use std::ops::RangeInclusive;
use std::sync::OnceLock;

/// The kernel's range, and what is taken out of it; both are of the network namespace.
const RANGE: &str = "/proc/sys/net/ipv4/ip_local_port_range";
const RESERVED: &str = "/proc/sys/net/ipv4/ip_local_reserved_ports";
/// The kernel's default, for where /proc is hidden.
const RANGE_DEFAULT: RangeInclusive<u16> = 32_768..=60_999;

/// A warning at so many percent, and another one only after there were no more than so many.
const WARN_PERCENT: u64 = 80;
const CALM_PERCENT: u64 = 70;

/// What a look at an endpoint finds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Use {
    /// So many that it is time to say so.
    High,
    /// In between: what was said holds.
    Between,
    /// Few.
    Low,
}

/// Ports that a connect may come from. Read once.
pub fn count() -> u64 {
    static COUNT: OnceLock<u64> = OnceLock::new();
    *COUNT.get_or_init(|| {
        let read = |path| std::fs::read_to_string(path).unwrap_or_default();
        let range = range(&read(RANGE)).unwrap_or(RANGE_DEFAULT);
        range.clone().count() as u64 - reserved(&read(RESERVED), &range)
    })
}

/// What it means that `used` of `ports` are taken.
pub fn judge(used: u64, ports: u64) -> Use {
    match 100 * used {
        percent if percent >= WARN_PERCENT * ports => Use::High,
        percent if percent <= CALM_PERCENT * ports => Use::Low,
        _ => Use::Between,
    }
}

/// `32768 60999`.
fn range(text: &str) -> Option<RangeInclusive<u16>> {
    let mut ends = text.split_whitespace().map(str::parse);
    Some(ends.next()?.ok()?..=ends.next()?.ok()?)
}

/// How many of `8080,9000-9010` are within `range`.
fn reserved(text: &str, range: &RangeInclusive<u16>) -> u64 {
    let parts = text.trim().split(',').filter_map(|part| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last): (u16, u16) = (first.parse().ok()?, last.parse().ok()?);
        let both = first.max(*range.start())..=last.min(*range.end());
        Some(both.count() as u64)
    });
    parts.sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reserved_ports_are_taken_out_of_the_range() {
        assert_eq!(range("32768\t60999\n"), Some(32_768..=60_999));
        assert_eq!((range(""), range("1 x")), (None, None));
        let range = 100..=199;
        assert_eq!(reserved("\n", &range), 0);
        assert_eq!(reserved("80,100,150-159,190-300,99\n", &range), 1 + 10 + 10);
        assert!(count() > 0);
    }

    #[test]
    fn there_is_a_gap_between_the_warning_and_its_end() {
        let all = [69, 70, 71, 79, 80, 100].map(|used| judge(used, 100));
        use Use::{Between, High, Low};
        assert_eq!(all, [Low, Low, Between, Between, High, High]);
    }
}
