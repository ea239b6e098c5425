//! Sessions of one worker do not stand in each other's way (rules R1, R16).

#[path = "support/joined.rs"]
mod joined;
mod support;

use std::io::{Read, Write};
use std::net::Shutdown;
use std::thread;

use joined::{Joined, Side, echoing, send_until_paused};
use support::stream::{check_to_end, send};
use support::{Client, Engine, Runtime, eventually};

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
