//! Whether a gateway could confine itself here, tried by confining a thread.

use std::io;
use std::thread;

use serde::Serialize;

use super::{Ability, Host, Why};
use crate::sys::sandbox::{Needs, Refused, confine};

/// What of the sandbox can be had.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Sandbox {
    /// A seccomp filter that refuses what is not on its list.
    pub calls: Ability,
    /// Landlock rules that refuse what is not in its folders.
    pub files: Ability,
    /// The version of landlock; `None`: not to be had.
    pub landlock: Option<u32>,
    /// Capabilities can be given up.
    pub capabilities: Ability,
}

/// Confines a thread and sees what that does.
pub(super) fn probe(host: &Host) -> Sandbox {
    let confined = thread::Builder::new().name("sandboxed".into()).spawn(|| {
        let confined = confine(&Needs::default());
        (confined, execve_is_there(), std::fs::read_dir("/").is_ok())
    });
    let confined = confined.expect("a thread for the probe").join();
    let (confined, runs, opens) = confined.expect("confining does not panic");
    let because = |refused: &Refused| Why::refused(refused.call, &refused.source, host);
    let ability = |refused: Option<&Refused>, escapes: bool, call| match (refused, escapes) {
        (Some(refused), _) => Ability::No(because(refused)),
        (None, true) => Ability::No(Why::wrong(call, "accepted, but it refuses nothing")),
        (None, false) => Ability::Yes,
    };
    Sandbox {
        calls: ability(confined.calls.as_ref().err(), runs, "seccomp"),
        files: ability(confined.files.as_ref().err(), opens, "landlock_restrict_self"),
        landlock: confined.files.ok(),
        capabilities: ability(confined.capabilities.as_ref().err(), false, "capset"),
    }
}

/// Whether execve(2) answers anything but that it does not exist.
fn execve_is_there() -> bool {
    let nothing = std::ptr::null::<u8>();
    // SAFETY: a program without a name is an EFAULT; the call returns.
    let answer = unsafe { libc::syscall(libc::SYS_execve, nothing, nothing, nothing) };
    answer != -1 || io::Error::last_os_error().raw_os_error() != Some(libc::ENOSYS)
}
