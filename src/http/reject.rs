//! The responses that upsplice writes itself; no status code is chosen anywhere else.

use std::fmt::Write;
use std::io::ErrorKind;

use crate::error::{End, Kind, Limit, Side, Stage};

/// A request that goes no further: which rule it broke, and what the client is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Status of the answer.
    pub status: u16,
    /// Short name of the rule, in log and answer.
    pub rule: &'static str,
}

impl Refusal {
    /// A refusal of this status for this rule.
    pub fn new(status: u16, rule: &'static str) -> Refusal {
        Refusal { status, rule }
    }
}

/// The status for an exchange that ended like this; `None` when there is nobody to tell, or all was said.
pub fn status_for(end: &End) -> Option<u16> {
    match (end.side, end.stage, &end.kind) {
        (Side::Downstream, Stage::Request, Kind::HandshakeTimeout) => Some(408),
        (Side::Downstream, _, _) => None,
        (_, _, Kind::NoRoute) => Some(404),
        (_, _, Kind::Limited { limit, .. }) if limit.is_of_client() => Some(429),
        (_, Stage::Relay, _) | (_, _, Kind::Answered | Kind::Stopped) => None,
        (_, _, Kind::ConnectTimeout | Kind::HandshakeTimeout) => Some(504),
        (Side::Upstream, Stage::Connect | Stage::Response, _) => Some(502),
        _ => Some(503),
    }
}

/// The answer to a refused request.
pub fn refusal(refusal: &Refusal, name: &str) -> Vec<u8> {
    let extra = match refusal.rule {
        "websocket_version" => "Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n",
        "websocket_method" => "Allow: GET\r\n",
        _ => "",
    };
    let connection = if refusal.status == 426 { "Upgrade, close" } else { "close" };
    let body = format!("{name} refused this request: {}.\n", explain(refusal.rule));
    write(refusal.status, connection, extra, &body)
}

/// The answer to a request that must name one of `allowed` in its `Upgrade`.
pub fn upgrade_required(allowed: &[String], name: &str) -> Vec<u8> {
    let list = allowed.join(", ");
    let body = format!(
        "{name} carries upgraded connections only. Ask with `Connection: Upgrade` and one of \
         `Upgrade: {list}`.\n"
    );
    let mut extra = format!("Upgrade: {list}\r\n");
    if allowed.iter().any(|token| token == "websocket") {
        extra.push_str("Sec-WebSocket-Version: 13\r\n");
    }
    write(426, "Upgrade, close", &extra, &body)
}

/// The answer when the exchange failed behind us (RFC 9209 names the error types).
pub fn failure(status: u16, end: &End, name: &str) -> Vec<u8> {
    let error = match (end.stage, &end.kind) {
        (_, Kind::NoRoute) => "destination_not_found",
        (_, Kind::Limited { limit, .. }) if limit.is_of_client() => "http_request_denied",
        (_, Kind::Limited { .. } | Kind::NoLocalPort) => "connection_limit_reached",
        (_, Kind::ConnectTimeout) => "connection_timeout",
        (_, Kind::HandshakeTimeout) if end.side == Side::Downstream => "http_request_error",
        (Stage::Connect, Kind::HandshakeTimeout) => "connection_timeout",
        (_, Kind::HandshakeTimeout) => "http_response_timeout",
        (Stage::Connect, Kind::Io { source, .. }) => match source.kind() {
            ErrorKind::ConnectionRefused => "connection_refused",
            ErrorKind::HostUnreachable | ErrorKind::NetworkUnreachable => {
                "destination_ip_unroutable"
            }
            _ => "destination_unavailable",
        },
        (_, Kind::Truncated | Kind::Reset) => "http_response_incomplete",
        (_, Kind::Refused(_)) => "http_protocol_error",
        _ => "proxy_internal_error",
    };
    let said = match (&end.kind, end.stage) {
        (Kind::NoRoute, _) => "no route for this host and path".to_owned(),
        (Kind::Limited { limit, .. }, _) => over(*limit).to_owned(),
        (Kind::NoLocalPort, _) => "no port is left to connect from".to_owned(),
        (Kind::ConnectTimeout, _) | (Kind::HandshakeTimeout, Stage::Connect) => {
            "the upstream did not accept in time".to_owned()
        }
        (Kind::HandshakeTimeout, Stage::Request) => "the request did not come in time".to_owned(),
        (Kind::HandshakeTimeout, _) => "the upstream did not answer in time".to_owned(),
        (_, Stage::Connect) => "the upstream cannot be reached".to_owned(),
        (Kind::Refused(rule), _) => {
            format!("the upstream's answer broke a rule: {}", explain(rule))
        }
        _ => "the upstream closed before it answered".to_owned(),
    };
    let mut extra = format!("Proxy-Status: {name}; error={error}\r\n");
    let retry_after = match end.kind {
        Kind::Limited { retry_after, .. } => Some(retry_after),
        _ => (status == 503).then_some(1),
    };
    if let Some(seconds) = retry_after {
        // Writing to a string cannot fail.
        let _ = write!(extra, "Retry-After: {seconds}\r\n");
    }
    write(status, "close", &extra, &format!("{name}: {said}.\n"))
}

/// The answer to a request for what drains. Whoever asks may do so again in so many seconds.
pub fn drained(retry_after: u32, name: &str) -> Vec<u8> {
    let extra = format!(
        "Proxy-Status: {name}; error=destination_unavailable\r\nRetry-After: {retry_after}\r\n"
    );
    write(503, "close", &extra, &format!("{name}: no new sessions here for now.\n"))
}

fn over(limit: Limit) -> &'static str {
    match limit {
        Limit::Sessions => "there are as many sessions as may be",
        Limit::RouteSessions => "there are as many sessions here as may be",
        Limit::ClientSessions => "you have as many sessions as may be",
        Limit::Handshakes | Limit::RouteHandshakes => "too many ask at the same time",
        Limit::ClientHandshakes => "you ask too often",
        Limit::Exchanges => "too many have connected and not asked yet",
        Limit::ClientExchanges => "you have too many connections that have not asked yet",
    }
}

/// A complete response as the answer to HEAD: the same head, no body (RFC 9110 §9.3.2).
pub fn without_body(mut response: Vec<u8>) -> Vec<u8> {
    let end = response.windows(4).position(|four| four == b"\r\n\r\n");
    response.truncate(end.map_or(response.len(), |end| end + 4));
    response
}

fn write(status: u16, connection: &str, extra: &str, body: &str) -> Vec<u8> {
    let mut out = String::with_capacity(256 + body.len());
    // Writing to a string cannot fail.
    let _ = write!(
        out,
        "HTTP/1.1 {status} {}\r\nConnection: {connection}\r\n{extra}Content-Type: text/plain; \
         charset=utf-8\r\nContent-Length: {}\r\n\r\n{body}",
        reason(status),
        body.len(),
    );
    out.into_bytes()
}

fn reason(status: u16) -> &'static str {
    match status {
        400 => "Bad Request",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        408 => "Request Timeout",
        413 => "Content Too Large",
        414 => "URI Too Long",
        417 => "Expectation Failed",
        426 => "Upgrade Required",
        431 => "Request Header Fields Too Large",
        501 => "Not Implemented",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        505 => "HTTP Version Not Supported",
        508 => "Loop Detected",
        _ => "Refused",
    }
}

/// What a rule's short name means, and what would be right.
fn explain(rule: &'static str) -> String {
    let text = match rule {
        "bare_lf" => "a line of the head ends in LF without CR",
        "bare_cr" => "the head holds a CR without LF",
        "folded_line" => "a field line begins with white space",
        "blank_before_head" => "there is a blank line before the start line",
        "control_character" => "the head holds a control character",
        "head_too_large" => "the head is larger than limits.head_bytes",
        "line_too_long" => "a line of the head is longer than limits.line_bytes",
        "target_too_long" => "the request line is longer than limits.line_bytes",
        "too_many_fields" => "the head has more fields than limits.fields",
        "no_host" => "there is no Host field",
        "two_hosts" => "there is more than one Host field",
        "bad_host" => "the host is no name or address with an optional port",
        "empty_host" => "the Host field is empty",
        "length_and_encoding" => "Content-Length and Transfer-Encoding exclude each other",
        "two_content_lengths" => "there is more than one Content-Length",
        "bad_content_length" => "Content-Length is no decimal number",
        "encoding_with_upgrade" => {
            "an upgrade request may have a Content-Length, no Transfer-Encoding"
        }
        "body_too_large" => "the body is larger than limits.body_bytes",
        "bad_upgrade" => "the Upgrade field holds something that is no protocol name",
        "websocket_method" => "a WebSocket handshake is a GET",
        "websocket_body" => "a WebSocket handshake has no body",
        "websocket_version" => "the WebSocket version must be 13",
        "websocket_key" => "there must be one Sec-WebSocket-Key of 16 bytes in base64",
        "connection_names_protected" => "Connection names a field that it may not take away",
        "via_loop" => "this request has been here before: its Via says so",
        "path_not_plain" => "the path holds dot segments, empty segments or encoded slashes",
        "path_hides_route" => "a server may understand the path as one that has another route",
        "bad_target" => "the request target is no path or http URI of visible ASCII",
        "bad_scheme" => "the request target has another scheme than http and https",
        "bad_connection" => "the Connection field holds something that is no field name",
        "bad_expect" => "Expect can only be 100-continue",
        "origin" => "this route takes no sessions from pages of this origin",
        "bad_subprotocol" => "Sec-WebSocket-Protocol holds something that is no token",
        "subprotocol" => "this route takes none of the WebSocket subprotocols that were offered",
        "bad_use_zero_copy" => "Upsplice-Use-Zero-Copy must be there once, and be true or false",
        "cannot_inspect" => {
            "to be inspected it would have to be WebSocket, on a route whose engine is not uring"
        }
        "switch_in_http_1_0" => "it switched protocols in HTTP/1.0",
        "switch_without_connection" => "its 101 has no Connection: Upgrade",
        "switch_without_upgrade" => "its 101 names no protocol",
        "switch_to_several" => "its 101 names several protocols that are no layers of TLS",
        "switch_with_body" => "its 101 announces a body",
        "too_many_interim" => "it sent more interim responses than are waited for",
        "http_1_0" => "HTTP/1.0 has no Upgrade: ask in HTTP/1.1",
        "http2_preface" => "this port speaks HTTP/1.1",
        "connect" => "CONNECT is not offered here",
        "switch_to_other_protocol" => "it switched to a protocol that was not offered",
        "bad_websocket_accept" => "its Sec-WebSocket-Accept is missing or wrong",
        "extension" => "Sec-WebSocket-Extensions is malformed, or agrees to what was not offered",
        "extension_parameter" => {
            "permessage-deflate has a parameter that is unknown, repeated, bad or was not offered"
        }
        "subprotocol_not_offered" => "it chose a WebSocket subprotocol that was not offered",
        other => return format!("rule `{other}`"),
    };
    format!("{text} (rule `{rule}`)")
}

#[cfg(test)]
mod tests;
