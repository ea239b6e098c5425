//! What is judged before a session is opened, in every mode: which page asks (rule H8), which subprotocols are
//! offered and chosen, and who may choose how the session is carried.

mod support;

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::process::Command;
use std::sync::mpsc::{Receiver, channel};

use serde_json::Value;
use support::backend::wait;
use support::client::{Answer, field, upgrade_head};
use support::exchange::{PIPELINED, drain, status, to_end};
use support::{BOUND, Backend, Client, Gw, Program};

/// A backend that grants what it is asked, with further lines in its 101, and tells the heads that it read.
fn granting(lines: &'static str) -> (Backend, Receiver<String>) {
    let (tell, told) = channel();
    let backend = Backend::start(move |mut peer| {
        let head = peer.read_head();
        let key = field(&head, "sec-websocket-key").unwrap_or_default();
        let accept = upsplice::http::upgrade::accept_for(key);
        let token = field(&head, "upgrade").expect("it asks for something");
        peer.send(format!(
            "HTTP/1.1 101 S\r\nConnection: Upgrade\r\nUpgrade: {token}\r\n\
             Sec-WebSocket-Accept: {accept}\r\n{lines}\r\n"
        ));
        tell.send(head).expect("the test listens");
        drain(&mut peer);
    });
    (backend, told)
}

/// A gateway with one route, whose lines are `route`, and these lines in its `[gateway]`.
fn gw(backend: &Backend, gateway: &str, route: &str) -> Gw {
    gw_on("127.0.0.1:0", backend, gateway, route)
}

fn gw_on(listener: &str, backend: &Backend, gateway: &str, route: &str) -> Gw {
    let to = backend.address;
    Gw::from_toml(&format!(
        "[gateway]\nworkers = 1\n{gateway}\n[[listener]]\naddress = \"{listener}\"\n\
         [[route]]\nname = \"test\"\nto = [\"{to}\"]\n{route}\n"
    ))
}

/// Asks for a WebSocket with these further lines; the answer and, once the session is over, its log line.
fn asked(gw: &Gw, lines: &str) -> (Answer, Value) {
    asked_for(gw, "websocket", lines)
}

fn asked_for(gw: &Gw, token: &str, lines: &str) -> (Answer, Value) {
    let mut client = Client::connect(gw.address());
    let answer = client.ask(upgrade_head("/", token, lines));
    drop(client);
    (answer, gw.line())
}

/// Asks with these further lines and a second request behind them; fails unless that is refused with `code`
/// by `rule`, in one answer that closes, and nothing is connected.
fn assert_refused(gw: &Gw, told: &Receiver<String>, lines: &str, code: u16, rule: &str) {
    assert_token_refused(gw, told, "websocket", lines, code, rule);
}

fn assert_token_refused(
    gw: &Gw,
    told: &Receiver<String>,
    token: &str,
    lines: &str,
    code: u16,
    rule: &str,
) {
    let mut client = Client::connect(gw.address());
    client.send(upgrade_head("/", token, lines) + PIPELINED);
    let answer = to_end(&mut client);
    assert_eq!(status(&answer), code, "{lines:?}: {answer}");
    assert_eq!(field(&answer, "connection"), Some("close"), "{answer}");
    assert_eq!(answer.matches("HTTP/1.1 ").count(), 1, "one answer: {answer}");
    let line = gw.line();
    let said = ["side", "stage", "close_reason", "detail"].map(|key| line[key].clone());
    assert_eq!(said, ["downstream", "request", "refused", rule], "{line}");
    assert_eq!((&line["status"], &line["backend"]), (&code.into(), &Value::Null), "{line}");
    assert!(told.try_recv().is_err(), "nothing was connected");
}

const MODES: [&str; 2] = ["zero-copy", "inspect"];

#[test]
fn pages_of_other_origins_are_refused_before_anything_is_connected() {
    for mode in MODES {
        let (backend, told) = granting("");
        let route = format!(
            "mode = \"{mode}\"\nallowed_origins = [\"https://good.com\", \"https://*.good.com\"]"
        );
        let gw = gw(&backend, "", &route);
        for origin in ["https://good.com", "HTTPS://A.B.Good.com:443"] {
            let (answer, line) = asked(&gw, &format!("Origin: {origin}\r\n"));
            assert_eq!((answer.status, &line["mode"]), (101, &mode.into()), "{origin}");
            assert_eq!(field(&wait(&told), "origin"), Some(origin), "it goes on as it came");
        }
        assert_eq!(asked(&gw, "").0.status, 101, "what is no browser has no origin");
        wait(&told);
        for lines in [
            "Origin: https://evil.com\r\n",
            "Origin: http://good.com\r\n",
            "Origin: https://good.com.evil.com\r\n",
            "Origin: https://good.com:8443\r\n",
            "Origin: https://good.com@evil.com\r\n",
            "Origin: null\r\n",
            "Origin:\r\n",
            "Origin: https://g\u{f6}\u{f6}d.com\r\n",
            "Origin: https://good.com\r\nOrigin: https://good.com\r\n",
        ] {
            assert_refused(&gw, &told, lines, 403, "origin");
        }
        gw.stop();
        backend.join();
    }
}

#[test]
fn a_route_may_ask_for_an_origin_and_take_null() {
    let (backend, told) = granting("");
    let gw = gw(&backend, "", "allowed_origins = [\"null\"]\norigin_required = true");
    assert_eq!(asked(&gw, "Origin: null\r\n").0.status, 101);
    wait(&told);
    assert_refused(&gw, &told, "", 403, "origin");
    assert_refused(&gw, &told, "Origin: https://good.com\r\n", 403, "origin");
    gw.stop();
    backend.join();
}

#[test]
fn only_allowed_subprotocols_reach_the_backend() {
    for mode in MODES {
        let (backend, told) = granting("Sec-WebSocket-Protocol: chat\r\n");
        let route = format!("mode = \"{mode}\"\nsubprotocols = [\"chat\", \"b\"]");
        let gw = gw(&backend, "", &route);
        let twice = "Sec-WebSocket-Protocol: evil, b\r\nSec-WebSocket-Protocol: chat\r\n\
                     Sec_WebSocket_Protocol: evil\r\n";
        let (answer, _) = asked(&gw, twice);
        assert_eq!((answer.status, answer.field("sec-websocket-protocol")), (101, Some("chat")));
        let head = wait(&told).to_lowercase();
        assert_eq!(field(&head, "sec-websocket-protocol"), Some("b, chat"));
        assert_eq!(head.matches("protocol").count(), 1, "{head}");
        assert!(!head.contains("evil"), "{head}");

        assert_refused(&gw, &told, "Sec-WebSocket-Protocol: evil, Chat\r\n", 403, "subprotocol");
        let bad = "Sec-WebSocket-Protocol: chat, super chat\r\n";
        assert_refused(&gw, &told, bad, 400, "bad_subprotocol");

        // The backend chooses one that this client did not offer, or not within what was forwarded.
        for lines in ["", "Sec-WebSocket-Protocol: b, evil\r\n"] {
            let (answer, line) = asked(&gw, lines);
            assert_eq!((answer.status, &line["side"]), (502, &"upstream".into()), "{lines}");
            assert_eq!(line["detail"], "subprotocol_not_offered", "{lines}");
            wait(&told);
        }
        gw.stop();
        backend.join();
    }
}

#[test]
fn without_a_list_subprotocols_are_compared_only_where_sessions_are_inspected() {
    for (mode, expected) in [("zero-copy", 101), ("inspect", 502)] {
        let (backend, told) = granting("Sec-WebSocket-Protocol: other\r\n");
        let gw = gw(&backend, "", &format!("mode = \"{mode}\""));
        let (answer, _) = asked(&gw, "Sec-WebSocket-Protocol: any,thing\r\n");
        assert_eq!(answer.status, expected, "{mode}");
        let offered = wait(&told).to_lowercase();
        let expected = if mode == "inspect" { "any, thing" } else { "any,thing" };
        assert_eq!(field(&offered, "sec-websocket-protocol"), Some(expected), "{mode}");
        gw.stop();
        backend.join();
    }
}

/// The mode that a session got, and by whose word.
fn mode_of(line: &Value) -> (&str, &str) {
    (line["mode"].as_str().unwrap_or_default(), line["mode_by"].as_str().unwrap_or_default())
}

#[test]
fn a_trusted_controller_chooses_the_mode_of_a_session() {
    for (mode, other) in [("zero-copy", "inspect"), ("inspect", "zero-copy")] {
        let (backend, told) = granting("");
        let controllers = "trusted_controllers = [\"192.0.2.1\", \"127.0.0.0/8\"]";
        let gw = gw(&backend, controllers, &format!("mode = \"{mode}\""));
        for (value, expected) in
            [("true", "zero-copy"), ("1", "zero-copy"), ("false", "inspect"), ("0", "inspect")]
        {
            let (answer, line) = asked(&gw, &format!("UPSPLICE-use-zero-copy: {value}\r\n"));
            assert_eq!(answer.status, 101, "{}", answer.head);
            assert_eq!(mode_of(&line), (expected, "controller"), "{value} over {mode}");
            let head = wait(&told).to_lowercase();
            assert!(!head.contains("zero"), "it goes no further: {head}");
        }
        assert_eq!(mode_of(&asked(&gw, "").1), (mode, "configured"));
        wait(&told);

        // A twin that a server might take for it is neither believed nor passed on.
        let twin = format!("Upsplice_Use-Zero_Copy: {}\r\n", mode == "inspect");
        let (_, line) = asked(&gw, &twin);
        assert_eq!(mode_of(&line), (mode, "configured"), "not {other}");
        let head = wait(&told).to_lowercase();
        assert!(!head.contains("zero"), "{head}");

        for lines in [
            "Upsplice-Use-Zero-Copy: maybe\r\n",
            "Upsplice-Use-Zero-Copy:\r\n",
            "Upsplice-Use-Zero-Copy: true\r\nUpsplice-Use-Zero-Copy: true\r\n",
        ] {
            assert_refused(&gw, &told, lines, 400, "bad_use_zero_copy");
        }
        gw.stop();
        backend.join();
    }
}

#[test]
fn nobody_else_chooses_the_mode_of_a_session() {
    for mode in MODES {
        for controllers in ["", "trusted_controllers = [\"10.0.0.0/8\", \"unix\"]"] {
            let (backend, told) = granting("");
            let gw = gw(&backend, controllers, &format!("mode = \"{mode}\""));
            for value in ["true", "false", "maybe", ""] {
                let (answer, line) = asked(&gw, &format!("Upsplice-Use-Zero-Copy: {value}\r\n"));
                assert_eq!(answer.status, 101, "{}", answer.head);
                assert_eq!(mode_of(&line), (mode, "controller_untrusted"), "{value:?}");
                let head = wait(&told).to_lowercase();
                assert!(!head.contains("zero"), "it goes no further: {head}");
            }
            gw.stop();
            backend.join();
        }
    }
}

#[test]
fn who_comes_over_a_unix_socket_is_a_controller_only_where_that_is_said() {
    for (controllers, expected) in [
        ("trusted_controllers = [\"unix\"]", ("inspect", "controller")),
        ("trusted_controllers = [\"0.0.0.0/0\", \"::/0\"]", ("zero-copy", "controller_untrusted")),
    ] {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("listen.sock");
        let (backend, told) = granting("");
        let gw = gw_on(&format!("unix:{}", path.display()), &backend, controllers, "");
        let mut client = UnixStream::connect(&path).expect("it listens");
        client.set_read_timeout(Some(BOUND)).expect("a bound");
        let head = upgrade_head("/", "websocket", "Upsplice-Use-Zero-Copy: false\r\n");
        client.write_all(head.as_bytes()).expect("it reads");
        let mut answer = [0; 12];
        client.read_exact(&mut answer).expect("it answers");
        assert_eq!(&answer, b"HTTP/1.1 101");
        wait(&told);
        drop(client);
        assert_eq!(mode_of(&gw.line()), expected, "{controllers}");
        gw.stop();
        backend.join();
    }
}

#[test]
fn what_cannot_be_inspected_is_refused_rather_than_carried_unseen() {
    let inspect = "Upsplice-Use-Zero-Copy: false\r\n";
    let controllers = "trusted_controllers = [\"127.0.0.1\"]";
    let (backend, told) = granting("");
    let any = gw(&backend, controllers, "protocols = [\"any\"]\nwebsocket_strict = false");
    assert_token_refused(&any, &told, "raw", inspect, 400, "cannot_inspect");
    assert_token_refused(&any, &told, "websocket/13", inspect, 400, "cannot_inspect");
    // Without its key nobody knows that what follows is WebSocket.
    let keyless = upgrade_head("/", "raw", inspect).replace("raw", "websocket");
    let mut client = Client::connect(any.address());
    client.send(keyless);
    assert_eq!(status(&to_end(&mut client)), 426);
    assert_eq!(any.line()["detail"], "websocket_version");
    // What else is offered stays behind.
    let (answer, line) = asked(&any, &format!("Upgrade: raw\r\n{inspect}"));
    assert_eq!((answer.status, mode_of(&line)), (101, ("inspect", "controller")));
    assert_eq!(field(&wait(&told), "upgrade"), Some("websocket"));
    let (answer, line) = asked_for(&any, "raw", "Upsplice-Use-Zero-Copy: true\r\n");
    assert_eq!((answer.status, mode_of(&line)), (101, ("zero-copy", "controller")));
    wait(&told);
    any.stop();

    let ring = gw(&backend, controllers, "engine = \"uring\"");
    let (answer, line) = asked(&ring, "");
    assert_eq!(answer.status, 101, "{}", answer.head);
    wait(&told);
    if line["engine"] == "uring" {
        assert_refused(&ring, &told, inspect, 400, "cannot_inspect");
    } else {
        eprintln!(
            "SKIPPED: what_cannot_be_inspected_is_refused_rather_than_carried_unseen: no ring"
        );
    }
    ring.stop();
    backend.join();
}

#[test]
fn only_extensions_that_are_understood_are_offered_where_a_session_is_inspected() {
    const OFFER: &str = "Sec-WebSocket-Extensions: x-webkit-deflate-frame, permessage-deflate; \
                         client_max_window_bits\r\nSec-WebSocket-Extensions: bbf-usp-protocol\r\n";
    for (route, expected) in [
        ("mode = \"inspect\"", Some("permessage-deflate; client_max_window_bits")),
        (
            "mode = \"inspect\"\ninspect = \"payload\"",
            Some("permessage-deflate; client_max_window_bits"),
        ),
        ("mode = \"inspect\"\ndeflate = \"strip\"", None),
    ] {
        let (backend, told) = granting("");
        let gw = gw(&backend, "", route);
        assert_eq!(asked(&gw, OFFER).0.status, 101, "{route}");
        let head = wait(&told);
        assert_eq!(field(&head, "sec-websocket-extensions"), expected, "{route}");
        assert_eq!(head.to_lowercase().matches("extensions").count(), expected.iter().count());
        gw.stop();
        backend.join();
    }
    let (backend, told) = granting("");
    let inspected = gw(&backend, "", "mode = \"inspect\"");
    let malformed = "Sec-WebSocket-Extensions: permessage-deflate; =\r\n";
    assert_refused(&inspected, &told, malformed, 400, "extension");
    inspected.stop();
    backend.join();
    // Nobody reads the frames of an opaque session: its extensions are between client and backend.
    let (backend, told) = granting("Sec-WebSocket-Extensions: x-webkit-deflate-frame\r\n");
    let gw = gw(&backend, "", "mode = \"zero-copy\"");
    let (answer, _) = asked(&gw, OFFER);
    assert_eq!(answer.field("sec-websocket-extensions"), Some("x-webkit-deflate-frame"));
    let head = wait(&told);
    for line in OFFER.lines() {
        assert!(head.contains(line), "{head}");
    }
    gw.stop();
    backend.join();
}

#[test]
fn a_101_may_agree_only_to_extensions_that_were_forwarded() {
    const DEFLATE: &str = "Sec-WebSocket-Extensions: permessage-deflate\r\n";
    const OTHER: &str = "Sec-WebSocket-Extensions: x-webkit-deflate-frame\r\n";
    const BOTH: &str = "Sec-WebSocket-Extensions: permessage-deflate\r\n\
                        Sec-WebSocket-Extensions: x-webkit-deflate-frame\r\n";
    const WINDOW: &str =
        "Sec-WebSocket-Extensions: permessage-deflate; server_max_window_bits=7\r\n";
    for (agreed, offered, keys, inspected) in [
        (DEFLATE, DEFLATE, "", 101),
        ("", DEFLATE, "", 101),
        (DEFLATE, DEFLATE, "deflate = \"strip\"", 502),
        (DEFLATE, "", "", 502),
        (OTHER, OTHER, "", 502),
        (OTHER, DEFLATE, "", 502),
        (BOTH, BOTH, "", 502),
        (WINDOW, DEFLATE, "", 502),
        (WINDOW, WINDOW, "", 502),
    ] {
        let (backend, told) = granting(agreed);
        let controllers = "trusted_controllers = [\"127.0.0.1\"]";
        let gw = gw(&backend, controllers, &format!("mode = \"inspect\"\n{keys}"));
        let (answer, line) = asked(&gw, offered);
        assert_eq!(answer.status, inspected, "{agreed} for {offered} with {keys}: {line}");
        wait(&told);
        match inspected {
            101 => assert!(answer.head.contains(agreed), "it passes as it came: {}", answer.head),
            _ => assert_eq!(
                (&line["side"], &line["stage"]),
                (&"upstream".into(), &"response".into())
            ),
        }
        let opaque = format!("{offered}Upsplice-Use-Zero-Copy: true\r\n");
        assert_eq!(asked(&gw, &opaque).0.status, 101, "nobody looks");
        wait(&told);
        gw.stop();
        backend.join();
    }
}

#[test]
fn the_mode_can_be_asked_for_without_a_file() {
    let (backend, _told) = granting("");
    let to = backend.address.to_string();
    for (flags, variable, expected) in [
        (&["--mode", "inspect"][..], None, "inspect"),
        (&["--to", &to, "--mode", "inspect"], None, "inspect"),
        (&["--to", &to], Some("inspect"), "inspect"),
        (&["--mode", "zero-copy"], Some("inspect"), "zero-copy"),
        (&["--to", &to], None, "zero-copy"),
    ] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_upsplice"));
        command.args(["run", "--listen", "127.0.0.1:0", "--workers", "1"]).args(flags);
        command.env_remove("UPSPLICE_MODE").env_remove("UPSPLICE_TO").env_remove("RUST_LOG");
        command.envs(variable.map(|mode| ("UPSPLICE_MODE", mode)));
        let folder = tempfile::tempdir().expect("a temporary folder");
        let program = Program::from_command(&mut command, 1, folder);
        drop(Client::upgraded(program.address(), "/", "websocket"));
        let line = program.session_line();
        assert_eq!(mode_of(&line), (expected, "configured"), "{flags:?} {variable:?}");
    }
    backend.join();
}
