//! upsplice: a Linux gateway for long-lived upgraded connections.

pub mod config;
pub mod error;
pub mod http;
pub mod metrics;
pub mod relay;
pub mod route;
pub mod server;
pub mod session;
#[allow(unsafe_code)]
pub mod sys;
