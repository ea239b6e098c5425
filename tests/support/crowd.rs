//! Many sessions that speak at once.

use std::io::{Read, Write};
use std::net::SocketAddr;

use super::{Client, Pattern};

/// Upgraded sessions to an echo, each with a stream of its own.
pub struct Crowd {
    pub members: Vec<Member>,
}

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

    /// Every session sends `len` bytes, then every one reads them back.
    pub fn round(&mut self, len: usize) {
        self.members.iter_mut().for_each(|member| member.say(len));
        self.members.iter_mut().for_each(|member| member.hear(len));
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
