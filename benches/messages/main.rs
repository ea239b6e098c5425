//! A WebSocket proxy as one writes it with a WebSocket library: every message is received whole,
//! parsed, and sent again. It stands for what a gateway was before it spliced.
//!
//! ```text
//! messages --listen ADDR --to ADDR       prints `listening on ADDR`, runs until killed
//! ```
//!
//! The library does both handshakes. Settings are those that its users would choose: the library's
//! own defaults for buffers and limits, `TCP_NODELAY` on both sides, one flush for
//! all messages that can be had without waiting. One thread, like every proxy of the lab.
//! Without arguments, as `cargo test --benches` starts it, the proxy carries one message and ends.

use std::net::SocketAddr;

use anyhow::{Context, Result, bail, ensure};
use clap::Parser;
use futures_util::future::try_join;
use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{FutureExt, SinkExt, StreamExt};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::tungstenite::handshake::server::{ErrorResponse, Request, Response};
use tokio_tungstenite::tungstenite::{self, Message};
use tokio_tungstenite::{WebSocketStream, accept_hdr_async, client_async};

/// A proxy that relays WebSocket messages one by one.
#[derive(Parser)]
struct Arguments {
    /// Where clients connect.
    #[arg(long, requires = "to")]
    listen: Option<SocketAddr>,
    /// The one upstream.
    #[arg(long, requires = "listen")]
    to: Option<SocketAddr>,
    /// Given by `cargo bench`.
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let (Some(listen), Some(to)) = (arguments.listen, arguments.to) else {
            return carry_one_message().await;
        };
        let listener = TcpListener::bind(listen).await?;
        println!("listening on {}", listener.local_addr()?);
        accept(listener, to).await
    })
}

async fn accept(listener: TcpListener, to: SocketAddr) -> Result<()> {
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            // Out of descriptors: connections wait in the backlog until some have closed.
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
            continue;
        };
        // How a session ends is the business of the two programs at its ends.
        tokio::spawn(async move { serve(stream, to).await.ok() });
    }
}

/// One session: two handshakes, then messages both ways until one side closes.
#[expect(clippy::result_large_err, reason = "the library says what a refusal is")]
async fn serve(downstream: TcpStream, to: SocketAddr) -> Result<()> {
    downstream.set_nodelay(true)?;
    let mut target = String::new();
    let downstream = accept_hdr_async(downstream, |request: &Request, answer: Response| {
        target = request.uri().to_string();
        Ok::<_, ErrorResponse>(answer)
    })
    .await?;
    let stream = TcpStream::connect(to).await?;
    stream.set_nodelay(true)?;
    let (upstream, _) = client_async(format!("ws://{to}{target}"), stream).await?;
    let ((to_downstream, from_downstream), (to_upstream, from_upstream)) =
        (downstream.split(), upstream.split());
    // The first direction that ends takes the other one with it.
    try_join(relay(from_downstream, to_upstream), relay(from_upstream, to_downstream)).await?;
    Ok(())
}

async fn relay<S>(
    mut source: SplitStream<WebSocketStream<S>>,
    mut sink: SplitSink<WebSocketStream<S>, Message>,
) -> Result<()>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    while let Some(message) = source.next().await {
        sink.feed(message?).await?;
        while let Some(Some(message)) = source.next().now_or_never() {
            sink.feed(message?).await?;
        }
        sink.flush().await?;
    }
    bail!("the stream has ended")
}

/// Proves that the proxy works: a message through it comes back from an echoing upstream.
async fn carry_one_message() -> Result<()> {
    let (backend, proxy) =
        (TcpListener::bind("127.0.0.1:0").await?, TcpListener::bind("127.0.0.1:0").await?);
    let (to, address) = (backend.local_addr()?, proxy.local_addr()?);
    tokio::spawn(accept(proxy, to));
    tokio::spawn(async move {
        let (stream, _) = backend.accept().await.map_err(tungstenite::Error::Io)?;
        let (sink, source) = tokio_tungstenite::accept_async(stream).await?.split();
        source.forward(sink).await
    });
    let stream = TcpStream::connect(address).await?;
    let (mut client, _) = client_async(format!("ws://{address}/"), stream).await?;
    let message = Message::binary(vec![7; 100_000]);
    client.send(message.clone()).await?;
    let answer = client.next().await.context("the session has ended")??;
    ensure!(answer == message, "the message differs from what was sent");
    println!("one message of 100000 bytes went there and back");
    Ok(())
}
