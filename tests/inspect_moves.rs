//! An inspected session goes on in another worker or engine, in the middle of a frame or a message, and nothing of
//! it is lost, repeated or counted twice.

mod support;

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::mpsc::{Receiver, channel};
use std::thread;

use socket2::SockRef;
use support::frames::{BINARY, CONTINUATION, FIN, Inspected, MASK, PING, TEXT, frame};
use support::{Engine, Pattern, Runtime, eventually};
use upsplice::metrics;
use upsplice::server::Move;

const MESSAGES: usize = if cfg!(debug_assertions) { 300 } else { 2000 };
const MOVES: usize = 100;
/// More than there are moves, so that none comes too late.
const SHARES: usize = MOVES + 20;

/// Messages of all sizes, some in fragments with a ping in between; and how many bytes of payload they hold.
fn traffic(seed: u64, mask: Option<[u8; 4]>) -> (Vec<u8>, u64) {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut bytes = Pattern::new(seed);
    let (mut all, mut payload) = (Vec::new(), 0);
    for _ in 0..MESSAGES {
        let len = [3, 200, 5000, 30_000, 150_000][random.usize(..5)];
        payload += len as u64;
        if random.bool() {
            all.extend(frame(FIN | BINARY, mask, &bytes.take(len)));
            continue;
        }
        let text = vec![b'x'; len];
        let (first, second) = text.split_at(random.usize(..=len));
        all.extend(frame(TEXT, mask, first));
        all.extend(frame(FIN | PING, mask, b"in between"));
        all.extend(frame(FIN | CONTINUATION, mask, second));
    }
    (all, payload)
}

fn sent(socket: &TcpStream, bytes: Vec<u8>) -> thread::JoinHandle<()> {
    let mut socket = socket.try_clone().expect("a descriptor");
    thread::spawn(move || {
        socket.write_all(&bytes).expect("the other side reads");
        socket.shutdown(Shutdown::Write).expect("it was open");
    })
}

/// Reads a share of `expected` for each turn that it is given, then the rest.
fn received(socket: &TcpStream, expected: Vec<u8>, turns: Receiver<()>) -> thread::JoinHandle<()> {
    let mut socket = socket.try_clone().expect("a descriptor");
    // Little is on its way, so that the moves fall between the first byte and the last.
    SockRef::from(&socket).set_recv_buffer_size(32 * 1024).expect("a small buffer");
    thread::spawn(move || {
        for share in expected.chunks(expected.len() / SHARES) {
            // No turn is left when the moves are over.
            let _ = turns.recv();
            let mut came = vec![0; share.len()];
            socket.read_exact(&mut came).expect("all comes");
            assert!(came == share, "it came differently");
        }
        assert_eq!(socket.read(&mut [0]).expect("an orderly end"), 0);
    })
}

#[test]
fn moves_at_any_moment_lose_nothing_and_count_nothing_twice() {
    for (engine, runtime, depth) in [
        (Engine::Splice, Runtime::Epoll, "frames"),
        (Engine::Copy, Runtime::Uring, "frames"),
        (Engine::Auto, Runtime::Epoll, "payload"),
    ] {
        let session = Inspected::in_two_workers(engine, runtime, &format!("inspect = \"{depth}\""));
        let (up, up_payload) = traffic(1, Some(MASK));
        let (down, down_payload) = traffic(2, None);
        let total = (up.len() + down.len()) as u64;
        let ((up_turn, up_turns), (down_turn, down_turns)) = (channel(), channel());
        let carrying = [
            received(&session.server, up.clone(), up_turns),
            received(&session.client, down.clone(), down_turns),
            sent(&session.client, up),
            sent(&session.server, down),
        ];
        let mut random = fastrand::Rng::with_seed(3);
        let gateway = &session.gw.gateway;
        let mut id = String::new();
        eventually("it is in a worker", || match gateway.sessions().pop() {
            Some(session) => {
                id = session.id;
                true
            }
            None => false,
        });
        for at in 1..=MOVES as u64 {
            up_turn.send(()).expect("it listens");
            down_turn.send(()).expect("it listens");
            eventually("the streams get there", || {
                let metrics = gateway.metrics();
                metrics.taken("to_upstream") + metrics.taken("to_downstream")
                    >= total * at / (SHARES as u64 + 1)
            });
            let engine = [None, Some(metrics::Engine::Copy), Some(metrics::Engine::Splice)]
                [random.usize(..3)];
            let to = Move { worker: random.usize(..2), engine };
            // Between two workers it is in neither; buffers may have taken the last bytes before the last move.
            let has_ended = || gateway.metrics().connections_open == 0;
            let before = gateway.metrics().detached;
            eventually("it takes the order, or has ended", || {
                gateway.move_session(&id, to) || has_ended()
            });
            eventually("it has moved, or has ended", || {
                gateway.metrics().detached > before || has_ended()
            });
        }
        drop((up_turn, down_turn));
        for side in carrying {
            side.join().expect("all bytes came as they were sent");
        }
        let (gw, line) = session.line();
        assert_eq!(line["close_reason"], "completed", "{line}");
        assert_eq!(line["violation"], serde_json::Value::Null, "{line}");
        let sums = ["bytes_splice", "bytes_copy", "bytes_uring"].map(|name| line[name].as_u64());
        assert_eq!(sums.into_iter().flatten().sum::<u64>(), total, "{line}");
        let moved = gw.metrics().detached;
        assert!(moved >= MOVES as u64 / 5, "only {moved} moves came in time");
        let websocket = gw.metrics().websocket;
        for (way, payload) in
            [(websocket.to_upstream, up_payload), (websocket.to_downstream, down_payload)]
        {
            assert_eq!((way.messages(), way.message_bytes), (MESSAGES as u64, payload));
        }
        gw.stop();
    }
}
