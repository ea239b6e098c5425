//! The program from outside: exit codes, what is printed where, and which source of a setting wins.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use clap::Parser;
use upsplice::cli::{Cli, Verb};

/// Carries the command line of [`prints_the_configuration_of_a_command_line`].
const LINE: &str = "TEST_COMMAND_LINE";

fn without_environment(program: impl AsRef<Path>) -> Command {
    let mut command = Command::new(program.as_ref());
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("UPSPLICE_") {
            command.env_remove(name);
        }
    }
    command
}

fn upsplice(arguments: &[&str]) -> Command {
    let mut command = without_environment(env!("CARGO_BIN_EXE_upsplice"));
    command.args(arguments);
    command
}

fn file(name: &str) -> String {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/config");
    folder.join(name).to_str().expect("the path is UTF-8").to_owned()
}

fn texts(output: &Output) -> (Option<i32>, String, String) {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

fn ends(mut command: Command) -> (Option<i32>, String, String) {
    texts(&command.output().expect("the program starts"))
}

#[test]
fn check_of_a_good_file_prints_one_line() {
    let name = file("valid/shared-place.toml");
    let expected = format!("{name}: ok: 2 listeners, 3 routes\n");
    assert_eq!(ends(upsplice(&["check", "--config", &name])), (Some(0), expected, String::new()));
    let name = file("valid/least.toml");
    let expected = format!("{name}: ok: 1 listener, 1 route\n");
    assert_eq!(ends(upsplice(&["check", "--config", &name])), (Some(0), expected, String::new()));
}

#[test]
fn check_of_a_bad_file_prints_every_fault_and_exits_with_78() {
    let name = file("invalid/gateway.toml");
    let listed = std::fs::read_to_string(file("invalid/gateway.faults")).unwrap();
    let folder = name.strip_suffix("gateway.toml").unwrap();
    let expected: String = listed.lines().map(|line| format!("{folder}{line}\n")).collect();
    assert_eq!(ends(upsplice(&["check", "--config", &name])), (Some(78), String::new(), expected));
}

#[test]
fn a_file_that_cannot_be_read_is_a_configuration_fault() {
    let folder = file("");
    for name in ["/nonexistent/x.toml", folder.as_str()] {
        for verb in ["check", "run", "probe"] {
            let (code, _, stderr) = ends(upsplice(&[verb, "--config", name]));
            assert_eq!(code, Some(78), "{verb} {name}");
            assert!(stderr.starts_with(&format!("{name}: cannot be read: ")), "{stderr}");
        }
    }
}

#[test]
fn run_refuses_a_bad_file_before_it_starts() {
    let name = file("invalid/empty.toml");
    let (code, stdout, stderr) = ends(upsplice(&["run", "--config", &name]));
    assert_eq!((code, stdout.as_str()), (Some(78), ""));
    assert!(stderr.starts_with(&format!("{name}:1: [[route]]: is missing")), "{stderr}");
}

#[test]
fn run_refuses_an_upstream_that_cannot_be_one() {
    let (code, _, stderr) = ends(upsplice(&["run", "--to", "http://127.0.0.1:80/"]));
    assert_eq!(code, Some(78));
    assert!(stderr.starts_with("--to: must be \"host:port\""), "{stderr}");
}

#[test]
fn wrong_usage_exits_with_2() {
    let cases: &[&[&str]] = &[
        &[],
        &["serve"],
        &["check"],
        &["check", "x.toml"],
        &["run", "--listen", ":80"],
        &["run", "--engine", "sendfile"],
        &["probe", "--yaml"],
    ];
    for arguments in cases {
        let (code, stdout, stderr) = ends(upsplice(arguments));
        assert_eq!((code, stdout.as_str()), (Some(2), ""), "{arguments:?}");
        assert!(!stderr.is_empty(), "{arguments:?}");
    }
}

#[test]
fn a_wrong_value_in_the_environment_is_wrong_usage_too() {
    let mut command = upsplice(&["run"]);
    command.env("UPSPLICE_WORKERS", "many");
    let (code, _, stderr) = ends(command);
    assert_eq!(code, Some(2));
    assert!(stderr.contains("must be a whole number from 1 to 1024"), "{stderr}");
}

#[test]
fn help_and_version_are_no_failure() {
    let version = format!("upsplice {}\n", env!("CARGO_PKG_VERSION"));
    assert_eq!(ends(upsplice(&["--version"])), (Some(0), version, String::new()));
    let (code, help, _) = ends(upsplice(&["run", "--help"]));
    assert_eq!(code, Some(0));
    for word in
        ["--config", "--admin", "--no-fallback", "UPSPLICE_LISTEN", "[default: one per core]"]
    {
        assert!(help.contains(word), "{word}");
    }
}

#[test]
fn check_takes_the_file_from_the_environment_and_rather_from_the_flag() {
    let (good, bad) = (file("valid/least.toml"), file("invalid/empty.toml"));
    let mut command = upsplice(&["check"]);
    command.env("UPSPLICE_CONFIG", &bad);
    assert_eq!(ends(command).0, Some(78));
    let mut command = upsplice(&["check", "--config", &good]);
    command.env("UPSPLICE_CONFIG", &bad);
    assert_eq!(ends(command).0, Some(0));
}

/// No test by itself: [`configuration`] runs it in a process of its own, because the environment belongs to all tests of
/// a process.
#[test]
#[ignore = "the child of the tests about precedence"]
fn prints_the_configuration_of_a_command_line() {
    let Ok(line) = std::env::var(LINE) else { return };
    let words = line.split_whitespace();
    let Verb::Run(run) = Cli::try_parse_from(words).unwrap().verb else { panic!("run only") };
    let config = run.into_config().unwrap();
    let (gateway, route) = (&config.gateway, &config.routes[0]);
    println!(); // The test harness leaves its own line unfinished.
    println!("workers {}", gateway.workers);
    println!("drain {:?}", gateway.drain);
    println!("runtime {:?}", gateway.runtime);
    println!("no_fallback {}", gateway.no_fallback);
    println!("access_log {}", gateway.access_log);
    println!("engine {:?}", route.engine);
    println!("to {}", route.to[0].text);
    println!("listen {:?}", config.listeners[0].address);
    println!("demo {}", config.demo);
}

/// The lines printed for `upsplice run FLAGS` in this environment.
fn configuration(flags: &str, environment: &[(&str, &str)]) -> Vec<String> {
    let mut command = without_environment(std::env::current_exe().unwrap());
    command.args(["--ignored", "--exact", "--nocapture"]);
    command.arg("prints_the_configuration_of_a_command_line");
    command.env(LINE, format!("upsplice run {flags}")).envs(environment.iter().copied());
    let (code, stdout, stderr) = ends(command);
    assert_eq!(code, Some(0), "{stdout}{stderr}");
    stdout.lines().map(str::to_owned).collect()
}

fn written(folder: &tempfile::TempDir, text: &str) -> PathBuf {
    let file = folder.path().join("upsplice.toml");
    std::fs::write(&file, text).unwrap();
    file
}

#[test]
fn a_flag_beats_the_environment_which_beats_the_file_which_beats_the_default() {
    // Setting as printed, then what environment and flag say, and what file, environment and flag amount to.
    let rows: &[(&str, [&str; 2], [&str; 3])] = &[
        ("workers", ["UPSPLICE_WORKERS=3", "--workers=4"], ["2", "3", "4"]),
        ("drain", ["UPSPLICE_DRAIN=3s", "--drain=4"], ["2s", "3s", "4s"]),
        ("runtime", ["UPSPLICE_RUNTIME=uring", "--runtime=auto"], ["Epoll", "Uring", "Auto"]),
        ("engine", ["UPSPLICE_ENGINE=splice", "--engine=auto"], ["Copy", "Splice", "Auto"]),
        ("no_fallback", ["UPSPLICE_NO_FALLBACK=no", "--no-fallback"], ["true", "false", "true"]),
        (
            "access_log",
            ["UPSPLICE_NO_ACCESS_LOG=no", "--no-access-log"],
            ["false", "true", "false"],
        ),
        (
            "to",
            ["UPSPLICE_TO=127.0.0.1:3", "--to=127.0.0.1:4"],
            ["127.0.0.1:2", "127.0.0.1:3", "127.0.0.1:4"],
        ),
        (
            "listen",
            ["UPSPLICE_LISTEN=127.0.0.1:3", "--listen=127.0.0.1:4"],
            ["Tcp(127.0.0.1:2)", "Tcp(127.0.0.1:3)", "Tcp(127.0.0.1:4)"],
        ),
    ];
    let folder = tempfile::tempdir().unwrap();
    let text = "[gateway]\nworkers = 2\ndrain = 2\nruntime = \"epoll\"\nno_fallback = true\n\
        access_log = false\n[[listener]]\naddress = \"127.0.0.1:2\"\n\
        [[route]]\nname = \"a\"\nengine = \"copy\"\nto = [\"127.0.0.1:2\"]\n";
    let file = written(&folder, text);
    let config = format!("--config {}", file.display());
    let environment: Vec<(&str, &str)> =
        rows.iter().map(|row| row.1[0].split_once('=').unwrap()).collect();
    let flags: Vec<&str> = rows.iter().map(|row| row.1[1]).collect();
    let flags = format!("{config} {}", flags.join(" "));
    let runs = [
        configuration(&config, &[]),
        configuration(&config, &environment),
        configuration(&flags, &environment),
    ];
    for (setting, _, expected) in rows {
        for (lines, expected) in runs.iter().zip(expected) {
            let line = format!("{setting} {expected}");
            assert!(lines.contains(&line), "{line}\nnot in {lines:#?}");
        }
    }
}

#[test]
fn without_file_and_upstream_it_is_the_demo_on_loopback() {
    let lines = configuration("", &[]);
    for line in ["demo true", "listen Tcp(127.0.0.1:8080)", "access_log true"] {
        assert!(lines.iter().any(|found| found == line), "{line} not in {lines:#?}");
    }
    let lines = configuration("", &[("UPSPLICE_TO", "127.0.0.1:9")]);
    assert!(lines.iter().any(|found| found == "demo false"), "{lines:#?}");
}
