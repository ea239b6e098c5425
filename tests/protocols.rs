//! Every upgrade protocol we know of, as one table: what makes each of them special is a parameter of one
//! client and one switch server, and each row runs over both engines.

#[path = "protocols/rows.rs"]
mod rows;
mod support;

use std::io::Read;

use rows::{Ends, First, ROWS, Row, WEBSOCKET};
use support::client::{KEY, field};
use support::{Backend, Client, Engine, Gw, Peer, Runtime};

/// Longer than one read of a head, so that the engine has something to move.
const GREETING: usize = 10_000;

fn greeting(of: u8) -> Vec<u8> {
    (0..GREETING).map(|at| of.wrapping_add((at % 251) as u8)).collect()
}

impl Row {
    fn request(&self) -> Vec<u8> {
        let mut head = format!("{} HTTP/1.1\r\nHost: {}\r\n", self.start, self.host);
        if !self.connection.is_empty() {
            head += &format!("Connection: {}\r\n", self.connection);
        }
        head += &format!("Upgrade: {}\r\n", self.offer);
        for line in self.fields {
            head += &format!("{line}\r\n");
        }
        let mut bytes = (head + "\r\n" + self.body).into_bytes();
        if self.first == First::ClientGlued {
            bytes.extend(greeting(1));
        }
        bytes
    }

    fn response(&self) -> Vec<u8> {
        let mut head = format!("HTTP/1.1 {}\r\nUpgrade: {}\r\n", self.status, self.granted);
        head += "Connection: Upgrade\r\n";
        for line in self.granted_fields {
            head += &format!("{line}\r\n");
        }
        let mut bytes = (head + "\r\n").into_bytes();
        if self.first == First::ServerGlued {
            bytes.extend(greeting(2));
        }
        bytes
    }

    /// What must have come of the request: as sent, in order, each line a line of its own.
    fn check_request(&self, head: &str) {
        assert!(head.starts_with(&format!("{} HTTP/1.1\r\nHost: {}\r\n", self.start, self.host)));
        let mut from = 0;
        let is_gone = |line: &str| {
            let line = line.to_lowercase();
            self.stripped.iter().any(|name| line.starts_with(name))
        };
        for line in self.fields.iter().filter(|line| !is_gone(line)) {
            if line.starts_with("Content-Length") || line.starts_with("HTTP2-Settings") {
                assert_eq!(head.matches(&format!("\r\n{line}\r\n")).count(), 1, "{head}");
                continue;
            }
            let at = head[from..].find(&format!("\r\n{line}\r\n"));
            from += at.unwrap_or_else(|| panic!("{line:?} is missing or out of order: {head}")) + 2;
        }
        assert!(!head.lines().any(is_gone), "{head}");
    }

    fn serve(&self, peer: &mut Peer) {
        let head = peer.read_head();
        self.check_request(&head);
        assert_eq!(peer.receive(self.body.len()), self.body.as_bytes());
        assert!(peer.rest.is_empty(), "something came before the 101");
        peer.send(self.response());
        if self.first == First::Server {
            peer.send(greeting(2));
        }
        assert!(peer.receive(GREETING) == greeting(1), "{}: to the server", self.name);
        if matches!(self.first, First::Client | First::ClientGlued) {
            peer.send(greeting(2));
        }
        match self.ends {
            Ends::ServerFirst => {
                peer.shutdown_write();
                assert_eq!(peer.receive_to_end().expect("an orderly end"), b"");
            }
            Ends::ClientFirst | Ends::ClientThenMore => {
                assert_eq!(peer.receive_to_end().expect("an orderly end"), b"");
                if self.ends == Ends::ClientThenMore {
                    peer.send(greeting(3));
                }
            }
        }
    }

    fn use_it(&self, gw: &Gw, engine: Engine) {
        let mut client = Client::connect(gw.address());
        client.send(self.request());
        let answer = client.answer();
        assert_eq!(answer.status, 101, "{}: {}", self.name, answer.head);
        assert_eq!(answer.field("upgrade"), Some(self.granted));
        assert_eq!(answer.field("connection"), Some("Upgrade"));
        assert_eq!(answer.field("content-length"), None);
        for line in self.granted_fields.iter().filter(|line| !line.starts_with("Content-Length")) {
            assert!(answer.head.contains(&format!("\r\n{line}\r\n")), "{line}: {}", answer.head);
        }
        let mut theirs = answer.rest;
        if self.first == First::Client {
            assert!(theirs.is_empty());
            client.send(greeting(1));
        }
        theirs.extend(client.receive(GREETING - theirs.len()));
        assert!(theirs == greeting(2), "{}: to the client", self.name);
        if matches!(self.first, First::Server | First::ServerGlued) {
            client.send(greeting(1));
        }
        let more = match self.ends {
            Ends::ServerFirst => {
                assert_eq!(client.socket.read(&mut [0]).expect("an orderly end"), 0);
                client.shutdown_write();
                0
            }
            Ends::ClientFirst | Ends::ClientThenMore => {
                client.shutdown_write();
                let rest = client.receive_to_end().expect("an orderly end");
                let more = if self.ends == Ends::ClientThenMore { greeting(3) } else { Vec::new() };
                assert!(rest == more, "{}: {} bytes after the half-close", self.name, rest.len());
                more.len()
            }
        };
        let line = gw.line();
        assert_eq!(line["close_reason"], "completed", "{}: {line}", self.name);
        // What came with one read of a head is copied on each side, the rest moved by the engine.
        let copied = line["bytes_copy"].as_u64().expect("a number");
        if matches!(engine, Engine::Splice | Engine::Uring) {
            assert!(copied <= 2 * 4096, "{}: {line}", self.name);
            engine.assert_carried(&line, copied);
        }
        assert_eq!(line["upgrade"], self.granted, "{line}");
        assert_eq!(
            (&line["bytes_in"], &line["bytes_out"]),
            (&GREETING.into(), &(GREETING + more).into())
        );
    }

    fn run(self, engine: Engine) {
        let backend = Backend::start(move |mut peer| self.serve(&mut peer));
        let protocols =
            if self.route.contains("protocols") { "" } else { "protocols = [\"any\"]\n" };
        let gw = Gw::from_toml(&format!(
            "[gateway]\nworkers = 1\nruntime = \"epoll\"\n[[listener]]\naddress = \"127.0.0.1:0\"\n\
             [[route]]\nname = \"test\"\nengine = \"{}\"\nto = [\"{}\"]\n{protocols}{}\n",
            engine.word(),
            backend.address,
            self.route,
        ));
        self.use_it(&gw, engine);
        gw.stop();
        backend.join();
    }
}

#[test]
fn every_protocol_passes_by_splice() {
    ROWS.iter().for_each(|row| row.run(Engine::Splice));
}

#[test]
fn every_protocol_passes_by_copy() {
    ROWS.iter().for_each(|row| row.run(Engine::Copy));
}

#[test]
fn every_protocol_passes_by_uring() {
    ROWS.iter().for_each(|row| row.run(Engine::Uring));
}

/// Rows whose route says something are refused by a route that says nothing, so the setting is what lets
/// them pass.
#[test]
fn what_needs_a_setting_is_refused_without_it() {
    let backend = Backend::echo();
    let gw = Gw::to(&backend, Engine::Splice, Runtime::Epoll);
    let mut refused = 0;
    for row in ROWS.iter().filter(|row| !row.route.is_empty()) {
        let mut client = Client::connect(gw.address());
        client.send(row.request());
        let answer = client.answer();
        assert!([400, 426].contains(&answer.status), "{}: {}", row.name, answer.head);
        assert_eq!(field(&answer.head, "connection").map(|c| c.ends_with("close")), Some(true));
        refused += 1;
    }
    assert_eq!(refused, 6, "the table has lost rows");
    assert!(WEBSOCKET.fields[1].ends_with(KEY));
    gw.stop();
    backend.join();
}
