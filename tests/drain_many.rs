//! Drain of many sessions: how it is spread, what bounds it, what the program says of it.

#[path = "support/manager.rs"]
mod manager;
mod support;

use std::io::Read;
use std::net::{SocketAddr, TcpStream};
use std::process::{Command, Output};
use std::sync::mpsc::{Receiver, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use manager::Manager;
use serde_json::Value;
use support::admin::{Api, unix};
use support::process::{command, config_to};
use support::{Backend, Client, Engine, Gw, Peer, Program, Runtime, eventually};

/// Sessions whose both ends the test holds.
struct Sessions {
    clients: Vec<Client>,
    peers: Vec<Peer>,
}

/// A backend that gives the test its ends.
fn holding() -> (Backend, Receiver<Peer>) {
    let (given, taken) = channel();
    let backend = Backend::upgrading(move |peer| drop(given.send(peer)));
    (backend, taken)
}

impl Sessions {
    fn open(count: usize, address: SocketAddr, taken: &Receiver<Peer>) -> Sessions {
        let clients = (0..count).map(|_| Client::upgraded(address, "/", "raw")).collect();
        let peers = (0..count).map(|_| support::backend::wait(taken)).collect();
        Sessions { clients, peers }
    }

    /// Closes each as its end comes; since the beginning, when the end came to the clients, in order.
    fn leave(self, began: Instant) -> Vec<Duration> {
        // Each in a thread of its own: one after the other they would be told the last one's time.
        let (tell, told) = channel();
        let mut threads = Vec::new();
        for client in self.clients {
            let tell = tell.clone();
            threads.push(in_thread(move || {
                ends(&client.socket);
                tell.send(began.elapsed()).expect("the test listens");
            }));
        }
        threads.extend(self.peers.into_iter().map(|peer| in_thread(move || ends(&peer.socket))));
        threads.into_iter().for_each(|thread| thread.join().expect("no panic"));
        drop(tell);
        let mut times: Vec<Duration> = told.iter().collect();
        times.sort();
        times
    }
}

fn in_thread(work: impl FnOnce() + Send + 'static) -> JoinHandle<()> {
    std::thread::Builder::new().stack_size(256 << 10).spawn(work).expect("a thread")
}

fn ends(mut socket: &TcpStream) {
    assert_eq!(socket.read(&mut [0; 8]).expect("an end, no reset"), 0);
}

fn drain(api: &Api, query: &str) -> Value {
    let reply = api.ask("POST", &format!("/v1/drain?{query}"));
    assert_eq!(reply.status, 202, "{reply:?}");
    reply.json()
}

/// A gateway of two workers, and so many sessions in it.
fn opened(count: usize) -> (Gw, Api, Backend, Sessions) {
    let (backend, taken) = holding();
    let (line, api) = unix();
    let gw = Gw::with(
        &backend,
        Engine::Auto,
        Runtime::Epoll,
        &format!("workers = 2\ndrain_rate = \"off\"\n{line}"),
        "",
    );
    let sessions = Sessions::open(count, gw.address(), &taken);
    eventually("they are joined", || gw.metrics().sessions_open == count as u64);
    (gw, api, backend, sessions)
}

#[test]
fn sessions_leave_spread_over_the_time_and_not_in_a_row() {
    const SESSIONS: usize = 400;
    let (gw, api, backend, sessions) = opened(SESSIONS);
    let began = Instant::now();
    drain(&api, "route=test&over=2s");
    let times = sessions.leave(began);
    // Of a uniform spread each quarter has 100, give or take 9; a machine that stands still moves some.
    for quarter in 1..=3_u32 {
        let until = Duration::from_millis(500) * quarter;
        let gone = times.iter().filter(|time| **time < until).count();
        let (fewest, most) = (SESSIONS * quarter as usize / 4 / 2, SESSIONS * quarter as usize / 4);
        assert!((fewest..=most + 60).contains(&gone), "{gone} within {until:?}: {times:?}");
    }
    assert!(*times.last().expect("many") > Duration::from_millis(1500));
    gw.stop();
    backend.join();
}

#[test]
fn no_more_leave_per_second_than_the_rate_says_whatever_the_time() {
    const SESSIONS: usize = 120;
    const RATE: usize = 60;
    let (gw, api, backend, sessions) = opened(SESSIONS);
    let began = Instant::now();
    let told = drain(&api, &format!("route=test&over=0&rate={RATE}/s"));
    assert_eq!(told["rate"], 60.0);
    let times = sessions.leave(began);
    // Nobody can be told too early, however busy the machine is.
    for (gone, time) in times.iter().enumerate() {
        let allowed = (time.as_secs_f64() + 0.1) * RATE as f64 + 1.0;
        assert!((gone as f64) <= allowed, "{gone} within {time:?}");
    }
    gw.stop();
    backend.join();
}

#[test]
fn what_the_rate_has_held_back_is_told_at_the_deadline() {
    let (gw, api, backend, sessions) = opened(40);
    let began = Instant::now();
    drain(&api, "route=test&over=0&rate=1/s&deadline=500ms");
    let times = sessions.leave(began);
    assert!(times[39] >= Duration::from_millis(500), "{times:?}");
    assert!(times.iter().filter(|time| **time < Duration::from_millis(450)).count() <= 2);
    assert_eq!(api.get("/v1/drain")["drains"][0]["closed"], 40);
    gw.stop();
    backend.join();
}

#[test]
fn two_thousand_sessions_leave_in_good_order_and_the_gateway_ends() {
    const SESSIONS: usize = 2000;
    upsplice::sys::net::raise_nofile_limit().expect("the hard limit");
    let (gw, api, backend, sessions) = opened(SESSIONS);
    let told = drain(&api, "over=1s");
    assert_eq!((&told["left"], &told["stop"]), (&SESSIONS.into(), &true.into()), "{told}");
    let Sessions { clients, peers } = sessions;
    for (mut client, mut peer) in clients.into_iter().zip(peers) {
        assert_eq!(client.socket.read(&mut [0; 8]).expect("an end, no reset"), 0);
        assert_eq!(peer.socket.read(&mut [0; 8]).expect("an end, no reset"), 0);
    }
    for _ in 0..SESSIONS {
        assert_eq!(gw.line()["close_reason"], "drained");
    }
    eventually("it has ended by itself", || gw.gateway.is_finished());
    gw.stop();
    backend.join();
}

/// The program with an admin API, and one session.
fn program(lines: &str) -> (Program, Api, Backend, Sessions) {
    let (backend, taken) = holding();
    let (line, api) = unix();
    let program = Program::start(&config_to(backend.address, &format!("{line}\n{lines}"), ""));
    let sessions = Sessions::open(1, program.address(), &taken);
    eventually("it is joined", || program.counters()["sessions_open"] == 1);
    (program, api, backend, sessions)
}

/// `upsplice drain` against this gateway.
fn upsplice(api: &Api, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_upsplice"));
    let admin = format!("--admin=unix:{}", api.path().display());
    command.arg("drain").arg(admin).args(arguments);
    command
}

fn text(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).expect("UTF-8")
}

#[test]
fn the_command_line_waits_until_the_program_has_ended() {
    let (mut program, api, backend, sessions) = program("");
    let began = Instant::now();
    let mut waits = upsplice(&api, &["--over=0", "--wait"]);
    let waits = std::thread::spawn(move || waits.output().expect("it runs"));
    sessions.leave(began);
    let output = waits.join().expect("no panic");
    assert!(output.status.success(), "{output:?}");
    let said = text(&output);
    let first = said.lines().next().expect("a line");
    assert!(first.starts_with("the gateway drains: ") && first.ends_with("1 left"), "{said}");
    assert_eq!(program.exit_code(), Some(0));
    assert_eq!(program.session_line()["close_reason"], "drained");
    backend.join();
}

#[test]
fn the_command_line_drains_a_route_and_undoes_it() {
    let (program, api, backend, sessions) = program("");
    let output =
        upsplice(&api, &["--route=test", "--over=1h", "--json"]).output().expect("it runs");
    let json: Value = serde_json::from_str(&text(&output)).expect("JSON");
    assert_eq!((&json["route"], &json["code"]), (&"test".into(), &1012.into()), "{json}");
    let undone = upsplice(&api, &["--route=test", "--undo"]).output().expect("it runs");
    assert!(text(&undone).starts_with("route test takes sessions again: "), "{undone:?}");
    let status = |arguments: &[&str]| upsplice(&api, arguments).output().expect("it runs").status;
    assert_eq!(status(&["--route=test", "--undo"]).code(), Some(66));
    assert_eq!(status(&["--route=other"]).code(), Some(66));
    assert_eq!(status(&["--code=1"]).code(), Some(1));
    assert_eq!(status(&["--route=test", "--stop=true"]).code(), Some(2));
    drop((sessions, program));
    backend.join();
}

#[test]
fn a_signal_spreads_the_drain_where_the_configuration_says_so() {
    let (mut program, _api, backend, sessions) = program("drain = \"1h\"\ndrain_over = \"50ms\"");
    program.signal("TERM");
    sessions.leave(Instant::now());
    assert_eq!(program.session_line()["close_reason"], "drained");
    assert_eq!(program.exit_code(), Some(0));
    backend.join();
}

#[test]
fn the_first_signal_shortens_a_drain_of_the_operator_and_the_second_ends_it() {
    let (mut program, api, backend, mut sessions) = program("drain = \"2h\"");
    drain(&api, "over=100h");
    program.signal("TERM");
    program.diagnostic_with("draining: 1 connections open, 7200s at most");
    assert!(program.is_running());
    program.signal("TERM");
    let end = sessions.clients[0].socket.read(&mut [0; 8]).expect("an end, no reset");
    assert_eq!(end, 0);
    assert_eq!(program.session_line()["close_reason"], "stopped");
    assert_eq!(program.exit_code(), Some(0));
    drop(sessions);
    backend.join();
}

#[test]
fn the_service_manager_is_told_what_drains_and_when_the_gateway_stops() {
    let manager = Manager::new();
    let (backend, taken) = holding();
    let (line, api) = unix();
    let (mut started, kept) = command(&config_to(backend.address, &line, ""));
    started.env("NOTIFY_SOCKET", &manager.address).env("WATCHDOG_USEC", "200000");
    let mut program = Program::from_command(&mut started, 1, kept);
    let sessions = Sessions::open(1, program.address(), &taken);
    manager.until("STATUS=1 session, ");
    drain(&api, "route=test&over=168h");
    let status =
        "STATUS=1 session, 1 connection, 1 worker, engine auto, draining route test, 1 left";
    manager.until(status);
    drain(&api, "over=0");
    manager.until("STOPPING=1");
    sessions.leave(Instant::now());
    assert_eq!(program.exit_code(), Some(0));
    backend.join();
}
