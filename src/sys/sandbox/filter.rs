//! The list of system calls as a seccomp filter. What is not on it does not exist: `ENOSYS` is what makes the
//! C library and the standard library take the older call, and what the relay answers with its fallback. The
//! kernel's audit log names each call that was refused, other than those that are tried for that answer.

use std::collections::BTreeMap;
use std::io;

use seccompiler::{
    BackendError, BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition,
    SeccompFilter, SeccompRule, TargetArch,
};

use super::calls::{
    ALWAYS, ALWAYS_HERE, Argument, EXPECTED, RINGS_MADE, URING, conditional, ring_operations,
};
use super::{Refused, Rings};

/// Conditions by the number of a call; none: it always matches.
type Rules = BTreeMap<i64, Vec<SeccompRule>>;

/// Installs it; the number of calls that it lets through.
pub(super) fn install(rings: Rings) -> Result<usize, Refused> {
    let compiled = expected(rings).and_then(|expected| Ok((expected, listed(rings)?)));
    let (expected, (listed, count)) =
        compiled.map_err(|source| Refused { call: "seccomp", source: io::Error::other(source) })?;
    no_new_privileges()?;
    // Without SPEC_ALLOW kernels before 5.16 slow each such thread down, to keep code that it was given from
    // reading its memory (`spec_store_bypass_disable`). There is no such code here.
    let quiet = libc::SECCOMP_FILTER_FLAG_SPEC_ALLOW;
    // The list lets through what the other one refuses, so the log's flag is not that of the refusal.
    for (program, flags) in [(&expected, quiet), (&listed, quiet | libc::SECCOMP_FILTER_FLAG_LOG)] {
        match set(program, flags) {
            // Linux 4.14 knows the log's, 4.17 the other one.
            Err(error) if error.source.raw_os_error() == Some(libc::EINVAL) => set(program, 0)?,
            done => done?,
        }
    }
    Ok(count)
}

/// Neither this thread nor what it starts gains anything by execve(2); without it a filter needs `CAP_SYS_ADMIN`.
fn no_new_privileges() -> Result<(), Refused> {
    // SAFETY: the call takes numbers only.
    match unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) } {
        0 => Ok(()),
        _ => Err(Refused::last("prctl PR_SET_NO_NEW_PRIVS")),
    }
}

fn set(program: &BpfProgram, flags: libc::c_ulong) -> Result<(), Refused> {
    let length = u16::try_from(program.len()).expect("the list is short");
    let program = libc::sock_fprog { len: length, filter: program.as_ptr().cast_mut().cast() };
    // SAFETY: the kernel copies `len` instructions from `filter`, which live until the end of this function;
    // seccompiler's instruction has the layout of the kernel's, as libc's has.
    let answer = unsafe {
        libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, flags, &raw const program)
    };
    if answer == 0 { Ok(()) } else { Err(Refused::last("seccomp")) }
}

/// Refuses what is expected to be refused.
fn expected(rings: Rings) -> Result<BpfProgram, BackendError> {
    let of_rings = URING.iter().filter(|call| !of_rings(rings).contains(call));
    let calls = EXPECTED.iter().chain(of_rings);
    compile(calls.map(|&call| (call, Vec::new())).collect(), true)
}

/// Those of [`URING`] that are let through.
fn of_rings(rings: Rings) -> &'static [i64] {
    match rings {
        Rings::None => &[],
        Rings::Made => RINGS_MADE,
        Rings::Any => URING,
    }
}

/// Refuses what is not listed; the number of calls that are.
fn listed(rings: Rings) -> Result<(BpfProgram, usize), BackendError> {
    let always = ALWAYS.iter().chain(ALWAYS_HERE);
    let mut rules: Rules = always.map(|&call| (call, Vec::new())).collect();
    let mut conditions = conditional(std::process::id());
    let count = rules.len() + conditions.len() + of_rings(rings).len();
    // Either both filters let them through, or the other one refuses them.
    rules.extend(URING.iter().chain(EXPECTED).map(|&call| (call, Vec::new())));
    if rings == Rings::Made {
        let (place, operations) = ring_operations();
        conditions.push((libc::SYS_io_uring_register, place, operations));
    }
    for (call, place, alternatives) in conditions {
        let alternatives = alternatives.into_iter().map(|argument| rule(place, argument));
        rules.insert(call, alternatives.collect::<Result<_, _>>()?);
    }
    Ok((compile(rules, false)?, count))
}

/// A filter that refuses what matches, or what does not.
fn compile(rules: Rules, matches: bool) -> Result<BpfProgram, BackendError> {
    let missing = SeccompAction::Errno(libc::ENOSYS.unsigned_abs());
    let (found, other) = match matches {
        true => (missing, SeccompAction::Allow),
        false => (SeccompAction::Allow, missing),
    };
    let arch = TargetArch::try_from(std::env::consts::ARCH)?;
    SeccompFilter::new(rules, other, found, arch)?.try_into()
}

fn rule(place: u8, argument: Argument) -> Result<SeccompRule, BackendError> {
    let (operator, value) = match argument {
        Argument::Is(number) => (SeccompCmpOp::Eq, number),
        Argument::Lacks(bits) => (SeccompCmpOp::MaskedEq(bits), 0),
        Argument::Has(bits) => (SeccompCmpOp::MaskedEq(bits), bits),
    };
    // The kernel looks at the lower half of each of these arguments, and so do we.
    let length = SeccompCmpArgLen::Dword;
    SeccompRule::new(vec![SeccompCondition::new(place, length, operator, value)?])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_fits_the_kernel_and_rings_are_counted() {
        let (program, few) = listed(Rings::None).expect("it compiles");
        let (_, more) = listed(Rings::Made).expect("it compiles");
        let (_, many) = listed(Rings::Any).expect("it compiles");
        assert_eq!((more, many), (few + RINGS_MADE.len(), few + URING.len()));
        // BPF_MAXINSNS
        assert!(program.len() < 4096, "{}", program.len());
    }

    #[test]
    fn a_filter_is_the_threads_own_and_of_those_that_it_starts() {
        let mode = || {
            let status = std::fs::read_to_string("/proc/thread-self/status").expect("proc");
            let line = status.lines().find(|line| line.starts_with("Seccomp:"));
            line.expect("a line").to_owned()
        };
        let before = mode();
        let inside = std::thread::spawn(move || {
            install(Rings::None).expect("this kernel filters");
            [mode(), std::thread::spawn(mode).join().expect("it ends")]
        });
        assert_eq!(inside.join().expect("it ends"), ["Seccomp:\t2", "Seccomp:\t2"]);
        assert_eq!(mode(), before);
    }
}
