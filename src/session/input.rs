//! Bytes read from one side during the exchange: a head, and whatever came along with it.

use std::cell::RefCell;
use std::future::poll_fn;
use std::io;
use std::task::{Context, Poll};

use crate::sys::Errno;
use crate::sys::stream::Stream;

/// Most that one read takes; a usual head fits into it.
const CHUNK: usize = 4096;

thread_local! {
    /// Where reads of all exchanges of this thread land. What came is copied at its length: room of a whole
    /// chunk in each buffer was cleared and given back at every attempt, those that found nothing included.
    static SCRATCH: RefCell<[u8; CHUNK]> = const { RefCell::new([0; CHUNK]) };
}

/// A buffer that grows only while a head or body is incomplete.
///
/// What lies beyond them came with the read that completed them; nothing more is read before the 101, so
/// the rest waits in the socket, where the kernel bounds it and tells the peer to stop (rule U1). A read
/// takes at most `beyond_max` bytes more than are sure to belong to the head or body, and never more
/// than one chunk: `limits.head_data_bytes` holds whatever it says, and beyond 4 KiB no memory is spent
/// on it. A limit of 0 reads a head byte by byte.
#[derive(Debug)]
pub struct Input {
    bytes: Vec<u8>,
    beyond_max: usize,
}

impl Input {
    /// An empty buffer that will hold at most `beyond_max` bytes beyond the head and body that are read.
    pub fn holding(beyond_max: usize) -> Input {
        Input { bytes: Vec::new(), beyond_max }
    }

    /// All bytes that are here.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Reads once more from `stream`, of which the next `owed` bytes are sure to belong to head or body; 0 is
    /// the end.
    pub async fn read_more(&mut self, stream: &Stream, owed: usize) -> io::Result<usize> {
        poll_fn(|cx| self.poll_read_more(cx, stream, owed)).await
    }

    /// The poll form of [`Input::read_more`].
    pub fn poll_read_more(
        &mut self,
        cx: &mut Context<'_>,
        stream: &Stream,
        owed: usize,
    ) -> Poll<io::Result<usize>> {
        self.read_chunk(owed, |room| stream.poll_receive(cx, room))
    }

    /// The same if bytes, or the end, are there now; does not wait, and costs no turn of the reactor.
    pub fn read_now(&mut self, stream: &Stream, owed: usize) -> Option<io::Result<usize>> {
        let read = self.read_chunk(owed, |room| Poll::Ready(stream.recv(room)));
        match read {
            Poll::Ready(Err(error)) if Errno::of(&error) == Errno::Again => None,
            Poll::Ready(read) => Some(read),
            Poll::Pending => None,
        }
    }

    fn read_chunk(
        &mut self,
        owed: usize,
        read: impl FnOnce(&mut [u8]) -> Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        let most = CHUNK.min(owed.saturating_add(self.beyond_max));
        SCRATCH.with_borrow_mut(|scratch| {
            let polled = read(&mut scratch[..most]);
            if let Poll::Ready(Ok(got)) = &polled {
                self.bytes.extend_from_slice(&scratch[..*got]);
            }
            polled
        })
    }

    /// Takes away the first `len` bytes, keeps the rest.
    pub fn cut(&mut self, len: usize) -> Vec<u8> {
        let rest = self.bytes.split_off(len);
        std::mem::replace(&mut self.bytes, rest)
    }

    /// Everything that is left, without spare room.
    pub fn into_rest(mut self) -> Vec<u8> {
        self.bytes.shrink_to_fit();
        self.bytes
    }
}
