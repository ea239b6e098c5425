//! What the screen shows, and what keys make of it. No terminal: keys are values.

use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyEventKind, KeyModifiers};

use super::figures::{Figures, RouteFigures, SessionFigures, Tracker};
use super::plain;
use super::sample::Sample;

/// Rows that PageUp and PageDown go.
const PAGE: isize = 10;

/// What has to be asked of the gateway, or of nobody.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// The end.
    Quit,
    /// All that is known of this session.
    Show(String),
    /// The end of this session.
    Kill(String),
}

/// Which table.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Table {
    /// Live sessions.
    #[default]
    Sessions,
    /// The configuration's routes.
    Routes,
}

/// What a table is sorted by, the greatest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sort {
    /// Bytes per second.
    Rate,
    /// Bytes so far.
    Bytes,
    /// Time since accept.
    Age,
    /// Time since bytes passed.
    Idle,
    /// Live sessions.
    Open,
    /// Requests that did not become a session.
    Failed,
}

/// What lies over the table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Popup {
    /// The keys.
    Help,
    /// A session: its facts, once they are there.
    Facts {
        /// Whose.
        id: String,
        /// One per line.
        lines: Option<Vec<String>>,
    },
    /// A question.
    Kill {
        /// Which session.
        id: String,
        /// Its client and route.
        who: String,
    },
}

/// All that a frame is made of.
#[derive(Debug, Default)]
pub struct State {
    tracker: Tracker,
    /// What is shown.
    pub figures: Option<Figures>,
    /// Bytes per second of the intervals before, by direction.
    pub history: [Vec<u64>; 2],
    /// Why there are no new figures.
    pub gone: Option<String>,
    /// Seconds for which an answer is waited for, once they are many.
    pub silent: Option<u64>,
    /// Which table is shown.
    pub table: Table,
    /// What lies over it.
    pub popup: Option<Popup>,
    /// What rows must contain.
    pub filter: String,
    /// Whether the filter is being typed.
    pub typing: bool,
    /// Whether the figures are held.
    pub paused: bool,
    /// Whether the least comes first.
    pub reversed: bool,
    /// What came of the last command.
    pub notice: Option<String>,
    sorts: [usize; 2],
    selected: Option<String>,
    at: usize,
}

impl Sort {
    /// As the footer calls it.
    pub fn word(self) -> &'static str {
        match self {
            Sort::Rate => "rate",
            Sort::Bytes => "bytes",
            Sort::Age => "age",
            Sort::Idle => "idle",
            Sort::Open => "open",
            Sort::Failed => "failed",
        }
    }
}

impl Table {
    fn sorts(self) -> &'static [Sort] {
        match self {
            Table::Sessions => &[Sort::Rate, Sort::Bytes, Sort::Age, Sort::Idle],
            Table::Routes => &[Sort::Rate, Sort::Open, Sort::Failed],
        }
    }
}

impl State {
    /// The gateway has answered.
    pub fn take(&mut self, sample: Sample) {
        let figures = self.tracker.take(sample);
        (self.gone, self.silent) = (None, None);
        if !self.paused {
            self.figures = Some(figures);
            self.history = [0, 1].map(|way| self.tracker.history(way).iter().copied().collect());
            self.settle();
        }
    }

    /// It has not, or not as it should.
    pub fn fail(&mut self, why: &str) {
        (self.gone, self.silent) = (Some(plain(why)), None);
    }

    /// The facts that were asked for are there; nobody may want them any more.
    pub fn show(&mut self, of: &str, facts: &str) {
        if let Some(Popup::Facts { id, lines }) = &mut self.popup
            && id == of
        {
            *lines = Some(facts.lines().map(plain).collect());
        }
    }

    /// Says what came of a command.
    pub fn notify(&mut self, what: &str) {
        self.notice = Some(plain(what));
    }

    /// What the table is sorted by.
    pub fn sort(&self) -> Sort {
        let sorts = self.table.sorts();
        sorts[self.sorts[self.table as usize] % sorts.len()]
    }

    /// Sessions that fit the filter, in their order.
    pub fn sessions(&self) -> Vec<&SessionFigures> {
        let all = self.figures.iter().flat_map(|figures| &figures.sessions);
        let fits = |figures: &&SessionFigures| {
            let session = &figures.session;
            self.fits(&[
                &session.id,
                &session.route,
                &session.client,
                &session.endpoint,
                &session.mode,
                &session.engine,
                &session.state,
            ])
        };
        let mut rows: Vec<&SessionFigures> = all.filter(fits).collect();
        let key = |figures: &SessionFigures| match self.sort() {
            Sort::Bytes => figures.session.bytes() as f64,
            Sort::Age => figures.session.age,
            Sort::Idle => figures.idle,
            _ => figures.rate(),
        };
        // The same rows have the same order in each frame.
        rows.sort_by(|one, other| {
            let order = key(other).total_cmp(&key(one));
            let order = if self.reversed { order.reverse() } else { order };
            order.then_with(|| one.session.id.cmp(&other.session.id))
        });
        rows
    }

    /// Routes that fit the filter, in their order.
    pub fn routes(&self) -> Vec<&RouteFigures> {
        let all = self.figures.iter().flat_map(|figures| &figures.routes);
        let fits = |figures: &&RouteFigures| {
            let route = &figures.route;
            self.fits(&[&route.name, &route.place, &route.mode])
        };
        let mut rows: Vec<&RouteFigures> = all.filter(fits).collect();
        let key = |figures: &RouteFigures| match self.sort() {
            Sort::Open => figures.route.open as f64,
            Sort::Failed => figures.route.failed as f64,
            _ => figures.rate.iter().sum(),
        };
        rows.sort_by(|one, other| {
            let order = key(other).total_cmp(&key(one));
            let order = if self.reversed { order.reverse() } else { order };
            order.then_with(|| one.route.name.cmp(&other.route.name))
        });
        rows
    }

    /// The selected row.
    pub fn selected(&self) -> Option<usize> {
        self.selected.as_ref().map(|_| self.at)
    }

    /// A key was pressed.
    pub fn press(&mut self, key: KeyEvent) -> Option<Command> {
        if key.kind == KeyEventKind::Release {
            return None;
        }
        if key.modifiers.contains(KeyModifiers::CONTROL) {
            return (key.code == KeyCode::Char('c')).then_some(Command::Quit);
        }
        self.notice = None;
        let command = match (self.typing, self.popup.is_some()) {
            (true, _) => {
                self.type_filter(key.code);
                None
            }
            (false, true) => self.press_over(key.code),
            (false, false) => self.press_below(key.code),
        };
        self.settle();
        command
    }

    fn type_filter(&mut self, key: KeyCode) {
        match key {
            KeyCode::Char(typed) if !typed.is_control() => self.filter.push(typed),
            KeyCode::Backspace => drop(self.filter.pop()),
            KeyCode::Enter => self.typing = false,
            KeyCode::Esc => {
                self.filter.clear();
                self.typing = false;
            }
            _ => {}
        }
    }

    /// Whatever is no answer to what lies over the table takes it away.
    fn press_over(&mut self, key: KeyCode) -> Option<Command> {
        match (self.popup.take(), key) {
            (Some(Popup::Kill { id, .. }), KeyCode::Char('y')) => Some(Command::Kill(id)),
            (Some(Popup::Kill { .. }), _) => {
                self.notify("not killed");
                None
            }
            (Some(Popup::Facts { id, .. }), KeyCode::Char('k')) => {
                self.ask_kill(id);
                None
            }
            _ => None,
        }
    }

    fn press_below(&mut self, key: KeyCode) -> Option<Command> {
        match key {
            KeyCode::Char('q') => return Some(Command::Quit),
            KeyCode::Esc if self.filter.is_empty() => return Some(Command::Quit),
            KeyCode::Esc => self.filter.clear(),
            KeyCode::Up => self.step(-1),
            KeyCode::Down => self.step(1),
            KeyCode::PageUp => self.step(-PAGE),
            KeyCode::PageDown => self.step(PAGE),
            KeyCode::Home => self.step(isize::MIN),
            KeyCode::End => self.step(isize::MAX),
            KeyCode::Char('s') => self.sorts[self.table as usize] += 1,
            KeyCode::Char('r') => self.reversed = !self.reversed,
            KeyCode::Char('/') => self.typing = true,
            KeyCode::Char('p' | ' ') => self.paused = !self.paused,
            KeyCode::Char('?') => self.popup = Some(Popup::Help),
            KeyCode::Char('t') => {
                self.table = match self.table {
                    Table::Sessions => Table::Routes,
                    Table::Routes => Table::Sessions,
                };
                (self.selected, self.at) = (None, 0);
                self.filter.clear();
            }
            KeyCode::Char('k') if self.table == Table::Sessions => {
                if let Some(id) = self.selected.clone() {
                    self.ask_kill(id);
                }
            }
            KeyCode::Enter => return self.enter(),
            _ => {}
        }
        None
    }

    /// All of a session, or the sessions of a route.
    fn enter(&mut self) -> Option<Command> {
        let name = self.selected.clone()?;
        match self.table {
            Table::Sessions => {
                self.popup = Some(Popup::Facts { id: name.clone(), lines: None });
                Some(Command::Show(name))
            }
            Table::Routes => {
                self.table = Table::Sessions;
                (self.selected, self.at) = (None, 0);
                self.filter = name;
                None
            }
        }
    }

    fn ask_kill(&mut self, id: String) {
        let figures = self.figures.iter().flat_map(|figures| &figures.sessions);
        let mut sessions = figures.map(|figures| &figures.session);
        let who = sessions.find(|session| session.id == id).map_or(String::new(), |session| {
            format!("of {} on route {}", session.client, session.route)
        });
        self.popup = Some(Popup::Kill { id, who });
    }

    fn step(&mut self, by: isize) {
        self.at = self.at.saturating_add_signed(by);
        self.selected = None;
    }

    fn fits(&self, texts: &[&str]) -> bool {
        let wanted = self.filter.to_lowercase();
        wanted.is_empty() || texts.iter().any(|text| text.to_lowercase().contains(&wanted))
    }

    /// The selection stays with its session or route wherever that goes; when it is gone, with its place.
    fn settle(&mut self) {
        let names: Vec<String> = match self.table {
            Table::Sessions => {
                self.sessions().iter().map(|figures| figures.session.id.clone()).collect()
            }
            Table::Routes => self.routes().iter().map(|row| row.route.name.clone()).collect(),
        };
        let selected = self.selected.take();
        let found = selected.and_then(|selected| names.iter().position(|name| *name == selected));
        self.at = found.unwrap_or(self.at.min(names.len().saturating_sub(1)));
        self.selected = names.into_iter().nth(self.at);
    }
}

#[cfg(test)]
mod tests;
