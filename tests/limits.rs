//! Limits at the door: who is over one is told so before anything is connected, and every place goes back.

mod support;

use std::io::Read;
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use serde_json::Value;
use socket2::{Domain, Socket, Type};
use support::admin::{self, Api};
use support::client::{Answer, bound, upgrade_head};
use support::process::config_to;
use support::{Backend, Client, Engine, Gw, Program, Runtime, eventually};

fn gw(backend: &Backend, gateway: &str, route: &str) -> Gw {
    Gw::with(backend, Engine::Splice, Runtime::Epoll, gateway, route)
}

/// A client at `from`, an address of loopback.
fn client_at(from: &str, to: SocketAddr) -> Client {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
    let from = SocketAddr::new(from.parse::<IpAddr>().expect("an address"), 0);
    socket.bind(&from.into()).expect("all of 127/8 is ours");
    socket.connect(&to.into()).expect("the gateway accepts");
    let socket = TcpStream::from(socket);
    bound(&socket);
    Client { socket }
}

fn asked(mut client: Client, extra: &str) -> (Client, Answer) {
    let answer = client.ask(upgrade_head("/", "raw", extra));
    (client, answer)
}

/// An upgrade that must come about.
fn joined(gw: &Gw) -> Client {
    Client::upgraded(gw.address(), "/", "raw")
}

/// Fails unless the answer refuses for this reason, which the log has to know as well.
fn assert_refused(gw: &Gw, (client, answer): (Client, Answer), status: u16, reason: &str) {
    assert_eq!(answer.status, status, "{}", answer.head);
    let seconds = answer.field("retry-after").and_then(|seconds| seconds.parse::<u32>().ok());
    assert!(seconds.is_some_and(|seconds| (1..=5).contains(&seconds)), "{}", answer.head);
    drop(client);
    let line = line_of(gw, reason);
    assert_eq!((&line["side"], &line["stage"]), (&"proxy".into(), &"request".into()), "{line}");
    assert_eq!((&line["status"], &line["endpoint"]), (&status.into(), &Value::Null), "{line}");
}

/// The next line with this reason; those of sessions that ended meanwhile are left out.
fn line_of(gw: &Gw, reason: &str) -> Value {
    loop {
        let line = gw.line();
        if line["close_reason"] == reason {
            return line;
        }
    }
}

/// Asks until there is room again: a place is given back a moment after its client has left.
fn joined_at_last(gw: &Gw) -> Client {
    let mut found = None;
    eventually("there is room again", || {
        let (client, answer) = asked(Client::connect(gw.address()), "");
        found = (answer.status == 101).then_some(client);
        found.is_some()
    });
    found.expect("it was found")
}

/// A sample of `/metrics`.
fn sample(api: &Api, name: &str) -> Option<f64> {
    let page = api.ask("GET", "/metrics").body;
    let line =
        page.lines().find(|line| line.strip_prefix(name).is_some_and(|l| l.starts_with(' ')));
    line.map(|line| line.rsplit(' ').next().expect("a value").parse().expect("a number"))
}

#[test]
fn one_session_too_many_is_told_503_by_whichever_worker_before_anything_is_connected() {
    let connected = Arc::new(AtomicUsize::default());
    let counter = Arc::clone(&connected);
    let backend = Backend::upgrading(move |mut peer| {
        counter.fetch_add(1, Relaxed);
        let _ = peer.receive_to_end();
    });
    let (line, api) = admin::unix();
    let limits = format!("workers = 4\n{line}\n[gateway.limits]\nsessions = 5");
    let gw = gw(&backend, &limits, "");
    let mut sessions: Vec<Client> = (0..5).map(|_| joined(&gw)).collect();
    for _ in 0..8 {
        let refused = asked(Client::connect(gw.address()), "");
        assert_refused(&gw, refused, 503, "limit_sessions");
    }
    assert_eq!(connected.load(Relaxed), 5);
    assert_eq!(sample(&api, "upsplice_limit_used{limit=\"sessions\"}"), Some(5.0));
    assert_eq!(sample(&api, "upsplice_limit_max{limit=\"sessions\"}"), Some(5.0));
    assert_eq!(sample(&api, "upsplice_limit_refusals_total{limit=\"sessions\"}"), Some(8.0));
    sessions.pop().expect("a session").reset();
    sessions.push(joined_at_last(&gw));
    let refused = asked(Client::connect(gw.address()), "");
    assert_refused(&gw, refused, 503, "limit_sessions");
    drop(sessions);
    eventually("all places are free", || {
        sample(&api, "upsplice_limit_used{limit=\"sessions\"}") == Some(0.0)
    });
    gw.stop();
    backend.join();
}

#[test]
fn a_route_that_is_full_leaves_room_on_others() {
    let backend = Backend::echo();
    let other = format!(
        "[route.limits]\nsessions = 1\n[[route]]\nname = \"other\"\npath = \"/other\"\n\
         protocols = [\"any\"]\nto = [\"{}\"]",
        backend.address
    );
    let gw = gw(&backend, "", &other);
    let first = joined(&gw);
    assert_refused(&gw, asked(Client::connect(gw.address()), ""), 503, "limit_route_sessions");
    let second = Client::upgraded(gw.address(), "/other", "raw");
    drop((first, second));
    drop(joined_at_last(&gw));
    gw.stop();
    backend.join();
}

#[test]
fn a_client_that_has_enough_is_told_429_and_others_are_not() {
    let backend = Backend::echo();
    let gw = gw(&backend, "workers = 2\n[gateway.limits.client]\nsessions = 2", "");
    let sessions = [joined(&gw), joined(&gw)];
    assert_refused(&gw, asked(Client::connect(gw.address()), ""), 429, "limit_client_sessions");
    let (other, answer) = asked(client_at("127.0.0.2", gw.address()), "");
    assert_eq!(answer.status, 101);
    // What it says of itself is not believed.
    let lies = asked(Client::connect(gw.address()), "X-Forwarded-For: 192.0.2.1\r\n");
    assert_refused(&gw, lies, 429, "limit_client_sessions");
    drop((sessions, other));
    drop(joined_at_last(&gw));
    gw.stop();
    backend.join();
}

#[test]
fn a_client_behind_a_trusted_proxy_is_the_one_that_the_proxy_names() {
    let backend = Backend::echo();
    let limits = "trusted_proxies = [\"127.0.0.1\"]\n[gateway.limits.client]\nsessions = 1";
    let gw = gw(&backend, limits, "");
    let named = |client: &str| {
        let extra = format!("X-Forwarded-For: {client}\r\n");
        asked(Client::connect(gw.address()), &extra)
    };
    let first = named("192.0.2.1");
    let second = named("2001:db8::1");
    assert_eq!((first.1.status, second.1.status), (101, 101));
    assert_refused(&gw, named("192.0.2.9, 192.0.2.1"), 429, "limit_client_sessions");
    assert_refused(&gw, named("2001:db8::abcd:1"), 429, "limit_client_sessions");
    assert_eq!(named("2001:db8:0:1::1").1.status, 101, "another network");
    // The proxy for itself is no client.
    let own = [joined(&gw), joined(&gw)];
    drop((first, second, own));
    gw.stop();
    backend.join();
}

#[test]
fn a_local_proxy_that_nobody_trusts_is_told_once() {
    let backend = Backend::echo();
    let config = config_to(backend.address, "", "");
    let mut program = Program::start(&config);
    let extra = "X-Forwarded-For: 192.0.2.1\r\n";
    for _ in 0..3 {
        assert_eq!(asked(Client::connect(program.address()), extra).1.status, 101);
    }
    let told = program.diagnostic_with("trusted_proxies");
    assert!(told.contains("127.0.0.1 names clients"), "{told}");
    program.signal("TERM");
    let rest = program.diagnostics_to_end();
    assert!(!rest.contains("trusted_proxies"), "{rest}");
    assert_eq!(program.exit_code(), Some(0));
    backend.join();
}

#[test]
fn handshakes_that_come_too_fast_wait_as_long_as_they_are_told() {
    let backend = Backend::echo();
    // So slow that no test is long enough for one more.
    let slow = "handshakes_per_second = 1\nhandshakes_burst = ";
    for (gateway, route, status, reason) in [
        (format!("[gateway.limits]\n{slow}3"), String::new(), 503, "limit_handshakes"),
        (String::new(), format!("[route.limits]\n{slow}3"), 503, "limit_route_handshakes"),
        (
            format!("[gateway.limits.client]\n{slow}3"),
            String::new(),
            429,
            "limit_client_handshakes",
        ),
    ] {
        let gw = gw(&backend, &format!("workers = 2\n{gateway}"), &route);
        let mut refused = None;
        let granted = (0..30)
            .take_while(|_| {
                let (client, answer) = asked(Client::connect(gw.address()), "");
                let is_granted = answer.status == 101;
                refused = (!is_granted).then_some((client, answer));
                is_granted
            })
            .count();
        // One for each second that the test took, too.
        assert!((3..30).contains(&granted), "{reason}: {granted}");
        assert_refused(&gw, refused.expect("the bucket is empty"), status, reason);
        drop(joined_at_last(&gw));
        gw.stop();
    }
    backend.join();
}

#[test]
fn a_client_that_connects_and_asks_nothing_is_stopped_at_its_limit() {
    let backend = Backend::echo();
    let limits = "workers = 2\n[gateway.limits.client]\nexchanges = 2";
    let gw = gw(&backend, limits, "");
    let mut session = joined(&gw);
    let idle: Vec<Client> = (0..2).map(|_| Client::connect(gw.address())).collect();
    // Accepted before the next one, or at the same moment by another worker: then one of the three is refused.
    eventually("they are accepted", || gw.metrics().accepted == 3);
    let mut late = Client::connect(gw.address());
    let answer = late.answer();
    assert_refused(&gw, (late, answer), 429, "limit_client_exchanges");
    let (other, answer) = asked(client_at("127.0.0.2", gw.address()), "");
    assert_eq!(answer.status, 101);
    session.send(b"still here");
    assert_eq!(session.receive(10), b"still here");
    drop((idle, other));
    drop(joined_at_last(&gw));
    gw.stop();
    backend.join();
}

#[test]
fn connections_that_ask_nothing_are_limited_all_together_as_well() {
    let backend = Backend::echo();
    let gw = gw(&backend, "[gateway.limits]\nexchanges = 2", "");
    let mut idle: Vec<Client> = (0..2).map(|_| Client::connect(gw.address())).collect();
    eventually("they are accepted", || gw.metrics().accepted == 2);
    let mut late = Client::connect(gw.address());
    let answer = late.answer();
    assert_refused(&gw, (late, answer), 503, "limit_exchanges");
    // One that becomes a session has ended its exchange.
    let answer = idle[0].ask(upgrade_head("/", "raw", ""));
    assert_eq!(answer.status, 101);
    drop(joined_at_last(&gw));
    gw.stop();
    backend.join();
}

#[test]
fn a_place_goes_back_after_every_kind_of_end() {
    let backend = Backend::upgrading(|mut peer| {
        let mut word = [0];
        if peer.socket.read(&mut word).is_ok_and(|read| read == 1) {
            peer.reset();
        }
    });
    let routes = "[route.limits]\nsessions = 1\n[route.timeouts]\nidle = \"200ms\"\nhandshake = \"300ms\"\n\
         [[route]]\nname = \"refused\"\npath = \"/refused\"\nprotocols = [\"any\"]\nto = [\"127.0.0.1:1\"]";
    let limits = "[gateway.limits]\nsessions = 1\nexchanges = 1";
    let gw = gw(&backend, limits, routes);
    // The backend's reset.
    joined_at_last(&gw).send(b"r");
    // The client's.
    joined_at_last(&gw).reset();
    // The idle timer.
    assert!(joined_at_last(&gw).receive_to_end().is_ok());
    // An upstream that is not there.
    eventually("the upstream is asked for", || {
        let mut client = Client::connect(gw.address());
        client.ask(upgrade_head("/refused", "raw", "")).status == 502
    });
    // A request that asks for no session, and one that never comes.
    let mut client = Client::connect(gw.address());
    let _ = client.ask("GET /nothing HTTP/1.1\r\nHost: h\r\n\r\n");
    drop(client);
    let mut late = Client::connect(gw.address());
    let _ = late.answer();
    drop(late);
    drop(joined_at_last(&gw));
    gw.stop();
    backend.join();
}

#[test]
fn a_reload_changes_limits_and_forgets_no_session() {
    let backend = Backend::echo();
    let text = |sessions: u32| {
        format!(
            "[gateway]\nworkers = 1\nruntime = \"epoll\"\n[[listener]]\naddress = \"127.0.0.1:0\"\n\
             [[route]]\nname = \"test\"\nprotocols = [\"any\"]\nto = [\"{}\"]\n[route.limits]\nsessions = {sessions}\n",
            backend.address
        )
    };
    let gw = Gw::from_toml(&text(2));
    let sessions = [joined(&gw), joined(&gw)];
    let follow = |sessions| {
        let config = upsplice::config::from_toml(&text(sessions), "test.toml").expect("it is good");
        gw.gateway.follow(config).expect("it is taken up");
    };
    follow(3);
    let third = joined(&gw);
    assert_refused(&gw, asked(Client::connect(gw.address()), ""), 503, "limit_route_sessions");
    follow(1);
    drop(sessions);
    assert_refused(&gw, asked(Client::connect(gw.address()), ""), 503, "limit_route_sessions");
    drop(third);
    drop(joined_at_last(&gw));
    gw.stop();
    backend.join();
}

#[test]
fn accepting_pauses_before_descriptors_run_out_and_the_operator_is_answered_all_the_time() {
    let backend = Backend::echo();
    let (line, api) = admin::unix();
    let (program, folder) = support::process::command(&config_to(backend.address, &line, ""));
    let mut shell = Command::new("sh");
    // The shell lowers both limits, so the program cannot raise its own.
    shell.arg("-c").arg("ulimit -n 64 && exec \"$0\" \"$@\"").arg(program.get_program());
    shell.args(program.get_args());
    let mut program = Program::from_command(&mut shell, 1, folder);
    let clients: Vec<Client> = (0..60).map(|_| Client::connect(program.address())).collect();
    program.diagnostic_with("accepting pauses");
    for _ in 0..20 {
        assert_eq!(sample(&api, "upsplice_accept_pauses_total"), Some(1.0));
    }
    assert_eq!(sample(&api, "upsplice_accept_backoffs_total"), Some(0.0), "there are some left");
    let open = sample(&api, "upsplice_connections_open").expect("a gauge");
    assert!((2.0..30.0).contains(&open), "{open} connections with 64 descriptors");
    // Those that were let in can all be served at once.
    let mut clients = clients.into_iter();
    let mut sessions: Vec<Client> = clients.by_ref().take(open as usize).collect();
    for session in &mut sessions {
        assert_eq!(session.ask(upgrade_head("/", "raw", "")).status, 101);
    }
    for session in &mut sessions {
        session.send(b"ping");
        assert_eq!(session.receive(4), b"ping");
    }
    drop(sessions);
    // Those who waited in the backlog come in now.
    for mut client in clients {
        assert_eq!(client.ask(upgrade_head("/", "raw", "")).status, 101);
    }
    program.diagnostic_with("accepting goes on");
    program.signal("TERM");
    assert_eq!(program.exit_code(), Some(0));
    backend.join();
}
