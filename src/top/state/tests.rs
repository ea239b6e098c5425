use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

use super::super::sample::{Route, Sample, Session};
use super::*;

/// A state that has seen these sessions: id, age, bytes; and the routes chat and feed.
fn state(sessions: &[(&str, f64, u64)]) -> State {
    let mut state = State::default();
    state.take(sample(sessions));
    state
}

fn sample(sessions: &[(&str, f64, u64)]) -> Sample {
    let session = |(id, age, bytes): &(&str, f64, u64)| Session {
        id: (*id).to_owned(),
        client: format!("10.0.0.1:{id}"),
        route: if *bytes > 50 { "chat" } else { "feed" }.to_owned(),
        bytes: [*bytes, 0],
        age: *age,
        ..Session::default()
    };
    let route = |name: &str| Route { name: name.to_owned(), ..Route::default() };
    Sample {
        sessions: sessions.iter().map(session).collect(),
        routes: ["chat", "feed"].map(route).to_vec(),
        ..Sample::default()
    }
}

fn press(state: &mut State, code: KeyCode) -> Option<Command> {
    state.press(KeyEvent::new(code, KeyModifiers::NONE))
}

fn type_in(state: &mut State, text: &str) {
    for typed in text.chars() {
        assert_eq!(press(state, KeyCode::Char(typed)), None, "{typed}");
    }
}

fn ids(state: &State) -> Vec<&str> {
    state.sessions().iter().map(|figures| &*figures.session.id).collect()
}

fn chosen(state: &State) -> Option<&str> {
    state.selected().map(|at| ids(state)[at])
}

const THREE: [(&str, f64, u64); 3] = [("a", 30.0, 10), ("b", 20.0, 99), ("c", 10.0, 40)];

#[test]
fn s_sorts_by_the_next_column_and_r_the_other_way_round() {
    let mut state = state(&THREE);
    let key = |state: &mut State, code| press(state, KeyCode::Char(code));
    for (sort, order) in [
        (Sort::Bytes, ["b", "c", "a"]),
        (Sort::Age, ["a", "b", "c"]),
        (Sort::Idle, ["a", "b", "c"]),
    ] {
        key(&mut state, 's');
        assert_eq!((state.sort(), &*ids(&state)), (sort, &order[..]));
    }
    key(&mut state, 's');
    assert_eq!(state.sort(), Sort::Rate, "from the last to the first");
    key(&mut state, 's');
    key(&mut state, 'r');
    assert_eq!(ids(&state), ["a", "c", "b"]);
}

#[test]
fn the_selection_stays_with_its_session_and_then_with_its_place() {
    let mut state = state(&THREE);
    assert_eq!(chosen(&state), Some("a"));
    press(&mut state, KeyCode::Down);
    assert_eq!(chosen(&state), Some("b"));
    type_in(&mut state, "sr");
    assert_eq!((chosen(&state), state.selected()), (Some("b"), Some(2)));
    state.take(sample(&[("a", 1.0, 1), ("c", 1.0, 2)]));
    assert_eq!(chosen(&state), Some("c"), "what stands where it stood");
    state.take(sample(&[]));
    assert_eq!(state.selected(), None);
    for key in [KeyCode::Up, KeyCode::PageDown, KeyCode::End, KeyCode::Enter, KeyCode::Char('k')] {
        assert_eq!(press(&mut state, key), None, "{key}");
    }
    assert_eq!(state.popup, None, "there is nothing to kill");
}

#[test]
fn arrows_and_pages_stop_at_both_ends() {
    let ids: Vec<String> = (0..25).map(|at| format!("{at:02}")).collect();
    let sessions: Vec<(&str, f64, u64)> = ids.iter().map(|id| (&**id, 0.0, 0)).collect();
    let mut state = state(&sessions);
    for (key, expected) in [
        (KeyCode::Up, "00"),
        (KeyCode::PageDown, "10"),
        (KeyCode::Down, "11"),
        (KeyCode::PageUp, "01"),
        (KeyCode::PageUp, "00"),
        (KeyCode::End, "24"),
        (KeyCode::PageDown, "24"),
        (KeyCode::Home, "00"),
    ] {
        press(&mut state, key);
        assert_eq!(chosen(&state), Some(expected), "{key}");
    }
}

#[test]
fn a_filter_is_typed_kept_and_cleared() {
    let mut state = state(&THREE);
    type_in(&mut state, "/CHATx");
    assert!(ids(&state).is_empty(), "no letter is a command");
    press(&mut state, KeyCode::Backspace);
    assert_eq!((ids(&state), &*state.filter), (vec!["b"], "CHAT"));
    press(&mut state, KeyCode::Enter);
    assert_eq!(press(&mut state, KeyCode::Esc), None, "it clears the filter first");
    assert_eq!((ids(&state).len(), state.typing), (3, false));
    type_in(&mut state, "/zz");
    press(&mut state, KeyCode::Esc);
    assert_eq!((&*state.filter, state.typing), ("", false));
    assert_eq!(press(&mut state, KeyCode::Esc), Some(Command::Quit));
}

#[test]
fn nothing_is_killed_unless_it_is_asked_for_and_confirmed() {
    let mut state = state(&THREE);
    for no in [KeyCode::Esc, KeyCode::Enter, KeyCode::Char('n'), KeyCode::Char('q'), KeyCode::Up] {
        assert_eq!(press(&mut state, KeyCode::Char('k')), None);
        assert!(matches!(&state.popup, Some(Popup::Kill { id, .. }) if id == "a"));
        assert_eq!(press(&mut state, no), None, "{no}");
        assert_eq!((&state.popup, state.notice.as_deref()), (&None, Some("not killed")), "{no}");
    }
    press(&mut state, KeyCode::Char('k'));
    // The question is about the session it was asked about, whatever is selected meanwhile.
    state.take(sample(&THREE[1..]));
    let Some(Popup::Kill { who, .. }) = &state.popup else { panic!("it asks no more") };
    assert_eq!(who, "of 10.0.0.1:a on route feed");
    assert_eq!(press(&mut state, KeyCode::Char('y')), Some(Command::Kill("a".to_owned())));
    assert_eq!(press(&mut state, KeyCode::Char('y')), None, "it is asked once");
}

#[test]
fn enter_asks_for_the_facts_of_a_session_and_opens_a_route() {
    let mut state = state(&THREE);
    assert_eq!(press(&mut state, KeyCode::Enter), Some(Command::Show("a".to_owned())));
    state.show("b", "not wanted");
    assert!(matches!(&state.popup, Some(Popup::Facts { lines: None, .. })));
    state.show("a", "one\ntwo\u{1b}[2J");
    let Some(Popup::Facts { lines: Some(lines), .. }) = &state.popup else { panic!("none") };
    assert_eq!(lines, &["one", "two\u{fffd}[2J"]);
    press(&mut state, KeyCode::Char('k'));
    assert!(matches!(&state.popup, Some(Popup::Kill { id, .. }) if id == "a"), "from there, too");
    press(&mut state, KeyCode::Esc);
    press(&mut state, KeyCode::Char('t'));
    assert_eq!((state.table, state.selected()), (Table::Routes, Some(0)));
    assert_eq!(press(&mut state, KeyCode::Char('k')), None, "a route is not killed");
    assert_eq!(press(&mut state, KeyCode::Enter), None);
    assert_eq!((state.table, ids(&state)), (Table::Sessions, vec!["b"]));
}

#[test]
fn what_is_paused_stays_as_it_is_until_it_goes_on() {
    let mut state = state(&THREE);
    press(&mut state, KeyCode::Char('p'));
    state.take(sample(&[]));
    assert_eq!(ids(&state).len(), 3);
    press(&mut state, KeyCode::Char('p'));
    state.take(sample(&[]));
    assert!(ids(&state).is_empty());
}

#[test]
fn a_gateway_that_is_gone_leaves_its_last_figures_and_may_come_back() {
    let mut state = state(&THREE);
    state.fail("no gateway\u{7}");
    assert_eq!((state.gone.as_deref(), ids(&state).len()), (Some("no gateway\u{fffd}"), 3));
    state.take(sample(&THREE));
    assert_eq!(state.gone, None);
}

#[test]
fn control_c_ends_wherever_one_is() {
    let stop = KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL);
    for before in ["", "/abc", "k", "?", "t"] {
        let mut state = state(&THREE);
        type_in(&mut state, before);
        assert_eq!(state.press(stop), Some(Command::Quit), "{before:?}");
    }
    let mut state = state(&THREE);
    assert_eq!(press(&mut state, KeyCode::Char('q')), Some(Command::Quit));
}
