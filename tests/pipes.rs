//! Pipes: taken while bytes are in them, given back, bounded, and done without (rules R12, R13, R21).

#[path = "support/joined.rs"]
mod joined;
#[path = "support/seccomp.rs"]
mod seccomp;
mod support;

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::rc::Rc;
use std::sync::Arc;

use joined::{
    Door, Joined, Leg, Side, both_ways, open, send_pieces_until_paused, send_until_paused,
};
use seccomp::{alone, alone_with_descriptors, is_alone, stdout_of};
use serde_json::Value;
use support::stream::check_to_end;
use support::{Client, Engine, Gw, Pattern, Peer, Runtime, eventually, open_descriptors};
use upsplice::metrics::{Counters, Reason};
use upsplice::relay::pool::PipeBudget;
use upsplice::relay::{Detached, Direction, Kit, Relay, Way};

#[test]
fn an_idle_session_holds_no_pipe() {
    let joined = Joined::new(Engine::Splice, Runtime::Epoll);
    let (mut client, mut peer) = joined.from(Side::Downstream);
    for _ in 0..100 {
        client.write_all(&[1; 1000]).expect("the gateway reads");
        peer.read_exact(&mut [0; 1000]).expect("the bytes come");
        eventually("the pipe is back", || joined.gw.metrics().pipes_used == 0);
    }
    // One pipe served them all, and nobody else is here to take it.
    assert_eq!(joined.gw.metrics().pipes_free, 1);
    joined.completed(Engine::Splice);
}

#[test]
fn killed_sessions_leave_no_descriptor_no_pipe_and_no_byte_behind() {
    stdout_of(&mut alone("child_kills_sessions"));
}

#[test]
#[ignore = "a child process of the test above"]
fn child_kills_sessions() {
    const SESSIONS: usize = 100;
    const FREE_PIPES_MAX: u64 = 128;
    if !is_alone() {
        return;
    }
    for runtime in [Runtime::Epoll, Runtime::Uring] {
        // Unix sockets hold little: a hundred blocked sessions cost no memory to speak of.
        let door = Door::new(Leg::Unix);
        let gw = Gw::from_toml(&door.config(Leg::Unix, Engine::Splice, runtime, ""));
        let (first_client, first_peer) = open(&gw, &door);
        drop((first_client, first_peer));
        gw.line();
        eventually("the connection is closed", || gw.metrics().connections_open == 0);
        let before = open_descriptors();
        for round in 0..3 {
            let sessions: Vec<_> = (0..SESSIONS).map(|_| open(&gw, &door)).collect();
            for (client, _) in &sessions {
                send_until_paused(&gw, &client.socket, "to_upstream", 0xBAD);
            }
            assert_eq!(gw.metrics().pipes_used, SESSIONS as u64, "each holds a pipe with bytes");
            drop(sessions);
            for _ in 0..SESSIONS {
                let line = gw.line();
                assert_ne!(line["bytes_discarded"], 0, "{line}");
            }
            eventually("all connections are closed", || gw.metrics().connections_open == 0);
            let metrics = gw.metrics();
            assert_eq!(metrics.pipes_used, 0, "round {round}");
            assert!(metrics.pipes_free <= FREE_PIPES_MAX, "{}", metrics.pipes_free);
            let kept = usize::try_from(metrics.pipes_free).expect("a small number") * 2;
            let is = open_descriptors();
            assert!(is <= before + kept, "{is} descriptors after {before}, {kept} in free pipes");
            // Whoever comes next gets no byte of the dead.
            for _ in 0..10 {
                let (client, peer) = open(&gw, &door);
                both_ways(&client.socket, &peer.socket, 200_000);
                Engine::Splice.assert_carried(&gw.line(), 0);
            }
        }
        gw.stop();
    }
}

#[test]
fn free_pipes_are_bounded_after_many_sessions_were_blocked_at_once() {
    const SESSIONS: usize = 150;
    let door = Door::new(Leg::Unix);
    let gw = Gw::from_toml(&door.config(Leg::Unix, Engine::Splice, Runtime::Epoll, ""));
    let sessions: Vec<_> = (0..SESSIONS).map(|_| open(&gw, &door)).collect();
    let sent: Vec<_> = sessions
        .iter()
        .map(|(client, _)| send_until_paused(&gw, &client.socket, "to_upstream", 1))
        .collect();
    assert_eq!(gw.metrics().pipes_used, SESSIONS as u64);
    for ((client, peer), sent) in sessions.iter().zip(sent) {
        client.shutdown_write();
        assert_eq!(check_to_end(&mut &peer.socket, 1), sent);
    }
    assert_eq!(gw.metrics().pipes_used, 0);
    let free = gw.metrics().pipes_free;
    assert!((1..=64 + 8).contains(&free), "64 narrow and 8 wide ones at most are kept, not {free}");
    gw.stop();
}

#[test]
fn a_user_whose_pipe_pages_are_used_up_is_served_by_copy() {
    const NAME: &str = "a_user_whose_pipe_pages_are_used_up_is_served_by_copy";
    let soft = fs::read_to_string("/proc/sys/fs/pipe-user-pages-soft").unwrap_or_default();
    if fs::metadata("/proc/self").map_or(1, |me| me.uid()) != 0 || soft.trim() != "16384" {
        eprintln!(
            "SKIPPED: {NAME}: needs root, to become a user of its own, and the default limit"
        );
        return;
    }
    // The user of the child may not be able to reach the build directory. The copy is made by another
    // process: a file that is open for writing in this one cannot be executed.
    let folder = tempfile::tempdir().expect("a temporary folder");
    let program = folder.path().join("pipes");
    let original = std::env::current_exe().expect("a test binary has a path");
    let copied = Command::new("cp").arg(original).arg(&program).status().expect("cp runs");
    assert!(copied.success(), "cp ended with {copied}");
    fs::set_permissions(folder.path(), PermissionsExt::from_mode(0o755)).expect("permissions");
    let mut child = alone_with_descriptors(4096, &program, "child_without_pipe_pages");
    stdout_of(child.uid(LONELY_UID).gid(LONELY_UID).env("TMPDIR", "/tmp"));
}

#[test]
#[ignore = "a child process of the test above"]
fn child_without_pipe_pages() {
    if !is_alone() {
        return;
    }
    for runtime in [Runtime::Epoll, Runtime::Uring] {
        // The gateway starts in good times, and chooses splice.
        let joined = Joined::over(Leg::Unix, Leg::Unix, Engine::Splice, runtime);
        let _blocked = use_free_pipes(&joined);
        let held: Vec<_> = (0..PIPES_OF_DEFAULT_LIMIT).map(|_| std::io::pipe()).collect();
        assert!(held.iter().all(Result::is_ok), "the descriptor limit was raised for this");
        both_ways(&joined.client.socket, &joined.peer.socket, 1 << 20);
        let metrics = joined.gw.metrics();
        assert!(metrics.pipes_degraded > 0, "no small pipe was seen");
        assert_eq!(metrics.fallbacks["small_pipe"], 2, "counted once per direction");
        let line = copied_for(joined, "small_pipe");
        assert_eq!(line["bytes_splice"], 2, "only the two of the beginning: {line}");
        drop(held);
    }
}

#[test]
fn a_gateway_without_free_descriptors_is_served_by_copy_until_some_come_back() {
    let program = std::env::current_exe().expect("a test binary has a path");
    stdout_of(&mut alone_with_descriptors(256, &program, "child_without_descriptors"));
}

#[test]
#[ignore = "a child process of the test above"]
fn child_without_descriptors() {
    if !is_alone() {
        return;
    }
    for runtime in [Runtime::Epoll, Runtime::Uring] {
        let joined = Joined::over(Leg::Unix, Leg::Unix, Engine::Splice, runtime);
        let blocked = use_free_pipes(&joined);
        let (mut client, mut peer) = joined.from(Side::Downstream);
        let mut held = Vec::new();
        while let Ok(file) = fs::File::open("/dev/null") {
            held.push(file);
        }
        let mut exchange = |rounds: usize| {
            for _ in 0..rounds {
                client.write_all(&[1; 1000]).expect("the gateway reads");
                peer.read_exact(&mut [0; 1000]).expect("the bytes come");
            }
        };
        exchange(10);
        let spliced = || joined.gw.metrics().bytes["splice"]["to_upstream"];
        let spliced_before = spliced();
        exchange(10);
        assert_eq!(joined.gw.metrics().fallbacks["emfile"], 1, "counted once per direction");
        assert_eq!(spliced(), spliced_before);
        // A shortage is not asked about at each message, but it is not for ever either.
        drop(held);
        exchange(1200);
        assert!(spliced() > spliced_before, "splice never came back");
        copied_for(joined, "emfile");
        drop(blocked);
    }
}

#[test]
fn a_relay_whose_budget_of_pipes_is_used_up_copies_and_says_why() {
    let (mut client, downstream) = pair();
    let (mut peer, upstream) = pair();
    let counters = Arc::new(Counters::default());
    let kit = Kit::new(PipeBudget::new(0), Arc::clone(&counters), false).expect("a descriptor");
    let kit = Rc::new(kit);
    let sending = std::thread::spawn(move || {
        client.write_all(&Pattern::new(1).take(100_000)).expect("the relay reads");
        client.shutdown(std::net::Shutdown::Write).expect("it was open");
        assert_eq!(client.read(&mut [0]).expect("the end comes"), 0);
    });
    let reading = std::thread::spawn(move || assert_eq!(check_to_end(&mut peer, 1), 100_000));
    let detached = Detached::joined(downstream, upstream, [splice_way(), splice_way()]);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("a runtime").block_on(async move {
        let mut relay = Relay::resume(detached, kit).expect("it registers");
        let end = std::future::poll_fn(|cx| relay.poll(cx)).await;
        let carried = relay.live().carried(Direction::ToUpstream);
        assert_eq!((carried.copied, carried.spliced), (100_000, 0));
        assert_eq!(carried.reasons.iter().collect::<Vec<_>>(), [Reason::PipeBudget]);
        assert!(relay.close(&end).is_none(), "an orderly end waits for nothing");
    });
    sending.join().expect("all was sent");
    reading.join().expect("all came");
    assert_eq!(counters.pipes_used.get(), 0);
}

/// Sends one byte each way, then blocks other sessions on all pipes that there are.
fn use_free_pipes(joined: &Joined) -> Vec<(Client, Peer)> {
    let (mut client, mut peer) = joined.from(Side::Downstream);
    client.write_all(&[1]).expect("the gateway reads");
    peer.read_exact(&mut [0]).expect("the byte comes");
    peer.write_all(&[1]).expect("the gateway reads");
    client.read_exact(&mut [0]).expect("the byte comes");
    eventually("the pipe is back", || {
        let metrics = joined.gw.metrics();
        metrics.pipes_used == 0 && metrics.pipes_free > 0
    });
    // Small writes fill the slots of a pipe before its bytes, so that no wide one is asked for.
    let mut blocked = Vec::new();
    while joined.gw.metrics().pipes_free > 0 {
        assert!(blocked.len() < 10, "free pipes are not taken");
        let (client, peer) = joined.another();
        send_pieces_until_paused(&joined.gw, &client.socket, "to_upstream", 1, 2048);
        blocked.push((client, peer));
    }
    blocked
}

/// The session ends in order, and its line names `reason` for what was copied.
fn copied_for(joined: Joined, reason: &str) -> Value {
    for side in Side::BOTH {
        // A side that has ended already cannot be ended again.
        let _ = joined.from(side).0.shutdown(std::net::Shutdown::Write);
    }
    let line = joined.gw.line();
    joined.gw.stop();
    assert_eq!(line["close_reason"], "completed", "{line}");
    assert_eq!(line["fallback"], serde_json::json!([reason]), "{line}");
    assert_ne!(line["bytes_copy"], 0, "{line}");
    line
}

fn splice_way() -> Way {
    Way::new(upsplice::relay::Engine::Splice, Vec::new(), 0)
}

/// One end for the test, one for the relay.
fn pair() -> (TcpStream, OwnedFd) {
    let (ours, its) = UnixStream::pair().expect("a pair");
    its.set_nonblocking(true).expect("an option");
    (TcpStream::from(OwnedFd::from(ours)), its.into())
}

/// As many pipes of 16 pages as the default soft limit of 16,384 pages allows, and some.
const PIPES_OF_DEFAULT_LIMIT: usize = 1_040;

/// A user that nobody else on the machine is, because the pages are counted per user.
const LONELY_UID: u32 = 64_914;
