//! Every worker has its share: connections go to the least loaded when they come, and sessions follow when
//! others have ended.

#[path = "support/seccomp.rs"]
mod seccomp;
mod support;

use std::env;
use std::sync::atomic::{AtomicBool, Ordering};

use seccomp::{alone, is_alone, stdout_of};
use support::client::upgrade_head;
use support::{Backend, Client, Engine, Gw, Pattern, Runtime, eventually, open_descriptors};
use upsplice::server::Move;

const WORKERS: usize = 4;
/// More at once than the workers can take in turn.
const CROWD: usize = 32;
/// What a session carries at a time while it is moved about.
const BLOCK: usize = 64 * 1024;
/// The environment variable that tells a child process which runtime to take.
const RUNTIME: &str = "UPSPLICE_TEST_RUNTIME";

fn balanced(backend: &Backend, engine: Engine, runtime: Runtime) -> Gw {
    Gw::with(backend, engine, runtime, &format!("workers = {WORKERS}"), "")
}

/// Sessions of each worker.
fn spread(gw: &Gw) -> [usize; WORKERS] {
    let mut spread = [0; WORKERS];
    for session in gw.gateway.sessions() {
        spread[session.worker] += 1;
    }
    spread
}

/// Whether there are so many sessions, and in no worker two more than in another.
fn is_even(gw: &Gw, sessions: usize) -> bool {
    let spread = spread(gw);
    let (least, most) = (spread.iter().min(), spread.iter().max());
    spread.iter().sum::<usize>() == sessions && most.unwrap_or(&0) - least.unwrap_or(&0) <= 1
}

fn clients(gw: &Gw, count: usize) -> Vec<Client> {
    (0..count).map(|_| Client::upgraded(gw.address(), "/", "raw")).collect()
}

/// Moves every session into worker 0.
fn crowd(gw: &Gw) {
    for session in gw.gateway.sessions() {
        eventually("the session takes the order", || {
            gw.gateway.move_session(&session.id, Move { worker: 0, engine: None })
        });
    }
}

/// Sends `len` bytes and has them back.
fn expect_echo(client: &mut Client, pattern: &mut Pattern, len: usize) {
    let sent = pattern.take(len);
    client.send(&sent);
    assert!(client.receive(len) == sent, "the bytes that come back are others");
}

fn closed(gw: Gw, backend: Backend) {
    eventually("all connections have ended", || gw.metrics().connections_open == 0);
    assert_eq!((gw.metrics().sessions_open, gw.metrics().pipes_used), (0, 0));
    gw.stop();
    backend.join();
}

contract!(
    sessions_of_any_number_differ_by_one_at_most_between_workers,
    sessions_that_are_spread_while_they_carry_traffic_lose_nothing,
    what_is_left_when_half_of_the_sessions_end_is_spread_anew,
    connections_under_way_at_the_drain_are_served_wherever_they_are,
    connections_under_way_at_the_stop_are_all_ended_and_logged,
    without_balance_everything_stays_where_it_was_put,
);

fn sessions_of_any_number_differ_by_one_at_most_between_workers(engine: Engine, runtime: Runtime) {
    for count in [WORKERS, 2 * WORKERS, 4 * WORKERS + 1] {
        let backend = Backend::echo();
        let gw = balanced(&backend, engine, runtime);
        let mut clients = Vec::new();
        for at in 1..=count {
            clients.push(Client::upgraded(gw.address(), "/", "raw"));
            assert!(is_even(&gw, at), "{at} sessions are spread as {:?}", spread(&gw));
        }
        for client in &mut clients {
            expect_echo(client, &mut Pattern::new(1), 100);
        }
        // None of them was moved: each was where it belongs before it began.
        assert_eq!((gw.metrics().detached, gw.metrics().accepted), (0, count as u64));
        drop(clients);
        closed(gw, backend);
    }
}

fn sessions_that_are_spread_while_they_carry_traffic_lose_nothing(
    engine: Engine,
    runtime: Runtime,
) {
    const SESSIONS: usize = 2 * WORKERS;
    let backend = Backend::echo();
    let gw = balanced(&backend, engine, runtime);
    let clients = clients(&gw, SESSIONS);
    let is_spread = AtomicBool::new(false);
    let mut carried = std::thread::scope(|scope| {
        let echo = |(seed, mut client): (usize, Client)| {
            let (mut pattern, mut carried) = (Pattern::new(seed as u64), 0);
            while !is_spread.load(Ordering::Relaxed) {
                expect_echo(&mut client, &mut pattern, BLOCK);
                carried += BLOCK;
            }
            carried
        };
        let clients = clients.into_iter().enumerate();
        let echoing: Vec<_> = clients.map(|each| scope.spawn(move || echo(each))).collect();
        crowd(&gw);
        // By the crowd each was moved once, also who was there already.
        eventually("sessions were given away, and are spread", || {
            gw.metrics().detached > SESSIONS as u64 && is_even(&gw, SESSIONS)
        });
        is_spread.store(true, Ordering::Relaxed);
        echoing.into_iter().map(|each| each.join().expect("all came back")).collect::<Vec<_>>()
    });
    let mut logged = Vec::new();
    for _ in 0..SESSIONS {
        let line = gw.line();
        assert_eq!((&line["bytes_in"], &line["bytes_discarded"]), (&line["bytes_out"], &0.into()));
        engine.assert_carried(&line, 0);
        logged.push(line["bytes_in"].as_u64().expect("a number") as usize);
    }
    carried.sort_unstable();
    logged.sort_unstable();
    assert_eq!(carried, logged);
    closed(gw, backend);
}

fn what_is_left_when_half_of_the_sessions_end_is_spread_anew(engine: Engine, runtime: Runtime) {
    let backend = Backend::echo();
    let gw = balanced(&backend, engine, runtime);
    let mut clients = clients(&gw, 4 * WORKERS);
    // Each is known by how much it has carried.
    for (at, client) in clients.iter_mut().enumerate() {
        expect_echo(client, &mut Pattern::new(1), at + 1);
    }
    let stays = |at: usize| {
        let sessions = gw.gateway.sessions();
        let session = sessions.iter().find(|each| each.carried[0].given == at as u64 + 1);
        session.expect("it has carried so much").worker >= WORKERS / 2
    };
    let stays: Vec<bool> = (0..clients.len()).map(stays).collect();
    let mut keep = stays.iter();
    clients.retain(|_| *keep.next().expect("one for each"));
    let left = clients.len();
    assert_eq!(left, 2 * WORKERS);
    eventually("the rest is spread", || is_even(&gw, left));
    assert!(gw.metrics().detached >= left as u64 / 2);
    for client in &mut clients {
        expect_echo(client, &mut Pattern::new(2), 100);
    }
    drop(clients);
    closed(gw, backend);
}

/// Connects so many clients and sends what they ask for, without waiting for an answer.
fn asking(gw: &Gw) -> Vec<Client> {
    let asking = (0..CROWD).map(|_| {
        let mut client = Client::connect(gw.address());
        client.send(upgrade_head("/", "raw", ""));
        client
    });
    asking.collect()
}

fn connections_under_way_at_the_drain_are_served_wherever_they_are(
    engine: Engine,
    runtime: Runtime,
) {
    let backend = Backend::echo();
    let mut handed_over = 0;
    for _ in 0..5 {
        let gw = balanced(&backend, engine, runtime);
        let clients = asking(&gw);
        gw.gateway.drain();
        for mut client in clients {
            assert_eq!(client.answer().status, 101);
            expect_echo(&mut client, &mut Pattern::new(1), 100);
        }
        for _ in 0..CROWD {
            assert_eq!(gw.line()["close_reason"], "completed");
        }
        eventually("the workers end by themselves", || gw.gateway.is_finished());
        handed_over += gw.metrics().handed_over;
        gw.stop();
    }
    assert!(handed_over > 0, "nothing was on its way between workers");
    backend.join();
}

fn connections_under_way_at_the_stop_are_all_ended_and_logged(engine: Engine, runtime: Runtime) {
    let backend = Backend::echo();
    for _ in 0..5 {
        let gw = balanced(&backend, engine, runtime);
        let clients = asking(&gw);
        gw.gateway.stop_now();
        for _ in 0..CROWD {
            assert_eq!(gw.line()["close_reason"], "stopped");
        }
        assert_eq!(gw.metrics().accepted, CROWD as u64);
        for mut client in clients {
            // An end, or a reset when what it asked for was not read.
            let _ = client.receive_to_end();
        }
        gw.stop();
    }
    backend.join();
}

fn without_balance_everything_stays_where_it_was_put(engine: Engine, runtime: Runtime) {
    let backend = Backend::echo();
    let lines = format!("workers = {WORKERS}\nbalance = false");
    let gw = Gw::with(&backend, engine, runtime, &lines, "timeouts.handshake = \"2500ms\"");
    // The kernel deals 32 out evenly once in a hundred million times.
    let clients = clients(&gw, CROWD);
    assert_eq!(gw.metrics().handed_over, 0);
    crowd(&gw);
    eventually("all are in one worker", || spread(&gw)[0] == CROWD);
    // By then every worker would have looked at the others twice.
    let mut silent = Client::connect(gw.address());
    assert_eq!(silent.answer().status, 408);
    assert_eq!((spread(&gw)[0], gw.metrics().detached), (CROWD, CROWD as u64));
    drop((clients, silent));
    closed(gw, backend);
}

#[test]
fn a_socket_file_that_all_workers_share_is_balanced_as_well() {
    use std::io::{Read, Write};
    use std::os::unix::net::UnixStream;

    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("front.sock");
    let backend = Backend::echo();
    let gw = Gw::from_toml(&format!(
        "[gateway]\nworkers = {WORKERS}\n[[listener]]\naddress = \"unix:{}\"\n\
         [[route]]\nname = \"test\"\nprotocols = [\"any\"]\nto = [\"{}\"]\n",
        path.display(),
        backend.address,
    ));
    let mut streams = Vec::new();
    for at in 1..=2 * WORKERS {
        let mut stream = UnixStream::connect(&path).expect("it listens");
        stream.set_read_timeout(Some(support::BOUND)).expect("a bound");
        stream.write_all(upgrade_head("/", "raw", "").as_bytes()).expect("the gateway reads");
        assert_ne!(stream.read(&mut [0; 4096]).expect("an answer"), 0);
        streams.push(stream);
        assert!(is_even(&gw, at), "{at} sessions are spread as {:?}", spread(&gw));
    }
    drop(streams);
    closed(gw, backend);
}

#[test]
fn what_is_handed_over_leaves_no_descriptor_behind() {
    for runtime in ["epoll", "uring"] {
        stdout_of(alone("child_that_hands_over").env(RUNTIME, runtime));
    }
}

#[test]
#[ignore = "a child process of the test above: others open descriptors of their own"]
fn child_that_hands_over() {
    if !is_alone() {
        return;
    }
    let uring = env::var(RUNTIME).is_ok_and(|word| word == "uring");
    let runtime = if uring { Runtime::Uring } else { Runtime::Epoll };
    let backend = Backend::echo();
    let gw = balanced(&backend, Engine::Copy, runtime);
    let before = open_descriptors();
    for _ in 0..3 {
        let detached = gw.metrics().detached;
        let clients = clients(&gw, CROWD);
        crowd(&gw);
        eventually("sessions were given away", || gw.metrics().detached > detached + CROWD as u64);
        drop(clients);
        eventually("all connections have ended", || gw.metrics().connections_open == 0);
        eventually("all descriptors are closed", || open_descriptors() == before);
    }
    assert!(gw.metrics().handed_over > 0);
    // Connections that are on their way when their worker ends.
    let clients = asking(&gw);
    gw.gateway.stop_now();
    drop(clients);
    eventually("the workers have ended", || gw.gateway.is_finished());
    gw.stop();
    eventually("all descriptors are closed", || open_descriptors() < before);
    backend.join();
}
