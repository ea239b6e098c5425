use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use serde_json::json;
use std::time::Duration;

use super::super::exposition::Exposition;
use super::super::sample::{Drain, Route, Sample, Session};
use super::*;

fn drawn(state: &State, width: u16, height: u16) -> Vec<String> {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).expect("memory");
    terminal.draw(|frame| draw(state, Colours::None, frame)).expect("memory");
    let buffer = terminal.backend().buffer();
    let cells: Vec<&str> = buffer.content().iter().map(|cell| cell.symbol()).collect();
    cells.chunks(usize::from(width.max(1))).map(|line| line.concat()).collect()
}

fn sample(seconds: u64, bytes: u64) -> Sample {
    let page = format!(
        "upsplice_build_info{{version=\"9.9\"}} 1\nupsplice_workers 4\nupsplice_sessions_open 7\n\
         upsplice_bytes_total{{route=\"chat\",direction=\"to_upstream\",engine=\"splice\"}} {bytes}\n\
         upsplice_upgrade_failures_total{{route=\"chat\",reason=\"no_route\"}} {seconds}\n\
         upsplice_splice_fallbacks_total{{reason=\"eperm\"}} 2\n\
         upsplice_sessions_total{{route=\"chat\",close_reason=\"reset\"}} {seconds}\n\
         upsplice_pipes_used 3\nupsplice_pipes_free 5\n# EOF\n"
    );
    let drain = json!({"route": "feed", "age_seconds": 1.5, "closed": 2, "left": 5});
    Sample {
        at: Duration::from_secs(seconds),
        listed_at: Duration::from_secs(seconds),
        metrics: Exposition::parse(&page).expect("a page"),
        sessions: vec![Session {
            id: "01A".to_owned(),
            client: "10.0.0.1:77".to_owned(),
            route: "chat".to_owned(),
            bytes: [bytes, 0],
            paused: vec!["to_downstream".to_owned()],
            state: "paused to_downstream".to_owned(),
            ..Session::default()
        }],
        routes: vec![Route { name: "chat".to_owned(), endpoints: [1, 2], ..Route::default() }],
        drains: vec![Drain::new(&drain)],
        ..Sample::default()
    }
}

fn watched() -> State {
    let mut state = State::default();
    state.take(sample(1, 0));
    state.take(sample(2, 10 << 20));
    state.take(sample(3, 15 << 20));
    state
}

fn press(state: &mut State, keys: &str) {
    for key in keys.chars() {
        let key = if key == '\n' { KeyCode::Enter } else { KeyCode::Char(key) };
        state.press(KeyEvent::new(key, KeyModifiers::NONE));
    }
}

/// The line that begins with this name.
fn line<'l>(lines: &'l [String], name: &str) -> &'l str {
    let found = lines.iter().find(|line| line.starts_with(name));
    found.unwrap_or_else(|| panic!("no line {name:?}: {lines:#?}"))
}

#[test]
fn a_frame_says_how_the_gateway_is() {
    let lines = drawn(&watched(), 120, 24);
    assert!(lines[0].starts_with("upsplice 9.9 ready, 7 sessions, "), "{}", lines[0]);
    assert!(lines[0].contains(", 4 workers"), "{}", lines[0]);
    for (name, part) in [
        ("to upstream", "5.0 MiB/s"),
        ("to downstream", "0 B/s"),
        ("drain", "route feed drains: 1.5 s, 2 told, 5 left"),
        ("upgrades", "refused 1.0/s: no_route 1.0/s"),
        ("engines", "splice 5.0 MiB/s, 2 fallbacks: eperm 2"),
        ("closes", "reset 1.0/s"),
        ("paused", "1 to_downstream, 0/s new: 10.0.0.1:77"),
        ("pipes", "3 used, 5 free"),
    ] {
        assert!(line(&lines, name).contains(part), "{part}: {}", line(&lines, name));
    }
    let upstream = line(&lines, "to upstream");
    assert!(upstream.contains('█') && upstream.contains('▄'), "its history: {upstream}");
    let row = line(&lines, "chat ");
    assert!(row.contains("10.0.0.1:77") && row.contains("5.0 MiB"), "{row}");
    assert!(lines[23].contains("1 session, by rate"), "{}", lines[23]);
}

#[test]
fn no_size_is_too_small_whatever_is_shown() {
    let widths = [0, 1, 2, 3, 9, 28, 29, 30, 31, 40, 59];
    for keys in ["", "?", "k", "\n", "t", "/abc", "p"] {
        let mut state = watched();
        press(&mut state, keys);
        for (width, height) in
            widths.into_iter().flat_map(|width| (0..14).map(move |height| (width, height)))
        {
            drawn(&state, width, height);
        }
        drawn(&state, 500, 200);
    }
    drawn(&State::default(), 40, 10);
}

#[test]
fn a_small_screen_has_the_state_the_throughput_and_sessions() {
    let lines = drawn(&watched(), 40, 10);
    assert!(lines[0].contains("ready"), "{lines:#?}");
    assert!(line(&lines, "to upstream").contains("5.0 MiB/s"), "{lines:#?}");
    assert!(line(&lines, "CLIENT").contains("IN/Sv"), "{lines:#?}");
    line(&lines, "10.0.0.1:77");
}

#[test]
fn who_is_not_ready_silent_or_gone_is_told_first() {
    let mut state = watched();
    let draining = Sample { reasons: vec!["the gateway drains".to_owned()], ..sample(4, 0) };
    state.take(draining);
    assert!(drawn(&state, 100, 20)[0].contains("not ready: the gateway drains"));
    state.silent = Some(9);
    assert!(drawn(&state, 100, 20)[0].starts_with("no answer for 9 s"));
    state.fail("gone: no gateway answers at x");
    let lines = drawn(&state, 100, 20);
    assert!(lines[0].starts_with("gone: no gateway answers at x"), "{}", lines[0]);
    line(&lines, "chat ");
}

#[test]
fn a_kill_asks_and_help_names_every_key() {
    let mut state = watched();
    press(&mut state, "k");
    let asked = drawn(&state, 100, 20).concat();
    assert!(asked.contains("Kill session 01A of 10.0.0.1:77 on route chat?"), "{asked}");
    press(&mut state, "n?");
    let help = drawn(&state, 100, 30).concat();
    for key in ["q, Esc, Ctrl-C", "PageUp", "Enter", "k  ", "s, r", "/  ", "t  ", "p  "] {
        assert!(help.contains(key), "{key}: {help}");
    }
}

#[test]
fn the_footer_says_what_is_typed_held_left_out_and_answered() {
    let mut state = watched();
    press(&mut state, "/zz");
    let footer = |state: &State| drawn(state, 100, 20)[19].trim_end().to_owned();
    assert_eq!(footer(&state), "/zz_");
    press(&mut state, "\np");
    assert!(footer(&state).starts_with("PAUSED  0 of 1 session, by rate  with \"zz\""));
    state.notify("01A is told to end");
    assert_eq!(footer(&state), "01A is told to end");
    let mut state = watched();
    state.take(Sample { more: true, ..sample(4, 0) });
    assert!(footer(&state).starts_with("first 1 sessions"));
}

#[test]
fn the_selected_row_is_seen_among_many() {
    let session = |at: u32| Session {
        client: format!("client-{at:04}"),
        id: format!("{at:04}"),
        ..Session::default()
    };
    let mut state = State::default();
    state.take(Sample { sessions: (0..2000).map(session).collect(), ..sample(1, 0) });
    for (key, seen) in [
        (KeyCode::End, "client-1999"),
        (KeyCode::PageUp, "client-1989"),
        (KeyCode::Home, "client-0000"),
    ] {
        state.press(KeyEvent::new(key, KeyModifiers::NONE));
        assert!(drawn(&state, 40, 10).concat().contains(seen), "{seen}");
    }
}

#[test]
fn colours_are_left_out_where_none_are_wanted() {
    let mut state = watched();
    state.fail("x");
    for (colours, expected) in [(Colours::Some, true), (Colours::None, false)] {
        let mut terminal = Terminal::new(TestBackend::new(80, 20)).expect("memory");
        terminal.draw(|frame| draw(&state, colours, frame)).expect("memory");
        let cells = terminal.backend().buffer().content();
        assert_eq!(cells.iter().any(|cell| cell.fg != Color::Reset), expected);
        assert!(
            cells.iter().all(|cell| cell.bg == Color::Reset),
            "light or dark is the terminal's"
        );
    }
}

#[test]
fn routes_have_a_table_of_their_own() {
    let mut state = watched();
    press(&mut state, "t");
    let lines = drawn(&state, 120, 24);
    assert!(line(&lines, "ROUTE").contains("ENDPOINTS"), "{lines:#?}");
    assert!(line(&lines, "chat").contains("1/2"), "{lines:#?}");
    assert!(lines[23].starts_with("1 route, by rate"), "{}", lines[23]);
}
