//! The newcomer's first minute: a test page and an echo backend, embedded.
//!
//! `upsplice run` with neither `--config` nor `--to` routes WebSocket upgrades to [`EchoBackend`] and
//! answers every other request with [`respond`]. Nothing here relays: the bytes between the page and
//! the echo backend go through the gateway like everybody else's, which is the point of the page.
//!
//! [`respond`] is pure; the only sockets and threads are those of [`EchoBackend`].

mod echo;

pub use echo::{EchoBackend, EchoLimits};

use crate::http::page::policy;

/// Where the page opens its WebSocket.
pub const ECHO_PATH: &str = "/echo";

/// Where the page reads the gateway's counters.
pub const COUNTERS_PATH: &str = "/upsplice/counters";

/// The test page: one file, nothing loaded from elsewhere.
pub fn page() -> &'static str {
    include_str!("demo/page.html")
}

/// The complete HTTP/1.1 response, head and body, to a request that asks for no upgrade.
///
/// `target` is the request target in origin form; its query is ignored. `counters_json` becomes the
/// body of [`COUNTERS_PATH`] as it is. The response always closes the connection.
pub fn respond(method: &str, target: &str, counters_json: &str) -> Vec<u8> {
    let path = target.split(['?', '#']).next().unwrap_or(target);
    let answer = answer(path, counters_json);
    match method {
        "GET" => answer.into_bytes(Body::Sent),
        "HEAD" => answer.into_bytes(Body::Omitted),
        _ if answer.status == NOT_FOUND => answer.into_bytes(Body::Sent),
        _ => Answer::text("405 Method Not Allowed", "Only GET and HEAD are answered here.\n")
            .with("Allow: GET, HEAD\r\n")
            .into_bytes(Body::Sent),
    }
}

/// What a GET of `path` is answered with.
fn answer<'a>(path: &str, counters_json: &'a str) -> Answer<'a> {
    match path {
        "/" => Answer { media_type: "text/html; charset=utf-8", ..Answer::text("200 OK", page()) },
        COUNTERS_PATH => {
            Answer { media_type: "application/json", ..Answer::text("200 OK", counters_json) }
        }
        // The page carries its icon; this answers a browser that asks all the same.
        "/favicon.ico" => Answer::text("204 No Content", ""),
        ECHO_PATH => Answer::text(
            "426 Upgrade Required",
            "This path speaks WebSocket. Open / in a browser, or: websocat ws://HOST:PORT/echo\n",
        )
        .with("Upgrade: websocket\r\n"),
        _ => Answer::text(NOT_FOUND, HINT),
    }
}

/// A response before it is written out.
struct Answer<'a> {
    /// Code and reason phrase.
    status: &'static str,
    media_type: &'static str,
    /// Field lines of this answer alone, each with its CRLF.
    fields: &'static str,
    body: &'a str,
}

/// Whether the body follows the head.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Body {
    Sent,
    Omitted,
}

impl<'a> Answer<'a> {
    fn text(status: &'static str, body: &'a str) -> Answer<'a> {
        Answer { status, media_type: "text/plain; charset=utf-8", fields: "", body }
    }

    fn with(self, fields: &'static str) -> Answer<'a> {
        Answer { fields, ..self }
    }

    fn into_bytes(self, body: Body) -> Vec<u8> {
        let Answer { status, media_type, fields, body: text } = self;
        let connection = if fields.starts_with("Upgrade:") { "close, upgrade" } else { "close" };
        // A 204 may have neither Content-Length (RFC 9110 section 8.6) nor a type for what it lacks.
        let content = match status.starts_with("204") {
            true => String::new(),
            false => format!("Content-Type: {media_type}\r\nContent-Length: {}\r\n", text.len()),
        };
        let mut response = format!(
            "HTTP/1.1 {status}\r\n{content}{fields}Cache-Control: no-store\r\n\
             Content-Security-Policy: {}\r\n\
             X-Content-Type-Options: nosniff\r\nReferrer-Policy: no-referrer\r\n\
             Connection: {connection}\r\n\r\n",
            policy(SCRIPT_HASH, STYLE_HASH)
        );
        if body == Body::Sent {
            response.push_str(text);
        }
        response.into_bytes()
    }
}

const NOT_FOUND: &str = "404 Not Found";

const HINT: &str = "Nothing is here. upsplice runs without a configuration, so it serves only:\n\n  \
    /                    a test page for a browser\n  \
    /echo                a WebSocket echo\n  \
    /upsplice/counters   the gateway's counters, JSON\n\n\
    To relay to your own upstream: upsplice run --to HOST:PORT\n";

/// The page's only script, by what it says (CSP level 3): any other script, injected or edited, does
/// not run. The tests compare it with the page and print the value a changed page needs.
const SCRIPT_HASH: &str = "sha256-gUtVKoQxrigUpFFyjrFp3iIKKtqcIQV5QsSePO0X9Qs=";

/// The page's only style sheet, likewise.
const STYLE_HASH: &str = "sha256-NpbQYv8j39FLYX06wBHmjYJydCpzWl571e6b/9K+uns=";

#[cfg(test)]
mod tests;
