//! Mode `inspect`: frames pass as they are, and what no peer may send goes nowhere.

mod support;

use std::io::{Read, Write};
use std::time::{Duration, Instant};

use support::frames::{
    BINARY, CLOSE, CONTINUATION, FIN, Inspected, MASK, PING, PONG, TEXT, code, frame, ours,
    receive, theirs,
};
use support::{Engine, Pattern};

const PAYLOAD: &str = "inspect = \"payload\"";
const FRAMES: &str = "inspect = \"frames\"";

/// Sends in both directions while the other ends read; fails unless all comes as it was sent.
fn exchange(session: &mut Inspected, up: &[u8], down: &[u8]) {
    let mut to_up = session.client.try_clone().expect("a descriptor");
    let mut to_down = session.server.try_clone().expect("a descriptor");
    std::thread::scope(|scope| {
        scope.spawn(|| to_up.write_all(up).expect("sent"));
        scope.spawn(|| to_down.write_all(down).expect("sent"));
        let server = &mut session.server;
        scope.spawn(|| {
            let mut came = vec![0; up.len()];
            server.read_exact(&mut came).expect("all comes");
            assert!(came == up, "what went up differs");
        });
        let mut came = vec![0; down.len()];
        session.client.read_exact(&mut came).expect("all comes");
        assert!(came == down, "what went down differs");
    });
}

#[test]
fn frames_of_every_size_pass_unchanged_both_ways_in_either_depth() {
    for (depth, engine) in [
        (FRAMES, Engine::Splice),
        (FRAMES, Engine::Auto),
        (FRAMES, Engine::Copy),
        (PAYLOAD, Engine::Splice),
        (PAYLOAD, Engine::Copy),
    ] {
        let mut session = Inspected::new(engine, depth);
        let mut bytes = Pattern::new(1);
        let sizes = [0, 1, 125, 126, 1000, 65_535, 65_536, 300_000, 5, 20_000, 20_000, 0, 70_000];
        let payloads: Vec<_> = sizes.iter().map(|&size| bytes.take(size)).collect();
        let up: Vec<u8> = payloads.iter().flat_map(|payload| ours(BINARY, payload)).collect();
        let down: Vec<u8> = payloads.iter().flat_map(|payload| theirs(BINARY, payload)).collect();
        exchange(&mut session, &up, &down);
        session.client.write_all(&ours(CLOSE, code(1000, "bye"))).expect("sent");
        assert_eq!(receive(&mut session.server).expect("a close").code(), 1000);
        session.server.write_all(&theirs(CLOSE, code(1000, "bye"))).expect("sent");
        assert_eq!(receive(&mut session.client).expect("a close").code(), 1000);
        let (gw, line) = session.line();
        let metrics = gw.metrics();
        for way in [&metrics.websocket.to_upstream, &metrics.websocket.to_downstream] {
            assert_eq!(way.messages(), sizes.len() as u64, "{way:?}");
            assert_eq!(way.message_bytes, sizes.iter().sum::<usize>() as u64);
            assert_eq!(way.frames["binary"], sizes.len() as u64);
            assert_eq!(way.closes["1000"], 1);
        }
        assert_eq!(line["close_reason"], "completed", "{line}");
        assert_eq!(line["mode"], "inspect", "{line}");
        let spliced = line["bytes_splice"].as_u64().expect("a number");
        match engine {
            Engine::Copy => assert_eq!(spliced, 0, "{line}"),
            _ => assert!(spliced > 500_000, "{line}"),
        }
        let total =
            (up.len() + down.len()) as u64 + 2 * ours(CLOSE, code(1000, "bye")).len() as u64 - 4;
        assert_eq!(
            line["bytes_in"].as_u64().zip(line["bytes_out"].as_u64()).map(|(i, o)| i + o),
            Some(total),
            "{line}"
        );
        gw.stop();
    }
}

#[test]
fn what_breaks_a_rule_goes_nowhere_and_the_offender_is_told() {
    let broken: [(&str, Vec<u8>, u16); 8] = [
        ("mask", frame(FIN | TEXT, None, b"hello"), 1002),
        ("reserved_bit", frame(FIN | 0x40 | TEXT, Some(MASK), b"hello"), 1002),
        ("opcode", frame(FIN | 3, Some(MASK), b""), 1002),
        ("control_fragmented", frame(PING, Some(MASK), b""), 1002),
        ("fragmentation", frame(FIN | CONTINUATION, Some(MASK), b"x"), 1002),
        ("close_code", ours(CLOSE, code(1005, "")), 1002),
        ("utf8", ours(TEXT, b"caf\xe9"), 1007),
        ("close_payload", ours(CLOSE, b"\x03"), 1002),
    ];
    for (rule, bytes, expected) in broken {
        let mut session = Inspected::new(Engine::Splice, PAYLOAD);
        session.client.write_all(&[ours(TEXT, "fine"), bytes].concat()).expect("sent");
        let text = receive(&mut session.server).expect("what came before is fine");
        assert_eq!((text.opcode(), &*text.payload), (TEXT, &b"fine"[..]), "{rule}");
        // The answer to it still comes through.
        session.server.write_all(&theirs(TEXT, "answer")).expect("sent");
        let mut close = receive(&mut session.client).expect("a frame");
        // If it came in time, which a loaded machine does not promise.
        if close.opcode() == TEXT {
            assert_eq!(close.payload, b"answer", "{rule}");
            close = receive(&mut session.client).expect("a close");
        }
        assert_eq!(close.code(), expected, "{rule}");
        assert_eq!(&close.payload[2..], rule.as_bytes());
        assert_eq!(receive(&mut session.client), None, "{rule}: an end follows");
        let close = receive(&mut session.server).expect("a close");
        assert_eq!((close.code(), close.masked), (1001, true), "{rule}");
        let (gw, line) = session.line();
        assert_eq!(line["close_reason"], "violation", "{line}");
        assert_eq!((&line["detail"], &line["side"]), (&rule.into(), &"downstream".into()));
        assert_eq!(gw.metrics().websocket.to_upstream.violations[rule], 1);
        gw.stop();
    }
}

#[test]
fn an_offender_is_told_even_if_the_other_side_leaves_first() {
    // What went on ends within a frame, so the server can be told nothing, and closes at its end.
    let mut begun = frame(FIN | TEXT, Some(MASK), b"fine, so far");
    begun[1] = 0x80 | 100;
    let mut session = Inspected::new(Engine::Splice, PAYLOAD);
    session.client.write_all(&begun).expect("sent");
    let mut came = vec![0; begun.len()];
    session.server.read_exact(&mut came).expect("what is fine comes at once");
    session.client.write_all(b"\xff\xff").expect("sent");
    assert_eq!(session.server.read(&mut came).expect("an end"), 0);
    session.server = session.client.try_clone().expect("a descriptor");
    let close = receive(&mut session.client).expect("a close");
    assert_eq!((close.code(), &close.payload[2..]), (1007, &b"utf8"[..]));
    assert_eq!(receive(&mut session.client), None, "an end follows");
    let (gw, line) = session.line();
    assert_eq!((&line["close_reason"], &line["detail"]), (&"violation".into(), &"utf8".into()));
    gw.stop();
}

#[test]
fn a_server_that_breaks_a_rule_is_told_and_the_client_is_sent_away() {
    let mut session = Inspected::new(Engine::Splice, FRAMES);
    session.server.write_all(&frame(FIN | TEXT, Some(MASK), b"masked")).expect("sent");
    let close = receive(&mut session.client).expect("a close");
    assert_eq!(close.code(), 1001);
    assert_eq!(receive(&mut session.client), None);
    let close = receive(&mut session.server).expect("a close");
    assert_eq!((close.code(), close.masked), (1002, true));
    let (gw, line) = session.line();
    assert_eq!((&line["close_reason"], &line["side"]), (&"violation".into(), &"upstream".into()));
    gw.stop();
}

#[test]
fn a_side_that_only_says_close_is_followed_until_the_other_has_answered() {
    let mut session = Inspected::new(Engine::Splice, FRAMES);
    let closing = [ours(CLOSE, code(1000, "")), ours(TEXT, "too late")].concat();
    session.client.write_all(&closing).expect("sent");
    assert_eq!(receive(&mut session.server).expect("a close").code(), 1000);
    session.server.write_all(&theirs(TEXT, "one more")).expect("sent");
    session.server.write_all(&theirs(CLOSE, code(1000, ""))).expect("sent");
    session.server.shutdown(std::net::Shutdown::Write).expect("it is open");
    assert_eq!(receive(&mut session.client).expect("it").payload, b"one more");
    assert_eq!(receive(&mut session.client).expect("a close").code(), 1000);
    assert_eq!(receive(&mut session.client), None);
    let server = session.server.try_clone().expect("a descriptor");
    session.client.shutdown(std::net::Shutdown::Write).expect("it is open");
    let mut server = server;
    assert_eq!(receive(&mut server), None, "what came after the close went on");
    let (gw, line) = session.line();
    assert_eq!(line["close_reason"], "completed", "{line}");
    gw.stop();
}

#[test]
fn head_data_of_both_sides_is_judged_like_all_the_rest() {
    let mut session = Inspected::with_head_data(
        Engine::Splice,
        PAYLOAD,
        &[ours(TEXT, "first"), ours(BINARY, vec![7; 20_000])].concat(),
        &[theirs(TEXT, "greeting"), theirs(PING, "there?")].concat(),
    );
    assert_eq!(receive(&mut session.server).expect("a frame").payload, b"first");
    assert_eq!(receive(&mut session.server).expect("a frame").payload, [7; 20_000]);
    let rest = std::mem::take(&mut session.rest);
    let mut all = rest.chain(&session.client);
    assert_eq!(receive(&mut all).expect("a frame").payload, b"greeting");
    assert_eq!(receive(&mut all).expect("a frame").payload, b"there?");
    session.line().0.stop();

    let bad = frame(FIN | TEXT, Some(MASK), b"masked by a server");
    let mut session = Inspected::with_head_data(Engine::Splice, PAYLOAD, &[], &bad);
    let rest = std::mem::take(&mut session.rest);
    assert_eq!(receive(&mut rest.chain(&session.client)).expect("a close").code(), 1001);
    session.line().0.stop();
}

#[test]
fn a_violation_that_is_only_logged_lets_the_bytes_pass() {
    let mut session = Inspected::new(Engine::Splice, "on_violation = \"log\"");
    let bytes =
        [ours(TEXT, "fine"), frame(FIN | 3, Some(MASK), b"what"), vec![0xff; 70_000]].concat();
    exchange(&mut session, &bytes, &theirs(TEXT, "as ever"));
    let (gw, line) = session.line();
    assert_eq!(line["violation"], "opcode", "{line}");
    assert_eq!(gw.metrics().websocket.to_upstream.violations["opcode"], 1);
    gw.stop();
}

#[test]
fn limits_are_exact() {
    for (limit, rule, fits, too_much) in [
        ("frame_bytes = 100", "frame_bytes", ours(BINARY, [0; 100]), ours(BINARY, [0; 101])),
        (
            "message_bytes = 100",
            "message_bytes",
            [frame(BINARY, Some(MASK), &[0; 60]), frame(FIN, Some(MASK), &[0; 40])].concat(),
            [frame(BINARY, Some(MASK), &[0; 60]), frame(FIN, Some(MASK), &[0; 41])].concat(),
        ),
        (
            "fragments = 2",
            "fragments",
            [frame(BINARY, Some(MASK), b"a"), frame(FIN, Some(MASK), b"b")].concat(),
            [
                frame(BINARY, Some(MASK), b"a"),
                frame(0, Some(MASK), b""),
                frame(FIN, Some(MASK), b"b"),
            ]
            .concat(),
        ),
    ] {
        let mut session = Inspected::new(Engine::Splice, &format!("[route.limits]\n{limit}"));
        session.client.write_all(&fits).expect("sent");
        let mut came = vec![0; fits.len()];
        session.server.read_exact(&mut came).expect("it passes");
        assert_eq!(came, fits);
        session.client.write_all(&too_much).expect("sent");
        let close = receive(&mut session.client).expect("a close");
        assert_eq!((close.code(), &close.payload[2..]), (1009, rule.as_bytes()), "{limit}");
        let (gw, line) = session.line();
        assert_eq!(line["detail"], rule, "{line}");
        gw.stop();
    }
}

#[test]
fn a_side_that_sends_too_much_is_read_no_faster_or_closed() {
    let route = "[route.limits.to_upstream]\nmessages_per_second = 5\n";
    let mut session = Inspected::new(Engine::Splice, route);
    let began = Instant::now();
    let all: Vec<u8> = (0..8).flat_map(|n| ours(TEXT, format!("{n}"))).collect();
    session.client.write_all(&all).expect("sent");
    for n in 0..8 {
        let text = receive(&mut session.server).expect("a message");
        assert_eq!(text.payload, format!("{n}").into_bytes());
    }
    // Five come at once, and each of the others has to wait for its fifth of a second.
    assert!(began.elapsed() >= Duration::from_millis(590), "{:?}", began.elapsed());
    let (gw, _) = session.line();
    assert!(gw.metrics().websocket.to_upstream.rate_waits >= 3);
    gw.stop();

    let route = "[route.limits.to_upstream]\ncontrol_per_second = 3\non_excess = \"close\"\n";
    let mut session = Inspected::new(Engine::Splice, route);
    let flood: Vec<u8> = (0..4).flat_map(|_| ours(PING, "")).collect();
    session.client.write_all(&flood).expect("sent");
    for _ in 0..3 {
        assert_eq!(receive(&mut session.server).expect("a ping").opcode(), PING);
    }
    let close = receive(&mut session.client).expect("a close");
    assert_eq!((close.code(), &close.payload[2..]), (1008, &b"control_rate"[..]));
    session.line().0.stop();
}

#[test]
fn a_quiet_side_is_pinged_and_one_that_does_not_answer_is_given_up() {
    let route = "[route.heartbeat]\ninterval = \"100ms\"\ntimeout = \"400ms\"\n";
    let mut session = Inspected::new(Engine::Splice, route);
    for _ in 0..2 {
        let ping = receive(&mut session.server).expect("a ping");
        assert_eq!((ping.opcode(), ping.masked), (PING, true));
        session.server.write_all(&theirs(PONG, &ping.payload)).expect("sent");
        let ping = receive(&mut session.client).expect("a ping");
        assert_eq!((ping.opcode(), ping.masked), (PING, false), "our pong is not for the client");
        session.client.write_all(&ours(PONG, &ping.payload)).expect("sent");
    }
    // The application's own pings and pongs pass.
    session.client.write_all(&ours(PONG, "unasked")).expect("sent");
    loop {
        let came = receive(&mut session.server).expect("a frame");
        if came.opcode() == PONG {
            assert_eq!(came.payload, b"unasked");
            break;
        }
        assert_eq!(came.opcode(), PING);
    }
    // From here on nobody answers.
    let close = loop {
        let came = receive(&mut session.client).expect("a frame");
        if came.opcode() != PING {
            break came;
        }
    };
    assert!([1001, 1011].contains(&close.code()), "{close:?}");
    let (gw, line) = session.line();
    assert_eq!(line["close_reason"], "heartbeat_timeout", "{line}");
    gw.stop();
}

#[test]
fn an_idle_session_is_closed_with_a_code() {
    let mut session = Inspected::new(Engine::Splice, "[route.timeouts]\nidle = \"200ms\"\n");
    assert_eq!(receive(&mut session.client).expect("a close").code(), 1001);
    assert_eq!(receive(&mut session.client), None);
    let close = receive(&mut session.server).expect("a close");
    assert_eq!((close.code(), close.masked), (1001, true));
    let (gw, line) = session.line();
    assert_eq!(line["close_reason"], "idle_timeout", "{line}");
    gw.stop();
}
