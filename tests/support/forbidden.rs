//! System calls that a gateway has no business to make, made for real.

#![allow(unsafe_code, reason = "they have no safe form; that is why they are forbidden")]

use std::os::raw::c_long;

/// Calls with arguments that are refused by every kernel that knows the call, with another errno than `ENOSYS`.
const CALLS: [(&str, c_long, [c_long; 4]); 30] = [
    ("execve", libc::SYS_execve, [0; 4]),
    ("execveat", libc::SYS_execveat, [-1, 0, 0, 0]),
    ("clone of a process", libc::SYS_clone, [libc::CLONE_SIGHAND as c_long, 0, 0, 0]),
    ("clone3", libc::SYS_clone3, [0; 4]),
    ("ptrace", libc::SYS_ptrace, [libc::PTRACE_ATTACH as c_long, 0, 0, 0]),
    ("process_vm_readv", libc::SYS_process_vm_readv, [0, 0, 0, 0]),
    ("process_vm_writev", libc::SYS_process_vm_writev, [0, 0, 0, 0]),
    ("pidfd_open", libc::SYS_pidfd_open, [-1, 0, 0, 0]),
    ("kill", libc::SYS_kill, [c_long::MAX >> 32, 0, 0, 0]),
    ("tgkill of another", libc::SYS_tgkill, [1, c_long::MAX >> 32, 0, 0]),
    ("mount", libc::SYS_mount, [0; 4]),
    ("umount2", libc::SYS_umount2, [0; 4]),
    ("pivot_root", libc::SYS_pivot_root, [0; 4]),
    ("chroot", libc::SYS_chroot, [0; 4]),
    ("unshare", libc::SYS_unshare, [-1, 0, 0, 0]),
    ("setns", libc::SYS_setns, [-1, 0, 0, 0]),
    ("bpf", libc::SYS_bpf, [-1, 0, 0, 0]),
    ("perf_event_open", libc::SYS_perf_event_open, [0; 4]),
    ("userfaultfd", libc::SYS_userfaultfd, [-1, 0, 0, 0]),
    ("io_uring_setup", libc::SYS_io_uring_setup, [0; 4]),
    ("init_module", libc::SYS_init_module, [0; 4]),
    ("setresuid", libc::SYS_setresuid, [0; 4]),
    ("setgroups", libc::SYS_setgroups, [c_long::MAX >> 32, 0, 0, 0]),
    ("capset", libc::SYS_capset, [0; 4]),
    ("seccomp", libc::SYS_seccomp, [-1, 0, 0, 0]),
    ("memfd_create", libc::SYS_memfd_create, [0; 4]),
    ("packet socket", libc::SYS_socket, [libc::AF_PACKET as c_long, -1, 0, 0]),
    ("TIOCSTI", libc::SYS_ioctl, [-1, libc::TIOCSTI as c_long, 0, 0]),
    ("prctl PR_SET_DUMPABLE", libc::SYS_prctl, [libc::PR_SET_DUMPABLE as c_long, 7, 0, 0]),
    (
        "executable memory",
        libc::SYS_mprotect,
        [0, 0, (libc::PROT_READ | libc::PROT_EXEC) as c_long, 0],
    ),
];

/// Makes all of them, and says which were not answered with `ENOSYS`: they exist.
pub fn existing() -> Vec<&'static str> {
    let exists = |&(_, call, [a, b, c, d]): &(&str, c_long, [c_long; 4])| {
        // SAFETY: each is refused before it does anything, or does nothing: a null pointer, a descriptor, process
        // or size that is none. What would be done where all are allowed is to set our own user to root's.
        let answer = unsafe { libc::syscall(call, a, b, c, d) };
        answer != -1 || std::io::Error::last_os_error().raw_os_error() != Some(libc::ENOSYS)
    };
    CALLS.iter().filter(|call| exists(call)).map(|&(name, ..)| name).collect()
}
