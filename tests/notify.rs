//! What a service manager is told, by a program that runs under one.

#[path = "support/manager.rs"]
mod manager;
mod support;

use std::net::TcpStream;

use manager::{Held, Manager};
use support::process::{command, config_to};
use support::{Backend, Client, Program, eventually};

/// The program under this manager.
fn under(manager: &Manager, config: &str, watchdog_usec: Option<u64>) -> Program {
    let (mut command, folder) = command(config);
    command.env("NOTIFY_SOCKET", &manager.address);
    match watchdog_usec {
        Some(usec) => command.env("WATCHDOG_USEC", usec.to_string()),
        None => command.env_remove("WATCHDOG_USEC"),
    };
    command.env_remove("WATCHDOG_PID");
    Program::from_command(&mut command, config.matches("[[listener]]").count(), folder)
}

fn lines(message: &str) -> Vec<&str> {
    message.lines().collect()
}

#[test]
fn ready_is_the_first_message_and_listeners_accept_by_then() {
    for manager in [Manager::new(), Manager::with_abstract_name()] {
        let backend = Backend::echo();
        let config = config_to(backend.address, "workers = 2", "");
        let second = "[[listener]]\naddress = \"127.0.0.1:0\"\n";
        let config = config.replace("[[route]]", &format!("{second}[[route]]"));
        let program = under(&manager, &config, None);
        let wanted = "STATUS=0 sessions, 0 connections, 2 workers, engine auto";
        assert_eq!(lines(&manager.message()), ["READY=1", wanted]);
        for address in &program.listening {
            TcpStream::connect(address).expect("it accepts");
        }
    }
}

#[test]
fn the_status_tells_of_sessions() {
    let manager = Manager::new();
    let backend = Backend::echo();
    // A watchdog only for its period: the status is looked at as often.
    let program = under(&manager, &config_to(backend.address, "", ""), Some(200_000));
    manager.until("READY=1");
    let client = Client::upgraded(program.address(), "/", "raw");
    manager.until("STATUS=1 session, 1 connection, 1 worker");
    drop(client);
    manager.until("STATUS=0 sessions, 0 connections, 1 worker");
    backend.join();
}

#[test]
fn a_reload_is_announced_with_its_time_and_ends_with_ready() {
    let manager = Manager::new();
    let backend = Backend::echo();
    let program = under(&manager, &config_to(backend.address, "", ""), None);
    manager.until("READY=1");
    program.signal("HUP");
    let (message, _) = manager.until("RELOADING=1");
    let time = message.strip_prefix("RELOADING=1\nMONOTONIC_USEC=").expect("both lines");
    assert!(time.parse::<u64>().is_ok_and(|time| time > 0), "{message}");
    manager.until("READY=1");
}

#[test]
fn a_stop_is_announced_and_the_watchdog_is_fed_until_the_last_session_has_ended() {
    let manager = Manager::new();
    let backend = Backend::echo();
    let config = config_to(backend.address, "drain = \"1h\"", "");
    let mut program = under(&manager, &config, Some(100_000));
    let client = Client::upgraded(program.address(), "/", "raw");
    // The 101 comes before the session has its seat.
    eventually("it is joined", || program.counters()["sessions_open"] == 1);
    program.signal("TERM");
    let (message, before) = manager.until("STOPPING=1");
    assert!(before.iter().any(|message| message.starts_with("READY=1")), "{before:?}");
    assert_eq!(
        lines(&message),
        ["STOPPING=1", "STATUS=draining: 1 session, 1 connection, 1 worker, engine auto"]
    );
    for _ in 0..3 {
        manager.until("WATCHDOG=1");
    }
    drop(client);
    assert_eq!(program.exit_code(), Some(0));
    backend.join();
}

#[test]
fn a_stalled_worker_stops_the_feed_is_named_and_starts_it_again() {
    let manager = Manager::new();
    let backend = Backend::echo();
    let config = config_to(backend.address, "workers = 3", "");
    let mut program = under(&manager, &config, Some(200_000));
    manager.until("WATCHDOG=1");
    let held = match Held::thread(program.id(), "worker-1") {
        Ok(held) => held,
        Err(error) => {
            eprintln!("SKIPPED: notify: no thread can be held up here: {error}");
            return;
        }
    };
    // The look that was under way may still have been answered.
    manager.until("STATUS=worker-1 gives no answer");
    // With the others at work: only the stalled one is waited for in vain.
    for _ in 0..8 {
        TcpStream::connect(program.address()).expect("the kernel takes it");
    }
    manager.never("WATCHDOG=1");
    drop(held);
    manager.until("WATCHDOG=1");
    manager.until("STATUS=0 sessions");
    program.signal("TERM");
    assert_eq!(program.exit_code(), Some(0));
    backend.join();
}

#[test]
fn a_manager_that_is_not_there_or_speaks_otherwise_is_no_reason_not_to_run() {
    let backend = Backend::echo();
    for address in ["/nonexistent/notify", "vsock:2:1", ""] {
        let (mut command, folder) = command(&config_to(backend.address, "", ""));
        command.env("NOTIFY_SOCKET", address);
        let mut program = Program::from_command(&mut command, 1, folder);
        eventually("it serves", || TcpStream::connect(program.address()).is_ok());
        program.signal("TERM");
        assert_eq!(program.exit_code(), Some(0));
    }
    backend.join();
}
