//! A terminal of a test's own: a pseudo terminal with a program in it, and the screen that its output makes.

#![allow(dead_code, reason = "each test program uses its own part of the language")]
#![allow(unsafe_code, reason = "a pseudo terminal, and what a child does before it is a program")]

use std::fs::File;
use std::io::{self, Read, Write};
use std::num::NonZero;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::Duration;

use crate::support::eventually;

/// Between two looks at the screen while nothing is written.
const LOOK: Duration = Duration::from_millis(20);

/// A program in a terminal; killed when dropped.
pub struct Terminal {
    child: Child,
    /// Our side of it.
    master: File,
    written: Receiver<Vec<u8>>,
    /// Whether nobody can write any more.
    is_closed: bool,
    parser: vt100::Parser,
    /// All that was written.
    pub output: Vec<u8>,
    before: Settings,
}

/// Whether the terminal echoes, gathers lines and makes signals of keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings(libc::tcflag_t);

impl Terminal {
    /// Starts it in a terminal of that size.
    pub fn start(mut command: Command, columns: u16, rows: u16) -> Terminal {
        let (master, slave) = pair(columns, rows).expect("a pseudo terminal");
        let before = settings(&master);
        let side = || Stdio::from(slave.try_clone().expect("a descriptor"));
        command.stdin(side()).stdout(side()).stderr(side()).env("TERM", "xterm-256color");
        // SAFETY: between fork and exec, only calls that are safe there: it leads a session of its own whose
        // terminal is this one, as a shell would arrange it.
        unsafe {
            command.pre_exec(|| {
                if libc::setsid() == -1 || libc::ioctl(0, libc::TIOCSCTTY, 0) == -1 {
                    return Err(io::Error::last_os_error());
                }
                Ok(())
            });
        }
        let child = command.spawn().expect("the program starts");
        let written = read_from(master.try_clone().expect("a descriptor"));
        let parser = vt100::Parser::new(length(rows), length(columns), 0);
        Terminal { child, master, written, is_closed: false, parser, output: Vec::new(), before }
    }

    /// Types it.
    pub fn keys(&mut self, keys: &str) {
        self.master.write_all(keys.as_bytes()).expect("it listens");
    }

    /// The lines of the screen now.
    pub fn screen(&self) -> String {
        self.parser.screen().contents()
    }

    /// Waits until the screen is so.
    pub fn see(&mut self, what: &str, is_so: impl Fn(&str) -> bool) {
        let mut last = String::new();
        let waited = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            eventually(what, || {
                self.receive();
                last = self.screen();
                is_so(&last)
            });
        }));
        assert!(waited.is_ok(), "{what}: the screen stays\n{last}");
    }

    /// Waits until this text is on the screen.
    pub fn see_text(&mut self, text: &str) {
        self.see(text, |screen| screen.contains(text));
    }

    /// Makes the terminal another size, which its programs are told.
    pub fn resize(&mut self, columns: u16, rows: u16) {
        self.parser.screen_mut().set_size(length(rows), length(columns));
        set_size(&self.master, columns, rows);
    }

    /// Sends a signal by its name without SIG.
    pub fn signal(&self, name: &str) {
        let kill = format!("kill -{name} {}", self.child.id());
        assert!(Command::new("sh").arg("-c").arg(kill).status().expect("a shell").success());
    }

    /// Waits for its end, and for all that it has written; the exit code.
    pub fn ended(&mut self) -> Option<i32> {
        eventually("the program ends, and all that it has written is there", || {
            self.receive();
            self.is_closed && self.child.try_wait().expect("our child").is_some()
        });
        self.child.wait().expect("our child").code()
    }

    /// Fails unless the terminal is as it was: the first screen, a cursor, echo.
    pub fn assert_given_back(&self) {
        let screen = self.parser.screen();
        assert!(!screen.alternate_screen(), "still on the other screen");
        assert!(!screen.hide_cursor(), "still without a cursor");
        assert_eq!(settings(&self.master), self.before, "still raw");
        let output = String::from_utf8_lossy(&self.output);
        assert!(output.contains("\x1b[?1049h"), "it never was on the other screen: {output:?}");
    }

    /// Fails unless the terminal is in the program's hands.
    pub fn assert_taken(&self) {
        assert!(self.parser.screen().alternate_screen(), "not on the other screen");
        assert_ne!(settings(&self.master), self.before, "not raw");
    }

    fn receive(&mut self) {
        loop {
            match self.written.recv_timeout(LOOK) {
                Ok(bytes) => {
                    self.parser.process(&bytes);
                    self.output.extend(bytes);
                }
                Err(error) => {
                    self.is_closed |= error == RecvTimeoutError::Disconnected;
                    return;
                }
            }
        }
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // Both fail when it has ended, which is the usual case.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn length(number: u16) -> NonZero<u16> {
    NonZero::new(number).expect("a screen has lines and columns")
}

/// Our side, and the program's; neither belongs to programs that other tests start at this moment.
fn pair(columns: u16, rows: u16) -> io::Result<(File, OwnedFd)> {
    let flags = libc::O_RDWR | libc::O_NOCTTY | libc::O_CLOEXEC;
    // SAFETY: no memory of ours is touched.
    let master = owned(unsafe { libc::posix_openpt(flags) })?;
    // SAFETY: the descriptor is open.
    if unsafe { libc::unlockpt(master.as_raw_fd()) } == -1 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the descriptor is open, and the argument a number.
    let slave = owned(unsafe { libc::ioctl(master.as_raw_fd(), libc::TIOCGPTPEER, flags) })?;
    let master = File::from(master);
    set_size(&master, columns, rows);
    Ok((master, slave))
}

fn owned(descriptor: libc::c_int) -> io::Result<OwnedFd> {
    if descriptor == -1 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: it was just opened, and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(descriptor) })
}

fn set_size(master: &File, columns: u16, rows: u16) {
    let size = libc::winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: the descriptor is open, and the size outlives the call.
    let done = unsafe { libc::ioctl(master.as_raw_fd(), libc::TIOCSWINSZ, &size) };
    assert_eq!(done, 0, "{}", io::Error::last_os_error());
}

fn settings(master: &File) -> Settings {
    let mut found = std::mem::MaybeUninit::<libc::termios>::zeroed();
    // SAFETY: the descriptor is open, and there is room for what is written.
    let done = unsafe { libc::tcgetattr(master.as_raw_fd(), found.as_mut_ptr()) };
    assert_eq!(done, 0, "{}", io::Error::last_os_error());
    // SAFETY: the call has filled it in.
    let found = unsafe { found.assume_init() };
    Settings(found.c_lflag & (libc::ECHO | libc::ICANON | libc::ISIG))
}

/// What comes from the program, until the last of its side is closed.
fn read_from(mut master: File) -> Receiver<Vec<u8>> {
    let (send, written) = channel();
    thread::spawn(move || {
        let mut bytes = [0; 4096];
        while let Ok(count @ 1..) = master.read(&mut bytes) {
            if send.send(bytes[..count].to_vec()).is_err() {
                return;
            }
        }
    });
    written
}
