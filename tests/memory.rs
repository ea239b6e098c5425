//! What an idle session costs: the memory of the program, as the kernel counts it.

mod support;

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, channel};

use support::client::upgrade_head;
use support::process::config_to;
use support::{Client, Peer, Program, Runtime, eventually};

/// Sessions whose memory is measured, after some that warm up what all of them share.
const SESSIONS: usize = 3_000;
const WARM_UP: usize = 200;
/// User memory of one idle session: the goal.
const BYTES_MAX: u64 = 1_024;

/// A backend in one thread that grants every upgrade and keeps the connection.
fn keeper() -> (SocketAddr, Receiver<TcpStream>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("bound");
    let (keep, kept) = channel();
    std::thread::spawn(move || {
        for socket in listener.incoming() {
            let mut peer = Peer { socket: socket.expect("a connection"), rest: Vec::new() };
            let Some(head) = peer.try_read_head() else { return };
            peer.grant(&head, "");
            // Nobody keeps them any more: the test is over.
            if keep.send(peer.socket).is_err() {
                return;
            }
        }
    });
    (address, kept)
}

/// Anonymous memory in bytes. What it shares with other programs is not counted: that share grows whenever one of
/// them ends.
fn anonymous(program: &Program) -> u64 {
    let path = format!("/proc/{}/smaps_rollup", program.id());
    let text = std::fs::read_to_string(path).expect("it runs");
    let line = text.lines().find(|line| line.starts_with("Pss_Anon:")).expect("a sum");
    let kilobytes = line.split_whitespace().nth(1).and_then(|kb| kb.parse::<u64>().ok());
    1024 * kilobytes.expect("a number")
}

fn an_idle_session_costs_little_memory(runtime: Runtime) {
    let descriptors = upsplice::sys::net::raise_nofile_limit().expect("the limit is known");
    if descriptors < 3 * (SESSIONS + WARM_UP) as u64 {
        eprintln!("SKIPPED: an_idle_session_costs_little_memory: only {descriptors} descriptors");
        return;
    }
    let (backend, kept) = keeper();
    let gateway = format!("runtime = \"{}\"\n", runtime.word());
    let mut program = Program::start(&config_to(backend, &gateway, "timeouts.idle = \"1h\""));
    let agent =
        "User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0\r\n";
    let head = upgrade_head("/chat?token=secret", "websocket", agent);
    let mut clients = Vec::new();
    let mut open = |count| {
        for _ in 0..count {
            let mut client = Client::connect(program.address());
            assert_eq!(client.ask(&head).status, 101);
            clients.push(client);
        }
        let all = clients.len();
        eventually("all are joined", || program.counters()["sessions_open"] == all);
        anonymous(&program)
    };
    let before = open(WARM_UP);
    let each = (open(SESSIONS) - before) / SESSIONS as u64;
    println!("an idle session costs {each} bytes on {}", runtime.word());
    assert!(each > 100, "{each} bytes: this was not measured");
    assert!(each <= BYTES_MAX, "{each} bytes per idle session");
    assert_eq!(program.counters()["pipes_used"], 0, "an idle session holds no pipe");
    drop((clients, kept));
    program.signal("TERM");
    assert_eq!(program.exit_code(), Some(0));
}

#[test]
fn an_idle_session_costs_little_memory_on_epoll() {
    an_idle_session_costs_little_memory(Runtime::Epoll);
}

#[test]
fn an_idle_session_costs_little_memory_on_uring() {
    an_idle_session_costs_little_memory(Runtime::Uring);
}
