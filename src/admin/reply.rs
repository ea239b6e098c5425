//! Answers: JSON, text, or a stream of lines.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use hyper::body::{Body, Bytes, Frame, SizeHint};
use hyper::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderValue, WWW_AUTHENTICATE};
use hyper::{Response, StatusCode};
use serde::Serialize;
use tokio::sync::mpsc;

/// A complete answer, or lines as they come.
pub(super) enum Content {
    Whole(Option<Bytes>),
    Lines(mpsc::Receiver<Bytes>),
}

pub(super) type Answer = Response<Content>;

/// What was wrong with a request.
#[derive(Debug, Serialize)]
pub(super) struct Problem {
    #[serde(skip)]
    pub status: StatusCode,
    /// What.
    pub error: String,
    /// What to do about it.
    pub hint: String,
    /// All that is wrong with a file.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub faults: Vec<String>,
}

impl Problem {
    pub fn new(status: StatusCode, error: impl Into<String>, hint: impl Into<String>) -> Problem {
        Problem { status, error: error.into(), hint: hint.into(), faults: Vec::new() }
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
    let mut answer = Response::new(Content::Whole(Some(text.into())));
    *answer.status_mut() = status;
    let headers = answer.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    answer
}

pub(super) fn lines(lines: mpsc::Receiver<Bytes>) -> Answer {
    let mut answer = whole(StatusCode::OK, "application/x-ndjson", Bytes::new());
    *answer.body_mut() = Content::Lines(lines);
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

impl Body for Content {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        match self.get_mut() {
            Content::Whole(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            Content::Lines(lines) => lines.poll_recv(cx).map(|line| Some(Ok(Frame::data(line?)))),
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(self, Content::Whole(None))
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Content::Whole(bytes) => {
                SizeHint::with_exact(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64))
            }
            Content::Lines(_) => SizeHint::default(),
        }
    }
}
