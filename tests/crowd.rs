//! Engine `auto` and the worker's ring: small messages that come in crowds go there, and nothing else stays.

#[path = "support/seccomp.rs"]
mod seccomp;
mod support;

use std::io::Write;
use std::net::Shutdown;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use seccomp::{Call, Errno, Refusal};
use serde_json::{Value, json};
use support::crowd::Crowd;
use support::process::{command, config_to};
use support::{BOUND, Backend, Client, Engine, Gw, Program, Runtime};
use upsplice::sys::probe::Probe;

const SESSIONS: u64 = 32;
const SMALL: usize = 100;

fn has_ring(test: &str) -> bool {
    let probe = Probe::run();
    let found = probe.ring_engine_works();
    if let Err(why) = &found {
        eprintln!("SKIPPED: {test}: this kernel gives no ring: {why}");
    }
    found.is_ok()
}

/// Plays rounds until `condition` holds.
fn until(what: &str, mut rounds: impl FnMut(), mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + BOUND;
    while !condition() {
        assert!(Instant::now() < deadline, "never came true: {what}");
        rounds();
    }
}

fn switches(gw: &Gw, engine: &str) -> u64 {
    gw.metrics().engine_switches[engine]
}

/// Until the ring has all sessions: each is two directions.
fn onto_the_ring(gw: &Gw, crowd: &mut Crowd) {
    let all = 2 * crowd.members.len() as u64;
    let is_there = || switches(gw, "uring") >= all;
    until("all sessions are on the ring", || crowd.rounds(50, SMALL), is_there);
    // The last that went there have not said anything there yet.
    crowd.rounds(50, SMALL);
}

/// Ends all sessions in good order; their lines.
fn ended(gw: &Gw, crowd: Crowd) -> Vec<Value> {
    let count = crowd.members.len();
    drop(crowd);
    (0..count).map(|_| gw.line()).collect()
}

fn number(line: &Value, name: &str) -> u64 {
    line[name].as_u64().unwrap_or_else(|| panic!("no {name}: {line}"))
}

fn expect_of_all(lines: &[Value]) {
    for line in lines {
        assert_eq!(line["close_reason"], "completed", "{line}");
        assert_eq!(line["fallback"], json!([]), "{line}");
        assert_eq!(line["mode_reason"], "adaptive", "{line}");
        assert_eq!(number(line, "bytes_discarded"), 0, "{line}");
        assert_eq!(number(line, "bytes_in"), number(line, "bytes_out"), "{line}");
    }
}

fn many_at_once_go_onto_the_ring(runtime: Runtime) {
    if !has_ring("crowd") {
        return;
    }
    let backend = Backend::echo();
    let gw = Gw::to(&backend, Engine::Auto, runtime);
    let mut crowd = Crowd::new(gw.address(), SESSIONS);
    onto_the_ring(&gw, &mut crowd);
    let lines = ended(&gw, crowd);
    expect_of_all(&lines);
    for line in &lines {
        assert!(number(line, "bytes_uring") > 0, "{line}");
        assert!(number(line, "engine_switches") >= 2, "{line}");
    }
    gw.stop();
    backend.join();
}

#[test]
fn small_messages_of_many_sessions_go_onto_the_ring() {
    many_at_once_go_onto_the_ring(Runtime::Epoll);
}

#[test]
fn they_do_so_where_the_runtime_has_a_ring_of_its_own() {
    many_at_once_go_onto_the_ring(Runtime::Uring);
}

#[test]
fn one_that_is_left_alone_is_copied_again() {
    if !has_ring("crowd") {
        return;
    }
    let backend = Backend::echo();
    let gw = Gw::to(&backend, Engine::Auto, Runtime::Epoll);
    let mut crowd = Crowd::new(gw.address(), SESSIONS);
    onto_the_ring(&gw, &mut crowd);
    let copied = switches(&gw, "copy");
    let speaker = &mut crowd.members[7];
    let speak = || (0..50).for_each(|_| speaker.round(SMALL));
    until("it is copied", speak, || switches(&gw, "copy") >= copied + 2);
    let before = gw.metrics().bytes;
    speaker.round(SMALL);
    assert_ne!(gw.metrics().bytes, before, "the counters are live");
    // Those that are silent stay where they are, and can speak there.
    onto_the_ring(&gw, &mut crowd);
    expect_of_all(&ended(&gw, crowd));
    gw.stop();
    backend.join();
}

#[test]
fn bulk_leaves_the_ring_and_is_spliced() {
    if !has_ring("crowd") {
        return;
    }
    let backend = Backend::echo();
    let gw = Gw::to(&backend, Engine::Auto, Runtime::Epoll);
    let mut crowd = Crowd::new(gw.address(), SESSIONS);
    onto_the_ring(&gw, &mut crowd);
    let spliced = switches(&gw, "splice");
    let speaker = &mut crowd.members[3];
    let speak = || (0..50).for_each(|_| speaker.round(100_000));
    until("it is spliced", speak, || switches(&gw, "splice") >= spliced + 2);
    (0..50).for_each(|_| speaker.round(100_000));
    let lines = ended(&gw, crowd);
    expect_of_all(&lines);
    let bulk = lines.iter().find(|line| number(line, "bytes_splice") > 0);
    let bulk = bulk.expect("one was spliced");
    assert!(number(bulk, "bytes_uring") > 0, "it was on the ring before: {bulk}");
    gw.stop();
    backend.join();
}

#[test]
fn nothing_is_lost_however_often_the_traffic_changes() {
    if !has_ring("crowd") {
        return;
    }
    let backend = Backend::echo();
    let gw = Gw::to(&backend, Engine::Auto, Runtime::Epoll);
    let mut crowd = Crowd::new(gw.address(), SESSIONS);
    for (turn, len) in (0_usize..).zip([40_000, 70_000, 9_000]) {
        onto_the_ring(&gw, &mut crowd);
        // A third of them at once: each leaves with bytes of its own under way.
        for _ in 0..20 {
            for member in crowd.members.iter_mut().skip(turn).step_by(3) {
                member.round(len);
            }
        }
        let before = switches(&gw, "uring");
        let are_back = || switches(&gw, "uring") > before;
        until("those that had left come back", || crowd.rounds(50, SMALL), are_back);
    }
    expect_of_all(&ended(&gw, crowd));
    gw.stop();
    backend.join();
}

#[test]
fn an_end_and_a_reset_on_the_ring_are_what_they_are_elsewhere() {
    if !has_ring("crowd") {
        return;
    }
    let backend = Backend::echo();
    let gw = Gw::to(&backend, Engine::Auto, Runtime::Epoll);
    let mut crowd = Crowd::new(gw.address(), SESSIONS);
    onto_the_ring(&gw, &mut crowd);
    crowd.members.remove(0).client.reset();
    let line = gw.line();
    assert_eq!((&line["close_reason"], &line["side"]), (&json!("reset"), &json!("downstream")));
    crowd.rounds(1, SMALL);
    expect_of_all(&ended(&gw, crowd));
    gw.stop();
    backend.join();
}

/// What the program says of a session after many rounds of a crowd.
fn after_many_rounds(program: &Program, enough: impl FnMut() -> bool) -> Value {
    let mut crowd = Crowd::new(program.address(), SESSIONS);
    until("enough", || crowd.rounds(50, SMALL), enough);
    drop(crowd);
    program.session_line()
}

#[test]
fn the_sandbox_leaves_the_rings_that_were_made_before() {
    if !has_ring("crowd") {
        return;
    }
    let backend = Backend::echo();
    let mut program = Program::start(&config_to(backend.address, "", ""));
    let on_ring = || program.counters()["engine_switches"]["uring"].as_u64() >= Some(2 * SESSIONS);
    let line = after_many_rounds(&program, on_ring);
    assert!(number(&line, "bytes_uring") > 0, "{line}");
    assert!(program.descriptors().iter().any(|name| name.contains("io_uring")));
    program.signal("TERM");
    assert_eq!(program.exit_code(), Some(0));
    backend.join();
}

#[test]
fn without_rings_a_crowd_is_copied_which_is_no_fallback() {
    let backend = Backend::echo();
    let (mut start, folder) = command(&config_to(backend.address, "", ""));
    let refused = Refusal::of(&[Call::IoUringSetup], Errno::Eperm);
    let mut program = Program::from_command(refused.confine(&mut start), 1, folder);
    let mut looks = 0;
    let line = after_many_rounds(&program, || {
        looks += 1;
        looks > 4
    });
    assert_eq!(number(&line, "bytes_uring"), 0, "{line}");
    assert_eq!((&line["engine"], &line["fallback"]), (&json!("copy"), &json!([])), "{line}");
    assert!(!program.descriptors().iter().any(|name| name.contains("io_uring")));
    program.signal("TERM");
    assert_eq!(program.exit_code(), Some(0));
    backend.join();
}

/// Ends the flood, also when the test fails.
struct Stops<'s>(&'s AtomicBool);

impl Drop for Stops<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn a_ring_that_is_never_idle_leaves_time_for_everything_else() {
    if !has_ring("crowd") {
        return;
    }
    let backend = Backend::echo();
    let timeouts = "[route.timeouts]\nidle = \"1s\"";
    let gw = Gw::with(&backend, Engine::Uring, Runtime::Epoll, "", timeouts);
    let silent = Client::upgraded(gw.address(), "/", "raw");
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..8 {
            let client = Client::upgraded(gw.address(), "/", "raw").socket;
            let (mut writer, mut reader) = (client.try_clone().expect("a descriptor"), client);
            let stop = &stop;
            scope.spawn(move || {
                // As much as goes in, so that there is always more.
                while !stop.load(Ordering::Relaxed) {
                    writer.write_all(&[7; 4096]).expect("the gateway reads");
                }
                writer.shutdown(Shutdown::Write).expect("it was open");
            });
            scope.spawn(move || {
                let read = std::io::copy(&mut reader, &mut std::io::sink());
                assert!(read.expect("the bytes come back") > 0);
            });
        }
        let _stops = Stops(&stop);
        // A timer, and newcomers: both are the reactor's.
        let line = gw.line();
        assert_eq!(line["close_reason"], "idle_timeout", "{line}");
        for _ in 0..20 {
            let mut late = Client::upgraded(gw.address(), "/", "raw");
            late.send("hello");
            assert_eq!(late.receive(5), b"hello");
        }
    });
    drop(silent);
    gw.stop();
    backend.join();
}
