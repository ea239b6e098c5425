//! Drains: begun, watched, undone.

use std::time::Duration;

use hyper::StatusCode;
use serde::Serialize;

use super::query::Query;
use super::reply::{self, Answer, Problem};
use super::{Subject, bulk};
use crate::config::value;
use crate::session::depart::{DEADLINE_MAX, time_to_tell};
use crate::session::drains::{DRAINS_MAX, Drain, NotUndone, Pace, What};
use crate::session::joined::{GOING_AWAY, SERVICE_RESTART};
use crate::upstream::Endpoint;
use crate::ws::close;

/// What sessions have beyond the time in which they are told, unless the request says otherwise.
const TIME_TO_GO: Duration = Duration::from_secs(5);

#[derive(Serialize)]
struct Shown<'a> {
    what: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    route: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    endpoint: Option<&'a str>,
    /// Since it began.
    age_seconds: f64,
    /// In which sessions are told to leave; absent where they are only waited for.
    #[serde(skip_serializing_if = "Option::is_none")]
    over_seconds: Option<f64>,
    /// From the beginning, until those that are left are ended.
    deadline_seconds: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    rate: Option<f64>,
    code: u16,
    /// Whether the process ends with it.
    stop: bool,
    /// Sessions that were told.
    closed: u64,
    left: u64,
    done: bool,
}

#[derive(Serialize)]
struct All<'a> {
    drains: Vec<Shown<'a>>,
}

/// `GET /v1/drain`
pub(super) fn show(gateway: &Subject, query: Option<&str>) -> Result<Answer, Problem> {
    Query::new(query, &[])?;
    let all = gateway.workers.drains().all();
    let drains = all.iter().map(|drain| Shown::new(gateway, drain)).collect();
    Ok(reply::json(StatusCode::OK, &All { drains }))
}

/// `POST /v1/drain`
pub(super) fn begin(gateway: &Subject, query: Option<&str>) -> Result<Answer, Problem> {
    let names = ["route", "endpoint", "over", "deadline", "rate", "code", "stop"];
    let query = Query::new(query, &names)?;
    let stop = query.read("stop", switch)?;
    let mut what = what(gateway, &query)?;
    match (&mut what, stop) {
        // Whoever drains everything is about to stop it.
        (What::Gateway { stop: stops }, stop) => *stops = stop.unwrap_or(true),
        (_, Some(true)) => {
            let hint = "leave out route and endpoint, or stop";
            return Err(Problem::wrong("only a drain of the whole gateway ends the process", hint));
        }
        _ => {}
    }
    if let What::Gateway { stop: false } = what
        && gateway.workers.drains().is_ending()
    {
        return Err(ends());
    }
    let pace = pace(gateway, &query, &what)?;
    let drain = Drain::new(what, pace);
    let answer = reply::json(StatusCode::ACCEPTED, &Shown::new(gateway, &drain));
    if !gateway.workers.drain(drain) {
        let error = format!("{DRAINS_MAX} drains are going on");
        return Err(Problem::new(StatusCode::TOO_MANY_REQUESTS, error, "undo one of them"));
    }
    Ok(answer)
}

/// `DELETE /v1/drain`
pub(super) fn undo(gateway: &Subject, query: Option<&str>) -> Result<Answer, Problem> {
    let query = Query::new(query, &["route", "endpoint"])?;
    // By its name alone: what it stood for may be gone by now.
    let owned = |name| query.text(name).map(str::to_owned);
    let what = match (owned("route"), owned("endpoint")) {
        (None, None) => What::Gateway { stop: false },
        (Some(name), None) => What::Route { name, slots: Vec::new() },
        (route, Some(name)) => What::Endpoint { name, route, found: Vec::new() },
    };
    match gateway.workers.drains().undo(&what) {
        Ok(drain) => {
            tracing::info!("{} takes sessions again", drain.what());
            Ok(reply::json(StatusCode::OK, &Shown::new(gateway, &drain)))
        }
        Err(NotUndone::Ends) => Err(ends()),
        Err(NotUndone::Unknown) => {
            let (error, hint) = (format!("{what} does not drain"), "GET /v1/drain says what does");
            Err(Problem::new(StatusCode::NOT_FOUND, error, hint))
        }
    }
}

fn ends() -> Problem {
    let error = "the gateway accepts nothing any more and ends with its sessions";
    Problem::new(StatusCode::CONFLICT, error, "start another one")
}

fn what(gateway: &Subject, query: &Query) -> Result<What, Problem> {
    let route = query.text("route").map(str::to_owned);
    let slots = query.slots(gateway)?;
    let Some(name) = query.text("endpoint").map(str::to_owned) else {
        return Ok(match (route, slots) {
            (Some(name), Some(slots)) => What::Route { name, slots },
            _ => What::Gateway { stop: true },
        });
    };
    let plan = gateway.plan();
    let live = plan.live.iter().filter(|slot| slots.as_ref().is_none_or(|of| of.contains(slot)));
    let mut found = Vec::new();
    let mut known: Vec<String> = Vec::new();
    for endpoint in live.flat_map(|&slot| plan.upstreams.route(slot).endpoints()) {
        match is_called(&endpoint, &name) {
            true => found.push(endpoint),
            false => known.push(endpoint.text().to_owned()),
        }
    }
    if found.is_empty() {
        known.dedup();
        let hint = format!("there are: {}", known.join(", "));
        return Err(Problem::new(StatusCode::NOT_FOUND, format!("no endpoint {name:?}"), hint));
    }
    Ok(What::Endpoint { name, route, found })
}

/// By its address, or by the name that it was found by.
fn is_called(endpoint: &Endpoint, name: &str) -> bool {
    endpoint.text() == name || endpoint.address().to_string() == name
}

fn pace(gateway: &Subject, query: &Query, what: &What) -> Result<Pace, Problem> {
    let config = &gateway.plan().config.gateway;
    let over = query.read("over", time)?.unwrap_or(config.drain);
    let rate = match query.read("rate", rate)? {
        Some(rate) => rate,
        None => config.drain_rate.map(f64::from),
    };
    let code = match what {
        What::Gateway { .. } => GOING_AWAY,
        _ => SERVICE_RESTART,
    };
    let code = query.read("code", code_of)?.unwrap_or(code);
    let deadline = match query.read("deadline", time)? {
        Some(deadline) if deadline < over => {
            let hint = format!("over is {over:?}: make deadline longer, or over shorter");
            return Err(Problem::wrong("deadline comes before the last session is told", hint));
        }
        Some(deadline) => deadline,
        None => {
            // What the rate holds back is told as well before it comes.
            over.max(time_to_tell(what.sessions(&gateway.counters), rate)) + TIME_TO_GO
        }
    };
    Ok(Pace { over: Some(over), deadline, rate, code })
}

fn time(text: &str) -> Result<Duration, String> {
    let time = value::duration(text)?;
    if time > DEADLINE_MAX {
        return Err(format!("must be a week at most, not {text:?}"));
    }
    Ok(time)
}

fn rate(text: &str) -> Result<Option<f64>, String> {
    if text == "off" { Ok(None) } else { bulk::rate(text).map(Some) }
}

fn switch(text: &str) -> Result<bool, String> {
    text.parse().map_err(|_| format!("must be true or false, not {text:?}"))
}

fn code_of(text: &str) -> Result<u16, String> {
    let code = text.parse::<u16>().ok();
    let code = code.filter(|code| close::judge(&code.to_be_bytes()).is_ok());
    code.ok_or_else(|| format!("must be a close code that may be sent, like 1012, not {text:?}"))
}

impl<'a> Shown<'a> {
    fn new(gateway: &Subject, drain: &'a Drain) -> Shown<'a> {
        let (what, route, endpoint) = match drain.what() {
            What::Gateway { .. } => ("gateway", None, None),
            What::Route { name, .. } => ("route", Some(name.as_str()), None),
            What::Endpoint { name, route, .. } => {
                ("endpoint", route.as_deref(), Some(name.as_str()))
            }
        };
        let Pace { over, deadline, rate, code } = *drain.pace();
        let left = drain.left(&gateway.counters);
        Shown {
            what,
            route,
            endpoint,
            age_seconds: drain.age().as_secs_f64(),
            over_seconds: over.map(|over| over.as_secs_f64()),
            deadline_seconds: deadline.as_secs_f64(),
            rate,
            code,
            stop: drain.what().stops(),
            closed: drain.told(),
            left,
            done: left == 0,
        }
    }
}
