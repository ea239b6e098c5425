//! Engine `auto`: the traffic of each direction decides between copy and splice (rule R14).

mod support;

use support::stream::Pattern;
use support::{Backend, Client, Engine, Gw, Runtime, eventually};
use upsplice::metrics::{Direction, Engine as Carrier};
use upsplice::server::Move;

/// Small messages in a row that end a phase of bulk.
const SMALL: usize = 16;
const BLOCK: usize = 512 * 1024;

/// One exchange of `len` bytes, checked byte by byte.
fn echo(client: &mut Client, pattern: &mut Pattern, len: usize) {
    let message = pattern.take(len);
    let mut back = vec![0; len];
    std::thread::scope(|scope| {
        let mut writer = client.socket.try_clone().expect("a descriptor");
        let message = &message;
        scope.spawn(move || {
            std::io::Write::write_all(&mut writer, message).expect("the gateway reads");
        });
        std::io::Read::read_exact(&mut client.socket, &mut back).expect("the answer comes");
    });
    assert!(back == message, "an answer differs from its question");
}

#[test]
fn bytes_stay_in_order_while_the_engine_changes_a_thousand_times() {
    let backend = Backend::echo();
    let gw = Gw::to(&backend, Engine::Auto, Runtime::Epoll);
    let mut client = Client::upgraded(gw.address(), "/", "raw");
    let mut pattern = Pattern::new(7);
    for _ in 0..260 {
        echo(&mut client, &mut pattern, BLOCK);
        for _ in 0..SMALL {
            echo(&mut client, &mut pattern, 100);
        }
    }
    drop(client);
    let line = gw.line();
    assert_eq!(line["close_reason"], "completed", "{line}");
    assert_eq!(line["bytes_discarded"], 0, "{line}");
    assert_eq!(line["mode_reason"], "adaptive", "{line}");
    let number = |name: &str| line[name].as_u64().unwrap_or_else(|| panic!("no {name}: {line}"));
    assert!(number("engine_switches") >= 1000, "{line}");
    assert!(number("bytes_splice") > 0 && number("bytes_copy") > 0, "{line}");
    let counted: u64 = gw.metrics().engine_switches.values().sum();
    assert_eq!(counted, number("engine_switches"), "the counters say what the line says");
    gw.stop();
    backend.join();
}

#[test]
fn small_messages_never_take_a_pipe() {
    let backend = Backend::echo();
    let gw = Gw::to(&backend, Engine::Auto, Runtime::Epoll);
    let mut client = Client::upgraded(gw.address(), "/", "raw");
    let mut pattern = Pattern::new(8);
    for _ in 0..200 {
        echo(&mut client, &mut pattern, 1000);
    }
    let metrics = gw.metrics();
    assert_eq!((metrics.pipes_used, metrics.pipes_free), (0, 0));
    drop(client);
    let line = gw.line();
    assert_eq!(line["engine"], "copy", "{line}");
    assert_eq!((&line["engine_switches"], &line["bytes_splice"]), (&0.into(), &0.into()), "{line}");
    gw.stop();
    backend.join();
}

#[test]
fn a_session_that_moves_takes_its_pace_along_and_a_named_engine_ends_it() {
    let backend = Backend::echo();
    let gw = Gw::with(&backend, Engine::Auto, Runtime::Epoll, "workers = 2\nbalance = false", "");
    let mut client = Client::upgraded(gw.address(), "/", "raw");
    let mut pattern = Pattern::new(9);
    let spliced = |gw: &Gw| gw.metrics().bytes_by(Carrier::Splice, Direction::ToUpstream);
    let copied = |gw: &Gw| gw.metrics().bytes_by(Carrier::Copy, Direction::ToUpstream);
    echo(&mut client, &mut pattern, 4 * BLOCK);
    assert!(spliced(&gw) > 0, "bulk is spliced");
    let id = gw.gateway.sessions()[0].id.clone();
    let moved = |engine| {
        for worker in [1, 0] {
            eventually("the session takes the order", || {
                gw.gateway.move_session(&id, Move { worker, engine })
            });
        }
    };
    moved(None);
    let before = copied(&gw);
    echo(&mut client, &mut pattern, BLOCK);
    assert_eq!(copied(&gw), before, "bulk is spliced from the first byte on after a move");
    moved(Some(Carrier::Copy));
    let before = spliced(&gw);
    echo(&mut client, &mut pattern, BLOCK);
    assert_eq!(spliced(&gw), before, "an engine that was asked for stays");
    drop(client);
    assert_eq!(gw.line()["engine"], "copy");
    gw.stop();
    backend.join();
}
