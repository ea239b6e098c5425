//! The command line over the admin API: tables, JSON, and exit statuses that tell.

#[path = "support/joined.rs"]
mod joined;
mod support;

use std::process::Command;

use joined::Joined;
use serde_json::Value;
use support::admin::{Api, unix};
use support::{Engine, Runtime};

/// Status, what is on stdout, and what is on stderr.
fn upsplice(arguments: &[&str]) -> (i32, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_upsplice"));
    for name in ["UPSPLICE_ADMIN", "UPSPLICE_CONFIG", "UPSPLICE_ADMIN_TOKEN_FILE"] {
        command.env_remove(name);
    }
    let output = command.args(arguments).output().expect("it runs");
    let text = |bytes| String::from_utf8(bytes).expect("UTF-8");
    let status = output.status.code().expect("it is not killed");
    (status, text(output.stdout), text(output.stderr))
}

fn joined() -> (Joined, Api, String) {
    let (line, api) = unix();
    let admin = format!("--admin=unix:{}", api.path().display());
    (Joined::with(Engine::Copy, Runtime::Epoll, &line), api, admin)
}

fn good(arguments: &[&str]) -> String {
    let (status, stdout, stderr) = upsplice(arguments);
    assert_eq!((status, &*stderr), (0, ""), "{arguments:?}: {stdout}");
    stdout
}

#[test]
fn sessions_are_listed_shown_and_killed() {
    let (joined, api, admin) = joined();
    let id = api.sessions("")[0]["id"].as_str().expect("an id").to_owned();
    let table = good(&["sessions", "list", &admin]);
    let [heads, row] = table.lines().collect::<Vec<_>>()[..] else { panic!("{table}") };
    assert!(heads.starts_with("ID  ") && row.starts_with(&id), "{table}");
    assert!(row.contains("  copy  ") && row.ends_with("open"), "{table}");
    let json: Value =
        serde_json::from_str(&good(&["sessions", "list", "--json", &admin])).expect("JSON");
    assert_eq!(json["sessions"][0]["id"], id);
    assert_eq!(good(&["sessions", "list", "--route=test", "--limit=1", &admin]).lines().count(), 2);
    assert_eq!(good(&["sessions", "list", "--min-bytes=1GiB", &admin]).lines().count(), 1);
    let facts = good(&["sessions", "show", &id, &admin]);
    assert!(facts.lines().any(|line| line.split_whitespace().eq(["upgrade", "raw"])), "{facts}");
    let routes = good(&["routes", &admin]);
    assert!(routes.lines().nth(1).is_some_and(|row| row.starts_with("test ")), "{routes}");
    let routes: Value = serde_json::from_str(&good(&["routes", "--json", &admin])).expect("JSON");
    assert_eq!(routes["routes"][0]["sessions_open"], 1);
    assert_eq!(good(&["sessions", "kill", &id, &admin]), format!("{id} is told to end\n"));
    let (client, peer) = (joined.client, joined.peer);
    assert_eq!(joined.gw.line()["close_reason"], "killed");
    drop((client, peer));
    let told = good(&["sessions", "kill", "--all", "--rate=5/s", "--jitter=1s", &admin]);
    assert_eq!(told, "0 sessions are told to end, within 0.0 s\n");
    joined.gw.stop();
}

#[test]
fn the_exit_status_tells_what_is_not_there() {
    let (joined, _api, admin) = joined();
    let nobody = "--admin=unix:/nonexistent/admin.sock";
    let unknown = "01ARZ3NDEKTSV4RRFFQ69G5FAV";
    for (arguments, expected, part) in [
        (&["sessions", "list", nobody][..], 69, "no gateway answers at unix:/nonexistent"),
        (&["routes", nobody], 69, "is it running with --admin?"),
        (&["sessions", "show", unknown, &admin], 66, "no session 01ARZ3"),
        (&["sessions", "kill", unknown, &admin], 66, "no session 01ARZ3"),
        (&["sessions", "list", "--route=x", &admin], 66, "no route \"x\": there are: test"),
        (&["sessions", "list", "--min-age=x", &admin], 1, "min_age is wrong"),
        (&["sessions", "show", "../routes", &admin], 1, "not the id"),
        (&["sessions", "kill", &admin], 2, "required"),
        (&["sessions", "kill", unknown, "--all", &admin], 2, "cannot be used with"),
        (&["sessions", "watch", &admin], 2, "unrecognized subcommand"),
        (&["routes", "--config=/nonexistent.toml"], 78, "cannot be read"),
        (&["routes", &admin, "--admin-token-file=/nonexistent"], 78, "cannot be read"),
    ] {
        let (status, stdout, stderr) = upsplice(arguments);
        assert_eq!((status, &*stdout), (expected, ""), "{arguments:?}: {stderr}");
        assert!(stderr.contains(part), "{arguments:?}: {stderr}");
    }
    joined.ended_any();
}

#[test]
fn the_file_says_where_the_gateway_is() {
    let (joined, api, _) = joined();
    let file = tempfile::NamedTempFile::new().expect("a file");
    let text = format!("[gateway]\nadmin = \"unix:{}\"\n", api.path().display());
    std::fs::write(file.path(), text).expect("written");
    let config = format!("--config={}", file.path().display());
    assert_eq!(good(&["sessions", "list", &config]).lines().count(), 2);
    joined.ended_any();
}

#[test]
fn completions_and_the_manual_know_every_verb() {
    for shell in ["bash", "zsh", "fish"] {
        let text = good(&["completions", shell]);
        assert!(text.contains("sessions") && text.contains("min-age"), "{shell}");
    }
    let manual = good(&["man"]);
    for word in [".TH upsplice", "sessions", "routes", "top", "probe", "UPSPLICE_CONFIG"] {
        assert!(manual.contains(word), "{word}");
    }
    assert!(!manual.contains("bench\\-peers"), "what is hidden is not advertised");
}
