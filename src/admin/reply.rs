//! Answers: JSON or text.

use http_body_util::Full;
use hyper::body::Bytes;
use hyper::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderValue, WWW_AUTHENTICATE};
use hyper::{Response, StatusCode};
use serde::Serialize;

pub(super) type Answer = Response<Full<Bytes>>;

/// What was wrong with a request.
#[derive(Debug, Serialize)]
pub(super) struct Problem {
    #[serde(skip)]
    pub status: StatusCode,
    /// What.
    pub error: String,
    /// What to do about it.
    pub hint: String,
}

impl Problem {
    pub fn new(status: StatusCode, error: impl Into<String>, hint: impl Into<String>) -> Problem {
        Problem { status, error: error.into(), hint: hint.into() }
    }

    /// 400
    pub fn wrong(error: impl Into<String>, hint: impl Into<String>) -> Problem {
        Problem::new(StatusCode::BAD_REQUEST, error, hint)
    }
}

impl From<Problem> for Answer {
    fn from(problem: Problem) -> Answer {
        json(problem.status, &problem)
    }
}

pub(super) fn json(status: StatusCode, value: &impl Serialize) -> Answer {
    let mut text = serde_json::to_vec(value).expect("strings and numbers always serialise");
    text.push(b'\n');
    whole(status, "application/json", text)
}

pub(super) fn whole(status: StatusCode, kind: &'static str, text: impl Into<Bytes>) -> Answer {
    let mut answer = Response::new(Full::new(text.into()));
    *answer.status_mut() = status;
    let headers = answer.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    answer
}

pub(super) fn not_allowed(allowed: &'static str) -> Answer {
    let status = StatusCode::METHOD_NOT_ALLOWED;
    let hint = format!("this place knows {allowed}");
    let mut answer: Answer = Problem::new(status, "method not allowed", hint).into();
    answer.headers_mut().insert(ALLOW, HeaderValue::from_static(allowed));
    answer
}

pub(super) fn unknown_visitor() -> Answer {
    let hint = "bring \"Authorization: Bearer TOKEN\", with the token of admin_token_file";
    let mut answer: Answer = Problem::new(StatusCode::UNAUTHORIZED, "no valid token", hint).into();
    answer.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    answer
}
