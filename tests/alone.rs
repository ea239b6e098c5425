//! What needs a process, or a network, of its own.

#[path = "support/joined.rs"]
mod joined;
#[path = "support/seccomp.rs"]
mod seccomp;
#[path = "support/sigpipe.rs"]
mod sigpipe;
mod support;

use std::io::Read;
use std::net::Shutdown;
use std::process::Command;

use joined::{Joined, Leg, Side, both_ways};
use seccomp::{alone, is_alone, stdout_of};
use support::stream::send;
use support::{Engine, Pattern, Runtime};

/// splice(2) knows no `MSG_NOSIGNAL` (rule R10).
#[test]
fn a_broken_sink_does_not_kill_a_process_that_never_ignored_sigpipe() {
    stdout_of(&mut alone("child_that_never_ignored_sigpipe"));
}

#[test]
#[ignore = "a child process of the test above"]
fn child_that_never_ignored_sigpipe() {
    if !is_alone() {
        return;
    }
    sigpipe::let_it_kill();
    for engine in [Engine::Splice, Engine::Copy, Engine::Uring] {
        let joined = Joined::over(Leg::V4, Leg::Unix, engine, Runtime::Epoll);
        joined::send_until_paused(&joined.gw, &joined.client.socket, "to_upstream", 1);
        let Joined { gw, client: _client, peer, door: _door } = joined;
        // The bytes that wait are tried once more, and this time the sink is broken.
        drop(peer);
        let line = gw.line();
        assert_eq!((line["side"].as_str(), line["close_reason"].as_str()), BROKEN, "{line}");
        gw.stop();
    }
}

const BROKEN: (Option<&str>, Option<&str>) = (Some("upstream"), Some("reset"));

/// Every segment is a buffer of its own, so a pipe is out of slots long before it is out of bytes (rule R2).
#[test]
fn segments_of_a_narrow_link_reach_a_slow_reader_exactly() {
    const NAME: &str = "segments_of_a_narrow_link_reach_a_slow_reader_exactly";
    const LINK: &str = "ip link set dev lo mtu 1500 gso_max_segs 1 && ip link set dev lo up";
    let possible = Command::new("unshare").args(["-n", "sh", "-c", LINK]).output();
    if !possible.is_ok_and(|output| output.status.success()) {
        eprintln!("SKIPPED: {NAME}: needs root for a network of its own, unshare(1) and ip(8)");
        return;
    }
    let child = alone("child_on_a_narrow_link");
    let mut command = Command::new("unshare");
    command.args(["-n", "sh", "-c", &format!("{LINK} && exec \"$0\" \"$@\"")]);
    command.arg(child.get_program()).args(child.get_args());
    command.envs(child.get_envs().filter_map(|(name, value)| Some((name, value?))));
    stdout_of(&mut command);
}

#[test]
#[ignore = "a child process of the test above"]
fn child_on_a_narrow_link() {
    const LEN: usize = 2 << 20;
    if !is_alone() {
        return;
    }
    for engine in [Engine::Splice, Engine::Copy, Engine::Uring] {
        for runtime in [Runtime::Epoll, Runtime::Uring] {
            for side in Side::BOTH {
                let joined = Joined::new(engine, runtime);
                let (mut source, mut sink) = joined.from(side);
                std::thread::scope(|scope| {
                    scope.spawn(move || {
                        send(&mut source, 1, LEN);
                        source.shutdown(Shutdown::Write).expect("it was open");
                    });
                    let mut expected = Pattern::new(1);
                    let mut piece = [0; 777];
                    let mut left = LEN;
                    while left > 0 {
                        let read = sink.read(&mut piece).expect("the bytes come");
                        assert_ne!(read, 0, "the end came early");
                        expected.check(&piece[..read]);
                        left -= read;
                    }
                });
                joined.completed(engine);
            }
            let joined = Joined::new(engine, runtime);
            both_ways(&joined.client.socket, &joined.peer.socket, LEN);
            joined.completed(engine);
        }
    }
}
