//! Local ports to connect from: their shortage is announced, then met with another address, then refused.

mod support;

use std::process::Command;

use support::admin;
use support::client::upgrade_head;
use support::process::config_to;
use support::{Backend, Client, Engine, Gw, Program, Runtime};

/// The little network of these tests.
const SETTINGS: [(&str, &str); 2] =
    [("ip_local_port_range", "20000 20059"), ("ip_local_reserved_ports", "20000,20059")];
/// Ports that connects may use there from each address, but for those that somebody has bound: the listeners, and for
/// a while what has been tried at the start.
const PORTS: usize = 58;

#[test]
#[ignore = "a child process of the tests below"]
fn child_with_few_ports() {
    if std::env::var_os("UPSPLICE_TEST_FEW_PORTS").is_none() {
        return;
    }
    let backend = Backend::echo();
    let (line, api) = admin::unix();
    let route = "source = [\"127.0.0.2\", \"127.0.0.3\"]";
    let program = Program::start(&config_to(backend.address, &line, route));
    let connect = |at: usize| {
        // Out of the range: a port that somebody has bound is lost to all connects.
        let from = std::net::SocketAddr::from(([127, 0, 0, 1], 40_000 + at as u16));
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None);
        let socket = socket.expect("a socket");
        socket.bind(&from.into()).expect("all of 127/8 is ours");
        socket.connect(&program.address().into()).expect("the gateway accepts");
        let socket = std::net::TcpStream::from(socket);
        support::client::bound(&socket);
        Client { socket }
    };
    let mut sessions = Vec::new();
    let (late, answer) = loop {
        assert!(sessions.len() <= 2 * PORTS, "more than there are ports");
        let mut client = connect(sessions.len());
        let answer = client.ask(upgrade_head("/", "raw", ""));
        if answer.status != 101 {
            break (client, answer);
        }
        sessions.push(client);
    };
    assert_eq!((answer.status, answer.field("retry-after")), (503, Some("1")), "{}", answer.head);
    assert!(sessions.len() > PORTS, "{} sessions: the ports of one address", sessions.len());
    program.diagnostic_with("run short");
    let page = api.ask("GET", "/metrics").body;
    let ratio = page.lines().find(|line| line.starts_with("upsplice_upstream_ports_used_ratio{"));
    let ratio = ratio.and_then(|line| line.rsplit(' ').next()?.parse::<f64>().ok());
    // The one that was refused may still be about to go.
    let expected = [0, 1].map(|more| (sessions.len() + more) as f64 / (2 * PORTS) as f64);
    assert!(ratio.is_some_and(|ratio| expected.contains(&ratio)), "{ratio:?} of {expected:?}");
    drop(late);
    let line = program.line();
    assert_eq!((&line["close_reason"], &line["side"]), (&"no_local_port".into(), &"proxy".into()));
    drop(sessions);
    drop(program);
    backend.join();
}

#[test]
fn sessions_take_the_ports_of_all_addresses_and_one_more_is_told_503() {
    let test = std::env::current_exe().expect("a test binary has a path");
    let settings = SETTINGS
        .map(|(name, value)| format!("echo '{value}' > /proc/sys/net/ipv4/{name} && "))
        .concat();
    let script = format!(
        "ip link set lo up && {settings} exec \"$0\" child_with_few_ports --exact --ignored --nocapture"
    );
    let namespace = ["--user", "--map-root-user", "--net"];
    let is_allowed = Command::new("unshare")
        .args(namespace)
        .arg("true")
        .output()
        .is_ok_and(|output| output.status.success());
    if !is_allowed {
        eprintln!("SKIPPED: no network namespace to be had here");
        return;
    }
    let output = Command::new("unshare")
        .args(namespace)
        .args(["sh", "-c", &script])
        .arg(test)
        .env("UPSPLICE_TEST_FEW_PORTS", "1")
        .output()
        .expect("unshare was there");
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said);
    assert!(output.status.success() && said.contains("1 passed"), "{said}");
}

#[test]
fn an_address_that_is_not_there_is_refused_as_our_own_want() {
    let backend = Backend::echo();
    // TEST-NET-1, which no machine has.
    let route = "source = [\"192.0.2.77\", \"192.0.2.78\"]";
    let gw = Gw::with(&backend, Engine::Copy, Runtime::Epoll, "", route);
    let mut client = Client::connect(gw.address());
    let answer = client.ask(upgrade_head("/", "raw", ""));
    assert_eq!((answer.status, answer.field("retry-after")), (503, Some("1")));
    drop(client);
    assert_eq!(gw.line()["close_reason"], "no_local_port");
    assert_eq!(gw.gateway.upstreams()[0].no_ports, 2);
    gw.stop();
    backend.join();
}
