//! Connections of operators: how many, for how long, and how large their requests may be.

use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::sync::Semaphore;
use tokio::time::{Instant, Sleep, sleep, timeout};
use tracing::{debug, warn};

use super::door::{Door, Entrance, Visitor};
use super::{Subject, api};

/// Connections at once; one more is told to come later.
const CONNECTIONS_MAX: usize = 64;
/// How long the head of a request may take, the wait for it included.
const HEAD_PATIENCE: Duration = Duration::from_secs(10);
/// How long a connection may take no byte of its answer.
const WRITE_PATIENCE: Duration = Duration::from_secs(10);
/// A request larger than that is none of ours.
const HEAD_BYTES_MAX: usize = 16 << 10;
const FIELDS_MAX: usize = 64;
/// Between two tries when no connection can be accepted.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// How long the one too many may take to hear so.
const FULL_PATIENCE: Duration = Duration::from_millis(200);

const FULL: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/json\r\n\
    retry-after: 5\r\nconnection: close\r\ncontent-length: 79\r\n\r\n\
    {\"error\":\"too many connections\",\"hint\":\"64 are open; close some, or try later\"}";

/// Serves for as long as it is polled.
pub(super) async fn serve(door: Door, gateway: Arc<Subject>) {
    let (entrance, token) = match door.enter() {
        Ok(entered) => entered,
        Err(error) => return warn!(%error, "the admin API cannot listen"),
    };
    let token = token.map(Arc::new);
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let visitor = accept(&entrance).await;
        let Ok(place) = Arc::clone(&places).try_acquire_owned() else {
            // In a task of its own, and there is a bound to those, too: the kernel's queue waits meanwhile.
            turn_away(visitor).await;
            continue;
        };
        let (gateway, token) = (Arc::clone(&gateway), token.clone());
        tokio::spawn(async move {
            let service = service_fn(|request| {
                let (gateway, token) = (Arc::clone(&gateway), token.clone());
                async move {
                    Ok::<_, Infallible>(api::answer(&gateway, token.as_deref(), &request).await)
                }
            });
            let connection = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEAD_PATIENCE)
                .max_buf_size(HEAD_BYTES_MAX)
                .max_headers(FIELDS_MAX)
                .serve_connection(TokioIo::new(Patient::new(visitor)), service);
            if let Err(error) = connection.await {
                debug!(%error, "a connection to the admin API failed");
            }
            drop(place);
        });
    }
}

/// The next visitor who may be heard.
async fn accept(entrance: &Entrance) -> Visitor {
    loop {
        match poll_fn(|cx| entrance.poll_accept(cx)).await {
            Ok(Some(visitor)) => return visitor,
            Ok(None) => warn!("somebody else than root and this user came to the admin socket"),
            Err(error) => {
                debug!(%error, "cannot accept a connection to the admin API");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn turn_away(mut visitor: Visitor) {
    // Whoever does not take it need not have it.
    let _ = timeout(FULL_PATIENCE, async {
        visitor.write_all(FULL).await?;
        visitor.shutdown().await?;
        // Closed with something unread it would be reset, and the answer lost.
        while visitor.read(&mut [0; 1024]).await? > 0 {}
        io::Result::Ok(())
    })
    .await;
}

/// A connection that must take what it is sent, in time.
struct Patient {
    inner: Visitor,
    /// Runs while a write waits.
    stalled: Option<Pin<Box<Sleep>>>,
}

impl Patient {
    fn new(inner: Visitor) -> Patient {
        Patient { inner, stalled: None }
    }

    fn bound<T>(
        &mut self,
        cx: &mut Context<'_>,
        written: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if written.is_ready() {
            self.stalled = None;
            return written;
        }
        let stalled = self.stalled.get_or_insert_with(|| {
            Box::pin(tokio::time::sleep_until(Instant::now() + WRITE_PATIENCE))
        });
        ready!(stalled.as_mut().poll(cx));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl AsyncRead for Patient {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.inner.as_mut().poll_read(cx, buffer)
    }
}

impl AsyncWrite for Patient {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = self.inner.as_mut().poll_write(cx, bytes);
        self.bound(cx, written)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = self.inner.as_mut().poll_flush(cx);
        self.bound(cx, flushed)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let shut = self.inner.as_mut().poll_shutdown(cx);
        self.bound(cx, shut)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_answer_to_one_too_many_is_as_long_as_it_says() {
        let text = str::from_utf8(FULL).expect("ASCII");
        let (head, body) = text.split_once("\r\n\r\n").expect("a blank line");
        assert!(head.contains(&format!("content-length: {}", body.len())), "{}", body.len());
        assert!(body.contains(&format!("{CONNECTIONS_MAX} are open")));
        serde_json::from_str::<serde_json::Value>(body).expect("JSON");
    }
}
