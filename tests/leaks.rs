//! Nothing is left behind: descriptors, pipes, threads.

#[path = "support/seccomp.rs"]
mod seccomp;
mod support;

use std::net::TcpStream;
use std::process::Command;

use seccomp::{alone, is_alone, stdout_of};
use serde_json::Value;
use support::client::upgrade_head;
use support::process::config_to;
use support::{Backend, Client, Engine, Gw, Peer, Program, Runtime, eventually};

const SESSIONS: usize = 5_000;

/// A backend in one thread, which serves one connection after the other: five thousand threads would
/// measure themselves.
fn serial_backend() -> (std::net::SocketAddr, std::thread::JoinHandle<()>) {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("bound");
    let serving = std::thread::spawn(move || {
        for socket in listener.incoming() {
            let socket = socket.expect("a connection");
            support::client::bound(&socket);
            let mut peer = Peer { socket, rest: Vec::new() };
            let Some(head) = peer.try_read_head() else { return };
            // The path says how this session ends.
            let path = head.split(' ').nth(1).unwrap_or_default().to_owned();
            match path.as_str() {
                "/answer" => peer.send("HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"),
                "/cut" => {}
                "/reset" => {
                    peer.grant(&head, "");
                    let ping = peer.receive(4);
                    peer.send(ping);
                    peer.reset();
                }
                "/half" => {
                    peer.grant(&head, "glued");
                    peer.shutdown_write();
                    let _ = peer.receive_to_end();
                }
                _ => {
                    peer.grant(&head, "");
                    let ping = peer.receive(4);
                    peer.send(ping);
                    let _ = peer.receive_to_end();
                }
            }
        }
    });
    (address, serving)
}

/// One session of each kind in turn.
fn run_session(address: std::net::SocketAddr, at: usize) {
    let mut client = Client::connect(address);
    let ask = |client: &mut Client, path: &str| client.ask(upgrade_head(path, "raw", "")).status;
    let ping = |client: &mut Client| {
        client.send(b"ping");
        assert_eq!(client.receive(4), b"ping");
    };
    match at % 8 {
        0 | 1 => {
            assert_eq!(ask(&mut client, "/"), 101);
            ping(&mut client);
        }
        2 => {
            assert_eq!(ask(&mut client, "/"), 101);
            ping(&mut client);
            client.reset();
        }
        3 => {
            assert_eq!(ask(&mut client, "/reset"), 101);
            ping(&mut client);
            // A reset, unless it overtakes nothing.
            let _ = client.receive_to_end();
        }
        4 => {
            assert_eq!(ask(&mut client, "/half"), 101);
            client.shutdown_write();
        }
        5 => assert_eq!(ask(&mut client, "/answer"), 404),
        6 => assert_eq!(client.ask("GET / HTTP/1.1\r\nBroken\r\n\r\n").status, 400),
        _ => assert_eq!(ask(&mut client, "/cut"), 502),
    }
}

/// What the worker keeps of pipes for later is no leak: it is bounded, and in the counters.
fn holdings(program: &Program) -> (usize, usize) {
    let names = program.descriptors();
    let pooled = program.counters()["pipes_free"].as_u64().expect("a number");
    (names.len() - 2 * usize::try_from(pooled).expect("few"), program.threads())
}

fn after_five_thousand_sessions_nothing_is_left(engine: Engine, runtime: Runtime) {
    let (backend, serving) = serial_backend();
    let gateway = format!("runtime = \"{}\"\n", runtime.word());
    let config = config_to(backend, &gateway, &format!("engine = \"{}\"", engine.word()));
    let mut program = Program::start(&config);
    for at in 0..16 {
        run_session(program.address(), at);
    }
    let all_closed = |program: &Program| {
        let counters = program.counters();
        counters["connections_open"] == 0 && counters["sessions_open"] == 0
    };
    eventually("the first sessions are over", || all_closed(&program));
    let before = holdings(&program);
    for at in 0..SESSIONS {
        run_session(program.address(), at);
    }
    eventually("all sessions are over", || all_closed(&program));
    let counters = program.counters();
    assert_eq!(counters["accepted"], SESSIONS + 16);
    assert_eq!(counters["pipes_used"], 0, "{counters}");
    assert_eq!(holdings(&program), before, "{:?}", program.descriptors());
    program.signal("TERM");
    assert_eq!(program.exit_code(), Some(0));
    let lines = program.lines_to_end();
    assert_eq!(lines.len(), SESSIONS + 16);
    drop(TcpStream::connect(backend));
    serving.join().expect("the backend's script held");
}

contract!(after_five_thousand_sessions_nothing_is_left);

#[test]
fn a_gateway_that_has_stopped_leaves_nothing_in_its_process() {
    for runtime in ["epoll", "uring"] {
        stdout_of(alone("child_that_starts_and_stops").env(RUNTIME, runtime));
    }
}

const RUNTIME: &str = "UPSPLICE_TEST_RUNTIME";

#[test]
#[ignore = "a child process of the test above: others change the counts"]
fn child_that_starts_and_stops() {
    if !is_alone() {
        return;
    }
    let uring = std::env::var(RUNTIME).is_ok_and(|word| word == "uring");
    let runtime = if uring { Runtime::Uring } else { Runtime::Epoll };
    let backend = Backend::echo();
    let once = || {
        let gw = Gw::with(&backend, Engine::Splice, runtime, "workers = 3", "");
        let mut client = Client::upgraded(gw.address(), "/", "raw");
        client.send(b"ping");
        assert_eq!(client.receive(4), b"ping");
        gw.stop();
        assert!(client.receive_to_end().is_ok_and(|rest| rest.is_empty()));
    };
    once();
    let settled = |wanted: (usize, usize)| {
        eventually("descriptors and threads are as before", || {
            (support::open_descriptors(), support::threads()) == wanted
        });
    };
    // The backend's script for the first session may still be about to end.
    let mut before = (0, 0);
    let mut same = 0;
    eventually("the first round has settled", || {
        let now = (support::open_descriptors(), support::threads());
        same = if now == before { same + 1 } else { 0 };
        before = now;
        same > 20
    });
    for _ in 0..5 {
        once();
        settled(before);
    }
    backend.join();
}

#[test]
fn no_descriptor_of_a_gateway_is_inherited_by_a_program_that_its_process_starts() {
    for runtime in ["epoll", "uring"] {
        stdout_of(alone("child_that_starts_a_program").env(RUNTIME, runtime));
    }
}

#[test]
#[ignore = "a child process of the test above: others open descriptors of their own"]
fn child_that_starts_a_program() {
    if !is_alone() {
        return;
    }
    let uring = std::env::var(RUNTIME).is_ok_and(|word| word == "uring");
    let runtime = if uring { Runtime::Uring } else { Runtime::Epoll };
    let inherited = || {
        let listing = Command::new("ls").args(["-l", "/proc/self/fd"]).output().expect("ls runs");
        let text = String::from_utf8(listing.stdout).expect("text");
        text.lines().filter(|line| line.contains("->")).count()
    };
    let before = inherited();
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("s.sock");
    let backend = Backend::echo();
    let runtime = format!("runtime = \"{}\"\n", runtime.word());
    let config = config_to(backend.address, &runtime, "engine = \"splice\"")
        + &format!("[[listener]]\naddress = \"unix:{}\"\n", path.display());
    let gw = Gw::from_toml(&config);
    let mut client = Client::upgraded(gw.address(), "/", "raw");
    client.send(b"ping");
    assert_eq!(client.receive(4), b"ping");
    eventually("a pipe is among what is looked at", || gw.metrics().pipes_free > 0);
    assert_eq!(inherited(), before);
    drop(client);
    let line: Value = gw.line();
    assert_eq!(line["close_reason"], "completed");
    gw.stop();
    backend.join();
}
