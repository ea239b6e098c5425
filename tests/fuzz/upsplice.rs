//! The part of the program that is fuzzed, built by itself.

pub mod config;
#[path = "../../src/ws/mod.rs"]
pub mod ws;
