//! The `upsplice` program; the only file that exits the process.

use std::collections::HashSet;
use std::io::{ErrorKind, IsTerminal, Write};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use serde_json::Value;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;
use upsplice::admin::client::{Client, Failed, target};
use upsplice::admin::print;
use upsplice::cli::{self, Chosen, DrainVerb, Probe, Reaching, Run, SessionsAction, TopVerb, Verb};
use upsplice::config::Faults;
use upsplice::config::log::{LogFormat, LogRules};
use upsplice::server::bench::load::Plan;
use upsplice::server::{bench, report};
use upsplice::top::ask::Asker;
use upsplice::top::{self, Ended, Form};

#[global_allocator]
static ALLOCATOR: upsplice::sys::alloc::LineAllocator = upsplice::sys::alloc::LineAllocator;

/// `EX_CONFIG` of sysexits.h.
const EXIT_CONFIGURATION: u8 = 78;
/// `EX_UNAVAILABLE`.
const EXIT_NO_GATEWAY: u8 = 69;
/// `EX_NOINPUT`.
const EXIT_NOT_FOUND: u8 = 66;
/// Sessions that are asked for at once: as many as the API gives.
const PAGE: u64 = 1000;
/// Between two looks at a drain that is waited for.
const PROGRESS_PERIOD: Duration = Duration::from_millis(250);

fn main() -> ExitCode {
    let done = match cli::parse().verb {
        Verb::Run(flags) => run(flags),
        Verb::Check(flags) => {
            flags.summary().map(|summary| println!("{summary}")).map_err(Into::into)
        }
        Verb::Probe(flags) => probe(flags),
        Verb::Sessions(flags) => sessions(flags.action),
        Verb::Drain(flags) => drain(&flags),
        Verb::Routes(flags) => routes(&flags.reaching),
        Verb::Reload(flags) => reload(&flags.reaching),
        Verb::Top(flags) => watch(flags),
        Verb::Completions(flags) => print_all(&flags.text()),
        Verb::Man => cli::manual().context("man").and_then(|text| print_all(&text)),
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
            match error.downcast_ref() {
                Some(Failed::NoGateway { .. }) => ExitCode::from(EXIT_NO_GATEWAY),
                Some(Failed::NotFound(_)) => ExitCode::from(EXIT_NOT_FOUND),
                _ => ExitCode::FAILURE,
            }
        }
    }
}

fn run(flags: Run) -> anyhow::Result<()> {
    // What flags and environment said at the start they say of every reload.
    let again = {
        let flags = flags.clone();
        Arc::new(move || flags.clone().into_config())
    };
    let config = flags.into_config()?;
    start_tracing(&config.gateway.log);
    if upsplice::server::run(config, again)? { Ok(()) } else { bail!("a worker panicked") }
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

fn sessions(action: SessionsAction) -> anyhow::Result<()> {
    match action {
        SessionsAction::List { chosen, limit, reaching } => list(chosen, limit, &reaching),
        SessionsAction::Show { id, reaching } => {
            let session = connect(&reaching)?.get(&session_path(&id))?;
            show(&reaching, &session, print::facts)
        }
        SessionsAction::Tap { id, preview, redact, reaching } => {
            let mut parameters = vec![("preview", preview.map(|bytes| bytes.to_string()))];
            parameters.extend(redact.into_iter().map(|pattern| ("redact", Some(pattern))));
            let tap = target(&format!("{}/tap", session_path(&id)), &parameters);
            connect(&reaching)?.lines(&tap, |line| print_event(line, reaching.json).is_ok())?;
            Ok(())
        }
        SessionsAction::Kill { id: Some(id), reaching, .. } => {
            let told = connect(&reaching)?.delete(&session_path(&id))?;
            show(&reaching, &told, |_| format!("{id} is told to end\n"))
        }
        SessionsAction::Kill { id: None, chosen, all, rate, jitter, reaching } => {
            let mut parameters = chosen.parameters();
            let all = all.then(|| "true".to_owned());
            parameters.extend([("all", all), ("rate", rate), ("jitter", jitter)]);
            let told = connect(&reaching)?.delete(&target("/v1/sessions", &parameters))?;
            show(&reaching, &told, |told| {
                let seconds = told["seconds"].as_f64().unwrap_or_default();
                format!("{} sessions are told to end, within {seconds:.1} s\n", told["killed"])
            })
        }
    }
}

/// Page by page: a session that moves meanwhile may be met twice, and is shown once.
fn list(chosen: Chosen, limit: Option<u64>, reaching: &Reaching) -> anyhow::Result<()> {
    let client = connect(reaching)?;
    let mut parameters = chosen.parameters();
    let (mut found, mut known) = (Vec::new(), HashSet::new());
    let mut left = limit.unwrap_or(u64::MAX);
    while left > 0 {
        let mut page = parameters.clone();
        page.push(("limit", Some(left.min(PAGE).to_string())));
        let mut answer = client.get(&target("/v1/sessions", &page))?;
        let sessions = answer["sessions"].as_array_mut().map(std::mem::take).unwrap_or_default();
        left -= (sessions.len() as u64).min(left);
        found
            .extend(sessions.into_iter().filter(|session| known.insert(session["id"].to_string())));
        let Some(cursor) = answer["cursor"].as_str() else { break };
        parameters.retain(|(name, _)| *name != "cursor");
        parameters.push(("cursor", Some(cursor.to_owned())));
    }
    let answer = serde_json::json!({ "sessions": found });
    show(reaching, &answer, |_| print::sessions(&found))
}

fn routes(reaching: &Reaching) -> anyhow::Result<()> {
    let answer = connect(reaching)?.get("/v1/routes")?;
    show(reaching, &answer, |answer| {
        print::routes(answer["routes"].as_array().map(Vec::as_slice).unwrap_or_default())
    })
}

fn reload(reaching: &Reaching) -> anyhow::Result<()> {
    let answer = connect(reaching)?.post("/v1/reload")?;
    show(reaching, &answer, print::reloaded)
}

fn drain(flags: &DrainVerb) -> anyhow::Result<()> {
    let reaching = &flags.reaching;
    let client = connect(reaching)?;
    if flags.undo {
        let undone = client.delete(&target("/v1/drain", &flags.what()))?;
        return show(reaching, &undone, |drain| print::drain(drain, "takes sessions again"));
    }
    let mut drain = client.post(&target("/v1/drain", &flags.parameters()))?;
    show(reaching, &drain, |drain| print::drain(drain, "drains"))?;
    while flags.wait && drain["done"] != true {
        std::thread::sleep(PROGRESS_PERIOD);
        let now = match client.get("/v1/drain") {
            // The process has ended with its last session.
            Err(Failed::NoGateway { .. }) if drain["stop"] == true => return Ok(()),
            now => now?,
        };
        let same = ["what", "route", "endpoint"];
        let mut drains = now["drains"].as_array().into_iter().flatten();
        let found = drains.find(|now| same.iter().all(|key| now[key] == drain[key]));
        let Some(now) = found else { bail!("the drain was undone") };
        if now["left"] != drain["left"] || now["done"] == true {
            show(reaching, now, |drain| print::drain(drain, "drains"))?;
        }
        drain = now.clone();
    }
    Ok(())
}

fn watch(flags: TopVerb) -> anyhow::Result<()> {
    let TopVerb { interval, once, chosen, reaching } = flags;
    let asker = Asker::new(reaching.find()?, chosen.parameters()).context("no runtime")?;
    let ended = match (once, reaching.json) {
        (false, true) => top::stream(&asker, interval),
        (true, true) => top::once(&asker, interval, Form::Json),
        #[cfg(feature = "top")]
        (false, false) if std::io::stdout().is_terminal() => {
            use upsplice::top::draw::Colours;
            let is_plain = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
            let colours = if is_plain { Colours::None } else { Colours::Some };
            top::watch::watch(asker, interval, colours)
        }
        (_, false) => top::once(&asker, interval, Form::Text),
    };
    ended.map_err(|ended| match ended {
        Ended::Failed(failed) => failed.into(),
        Ended::Io(error) => anyhow::Error::new(error).context("top"),
    })
}

fn connect(reaching: &Reaching) -> anyhow::Result<Client> {
    Client::new(reaching.find()?).context("no runtime")
}

fn session_path(id: &str) -> String {
    // Whatever else it is, it is one segment.
    let id: String = form_urlencoded::byte_serialize(id.as_bytes()).collect();
    format!("/v1/sessions/{id}")
}

fn show(
    reaching: &Reaching,
    answer: &Value,
    table: impl FnOnce(&Value) -> String,
) -> anyhow::Result<()> {
    match reaching.json {
        true => print_all(format!("{answer}\n").as_bytes()),
        false => print_all(table(answer).as_bytes()),
    }
}

/// As it comes: whoever reads it should not wait for more.
fn print_event(line: &str, json: bool) -> std::io::Result<()> {
    let text = match serde_json::from_str(line) {
        Ok(event) if !json => print::event(&event),
        _ => format!("{line}\n"),
    };
    let mut stdout = std::io::stdout().lock();
    stdout.write_all(text.as_bytes())?;
    stdout.flush()
}

/// A reader that has seen enough is no failure.
fn print_all(text: &[u8]) -> anyhow::Result<()> {
    match std::io::stdout().write_all(text) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => Err(error).context("stdout"),
        _ => Ok(()),
    }
}

/// Diagnostics on stderr: `info` and worse, unless something else is asked for.
fn start_tracing(rules: &LogRules) {
    let filter = EnvFilter::builder()
        .with_default_directive(LevelFilter::INFO.into())
        .parse_lossy(rules.filter.as_deref().unwrap_or_default());
    let colours = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    let subscriber = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    match rules.format {
        LogFormat::Text => subscriber.with_target(false).with_ansi(colours).init(),
        LogFormat::Json => subscriber.json().flatten_event(true).init(),
    }
}
