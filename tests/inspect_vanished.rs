//! Mode `inspect`: the heartbeat of sides that are quiet, and of sides that are not there any more.

mod support;

use std::io::Write;
use std::thread;
use std::time::{Duration, Instant};

use socket2::{SockFilter, SockRef};
use support::Engine;
use support::frames::{CLOSE, Inspected, PING, PONG, Sender, TEXT, receive};

#[test]
fn a_side_that_vanished_is_given_up_though_what_it_was_sent_never_left() {
    for sender in Sender::BOTH {
        let route = "[route.heartbeat]\ninterval = \"100ms\"\ntimeout = \"300ms\"\n";
        let mut session = Inspected::new(Engine::Splice, route);
        session.passes(sender, &sender.whole(TEXT, "hello"));
        let (gone, other) = session.ends(sender);
        // Drops all that comes to it, so that nothing is acknowledged: as if its cable had been cut.
        let drop_all = SockFilter::new(6, 0, 0, 0);
        SockRef::from(&*gone).attach_filter(&[drop_all]).expect("a filter");
        let mut answering = other.try_clone().expect("a descriptor");
        let there = if sender == Sender::Client { Sender::Server } else { Sender::Client };
        let answers = thread::spawn(move || {
            while let Some(frame) = receive(&mut answering) {
                if frame.opcode() == PING {
                    let _ = answering.write_all(&there.whole(PONG, &frame.payload));
                }
            }
        });
        let line = session.gw.line();
        assert_eq!(line["close_reason"], "heartbeat_timeout", "{line}");
        assert_eq!(line["side"], sender.word(), "{line}");
        answers.join().expect("it has ended");
        session.gw.stop();
    }
}

#[test]
fn a_quiet_side_is_given_up_though_the_other_is_pinged_at_the_same_time() {
    // Whether both are looked at in the same moment is left to chance.
    let sessions: Vec<_> = (0..8)
        .map(|_| {
            thread::spawn(|| {
                let route = "[route.heartbeat]\ninterval = \"100ms\"\ntimeout = \"400ms\"\n";
                let mut session = Inspected::new(Engine::Splice, route);
                let mut client = session.client.try_clone().expect("a descriptor");
                let answers = thread::spawn(move || {
                    while let Some(frame) = receive(&mut client) {
                        if frame.opcode() == PING {
                            let _ = client.write_all(&Sender::Client.whole(PONG, &frame.payload));
                        }
                    }
                });
                let mut pings = 0;
                while receive(&mut session.server).expect("a frame").opcode() != CLOSE {
                    pings += 1;
                }
                answers.join().expect("it has ended");
                session.line().0.stop();
                pings
            })
        })
        .collect();
    for session in sessions {
        assert_eq!(session.join().expect("it was given up"), 1, "pings without an answer");
    }
}

#[test]
fn a_quiet_side_is_pinged_again_an_interval_after_it_has_answered() {
    let route = "[route.heartbeat]\ninterval = \"50ms\"\ntimeout = \"15s\"\n";
    let mut session = Inspected::new(Engine::Splice, route);
    let began = Instant::now();
    for _ in 0..3 {
        let ping = receive(&mut session.client).expect("a ping");
        session.client.write_all(&Sender::Client.whole(PONG, &ping.payload)).expect("sent");
    }
    // The timeout is for an answer that does not come.
    assert!(began.elapsed() < Duration::from_secs(15), "{:?}", began.elapsed());
    session.line().0.stop();
}
