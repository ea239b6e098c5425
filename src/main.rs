//! The `upsplice` program; the only file that exits the process.

use std::io::IsTerminal;
use std::process::ExitCode;

use anyhow::bail;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;
use upsplice::cli::{self, Probe, Run, Verb};
use upsplice::config::Faults;

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
    let config = flags.into_config()?;
    let found = upsplice::sys::probe::Probe::run();
    print!("{}", upsplice::server::report::report(&found, Some(&config), json));
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
