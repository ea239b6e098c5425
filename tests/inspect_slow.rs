//! Mode `inspect`: a side that sends more than it may is slowed, and never stopped for good.

mod support;

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use support::frames::{BINARY, CONTINUATION, FIN, Inspected, PING, PONG, Sender, TEXT, receive};
use support::{Engine, Pattern};

const ENGINES: [(Engine, &str); 3] =
    [(Engine::Splice, "frames"), (Engine::Copy, "frames"), (Engine::Splice, "payload")];

/// A session with these limits for what `sender` sends.
fn slowed(engine: Engine, depth: &str, sender: Sender, limits: &str) -> Inspected {
    let table = sender.direction();
    Inspected::new(engine, &format!("inspect = \"{depth}\"\n[route.limits.{table}]\n{limits}"))
}

/// Sends, and ends its direction if that `is_last`.
fn sending(socket: &TcpStream, bytes: Vec<u8>, is_last: bool) -> JoinHandle<()> {
    let mut socket = socket.try_clone().expect("a descriptor");
    thread::spawn(move || {
        socket.write_all(&bytes).expect("the gateway reads");
        if is_last {
            socket.shutdown(Shutdown::Write).expect("it was open");
        }
    })
}

/// Frames of these sizes of payload.
fn frames(sender: Sender, sizes: &[usize]) -> Vec<u8> {
    let mut payload = Pattern::new(1);
    sizes.iter().flat_map(|&size| sender.whole(BINARY, payload.take(size))).collect()
}

/// What has to wait, once `at_once` of `all` came at once and so many may per second.
fn wait_for(all: usize, at_once: usize, per_second: usize) -> Duration {
    Duration::from_secs_f64((all - at_once) as f64 / per_second as f64)
}

#[test]
fn bytes_that_are_exactly_what_may_come_pass_at_once_and_the_next_ones_after_a_wait() {
    /// As large as the buffer that a worker receives with.
    const BUFFER: usize = 64 * 1024;
    for sender in Sender::BOTH {
        for (engine, depth) in ENGINES {
            let header = sender.whole(BINARY, vec![0; BUFFER]).len() - BUFFER;
            for rate in [BUFFER - 1, BUFFER, BUFFER + 1, 2 * BUFFER] {
                let limits = format!("bytes_per_second = {rate}");
                let mut session = slowed(engine, depth, sender, &limits);
                let began = Instant::now();
                let first = frames(sender, &[rate - header]);
                session.passes(sender, &first);
                // An eighth of a second's worth more.
                let second = frames(sender, &[rate / 8 - header]);
                session.passes(sender, &second);
                let least = wait_for(first.len() + second.len(), rate, rate);
                assert!(began.elapsed() >= least, "{rate}: {:?}", began.elapsed());
                assert!(session.counted(sender).rate_waits > 0, "{rate}: nothing waited");
                session.line().0.stop();
            }
        }
    }
}

#[test]
fn what_was_sent_before_the_end_comes_before_it_however_slowly() {
    for sender in Sender::BOTH {
        for (engine, depth) in ENGINES {
            for (limit, sizes) in [
                ("bytes_per_second = 100000", vec![100_000, 20_000, 1, 0]),
                ("bytes_per_second = 100000", vec![100; 1100]),
                ("messages_per_second = 20", vec![50; 26]),
            ] {
                let mut session = slowed(engine, depth, sender, limit);
                let bytes = frames(sender, &sizes);
                let (source, sink) = session.ends(sender);
                let sent = sending(source, bytes.clone(), true);
                let mut came = Vec::new();
                sink.read_to_end(&mut came).expect("an end");
                sent.join().expect("all was sent");
                assert!(came == bytes, "{limit}: {} of {} bytes", came.len(), bytes.len());
                let (gw, line) = session.line();
                assert_eq!(line["close_reason"], "completed", "{line}");
                assert_eq!(line["bytes_dropped"], 0, "{line}");
                gw.stop();
            }
        }
    }
}

#[test]
fn both_sides_may_be_slowed_at_once() {
    const RATE: usize = 200_000;
    for (engine, depth) in ENGINES {
        let limits = format!("bytes_per_second = {RATE}");
        let route = format!(
            "inspect = \"{depth}\"\n[route.limits.to_upstream]\n{limits}\n\
             [route.limits.to_downstream]\n{limits}"
        );
        let mut session = Inspected::new(engine, &route);
        let began = Instant::now();
        let all = Sender::BOTH.map(|side| frames(side, &[100_000, 3, 120_000, 5000, 40_000]));
        let sent = [
            sending(&session.client, all[0].clone(), false),
            sending(&session.server, all[1].clone(), false),
        ];
        let mut came = vec![0; all[0].len()];
        session.server.read_exact(&mut came).expect("all comes");
        assert!(came == all[0], "what went up differs");
        came.resize(all[1].len(), 0);
        session.client.read_exact(&mut came).expect("all comes");
        assert!(came == all[1], "what went down differs");
        let least = wait_for(all[0].len(), RATE, RATE);
        assert!(began.elapsed() >= least, "{:?}", began.elapsed());
        sent.into_iter().for_each(|sent| sent.join().expect("all was sent"));
        for side in Sender::BOTH {
            assert!(session.counted(side).rate_waits > 0, "{side:?} was not slowed");
        }
        session.line().0.stop();
    }
}

#[test]
fn messages_and_control_frames_wait_in_their_order() {
    for sender in Sender::BOTH {
        // A message is one however many frames it has, and a control frame within it is none.
        let message = [
            sender.frame(TEXT, "begun"),
            sender.whole(PING, "in between"),
            sender.whole(CONTINUATION, ", and ended"),
        ]
        .concat();
        for (limit, count, units) in [
            ("messages_per_second = 10", 14, 14),
            ("control_per_second = 10", 14, 14),
            ("messages_per_second = 10\ncontrol_per_second = 20", 14, 14),
        ] {
            let mut session = slowed(Engine::Splice, "payload", sender, limit);
            let began = Instant::now();
            session.passes(sender, &message.repeat(count));
            let least = wait_for(units, 10, 10);
            assert!(began.elapsed() >= least, "{limit}: {:?}", began.elapsed());
            let way = session.counted(sender);
            assert_eq!((way.messages(), way.frames["ping"]), (14, 14), "{limit}");
            session.line().0.stop();
        }
    }
}

#[test]
fn who_waits_is_not_in_the_way_of_the_other_direction() {
    for sender in Sender::BOTH {
        let mut session = slowed(Engine::Splice, "frames", sender, "messages_per_second = 1");
        let answers = if sender == Sender::Client { Sender::Server } else { Sender::Client };
        session.passes(sender, &sender.whole(TEXT, "at once"));
        let (source, _) = session.ends(sender);
        source.write_all(&sender.whole(TEXT, "in a second")).expect("sent");
        // Until then, all that the other side says comes, and more than fits into any buffer.
        let mut exchanged = 0;
        while session.counted(sender).messages() < 2 {
            let ping = answers.whole(PING, "now");
            session.passes(answers, &[ping, frames(answers, &[100_000])].concat());
            exchanged += 1;
        }
        // One that had to wait for the slow side would be the only one.
        assert!(exchanged > 2, "only {exchanged} messages of the other side in a second");
        let (_, sink) = session.ends(sender);
        assert_eq!(receive(sink).expect("a text").payload, b"in a second");
        session.line().0.stop();
    }
}

#[test]
fn what_is_slowed_is_judged_as_ever() {
    for sender in Sender::BOTH {
        let mut session = slowed(Engine::Splice, "payload", sender, "bytes_per_second = 20000");
        let fine = sender.whole(TEXT, [b'x'; 24_000]);
        let bad = sender.frame(FIN | PONG | 0x40, "a reserved bit");
        let (source, sink) = session.ends(sender);
        let sent = sending(source, [&*fine, &bad].concat(), false);
        let mut came = vec![0; fine.len()];
        sink.read_exact(&mut came).expect("what is fine comes");
        assert!(came == fine, "it came differently");
        assert_eq!(receive(sink).expect("a close").code(), 1001);
        assert_eq!(receive(source).expect("a close").code(), 1002);
        sent.join().expect("all was sent");
        let (gw, line) = session.line();
        assert_eq!(line["violation"], "reserved_bit", "{line}");
        assert_eq!(line["violation_offset"], fine.len(), "{line}");
        gw.stop();
    }
}
