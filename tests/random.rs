//! Random sessions: whatever is sent in whatever pieces, and however it ends, what arrives is a prefix of
//! what was sent, and the sums of the log line balance (rule R20).

#[path = "support/joined.rs"]
mod joined;
mod support;

use std::collections::VecDeque;
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::thread;

use joined::{Joined, Leg, Side};
use proptest::prelude::*;
use serde_json::Value;
use support::{Engine, Pattern, Runtime, client, eventually};

/// What one side does with its connection.
#[derive(Clone, Debug)]
struct Plan {
    /// Sizes of its writes.
    writes: Vec<usize>,
    /// How many bytes it reads before it closes or resets.
    reads: usize,
    ending: Ending,
}

/// What one side does after its last write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ending {
    /// Ends its direction and reads on.
    End,
    /// Closes, as soon as it has read what it wants to.
    Close,
    /// Resets, as soon as it has read what it wants to.
    Reset,
}

fn plan() -> impl Strategy<Value = Plan> {
    let size = prop_oneof![4 => 1usize..300, 3 => 1000usize..20_000, 1 => 60_000usize..400_000];
    let writes = prop::collection::vec(size, 0..12);
    let reads = prop_oneof![1 => Just(usize::MAX), 1 => 0usize..200_000];
    let ending =
        prop_oneof![2 => Just(Ending::End), 1 => Just(Ending::Close), 1 => Just(Ending::Reset)];
    (writes, reads, ending).prop_map(|(writes, reads, ending)| Plan { writes, reads, ending })
}

fn leg() -> impl Strategy<Value = Leg> {
    prop_oneof![2 => Just(Leg::V4), 1 => Just(Leg::Unix)]
}

fn engine() -> impl Strategy<Value = Engine> {
    prop_oneof![Just(Engine::Splice), Just(Engine::Copy), Just(Engine::Uring)]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_arrives_is_a_prefix_and_the_sums_balance(
        (down, up) in (plan(), plan()),
        legs in (leg(), leg()),
        engine in engine(),
        uring in any::<bool>(),
    ) {
        let runtime = if uring { Runtime::Uring } else { Runtime::Epoll };
        let Joined { gw, client, peer, door: _door } = Joined::over(legs.0, legs.1, engine, runtime);
        let sent = [&down, &up].map(|plan| plan.writes.iter().sum::<usize>());
        let orderly = [&down, &up].map(|plan| plan.ending == Ending::End) == [true; 2];
        let [at_client, at_peer] = thread::scope(|scope| {
            let client = scope.spawn(|| play(client.socket, &down, Side::Downstream, sent[1]));
            let peer = scope.spawn(|| play(peer.socket, &up, Side::Upstream, sent[0]));
            [client, peer].map(|side| side.join().expect("the bytes are exact"))
        });
        let line = gw.line();
        balance(&line, at_peer, at_client);
        if orderly {
            prop_assert_eq!([at_peer, at_client], sent);
            prop_assert_eq!(&line["close_reason"], "completed");
            prop_assert_eq!(&line["bytes_discarded"], 0);
        }
        prop_assert_eq!(&line["fallback"], &serde_json::json!([]), "{}", line);
        eventually("all pipes are back", || gw.metrics().pipes_used == 0);
        eventually("all connections are closed", || gw.metrics().connections_open == 0);
        gw.stop();
    }
}

/// Plays one side; how many bytes of the other side came, each of which was checked. `coming`: how many the
/// other side would like to send.
fn play(mut socket: TcpStream, plan: &Plan, side: Side, coming: usize) -> usize {
    let seed = |side: Side| side as u64 + 1;
    let other = if side == Side::Downstream { Side::Upstream } else { Side::Downstream };
    let (mut ours, mut theirs) = (Pattern::new(seed(side)), Pattern::new(seed(other)));
    if plan.writes.is_empty() && plan.ending == Ending::End {
        // The other side may have reset it already.
        let _ = socket.shutdown(Shutdown::Write);
    }
    let mut pieces = plan.writes.iter().map(|&size| ours.take(size)).collect::<VecDeque<_>>();
    let wanted = if plan.ending == Ending::End { usize::MAX } else { plan.reads.min(coming) };
    let mut read_in_all = 0;
    let mut chunk = vec![0; 32 * 1024];
    socket.set_nonblocking(true).expect("an option");
    eventually("this side is done", || {
        // A write fails when the other side is gone; what it sent before can still be read.
        let written = match pieces.front_mut() {
            Some(piece) => match socket.write(piece) {
                Ok(written) => {
                    piece.drain(..written);
                    if piece.is_empty() {
                        pieces.pop_front();
                    }
                    if pieces.is_empty() && plan.ending == Ending::End {
                        let _ = socket.shutdown(Shutdown::Write);
                    }
                    true
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => false,
                Err(_) => {
                    pieces.clear();
                    true
                }
            },
            None => false,
        };
        while read_in_all < wanted {
            match socket.read(&mut chunk) {
                Ok(0) => return pieces.is_empty() || plan.ending != Ending::End,
                Ok(read) => {
                    theirs.check(&chunk[..read]);
                    read_in_all += read;
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return false,
                Err(_) => return true,
            }
            if written {
                return false;
            }
        }
        true
    });
    if plan.ending == Ending::Reset {
        client::reset(socket);
    }
    read_in_all
}

/// What was taken is what was given and what was discarded; nobody got more than was given.
fn balance(line: &Value, at_peer: usize, at_client: usize) {
    let number = |name: &str| line[name].as_u64().unwrap_or_else(|| panic!("no {name}: {line}"));
    let taken = number("bytes_splice") + number("bytes_copy") + number("bytes_uring");
    let (bytes_in, bytes_out) = (number("bytes_in"), number("bytes_out"));
    let discarded_down = taken.checked_sub(bytes_in + bytes_out);
    let discarded_down = discarded_down.unwrap_or_else(|| panic!("given, not taken: {line}"));
    let discarded_up = number("bytes_discarded").checked_sub(discarded_down);
    let discarded_up = discarded_up.unwrap_or_else(|| panic!("taken and gone: {line}"));
    assert!(at_peer as u64 <= bytes_in - discarded_up, "{at_peer} came: {line}");
    assert!(at_client as u64 <= bytes_out, "{at_client} came: {line}");
}
