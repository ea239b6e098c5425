//! The lab's two ends: a load generator (client) and a backend, speaking real RFC 6455 frames.
//!
//! `scripts/lab` runs this program as two processes with a proxy between them, and owns everything
//! about targets, rounds and tables. Nothing here knows which proxy is measured. Without a verb, as
//! `cargo bench` and `cargo test --benches` start it, every workload runs once against a backend in
//! the same process, in about a second, so that the program cannot rot.

mod backend;
mod frame;
mod load;
mod process;
mod session;
mod wire;

use std::net::SocketAddr;

use anyhow::Result;
use clap::{Parser, Subcommand};

use load::{Load, Workload};

/// Load generator and backend of `scripts/lab`.
#[derive(Parser)]
struct Arguments {
    #[command(subcommand)]
    verb: Option<Verb>,
    /// Given by `cargo bench`.
    #[arg(long, hide = true)]
    bench: bool,
    /// Run every workload once, briefly, without a proxy; the default without a verb.
    #[arg(long)]
    smoke: bool,
}

#[derive(Subcommand)]
enum Verb {
    /// Serve `/echo`, `/sink` and `/push`; print `listening on ADDR` and run until killed.
    Backend {
        #[arg(long, default_value = "127.0.0.1:0")]
        listen: SocketAddr,
        #[arg(long, default_value_t = 1)]
        threads: usize,
    },
    /// Run one workload and print its measurement as one JSON line.
    Load(Load),
}

fn main() -> Result<()> {
    match Arguments::parse().verb {
        Some(Verb::Backend { listen, threads }) => {
            let backend = backend::Backend::start(listen, threads)?;
            println!("listening on {}", backend.address());
            backend.join();
        }
        Some(Verb::Load(load)) => println!("{}", load.run()?),
        None => smoke()?,
    }
    Ok(())
}

/// Runs every workload for a tenth of a second; fails when one of them moves nothing.
fn smoke() -> Result<()> {
    let backend = backend::Backend::start("127.0.0.1:0".parse()?, 1)?;
    for workload in Workload::ALL {
        let load = Load {
            to: backend.address(),
            workload,
            sessions: 4,
            size: 16 * 1024,
            seconds: 0.1,
            threads: 2,
            settle: 0.0,
            pids: vec![std::process::id()],
            limit: 20.0,
        };
        let measured = load.run()?;
        anyhow::ensure!(measured.units() > 0, "{workload:?} moved nothing");
        println!("{workload:?}: {measured}");
    }
    Ok(())
}
