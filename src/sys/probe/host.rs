//! The kernel's own account of itself: uname(2), /proc, limits. Missing files are `None`, not
//! errors: sandboxes hide /proc.

use std::fs;

use serde::Serialize;

/// The kernel, and what confines the thread that probes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Host {
    /// `uname -r`; empty if the call is refused.
    pub kernel: String,
    /// `uname -m`; empty if the call is refused.
    pub arch: String,
    /// 0 no filter, 1 strict, 2 filter; `None`: unknown.
    pub seccomp_mode: Option<u8>,
    /// Whether the effective set has `CAP_SYS_RESOURCE`, which lifts every limit on pipes. Inside a
    /// user namespace it is shown but lifts nothing: [`Pipes::above_max`](super::Pipes::above_max)
    /// is what trying gave.
    pub cap_sys_resource: Option<bool>,
    /// Whether the effective set has `CAP_SYS_ADMIN`, which lifts the page limits; the same holds
    /// for it.
    pub cap_sys_admin: Option<bool>,
    /// `kernel.io_uring_disabled`: 0 allowed, 1 for a group only, 2 refused; `None`: unknown or
    /// older than 6.6.
    pub io_uring_disabled: Option<u8>,
}

/// A soft and a hard limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Limit {
    /// What holds now.
    pub soft: u64,
    /// How far the process may raise it.
    pub hard: u64,
}

/// Reads everything in [`Host`].
pub(super) fn read() -> Host {
    let (kernel, arch) = uname();
    // Filters and capabilities are per thread; /proc/self would speak of the main thread.
    let status = fs::read_to_string("/proc/thread-self/status").unwrap_or_default();
    Host {
        kernel,
        arch,
        seccomp_mode: status_field(&status, "Seccomp").and_then(|mode| mode.parse().ok()),
        cap_sys_resource: capability(&status, CAP_SYS_RESOURCE),
        cap_sys_admin: capability(&status, CAP_SYS_ADMIN),
        io_uring_disabled: number("/proc/sys/kernel/io_uring_disabled"),
    }
}

/// A file under /proc/sys that holds one number.
pub(super) fn number<N: std::str::FromStr>(path: &str) -> Option<N> {
    fs::read_to_string(path).ok()?.trim().parse().ok()
}

/// `RLIMIT_NOFILE`.
pub(super) fn nofile() -> Option<Limit> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `limit` is a live rlimit that the call fills; it keeps no pointer.
    let answer = unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit) };
    (answer == 0).then_some(Limit { soft: limit.rlim_cur, hard: limit.rlim_max })
}

fn uname() -> (String, String) {
    // SAFETY: utsname is only arrays of characters, for which all zeros is a valid value.
    let mut name: libc::utsname = unsafe { std::mem::zeroed() };
    // SAFETY: `name` is a live utsname that the call fills; it keeps no pointer.
    if unsafe { libc::uname(&mut name) } != 0 {
        return Default::default();
    }
    (text(&name.release), text(&name.machine))
}

/// The characters up to the first NUL. `c_char` is signed on some architectures only, hence by its
/// byte.
fn text(field: &[libc::c_char]) -> String {
    let bytes: Vec<u8> = field.iter().map(|c| c.to_ne_bytes()[0]).take_while(|&c| c != 0).collect();
    String::from_utf8_lossy(&bytes).into_owned()
}

/// The value of `name:` in the text of a status file.
fn status_field<'a>(status: &'a str, name: &str) -> Option<&'a str> {
    status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':').map(str::trim))
}

/// Whether the effective set of a status file has this bit.
fn capability(status: &str, bit: u32) -> Option<bool> {
    let set = u64::from_str_radix(status_field(status, "CapEff")?, 16).ok()?;
    Some(set & (1 << bit) != 0)
}

/// Bits in a capability set (linux/capability.h); libc has no names for them.
const CAP_SYS_ADMIN: u32 = 21;
const CAP_SYS_RESOURCE: u32 = 24;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_field_is_found_by_its_whole_name() {
        let status = "Name:\tx\nSeccomp:\t2\nSeccomp_filters:\t7\nCapEff:\t0000000001000000\n";
        assert_eq!(status_field(status, "Seccomp"), Some("2"));
        assert_eq!(status_field(status, "Seccomp_filters"), Some("7"));
        assert_eq!(capability(status, CAP_SYS_RESOURCE), Some(true));
        assert_eq!(capability(status, CAP_SYS_ADMIN), Some(false));
        assert_eq!(capability("", CAP_SYS_ADMIN), None);
        assert_eq!(status_field(status, "Cap"), None);
    }

    #[test]
    fn the_host_names_its_kernel_and_its_descriptor_limit() {
        let host = read();
        assert!(host.kernel.starts_with(|c: char| c.is_ascii_digit()), "{host:?}");
        assert_eq!(host.arch.as_str(), std::env::consts::ARCH);
        let nofile = nofile().expect("getrlimit is never filtered in tests");
        assert!(nofile.soft > 0 && nofile.soft <= nofile.hard, "{nofile:?}");
    }
}
