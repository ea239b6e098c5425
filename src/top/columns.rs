//! The columns of both tables, and which of them there is room for.

use super::figures::{RouteFigures, SessionFigures};
use super::state::Sort;
use crate::admin::print::{age, size};

/// A column of rows of `T`.
pub struct Column<T> {
    /// What stands over it.
    pub head: &'static str,
    /// In characters.
    pub width: u16,
    /// Numbers stand on the right.
    pub is_number: bool,
    /// Those with the least are kept where there is little room.
    rank: u8,
    /// What it is sorted by.
    pub sort: Option<Sort>,
    /// What a row says there.
    pub cell: fn(&T) -> String,
}

const fn text<T>(head: &'static str, width: u16, rank: u8, cell: fn(&T) -> String) -> Column<T> {
    Column { head, width, is_number: false, rank, sort: None, cell }
}

const fn number<T>(head: &'static str, width: u16, rank: u8, cell: fn(&T) -> String) -> Column<T> {
    Column { is_number: true, ..text(head, width, rank, cell) }
}

const fn sorted<T>(sort: Sort, column: Column<T>) -> Column<T> {
    Column { sort: Some(sort), ..column }
}

/// Of sessions.
pub const SESSIONS: [Column<SessionFigures>; 13] = [
    text("ID", 26, 12, |row| row.session.id.clone()),
    text("ROUTE", 12, 2, |row| row.session.route.clone()),
    text("CLIENT", 21, 1, |row| row.session.client.clone()),
    text("ENDPOINT", 21, 11, |row| row.session.endpoint.clone()),
    text("MODE", 9, 10, |row| row.session.mode.clone()),
    text("ENGINE", 11, 8, |row| row.session.engine.clone()),
    sorted(Sort::Rate, number("IN/S", 8, 0, |row| size(row.rate[0]))),
    sorted(Sort::Rate, number("OUT/S", 8, 0, |row| size(row.rate[1]))),
    sorted(Sort::Bytes, number("IN", 8, 6, |row| size(row.session.bytes[0] as f64))),
    sorted(Sort::Bytes, number("OUT", 8, 6, |row| size(row.session.bytes[1] as f64))),
    sorted(Sort::Age, number("AGE", 6, 3, |row| age(row.session.age))),
    sorted(Sort::Idle, number("IDLE", 6, 5, |row| age(row.idle))),
    text("STATE", 20, 7, |row| row.session.state.clone()),
];

/// Of routes.
pub const ROUTES: [Column<RouteFigures>; 10] = [
    text("ROUTE", 16, 0, |row| row.route.name.clone()),
    text("FOR", 24, 8, |row| row.route.place.clone()),
    text("MODE", 9, 7, |row| row.route.mode.clone()),
    sorted(Sort::Open, number("OPEN", 6, 1, |row| row.route.open.to_string())),
    number("NEW/S", 6, 5, |row| format!("{:.1}", row.began)),
    number("TOTAL", 8, 6, |row| row.route.total.to_string()),
    sorted(Sort::Failed, number("FAILED", 7, 4, |row| row.route.failed.to_string())),
    sorted(Sort::Rate, number("IN/S", 8, 2, |row| size(row.rate[0]))),
    sorted(Sort::Rate, number("OUT/S", 8, 2, |row| size(row.rate[1]))),
    number("ENDPOINTS", 9, 3, |row| {
        format!("{}/{}", row.route.endpoints[0], row.route.endpoints[1])
    }),
];

/// Those for which there is room, in their order.
pub fn fitting<T>(columns: &[Column<T>], width: u16) -> Vec<&Column<T>> {
    let mut by_rank: Vec<usize> = (0..columns.len()).collect();
    by_rank.sort_by_key(|at| columns[*at].rank);
    let mut left = width;
    let mut kept = Vec::new();
    for at in by_rank {
        // A blank stands between two of them.
        let needs = columns[at].width + u16::from(!kept.is_empty());
        if needs > left {
            break;
        }
        left -= needs;
        kept.push(at);
    }
    kept.sort_unstable();
    kept.into_iter().map(|at| &columns[at]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_narrow_screen_keeps_what_matters_most_in_its_order() {
        let heads = |width| -> Vec<&str> {
            fitting(&SESSIONS, width).iter().map(|column| column.head).collect()
        };
        assert_eq!(heads(40), ["CLIENT", "IN/S", "OUT/S"]);
        assert_eq!(heads(80)[..2], ["ROUTE", "CLIENT"]);
        assert_eq!(heads(1000).len(), SESSIONS.len());
        assert!(heads(0).is_empty());
        for width in 0..200 {
            let kept = fitting(&SESSIONS, width);
            let used: usize = kept.iter().map(|column| usize::from(column.width) + 1).sum();
            assert!(used.saturating_sub(1) <= usize::from(width), "{width}");
        }
    }
}
