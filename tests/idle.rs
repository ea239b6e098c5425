//! Sessions in which nothing moves cost nothing: no wakeup, no CPU time (rules R3, R7, R18, R19).
//!
//! What is looked at is the one worker thread of a process, so each test is a process of its own: the test
//! binary starts itself again with one of the ignored tests.

#[path = "support/joined.rs"]
mod joined;
#[path = "support/seccomp.rs"]
mod seccomp;
mod support;

use std::fs;
use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::thread;

use joined::{Joined, Leg, Side, send_until_paused};
use seccomp::{alone, is_alone, stdout_of};
use socket2::SockRef;
use support::stream::check_to_end;
use support::{Engine, Runtime};

/// Declares each test along with the process it runs in: `test in child`.
macro_rules! idle {
    ($($test:ident in $child:ident),+ $(,)?) => {$(
        #[test]
        fn $test() {
            stdout_of(&mut alone(stringify!($child)));
        }

        #[test]
        #[ignore = "a child process of the test of the same name"]
        fn $child() {
            if is_alone() {
                on_every_engine(situation::$test);
            }
        }
    )+};
}

idle!(
    an_open_session_does_not_wake_the_worker in child_open,
    a_half_closed_session_does_not_wake_the_worker in child_half_closed,
    a_blocked_session_does_not_wake_the_worker in child_blocked,
    a_session_blocked_both_ways_does_not_wake_the_worker in child_blocked_both_ways,
    an_urgent_byte_that_came_last_does_not_wake_the_worker in child_urgent,
    an_end_behind_a_blocked_sink_does_not_wake_the_worker in child_end_behind_block,
    a_unix_peer_gone_behind_a_blocked_sink_does_not_wake_the_worker in child_unix_gone,
);

mod situation {
    use super::*;

    pub fn an_open_session_does_not_wake_the_worker(engine: Engine, runtime: Runtime) {
        let joined = Joined::new(engine, runtime);
        echo_once(&joined);
        expect_idle();
        echo_once(&joined);
        joined.completed(engine);
    }

    pub fn a_half_closed_session_does_not_wake_the_worker(engine: Engine, runtime: Runtime) {
        for side in Side::BOTH {
            let joined = Joined::new(engine, runtime);
            echo_once(&joined);
            let (ending, mut told) = joined.from(side);
            ending.shutdown(Shutdown::Write).expect("it was open");
            assert_eq!(told.read(&mut [0]).expect("the end comes"), 0);
            expect_idle();
            joined.completed(engine);
        }
    }

    pub fn a_blocked_session_does_not_wake_the_worker(engine: Engine, runtime: Runtime) {
        for side in Side::BOTH {
            let joined = Joined::new(engine, runtime);
            let (source, mut sink) = joined.from(side);
            let sent = send_until_paused(&joined.gw, source, side.direction(), 1);
            expect_idle();
            source.shutdown(Shutdown::Write).expect("it was open");
            assert_eq!(check_to_end(&mut sink, 1), sent);
            joined.completed(engine);
        }
    }

    pub fn a_session_blocked_both_ways_does_not_wake_the_worker(engine: Engine, runtime: Runtime) {
        let joined = Joined::new(engine, runtime);
        let sent = Side::BOTH.map(|side| {
            send_until_paused(&joined.gw, joined.from(side).0, side.direction(), side as u64)
        });
        expect_idle();
        for side in Side::BOTH {
            let (source, mut sink) = joined.from(side);
            source.shutdown(Shutdown::Write).expect("it was open");
            assert_eq!(check_to_end(&mut sink, side as u64), sent[side as usize]);
        }
        joined.completed(engine);
    }

    pub fn an_urgent_byte_that_came_last_does_not_wake_the_worker(
        engine: Engine,
        runtime: Runtime,
    ) {
        for side in Side::BOTH {
            let joined = Joined::new(engine, runtime);
            let (mut source, mut sink) = joined.from(side);
            source.write_all(b"AB").expect("the gateway reads");
            SockRef::from(source).send_out_of_band(b"!").expect("there is room");
            sink.read_exact(&mut [0; 2]).expect("the bytes come");
            expect_idle();
            source.write_all(b"CD").expect("the gateway reads");
            sink.read_exact(&mut [0; 2]).expect("the bytes come");
            expect_idle();
            assert_eq!(joined.ended()["close_reason"], "completed");
        }
    }

    pub fn an_end_behind_a_blocked_sink_does_not_wake_the_worker(engine: Engine, runtime: Runtime) {
        for side in Side::BOTH {
            let joined = Joined::new(engine, runtime);
            let (source, mut sink) = joined.from(side);
            let sent = send_until_paused(&joined.gw, source, side.direction(), 1);
            source.shutdown(Shutdown::Write).expect("it was open");
            expect_idle();
            assert_eq!(check_to_end(&mut sink, 1), sent);
            joined.completed(engine);
        }
    }

    pub fn a_unix_peer_gone_behind_a_blocked_sink_does_not_wake_the_worker(
        engine: Engine,
        runtime: Runtime,
    ) {
        let joined = Joined::over(Leg::V4, Leg::Unix, engine, runtime);
        send_until_paused(&joined.gw, &joined.peer.socket, "to_downstream", 1);
        let Joined { gw, client, peer, door: _door } = joined;
        drop(peer);
        expect_idle();
        // And a reset from the other side is still noticed.
        client.reset();
        assert_eq!(gw.line()["side"], "downstream");
        gw.stop();
    }
}

fn on_every_engine(situation: fn(Engine, Runtime)) {
    for engine in [Engine::Splice, Engine::Copy, Engine::Uring] {
        for runtime in [Runtime::Epoll, Runtime::Uring] {
            situation(engine, runtime);
        }
    }
}

fn echo_once(joined: &Joined) {
    let (mut client, mut peer) = joined.from(Side::Downstream);
    let mut bytes = [0; 100];
    client.write_all(&bytes).expect("the gateway reads");
    peer.read_exact(&mut bytes).expect("the bytes come");
    peer.write_all(&bytes).expect("the gateway reads");
    client.read_exact(&mut bytes).expect("the bytes come");
}

/// The worker comes to rest, and stays at rest while two other threads talk for a while: how long is counted
/// in their messages, not in time. The kernel may still move a few bytes into a full receive buffer at first,
/// so there are some tries; a worker that spins, or is woken again and again, passes none.
fn expect_idle() {
    const TRIES: usize = 20;
    let mut seen = Vec::new();
    for _ in 0..TRIES {
        let start = Usage::of_worker();
        yardstick();
        let end = Usage::of_worker();
        let (wakeups, ran) = (end.switches - start.switches, end.ran_nanos - start.ran_nanos);
        // A timer may fire once in a while.
        if wakeups <= 3 && ran <= 10_000_000 {
            return;
        }
        seen.push((wakeups, ran));
    }
    panic!("wakeups, and nanoseconds that the worker ran, while nothing moved: {seen:?}");
}

/// 20,000 messages to and fro.
fn yardstick() {
    let (mut one, mut other) = UnixStream::pair().expect("a pair");
    let answering = thread::spawn(move || {
        let mut byte = [0];
        while other.read_exact(&mut byte).is_ok() {
            other.write_all(&byte).expect("the other side reads");
        }
    });
    for _ in 0..20_000 {
        one.write_all(&[1]).expect("the other side reads");
        one.read_exact(&mut [0]).expect("an answer");
    }
    drop(one);
    answering.join().expect("it ends");
}

/// What the worker thread has used since it began.
#[derive(Debug)]
struct Usage {
    switches: u64,
    ran_nanos: u64,
}

impl Usage {
    fn of_worker() -> Usage {
        let tasks = fs::read_dir("/proc/self/task").expect("proc is mounted");
        let worker = tasks
            .filter_map(|task| Some(task.ok()?.path()))
            .find(|task| {
                fs::read_to_string(task.join("comm")).is_ok_and(|name| name.trim() == "worker-0")
            })
            .expect("there is a worker");
        let read = |name| fs::read_to_string(worker.join(name)).expect("the worker lives");
        let first = |text: &str| text.split_whitespace().next().and_then(|n| n.parse().ok());
        let status = read("status");
        let switches = status
            .lines()
            .filter_map(|line| line.split_once("ctxt_switches:"))
            .filter_map(|(_, count)| first(count))
            .sum();
        Usage { switches, ran_nanos: first(&read("schedstat")).expect("a number") }
    }
}
