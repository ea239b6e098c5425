//! Rules about the source that no compiler keeps: who may use whom, where the kernel may be named, what
//! a test may not do. Every rule is a function over a file's path and text, and has a sample that breaks it.

#[path = "tidy/source.rs"]
mod source;

use std::fs;
use std::path::Path;
use std::process::Command;

use source::{Fault, File, faults_at};

/// Which module of the crate may name which others, top down. A module may always name itself.
/// `lib` may name all: it only lists them.
const DIRECTIONS: [(&str, &[&str]); 16] = [
    ("main", &["cli", "config", "server", "top", "admin", "sys", "metrics", "error"]),
    ("cli", &["config"]),
    ("top", &["admin", "config"]),
    (
        "server",
        &[
            "admin", "session", "http", "ws", "route", "upstream", "relay", "trace", "error",
            "metrics", "config", "sys",
        ],
    ),
    (
        "admin",
        &[
            "session", "http", "ws", "relay", "upstream", "route", "error", "metrics", "config",
            "sys",
        ],
    ),
    (
        "session",
        &["http", "ws", "route", "upstream", "relay", "trace", "error", "metrics", "config", "sys"],
    ),
    ("trace", &["http", "metrics", "config"]),
    ("upstream", &["http", "error", "metrics", "config", "sys"]),
    ("relay", &["ws", "error", "metrics", "sys"]),
    ("http", &["error", "config"]),
    ("ws", &["error", "config"]),
    ("route", &["error", "config"]),
    ("error", &[]),
    ("metrics", &["ws", "error"]),
    ("config", &[]),
    ("sys", &[]),
];

/// Files and folders of decisions without a socket, a clock or a runtime.
const PURE: [&str; 19] = [
    "src/http/",
    "src/ws/",
    "src/route.rs",
    "src/relay/half.rs",
    "src/relay/idle.rs",
    "src/relay/pace.rs",
    "src/relay/uring/flow.rs",
    "src/server/bench/summary.rs",
    "src/top/columns.rs",
    "src/top/draw.rs",
    "src/top/exposition.rs",
    "src/top/figures.rs",
    "src/top/lines.rs",
    "src/top/report.rs",
    "src/top/sample.rs",
    "src/top/state.rs",
    "src/upstream/choice.rs",
    "src/upstream/ejection.rs",
    "src/upstream/hash.rs",
];

/// What a pure file may not name. Addresses of std::net and lengths of time are only values.
const IMPURE: [&str; 22] = [
    "tokio",
    "tokio_uring",
    "Instant",
    "SystemTime",
    "TcpStream",
    "TcpListener",
    "UdpSocket",
    "UnixStream",
    "UnixListener",
    "UnixDatagram",
    "ToSocketAddrs",
    "socket2",
    "OwnedFd",
    "BorrowedFd",
    "RawFd",
    "AsFd",
    "AsRawFd",
    "thread",
    "fs",
    "process",
    "fastrand",
    "sys",
];

/// Words that only the kernel edge may use.
const KERNEL_WORDS: [&str; 3] = ["unsafe", "sock_filter", "bpf_attr"];

/// Packages that only the kernel edge may use.
const KERNEL_PACKAGES: [&str; 7] =
    ["libc", "io_uring", "nix", "rustix", "seccompiler", "aya", "libbpf_rs"];

/// Where the runtime on a ring is started, and where its descriptors are wrapped.
const RING_RUNTIME: [&str; 2] = ["src/server/worker.rs", "src/sys/"];

/// What the top level of the repository may hold, besides names that begin with a dot.
const TOP_LEVEL: [&str; 10] = [
    "Cargo.toml",
    "Cargo.lock",
    "README.md",
    "LICENSE-APACHE",
    "LICENSE-MIT",
    "src",
    "kernel-notes",
    "benches",
    "scripts",
    "tests",
];

const LINES_MAX: usize = 500;

/// Files of src/ that may be longer than [`LINES_MAX`], and why splitting them would read worse.
const LONG: [(&str, &str); 0] = [];

/// Folders whose files begin in the folder's own words, spelt apart so that this file passes.
const MACHINE_PATHS: [&str; 3] =
    [concat!("/wo", "rk/"), concat!("/ro", "ot/"), concat!("/ho", "me/")];

const UNFINISHED: [&str; 5] = [
    concat!("todo", "!"),
    concat!("unimplemented", "!"),
    concat!("TO", "DO"),
    concat!("FIX", "ME"),
    concat!("XX", "X"),
];

const VAGUE: [&str; 6] = ["util", "utils", "common", "helper", "helpers", "misc"];

/// Lines around an `unsafe` in which its reason has to stand.
const SAFETY_WITHIN: usize = 8;

type Rule = fn(&File) -> Vec<Fault>;

const RULES: [Rule; 11] = [
    directions,
    kernel_edge,
    ring_runtime,
    purity,
    reasons_for_unsafe,
    top_level,
    machine_paths,
    unfinished,
    sleeps,
    length,
    vague_names,
];

fn directions(file: &File) -> Vec<Fault> {
    let Some(module) = file.module() else { return Vec::new() };
    if module == "lib" {
        return Vec::new();
    }
    let Some((_, allowed)) = DIRECTIONS.iter().find(|(name, _)| *name == module) else {
        return vec![(1, format!("{module} has no line in the table of directions"))];
    };
    let known = |name: &str| DIRECTIONS.iter().any(|(module, _)| *module == name);
    let mut faults = Vec::new();
    for (line, used) in file.roots_used() {
        if known(&used) && used != module && !allowed.contains(&used.as_str()) {
            faults.push((line, format!("{module} uses {used}, which is not below it")));
        }
    }
    faults
}

fn kernel_edge(file: &File) -> Vec<Fault> {
    // Tests confine children and raise signals, in small files of their own.
    if file.path.starts_with("src/sys/") || file.path.starts_with("tests/support/") {
        return Vec::new();
    }
    let mut faults = file.words(&KERNEL_WORDS, "belongs to src/sys/");
    faults.extend(file.packages(&KERNEL_PACKAGES, "belongs to src/sys/"));
    faults
}

fn ring_runtime(file: &File) -> Vec<Fault> {
    if !file.path.starts_with("src/") || RING_RUNTIME.iter().any(|at| file.path.starts_with(at)) {
        return Vec::new();
    }
    file.packages(&["tokio_uring"], "belongs to the worker and src/sys/")
}

fn purity(file: &File) -> Vec<Fault> {
    if !PURE.iter().any(|at| file.path.starts_with(at)) {
        return Vec::new();
    }
    file.words(&IMPURE, "has no place in a pure file")
}

fn reasons_for_unsafe(file: &File) -> Vec<Fault> {
    let lines: Vec<&str> = file.text.lines().collect();
    let mut faults = file.words(&["unsafe"], "has no SAFETY comment nearby");
    faults.retain(|(line, _)| {
        let at = line - 1;
        // A function says it in its body or in its documentation, everything else in front.
        let is_function = file.code.lines().nth(at).is_some_and(|code| code.contains("unsafe fn"));
        let until = if is_function { at + SAFETY_WITHIN } else { at }.min(lines.len() - 1);
        let near = &lines[at.saturating_sub(SAFETY_WITHIN)..=until];
        !near.iter().any(|near| near.contains("SAFETY:") || near.contains("# Safety"))
    });
    faults
}

fn top_level(file: &File) -> Vec<Fault> {
    let first = file.path.split('/').next().unwrap_or_default();
    if first.starts_with('.') || TOP_LEVEL.contains(&first) {
        return Vec::new();
    }
    vec![(1, format!("{first} is not a name for the top level of the repository"))]
}

fn machine_paths(file: &File) -> Vec<Fault> {
    faults_at(&file.text, &MACHINE_PATHS, "is a path of one machine")
}

fn unfinished(file: &File) -> Vec<Fault> {
    faults_at(&file.text, &UNFINISHED, "is unfinished work")
}

fn sleeps(file: &File) -> Vec<Fault> {
    if !file.is_rust() || !file.path.starts_with("tests/") {
        return Vec::new();
    }
    faults_at(&file.code, &["thread::sleep", "time::sleep"], "is no way to wait in a test")
}

fn length(file: &File) -> Vec<Fault> {
    let lines = file.text.lines().count();
    let may = LONG.iter().any(|(path, _)| *path == file.path);
    if !file.is_rust() || !file.path.starts_with("src/") || lines <= LINES_MAX || may {
        return Vec::new();
    }
    vec![(lines, format!("more than {LINES_MAX} lines, and no entry with a reason"))]
}

fn vague_names(file: &File) -> Vec<Fault> {
    if !file.is_rust() {
        return Vec::new();
    }
    let names = file.path.trim_end_matches(".rs").split('/');
    let vague = names.filter(|name| VAGUE.contains(name));
    vague.map(|name| (1, format!("`{name}` says nothing about what is in it"))).collect()
}

#[test]
fn the_repository_keeps_every_rule() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let Some(paths) = tracked(root) else {
        eprintln!("SKIPPED: the_repository_keeps_every_rule: not a checkout that git can list");
        return;
    };
    let mut found = String::new();
    for path in &paths {
        // What is no text (or was deleted and not yet committed) has only a name.
        let text = fs::read_to_string(root.join(path)).unwrap_or_default();
        let file = File::new(path, &text);
        for (line, what) in RULES.iter().flat_map(|rule| rule(&file)) {
            found.push_str(&format!("\n{path}:{line}: {what}"));
        }
    }
    assert!(paths.iter().any(|path| path == "src/main.rs"), "git listed another place: {paths:?}");
    assert!(found.is_empty(), "{found}\n");
}

/// The files that git tracks. Whoever owns the checkout, it is only read.
fn tracked(root: &Path) -> Option<Vec<String>> {
    let arguments = ["-c", "safe.directory=*", "ls-files", "-z"];
    let output = Command::new("git").current_dir(root).args(arguments).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    let paths: Vec<String> = text.split_terminator('\0').map(str::to_owned).collect();
    (output.status.success() && !paths.is_empty()).then_some(paths)
}

/// What a rule says about a sample: the lines, in order.
fn lines(rule: Rule, path: &str, text: &str) -> Vec<usize> {
    rule(&File::new(path, text)).into_iter().map(|(line, _)| line).collect()
}

#[test]
fn an_upward_use_is_found_however_it_is_written() {
    let found = |path, text| lines(directions, path, text);
    assert_eq!(found("src/session/plain.rs", "use std::io;\nuse crate::server::demo;\n"), [2]);
    assert_eq!(found("src/sys/net.rs", "use crate::{\n    error::End,\n    sys::Errno,\n};"), [2]);
    assert_eq!(found("src/relay/copy.rs", "fn f() { crate::http::head::parse() }"), [1]);
    assert_eq!(found("src/config/mod.rs", "pub(in crate::cli) fn f() {}"), [1]);
    assert_eq!(found("src/http/head/tests.rs", "use super::super::super::session::run;"), [1]);
    assert_eq!(found("src/cli.rs", "use super::server::run;"), [1]);
    assert_eq!(found("src/main.rs", "use upsplice::session::run;"), [1]);
    assert_eq!(found("src/novel/mod.rs", "use crate::config;"), [1], "no line in the table");
}

#[test]
fn a_downward_use_and_words_about_it_are_no_upward_use() {
    let found = |path, text| lines(directions, path, text);
    let none: [usize; 0] = [];
    assert_eq!(found("src/session/mod.rs", "use crate::{http::head, relay::Relay};"), none);
    assert_eq!(found("src/relay/mod.rs", "//! [`crate::server::Gateway`]\nuse self::half;"), none);
    assert_eq!(found("src/sys/mod.rs", "const S: &str = \"crate::server\";"), none);
    assert_eq!(found("src/server/report/tests.rs", "use super::super::choice;"), none);
    assert_eq!(found("tests/relay.rs", "use upsplice::server;"), none);
}

#[test]
fn the_kernel_is_found_outside_its_edge() {
    for sample in [
        "let n = unsafe { f() };",
        "use libc::splice;",
        "use libc as c;",
        "io_uring::IoUring::new(8)",
    ] {
        assert_eq!(lines(kernel_edge, "src/relay/mod.rs", sample), [1], "{sample}");
        assert_eq!(lines(kernel_edge, "tests/relay.rs", sample), [1], "{sample}");
        assert!(lines(kernel_edge, "src/sys/net.rs", sample).is_empty(), "{sample}");
    }
    assert!(lines(kernel_edge, "src/server/report.rs", "show(&probe.io_uring);").is_empty());
    let harmless = "// unsafe\n#![deny(unsafe_code)]\nlet s = (\"libc\", r#\"a\"unsafe\"#, '\"');";
    assert!(lines(kernel_edge, "src/relay/mod.rs", harmless).is_empty());
    assert_eq!(lines(ring_runtime, "src/session/mod.rs", "\ntokio_uring::start(work)"), [2]);
    assert!(lines(ring_runtime, "src/server/worker.rs", "tokio_uring::start(work)").is_empty());
}

#[test]
fn a_clock_a_socket_or_a_runtime_is_found_in_a_pure_file() {
    for sample in [
        "use std::time::{Duration, Instant};",
        "use std::net::TcpStream;",
        "tokio::task::yield_now().await",
        "use crate::sys::Errno;",
    ] {
        assert_eq!(lines(purity, "src/http/head.rs", sample), [1], "{sample}");
        assert_eq!(lines(purity, "src/relay/idle.rs", sample), [1], "{sample}");
        assert!(lines(purity, "src/relay/mod.rs", sample).is_empty(), "{sample}");
    }
    let values = "use std::net::SocketAddr;\nuse std::time::Duration; // not an Instant\n";
    assert!(lines(purity, "src/http/head.rs", values).is_empty());
}

#[test]
fn an_unsafe_without_its_reason_is_found() {
    let found = |text| lines(reasons_for_unsafe, "src/sys/net.rs", text);
    assert_eq!(found("fn f() {\n    unsafe { g() }\n}"), [2]);
    let far = format!("// SAFETY: far away.\n{}unsafe {{ g() }}", "\n".repeat(SAFETY_WITHIN + 1));
    assert_eq!(found(&far), [SAFETY_WITHIN + 3]);
    assert!(found("// SAFETY: g has no conditions.\nunsafe { g() }").is_empty());
    assert!(found("unsafe fn f() {\n    // SAFETY: as the caller promised.\n}").is_empty());
}

#[test]
fn a_stranger_at_the_top_level_is_found() {
    for path in ["notes.txt", "docs/index.md", "target/debug/upsplice"] {
        assert_eq!(lines(top_level, path, ""), [1], "{path}");
    }
    for path in ["Cargo.toml", "src/lib.rs", ".gitignore", "kernel-notes/0001-splice.md"] {
        assert!(lines(top_level, path, "").is_empty(), "{path}");
    }
}

#[test]
fn a_path_of_one_machine_and_unfinished_work_are_found_in_any_file() {
    for word in MACHINE_PATHS {
        let text = format!("one\nls {word}somebody\n");
        assert_eq!(lines(machine_paths, "scripts/lab", &text), [2], "{word}");
    }
    for word in UNFINISHED {
        let text = format!("fn f() {{}}\n// {word}: later\n");
        assert_eq!(lines(unfinished, "README.md", &text), [2], "{word}");
    }
}

#[test]
fn a_sleep_in_a_test_is_found() {
    let found = |path, text| lines(sleeps, path, text);
    assert_eq!(found("tests/relay.rs", "fn f() {\n    std::thread::sleep(SECOND);\n}"), [2]);
    assert_eq!(found("tests/support/mod.rs", "tokio::time::sleep(SECOND).await"), [1]);
    assert!(found("tests/relay.rs", "// never thread::sleep").is_empty());
    assert!(found("src/relay/mod.rs", "tokio::time::sleep(PERIOD).await").is_empty());
}

#[test]
fn a_long_file_and_a_vague_name_are_found() {
    let long = "fn f() {}\n".repeat(LINES_MAX + 1);
    assert_eq!(lines(length, "src/session/mod.rs", &long), [LINES_MAX + 1]);
    assert!(lines(length, "src/session/mod.rs", &long[10..]).is_empty());
    assert!(lines(length, "tests/relay.rs", &long).is_empty());
    for path in ["src/util.rs", "src/relay/helpers/mod.rs", "tests/common/mod.rs"] {
        assert_eq!(lines(vague_names, path, ""), [1], "{path}");
    }
    assert!(lines(vague_names, "src/relay/half.rs", "").is_empty());
}
