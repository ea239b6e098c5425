//! The program itself, as a supervisor sees it: signals in, exit code and lines out.

use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;

use serde_json::Value;

use super::{BOUND, eventually};

/// A running `upsplice run`; killed when dropped.
pub struct Program {
    child: Child,
    /// Where it listens, as printed, in the order of the configuration.
    pub listening: Vec<String>,
    stdout: Receiver<String>,
    stderr: Receiver<String>,
    _folder: tempfile::TempDir,
}

/// `upsplice run` with this configuration, not started yet, and the folder that holds its file.
pub fn command(config: &str) -> (Command, tempfile::TempDir) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let file = folder.path().join("test.toml");
    std::fs::write(&file, config).expect("a file");
    let mut command = Command::new(env!("CARGO_BIN_EXE_upsplice"));
    command.arg("run").arg("--config").arg(file).env_remove("RUST_LOG");
    (command, folder)
}

/// A configuration of one worker, one listener and one route for any protocol.
pub fn config_to(to: SocketAddr, gateway: &str, route: &str) -> String {
    let workers = if gateway.contains("workers") { "" } else { "workers = 1\n" };
    format!(
        "[gateway]\n{workers}{gateway}\n[[listener]]\naddress = \"127.0.0.1:0\"\n\
         [[route]]\nname = \"test\"\nprotocols = [\"any\"]\nto = [\"{to}\"]\n{route}\n"
    )
}

impl Program {
    /// Starts it and waits until it listens.
    pub fn start(config: &str) -> Program {
        let (mut command, folder) = command(config);
        Program::from_command(&mut command, config.matches("[[listener]]").count(), folder)
    }

    /// The same from a command that was made with [`command`]; `listeners` lines are waited for.
    pub fn from_command(
        command: &mut Command,
        listeners: usize,
        folder: tempfile::TempDir,
    ) -> Program {
        let mut child = command
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .stdin(Stdio::null())
            .spawn()
            .expect("the program starts");
        let stdout = lines_of(child.stdout.take().expect("piped"));
        let stderr = lines_of(child.stderr.take().expect("piped"));
        let mut program = Program { child, listening: Vec::new(), stdout, stderr, _folder: folder };
        while program.listening.len() < listeners {
            let line = program.diagnostic_with("listening on ");
            let (_, address) = line.split_once("listening on ").expect("it was waited for");
            program.listening.push(address.to_owned());
        }
        program
    }

    /// Where the first listener listens.
    pub fn address(&self) -> SocketAddr {
        self.listening[0].parse().expect("an address")
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// The next access log line.
    pub fn line(&self) -> Value {
        let line = self.stdout.recv_timeout(BOUND).expect("an access log line comes");
        serde_json::from_str(&line).expect("a JSON object")
    }

    /// The next access log line of a session; lines of other requests are left out.
    pub fn session_line(&self) -> Value {
        loop {
            let line = self.line();
            if line["event"] == "session_close" {
                return line;
            }
        }
    }

    /// All access log lines until stdout is closed.
    pub fn lines_to_end(&self) -> Vec<Value> {
        let mut lines = Vec::new();
        while let Ok(line) = self.stdout.recv_timeout(BOUND) {
            lines.push(serde_json::from_str(&line).expect("a JSON object"));
        }
        lines
    }

    /// The next line on stderr that contains `text`.
    pub fn diagnostic_with(&self, text: &str) -> String {
        let mut seen = String::new();
        loop {
            match self.stderr.recv_timeout(BOUND) {
                Ok(line) if line.contains(text) => return line,
                Ok(line) => seen = format!("{seen}{line}\n"),
                Err(error) => panic!("no line with {text:?} on stderr ({error}):\n{seen}"),
            }
        }
    }

    /// All that comes on stderr until it is closed.
    pub fn diagnostics_to_end(&self) -> String {
        let mut said = String::new();
        while let Ok(line) = self.stderr.recv_timeout(BOUND) {
            said = format!("{said}{line}\n");
        }
        said
    }

    /// Sends a signal by its name without SIG. The shell's own `kill` needs no unsafe code.
    pub fn signal(&self, name: &str) {
        let kill = format!("kill -{name} {}", self.child.id());
        let status = Command::new("sh").arg("-c").arg(kill).status().expect("a shell");
        assert!(status.success(), "the signal was not sent");
    }

    /// The counters, as SIGUSR1 prints them.
    pub fn counters(&self) -> Value {
        self.signal("USR1");
        let line = self.diagnostic_with("counters ");
        let json = line.strip_prefix("counters ").expect("the line starts with the word");
        serde_json::from_str(json).expect("a JSON object")
    }

    /// Whether it still runs.
    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().expect("it is our child").is_none()
    }

    /// Waits for its end; the exit code, `None` when a signal killed it.
    pub fn exit_code(&mut self) -> Option<i32> {
        eventually("the program ends", || !self.is_running());
        self.child.wait().expect("it is our child").code()
    }

    /// Names of what its open descriptors refer to.
    pub fn descriptors(&self) -> Vec<String> {
        let folder = format!("/proc/{}/fd", self.child.id());
        let entries = std::fs::read_dir(folder).expect("it runs");
        // One may be closed between the listing and the reading.
        let names = entries.flatten().filter_map(|entry| std::fs::read_link(entry.path()).ok());
        names.map(|name| name.to_string_lossy().into_owned()).collect()
    }

    pub fn threads(&self) -> usize {
        let folder = format!("/proc/{}/task", self.child.id());
        std::fs::read_dir(folder).expect("it runs").count()
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // Both fail when it has ended, which is the usual case.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Runs a program that must not start: its exit code and what it said on stderr.
pub fn refusal(command: &mut Command) -> (Option<i32>, String) {
    let mut child = command
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .stdin(Stdio::null())
        .spawn()
        .expect("the program starts");
    let stderr = lines_of(child.stderr.take().expect("piped"));
    let mut said = String::new();
    eventually("a program that must not start ends", || {
        for line in stderr.try_iter() {
            said = format!("{said}{line}\n");
            assert!(!line.contains("listening on"), "it started: {said}");
        }
        child.try_wait().expect("our child").is_some()
    });
    for line in stderr.iter() {
        said = format!("{said}{line}\n");
    }
    (child.wait().expect("our child").code(), said)
}

fn lines_of(source: impl Read + Send + 'static) -> Receiver<String> {
    let (send, lines) = channel();
    thread::spawn(move || {
        for line in BufReader::new(source).lines() {
            let Ok(line) = line else { return };
            if send.send(line).is_err() {
                return;
            }
        }
    });
    lines
}
