//! What `upsplice probe` prints: the probe's findings, then the engine of each route and the
//! runtime of a worker, each with its reason. Text for people, or one JSON object.

use std::fmt::Write;

use serde::Serialize;

use super::bench::summary::Summary;
use super::choice::{Choice, engine_for, engine_word, runtime_for, runtime_word};
use crate::config::{Config, Engine, Runtime};
use crate::sys::probe::{Ability, Host, Pipes, Probe, Sandbox};

/// The whole report, ending in a line feed. Without a `config`, the engine of a route that asks for
/// nothing.
pub fn report(probe: &Probe, config: Option<&Config>, json: bool) -> String {
    report_with(probe, config, None, json)
}

/// The same, and what a bench has found.
pub fn report_with(
    probe: &Probe,
    config: Option<&Config>,
    bench: Option<&Summary>,
    json: bool,
) -> String {
    let choices = Choices::new(probe, config);
    match (json, bench) {
        (true, bench) => as_json(&Document { probe, choices, bench }),
        (false, None) => as_text(probe, &choices),
        (false, Some(bench)) => format!("{}\n{bench}", as_text(probe, &choices)),
    }
}

/// The JSON object: the probe's fields, then the choices.
#[derive(Serialize)]
struct Document<'a> {
    #[serde(flatten)]
    probe: &'a Probe,
    #[serde(flatten)]
    choices: Choices<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    bench: Option<&'a Summary>,
}

/// What follows from the probe for this configuration.
#[derive(Serialize)]
struct Choices<'a> {
    routes: Vec<RouteRow<'a>>,
    worker: WorkerRow,
}

#[derive(Serialize)]
struct RouteRow<'a> {
    name: &'a str,
    configured: &'static str,
    /// `None`: its sessions are refused.
    engine: Option<&'static str>,
    why: String,
}

#[derive(Serialize)]
struct WorkerRow {
    configured: &'static str,
    /// `None`: the gateway does not start.
    runtime: Option<&'static str>,
    why: String,
}

impl<'a> Choices<'a> {
    fn new(probe: &Probe, config: Option<&'a Config>) -> Choices<'a> {
        let no_fallback = config.is_some_and(|config| config.gateway.no_fallback);
        let route = |name, asked| {
            let Choice { taken, why } = engine_for(probe, asked, no_fallback);
            RouteRow { name, configured: engine_word(asked), engine: taken.map(engine_word), why }
        };
        let routes = match config {
            Some(config) => config.routes.iter().map(|r| route(&r.name, r.engine)).collect(),
            None => vec![route("(any)", Engine::Auto)],
        };
        let asked = config.map_or(Runtime::Auto, |config| config.gateway.runtime);
        let Choice { taken, why } = runtime_for(probe, asked);
        let configured = runtime_word(asked);
        let worker = WorkerRow { configured, runtime: taken.map(runtime_word), why };
        Choices { routes, worker }
    }
}

fn as_json(document: &Document) -> String {
    // Every key is a string and no number is unusual, so this cannot fail; if it did, the report
    // would say so.
    let text = serde_json::to_string_pretty(document);
    text.unwrap_or_else(|error| format!("{{\"error\": {:?}}}", error.to_string())) + "\n"
}

fn as_text(probe: &Probe, choices: &Choices) -> String {
    let mut text = String::new();
    for (item, finding) in findings(probe) {
        let _ = writeln!(text, "{item:ITEM_WIDTH$}{finding}");
    }
    let names = choices.routes.iter().map(|row| row.name.chars().count());
    let width = names.max().unwrap_or(0);
    text.push_str("\nroutes:\n");
    for RouteRow { name, configured, engine, why } in &choices.routes {
        let engine = engine.unwrap_or("refused");
        let _ = writeln!(text, "  {name:width$}  {engine:7}  asked for {configured}: {why}");
    }
    let WorkerRow { configured, runtime, why } = &choices.worker;
    let runtime = runtime.unwrap_or("refused");
    let _ = writeln!(text, "\nworkers:\n  {runtime:7}  asked for {configured}: {why}");
    text
}

/// One line per item of the probe, in its order.
fn findings(probe: &Probe) -> Vec<(&'static str, String)> {
    let Probe { host, splice, pipes, io_uring, ktls, reuseport, user_timeout, nofile, sandbox } =
        probe;
    let mut findings = vec![
        ("kernel", format!("Linux {} {}", host.kernel, host.arch)),
        ("seccomp", seccomp(host)),
        ("splice, TCP", ability(&splice.tcp)),
        ("splice, Unix", ability(&splice.unix)),
        ("pipe", fresh_pipe(pipes)),
        ("pipe, 256 KiB", ability(&pipes.grow)),
        ("pipe-max-size", optional(pipes.max_bytes.map(size))),
        ("pipe pages", pipe_pages(host, pipes)),
        ("io_uring", ring(host, &io_uring.ring)),
        ("  operations", operations(probe)),
        ("  provided buffers", ability(&io_uring.provided_buffers)),
        ("  multishot accept", ability(&io_uring.multishot_accept)),
        ("  multishot recv", ability(&io_uring.multishot_recv)),
        ("kTLS", ability(ktls)),
        ("SO_REUSEPORT", ability(reuseport)),
        ("TCP_USER_TIMEOUT", ability(user_timeout)),
        ("nofile", optional(nofile.map(|limit| format!("{} of {}", limit.soft, limit.hard)))),
    ];
    if let Some(sandbox) = sandbox {
        findings.extend([
            ("sandbox", "of a running gateway; see --no-sandbox".to_owned()),
            ("  seccomp filter", ability(&sandbox.calls)),
            ("  landlock", landlock(sandbox)),
            ("  fewer rights", ability(&sandbox.capabilities)),
        ]);
    }
    findings
}

fn ability(ability: &Ability) -> String {
    match ability {
        Ability::Yes => "yes".into(),
        Ability::No(why) => format!("no: {why}"),
        Ability::Untried(why) => format!("not tried: {why}"),
    }
}

fn seccomp(host: &Host) -> String {
    match host.seccomp_mode {
        Some(0) => "no filter".into(),
        Some(1) => "strict mode".into(),
        Some(2) => "a filter is active".into(),
        Some(mode) => format!("mode {mode}"),
        None => UNKNOWN.into(),
    }
}

fn landlock(sandbox: &Sandbox) -> String {
    match (sandbox.landlock, &sandbox.files) {
        (Some(version), Ability::Yes) => format!("yes, version {version}"),
        (_, files) => ability(files),
    }
}

fn fresh_pipe(pipes: &Pipes) -> String {
    match (&pipes.create, pipes.fresh_bytes) {
        (Ability::Yes, Some(bytes)) if pipes.degraded => {
            format!("{}, degraded: this user's pipe pages are used up", size(bytes))
        }
        (Ability::Yes, Some(bytes)) => size(bytes),
        (create, _) => ability(create),
    }
}

fn pipe_pages(host: &Host, pipes: &Pipes) -> String {
    let limit = |pages| match pages {
        Some(0) => "none".into(),
        Some(pages) => format!("{pages}"),
        None => UNKNOWN.to_owned(),
    };
    let capability = match (pipes.above_max, host.cap_sys_resource, host.cap_sys_admin) {
        (true, _, _) => "CAP_SYS_RESOURCE lifts them",
        // Which user namespace the capability counts in cannot be tried without using the pages up.
        (_, _, Some(true)) => "CAP_SYS_ADMIN lifts them outside of user namespaces",
        (_, Some(true), _) => "CAP_SYS_RESOURCE has no effect here",
        (_, Some(false), _) => "no capability lifts them",
        (_, None, _) => "capabilities unknown",
    };
    format!(
        "{} for all pipes of ours; limits per user: soft {}, hard {}; {capability}",
        pipes.budget_pages,
        limit(pipes.user_pages_soft),
        limit(pipes.user_pages_hard),
    )
}

fn ring(host: &Host, ring: &Ability) -> String {
    match host.io_uring_disabled {
        Some(level) if ring.works() => format!("yes, kernel.io_uring_disabled is {level}"),
        _ => ability(ring),
    }
}

fn operations(probe: &Probe) -> String {
    let uring = &probe.io_uring;
    if let Some(why) = uring.register_probe.why() {
        return format!("{UNKNOWN}: {why}");
    }
    let with = |wanted| {
        let named = uring.operations.named().into_iter();
        named.filter(|&(_, has)| has == wanted).map(|(name, _)| name).collect::<Vec<_>>().join(" ")
    };
    match with(false) {
        lacking if lacking.is_empty() => with(true),
        lacking => format!("{}; lacking: {lacking}", with(true)),
    }
}

/// `bytes` in the largest unit that divides it.
fn size(bytes: usize) -> String {
    match bytes {
        0 => "0 bytes".into(),
        _ if bytes.is_multiple_of(1 << 20) => format!("{} MiB", bytes >> 20),
        _ if bytes.is_multiple_of(1 << 10) => format!("{} KiB", bytes >> 10),
        _ => format!("{bytes} bytes"),
    }
}

fn optional(text: Option<String>) -> String {
    text.unwrap_or_else(|| UNKNOWN.into())
}

const UNKNOWN: &str = "unknown";

/// Wide enough for the longest item and two spaces.
const ITEM_WIDTH: usize = 20;

#[cfg(test)]
mod tests;
