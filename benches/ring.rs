//! What one relay costs per round trip, without HTTP: CPU time of the worker's thread, for one engine and
//! one kind of ring. `scripts/notes/0012.py` runs it; see the note for what it says.
//!
//! A client thread sends one message on every session and waits for all answers, a backend thread echoes:
//! so completions come in batches, as under load.

use std::future::poll_fn;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::rc::Rc;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use upsplice::metrics::{Counters, Engine};
use upsplice::relay::pool::PipeBudget;
use upsplice::relay::{Detached, Kit, Relay, Turn, Way};
use upsplice::sys::ring::Setup;

struct Options {
    engine: Engine,
    sessions: usize,
    size: usize,
    setup: Setup,
    time: Duration,
}

fn main() {
    // Without numbers it only shows that it works: that is what `cargo test --benches` and `cargo bench` want.
    let words: Vec<String> =
        std::env::args().skip(1).filter(|word| !word.starts_with("--")).collect();
    let word = |at: usize, default: &'static str| words.get(at).map_or(default, |word| word);
    let number = |at, default| word(at, default).parse::<u32>().expect("a number");
    let options = Options {
        engine: Engine::ALL
            .into_iter()
            .find(|engine| engine.as_str() == word(0, "uring"))
            .expect("splice, copy or uring"),
        sessions: number(1, "4") as usize,
        size: number(2, "64") as usize,
        setup: Setup {
            buffers: u16::try_from(number(3, "256")).expect("at most 32768"),
            buffer_bytes: number(4, "4096"),
            receive_bytes_max: number(5, "65536"),
        },
        time: Duration::from_millis(u64::from(number(6, "50"))),
    };
    let (micros, round_trips) = measure(&options);
    println!("{:.2} µs per round trip, {round_trips} round trips", micros / round_trips as f64);
}

/// CPU time of the relay's thread in microseconds, and the round trips that were made.
fn measure(options: &Options) -> (f64, u64) {
    let (mut clients, mut backends, mut joined) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..options.sessions {
        let ((client, downstream), (upstream, backend)) = (pair(), pair());
        for socket in [&downstream, &upstream] {
            socket.set_nonblocking(true).expect("an option");
        }
        let ways = [(); 2].map(|()| Way::new(options.engine, Vec::new(), 0));
        joined.push(Detached::joined(downstream.into(), upstream.into(), ways));
        clients.push(client);
        backends.push(backend);
    }
    let size = options.size;
    let echo = thread::spawn(move || echo_until_the_end(backends, size));
    let setup = options.setup;
    let relays = thread::spawn(move || carry(joined, setup));
    let round_trips = ask(&mut clients, size, options.time);
    drop(clients);
    echo.join().expect("no panic");
    (relays.join().expect("no panic"), round_trips)
}

/// Carries all sessions to their end; CPU time of this thread in microseconds.
fn carry(joined: Vec<Detached>, setup: Setup) -> f64 {
    let counters = Arc::new(Counters::default());
    let kit = Kit::new(PipeBudget::new(64 << 20), counters, true).expect("a reactor");
    let kit = Rc::new(kit.with_ring(setup));
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .event_interval(31)
        .build_local(tokio::runtime::LocalOptions::default());
    runtime.expect("a runtime").block_on(async {
        let mut relays: Vec<_> = joined
            .into_iter()
            .map(|detached| Some(Relay::resume(detached, Rc::clone(&kit)).expect("room in epoll")))
            .collect();
        for (key, relay) in relays.iter().flatten().enumerate() {
            relay.attach(key);
        }
        let (mut open, mut queue) = (relays.len(), (0..relays.len()).collect::<Vec<_>>());
        while open > 0 {
            kit.reactor.collect(|key| queue.push(key));
            for key in std::mem::take(&mut queue) {
                match relays[key].as_mut().map(Relay::turn) {
                    Some(Turn::Over(end)) => {
                        drop(relays[key].take().map(|relay| relay.close(&end)));
                        open -= 1;
                    }
                    Some(Turn::Spent) => queue.push(key),
                    Some(Turn::Waiting) | None => {}
                }
            }
            if open > 0 {
                poll_fn(|cx| kit.reactor.poll_ready(cx)).await;
            }
        }
    });
    // Nanoseconds on a core, nanoseconds waiting, time slices.
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").expect("the kernel counts");
    let nanos: f64 = text.split(' ').next().and_then(|word| word.parse().ok()).expect("a number");
    nanos / 1e3
}

/// One message on every session, then all answers, again and again.
fn ask(clients: &mut [TcpStream], size: usize, time: Duration) -> u64 {
    let (message, mut answer) = (vec![7; size], vec![0; size]);
    let (start, mut round_trips) = (Instant::now(), 0);
    while start.elapsed() < time {
        for client in clients.iter_mut() {
            client.write_all(&message).expect("it is read");
        }
        for client in clients.iter_mut() {
            client.read_exact(&mut answer).expect("the answer comes");
        }
        round_trips += clients.len() as u64;
    }
    round_trips
}

fn echo_until_the_end(mut backends: Vec<TcpStream>, size: usize) {
    let mut message = vec![0; size];
    loop {
        for backend in &mut backends {
            // The clients are gone between two messages, so this is the end and not a part.
            if backend.read_exact(&mut message).is_err() {
                return;
            }
            backend.write_all(&message).expect("it is read");
        }
    }
}

fn pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let one = TcpStream::connect(listener.local_addr().expect("bound")).expect("a connection");
    let other = listener.accept().expect("a connection").0;
    for socket in [&one, &other] {
        socket.set_nodelay(true).expect("an option");
    }
    (one, other)
}
