//! Drain: sessions that are told to leave, and what takes no new ones meanwhile.

#[path = "support/joined.rs"]
mod joined;
mod support;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::mpsc::{Receiver, channel};
use std::thread;

use joined::Joined;
use serde_json::Value;
use support::admin::{Api, unix};
use support::client::upgrade_head;
use support::frames::{Inspected, code, ours, receive, theirs};
use support::{Backend, Client, Engine, Gw, Pattern, Peer, Runtime, eventually};
use upsplice::server::Move;

contract!(
    an_opaque_session_gets_what_came_before_and_the_ends_of_both_sides,
    what_comes_after_the_end_is_thrown_away_and_counted,
    who_reads_slowly_gets_the_rest_of_what_was_taken,
    who_never_closes_is_reset_after_the_deadline,
    a_session_that_leaves_goes_on_leaving_where_it_moves_to,
);

const CLOSE: u8 = 8;
const TEXT: u8 = 1;

fn drain(api: &Api, query: &str) -> Value {
    let reply = api.ask("POST", &format!("/v1/drain?{query}"));
    assert_eq!(reply.status, 202, "{reply:?}");
    reply.json()
}

fn undo(api: &Api, query: &str) {
    let reply = api.ask("DELETE", &format!("/v1/drain?{query}"));
    assert_eq!(reply.status, 200, "{reply:?}");
}

/// A session of one gateway with an admin API.
fn joined(engine: Engine, runtime: Runtime) -> (Joined, Api) {
    let (line, api) = unix();
    (Joined::with(engine, runtime, &line), api)
}

fn assert_drained(line: &Value) {
    let found = [&line["close_reason"], &line["side"], &line["stage"]];
    assert_eq!(found, ["drained", "proxy", "relay"], "{line}");
}

fn an_opaque_session_gets_what_came_before_and_the_ends_of_both_sides(
    engine: Engine,
    runtime: Runtime,
) {
    let (joined, api) = joined(engine, runtime);
    let Joined { gw, mut client, mut peer, door: _door } = joined;
    client.send(b"to the backend");
    peer.send(b"to the client");
    let told = drain(&api, "route=test&over=0");
    assert_eq!([&told["what"], &told["route"]], ["route", "test"], "{told}");
    assert_eq!(peer.receive_to_end().expect("an end, no reset"), b"to the backend");
    assert_eq!(client.receive_to_end().expect("an end, no reset"), b"to the client");
    drop((client, peer));
    let line = gw.line();
    assert_drained(&line);
    assert_eq!((&line["bytes_in"], &line["bytes_out"]), (&14.into(), &13.into()), "{line}");
    let now = api.get("/v1/drain")["drains"][0].clone();
    assert_eq!((&now["closed"], &now["left"], &now["done"]), (&1.into(), &0.into(), &true.into()));
    gw.stop();
}

fn what_comes_after_the_end_is_thrown_away_and_counted(engine: Engine, runtime: Runtime) {
    let (joined, api) = joined(engine, runtime);
    let Joined { gw, mut client, mut peer, door: _door } = joined;
    drain(&api, "route=test&over=0&deadline=1h");
    assert_eq!(client.receive_to_end().expect("an end"), b"");
    assert_eq!(peer.receive_to_end().expect("an end"), b"");
    for _ in 0..100 {
        // Written on a socket that was reset this would fail.
        client.send([7; 1000]);
        peer.send([8; 10]);
    }
    client.shutdown_write();
    peer.shutdown_write();
    let line = gw.line();
    assert_drained(&line);
    assert_eq!((&line["bytes_in"], &line["bytes_out"]), (&100_000.into(), &0.into()), "{line}");
    assert_eq!(line["bytes_discarded"], 101_000, "{line}");
    gw.stop();
}

fn who_reads_slowly_gets_the_rest_of_what_was_taken(engine: Engine, runtime: Runtime) {
    let (joined, api) = joined(engine, runtime);
    let Joined { gw, mut client, mut peer, door: _door } = joined;
    let sending = thread::spawn(move || {
        let mut pattern = Pattern::new(5);
        // Ends with a failure once the gateway has closed.
        while peer.socket.write_all(&pattern.take(64 << 10)).is_ok() {}
    });
    eventually("the client's window is full", || gw.metrics().paused["to_downstream"] > 0);
    drain(&api, "route=test&over=0&deadline=15s");
    let read = client.receive_to_end().expect("an end, no reset");
    Pattern::new(5).check(&read);
    drop(client);
    // The peer never stops: it is reset after the deadline, unless its socket is gone before.
    gw.gateway.stop_now();
    let line = gw.line();
    assert_drained(&line);
    assert_eq!(line["bytes_out"], read.len(), "{line}");
    sending.join().expect("no panic");
    gw.stop();
}

fn who_never_closes_is_reset_after_the_deadline(engine: Engine, runtime: Runtime) {
    let (joined, api) = joined(engine, runtime);
    let Joined { gw, mut client, mut peer, door: _door } = joined;
    drain(&api, "route=test&over=0&deadline=50ms");
    assert_eq!(client.receive_to_end().expect("an end first"), b"");
    assert_eq!(peer.receive_to_end().expect("an end first"), b"");
    assert_drained(&gw.line());
    for socket in [&client.socket, &peer.socket] {
        eventually("it is reset", || socket.take_error().expect("an answer").is_some());
    }
    gw.stop();
}

fn a_session_that_leaves_goes_on_leaving_where_it_moves_to(engine: Engine, runtime: Runtime) {
    let (line, api) = unix();
    let door = joined::Door::new(joined::Leg::V4);
    let text = door.config(joined::Leg::V4, engine, runtime, &line);
    let text = text.replace("workers = 1", "workers = 2\nbalance = false");
    let joined = Joined::in_gateway(Gw::from_toml(&text), door);
    let Joined { gw, mut client, mut peer, door: _door } = joined;
    let id = api.sessions("")[0]["id"].as_str().expect("an id").to_owned();
    drain(&api, "route=test&over=0&deadline=1h");
    assert_eq!(client.receive_to_end().expect("an end"), b"");
    for worker in [0, 1, 0, 1] {
        let to = Move { worker, engine: Some(upsplice::metrics::Engine::Splice) };
        eventually("it is there", || gw.gateway.move_session(&id, to));
    }
    drop(client);
    assert_eq!(peer.receive_to_end().expect("an end"), b"");
    drop(peer);
    assert_drained(&gw.line());
    gw.stop();
}

/// A gateway in which sessions are told with a Close.
fn inspected(engine: Engine) -> (Inspected, Api) {
    let (line, api) = unix();
    (Inspected::with_gateway(engine, &line, ""), api)
}

#[test]
fn an_inspected_session_is_told_on_both_sides_why_it_has_to_go() {
    for engine in [Engine::Splice, Engine::Copy] {
        for (query, expected) in
            [("stop=false", 1001), ("route=test", 1012), ("route=test&code=4321", 4321)]
        {
            let (mut session, api) = inspected(engine);
            drain(&api, &format!("{query}&over=0"));
            for socket in [&mut session.client, &mut session.server] {
                let close = receive(socket).expect("a frame");
                assert_eq!((close.opcode(), close.code()), (CLOSE, expected), "{query}");
            }
            session.server.write_all(&theirs(CLOSE, code(expected, ""))).expect("sent");
            let (gw, line) = session.line();
            assert_drained(&line);
            gw.stop();
        }
    }
}

#[test]
fn a_close_of_ours_waits_for_the_end_of_a_frame_that_has_begun() {
    for engine in [Engine::Splice, Engine::Copy] {
        let (mut session, api) = inspected(engine);
        let frame = ours(TEXT, vec![b'x'; 5000]);
        let (begin, rest) = frame.split_at(2000);
        session.client.write_all(begin).expect("sent");
        eventually("it has come", || api.sessions("")[0]["bytes_in"] != 0);
        drain(&api, "route=test&over=0");
        // The other direction has no frame under way.
        assert_eq!(receive(&mut session.client).expect("a frame").code(), 1012);
        session.client.write_all(rest).expect("sent");
        let text = receive(&mut session.server).expect("a frame");
        assert_eq!((text.opcode(), text.payload), (TEXT, vec![b'x'; 5000]));
        assert_eq!(receive(&mut session.server).expect("a frame").code(), 1012);
        let (gw, line) = session.line();
        assert_drained(&line);
        gw.stop();
    }
}

/// Two routes, `/a` and `/b`, to two backends each, which send back what they get.
struct Routes {
    gw: Gw,
    api: Api,
    backends: [Backend; 2],
}

fn routes() -> Routes {
    let backends = [Backend::echo(), Backend::echo()];
    let [one, other] = [backends[0].address, backends[1].address];
    let (line, api) = unix();
    let route = |name: &str| {
        format!(
            "[[route]]\nname = \"{name}\"\npath = \"/{name}\"\nprotocols = [\"any\"]\n\
             to = [\"{one}\", \"{other}\"]\n"
        )
    };
    let gw = Gw::from_toml(&format!(
        "[gateway]\nworkers = 2\n{line}\n[[listener]]\naddress = \"127.0.0.1:0\"\n{}{}",
        route("a"),
        route("b")
    ));
    Routes { gw, api, backends }
}

impl Routes {
    fn ask(&self, path: &str) -> (Client, support::client::Answer) {
        let mut client = Client::connect(self.gw.address());
        let answer = client.ask(upgrade_head(path, "raw", ""));
        (client, answer)
    }

    /// Fails unless a request is refused for now, and the client told when to come again.
    fn refuses(&self, path: &str) {
        let (client, answer) = self.ask(path);
        // It is waited for until it has read the answer.
        drop(client);
        let after = answer.field("retry-after").and_then(|seconds| seconds.parse::<u32>().ok());
        assert_eq!(answer.status, 503, "{answer:?}");
        assert!(after.is_some_and(|after| (1..=10).contains(&after)), "{answer:?}");
        let line = self.gw.line();
        assert_eq!([&line["close_reason"], &line["event"]], ["drained", "request"], "{line}");
        assert_eq!(line["status"], 503);
    }

    fn end(self, clients: Vec<Client>) {
        drop(clients);
        self.gw.stop();
        self.backends.into_iter().for_each(Backend::join);
    }
}

#[test]
fn a_route_that_drains_refuses_new_sessions_until_that_is_undone() {
    let routes = routes();
    let mut told = Vec::new();
    drain(&routes.api, "route=a&over=0");
    for _ in 0..40 {
        let (client, answer) = routes.ask("/a");
        told.push(answer.field("retry-after").expect("a time").to_owned());
        drop(client);
        routes.gw.line();
    }
    told.sort();
    told.dedup();
    assert!(told.len() > 3, "they would all come at once: {told:?}");
    routes.refuses("/a");
    let (b, answer) = routes.ask("/b");
    assert_eq!(answer.status, 101);
    undo(&routes.api, "route=a");
    let (a, answer) = routes.ask("/a");
    assert_eq!(answer.status, 101);
    routes.end(vec![a, b]);
}

#[test]
fn a_drain_that_is_undone_lets_those_stay_that_were_not_told() {
    let routes = routes();
    let (mut client, answer) = routes.ask("/a");
    assert_eq!(answer.status, 101);
    let told = drain(&routes.api, "route=a&over=168h");
    assert_eq!((&told["left"], &told["done"]), (&1.into(), &false.into()), "{told}");
    undo(&routes.api, "route=a");
    assert_eq!(routes.api.get("/v1/drain")["drains"], serde_json::json!([]));
    client.send(b"still here");
    assert_eq!(client.receive(10), b"still here");
    routes.end(vec![client]);
}

#[test]
fn sessions_of_other_routes_are_byte_exact_while_one_drains() {
    const LEN: usize = 4 << 20;
    let routes = routes();
    let open = |path: &str| -> Vec<Client> {
        let clients = (0..20).map(|_| routes.ask(path));
        clients
            .map(|(client, answer)| {
                assert_eq!(answer.status, 101);
                client
            })
            .collect()
    };
    let (leaving, mut staying) = (open("/a"), open("/b"));
    let mut client = staying.pop().expect("there are many");
    let mut out = client.socket.try_clone().expect("a second handle");
    let sending = thread::spawn(move || support::stream::send(&mut out, 3, LEN));
    let mut half = vec![0; LEN / 2];
    client.socket.read_exact(&mut half).expect("the first half");
    drain(&routes.api, "route=a&over=300ms");
    for mut client in leaving {
        assert_eq!(client.receive_to_end().expect("an end, no reset"), b"");
    }
    let mut rest = vec![0; LEN / 2];
    client.socket.read_exact(&mut rest).expect("the second half");
    let mut pattern = Pattern::new(3);
    pattern.check(&half);
    pattern.check(&rest);
    sending.join().expect("no panic");
    eventually("the others have gone", || routes.gw.metrics().sessions_open == 20);
    staying.push(client);
    routes.end(staying);
}

#[test]
fn an_endpoint_that_drains_gets_no_new_sessions_and_the_last_one_none_at_all() {
    let routes = routes();
    let [one, other] = [0, 1].map(|at| routes.backends[at].address.to_string());
    drain(&routes.api, &format!("endpoint={one}&over=0"));
    let mut clients = Vec::new();
    for path in ["/a", "/b", "/a", "/b"] {
        let (client, answer) = routes.ask(path);
        assert_eq!(answer.status, 101);
        clients.push(client);
    }
    eventually("they are joined", || routes.api.sessions("").len() == 4);
    for session in routes.api.sessions("") {
        assert_eq!(session["endpoint"], *other, "{session}");
    }
    let shown = routes.api.get("/v1/routes");
    assert_eq!(shown["routes"][0]["endpoints"][0]["state"], "draining", "{shown}");
    // Of one route only: the other has it still.
    drain(&routes.api, &format!("endpoint={other}&route=a&over=168h"));
    routes.refuses("/a");
    let (client, answer) = routes.ask("/b");
    assert_eq!(answer.status, 101);
    clients.push(client);
    let reply = routes.api.ask("DELETE", &format!("/v1/drain?endpoint={other}"));
    reply.refused(404, "does not drain");
    undo(&routes.api, &format!("endpoint={one}"));
    let (client, answer) = routes.ask("/a");
    assert_eq!(answer.status, 101);
    clients.push(client);
    routes.end(clients);
}

/// What comes to a backend that grants and holds, one by one.
fn holding() -> (Backend, Receiver<Peer>) {
    let (given, taken) = channel();
    let backend = Backend::upgrading(move |peer| drop(given.send(peer)));
    (backend, taken)
}

#[test]
fn a_gateway_that_drains_is_not_ready_closes_its_listeners_and_refuses_who_is_there_already() {
    let (backend, peers) = holding();
    let (line, api) = unix();
    let gw = Gw::with(&backend, Engine::Auto, Runtime::Epoll, &line, "");
    let mut client = Client::upgraded(gw.address(), "/", "raw");
    let _peer = support::backend::wait(&peers);
    let mut early = Client::connect(gw.address());
    eventually("it is accepted", || gw.metrics().connections_open == 2);
    drain(&api, "over=0&deadline=20s");
    let ready = api.ask("GET", "/readyz");
    assert_eq!(ready.status, 503);
    assert!(ready.body.contains("it accepts nothing new"), "{ready:?}");
    assert_eq!(early.ask(upgrade_head("/", "raw", "")).status, 503);
    eventually("nobody listens", || TcpStream::connect(gw.address()).is_err());
    let reply = api.ask("DELETE", "/v1/drain");
    reply.refused(409, "accepts nothing any more");
    assert_eq!(api.ask("POST", "/v1/drain?stop=false").status, 409);
    let metrics = api.ask("GET", "/metrics").body;
    for line in ["drain_active 1", "drain_sessions_remaining 1"] {
        assert!(metrics.contains(&format!("\nupsplice_{line}\n")), "{line}: {metrics}");
    }
    assert_eq!(client.receive_to_end().expect("an end"), b"");
    let metrics = api.ask("GET", "/metrics").body;
    assert!(metrics.contains("\nupsplice_drain_closed_total 1\n"), "{metrics}");
    drop((client, early, _peer));
    eventually("it has ended by itself", || gw.gateway.is_finished());
    gw.stop();
    backend.join();
}

#[test]
fn a_gateway_that_drains_without_a_stop_goes_on_listening_and_can_be_undone() {
    let routes = routes();
    drain(&routes.api, "stop=false&over=0");
    let ready = routes.api.ask("GET", "/readyz");
    assert!(ready.status == 503 && ready.body.contains("refuses new sessions"), "{ready:?}");
    routes.refuses("/a");
    routes.refuses("/b");
    undo(&routes.api, "");
    assert_eq!(routes.api.ask("GET", "/readyz").status, 200);
    let (client, answer) = routes.ask("/a");
    assert_eq!(answer.status, 101);
    routes.end(vec![client]);
}

#[test]
fn what_makes_no_sense_is_refused_and_begins_nothing() {
    let routes = routes();
    for (query, status, error) in [
        ("route=c", 404, "no route"),
        ("endpoint=10.9.8.7:6", 404, "no endpoint"),
        ("over=soon", 400, "over is wrong"),
        ("over=169h", 400, "over is wrong"),
        ("over=2s&deadline=1s", 400, "deadline comes before"),
        ("rate=0", 400, "rate is wrong"),
        ("rate=50/m", 400, "rate is wrong"),
        ("code=1005", 400, "code is wrong"),
        ("code=999", 400, "code is wrong"),
        ("stop=maybe", 400, "stop is wrong"),
        ("route=a&stop=true", 400, "only a drain of the whole gateway"),
        ("who=all", 400, "unknown parameter"),
        ("route=a&route=b", 400, "twice"),
    ] {
        routes.api.ask("POST", &format!("/v1/drain?{query}")).refused(status, error);
    }
    routes.api.ask("DELETE", "/v1/drain").refused(404, "the gateway does not drain");
    routes.api.ask("DELETE", "/v1/drain?route=a").refused(404, "route a does not drain");
    routes.api.ask("DELETE", "/v1/drain?over=1s").refused(400, "unknown parameter");
    assert_eq!(routes.api.get("/v1/drain")["drains"], serde_json::json!([]));
    let (client, answer) = routes.ask("/a");
    assert_eq!(answer.status, 101);
    routes.end(vec![client]);
}
