//! An endpoint is killed under live sessions, and comes back.

mod support;

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use socket2::{Domain, Socket, Type};
use support::client::bound;
use support::{Client, Gw, Pattern, Peer, eventually};

const ENDPOINTS: usize = 3;
const EACH: usize = 20;

/// A backend that can be killed: its port refuses then, and its sessions end.
struct Mortal {
    address: SocketAddr,
    /// Keeps the port without listening on it.
    _port: Socket,
    life: Option<Life>,
}

/// A backend while it lives.
struct Life {
    listener: Arc<TcpListener>,
    sockets: Arc<Mutex<Vec<TcpStream>>>,
    thread: JoinHandle<()>,
}

fn on_port(address: SocketAddr) -> Socket {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
    socket.set_reuse_port(true).expect("others may have the port, too");
    socket.bind(&address.into()).expect("the port is free");
    socket
}

impl Mortal {
    fn start() -> Mortal {
        let port = on_port(([127, 0, 0, 1], 0).into());
        let address = port.local_addr().expect("bound").as_socket().expect("over TCP");
        let mut mortal = Mortal { address, _port: port, life: None };
        mortal.rise();
        mortal
    }

    /// Listens, and echoes after any upgrade.
    fn rise(&mut self) {
        let socket = on_port(self.address);
        socket.listen(128).expect("it listens");
        let listener: Arc<TcpListener> = Arc::new(socket.into());
        let sockets = Arc::<Mutex<Vec<TcpStream>>>::default();
        let (accepting, accepted) = (Arc::clone(&listener), Arc::clone(&sockets));
        let thread = std::thread::spawn(move || {
            // A listener that is shut down accepts no more.
            while let Ok((socket, _)) = accepting.accept() {
                bound(&socket);
                accepted.lock().expect("no panic").push(socket.try_clone().expect("a copy"));
                std::thread::spawn(move || echo(socket));
            }
        });
        self.life = Some(Life { listener, sockets, thread });
    }

    fn kill(&mut self) {
        let Life { listener, sockets, thread } = self.life.take().expect("it lives");
        socket2::SockRef::from(&*listener).shutdown(Shutdown::Both).expect("it listened");
        thread.join().expect("nobody accepts any more");
        drop(listener);
        for socket in sockets.lock().expect("no panic").drain(..) {
            // Some have ended before.
            let _ = socket.shutdown(Shutdown::Both);
        }
    }
}

impl Drop for Mortal {
    fn drop(&mut self) {
        if self.life.is_some() {
            self.kill();
        }
    }
}

fn echo(socket: TcpStream) {
    let mut peer = Peer { socket, rest: Vec::new() };
    let Some(head) = peer.try_read_head() else { return };
    peer.grant(&head, "");
    let mut bytes = [0; 4096];
    while let Ok(read @ 1..) = peer.socket.read(&mut bytes) {
        if peer.socket.write_all(&bytes[..read]).is_err() {
            break;
        }
    }
    // There is another copy, which must not keep the session.
    let _ = peer.socket.shutdown(Shutdown::Both);
}

/// Sessions that live, by endpoint.
fn sessions(gw: &Gw) -> [u64; ENDPOINTS] {
    let view = gw.gateway.upstreams().remove(0);
    std::array::from_fn(|at| view.endpoints[at].sessions)
}

/// So many sessions more, each at the endpoint that it is said to be at.
fn open(gw: &Gw, count: usize, all: &mut [Vec<Client>; ENDPOINTS]) {
    for _ in 0..count {
        let before = sessions(gw);
        let client = Client::upgraded(gw.address(), "/", "raw");
        let after = sessions(gw);
        let at = (0..ENDPOINTS).find(|&at| after[at] > before[at]).expect("one has it");
        all[at].push(client);
    }
}

#[test]
fn a_killed_endpoint_costs_its_own_sessions_only_and_gets_its_share_when_it_is_back() {
    let mut backends: [Mortal; ENDPOINTS] = std::array::from_fn(|_| Mortal::start());
    let to: Vec<String> =
        backends.iter().map(|backend| format!("\"{}\"", backend.address)).collect();
    let gw = Gw::from_toml(&format!(
        "[gateway]\nworkers = 2\n[[listener]]\naddress = \"127.0.0.1:0\"\n\
         [[route]]\nname = \"test\"\nprotocols = [\"any\"]\nto = [{}]\n\
         [route.balance]\neject_after = 2\neject_for = \"100ms\"\neject_max = \"100ms\"\n",
        to.join(", ")
    ));
    let mut pattern = Pattern::new(33);
    let mut echo = |clients: &mut [Vec<Client>]| {
        let pieces: Vec<(&mut Client, Vec<u8>)> =
            clients.iter_mut().flatten().map(|client| (client, pattern.take(3000))).collect();
        for (client, piece) in pieces {
            client.send(&piece);
            assert!(client.receive(piece.len()) == piece, "the bytes that come back are others");
        }
    };
    let mut all: [Vec<Client>; ENDPOINTS] = std::array::from_fn(|_| Vec::new());
    open(&gw, ENDPOINTS * EACH, &mut all);
    assert_eq!(sessions(&gw), [EACH as u64; ENDPOINTS]);
    echo(&mut all);

    backends[0].kill();
    for mut client in all[0].drain(..) {
        // In order or by a reset: it has an end.
        let _ = client.receive_to_end();
    }
    for _ in 0..EACH {
        let line = gw.line();
        assert_eq!(line["endpoint"], backends[0].address.to_string(), "{line}");
        assert!(["reset", "completed"].contains(&line["close_reason"].as_str().unwrap()), "{line}");
    }
    eventually("what ended is not counted", || sessions(&gw) == [0, EACH as u64, EACH as u64]);
    echo(&mut all);
    // None is refused, though the endpoint with the fewest sessions is dead.
    open(&gw, EACH, &mut all);
    assert_eq!(sessions(&gw), [0, EACH as u64 * 3 / 2, EACH as u64 * 3 / 2]);
    let retries = gw.gateway.upstreams()[0].retries;
    assert!(retries >= 2, "{retries}");

    backends[0].rise();
    eventually("somebody tries it", || {
        open(&gw, 1, &mut all);
        !all[0].is_empty()
    });
    // Others' clients leave until these have their share only, and come again.
    for others in &mut all[1..] {
        others.truncate(EACH);
    }
    eventually("who left is not counted", || sessions(&gw)[1..] == [EACH as u64; 2]);
    open(&gw, EACH - 1, &mut all);
    assert_eq!(sessions(&gw), [EACH as u64; ENDPOINTS]);
    echo(&mut all);
    drop(all);
    eventually("none is left", || sessions(&gw) == [0; ENDPOINTS]);
    assert_eq!(gw.metrics().sessions_open, 0);
    gw.stop();
}
