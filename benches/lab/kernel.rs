//! What sessions cost in the kernel: the objects behind sockets, pipes and epoll, and waiting
//! bytes.
//!
//! The kernel counts objects by type for the whole machine, so a reading holds the client's and the
//! backend's sockets, too: the proxy's share is what a run through it costs more than a run
//! without. A free object in a cache that a core keeps for itself counts as one in use, so a share
//! is only known to a few percent, and only of thousands of sessions.

use std::collections::BTreeMap;
use std::fs;

/// Caches whose objects belong to sockets, pipes, open files or epoll. Caches of objects of one
/// size may be merged, and then have the name of the first: a subscription of epoll has been seen
/// under `anon_vma_chain`.
const OURS: [&str; 15] = [
    "TCP",
    "TCPv6",
    "UNIX",
    "sock_inode_cache",
    "inode_cache",
    "filp",
    "lsm_file_cache",
    "eventpoll_epi",
    "eventpoll_pwq",
    "anon_vma_chain",
    "ep_head",
    "skbuff_head_cache",
    "skbuff_fclone_cache",
    "skbuff_small_head",
    "kmalloc-cg-",
];

/// Every socket and every pipe has an inode of these caches.
const INODES: [&str; 2] = ["sock_inode_cache", "inode_cache"];

/// Every inode of a socket or pipe has one object of each of these. File systems fill and empty
/// them in masses, which would drown a session's share, so they are counted by those inodes.
const PER_INODE: [&str; 2] = ["dentry", "lsm_inode_cache"];

/// Bytes of a page, in which the kernel counts what waits in sockets.
const PAGE: i64 = 4096;

/// Kernel memory by what it is for, in bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Kernel {
    /// Bytes by the name of a cache, or of another kind of memory.
    pub parts: BTreeMap<String, i64>,
}

impl Kernel {
    /// Reads the counters now; with `data`, also what the kernel charges for bytes that wait in
    /// sockets, of which it keeps up to a megabyte per core in reserve. Nothing counts bytes in
    /// pipes, but those are bounded by the size of a pipe.
    ///
    /// Only root may read the counters by type; everybody else gets the sum of all types.
    pub fn read(data: bool) -> Kernel {
        let text = |path| fs::read_to_string(path).unwrap_or_default();
        let mut kernel = match fs::read_to_string("/proc/slabinfo") {
            Ok(slabinfo) => from_slabinfo(&slabinfo),
            Err(_) => Kernel::of("slab of all types", slab_of_all_types(&text("/proc/meminfo"))),
        };
        if data {
            let charged = waiting_in_sockets(&text("/proc/net/sockstat"));
            kernel.parts.insert("socket buffers".to_owned(), charged);
        }
        kernel
    }

    /// One part alone.
    fn of(name: &str, bytes: i64) -> Kernel {
        Kernel { parts: BTreeMap::from([(name.to_owned(), bytes)]) }
    }

    /// All parts together.
    pub fn bytes(&self) -> i64 {
        self.parts.values().sum()
    }

    /// The parts that have changed since `earlier`, and by how much.
    pub fn since(&self, earlier: &Kernel) -> BTreeMap<String, i64> {
        let before = |name| earlier.parts.get(name).copied().unwrap_or_default();
        let changes = self.parts.iter().map(|(name, now)| (name.clone(), now - before(name)));
        changes.filter(|(_, change)| *change != 0).collect()
    }
}

/// What `/proc/slabinfo` says: active objects times their size, of the caches that are [`OURS`].
pub fn from_slabinfo(text: &str) -> Kernel {
    let caches: BTreeMap<&str, (i64, i64)> = text.lines().filter_map(cache).collect();
    let is_ours = |name: &str| {
        OURS.iter().any(|ours| *ours == name || (ours.ends_with('-') && name.starts_with(ours)))
    };
    let mut parts: BTreeMap<String, i64> = caches
        .iter()
        .filter(|(name, _)| is_ours(name))
        .map(|(name, (objects, size))| ((*name).to_owned(), objects * size))
        .collect();
    let inodes: i64 =
        INODES.iter().filter_map(|name| caches.get(name)).map(|(count, _)| count).sum();
    for name in PER_INODE {
        if let Some((_, size)) = caches.get(name) {
            parts.insert(name.to_owned(), inodes * size);
        }
    }
    Kernel { parts }
}

/// A line of `/proc/slabinfo`: name, active objects, all objects, bytes of an object, and more.
fn cache(line: &str) -> Option<(&str, (i64, i64))> {
    let mut fields = line.split_whitespace();
    let name = fields.next()?;
    let (objects, size) = (fields.next()?.parse().ok()?, fields.nth(1)?.parse().ok()?);
    Some((name, (objects, size)))
}

/// The field of `/proc/meminfo`, which is in KiB, in bytes.
pub fn slab_of_all_types(meminfo: &str) -> i64 {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("Slab:")).unwrap_or_default();
    1024 * first_number(line)
}

/// What `/proc/net/sockstat` says that TCP is charged for, in bytes.
pub fn waiting_in_sockets(sockstat: &str) -> i64 {
    let line = sockstat.lines().find(|line| line.starts_with("TCP:")).unwrap_or_default();
    PAGE * line.split_once(" mem ").map_or(0, |(_, pages)| first_number(pages))
}

fn first_number(text: &str) -> i64 {
    text.split_whitespace().next().and_then(|number| number.parse().ok()).unwrap_or(0)
}
