//! The disposition of SIGPIPE that a C program starts with.

#![allow(unsafe_code, reason = "signal(2) is unsafe")]

/// Makes a write to a broken pipe end the process: std made it harmless before `main`.
pub fn let_it_kill() {
    // SAFETY: SIG_DFL is a valid disposition, installs no handler, and touches no memory of ours.
    let before = unsafe { libc::signal(libc::SIGPIPE, libc::SIG_DFL) };
    assert_eq!(before, libc::SIG_IGN, "std ignores it");
}
