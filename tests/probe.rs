//! The probe against this kernel, free and confined. Each confined probe runs in a process of its
//! own: the test binary starts itself again with one of the ignored tests at the end of this file.

#[path = "support/seccomp.rs"]
mod seccomp;

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::sync::mpsc;
use std::thread;

use seccomp::{Call, Errno, Refusal, alone, alone_with_descriptors, is_alone, stdout_of};
use serde_json::Value;
use upsplice::server::report::report;
use upsplice::sys::probe::{Ability, Probe, Why};

#[test]
fn a_free_probe_finds_what_the_gateway_cannot_do_without() {
    let found = probe_in(&mut alone(CHILD));
    for item in ["/splice/tcp", "/splice/unix", "/pipes/create", "/reuseport", "/user_timeout"] {
        assert_eq!(text(&found, &format!("{item}/ability")), "yes", "{item} in {found:#}");
    }
    assert_eq!(text(&found, "/routes/0/engine"), "auto");
}

#[test]
fn a_refused_splice_is_named_and_the_route_gets_copy() {
    for errno in Errno::ALL {
        let found = probe_refused(Call::Splice, errno);
        for item in ["/splice/tcp", "/splice/unix"] {
            expect_refusal(&found, item, "no", "splice", errno);
        }
        assert_eq!(text(&found, "/pipes/create/ability"), "yes");
        assert_eq!(text(&found, "/routes/0/engine"), "copy");
        assert!(text(&found, "/routes/0/why").contains(errno.name()), "{found:#}");
    }
}

#[test]
fn a_refused_pipe_is_named_and_the_route_gets_copy() {
    for errno in Errno::ALL {
        let found = probe_refused(Call::Pipe2, errno);
        expect_refusal(&found, "/pipes/create", "no", "pipe2", errno);
        for item in ["/pipes/grow", "/splice/tcp", "/splice/unix"] {
            expect_refusal(&found, item, "untried", "pipe2", errno);
        }
        assert_eq!(found.pointer("/pipes/fresh_bytes"), Some(&Value::Null));
        assert_eq!(text(&found, "/routes/0/engine"), "copy");
    }
}

#[test]
fn a_refused_ring_is_named_and_the_worker_gets_epoll() {
    for errno in Errno::ALL {
        let found = probe_refused(Call::IoUringSetup, errno);
        let ring = |item| expect_refusal(&found, item, "no", "io_uring_setup", errno);
        // Where the sysctl forbids rings too, it is the hint.
        match found.pointer("/host/io_uring_disabled").and_then(Value::as_u64) {
            None | Some(0) => ring("/io_uring/ring"),
            Some(_) => assert_eq!(text(&found, "/io_uring/ring/errno"), errno.name()),
        }
        assert_eq!(text(&found, "/io_uring/multishot_recv/ability"), "untried");
        assert_eq!(text(&found, "/routes/0/engine"), "auto");
    }
}

#[test]
fn a_ring_that_can_be_made_but_not_entered_does_not_count() {
    if ring_is_missing("a_ring_that_can_be_made_but_not_entered_does_not_count") {
        return;
    }
    for errno in Errno::ALL {
        let found = probe_refused(Call::IoUringEnter, errno);
        expect_refusal(&found, "/io_uring/ring", "no", "io_uring_enter", errno);
    }
}

#[test]
fn a_ring_that_takes_no_registrations_carries_a_worker_but_no_provided_buffers() {
    if ring_is_missing(
        "a_ring_that_takes_no_registrations_carries_a_worker_but_no_provided_buffers",
    ) {
        return;
    }
    let found = probe_refused(Call::IoUringRegister, Errno::Eperm);
    assert_eq!(text(&found, "/io_uring/ring/ability"), "yes");
    assert_eq!(found.pointer("/io_uring/operations/recv"), Some(&Value::Bool(false)));
    let (probe, ring) = ("io_uring_register PROBE", "io_uring_register PBUF_RING");
    expect_refusal(&found, "/io_uring/register_probe", "no", probe, Errno::Eperm);
    expect_refusal(&found, "/io_uring/provided_buffers", "no", ring, Errno::Eperm);
    expect_refusal(&found, "/io_uring/multishot_recv", "untried", ring, Errno::Eperm);
}

#[test]
fn a_probe_without_free_descriptors_names_the_limit() {
    // Three are in use, so one socket can be made, but no pair and no pipe.
    let program = std::env::current_exe().expect("a test binary has a path");
    let found = probe_in(&mut alone_with_descriptors(4, &program, CHILD));
    for item in ["/pipes/create", "/splice/tcp", "/splice/unix", "/ktls"] {
        assert_eq!(text(&found, &format!("{item}/errno")), "EMFILE", "{item} in {found:#}");
        assert!(text(&found, &format!("{item}/hint")).contains("nofile"), "{item} in {found:#}");
    }
    assert_eq!(found.pointer("/nofile/soft"), Some(&Value::from(4)));
}

#[test]
fn pipes_of_a_user_whose_pages_are_used_up_are_degraded() {
    const NAME: &str = "pipes_of_a_user_whose_pages_are_used_up_are_degraded";
    let soft = fs::read_to_string("/proc/sys/fs/pipe-user-pages-soft").unwrap_or_default();
    if fs::metadata("/proc/self").map_or(1, |me| me.uid()) != 0 || soft.trim() != "16384" {
        eprintln!(
            "SKIPPED: {NAME}: needs root, to become a user of its own, and the default limit"
        );
        return;
    }
    // The user of the child may not be able to reach the build directory. The copy is made by
    // another process: a file that is open for writing in this one, and in children about to start,
    // cannot be executed.
    let folder = tempfile::tempdir().expect("a temporary folder");
    let program = folder.path().join("probe");
    let original = std::env::current_exe().expect("a test binary has a path");
    let copied = Command::new("cp").arg(original).arg(&program).status().expect("cp runs");
    assert!(copied.success(), "cp ended with {copied}");
    fs::set_permissions(folder.path(), PermissionsExt::from_mode(0o755)).expect("permissions");
    let mut child = alone_with_descriptors(4096, &program, CRAMPED_CHILD);
    let found = probe_in(child.uid(LONELY_UID).gid(LONELY_UID));
    assert_eq!(found.pointer("/pipes/degraded"), Some(&Value::Bool(true)), "{found:#}");
    assert_eq!(text(&found, "/pipes/grow/errno"), "EPERM");
    assert_eq!(text(&found, "/splice/tcp/ability"), "yes", "a small pipe still moves bytes");
    assert!(text(&found, "/routes/0/why").contains("used up"), "{found:#}");
}

#[test]
fn a_filter_on_one_thread_is_found_there_and_nowhere_else() {
    let confined = thread::spawn(|| {
        Refusal::of(&[Call::Splice], Errno::Enosys).confine_this_thread();
        Probe::run()
    });
    let confined = confined.join().expect("the confined probe ends");
    let why = confined.splice_works().expect_err("splice is refused on that thread");
    assert_eq!((why.call, why.errno.as_deref()), ("splice", Some("ENOSYS")));
    assert_eq!(Probe::run().splice_works(), Ok(()));
}

#[test]
fn a_filter_on_all_threads_reaches_a_thread_that_is_already_running() {
    let said = stdout_of(&mut alone("child_that_is_confined_while_it_runs"));
    assert!(said.contains("before: works, after: EINVAL\n"), "{said}");
}

#[test]
fn a_kind_of_socket_that_could_not_be_tried_does_not_count_against_splice() {
    let mut probe = Probe::run();
    let why = |call| Why { call, errno: None, message: String::new(), hint: String::new() };
    probe.splice.unix = Ability::Yes;
    probe.splice.tcp = Ability::Untried(why("connect"));
    assert_eq!(probe.splice_works(), Ok(()));
    probe.splice.unix = Ability::Untried(why("socketpair"));
    assert_eq!(probe.splice_works().map_err(|why| why.call), Err("connect"));
    probe.splice.unix = Ability::No(why("splice"));
    assert_eq!(probe.splice_works().map_err(|why| why.call), Err("splice"));
}

#[test]
#[ignore = "a child process of the tests above"]
fn child_that_probes() {
    if is_alone() {
        print_probe();
    }
}

#[test]
#[ignore = "a child process of the tests above"]
fn child_that_probes_with_its_pipe_pages_used_up() {
    if !is_alone() {
        return;
    }
    let held: Vec<_> = (0..PIPES_OF_DEFAULT_LIMIT).map(|_| std::io::pipe()).collect();
    assert!(held.iter().all(Result::is_ok), "the descriptor limit was raised for this");
    print_probe();
}

#[test]
#[ignore = "a child process of the tests above"]
fn child_that_is_confined_while_it_runs() {
    if !is_alone() {
        return;
    }
    let (say_confined, confined) = mpsc::channel();
    let (say_probed, probed) = mpsc::channel();
    let worker = thread::spawn(move || {
        let before = Probe::run();
        say_probed.send(()).expect("the test waits for this");
        confined.recv().expect("the filter is installed");
        (before, Probe::run())
    });
    probed.recv().expect("the worker probes once");
    Refusal::of(&[Call::Splice], Errno::Einval).confine_all_threads();
    say_confined.send(()).expect("the worker waits for this");
    let (before, after) = worker.join().expect("the worker ends");
    let word = |probe: &Probe| match probe.splice_works() {
        Ok(()) => "works".to_owned(),
        Err(why) => why.errno.clone().unwrap_or_default(),
    };
    println!("before: {}, after: {}", word(&before), word(&after));
}

/// Probes several times, prints the last report behind [`MARK`] on one line; descriptors must be as
/// before.
fn print_probe() {
    let open = || fs::read_dir("/proc/self/fd").expect("/proc is mounted").count();
    let before = open();
    let probes: Vec<Probe> = (0..5).map(|_| Probe::run()).collect();
    assert_eq!(open(), before, "descriptors after the probes and before them");
    let report: Value =
        serde_json::from_str(&report(&probes[4], None, true)).expect("the report is JSON");
    println!("{MARK}{report}");
}

fn probe_refused(call: Call, errno: Errno) -> Value {
    let found = probe_in(Refusal::of(&[call], errno).confine(&mut alone(CHILD)));
    assert_eq!(found.pointer("/host/seccomp_mode"), Some(&Value::from(2)));
    found
}

fn probe_in(command: &mut Command) -> Value {
    let output = stdout_of(command);
    // The test runner writes on the same line before it.
    let (_, marked) = output.split_once(MARK).expect("the child prints its report");
    serde_json::from_str(marked.lines().next().unwrap_or_default()).expect("the report is JSON")
}

fn expect_refusal(found: &Value, item: &str, ability: &str, call: &str, errno: Errno) {
    let of = |field| text(found, &format!("{item}/{field}"));
    let told = (of("ability"), of("call"), of("errno"));
    assert_eq!(told, (ability, call, errno.name()), "{item} in {found:#}");
    assert!(of("hint").contains("seccomp"), "{item} in {found:#}");
}

fn text<'a>(found: &'a Value, pointer: &str) -> &'a str {
    let value = found.pointer(pointer).and_then(Value::as_str);
    value.unwrap_or_else(|| panic!("{pointer} is no text in {found:#}"))
}

/// Says so if this machine has no ring that a test could confine.
fn ring_is_missing(test: &str) -> bool {
    let probe = Probe::run();
    let missing = probe.uring_works().err();
    if let Some(why) = missing {
        eprintln!("SKIPPED: {test}: {why}");
    }
    missing.is_some()
}

const CHILD: &str = "child_that_probes";
const CRAMPED_CHILD: &str = "child_that_probes_with_its_pipe_pages_used_up";
const MARK: &str = "PROBE ";

/// As many pipes of 16 pages as the default soft limit of 16,384 pages allows, and some.
const PIPES_OF_DEFAULT_LIMIT: usize = 1_040;

/// A user that nobody else on the machine is, because the pages are counted per user.
const LONELY_UID: u32 = 64_913;
