//! Mode `inspect`: pings of the gateway's own, beside all that the sides say.

mod support;

use std::io::Write;
use std::net::TcpStream;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::Duration;

use support::frames::{
    BINARY, CLOSE, Inspected, PING, PONG, Received, Sender, TEXT, code, receive,
};
use support::{Engine, Runtime, eventually};
use upsplice::metrics;
use upsplice::server::Move;

/// The timeout is longer than any pause of a loaded machine.
const PATIENT: &str = "[route.heartbeat]\ninterval = \"50ms\"\ntimeout = \"2s\"\n";

/// One side, which tells the gateway's pings from those of the other side.
struct End {
    socket: TcpStream,
    sender: Sender,
    /// What the gateway's pings begin with, and how many were answered.
    mark: Vec<u8>,
    answered: u32,
}

impl End {
    /// Waits for the first ping, and does not answer it.
    fn new(session: &mut Inspected, sender: Sender) -> End {
        let mut socket = session.ends(sender).0.try_clone().expect("a descriptor");
        let ping = receive(&mut socket).expect("a ping");
        assert_eq!((ping.opcode(), ping.payload.len()), (PING, 8), "{ping:?}");
        assert_eq!(ping.masked, sender == Sender::Server, "{ping:?}");
        let mut end = End { socket, sender, mark: ping.payload[..4].to_vec(), answered: 0 };
        end.answer(&ping);
        end
    }

    fn send(&mut self, bytes: &[u8]) {
        self.socket.write_all(bytes).expect("sent");
    }

    fn answer(&mut self, ping: &Received) {
        self.send(&self.sender.whole(PONG, &ping.payload));
        self.answered += 1;
    }

    fn is_ping(&self, frame: &Received) -> bool {
        frame.opcode() == PING && frame.payload.starts_with(&self.mark)
    }

    /// The next ping of the gateway; fails if anything else comes first.
    fn ping(&mut self) -> Received {
        let ping = receive(&mut self.socket).expect("a ping");
        assert!(self.is_ping(&ping), "{ping:?}");
        ping
    }

    /// The next frame of the other side; pings before it are answered.
    fn next(&mut self) -> Received {
        loop {
            let frame = receive(&mut self.socket).expect("a frame");
            if !self.is_ping(&frame) {
                return frame;
            }
            self.answer(&frame);
        }
    }
}

fn both(session: &mut Inspected) -> (End, End) {
    (End::new(session, Sender::Client), End::new(session, Sender::Server))
}

#[test]
fn sides_that_answer_stay_and_each_hears_only_the_other() {
    std::thread::scope(|scope| {
        for depth in ["frames", "payload"] {
            scope.spawn(move || each_hears_only_the_other(depth));
        }
    });
}

fn each_hears_only_the_other(depth: &str) {
    let route = format!("inspect = \"{depth}\"\n{PATIENT}");
    let mut session = Inspected::new(Engine::Splice, &route);
    let (mut client, mut server) = both(&mut session);
    for round in 0..2 {
        for end in [&mut client, &mut server] {
            let ping = end.ping();
            end.answer(&ping);
        }
        // As long as ours, and an answer to nothing.
        let own = format!("app-{round:04}");
        client.send(&Sender::Client.whole(PING, &own));
        server.send(&Sender::Server.whole(PONG, &own));
        let came = server.next();
        assert_eq!((came.opcode(), &*came.payload), (PING, own.as_bytes()));
        let came = client.next();
        assert_eq!((came.opcode(), &*came.payload), (PONG, own.as_bytes()));
        // What a ping of ours holds is no secret: in anything but a pong it means nothing.
        let back = [&client.mark[..], b"back"].concat();
        server.send(&Sender::Server.whole(BINARY, &back));
        assert_eq!(client.next().payload, back);
    }
    let answered = u64::from(client.answered + server.answered);
    drop((client, server));
    let pings = session.counted(Sender::Client).pings + session.counted(Sender::Server).pings;
    assert!(pings >= answered && answered >= 4, "{pings} pings, {answered} answers");
    let (gw, line) = session.line();
    assert_eq!(line["close_reason"], "completed", "{line}");
    // Two bytes of header, and a mask from the client.
    let dropped = line["bytes_dropped"].as_u64().expect("a number");
    assert!((10 * answered..=14 * answered).contains(&dropped), "{answered}: {line}");
    gw.stop();
}

#[test]
fn the_side_that_does_not_answer_is_named_and_both_are_told() {
    for silent in Sender::BOTH {
        let route = "[route.heartbeat]\ninterval = \"100ms\"\ntimeout = \"500ms\"\n";
        let mut session = Inspected::new(Engine::Splice, route);
        let loud = if silent == Sender::Client { Sender::Server } else { Sender::Client };
        let (quiet, talking) = session.ends(silent);
        let mut talking = talking.try_clone().expect("a descriptor");
        // What it says goes nowhere, and shows that it is there.
        let mut mouth = talking.try_clone().expect("a descriptor");
        let (over, is_over) = channel::<()>();
        let saying = std::thread::spawn(move || {
            while is_over.recv_timeout(Duration::from_millis(20)) == Err(RecvTimeoutError::Timeout)
            {
                // The session may end at any moment.
                let _ = mouth.write_all(&loud.whole(PONG, "here"));
            }
        });
        let mut pings = 0;
        let close = loop {
            let frame = receive(quiet).expect("a frame");
            match frame.opcode() {
                PING => pings += 1,
                PONG => assert_eq!(frame.payload, b"here"),
                _ => break frame,
            }
        };
        assert!(pings > 0, "it was not asked");
        assert_eq!((close.code(), &close.payload[2..]), (1011, &b"no pong"[..]), "{silent:?}");
        assert_eq!(close.masked, silent == Sender::Server);
        let close = receive(&mut talking).expect("a close");
        assert_eq!((close.code(), close.masked), (1001, loud == Sender::Server));
        drop((over, talking));
        saying.join().expect("it has ended");
        let (gw, line) = session.line();
        assert_eq!(line["close_reason"], "heartbeat_timeout", "{line}");
        assert_eq!(line["side"], silent.word(), "{line}");
        gw.stop();
    }
}

#[test]
fn a_session_that_moves_keeps_its_pings_and_their_answers() {
    let mut session = Inspected::in_two_workers(Engine::Splice, Runtime::Epoll, PATIENT);
    let (mut client, mut server) = both(&mut session);
    let gateway = &session.gw.gateway;
    let id = gateway.sessions().pop().expect("it is in a worker").id;
    for round in 0..3 {
        // Both were asked before the move, and answer after it.
        let pings = (client.ping(), server.ping());
        let engine = [None, Some(metrics::Engine::Copy), Some(metrics::Engine::Splice)][round % 3];
        let before = gateway.metrics().detached;
        let to = Move { worker: (round + 1) % 2, engine };
        eventually("it takes the order", || gateway.move_session(&id, to));
        eventually("it has moved", || gateway.metrics().detached > before);
        client.answer(&pings.0);
        server.answer(&pings.1);
        // Those answers went no further.
        client.send(&Sender::Client.whole(BINARY, [round as u8; 20_000]));
        assert_eq!(server.next().payload, [round as u8; 20_000]);
        server.send(&Sender::Server.whole(TEXT, "yes"));
        assert_eq!(client.next().payload, b"yes");
    }
    drop((client, server));
    let (gw, line) = session.line();
    assert_eq!(line["close_reason"], "completed", "{line}");
    gw.stop();
}

#[test]
fn a_ping_waits_for_the_end_of_the_frame_that_is_on_its_way() {
    std::thread::scope(|scope| {
        for sender in Sender::BOTH {
            for (engine, depth, opcode) in [
                (Engine::Splice, "frames", BINARY),
                (Engine::Copy, "frames", BINARY),
                (Engine::Splice, "payload", TEXT),
            ] {
                scope.spawn(move || a_frame_is_asked_nothing(sender, engine, depth, opcode));
            }
        }
    });
}

/// A frame of `sender` stops half way, for longer than anybody may be quiet.
fn a_frame_is_asked_nothing(sender: Sender, engine: Engine, depth: &str, opcode: u8) {
    const PAYLOAD: usize = 1 << 20;
    let heartbeat = "[route.heartbeat]\ninterval = \"200ms\"\ntimeout = \"10s\"\n";
    let route = format!("inspect = \"{depth}\"\n{heartbeat}");
    let mut session = Inspected::new(engine, &route);
    let frame = sender.whole(opcode, vec![b'x'; PAYLOAD]);
    let (first, second) = frame.split_at(PAYLOAD / 3);
    session.passes(sender, first);
    // Both sides are quiet now, and the one to whom nothing is on its way is asked.
    let (source, _) = session.ends(sender);
    assert_eq!(receive(source).expect("a ping").opcode(), PING);
    session.passes(sender, second);
    // At the end of the frame, so is the other.
    let (_, sink) = session.ends(sender);
    assert_eq!(receive(sink).expect("a ping").opcode(), PING);
    session.line().0.stop();
}

#[test]
fn an_answer_that_a_rate_keeps_back_was_given() {
    let route = "[route.limits.to_upstream]\nmessages_per_second = 4\n\
                 [route.heartbeat]\ninterval = \"50ms\"\ntimeout = \"150ms\"\n";
    let mut session = Inspected::new(Engine::Splice, route);
    // Four pass at once; the last of the others does more than two seconds later, and what is behind it, too.
    let texts: Vec<u8> = (0..8).flat_map(|n| Sender::Client.whole(TEXT, format!("{n}"))).collect();
    session.client.write_all(&texts).expect("sent");
    let mut answering = session.client.try_clone().expect("a descriptor");
    let client = std::thread::spawn(move || {
        while let Some(frame) = receive(&mut answering) {
            if frame.opcode() == CLOSE {
                return frame.code();
            }
            let _ = answering.write_all(&Sender::Client.whole(PONG, &frame.payload));
        }
        0
    });
    let mut texts = 0;
    while texts < 8 {
        let frame = receive(&mut session.server).expect("a frame");
        match frame.opcode() {
            TEXT => texts += 1,
            PING => {
                let pong = Sender::Server.whole(PONG, &frame.payload);
                session.server.write_all(&pong).expect("sent");
            }
            other => panic!("{other}: {frame:?}"),
        }
    }
    session.server.write_all(&Sender::Server.whole(CLOSE, code(1000, ""))).expect("sent");
    assert_eq!(client.join().expect("it ended"), 1000);
    let (gw, line) = session.line();
    assert_eq!(line["close_reason"], "completed", "{line}");
    gw.stop();
}
