//! Listeners and upstreams of every kind, and what happens when descriptors run out.

#[path = "support/seccomp.rs"]
mod seccomp;
mod support;

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::{Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::Command;

use seccomp::{alone_with_descriptors, is_alone, stdout_of};
use serde_json::json;
use support::client::upgrade_head;
use support::process::config_to;
use support::{Backend, Client, Engine, Gw, Program, Runtime, eventually};

/// Grants one upgrade and echoes, over any stream.
fn serve_one(mut stream: impl Read + Write) {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte).expect("a head comes");
        head.push(byte[0]);
    }
    stream
        .write_all(
            b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: raw\r\n\r\n",
        )
        .expect("the gateway reads");
    let mut chunk = [0; 4096];
    while let Ok(n @ 1..) = stream.read(&mut chunk) {
        stream.write_all(&chunk[..n]).expect("the gateway reads");
    }
}

/// Upgrades and plays ping and pong over any stream.
fn expect_echo(mut stream: impl Read + Write) {
    stream.write_all(upgrade_head("/", "raw", "").as_bytes()).expect("it is read");
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte).expect("a head comes");
        head.push(byte[0]);
    }
    assert!(head.starts_with(b"HTTP/1.1 101 "), "{}", String::from_utf8_lossy(&head));
    stream.write_all(b"ping").expect("it is read");
    let mut pong = [0; 4];
    stream.read_exact(&mut pong).expect("it comes back");
    assert_eq!(&pong, b"ping");
}

fn has_ipv6(test: &str) -> bool {
    let has = TcpListener::bind((Ipv6Addr::LOCALHOST, 0)).is_ok();
    if !has {
        eprintln!("SKIPPED: {test}: this machine has no IPv6");
    }
    has
}

contract!(every_kind_of_listener_reaches_every_kind_of_upstream);

fn every_kind_of_listener_reaches_every_kind_of_upstream(engine: Engine, runtime: Runtime) {
    let ipv6 = has_ipv6("the IPv6 part of every_kind_of_listener_reaches_every_kind_of_upstream");
    let folder = tempfile::tempdir().expect("a folder");
    let (front, back) = (folder.path().join("front.sock"), folder.path().join("back.sock"));
    let v4 = TcpListener::bind("127.0.0.1:0").expect("a port");
    let v6 = TcpListener::bind(if ipv6 { "[::1]:0" } else { "127.0.0.1:0" }).expect("a port");
    let unix = UnixListener::bind(&back).expect("a path");
    let upstreams = [
        v4.local_addr().expect("bound").to_string(),
        v6.local_addr().expect("bound").to_string(),
        format!("unix:{}", back.display()),
    ];
    let serving = [
        std::thread::spawn(move || (0..3).for_each(|_| serve_one(v4.accept().expect("one").0))),
        std::thread::spawn(move || (0..3).for_each(|_| serve_one(v6.accept().expect("one").0))),
        std::thread::spawn(move || (0..3).for_each(|_| serve_one(unix.accept().expect("one").0))),
    ];
    for upstream in &upstreams {
        let second = if ipv6 { "[::1]:0" } else { "127.0.0.1:0" };
        let gw = Gw::from_toml(&format!(
            "[gateway]\nworkers = 2\nruntime = \"{}\"\n\
             [[listener]]\naddress = \"127.0.0.1:0\"\n[[listener]]\naddress = \"{second}\"\n\
             [[listener]]\naddress = \"unix:{}\"\n\
             [[route]]\nname = \"test\"\nprotocols = [\"raw\"]\nengine = \"{}\"\nto = [\"{upstream}\"]\n",
            runtime.word(),
            front.display(),
            engine.word(),
        ));
        let ports = gw.gateway.addresses();
        assert_eq!(ports.len(), 3);
        let tcp = |at: usize| ports[at].to_string().parse::<SocketAddr>().expect("an address");
        let connect = |address| {
            let socket = TcpStream::connect(address).expect("it listens");
            support::client::bound(&socket);
            socket
        };
        expect_echo(connect(tcp(0)));
        let mut lines = vec![gw.line()];
        expect_echo(connect(tcp(1)));
        lines.push(gw.line());
        expect_echo(UnixStream::connect(&front).expect("it listens"));
        lines.push(gw.line());
        for (at, line) in lines.iter().enumerate() {
            engine.assert_carried(line, 0);
            assert_eq!((&line["listener"], &line["backend"]), (&json!(at), &json!(upstream)));
            // A Unix peer has no address.
            assert_eq!(line["client_addr"].is_string(), at < 2, "{line}");
        }
        gw.stop();
    }
    for thread in serving {
        thread.join().expect("the backend's script held");
    }
}

#[test]
fn connections_to_one_port_are_spread_over_all_workers() {
    let backend = Backend::echo();
    let gw = Gw::with(&backend, Engine::Splice, Runtime::Epoll, "workers = 4\nbalance = false", "");
    let mut clients = Vec::new();
    // By a hash of the connection: with 64 of them, the chance that one of four gets none is 4e-8.
    for _ in 0..64 {
        clients.push(Client::upgraded(gw.address(), "/", "raw"));
    }
    let sessions = gw.gateway.sessions();
    assert_eq!(sessions.len(), 64);
    let workers: BTreeSet<usize> = sessions.iter().map(|session| session.worker).collect();
    assert_eq!(workers, BTreeSet::from([0, 1, 2, 3]));
    drop(clients);
    backend.join();
    gw.stop();
}

#[test]
fn connections_to_one_socket_file_are_taken_by_any_worker() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("front.sock");
    let backend = Backend::echo();
    let gw = Gw::from_toml(
        &config_to(backend.address, "workers = 4", "")
            .replace("127.0.0.1:0", &format!("unix:{}", path.display())),
    );
    let mut threads = Vec::new();
    for _ in 0..32 {
        let stream = UnixStream::connect(&path).expect("it listens");
        threads.push(std::thread::spawn(move || expect_echo(stream)));
    }
    for thread in threads {
        thread.join().expect("every connection is served");
    }
    eventually("all are over", || gw.metrics().connections_open == 0);
    assert_eq!(gw.metrics().accepted, 32);
    backend.join();
    gw.stop();
}

#[test]
fn a_socket_file_left_by_a_killed_process_is_replaced_and_one_in_use_is_not() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("front.sock");
    // Dropping the listener leaves the file, as a kill does.
    drop(UnixListener::bind(&path).expect("a path"));
    // A test beside this one that starts a program holds a copy of the listener until its exec(2).
    eventually("nobody listens any more", || UnixStream::connect(&path).is_err());
    let backend = Backend::echo();
    let text = config_to(backend.address, "", "")
        .replace("127.0.0.1:0", &format!("unix:{}", path.display()));
    let gw = Gw::from_toml(&text);
    expect_echo(UnixStream::connect(&path).expect("it listens"));
    let (code, said) = support::process::refusal(&mut support::process::command(&text).0);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains(&*path.to_string_lossy()), "{said}");
    expect_echo(UnixStream::connect(&path).expect("the failed start left it alone"));
    gw.stop();
    backend.join();
}

/// Processor time that a process has used, in clock ticks (proc(5), fields 14 and 15).
fn ticks(pid: u32) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).expect("it runs");
    let after_name = stat.rsplit(')').next().expect("a name in parentheses");
    let field =
        |at: usize| after_name.split_whitespace().nth(at - 3).and_then(|f| f.parse::<u64>().ok());
    field(14).expect("a number") + field(15).expect("a number")
}

#[test]
fn a_program_out_of_descriptors_backs_off_goes_on_and_does_not_spin() {
    let backend = Backend::echo();
    // Without a reserve nothing pauses before.
    let limits = "[gateway.limits]\ndescriptors_reserved = 0";
    let (program, folder) = support::process::command(&config_to(backend.address, limits, ""));
    // The shell lowers both limits, so the program cannot raise its own.
    let mut shell = Command::new("sh");
    shell.arg("-c").arg("ulimit -n 40 && exec \"$0\" \"$@\"").arg(program.get_program());
    shell.args(program.get_args());
    let mut program = Program::from_command(&mut shell, 1, folder);
    // Idle connections take one descriptor each.
    let idle: Vec<Client> = (0..60).map(|_| Client::connect(program.address())).collect();
    eventually("accept has backed off", || {
        program.counters()["accept_backoffs"].as_u64() > Some(2)
    });
    let (cpu, since) = (ticks(program.id()), std::time::Instant::now());
    let backoffs = program.counters()["accept_backoffs"].as_u64().expect("a number");
    eventually("it waits longer and longer", || {
        program.counters()["accept_backoffs"].as_u64().expect("a number") >= backoffs + 3
    });
    // A spinning accept loop uses all of the time; the questions of this test are part of what is measured.
    let used = ticks(program.id()) - cpu;
    let passed = since.elapsed().as_millis() as u64 / 10;
    assert!(used <= passed / 2 + 5, "{used} of {passed} ticks");
    drop(idle);
    let mut client = Client::upgraded(program.address(), "/", "raw");
    client.send(b"ping");
    assert_eq!(client.receive(4), b"ping");
    drop(client);
    program.signal("TERM");
    assert_eq!(program.exit_code(), Some(0));
    backend.join();
}

#[test]
fn a_session_for_which_no_pipe_is_left_is_carried_by_copy_and_survives() {
    // Enough for the gateway, one session and the test's own sockets, and for no pipe more.
    let program = std::env::current_exe().expect("a test binary has a path");
    stdout_of(&mut alone_with_descriptors(64, &program, "child_without_descriptors"));
}

#[test]
#[ignore = "a child process of the test above"]
fn child_without_descriptors() {
    if !is_alone() {
        return;
    }
    let backend = Backend::echo();
    let gw = Gw::to(&backend, Engine::Splice, Runtime::Epoll);
    let mut first = Client::connect(gw.address());
    eventually("the connection is accepted", || gw.metrics().accepted == 1);
    // Everything that is left, but for two: the connect, and the backend's next accept, which takes its
    // descriptor before it waits. A pipe needs two at once.
    let mut taken = Vec::new();
    while let Ok(file) = std::fs::File::open(Path::new("/dev/null")) {
        taken.push(file);
    }
    taken.truncate(taken.len().saturating_sub(2));
    assert_eq!(first.ask(upgrade_head("/", "raw", "")).status, 101);
    for _ in 0..10 {
        first.send(b"ping");
        assert_eq!(first.receive(4), b"ping");
    }
    drop(taken);
    drop(first);
    let line = gw.line();
    assert_eq!((&line["bytes_in"], &line["bytes_out"]), (&json!(40), &json!(40)), "{line}");
    assert_eq!(line["fallback"], json!(["emfile"]), "{line}");
    assert!(gw.metrics().fallbacks["emfile"] > 0);
    backend.join();
    gw.stop();
}
