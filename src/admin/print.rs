//! What the API has answered, for people: tables, and lists of one session's facts.

use std::fmt::Write;

use serde_json::Value;

/// Left or right in a column.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Align {
    Left,
    Right,
}

/// A table of sessions.
pub fn sessions(sessions: &[Value]) -> String {
    let columns = [
        ("ID", Align::Left),
        ("ROUTE", Align::Left),
        ("CLIENT", Align::Left),
        ("ENDPOINT", Align::Left),
        ("MODE", Align::Left),
        ("ENGINE", Align::Left),
        ("IN", Align::Right),
        ("OUT", Align::Right),
        ("AGE", Align::Right),
        ("STATE", Align::Left),
    ];
    let row = |session: &Value| {
        [
            text(&session["id"]),
            text(&session["route"]),
            client(session),
            text(&session["endpoint"]),
            text(&session["mode"]),
            engine(&session["engine"]),
            bytes(&session["bytes_in"]),
            bytes(&session["bytes_out"]),
            age(session["age_seconds"].as_f64().unwrap_or_default()),
            state(session),
        ]
    };
    table(&columns, sessions.iter().map(row))
}

/// What a reload has changed.
pub fn reloaded(answer: &Value) -> String {
    let lists = [
        ("routes added", &answer["routes"]["added"]),
        ("routes changed", &answer["routes"]["changed"]),
        ("routes removed", &answer["routes"]["removed"]),
        ("listening on", &answer["listeners"]["opened"]),
        ("no longer on", &answer["listeners"]["closed"]),
        ("only a restart changes", &answer["needs_restart"]),
    ];
    let mut told = format!("generation {}\n", answer["generation"]);
    for (what, names) in lists {
        let names: Vec<&str> =
            names.as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        if !names.is_empty() {
            let _ = writeln!(told, "{what}: {}", names.join(", "));
        }
    }
    told
}

/// A table of routes.
pub fn routes(routes: &[Value]) -> String {
    let columns = [
        ("ROUTE", Align::Left),
        ("HOST", Align::Left),
        ("PATH", Align::Left),
        ("PROTOCOLS", Align::Left),
        ("MODE", Align::Left),
        ("OPEN", Align::Right),
        ("TOTAL", Align::Right),
        ("FAILED", Align::Right),
        ("TO", Align::Left),
    ];
    let row = |route: &Value| {
        let failures = route["failures"].as_object();
        let failed: u64 = failures.into_iter().flatten().filter_map(|(_, n)| n.as_u64()).sum();
        [
            text(&route["name"]),
            route["host"].as_str().unwrap_or("*").to_owned(),
            text(&route["path"]),
            list(&route["protocols"]),
            text(&route["mode"]),
            text(&route["sessions_open"]),
            text(&route["sessions_total"]),
            failed.to_string(),
            list(&route["to"]),
        ]
    };
    table(&columns, routes.iter().map(row))
}

/// One line of a drain, and what becomes of it.
pub fn drain(drain: &Value, becomes: &str) -> String {
    let route = drain["route"].as_str();
    let what = match (route, drain["endpoint"].as_str()) {
        (None, None) => "the gateway".to_owned(),
        (Some(route), None) => format!("route {route}"),
        (None, Some(endpoint)) => format!("endpoint {endpoint}"),
        (Some(route), Some(endpoint)) => format!("endpoint {endpoint} of route {route}"),
    };
    let time = drain["age_seconds"].as_f64().unwrap_or_default();
    format!("{what} {becomes}: {time:.1} s, {} told, {} left\n", drain["closed"], drain["left"])
}

/// One fact per line, whatever they are.
pub fn facts(value: &Value) -> String {
    let mut out = String::new();
    lines("", value, &mut out);
    out
}

/// One line of a tap.
pub fn event(event: &Value) -> String {
    let mut line = match event["at_ms"].as_f64() {
        Some(at) => format!("{:>9.3}s  ", at / 1e3),
        None => String::new(),
    };
    let direction = match event["direction"].as_str() {
        Some("to_upstream") => "-> ",
        Some(_) => "<- ",
        None => "",
    };
    let _ = write!(line, "{direction}{:<9}", text(&event["event"]));
    for (name, value) in event.as_object().into_iter().flatten() {
        match (name.as_str(), value) {
            ("event" | "at_ms" | "direction", _) => {}
            ("opcode" | "rule" | "why" | "id" | "mode", value) => {
                let _ = write!(line, "  {}", text(value));
            }
            ("preview", Value::String(_)) => {
                let _ = write!(line, "  {:?}", text(value));
            }
            ("latency_us", value) => {
                let _ = write!(line, "  after {:.3} ms", value.as_f64().unwrap_or_default() / 1e3);
            }
            (_, Value::Array(_)) => {
                let _ = write!(line, "  {name} {}", list(value));
            }
            (_, Value::Number(number)) if number.is_f64() => {
                let _ = write!(line, "  {name} {:.0}", number.as_f64().unwrap_or_default());
            }
            (_, value) => {
                let _ = write!(line, "  {name} {}", text(value));
            }
        }
    }
    line.push('\n');
    line
}

fn lines(prefix: &str, value: &Value, out: &mut String) {
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                let name =
                    if prefix.is_empty() { name.clone() } else { format!("{prefix}.{name}") };
                lines(&name, value, out);
            }
        }
        Value::Array(_) => {
            let _ = writeln!(out, "{prefix:<24} {}", list(value));
        }
        value => {
            let _ = writeln!(out, "{prefix:<24} {}", text(value));
        }
    }
}

pub(crate) fn table<const N: usize>(
    columns: &[(&str, Align); N],
    rows: impl Iterator<Item = [String; N]>,
) -> String {
    let rows: Vec<[String; N]> = rows.collect();
    let mut out = String::new();
    let widths: Vec<usize> = (0..N)
        .map(|at| {
            let cells = rows.iter().map(|row| row[at].chars().count());
            cells.chain([columns[at].0.len()]).max().unwrap_or_default()
        })
        .collect();
    let heads = columns.map(|(name, _)| name.to_owned());
    for row in [&heads].into_iter().chain(&rows) {
        let mut line = String::new();
        for (at, cell) in row.iter().enumerate() {
            let width = widths[at];
            let _ = match columns[at].1 {
                Align::Left => write!(line, "{cell:<width$}  "),
                Align::Right => write!(line, "{cell:>width$}  "),
            };
        }
        out.push_str(line.trim_end());
        out.push('\n');
    }
    out
}

/// What a terminal can show: what a client chose may hold anything.
pub(crate) fn text(value: &Value) -> String {
    let text = match value {
        Value::Null => "-".to_owned(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    plain(&text)
}

/// Without what steers a terminal, or turns the order of what follows.
pub(crate) fn plain(text: &str) -> String {
    let steers = |c: char| {
        let turns = matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{2069}');
        c.is_control() || turns
    };
    text.chars().map(|c| if steers(c) { '\u{fffd}' } else { c }).collect()
}

fn list(value: &Value) -> String {
    let items: Vec<String> = value.as_array().into_iter().flatten().map(text).collect();
    if items.is_empty() { "-".to_owned() } else { items.join(",") }
}

pub(crate) fn client(session: &Value) -> String {
    let address = text(&session["client_addr"]);
    match session["client_port"].as_u64() {
        Some(port) if address.contains(':') => format!("[{address}]:{port}"),
        Some(port) => format!("{address}:{port}"),
        None => address,
    }
}

pub(crate) fn engine(engine: &Value) -> String {
    let (up, down) = (text(&engine["to_upstream"]), text(&engine["to_downstream"]));
    if up == down { up } else { format!("{up}/{down}") }
}

pub(crate) fn state(session: &Value) -> String {
    let paused = session["paused"].as_array().into_iter().flatten();
    let mut words: Vec<String> = paused.map(|way| format!("paused {}", text(way))).collect();
    if session["half_closed"] == true {
        words.push("half-closed".to_owned());
    }
    if words.is_empty() { "open".to_owned() } else { words.join(", ") }
}

fn bytes(value: &Value) -> String {
    value.as_u64().map_or_else(|| "-".to_owned(), |bytes| size(bytes as f64))
}

/// Three digits and a unit.
pub(crate) fn size(bytes: f64) -> String {
    const UNITS: [&str; 6] = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];
    let (mut number, mut unit) = (bytes, 0);
    while number >= 999.5 && unit + 1 < UNITS.len() {
        number /= 1024.0;
        unit += 1;
    }
    let digits = if unit == 0 || number >= 99.95 { 0 } else { 1 };
    format!("{number:.digits$} {}", UNITS[unit])
}

pub(crate) fn age(seconds: f64) -> String {
    let whole = seconds as u64;
    match whole {
        0..60 => format!("{whole}s"),
        60..3600 => format!("{}m{:02}s", whole / 60, whole % 60),
        3600..86400 => format!("{}h{:02}m", whole / 3600, whole / 60 % 60),
        _ => format!("{}d{:02}h", whole / 86400, whole / 3600 % 24),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_session_is_one_line_under_its_heads() {
        let session = json!({
            "id": "01A", "route": "chat", "endpoint": null, "client_addr": "::1", "client_port": 7,
            "mode": "zero-copy", "engine": {"to_upstream": "splice", "to_downstream": "copy"},
            "bytes_in": 1536, "bytes_out": 12, "age_seconds": 3725.2,
            "paused": ["to_upstream"], "half_closed": true,
        });
        let table = sessions(&[session]);
        let lines: Vec<&str> = table.lines().collect();
        assert_eq!(
            lines,
            [
                "ID   ROUTE  CLIENT   ENDPOINT  MODE       ENGINE            IN   OUT    AGE  STATE",
                "01A  chat   [::1]:7  -         zero-copy  splice/copy  1.5 KiB  12 B  1h02m  \
                 paused to_upstream, half-closed",
            ]
        );
    }

    #[test]
    fn a_drain_is_one_line_that_says_of_what() {
        let mut value = json!({"age_seconds": 1.26, "closed": 3, "left": 4});
        for (key, name, expected) in [
            ("what", "gateway", "the gateway drains: 1.3 s, 3 told, 4 left\n"),
            ("endpoint", "a:1", "endpoint a:1 drains: 1.3 s, 3 told, 4 left\n"),
            ("route", "chat", "endpoint a:1 of route chat drains: 1.3 s, 3 told, 4 left\n"),
        ] {
            value[key] = name.into();
            assert_eq!(drain(&value, "drains"), expected);
        }
        value["endpoint"] = Value::Null;
        assert!(drain(&value, "x").starts_with("route chat x: "));
    }

    #[test]
    fn an_event_is_one_line() {
        let message = json!({
            "event": "message", "at_ms": 1234.5, "direction": "to_downstream", "opcode": "text",
            "bytes": 5, "latency_us": 1500, "preview": "a\nb",
        });
        let line = event(&message);
        assert!(line.starts_with("    1.234s  <- message  "), "{line}");
        for part in ["  text", "  bytes 5", "  after 1.500 ms", "  \"a\u{fffd}b\""] {
            assert!(line.contains(part), "{part:?}: {line}");
        }
        assert_eq!(line.lines().count(), 1);
        let opened = json!({"event": "opened", "mode": "zero-copy", "frames": false});
        assert_eq!(event(&opened), "opened     frames false  zero-copy\n");
    }

    #[test]
    fn numbers_are_short_and_control_characters_do_not_reach_the_terminal() {
        for (value, expected) in [
            (0, "0 B"),
            (999, "999 B"),
            (1000, "1.0 KiB"),
            (1 << 20, "1.0 MiB"),
            (u64::MAX, "16384 PiB"),
        ] {
            assert_eq!(bytes(&value.into()), expected);
        }
        assert_eq!(
            (age(59.9), age(61.0), age(90_000.0)),
            ("59s".into(), "1m01s".into(), "1d01h".into())
        );
        assert_eq!(text(&"a\u{1b}[2Jb\u{202e}c".into()), "a\u{fffd}[2Jb\u{fffd}c");
        let facts = facts(&json!({"id": "x", "engine": {"to_upstream": "copy"}, "paused": []}));
        assert_eq!(facts.lines().count(), 3, "{facts}");
        assert!(facts.contains("engine.to_upstream       copy\n"), "{facts}");
    }
}
