//! Engine `uring` at its edges (rule R22): little credit, few buffers, receives that are cancelled while
//! bytes arrive. The relay is used as a library, so that the ring can be made small.

mod support;

use std::future::poll_fn;
use std::io::{ErrorKind, Read, Write};
use std::net::Shutdown;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::thread;

use support::stream::check_to_end;
use support::{BOUND, Pattern};
use upsplice::error::{End, Kind};
use upsplice::metrics::{Counters, Direction, Engine, Snapshot};
use upsplice::relay::pool::PipeBudget;
use upsplice::relay::{Detached, Kit, Relay, Turn, Way};
use upsplice::sys::reactor::Reactor;
use upsplice::sys::ring::{Ring, Setup};

/// Runs `work` in a worker's kind of runtime; says so where this machine has no ring.
fn on_a_ring(name: &str, work: impl AsyncFnOnce()) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .enable_time()
        .build_local(tokio::runtime::LocalOptions::default());
    runtime.expect("a runtime").block_on(async {
        let reactor = Rc::new(Reactor::new().expect("a reactor"));
        match Ring::new(FEW, &reactor) {
            Ok(_) => tokio::time::timeout(BOUND, work()).await.expect("it ends in time"),
            Err(error) => eprintln!("SKIPPED: {name}: {error}"),
        }
    });
}

const FEW: Setup = Setup { buffers: 4, buffer_bytes: 64, receive_bytes_max: 128 };

fn kit(setup: Setup) -> (Rc<Kit>, Arc<Counters>) {
    let counters = Arc::new(Counters::default());
    let kit = Kit::new(PipeBudget::new(1 << 20), Arc::clone(&counters), true);
    (Rc::new(kit.expect("a reactor").with_ring(setup)), counters)
}

/// Two pairs of sockets: the outer ends, and what a relay is made of.
fn joined() -> (UnixStream, UnixStream, Detached) {
    let (client, downstream) = UnixStream::pair().expect("a pair");
    let (upstream, backend) = UnixStream::pair().expect("a pair");
    let [downstream, upstream] = [downstream, upstream].map(|socket| {
        socket.set_nonblocking(true).expect("an option");
        OwnedFd::from(socket)
    });
    let ways = [(); 2].map(|()| Way::new(Engine::Uring, Vec::new(), 0));
    (client, backend, Detached::joined(downstream, upstream, ways))
}

/// Sends `len` bytes of the stream of `seed` in pieces of all sizes, ends, and checks that as many of the
/// stream of `other` come.
fn play(mut socket: UnixStream, seed: u64, len: usize, other: u64) -> thread::JoinHandle<()> {
    thread::spawn(move || {
        let mut writer = socket.try_clone().expect("a descriptor");
        let sending = thread::spawn(move || {
            let (mut pattern, mut left, mut size) = (Pattern::new(seed), len, 1);
            while left > 0 {
                size = size * 7 % 1013;
                let piece = pattern.take(size.min(left));
                writer.write_all(&piece).expect("the other side reads");
                left -= piece.len();
            }
            writer.shutdown(Shutdown::Write).expect("it is open");
        });
        assert_eq!(check_to_end(&mut socket, other), len);
        sending.join().expect("all was sent");
    })
}

async fn until_the_end(mut relay: Relay, expected: u64) {
    let end = poll_fn(|cx| relay.poll(cx)).await;
    over(relay, &end, expected);
}

fn over(relay: Relay, end: &End, expected: u64) {
    assert!(matches!(end.kind, Kind::Completed), "{end}");
    for direction in Direction::BOTH {
        let carried = relay.live().carried(direction);
        assert_eq!((carried.ringed, carried.given), (expected, expected));
    }
    assert!(relay.close(end).is_none());
}

#[test]
fn a_sink_that_takes_nothing_bounds_what_is_held_to_the_credit() {
    const CREDIT: u32 = 8192;
    on_a_ring("a_sink_that_takes_nothing_bounds_what_is_held_to_the_credit", async || {
        let setup = Setup { buffers: 64, buffer_bytes: 1024, receive_bytes_max: CREDIT };
        let reactor = Rc::new(Reactor::new().expect("a reactor"));
        let limited = Ring::new(setup, &reactor).expect("there was one before").is_limited();
        // Without a limit for one receive, what it takes before it is cancelled is bounded by the pool.
        let most = u64::from(if limited { CREDIT } else { 64 * 1024 });
        let (kit, _counters) = kit(setup);
        let (mut client, mut backend, detached) = joined();
        client.set_nonblocking(true).expect("an option");
        let mut relay = Relay::resume(detached, kit).expect("room in epoll");
        let (mut pattern, mut sent, mut refused, mut held) = (Pattern::new(1), 0, 0, 0);
        let mut piece = pattern.take(1000);
        while refused < 200 || relay.live().carried(Direction::ToUpstream).paused == 0 {
            let polled = poll_fn(|cx| Poll::Ready(relay.poll(cx))).await;
            assert!(polled.is_pending(), "nothing has ended");
            held = held.max(relay.undelivered(Direction::ToUpstream));
            match client.write(&piece) {
                Ok(written) => {
                    (sent, refused) = (sent + written, 0);
                    piece.drain(..written);
                    if piece.is_empty() {
                        piece = pattern.take(1000);
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => refused += 1,
                Err(error) => panic!("{error}"),
            }
            tokio::task::yield_now().await;
        }
        assert!(held > 0 && held <= most, "{held} bytes were held, {most} may be");
        client.shutdown(Shutdown::Write).expect("it is open");
        backend.shutdown(Shutdown::Write).expect("it is open");
        let reading = thread::spawn(move || check_to_end(&mut backend, 1));
        let end = poll_fn(|cx| relay.poll(cx)).await;
        assert!(matches!(end.kind, Kind::Completed), "{end}");
        drop(relay.close(&end));
        assert_eq!(reading.join().expect("the bytes are exact"), sent);
    });
}

#[test]
fn forty_directions_that_share_four_buffers_lose_and_reorder_nothing() {
    const LEN: usize = 100_000;
    on_a_ring("forty_directions_that_share_four_buffers_lose_and_reorder_nothing", async || {
        let (kit, counters) = kit(Setup { receive_bytes_max: 1 << 20, ..FEW });
        let (mut players, mut relays) = (Vec::new(), Vec::new());
        for at in 0..20 {
            let (client, backend, detached) = joined();
            players.push(play(client, at, LEN, at + 100));
            players.push(play(backend, at + 100, LEN, at));
            relays.push(Relay::resume(detached, Rc::clone(&kit)).expect("room in epoll"));
        }
        while !relays.is_empty() {
            kit.reactor.collect(drop);
            for at in (0..relays.len()).rev() {
                if let Turn::Over(end) = relays[at].turn() {
                    over(relays.swap_remove(at), &end, LEN as u64);
                }
            }
            tokio::task::yield_now().await;
        }
        players.into_iter().for_each(|player| player.join().expect("the bytes are exact"));
        let counted = Snapshot::of([&*counters]);
        let moved = |direction| counted.bytes_by(Engine::Uring, direction);
        assert_eq!(Direction::BOTH.map(moved), [20 * LEN as u64; 2]);
    });
}

#[test]
fn a_receive_that_is_cancelled_while_bytes_arrive_loses_and_repeats_nothing() {
    const LEN: usize = 2_000_000;
    on_a_ring("a_receive_that_is_cancelled_while_bytes_arrive", async || {
        let (kit, _counters) = kit(FEW);
        let (client, backend, mut detached) = joined();
        let players = [play(client, 1, LEN, 2), play(backend, 2, LEN, 1)];
        let mut moves = 0;
        loop {
            let mut relay = Relay::resume(detached, Rc::clone(&kit)).expect("room in epoll");
            let mut end = None;
            for _ in 0..moves % 2 {
                if let Poll::Ready(over) = poll_fn(|cx| Poll::Ready(relay.poll(cx))).await {
                    end = Some(over);
                    break;
                }
                tokio::task::yield_now().await;
            }
            if let Some(end) = end {
                assert!(matches!(end.kind, Kind::Completed), "{end}");
                break drop(relay.close(&end));
            }
            detached = relay.detach();
            moves += 1;
        }
        players.into_iter().for_each(|player| player.join().expect("the bytes are exact"));
        assert!(moves > 20, "only {moves} moves");
    });
}

#[test]
fn a_relay_that_is_dropped_closes_its_sockets_and_leaves_the_ring_to_the_others() {
    on_a_ring("a_relay_that_is_dropped_closes_its_sockets", async || {
        let (kit, _counters) = kit(FEW);
        let (mut client, _backend, detached) = joined();
        let mut relay = Relay::resume(detached, Rc::clone(&kit)).expect("room in epoll");
        assert!(poll_fn(|cx| Poll::Ready(relay.poll(cx))).await.is_pending());
        tokio::task::yield_now().await;
        drop(relay);
        assert_eq!(client.read(&mut [0]).expect("an end"), 0);
        let (client, backend, detached) = joined();
        let players = [play(client, 1, 1000, 2), play(backend, 2, 1000, 1)];
        until_the_end(Relay::resume(detached, kit).expect("room in epoll"), 1000).await;
        players.into_iter().for_each(|player| player.join().expect("the bytes are exact"));
    });
}
