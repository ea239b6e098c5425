//! The parts of the lab's load generator that only calculate. The generator has no test harness of
//! its own: `cargo test --benches` runs all of it, briefly.

#[allow(dead_code, reason = "the generator uses the rest")]
#[path = "../benches/lab/frame.rs"]
mod frame;
#[allow(dead_code, reason = "the generator uses the rest")]
#[path = "../benches/lab/kernel.rs"]
mod kernel;
#[allow(dead_code, reason = "the generator uses the rest")]
#[path = "../benches/lab/latency.rs"]
mod latency;
#[allow(dead_code, reason = "the generator uses the rest")]
#[path = "../benches/lab/schedule.rs"]
mod schedule;
#[allow(dead_code, reason = "the generator uses the rest")]
#[path = "../benches/lab/workload.rs"]
mod workload;

use std::collections::BTreeMap;
use std::time::Duration;

use frame::{BINARY, Head, Payload, Walker, masked, toggle_mask, unmasked};
use kernel::{from_slabinfo, slab_of_all_types, waiting_in_sockets};
use latency::{CURVE, Latency};
use schedule::Schedule;
use workload::{Kind, Role, Workload};

#[test]
fn a_head_says_what_was_built_whatever_the_length() {
    for length in [0, 1, 125, 126, 0xffff, 0x1_0000] {
        let payload = vec![b'p'; length];
        for (frame, has_mask) in
            [(masked(BINARY, &payload), true), (unmasked(BINARY, &payload), false)]
        {
            let head = Head::parse(&frame).expect("the head is whole");
            assert_eq!((head.opcode, head.payload_bytes), (BINARY, length));
            assert_eq!(head.mask.is_some(), has_mask);
            assert_eq!(frame.len(), head.head_bytes + length);
            let mut body = frame[head.head_bytes..].to_vec();
            toggle_mask(&mut body, head.mask.unwrap_or_default());
            assert_eq!(body, payload);
            let cut = (0..head.head_bytes).find(|&cut| Head::parse(&frame[..cut]).is_some());
            assert_eq!(cut, None, "a partial head was taken for a whole one");
        }
    }
}

#[test]
fn a_walker_counts_the_same_wherever_the_stream_is_cut() {
    for payload in [Payload::Binary, Payload::Text] {
        let mut stream = masked(payload.opcode(), &[7; 300]);
        stream.extend(masked(payload.word(), b"how many"));
        stream.extend(masked(payload.opcode(), &[]));
        stream.extend(unmasked(payload.opcode(), &[8; 5]));
        for cut in 1..stream.len() {
            let (mut walker, mut words) = (Walker::new(payload), Vec::new());
            for piece in stream.chunks(cut) {
                words.extend(walker.walk(piece));
            }
            assert_eq!(walker.payload_bytes, 305, "{payload:?}, cut every {cut} bytes");
            assert_eq!(words, [b"how many".to_vec()], "{payload:?}, cut every {cut} bytes");
        }
    }
}

#[test]
fn frames_are_evenly_spaced_over_all_sessions() {
    let schedule = Schedule { rate: 1000.0, sessions: 3 };
    let mut due: Vec<Duration> =
        (0..3).flat_map(|session| (0..4).map(move |turn| schedule.due(session, turn))).collect();
    due.sort();
    let even: Vec<Duration> = (0..12).map(Duration::from_millis).collect();
    assert_eq!(due, even);
}

#[test]
fn a_run_has_as_many_frames_as_its_rate_says() {
    for (rate, sessions, seconds) in [(1000.0, 3, 1.0), (20_000.0, 100, 0.25), (7.0, 10, 1.0)] {
        let schedule = Schedule { rate, sessions };
        assert_eq!(schedule.frames(seconds), (rate * seconds) as u64, "{schedule:?}");
    }
}

#[test]
fn the_last_frame_of_a_session_is_due_before_the_end_and_the_next_one_is_not() {
    let (schedule, seconds) = (Schedule { rate: 333.0, sessions: 10 }, 0.7);
    for session in 0..10 {
        let turns = schedule.turns(session, seconds);
        assert!(schedule.due(session, turns - 1).as_secs_f64() < seconds);
        assert!(schedule.due(session, turns).as_secs_f64() >= seconds);
    }
}

fn latency_of(times: impl Iterator<Item = u64>) -> Latency {
    let mut latency = Latency::new().expect("the precision is valid");
    for time in times {
        latency.record(Duration::from_micros(time)).expect("the histogram grows");
    }
    latency
}

#[test]
fn shares_of_several_sessions_add_up_to_the_whole() {
    let mut merged = latency_of((1..=1000).step_by(2));
    // The other share has times far outside of what this one has seen.
    merged
        .add(&latency_of((2..=1000).step_by(2).chain([50_000_000])))
        .expect("the histogram grows");
    let whole = latency_of((1..=1000).chain([50_000_000]));
    assert_eq!(merged.curve(), whole.curve());
    assert_eq!(merged.max(), whole.max());
    assert!(merged.max() >= 50e6);
}

#[test]
fn quantiles_are_within_a_percent_and_never_fall() {
    let latency = latency_of(1..=100_000);
    for quantile in [0.5, 0.9, 0.99, 0.999, 0.9999] {
        let (found, exact) = (latency.at(quantile), quantile * 100_000.0);
        assert!((found - exact).abs() / exact < 0.011, "{quantile}: {found} for {exact}");
    }
    let curve = latency.curve();
    assert_eq!(curve.len(), CURVE.len());
    assert!(curve.is_sorted_by(|a, b| a.0 < b.0 && a.1 <= b.1), "{curve:?}");
    assert!(latency_of(0..0).curve().is_empty());
}

const SLABINFO: &str = "\
slabinfo - version: 2.1
# name            <active_objs> <num_objs> <objsize> <objperslab> <pagesperslab> : tunables
ext4_inode_cache   98616 102341   1128   29    8 : tunables    0    0    0 : slabdata 1 1 0
TCP                  158    208   2368   13    8 : tunables    0    0    0 : slabdata 1 1 0
sock_inode_cache     300    418    832   19    4 : tunables    0    0    0 : slabdata 1 1 0
inode_cache          100    910    624   26    4 : tunables    0    0    0 : slabdata 1 1 0
dentry            220615 289275    192   21    1 : tunables    0    0    0 : slabdata 1 1 0
kmalloc-cg-1k         10    240   1024   16    4 : tunables    0    0    0 : slabdata 1 1 0
kmalloc-1k           824    864   1024   16    4 : tunables    0    0    0 : slabdata 1 1 0
";

#[test]
fn only_what_sockets_pipes_and_epoll_use_is_counted() {
    let kernel = from_slabinfo(SLABINFO);
    let parts: Vec<_> = kernel.parts.iter().map(|(name, &bytes)| (&name[..], bytes)).collect();
    let expected = [
        ("TCP", 158 * 2368),
        ("dentry", 400 * 192),
        ("inode_cache", 100 * 624),
        ("kmalloc-cg-1k", 10 * 1024),
        ("sock_inode_cache", 300 * 832),
    ];
    assert_eq!(parts, expected);
    assert_eq!(kernel.bytes(), expected.iter().map(|(_, bytes)| bytes).sum::<i64>());
}

#[test]
fn a_difference_names_the_parts_that_changed() {
    let later = from_slabinfo(&SLABINFO.replace("TCP                  158", "TCP 160"));
    let change = later.since(&from_slabinfo(SLABINFO));
    assert_eq!(change, BTreeMap::from([("TCP".to_owned(), 2 * 2368)]));
    let less = from_slabinfo(SLABINFO).since(&later);
    assert_eq!(less, BTreeMap::from([("TCP".to_owned(), -2 * 2368)]));
}

#[test]
fn what_waits_in_sockets_is_told_in_pages_and_slabs_in_kibibytes() {
    let sockstat = "sockets: used 22\nTCP: inuse 3 orphan 0 tw 7 alloc 3 mem 71929\n\
                    UDP: inuse 1 mem 5\n";
    assert_eq!(waiting_in_sockets(sockstat), 71929 * 4096);
    assert_eq!(waiting_in_sockets("sockets: used 22\n"), 0);
    assert_eq!(slab_of_all_types("MemTotal: 1000 kB\nSlab:   50 kB\n"), 50 * 1024);
}

#[test]
fn a_mix_gives_every_third_session_the_same_kind_of_role() {
    let roles: Vec<Role> = (0..30).map(|index| Workload::Mixed.role(index, 0)).collect();
    let count = |role| roles.iter().filter(|found| **found == role).count();
    let kinds = [Kind::Small, Kind::Up, Kind::Down, Kind::Alternate];
    let counts = kinds.map(|kind| count(Role::Laps(kind)));
    assert_eq!(counts, [10, 5, 5, 10]);
}

#[test]
fn the_first_sessions_are_the_busy_ones() {
    for (workload, other) in
        [(Workload::Crowd, Role::Silent), (Workload::SlowReaders, Role::ReadSlowly)]
    {
        assert_eq!(workload.role(2, 3), Role::Echo);
        assert_eq!(workload.role(3, 3), other);
    }
}
