//! The little language of the integration tests: a [`Client`], a [`Backend`] and a [`Gw`] between them.
//!
//! Plain blocking sockets; every wait has a bound that only turns a hang into a failure.

#![allow(dead_code, unused_imports, reason = "each test program uses its own part of the language")]

pub mod admin;
pub mod backend;
pub mod client;
pub mod crowd;
pub mod exchange;
pub mod frames;
pub mod gateway;
pub mod process;
pub mod stream;

use std::time::Duration;

pub use self::backend::{Backend, Peer};
pub use self::client::Client;
pub use self::gateway::{Engine, Gw, Runtime};
pub use self::process::Program;
pub use self::stream::{Pattern, pump};

/// How long anything may take before the test has failed.
pub const BOUND: Duration = Duration::from_secs(20);

/// Waits until `condition` holds, by asking again and again; fails after [`BOUND`].
pub fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = std::time::Instant::now() + BOUND;
    while !condition() {
        assert!(std::time::Instant::now() < deadline, "never came true: {what}");
        std::thread::park_timeout(Duration::from_millis(2));
    }
}

/// The number of open descriptors of this process.
pub fn open_descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").expect("proc is mounted").count()
}

/// The number of threads of this process.
pub fn threads() -> usize {
    std::fs::read_dir("/proc/self/task").expect("proc is mounted").count()
}

/// Runs a list of contract tests over all engines and both runtimes: `contract!(name, name, …)` where each
/// name is a `fn name(gw: fn(&str) -> Gw)`-like function taking `(Engine, Runtime)`.
#[macro_export]
macro_rules! contract {
    ($($name:ident),+ $(,)?) => {
        mod splice_on_epoll { $(#[test] fn $name() { super::$name(super::Engine::Splice, super::Runtime::Epoll); })+ }
        mod copy_on_epoll { $(#[test] fn $name() { super::$name(super::Engine::Copy, super::Runtime::Epoll); })+ }
        mod auto_on_epoll { $(#[test] fn $name() { super::$name(super::Engine::Auto, super::Runtime::Epoll); })+ }
        mod uring_on_epoll { $(#[test] fn $name() { super::$name(super::Engine::Uring, super::Runtime::Epoll); })+ }
        mod splice_on_uring { $(#[test] fn $name() { super::$name(super::Engine::Splice, super::Runtime::Uring); })+ }
        mod copy_on_uring { $(#[test] fn $name() { super::$name(super::Engine::Copy, super::Runtime::Uring); })+ }
        mod uring_on_uring { $(#[test] fn $name() { super::$name(super::Engine::Uring, super::Runtime::Uring); })+ }
    };
}
