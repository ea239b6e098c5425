//! What stands behind the proxy: echoes, swallows or pushes frames, by the path that was asked for.
//!
//! `/echo` unmasks every frame and sends it back. `/sink` counts binary payload and answers a text
//! frame with the count. `/push` answers a text frame `SIZE MILLISECONDS` with binary frames of
//! that size for that long, then a text frame with the number of payload bytes. `/both` does the
//! two at the same time, once, and says both numbers at the end. `/phases` echoes binary frames,
//! but swallows those after a text frame `take` until another one asks for the `count`; it answers
//! `push SIZE COUNT` with so many frames and then a text frame with their bytes.

use std::io::Result;
use std::net::{SocketAddr, TcpStream as StdStream};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use futures_util::future::try_join;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use crate::frame::{BINARY, Payload, TEXT, Walker, unmasked, unmasked_into};
use crate::wire::{Wire, Writer};

/// A running backend; it ends with the process.
pub struct Backend {
    address: SocketAddr,
    threads: Vec<JoinHandle<()>>,
}

impl Backend {
    /// Listens and serves on `threads` threads.
    pub fn start(listen: SocketAddr, threads: usize) -> Result<Backend> {
        let runtime = runtime()?;
        let listener = runtime.block_on(async {
            let socket = TcpSocket::new_v4()?;
            socket.set_reuseaddr(true)?;
            socket.bind(listen)?;
            socket.listen(4096)
        })?;
        let address = listener.local_addr()?;
        let (mut running, mut servers) = (Vec::new(), Vec::new());
        for _ in 1..threads {
            let (sender, receiver) = unbounded_channel();
            servers.push(sender);
            running.push(std::thread::spawn(|| serve_handed(receiver)));
        }
        running.push(std::thread::spawn(move || runtime.block_on(accept(listener, servers))));
        Ok(Backend { address, threads: running })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Waits for its threads, which is for ever.
    pub fn join(self) {
        for thread in self.threads {
            thread.join().expect("a backend thread panicked");
        }
    }
}

/// A current-thread runtime.
pub fn runtime() -> Result<Runtime> {
    Builder::new_current_thread().enable_all().build()
}

/// Accepts, and deals connections out in turn so that every thread has the same share.
async fn accept(listener: TcpListener, servers: Vec<UnboundedSender<StdStream>>) {
    let mut turn = 0;
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            // Out of descriptors: connections wait in the backlog until some have closed.
            tokio::time::sleep(Duration::from_millis(5)).await;
            continue;
        };
        match servers.get(turn) {
            Some(server) => {
                let handed = stream.into_std().expect("a fresh socket leaves its runtime");
                server.send(handed).expect("server threads live as long as the process");
            }
            None => {
                tokio::spawn(serve(stream));
            }
        }
        turn = (turn + 1) % (servers.len() + 1);
    }
}

fn serve_handed(mut handed: UnboundedReceiver<StdStream>) {
    let runtime = runtime().expect("a runtime can be made");
    runtime.block_on(async {
        while let Some(stream) = handed.recv().await {
            let stream = TcpStream::from_std(stream).expect("a socket enters the runtime");
            tokio::spawn(serve(stream));
        }
    });
}

/// Serves one connection until it ends; how it ends is the load generator's business.
async fn serve(stream: TcpStream) {
    let Ok(mut wire) = Wire::new(stream) else { return };
    let Ok(path) = wire.accept().await else { return };
    let (path, payload) = match path.strip_suffix("/text") {
        Some(path) => (path, Payload::Text),
        None => (path.as_str(), Payload::Binary),
    };
    let _ended = match path {
        "/sink" => sink(wire, payload).await,
        "/push" => push(wire, payload).await,
        "/both" => both(wire, payload).await,
        "/phases" => phases(wire).await,
        _ => echo(wire).await,
    };
}

async fn echo(mut wire: Wire) -> Result<()> {
    let (mut payload, mut answer) = (Vec::new(), Vec::new());
    loop {
        let opcode = wire.read_frame(&mut payload).await?;
        unmasked_into(&mut answer, opcode, &payload);
        wire.write(&answer).await?;
    }
}

async fn sink(mut wire: Wire, payload: Payload) -> Result<()> {
    let mut walker = Walker::new(payload);
    loop {
        if wire.read(|bytes| walker.walk(bytes)).await?.is_some() {
            let count = walker.payload_bytes.to_string();
            wire.write(&unmasked(payload.word(), count.as_bytes())).await?;
        }
    }
}

async fn push(mut wire: Wire, payload: Payload) -> Result<()> {
    let mut order = Vec::new();
    loop {
        wire.read_frame(&mut order).await?;
        let bytes = push_ordered(&mut wire.split().1, payload, &order).await?;
        wire.write(&unmasked(payload.word(), bytes.to_string().as_bytes())).await?;
    }
}

/// Pushes as `SIZE MILLISECONDS` says. Returns the payload bytes.
async fn push_ordered(writer: &mut Writer<'_>, payload: Payload, order: &[u8]) -> Result<usize> {
    let [size, milliseconds] = numbers(order);
    let end = Instant::now() + Duration::from_millis(milliseconds);
    let frame = unmasked(payload.opcode(), &vec![b'd'; size as usize]);
    let mut bytes = 0;
    while Instant::now() < end {
        writer.write(&frame).await?;
        bytes += size as usize;
    }
    Ok(bytes)
}

async fn both(mut wire: Wire, payload: Payload) -> Result<()> {
    let mut order = Vec::new();
    wire.read_frame(&mut order).await?;
    let (mut reader, mut writer) = wire.split();
    let mut walker = Walker::new(payload);
    let take = async {
        while reader.read(usize::MAX, |bytes| walker.walk(bytes)).await?.is_none() {}
        Ok(())
    };
    let (pushed, ()) = try_join(push_ordered(&mut writer, payload, &order), take).await?;
    let counts = format!("{pushed} {}", walker.payload_bytes);
    writer.write(&unmasked(payload.word(), counts.as_bytes())).await?;
    // The client ends the session.
    reader.read(usize::MAX, |_| ()).await
}

async fn phases(mut wire: Wire) -> Result<()> {
    let (mut payload, mut answer, mut taken) = (Vec::new(), Vec::new(), None);
    loop {
        let opcode = wire.read_frame(&mut payload).await?;
        if opcode == BINARY
            && let Some(bytes) = &mut taken
        {
            *bytes += payload.len();
            continue;
        }
        if opcode == BINARY {
            unmasked_into(&mut answer, BINARY, &payload);
        } else if payload == b"take" {
            taken = Some(0);
            continue;
        } else if let Some(order) = payload.strip_prefix(b"push ") {
            let bytes = push_counted(&mut wire, order).await?;
            unmasked_into(&mut answer, TEXT, bytes.to_string().as_bytes());
        } else {
            let bytes = taken.take().unwrap_or_default();
            unmasked_into(&mut answer, TEXT, bytes.to_string().as_bytes());
        }
        wire.write(&answer).await?;
    }
}

/// Pushes as `SIZE COUNT` says. Returns the payload bytes.
async fn push_counted(wire: &mut Wire, order: &[u8]) -> Result<u64> {
    let [size, count] = numbers(order);
    let frame = unmasked(BINARY, &vec![b'd'; size as usize]);
    for _ in 0..count {
        wire.write(&frame).await?;
    }
    Ok(size * count)
}

/// Two decimal numbers with a blank between them; what is none is 0.
fn numbers(text: &[u8]) -> [u64; 2] {
    let text = String::from_utf8_lossy(text);
    let mut numbers = text.split(' ').map(|number| number.parse().unwrap_or_default());
    [(); 2].map(|()| numbers.next().unwrap_or_default())
}
