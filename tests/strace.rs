//! Payload never lands in user memory: the system calls of a worker, as strace(1) sees them (rule R24).

mod support;

use std::collections::BTreeMap;
use std::process::{Command, Stdio};

use serde_json::json;
use support::process::{command, config_to};
use support::{Backend, Client, Program, pump};

/// Bytes each way.
const LEN: usize = if cfg!(debug_assertions) { 32 << 20 } else { 100 << 20 };

/// Calls that move bytes between a descriptor and user memory.
const COPYING: [&str; 15] = [
    "read", "readv", "pread64", "preadv", "recvfrom", "recvmsg", "recvmmsg", "write", "writev",
    "pwrite64", "pwritev", "sendto", "sendmsg", "sendmmsg", "vmsplice",
];

/// One call: its name, its arguments as strace prints them, and what it returned.
#[derive(Debug)]
struct Call {
    name: String,
    arguments: String,
    returned: i64,
}

impl Call {
    /// `[pid 17] splice(11<socket:[5]>, NULL, 14<pipe:[6]>, NULL, 1048576, SPLICE_F_MOVE) = 65536`
    fn parse(line: &str) -> Option<Call> {
        let (before, returned) = line.rsplit_once(" = ")?;
        let (name, arguments) = before.split_once('(')?;
        let name = name.rsplit(' ').next()?;
        let returned = returned.split(' ').next()?.parse().ok()?;
        Some(Call { name: name.to_owned(), arguments: arguments.to_owned(), returned })
    }

    /// The kind of descriptor in this place: `TCP`, `pipe`, …
    fn kind(&self, argument: usize) -> &str {
        let text = self.arguments.split(", ").nth(argument).unwrap_or_default();
        let (_, of) = text.split_once('<').unwrap_or_default();
        of.split([':', '[', '>']).next().unwrap_or_default()
    }

    fn length(&self) -> i64 {
        let text = self.arguments.split(", ").nth(4).unwrap_or_default();
        text.parse().unwrap_or_else(|_| panic!("no length: {self:?}"))
    }
}

fn strace_is_missing(test: &str) -> bool {
    let there = Command::new("strace")
        .args(["-qq", "-o", "/dev/null", "true"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success());
    if !there {
        eprintln!("SKIPPED: strace: {test}: not installed, or not allowed to trace here");
    }
    !there
}

/// The calls of a program that carried `LEN` bytes each way, in their order.
fn calls_of(runtime: &str) -> Vec<Call> {
    let backend = Backend::upgrading(|peer| pump(&peer.socket, 2, 1, LEN, true));
    let gateway = format!("runtime = \"{runtime}\"\naccess_log = true\n");
    let config = config_to(backend.address, &gateway, "engine = \"splice\"");
    let (program, folder) = command(&config);
    let trace = folder.path().join("trace");
    let mut strace = Command::new("strace");
    // Descriptors with what they are (-yy), no signals, and every call that can carry bytes, splice too.
    strace.args(["-f", "-qq", "-yy", "-s", "64", "-e", "signal=none", "-o"]).arg(&trace);
    strace.arg("-e").arg(format!("trace=splice,tee,sendfile,io_uring_enter,{}", COPYING.join(",")));
    strace.arg(program.get_program()).args(program.get_args());
    let mut program = Program::from_command(&mut strace, 1, folder);
    let client = Client::upgraded(program.address(), "/", "raw");
    pump(&client.socket, 1, 2, LEN, false);
    drop(client);
    let line = program.session_line();
    let told = ["engine", "bytes_splice", "bytes_copy"].map(|name| line[name].clone());
    assert_eq!(told, [json!("splice"), json!(2 * LEN), json!(0)], "{line}");
    // strace passes no signal on, but ends with the program that it runs.
    let children = format!("/proc/{0}/task/{0}/children", program.id());
    let child = std::fs::read_to_string(children).expect("strace has a child");
    let kill = format!("kill -TERM {}", child.trim());
    assert!(Command::new("sh").arg("-c").arg(kill).status().is_ok_and(|status| status.success()));
    assert_eq!(program.exit_code(), Some(0));
    backend.join();
    let text = std::fs::read_to_string(&trace).expect("strace wrote its file");
    whole_lines(&text).iter().filter_map(|line| Call::parse(line)).collect()
}

/// Puts together what strace cut in two because another thread came between.
fn whole_lines(text: &str) -> Vec<String> {
    let mut begun: BTreeMap<&str, &str> = BTreeMap::new();
    let mut lines = Vec::new();
    for line in text.lines() {
        let (pid, rest) = line.split_once(' ').unwrap_or(("", line));
        if let Some(beginning) = rest.strip_suffix(" <unfinished ...>") {
            begun.insert(pid, beginning);
        } else if let Some((_, end)) = rest.split_once(" resumed>") {
            lines.push(format!("{}{end}", begun.remove(pid).unwrap_or_default()));
        } else {
            lines.push(rest.to_owned());
        }
    }
    lines
}

#[test]
fn after_the_101_no_call_moves_payload_through_user_memory() {
    let name = "after_the_101_no_call_moves_payload_through_user_memory";
    if strace_is_missing(name) {
        return;
    }
    for runtime in ["epoll", "auto"] {
        let calls = calls_of(runtime);
        let sent_101 = calls
            .iter()
            .position(|call| call.name == "sendto" && call.arguments.contains("HTTP/1.1 101 "))
            .expect("the 101 was sent");
        let after = &calls[sent_101 + 1..];
        // No byte of either connection is read or written by a call that copies.
        let copies: Vec<&Call> = after
            .iter()
            .filter(|call| COPYING.contains(&&*call.name) && call.returned > 0)
            .filter(|call| call.kind(0).starts_with("TCP") || call.kind(0) == "pipe")
            // The log line goes to stdout, and diagnostics to stderr, which are pipes of the test.
            .filter(|call| !call.arguments.starts_with("1<") && !call.arguments.starts_with("2<"))
            .collect();
        assert!(copies.is_empty(), "{runtime}: {copies:?}");
        expect_sound_splices(after);
    }
}

/// Lengths, flags and sums of the splices of one session.
fn expect_sound_splices(calls: &[Call]) {
    let mut in_pipe: BTreeMap<String, i64> = BTreeMap::new();
    let (mut filled, mut drained) = (0, 0);
    for call in calls.iter().filter(|call| call.name == "splice") {
        assert!(!call.arguments.contains("SPLICE_F_MORE"), "{call:?}");
        assert!(call.arguments.contains("SPLICE_F_NONBLOCK"), "{call:?}");
        assert!(call.length() <= 1 << 30, "{call:?}");
        let moved = call.returned.max(0);
        let pipe_at = if call.kind(0) == "pipe" { 0 } else { 2 };
        let pipe = call.arguments.split(", ").nth(pipe_at).unwrap_or_default();
        let pipe = pipe.split_once('<').unwrap_or_default().1.to_owned();
        let held = in_pipe.entry(pipe).or_default();
        if pipe_at == 2 {
            assert!(call.kind(0).starts_with("TCP"), "{call:?}");
            assert_eq!(*held, 0, "a fill of a pipe that held bytes: {call:?}");
            *held += moved;
            filled += moved;
        } else {
            assert!(call.kind(2).starts_with("TCP"), "{call:?}");
            assert_eq!(call.length(), *held, "a drain asks for exactly what is there: {call:?}");
            *held -= moved;
            drained += moved;
        }
    }
    assert_eq!((filled, drained), (2 * LEN as i64, 2 * LEN as i64));
    assert!(in_pipe.values().all(|&held| held == 0), "{in_pipe:?}");
}

#[test]
fn a_line_of_strace_is_read_as_it_is_meant() {
    let line = "splice(11<TCP:[127.0.0.1:1->127.0.0.1:2]>, NULL, 14<pipe:[6]>, NULL, 1048576, \
                SPLICE_F_MOVE|SPLICE_F_NONBLOCK) = 65536";
    let call = Call::parse(line).expect("a call");
    assert_eq!((&*call.name, call.returned, call.length()), ("splice", 65536, 1048576));
    assert_eq!((call.kind(0), call.kind(2)), ("TCP", "pipe"));
    let refused =
        "recvfrom(9<TCP:[1]>, 0x7f, 4096, MSG_DONTWAIT, NULL, NULL) = -1 EAGAIN (Resource)";
    assert_eq!(Call::parse(refused).expect("a call").returned, -1);
    let cut = "7 splice(3<pipe:[1]>,  <unfinished ...>\n8 read(4, \"\", 1) = 0\n7 <... splice resumed>NULL, 4) = 5";
    assert_eq!(whole_lines(cut), ["read(4, \"\", 1) = 0", "splice(3<pipe:[1]>, NULL, 4) = 5"]);
}
