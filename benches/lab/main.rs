//! The lab's two ends: a load generator (client) and a backend, speaking real RFC 6455 frames.
//!
//! `scripts/lab` runs this program as two processes with a proxy between them, and owns everything
//! about targets, rounds and tables. Nothing here knows which proxy is measured. Without a verb, as
//! `cargo bench` and `cargo test --benches` start it, every workload runs once against a backend in
//! the same process, in about two seconds, so that the program cannot rot.
//!
//! # Verbs
//!
//! ```text
//! backend [--listen ADDR] [--threads N]       prints `listening on ADDR`, runs until killed
//! load --to ADDR --workload WORKLOAD [OPTION]...     prints one JSON line, or one line of what is
//!                                                    wrong to stderr, and fails
//! ```
//!
//! | option of `load` | workloads | default |
//! | --- | --- | --- |
//! | `--sessions N`, all of them together | all | 1 |
//! | `--size BYTES`, payload of a frame | all | 64 |
//! | `--seconds S` | all | 3 |
//! | `--threads N` | all | 1 |
//! | `--pids PID,..`, processes of the proxy | all | none |
//! | `--backend-pids PID,..` | all | none |
//! | `--limit S`, after which a run that has not ended fails | all | 20 |
//! | `--rate R`, frames per second over all sessions | `echo-open` | 1000 |
//! | `--busy N`, sessions that echo | `crowd`, `slow-readers` | 10 |
//! | `--pace MS`, between two reads of 1 KiB | `slow-readers` | 10 |
//! | `--settle S`, silence before memory is read | `idle`, `slow-readers` | 1 |
//!
//! # Workloads
//!
//! | workload | `units` | latency of |
//! | --- | --- | --- |
//! | `bulk-up`, `bulk-down` | payload bytes | |
//! | `bulk-both` | payload bytes of both directions | |
//! | `echo` | round trips | a round trip |
//! | `echo-open` | round trips | a round trip, from when its frame was due |
//! | `upgrades` | upgrades | connect, 101, one echo |
//! | `idle` | sessions | |
//! | `crowd` | round trips of the busy sessions | a round trip |
//! | `slow-readers` | round trips of the busy sessions | a round trip |
//! | `mixed` | round trips, and 64 KiB of bulk payload each | a round trip of a small message |
//!
//! `mixed` has sessions that echo, that send or take bulk, and that do both by turns. It runs in
//! laps: in each, every session has the same number of units to do, and waits at the end for all
//! others. So the sum is fair: the parts of it are the same whatever is measured, and an engine
//! that is only good at bulk, or only at small messages, cannot hide the other part. A round trip
//! and 64 KiB of bulk were chosen as units because they take about as long on a connection without
//! a proxy.
//!
//! `echo-open` fails with `overloaded: ..` when an answer comes later than a tenth of the run's
//! time and a tenth of a second after its end.
//!
//! # Keys of the JSON line
//!
//! `null` stands for what a workload does not have.
//!
//! | key | value |
//! | --- | --- |
//! | `units`, `seconds` | see above; the rate that was achieved is their quotient |
//! | `round_trips`, `bulk_bytes` | what `units` is made of |
//! | `payload_bytes` | payload that has passed the proxy for certain, both ways |
//! | `cpu_seconds`, `wait_seconds` | the proxy on its core, and waiting for it |
//! | `load_busy`, `backend_busy` | share of the time for which the busiest thread of this end ran; near 1, the end and not the proxy was the limit |
//! | `rate_wanted`, `lag_p99_us` | `echo-open`: `--rate`, and how late frames were sent |
//! | `p50_us`, `p90_us`, `p99_us`, `p999_us`, `p9999_us`, `max_us` | latency in microseconds |
//! | `latencies` | a list of 20 pairs `[quantile, microseconds]`, 0 to 0.9999 |
//! | `pss_before`, `pss_after` | the proxy's memory before the sessions, and with them, in bytes |
//! | `kernel_before`, `kernel_after` | `idle`, `slow-readers`: the kernel's memory for sockets, pipes, epoll of the whole machine, in `slow-readers` also for bytes that wait in sockets; both ends included, so the proxy's share is what is left after a run without a proxy has been taken away |
//! | `kernel_parts` | an object: what has changed between the two, by kind of kernel object |

mod backend;
mod bulk;
mod frame;
mod kernel;
mod latency;
mod load;
mod measured;
mod mixed;
mod open_loop;
mod process;
mod schedule;
mod session;
mod wire;
mod workload;

use std::net::SocketAddr;
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::{Parser, Subcommand};

use frame::Payload;
use load::Load;
use workload::Workload;

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
    /// Serve what the workloads need; print `listening on ADDR` and run until killed.
    Backend {
        #[arg(long, default_value = "127.0.0.1:0")]
        listen: SocketAddr,
        #[arg(long, default_value_t = 1)]
        threads: usize,
    },
    /// Run one workload and print its measurement as one JSON line.
    Load(Load),
}

fn main() -> ExitCode {
    match run(Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // One line, because it becomes a cell of a table.
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: Arguments) -> Result<()> {
    match arguments.verb {
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

/// Runs every workload for a tenth of a second; fails when one of them moves nothing, or does not
/// measure what it says it does.
fn smoke() -> Result<()> {
    let backend = backend::Backend::start("127.0.0.1:0".parse()?, 1)?;
    let payloads = [Payload::Binary, Payload::Text];
    let all = payloads.into_iter().flat_map(|payload| Workload::ALL.map(|one| (one, payload)));
    for (workload, payload) in all {
        let load = Load {
            to: backend.address(),
            workload,
            sessions: 6,
            size: 16 * 1024,
            payload,
            seconds: 0.1,
            threads: 2,
            rate: 200.0,
            busy: 3,
            pace: 1,
            settle: 0.0,
            pids: vec![std::process::id()],
            backend_pids: vec![std::process::id()],
            limit: 20.0,
        };
        let measured = load.run().with_context(|| format!("{workload:?}"))?;
        anyhow::ensure!(measured.units() > 0, "{workload:?} moved nothing");
        anyhow::ensure!(
            measured.total.latency.is_empty() != workload.has_latency(),
            "{workload:?} and its latency do not belong together"
        );
        anyhow::ensure!(
            measured.load_busy.is_some() == (workload != Workload::Idle),
            "{workload:?} does not say whether the load generator was the limit"
        );
        println!("{workload:?}, {payload:?}: {measured}");
    }
    Ok(())
}
