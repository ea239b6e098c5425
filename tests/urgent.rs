//! Urgent (out of band) bytes, where splice(2) would wait for ever (rule R3).
//!
//! An urgent byte is no part of the stream: a receive without `SO_OOBINLINE` skips it, so the sink gets what a
//! program behind that socket would have read: "AB", "!" urgent, "CD" arrives as "ABCD". Only when a second
//! urgent byte follows before the first is reached does the kernel turn the first into an ordinary byte.

#[path = "support/joined.rs"]
mod joined;
mod support;

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};

use joined::{Joined, Side};
use socket2::SockRef;
use support::{Engine, Pattern, Runtime};

contract!(
    an_urgent_byte_first_does_not_stop_what_follows,
    an_urgent_byte_in_the_middle_does_not_stop_what_follows,
    an_urgent_byte_last_does_not_stop_the_end,
    bytes_between_an_urgent_byte_and_the_end_are_not_lost,
    a_thousand_urgent_bytes_leave_the_stream_exact,
    urgent_bytes_in_full_flow_leave_the_stream_exact,
);

fn an_urgent_byte_first_does_not_stop_what_follows(engine: Engine, runtime: Runtime) {
    each_way(engine, runtime, |mut source, sink| {
        urgent(source);
        source.write_all(b"ABCD").expect("the gateway reads");
        expect(sink, b"ABCD");
    });
}

fn an_urgent_byte_in_the_middle_does_not_stop_what_follows(engine: Engine, runtime: Runtime) {
    each_way(engine, runtime, |mut source, sink| {
        source.write_all(b"AB").expect("the gateway reads");
        urgent(source);
        source.write_all(b"CD").expect("the gateway reads");
        expect(sink, b"ABCD");
        // And the direction is as good as before.
        source.write_all(b"EF").expect("the gateway reads");
        expect(sink, b"EF");
    });
}

fn an_urgent_byte_last_does_not_stop_the_end(engine: Engine, runtime: Runtime) {
    each_way(engine, runtime, |mut source, mut sink| {
        source.write_all(b"AB").expect("the gateway reads");
        urgent(source);
        source.shutdown(Shutdown::Write).expect("it was open");
        let mut bytes = Vec::new();
        sink.read_to_end(&mut bytes).expect("the end comes");
        assert_eq!(bytes, b"AB");
    });
}

/// All in the gateway's receive queue before it reads: splice says 0 there, as it does at an end.
fn bytes_between_an_urgent_byte_and_the_end_are_not_lost(engine: Engine, runtime: Runtime) {
    for side in Side::BOTH {
        let joined = Joined::new(engine, runtime);
        let (mut source, mut sink) = joined.from(side);
        let sent = joined::send_until_paused(&joined.gw, source, side.direction(), 1);
        let sending = source.try_clone().expect("a descriptor");
        let sending = std::thread::spawn(move || {
            let mut source = &sending;
            urgent(source);
            source.write_all(b"CD").expect("the gateway reads");
            source.shutdown(Shutdown::Write).expect("it was open");
        });
        let mut bytes = Vec::new();
        sink.read_to_end(&mut bytes).expect("the end comes");
        sending.join().expect("all was sent");
        assert_eq!(bytes.len(), sent + 2);
        Pattern::new(1).check(&bytes[..sent]);
        assert_eq!(&bytes[sent..], b"CD");
        source.flush().expect("nothing is buffered");
        joined.ended();
    }
    // The same without a full pipe, often: here the order of arrival and reading is left to chance.
    for _ in 0..50 {
        each_way(engine, runtime, |mut source, mut sink| {
            source.write_all(b"AB").expect("the gateway reads");
            urgent(source);
            source.write_all(b"CD").expect("the gateway reads");
            source.shutdown(Shutdown::Write).expect("it was open");
            let mut bytes = Vec::new();
            sink.read_to_end(&mut bytes).expect("the end comes");
            assert_eq!(bytes, b"ABCD");
        });
    }
}

fn a_thousand_urgent_bytes_leave_the_stream_exact(engine: Engine, runtime: Runtime) {
    each_way(engine, runtime, |mut source, mut sink| {
        let mut pattern = Pattern::new(4);
        let mut piece = [0; 10];
        for _ in 0..1000 {
            let bytes = pattern.take(piece.len());
            source.write_all(&bytes).expect("the gateway reads");
            urgent(source);
            // One at a time: an urgent byte that another overtakes would become part of the stream.
            sink.read_exact(&mut piece).expect("the bytes come");
            assert_eq!(piece, *bytes);
        }
    });
}

/// Here urgent bytes overtake each other, and some become ordinary ones; no other byte may come or go.
fn urgent_bytes_in_full_flow_leave_the_stream_exact(engine: Engine, runtime: Runtime) {
    const PIECES: usize = 1000;
    each_way(engine, runtime, |mut source, mut sink| {
        let sending = source.try_clone().expect("a descriptor");
        std::thread::scope(|scope| {
            scope.spawn(move || {
                for _ in 0..PIECES {
                    (&sending).write_all(&[b'.'; 1000]).expect("the gateway reads");
                    urgent(&sending);
                }
                sending.shutdown(Shutdown::Write).expect("it was open");
            });
            let mut bytes = Vec::new();
            sink.read_to_end(&mut bytes).expect("the end comes");
            let urgent = bytes.iter().filter(|&&byte| byte == b'!').count();
            assert!(urgent <= PIECES, "{urgent}");
            assert_eq!(bytes.len() - urgent, PIECES * 1000);
            assert!(bytes.iter().all(|byte| b".!".contains(byte)));
        });
        source.flush().expect("nothing is buffered");
    });
}

/// Runs `script` with the client as the source, then with the backend; the log says why bytes were copied.
fn each_way(engine: Engine, runtime: Runtime, script: impl Fn(&TcpStream, &TcpStream)) {
    for side in Side::BOTH {
        let joined = Joined::new(engine, runtime);
        let (source, sink) = joined.from(side);
        script(source, sink);
        let line = joined.ended();
        assert_eq!(line["close_reason"], "completed", "{line}");
        // One byte changes no engine.
        engine.assert_named(&line);
        for reason in line["fallback"].as_array().expect("a list") {
            assert_eq!(reason, "oob", "{line}");
        }
    }
}

fn expect(mut sink: &TcpStream, bytes: &[u8]) {
    let mut read = vec![0; bytes.len()];
    sink.read_exact(&mut read).expect("the bytes come");
    assert_eq!(read, bytes);
}

fn urgent(socket: &TcpStream) {
    let sent = SockRef::from(socket).send_out_of_band(b"!");
    assert_eq!(sent.expect("there is room"), 1);
}
