//! WebSocket (RFC 6455, RFC 7692): frames in, judgements out. No socket, no clock, no runtime, and no byte of a
//! peer is ever changed: what passes is what came.

pub mod frame;
pub mod rules;

pub use crate::config::inspection as policy;
