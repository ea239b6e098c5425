//! The admin API: who is heard, what is bounded, and what the process says of itself.

#[path = "support/joined.rs"]
mod joined;
mod support;

use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::os::unix::process::CommandExt;
use std::process::Command;

use joined::Joined;
use support::admin::{Api, read_reply, unix};
use support::{BOUND, Engine, Gw, Runtime, eventually};

/// A gateway that needs no backend, with these lines in `[gateway]`.
fn gw(gateway: &str) -> Gw {
    Gw::from_toml(&format!(
        "[gateway]\nworkers = 2\n{gateway}\n[[listener]]\naddress = \"127.0.0.1:0\"\n\
         [[route]]\nname = \"test\"\nto = [\"127.0.0.1:9\"]\n"
    ))
}

fn with_unix() -> (Gw, Api) {
    let (line, api) = unix();
    (gw(&line), api)
}

#[test]
fn the_socket_is_private_replaces_a_stale_one_and_is_gone_in_the_end() {
    let (line, api) = unix();
    let path = api.path();
    std::fs::create_dir_all(path.parent().expect("a folder")).expect("made");
    drop(UnixListener::bind(&path).expect("a socket file that nobody will listen on"));
    let gw = gw(&line);
    let mode = std::fs::metadata(&path).expect("it is there").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    assert_eq!(api.get("/livez")["live"], true);
    gw.stop();
    assert!(!path.exists(), "the file stays behind");
}

#[test]
fn a_socket_that_somebody_listens_on_is_not_taken() {
    let (line, api) = unix();
    let first = gw(&line);
    let text = format!(
        "[gateway]\n{line}\n[[listener]]\naddress = \"127.0.0.1:0\"\n\
         [[route]]\nname = \"test\"\nto = [\"127.0.0.1:9\"]\n"
    );
    let config = upsplice::config::from_toml(&text, "test.toml").expect("a good configuration");
    let started = upsplice::server::Gateway::start(config, upsplice::server::AccessLog::Off);
    let error = started.err().expect("it is taken").to_string();
    assert!(error.contains(&format!("cannot listen on unix:{}", api.path().display())), "{error}");
    assert_eq!(api.get("/livez")["live"], true);
    first.stop();
}

#[test]
fn another_user_is_not_heard_even_if_the_file_lets_it_in() {
    let (gw, api) = with_unix();
    let path = api.path();
    let is_root = std::fs::metadata("/proc/self").is_ok_and(|meta| {
        use std::os::unix::fs::MetadataExt;
        meta.uid() == 0
    });
    if !is_root {
        eprintln!("SKIPPED: another_user_is_not_heard: only root can be somebody else");
        return gw.stop();
    }
    for (file, mode) in [(&path, 0o666), (&path.parent().expect("a folder").into(), 0o755)] {
        std::fs::set_permissions(file, PermissionsExt::from_mode(mode)).expect("it is ours");
    }
    let folder = path.parent().and_then(|run| run.parent()).expect("a folder");
    std::fs::set_permissions(folder, PermissionsExt::from_mode(0o755)).expect("it is ours");
    let asks = "import socket, sys\ns = socket.socket(socket.AF_UNIX)\ns.settimeout(20)\n\
        s.connect(sys.argv[1])\n\
        try:\n s.sendall(b'GET /livez HTTP/1.1\\r\\nHost: a\\r\\nConnection: close\\r\\n\\r\\n')\n \
        print(s.recv(12).decode())\nexcept OSError: print('closed')\n";
    let asked_as = |user| {
        let mut python = Command::new("python3");
        python.args(["-c", asks]).arg(&path).current_dir("/").uid(user).gid(user);
        let output = python.output().expect("python3 runs");
        String::from_utf8(output.stdout).expect("UTF-8").trim().to_owned()
    };
    assert_eq!(asked_as(0), "HTTP/1.1 200");
    let stranger = asked_as(65534);
    assert!(stranger == "closed" || stranger.is_empty(), "{stranger}");
    gw.stop();
}

#[test]
fn over_tcp_only_the_token_opens_and_only_health_needs_none() {
    let secret = "0123456789abcdef";
    let file = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(file.path(), format!("{secret}\n")).expect("written");
    let gw = gw(&format!("admin = \"127.0.0.1:0\"\nadmin_token_file = {:?}", file.path()));
    let mut api = Api::of(&gw.gateway);
    for token in [None, Some("0123456789abcdeF"), Some("0123456789abcde"), Some("")] {
        api.token = token.map(str::to_owned);
        let reply = api.ask("GET", "/v1/sessions");
        reply.refused(401, "no valid token");
        assert!(reply.head.contains("www-authenticate: bearer"), "{reply:?}");
        api.ask("GET", "/no/such/place").refused(401, "no valid token");
        api.ask("DELETE", "/v1/sessions?all=true").refused(401, "no valid token");
        assert_eq!(api.get("/livez")["live"], true);
        assert_eq!(api.get("/readyz")["ready"], true);
    }
    api.token = Some(secret.to_owned());
    assert!(api.sessions("").is_empty());
    gw.stop();
}

#[test]
fn a_wrong_request_is_told_what_is_wrong() {
    let (gw, api) = with_unix();
    for (method, target, status, error) in [
        ("GET", "/", 404, "nothing here"),
        ("GET", "/v1/sessions/", 400, "not the id"),
        ("GET", "/v1/sessions/nobody", 400, "not the id"),
        ("GET", "/v1/sessions/01ARZ3NDEKTSV4RRFFQ69G5FAV", 404, "no session 01ARZ3"),
        ("DELETE", "/v1/sessions/01ARZ3NDEKTSV4RRFFQ69G5FAV", 404, "no session 01ARZ3"),
        ("DELETE", "/v1/sessions", 400, "which sessions?"),
        ("DELETE", "/v1/sessions?all=yes", 400, "which sessions?"),
        ("DELETE", "/v1/sessions?all=&min_age=0", 400, "all is wrong"),
        ("DELETE", "/v1/sessions?route=test&rate=0", 400, "rate is wrong"),
        ("DELETE", "/v1/sessions?route=test&jitter=2h", 400, "jitter is wrong"),
        ("POST", "/v1/sessions", 405, "method not allowed"),
        ("DELETE", "/metrics", 405, "method not allowed"),
        ("GET", "/v1/sessions?limit=0", 400, "limit is wrong"),
        ("GET", "/v1/sessions?limit=1001", 400, "limit is wrong"),
        ("GET", "/v1/sessions?cursor=next", 400, "cursor is wrong"),
        ("GET", "/v1/sessions?color=red", 400, "unknown parameter"),
        ("GET", "/v1/sessions?limit=1&limit=2", 400, "limit is there twice"),
        ("GET", "/v1/sessions?route=nowhere", 404, "no route \"nowhere\""),
        ("GET", "/v1/sessions?client=home", 400, "client is wrong"),
        ("GET", "/v1/sessions?mode=fast", 400, "mode is wrong"),
        ("GET", "/v1/sessions?engine=auto", 400, "engine is wrong"),
        ("GET", "/v1/sessions?min_age=old", 400, "min_age is wrong"),
        ("GET", "/v1/sessions?min_bytes=many", 400, "min_bytes is wrong"),
        ("GET", "/metrics?name=x", 400, "unknown parameter"),
    ] {
        let reply = api.ask(method, target);
        reply.refused(status, error);
        let allows = reply.head.contains("\r\nallow: get, head");
        assert_eq!(allows, status == 405, "{target}: {reply:?}");
    }
    gw.stop();
}

#[test]
fn a_head_too_large_and_what_is_no_http_are_refused() {
    let (gw, api) = with_unix();
    let field = format!("X: {}\r\n", "x".repeat(20_000));
    let reply = api.send(&format!("GET /livez HTTP/1.1\r\nHost: a\r\n{field}\r\n"));
    assert_eq!(reply.status, 431, "{reply:?}");
    let fields = "X: y\r\n".repeat(100);
    let reply = api.send(&format!("GET /livez HTTP/1.1\r\nHost: a\r\n{fields}\r\n"));
    assert_eq!(reply.status, 431, "{reply:?}");
    assert_eq!(api.send("what\r\n\r\n").status, 400);
    assert_eq!(api.get("/livez")["live"], true);
    gw.stop();
}

#[test]
fn one_connection_too_many_is_told_so_and_the_next_after_an_end_is_served() {
    let (gw, api) = with_unix();
    let mut open: Vec<_> = (0..64).map(|_| api.connect()).collect();
    // Served once, each holds its place.
    for wire in &mut open {
        wire.write_all(b"GET /livez HTTP/1.1\r\nHost: a\r\n\r\n").expect("sent");
        wire.read_exact(&mut [0; 12]).expect("an answer");
    }
    api.ask("GET", "/livez").refused(503, "too many connections");
    open.pop();
    eventually("there is a place", || api.ask("GET", "/livez").status == 200);
    gw.stop();
}

#[test]
fn who_sends_no_whole_head_or_takes_no_answer_is_left_in_time() {
    let (gw, api) = with_unix();
    let mut silent = api.connect();
    let mut slow = api.connect();
    slow.write_all(b"GET /livez HTTP/1.1\r\nHost:").expect("sent");
    let deaf = UnixStream::connect(api.path()).expect("it accepts");
    deaf.set_write_timeout(Some(BOUND)).expect("a bound");
    let writing = std::thread::spawn(move || {
        let mut deaf = deaf;
        // Its answers are never read, so at some point nobody reads these any more, then the end comes.
        loop {
            if let Err(error) = deaf.write_all(b"GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n") {
                return error.kind();
            }
        }
    });
    let closed = |wire: &mut dyn Read| match wire.read_to_end(&mut Vec::new()) {
        Ok(_) => true,
        Err(error) => error.kind() == ErrorKind::ConnectionReset,
    };
    assert!(closed(&mut silent) && closed(&mut slow), "they are still waited for");
    let kind = writing.join().expect("no panic");
    assert!(matches!(kind, ErrorKind::BrokenPipe | ErrorKind::ConnectionReset), "{kind:?}");
    assert_eq!(api.get("/livez")["live"], true);
    gw.stop();
}

#[test]
fn a_connection_serves_one_request_after_the_other() {
    let (gw, api) = with_unix();
    let mut wire = api.connect();
    let first = "GET /livez HTTP/1.1\r\nHost: a\r\n\r\n";
    wire.write_all(first.as_bytes()).expect("sent");
    wire.write_all(api.head("HEAD", "/metrics").as_bytes()).expect("sent");
    let both = read_reply(&mut wire);
    assert_eq!((both.status, both.body.matches("HTTP/1.1 200").count()), (200, 1), "{both:?}");
    assert!(both.body.ends_with("\r\n\r\n"), "a HEAD has no body: {both:?}");
    gw.stop();
}

#[test]
fn a_gateway_that_drains_is_not_ready_and_says_why_until_its_last_session_ends() {
    let (line, api) = unix();
    let joined = Joined::with(Engine::Splice, Runtime::Epoll, &line);
    assert_eq!(api.get("/readyz")["ready"], true);
    joined.gw.gateway.drain();
    let reply = api.ask("GET", "/readyz");
    assert_eq!(reply.status, 503, "{reply:?}");
    let reasons = reply.json()["reasons"].clone();
    assert_eq!(reasons[0], "the gateway drains: it accepts nothing new", "{reasons}");
    assert!(api.ask("GET", "/metrics").body.contains("\nupsplice_drain_active 1\n"));
    assert_eq!(api.get("/livez")["live"], true);
    assert_eq!(api.sessions("").len(), 1);
    joined.ended();
}
