//! Several endpoints of a route: who gets which session, who is left out, and what becomes of the sessions of
//! one that fails.

mod support;

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Instant;

use serde_json::json;
use support::client::{bound, upgrade_head};
use support::{Backend, Client, Gw, Pattern, eventually};
use upsplice::server::{AccessLog, EndpointState, EndpointView, Gateway, Move, Resolver};

/// A gateway with two workers and one route to these endpoints, as they stand in the list `to`.
fn text(to: &[String], route: &str) -> String {
    format!(
        "[gateway]\nworkers = 2\n[[listener]]\naddress = \"127.0.0.1:0\"\n\
         [[route]]\nname = \"test\"\nprotocols = [\"any\"]\nto = [{}]\n{route}\n",
        to.join(", ")
    )
}

fn quoted(address: SocketAddr) -> String {
    format!("\"{address}\"")
}

fn to(backends: &[&Backend], route: &str) -> Gw {
    let to: Vec<String> = backends.iter().map(|backend| quoted(backend.address)).collect();
    Gw::from_toml(&text(&to, route))
}

fn endpoints(gw: &Gw) -> Vec<EndpointView> {
    gw.gateway.upstreams().remove(0).endpoints
}

fn sessions(gw: &Gw) -> Vec<u64> {
    endpoints(gw).iter().map(|endpoint| endpoint.sessions).collect()
}

fn states(gw: &Gw) -> Vec<EndpointState> {
    endpoints(gw).iter().map(|endpoint| endpoint.state).collect()
}

fn open(gw: &Gw) -> Client {
    Client::upgraded(gw.address(), "/", "raw")
}

/// An address that nobody listens on, for as long as the socket is kept.
fn nobody() -> (SocketAddr, socket2::Socket) {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None);
    let socket = socket.expect("a socket");
    let any: SocketAddr = ([127, 0, 0, 1], 0).into();
    socket.bind(&any.into()).expect("a port");
    let address = socket.local_addr().expect("bound").as_socket().expect("over TCP");
    (address, socket)
}

/// What a health check is told by a backend.
struct Health {
    address: SocketAddr,
    passes: Arc<AtomicBool>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Health {
    /// A backend that answers GET by what `passes` says, and echoes after any upgrade.
    fn start() -> Health {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("bound");
        let (passes, stop) = (Arc::new(AtomicBool::new(true)), Arc::new(AtomicBool::new(false)));
        let (answers, stopped) = (Arc::clone(&passes), Arc::clone(&stop));
        let thread = std::thread::spawn(move || {
            for socket in listener.incoming() {
                if stopped.load(Relaxed) {
                    return;
                }
                let socket = socket.expect("a connection");
                bound(&socket);
                let passes = Arc::clone(&answers);
                std::thread::spawn(move || serve(socket, &passes));
            }
        });
        Health { address, passes, stop, thread: Some(thread) }
    }
}

impl Drop for Health {
    fn drop(&mut self) {
        self.stop.store(true, Relaxed);
        let _ = std::net::TcpStream::connect(self.address);
        if let Some(thread) = self.thread.take() {
            thread.join().expect("the accept loop ends");
        }
    }
}

fn serve(socket: std::net::TcpStream, passes: &AtomicBool) {
    let mut peer = support::Peer { socket, rest: Vec::new() };
    let Some(head) = peer.try_read_head() else { return };
    if head.starts_with("GET /health ") {
        let status = if passes.load(Relaxed) { "204 No Content" } else { "503 Not Now" };
        let _ = write!(peer.socket, "HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n");
        return;
    }
    peer.grant(&head, "");
    let mut bytes = [0; 4096];
    while let Ok(read @ 1..) = peer.socket.read(&mut bytes) {
        if peer.socket.write_all(&bytes[..read]).is_err() {
            return;
        }
    }
}

#[test]
fn new_sessions_go_where_the_fewest_live_whatever_ended_before() {
    let backends = [Backend::echo(), Backend::echo(), Backend::echo()];
    let gw = to(&backends.each_ref(), "");
    let mut clients: Vec<(usize, Client)> = Vec::new();
    for at in 0..12 {
        let before = sessions(&gw);
        let client = open(&gw);
        let after = sessions(&gw);
        let grew = (0..3).find(|&at| after[at] > before[at]).expect("one has it");
        assert_eq!(before[grew], *before.iter().min().expect("three"), "session {at}");
        clients.push((grew, client));
    }
    assert_eq!(sessions(&gw), [4, 4, 4]);
    clients.retain(|(at, _)| *at != 1);
    eventually("what ended is not counted", || sessions(&gw) == [4, 0, 4]);
    let more: Vec<Client> = (0..4).map(|_| open(&gw)).collect();
    assert_eq!(sessions(&gw), [4, 4, 4]);
    let line = gw.line();
    assert_eq!(line["endpoint"], backends[1].address.to_string(), "{line}");
    drop((clients, more));
    eventually("all have ended", || sessions(&gw) == [0, 0, 0]);
    gw.stop();
    backends.into_iter().for_each(Backend::join);
}

#[test]
fn counts_are_exact_after_a_thousand_sessions_that_move_and_end_in_any_way() {
    let backends = [Backend::echo(), Backend::echo()];
    let gw = to(&backends.each_ref(), "");
    let mut random = fastrand::Rng::with_seed(24);
    let mut live: Vec<Client> = Vec::new();
    for _ in 0..1_000 {
        match random.u8(..4) {
            // One that ends in the middle of its exchange.
            0 => Client::connect(gw.address()).send("GET / HTTP/1.1\r\nHost: a\r\n"),
            _ => live.push(open(&gw)),
        }
        if live.len() > 20 {
            let client = live.swap_remove(random.usize(..live.len()));
            if random.bool() { client.reset() } else { drop(client) }
        }
        if random.u8(..10) == 0
            && let Some(session) = gw.gateway.sessions().first()
        {
            let to = Move { worker: random.usize(..2), engine: None };
            gw.gateway.move_session(&session.id, to);
        }
    }
    let all = live.len() as u64;
    eventually("each live session is counted once", || sessions(&gw).iter().sum::<u64>() == all);
    let chosen: u64 = endpoints(&gw).iter().map(|endpoint| endpoint.chosen).sum();
    assert!(gw.metrics().detached > 0, "some have moved");
    assert_eq!(chosen, gw.metrics().upgrades["switched"]);
    drop(live);
    eventually("none is left", || sessions(&gw) == [0, 0]);
    gw.stop();
    backends.into_iter().for_each(Backend::join);
}

#[test]
fn an_endpoint_that_refuses_is_left_alone_and_comes_back() {
    let backend = Backend::echo();
    let (address, socket) = nobody();
    let route = "[route.balance]\neject_after = 2\neject_for = \"200ms\"\neject_max = \"200ms\"";
    let gw = Gw::from_toml(&text(&[quoted(address), quoted(backend.address)], route));
    // Each session gets through at once, also while the endpoint still has its chances.
    let clients: Vec<Client> = (0..4).map(|_| open(&gw)).collect();
    let view = gw.gateway.upstreams().remove(0);
    assert_eq!((view.retries, view.endpoints[0].connect_failures), (2, 2), "{view:?}");
    assert_eq!(view.endpoints[0].ejections, 1);
    assert_eq!(sessions(&gw), [0, 4]);
    // It is there again: the socket that kept its port listens.
    socket.listen(16).expect("it listens");
    let accepting: TcpListener = socket.into();
    let serving = std::thread::spawn(move || {
        let (socket, _) = accepting.accept().expect("a session tries it");
        bound(&socket);
        serve(socket, &AtomicBool::new(true));
    });
    let mut more = Vec::new();
    eventually("it gets a session again", || {
        more.push(open(&gw));
        sessions(&gw)[0] > 0
    });
    assert_eq!(states(&gw), [EndpointState::Healthy; 2]);
    drop((clients, more));
    serving.join().expect("it served one");
    gw.stop();
    backend.join();
}

#[test]
fn endpoints_that_all_fail_are_tried_all_the_same() {
    let (one, other) = (nobody(), nobody());
    let route = "[route.balance]\neject_after = 1\neject_for = \"1h\"\neject_max = \"1h\"";
    let gw = Gw::from_toml(&text(&[quoted(one.0), quoted(other.0)], route));
    for retries in [1, 1, 1] {
        let answer = Client::connect(gw.address()).ask(upgrade_head("/", "raw", ""));
        let line = gw.line();
        assert_eq!((answer.status, &line["retries"]), (502, &json!(retries)), "{line}");
    }
    let view = gw.gateway.upstreams().remove(0);
    assert_eq!(states(&gw), [EndpointState::Unhealthy; 2]);
    assert_eq!((view.last_resorts, view.endpoints[0].connect_failures), (4, 3), "{view:?}");
    eventually("what failed is not counted", || sessions(&gw) == [0, 0]);
    // One of them is back, long before its time is over.
    let (address, socket) = one;
    socket.listen(16).expect("it listens");
    let accepting: TcpListener = socket.into();
    let serving = std::thread::spawn(move || {
        let (socket, _) = accepting.accept().expect("it is tried");
        bound(&socket);
        serve(socket, &AtomicBool::new(true));
    });
    let client = open(&gw);
    assert_eq!(states(&gw), [EndpointState::Healthy, EndpointState::Unhealthy], "{address}");
    drop(client);
    serving.join().expect("it served one");
    gw.stop();
}

#[test]
fn an_endpoint_whose_answers_break_the_rules_is_left_alone() {
    let broken = Backend::start(|mut peer| {
        peer.read_head();
        peer.send("nonsense\r\n\r\n");
    });
    let backend = Backend::echo();
    let route = "[route.balance]\nby = \"round_robin\"\neject_after = 2\neject_for = \"1h\"\neject_max = \"1h\"";
    let gw = to(&[&broken, &backend], route);
    let ask = || Client::connect(gw.address()).ask(upgrade_head("/", "raw", "")).status;
    // What was sent once is never sent again.
    assert_eq!([(); 6].map(|()| ask()), [502, 101, 502, 101, 101, 101]);
    let first = endpoints(&gw).remove(0);
    assert_eq!((first.answer_failures, first.connect_failures, first.ejections), (2, 0, 1));
    assert_eq!(gw.gateway.upstreams()[0].retries, 0);
    gw.stop();
    broken.join();
    backend.join();
}

#[test]
fn a_request_with_the_same_cookie_finds_the_same_endpoint_after_a_restart_and_a_loss() {
    let backends = [Backend::echo(), Backend::echo(), Backend::echo()];
    let route = "[route.balance]\nby = \"hash\"\nhash = \"cookie:sid\"";
    let find = |backends: &[&Backend]| {
        let gw = to(backends, route);
        let mut found = BTreeMap::new();
        for sid in 0..60 {
            let head = upgrade_head("/", "raw", &format!("Cookie: a=b; sid={sid}\r\n"));
            assert_eq!(Client::connect(gw.address()).ask(head).status, 101);
            let line = gw.line();
            found.insert(sid, line["endpoint"].as_str().expect("an endpoint").to_owned());
        }
        gw.stop();
        found
    };
    let [first, second, third] = backends.each_ref();
    let before = find(&[first, second, third]);
    assert_eq!(find(&[third, first, second]), before, "the order says nothing");
    let gone = second.address.to_string();
    let after = find(&[first, third]);
    let moved: Vec<i32> = (0..60).filter(|sid| before[sid] != after[sid]).collect();
    let own: Vec<i32> = (0..60).filter(|sid| before[sid] == gone).collect();
    assert_eq!(moved, own, "only those of the one that is gone have moved");
    assert!((5..40).contains(&own.len()), "{} of 60", own.len());
    backends.into_iter().for_each(Backend::join);
}

#[test]
fn a_check_that_fails_takes_an_endpoint_out_and_one_that_passes_puts_it_back() {
    let (checked, other) = (Health::start(), Health::start());
    let route = "[route.health]\npath = \"/health\"\ninterval = \"20ms\"\nrise = 2\nfall = 2";
    let gw = Gw::from_toml(&text(&[quoted(checked.address), quoted(other.address)], route));
    let held = [open(&gw), open(&gw)];
    assert_eq!(sessions(&gw), [1, 1]);
    checked.passes.store(false, Relaxed);
    eventually("it is unhealthy", || states(&gw)[0] == EndpointState::Unhealthy);
    let more: Vec<Client> = (0..4).map(|_| open(&gw)).collect();
    assert_eq!(sessions(&gw), [1, 5], "its own session stays, and no other comes");
    checked.passes.store(true, Relaxed);
    eventually("it is healthy", || states(&gw)[0] == EndpointState::Healthy);
    let new = open(&gw);
    assert_eq!(sessions(&gw), [2, 5]);
    drop((held, more, new));
    gw.stop();
}

#[test]
fn sessions_of_an_unhealthy_endpoint_end_spread_over_the_time_and_others_lose_nothing() {
    const SESSIONS: usize = 40;
    let (failing, other) = (Health::start(), Health::start());
    let route = "[route.health]\npath = \"/health\"\ninterval = \"20ms\"\nfall = 1\n\
                 on_unhealthy = \"close\"\nclose_over = \"1s\"";
    let gw = Gw::from_toml(&text(&[quoted(failing.address), quoted(other.address)], route));
    let (mut leaving, mut staying) = (Vec::new(), Vec::new());
    for _ in 0..2 * SESSIONS {
        let before = sessions(&gw)[0];
        let client = open(&gw);
        if sessions(&gw)[0] > before { leaving.push(client) } else { staying.push(client) }
    }
    assert_eq!(sessions(&gw), [SESSIONS as u64; 2]);
    let mut pattern = Pattern::new(1);
    let mut echo = |client: &mut Client| {
        let sent = pattern.take(20_000);
        client.send(&sent);
        assert!(client.receive(sent.len()) == sent, "the bytes that come back are others");
    };
    failing.passes.store(false, Relaxed);
    let (began, mut ends) = (Instant::now(), Vec::new());
    for client in &mut staying {
        let line = gw.line();
        ends.push(began.elapsed());
        assert_eq!(line["close_reason"], "endpoint_unhealthy", "{line}");
        assert_eq!((&line["side"], &line["stage"]), (&json!("proxy"), &json!("relay")), "{line}");
        assert_eq!(line["endpoint"], failing.address.to_string(), "{line}");
        echo(client);
    }
    for mut client in leaving {
        // In order or by a reset: it has an end.
        let _ = client.receive_to_end();
    }
    staying.iter_mut().for_each(&mut echo);
    assert_eq!(sessions(&gw), [0, SESSIONS as u64]);
    let (first, last) = (ends[0], ends[SESSIONS - 1]);
    assert!(last - first > std::time::Duration::from_millis(300), "{first:?} to {last:?}");
    gw.stop();
}

#[test]
fn a_name_that_leads_elsewhere_brings_new_endpoints_and_keeps_sessions() {
    let backends = [Backend::echo(), Backend::echo()];
    let addresses = backends.each_ref().map(|backend| backend.address);
    let answer = Arc::new(Mutex::new(Some(vec![addresses[0]])));
    let asked = Arc::clone(&answer);
    let look_up = move |name: &str, port: u16| {
        assert_eq!((name, port), ("app.test", 9000));
        let answer = asked.lock().expect("no panic").clone();
        answer.ok_or_else(|| std::io::Error::other("no such name"))
    };
    let resolver: Resolver = Arc::new(look_up);
    let file = text(&["\"app.test:9000\"".to_owned()], "resolve_every = \"20ms\"");
    let config = upsplice::config::from_toml_with(&file, "test.toml", &*resolver);
    let (log, _lines) = channel();
    let config = config.expect("a good configuration");
    let gateway = Gateway::start_with(config, AccessLog::Channel(log), resolver).expect("starts");
    let upsplice::server::BoundAddress::Tcp(address) = gateway.addresses()[0] else {
        panic!("over TCP");
    };
    let view = || gateway.upstreams().remove(0);
    let found =
        || view().endpoints.iter().map(|e| (e.endpoint.clone(), e.state)).collect::<Vec<_>>();
    let [one, other] = addresses.map(|address| address.to_string());
    let (healthy, draining) = (EndpointState::Healthy, EndpointState::Draining);
    let mut held = Client::upgraded(address, "/", "raw");
    assert_eq!(found(), [(one.clone(), healthy)]);

    *answer.lock().expect("no panic") = None;
    eventually("the lookup fails", || view().failed_lookups > 1);
    assert_eq!(found(), [(one.clone(), healthy)], "what it had stays");

    *answer.lock().expect("no panic") = Some(vec![addresses[1]]);
    eventually("it leads elsewhere", || found().len() == 2);
    assert_eq!(found(), [(other.clone(), healthy), (one, draining)]);
    let new = Client::upgraded(address, "/", "raw");
    assert_eq!(view().endpoints.iter().map(|e| e.sessions).collect::<Vec<_>>(), [1, 1]);
    held.send("still there");
    assert_eq!(held.receive(11), b"still there");
    drop(held);
    eventually("the last session takes it along", || found() == [(other.clone(), healthy)]);
    drop(new);
    gateway.stop_now();
    assert!(gateway.join());
    backends.into_iter().for_each(Backend::join);
}

#[test]
fn connects_come_from_the_addresses_of_the_route_in_turn() {
    let (tell, told) = channel();
    let backend = Backend::upgrading(move |peer| {
        let from = peer.socket.peer_addr().expect("connected");
        tell.send(from.ip().to_string()).expect("the test listens");
    });
    let gw = to(&[&backend], "source = [\"127.0.0.7\", \"127.0.0.8\"]");
    let mut from: Vec<String> = (0..4)
        .map(|_| {
            drop(open(&gw));
            support::backend::wait(&told)
        })
        .collect();
    from.sort();
    assert_eq!(from, ["127.0.0.7", "127.0.0.7", "127.0.0.8", "127.0.0.8"]);
    gw.stop();
    backend.join();
}

#[test]
fn an_address_that_is_not_there_is_counted_and_the_next_one_taken() {
    let backend = Backend::echo();
    // TEST-NET-1, which no machine has.
    let gw = to(&[&backend], "source = [\"192.0.2.77\", \"127.0.0.9\"]");
    let clients = [open(&gw), open(&gw), open(&gw)];
    let view = gw.gateway.upstreams().remove(0);
    assert_eq!((view.no_ports, view.endpoints[0].connect_failures), (2, 0), "{view:?}");
    assert_eq!(states(&gw), [EndpointState::Healthy]);
    drop(clients);
    gw.stop();
    backend.join();
}
