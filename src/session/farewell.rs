//! The end of an exchange that opened no tunnel: say it, then make sure that it can be heard.

use std::future::poll_fn;
use std::io;
use std::pin::pin;
use std::rc::Rc;
use std::task::{Poll, ready};
use std::time::Duration;

use crate::sys::reactor::Reactor;
use crate::sys::stream::Stream;

/// How long a peer may take to read the answer and to close in turn.
const LINGER: Duration = Duration::from_secs(2);
/// Bytes of an unwanted request that are read and thrown away, so that the close is no reset.
const DISCARD_BYTES_MAX: usize = 64 << 20;
/// Bytes that are thrown away between two turns of other sessions.
const TURN_BYTES_MAX: usize = 256 << 10;

/// Sends `answer`, ends our direction, and waits a little for the peer's end.
///
/// Closing a socket with unread bytes in it makes the kernel send a reset, which may destroy the answer
/// before the peer has read it (RFC 9112 §9.6). Nothing that arrives here is ever looked at (rule U7).
pub async fn say(reactor: &Rc<Reactor>, stream: &Stream, answer: Option<&[u8]>) {
    // The peer is not waited for any longer, whatever became of it.
    let parting = async {
        if let Some(answer) = answer {
            stream.send_all(answer).await?;
        }
        stream.shutdown_write()?;
        discard(reactor, stream).await
    };
    let _ = reactor.timeout(LINGER, pin!(parting)).await;
}

/// Throws away what comes until the peer's end.
async fn discard(reactor: &Reactor, stream: &Stream) -> io::Result<()> {
    let mut total = 0;
    loop {
        let (bytes, ended) = discard_turn(stream).await?;
        total += bytes;
        if ended || total >= DISCARD_BYTES_MAX {
            return Ok(());
        }
        reactor.yield_now().await;
    }
}

/// The same, for one turn: how many bytes came, and whether the end did.
async fn discard_turn(stream: &Stream) -> io::Result<(usize, bool)> {
    let mut turn = 0;
    poll_fn(|cx| {
        // On the stack of this poll alone, so that a waiting session does not carry it.
        let mut scratch = [0; 16 * 1024];
        while turn < TURN_BYTES_MAX {
            match ready!(stream.poll_receive(cx, &mut scratch)) {
                Ok(0) => return Poll::Ready(Ok((turn, true))),
                Ok(bytes) => turn += bytes,
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
        Poll::Ready(Ok((turn, false)))
    })
    .await
}
