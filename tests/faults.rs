//! Resets, in every situation that a session can be in (rule R9).

#[path = "support/joined.rs"]
mod joined;
mod support;

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use joined::{Joined, Leg, Side, expect_reset, send_until_paused};
use serde_json::Value;
use support::stream::send;
use support::{Engine, Gw, Pattern, Runtime, eventually};

contract!(
    a_reset_of_an_idle_session_is_passed_on,
    a_reset_in_full_flow_is_passed_on,
    a_reset_by_the_side_that_sends_to_a_blocked_sink_is_passed_on,
    a_reset_by_the_side_that_does_not_read_is_passed_on,
    a_reset_with_both_directions_blocked_is_passed_on,
    a_reset_by_the_side_that_had_ended_is_passed_on,
    a_reset_by_the_side_that_was_told_of_an_end_is_passed_on,
    bytes_queued_before_a_reset_are_delivered,
    a_stop_that_cuts_bytes_off_is_a_reset_and_no_end,
    a_unix_peer_that_closes_with_bytes_in_flight_ends_the_session,
    what_a_unix_peer_sent_before_it_closed_reaches_a_slow_reader,
);

fn a_reset_of_an_idle_session_is_passed_on(engine: Engine, runtime: Runtime) {
    for side in Side::BOTH {
        let joined = Joined::new(engine, runtime);
        expect_reset_line(joined.reset(side), side);
    }
}

fn a_reset_in_full_flow_is_passed_on(engine: Engine, runtime: Runtime) {
    for side in Side::BOTH {
        for sender in Side::BOTH {
            let joined = Joined::new(engine, runtime);
            let (source, sink) = joined.from(sender);
            let (source, sink) = (clone(source), clone(sink));
            let stop = Arc::new(AtomicBool::new(false));
            let stop_if = |own: Side| (own == side).then(|| Arc::clone(&stop));
            let (sender_stop, reader_stop) = (stop_if(sender), stop_if(other(sender)));
            let sending = std::thread::spawn(move || endless(source, sender_stop.as_deref()));
            let reading = std::thread::spawn(move || discard(sink, reader_stop.as_deref()));
            eventually("bytes flow", || joined.gw.metrics().taken(sender.direction()) > 4 << 20);
            stop.store(true, Ordering::Relaxed);
            let (resetting, other) =
                if sender == side { (sending, reading) } else { (reading, sending) };
            // The last holder of the socket makes the reset.
            resetting.join().expect("it ends").expect("it is told to stop before it can fail");
            let (gw, _socket) = joined.reset(side);
            let error = other.join().expect("it ends").expect_err("the reset is passed on");
            let reset = [ErrorKind::ConnectionReset, ErrorKind::BrokenPipe];
            assert!(reset.contains(&error.kind()), "{error}");
            expect_line(&gw.line(), side);
            finish(gw);
        }
    }
}

fn a_reset_by_the_side_that_sends_to_a_blocked_sink_is_passed_on(engine: Engine, runtime: Runtime) {
    for side in Side::BOTH {
        let joined = Joined::new(engine, runtime);
        send_until_paused(&joined.gw, joined.from(side).0, side.direction(), 1);
        let line = expect_reset_line(joined.reset(side), side);
        assert_ne!(line["bytes_discarded"], 0, "the pipe was full: {line}");
    }
}

fn a_reset_by_the_side_that_does_not_read_is_passed_on(engine: Engine, runtime: Runtime) {
    for side in Side::BOTH {
        let joined = Joined::new(engine, runtime);
        let (_, sender) = joined.from(side);
        let direction = other(side).direction();
        send_until_paused(&joined.gw, sender, direction, 1);
        let line = expect_reset_line(joined.reset(side), side);
        assert_ne!(line["bytes_discarded"], 0, "the pipe was full: {line}");
    }
}

fn a_reset_with_both_directions_blocked_is_passed_on(engine: Engine, runtime: Runtime) {
    for side in Side::BOTH {
        let joined = Joined::new(engine, runtime);
        for sender in Side::BOTH {
            send_until_paused(&joined.gw, joined.from(sender).0, sender.direction(), 1);
        }
        expect_reset_line(joined.reset(side), side);
    }
}

fn a_reset_by_the_side_that_had_ended_is_passed_on(engine: Engine, runtime: Runtime) {
    for side in Side::BOTH {
        let joined = Joined::new(engine, runtime);
        end(&joined, side);
        expect_reset_line(joined.reset(side), side);
    }
}

fn a_reset_by_the_side_that_was_told_of_an_end_is_passed_on(engine: Engine, runtime: Runtime) {
    for side in Side::BOTH {
        let joined = Joined::new(engine, runtime);
        end(&joined, other(side));
        expect_reset_line(joined.reset(side), side);
    }
}

fn bytes_queued_before_a_reset_are_delivered(engine: Engine, runtime: Runtime) {
    for side in Side::BOTH.repeat(10) {
        let joined = Joined::new(engine, runtime);
        let (mut source, _) = joined.from(side);
        send(&mut source, 2, 1000);
        let (gw, mut sink) = joined.reset(side);
        let mut bytes = [0; 1000];
        sink.read_exact(&mut bytes).expect("what was sent before the reset comes");
        Pattern::new(2).check(&bytes);
        expect_reset_line((gw, sink), side);
    }
}

fn a_stop_that_cuts_bytes_off_is_a_reset_and_no_end(engine: Engine, runtime: Runtime) {
    for side in Side::BOTH {
        let joined = Joined::new(engine, runtime);
        send_until_paused(&joined.gw, joined.from(side).0, side.direction(), 1);
        joined.gw.gateway.stop_now();
        let line = joined.gw.line();
        assert_eq!(line["close_reason"], "stopped", "{line}");
        assert_ne!(line["bytes_discarded"], 0, "{line}");
        expect_reset(joined.from(side).1);
        joined.gw.stop();
    }
}

fn a_unix_peer_that_closes_with_bytes_in_flight_ends_the_session(engine: Engine, runtime: Runtime) {
    let joined = Joined::over(Leg::V4, Leg::Unix, engine, runtime);
    send_until_paused(&joined.gw, &joined.client.socket, "to_upstream", 1);
    let Joined { gw, client, peer, door: _door } = joined;
    drop(peer);
    let line = gw.line();
    assert_eq!(line["side"], "upstream", "{line}");
    assert_ne!(line["bytes_discarded"], 0, "{line}");
    drop(client);
    finish(gw);
}

fn what_a_unix_peer_sent_before_it_closed_reaches_a_slow_reader(engine: Engine, runtime: Runtime) {
    let joined = Joined::over(Leg::V4, Leg::Unix, engine, runtime);
    let sent = send_until_paused(&joined.gw, &joined.peer.socket, "to_downstream", 3);
    let Joined { gw, client, peer, door: _door } = joined;
    drop(peer);
    // The gateway finds out by this that nobody reads any more; what was sent must not suffer.
    let mut socket = &client.socket;
    socket.write_all(b"too late").expect("the gateway reads");
    eventually("the late bytes are taken", || {
        gw.metrics().bytes.values().map(|ways| ways["to_upstream"]).sum::<u64>() == 8
    });
    let mut bytes = vec![0; sent];
    socket.read_exact(&mut bytes).expect("what was sent before the close comes");
    Pattern::new(3).check(&bytes);
    assert_eq!(gw.line()["side"], "upstream");
    finish(gw);
}

/// The other end sees a reset, the line names the side, and all pipes are back.
fn expect_reset_line((gw, other): (Gw, TcpStream), side: Side) -> Value {
    expect_reset(&other);
    let line = gw.line();
    expect_line(&line, side);
    finish(gw);
    line
}

fn expect_line(line: &Value, side: Side) {
    assert_eq!(line["close_reason"], "reset", "{line}");
    assert_eq!(line["side"], side.word(), "{line}");
    assert_eq!(line["stage"], "relay", "{line}");
    let number = |name: &str| line[name].as_u64().expect("a number");
    let taken = number("bytes_splice") + number("bytes_copy") + number("bytes_uring");
    let missing = taken - number("bytes_in") - number("bytes_out");
    assert!(missing <= number("bytes_discarded"), "the sums do not balance: {line}");
}

/// Nothing is left of the session: then the gateway ends.
fn finish(gw: Gw) {
    eventually("all pipes are back", || gw.metrics().pipes_used == 0);
    eventually("all connections are closed", || gw.metrics().connections_open == 0);
    gw.stop();
}

/// Ends the direction of `side` and waits until the other end has read that. A byte each way comes first:
/// both directions have to be asleep, so that the end wakes them.
fn end(joined: &Joined, side: Side) {
    let (mut ending, mut told) = joined.from(side);
    ending.write_all(&[1]).expect("the gateway reads");
    told.read_exact(&mut [0]).expect("the byte comes");
    told.write_all(&[1]).expect("the gateway reads");
    ending.read_exact(&mut [0]).expect("the byte comes");
    eventually("the gateway is at rest", || joined.gw.metrics().pipes_used == 0);
    ending.shutdown(Shutdown::Write).expect("it was open");
    assert_eq!(told.read(&mut [0]).expect("the end comes"), 0);
}

fn other(side: Side) -> Side {
    match side {
        Side::Downstream => Side::Upstream,
        Side::Upstream => Side::Downstream,
    }
}

fn clone(socket: &TcpStream) -> TcpStream {
    socket.try_clone().expect("a descriptor")
}

/// Sends until told to stop, or until it fails.
fn endless(mut socket: TcpStream, stop: Option<&AtomicBool>) -> io::Result<()> {
    let chunk = vec![7; 64 * 1024];
    while !stop.is_some_and(|stop| stop.load(Ordering::Relaxed)) {
        socket.write_all(&chunk)?;
    }
    Ok(())
}

/// Reads until told to stop, or until it fails; an end is no failure.
fn discard(mut socket: TcpStream, stop: Option<&AtomicBool>) -> io::Result<()> {
    let mut chunk = vec![0; 64 * 1024];
    while !stop.is_some_and(|stop| stop.load(Ordering::Relaxed)) {
        if socket.read(&mut chunk)? == 0 {
            break;
        }
    }
    Ok(())
}
