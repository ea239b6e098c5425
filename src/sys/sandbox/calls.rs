//! The system calls of a gateway that runs: everything that engines, listeners, logs, the admin API, name
//! lookups and the C library do, and nothing that starts a program, traces one, changes what the process is, or
//! reaches for the kernel itself.
//!
//! The calls of the data path have no condition on their arguments. The kernel finds out when a filter is
//! installed that it always allows them, and never runs it for them again (Linux 5.11, kernel-notes/0025).

use std::os::raw::c_long;

use crate::sys::ring::register;

/// Allowed whatever their arguments are.
pub(super) const ALWAYS: &[c_long] = &[
    // The data path.
    libc::SYS_read,
    libc::SYS_write,
    libc::SYS_readv,
    libc::SYS_writev,
    libc::SYS_recvfrom,
    libc::SYS_sendto,
    libc::SYS_recvmsg,
    libc::SYS_sendmsg,
    libc::SYS_recvmmsg,
    libc::SYS_sendmmsg,
    libc::SYS_splice,
    libc::SYS_tee,
    libc::SYS_pipe2,
    libc::SYS_shutdown,
    libc::SYS_close,
    // Sockets. Which kinds may be made is a condition below.
    libc::SYS_accept4,
    libc::SYS_connect,
    libc::SYS_bind,
    libc::SYS_listen,
    libc::SYS_getsockname,
    libc::SYS_getpeername,
    libc::SYS_getsockopt,
    libc::SYS_setsockopt,
    libc::SYS_fcntl,
    libc::SYS_dup,
    libc::SYS_dup3,
    // Waiting, and the time.
    libc::SYS_epoll_create1,
    libc::SYS_epoll_ctl,
    libc::SYS_epoll_pwait,
    libc::SYS_epoll_pwait2,
    libc::SYS_ppoll,
    libc::SYS_pselect6,
    libc::SYS_eventfd2,
    libc::SYS_timerfd_create,
    libc::SYS_timerfd_settime,
    libc::SYS_timerfd_gettime,
    libc::SYS_nanosleep,
    libc::SYS_clock_nanosleep,
    libc::SYS_clock_gettime,
    libc::SYS_clock_getres,
    libc::SYS_gettimeofday,
    libc::SYS_restart_syscall,
    libc::SYS_sched_yield,
    // Threads and signals of this process.
    libc::SYS_futex,
    libc::SYS_set_robust_list,
    libc::SYS_set_tid_address,
    libc::SYS_rseq,
    libc::SYS_membarrier,
    libc::SYS_sched_getaffinity,
    libc::SYS_sigaltstack,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_exit,
    libc::SYS_exit_group,
    // Memory. What may be executed is a condition below.
    libc::SYS_brk,
    libc::SYS_munmap,
    libc::SYS_mremap,
    libc::SYS_madvise,
    // Files: which ones is for landlock to say.
    libc::SYS_openat,
    libc::SYS_statx,
    libc::SYS_newfstatat,
    libc::SYS_fstat,
    libc::SYS_fstatfs,
    libc::SYS_lseek,
    libc::SYS_pread64,
    libc::SYS_pwrite64,
    libc::SYS_getdents64,
    libc::SYS_readlinkat,
    libc::SYS_faccessat,
    libc::SYS_faccessat2,
    libc::SYS_unlinkat,
    libc::SYS_getcwd,
    libc::SYS_umask,
    // Who and where this is.
    libc::SYS_getpid,
    libc::SYS_getppid,
    libc::SYS_gettid,
    libc::SYS_getuid,
    libc::SYS_geteuid,
    libc::SYS_getgid,
    libc::SYS_getegid,
    libc::SYS_getrandom,
    libc::SYS_getrusage,
    libc::SYS_sysinfo,
    libc::SYS_times,
    libc::SYS_uname,
];

/// The same calls by the names that only this architecture has; C libraries go on using them.
#[cfg(target_arch = "x86_64")]
pub(super) const ALWAYS_HERE: &[c_long] = &[
    libc::SYS_epoll_wait,
    libc::SYS_poll,
    libc::SYS_select,
    libc::SYS_pipe,
    libc::SYS_dup2,
    libc::SYS_time,
    libc::SYS_open,
    libc::SYS_stat,
    libc::SYS_lstat,
    libc::SYS_access,
    libc::SYS_readlink,
    libc::SYS_unlink,
    libc::SYS_getdents,
];
#[cfg(not(target_arch = "x86_64"))]
pub(super) const ALWAYS_HERE: &[c_long] = &[];

/// Rings, where they are asked for.
pub(super) const URING: &[c_long] =
    &[libc::SYS_io_uring_setup, libc::SYS_io_uring_enter, libc::SYS_io_uring_register];

/// What rings need that were made before; of the last only some operations.
pub(super) const RINGS_MADE: &[c_long] = &[libc::SYS_io_uring_enter, libc::SYS_io_uring_register];

/// Those operations, and the place of the argument that says which.
pub(super) fn ring_operations() -> (u8, Vec<Argument>) {
    (1, register::ALL.map(|operation| Argument::Is(u64::from(operation))).into())
}

/// What is tried in order to be refused, and so is in no log: the C library's first attempt at a thread, whose
/// flags are behind a pointer where no filter can see them, and without need the probe's at a ring.
pub(super) const EXPECTED: &[c_long] = &[libc::SYS_clone3];

/// A condition on one argument.
#[derive(Clone, Copy, Debug)]
pub(super) enum Argument {
    /// It is this number.
    Is(u64),
    /// Of these bits, none is set.
    Lacks(u64),
    /// Of these bits, all are set.
    Has(u64),
}

/// Allowed when one of the alternatives holds for the argument in this place.
pub(super) fn conditional(own: u32) -> Vec<(c_long, u8, Vec<Argument>)> {
    let (writable, executable) = (libc::PROT_WRITE as u64, libc::PROT_EXEC as u64);
    let is = |numbers: &[u64]| numbers.iter().map(|&number| Argument::Is(number)).collect();
    let families = [libc::AF_UNIX, libc::AF_INET, libc::AF_INET6, libc::AF_NETLINK];
    vec![
        // Nothing below IP; netlink is how the C library lists the addresses of this machine.
        (libc::SYS_socket, 0, is(&families.map(|family| family as u64))),
        (libc::SYS_socketpair, 0, is(&[libc::AF_UNIX as u64])),
        // A thread, not a process.
        (libc::SYS_clone, 0, vec![Argument::Has(libc::CLONE_THREAD as u64)]),
        // Its own name, and nothing that would change what the process may do.
        (libc::SYS_prctl, 0, is(&[libc::PR_SET_NAME as u64])),
        // To end itself.
        (libc::SYS_tgkill, 0, is(&[u64::from(own)])),
        (libc::SYS_prlimit64, 0, is(&[0, u64::from(own)])),
        // Memory is either written or executed. Shared libraries, as of the name service, need no more.
        (libc::SYS_mmap, 2, vec![Argument::Lacks(writable), Argument::Lacks(executable)]),
        (libc::SYS_mprotect, 2, vec![Argument::Lacks(executable)]),
        // What is asked of sockets, pipes and terminals; above all not TIOCSTI, which types for the user.
        (libc::SYS_ioctl, 1, is(&IOCTLS)),
    ]
}

/// `SIOCOUTQNSD`, `SIOCATMARK`: see [`crate::sys::sockopt`]; `SIOCGIFNAME` and `SIOCGIFINDEX` are for addresses
/// with a scope.
const IOCTLS: [u64; 10] = [
    libc::FIONREAD,
    libc::FIONBIO,
    libc::FIOCLEX,
    libc::TCGETS,
    libc::TIOCGWINSZ,
    libc::TIOCOUTQ,
    0x8905,
    0x894B,
    0x8910,
    0x8933,
];
