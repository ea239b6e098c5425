//! What an inspected session costs in memory, and that large messages do not make it more.

mod support;

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use support::client::field;
use support::client::upgrade_head;
use support::frames::{BINARY, FIN, MASK, TEXT, frame, ours, receive, theirs};
use support::{Client, Peer, Program, eventually};

/// Sessions whose memory is measured, after some that warm up what all of them share.
const SESSIONS: usize = 300;
const WARM_UP: usize = 40;
/// User memory of an inspected session that says nothing compressed: what follows its frames is its own.
const IDLE_BYTES_MAX: u64 = 4 * 1024;
/// Of one that does: an inflater for each direction.
const INFLATING_BYTES_MAX: u64 = 2 * 60 * 1024;
/// What the memory of the program may grow by while large messages pass or wait: buffers that all sessions share,
/// and what an allocator keeps.
const PASSING_BYTES_MAX: u64 = 8 * 1024 * 1024;
const MIB: usize = 1 << 20;
/// RSV1 of a compressed message.
const COMPRESSED: u8 = 0x40;
/// Payload of the one large message. Without optimisation a gigabyte takes too long.
const LARGE: usize = if cfg!(debug_assertions) { 64 * MIB } else { 1024 * MIB };

/// A program that inspects every session, and the ends of its sessions: first the client's, then the server's.
struct Inspecting {
    program: Program,
    granted: Receiver<TcpStream>,
    sessions: Vec<(TcpStream, TcpStream)>,
    offer: &'static str,
}

impl Inspecting {
    /// `agreed` is the extension that the backend agrees to, and clients offer.
    fn new(route: &str, agreed: Option<&'static str>) -> Inspecting {
        let offer = agreed.unwrap_or_default();
        let (backend, granted) = keeper(offer);
        let config = format!(
            "[gateway]\nworkers = 1\n[[listener]]\naddress = \"127.0.0.1:0\"\n\
             [[route]]\nname = \"test\"\nmode = \"inspect\"\nto = [\"{backend}\"]\n{route}\n"
        );
        Inspecting { program: Program::start(&config), granted, sessions: Vec::new(), offer }
    }

    /// Opens so many more, each of which carries a small text each way. Returns the memory after that.
    fn open(&mut self, count: usize) -> u64 {
        for _ in 0..count {
            let mut client = Client::connect(self.program.address());
            let answer = client.ask(upgrade_head("/", "websocket", self.offer));
            assert_eq!(answer.status, 101, "{answer:?}");
            let mut client = client.socket;
            let mut server = support::backend::wait(&self.granted);
            client.write_all(&ours(TEXT, "hello")).expect("sent");
            assert_eq!(receive(&mut server).expect("a frame").payload, b"hello");
            server.write_all(&theirs(TEXT, "hello")).expect("sent");
            assert_eq!(receive(&mut client).expect("a frame").payload, b"hello");
            self.sessions.push((client, server));
        }
        let all = self.sessions.len();
        eventually("all are joined", || self.program.counters()["sessions_open"] == all);
        self.anonymous()
    }

    /// User memory of one more session.
    fn each(&mut self) -> u64 {
        let before = self.open(WARM_UP);
        self.open(SESSIONS).saturating_sub(before) / SESSIONS as u64
    }

    /// Every session carries a compressed message of `plain` each way.
    fn compressed(&mut self, plain: &[u8]) {
        let message = stored(plain);
        let first = FIN | COMPRESSED | TEXT;
        let up = frame(first, Some(MASK), &message);
        let down = frame(first, None, &message);
        for (client, server) in &mut self.sessions {
            carry(client, server, &up);
            carry(server, client, &down);
        }
    }

    /// Anonymous memory in bytes. What it shares with other programs is not counted: that share grows whenever one
    /// of them ends.
    fn anonymous(&self) -> u64 {
        kilobytes(&format!("/proc/{}/smaps_rollup", self.program.id()), "Pss_Anon:")
    }

    /// The most resident memory since `forget_peak`, and the resident memory now.
    fn peak_and_now(&self) -> (u64, u64) {
        let path = format!("/proc/{}/status", self.program.id());
        (kilobytes(&path, "VmHWM:"), kilobytes(&path, "VmRSS:"))
    }

    fn forget_peak(&self) {
        let path = format!("/proc/{}/clear_refs", self.program.id());
        std::fs::write(path, "5").expect("a program of ours");
    }

    /// Ends all sessions without fault, and the program.
    fn stop(mut self) {
        let websocket = &self.program.counters()["websocket"];
        for way in ["to_upstream", "to_downstream"] {
            let violations = websocket[way]["violations"].as_object().expect("rules");
            assert!(violations.values().all(|count| count == 0), "{violations:?}");
        }
        self.sessions.clear();
        self.program.signal("TERM");
        assert_eq!(self.program.exit_code(), Some(0));
    }
}

/// A backend in one thread that grants every upgrade, with these fields, and hands on the connection.
fn keeper(fields: &'static str) -> (SocketAddr, Receiver<TcpStream>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("bound");
    let (keep, kept) = channel();
    std::thread::spawn(move || {
        for socket in listener.incoming() {
            let mut peer = Peer { socket: socket.expect("a connection"), rest: Vec::new() };
            let Some(head) = peer.try_read_head() else { return };
            let key = field(&head, "sec-websocket-key").expect("a key");
            let accept = upsplice::http::upgrade::accept_for(key);
            peer.send(format!(
                "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                 Sec-WebSocket-Accept: {accept}\r\n{fields}\r\n"
            ));
            // Nobody wants them any more: the test is over.
            if keep.send(peer.socket).is_err() {
                return;
            }
        }
    });
    (address, kept)
}

fn kilobytes(path: &str, name: &str) -> u64 {
    let text = std::fs::read_to_string(path).expect("it runs");
    let line = text.lines().find(|line| line.starts_with(name)).expect("the line");
    let number = line.split_whitespace().nth(1).and_then(|kb| kb.parse::<u64>().ok());
    1024 * number.expect("a number")
}

/// A permessage-deflate message of `plain` in stored blocks (RFC 1951 §3.2.4), without the tail that RFC 7692 §7.2.1
/// takes off: what comes next begins with a window full of it.
fn stored(plain: &[u8]) -> Vec<u8> {
    let mut message = Vec::with_capacity(plain.len() + plain.len() / 1000 + 16);
    for block in plain.chunks(0xffff) {
        let len = block.len() as u16;
        message.push(0);
        message.extend(len.to_le_bytes());
        message.extend((!len).to_le_bytes());
        message.extend(block);
    }
    message.push(0);
    message
}

/// Sends all of it while the other end reads.
fn carry(source: &TcpStream, sink: &mut TcpStream, bytes: &[u8]) {
    std::thread::scope(|scope| {
        let mut source = source;
        scope.spawn(move || source.write_all(bytes).expect("sent"));
        let mut came = vec![0; bytes.len()];
        sink.read_exact(&mut came).expect("all comes");
        assert!(came == bytes, "what came differs");
    });
}

const DEFLATE: &str = "Sec-WebSocket-Extensions: permessage-deflate\r\n";
const FRAMES: &str = "inspect = \"frames\"";
const PAYLOAD: &str = "inspect = \"payload\"";

#[test]
fn an_idle_inspected_session_costs_little_memory_at_either_depth() {
    for (route, agreed) in [(FRAMES, None), (PAYLOAD, None), (PAYLOAD, Some(DEFLATE))] {
        let mut inspecting = Inspecting::new(route, agreed);
        let each = inspecting.each();
        println!("{route}, {agreed:?}: {each} bytes each");
        assert!(each > 100, "{route}: {each} bytes: this was not measured");
        assert!(each <= IDLE_BYTES_MAX, "{route}, {agreed:?}: {each} bytes per idle session");
        inspecting.stop();
    }
}

#[test]
fn compressed_messages_cost_their_inflaters_and_no_more_whatever_their_size() {
    let mut inspecting = Inspecting::new(PAYLOAD, Some(DEFLATE));
    inspecting.open(1);
    inspecting.compressed(b"hello");
    let before = inspecting.open(SESSIONS / 3);
    inspecting.compressed(&[b'x'; 1000]);
    let sessions = inspecting.sessions.len() as u64 - 1;
    let small = inspecting.anonymous().saturating_sub(before);
    println!("after a small compressed message each way: {} bytes each", small / sessions);
    assert!(small / sessions > 2 * 8 * 1024, "there was no inflater: {small} bytes");
    // A whole window and more, so that there is nothing that was not touched yet.
    inspecting.compressed(&vec![b'x'; MIB]);
    let large = inspecting.anonymous().saturating_sub(before);
    println!("after one of 1 MiB each way: {} bytes each", large / sessions);
    assert!(
        large <= sessions * INFLATING_BYTES_MAX + PASSING_BYTES_MAX,
        "{} bytes per session",
        large / sessions
    );
    let way = &inspecting.program.counters()["websocket"]["to_upstream"];
    assert!(way["inflated_bytes"].as_u64() > Some(sessions * MIB as u64), "{way}");
    inspecting.stop();
}

#[test]
fn one_large_message_passes_in_constant_memory() {
    let depths: &[&str] = if cfg!(debug_assertions) { &[FRAMES] } else { &[FRAMES, PAYLOAD] };
    for depth in depths {
        let mut inspecting = Inspecting::new(depth, None);
        inspecting.open(1);
        let (client, mut server) = inspecting.sessions.pop().expect("it is open");
        carry(&client, &mut server, &ours(BINARY, vec![7; MIB]));
        inspecting.forget_peak();
        let (_, before) = inspecting.peak_and_now();
        // The header of the whole message, then its payload, without ever holding that.
        let mut header = vec![FIN | BINARY, 0x80 | 127];
        header.extend((LARGE as u64).to_be_bytes());
        header.extend(MASK);
        let chunk: Vec<u8> = (0..MIB).map(|index| (index % 251) as u8).collect();
        std::thread::scope(|scope| {
            let mut client = &client;
            let (header, sent) = (&header, &chunk);
            scope.spawn(move || {
                client.write_all(header).expect("sent");
                for _ in 0..LARGE / MIB {
                    client.write_all(sent).expect("sent");
                }
            });
            let mut came = vec![0; MIB];
            server.read_exact(&mut came[..header.len()]).expect("it comes");
            assert_eq!(came[..header.len()], **header);
            for _ in 0..LARGE / MIB {
                server.read_exact(&mut came).expect("it comes");
                assert!(came == chunk, "what came differs");
            }
        });
        let (peak, _) = inspecting.peak_and_now();
        println!("{depth}: {LARGE} bytes passed, {} bytes more", peak.saturating_sub(before));
        assert!(peak <= before + PASSING_BYTES_MAX, "{depth}: from {before} to {peak} bytes");
        eventually("the message was counted", || {
            let way = &inspecting.program.counters()["websocket"]["to_upstream"];
            way["message_bytes"].as_u64() >= Some((LARGE + MIB) as u64)
        });
        drop((client, server));
        inspecting.stop();
    }
}

#[test]
fn a_reader_that_stops_leaves_bytes_with_their_sender_not_with_the_gateway() {
    for depth in [FRAMES, PAYLOAD] {
        let mut inspecting = Inspecting::new(depth, None);
        inspecting.open(1);
        let (mut client, mut server) = inspecting.sessions.pop().expect("it is open");
        inspecting.forget_peak();
        let (_, before) = inspecting.peak_and_now();
        // Text is read at the depth payload.
        let message = ours(TEXT, vec![b'x'; 3 * MIB]);
        let all = message.len() * 64;
        client.set_write_timeout(Some(Duration::from_millis(300))).expect("a bound");
        let mut sent = 0;
        while sent < all {
            let at = sent % message.len();
            match client.write(&message[at..]) {
                Ok(written) => sent += written,
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                // A machine that was stopped for a while ends a wait that has a bound.
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => panic!("{error}"),
            }
        }
        assert!(sent < all, "nothing held the sender back");
        let (peak, _) = inspecting.peak_and_now();
        println!("{depth}: {sent} bytes wait, {} bytes more", peak.saturating_sub(before));
        assert!(peak <= before + PASSING_BYTES_MAX, "{depth}: from {before} to {peak} bytes");
        // All of it is still there for one who reads on.
        let mut left = sent;
        let mut came = vec![0; message.len()];
        while left > 0 {
            let whole = left.min(message.len());
            server.read_exact(&mut came[..whole]).expect("it comes");
            assert!(came[..whole] == message[..whole], "what came differs");
            left -= whole;
        }
        drop((client, server));
        inspecting.stop();
    }
}
