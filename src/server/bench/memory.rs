//! What idle sessions cost: this process' own memory and the kernel's, before and after.

use std::fs;

use serde::Serialize;

/// The memory of one idle session.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Idle {
    /// How many were open.
    pub sessions: usize,
    /// Bytes of the gateway's own memory for each; `None`: the kernel does not say.
    pub user_bytes: Option<u64>,
    /// Bytes of kernel objects for each; `None`: the kernel does not say.
    pub kernel_bytes: Option<u64>,
    /// Where the kernel's figure is from.
    pub kernel_source: Option<&'static str>,
}

/// Memory at one moment.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Memory {
    user: Option<u64>,
    slab: Option<u64>,
    meminfo: Option<u64>,
}

impl Memory {
    /// Of this process and this kernel, now.
    pub fn now() -> Memory {
        let read = |path| fs::read_to_string(path).ok();
        Memory {
            // Not the proportional size: the other program shares pages of code, and takes its share.
            user: read("/proc/self/smaps_rollup").and_then(|text| kilobytes(&text, "Anonymous:")),
            slab: read("/proc/slabinfo").and_then(|text| slab_bytes(&text)),
            meminfo: read("/proc/meminfo").and_then(|text| kilobytes(&text, "Slab:")),
        }
    }

    /// What each of `sessions` cost that were opened since `before`.
    ///
    /// Of the kernel's memory the gateway's two sockets are half: client and backend, on this machine, too,
    /// have one each.
    pub fn per_session(self, before: Memory, sessions: usize) -> Idle {
        let each = |now: Option<u64>, then: Option<u64>, share: u64| {
            Some(now?.saturating_sub(then?) / (share * sessions.max(1) as u64))
        };
        let slab = each(self.slab, before.slab, 2);
        let meminfo = each(self.meminfo, before.meminfo, 2);
        Idle {
            sessions,
            user_bytes: each(self.user, before.user, 1),
            kernel_bytes: slab.or(meminfo),
            kernel_source: match (slab, meminfo) {
                (Some(_), _) => Some("/proc/slabinfo"),
                (None, Some(_)) => Some("/proc/meminfo"),
                (None, None) => None,
            },
        }
    }
}

/// The line `name` of a text with sizes in kilobytes, in bytes.
fn kilobytes(text: &str, name: &str) -> Option<u64> {
    let rest = text.lines().find_map(|line| line.strip_prefix(name))?;
    Some(1024 * rest.split_whitespace().next()?.parse::<u64>().ok()?)
}

/// All objects in use times their size. `None` if there is no such line: a kernel without it, or no right to
/// know.
fn slab_bytes(text: &str) -> Option<u64> {
    // The two lines of its head have words where the others have numbers.
    let bytes = text.lines().filter_map(|line| {
        let mut numbers = line.split_whitespace().skip(1);
        let active: u64 = numbers.next()?.parse().ok()?;
        let size: u64 = numbers.nth(1)?.parse().ok()?;
        Some(active * size)
    });
    Some(bytes.sum()).filter(|&sum| sum > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_from_the_kernels_tables() {
        let rollup = "55d0-7ffe ---p 0000 00:00 0 [rollup]\nRss:  9 kB\nAnonymous:      12 kB\n";
        assert_eq!(kilobytes(rollup, "Anonymous:"), Some(12 * 1024));
        assert_eq!(kilobytes(rollup, "Slab:"), None);
        let slab = "slabinfo - version: 2.1\n\
            # name <active_objs> <num_objs> <objsize> <objperslab> <pagesperslab> : tunables\n\
            TCP  10  12  2048  8  4 : tunables 0 0 0 : slabdata 1 1 0\n\
            skbuff_head_cache  3  4  256  8  4 : tunables 0 0 0 : slabdata 1 1 0\n";
        assert_eq!(slab_bytes(slab), Some(10 * 2048 + 3 * 256));
        assert_eq!(slab_bytes(""), None);
    }

    #[test]
    fn half_of_the_kernels_growth_is_the_gateways() {
        let before = Memory { user: Some(1_000), slab: None, meminfo: Some(4_000) };
        let after = Memory { user: Some(6_000), slab: None, meminfo: Some(44_000) };
        let idle = after.per_session(before, 10);
        assert_eq!((idle.user_bytes, idle.kernel_bytes), (Some(500), Some(2_000)));
        assert_eq!(idle.kernel_source, Some("/proc/meminfo"));
        assert_eq!(Memory::default().per_session(before, 10).user_bytes, None);
    }
}
