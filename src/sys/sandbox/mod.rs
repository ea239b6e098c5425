//! What a process may still do once it has all that it needs: a list of system calls, a few folders to read, no
//! capability beyond those in use. Nothing of it can be taken back.
//!
//! All three hold for the calling thread and for those that it starts from then on. Each is tried by itself:
//! what the kernel does not have, or what the sandbox around us refuses, is named and left out.
//! <https://man7.org/linux/man-pages/man2/seccomp.2.html> (3.17),
//! <https://man7.org/linux/man-pages/man7/landlock.7.html> (5.13).

mod calls;
mod filter;
mod folders;

use std::fmt;
use std::io;
use std::path::PathBuf;

use super::credentials;

/// What the process does later, and so must keep.
#[derive(Clone, Debug, Default)]
pub struct Needs {
    /// The rings it uses.
    pub rings: Rings,
    /// Files and folders that it reads, with all that is below them. What is not there is passed over.
    pub read: Vec<PathBuf>,
    /// Folders in which it makes files and writes to them.
    pub write: Vec<PathBuf>,
    /// Folders in which it makes and removes sockets.
    pub sockets: Vec<PathBuf>,
}

/// Rings of io_uring: what goes through one is seen by no filter of calls.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Rings {
    /// There are none, and none are made.
    #[default]
    None,
    /// Those that were made before, which are bound to what they are for ([`crate::sys::ring::Prepared`]).
    Made,
    /// New ones, of any kind.
    Any,
}

/// What became of each part.
#[derive(Debug)]
pub struct Confined {
    /// The filter of system calls: how many of them it lets through.
    pub calls: Result<usize, Refused>,
    /// The rules for files: the version of landlock.
    pub files: Result<u32, Refused>,
    /// The capabilities that are left.
    pub capabilities: Result<Vec<&'static str>, Refused>,
}

/// A part that is not to be had here.
#[derive(Debug)]
pub struct Refused {
    /// The call.
    pub call: &'static str,
    /// What the kernel answered.
    pub source: io::Error,
}

/// Confines the calling thread, and those that it starts from now on.
pub fn confine(needs: &Needs) -> Confined {
    // In this order: the filter lets neither of the other two through.
    Confined {
        capabilities: credentials::keep_capabilities(),
        files: folders::restrict(needs),
        calls: filter::install(needs.rings),
    }
}

impl Refused {
    pub(super) fn last(call: &'static str) -> Refused {
        Refused { call, source: io::Error::last_os_error() }
    }
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.call, self.source)
    }
}
