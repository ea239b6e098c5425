//! What this kernel and sandbox allow, found out by trying each thing once.
//!
//! A version number says what a kernel could do; a seccomp profile, a sysctl, a descriptor limit or
//! an emulated kernel decides what it does. So every item here is the real call on throw-away
//! sockets and pipes, and a refusal keeps the call, the errno and a likely cause. The probe knows
//! nothing of what its findings are used for.
//!
//! Invariants: [`Probe::run`] does not panic, leaves no descriptor open and waits for nothing
//! longer than 20 ms. It finds out for the thread that calls it, whose seccomp filters its own thread
//! inherits. A filter that kills instead of refusing kills the probe, as it would whoever probes no
//! further.

mod buffers;
mod host;
mod loopback;
mod pipes;
mod sandbox;
mod sockets;
mod splice;
mod uring;
mod why;

use std::time::Duration;

use serde::Serialize;

pub use host::{Host, Limit};
pub use pipes::{PIPE_BYTES_LARGE, PIPE_BYTES_MIN, Pipes};
pub use sandbox::Sandbox;
pub use splice::Splice;
pub use uring::{Operations, Uring};
pub use why::{Ability, Why};

/// Everything the probe found. Nothing in it is open or borrowed: it can be kept, sent and printed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Probe {
    /// The kernel, and what confines this thread.
    pub host: Host,
    /// Bytes from socket to socket through a pipe.
    pub splice: Splice,
    /// What a pipe is worth.
    pub pipes: Pipes,
    /// A ring, and the operations on it.
    pub io_uring: Uring,
    /// `TCP_ULP` "tls" on an established socket.
    pub ktls: Ability,
    /// Two listeners on one port by `SO_REUSEPORT`.
    pub reuseport: Ability,
    /// `TCP_USER_TIMEOUT` set and read back.
    pub user_timeout: Ability,
    /// `RLIMIT_NOFILE`: descriptors this process may hold. `None`: it could not be read.
    pub nofile: Option<Limit>,
    /// What a gateway could give up. `None`: it was not asked, as a gateway does not, which has it behind it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sandbox: Option<Sandbox>,
}

impl Probe {
    /// Tries everything. Takes a few milliseconds, blocks the calling thread for that long, and
    /// needs about ten descriptors meanwhile.
    ///
    /// Trying kTLS may make a privileged process load the kernel's `tls` module.
    ///
    /// # Panics
    ///
    /// No thread can be made. The trial runs in one of its own, since work that a ring leaves behind
    /// interrupts blocking calls of the thread that made it (`EINTR`), long after the ring is gone.
    pub fn run() -> Probe {
        let trial = std::thread::Builder::new().name("probe".into()).spawn(Probe::try_all);
        trial.expect("a thread for the probe").join().expect("the probe does not panic")
    }

    /// The same, and what of the sandbox is to be had.
    ///
    /// # Panics
    ///
    /// As [`Probe::run`].
    pub fn run_with_sandbox() -> Probe {
        let found = Probe::run();
        Probe { sandbox: Some(sandbox::probe(&found.host)), ..found }
    }

    fn try_all() -> Probe {
        let host = host::read();
        Probe {
            splice: splice::probe(&host),
            pipes: pipes::probe(&host),
            io_uring: uring::probe(&host),
            ktls: sockets::ktls(&host),
            reuseport: sockets::reuseport(&host),
            user_timeout: sockets::user_timeout(&host),
            nofile: host::nofile(),
            sandbox: None,
            host,
        }
    }

    /// Whether splice(2) moves bytes between sockets here. A kind of socket that could not be
    /// tried, such as TCP where the loopback interface is down, does not count against it unless
    /// the other kind could not be tried either.
    pub fn splice_works(&self) -> Result<(), &Why> {
        match (&self.splice.tcp, &self.splice.unix) {
            (Ability::No(why), _) | (_, Ability::No(why)) => Err(why),
            (Ability::Untried(why), Ability::Untried(_)) => Err(why),
            _ => Ok(()),
        }
    }

    /// Whether a runtime on io_uring would start and run here: `tokio_uring::start` panics where
    /// the ring cannot be made, so this is to be asked before.
    pub fn uring_works(&self) -> Result<(), &Why> {
        match &self.io_uring.ring {
            Ability::Yes => Ok(()),
            Ability::No(why) | Ability::Untried(why) => Err(why),
        }
    }

    /// Whether a ring can carry sessions here: its receives stay armed and take provided buffers.
    pub fn ring_engine_works(&self) -> Result<(), &Why> {
        let Uring { ring, provided_buffers, multishot_recv, .. } = &self.io_uring;
        for ability in [ring, provided_buffers, multishot_recv] {
            if let Ability::No(why) | Ability::Untried(why) = ability {
                return Err(why);
            }
        }
        Ok(())
    }

    /// Pages that all pipes of this process together should not exceed: see
    /// [`Pipes::budget_pages`].
    pub fn pipe_budget_pages(&self) -> usize {
        self.pipes.budget_pages
    }
}

/// The longest single wait of the probe: only met where the loopback interface swallows packets.
const WAIT_MAX: Duration = Duration::from_millis(20);
