//! A service manager: the socket that a service tells things, the sockets that a service is given, and a way to
//! hold up one of its threads.

#![allow(dead_code, reason = "each test program uses its own part")]
#![allow(unsafe_code, reason = "pre_exec, and ptrace(2) on one thread of another process")]

use std::fs;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::ptr::null_mut;
use std::time::{Duration, Instant};

use super::support::BOUND;

/// The manager's end of `NOTIFY_SOCKET`.
pub struct Manager {
    socket: UnixDatagram,
    /// What `NOTIFY_SOCKET` has to say.
    pub address: String,
    _folder: Option<tempfile::TempDir>,
}

impl Manager {
    /// At a path.
    pub fn new() -> Manager {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("notify");
        let socket = UnixDatagram::bind(&path).expect("a socket");
        Manager::with(socket, path.display().to_string(), Some(folder))
    }

    /// At an abstract name, which is no file.
    pub fn with_abstract_name() -> Manager {
        let name = format!("upsplice-test-{}-{}", std::process::id(), fastrand::u64(..));
        let address = SocketAddr::from_abstract_name(&name).expect("a short name");
        let socket = UnixDatagram::bind_addr(&address).expect("a socket");
        Manager::with(socket, format!("@{name}"), None)
    }

    fn with(socket: UnixDatagram, address: String, folder: Option<tempfile::TempDir>) -> Manager {
        socket.set_read_timeout(Some(BOUND)).expect("a bound");
        Manager { socket, address, _folder: folder }
    }

    /// The next message.
    pub fn message(&self) -> String {
        let mut buffer = [0; 4096];
        // A wait that has a bound ends with EINTR when the process is stopped and goes on.
        let length = loop {
            match self.socket.recv(&mut buffer) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                done => break done.expect("a message comes"),
            }
        };
        String::from_utf8(buffer[..length].to_vec()).expect("text")
    }

    /// Fails if a message with this line comes within half a second.
    pub fn never(&self, line_start: &str) {
        let deadline = Instant::now() + Duration::from_millis(500);
        let mut buffer = [0; 4096];
        while let Some(left) = deadline.checked_duration_since(Instant::now()) {
            let wait = left.max(Duration::from_millis(1));
            self.socket.set_read_timeout(Some(wait)).expect("a bound");
            let Ok(length) = self.socket.recv(&mut buffer) else { continue };
            let message = String::from_utf8_lossy(&buffer[..length]);
            assert!(!message.lines().any(|line| line.starts_with(line_start)), "{message}");
        }
        self.socket.set_read_timeout(Some(BOUND)).expect("a bound");
    }

    /// The next message with this line, and those before it.
    pub fn until(&self, line_start: &str) -> (String, Vec<String>) {
        let mut before = Vec::new();
        let deadline = Instant::now() + BOUND;
        loop {
            // Messages may go on coming for ever.
            assert!(Instant::now() < deadline, "no {line_start:?} among {before:?}");
            let message = self.message();
            if message.lines().any(|line| line.starts_with(line_start)) {
                return (message, before);
            }
            before.push(message);
        }
    }
}

/// `program` as a manager starts it: with these sockets from descriptor 3 on, and the variables that say so.
pub fn activated(program: &Command, sockets: Vec<OwnedFd>, names: Option<&str>) -> Command {
    // Only the process itself knows its number; the shell becomes the program.
    let mut command = Command::new("sh");
    command.arg("-c").arg("export LISTEN_PID=$$; exec \"$0\" \"$@\"");
    command.arg(program.get_program()).args(program.get_args());
    command.env_remove("RUST_LOG").env("LISTEN_FDS", sockets.len().to_string());
    if let Some(names) = names {
        command.env("LISTEN_FDNAMES", names);
    }
    let place = move || {
        for (at, socket) in sockets.iter().enumerate() {
            // First out of the way of each other, then to their places.
            // SAFETY: the calls take no pointers; both numbers are descriptors of this new process alone.
            let placed = unsafe {
                let high = libc::fcntl(socket.as_raw_fd(), libc::F_DUPFD_CLOEXEC, 100);
                libc::dup2(high, 200 + i32::try_from(at).unwrap_or(0))
            };
            if placed < 0 {
                return Err(io::Error::last_os_error());
            }
        }
        for at in 0..i32::try_from(sockets.len()).unwrap_or(0) {
            // SAFETY: as above; what the low numbers held was close-on-exec, or is one of the sockets.
            let placed = unsafe { libc::dup2(200 + at, 3 + at) };
            // SAFETY: the call takes no pointer.
            let closed = unsafe { libc::close(200 + at) };
            if placed < 0 || closed < 0 {
                return Err(io::Error::last_os_error());
            }
        }
        Ok(())
    };
    // SAFETY: between fork and exec only calls that are async-signal-safe are allowed. The closure makes such
    // system calls on memory from before the fork, and allocates and locks nothing.
    unsafe { command.pre_exec(place) };
    command
}

/// A thread that does not run until this is dropped. For the thread of the test that made it only.
pub struct Held(libc::pid_t);

impl Held {
    /// Holds the thread `name` of the process `pid`.
    ///
    /// # Errors
    ///
    /// Tracing is not allowed here.
    pub fn thread(pid: u32, name: &str) -> io::Result<Held> {
        let tasks = fs::read_dir(format!("/proc/{pid}/task")).expect("it runs");
        let is_it = |task: &fs::DirEntry| {
            fs::read_to_string(task.path().join("comm")).is_ok_and(|found| found.trim() == name)
        };
        let task = tasks.flatten().find(is_it).expect("a thread of this name");
        let task: libc::pid_t =
            task.file_name().to_str().and_then(|text| text.parse().ok()).expect("a number");
        for request in [libc::PTRACE_SEIZE, libc::PTRACE_INTERRUPT] {
            // SAFETY: neither request takes or gives anything by pointer.
            let done = unsafe { libc::ptrace(request, task, null_mut::<u8>(), null_mut::<u8>()) };
            if done != 0 {
                return Err(io::Error::last_os_error());
            }
        }
        // SAFETY: the kernel writes no status to a null pointer.
        let stopped = unsafe { libc::waitpid(task, null_mut(), libc::__WALL) };
        assert_eq!(stopped, task, "{}", io::Error::last_os_error());
        Ok(Held(task))
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        // SAFETY: no pointer is used; the thread is stopped, and traced by this thread.
        unsafe { libc::ptrace(libc::PTRACE_DETACH, self.0, null_mut::<u8>(), null_mut::<u8>()) };
    }
}
