//! The `upsplice` program; the only file that exits the process.

use std::io::IsTerminal;
use std::process::ExitCode;

use anyhow::{Context, bail};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;
use upsplice::cli::{self, Probe, Run, Verb};
use upsplice::config::Faults;
use upsplice::server::bench::load::Plan;
use upsplice::server::{bench, report};

#[global_allocator]
static ALLOCATOR: upsplice::sys::alloc::LineAllocator = upsplice::sys::alloc::LineAllocator;

/// `EX_CONFIG` of sysexits.h.
const EXIT_CONFIGURATION: u8 = 78;

fn main() -> ExitCode {
    let done = match cli::parse().verb {
        Verb::Run(flags) => run(flags),
        Verb::Check(flags) => {
            flags.summary().map(|summary| println!("{summary}")).map_err(Into::into)
        }
        Verb::Probe(flags) => probe(flags),
        Verb::BenchPeers(flags) => bench::client::serve(&flags.cores).context("bench-peers"),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if error.is::<Faults>() => {
            eprintln!("{error}");
            ExitCode::from(EXIT_CONFIGURATION)
        }
        Err(error) => {
            eprintln!("upsplice: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(flags: Run) -> anyhow::Result<()> {
    let config = flags.into_config()?;
    start_tracing();
    if upsplice::server::run(config)? { Ok(()) } else { bail!("a worker panicked") }
}

fn probe(flags: Probe) -> anyhow::Result<()> {
    let json = flags.json;
    let sessions = usize::from(flags.sessions);
    let plan = flags.bench.then(|| match flags.quick {
        true => Plan::quick(sessions),
        false => Plan::new(sessions),
    });
    let config = flags.into_config()?;
    let found = upsplice::sys::probe::Probe::run_with_sandbox();
    let bench = match &plan {
        Some(plan) => {
            eprintln!("upsplice: measuring for about {} s", plan.length.as_secs() + 1);
            Some(bench::run(&found, plan).context("the bench")?)
        }
        None => None,
    };
    print!("{}", report::report_with(&found, Some(&config), bench.as_ref(), json));
    Ok(())
}

/// System log lines on stderr: `info` and worse, unless `RUST_LOG` says otherwise.
fn start_tracing() {
    let filter =
        EnvFilter::builder().with_default_directive(LevelFilter::INFO.into()).from_env_lossy();
    let colours = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_target(false)
        .with_ansi(colours)
        .with_writer(std::io::stderr)
        .init();
}
