use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;

use super::*;

const SETUP: Setup = Setup { buffers: 4, buffer_bytes: 16, receive_bytes_max: 64 };

/// Runs `test` with a ring; says so where this machine has none.
fn with_ring(setup: Setup, test: impl FnOnce(&mut Ring)) {
    let reactor = Rc::new(Reactor::new().expect("descriptors"));
    match Ring::new(setup, &reactor) {
        Ok(mut ring) => {
            assert_eq!((ring.in_flight(), ring.buffers_taken()), (0, 0));
            test(&mut ring);
        }
        Err(error) => eprintln!("SKIPPED: a test of the ring: {error}"),
    }
}

fn pair() -> (UnixStream, Rc<OwnedFd>) {
    let (ours, rings) = UnixStream::pair().expect("a pair");
    (ours, Rc::new(rings.into()))
}

/// The next completion, waiting for it.
fn next(ring: &mut Ring) -> Done {
    for _ in 0..100 {
        if let Some(done) = ring.completion() {
            return done;
        }
        ring.enter_and_wait(Duration::from_millis(100)).expect("it can be entered");
    }
    panic!("no completion came")
}

fn errno(done: &Done) -> Option<i32> {
    done.result.as_ref().err().and_then(io::Error::raw_os_error)
}

#[test]
fn bytes_come_in_order_while_the_buffers_go_round() {
    with_ring(SETUP, |ring| {
        let (mut near, far) = pair();
        let (mut sent, mut came) = (Vec::new(), Vec::new());
        let mut armed = false;
        for at in 0..40_u8 {
            let message = vec![at; 1 + usize::from(at) % 16];
            near.write_all(&message).expect("room");
            sent.extend_from_slice(&message);
            while came.len() < sent.len() {
                if !armed {
                    ring.receive(&far, 7);
                }
                let done = next(ring);
                armed = done.goes_on;
                assert_eq!(done.owner, 7);
                came.extend_from_slice(done.chunk.expect("bytes").bytes());
            }
        }
        assert_eq!(came, sent);
        assert_eq!(ring.buffers_taken(), 0);
    });
}

#[test]
fn an_end_is_a_completion_without_bytes_and_the_last_one() {
    with_ring(SETUP, |ring| {
        let (mut near, far) = pair();
        near.write_all(b"last words").expect("room");
        drop(near);
        ring.receive(&far, 1);
        let first = next(ring);
        assert_eq!(first.chunk.as_ref().expect("bytes").bytes(), b"last words");
        assert!(first.goes_on);
        let end = next(ring);
        assert_eq!((end.result.ok(), end.goes_on), (Some(0), false));
        assert_eq!(ring.in_flight(), 0);
    });
}

#[test]
fn without_buffers_a_receive_ends_and_goes_on_when_one_is_back() {
    with_ring(Setup { receive_bytes_max: 1 << 20, ..SETUP }, |ring| {
        let (mut near, far) = pair();
        near.write_all(&[9; 100]).expect("room");
        ring.receive(&far, 1);
        let mut held = Vec::new();
        let refused = loop {
            let done = next(ring);
            match done.chunk {
                Some(chunk) => held.push(chunk),
                None => break done,
            }
        };
        assert_eq!((errno(&refused), refused.goes_on), (Some(libc::ENOBUFS), false));
        assert_eq!((held.len(), ring.buffers_taken()), (4, 4));
        held.pop();
        ring.receive(&far, 1);
        assert_eq!(next(ring).result.expect("a buffer was back"), 16);
    });
}

#[test]
fn a_limited_receive_takes_no_more_than_its_limit() {
    with_ring(Setup { receive_bytes_max: 32, ..SETUP }, |ring| {
        if !ring.is_limited() {
            eprintln!("SKIPPED: a_limited_receive_takes_no_more_than_its_limit: before 6.17");
            return;
        }
        let (mut near, far) = pair();
        near.write_all(&[9; 64]).expect("room");
        ring.receive(&far, 1);
        let mut held = Vec::new();
        loop {
            let done = next(ring);
            held.extend(done.chunk);
            if !done.goes_on {
                break;
            }
        }
        assert_eq!(held.iter().map(|chunk| chunk.bytes().len()).sum::<usize>(), 32);
    });
}

#[test]
fn a_cancelled_receive_completes_and_takes_nothing_more() {
    with_ring(SETUP, |ring| {
        let (mut near, far) = pair();
        let ticket = ring.receive(&far, 1);
        ring.enter().expect("it can be entered");
        ring.cancel(ticket);
        let done = next(ring);
        assert_eq!((errno(&done), done.goes_on), (Some(libc::ECANCELED), false));
        near.write_all(b"later").expect("room");
        ring.enter().expect("it can be entered");
        assert!(ring.completion().is_none());
        let socket = Rc::try_unwrap(far).expect("the ring has let go of it");
        let mut text = [0; 5];
        UnixStream::from(socket).read_exact(&mut text).expect("it is all there");
        assert_eq!(&text, b"later");
    });
}

#[test]
fn an_impatient_send_gives_back_what_finds_no_room_and_a_patient_one_waits_for_it() {
    with_ring(SETUP, |ring| {
        let (mut near, far) = pair();
        let mut sent = 0;
        let mut chunk = Chunk::owned(vec![5; 1 << 16]);
        loop {
            ring.send(&far, chunk, Patience::None, 1);
            let done = next(ring);
            chunk = done.chunk.expect("it comes back");
            match done.result {
                Ok(bytes) => {
                    sent += bytes as usize;
                    chunk.advance(bytes as usize);
                    if chunk.bytes().is_empty() {
                        chunk = Chunk::owned(vec![5; 1 << 16]);
                    }
                }
                Err(error) => break assert_eq!(error.raw_os_error(), Some(libc::EAGAIN)),
            }
        }
        ring.send(&far, chunk, Patience::UntilRoom, 2);
        ring.enter().expect("it can be entered");
        assert!(ring.completion().is_none(), "there is no room yet");
        near.read_exact(&mut vec![0; sent]).expect("all that was sent");
        let done = next(ring);
        assert_eq!(done.owner, 2);
        assert!(done.result.expect("room") > 0);
    });
}

#[test]
fn a_watch_says_when_the_peer_is_gone_and_not_that_bytes_came() {
    with_ring(SETUP, |ring| {
        let (mut near, far) = pair();
        let mut gone = Vec::new();
        ring.watch(far.as_fd(), 3).expect("room in epoll");
        near.write_all(b"noise").expect("room");
        near.shutdown(std::net::Shutdown::Write).expect("it is open");
        ring.enter_and_wait(Duration::from_millis(5)).expect("it can be entered");
        assert!(ring.completion().is_none());
        ring.take_hung_up(&mut gone);
        assert!(gone.is_empty());
        drop(near);
        for _ in 0..100 {
            ring.enter_and_wait(Duration::from_millis(20)).expect("it can be entered");
            assert!(ring.completion().is_none());
            ring.take_hung_up(&mut gone);
            if !gone.is_empty() {
                break;
            }
        }
        assert_eq!(gone, [3], "it is said once");
    });
}

#[test]
fn a_ring_that_is_dropped_lets_go_of_sockets_and_bytes() {
    let (near, far) = pair();
    with_ring(SETUP, |ring| {
        ring.receive(&far, 1);
        for _ in 0..8 {
            ring.send(&far, Chunk::owned(vec![5; 1 << 20]), Patience::UntilRoom, 2);
        }
        ring.enter().expect("it can be entered");
        assert!(ring.in_flight() > 0);
    });
    assert_eq!(Rc::strong_count(&far), 1);
    drop((near, far));
}

#[test]
fn more_operations_than_the_queue_has_room_for_are_all_carried_out() {
    with_ring(SETUP, |ring| {
        let pairs: Vec<_> = (0..600).map(|_| pair()).collect();
        for (at, (_, far)) in pairs.iter().enumerate() {
            ring.send(far, Chunk::owned(vec![1]), Patience::None, at as u64);
        }
        let mut owners: Vec<u64> = (0..600).map(|_| next(ring).owner).collect();
        owners.sort_unstable();
        assert!(owners.iter().copied().eq(0..600));
    });
}

#[test]
fn a_ring_does_nothing_but_what_it_is_for() {
    with_ring(SETUP, |ring| {
        let (near, far) = pair();
        let flight = || Flight { owner: 7, _socket: Rc::clone(&far), sending: None };
        let others = [
            opcode::Nop::new().build(),
            opcode::Close::new(types::Fd(near.as_raw_fd())).build(),
            opcode::Shutdown::new(types::Fd(near.as_raw_fd()), libc::SHUT_RDWR).build(),
        ];
        for entry in others {
            ring.push(entry, flight());
            assert_eq!(errno(&next(ring)), Some(libc::EACCES));
        }
        let submitter = ring.io.submitter();
        let refused =
            submitter.register_files(&[near.as_raw_fd()]).expect_err("it is not for files");
        assert_eq!(refused.raw_os_error(), Some(libc::EACCES));
    });
}

/// What comes, as long as something comes.
fn all_of(ring: &mut Ring, wanted: usize) -> Vec<u8> {
    let mut came = Vec::new();
    for _ in 0..20 {
        while let Some(done) = ring.completion() {
            came.extend(done.chunk.iter().flat_map(|chunk| chunk.bytes().to_vec()));
        }
        if came.len() >= wanted {
            break;
        }
        ring.enter_and_wait(Duration::from_millis(50)).expect("it can be entered");
    }
    came
}

#[test]
fn bytes_behind_an_urgent_one_come_though_nobody_was_there_when_they_did() {
    use socket2::SockRef;
    use std::sync::atomic::{AtomicBool, Ordering};
    with_ring(SETUP, |ring| {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        let near = std::net::TcpStream::connect(listener.local_addr().expect("bound"))
            .expect("a connection");
        let far: Rc<OwnedFd> = Rc::new(listener.accept().expect("it comes").0.into());
        ring.receive(&far, 1);
        ring.enter().expect("it can be entered");
        let sent = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                (&near).write_all(b"AB").expect("room");
                SockRef::from(&near).send_out_of_band(b"!").expect("room");
                (&near).write_all(b"CD").expect("room");
                sent.store(true, Ordering::Release);
            });
            // Without a call: each would have the ring look at what came so far.
            while !sent.load(Ordering::Acquire) {
                std::hint::spin_loop();
            }
        });
        assert_eq!(all_of(ring, 4), b"ABCD");
    });
}
