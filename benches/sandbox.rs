//! What the sandbox costs per system call: one thread outside, one inside, in turns, each the same calls.
//! `scripts/notes/0025.py` runs it; see the note for what it says.

use std::io::Read;
use std::net::{TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use upsplice::sys::sandbox::{Needs, confine};
use upsplice::sys::thread::{cores, keep_to};

/// What a call is to the filter, its name, and how it is made once.
type Subject = (&'static str, &'static str, fn(&TcpStream));

const SUBJECTS: [Subject; 4] = [
    ("no condition, does nothing", "getppid", |_| {
        std::hint::black_box(std::os::unix::process::parent_id());
    }),
    ("no condition, data path", "recvfrom, EAGAIN", |mut socket| {
        let _ = socket.read(&mut [0; 64]);
    }),
    ("a condition", "ioctl FIONBIO", |socket| {
        socket.set_nonblocking(true).expect("it is a socket");
    }),
    ("a condition, per connection", "socket and close", |_| {
        drop(std::net::UdpSocket::bind("127.0.0.1:0").expect("a port"));
    }),
];

/// A thread that makes calls when it is told how many of which, and answers how long that took.
struct Caller {
    told: Sender<(usize, u32)>,
    took: Receiver<Duration>,
}

impl Caller {
    fn start(confined: bool) -> Caller {
        let (told, orders) = channel();
        let (answer, took) = channel();
        thread::spawn(move || {
            // Both on one core, as cores differ by more than this is about; they take turns.
            if let Some(&core) = cores().last() {
                keep_to(&[core]).expect("one of our cores");
            }
            if confined {
                confine(&Needs::default()).calls.expect("this kernel filters");
            }
            let (listener, socket) = connection();
            for (subject, count) in orders {
                let (_, _, call): Subject = SUBJECTS[subject];
                let start = Instant::now();
                for _ in 0..count {
                    call(&socket);
                }
                answer.send(start.elapsed()).expect("it is waited for");
            }
            drop(listener);
        });
        Caller { told, took }
    }

    /// Nanoseconds per call.
    fn measure(&self, subject: usize, count: u32) -> f64 {
        self.told.send((subject, count)).expect("it waits");
        self.took.recv().expect("it answers").as_nanos() as f64 / f64::from(count)
    }
}

/// A socket on which nothing comes.
fn connection() -> (TcpListener, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let socket = TcpStream::connect(listener.local_addr().expect("bound")).expect("it listens");
    socket.set_nonblocking(true).expect("it is a socket");
    (listener, socket)
}

fn main() {
    // Without numbers it only shows that it works: that is what `cargo test --benches` and `cargo bench` want.
    let numbers: Vec<u32> = std::env::args().filter_map(|word| word.parse().ok()).collect();
    let (rounds, count) = match numbers[..] {
        [rounds, count] => (rounds, count),
        _ => (1, 100),
    };
    let callers = [Caller::start(false), Caller::start(true)];
    for (at, (what, call, _)) in SUBJECTS.iter().enumerate() {
        // The least of several: what disturbs only ever adds.
        let mut least = [f64::MAX; 2];
        for _ in 0..rounds {
            for (least, caller) in least.iter_mut().zip(&callers) {
                *least = least.min(caller.measure(at, count));
            }
        }
        println!("{what}\t{call}\t{:.1}\t{:.1}", least[0], least[1]);
    }
}
