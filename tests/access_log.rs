//! The access log: where it goes, what others may do to its file, and what is never in it.

mod support;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;
use support::client::{Answer, KEY, upgrade_head};
use support::process::{command, config_to, refusal};
use support::{Backend, Client, Engine, Gw, Program, Runtime, admin, eventually};

/// One request that becomes a session and is over.
fn session(address: std::net::SocketAddr, path: &str) {
    let mut client = Client::upgraded(address, path, "raw");
    client.shutdown_write();
    assert_eq!(client.receive_to_end().expect("no reset"), b"");
}

/// The lines of these files: each of them a whole one.
fn lines_of(files: &[PathBuf]) -> Vec<Value> {
    let mut lines = Vec::new();
    for file in files {
        let text = fs::read_to_string(file).unwrap_or_default();
        assert!(text.is_empty() || text.ends_with('\n'), "{file:?} ends in a torn line");
        for line in text.lines() {
            let parsed = serde_json::from_str(line);
            lines.push(parsed.unwrap_or_else(|error| panic!("{file:?}: {error}: {line:?}")));
        }
    }
    lines
}

fn files_in(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).expect("it is there");
    entries.map(|entry| entry.expect("it is there").path()).collect()
}

#[test]
fn no_line_is_lost_or_torn_while_the_file_is_moved_away_again_and_again() {
    const CLIENTS: usize = 4;
    const SESSIONS: usize = 50;
    let folder = tempfile::tempdir().expect("a folder");
    let log = folder.path().join("access.log");
    let backend = Backend::echo();
    let gateway = format!("access_log = {log:?}");
    let mut program = Program::start(&config_to(backend.address, &gateway, ""));
    let address = program.address();
    let moved = std::thread::scope(|scope| {
        let clients: Vec<_> = (0..CLIENTS)
            .map(|_| scope.spawn(move || (0..SESSIONS).for_each(|_| session(address, "/"))))
            .collect();
        let mut moved = 0;
        while clients.iter().any(|client| !client.is_finished()) {
            let is_written = fs::metadata(&log).is_ok_and(|found| found.len() > 0);
            if is_written {
                fs::rename(&log, log.with_extension(format!("{moved}"))).expect("it is there");
                moved += 1;
            }
            // As logrotate does it with `create`, and with `nocreate`.
            if is_written && moved % 2 == 0 {
                fs::File::create(&log).expect("a file");
            }
            std::thread::yield_now();
        }
        moved
    });
    program.signal("TERM");
    assert_eq!(program.exit_code(), Some(0));
    let lines = lines_of(&files_in(folder.path()));
    let ids: BTreeSet<&str> = lines.iter().filter_map(|line| line["session_id"].as_str()).collect();
    assert_eq!((lines.len(), ids.len()), (CLIENTS * SESSIONS, CLIENTS * SESSIONS));
    assert!(moved > 2, "it was moved {moved} times");
    backend.join();
}

#[test]
fn logrotate_rotates_the_file_in_both_of_its_ways() {
    if Command::new("logrotate").arg("--version").output().is_err() {
        eprintln!("SKIPPED: logrotate_rotates_the_file_in_both_of_its_ways: no logrotate");
        return;
    }
    let backend = Backend::echo();
    // The rules that are shipped, as far as they do not need another user and leave the files to be read.
    let shipped = include_str!("../scripts/package/upsplice.logrotate");
    let kept =
        |line: &&str| !["compress", "upsplice upsplice"].iter().any(|end| line.ends_with(end));
    let shipped: String = shipped.lines().filter(kept).map(|line| format!("{line}\n")).collect();
    let of = |way| format!("/var/log/upsplice/*.log {{\n rotate 9\n missingok\n {way}\n}}\n");
    for way in [shipped, of("create"), of("nocreate"), of("copytruncate")] {
        let folder = tempfile::tempdir().expect("a folder");
        let log = folder.path().join("access.log");
        let state = folder.path().join("state");
        let rules = folder.path().join("rules");
        let text = way.replace("/var/log/upsplice/*.log", &format!("{log:?}"));
        fs::write(&rules, text).expect("a file");
        let gateway = format!("access_log = {log:?}");
        let mut program = Program::start(&config_to(backend.address, &gateway, ""));
        const ROUNDS: usize = 3;
        for round in 1..=ROUNDS {
            session(program.address(), "/");
            eventually("the line is written", || fs::metadata(&log).is_ok_and(|f| f.len() > 0));
            let done = Command::new("logrotate")
                .args(["--force", "--state"])
                .args([&state, &rules])
                .output()
                .expect("it is there");
            assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
            assert!(folder.path().join(format!("access.log.{round}")).exists(), "{way}");
        }
        session(program.address(), "/");
        program.signal("TERM");
        assert_eq!(program.exit_code(), Some(0));
        let mut files: Vec<_> =
            (1..=ROUNDS).map(|n| folder.path().join(format!("access.log.{n}"))).collect();
        files.push(log);
        for file in &files {
            assert_eq!(lines_of(std::slice::from_ref(file)).len(), 1, "{way}: {file:?}");
        }
    }
    backend.join();
}

#[test]
fn a_full_disk_ends_no_session_and_is_counted_and_said_once() {
    let backend = Backend::echo();
    let config = config_to(backend.address, "access_log = \"/dev/full\"", "");
    let mut program = Program::start(&config);
    session(program.address(), "/");
    let said = program.diagnostic_with("access log cannot be written");
    assert!(said.contains("No space left"), "{said}");
    eventually("it is tried again", || {
        program.counters()["log_write_failures"].as_u64().is_some_and(|failures| failures > 2)
    });
    session(program.address(), "/");
    let mut client = Client::upgraded(program.address(), "/", "raw");
    client.send(b"ping");
    assert_eq!(client.receive(4), b"ping");
    drop(client);
    program.signal("TERM");
    assert_eq!(program.exit_code(), Some(0));
    let rest = program.diagnostics_to_end();
    assert!(!rest.contains("cannot be written"), "it was said again: {rest}");
    backend.join();
}

#[test]
fn a_file_that_cannot_be_opened_keeps_the_program_from_starting() {
    let nowhere = "127.0.0.1:1".parse().expect("an address");
    let config = config_to(nowhere, "access_log = \"/nonexistent/access.log\"", "");
    let (mut command, _folder) = command(&config);
    let (code, said) = refusal(&mut command);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("access_log: cannot open /nonexistent/access.log"), "{said}");
}

#[test]
fn a_session_says_when_it_begins_where_that_is_asked_for_and_a_refusal_what_it_is() {
    let backend = Backend::echo();
    let with = |gateway| Gw::with(&backend, Engine::Auto, Runtime::Epoll, gateway, "");
    let gw = with("[gateway.log]\nsession_open = true");
    session(gw.address(), "/chat");
    let (opened, closed) = (gw.line(), gw.line());
    assert_eq!(
        (&opened["event"], &closed["event"]),
        (&"session_open".into(), &"session_close".into())
    );
    assert_eq!(opened["session_id"], closed["session_id"]);
    assert_eq!((&opened["status"], &opened["path"]), (&101.into(), &"/chat".into()));
    assert!(opened["handshake_ms"].is_number() && opened["close_reason"].is_null(), "{opened}");
    let refused: Answer = Client::connect(gw.address()).ask("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(refused.status, 426);
    assert_eq!((&gw.line()["event"], refused.status), (&"refused".into(), 426));
    gw.stop();
    let gw = with("");
    session(gw.address(), "/");
    assert_eq!(gw.line()["event"], "session_close", "by default that is all");
    gw.stop();
    backend.join();
}

#[test]
fn what_is_to_be_hidden_is_neither_in_the_log_nor_told_to_the_operator() {
    let backend = Backend::echo();
    let (line, api) = admin::unix();
    let gateway = format!(
        "{line}\ntrusted_proxies = [\"127.0.0.1\"]\n[gateway.log]\nsession_open = true\n\
         redact = [\"token-[a-z]+\", \"[0-9]{{6,}}\"]\nclient_addr = \"network\"\nomit = [\"peer_addr\"]"
    );
    let gw = Gw::with(&backend, Engine::Auto, Runtime::Epoll, &gateway, "");
    let mut client = Client::connect(gw.address());
    let fields = "User-Agent: app token-abc\r\nX-Request-ID: id-123456\r\n\
        X-Forwarded-For: 192.0.2.77\r\n";
    assert_eq!(client.ask(upgrade_head("/a/token-xyz/1234567", "raw", fields)).status, 101);
    let told = api.ask("GET", "/v1/sessions").body;
    let id = gw.gateway.sessions()[0].id.clone();
    let told_of_one = api.ask("GET", &format!("/v1/sessions/{id}")).body;
    client.shutdown_write();
    client.receive_to_end().expect("no reset");
    let lines = [gw.line(), gw.line()];
    for line in &lines {
        assert_eq!(line["path"], "/a/[redacted]/[redacted]", "{line}");
        assert_eq!(line["user_agent"], "app [redacted]", "{line}");
        assert_eq!(line["request_id"], "id-[redacted]", "{line}");
        assert_eq!(line["client_addr"], "192.0.2.0", "{line}");
        assert!(line["peer_addr"].is_null() && line["client_port"].is_null(), "{line}");
    }
    for hidden in ["token-", "123456"] {
        for text in [&told, &told_of_one, &lines[0].to_string(), &lines[1].to_string()] {
            assert!(!text.contains(hidden), "{hidden}: {text}");
        }
    }
    gw.stop();
    backend.join();
}

#[test]
fn no_secret_of_a_request_is_in_any_line_or_answer() {
    const SECRETS: [&str; 6] =
        ["bearer-secret", "cookie-secret", "query-secret", "proxy-secret", "api-secret", KEY];
    let backend = Backend::echo();
    let (line, api) = admin::unix();
    let folder = tempfile::tempdir().expect("a folder");
    let gateway = format!("{line}\n[gateway.log]\nsession_open = true\nfilter = \"trace\"");
    let (mut command, _config) = command(&config_to(backend.address, &gateway, ""));
    let mut program = Program::from_command(&mut command, 1, folder);
    let mut client = Client::connect(program.address());
    let fields = "Authorization: Bearer bearer-secret\r\nCookie: sid=cookie-secret\r\n\
        Proxy-Authorization: Basic proxy-secret\r\nX-Api-Key: api-secret\r\n";
    let head = upgrade_head("/chat?access_token=query-secret", "websocket", fields);
    assert_eq!(client.ask(head).status, 101);
    let mut told = vec![api.ask("GET", "/v1/sessions").body, api.ask("GET", "/v1/routes").body];
    told.push(api.ask("GET", "/metrics").body);
    let opened = program.line();
    let id = opened["session_id"].as_str().expect("it has one").to_owned();
    told.push(api.ask("GET", &format!("/v1/sessions/{id}")).body);
    assert!(told[3].contains("/chat"), "{}", told[3]);
    drop(client);
    // A refusal, whose line and answer may name the rule and nothing more.
    let bad = "GET /?access_token=query-secret HTTP/1.1\r\nHost: a b\r\n\
        Authorization: Bearer bearer-secret\r\n\r\n";
    let refused = Client::connect(program.address()).ask(bad);
    assert_eq!(refused.status, 400, "{}", refused.head);
    program.signal("TERM");
    assert_eq!(program.exit_code(), Some(0));
    told.push(opened.to_string());
    told.extend(program.lines_to_end().iter().map(Value::to_string));
    told.push(program.diagnostics_to_end());
    assert_eq!(told.len(), 8, "four answers, three lines, diagnostics: {told:#?}");
    for secret in SECRETS {
        assert!(!told.iter().any(|text| text.contains(secret)), "{secret}: {told:#?}");
    }
    backend.join();
}

#[test]
fn diagnostics_are_as_detailed_as_asked_by_module_and_json_if_asked() {
    let backend = Backend::echo();
    let config = config_to(backend.address, "[gateway.log]\nfilter = \"warn\"", "");
    let (mut command, folder) = command(&config);
    command.args(["--log", "info,upsplice::session=debug", "--log-format", "json"]);
    let mut program = Program::from_command(command.env("RUST_LOG", "off"), 0, folder);
    let listens: Value = json(&program.diagnostic_with("listening on "));
    assert_eq!(
        (&listens["level"], &listens["target"]),
        (&"INFO".into(), &"upsplice::server".into())
    );
    let said = listens["message"].as_str().and_then(|said| said.rsplit(' ').next());
    let address = said.expect("an address").trim_end_matches('"').parse().expect("an address");
    session(address, "/");
    let joined = json(&program.diagnostic_with("\"joined\""));
    assert_eq!(
        (&joined["level"], &joined["target"]),
        (&"DEBUG".into(), &"upsplice::session::log".into())
    );
    assert_eq!(joined["session"], program.line()["session_id"]);
    program.signal("TERM");
    assert_eq!(program.exit_code(), Some(0));
    backend.join();
}

fn json(line: &str) -> Value {
    serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))
}

#[test]
fn a_filter_that_is_none_is_a_usage_error_wherever_it_is() {
    let nowhere = "127.0.0.1:1".parse().expect("an address");
    let (mut by_flag, _folder) = command(&config_to(nowhere, "", ""));
    let (mut by_environment, _other) = command(&config_to(nowhere, "", ""));
    by_flag.args(["--log", "upsplice=loud"]);
    by_environment.env("RUST_LOG", "upsplice=loud");
    for command in [&mut by_flag, &mut by_environment] {
        let (code, said) = refusal(command);
        assert_eq!(code, Some(2), "{said}");
        assert!(said.contains("--log") && said.contains("upsplice=loud"), "{said}");
    }
}
