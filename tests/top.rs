//! `upsplice top` without a screen: one interval as text or JSON, and many as lines, of a real gateway.

#[path = "support/joined.rs"]
mod joined;
mod support;

use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, Command, Stdio};

use joined::Joined;
use serde_json::Value;
use support::admin::{Api, unix};
use support::{Engine, Runtime, eventually};

/// What is sent at a time, each way.
const PIECE: [u8; 1000] = [7; 1000];

fn joined(engine: Engine) -> (Joined, Api, String) {
    let (line, api) = unix();
    let admin = format!("--admin=unix:{}", api.path().display());
    (Joined::with(engine, Runtime::Epoll, &line), api, admin)
}

fn top(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_upsplice"));
    for name in ["UPSPLICE_ADMIN", "UPSPLICE_CONFIG", "UPSPLICE_ADMIN_TOKEN_FILE"] {
        command.env_remove(name);
    }
    command.arg("top").args(arguments).stdin(Stdio::null());
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// Bytes pass in both directions for as long as it runs; what it says then.
fn said_while_bytes_pass(joined: &mut Joined, arguments: &[&str]) -> String {
    let mut child = top(arguments).spawn().expect("it runs");
    eventually("it ends", || {
        pass(joined);
        child.try_wait().expect("our child").is_some()
    });
    let output = child.wait_with_output().expect("it has ended");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && stderr.is_empty(), "{arguments:?}: {stderr}");
    String::from_utf8(output.stdout).expect("UTF-8")
}

fn pass(joined: &mut Joined) {
    let (mut client, mut peer) = (&joined.client.socket, &joined.peer.socket);
    client.write_all(&PIECE).expect("sent");
    peer.read_exact(&mut PIECE.clone()).expect("it comes");
    peer.write_all(&PIECE).expect("sent");
    client.read_exact(&mut PIECE.clone()).expect("it comes");
}

#[test]
fn one_interval_has_the_rates_of_the_gateway_and_of_its_sessions() {
    for (engine, word, other) in
        [(Engine::Copy, "copy", "splice"), (Engine::Splice, "splice", "copy")]
    {
        let (mut joined, api, admin) = joined(engine);
        let id = api.sessions("")[0]["id"].clone();
        let text =
            said_while_bytes_pass(&mut joined, &["--once", "--json", "--interval=300ms", &admin]);
        assert_eq!(text.lines().count(), 1, "{text}");
        let told: Value = serde_json::from_str(&text).expect("JSON");
        assert_eq!(told["gateway"]["state"], "ready", "{told}");
        assert_eq!((&told["gateway"]["workers"], &told["sessions_open"]), (&1.into(), &1.into()));
        assert!(told["interval_seconds"].as_f64().is_some_and(|seconds| seconds >= 0.3), "{told}");
        let rate = |of: &Value| of.as_f64().unwrap_or_else(|| panic!("no rate: {told}"));
        let session = &told["sessions"][0];
        for of in [&told, session, &told["routes"][0]] {
            for direction in ["to_upstream", "to_downstream"] {
                assert!(rate(&of["bytes_per_second"][direction]) > 0.0, "{direction}: {of}");
            }
        }
        assert!(rate(&told["engine_bytes_per_second"][word]) > 0.0, "{told}");
        assert_eq!(rate(&told["engine_bytes_per_second"][other]), 0.0, "{told}");
        assert_eq!((&session["id"], &session["engine"]), (&id, &word.into()));
        assert_eq!(
            (&told["sessions_complete"], &session["idle_seconds"]),
            (&true.into(), &0.0.into())
        );
        joined.ended_any();
    }
}

#[test]
fn where_stdout_is_no_terminal_one_interval_is_text() {
    let (mut joined, api, admin) = joined(Engine::Copy);
    let id = api.sessions("")[0]["id"].as_str().expect("an id").to_owned();
    for once in [&["--once"][..], &[]] {
        let arguments = [once, &["--interval=200ms", &admin]].concat();
        let text = said_while_bytes_pass(&mut joined, &arguments);
        assert!(text.chars().all(|c| c == '\n' || !c.is_control()), "no control codes: {text:?}");
        let first = text.lines().next().expect("a line");
        assert!(first.starts_with("upsplice "), "{text}");
        assert!(first.contains(" ready, 1 session, 1 connection, 1 worker"), "{text}");
        for line in
            ["to upstream ", "to downstream ", "upgrades ", "engines ", "paused ", "closes "]
        {
            assert!(text.lines().any(|found| found.starts_with(line)), "{line}: {text}");
        }
        let engines = text.lines().find(|line| line.starts_with("engines ")).expect("found above");
        assert!(engines.contains(" copy ") && engines.ends_with("no fallback"), "{text}");
        assert!(text.lines().any(|line| line.starts_with(&id)), "{text}");
    }
    joined.ended_any();
}

#[test]
fn sessions_are_chosen_and_the_gateway_is_told_whole() {
    let (mut joined, _api, admin) = joined(Engine::Copy);
    let arguments = ["--once", "--json", "--interval=100ms", "--min-bytes=1GiB", &admin];
    let told = said_while_bytes_pass(&mut joined, &arguments);
    let told: Value = serde_json::from_str(&told).expect("JSON");
    assert_eq!((&told["sessions"], &told["sessions_open"]), (&Value::Array(vec![]), &1.into()));
    joined.ended_any();
}

#[test]
fn a_drain_and_a_gateway_that_is_not_ready_are_told() {
    let (mut joined, api, admin) = joined(Engine::Copy);
    api.ask("POST", "/v1/drain?over=1h&stop=false");
    let text = said_while_bytes_pass(&mut joined, &["--once", "--interval=100ms", &admin]);
    assert!(text.contains(" not ready: the gateway drains: it refuses new sessions, "), "{text}");
    let drain = text.lines().find(|line| line.starts_with("drain "));
    assert!(drain.is_some_and(|line| line.contains("the gateway drains: ")), "{text}");
    assert!(drain.is_some_and(|line| line.ends_with("0 told, 1 left")), "{text}");
    joined.ended_any();
}

#[test]
fn an_interval_after_the_other_is_a_line_until_nobody_reads() {
    let (joined, _api, admin) = joined(Engine::Copy);
    let mut child = top(&["--json", "--interval=100ms", &admin]).spawn().expect("it runs");
    let mut lines = lines(&mut child);
    for _ in 0..3 {
        assert_eq!(next(&mut lines)["gateway"]["state"], "ready");
    }
    // It sees that nobody reads with the next line.
    drop(lines);
    let status = ended(&mut child);
    assert_eq!(status, Some(0));
    joined.ended_any();
}

#[test]
fn a_gateway_that_goes_away_is_asked_again() {
    let (joined, _api, admin) = joined(Engine::Copy);
    let mut child = top(&["--json", "--interval=100ms", &admin]).spawn().expect("it runs");
    let mut lines = lines(&mut child);
    assert_eq!(next(&mut lines)["gateway"]["state"], "ready");
    joined.ended_any();
    let mut gone = next(&mut lines);
    while gone["gateway"]["state"] != "gone" {
        gone = next(&mut lines);
    }
    let why = gone["gateway"]["reasons"][0].as_str().expect("a reason");
    assert!(why.starts_with("no gateway answers at unix:"), "{gone}");
    assert_eq!(next(&mut lines)["gateway"]["state"], "gone");
    drop(lines);
    assert_eq!(ended(&mut child), Some(0));
}

#[test]
fn the_exit_status_tells_what_is_not_there() {
    let (joined, _api, admin) = joined(Engine::Copy);
    let nobody = "--admin=unix:/nonexistent/admin.sock";
    for (arguments, expected, part) in [
        (&["--once", nobody][..], 69, "no gateway answers at unix:/nonexistent"),
        (&[nobody], 69, "is it running with --admin?"),
        (&["--json", nobody], 69, "is it running with --admin?"),
        (&["--once", "--route=x", &admin], 66, "no route \"x\": there are: test"),
        (&["--once", "--min-age=x", &admin], 1, "min_age is wrong"),
        (&["--interval=1ms", &admin], 2, "between 100ms and 1h"),
        (&["--config=/nonexistent.toml"], 78, "cannot be read"),
    ] {
        let output = top(arguments).output().expect("it runs");
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(expected), "{arguments:?}: {stderr}");
        assert!(output.stdout.is_empty() && stderr.contains(part), "{arguments:?}: {stderr}");
    }
    joined.ended_any();
}

fn lines(child: &mut Child) -> impl Iterator<Item = String> + use<> {
    let stdout = child.stdout.take().expect("piped");
    BufReader::new(stdout).lines().map(|line| line.expect("UTF-8"))
}

fn next(lines: &mut impl Iterator<Item = String>) -> Value {
    let line = lines.next().expect("a line comes");
    serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line}"))
}

fn ended(child: &mut Child) -> Option<i32> {
    eventually("it ends", || child.try_wait().expect("our child").is_some());
    child.wait().expect("our child").code()
}
