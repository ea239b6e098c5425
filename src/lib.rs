//! upsplice: a Linux gateway for long-lived upgraded connections.

pub mod error;
