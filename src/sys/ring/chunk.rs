//! Bytes on their way through user memory.

use super::pool::Buffer;

/// Bytes that were received and not sent yet: in a provided buffer, or in memory of their own.
#[derive(Debug)]
pub struct Chunk {
    held: Held,
    start: usize,
}

#[derive(Debug)]
enum Held {
    Pooled(Buffer),
    Owned(Vec<u8>),
}

impl Chunk {
    /// Bytes in memory of their own.
    pub fn owned(bytes: Vec<u8>) -> Chunk {
        Chunk { held: Held::Owned(bytes), start: 0 }
    }

    pub(super) fn pooled(buffer: Buffer) -> Chunk {
        Chunk { held: Held::Pooled(buffer), start: 0 }
    }

    /// What is left to send.
    pub fn bytes(&self) -> &[u8] {
        match &self.held {
            Held::Pooled(buffer) => &buffer.bytes()[self.start..],
            Held::Owned(bytes) => &bytes[self.start..],
        }
    }

    /// Whether it occupies a provided buffer.
    pub fn is_pooled(&self) -> bool {
        matches!(self.held, Held::Pooled(_))
    }

    /// The same bytes in memory of their own: a provided buffer is free again.
    pub fn into_owned(self) -> Chunk {
        Chunk::owned(self.into_bytes())
    }

    /// What is left to send.
    pub fn into_bytes(self) -> Vec<u8> {
        match self.held {
            Held::Owned(bytes) if self.start == 0 => bytes,
            _ => self.bytes().to_vec(),
        }
    }

    /// The first `bytes` went out.
    pub fn advance(&mut self, bytes: usize) {
        assert!(bytes <= self.bytes().len(), "sent more than there was");
        self.start += bytes;
    }
}
