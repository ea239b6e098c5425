//! Many sessions that speak at once.

use std::io::{Read, Write};
use std::net::SocketAddr;

use super::{Client, Pattern};

/// Upgraded sessions to an echo, each with a stream of its own.
pub struct Crowd {
    pub members: Vec<Member>,
}

/// Who speak for the sessions.
const THREADS: usize = 4;

/// One of them.
pub struct Member {
    pub client: Client,
    sent: Pattern,
    expected: Pattern,
}

impl Crowd {
    pub fn new(address: SocketAddr, sessions: u64) -> Crowd {
        let members = (0..sessions).map(|seed| Member {
            client: Client::upgraded(address, "/", "raw"),
            sent: Pattern::new(seed),
            expected: Pattern::new(seed),
        });
        Crowd { members: members.collect() }
    }

    /// Again and again every session sends `len` bytes and reads them back, several at once: more than one worker
    /// can take one by one.
    pub fn rounds(&mut self, rounds: usize, len: usize) {
        let share = self.members.len().div_ceil(THREADS);
        std::thread::scope(|scope| {
            for members in self.members.chunks_mut(share) {
                scope.spawn(move || {
                    for _ in 0..rounds {
                        members.iter_mut().for_each(|member| member.say(len));
                        members.iter_mut().for_each(|member| member.hear(len));
                    }
                });
            }
        });
    }
}

impl Member {
    /// There and back, and nobody else speaks.
    pub fn round(&mut self, len: usize) {
        self.say(len);
        self.hear(len);
    }

    fn say(&mut self, len: usize) {
        self.client.socket.write_all(&self.sent.take(len)).expect("the gateway reads");
    }

    fn hear(&mut self, len: usize) {
        let mut bytes = vec![0; len];
        self.client.socket.read_exact(&mut bytes).expect("the bytes come back");
        self.expected.check(&bytes);
    }
}
