//! Mode `inspect`: what may come per second, and what may be made of it.

mod support;

use std::io::{Read, Write};
use std::thread;
use std::time::{Duration, Instant};

use support::Engine;
use support::frames::{
    BINARY, CLOSE, FIN, Inspected, MASK, TEXT, code, frame, ours, receive, theirs,
};
use zlib_rs::{Deflate, DeflateFlush};

/// More than a buffer, so that some of it waits in the gateway, and some in the sockets.
const FRAME: usize = 400_000;

#[test]
fn a_frame_of_any_size_passes_no_faster_than_its_bytes_may() {
    for engine in [Engine::Splice, Engine::Copy] {
        let limits = "[route.limits.to_upstream]\nbytes_per_second = \"256KiB\"";
        let mut session = Inspected::new(engine, limits);
        let began = Instant::now();
        let mut client = session.client.try_clone().expect("a descriptor");
        let sending = thread::spawn(move || {
            client.write_all(&ours(BINARY, vec![7; FRAME])).expect("sent");
            client.write_all(&ours(TEXT, "behind it")).expect("sent");
        });
        // The other direction is not slowed.
        for _ in 0..20 {
            session.server.write_all(&theirs(BINARY, vec![8; 100_000])).expect("sent");
            assert_eq!(receive(&mut session.client).expect("a frame").payload.len(), 100_000);
        }
        assert_eq!(receive(&mut session.server).expect("a frame").payload, vec![7; FRAME]);
        assert_eq!(receive(&mut session.server).expect("a frame").payload, b"behind it");
        // A second's worth came at once.
        let least = (FRAME - (256 << 10)) as f64 / f64::from(256 << 10);
        assert!(began.elapsed() >= Duration::from_secs_f64(least), "{:?}", began.elapsed());
        sending.join().expect("all was sent");
        assert!(session.gw.metrics().websocket.to_upstream.rate_waits > 0);
        session.client.write_all(&ours(CLOSE, code(1000, ""))).expect("sent");
        assert_eq!(receive(&mut session.server).expect("a close").code(), 1000);
        let (gw, line) = session.line();
        assert_eq!(line["violation"], serde_json::Value::Null, "{line}");
        gw.stop();
    }
}

#[test]
fn a_frame_that_no_second_may_hold_is_refused_by_its_header() {
    let limits = "[route.limits.to_upstream]\nbytes_per_second = 1000\non_excess = \"close\"";
    let mut session = Inspected::new(Engine::Splice, limits);
    session.client.write_all(&ours(TEXT, "fine")).expect("sent");
    // The header alone says it.
    session.client.write_all(&ours(BINARY, vec![0; 2000])[..8]).expect("sent");
    assert_eq!(receive(&mut session.server).expect("a frame").payload, b"fine");
    assert_eq!(receive(&mut session.server).expect("a close").code(), 1001);
    let close = receive(&mut session.client).expect("a close");
    assert_eq!((close.code(), &close.payload[2..]), (1008, &b"byte_rate"[..]));
    let (gw, line) = session.line();
    assert_eq!(
        (&line["close_reason"], &line["violation"]),
        (&"violation".into(), &"byte_rate".into())
    );
    gw.stop();
}

/// A compressed message that holds so many zeros.
fn zeros(count: usize) -> Vec<u8> {
    let mut packed = vec![0; count / 100];
    let mut deflate = Deflate::new(9, false, 15);
    deflate.compress(&vec![0; count], &mut packed, DeflateFlush::SyncFlush).expect("there is room");
    assert_eq!(deflate.total_in() as usize, count, "there was no room");
    // Without the tail that a message leaves out.
    packed.truncate(deflate.total_out() as usize - 4);
    packed
}

#[test]
fn what_becomes_much_more_than_it_was_takes_many_turns_and_passes() {
    let mut session = Inspected::compressing(Engine::Splice, "", "");
    // 32 MiB, far more than is inflated at a time, in one receive.
    let message = frame(FIN | 0x40 | BINARY, Some(MASK), &zeros(32 << 20));
    session.client.write_all(&message).expect("sent");
    session.client.write_all(&ours(TEXT, "behind it")).expect("sent");
    let mut came = vec![0; message.len()];
    session.server.read_exact(&mut came).expect("all comes");
    assert!(came == message, "it came differently");
    assert_eq!(receive(&mut session.server).expect("a frame").payload, b"behind it");
    let metrics = session.gw.metrics().websocket.to_upstream;
    assert_eq!((metrics.messages(), metrics.inflated_bytes), (2, 32 << 20));
    session.line().0.stop();
}

#[test]
fn inflating_is_limited_by_what_comes_out() {
    let limits = "[route.limits.to_upstream]\ninflated_bytes_per_second = \"4MiB\"";
    for (excess, is_slowed) in [("slow", true), ("close", false)] {
        let route = format!("{limits}\non_excess = \"{excess}\"");
        let mut session = Inspected::compressing(Engine::Splice, "", &route);
        let began = Instant::now();
        let message = frame(FIN | 0x40 | BINARY, Some(MASK), &zeros(8 << 20));
        session.client.write_all(&message).expect("sent");
        if is_slowed {
            let mut came = vec![0; message.len()];
            session.server.read_exact(&mut came).expect("all comes");
            assert!(came == message, "it came differently");
            // A second's worth comes at once, and the last piece, a quarter of it, is paid for when all has passed.
            assert!(began.elapsed() >= Duration::from_millis(700), "{:?}", began.elapsed());
        } else {
            let close = receive(&mut session.client).expect("a close");
            assert_eq!((close.code(), &close.payload[2..]), (1008, &b"inflated_rate"[..]));
        }
        let (gw, line) = session.line();
        assert_eq!(line["violation"].as_str(), (!is_slowed).then_some("inflated_rate"), "{line}");
        gw.stop();
    }
}
