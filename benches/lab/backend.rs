//! What stands behind the proxy: echoes, swallows or pushes frames, by the path that was asked for.
//!
//! `/echo` unmasks every frame and sends it back. `/sink` counts binary payload and answers a text
//! frame with the count. `/push` answers a text frame `SIZE MILLISECONDS` with binary frames of
//! that size for that long, then a text frame with the number of payload bytes.

use std::io::Result;
use std::net::{SocketAddr, TcpStream as StdStream};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use crate::frame::{BINARY, TEXT, Walker, unmasked};
use crate::wire::Wire;

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
    let _ended = match path.as_str() {
        "/sink" => sink(wire).await,
        "/push" => push(wire).await,
        _ => echo(wire).await,
    };
}

async fn echo(mut wire: Wire) -> Result<()> {
    let mut payload = Vec::new();
    loop {
        let opcode = wire.read_frame(&mut payload).await?;
        wire.write(&unmasked(opcode, &payload)).await?;
    }
}

async fn sink(mut wire: Wire) -> Result<()> {
    let mut walker = Walker::default();
    loop {
        if wire.read(|bytes| walker.walk(bytes)).await?.is_some() {
            let count = walker.binary_bytes.to_string();
            wire.write(&unmasked(TEXT, count.as_bytes())).await?;
        }
    }
}

async fn push(mut wire: Wire) -> Result<()> {
    let mut order = Vec::new();
    loop {
        wire.read_frame(&mut order).await?;
        let order = String::from_utf8_lossy(&order);
        let mut numbers = order.split(' ').map(|number| number.parse::<u64>().unwrap_or_default());
        let size = numbers.next().unwrap_or_default() as usize;
        let end = Instant::now() + Duration::from_millis(numbers.next().unwrap_or_default());
        let frame = unmasked(BINARY, &vec![b'd'; size]);
        let mut bytes = 0;
        while Instant::now() < end {
            wire.write(&frame).await?;
            bytes += size;
        }
        wire.write(&unmasked(TEXT, bytes.to_string().as_bytes())).await?;
    }
}
