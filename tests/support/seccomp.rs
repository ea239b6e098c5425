//! System calls refused on purpose, as a container's seccomp profile would.
//!
//! A [`Refusal`] is a filter that answers chosen calls with a chosen errno and lets all others
//! through. It can be put on three things, and never be taken off again:
//!
//! - a child process, from its first instruction: [`Refusal::confine`];
//! - the calling thread and every thread it starts from then on: [`Refusal::confine_this_thread`].
//!   A gateway whose workers are refused from the start: install it in a thread made for that, then
//!   call `Gateway::start` in that thread. One dedicated worker of a test's own, refused in
//!   mid-stream: the thread that runs the relay installs it itself, between two steps, or in a task
//!   on its runtime;
//! - every thread of the process at once: [`Refusal::confine_all_threads`]. Workers that are
//!   already running, refused in mid-stream. It spoils the process for the tests beside it, so such
//!   a test runs [`alone`].
//!
//! A filter has no memory: it cannot refuse "from the third call on". What has to be counted in
//! calls is not for this file.

#![allow(dead_code, reason = "each test binary uses another part")]
#![allow(unsafe_code, reason = "pre_exec is unsafe")]

use std::collections::BTreeMap;
use std::env;
use std::io::{self, Read};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use seccompiler::{BpfProgram, SeccompAction, SeccompFilter};

/// A call that can be refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Call {
    Splice,
    Pipe2,
    IoUringSetup,
    IoUringEnter,
    IoUringRegister,
    Seccomp,
    LandlockCreateRuleset,
    Capset,
}

/// What a refused call answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Errno {
    Eperm,
    Enosys,
    Einval,
}

/// A filter, ready to be installed any number of times.
#[derive(Clone)]
pub struct Refusal {
    program: BpfProgram,
}

impl Errno {
    pub const ALL: [Errno; 3] = [Errno::Eperm, Errno::Enosys, Errno::Einval];

    pub fn name(self) -> &'static str {
        match self {
            Errno::Eperm => "EPERM",
            Errno::Enosys => "ENOSYS",
            Errno::Einval => "EINVAL",
        }
    }

    pub fn number(self) -> i32 {
        match self {
            Errno::Eperm => libc::EPERM,
            Errno::Enosys => libc::ENOSYS,
            Errno::Einval => libc::EINVAL,
        }
    }
}

impl Refusal {
    /// Refuses `calls` with `errno`.
    pub fn of(calls: &[Call], errno: Errno) -> Refusal {
        let rules: BTreeMap<_, _> = calls.iter().map(|call| (call.number(), Vec::new())).collect();
        let refuse = SeccompAction::Errno(errno.number().unsigned_abs());
        let arch = env::consts::ARCH.try_into().expect("seccompiler knows this architecture");
        let filter = SeccompFilter::new(rules, SeccompAction::Allow, refuse, arch);
        let program =
            filter.and_then(BpfProgram::try_from).expect("a filter of whole calls compiles");
        Refusal { program }
    }

    /// Makes `command` start its program with the filter on.
    pub fn confine<'a>(&self, command: &'a mut Command) -> &'a mut Command {
        let program = self.program.clone();
        let install = move || seccompiler::apply_filter(&program).map_err(os_error);
        // SAFETY: between fork and exec only calls that are async-signal-safe are allowed. The
        // closure makes two system calls (prctl, seccomp) on memory from before the fork, and
        // allocates and locks nothing.
        unsafe { command.pre_exec(install) }
    }

    /// Puts the filter on the calling thread and on what it starts from now on.
    pub fn confine_this_thread(&self) {
        seccompiler::apply_filter(&self.program).expect("the filter is accepted");
    }

    /// Puts the filter on every thread of this process (TSYNC). It fails if a thread already has a
    /// filter that the calling thread does not have.
    pub fn confine_all_threads(&self) {
        seccompiler::apply_filter_all_threads(&self.program).expect("the filter is accepted");
    }
}

impl Call {
    fn number(self) -> i64 {
        match self {
            Call::Splice => libc::SYS_splice,
            Call::Pipe2 => libc::SYS_pipe2,
            Call::IoUringSetup => libc::SYS_io_uring_setup,
            Call::IoUringEnter => libc::SYS_io_uring_enter,
            Call::IoUringRegister => libc::SYS_io_uring_register,
            Call::Seccomp => libc::SYS_seccomp,
            Call::LandlockCreateRuleset => libc::SYS_landlock_create_ruleset,
            Call::Capset => libc::SYS_capset,
        }
    }
}

/// A command that runs the one test `name` of this test binary, in a process of its own. That test
/// is marked `#[ignore]` and returns at once unless it [`is_alone`], so that `--include-ignored`
/// does no harm.
pub fn alone(name: &str) -> Command {
    let mut command = Command::new(env::current_exe().expect("a test binary has a path"));
    command.args(alone_arguments(name)).env(ALONE, "1");
    command
}

/// The same from `program`, a test binary, with `limit` as its soft and hard limit of descriptors.
pub fn alone_with_descriptors(limit: usize, program: &Path, name: &str) -> Command {
    let mut shell = Command::new("sh");
    shell.arg("-c").arg(format!("ulimit -n {limit} && exec \"$0\" \"$@\"")).arg(program);
    shell.args(alone_arguments(name)).env(ALONE, "1");
    shell
}

/// Whether this process was started by a command of [`alone`].
pub fn is_alone() -> bool {
    env::var_os(ALONE).is_some()
}

/// What makes a test binary run the one ignored test `name`.
fn alone_arguments(name: &str) -> [&str; 5] {
    [name, "--exact", "--ignored", "--nocapture", "--test-threads=1"]
}

/// Runs `command` to its end and returns what it wrote to stdout. Fails if the command fails or
/// takes too long.
pub fn stdout_of(command: &mut Command) -> String {
    let mut child = command.stdout(Stdio::piped()).spawn().expect("the child starts");
    let mut stdout = child.stdout.take().expect("stdout is piped");
    let (send, receive) = mpsc::channel();
    thread::spawn(move || {
        let mut text = String::new();
        let read = stdout.read_to_string(&mut text);
        // Nobody listens any more when the child took too long.
        let _ = send.send(read.map(|_| text));
    });
    let read = receive.recv_timeout(CHILD_MAX);
    if read.is_err() {
        child.kill().expect("the child can be killed");
    }
    let status = child.wait().expect("the child is waited for");
    let text = read.expect("the child ends in time").expect("its output is text");
    assert!(status.success(), "the child ended with {status}: {text}");
    text
}

/// The system's part of an error of seccompiler, without allocating.
fn os_error(error: seccompiler::Error) -> io::Error {
    match error {
        seccompiler::Error::Prctl(error) | seccompiler::Error::Seccomp(error) => error,
        _ => io::Error::from_raw_os_error(libc::EINVAL),
    }
}

/// Set for a process that runs one test alone.
const ALONE: &str = "UPSPLICE_TEST_ALONE";

/// Only turns a hang into a failure.
const CHILD_MAX: Duration = Duration::from_secs(60);
