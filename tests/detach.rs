//! Detach and resume: a session goes on in another worker, engine or relay without losing or repeating a
//! byte.

mod support;

use std::cell::Cell;
use std::net::TcpStream;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::mpsc::{Sender, channel};

use serde_json::Value;
use support::backend::wait;
use support::stream::{check_to_end, send};
use support::{Backend, Client, Engine, Gw, Peer, Runtime, eventually, pump};
use upsplice::metrics::{self, Direction};
use upsplice::server::{Move, SessionView};

/// Bytes each way: enough that two hundred moves fall into the middle of them.
const LEN: usize = if cfg!(debug_assertions) { 16 << 20 } else { 100 << 20 };
const MOVES: u64 = 200;

/// Every engine that a move can ask for; `None` keeps what there is.
const ENGINES: [Option<metrics::Engine>; 4] = [
    None,
    Some(metrics::Engine::Copy),
    Some(metrics::Engine::Uring),
    Some(metrics::Engine::Splice),
];

fn two_workers(backend: &Backend, engine: Engine, runtime: Runtime) -> Gw {
    Gw::with(backend, engine, runtime, "workers = 2\nbalance = false", "timeouts.idle = \"1h\"")
}

/// The only session, once there is one: between two workers it is in neither.
fn session(gw: &Gw) -> SessionView {
    let mut found = None;
    eventually("the session is in a worker", || {
        found = gw.gateway.sessions().pop();
        found.is_some()
    });
    found.expect("it was found")
}

/// Moves the session, and waits until that has happened.
fn shift(gw: &Gw, id: &str, to: Move) {
    let before = gw.metrics().detached;
    eventually("the session takes the order", || gw.gateway.move_session(id, to));
    eventually("the session is detached", || gw.metrics().detached > before);
}

/// Carries `LEN` bytes each way while `disturb` does what it likes to the session.
fn carried_while(gw: &Gw, disturb: impl FnOnce(&str)) -> Value {
    let client = Client::upgraded(gw.address(), "/", "raw");
    let id = session(gw).id;
    let socket = client.socket.try_clone().expect("a descriptor");
    let pumping = std::thread::spawn(move || pump(&socket, 1, 2, LEN, false));
    disturb(&id);
    pumping.join().expect("all bytes came");
    drop(client);
    gw.line()
}

fn expect_all_bytes(line: &Value) {
    let sums = ["bytes_in", "bytes_out"].map(|name| line[name].as_u64().expect("a number"));
    assert_eq!(sums, [LEN as u64; 2], "{line}");
    let engines = ["bytes_splice", "bytes_copy", "bytes_uring"]
        .map(|name| line[name].as_u64().expect("a number"));
    assert_eq!(engines.iter().sum::<u64>(), 2 * LEN as u64, "{line}");
    assert_eq!((&line["close_reason"], &line["bytes_discarded"]), (&"completed".into(), &0.into()));
}

fn expect_nothing_held(gw: &Gw) {
    let metrics = gw.metrics();
    assert_eq!((metrics.pipes_used, metrics.sessions_open, metrics.connections_open), (0, 0, 0));
}

contract!(
    two_hundred_moves_between_workers_and_engines_lose_nothing,
    a_session_that_stays_in_its_engine_is_carried_by_it_alone_wherever_it_goes,
    bytes_held_for_a_stalled_sink_move_along_in_their_order,
    a_session_that_was_half_closed_goes_on_half_closed,
    an_idle_session_moves_and_goes_on,
    a_session_that_is_moved_by_force_to_a_worker_that_is_not_there_stays,
    a_session_moved_during_the_drain_goes_on_to_its_end,
);

fn two_hundred_moves_between_workers_and_engines_lose_nothing(engine: Engine, runtime: Runtime) {
    let backend = Backend::upgrading(|peer| pump(&peer.socket, 2, 1, LEN, true));
    let gw = two_workers(&backend, engine, runtime);
    let moved = Cell::new(0);
    let line = carried_while(&gw, |id| {
        let mut random = fastrand::Rng::with_seed(7);
        // Moves are spread over the stream by its own progress; what is late finds the session ended.
        let total = 2 * LEN as u64;
        for at in 1..=MOVES {
            let due = total * at / (MOVES + 20);
            eventually("the stream gets there", || {
                let now: u64 = Direction::BOTH
                    .into_iter()
                    .flat_map(|d| metrics::Engine::ALL.map(|e| gw.metrics().bytes_by(e, d)))
                    .sum();
                now >= due
            });
            let to = Move { worker: random.usize(..2), engine: ENGINES[random.usize(..4)] };
            let before = gw.metrics().detached;
            if gw.gateway.move_session(id, to) {
                moved.set(moved.get() + 1);
                eventually("it is detached, or has ended", || {
                    gw.metrics().detached > before || gw.gateway.sessions().is_empty()
                });
            }
        }
    });
    expect_all_bytes(&line);
    assert!(moved.get() >= MOVES / 4, "only {} moves came in time", moved.get());
    // The last order may have come after the last byte.
    assert!(moved.get().abs_diff(gw.metrics().detached) <= 1);
    eventually("nothing is held", || gw.metrics().connections_open == 0);
    expect_nothing_held(&gw);
    backend.join();
    gw.stop();
}

fn a_session_that_stays_in_its_engine_is_carried_by_it_alone_wherever_it_goes(
    engine: Engine,
    runtime: Runtime,
) {
    let backend = Backend::upgrading(|peer| pump(&peer.socket, 2, 1, LEN, true));
    let gw = two_workers(&backend, engine, runtime);
    let line = carried_while(&gw, |id| {
        for at in 0..20 {
            gw.gateway.move_session(id, Move { worker: at % 2, engine: None });
            std::thread::yield_now();
        }
    });
    expect_all_bytes(&line);
    engine.assert_carried(&line, 0);
    assert!(gw.metrics().detached > 0);
    backend.join();
    gw.stop();
}

/// A backend that reads nothing until it is told, then checks everything, and then answers.
fn stalled_backend(len: usize) -> (Backend, Sender<()>) {
    let (go, told) = channel::<()>();
    let told = Arc::new(std::sync::Mutex::new(told));
    let backend = Backend::upgrading(move |mut peer: Peer| {
        wait(&told.lock().expect("one session"));
        assert_eq!(check_to_end(&mut peer.socket, 1), len);
        peer.send(b"all came");
    });
    (backend, go)
}

/// Waits until the sink takes nothing and the gateway holds bytes for it.
fn until_stalled(gw: &Gw) {
    let mut last = None;
    let mut same = 0;
    eventually("the sink is full", || {
        let carried = gw.gateway.sessions().pop().map(|session| session.carried[0]);
        let stuck = carried.is_some_and(|now| now.taken() > now.given && now.paused > 0);
        same = if stuck && carried == last { same + 1 } else { 0 };
        last = carried;
        same > 20
    });
}

fn bytes_held_for_a_stalled_sink_move_along_in_their_order(engine: Engine, runtime: Runtime) {
    // More than all buffers between the two: autotuned receive windows of two connections.
    const STALLING: usize = 64 << 20;
    let (backend, go) = stalled_backend(STALLING);
    let gw = two_workers(&backend, engine, runtime);
    let client = Client::upgraded(gw.address(), "/", "raw");
    let id = session(&gw).id;
    let mut writer = client.socket.try_clone().expect("a descriptor");
    let writing = std::thread::spawn(move || {
        send(&mut writer, 1, STALLING);
        writer.shutdown(std::net::Shutdown::Write).expect("it was open");
    });
    for at in 0..12 {
        until_stalled(&gw);
        shift(&gw, &id, Move { worker: at % 2, engine: ENGINES[at % 4] });
    }
    until_stalled(&gw);
    let held = gw.gateway.sessions().pop().map(|s| s.carried[0]).expect("it is there");
    assert!(held.taken() > held.given, "nothing was held: {held:?}");
    go.send(()).expect("the backend waits");
    writing.join().expect("all was sent");
    let mut client = client;
    assert_eq!(client.receive(8), b"all came");
    drop(client);
    let line = gw.line();
    assert_eq!(line["bytes_in"], STALLING, "{line}");
    assert_eq!(line["bytes_out"], 8, "{line}");
    assert_eq!(line["bytes_discarded"], 0, "{line}");
    assert_eq!(gw.metrics().detached, 12);
    backend.join();
    eventually("all are closed", || gw.metrics().connections_open == 0);
    expect_nothing_held(&gw);
    gw.stop();
}

fn a_session_that_was_half_closed_goes_on_half_closed(engine: Engine, runtime: Runtime) {
    let (go, told) = channel::<()>();
    let told = Arc::new(std::sync::Mutex::new(told));
    let backend = Backend::upgrading(move |mut peer: Peer| {
        assert_eq!(check_to_end(&mut peer.socket, 1), 1000);
        wait(&told.lock().expect("one session"));
        send(&mut peer.socket, 2, LEN);
    });
    let gw = two_workers(&backend, engine, runtime);
    let mut client = Client::upgraded(gw.address(), "/", "raw");
    let id = session(&gw).id;
    send(&mut client.socket, 1, 1000);
    client.shutdown_write();
    eventually("the gateway knows of the end", || session(&gw).half_closed);
    for at in 0..4 {
        shift(&gw, &id, Move { worker: at % 2, engine: ENGINES[at % 4] });
        assert!(session(&gw).half_closed, "the end was forgotten by move {at}");
    }
    go.send(()).expect("the backend waits");
    assert_eq!(check_to_end(&mut client.socket, 2), LEN);
    let line = gw.line();
    assert_eq!(line["close_reason"], "completed", "{line}");
    assert_eq!((&line["bytes_in"], &line["bytes_out"]), (&1000.into(), &LEN.into()));
    backend.join();
    gw.stop();
}

/// What was seen: the flag was not among what a detached relay hands over, so a session that moved after
/// one end lived by the `idle` timer, an hour instead of seconds.
#[test]
fn the_half_close_timer_goes_on_after_a_move() {
    for worker in [0, 1] {
        // Never ends its own direction.
        let (end, told) = channel::<()>();
        let told = Arc::new(std::sync::Mutex::new(told));
        let backend = Backend::upgrading(move |mut peer: Peer| {
            assert_eq!(check_to_end(&mut peer.socket, 1), 10);
            wait(&told.lock().expect("one session"));
        });
        let timeouts = "timeouts.idle = \"1h\"\ntimeouts.half_close = \"400ms\"";
        let gw = Gw::with(
            &backend,
            Engine::Splice,
            Runtime::Epoll,
            "workers = 2\nbalance = false",
            timeouts,
        );
        let mut client = Client::upgraded(gw.address(), "/", "raw");
        let id = session(&gw).id;
        send(&mut client.socket, 1, 10);
        client.shutdown_write();
        eventually("the gateway knows of the end", || session(&gw).half_closed);
        shift(&gw, &id, Move { worker, engine: None });
        assert_eq!(gw.line()["close_reason"], "half_close_timeout");
        end.send(()).expect("the backend waits");
        drop(client);
        backend.join();
        gw.stop();
    }
}

fn an_idle_session_moves_and_goes_on(engine: Engine, runtime: Runtime) {
    let backend = Backend::echo();
    let gw = two_workers(&backend, engine, runtime);
    let mut client = Client::upgraded(gw.address(), "/", "raw");
    let id = session(&gw).id;
    for at in 0..20 {
        let worker = at % 2;
        shift(&gw, &id, Move { worker, engine: ENGINES[at % 4] });
        let there = session(&gw);
        assert_eq!((there.worker, &there.id), (worker, &id));
        if at % 3 == 0 {
            client.send(b"ping");
            assert_eq!(client.receive(4), b"ping");
        }
    }
    drop(client);
    let line = gw.line();
    assert_eq!((&line["bytes_in"], &line["bytes_out"]), (&28.into(), &28.into()), "{line}");
    assert_eq!((&line["session_id"], &line["worker"]), (&id.into(), &1.into()));
    assert_eq!(gw.metrics().detached, 20);
    backend.join();
    gw.stop();
}

fn a_session_that_is_moved_by_force_to_a_worker_that_is_not_there_stays(
    engine: Engine,
    runtime: Runtime,
) {
    let backend = Backend::echo();
    let gw = Gw::to(&backend, engine, runtime);
    let mut client = Client::upgraded(gw.address(), "/", "raw");
    let id = session(&gw).id;
    assert!(gw.gateway.move_session(&id, Move { worker: 9, engine: None }));
    client.send(b"ping");
    assert_eq!(client.receive(4), b"ping");
    assert_eq!(session(&gw).worker, 0);
    assert!(!gw.gateway.move_session("nobody", Move { worker: 0, engine: None }));
    drop(client);
    assert_eq!(gw.line()["close_reason"], "completed");
    backend.join();
    gw.stop();
}

fn a_session_moved_during_the_drain_goes_on_to_its_end(engine: Engine, runtime: Runtime) {
    let backend = Backend::echo();
    let gw = two_workers(&backend, engine, runtime);
    let mut client = Client::upgraded(gw.address(), "/", "raw");
    let id = session(&gw).id;
    gw.gateway.drain();
    // The other worker is without a session, so it may have ended, or be about to: it stays or moves.
    for at in 0..6 {
        eventually("the session takes the order", || {
            gw.gateway.move_session(&id, Move { worker: at % 2, engine: None })
        });
        client.send(b"ping");
        assert_eq!(client.receive(4), b"ping");
    }
    drop(client);
    assert_eq!(gw.line()["close_reason"], "completed");
    assert!(gw.gateway.join(), "a worker panicked");
    backend.join();
}

mod at_every_poll {
    //! The relay as a library: taken apart and put together again between any two polls.

    use std::future::poll_fn;
    use std::io::Write;
    use std::os::fd::OwnedFd;
    use std::os::unix::net::UnixStream;
    use std::task::Poll;

    use upsplice::error::Kind;
    use upsplice::metrics::Counters;
    use upsplice::relay::pool::PipeBudget;
    use upsplice::relay::{Detached, Kit, Relay, Way};

    use super::*;

    fn kit(no_fallback: bool) -> (Rc<Kit>, Arc<Counters>) {
        let counters = Arc::new(Counters::default());
        let kit = Kit::new(PipeBudget::new(64 << 20), Arc::clone(&counters), no_fallback);
        (Rc::new(kit.expect("a descriptor")), counters)
    }

    fn tcp_pair() -> (OwnedFd, OwnedFd) {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        let one = TcpStream::connect(listener.local_addr().expect("bound")).expect("a connection");
        let other = listener.accept().expect("a connection").0;
        (one.into(), other.into())
    }

    fn unix_pair() -> (OwnedFd, OwnedFd) {
        let (one, other) = UnixStream::pair().expect("a pair");
        (one.into(), other.into())
    }

    /// Ready for a relay, with small buffers: a turn that empties a large one leaves no time for moves.
    fn non_blocking(fd: OwnedFd) -> OwnedFd {
        let socket = socket2::SockRef::from(&fd);
        socket.set_nonblocking(true).expect("an option");
        socket.set_send_buffer_size(16 << 10).expect("an option");
        socket.set_recv_buffer_size(16 << 10).expect("an option");
        fd
    }

    /// Detaches after each poll, switches the engine at every third, and goes on with another kit.
    async fn carry(mut detached: Detached, kits: &[Rc<Kit>; 2]) -> (u64, [u64; 2]) {
        let mut moves = 0;
        loop {
            let at = moves as usize;
            let mut relay =
                Relay::resume(detached, Rc::clone(&kits[at % 2])).expect("room in epoll");
            // One poll; when nothing was ready, a second one after the reactor has run.
            let mut polls = 0;
            let end = poll_fn(|cx| {
                polls += 1;
                match relay.poll(cx) {
                    Poll::Ready(end) => Poll::Ready(Some(end)),
                    Poll::Pending if polls > at % 3 => Poll::Ready(None),
                    Poll::Pending => Poll::Pending,
                }
            })
            .await;
            if let Some(end) = end {
                assert!(matches!(end.kind, Kind::Completed), "{end}");
                let given = Direction::BOTH.map(|way| relay.live().carried(way).given);
                assert!(relay.close(&end).is_none());
                return (moves, given);
            }
            detached = relay.detach();
            moves += 1;
            match moves % 12 {
                3 => detached.switch(metrics::Engine::Copy),
                6 => detached.switch(metrics::Engine::Uring),
                9 => detached.switch(metrics::Engine::Splice),
                _ => {}
            }
            if at.is_multiple_of(3) {
                tokio::task::yield_now().await;
            }
        }
    }

    #[test]
    fn nothing_is_lost_or_repeated_over_tcp_and_unix_sockets() {
        // An optimised build takes more at a time, so moves less often.
        const LEN: usize = if cfg!(debug_assertions) { 4 << 20 } else { 16 << 20 };
        const HEAD_DATA: usize = 70_000;
        for pair in [tcp_pair, unix_pair] {
            let ((client, downstream), (upstream, backend)) = (pair(), pair());
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_io()
                .enable_time()
                .build_local(tokio::runtime::LocalOptions::default());
            let (one, first) = kit(false);
            let (other, second) = kit(false);
            let mut all = support::Pattern::new(1);
            let head_data = all.take(HEAD_DATA);
            let mut rest = std::fs::File::from(client.try_clone().expect("a descriptor"));
            let writing = std::thread::spawn(move || {
                rest.write_all(&all.take(LEN)).expect("it is read");
                socket2::SockRef::from(&rest)
                    .shutdown(std::net::Shutdown::Write)
                    .expect("it was open");
            });
            let mut reader = std::fs::File::from(client);
            let reading = std::thread::spawn(move || check_to_end(&mut reader, 2));
            let mut from_gateway = std::fs::File::from(backend.try_clone().expect("a descriptor"));
            let checking = std::thread::spawn(move || check_to_end(&mut from_gateway, 1));
            let mut to_gateway = std::fs::File::from(backend);
            let answering = std::thread::spawn(move || {
                send(&mut to_gateway, 2, LEN);
                socket2::SockRef::from(&to_gateway)
                    .shutdown(std::net::Shutdown::Write)
                    .expect("it was open");
            });
            let detached = Detached::joined(
                non_blocking(downstream),
                non_blocking(upstream),
                [
                    Way::new(metrics::Engine::Splice, head_data, 0),
                    Way::new(metrics::Engine::Splice, Vec::new(), 0),
                ],
            );
            let (moves, given) =
                runtime.expect("a runtime").block_on(carry(detached, &[one, other]));
            assert_eq!(given, [(LEN + HEAD_DATA) as u64, LEN as u64]);
            assert!(moves > 10, "only {moves} moves");
            writing.join().expect("all was sent");
            answering.join().expect("all was sent");
            assert_eq!(reading.join().expect("no panic"), LEN);
            assert_eq!(checking.join().expect("no panic"), LEN + HEAD_DATA);
            for counters in [first, second] {
                assert_eq!(counters.pipes_used.get().cast_signed(), 0, "pipes are still counted");
            }
        }
    }
}
