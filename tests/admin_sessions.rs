//! Live sessions as the operator sees and ends them, and what the counters say meanwhile.

#[path = "support/joined.rs"]
mod joined;
mod support;

use std::collections::BTreeSet;
use std::io::{ErrorKind, Read, Write};

use joined::{Door, Joined, Leg, open};
use serde_json::json;
use support::admin::{Api, unix};
use support::frames::{BINARY, CLOSE, Inspected, TEXT, code, ours, receive, theirs};
use support::{Engine, Gw, Runtime, eventually};

contract!(
    a_session_is_listed_with_its_live_bytes_and_engine,
    a_paused_direction_and_a_half_closed_session_are_told,
    a_killed_session_ends_for_both_and_its_line_says_so,
);

fn joined(engine: Engine, runtime: Runtime) -> (Joined, Api) {
    let (line, api) = unix();
    (Joined::with(engine, runtime, &line), api)
}

fn exchange(joined: &mut Joined, bytes: usize) {
    let payload = vec![7; bytes];
    for (from, to) in
        [(&joined.client.socket, &joined.peer.socket), (&joined.peer.socket, &joined.client.socket)]
    {
        let (mut from, mut to) = (from, to);
        from.write_all(&payload).expect("sent");
        to.read_exact(&mut vec![0; bytes]).expect("it comes");
    }
}

fn a_session_is_listed_with_its_live_bytes_and_engine(engine: Engine, runtime: Runtime) {
    let (mut joined, api) = joined(engine, runtime);
    exchange(&mut joined, 1000);
    let [session] = &api.sessions("")[..] else { panic!("one session") };
    assert_eq!((&session["bytes_in"], &session["bytes_out"]), (&1000.into(), &1000.into()));
    let port = joined.client.socket.local_addr().expect("connected").port();
    for (key, value) in [
        ("route", json!("test")),
        ("mode", json!("zero-copy")),
        ("client_addr", json!("127.0.0.1")),
        ("client_port", json!(port)),
        ("paused", json!([])),
        ("half_closed", json!(false)),
        ("worker", json!(0)),
    ] {
        assert_eq!(session[key], value, "{key}: {session}");
    }
    if engine != Engine::Auto {
        let word = engine.word();
        let both = json!({"to_upstream": word, "to_downstream": word});
        assert_eq!(session["engine"], both, "{session}");
    }
    exchange(&mut joined, 500);
    let id = session["id"].as_str().expect("an id");
    let shown = api.get(&format!("/v1/sessions/{id}"));
    assert_eq!(shown["bytes_in"], 1500, "{shown}");
    assert_eq!((&shown["upgrade"], &shown["mode_by"]), (&"raw".into(), &"configured".into()));
    assert_eq!(shown["directions"]["to_upstream"]["given"], 1500, "{shown}");
    assert!(shown["endpoint"].as_str().is_some_and(|text| text.starts_with("127.0.0.1:")));
    joined.completed(engine);
}

fn a_paused_direction_and_a_half_closed_session_are_told(engine: Engine, runtime: Runtime) {
    let (joined, api) = joined(engine, runtime);
    joined.client.socket.set_nonblocking(true).expect("a socket");
    // Until nobody takes any more.
    eventually("the session is paused", || {
        while (&joined.client.socket).write(&[0; 1 << 16]).is_ok() {}
        api.sessions("")[0]["paused"] == json!(["to_upstream"])
    });
    joined.peer.socket.shutdown(std::net::Shutdown::Write).expect("it is open");
    eventually("one side has ended", || api.sessions("")[0]["half_closed"] == true);
    let text = api.ask("GET", "/metrics").body;
    let paused = "upsplice_backpressure_paused_total{direction=\"to_upstream\"} ";
    assert!(metric(&text, paused) >= 1.0, "{text}");
    joined.ended_any();
}

fn a_killed_session_ends_for_both_and_its_line_says_so(engine: Engine, runtime: Runtime) {
    let (mut joined, api) = joined(engine, runtime);
    exchange(&mut joined, 10);
    let id = api.sessions("")[0]["id"].as_str().expect("an id").to_owned();
    let reply = api.ask("DELETE", &format!("/v1/sessions/{id}"));
    assert_eq!((reply.status, &reply.json()["killed"]), (202, &1.into()), "{reply:?}");
    let Joined { gw, client, peer, door: _door } = joined;
    for mut socket in [client.socket, peer.socket] {
        let mut rest = Vec::new();
        match socket.read_to_end(&mut rest) {
            Ok(_) => {}
            Err(error) => assert_eq!(error.kind(), ErrorKind::ConnectionReset),
        }
        assert!(rest.is_empty());
    }
    let line = gw.line();
    assert_eq!((&line["close_reason"], &line["side"]), (&"killed".into(), &"proxy".into()));
    assert_eq!(line["session_id"], id);
    api.ask("DELETE", &format!("/v1/sessions/{id}")).refused(404, "no session");
    gw.stop();
}

/// A gateway with two routes and two workers, and sessions on both routes.
fn crowd(api_line: &str, sessions: usize) -> (Gw, Door, Vec<(support::Client, support::Peer)>) {
    let door = Door::new(Leg::V4);
    let text = door.config(Leg::V4, Engine::Copy, Runtime::Epoll, api_line);
    let text = text.replace("workers = 1", "workers = 2");
    let other = text.split("[[route]]").nth(1).expect("a route");
    let other =
        other.replace("\"test\"", "\"other\"").replace("protocols", "path = \"/o\"\nprotocols");
    let gw = Gw::from_toml(&format!("{text}\n[[route]]{other}"));
    let open = (0..sessions).map(|_| open(&gw, &door)).collect();
    (gw, door, open)
}

#[test]
fn pages_hold_every_session_once_however_small_they_are() {
    let (line, api) = unix();
    let (gw, _door, open) = crowd(&format!("{line}\nbalance = false"), 150);
    for limit in [1, 7, 64, 65, 149, 150, 1000] {
        let (mut found, mut cursor, mut asked) = (Vec::new(), String::new(), 0);
        loop {
            let page = api.get(&format!("/v1/sessions?limit={limit}{cursor}"));
            let sessions = page["sessions"].as_array().expect("a list");
            assert!(sessions.len() <= limit);
            found.extend(sessions.iter().map(|session| session["id"].to_string()));
            asked += 1;
            match page["cursor"].as_str() {
                Some(next) => cursor = format!("&cursor={next}"),
                None => break,
            }
        }
        let distinct: BTreeSet<_> = found.iter().collect();
        assert_eq!((found.len(), distinct.len()), (150, 150), "pages of {limit}");
        assert!(asked <= 150 / limit + 3, "{asked} pages of {limit}");
    }
    drop(open);
    gw.stop();
}

#[test]
fn sessions_are_chosen_by_what_is_known_of_them() {
    let (line, api) = unix();
    let (gw, _door, mut open) = crowd(&line, 3);
    let (client, peer) = &mut open[0];
    client.send([0; 2000]);
    peer.socket.read_exact(&mut [0; 2000]).expect("it comes");
    let count = |query: &str| api.sessions(query).len();
    let endpoint = api.sessions("")[0]["endpoint"].as_str().expect("one").to_owned();
    for (query, expected) in [
        ("route=test", 3),
        ("route=other", 0),
        ("mode=zero-copy", 3),
        ("mode=inspect", 0),
        ("engine=copy", 3),
        ("engine=splice", 0),
        ("client=127.0.0.1", 3),
        ("client=127.0.0.0%2f8", 3),
        ("client=10.0.0.0/8", 0),
        ("min_bytes=2000", 1),
        ("min_bytes=2001", 0),
        ("min_age=0", 3),
        ("min_age=1h", 0),
        ("route=test&min_bytes=1KiB&engine=copy", 1),
        (&format!("endpoint={endpoint}"), 3),
        ("endpoint=127.0.0.1:1", 0),
    ] {
        assert_eq!(count(query), expected, "{query}");
    }
    let routes = api.get("/v1/routes");
    let [test, other] = &routes["routes"].as_array().expect("a list")[..] else { panic!("two") };
    assert_eq!((&test["name"], &test["sessions_open"]), (&"test".into(), &3.into()), "{test}");
    assert_eq!((&other["path"], &other["sessions_open"]), (&"/o".into(), &0.into()), "{other}");
    drop(open);
    gw.stop();
}

#[test]
fn many_are_killed_at_a_rate_and_those_that_were_not_chosen_stay() {
    let (line, api) = unix();
    let (gw, _door, mut open) = crowd(&line, 20);
    let (client, peer) = &mut open[0];
    client.send([0; 2000]);
    peer.socket.read_exact(&mut [0; 2000]).expect("it comes");
    let reply = api.ask("DELETE", "/v1/sessions?route=other&rate=1");
    assert_eq!((reply.status, &reply.json()["killed"]), (202, &0.into()), "{reply:?}");
    let reply = api.ask("DELETE", "/v1/sessions?min_bytes=2000");
    assert_eq!((reply.status, &reply.json()["killed"]), (202, &1.into()), "{reply:?}");
    assert_eq!(gw.line()["bytes_in"], 2000);
    let reply = api.ask("DELETE", "/v1/sessions?all=true&rate=100/s&jitter=100ms");
    let told = reply.json();
    assert_eq!((reply.status, &told["killed"]), (202, &19.into()), "{reply:?}");
    assert!((told["seconds"].as_f64().expect("a number") - 0.28).abs() < 1e-9, "{told}");
    for _ in 0..19 {
        assert_eq!(gw.line()["close_reason"], "killed");
    }
    assert!(api.sessions("").is_empty());
    gw.stop();
}

#[test]
fn a_session_is_killed_where_it_has_moved_to() {
    let (line, api) = unix();
    let (gw, _door, open) = crowd(&format!("{line}\nbalance = false"), 1);
    let session = &api.sessions("")[0];
    let id = session["id"].as_str().expect("an id");
    let to = 1 - session["worker"].as_u64().expect("a number") as usize;
    eventually("it takes the order", || {
        gw.gateway.move_session(id, upsplice::server::Move { worker: to, engine: None })
    });
    eventually("it is there", || api.sessions("").iter().any(|session| session["worker"] == to));
    assert_eq!(api.ask("DELETE", &format!("/v1/sessions/{id}")).status, 202);
    let line = gw.line();
    assert_eq!((&line["close_reason"], &line["worker"]), (&"killed".into(), &to.into()));
    drop(open);
    gw.stop();
}

/// An inspected session whose gateway has an admin API.
fn inspected(route: &str) -> (Inspected, Api) {
    let (line, api) = unix();
    (Inspected::with_gateway(Engine::Splice, &line, route), api)
}

#[test]
fn an_inspected_session_that_is_killed_is_told_with_a_close_first() {
    let (mut session, api) = inspected("");
    let [shown] = &api.sessions("mode=inspect")[..] else { panic!("one session") };
    let id = shown["id"].as_str().expect("an id");
    assert_eq!(api.get(&format!("/v1/sessions/{id}"))["inspect"], "frames");
    assert_eq!(api.ask("DELETE", &format!("/v1/sessions/{id}")).status, 202);
    for socket in [&mut session.client, &mut session.server] {
        assert_eq!(receive(socket).expect("a close").code(), 1001);
    }
    let (gw, line) = session.line();
    assert_eq!((&line["close_reason"], &line["mode"]), (&"killed".into(), &"inspect".into()));
    gw.stop();
}

/// The value of the metric whose line begins with this.
fn metric(text: &str, begin: &str) -> f64 {
    let value = text.lines().find_map(|line| line.strip_prefix(begin));
    let value = value.unwrap_or_else(|| panic!("no {begin:?} in\n{text}"));
    value.parse().unwrap_or_else(|_| panic!("{begin:?} has {value:?}"))
}

#[test]
fn metrics_are_live_and_histograms_keep_handshakes_from_sessions() {
    let (mut session, api) = inspected("inspect = \"payload\"");
    session.client.write_all(&ours(TEXT, "hello")).expect("sent");
    session.client.write_all(&ours(BINARY, [0; 100])).expect("sent");
    for _ in 0..2 {
        receive(&mut session.server).expect("it comes");
    }
    let page = api.ask("GET", "/metrics");
    assert!(page.head.contains("content-type: application/openmetrics-text; version=1.0.0"));
    let text = page.body;
    let sort = "{route=\"test\",mode=\"inspect\",protocol=\"websocket\"} ";
    for (begin, expected) in [
        (&*format!("upsplice_sessions_open{sort}"), 1.0),
        ("upsplice_connections_open ", 1.0),
        ("upsplice_upgrades_total{result=\"switched\"} ", 1.0),
        ("upsplice_ws_messages_total{direction=\"to_upstream\",opcode=\"text\"} ", 1.0),
        ("upsplice_ws_frames_total{direction=\"to_upstream\",opcode=\"binary\"} ", 1.0),
        ("upsplice_ws_frame_bytes_total{direction=\"to_upstream\",opcode=\"binary\"} ", 100.0),
        ("upsplice_ws_message_size_bytes_sum{direction=\"to_upstream\"} ", 105.0),
        ("upsplice_ws_message_size_bytes_bucket{le=\"64.0\",direction=\"to_upstream\"} ", 1.0),
        ("upsplice_ws_message_size_bytes_bucket{le=\"+Inf\",direction=\"to_upstream\"} ", 2.0),
        ("upsplice_handshake_duration_seconds_count{route=\"test\",protocol=\"websocket\"} ", 1.0),
        ("upsplice_session_duration_seconds_count{route=\"test\",mode=\"inspect\"} ", 0.0),
        ("upsplice_drain_active ", 0.0),
    ] {
        assert!((metric(&text, begin) - expected).abs() < 1e-9, "{begin}{expected}\n{text}");
    }
    let bytes = "upsplice_bytes_total{route=\"test\",direction=\"to_upstream\",engine=\"copy\"} ";
    // They are counted when they have been sent, which the server may know sooner.
    eventually("bytes count before the session ends", || {
        metric(&api.ask("GET", "/metrics").body, bytes) >= 105.0
    });
    assert!(metric(&text, "process_resident_memory_bytes ") > 1e6);
    session.server.write_all(&theirs(CLOSE, code(1000, ""))).expect("sent");
    receive(&mut session.client).expect("a close");
    session.client.write_all(&ours(CLOSE, code(1000, ""))).expect("sent");
    receive(&mut session.server).expect("a close");
    let (gw, _) = session.line();
    let text = api.ask("GET", "/metrics").body;
    for (begin, expected) in [
        (format!("upsplice_sessions_open{sort}"), 0.0),
        (
            "upsplice_sessions_total{route=\"test\",mode=\"inspect\",protocol=\"websocket\",\
             close_reason=\"completed\"} "
                .to_owned(),
            1.0,
        ),
        ("upsplice_ws_close_total{code=\"1000\",from=\"upstream\"} ".to_owned(), 1.0),
        (
            "upsplice_session_duration_seconds_count{route=\"test\",mode=\"inspect\"} ".to_owned(),
            1.0,
        ),
    ] {
        assert!((metric(&text, &begin) - expected).abs() < 1e-9, "{begin}{expected}\n{text}");
    }
    gw.stop();
}

#[test]
fn no_client_can_add_a_label() {
    let (line, api) = unix();
    let gw = Gw::from_toml(&format!(
        "[gateway]\nworkers = 1\n{line}\n[[listener]]\naddress = \"127.0.0.1:0\"\n\
         [[route]]\nname = \"test\"\npath = \"/chat\"\nto = [\"127.0.0.1:9\"]\n"
    ));
    let ask = |at: usize, path: &str| {
        let mut client = support::Client::connect(gw.address());
        client.send(format!(
            "GET {path}/{at} HTTP/1.1\r\nHost: h{at}\r\nUser-Agent: a{at}\r\nConnection: upgrade\r\n\
             Upgrade: token{at}\r\n\r\n"
        ));
        assert!([404, 426].contains(&client.answer().status));
        drop(client);
        gw.line();
    };
    let series = || api.ask("GET", "/metrics").body.lines().count();
    ask(0, "/chat");
    ask(0, "");
    let before = series();
    for at in 1..20 {
        ask(at, "/chat");
        ask(at, "");
    }
    assert_eq!(series(), before);
    let text = api.ask("GET", "/metrics").body;
    let refused = "upsplice_upgrade_failures_total{route=\"test\",reason=\"refused\"} ";
    let unrouted = "upsplice_upgrade_failures_total{route=\"\",reason=\"no_route\"} ";
    assert_eq!((metric(&text, refused), metric(&text, unrouted)), (20.0, 20.0), "{text}");
    gw.stop();
}
