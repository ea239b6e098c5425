//! What was asked, and what was granted: the tunnel decision (rules U3–U6, U8).

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use sha1::{Digest, Sha1};

use super::head::{RequestHead, ResponseHead, is_token};
use super::reject::Refusal;
use super::target;

/// RFC 6455 §1.3.
const WEBSOCKET_GUID: &str = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// The `Upgrade` field of a request.
#[derive(Debug, PartialEq, Eq)]
pub struct Offer<'b> {
    /// Tokens in the client's order and case; empty when nothing is offered.
    pub tokens: Vec<&'b str>,
    /// Whether `Connection` names `upgrade`, without which an `Upgrade` means nothing (RFC 9110 §7.8).
    pub connected: bool,
}

/// What a route demands of an upgrade.
#[derive(Clone, Copy, Debug)]
pub struct Policy<'r> {
    /// Check `Sec-WebSocket-*` (rules U4, U5).
    pub websocket_strict: bool,
    /// Take `Upgrade` without `Connection: upgrade`, in request and answer.
    pub lenient_connection: bool,
    /// Take an empty `Host`.
    pub empty_host: bool,
    /// The route is bound to a path: others must not hide behind it (rule H6).
    pub plain_path: bool,
    /// Largest request body.
    pub body_bytes_max: usize,
    /// Our own key to send upstream instead of the client's (rule U4).
    pub rekey: Option<[u8; 16]>,
    /// What becomes of WebSocket subprotocols.
    pub subprotocols: Subprotocols<'r>,
}

/// What becomes of WebSocket subprotocols, offered and chosen.
#[derive(Clone, Copy, Debug)]
pub enum Subprotocols<'r> {
    /// They pass unread.
    Opaque,
    /// Any may be offered, and one that was offered may be chosen.
    Any,
    /// The same, of these alone. An offer of nothing but others is refused, although a server might go on
    /// without any: an upstream would take what it gets for a client that speaks its default.
    Only(&'r [String]),
}

/// An upgrade that may be asked of the upstream.
#[derive(Debug)]
pub struct Ask {
    /// Offered upstream, in the client's order and case.
    tokens: Vec<Box<str>>,
    /// The key that the upstream must answer, when it is checked.
    key: Option<Box<str>>,
    /// The client's own key, when ours goes upstream instead.
    client_key: Option<Box<str>>,
    /// `Sec-WebSocket-Protocol` as it goes upstream, where it is judged; empty when it does not.
    subprotocols: Option<Box<str>>,
    /// `Sec-WebSocket-Extensions` likewise.
    extensions: Option<Box<str>>,
    body_len: u64,
    expects_continue: bool,
    lenient_connection: bool,
}

/// What an answer of the upstream means.
#[derive(Debug, PartialEq, Eq)]
pub enum Judgement {
    /// The 101 that was asked for, to this protocol.
    Switch {
        /// As the upstream wrote it.
        protocol: String,
    },
    /// 100, 102, 103…: the answer is still to come.
    Interim,
    /// An ordinary final response.
    Answer,
    /// The upstream broke this rule: 502, no tunnel.
    Fault(&'static str),
}

impl<'b> Offer<'b> {
    /// Reads the offer.
    ///
    /// # Errors
    ///
    /// 400 for a token that is none: controls, white space, 8-bit.
    pub fn of(head: &RequestHead<'b>) -> Result<Offer<'b>, Refusal> {
        let fields = head.fields();
        let mut tokens = Vec::new();
        for element in fields.list("upgrade") {
            let token = str::from_utf8(element).ok().filter(|token| is_protocol(token));
            tokens.push(token.ok_or(Refusal::new(400, "bad_upgrade"))?);
        }
        Ok(Offer { tokens, connected: fields.lists("connection", "upgrade") })
    }
}

impl Ask {
    /// Judges a request whose `tokens` the route allows (at least one).
    ///
    /// # Errors
    ///
    /// What the client is told: 400, 403, 405, 413, 417 or 426.
    pub fn new(
        head: &RequestHead<'_>,
        tokens: &[&str],
        policy: &Policy<'_>,
    ) -> Result<Ask, Refusal> {
        let bad = |rule| Refusal::new(400, rule);
        let fields = head.fields();
        if head.route_host().is_none() && !policy.empty_host {
            return Err(bad("empty_host"));
        }
        if policy.plain_path && !target::is_plain(head.path()) {
            return Err(bad("path_not_plain"));
        }
        if fields.all("transfer-encoding").next().is_some() {
            return Err(bad("encoding_with_upgrade"));
        }
        let body_len = head.content_length().unwrap_or(0);
        if body_len > policy.body_bytes_max as u64 {
            return Err(Refusal::new(413, "body_too_large"));
        }
        let expects_continue = match fields.only("expect") {
            Ok(value) if value.eq_ignore_ascii_case(b"100-continue") => true,
            Err(0) => false,
            _ => return Err(Refusal::new(417, "bad_expect")),
        };
        let (websockets, others): (Vec<&str>, Vec<&str>) =
            tokens.iter().partition(|token| is_websocket(token));
        let mut offered: Vec<&str> = tokens.to_vec();
        let mut key = None;
        if policy.websocket_strict && !websockets.is_empty() {
            match websocket_key(head, body_len) {
                Ok(good) => key = Some(good.to_owned()),
                // Clients that offer websocket beside their own protocol have no key to show.
                Err(_) if !others.is_empty() => offered = others,
                Err(refusal) => return Err(refusal),
            }
        }
        let mut client_key = None;
        if let Some(random) = policy.rekey
            && key.is_some()
        {
            client_key = key.replace(BASE64.encode(random));
        }
        let subprotocols = match offered.iter().any(|token| is_websocket(token)) {
            true => subprotocols(head, policy.subprotocols)?,
            false => None,
        };
        Ok(Ask {
            tokens: offered.into_iter().map(Into::into).collect(),
            key: key.map(Into::into),
            client_key: client_key.map(Into::into),
            subprotocols,
            extensions: None,
            body_len,
            expects_continue,
            lenient_connection: policy.lenient_connection,
        })
    }

    /// Tokens to offer upstream.
    pub fn tokens(&self) -> impl Iterator<Item = &str> {
        self.tokens.iter().map(AsRef::as_ref)
    }

    /// Length of the request body.
    pub fn body_len(&self) -> u64 {
        self.body_len
    }

    /// Whether the client waits for a 100 before it sends its body.
    pub fn expects_continue(&self) -> bool {
        self.expects_continue
    }

    /// Whether h2c is among the tokens: only then `HTTP2-Settings` goes along.
    pub fn offers_h2c(&self) -> bool {
        self.tokens().any(|token| token.eq_ignore_ascii_case("h2c"))
    }

    /// Sends `field` upstream in place of the client's `Sec-WebSocket-Extensions`.
    pub fn offer_extensions(&mut self, field: Option<String>) {
        self.extensions = Some(field.unwrap_or_default().into());
    }

    /// Fields of the handshake that may be written anew, and what they say then: nothing where they are empty.
    pub fn rewritten(&self) -> [(&'static str, Option<&str>); 3] {
        [
            ("Sec-WebSocket-Key", self.upstream_key()),
            ("Sec-WebSocket-Protocol", self.subprotocols.as_deref()),
            ("Sec-WebSocket-Extensions", self.extensions.as_deref()),
        ]
    }

    /// Our key to send upstream in place of the client's.
    pub fn upstream_key(&self) -> Option<&str> {
        self.client_key.as_ref().and(self.key.as_deref())
    }

    /// The `Sec-WebSocket-Accept` that the client waits for, when it is not the upstream's.
    pub fn downstream_accept(&self, protocol: &str) -> Option<String> {
        self.client_key.as_deref().filter(|_| is_websocket(protocol)).map(accept_for)
    }

    /// Says what a response means. Only a 101 of HTTP/1.1 to a protocol that was offered opens a tunnel,
    /// for websocket only with the right `Sec-WebSocket-Accept` (rules U2–U4, U8).
    pub fn judge(&self, response: &ResponseHead<'_>) -> Judgement {
        match response.status {
            101 => match self.judge_switch(response) {
                Ok(protocol) => Judgement::Switch { protocol },
                Err(rule) => Judgement::Fault(rule),
            },
            100..=199 => Judgement::Interim,
            _ => Judgement::Answer,
        }
    }

    fn judge_switch(&self, response: &ResponseHead<'_>) -> Result<String, &'static str> {
        let fields = response.fields();
        if response.minor_version != 1 {
            return Err("switch_in_http_1_0");
        }
        if !fields.lists("connection", "upgrade") && !self.lenient_connection {
            return Err("switch_without_connection");
        }
        // CUPS says `Content-Length: 0` here; anything more would be bytes of nobody knows what.
        if response.content_length().is_some_and(|len| len > 0)
            || fields.all("transfer-encoding").next().is_some()
        {
            return Err("switch_with_body");
        }
        let granted: Vec<&str> =
            fields.list("upgrade").map(|element| str::from_utf8(element).unwrap_or("")).collect();
        let Some((first, layers)) = granted.split_first() else {
            return Err("switch_without_upgrade");
        };
        let is_offered = |token: &str| self.tokens().any(|offered| grants(offered, token));
        if !is_offered(first) {
            return Err("switch_to_other_protocol");
        }
        // Several protocols are layers, lowest first; only TLS has a known one above it (RFC 2817 §3.3).
        let is_layer = |layer: &str| is_named(layer, "http") || is_offered(layer);
        let are_layers = is_named(first, "tls") && layers.iter().all(|layer| is_layer(layer));
        if !layers.is_empty() && !are_layers {
            return Err("switch_to_several");
        }
        if is_websocket(first)
            && let Some(key) = &self.key
        {
            match fields.only("sec-websocket-accept") {
                Ok(accept) if accept == accept_for(key).as_bytes() => {}
                _ => return Err("bad_websocket_accept"),
            }
        }
        if is_websocket(first)
            && let Some(offered) = &self.subprotocols
        {
            let is_offered = |chosen: &[u8]| {
                offered.split(", ").any(|one| !one.is_empty() && one.as_bytes() == chosen)
            };
            match fields.only("sec-websocket-protocol") {
                Err(0) => {}
                Ok(chosen) if is_offered(chosen) => {}
                _ => return Err("subprotocol_not_offered"),
            }
        }
        Ok(granted.join(", "))
    }
}

/// RFC 6455 §4.2.2 step 5.4.
pub fn accept_for(key: &str) -> String {
    let mut sha1 = Sha1::new();
    sha1.update(key.as_bytes());
    sha1.update(WEBSOCKET_GUID.as_bytes());
    BASE64.encode(sha1.finalize())
}

/// The key of a sound WebSocket handshake (RFC 6455 §4.2.1; rules U4, U5).
fn websocket_key<'b>(head: &RequestHead<'b>, body_len: u64) -> Result<&'b str, Refusal> {
    let fields = head.fields();
    if head.method() != "GET" {
        return Err(Refusal::new(405, "websocket_method"));
    }
    if body_len > 0 {
        return Err(Refusal::new(400, "websocket_body"));
    }
    match fields.only("sec-websocket-version") {
        Ok(b"13") => {}
        _ => return Err(Refusal::new(426, "websocket_version")),
    }
    let key = fields.only("sec-websocket-key").ok().and_then(|key| str::from_utf8(key).ok());
    key.filter(|key| BASE64.decode(key).is_ok_and(|bytes| bytes.len() == 16))
        .ok_or(Refusal::new(400, "websocket_key"))
}

/// The subprotocols to offer upstream, in the client's order; `None` where nobody looks at them.
fn subprotocols(
    head: &RequestHead<'_>,
    policy: Subprotocols<'_>,
) -> Result<Option<Box<str>>, Refusal> {
    let allowed = match policy {
        Subprotocols::Opaque => return Ok(None),
        Subprotocols::Any => None,
        Subprotocols::Only(allowed) => Some(allowed),
    };
    let mut offered = Vec::new();
    for element in head.fields().list("sec-websocket-protocol") {
        let token = str::from_utf8(element).ok().filter(|token| token.bytes().all(is_token));
        offered.push(token.ok_or(Refusal::new(400, "bad_subprotocol"))?);
    }
    let is_empty = offered.is_empty();
    if let Some(allowed) = allowed {
        offered.retain(|token| allowed.iter().any(|one| one == token));
    }
    if offered.is_empty() && !is_empty {
        return Err(Refusal::new(403, "subprotocol"));
    }
    Ok(Some(offered.join(", ").into()))
}

/// Whether `granted` is what `offered` asked for: the same name, and the same version where one was asked.
fn grants(offered: &str, granted: &str) -> bool {
    if offered.contains('/') {
        return offered.eq_ignore_ascii_case(granted);
    }
    granted.split('/').next().is_some_and(|name| name.eq_ignore_ascii_case(offered))
}

/// Whether a token names WebSocket. A version makes it no other protocol: `websocket/13` must not go past
/// the checks.
pub fn is_websocket(token: &str) -> bool {
    token.split('/').next().is_some_and(|name| name.eq_ignore_ascii_case("websocket"))
}

/// Whether `token` is a version of the protocol `name`.
fn is_named(token: &str, name: &str) -> bool {
    token.split_once('/').is_some_and(|(prefix, _)| prefix.eq_ignore_ascii_case(name))
}

/// RFC 9110 §7.8: protocol-name ["/" protocol-version], both tokens.
fn is_protocol(token: &str) -> bool {
    let mut parts = token.split('/');
    let is_part = |part: &str| !part.is_empty() && part.bytes().all(is_token);
    parts.clone().count() <= 2 && parts.all(is_part)
}

#[cfg(test)]
mod tests;
