//! Watching a live session: what passes is told as it passes, and who watches badly is nobody's problem but his own.

#[path = "support/joined.rs"]
mod joined;
mod support;

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};

use joined::Joined;
use serde_json::{Value, json};
use support::admin::{Api, unix};
use support::frames::{
    BINARY, CLOSE, CONTINUATION, FIN, Inspected, MASK, PING, TEXT, code, frame, ours, receive,
    theirs,
};
use support::{BOUND, Engine, Runtime, eventually};

const PAYLOAD: &str = "inspect = \"payload\"";

/// An inspected session, where to ask about it, and its id.
fn inspected(route: &str) -> (Inspected, Api, String) {
    let (line, api) = unix();
    let session = Inspected::with_gateway(Engine::Splice, &line, route);
    let id = id(&api);
    (session, api, id)
}

fn id(api: &Api) -> String {
    api.sessions("")[0]["id"].as_str().expect("an id").to_owned()
}

/// Somebody who watches; reads line by line.
struct Tap(BufReader<UnixStream>);

impl Tap {
    /// Begins to watch, and has read the first line.
    fn open(api: &Api, id: &str, query: &str) -> (Tap, Value) {
        let mut tap = Tap::connect(api, id, query);
        let status = tap.text();
        assert!(status.starts_with("HTTP/1.1 200"), "{status}");
        while !tap.text().trim().is_empty() {}
        let opened = tap.line();
        assert_eq!(opened["event"], "opened", "{opened}");
        (tap, opened)
    }

    fn connect(api: &Api, id: &str, query: &str) -> Tap {
        let mut socket = UnixStream::connect(api.path()).expect("it accepts");
        socket.set_read_timeout(Some(BOUND)).expect("a bound");
        let target = format!("/v1/sessions/{id}/tap?{query}");
        let head = format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n");
        socket.write_all(head.as_bytes()).expect("sent");
        Tap(BufReader::new(socket))
    }

    fn text(&mut self) -> String {
        let mut text = String::new();
        self.0.read_line(&mut text).expect("a line");
        text
    }

    /// The next JSON line: chunk sizes and their ends are passed over.
    fn line(&mut self) -> Value {
        loop {
            let text = self.text();
            assert!(!text.is_empty(), "the stream has ended");
            if text.starts_with('{') {
                return serde_json::from_str(&text).unwrap_or_else(|e| panic!("{e}: {text:?}"));
            }
        }
    }

    /// The next line of this event; others are passed over.
    fn next(&mut self, event: &str) -> Value {
        loop {
            let line = self.line();
            if line["event"] == event {
                return line;
            }
            assert_ne!(line["event"], "ended", "no {event} came");
        }
    }
}

fn passes(session: &mut Inspected, bytes: &[u8]) {
    session.client.write_all(bytes).expect("sent");
    receive(&mut session.server).expect("it comes");
}

#[test]
fn frames_messages_and_closes_are_told_with_their_latency() {
    for depth in [PAYLOAD, "inspect = \"frames\""] {
        let (mut session, api, id) = inspected(depth);
        let (mut tap, opened) = Tap::open(&api, &id, "");
        let expected = json!({
            "event": "opened", "id": id, "mode": "inspect", "frames": true, "preview": 0
        });
        assert_eq!(opened, expected);
        session.client.write_all(&frame(TEXT, Some(MASK), b"hel")).expect("sent");
        receive(&mut session.server).expect("it comes");
        passes(&mut session, &ours(PING, "?"));
        passes(&mut session, &frame(FIN | CONTINUATION, Some(MASK), b"lo"));
        session.server.write_all(&theirs(BINARY, [7; 300])).expect("sent");
        receive(&mut session.client).expect("it comes");
        let mut told = |event: &str, direction: &str, opcode: &str, bytes: u64| {
            let line = tap.line();
            let found = ["event", "direction", "opcode", "bytes"].map(|key| line[key].clone());
            assert_eq!(found, [json!(event), json!(direction), json!(opcode), json!(bytes)]);
            line
        };
        let (up, down) = ("to_upstream", "to_downstream");
        assert_eq!(told("frame", up, "text", 3)["fin"], false);
        assert_eq!(told("frame", up, "ping", 1)["fin"], true);
        assert_eq!(told("frame", up, "continuation", 2)["fin"], true);
        let asked = told("message", up, "text", 5);
        assert!(asked["latency_us"].is_null(), "nothing came before: {asked}");
        assert!(asked["preview"].is_null(), "nobody asked: {asked}");
        told("frame", down, "binary", 300);
        let answered = told("message", down, "binary", 300);
        let between = answered["at_ms"].as_f64().zip(asked["at_ms"].as_f64());
        let between = between.map(|(answered, asked)| answered - asked).expect("times");
        let latency = answered["latency_us"].as_f64().expect("a time") / 1e3;
        assert!((latency - between).abs() < 0.01, "{latency} is not {between}: {answered}");
        session.client.write_all(&ours(CLOSE, code(4000, "bye"))).expect("sent");
        receive(&mut session.server).expect("a close");
        let close = tap.next("close");
        assert_eq!((&close["direction"], &close["code"]), (&up.into(), &4000.into()), "{close}");
        let (gw, _) = session.line();
        tap.next("ended");
        gw.stop();
    }
}

#[test]
fn previews_are_shown_where_they_were_asked_for_and_payload_is_read() {
    let (mut session, api, id) = inspected(PAYLOAD);
    let (mut tap, _) = Tap::open(&api, &id, "preview=10&redact=token%3D%5Cw%2B&redact=%5B0-9%5D");
    passes(&mut session, &ours(TEXT, "ab token=abcdefgh 7 longer"));
    assert_eq!(tap.next("message")["preview"], "ab [redact");
    passes(&mut session, &ours(TEXT, "a7b"));
    assert_eq!(tap.next("message")["preview"], "a[redacted");
    passes(&mut session, &ours(BINARY, [0, 1, 255]));
    let message = tap.next("message");
    assert_eq!((&message["preview_base64"], &message["preview"]), (&"AAH/".into(), &Value::Null));
    passes(&mut session, &ours(TEXT, "").to_vec());
    assert!(tap.next("message").get("preview").is_none());
    let (gw, _) = session.line();
    gw.stop();
    let (mut session, api, id) = inspected("inspect = \"frames\"");
    let (mut tap, _) = Tap::open(&api, &id, "preview=10");
    passes(&mut session, &ours(TEXT, "unread"));
    assert!(tap.next("message").get("preview").is_none(), "its payload is not read");
    session.line().0.stop();
}

#[test]
fn a_violation_is_told() {
    let (mut session, api, id) = inspected("");
    let (mut tap, _) = Tap::open(&api, &id, "");
    session.client.write_all(&theirs(TEXT, "not masked")).expect("sent");
    let line = tap.next("violation");
    assert_eq!((&line["rule"], &line["direction"]), (&"mask".into(), &"to_upstream".into()));
    session.line().0.stop();
}

#[test]
fn a_session_without_frames_says_so_and_tells_bytes_and_pace() {
    for (engine, runtime) in [(Engine::Splice, Runtime::Epoll), (Engine::Uring, Runtime::Uring)] {
        let (line, api) = unix();
        let mut joined = Joined::with(engine, runtime, &line);
        let id = id(&api);
        let (mut tap, opened) = Tap::open(&api, &id, "");
        assert_eq!((&opened["frames"], &opened["mode"]), (&false.into(), &"zero-copy".into()));
        assert!(opened["why"].as_str().is_some_and(|why| why.contains("only bytes and pace")));
        joined.client.send([1; 5000]);
        std::io::Read::read_exact(&mut joined.peer.socket, &mut [0; 5000]).expect("it comes");
        let pace = loop {
            let line = tap.next("pace");
            if line["bytes_in"] == 5000 {
                break line;
            }
        };
        assert!(pace["bytes_in_per_second"].as_f64().is_some_and(|pace| pace > 0.0), "{pace}");
        assert_eq!((&pace["bytes_out"], &pace["paused"]), (&0.into(), &json!([])), "{pace}");
        let Joined { gw, client, peer, door: _door } = joined;
        drop((client, peer));
        tap.next("ended");
        gw.stop();
    }
}

#[test]
fn a_watcher_that_does_not_read_slows_nobody_and_is_told_what_he_missed() {
    let (mut session, api, id) = inspected("");
    let (mut deaf, _) = Tap::open(&api, &id, "");
    let (mut other, _) = Tap::open(&api, &id, "");
    let many = 5000;
    let mut server = session.server.try_clone().expect("a descriptor");
    let reading = std::thread::spawn(move || {
        for _ in 0..many {
            receive(&mut server).expect("it comes");
        }
    });
    let message = ours(TEXT, "x");
    for _ in 0..many / 100 {
        session.client.write_all(&message.repeat(100)).expect("sent");
    }
    reading.join().expect("all of it came while nobody read the tap");
    let (mut told, mut missed) = (0, 0);
    while told + missed < 2 * many {
        let line = deaf.line();
        match line["event"].as_str() {
            Some("frame" | "message") => told += 1,
            Some("dropped") => missed += line["events"].as_u64().expect("a number"),
            _ => panic!("{line}"),
        }
    }
    assert!(missed > 0 && told > 0, "{told} told, {missed} missed");
    assert_eq!(told + missed, 2 * many);
    other.next("message");
    session.line().0.stop();
}

#[test]
fn a_watcher_that_leaves_is_forgotten_and_makes_room() {
    let (mut session, api, id) = inspected("");
    let taps: Vec<_> = (0..4).map(|_| Tap::open(&api, &id, "").0).collect();
    let target = format!("/v1/sessions/{id}/tap");
    api.ask("GET", &target).refused(429, "enough watch this session");
    drop(taps);
    // Nothing passes in the session: it is their connections that are seen to be gone.
    eventually("there is room", || {
        let mut tap = Tap::connect(&api, &id, "");
        tap.text().starts_with("HTTP/1.1 200")
    });
    passes(&mut session, &ours(TEXT, "x"));
    session.line().0.stop();
}

#[test]
fn sessions_are_watched_by_few_at_a_time() {
    let (line, api) = unix();
    let joined = Joined::with(Engine::Copy, Runtime::Epoll, &line);
    let id = id(&api);
    let taps: Vec<_> = (0..16).map(|_| Tap::open(&api, &id, "").0).collect();
    api.ask("GET", &format!("/v1/sessions/{id}/tap")).refused(429, "16 sessions are watched");
    assert_eq!(api.get("/livez")["live"], true);
    drop(taps);
    joined.ended_any();
}

#[test]
fn wrong_wishes_are_refused_before_anything_is_watched() {
    let (session, api, id) = inspected("");
    for (query, error) in [
        ("preview=1025", "preview is wrong"),
        ("preview=all", "preview is wrong"),
        ("redact=(", "redact is wrong"),
        ("redact=", "redact is wrong"),
        (&"redact=x&".repeat(9), "redact is there too often"),
        ("payload=1", "unknown parameter"),
    ] {
        let query = query.trim_end_matches('&');
        api.ask("GET", &format!("/v1/sessions/{id}/tap?{query}")).refused(400, error);
    }
    api.ask("GET", "/v1/sessions/01ARZ3NDEKTSV4RRFFQ69G5FAV/tap").refused(404, "no session");
    session.line().0.stop();
}

#[test]
fn a_watched_session_goes_on_being_watched_in_another_worker() {
    let (line, api) = unix();
    let gateway = format!("workers = 2\nbalance = false\n{line}");
    let mut session = Inspected::in_gateway(&gateway, Engine::Splice, PAYLOAD, &[], &[]);
    let id = id(&api);
    let (mut tap, _) = Tap::open(&api, &id, "");
    let worker = api.sessions("")[0]["worker"].as_u64().expect("a number") as usize;
    let to = upsplice::server::Move { worker: 1 - worker, engine: None };
    eventually("it takes the order", || session.gw.gateway.move_session(&id, to));
    passes(&mut session, &ours(TEXT, "there"));
    assert_eq!(tap.next("message")["bytes"], 5);
    session.line().0.stop();
}

#[test]
fn the_command_line_prints_events_as_they_come() {
    let (mut session, api, id) = inspected(PAYLOAD);
    let admin = format!("--admin=unix:{}", api.path().display());
    let mut child = Command::new(env!("CARGO_BIN_EXE_upsplice"))
        .args(["sessions", "tap", &id, "--preview", "20", "--redact", "secret", &admin])
        .stdout(Stdio::piped())
        .spawn()
        .expect("it runs");
    let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines();
    let mut next = || lines.next().expect("a line").expect("UTF-8");
    assert!(next().starts_with("opened "));
    passes(&mut session, &ours(TEXT, "a secret\u{1b}"));
    assert!(next().contains("-> frame "));
    let message = next();
    assert!(
        message.contains("-> message ") && message.contains("a [redacted]\u{fffd}"),
        "{message}"
    );
    let (gw, _) = session.line();
    assert!(next().contains("ended"));
    assert!(child.wait().expect("it ends").success());
    gw.stop();
}
