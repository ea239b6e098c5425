//! Heads written anew: what goes on, what is taken away, what is added (rules H4, H5, H9).

use std::io::Write;
use std::net::SocketAddr;

use super::body::Framing;
use super::head::{Field, Fields, RequestHead, ResponseHead, is_token};
use super::reject::Refusal;
use super::traceparent::{TRACEPARENT, TRACESTATE, TraceParent};
use super::upgrade::Ask;

/// What is known of the connection that a request came on.
#[derive(Clone, Copy, Debug)]
pub struct Arrival<'a> {
    /// The peer; `None` over a Unix socket.
    pub peer: Option<SocketAddr>,
    /// The port it reached.
    pub local_port: Option<u16>,
    /// Whether the peer may speak for other clients.
    pub trusted: bool,
    /// Our name in `Via`.
    pub name: &'a str,
    /// For `X-Request-ID`, unless a trusted peer brings one.
    pub request_id: &'a str,
    /// Our own place in a trace; `None` leaves what the client said as it is.
    pub trace: Option<TraceHop>,
}

/// What the upstream is told of a trace.
#[derive(Clone, Copy, Debug)]
pub struct TraceHop {
    /// Its parent.
    pub parent: TraceParent,
    /// Whether the trace is the client's, whose `tracestate` then goes on.
    pub is_continued: bool,
}

/// Hop-by-hop in either direction whatever `Connection` says (RFC 9110 §7.6.1, RFC 2616 §13.5.1).
const HOP_BY_HOP: [&str; 11] = [
    "connection",
    "upgrade",
    "keep-alive",
    "proxy-connection",
    "proxy-authorization",
    "proxy-authenticate",
    "proxy-authentication-info",
    "te",
    "trailer",
    "transfer-encoding",
    "http2-settings",
];

/// Fields that a `Connection` may not take away: they say who asks, or what (rule H4).
const PROTECTED: [&str; 12] = [
    "host",
    "content-length",
    "transfer-encoding",
    "authorization",
    "cookie",
    "origin",
    "forwarded",
    "x-real-ip",
    "x-request-id",
    "via",
    "cache-control",
    USE_ZERO_COPY,
];

/// A controller's word on the mode of the session. It is for us, so it never goes upstream, whoever sent it.
const USE_ZERO_COPY: &str = "upsplice-use-zero-copy";
/// The same, by what their names begin with.
const PROTECTED_PREFIXES: [&str; 2] = ["x-forwarded-", "sec-websocket-"];

/// Writes the head that goes upstream.
///
/// # Errors
///
/// 400 when `Connection` names a protected field, 508 when the request has been here before.
pub fn write_request(
    head: &RequestHead<'_>,
    ask: &Ask,
    arrival: &Arrival<'_>,
    out: &mut Vec<u8>,
) -> Result<(), Refusal> {
    let fields = head.fields();
    let nominated = nominated_by_request(fields)?;
    if names_us(fields, arrival.name) {
        return Err(Refusal::new(508, "via_loop"));
    }
    for part in [head.method(), " ", head.origin_form(), " HTTP/1.1\r\nHost: ", head.host()] {
        out.extend_from_slice(part.as_bytes());
    }
    out.extend_from_slice(b"\r\n");
    for field in fields.iter() {
        let kept = !HOP_BY_HOP.iter().any(|name| field.is(name))
            && !nominated.iter().any(|name| field.is(name))
            && !is_replaced(field, ask)
            && !is_of_another_trace(field, arrival.trace);
        if kept {
            line(out, field.name, field.value);
        }
    }
    if let Some(length) = head.content_length() {
        line(out, "Content-Length", length.to_string().as_bytes());
    }
    for (name, value) in ask.rewritten() {
        if let Some(value) = value.filter(|value| !value.is_empty()) {
            line(out, name, value.as_bytes());
        }
    }
    write_identity(head, arrival, out);
    let mut connection: &[u8] = b"Upgrade";
    for value in fields.all("http2-settings").filter(|_| ask.offers_h2c()) {
        line(out, "HTTP2-Settings", value);
        connection = b"Upgrade, HTTP2-Settings";
    }
    line(out, "Connection", connection);
    out.extend_from_slice(b"Upgrade: ");
    for (index, token) in ask.tokens().enumerate() {
        if index > 0 {
            out.extend_from_slice(b", ");
        }
        out.extend_from_slice(token.as_bytes());
    }
    out.extend_from_slice(b"\r\n\r\n");
    Ok(())
}

/// Writes the 101 that goes downstream.
pub fn write_switch(response: &ResponseHead<'_>, ask: &Ask, protocol: &str, out: &mut Vec<u8>) {
    out.extend_from_slice(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\n");
    line(out, "Upgrade", protocol.as_bytes());
    let accept = ask.downstream_accept(protocol);
    for field in end_to_end(response) {
        let replaced =
            field.is("content-length") || accept.is_some() && field.is("sec-websocket-accept");
        if !replaced {
            line(out, field.name, field.value);
        }
    }
    if let Some(accept) = accept {
        line(out, "Sec-WebSocket-Accept", accept.as_bytes());
    }
    out.extend_from_slice(b"\r\n");
}

/// Writes the head of an answer that is no 101; the body follows with the upstream's own framing.
pub fn write_answer(response: &ResponseHead<'_>, framing: Framing, out: &mut Vec<u8>) {
    out.extend_from_slice(b"HTTP/1.1 ");
    out.extend_from_slice(response.status.to_string().as_bytes());
    out.push(b' ');
    out.extend_from_slice(response.reason.as_bytes());
    out.extend_from_slice(b"\r\n");
    // A 204 has no length (RFC 9110 §8.6): some clients would wait for the bytes it promises.
    let no_length = response.status == 204;
    for field in end_to_end(response) {
        if !(no_length && field.is("content-length")) {
            line(out, field.name, field.value);
        }
    }
    let mut connection: &[u8] = b"close";
    // `Upgrade` in a 426 says what would be welcome: it is for the client (RFC 9110 §15.5.22).
    for value in response.fields().all("upgrade").filter(|_| response.status == 426) {
        line(out, "Upgrade", value);
        connection = b"Upgrade, close";
    }
    if framing == Framing::Chunked {
        line(out, "Transfer-Encoding", b"chunked");
    }
    line(out, "Connection", connection);
    out.extend_from_slice(b"\r\n");
}

/// The fields of a response that concern the client.
fn end_to_end<'s, 'b>(response: &'s ResponseHead<'b>) -> impl Iterator<Item = &'s Field<'b>> {
    let fields = response.fields();
    fields.iter().filter(move |field| {
        !HOP_BY_HOP.iter().any(|name| field.is(name))
            && (is_protected(field.name) || !fields.lists("connection", field.name))
    })
}

/// The names in a request's `Connection`, which go no further.
fn nominated_by_request<'b>(fields: &Fields<'b>) -> Result<Vec<&'b str>, Refusal> {
    let mut names = Vec::new();
    for element in fields.list("connection") {
        let name = str::from_utf8(element).ok().filter(|name| name.bytes().all(is_token));
        let name = name.ok_or(Refusal::new(400, "bad_connection"))?;
        if is_protected(name) {
            return Err(Refusal::new(400, "connection_names_protected"));
        }
        names.push(name);
    }
    Ok(names)
}

fn is_protected(name: &str) -> bool {
    PROTECTED.iter().any(|protected| name.eq_ignore_ascii_case(protected))
        || PROTECTED_PREFIXES.iter().any(|prefix| starts_with(name, prefix))
}

/// Fields that are written anew, or that mean something only to the next hop.
fn is_replaced(field: &Field<'_>, ask: &Ask) -> bool {
    let replaced =
        ["host", "content-length", "expect", "via", "x-request-id", "forwarded", "x-real-ip"];
    // `Derp-Fast-Start` asks the server to send no 101 at all: no tunnel could be judged.
    replaced.iter().chain(&["derp-fast-start", USE_ZERO_COPY]).any(|name| field.is(name))
        || starts_with(field.name, "x-forwarded-")
        || field.name.contains('_') && is_alias(field.name)
        || ask.rewritten().iter().any(|(name, value)| value.is_some() && field.is(name))
}

/// `traceparent` is written anew by whoever takes part in a trace; without its trace `tracestate` means nothing (W3C
/// Trace Context §3.3).
fn is_of_another_trace(field: &Field<'_>, hop: Option<TraceHop>) -> bool {
    let Some(hop) = hop else { return false };
    field.is(TRACEPARENT) || field.is(TRACESTATE) && !hop.is_continued
}

/// Names that some servers take for `X-Forwarded-For`, `Content-Length` and their like: CGI makes `_` of
/// `-` (rule H5).
fn is_alias(name: &str) -> bool {
    let dashed = name.replace('_', "-");
    is_protected(&dashed) || HOP_BY_HOP.iter().any(|known| dashed.eq_ignore_ascii_case(known))
}

fn starts_with(name: &str, prefix: &str) -> bool {
    name.get(..prefix.len()).is_some_and(|start| start.eq_ignore_ascii_case(prefix))
}

/// Whether a `Via` names us: the request has been here before.
fn names_us(fields: &Fields<'_>, name: &str) -> bool {
    fields.list("via").any(|element| {
        let received_by =
            element.split(|byte| byte.is_ascii_whitespace()).filter(|p| !p.is_empty());
        received_by.skip(1).any(|part| part.eq_ignore_ascii_case(name.as_bytes()))
    })
}

/// `Via`, `X-Request-ID`, `Forwarded`, `X-Forwarded-*`, `X-Real-IP`: what the client said of itself counts
/// only from a trusted peer, and is then added to (rule H5).
fn write_identity(head: &RequestHead<'_>, arrival: &Arrival<'_>, out: &mut Vec<u8>) {
    let fields = head.fields();
    appended(out, "Via", fields.all("via"), &["1.1 ", arrival.name]);
    let given_id =
        fields.only("x-request-id").ok().filter(|id| arrival.trusted && is_request_id(id));
    if let Some(hop) = arrival.trace {
        line(out, TRACEPARENT, hop.parent.to_string().as_bytes());
    }
    line(out, "X-Request-ID", given_id.unwrap_or(arrival.request_id.as_bytes()));

    let earlier = |name: &'static str| fields.all(name).filter(|_| arrival.trusted);
    let address = arrival.peer.map(|peer| peer.ip().to_canonical());
    let [open, close] = match address {
        Some(address) if address.is_ipv6() => ["\"[", "]\""],
        _ => ["", ""],
    };
    let address = address.map_or_else(|| "unknown".to_owned(), |address| address.to_string());
    let element = ["for=", open, &address, close, ";host=\"", head.host(), "\";proto=http"];
    appended(out, "Forwarded", earlier("forwarded"), &element);
    appended(out, "X-Forwarded-For", earlier("x-forwarded-for"), &[&address]);
    let port = arrival.local_port.map(|port| port.to_string());
    let known = [
        ("X-Forwarded-Proto", Some("http")),
        ("X-Forwarded-Host", Some(head.host())),
        ("X-Forwarded-Port", port.as_deref()),
        ("X-Real-IP", Some(&*address)),
    ];
    for (name, ours) in known {
        let theirs = fields.only(name).ok().filter(|_| arrival.trusted);
        if let Some(value) = theirs.or(ours.map(str::as_bytes)) {
            line(out, name, value);
        }
    }
    // What else a trusted peer says, e.g. X-Forwarded-Prefix.
    let is_known = |field: &Field<'_>| {
        known.iter().any(|(name, _)| field.is(name)) || field.is("x-forwarded-for")
    };
    for field in fields.iter().filter(|_| arrival.trusted) {
        if starts_with(field.name, "x-forwarded-") && !is_known(field) {
            line(out, field.name, field.value);
        }
    }
}

/// One list of what was there and what we add, which comes in parts.
fn appended<'b>(
    out: &mut Vec<u8>,
    name: &str,
    earlier: impl Iterator<Item = &'b [u8]>,
    ours: &[&str],
) {
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b": ");
    for value in earlier.filter(|value| !value.is_empty()) {
        out.extend_from_slice(value);
        out.extend_from_slice(b", ");
    }
    for part in ours {
        out.extend_from_slice(part.as_bytes());
    }
    out.extend_from_slice(b"\r\n");
}

/// What `Upsplice-Use-Zero-Copy` says; `None` without one.
///
/// # Errors
///
/// 400 when it is there more than once, or says neither `true` nor `false` (nor `1` nor `0`).
pub fn use_zero_copy(fields: &Fields<'_>) -> Result<Option<bool>, Refusal> {
    let is = |value: &[u8], words: [&str; 2]| {
        words.iter().any(|word| value.eq_ignore_ascii_case(word.as_bytes()))
    };
    match fields.only(USE_ZERO_COPY) {
        Err(0) => Ok(None),
        Ok(value) if is(value, ["true", "1"]) => Ok(Some(true)),
        Ok(value) if is(value, ["false", "0"]) => Ok(Some(false)),
        _ => Err(Refusal::new(400, "bad_use_zero_copy")),
    }
}

/// Whether a trusted peer's `X-Request-ID` is fit to be passed on and logged.
pub fn is_request_id(id: &[u8]) -> bool {
    (1..=128).contains(&id.len()) && id.iter().all(u8::is_ascii_graphic)
}

fn line(out: &mut Vec<u8>, name: &str, value: &[u8]) {
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    // Writing to a vector cannot fail.
    let _ = out.write_all(b"\r\n");
}

#[cfg(test)]
mod tests;
