//! What is where: paths and methods to answers.
//!
//! Whoever adds a place adds it to `openapi.json`, too: `tests/admin_api.rs` compares them.

use std::sync::Arc;

use hyper::body::Incoming;
use hyper::header::{ACCEPT, AUTHORIZATION};
use hyper::{Method, Request, StatusCode};

use super::query::Query;
use super::reply::{self, Answer, Problem};
use super::{Subject, browser, door, drain, health, openmetrics, reload, sessions, tap, ui, view};
use crate::config::Token;

const OPENAPI: &str = include_str!("openapi.json");

/// Answers one request.
pub(super) async fn answer(
    gateway: &Arc<Subject>,
    token: Option<&Token>,
    request: &Request<Incoming>,
) -> Answer {
    let path = request.uri().path();
    let authorization = request.headers().get(AUTHORIZATION).map(|value| value.as_bytes());
    // What supervises the process needs no secret, and learns none; nor does the page, which asks for it.
    let is_open = matches!(path, "/livez" | "/readyz" | "/healthz" | "/ui" | "/ui/");
    if !is_open && token.is_some_and(|token| !door::is_known(token, authorization)) {
        return reply::unknown_visitor();
    }
    if !is_open && token.is_none() && browser::is_foreign(request.headers()) {
        let hint = "open /ui under the address of this API, or as localhost";
        return Problem::new(StatusCode::FORBIDDEN, "a page of another site asks", hint).into();
    }
    let found = find(gateway, request).await;
    found.unwrap_or_else(Answer::from)
}

async fn find(gateway: &Arc<Subject>, request: &Request<Incoming>) -> Result<Answer, Problem> {
    let (method, uri) = (request.method(), request.uri());
    let (path, query) = (uri.path(), uri.query());
    let segments: Vec<&str> = path.split('/').skip(1).collect();
    let is_get = matches!(*method, Method::GET | Method::HEAD);
    if !matches!(*segments, ["v1", "sessions" | "drain", ..]) {
        Query::new(query, &[])?;
    }
    match *segments {
        ["livez"] if is_get => Ok(health::live(gateway).await),
        ["readyz" | "healthz"] if is_get => Ok(health::ready(gateway)),
        ["metrics"] if is_get => {
            let accept = request.headers().get(ACCEPT).and_then(|value| value.to_str().ok());
            Ok(openmetrics::answer(gateway, accept))
        }
        ["ui"] | ["ui", ""] if is_get => Ok(ui::page()),
        ["v1", "openapi.json"] if is_get => {
            Ok(reply::whole(StatusCode::OK, "application/json", OPENAPI))
        }
        ["v1", "routes"] if is_get => Ok(view::routes(gateway)),
        ["v1", "reload"] if *method == Method::POST => reload::answer(gateway).await,
        ["v1", "drain"] if is_get => drain::show(gateway, query),
        ["v1", "drain"] if *method == Method::POST => drain::begin(gateway, query),
        ["v1", "drain"] if *method == Method::DELETE => drain::undo(gateway, query),
        ["v1", "sessions"] if is_get => sessions::list(gateway, query).await,
        ["v1", "sessions"] if *method == Method::DELETE => sessions::kill(gateway, query).await,
        ["v1", "sessions", id, "tap"] if *method == Method::GET => {
            tap::answer(gateway, id, query).await
        }
        ["v1", "sessions", id] if is_get => sessions::show(gateway, id, query).await,
        ["v1", "sessions", id] if *method == Method::DELETE => {
            sessions::kill_one(gateway, id, query).await
        }
        ["livez" | "readyz" | "healthz" | "metrics" | "ui"]
        | ["ui", ""]
        | ["v1", "routes" | "openapi.json"] => Ok(reply::not_allowed("GET, HEAD")),
        ["v1", "reload"] => Ok(reply::not_allowed("POST")),
        ["v1", "drain"] => Ok(reply::not_allowed("GET, HEAD, POST, DELETE")),
        ["v1", "sessions", _, "tap"] => Ok(reply::not_allowed("GET")),
        ["v1", "sessions"] | ["v1", "sessions", _] => Ok(reply::not_allowed("GET, HEAD, DELETE")),
        _ => Err(Problem::new(
            StatusCode::NOT_FOUND,
            "nothing here",
            "/v1/openapi.json says what is where",
        )),
    }
}
