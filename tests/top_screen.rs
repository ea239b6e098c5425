//! `upsplice top` in a terminal: keys, a kill that asks, sizes, and a terminal that is given back.

#[path = "support/joined.rs"]
mod joined;
mod support;
#[path = "support/terminal.rs"]
mod terminal;

use std::process::Command;

use joined::{Joined, open};
use support::admin::{Api, unix};
use support::{Engine, Runtime};
use terminal::Terminal;
use upsplice::top::draw::Colours;
use upsplice::top::screen::Screen;

/// A gateway with one session, and the program that watches it.
fn watched(columns: u16, rows: u16, variables: &[(&str, &str)]) -> (Joined, Api, Terminal) {
    let (line, api) = unix();
    let joined = Joined::with(Engine::Copy, Runtime::Epoll, &line);
    let mut command = Command::new(env!("CARGO_BIN_EXE_upsplice"));
    command.args(["top", "--interval=100ms"]);
    command.arg(format!("--admin=unix:{}", api.path().display()));
    command.env_remove("NO_COLOR").envs(variables.iter().copied());
    let mut terminal = Terminal::start(command, columns, rows);
    terminal.see_text("1 session, by rate");
    terminal.assert_taken();
    (joined, api, terminal)
}

fn client_of(joined: &Joined) -> String {
    joined.client.socket.local_addr().expect("connected").to_string()
}

#[test]
fn keys_work_and_q_gives_the_terminal_back() {
    let (joined, api, mut terminal) = watched(120, 30, &[]);
    terminal.see_text(&client_of(&joined));
    terminal.see_text(" ready, 1 session");
    terminal.keys("s");
    terminal.see_text("by bytes");
    terminal.keys("?");
    terminal.see_text("kill the session; y says yes");
    terminal.keys("\x1b");
    terminal.see("help goes", |screen| !screen.contains("y says yes"));
    terminal.keys("t");
    terminal.see_text("ENDPOINTS");
    terminal.keys("t/nobody\r");
    terminal.see_text("0 of 1 session");
    terminal.keys("\x1b");
    terminal.see("all are back", |screen| !screen.contains("0 of 1"));
    terminal.keys("p");
    terminal.see_text("PAUSED");
    terminal.keys("p\r");
    let id = api.sessions("")[0]["id"].as_str().expect("an id").to_owned();
    terminal.see_text(&id);
    terminal.see_text("handshake_ms");
    terminal.keys(" ");
    terminal.see("facts go", |screen| !screen.contains("handshake_ms"));
    terminal.keys("q");
    assert_eq!(terminal.ended(), Some(0));
    terminal.assert_given_back();
    joined.ended_any();
}

#[test]
fn a_kill_asks_first_and_ends_only_the_selected_session() {
    let (joined, api, mut terminal) = watched(120, 30, &[]);
    let (second, second_peer) = open(&joined.gw, &joined.door);
    terminal.see_text("2 sessions, by rate");
    terminal.keys("/");
    terminal.keys(&format!("{}\r", second.socket.local_addr().expect("connected")));
    terminal.see_text("1 of 2 sessions");
    terminal.keys("k");
    terminal.see_text("Kill session");
    assert_eq!(api.sessions("").len(), 2, "it only asks");
    terminal.keys("n");
    terminal.see_text("not killed");
    assert_eq!(api.sessions("").len(), 2, "no is no");
    terminal.keys("k");
    terminal.see_text("Kill session");
    terminal.keys("y");
    terminal.see_text("is told to end");
    drop((second, second_peer));
    let line = joined.gw.line();
    assert_eq!(line["close_reason"], "killed", "{line}");
    terminal.keys("\x1b");
    terminal.see_text("1 session, by rate");
    assert_eq!(api.sessions("").len(), 1);
    terminal.keys("\x03");
    assert_eq!(terminal.ended(), Some(0));
    terminal.assert_given_back();
    joined.ended_any();
}

#[test]
fn a_signal_gives_the_terminal_back() {
    for signal in ["TERM", "INT", "HUP"] {
        let (joined, _api, mut terminal) = watched(80, 24, &[]);
        terminal.signal(signal);
        assert_eq!(terminal.ended(), Some(0), "{signal}");
        terminal.assert_given_back();
        joined.ended_any();
    }
}

#[test]
fn a_panic_gives_the_terminal_back_before_it_tells_why() {
    let mut command = Command::new(std::env::current_exe().expect("this program"));
    command.args(["--ignored", "--exact", "--nocapture", "panics_in_another_thread"]);
    let mut terminal = Terminal::start(command, 80, 24);
    terminal.ended();
    terminal.assert_given_back();
    let output = String::from_utf8_lossy(&terminal.output).into_owned();
    let back = output.find("\x1b[?1049l").expect("it leaves the other screen");
    let told = output.find("what happened").expect("it tells");
    assert!(back < told, "nobody could read it: {output:?}");
}

/// What the test above starts in a terminal.
#[test]
#[ignore = "takes the terminal that it runs in"]
fn panics_in_another_thread() {
    let Ok(screen) = Screen::open(Colours::None) else { return };
    let ended = std::thread::spawn(|| panic!("what happened")).join();
    assert!(ended.is_err());
    // The one that draws may be stuck: the terminal must be back without its end.
    std::mem::forget(screen);
}

#[test]
fn a_gateway_that_goes_away_is_told_and_asked_again() {
    let (joined, _api, mut terminal) = watched(80, 24, &[]);
    joined.ended_any();
    terminal.see_text("gone: no gateway answers at unix:");
    terminal.assert_taken();
    terminal.keys("q");
    assert_eq!(terminal.ended(), Some(0));
    terminal.assert_given_back();
}

#[test]
fn the_screen_follows_the_size_of_the_terminal() {
    let (joined, _api, mut terminal) = watched(120, 30, &[]);
    let client = client_of(&joined);
    terminal.see_text("ENGINE");
    terminal.resize(40, 10);
    terminal.see("a small screen", |screen| {
        let lines: Vec<&str> = screen.lines().collect();
        lines.len() == 10 && lines[9].starts_with("1 session") && screen.contains(&client)
    });
    terminal.resize(100, 40);
    terminal.see("a large one", |screen| {
        screen.lines().nth(39).is_some_and(|line| line.starts_with("1 session"))
    });
    terminal.keys("q");
    assert_eq!(terminal.ended(), Some(0));
    joined.ended_any();
}

#[test]
fn colours_are_left_out_where_none_are_wanted() {
    for (variables, expected) in [(&[][..], true), (&[("NO_COLOR", "1")], false)] {
        let (joined, _api, mut terminal) = watched(80, 24, variables);
        terminal.keys("q");
        assert_eq!(terminal.ended(), Some(0));
        let output = String::from_utf8_lossy(&terminal.output);
        let green = output.contains("\x1b[38;5;2");
        assert_eq!(green, expected, "{variables:?}: {output:?}");
        joined.ended_any();
    }
}
