//! Listeners that a service manager opened before the program started.

#[path = "support/manager.rs"]
mod manager;
mod support;

use std::io::Read;
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixListener, UnixStream};

use manager::activated;
use serde_json::json;
use support::client::upgrade_head;
use support::process::{command, refusal};
use support::{Backend, Client, Program, eventually};

/// A configuration with these listeners and a route to `backend`.
fn config(backend: &Backend, listeners: &[String], workers: usize) -> String {
    let listeners: String =
        listeners.iter().map(|at| format!("[[listener]]\naddress = \"{at}\"\n")).collect();
    format!(
        "[gateway]\nworkers = {workers}\n{listeners}[[route]]\nname = \"test\"\nprotocols = [\"any\"]\n\
         to = [\"{}\"]\n",
        backend.address
    )
}

/// The program with these sockets, named as said.
fn start(config: &str, sockets: Vec<OwnedFd>, names: Option<&str>) -> Program {
    let (program, folder) = command(config);
    let listeners = config.matches("[[listener]]").count();
    Program::from_command(&mut activated(&program, sockets, names), listeners, folder)
}

/// What the program says when it refuses these sockets.
fn refused(config: &str, sockets: Vec<OwnedFd>, names: Option<&str>) -> String {
    let (program, _folder) = command(config);
    let (code, said) = refusal(&mut activated(&program, sockets, names));
    assert_eq!(code, Some(1), "{said}");
    said
}

fn expect_echo(mut client: Client) {
    client.send(b"ping");
    assert_eq!(client.receive(4), b"ping");
}

#[test]
fn passed_sockets_are_matched_by_address_and_what_is_not_passed_is_bound() {
    let backend = Backend::echo();
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("http.sock");
    let unix = UnixListener::bind(&path).expect("a socket");
    let tcp = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = tcp.local_addr().expect("bound");
    let unix_text = format!("unix:{}", path.display());
    let listeners = ["127.0.0.1:0".to_owned(), address.to_string(), unix_text.clone()];
    for workers in [1, 3] {
        // In another order than the configuration's.
        let sockets = vec![
            unix.try_clone().expect("a descriptor").into(),
            tcp.try_clone().expect("a descriptor").into(),
        ];
        let mut program = start(&config(&backend, &listeners, workers), sockets, Some("b:a"));
        assert_eq!(program.listening[1..], [address.to_string(), unix_text.clone()]);
        for (at, address) in [(0, program.address()), (1, address)] {
            expect_echo(Client::upgraded(address, "/", "raw"));
            assert_eq!(program.session_line()["listener"], json!(at));
        }
        let mut stream = UnixStream::connect(&path).expect("it listens");
        use std::io::Write;
        stream.write_all(upgrade_head("/", "raw", "").as_bytes()).expect("it is read");
        let mut start = [0; 12];
        stream.read_exact(&mut start).expect("an answer");
        assert_eq!(&start, b"HTTP/1.1 101");
        drop(stream);
        assert_eq!(program.session_line()["listener"], json!(2));
        program.signal("TERM");
        assert_eq!(program.exit_code(), Some(0));
        assert!(path.exists(), "the file of a passed socket is the manager's");
    }
    backend.join();
}

#[test]
fn a_connection_that_comes_between_two_runs_is_served_by_the_second() {
    let backend = Backend::echo();
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("bound");
    let config = config(&backend, &[address.to_string()], 2);
    let pass = || vec![listener.try_clone().expect("a descriptor").into()];
    let mut first = start(&config, pass(), None);
    expect_echo(Client::upgraded(address, "/", "raw"));
    first.signal("TERM");
    assert_eq!(first.exit_code(), Some(0));
    let mut waiting = Client::connect(address);
    waiting.send(upgrade_head("/", "raw", ""));
    let second = start(&config, pass(), None);
    assert_eq!(waiting.answer().status, 101);
    expect_echo(waiting);
    assert_eq!(second.session_line()["close_reason"], "completed");
    backend.join();
}

#[test]
fn all_workers_take_from_a_passed_socket() {
    let backend = Backend::echo();
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("bound");
    let config = config(&backend, &[address.to_string()], 2);
    let program = start(&config, vec![listener.into()], None);
    let clients: Vec<Client> = (0..8).map(|_| Client::upgraded(address, "/", "raw")).collect();
    eventually("both workers have sessions", || program.counters()["sessions_open"] == 8);
    for client in clients {
        expect_echo(client);
    }
    let mut workers: Vec<_> =
        (0..8).map(|_| program.session_line()["worker"].as_u64().expect("a number")).collect();
    workers.sort_unstable();
    workers.dedup();
    assert_eq!(workers, [0, 1]);
    backend.join();
}

#[test]
fn a_passed_socket_without_a_listener_is_a_clear_fault() {
    let backend = Backend::echo();
    let passed = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = passed.local_addr().expect("bound");
    let config = config(&backend, &["127.0.0.1:0".to_owned()], 1);
    let said = refused(&config, vec![passed.into()], Some("web"));
    assert!(said.contains("\"web\"") && said.contains(&address.to_string()), "{said}");
    assert!(said.contains("no listener's address") && said.contains("127.0.0.1:0"), "{said}");
    backend.join();
}

#[test]
fn what_cannot_be_accepted_from_is_a_clear_fault() {
    let backend = Backend::echo();
    let config = config(&backend, &["127.0.0.1:0".to_owned()], 1);
    let datagrams = UdpSocket::bind("127.0.0.1:0").expect("a port");
    let said = refused(&config, vec![datagrams.into()], None);
    assert!(said.contains("\"unknown\"") && said.contains("not a listening stream"), "{said}");
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let connected = TcpStream::connect(listener.local_addr().expect("bound")).expect("it listens");
    let said = refused(&config, vec![connected.into()], None);
    assert!(said.contains("not a listening stream"), "{said}");
    let said = refused(&config, vec![listener.into()], Some("one:two"));
    assert!(said.contains("LISTEN_FDNAMES"), "{said}");
    backend.join();
}

#[test]
fn sockets_that_are_meant_for_another_process_are_left_alone() {
    let backend = Backend::echo();
    let (mut program, folder) = command(&config(&backend, &["127.0.0.1:0".to_owned()], 1));
    program.env("LISTEN_FDS", "1").env("LISTEN_PID", "1");
    let program = Program::from_command(&mut program, 1, folder);
    expect_echo(Client::upgraded(program.address(), "/", "raw"));
    backend.join();
}
