//! Counters and the access log: they agree with each other and with what the peers did.

mod support;

use std::collections::BTreeMap;
use std::net::{SocketAddr, TcpListener};
use std::sync::mpsc::channel;

use serde_json::{Value, json};
use support::client::upgrade_head;
use support::process::config_to;
use support::{Backend, Client, Engine, Gw, Peer, Program, Runtime, eventually, pump};
use upsplice::metrics::{self, Direction};

/// A backend whose path says what it does.
fn scripted() -> Backend {
    Backend::start(|mut peer| {
        let Some(head) = peer.try_read_head() else { return };
        match head.split(' ').nth(1).unwrap_or_default() {
            "/answer" => peer.send("HTTP/1.1 404 Not Found\r\nContent-Length: 2\r\n\r\nno"),
            "/cut" => {}
            "/half-head" => peer.send("HTTP/1.1 101 Swi"),
            "/reset-early" => peer.reset(),
            "/wrong" => {
                peer.send(
                    "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n",
                );
            }
            "/reset" => {
                peer.grant(&head, "");
                peer.receive(4);
                peer.reset();
            }
            "/end" => {
                peer.grant(&head, "bye");
                peer.shutdown_write();
                let _ = peer.receive_to_end();
            }
            "/silent" => {
                peer.grant(&head, "");
                let _ = peer.receive_to_end();
            }
            _ => {
                peer.grant(&head, "");
                pump(&peer.socket, 2, 1, LEN, true);
            }
        }
    })
}

const LEN: usize = 1 << 20;

fn number(line: &Value, name: &str) -> u64 {
    line[name].as_u64().unwrap_or_else(|| panic!("no number {name}: {line}"))
}

contract!(counters_balance_after_mixed_traffic);

fn counters_balance_after_mixed_traffic(engine: Engine, runtime: Runtime) {
    let backend = scripted();
    let gw = Gw::with(&backend, engine, runtime, "workers = 2", "");
    const ROUNDS: u64 = 5;
    for _ in 0..ROUNDS {
        let client = Client::upgraded(gw.address(), "/pump", "raw");
        pump(&client.socket, 1, 2, LEN, false);
        let mut client = Client::upgraded(gw.address(), "/reset", "raw");
        client.send(b"ping");
        client.receive_to_end().expect_err("a reset is passed on as a reset");
        let mut client = Client::upgraded(gw.address(), "/silent", "raw");
        client.send(b"ping");
        client.reset();
        assert_eq!(
            Client::connect(gw.address()).ask(upgrade_head("/answer", "raw", "")).status,
            404
        );
        for path in ["/cut", "/wrong"] {
            assert_eq!(
                Client::connect(gw.address()).ask(upgrade_head(path, "raw", "")).status,
                502
            );
        }
        assert_eq!(Client::connect(gw.address()).ask("GET / HTTP/1.1\r\n\r\n").status, 400);
        drop(Client::connect(gw.address()));
    }
    eventually("all connections are over", || {
        let now = gw.metrics();
        now.accepted == 8 * ROUNDS && now.connections_open == 0
    });
    let lines: Vec<Value> = (0..8 * ROUNDS).map(|_| gw.line()).collect();
    let metrics = gw.metrics();
    let joined: Vec<&Value> =
        lines.iter().filter(|line| line["event"] == "session_close").collect();
    assert_eq!(joined.len() as u64, 3 * ROUNDS);
    assert_eq!((metrics.sessions_open, metrics.pipes_used), (0, 0));
    let expected = [
        ("answered", ROUNDS),
        ("failed", 2 * ROUNDS),
        ("refused", ROUNDS),
        ("switched", 3 * ROUNDS),
    ];
    assert_eq!(metrics.upgrades, BTreeMap::from(expected));
    // What the counters say by engine and direction is what the lines say by session.
    let sum = |name: &str| joined.iter().map(|line| number(line, name)).sum::<u64>();
    for (engine, name) in metrics::Engine::ALL.into_iter().zip(["splice", "copy", "uring"]) {
        let name = format!("bytes_{name}");
        let counted: u64 =
            Direction::BOTH.into_iter().map(|way| metrics.bytes_by(engine, way)).sum();
        assert_eq!(counted, sum(&name), "{name}");
    }
    let by_direction = |way| {
        metrics::Engine::ALL.into_iter().map(|engine| metrics.bytes_by(engine, way)).sum::<u64>()
    };
    assert_eq!(by_direction(Direction::ToUpstream), sum("bytes_in"));
    // Taken is given and discarded.
    let taken: u64 = Direction::BOTH.into_iter().map(by_direction).sum();
    let lost_to_upstream = sum("bytes_discarded");
    assert!(by_direction(Direction::ToDownstream) - sum("bytes_out") <= lost_to_upstream);
    assert!(taken >= 2 * ROUNDS * LEN as u64);
    gw.stop();
    backend.join();
}

#[test]
fn sigusr1_prints_the_counters_as_one_line_and_the_program_goes_on() {
    let backend = scripted();
    let config = config_to(backend.address, "workers = 2", "engine = \"splice\"");
    let mut program = Program::start(&config);
    for round in 1..=3 {
        let client = Client::upgraded(program.address(), "/pump", "raw");
        pump(&client.socket, 1, 2, LEN, false);
        program.session_line();
        let counters = program.counters();
        assert_eq!(
            (&counters["accepted"], &counters["upgrades"]["switched"]),
            (&json!(round), &json!(round))
        );
        assert_eq!(counters["bytes"]["splice"]["to_upstream"], round * LEN, "{counters}");
    }
    // Also while it drains.
    let open = Client::upgraded(program.address(), "/silent", "raw");
    program.signal("TERM");
    program.diagnostic_with("draining: 1 connections open");
    assert_eq!(program.counters()["sessions_open"], 1);
    drop(open);
    assert_eq!(program.exit_code(), Some(0));
    backend.join();
}

/// An address where nobody listens.
fn nobody() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.local_addr().expect("bound")
}

#[test]
fn every_cause_of_an_end_has_its_side_stage_and_reason_in_the_log() {
    let backend = scripted();
    let text = config_to(backend.address, "", "timeouts.idle = \"300ms\"").replace(
        "[[route]]",
        &format!(
            "[[route]]\nname = \"down\"\npath = \"/down\"\nprotocols = [\"any\"]\nto = [\"{}\"]\n\
             [[route]]\nname = \"hosted\"\nhost = \"other.test\"\npath = \"/x\"\nto = [\"{0}\"]\n[[route]]",
            nobody()
        ),
    );
    let gw = Gw::from_toml(&text);
    let ask = |path: &str| {
        let mut client = Client::connect(gw.address());
        client.send(upgrade_head(path, "raw", ""));
        let status = client.answer().status;
        (client, status)
    };
    // (what happens, event, side, stage, reason, status)
    let expect = |what: &str, cause: &dyn Fn(), told: [&str; 4], status: Option<u16>| {
        cause();
        let line = gw.line();
        let fields = ["event", "side", "stage", "close_reason"].map(|name| line[name].clone());
        assert_eq!(fields, told.map(|word| json!(word)), "{what}: {line}");
        assert_eq!(line["status"], json!(status), "{what}: {line}");
        for always in ["ts", "session_id", "duration_ms", "worker", "listener", "retries"] {
            assert!(!line[always].is_null(), "{what}: no {always}: {line}");
        }
    };
    expect(
        "nothing was asked",
        &|| drop(Client::connect(gw.address())),
        ["request", "downstream", "request", "no_request"],
        None,
    );
    expect(
        "half a head",
        &|| Client::connect(gw.address()).send("GET / HT"),
        ["request", "downstream", "request", "truncated"],
        None,
    );
    expect(
        "a reset in the head",
        &|| {
            let mut client = Client::connect(gw.address());
            client.send("GET / HT");
            client.reset();
        },
        ["request", "downstream", "request", "reset"],
        None,
    );
    expect(
        "a bad head",
        &|| drop(Client::connect(gw.address()).ask("GET / HTTP/1.1\r\n\r\n")),
        ["refused", "downstream", "request", "refused"],
        Some(400),
    );
    expect(
        "no upstream",
        &closing_of(&ask, "/down"),
        ["request", "upstream", "connect", "io"],
        Some(502),
    );
    expect(
        "an answer",
        &closing_of(&ask, "/answer"),
        ["request", "upstream", "response", "answered"],
        Some(404),
    );
    expect(
        "an end before the head",
        &closing_of(&ask, "/cut"),
        ["request", "upstream", "response", "truncated"],
        Some(502),
    );
    expect(
        "half an answer",
        &closing_of(&ask, "/half-head"),
        ["request", "upstream", "response", "truncated"],
        Some(502),
    );
    expect(
        "a reset before the head",
        &closing_of(&ask, "/reset-early"),
        ["request", "upstream", "response", "reset"],
        Some(502),
    );
    expect(
        "a bad 101",
        &closing_of(&ask, "/wrong"),
        ["request", "upstream", "response", "refused"],
        Some(502),
    );
    expect(
        "both ended",
        &|| {
            let (client, _) = ask("/end");
            client.shutdown_write();
        },
        ["session_close", "proxy", "relay", "completed"],
        Some(101),
    );
    expect(
        "a reset by the backend",
        &|| {
            let (mut client, _) = ask("/reset");
            client.send("ping");
            client.receive_to_end().expect_err("a reset");
        },
        ["session_close", "upstream", "relay", "reset"],
        Some(101),
    );
    expect(
        "a reset by the client",
        &|| ask("/silent").0.reset(),
        ["session_close", "downstream", "relay", "reset"],
        Some(101),
    );
    expect(
        "silence",
        &|| drop(ask("/silent").0.receive_to_end()),
        ["session_close", "proxy", "relay", "idle_timeout"],
        Some(101),
    );
    gw.stop();
    backend.join();
}

fn closing_of<'a>(ask: &'a dyn Fn(&str) -> (Client, u16), path: &'a str) -> impl Fn() + 'a {
    move || drop(ask(path))
}

#[test]
fn what_a_client_sends_cannot_make_a_second_line_or_a_field_of_its_own() {
    let backend = scripted();
    let mut program = Program::start(&config_to(backend.address, "", ""));
    let evil = "x\",\"side\":\"forged\\u000a\u{7f}\u{85}\u{2028}é";
    let head = upgrade_head("/silent%0a%22", "raw", &format!("User-Agent: {evil}\r\n"));
    let mut client = Client::connect(program.address());
    client.send(&head);
    drop(client);
    // Bytes that are no text, and control bytes, which are refused.
    for agent in [&b"\xff\xfe\x80"[..], b"a\x01b", b"a\x00b", b"a\nb: c"] {
        let mut head = upgrade_head("/silent", "raw", "").into_bytes();
        head.truncate(head.len() - 2);
        head.extend_from_slice(b"User-Agent: ");
        head.extend_from_slice(agent);
        head.extend_from_slice(b"\r\n\r\n");
        let mut client = Client::connect(program.address());
        client.send(&head);
        drop(client);
    }
    for path in ["/a\x01b", "/a\tb", "/\u{1b}[31m", "/\"},{\""] {
        let mut client = Client::connect(program.address());
        client.send(upgrade_head(path, "raw", ""));
        drop(client);
    }
    eventually("all are over", || {
        let counters = program.counters();
        counters["accepted"] == 9 && counters["connections_open"] == 0
    });
    program.signal("TERM");
    assert_eq!(program.exit_code(), Some(0));
    // Each line is an object by itself, or this has failed.
    let lines = program.lines_to_end();
    assert_eq!(lines.len(), 9, "{lines:#?}");
    for line in &lines {
        assert_ne!(line["side"], "forged", "{line}");
        for name in ["path", "user_agent", "host"] {
            let text = line[name].as_str().unwrap_or_default();
            let raw = serde_json::to_string(text).expect("text");
            assert!(!raw.contains('\n') && !raw.contains('\u{1b}'), "{line}");
        }
    }
    backend.join();
}

#[test]
fn a_session_in_the_list_shows_the_counts_that_its_line_will_show() {
    let (done, all) = channel();
    let backend = Backend::upgrading(move |mut peer: Peer| {
        let bytes = peer.receive(100_000);
        peer.send(&bytes[..10]);
        done.send(()).expect("the test waits");
        let _ = peer.receive_to_end();
    });
    let gw = Gw::to(&backend, Engine::Splice, Runtime::Epoll);
    let mut client = Client::upgraded(gw.address(), "/", "raw");
    client.send(vec![7; 100_000]);
    assert_eq!(client.receive(10), [7; 10]);
    support::backend::wait(&all);
    let view = gw.gateway.sessions().pop().expect("one session");
    let [in_, out] = view.carried;
    assert_eq!((in_.taken(), in_.given, out.taken(), out.given), (100_000, 100_000, 10, 10));
    drop(client);
    let line = gw.line();
    assert_eq!(line["session_id"], view.id);
    assert_eq!((number(&line, "bytes_in"), number(&line, "bytes_out")), (100_000, 10));
    backend.join();
    gw.stop();
}
