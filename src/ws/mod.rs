//! WebSocket (RFC 6455, RFC 7692): frames in, judgements out. No socket, no clock, no runtime, and no byte of a
//! peer is ever changed: what passes is what came.

pub mod close;
pub mod deflate;
pub mod extensions;
pub mod frame;
pub mod inspect;
pub mod mask;
pub mod rate;
pub mod rules;
pub mod utf8;

pub use crate::config::inspection as policy;
