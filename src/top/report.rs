//! Figures for who reads no screen: plain text, and JSON.

use serde_json::{Value, json};

use super::figures::{Counts, DIRECTIONS, Figures, RouteFigures, SessionFigures};
use super::lines::{self, Line};
use crate::admin::client::Failed;
use crate::admin::print::{Align, age, plain, size, table};

/// Sessions in a text: who wants them all asks for JSON.
const ROWS: usize = 20;

/// One interval as text, the busiest sessions first.
pub fn text(figures: &Figures) -> String {
    let mut all: Vec<Line> = vec![lines::state(figures)];
    all.extend([0, 1].map(|direction| lines::throughput(figures, direction)));
    all.extend(lines::others(figures));
    all.extend(lines::drains(figures));
    let mut text: String = all.iter().map(|(name, rest)| format!("{name:<14} {rest}\n")).collect();
    text.push('\n');
    text.push_str(&routes(&figures.routes));
    text.push('\n');
    let mut busiest: Vec<&SessionFigures> = figures.sessions.iter().collect();
    busiest.sort_by(|one, other| other.rate().total_cmp(&one.rate()));
    text.push_str(&sessions(&busiest[..busiest.len().min(ROWS)]));
    let hidden = busiest.len().saturating_sub(ROWS);
    match lines::listed(figures) {
        Some(listed) => text.push_str(&format!("the busiest {ROWS} of the {listed}\n")),
        None if hidden > 0 => text.push_str(&format!("and {hidden} less busy ones\n")),
        None => {}
    }
    text
}

fn routes(routes: &[RouteFigures]) -> String {
    let columns = [
        ("ROUTE", Align::Left),
        ("OPEN", Align::Right),
        ("NEW/S", Align::Right),
        ("FAILED", Align::Right),
        ("IN/S", Align::Right),
        ("OUT/S", Align::Right),
        ("ENDPOINTS", Align::Right),
    ];
    let row = |figures: &RouteFigures| {
        let route = &figures.route;
        let [healthy, all] = route.endpoints;
        [
            route.name.clone(),
            route.open.to_string(),
            format!("{:.1}", figures.began),
            route.failed.to_string(),
            size(figures.rate[0]),
            size(figures.rate[1]),
            format!("{healthy}/{all}"),
        ]
    };
    table(&columns, routes.iter().map(row))
}

fn sessions(sessions: &[&SessionFigures]) -> String {
    let columns = [
        ("ID", Align::Left),
        ("ROUTE", Align::Left),
        ("CLIENT", Align::Left),
        ("ENGINE", Align::Left),
        ("IN/S", Align::Right),
        ("OUT/S", Align::Right),
        ("IN", Align::Right),
        ("OUT", Align::Right),
        ("AGE", Align::Right),
        ("STATE", Align::Left),
    ];
    let row = |figures: &&SessionFigures| {
        let session = &figures.session;
        [
            session.id.clone(),
            session.route.clone(),
            session.client.clone(),
            session.engine.clone(),
            size(figures.rate[0]),
            size(figures.rate[1]),
            size(session.bytes[0] as f64),
            size(session.bytes[1] as f64),
            age(session.age),
            session.state.clone(),
        ]
    };
    table(&columns, sessions.iter().map(row))
}

/// One interval for programs. Without rates after the first sample, but for zeroes.
pub fn json(figures: &Figures) -> Value {
    json!({
        "gateway": {
            "state": if figures.reasons.is_empty() { "ready" } else { "not_ready" },
            "reasons": figures.reasons,
            "version": figures.version,
            "workers": figures.workers.map(whole),
        },
        "interval_seconds": figures.interval,
        "sessions_open": whole(figures.sessions_open),
        "connections_open": whole(figures.connections_open),
        "bytes_per_second": directed(&figures.bytes),
        "engine_bytes_per_second": figures.engines,
        "fallbacks": all_whole(&figures.fallbacks),
        "upgrades_per_second": figures.upgrades,
        "refusals_per_second": figures.refusals,
        "closes_per_second": figures.closes,
        "paused": directed(&figures.paused),
        "pauses_per_second": directed(&figures.pauses),
        "pipes": figures.pipes.map(|[used, free]| json!({"used": whole(used), "free": whole(free)})),
        "drains": figures.drains.iter().map(|drain| &drain.answer).collect::<Vec<_>>(),
        "routes": figures.routes.iter().map(route).collect::<Vec<_>>(),
        "sessions": figures.sessions.iter().map(session).collect::<Vec<_>>(),
        "sessions_complete": !figures.more,
    })
}

/// What takes the place of an interval of which nothing is known: nobody answered, or not as they should.
pub fn untold(failed: &Failed) -> Value {
    let state = match failed {
        Failed::NoGateway { .. } => "gone",
        Failed::NotFound(_) | Failed::Refused(_) => "unknown",
    };
    json!({"gateway": {"state": state, "reasons": [plain(&failed.to_string())]}})
}

fn route(figures: &RouteFigures) -> Value {
    let route = &figures.route;
    json!({
        "name": route.name,
        "sessions_open": route.open,
        "sessions_total": route.total,
        "sessions_per_second": figures.began,
        "failed": route.failed,
        "bytes_per_second": directed(&figures.rate),
        "endpoints_healthy": route.endpoints[0],
        "endpoints": route.endpoints[1],
    })
}

fn session(figures: &SessionFigures) -> Value {
    let session = &figures.session;
    json!({
        "id": session.id,
        "worker": session.worker,
        "route": session.route,
        "client": session.client,
        "endpoint": session.endpoint,
        "mode": session.mode,
        "engine": session.engine,
        "bytes_in": session.bytes[0],
        "bytes_out": session.bytes[1],
        "bytes_per_second": directed(&figures.rate),
        "age_seconds": session.age,
        "idle_seconds": figures.idle,
        "paused": session.paused,
    })
}

fn directed<T: serde::Serialize>(counts: &[T; 2]) -> Value {
    json!({DIRECTIONS[0]: counts[0], DIRECTIONS[1]: counts[1]})
}

/// Counts come as numbers with a point; nobody wants it in JSON.
fn whole(count: f64) -> u64 {
    count as u64
}

fn all_whole(counts: &Counts) -> Value {
    counts.iter().map(|(word, count)| (word.clone(), json!(whole(*count)))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::top::sample::Session;

    fn figures(sessions: usize) -> Figures {
        let session = |at: usize| SessionFigures {
            session: Session { id: format!("id-{at}"), ..Session::default() },
            rate: [at as f64, 0.0],
            idle: 0.0,
        };
        Figures { sessions: (0..sessions).map(session).collect(), ..Figures::default() }
    }

    #[test]
    fn the_text_has_the_busiest_sessions_and_says_how_many_it_has_not() {
        let text = text(&figures(ROWS + 5));
        assert!(text.contains("id-24 ") && text.contains("id-5 "), "{text}");
        assert!(!text.contains("id-4 "), "{text}");
        assert!(text.ends_with("and 5 less busy ones\n"), "{text}");
        assert!(super::text(&figures(2)).lines().last().unwrap().starts_with("id-0 "));
    }

    #[test]
    fn a_list_that_was_cut_is_called_so_in_text_and_json() {
        let mut figures = figures(ROWS + 5);
        figures.more = true;
        assert!(text(&figures).ends_with("the busiest 20 of the first 25 sessions\n"));
        assert_eq!(json(&figures)["sessions_complete"], false);
        assert_eq!(json(&figures)["sessions"].as_array().map(Vec::len), Some(25));
    }

    #[test]
    fn a_control_character_stays_out_of_the_text() {
        let text = text(&figures(1));
        assert!(text.chars().all(|c| c == '\n' || !c.is_control()), "{text:?}");
    }
}
