//! What a gateway has answered at one moment: JSON and metrics made into values. Text in them is fit to be shown.

use std::time::Duration;

use serde_json::Value;

use super::exposition::Exposition;
use super::plain;
use crate::admin::print;

/// All answers of one moment.
#[derive(Clone, Debug, Default)]
pub struct Sample {
    /// When the counters were read, since some beginning.
    pub at: Duration,
    /// When the sessions were.
    pub listed_at: Duration,
    /// The counters.
    pub metrics: Exposition,
    /// Why new connections should not come; empty when they should.
    pub reasons: Vec<String>,
    /// Live sessions that fit, as many as were asked for.
    pub sessions: Vec<Session>,
    /// Whether there are more of them.
    pub more: bool,
    /// All routes.
    pub routes: Vec<Route>,
    /// What drains.
    pub drains: Vec<Drain>,
}

/// A live session.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Session {
    /// As in the access log.
    pub id: String,
    /// The worker that has it.
    pub worker: u64,
    /// The name of its route.
    pub route: String,
    /// Address and port.
    pub client: String,
    /// The upstream's address.
    pub endpoint: String,
    /// How it is carried.
    pub mode: String,
    /// What moves its bytes, in both directions.
    pub engine: String,
    /// From the client and to it.
    pub bytes: [u64; 2],
    /// In seconds.
    pub age: f64,
    /// Directions that are not read, since the other side takes no more.
    pub paused: Vec<String>,
    /// What else there is to say.
    pub state: String,
}

/// A route, and what became of its sessions.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Route {
    /// Its name.
    pub name: String,
    /// Which requests it takes.
    pub place: String,
    /// How its sessions are carried.
    pub mode: String,
    /// Live ones.
    pub open: u64,
    /// All that there were.
    pub total: u64,
    /// Requests that did not become one.
    pub failed: u64,
    /// Endpoints that get sessions, and all of them.
    pub endpoints: [usize; 2],
}

/// A drain that goes on.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Drain {
    /// As `upsplice drain` tells it.
    pub line: String,
    /// Sessions that were told to leave.
    pub told: u64,
    /// Sessions that are left.
    pub left: u64,
    /// The answer itself.
    pub answer: Value,
}

impl Session {
    /// One of the list.
    pub fn new(answer: &Value) -> Session {
        let bytes = |key: &str| answer[key].as_u64().unwrap_or_default();
        let paused = answer["paused"].as_array().into_iter().flatten();
        Session {
            id: print::text(&answer["id"]),
            worker: answer["worker"].as_u64().unwrap_or_default(),
            route: print::text(&answer["route"]),
            client: print::client(answer),
            endpoint: print::text(&answer["endpoint"]),
            mode: print::text(&answer["mode"]),
            engine: print::engine(&answer["engine"]),
            bytes: [bytes("bytes_in"), bytes("bytes_out")],
            age: answer["age_seconds"].as_f64().unwrap_or_default(),
            paused: paused.map(print::text).collect(),
            state: print::state(answer),
        }
    }

    /// Bytes of both directions.
    pub fn bytes(&self) -> u64 {
        self.bytes.iter().fold(0, |sum, bytes| sum.saturating_add(*bytes))
    }
}

impl Route {
    /// One of the list.
    pub fn new(answer: &Value) -> Route {
        let number = |key: &str| answer[key].as_u64().unwrap_or_default();
        let failures = answer["failures"].as_object().into_iter().flatten();
        let endpoints = answer["endpoints"].as_array().map(Vec::as_slice).unwrap_or_default();
        let healthy = endpoints.iter().filter(|endpoint| endpoint["state"] == "healthy").count();
        let host = answer["host"].as_str().unwrap_or("*");
        Route {
            name: print::text(&answer["name"]),
            place: plain(host) + &print::text(&answer["path"]),
            mode: print::text(&answer["mode"]),
            open: number("sessions_open"),
            total: number("sessions_total"),
            failed: failures.filter_map(|(_, count)| count.as_u64()).sum(),
            endpoints: [healthy, endpoints.len()],
        }
    }
}

impl Drain {
    /// One of those that go on.
    pub fn new(answer: &Value) -> Drain {
        let number = |key: &str| answer[key].as_u64().unwrap_or_default();
        Drain {
            line: plain(print::drain(answer, "drains").trim_end()),
            told: number("closed"),
            left: number("left"),
            answer: answer.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_a_client_chose_does_not_steer_the_terminal() {
        let answer = json!({
            "id": "01A", "worker": 3, "route": "a\u{1b}[2Jb", "client_addr": "\u{202e}x", "client_port": 7,
            "endpoint": null, "mode": "inspect", "bytes_in": 5, "bytes_out": 7, "age_seconds": 1.5,
            "engine": {"to_upstream": "copy", "to_downstream": "copy"}, "paused": ["to_upstream"],
        });
        let session = Session::new(&answer);
        assert_eq!((&*session.route, &*session.client), ("a\u{fffd}[2Jb", "\u{fffd}x:7"));
        assert_eq!((session.bytes, session.bytes(), session.worker), ([5, 7], 12, 3));
        assert_eq!((&*session.state, &*session.endpoint), ("paused to_upstream", "-"));
        assert_eq!(session.paused, ["to_upstream"]);
    }

    #[test]
    fn a_route_knows_how_many_of_its_endpoints_get_sessions() {
        let answer = json!({
            "name": "chat", "host": null, "path": "/ws", "mode": "zero-copy", "sessions_open": 2,
            "sessions_total": 9, "failures": {"reset": 1, "no_route": 2},
            "endpoints": [{"state": "healthy"}, {"state": "ejected"}],
        });
        let route = Route::new(&answer);
        assert_eq!((&*route.place, route.failed, route.endpoints), ("*/ws", 3, [1, 2]));
        assert_eq!((route.open, route.total), (2, 9));
    }

    #[test]
    fn an_answer_without_its_fields_is_an_empty_one() {
        assert_eq!(Session::new(&Value::Null).bytes(), 0);
        assert_eq!(Route::new(&json!([])).endpoints, [0, 0]);
        assert_eq!(Drain::new(&json!("x")).left, 0);
    }
}
