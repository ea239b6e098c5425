//! Stop: what signals do to the program, its listeners and its sessions.

mod support;

use std::io::Read;
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex};
use std::thread;

use support::client::upgrade_head;
use support::process::config_to;
use support::{Backend, Client, Engine, Gw, Peer, Program, Runtime, eventually};

/// Whether a connection to the program is refused: nobody listens any more.
fn refuses(program: &Program) -> bool {
    TcpStream::connect(program.address()).is_err()
}

#[test]
fn sigterm_refuses_new_connections_lets_sessions_go_on_and_ends_with_the_last() {
    for signal in ["TERM", "INT"] {
        let backend = Backend::echo();
        let mut program = Program::start(&config_to(backend.address, "", ""));
        let mut client = Client::upgraded(program.address(), "/", "raw");
        program.signal(signal);
        eventually("new connections are refused", || refuses(&program));
        client.send(b"still here");
        assert_eq!(client.receive(10), b"still here");
        assert!(program.is_running());
        drop(client);
        assert_eq!(program.session_line()["close_reason"], "completed");
        assert_eq!(program.exit_code(), Some(0), "after SIG{signal}");
        backend.join();
    }
}

#[test]
fn a_signal_kills_nothing_from_the_moment_on_that_somebody_can_connect() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("listener");
    let text = format!(
        "[[listener]]\naddress = \"unix:{}\"\n[[route]]\nname = \"test\"\nto = [\"127.0.0.1:9\"]\n",
        path.display()
    );
    let (mut command, kept) = support::process::command(&text);
    // Nothing is waited for but the first connection: most of the start is still ahead then.
    let mut program = Program::from_command(&mut command, 0, kept);
    let mut connected = UnixStream::connect(&path);
    while connected.is_err() {
        assert!(program.is_running());
        connected = UnixStream::connect(&path);
    }
    assert_eq!(program.counters()["sessions_open"], 0);
}

#[test]
fn a_program_without_connections_ends_at_once_on_sigterm() {
    let backend = Backend::echo();
    let mut program = Program::start(&config_to(backend.address, "drain = \"1h\"", ""));
    program.signal("TERM");
    assert_eq!(program.exit_code(), Some(0));
    backend.join();
}

#[test]
fn the_drain_deadline_closes_what_is_left() {
    let backend = Backend::echo();
    let mut program = Program::start(&config_to(backend.address, "drain = \"200ms\"", ""));
    let mut client = Client::upgraded(program.address(), "/", "raw");
    program.signal("TERM");
    assert_eq!(client.socket.read(&mut [0; 8]).expect("an end, not a reset"), 0);
    let line = program.session_line();
    assert_eq!((&line["close_reason"], &line["side"]), (&"stopped".into(), &"proxy".into()));
    assert_eq!(program.exit_code(), Some(0));
    backend.join();
}

#[test]
fn a_second_signal_ends_five_hundred_sessions_at_once() {
    const SESSIONS: usize = 500;
    // The backend holds its sockets instead of serving each in a thread.
    let held: Arc<Mutex<Vec<Peer>>> = Arc::default();
    let keep = Arc::clone(&held);
    let backend =
        Backend::upgrading(move |peer| keep.lock().expect("no panic with the lock").push(peer));
    let config = config_to(backend.address, "workers = 2\ndrain = \"1h\"", "");
    let mut program = Program::start(&config);
    let clients: Vec<Client> =
        (0..SESSIONS).map(|_| Client::upgraded(program.address(), "/", "raw")).collect();
    assert_eq!(program.counters()["sessions_open"], SESSIONS);
    program.signal("TERM");
    eventually("new connections are refused", || refuses(&program));
    assert!(program.is_running());
    program.signal("TERM");
    assert_eq!(program.exit_code(), Some(0));
    for mut client in clients {
        assert_eq!(client.socket.read(&mut [0; 8]).expect("an end, not a reset"), 0);
    }
    let mut lines = program.lines_to_end();
    lines.retain(|line| line["event"] == "session_close");
    assert_eq!(lines.len(), SESSIONS);
    assert!(lines.iter().all(|line| line["close_reason"] == "stopped"), "{lines:?}");
    drop(held);
    backend.join();
}

#[test]
fn an_exchange_under_way_at_the_drain_is_completed_and_its_session_goes_on() {
    let (asked, was_asked) = channel();
    let (go, may_answer) = channel::<()>();
    let may_answer = Arc::new(Mutex::new(may_answer));
    let backend = Backend::start(move |mut peer| {
        let head = peer.read_head();
        asked.send(()).expect("the test waits");
        support::backend::wait(&may_answer.lock().expect("one session"));
        peer.grant(&head, "");
        assert_eq!(peer.receive(4), b"ping");
        peer.send(b"pong");
        peer.receive_to_end().expect("an end");
    });
    let mut program = Program::start(&config_to(backend.address, "", ""));
    let mut client = Client::connect(program.address());
    client.send(upgrade_head("/", "raw", ""));
    support::backend::wait(&was_asked);
    program.signal("TERM");
    eventually("new connections are refused", || refuses(&program));
    go.send(()).expect("the backend waits");
    assert_eq!(client.answer().status, 101);
    client.send(b"ping");
    assert_eq!(client.receive(4), b"pong");
    drop(client);
    assert_eq!(program.session_line()["close_reason"], "completed");
    assert_eq!(program.exit_code(), Some(0));
    backend.join();
}

#[test]
fn an_exchange_under_way_at_the_stop_is_closed_and_logged() {
    let (asked, was_asked) = channel();
    let backend = Backend::start(move |mut peer| {
        peer.read_head();
        asked.send(()).expect("the test waits");
        // Ended by the gateway, in whatever way.
        let _ = peer.receive_to_end();
    });
    let gw = Gw::to(&backend, Engine::Splice, Runtime::Epoll);
    let mut client = Client::connect(gw.address());
    client.send(upgrade_head("/", "raw", ""));
    support::backend::wait(&was_asked);
    gw.gateway.stop_now();
    let line = gw.line();
    assert_eq!((&line["close_reason"], &line["event"]), (&"stopped".into(), &"request".into()));
    assert_eq!(gw.metrics().sessions_open, 0);
    assert_eq!(client.socket.read(&mut [0; 8]).expect("an end"), 0);
    gw.stop();
    backend.join();
}

#[test]
fn connections_that_wait_in_the_kernel_at_the_drain_are_served() {
    // While it stands still the program accepts nothing; the signal is there before it goes on.
    let backend = Backend::echo();
    for _ in 0..5 {
        let mut program = Program::start(&config_to(backend.address, "workers = 2", ""));
        program.signal("STOP");
        let mut clients: Vec<Client> =
            (0..40).map(|_| Client::connect(program.address())).collect();
        for client in &mut clients {
            client.send(upgrade_head("/", "raw", ""));
        }
        program.signal("TERM");
        program.signal("CONT");
        for client in &mut clients {
            assert_eq!(client.answer().status, 101);
        }
        for mut client in clients {
            client.send(b"x");
            assert_eq!(client.receive(1), b"x");
        }
        assert_eq!(program.exit_code(), Some(0));
    }
    backend.join();
}

#[test]
fn a_unix_socket_file_is_gone_after_the_drain_and_can_be_bound_anew() {
    let backend = Backend::echo();
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("upsplice.sock");
    let config = config_to(backend.address, "workers = 2", "")
        .replace("127.0.0.1:0", &format!("unix:{}", path.display()));
    for _ in 0..2 {
        let mut program = Program::start(&config);
        assert_eq!(program.listening, [format!("unix:{}", path.display())]);
        UnixStream::connect(&path).expect("it listens");
        program.signal("TERM");
        assert_eq!(program.exit_code(), Some(0));
        assert!(!path.exists());
    }
    backend.join();
}

#[test]
fn a_socket_file_that_another_process_made_after_the_drain_is_left_alone() {
    let backend = Backend::echo();
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("upsplice.sock");
    let gw = Gw::from_toml(
        &config_to(backend.address, "", "")
            .replace("127.0.0.1:0", &format!("unix:{}", path.display())),
    );
    gw.gateway.drain();
    assert!(!path.exists());
    std::fs::write(&path, "another's").expect("a file");
    gw.stop();
    assert!(path.exists());
    backend.join();
}

#[test]
fn a_gateway_that_cannot_start_leaves_no_socket_file() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("upsplice.sock");
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let config = format!(
        "[[listener]]\naddress = \"unix:{}\"\n[[listener]]\naddress = \"{}\"\n\
         [[route]]\nname = \"test\"\nto = [\"127.0.0.1:1\"]\n",
        path.display(),
        taken.local_addr().expect("bound"),
    );
    let (code, said) = support::process::refusal(&mut support::process::command(&config).0);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("cannot listen on 127.0.0.1:"), "{said}");
    assert!(!path.exists());
}

#[test]
fn a_reader_of_stdout_that_has_stopped_does_not_keep_the_program_alive() {
    let backend = Backend::echo();
    // Nobody reads the other end of this pipe, which holds less than the lines of these sessions.
    let (reader, writer) = std::io::pipe().expect("a pipe");
    let (mut command, _folder) = support::process::command(&config_to(backend.address, "", ""));
    let mut child = command
        .stdout(writer)
        .stderr(std::process::Stdio::piped())
        .spawn()
        .expect("the program starts");
    drop(command);
    let mut stderr = std::io::BufReader::new(child.stderr.take().expect("piped"));
    let mut line = String::new();
    while !line.contains("listening on ") {
        line.clear();
        std::io::BufRead::read_line(&mut stderr, &mut line).expect("it starts");
    }
    let address = line.trim().rsplit(' ').next().and_then(|a| a.parse().ok()).expect("an address");
    let long = format!("User-Agent: {}\r\n", "x".repeat(4000));
    let clients: Vec<_> = (0..40)
        .map(|_| {
            let mut client = Client::connect(address);
            assert_eq!(client.ask(upgrade_head("/", "raw", &long)).status, 101);
            client
        })
        .collect();
    drop(clients);
    let kill = format!("kill -TERM {}", child.id());
    std::process::Command::new("sh").arg("-c").arg(kill).status().expect("a shell");
    let drain = thread::spawn(move || stderr.read_to_string(&mut String::new()));
    eventually("the program ends", || child.try_wait().expect("our child").is_some());
    assert_eq!(child.wait().expect("our child").code(), Some(0));
    drain.join().expect("no panic").expect("text");
    drop(reader);
    backend.join();
}
