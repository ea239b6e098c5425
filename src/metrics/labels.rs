//! The closed lists that counters, log lines and the relay share: one word for one thing.

/// One of the two flows of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// From downstream to upstream.
    ToUpstream,
    /// From upstream to downstream.
    ToDownstream,
}

impl Direction {
    /// Both, in the order of their counters.
    pub const BOTH: [Direction; 2] = [Direction::ToUpstream, Direction::ToDownstream];

    /// The word in logs and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Direction::ToUpstream => "to_upstream",
            Direction::ToDownstream => "to_downstream",
        }
    }

    /// The other flow.
    pub fn reverse(self) -> Direction {
        match self {
            Direction::ToUpstream => Direction::ToDownstream,
            Direction::ToDownstream => Direction::ToUpstream,
        }
    }
}

/// How bytes are moved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Engine {
    /// Socket to pipe to socket inside the kernel.
    Splice,
    /// recv and send through user memory. Head data counts here too.
    Copy,
    /// Receives and sends of the worker's ring, through its provided buffers.
    Uring,
}

impl Engine {
    /// All, in the order of their counters.
    pub const ALL: [Engine; 3] = [Engine::Splice, Engine::Copy, Engine::Uring];

    /// The word in logs, metrics and configuration.
    pub fn as_str(self) -> &'static str {
        match self {
            Engine::Splice => "splice",
            Engine::Copy => "copy",
            Engine::Uring => "uring",
        }
    }
}

/// Why bytes of a direction went by copy where another engine was asked for (rule R21).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// The engine was found not to work at start.
    Disabled,
    /// `EINVAL`: the kernel cannot splice this socket, or is too old for this ring.
    Einval,
    /// `ENOSYS`: no such call here.
    Enosys,
    /// `EPERM`, `EACCES`: a sandbox refused the call.
    Eperm,
    /// Another errno that says "not by this call".
    Unsupported,
    /// No descriptors left for a pipe or a ring.
    Emfile,
    /// The kernel gave a pipe smaller than 64 KiB: `pipe-user-pages-soft` is used up.
    SmallPipe,
    /// upsplice's own pipe budget is used up.
    PipeBudget,
    /// An urgent byte blocked splice; a receive took it in band.
    Oob,
}

impl Reason {
    /// All, in the order of their counters.
    pub const ALL: [Reason; 9] = [
        Reason::Disabled,
        Reason::Einval,
        Reason::Enosys,
        Reason::Eperm,
        Reason::Unsupported,
        Reason::Emfile,
        Reason::SmallPipe,
        Reason::PipeBudget,
        Reason::Oob,
    ];

    /// The word in logs and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Reason::Disabled => "disabled",
            Reason::Einval => "einval",
            Reason::Enosys => "enosys",
            Reason::Eperm => "eperm",
            Reason::Unsupported => "unsupported",
            Reason::Emfile => "emfile",
            Reason::SmallPipe => "small_pipe",
            Reason::PipeBudget => "pipe_budget",
            Reason::Oob => "oob",
        }
    }
}

/// The reasons that one direction met, each once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reasons(u16);

impl Reasons {
    /// Adds one; true when it is new.
    pub fn insert(&mut self, reason: Reason) -> bool {
        let bit = 1 << reason as u16;
        let new = self.0 & bit == 0;
        self.0 |= bit;
        new
    }

    /// What either set holds.
    pub fn union(self, other: Reasons) -> Reasons {
        Reasons(self.0 | other.0)
    }

    /// Those that were met.
    pub fn iter(self) -> impl Iterator<Item = Reason> {
        Reason::ALL.into_iter().filter(move |&reason| self.0 & (1 << reason as u16) != 0)
    }
}

/// What became of a request for an upgrade.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UpgradeResult {
    /// 101, and the sockets were joined.
    Switched,
    /// The upstream answered something else, which was relayed.
    Answered,
    /// upsplice refused the request.
    Refused,
    /// The upstream could not be reached, or its answer broke a rule.
    Failed,
}

impl UpgradeResult {
    /// All of them, in the order of their counters.
    pub const ALL: [UpgradeResult; 4] = [
        UpgradeResult::Switched,
        UpgradeResult::Answered,
        UpgradeResult::Refused,
        UpgradeResult::Failed,
    ];

    /// The word in logs and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            UpgradeResult::Switched => "switched",
            UpgradeResult::Answered => "answered",
            UpgradeResult::Refused => "refused",
            UpgradeResult::Failed => "failed",
        }
    }
}
