//! Sessions of one worker do not stand in each other's way (rules R1, R16).

#[path = "support/joined.rs"]
mod joined;
mod support;

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::rc::Rc;
use std::sync::Arc;
use std::thread;

use joined::{Joined, Side, echoing, send_until_paused};
use support::stream::{check_to_end, send};
use support::{Client, Engine, Runtime, eventually};
use upsplice::metrics::{Counters, Direction};
use upsplice::relay::pool::{PipeBudget, WIDE_PIPE_BYTES};
use upsplice::relay::{Detached, Kit, Relay, Share, Turn, Way};

contract!(
    a_blocked_sink_stops_no_other_session,
    small_messages_pass_while_bulk_flows,
    two_bulk_sessions_share_the_worker,
);

fn a_blocked_sink_stops_no_other_session(engine: Engine, runtime: Runtime) {
    let joined = Joined::new(engine, runtime);
    let (client, mut peer) = joined.from(Side::Downstream);
    let blocked = send_until_paused(&joined.gw, client, "to_upstream", 1);
    let (client_beside, peer_beside) = joined.another();
    let echo = echoing(peer_beside, 64);
    ping(client_beside, 1000);
    echo.join().expect("the echo ends");
    engine.assert_carried(&joined.gw.line(), 0);
    // The blocked one has lost nothing meanwhile.
    client.shutdown(Shutdown::Write).expect("it was open");
    assert_eq!(check_to_end(&mut peer, 1), blocked);
    joined.completed(engine);
}

fn small_messages_pass_while_bulk_flows(engine: Engine, runtime: Runtime) {
    const SESSIONS: usize = 100;
    const ROUNDS: usize = 50;
    let joined = Joined::new(engine, runtime);
    let beside: Vec<_> = (0..SESSIONS).map(|_| joined.another()).collect();
    let bulk = |metrics: &upsplice::metrics::Snapshot| metrics.taken("to_upstream");
    let (mut source, mut sink) = joined.from(Side::Downstream);
    thread::scope(|scope| {
        scope.spawn(move || {
            let chunk = vec![7; 256 * 1024];
            while source.write_all(&chunk).is_ok() {}
        });
        let reading = scope.spawn(move || {
            let mut chunk = vec![0; 256 * 1024];
            while sink.read(&mut chunk).is_ok_and(|read| read > 0) {}
        });
        eventually("the bulk flows", || bulk(&joined.gw.metrics()) > 4 << 20);
        let before = bulk(&joined.gw.metrics());
        let (clients, peers): (Vec<_>, Vec<_>) = beside.into_iter().unzip();
        let echoes: Vec<_> = peers.into_iter().map(|peer| echoing(peer, 64)).collect();
        let pinging = clients.into_iter().map(|client| scope.spawn(move || ping(client, ROUNDS)));
        for pinging in pinging.collect::<Vec<_>>() {
            pinging.join().expect("every answer comes");
        }
        for echo in echoes {
            echo.join().expect("the echo ends");
        }
        let moved = bulk(&joined.gw.metrics()) - before;
        assert!(moved > 1 << 20, "the bulk session starved: {moved}");
        // That ends both bulk threads.
        source.shutdown(Shutdown::Both).expect("it was open");
        reading.join().expect("the reader ends");
    });
    joined.ended_any();
}

fn two_bulk_sessions_share_the_worker(engine: Engine, runtime: Runtime) {
    const LEN: usize = 32 << 20;
    let joined = Joined::new(engine, runtime);
    let (second_client, second_peer) = joined.another();
    let carry = |mut source: std::net::TcpStream, mut sink: std::net::TcpStream| {
        thread::spawn(move || {
            let sending = thread::spawn(move || {
                send(&mut source, 5, LEN);
                source.shutdown(Shutdown::Write).expect("it was open");
                source
            });
            assert_eq!(check_to_end(&mut sink, 5), LEN);
            sending.join().expect("all was sent")
        })
    };
    let clone = |socket: &std::net::TcpStream| socket.try_clone().expect("a descriptor");
    let first = carry(clone(&joined.client.socket), clone(&joined.peer.socket));
    let second = carry(second_client.socket, second_peer.socket);
    first.join().expect("the first is exact");
    second.join().expect("the second is exact");
    engine.assert_carried(&joined.gw.line(), 0);
    joined.completed(engine);
}

/// Who has been idle has its first turn beside all the others, whatever it brings: only after that one alone.
#[test]
fn a_turn_moves_a_fill_more_than_its_share_at_most() {
    const LEN: u64 = 64 << 20;
    for engine in [upsplice::metrics::Engine::Splice, upsplice::metrics::Engine::Copy] {
        for share in [Share::AmongOthers, Share::Alone] {
            let most = bytes_of_turns(engine, share, LEN);
            let bound = share.bytes() as u64 + u64::from(WIDE_PIPE_BYTES);
            assert!(most.iter().all(|&moved| moved <= bound), "{engine:?} {share:?}: {most:?}");
            assert_eq!(most.iter().sum::<u64>(), LEN, "{engine:?} {share:?}");
        }
    }
}

/// What each turn of a relay takes of `len` bytes whose sender and reader are as fast as they can be.
fn bytes_of_turns(engine: upsplice::metrics::Engine, share: Share, len: u64) -> Vec<u64> {
    let ((mut client, downstream), (upstream, mut backend)) = (pair(), pair());
    let sending = thread::spawn(move || {
        let chunk = vec![7; 1 << 20];
        (0..len >> 20).for_each(|_| client.write_all(&chunk).expect("the relay reads"));
        client.shutdown(Shutdown::Write).expect("it was open");
        client
    });
    let reading = thread::spawn(move || {
        let mut chunk = vec![0; 1 << 20];
        while backend.read(&mut chunk).expect("the bytes come") > 0 {}
    });
    let kit = Kit::new(PipeBudget::new(64 << 20), Arc::new(Counters::default()), true);
    let kit = Rc::new(kit.expect("descriptors"));
    for socket in [&downstream, &upstream] {
        socket.set_nonblocking(true).expect("an option");
    }
    let ways = [(); 2].map(|()| Way::new(engine, Vec::new(), 0));
    let detached = Detached::joined(downstream.into(), upstream.into(), ways);
    let mut relay = Relay::resume(detached, Rc::clone(&kit)).expect("room in epoll");
    let (mut turns, mut before) = (Vec::new(), 0);
    eventually("all bytes have passed", || {
        kit.reactor.collect(drop);
        let turn = relay.turn(share);
        let taken = relay.live().carried(Direction::ToUpstream).taken();
        turns.push(taken - before);
        before = taken;
        matches!(turn, Turn::Over(_))
    });
    reading.join().expect("all came");
    drop(sending.join().expect("all was sent"));
    turns
}

fn pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let near = TcpStream::connect(listener.local_addr().expect("bound")).expect("it listens");
    let (far, _) = listener.accept().expect("it has connected");
    (near, far)
}

/// Sends and awaits one message after the other, then ends.
fn ping(mut client: Client, rounds: usize) {
    for round in 0..rounds {
        let message = [round as u8; 64];
        client.send(message);
        assert_eq!(client.receive(64), message);
    }
    client.shutdown_write();
    assert_eq!(client.receive_to_end().expect("the end comes"), b"");
}
