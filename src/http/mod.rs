//! HTTP/1.1 heads as values: bytes in, values out; no socket, no clock, no runtime.
//!
//! A head is found by a strict scan, tokenised by httparse, judged, and written anew from its parts: what
//! was not parsed is never forwarded (rule H2).

pub mod body;
pub mod fields;
pub mod head;
pub mod origin;
pub mod page;
pub mod reject;
pub mod target;
pub mod traceparent;
pub mod upgrade;
