//! Reload: another configuration under live sessions.

mod support;

use std::io::{Read, Write};
use std::net::SocketAddr;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use support::client::upgrade_head;
use support::frames::receive;
use support::{Backend, Client, Gw, Program, eventually};
use upsplice::config::{Config, from_toml};
use upsplice::server::{Difference, NotReloaded, Reloaded};

const LISTENER: &str = "[[listener]]\naddress = \"127.0.0.1:0\"\n";

/// A route of its own name and path.
fn route(name: &str, to: SocketAddr, more: &str) -> String {
    format!(
        "[[route]]\nname = \"{name}\"\npath = \"/{name}\"\nprotocols = [\"any\"]\n\
         engine = \"splice\"\nto = [\"{to}\"]\n{more}\n"
    )
}

fn config(parts: &[&str]) -> Config {
    from_toml(&parts.concat(), "test.toml").expect("a good configuration")
}

fn gw(parts: &[&str]) -> Gw {
    Gw::from_toml(&parts.concat())
}

fn reload(gw: &Gw, parts: &[&str]) -> Reloaded {
    gw.gateway.follow(config(parts)).expect("it can be had")
}

fn open(gw: &Gw, path: &str) -> Client {
    Client::upgraded(gw.address(), path, "raw")
}

/// Opens a session to a backend that says its name first.
fn opened(address: SocketAddr, path: &str, name: &str) -> Client {
    let mut client = Client::connect(address);
    let answer = client.ask(upgrade_head(path, "raw", ""));
    assert_eq!(answer.status, 101, "{path}: {answer:?}");
    let rest = client.receive(name.len() - answer.rest.len());
    assert_eq!([answer.rest, rest].concat(), name.as_bytes(), "{path}");
    client
}

fn echoes(client: &mut Client, text: &str) {
    client.send(text);
    assert_eq!(client.receive(text.len()), text.as_bytes());
}

fn names(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

/// An echo that says who it is first.
fn named(name: &'static str) -> Backend {
    Backend::upgrading(move |mut peer| {
        peer.send(name);
        let mut chunk = [0; 4096];
        while let Ok(count @ 1..) = peer.socket.read(&mut chunk) {
            if peer.socket.write_all(&chunk[..count]).is_err() {
                return;
            }
        }
    })
}

#[test]
fn sessions_go_on_as_they_began_and_new_ones_go_by_the_new_file() {
    let (one, other) = (named("one"), named("two"));
    let kept = route("kept", one.address, "");
    let text = [LISTENER, &kept, &route("moved", one.address, ""), &route("gone", one.address, "")];
    let gw = gw(&text);
    let mut before = ["/kept", "/moved", "/gone"].map(|path| opened(gw.address(), path, "one"));
    let reloaded = reload(
        &gw,
        &[LISTENER, &route("new", other.address, ""), &route("moved", other.address, ""), &kept],
    );
    let expected = Difference {
        added: names(&["new"]),
        changed: names(&["moved"]),
        removed: names(&["gone"]),
    };
    assert_eq!((reloaded.generation, reloaded.routes), (1, expected));
    assert_eq!(reloaded.listeners, Default::default());
    let mut after = [("/kept", "one"), ("/moved", "two"), ("/new", "two")]
        .map(|(path, name)| opened(gw.address(), path, name));
    before.iter_mut().chain(&mut after).for_each(|client| echoes(client, "still here"));
    let refused = Client::connect(gw.address()).ask(upgrade_head("/gone", "raw", ""));
    assert_eq!(refused.status, 404);
    assert_eq!(gw.line()["close_reason"], "no_route");
    let views = gw.gateway.upstreams();
    let of = |name: &str| views.iter().find(|view| view.route == name).expect("a route");
    let sessions = |name: &str| -> Vec<(String, u64)> {
        let endpoints = of(name).endpoints.iter();
        endpoints.map(|endpoint| (endpoint.endpoint.clone(), endpoint.sessions)).collect()
    };
    assert_eq!(sessions("kept"), [(one.address.to_string(), 2)]);
    // The endpoint that the changed route has left keeps the session that it has.
    let both = [(other.address.to_string(), 1), (one.address.to_string(), 1)];
    assert_eq!(sessions("moved"), both);
    for client in before.into_iter().chain(after) {
        drop(client);
        let line = gw.line();
        assert_eq!(
            (&line["close_reason"], &line["engine"]),
            (&"completed".into(), &"splice".into())
        );
    }
    gw.stop();
}

#[test]
fn hundreds_of_reloads_close_nothing_and_use_the_same_slots_again() {
    const SESSIONS: usize = 100;
    let backend = Backend::echo();
    let begun = [LISTENER, &route("a", backend.address, ""), &route("b", backend.address, "")];
    let gw = gw(&begun);
    let mut clients: Vec<Client> =
        (0..SESSIONS).map(|at| open(&gw, if at % 2 == 0 { "/a" } else { "/b" })).collect();
    for round in 0..200 {
        let more = match round % 3 {
            0 => "rekey = true",
            1 => "empty_host = true",
            _ => "",
        };
        let changed = route("b", backend.address, more);
        let reloaded = reload(&gw, &[LISTENER, &changed, &route("a", backend.address, "")]);
        assert_eq!(reloaded.routes.changed, names(&["b"]), "{round}");
        echoes(&mut clients[round % SESSIONS], &format!("round {round}"));
    }
    // What was read in the same state before is no change.
    let reloaded = reload(
        &gw,
        &[
            LISTENER,
            &route("a", backend.address, ""),
            &route("b", backend.address, "empty_host = true"),
        ],
    );
    assert_eq!((reloaded.generation, reloaded.routes), (201, Difference::default()));
    for (at, client) in clients.iter_mut().enumerate() {
        echoes(client, &format!("session {at}"));
    }
    assert_eq!(gw.metrics().sessions_open as usize, SESSIONS);
    // "a", and "b" in each of its three forms.
    assert_eq!(gw.gateway.slots(), 4);
    gw.stop();
}

#[test]
fn what_becomes_of_the_sessions_of_a_changed_route_is_its_own_choice() {
    let backend = Backend::echo();
    let with = |name: &str, more: &str| route(name, backend.address, more);
    let policies = ["keep", "drain", "close"];
    let of = |more: &str| -> String {
        let each = policies.map(|name| with(name, &format!("on_change = \"{name}\"\n{more}")));
        each.concat()
    };
    let gateway = "[gateway]\ndrain = \"300ms\"\n";
    let gw = gw(&[gateway, LISTENER, &of("")]);
    let mut clients = policies.map(|name| open(&gw, &format!("/{name}")));
    let reloaded = reload(&gw, &[gateway, LISTENER, &of("rekey = true")]);
    assert_eq!(reloaded.routes.changed, names(&policies));
    for client in &mut clients[1..] {
        assert_eq!(client.socket.read(&mut [0; 8]).expect("an orderly end"), 0);
    }
    // Who drains is waited for, who is closed is not.
    assert_eq!(gw.line()["route"], "close");
    clients[1].shutdown_write();
    for _ in 2..policies.len() {
        let line = gw.line();
        assert_eq!(
            (&line["close_reason"], &line["side"]),
            (&"route_changed".into(), &"proxy".into())
        );
        assert_ne!(line["route"], "keep", "{line}");
    }
    echoes(&mut clients[0], "kept");
    // A route that is gone ends its sessions as it said when it was there.
    let mut last = open(&gw, "/close");
    let reloaded =
        reload(&gw, &[gateway, LISTENER, &with("keep", "on_change = \"keep\"\nrekey = true")]);
    assert_eq!(reloaded.routes.removed, names(&policies[1..]));
    assert_eq!(last.socket.read(&mut [0; 8]).expect("an orderly end"), 0);
    assert_eq!(gw.line()["route"], "close");
    echoes(&mut clients[0], "kept still");
    gw.stop();
}

/// The time of a drain and its rate are both kept: what the rate holds back goes later, not all at once.
#[test]
fn a_changed_route_lets_its_sessions_go_no_faster_than_the_rate() {
    const SESSIONS: u32 = 12;
    const PER_SECOND: u32 = 10;
    let backend = Backend::echo();
    let gateway = format!("[gateway]\ndrain = \"100ms\"\ndrain_rate = {PER_SECOND}\n");
    let with = |more: &str| {
        let more =
            format!("on_change = \"drain\"\n{more}\n[route.timeouts]\nhandshake = \"200ms\"");
        route("a", backend.address, &more)
    };
    let gw = gw(&[&gateway, LISTENER, &with("")]);
    let mut clients: Vec<Client> = (0..SESSIONS).map(|_| open(&gw, "/a")).collect();
    let began = Instant::now();
    reload(&gw, &[&gateway, LISTENER, &with("rekey = true")]);
    for client in &mut clients {
        assert_eq!(client.socket.read(&mut [0; 8]).expect("an orderly end"), 0);
    }
    // Two may go at once, at the beginning and where a second ends.
    let least = Duration::from_secs(1) * (SESSIONS - 2) / PER_SECOND;
    assert!(began.elapsed() >= least, "{:?}", began.elapsed());
    gw.stop();
}

#[test]
fn an_inspected_session_of_a_changed_route_is_told_that_the_service_restarts() {
    let backend = Backend::echo();
    let to = backend.address;
    let route = |more: &str| {
        format!(
            "[[route]]\nname = \"a\"\nmode = \"inspect\"\nto = [\"{to}\"]\non_change = \"close\"\n{more}\n"
        )
    };
    let gw = gw(&[LISTENER, &route("")]);
    let mut client = Client::upgraded(gw.address(), "/", "websocket");
    reload(&gw, &[LISTENER, &route("inspect = \"payload\"")]);
    assert_eq!(receive(&mut client.socket).expect("a close").code(), 1012);
    drop(client);
    assert_eq!(gw.line()["close_reason"], "route_changed");
    gw.stop();
}

#[test]
fn listeners_come_and_go_and_those_that_stay_are_not_touched() {
    let backend = Backend::echo();
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("listener");
    let unix = format!("[[listener]]\naddress = \"unix:{}\"\n", path.display());
    let route = route("a", backend.address, "");
    let gateway = "[gateway]\nworkers = 2\n";
    let gw = gw(&[gateway, LISTENER, &route]);
    let mut kept = open(&gw, "/a");
    let reloaded = reload(&gw, &[gateway, LISTENER, &unix, &route]);
    assert_eq!(reloaded.listeners.opened, [format!("unix:{}", path.display())]);
    assert_eq!(gw.gateway.listening().len(), 2);
    let mut over_unix = unix_session(&path);
    let mut came = [0; 5];
    over_unix.write_all(b"hello").expect("sent");
    over_unix.read_exact(&mut came).expect("it comes back");
    // Port 0 stays the port that it became.
    let reloaded = reload(&gw, &[gateway, LISTENER, &route]);
    assert_eq!(reloaded.listeners.closed, [format!("unix:{}", path.display())]);
    assert!(!path.exists(), "its file is left");
    assert_eq!(gw.gateway.listening(), gw.gateway.addresses());
    over_unix.write_all(b"hello").expect("sent");
    over_unix.read_exact(&mut came).expect("a session outlives its listener");
    echoes(&mut kept, "here");
    // And back; what cannot be bound changes nothing, and leaves nothing behind.
    reload(&gw, &[gateway, LISTENER, &unix, &route]);
    let taken = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None);
    let taken = taken.expect("a socket");
    taken.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).expect("a port");
    let at = taken.local_addr().expect("bound").as_socket().expect("over TCP");
    let taken_too = format!("[[listener]]\naddress = \"{at}\"\n");
    let other = folder.path().join("other");
    let other_too = format!("[[listener]]\naddress = \"unix:{}\"\n", other.display());
    let wanted = [gateway, &other_too, &taken_too, &route].concat();
    let refused = gw.gateway.follow(from_toml(&wanted, "test.toml").expect("a good configuration"));
    match refused {
        Err(NotReloaded::Unable(why)) => {
            assert!(why.starts_with(&format!("cannot listen on {at}")), "{why}")
        }
        other => panic!("{other:?}"),
    }
    assert!(!other.exists(), "it is left");
    assert_eq!(gw.gateway.listening().len(), 2);
    drop(unix_session(&path));
    echoes(&mut open(&gw, "/a"), "as before");
    gw.stop();
    assert!(!path.exists());
}

fn unix_session(path: &Path) -> UnixStream {
    let mut socket = UnixStream::connect(path).expect("it listens");
    socket.set_read_timeout(Some(support::BOUND)).expect("a bound");
    socket.write_all(upgrade_head("/a", "raw", "").as_bytes()).expect("sent");
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        socket.read_exact(&mut byte).expect("a head");
        head.push(byte[0]);
    }
    assert!(head.starts_with(b"HTTP/1.1 101"), "{}", String::from_utf8_lossy(&head));
    socket
}

#[test]
fn what_only_a_restart_changes_is_named_and_the_rest_is_taken() {
    let backend = Backend::echo();
    let (a, b) = (route("a", backend.address, ""), route("b", backend.address, ""));
    let gw = gw(&["[gateway]\nworkers = 1\nruntime = \"epoll\"\n", LISTENER, &a]);
    let gateway =
        "[gateway]\nworkers = 2\nruntime = \"epoll\"\nsandbox = false\nname = \"other\"\n";
    let reloaded = reload(&gw, &[gateway, LISTENER, &a, &b]);
    assert_eq!(reloaded.needs_restart, ["workers", "sandbox"]);
    assert_eq!(reloaded.routes.added, names(&["b"]));
    echoes(&mut open(&gw, "/b"), "taken");
    // It is named each time, for as long as the file says so.
    let again = reload(&gw, &[gateway, LISTENER, &a, &b]);
    assert_eq!(again.needs_restart, ["workers", "sandbox"]);
    gw.stop();
}

#[test]
fn a_gateway_that_drains_is_not_reloaded() {
    let backend = Backend::echo();
    let text = [LISTENER, &route("a", backend.address, "")];
    let gw = gw(&text);
    let mut client = open(&gw, "/a");
    gw.gateway.drain();
    assert_eq!(gw.gateway.follow(config(&text)), Err(NotReloaded::Draining));
    echoes(&mut client, "goes on");
    gw.stop();
}

#[test]
fn an_exchange_that_has_begun_goes_by_what_it_began_with() {
    let (one, other) = (named("one"), named("two"));
    let gw = gw(&["[gateway]\nworkers = 1\n", LISTENER, &route("a", one.address, "")]);
    let mut client = Client::connect(gw.address());
    let head = upgrade_head("/a", "raw", "");
    let (front, back) = head.split_at(20);
    client.send(front);
    eventually("it is there", || gw.metrics().connections_open == 1);
    // Who came later has had its turn, so this one has begun.
    drop(opened(gw.address(), "/a", "one"));
    gw.line();
    // Twice, so that what it began with is not even the last one.
    reload(&gw, &["[gateway]\nworkers = 1\n", LISTENER, &route("a", other.address, "")]);
    reload(&gw, &["[gateway]\nworkers = 1\n", LISTENER, &route("b", other.address, "")]);
    client.send(back);
    let answer = client.answer();
    assert_eq!(answer.status, 101, "{answer:?}");
    let rest = client.receive(3 - answer.rest.len());
    assert_eq!([answer.rest, rest].concat(), b"one");
    drop(client);
    assert_eq!((&gw.line()["route"]), "a");
    gw.stop();
}

/// The program over a file that can be written anew.
struct Served {
    program: Program,
    file: PathBuf,
}

impl Served {
    fn start(text: &str) -> Served {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("upsplice.toml");
        std::fs::write(&file, text).expect("a file");
        let mut command = upsplice();
        command.args(["run", "--workers", "1", "--config"]).arg(&file);
        let program = Program::from_command(&mut command, 1, folder);
        Served { program, file }
    }

    fn write(&self, text: &str) {
        std::fs::write(&self.file, text).expect("a file");
    }
}

fn upsplice() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_upsplice"));
    for name in ["UPSPLICE_ADMIN", "UPSPLICE_CONFIG", "UPSPLICE_ADMIN_TOKEN_FILE", "RUST_LOG"] {
        command.env_remove(name);
    }
    command
}

#[test]
fn sighup_reads_the_file_again_and_a_bad_one_changes_nothing() {
    let (one, other) = (named("one"), named("two"));
    let mut served = Served::start(&[LISTENER, &route("a", one.address, "")].concat());
    let address = served.program.address();
    let mut before = opened(address, "/a", "one");
    served.write("[[route]]\nname = \"a\"\nto = \"nowhere\"\ncolour = 1\n");
    served.program.signal("HUP");
    let fault = served.program.diagnostic_with("not reloaded: ");
    assert!(fault.contains("upsplice.toml:3: "), "{fault}");
    served.program.diagnostic_with("colour");
    drop(opened(address, "/a", "one"));
    let gateway = "[gateway]\nworkers = 3\nbalance = false\n";
    served.write(&[gateway, LISTENER, &route("a", other.address, "")].concat());
    served.program.signal("HUP");
    let told = served.program.diagnostic_with("reloaded: ");
    assert!(told.contains("generation 1; changed a"), "{told}");
    // The flag for workers beats the file, as it did at the start: no restart would change them.
    let told = served.program.diagnostic_with("only a restart changes");
    assert!(told.ends_with("changes balance"), "{told}");
    drop(opened(address, "/a", "two"));
    echoes(&mut before, "still here");
    assert!(served.program.is_running());
}

#[test]
fn the_operator_reloads_by_command_and_is_told_what_came_of_it() {
    let (one, other) = (named("one"), named("two"));
    let at = |folder: &Path, to: SocketAddr, more: &str| {
        let admin = folder.join("admin.sock");
        let gateway = format!("[gateway]\nadmin = \"unix:{}\"\n{more}", admin.display());
        [&gateway, LISTENER, &route("a", to, "")].concat()
    };
    let folder = tempfile::tempdir().expect("a folder");
    let served = Served::start(&at(folder.path(), one.address, ""));
    let admin = format!("--admin=unix:{}", folder.path().join("admin.sock").display());
    let run = |arguments: &[&str]| {
        let output = upsplice().args(arguments).arg(&admin).output().expect("it runs");
        let text = |bytes| String::from_utf8(bytes).expect("UTF-8");
        (output.status.code(), text(output.stdout), text(output.stderr))
    };
    let mut before = opened(served.program.address(), "/a", "one");
    served.write(&at(folder.path(), other.address, "no_fallback = true\n"));
    let told = "generation 1\nroutes changed: a\nonly a restart changes: no_fallback\n";
    assert_eq!(run(&["reload"]), (Some(0), told.to_owned(), String::new()));
    drop(opened(served.program.address(), "/a", "two"));
    served.write("[[route]]\nname = \"a\"\nto = \"127.0.0.1\"\ncolour = 1\n");
    let (status, told, faults) = run(&["reload", "--json"]);
    assert_eq!((status, &*told), (Some(1), ""));
    assert!(faults.contains("the file is wrong: correct the file"), "{faults}");
    assert!(faults.contains("upsplice.toml:3: ") && faults.contains("colour"), "{faults}");
    drop(opened(served.program.address(), "/a", "two"));
    echoes(&mut before, "still here");
    served.write(&at(folder.path(), other.address, ""));
    let (status, told, _) = run(&["reload", "--json"]);
    let told: serde_json::Value = serde_json::from_str(&told).expect("JSON");
    assert_eq!(
        (status, &told["generation"], &told["needs_restart"]),
        (Some(0), &2.into(), &serde_json::json!([]))
    );
    let mut page = UnixStream::connect(folder.path().join("admin.sock")).expect("it listens");
    page.write_all(b"GET /metrics HTTP/1.0\r\nHost: x\r\n\r\n").expect("sent");
    let mut metrics = String::new();
    page.read_to_string(&mut metrics).expect("a page");
    for line in [
        "upsplice_config_reloads_total{result=\"success\"} 2",
        "upsplice_config_reloads_total{result=\"failure\"} 1",
        "upsplice_config_last_reload_successful 1",
        "upsplice_config_generations_live 1",
    ] {
        assert!(metrics.contains(line), "{line}: {metrics}");
    }
}

#[test]
fn a_file_that_becomes_another_is_read_without_being_asked_for() {
    let (one, other) = (named("one"), named("two"));
    let at =
        |to: SocketAddr| ["[gateway]\nwatch_file = true\n", LISTENER, &route("a", to, "")].concat();
    let served = Served::start(&at(one.address));
    drop(opened(served.program.address(), "/a", "one"));
    served.write(&at(other.address));
    served.program.diagnostic_with("reloaded: generation 1; changed a");
    drop(opened(served.program.address(), "/a", "two"));
    // Another file under the same name, as editors and mounted volumes do it.
    let next = served.file.with_extension("next");
    std::fs::write(&next, "nonsense").expect("a file");
    std::fs::rename(&next, &served.file).expect("in its place");
    served.program.diagnostic_with("not reloaded: ");
    drop(opened(served.program.address(), "/a", "two"));
}

#[test]
fn without_a_file_there_is_nothing_to_read_again() {
    let mut command = upsplice();
    command.args(["run", "--workers", "1", "--listen", "127.0.0.1:0", "--to", "127.0.0.1:9"]);
    let folder = tempfile::tempdir().expect("a folder");
    let mut program = Program::from_command(&mut command, 1, folder);
    program.signal("HUP");
    let told = program.diagnostic_with("not reloaded: ");
    assert!(told.contains("without --config"), "{told}");
    assert!(program.is_running());
}
