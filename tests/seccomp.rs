//! System calls refused by a sandbox: from the start, and in the middle of a session.

#[path = "support/seccomp.rs"]
mod seccomp;
mod support;

use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};

use seccomp::{Call, Errno, Refusal, alone, is_alone, stdout_of};
use serde_json::json;
use support::backend::wait;
use support::process::{command, config_to, refusal};
use support::stream::{check_to_end, send};
use support::{Backend, Client, Engine, Gw, Peer, Program, Runtime, eventually, pump};
use upsplice::sys::probe::Probe;

const LEN: usize = 4 << 20;

/// The program, confined from its first instruction.
fn confined(config: &str, calls: &[Call], errno: Errno) -> Program {
    let (mut command, folder) = command(config);
    Program::from_command(Refusal::of(calls, errno).confine(&mut command), 1, folder)
}

/// Carries a stream each way through a confined program; it must go by copy, twice.
fn expect_copy(calls: &[Call], errno: Errno, route: &str, mode_reason: &str) {
    let backend = Backend::upgrading(|peer| pump(&peer.socket, 2, 1, LEN, true));
    let mut program = confined(&config_to(backend.address, "", route), calls, errno);
    for _ in 0..2 {
        let client = Client::upgraded(program.address(), "/", "raw");
        pump(&client.socket, 1, 2, LEN, false);
        let line = program.session_line();
        let told =
            [&line["engine"], &line["mode_reason"], &line["bytes_copy"], &line["close_reason"]];
        assert_eq!(
            told,
            [&json!("copy"), &json!(mode_reason), &json!(2 * LEN), &json!("completed")],
            "{calls:?} {errno:?}: {line}"
        );
    }
    assert_eq!(
        program.counters()["bytes"]["splice"],
        json!({"to_downstream": 0, "to_upstream": 0})
    );
    program.signal("TERM");
    assert_eq!(program.exit_code(), Some(0));
    backend.join();
}

#[test]
fn a_program_without_splice_or_pipes_carries_sessions_by_copy_and_says_why() {
    for errno in Errno::ALL {
        expect_copy(&[Call::Splice], errno, "engine = \"splice\"", "splice_refused");
        expect_copy(&[Call::Pipe2], errno, "", "probed");
        let all = [Call::Splice, Call::Pipe2, Call::IoUringSetup];
        expect_copy(&all, errno, "engine = \"splice\"", "splice_refused");
    }
}

#[test]
fn a_program_without_rings_runs_on_epoll_and_splices() {
    for errno in Errno::ALL {
        let backend = Backend::upgrading(|peer| pump(&peer.socket, 2, 1, LEN, true));
        let mut program = confined(
            &config_to(backend.address, "", "engine = \"splice\""),
            &[Call::IoUringSetup],
            errno,
        );
        let client = Client::upgraded(program.address(), "/", "raw");
        pump(&client.socket, 1, 2, LEN, false);
        Engine::Splice.assert_carried(&program.session_line(), 0);
        assert!(!program.descriptors().iter().any(|name| name.contains("io_uring")));
        program.signal("TERM");
        assert_eq!(program.exit_code(), Some(0));
        backend.join();
    }
}

#[test]
fn a_program_that_must_have_what_is_refused_does_not_start_and_says_what() {
    let nowhere = "127.0.0.1:1".parse().expect("an address");
    let cases = [
        ("no_fallback = true", "engine = \"splice\"", Call::Splice, "splice"),
        ("no_fallback = true", "engine = \"splice\"", Call::Pipe2, "pipe2"),
        ("runtime = \"uring\"", "", Call::IoUringSetup, "io_uring_setup"),
    ];
    for errno in Errno::ALL {
        for (gateway, route, call, word) in cases {
            let (mut command, _folder) = command(&config_to(nowhere, gateway, route));
            let (code, said) = refusal(Refusal::of(&[call], errno).confine(&mut command));
            assert_eq!(code, Some(1), "{gateway}: {said}");
            assert!(said.contains(word) && said.contains(errno.name()), "{gateway}: {said}");
        }
    }
}

#[test]
fn a_gateway_inside_a_confined_thread_copies_while_one_beside_it_splices() {
    for runtime in [Runtime::Epoll, Runtime::Uring] {
        if runtime == Runtime::Uring && Probe::run().uring_works().is_err() {
            eprintln!("SKIPPED: the uring half of this test: this kernel gives no ring");
            continue;
        }
        let backend = Backend::upgrading(|peer| pump(&peer.socket, 2, 1, LEN, true));
        let address = backend.address;
        let start = move || {
            Refusal::of(&[Call::Splice], Errno::Eperm).confine_this_thread();
            Gw::from_toml(&config_to(
                address,
                &format!("runtime = \"{}\"", runtime.word()),
                "engine = \"splice\"",
            ))
        };
        let copying = std::thread::spawn(start).join().expect("it starts");
        let splicing = Gw::to(&backend, Engine::Splice, runtime);
        for (gw, engine) in [(&copying, Engine::Copy), (&splicing, Engine::Splice)] {
            let client = Client::upgraded(gw.address(), "/", "raw");
            pump(&client.socket, 1, 2, LEN, false);
            engine.assert_carried(&gw.line(), 0);
        }
        copying.stop();
        splicing.stop();
        backend.join();
    }
}

#[test]
fn splice_refused_in_the_middle_of_a_session_loses_nothing() {
    run_children("child_refused_in_the_middle");
}

#[test]
fn splice_refused_while_a_full_pipe_waits_for_its_sink_loses_nothing() {
    run_children("child_refused_with_bytes_in_the_pipe");
}

#[test]
fn a_session_that_may_not_fall_back_ends_when_splice_is_refused() {
    run_children("child_refused_without_fallback");
}

#[test]
fn pipes_refused_in_the_middle_of_a_session_lose_nothing() {
    run_children("child_refused_pipes");
}

/// Runs one of the tests below for every errno and runtime, each in a process of its own: a filter
/// cannot be taken off.
fn run_children(name: &str) {
    for errno in Errno::ALL {
        for runtime in ["epoll", "uring"] {
            let mut child = alone(name);
            child.env(ERRNO, errno.name()).env(RUNTIME, runtime);
            stdout_of(&mut child);
        }
    }
}

const ERRNO: &str = "UPSPLICE_TEST_ERRNO";
const RUNTIME: &str = "UPSPLICE_TEST_RUNTIME";

fn asked_errno() -> Errno {
    let asked = std::env::var(ERRNO).expect("the parent sets it");
    Errno::ALL.into_iter().find(|errno| errno.name() == asked).expect("a known errno")
}

fn asked_runtime() -> Runtime {
    match std::env::var(RUNTIME).expect("the parent sets it").as_str() {
        "uring" if Probe::run().uring_works().is_ok() => Runtime::Uring,
        _ => Runtime::Epoll,
    }
}

/// The word of the reason that an errno is counted under.
fn reason(errno: Errno) -> String {
    errno.name().to_lowercase()
}

/// A receiver that a backend's script may have.
fn shared<T>((sender, receiver): (Sender<T>, Receiver<T>)) -> (Sender<T>, Arc<Mutex<Receiver<T>>>) {
    (sender, Arc::new(Mutex::new(receiver)))
}

/// Half of each stream, then a pause in which the test confines the process, then the other half.
fn pump_in_two_parts(socket: &std::net::TcpStream, seeds: (u64, u64), pause: impl FnOnce()) {
    let (mut reader, mut writer) = (socket, socket.try_clone().expect("a descriptor"));
    let mut sent = support::Pattern::new(seeds.0);
    let mut expected = support::Pattern::new(seeds.1);
    let mut pause = Some(pause);
    for part in 0..2 {
        let bytes = sent.take(LEN / 2);
        let mut writing = writer.try_clone().expect("a descriptor");
        let sending = std::thread::spawn(move || {
            std::io::Write::write_all(&mut writing, &bytes).expect("it is read");
        });
        let mut came = vec![0; LEN / 2];
        std::io::Read::read_exact(&mut reader, &mut came).expect("the bytes come");
        expected.check(&came);
        sending.join().expect("all was sent");
        if part == 0
            && let Some(pause) = pause.take()
        {
            pause();
        }
    }
    std::io::Write::flush(&mut writer).expect("a socket");
    socket.shutdown(std::net::Shutdown::Write).expect("it was open");
    assert_eq!(check_to_end(&mut reader, 0), 0, "bytes came after the end");
}

#[test]
#[ignore = "a child process of the tests above"]
fn child_refused_in_the_middle() {
    if !is_alone() {
        return;
    }
    let (errno, runtime) = (asked_errno(), asked_runtime());
    let (go, told) = shared(channel::<()>());
    let backend = Backend::upgrading(move |peer: Peer| {
        peer.socket.peek(&mut [0]).expect("the client begins");
        pump_in_two_parts(&peer.socket, (2, 1), || wait(&told.lock().expect("one session")));
    });
    let gw = Gw::to(&backend, Engine::Splice, runtime);
    let client = Client::upgraded(gw.address(), "/", "raw");
    pump_in_two_parts(&client.socket, (1, 2), || {
        Refusal::of(&[Call::Splice], errno).confine_all_threads();
        go.send(()).expect("the backend waits");
    });
    let line = gw.line();
    assert_eq!((&line["bytes_in"], &line["bytes_out"]), (&json!(LEN), &json!(LEN)), "{line}");
    assert_eq!((&line["engine"], &line["fallback"]), (&json!("copy"), &json!([reason(errno)])));
    assert!(line["bytes_splice"].as_u64() > Some(0) && line["bytes_copy"].as_u64() > Some(0));
    assert_eq!(gw.metrics().fallbacks[&*reason(errno)], 2, "once per direction: {line}");
    assert_eq!(gw.metrics().pipes_used, 0);

    // The next session asks for splice, is refused at its first fill, and is carried all the same.
    let next = Client::upgraded(gw.address(), "/", "raw");
    go.send(()).expect("the backend waits");
    pump_in_two_parts(&next.socket, (1, 2), || {});
    let line = gw.line();
    assert_eq!((&line["bytes_copy"], &line["engine"]), (&json!(2 * LEN), &json!("copy")), "{line}");
    assert_eq!(gw.metrics().fallbacks[&*reason(errno)], 4);
    drop((client, next));
    backend.join();
    gw.stop();
}

#[test]
#[ignore = "a child process of the tests above"]
fn child_refused_with_bytes_in_the_pipe() {
    // More than the socket buffers between the two hold.
    const STALLING: usize = 32 << 20;
    if !is_alone() {
        return;
    }
    let (errno, runtime) = (asked_errno(), asked_runtime());
    let (go, told) = shared(channel::<()>());
    let backend = Backend::upgrading(move |mut peer: Peer| {
        wait(&told.lock().expect("one session"));
        assert_eq!(check_to_end(&mut peer.socket, 1), STALLING);
    });
    let gw = Gw::to(&backend, Engine::Splice, runtime);
    let client = Client::upgraded(gw.address(), "/", "raw");
    let mut writer = client.socket.try_clone().expect("a descriptor");
    let writing = std::thread::spawn(move || {
        send(&mut writer, 1, STALLING);
        writer.shutdown(std::net::Shutdown::Write).expect("it was open");
    });
    let mut last = None;
    eventually("a full pipe waits for its sink", || {
        let now = gw.gateway.sessions().pop().map(|session| session.carried[0]);
        let stuck = now == last && now.is_some_and(|now| now.taken() > now.given);
        last = now;
        stuck && gw.metrics().pipes_used == 1
    });
    Refusal::of(&[Call::Splice], errno).confine_all_threads();
    go.send(()).expect("the backend waits");
    writing.join().expect("all was sent");
    let line = gw.line();
    assert_eq!((&line["bytes_in"], &line["bytes_discarded"]), (&json!(STALLING), &json!(0)));
    assert_eq!(line["fallback"], json!([reason(errno)]), "{line}");
    assert_eq!(
        gw.metrics().fallbacks[&*reason(errno)],
        if line["engine"] == "copy" { 2 } else { 1 }
    );
    assert_eq!(gw.metrics().pipes_used, 0);
    drop(client);
    backend.join();
    gw.stop();
}

#[test]
#[ignore = "a child process of the tests above"]
fn child_refused_without_fallback() {
    if !is_alone() {
        return;
    }
    let (errno, runtime) = (asked_errno(), asked_runtime());
    let backend = Backend::echo();
    let gw = Gw::with(&backend, Engine::Splice, runtime, "no_fallback = true", "");
    let mut client = Client::upgraded(gw.address(), "/", "raw");
    client.send(b"ping");
    assert_eq!(client.receive(4), b"ping");
    Refusal::of(&[Call::Splice], errno).confine_all_threads();
    client.send(b"ping");
    let line = gw.line();
    assert_eq!(
        (&line["close_reason"], &line["side"], &line["bytes_copy"]),
        (&json!("engine_refused"), &json!("proxy"), &json!(0)),
        "{line}"
    );
    assert_eq!(line["fallback"], json!([reason(errno)]));
    assert_eq!(gw.metrics().pipes_used, 0);
    backend.join();
    gw.stop();
}

#[test]
#[ignore = "a child process of the tests above"]
fn child_refused_pipes() {
    // More than the socket buffers between the two hold.
    const STALLING: usize = 32 << 20;
    if !is_alone() {
        return;
    }
    let (errno, runtime) = (asked_errno(), asked_runtime());
    let (go, told) = shared(channel::<()>());
    let backend = Backend::upgrading(move |mut peer: Peer| {
        let mut first = [0];
        peer.socket.peek(&mut first).expect("a first byte");
        if first != *b"p" {
            wait(&told.lock().expect("one session"));
            assert_eq!(check_to_end(&mut peer.socket, 1), STALLING);
            return;
        }
        for _ in 0..10 {
            let ping = peer.receive(4);
            peer.send(ping);
        }
    });
    let gw = Gw::to(&backend, Engine::Splice, runtime);
    let ping_ten_times = || {
        let mut client = Client::upgraded(gw.address(), "/", "raw");
        for _ in 0..10 {
            client.send(b"ping");
            assert_eq!(client.receive(4), b"ping");
        }
        drop(client);
        gw.line()
    };
    Engine::Splice.assert_carried(&ping_ten_times(), 0);
    Refusal::of(&[Call::Pipe2], errno).confine_all_threads();
    let stalled = Client::upgraded(gw.address(), "/", "raw");
    // The one pipe that the worker had is taken by the first session, and stays so.
    let mut writer = stalled.socket.try_clone().expect("a descriptor");
    let writing = std::thread::spawn(move || {
        send(&mut writer, 1, STALLING);
        writer.shutdown(std::net::Shutdown::Write).expect("it was open");
    });
    eventually("the only pipe waits for its sink", || {
        gw.metrics().pipes_used == 1 && gw.metrics().paused["to_upstream"] > 0
    });
    let line = ping_ten_times();
    assert_eq!((&line["bytes_in"], &line["bytes_out"]), (&json!(40), &json!(40)), "{line}");
    assert_eq!(line["fallback"], json!([reason(errno)]), "{line}");
    assert_eq!(line["bytes_splice"], 0);
    go.send(()).expect("the backend waits");
    writing.join().expect("all was sent");
    drop(stalled);
    assert_eq!(gw.line()["bytes_in"], STALLING);
    backend.join();
    gw.stop();
}
