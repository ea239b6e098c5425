//! The relay contract: the same list over every engine and runtime. Bytes, ends and head data.

#[path = "support/joined.rs"]
mod joined;
mod support;

use std::io::{Read, Write};
use std::time::{Duration, Instant};

use joined::{Door, Joined, Leg, Side, both_ways, connect, send_until_paused};
use socket2::SockRef;
use support::client::upgrade_head;
use support::stream::{check_to_end, send};
use support::{Engine, Gw, Pattern, Peer, Runtime};

contract!(
    bytes_pass_both_ways_exactly_and_ends_follow,
    every_kind_of_socket_carries_bytes_exactly,
    many_small_messages_reach_a_slow_reader_exactly,
    no_burst_of_messages_is_held_back,
    two_writes_and_a_read_wait_for_no_acknowledgement,
    an_end_behind_full_buffers_comes_after_the_last_byte,
    an_end_in_the_segment_of_the_last_byte_comes_after_it,
    an_end_and_bytes_glued_to_the_101_are_delivered,
    an_end_and_bytes_behind_the_request_are_delivered,
    head_data_waits_for_a_blocked_sink_and_goes_first,
    a_side_that_has_ended_is_still_sent_ten_megabytes,
    both_directions_blocked_go_on_when_read,
);

fn bytes_pass_both_ways_exactly_and_ends_follow(engine: Engine, runtime: Runtime) {
    const LEN: usize = 8 << 20;
    let joined = Joined::new(engine, runtime);
    both_ways(&joined.client.socket, &joined.peer.socket, LEN);
    let line = joined.ended();
    engine.assert_carried(&line, 0);
    assert_eq!(line["close_reason"], "completed");
    assert_eq!(
        (line["bytes_in"].as_u64(), line["bytes_out"].as_u64()),
        (Some(LEN as u64), Some(LEN as u64))
    );
}

fn every_kind_of_socket_carries_bytes_exactly(engine: Engine, runtime: Runtime) {
    for down in Leg::ALL {
        for up in Leg::ALL {
            let joined = Joined::over(down, up, engine, runtime);
            both_ways(&joined.client.socket, &joined.peer.socket, 1 << 20);
            joined.completed(engine);
        }
    }
}

fn many_small_messages_reach_a_slow_reader_exactly(engine: Engine, runtime: Runtime) {
    const MESSAGES: usize = 2000;
    for side in Side::BOTH {
        let joined = Joined::new(engine, runtime);
        let (mut source, mut sink) = joined.from(side);
        let mut pattern = Pattern::new(5);
        for _ in 0..MESSAGES {
            source.write_all(&pattern.take(100)).expect("the gateway reads");
        }
        let mut expected = Pattern::new(5);
        let mut left = MESSAGES * 100;
        let mut piece = [0; 97];
        while left > 0 {
            let read = sink.read(&mut piece).expect("the bytes come");
            expected.check(&piece[..read]);
            left -= read;
        }
        joined.completed(engine);
    }
}

/// Rule R4: a pipe that is drained with more than it holds makes the kernel wait 200 ms for the rest when
/// the burst has filled exactly 16 slots. A message over a Unix socket takes a slot of its own, and a bulk
/// session keeps the worker busy, so that bursts pile up.
fn no_burst_of_messages_is_held_back(engine: Engine, runtime: Runtime) {
    let joined = Joined::over(Leg::Unix, Leg::V4, engine, runtime);
    let (busy_client, busy_peer) = joined.another();
    std::thread::scope(|scope| {
        let mut source = &busy_client.socket;
        let mut sink = &busy_peer.socket;
        scope.spawn(move || {
            let chunk = vec![7; 256 * 1024];
            while source.write_all(&chunk).is_ok() {}
        });
        scope.spawn(move || {
            let mut chunk = vec![0; 256 * 1024];
            while sink.read(&mut chunk).is_ok_and(|read| read > 0) {}
        });
        let held_back = bursts_held_back(&joined);
        // That ends both bulk threads.
        source.shutdown(std::net::Shutdown::Both).expect("it was open");
        assert_eq!(held_back, Vec::<usize>::new(), "bursts of so many messages were held back");
    });
    drop((busy_client, busy_peer));
    joined.gw.line();
    joined.completed(engine);
}

/// The sizes of bursts that took as long as a cork does, three times in a row: a busy machine may be late
/// once, a cork is late whenever the slots are full.
fn bursts_held_back(joined: &Joined) -> Vec<usize> {
    const CORKED: Duration = Duration::from_millis(190);
    let (mut source, mut sink) = joined.from(Side::Downstream);
    let (mut pattern, mut expected) = (Pattern::new(6), Pattern::new(6));
    let mut late = |messages: usize| {
        let bytes = pattern.take(messages * 100);
        let start = Instant::now();
        for message in bytes.chunks(100) {
            source.write_all(message).expect("the gateway reads");
        }
        let mut burst = vec![0; messages * 100];
        sink.read_exact(&mut burst).expect("the bytes come");
        expected.check(&burst);
        start.elapsed() >= CORKED
    };
    (1..=64).filter(|&messages| (0..3).all(|_| late(messages))).collect()
}

/// Rule R17: without `TCP_NODELAY` the second write would wait 40 ms for a delayed acknowledgement.
fn two_writes_and_a_read_wait_for_no_acknowledgement(engine: Engine, runtime: Runtime) {
    let joined = Joined::new(engine, runtime);
    let (mut source, mut sink) = joined.from(Side::Downstream);
    let mut bytes = [0; 200];
    let mut late = 0;
    for _ in 0..50 {
        let start = Instant::now();
        source.write_all(&[1; 100]).expect("the gateway reads");
        sink.read_exact(&mut bytes[..100]).expect("the first half comes");
        source.write_all(&[2; 100]).expect("the gateway reads");
        sink.read_exact(&mut bytes[100..]).expect("the second half comes");
        sink.write_all(&bytes).expect("the gateway reads");
        source.read_exact(&mut bytes).expect("the answer comes");
        late += u32::from(start.elapsed() >= Duration::from_millis(38));
    }
    assert!(late < 40, "{late} of 50 round trips waited");
    joined.completed(engine);
}

fn an_end_behind_full_buffers_comes_after_the_last_byte(engine: Engine, runtime: Runtime) {
    for side in Side::BOTH {
        let joined = Joined::new(engine, runtime);
        let (source, mut sink) = joined.from(side);
        let sent = send_until_paused(&joined.gw, source, side.direction(), 3);
        source.shutdown(std::net::Shutdown::Write).expect("it was open");
        assert_eq!(check_to_end(&mut sink, 3), sent);
        joined.completed(engine);
    }
}

fn an_end_in_the_segment_of_the_last_byte_comes_after_it(engine: Engine, runtime: Runtime) {
    for len in [1, 100, 1000] {
        let joined = Joined::new(engine, runtime);
        let (mut source, mut sink) = joined.from(Side::Downstream);
        SockRef::from(source).set_tcp_cork(true).expect("an option");
        send(&mut source, 4, len);
        source.shutdown(std::net::Shutdown::Write).expect("it was open");
        assert_eq!(check_to_end(&mut sink, 4), len);
        joined.completed(engine);
    }
}

fn an_end_and_bytes_glued_to_the_101_are_delivered(engine: Engine, runtime: Runtime) {
    for len in [0, 1, 5, 70_000] {
        let door = Door::new(Leg::V4);
        let gw = Gw::from_toml(&door.config(Leg::V4, engine, runtime, ""));
        let mut client = connect(&gw);
        client.send(upgrade_head("/", "raw", ""));
        let mut peer = Peer { socket: door.accept(), rest: Vec::new() };
        let head = peer.read_head();
        peer.grant(&head, Pattern::new(8).take(len));
        peer.shutdown_write();
        let answer = client.answer();
        let mut bytes = answer.rest;
        client.socket.read_to_end(&mut bytes).expect("the end comes");
        assert_eq!(bytes.len(), len);
        Pattern::new(8).check(&bytes);
        // The other direction goes on.
        client.send([9; 3000]);
        client.shutdown_write();
        assert_eq!(peer.receive_to_end().expect("the end comes"), [9; 3000]);
        let line = gw.line();
        assert_eq!(line["close_reason"], "completed", "{line}");
        engine.assert_named(&line);
        gw.stop();
    }
}

fn an_end_and_bytes_behind_the_request_are_delivered(engine: Engine, runtime: Runtime) {
    for len in [1, 5, 60_000] {
        let door = Door::new(Leg::V4);
        let gw = Gw::from_toml(&door.config(Leg::V4, engine, runtime, ""));
        let mut client = connect(&gw);
        let mut request = upgrade_head("/", "raw", "").into_bytes();
        request.extend(Pattern::new(9).take(len));
        client.send(request);
        let mut peer = Peer { socket: door.accept(), rest: Vec::new() };
        let head = peer.read_head();
        peer.grant(&head, "");
        client.shutdown_write();
        assert_eq!(client.answer().status, 101);
        let bytes = peer.receive_to_end().expect("the end comes");
        assert_eq!(bytes.len(), len);
        Pattern::new(9).check(&bytes);
        peer.shutdown_write();
        assert_eq!(gw.line()["close_reason"], "completed");
        gw.stop();
    }
}

fn head_data_waits_for_a_blocked_sink_and_goes_first(engine: Engine, runtime: Runtime) {
    const EARLY: usize = 1 << 20;
    const LATE: usize = 1 << 20;
    // What a Unix socket holds is much less than this head data.
    let door = Door::new(Leg::Unix);
    let limits = format!("[gateway.limits]\nhead_data_bytes = {}", 2 * EARLY);
    let gw = Gw::from_toml(&door.config(Leg::V4, engine, runtime, &limits));
    let mut client = connect(&gw);
    let mut pattern = Pattern::new(10);
    let mut request = upgrade_head("/", "raw", "").into_bytes();
    request.extend(pattern.take(EARLY));
    let mut peer = std::thread::scope(|scope| {
        let sending = scope.spawn(|| client.send(request));
        let mut peer = Peer { socket: door.accept(), rest: Vec::new() };
        let head = peer.read_head();
        sending.join().expect("all was sent");
        peer.grant(&head, "");
        peer
    });
    assert_eq!(client.answer().status, 101);
    support::eventually("the gateway pauses", || gw.metrics().paused["to_upstream"] > 0);
    // The stream goes on where the head data ends, and so does its end.
    let sending = std::thread::spawn(move || {
        client.send(pattern.take(LATE));
        client.shutdown_write();
        client
    });
    let bytes = peer.receive_to_end().expect("the end comes");
    assert_eq!(bytes.len(), EARLY + LATE);
    Pattern::new(10).check(&bytes);
    let _client = sending.join().expect("all was sent");
    peer.shutdown_write();
    let line = gw.line();
    assert_eq!(line["close_reason"], "completed", "{line}");
    engine.assert_named(&line);
    gw.stop();
}

fn a_side_that_has_ended_is_still_sent_ten_megabytes(engine: Engine, runtime: Runtime) {
    const LEN: usize = 10 << 20;
    for side in Side::BOTH {
        let joined = Joined::new(engine, runtime);
        let (mut ended, mut other) = joined.from(side);
        ended.shutdown(std::net::Shutdown::Write).expect("it was open");
        assert_eq!(other.read(&mut [0]).expect("the end comes"), 0);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                send(&mut other, 7, LEN);
                other.shutdown(std::net::Shutdown::Write).expect("it was open");
            });
            assert_eq!(check_to_end(&mut ended, 7), LEN);
        });
        joined.completed(engine);
    }
}

fn both_directions_blocked_go_on_when_read(engine: Engine, runtime: Runtime) {
    let joined = Joined::new(engine, runtime);
    let (mut client, mut peer) = joined.from(Side::Downstream);
    let up = send_until_paused(&joined.gw, client, "to_upstream", 11);
    let down = send_until_paused(&joined.gw, peer, "to_downstream", 12);
    client.shutdown(std::net::Shutdown::Write).expect("it was open");
    peer.shutdown(std::net::Shutdown::Write).expect("it was open");
    assert_eq!(check_to_end(&mut client, 12), down);
    assert_eq!(check_to_end(&mut peer, 11), up);
    joined.completed(engine);
}
