//! The table: one row per protocol, made of what makes it special.

/// Who says the first byte of the tunnel.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum First {
    Client,
    Server,
    /// The server, in the same write as its 101.
    ServerGlued,
    /// The client, in the same write as its request: it did not wait for the 101.
    ClientGlued,
}

/// Who ends first, and what the other does then.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Ends {
    /// The client says that it is done; the server goes on for a while (stdin of `docker exec`).
    ClientThenMore,
    /// The server ends first, the client follows.
    ServerFirst,
    /// The client ends, the server follows with nothing more.
    ClientFirst,
}

/// One protocol.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    pub name: &'static str,
    /// Method and path.
    pub start: &'static str,
    /// The value of `Host`.
    pub host: &'static str,
    /// The value of `Connection`; empty: no such field.
    pub connection: &'static str,
    /// The value of `Upgrade`.
    pub offer: &'static str,
    /// Further field lines of the request.
    pub fields: &'static [&'static str],
    /// Lines that must not reach the server, by their beginning in lower case.
    pub stripped: &'static [&'static str],
    pub body: &'static str,
    /// The status line of the 101 behind the version.
    pub status: &'static str,
    /// The value of `Upgrade` in the 101.
    pub granted: &'static str,
    /// Further field lines of the 101.
    pub granted_fields: &'static [&'static str],
    pub first: First,
    pub ends: Ends,
    /// Further lines of the route.
    pub route: &'static str,
}

const ROW: Row = Row {
    name: "",
    start: "GET /",
    host: "gateway.test",
    connection: "Upgrade",
    offer: "",
    fields: &[],
    stripped: &[],
    body: "",
    status: "101 Switching Protocols",
    granted: "",
    granted_fields: &[],
    first: First::Client,
    ends: Ends::ClientFirst,
    route: "",
};

pub const WEBSOCKET: Row = Row {
    name: "websocket",
    offer: "websocket",
    fields: &["Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="],
    granted: "websocket",
    granted_fields: &["Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo="],
    first: First::ServerGlued,
    ends: Ends::ServerFirst,
    ..ROW
};

pub const ROWS: &[Row] = &[
    WEBSOCKET,
    Row {
        name: "kubernetes over websocket",
        start: "GET /api/v1/namespaces/n/pods/p/exec?command=sh",
        fields: &[
            "Sec-WebSocket-Version: 13",
            "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
            "Sec-WebSocket-Protocol: v5.channel.k8s.io, v4.channel.k8s.io",
            "Authorization: Bearer x",
        ],
        granted_fields: &[
            "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=",
            "Sec-WebSocket-Protocol: v5.channel.k8s.io",
        ],
        ..WEBSOCKET
    },
    Row {
        name: "mqtt over websocket",
        start: "GET /mqtt",
        fields: &[
            "Sec-WebSocket-Version: 13",
            "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
            "Sec-WebSocket-Protocol: mqtt",
            "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits",
        ],
        granted_fields: &[
            "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=",
            "Sec-WebSocket-Protocol: mqtt",
            "Sec-WebSocket-Extensions: permessage-deflate",
        ],
        first: First::Client,
        ..WEBSOCKET
    },
    Row {
        name: "v2ray: websocket without a key",
        start: "GET /ray",
        offer: "websocket",
        granted: "websocket",
        ends: Ends::ClientThenMore,
        route: "websocket_strict = false",
        ..ROW
    },
    Row {
        name: "h2c",
        connection: "Upgrade, HTTP2-Settings",
        offer: "h2c",
        fields: &["HTTP2-Settings: AAMAAABkAAQAoAAAAAIAAAAA"],
        granted: "h2c",
        first: First::ServerGlued,
        ends: Ends::ServerFirst,
        route: "protocols = [\"h2c\"]",
        ..ROW
    },
    Row {
        name: "buildkit session: h2c with the roles reversed",
        start: "POST /session",
        host: "docker",
        offer: "h2c",
        fields: &[
            "X-Docker-Expose-Session-Grpc-Method: /b",
            "X-Docker-Expose-Session-Grpc-Method: /a",
            "X-Docker-Expose-Session-Uuid: u",
        ],
        granted: "h2c",
        first: First::Server,
        route: "protocols = [\"h2c\", \"tcp\"]",
        ..ROW
    },
    Row {
        name: "SPDY/3.1",
        start: "POST /api/v1/namespaces/n/pods/p/exec?command=sh",
        offer: "SPDY/3.1",
        fields: &[
            "Content-Length: 0",
            "X-Stream-Protocol-Version: v4.channel.k8s.io",
            "X-Stream-Protocol-Version: v3.channel.k8s.io",
        ],
        granted: "SPDY/3.1",
        granted_fields: &["X-Stream-Protocol-Version: v4.channel.k8s.io"],
        first: First::ClientGlued,
        ends: Ends::ServerFirst,
        ..ROW
    },
    Row {
        name: "docker attach over a Unix socket: an empty Host",
        start: "POST /v1.47/containers/c/attach?stdin=1&stream=1",
        host: "",
        offer: "tcp",
        status: "101 UPGRADED",
        granted: "tcp",
        granted_fields: &["Content-Type: application/vnd.docker.raw-stream"],
        first: First::Server,
        ends: Ends::ClientThenMore,
        route: "empty_host = true",
        ..ROW
    },
    Row {
        name: "docker exec: a body first",
        start: "POST /v1.47/exec/e/start",
        host: "docker",
        offer: "tcp",
        fields: &["Content-Type: application/json", "Content-Length: 27"],
        body: "{\"Detach\":false,\"Tty\":true}",
        status: "101 UPGRADED",
        granted: "tcp",
        granted_fields: &["Content-Type: application/vnd.docker.multiplexed-stream"],
        first: First::ServerGlued,
        ends: Ends::ClientThenMore,
        ..ROW
    },
    Row {
        name: "TLS: two layers, and an empty body in the 101",
        start: "OPTIONS *",
        offer: "TLS/1.2,TLS/1.1,TLS/1.0",
        granted: "TLS/1.2, HTTP/1.1",
        granted_fields: &["Content-Length: 0"],
        route: "protocols = [\"TLS/1.2\", \"TLS/1.1\", \"TLS/1.0\"]",
        ..ROW
    },
    Row {
        name: "connect-udp",
        start: "GET /.well-known/masque/udp/192.0.2.6/443/",
        offer: "connect-udp",
        fields: &["Capsule-Protocol: ?1"],
        granted: "connect-udp",
        granted_fields: &["Capsule-Protocol: ?1"],
        ..ROW
    },
    Row {
        name: "connect-ip",
        start: "GET /.well-known/masque/ip/*/*/",
        offer: "connect-ip",
        fields: &["Capsule-Protocol: ?1"],
        granted: "connect-ip",
        granted_fields: &["Capsule-Protocol: ?1"],
        first: First::ServerGlued,
        ..ROW
    },
    Row {
        name: "connect-tcp",
        start: "GET /proxy?target_host=192.0.2.1&target_port=443",
        offer: "connect-tcp",
        fields: &["Capsule-Protocol: ?1"],
        granted: "connect-tcp",
        ends: Ends::ClientThenMore,
        ..ROW
    },
    Row {
        name: "DERP: asks for no 101, which is not passed on",
        start: "GET /derp",
        offer: "DERP",
        fields: &["Derp-Fast-Start: 1"],
        stripped: &["derp-fast-start"],
        granted: "DERP",
        granted_fields: &["Derp-Version: 2", "Derp-Public-Key: 00"],
        first: First::ServerGlued,
        ..ROW
    },
    Row {
        name: "tailscale control: corked with the 101",
        start: "POST /ts2021",
        offer: "tailscale-control-protocol",
        fields: &["X-Tailscale-Handshake: AAAA", "Content-Length: 0"],
        connection: "upgrade",
        granted: "tailscale-control-protocol",
        first: First::ServerGlued,
        ..ROW
    },
    Row {
        name: "reverse HTTP",
        start: "POST /reverse",
        offer: "PTTH/1.0",
        fields: &["Content-Length: 0", "X-Apple-Purpose: event"],
        granted: "PTTH/1.0",
        granted_fields: &["CSeq: 1", "Server: AirTunes/220.68"],
        first: First::Server,
        ends: Ends::ServerFirst,
        ..ROW
    },
    Row {
        name: "dqlite of old: no Connection field",
        start: "POST /dqlite",
        connection: "",
        offer: "dqlite",
        fields: &["X-Dqlite-Version: 1"],
        granted: "dqlite",
        route: "lenient_connection = true",
        ..ROW
    },
    Row { name: "sftp", start: "GET /1.0/instances/i/sftp", offer: "sftp", granted: "sftp", ..ROW },
    Row {
        name: "alpn: several tokens, one of them websocket without a key",
        start: "GET /webapi/connectionupgrade",
        offer: "alpn, alpn-ping, websocket",
        fields: &["X-Teleport-Upgrade: alpn"],
        granted: "alpn-ping",
        ..ROW
    },
    Row {
        name: "IRC/6.9: the server greets",
        offer: "HTTP/3.0, IRC/6.9, RTA/x11",
        granted: "IRC/6.9",
        first: First::ServerGlued,
        ends: Ends::ServerFirst,
        ..ROW
    },
    Row {
        name: "something unknown",
        start: "PATCH /a/b?c",
        offer: "foo/1",
        connection: "keep-alive, X-Hop, Upgrade",
        fields: &["X-Hop: 1", "Keep-Alive: 5"],
        stripped: &["x-hop", "keep-alive"],
        granted: "FOO/1",
        granted_fields: &["X-Anything: \u{e9}"],
        ..ROW
    },
];
