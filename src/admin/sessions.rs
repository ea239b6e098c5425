//! Live sessions: listed, shown, killed.

use std::sync::Arc;

use hyper::StatusCode;
use serde::Serialize;
use tokio::sync::oneshot;
use tokio::time::timeout;
use ulid::Ulid;

use super::bulk::{self, Pace};
use super::query::{FILTERS, Query, id};
use super::reply::{self, Answer, Problem};
use super::view::Shown;
use super::{ANSWER_PATIENCE, Subject};
use crate::session::question::{Filter, Looked, Place, Question, SessionView};

/// Sessions in one answer.
const LIMIT: usize = 100;
const LIMIT_MAX: usize = 1000;
/// A session that moves may be looked for where it is no more.
pub(super) const SEARCHES: u32 = 3;

/// Where a list goes on: a worker, and a seat there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Cursor {
    worker: usize,
    seat: usize,
}

#[derive(Serialize)]
struct List<'a> {
    sessions: Vec<Shown<'a>>,
    /// For the next request; absent when this was all.
    #[serde(skip_serializing_if = "Option::is_none")]
    cursor: Option<String>,
}

#[derive(Serialize)]
struct Killed {
    killed: u64,
    /// Until the last of them is told.
    seconds: f64,
}

impl Cursor {
    fn parse(text: &str) -> Result<Cursor, String> {
        let parsed = text.split_once('-').and_then(|(worker, seat)| {
            Some(Cursor { worker: worker.parse().ok()?, seat: seat.parse().ok()? })
        });
        parsed.ok_or_else(|| format!("must be what the last answer gave, not {text:?}"))
    }
}

impl std::fmt::Display for Cursor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}-{}", self.worker, self.seat)
    }
}

/// `GET /v1/sessions`
pub(super) async fn list(gateway: &Subject, query: Option<&str>) -> Result<Answer, Problem> {
    let query = Query::new(query, &[&FILTERS[..], &["limit", "cursor"]].concat())?;
    let filter = Arc::new(query.filter(gateway)?);
    let limit = query.read("limit", limit)?.unwrap_or(LIMIT);
    let mut at = query.read("cursor", Cursor::parse)?.unwrap_or_default();
    let mut found = Vec::new();
    let cursor = loop {
        if at.worker >= gateway.workers.count() {
            break None;
        }
        let looked = look(gateway, at, &filter).await?;
        let room = limit - found.len();
        if looked.found.len() > room {
            // What has no room is found again.
            at.seat = looked.found[room].0.seat;
            found.extend(looked.found.into_iter().take(room));
            break Some(at);
        }
        found.extend(looked.found);
        at = match looked.next {
            Some(seat) => Cursor { seat, ..at },
            None => Cursor { worker: at.worker + 1, seat: 0 },
        };
    };
    let plan = gateway.plan();
    let sessions = found.iter().map(|(_, view)| Shown::new(&plan, view)).collect();
    let cursor = cursor.map(|cursor| cursor.to_string());
    Ok(reply::json(StatusCode::OK, &List { sessions, cursor }))
}

/// `GET /v1/sessions/{id}`
pub(super) async fn show(
    gateway: &Subject,
    text: &str,
    query: Option<&str>,
) -> Result<Answer, Problem> {
    Query::new(query, &[])?;
    let (_, view) = search(gateway, id(text)?).await?;
    Ok(reply::json(StatusCode::OK, &Shown::new(&gateway.plan(), &view)))
}

/// `DELETE /v1/sessions/{id}`
pub(super) async fn kill_one(
    gateway: &Subject,
    text: &str,
    query: Option<&str>,
) -> Result<Answer, Problem> {
    Query::new(query, &[])?;
    let id = id(text)?;
    let (place, _) = search(gateway, id).await?;
    if !end(gateway, place).await? {
        return Err(no_session(id));
    }
    tracing::info!(session = %id, "killed by the operator");
    Ok(reply::json(StatusCode::ACCEPTED, &Killed { killed: 1, seconds: 0.0 }))
}

/// `DELETE /v1/sessions`
pub(super) async fn kill(gateway: &Arc<Subject>, query: Option<&str>) -> Result<Answer, Problem> {
    let query = Query::new(query, &[&FILTERS[..], &["all", "rate", "jitter"]].concat())?;
    let filter = Arc::new(query.filter(gateway)?);
    if !query.chooses() && query.text("all") != Some("true") {
        let hint = format!("choose by {}, or say all=true", FILTERS.join(", "));
        return Err(Problem::wrong("which sessions?", hint));
    }
    query.read("all", |text| match text {
        "true" => Ok(()),
        _ => Err(format!("must be true, or left out, not {text:?}")),
    })?;
    let pace = Pace::read(&query)?;
    let turn = bulk::turn(gateway)?;
    let mut places = Vec::new();
    let mut at = Cursor::default();
    while at.worker < gateway.workers.count() {
        let looked = look(gateway, at, &filter).await?;
        places.extend(looked.found.into_iter().map(|(place, _)| place));
        at = match looked.next {
            Some(seat) => Cursor { seat, ..at },
            None => Cursor { worker: at.worker + 1, seat: 0 },
        };
    }
    let (killed, seconds) = (places.len() as u64, pace.seconds(places.len()));
    tracing::info!(sessions = killed, seconds, "sessions are killed by the operator");
    bulk::spread(gateway, places, pace, turn);
    Ok(reply::json(StatusCode::ACCEPTED, &Killed { killed, seconds }))
}

fn limit(text: &str) -> Result<usize, String> {
    let number = text.parse().ok().filter(|number| (1..=LIMIT_MAX).contains(number));
    number.ok_or_else(|| format!("must be a whole number from 1 to {LIMIT_MAX}, not {text:?}"))
}

pub(super) fn no_session(id: Ulid) -> Problem {
    let hint = "it may have ended: its line in the access log tells how";
    Problem::new(StatusCode::NOT_FOUND, format!("no session {id}"), hint)
}

/// Finds one session.
pub(super) async fn search(gateway: &Subject, id: Ulid) -> Result<(Place, SessionView), Problem> {
    let filter = Arc::new(Filter { id: Some(id), ..Filter::default() });
    // While it is on its way from one worker to another it is in neither.
    for _ in 0..SEARCHES {
        for worker in 0..gateway.workers.count() {
            let mut seat = Some(0);
            while let Some(from) = seat {
                let mut looked = look(gateway, Cursor { worker, seat: from }, &filter).await?;
                if let Some(found) = looked.found.pop() {
                    return Ok(found);
                }
                seat = looked.next;
            }
        }
    }
    Err(no_session(id))
}

async fn look(gateway: &Subject, at: Cursor, filter: &Arc<Filter>) -> Result<Looked, Problem> {
    let (reply, answer) = oneshot::channel();
    let question = Question::Look { from: at.seat, filter: Arc::clone(filter), reply };
    // A worker that has ended has no sessions.
    let nothing = Looked { found: Vec::new(), next: None };
    Ok(ask(gateway, at.worker, question, answer).await?.unwrap_or(nothing))
}

/// Tells a session to end, there or wherever it has moved to; false when it has ended already.
pub(super) async fn end(gateway: &Subject, mut place: Place) -> Result<bool, Problem> {
    for _ in 0..SEARCHES {
        if tell_end(gateway, place).await? {
            return Ok(true);
        }
        place = match search(gateway, place.id).await {
            Ok((place, _)) => place,
            Err(problem) if problem.status == StatusCode::NOT_FOUND => break,
            Err(problem) => return Err(problem),
        };
    }
    Ok(false)
}

async fn tell_end(gateway: &Subject, place: Place) -> Result<bool, Problem> {
    let (reply, answer) = oneshot::channel();
    let question = Question::Kill { place, reply };
    Ok(ask(gateway, place.worker, question, answer).await?.unwrap_or(false))
}

/// Puts a question and waits for the answer; `None` when the worker has ended.
pub(super) async fn ask<T>(
    gateway: &Subject,
    worker: usize,
    question: Question,
    answer: oneshot::Receiver<T>,
) -> Result<Option<T>, Problem> {
    if !gateway.workers.ask(worker, question) {
        return Ok(None);
    }
    match timeout(ANSWER_PATIENCE, answer).await {
        Ok(answer) => Ok(answer.ok()),
        Err(_) => {
            let error = format!("worker {worker} does not answer");
            let hint = "it is stuck, or has no processor time; see /livez";
            Err(Problem::new(StatusCode::SERVICE_UNAVAILABLE, error, hint))
        }
    }
}
