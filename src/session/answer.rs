//! An answer that is no 101: an ordinary response, relayed with its own framing, after which both close
//! (rule U2).

use std::future::poll_fn;
use std::io;
use std::pin::pin;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use super::{Leave, Parting};
use crate::error::{End, Kind, Side, Stage};
use crate::http::body::{BodyFollower, Framing};
use crate::sys::reactor::Reactor;
use crate::sys::stream::Stream;

/// An answer whose head was read.
pub struct Answer {
    /// Says where the body ends.
    pub framing: Framing,
    /// The filtered head, and nothing of the body.
    pub head: Vec<u8>,
    /// Bytes that came along with the upstream's head.
    pub begun: Vec<u8>,
}

/// Bytes of a body that are read at once.
const CHUNK: usize = 16 * 1024;

/// Relays the answer as far as its framing says. Nothing of the upstream is used again (rule U2).
pub async fn relay(
    reactor: &Rc<Reactor>,
    upstream: &Stream,
    downstream: &Stream,
    answer: Answer,
    idle: Option<Duration>,
) -> Leave {
    let framing = answer.framing;
    match attempt(reactor, upstream, downstream, answer, idle).await {
        Ok(()) => {
            let end = End::new(Side::Upstream, Stage::Response, Kind::Answered);
            Leave { end, parting: Parting::Quiet }
        }
        // An orderly end would make the part that came look like the whole.
        Err(end) if framing == Framing::UntilClose => Leave { end, parting: Parting::Reset },
        Err(end) => Leave { end, parting: Parting::Quiet },
    }
}

async fn attempt(
    reactor: &Rc<Reactor>,
    upstream: &Stream,
    downstream: &Stream,
    answer: Answer,
    idle: Option<Duration>,
) -> Result<(), End> {
    let Answer { framing, head: mut out, begun } = answer;
    let mut body = BodyFollower::new(framing);
    let mut chunk = begun;
    loop {
        let progress = body
            .feed(&chunk)
            .map_err(|rule| End::new(Side::Upstream, Stage::Response, Kind::Refused(rule)))?;
        out.extend_from_slice(&chunk[..progress.taken]);
        let sent = within(reactor, idle, downstream.send_all(&out)).await?;
        sent.map_err(|e| End::io(Side::Downstream, Stage::Response, "send", e))?;
        if progress.done {
            return Ok(());
        }
        out.clear();
        chunk.resize(CHUNK, 0);
        let n = within(reactor, idle, receive(upstream, downstream, &mut chunk)).await??;
        if n == 0 {
            // Only a body that lasts until the close may end here.
            return match body.ends_with_connection() {
                true => Ok(()),
                false => Err(End::new(Side::Upstream, Stage::Response, Kind::Truncated)),
            };
        }
        chunk.truncate(n);
    }
}

/// Receives once from the upstream, unless the client is gone.
async fn receive(upstream: &Stream, downstream: &Stream, chunk: &mut [u8]) -> Result<usize, End> {
    let received = poll_fn(|cx| {
        let polled = upstream.poll_receive(cx, chunk);
        if polled.is_pending() && downstream.poll_hangup(cx) {
            return Poll::Ready(None);
        }
        polled.map(Some)
    });
    match received.await {
        Some(received) => received.map_err(|e| End::io(Side::Upstream, Stage::Response, "recv", e)),
        None => {
            let reset = io::ErrorKind::ConnectionReset.into();
            Err(End::io(Side::Downstream, Stage::Response, "poll", reset))
        }
    }
}

async fn within<T>(
    reactor: &Rc<Reactor>,
    idle: Option<Duration>,
    future: impl Future<Output = T>,
) -> Result<T, End> {
    match idle {
        Some(limit) => reactor
            .timeout(limit, pin!(future))
            .await
            .ok_or_else(|| End::new(Side::Proxy, Stage::Response, Kind::IdleTimeout)),
        None => Ok(future.await),
    }
}
