//! Inside the sandbox: everything that a gateway does goes on, everything else is refused.

#[path = "support/forbidden.rs"]
mod forbidden;
#[path = "support/seccomp.rs"]
mod seccomp;
mod support;

use std::fs;
use std::io::{ErrorKind, Write};
use std::net::{TcpListener, ToSocketAddrs};
use std::os::unix::net::{UnixListener, UnixStream};
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::rc::Rc;
use std::thread;

use seccomp::{Call, Errno, Refusal};
use support::process::{command, config_to, refusal};
use support::{Backend, Client, Engine, Program, Runtime, pump};
use upsplice::sys::probe::Probe;
use upsplice::sys::reactor::Reactor;
use upsplice::sys::ring::{Prepared, Ring, Setup};
use upsplice::sys::sandbox::{Confined, Needs, Rings, confine};

const LEN: usize = 4 << 20;

/// A field of the status of every thread of the program.
fn of_all_threads(program: &Program, field: &str) -> Vec<String> {
    let tasks = fs::read_dir(format!("/proc/{}/task", program.id())).expect("it runs");
    let status =
        tasks.flatten().filter_map(|task| fs::read_to_string(task.path().join("status")).ok());
    status.map(|status| value(&status, field)).collect()
}

fn value(status: &str, field: &str) -> String {
    let line = status.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
    line.unwrap_or_else(|| panic!("no {field}")).trim().to_owned()
}

fn filters_of_the_test() -> u32 {
    let status = fs::read_to_string("/proc/thread-self/status").expect("proc is mounted");
    value(&status, "Seccomp_filters").parse().expect("a number")
}

fn landlock_is_missing(test: &str, found: &Confined) -> bool {
    if let Err(refused) = &found.files {
        eprintln!("SKIPPED: {test}: no landlock: {refused}");
    }
    found.files.is_err()
}

/// Runs `work` in a thread that is confined to `needs`, and by it all that `work` starts.
fn inside<T: Send + 'static>(needs: Needs, work: impl FnOnce(Confined) -> T + Send + 'static) -> T {
    thread::spawn(move || work(confine(&needs))).join().expect("it does not panic")
}

contract!(sessions_go_by_the_engine_that_was_asked_for);

fn sessions_go_by_the_engine_that_was_asked_for(engine: Engine, runtime: Runtime) {
    let rings = engine == Engine::Uring || runtime == Runtime::Uring;
    if rings && Probe::run().ring_engine_works().is_err() {
        eprintln!("SKIPPED: sandbox: this kernel gives no ring");
        return;
    }
    let backend = Backend::upgrading(|peer| pump(&peer.socket, 2, 1, LEN, true));
    let gateway = format!("workers = 2\nruntime = \"{}\"", runtime.word());
    let route = format!("engine = \"{}\"", engine.word());
    // By a name, so that the name service has been used.
    let config = config_to(backend.address, &gateway, &route)
        .replace("to = [\"127.0.0.1:", "to = [\"localhost:");
    let mut program = Program::start(&config);
    for _ in 0..4 {
        let client = Client::upgraded(program.address(), "/", "raw");
        pump(&client.socket, 1, 2, LEN, false);
        engine.assert_carried(&program.session_line(), 0);
    }
    // One that refuses in silence, one that logs.
    let filters = (filters_of_the_test() + 2).to_string();
    let threads = of_all_threads(&program, "Seccomp_filters");
    assert!(threads.len() >= 3 && threads.iter().all(|found| *found == filters), "{threads:?}");
    assert!(of_all_threads(&program, "NoNewPrivs").iter().all(|found| found == "1"));
    program.signal("TERM");
    assert_eq!(program.exit_code(), Some(0));
    backend.join();
}

#[test]
fn unix_sockets_are_served_reached_and_removed_inside() {
    let folder = tempfile::tempdir().expect("a folder");
    let elsewhere = tempfile::tempdir().expect("a folder");
    let (front, back) = (folder.path().join("front.sock"), elsewhere.path().join("back.sock"));
    let listener = UnixListener::bind(&back).expect("a path");
    let config = format!(
        "[gateway]\nworkers = 1\n[[listener]]\naddress = \"unix:{}\"\n\
         [[route]]\nname = \"a\"\nprotocols = [\"any\"]\nto = [\"unix:{}\"]\n",
        front.display(),
        back.display()
    );
    let mut program = Program::start(&config);
    let mut client = UnixStream::connect(&front).expect("it listens");
    client.write_all(support::client::upgrade_head("/", "raw", "").as_bytes()).expect("it is read");
    listener.accept().expect("the gateway comes, inside or not");
    program.signal("TERM");
    assert_eq!(program.line()["backend"], format!("unix:{}", back.display()));
    assert_eq!(program.exit_code(), Some(0));
    assert!(!front.exists(), "its own socket file is removed");
}

#[test]
fn what_a_gateway_never_does_is_not_there_inside() {
    let outside = thread::spawn(forbidden::existing).join().expect("it does not panic");
    let (found, program, socket) = inside(Needs::default(), |confined| {
        assert!(confined.calls.is_ok(), "{confined:?}");
        let program = Command::new("true").status().map(|status| status.success());
        // Not even in its own place, without a new process. (If it is there, this test ends here, with 1.)
        let exec = Command::new("false").exec();
        assert_eq!(exec.raw_os_error(), Some(ENOSYS), "{exec}");
        (forbidden::existing(), program, TcpListener::bind("127.0.0.1:0"))
    });
    assert_eq!(found, [""; 0], "they exist inside");
    assert!(program.is_err(), "{program:?}");
    assert!(socket.is_ok(), "what is allowed still works: {socket:?}");
    // Else this test would show nothing: elsewhere most of them are there.
    assert!(outside.len() > 20, "{outside:?}");
}

const ENOSYS: i32 = 38;

#[test]
fn rings_are_there_inside_for_those_who_need_them() {
    if Probe::run().uring_works().is_err() {
        eprintln!("SKIPPED: sandbox: this kernel gives no ring");
        return;
    }
    let of =
        |rings| inside(Needs { rings, ..Needs::default() }, |_| Probe::run().uring_works().is_ok());
    assert_eq!([Rings::Any, Rings::Made, Rings::None].map(of), [true, false, false]);
}

#[test]
fn a_ring_that_was_made_before_works_inside_and_only_where_it_is_needed() {
    let Ok(made) = Prepared::new() else {
        eprintln!("SKIPPED: sandbox: this kernel gives no ring");
        return;
    };
    let setup = Setup { buffers: 4, buffer_bytes: 16, receive_bytes_max: 64 };
    let begin = move |made, rings| {
        inside(Needs { rings, ..Needs::default() }, move |_| {
            let reactor = Rc::new(Reactor::new().expect("descriptors"));
            // It receives one byte, to find out what this kernel knows.
            Ring::begin(made, setup, &reactor).map(drop)
        })
    };
    begin(made, Rings::Made).expect("it works");
    let refused = begin(Prepared::new().expect("one more"), Rings::None);
    assert_eq!(refused.expect_err("no call enters it").raw_os_error(), Some(ENOSYS));
}

#[test]
fn files_outside_of_what_is_needed_cannot_be_opened_nor_made() {
    let (needed, other) =
        (tempfile::tempdir().expect("a folder"), tempfile::tempdir().expect("one"));
    for folder in [&needed, &other] {
        fs::write(folder.path().join("file"), "text").expect("written");
    }
    let needs = Needs {
        read: vec![needed.path().into(), "/etc".into()],
        sockets: vec![needed.path().into()],
        ..Needs::default()
    };
    let (needed_path, other_path) = (needed.path().to_owned(), other.path().to_owned());
    inside(needs, move |confined| {
        if landlock_is_missing(
            "files_outside_of_what_is_needed_cannot_be_opened_nor_made",
            &confined,
        ) {
            return;
        }
        let denied = |result: std::io::Result<()>, what: &str| {
            assert_eq!(
                result.map_err(|error| error.kind()),
                Err(ErrorKind::PermissionDenied),
                "{what}"
            );
        };
        fs::read_to_string(needed_path.join("file")).expect("it is needed");
        denied(fs::read_to_string(other_path.join("file")).map(drop), "a file elsewhere");
        denied(fs::read_dir(&other_path).map(drop), "a folder elsewhere");
        denied(fs::read("/proc/1/environ").map(drop), "another process");
        denied(fs::write(needed_path.join("file"), "x"), "writing");
        denied(fs::write(needed_path.join("new"), "x"), "a new file");
        fs::create_dir(needed_path.join("folder")).expect_err("a new folder");
        denied(UnixListener::bind(other_path.join("sock")).map(drop), "a socket elsewhere");
        UnixListener::bind(needed_path.join("sock")).expect("a socket where they are needed");
        fs::remove_file(needed_path.join("sock")).expect("removed again");
        // Names are looked up.
        assert!(("localhost", 80).to_socket_addrs().expect("a name").count() > 0);
    });
}

#[test]
fn the_program_becomes_the_user_that_it_is_told_after_binding() {
    let who = Command::new("id").arg("-u").output().expect("id");
    if who.stdout != b"0\n" {
        eprintln!("SKIPPED: sandbox: only root can become another user");
        return;
    }
    // A port that only root may bind, on an address of this test's own.
    let own = std::process::id();
    let address =
        format!("127.{}.{}.{}:81", 1 + own % 200, (own / 200) % 250, 1 + (own / 50_000) % 200);
    let backend = Backend::echo();
    for sandbox in [true, false] {
        let gateway = format!("user = \"nobody\"\nsandbox = {sandbox}");
        let config = config_to(backend.address, &gateway, "");
        let config = config.replace("\"127.0.0.1:0\"", &format!("\"{address}\""));
        let mut program = Program::start(&config);
        let mut client = Client::upgraded(program.address(), "/", "raw");
        client.send(b"ping");
        assert_eq!(client.receive(4), b"ping");
        let numbers = |field| of_all_threads(&program, field);
        for field in ["Uid", "Gid"] {
            assert!(
                numbers(field).iter().all(|found| !found.split('\t').any(|id| id == "0")),
                "{field}"
            );
        }
        assert!(numbers("Groups").iter().all(|groups| !groups.split(' ').any(|id| id == "0")));
        for field in ["CapEff", "CapPrm", "CapAmb"] {
            assert!(numbers(field).iter().all(|found| found == "0000000000000000"), "{field}");
        }
        drop(client);
        program.signal("TERM");
        assert_eq!(program.exit_code(), Some(0));
    }
    backend.join();
}

#[test]
fn root_keeps_only_the_capabilities_that_a_gateway_uses() {
    let backend = Backend::echo();
    let program = Program::start(&config_to(backend.address, "", ""));
    let kept = 1 << 10 | 1 << 24;
    for set in of_all_threads(&program, "CapPrm") {
        let set = u64::from_str_radix(&set, 16).expect("a set");
        assert_eq!(set & !kept, 0, "{set:x}");
    }
    backend.join();
}

#[test]
fn without_the_sandbox_nothing_is_given_up() {
    let backend = Backend::echo();
    let (mut command, folder) = command(&config_to(backend.address, "", ""));
    let program = Program::from_command(command.arg("--no-sandbox"), 1, folder);
    let filters = filters_of_the_test().to_string();
    assert!(of_all_threads(&program, "Seccomp_filters").iter().all(|found| *found == filters));
    backend.join();
}

#[test]
fn what_the_kernel_refuses_of_the_sandbox_is_said_in_one_line_and_done_without() {
    let backend = Backend::echo();
    let calls = [Call::Seccomp, Call::LandlockCreateRuleset, Call::Capset];
    for errno in [Errno::Enosys, Errno::Eperm] {
        let (mut command, folder) = command(&config_to(backend.address, "", ""));
        let refused = Refusal::of(&calls, errno);
        let mut program = Program::from_command(refused.confine(&mut command), 0, folder);
        let said = program.diagnostic_with("does without");
        for part in ["filter of system calls", "rules for files", "capabilities", "seccomp: "] {
            assert!(said.contains(part), "{said}");
        }
        let listens = program.diagnostic_with("listening on ");
        program.listening.push(listens.rsplit(' ').next().expect("a word").to_owned());
        let mut client = Client::upgraded(program.address(), "/", "raw");
        client.send(b"ping");
        assert_eq!(client.receive(4), b"ping");
        drop(client);
        program.signal("TERM");
        assert_eq!(program.exit_code(), Some(0));
    }
    backend.join();
}

#[test]
fn a_user_that_is_not_to_be_had_keeps_the_program_from_starting() {
    let nowhere = "127.0.0.1:1".parse().expect("an address");
    let (mut command, _folder) = command(&config_to(nowhere, "user = \"no-such-user\"", ""));
    let (code, said) = refusal(&mut command);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("cannot become user") && said.contains("no-such-user"), "{said}");
}
