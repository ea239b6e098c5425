//! A state as one frame. Default colours of the terminal, but for words that warn; no frame is too small.

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style, Stylize};
use ratatui::text::{Line, Span, Text};
use ratatui::widgets::{
    Block, Cell, Clear, Paragraph, Row, Sparkline, Table as Rows, TableState, Wrap,
};

use super::columns::{Column, ROUTES, SESSIONS, fitting};
use super::figures::Figures;
use super::lines;
use super::state::{Popup, State, Table};

/// Lines of the table that are worth more than lines above it: its heads, and three rows.
const TABLE_LINES: u16 = 4;
/// Columns of the names and numbers before a history.
const HISTORY_AT: u16 = 29;
/// Drains that are shown one by one.
const DRAINS: usize = 3;

const HELP: &str = "\
q, Esc, Ctrl-C  end
Up, Down        select a row; PageUp, PageDown, Home, End, too
Enter           all of a session; the sessions of a route
k               kill the session; y says yes
s, r            sort by the next column; the other way round
/               filter by text: Enter keeps it, Esc clears it
t               sessions or routes
p               hold the figures, and go on
?               this

IN is from clients, OUT to them. What is above the table is of the
whole gateway. Idle counts from when this program first looked.";

/// Whether words that warn have a colour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Colours {
    /// They have one.
    Some,
    /// `NO_COLOR`: they are only bold.
    None,
}

impl Colours {
    fn of(self, colour: Color) -> Style {
        match self {
            Colours::Some => Style::new().fg(colour).bold(),
            Colours::None => Style::new().bold(),
        }
    }
}

/// Draws it.
pub fn draw(state: &State, colours: Colours, frame: &mut Frame<'_>) {
    let area = frame.area();
    let above = above(state, colours);
    let room = area.height.saturating_sub(TABLE_LINES + 1).max(1);
    let lines = room.min(above.len() as u16);
    let parts = [Constraint::Length(lines), Constraint::Min(0), Constraint::Length(1)];
    let [top, middle, bottom] = Layout::vertical(parts).areas(area);
    frame.render_widget(Paragraph::new(above), top);
    if state.figures.as_ref().is_some_and(|figures| figures.interval.is_some()) {
        for direction in 0..2 {
            history(state, direction, top, frame);
        }
    }
    match state.table {
        Table::Sessions => table(state, &SESSIONS, &state.sessions(), middle, frame),
        Table::Routes => table(state, &ROUTES, &state.routes(), middle, frame),
    }
    frame.render_widget(footer(state), bottom);
    popup(state, area, frame);
}

/// The lines above the table, the most telling first.
fn above(state: &State, colours: Colours) -> Vec<Line<'_>> {
    let named = |(name, text): lines::Line| {
        Line::from(vec![Span::from(format!("{name:<14} ")).dim(), Span::from(text)])
    };
    let Some(figures) = &state.figures else { return vec![first(state, colours)] };
    let mut all = vec![first(state, colours)];
    all.extend([0, 1].map(|direction| named(lines::throughput(figures, direction))));
    let drains = lines::drains(figures).take(DRAINS).map(|(name, text)| {
        let mut line = named((name, text));
        line.spans[1].style = colours.of(Color::Yellow);
        line
    });
    all.extend(drains);
    if figures.drains.len() > DRAINS {
        all.push(named(("drain", format!("and {} more", figures.drains.len() - DRAINS))));
    }
    all.extend(lines::others(figures).into_iter().map(named));
    all
}

fn first(state: &State, colours: Colours) -> Line<'_> {
    if let Some(why) = &state.gone {
        return Line::styled(why.as_str(), colours.of(Color::Red));
    }
    if let Some(seconds) = state.silent {
        return Line::styled(format!("no answer for {seconds} s"), colours.of(Color::Red));
    }
    let Some(figures) = &state.figures else { return Line::from("upsplice: no answer yet") };
    let (name, text) = lines::state(figures);
    let colour = if figures.reasons.is_empty() { Color::Green } else { Color::Yellow };
    let mut spans = vec![Span::from(format!("{name} ")).bold()];
    let (word, rest) = text.split_once(", ").unwrap_or((&text, ""));
    spans.push(Span::styled(word.to_owned(), colours.of(colour)));
    spans.push(Span::from(format!(", {rest}")));
    Line::from(spans)
}

/// Beside the throughput of its direction, as far as there is room.
fn history(state: &State, direction: usize, top: Rect, frame: &mut Frame<'_>) {
    let line = direction as u16 + 1;
    if line >= top.height || top.width <= HISTORY_AT {
        return;
    }
    let width = top.width - HISTORY_AT;
    let history = &state.history[direction];
    let latest = &history[history.len().saturating_sub(usize::from(width))..];
    let area = Rect { x: top.x + HISTORY_AT, y: top.y + line, width, height: 1 };
    frame.render_widget(Sparkline::default().data(latest), area);
}

fn table<T>(state: &State, columns: &[Column<T>], rows: &[&T], area: Rect, frame: &mut Frame<'_>) {
    let columns = fitting(columns, area.width);
    let aligned = |column: &Column<T>, text: String| match column.is_number {
        true => Cell::from(Text::from(text).right_aligned()),
        false => Cell::from(text),
    };
    let mark = if state.reversed { '^' } else { 'v' };
    let heads = columns.iter().map(|column| {
        let is_by = column.sort == Some(state.sort());
        let head = if is_by { format!("{}{mark}", column.head) } else { column.head.to_owned() };
        aligned(column, head)
    });
    let heads = Row::new(heads).style(Modifier::BOLD | Modifier::UNDERLINED);
    // Only those that may be seen are made: there may be thousands.
    let at = state.selected().unwrap_or_default();
    let height = usize::from(area.height.saturating_sub(1));
    let from = at.saturating_sub(height.saturating_sub(1));
    let seen = rows.iter().skip(from).take(height);
    let seen = seen.map(|row| Row::new(columns.iter().map(|c| aligned(c, (c.cell)(row)))));
    let widths = columns.iter().map(|column| Constraint::Length(column.width));
    let table = Rows::new(seen, widths).header(heads).row_highlight_style(Modifier::REVERSED);
    let selected = state.selected().map(|at| at - from);
    frame.render_stateful_widget(table, area, &mut TableState::new().with_selected(selected));
}

fn footer(state: &State) -> Line<'_> {
    if state.typing {
        return Line::from(format!("/{}_", state.filter));
    }
    if let Some(notice) = &state.notice {
        return Line::from(notice.as_str()).bold();
    }
    let mut words = Vec::new();
    if state.paused {
        words.push("PAUSED".to_owned());
    }
    words.push(format!("{}, by {}", counted(state), state.sort().word()));
    if !state.filter.is_empty() {
        words.push(format!("with {:?}", state.filter));
    }
    words.push("? help, q end".to_owned());
    Line::from(words.join("  ")).dim()
}

/// How many rows there are, and of how many.
fn counted(state: &State) -> String {
    let empty = Figures::default();
    let figures = state.figures.as_ref().unwrap_or(&empty);
    let (shown, all, what) = match state.table {
        Table::Sessions => (state.sessions().len(), figures.sessions.len(), "session"),
        Table::Routes => (state.routes().len(), figures.routes.len(), "route"),
    };
    let listed = lines::listed(figures).filter(|_| state.table == Table::Sessions);
    let all = listed.unwrap_or_else(|| lines::counted(all as f64, what));
    if state.filter.is_empty() { all } else { format!("{shown} of {all}") }
}

fn popup(state: &State, area: Rect, frame: &mut Frame<'_>) {
    let (title, text) = match &state.popup {
        None => return,
        Some(Popup::Help) => (" keys ".to_owned(), HELP.to_owned()),
        Some(Popup::Facts { id, lines: None }) => (format!(" {id} "), "asked".to_owned()),
        Some(Popup::Facts { id, lines: Some(lines) }) => (format!(" {id} "), lines.join("\n")),
        Some(Popup::Kill { id, who }) => (
            " kill ".to_owned(),
            format!("Kill session {id} {who}?\ny kills it, any other key does not."),
        ),
    };
    let longest = text.lines().chain([&*title]).map(|line| line.chars().count()).max();
    let width =
        area.width.min(longest.unwrap_or_default().min(usize::from(u16::MAX) - 4) as u16 + 4);
    let inside = usize::from(width.saturating_sub(4).max(1));
    let wrapped: usize =
        text.lines().map(|line| line.chars().count().div_ceil(inside).max(1)).sum();
    let height = area.height.min(wrapped.min(usize::from(u16::MAX) - 3) as u16 + 3);
    let over = area.centered(Constraint::Length(width), Constraint::Length(height));
    let block = Block::bordered().title(title).padding(ratatui::widgets::Padding::horizontal(1));
    frame.render_widget(Clear, over);
    frame.render_widget(Paragraph::new(text).wrap(Wrap { trim: false }).block(block), over);
}

#[cfg(test)]
mod tests;
