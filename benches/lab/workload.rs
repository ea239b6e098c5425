//! What the sessions of a run do: a workload gives every session its role.

use clap::ValueEnum;

/// What the sessions of a run do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Workload {
    /// Client to backend, as fast as it goes.
    BulkUp,
    /// Backend to client, as fast as it goes.
    BulkDown,
    /// Both directions of every session at once, as fast as they go.
    BulkBoth,
    /// One frame there and back, again and again.
    Echo,
    /// Frames at `--rate` per second, whether answers come or not; a latency begins when its frame
    /// was due.
    EchoOpen,
    /// Connect, upgrade, one echo, close, again and again.
    Upgrades,
    /// Open, one echo each, then silence.
    Idle,
    /// `--busy` sessions echo; the others are open and silent.
    Crowd,
    /// `--busy` sessions echo; the others take what is pushed to them, 1 KiB every `--pace`
    /// milliseconds.
    SlowReaders,
    /// A third of the sessions echo, a third is bulk, a third does both by turns; in laps of the
    /// same work for every session.
    Mixed,
}

/// What one session does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Sends frames that the backend counts.
    Send,
    /// Takes frames that the backend pushes.
    Receive,
    /// Sends and takes at the same time.
    SendAndReceive,
    /// Waits for each echo.
    Echo,
    /// Sends echoes on a schedule.
    EchoOnSchedule,
    /// Opens a connection for every echo.
    Upgrade,
    /// Stays open.
    Silent,
    /// Takes little at a time.
    ReadSlowly,
    /// Does laps with all others.
    Laps(Kind),
}

/// What a session of `mixed` does in a lap.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Small messages there and back.
    Small,
    /// Bulk from client to backend.
    Up,
    /// Bulk from backend to client.
    Down,
    /// Small messages, then bulk.
    Alternate,
}

impl Workload {
    /// Every workload.
    pub const ALL: [Workload; 10] = [
        Self::BulkUp,
        Self::BulkDown,
        Self::BulkBoth,
        Self::Echo,
        Self::EchoOpen,
        Self::Upgrades,
        Self::Idle,
        Self::Crowd,
        Self::SlowReaders,
        Self::Mixed,
    ];

    /// The role of session number `index`, when `busy` sessions are to be the busy ones.
    pub fn role(self, index: usize, busy: usize) -> Role {
        match self {
            Self::BulkUp => Role::Send,
            Self::BulkDown => Role::Receive,
            Self::BulkBoth => Role::SendAndReceive,
            Self::Echo => Role::Echo,
            Self::EchoOpen => Role::EchoOnSchedule,
            Self::Upgrades => Role::Upgrade,
            Self::Idle => Role::Silent,
            Self::Crowd | Self::SlowReaders if index < busy => Role::Echo,
            Self::Crowd => Role::Silent,
            Self::SlowReaders => Role::ReadSlowly,
            Self::Mixed => match index % 6 {
                0 | 3 => Role::Laps(Kind::Small),
                1 => Role::Laps(Kind::Up),
                4 => Role::Laps(Kind::Down),
                _ => Role::Laps(Kind::Alternate),
            },
        }
    }

    /// Whether the memory of the proxy and of the kernel is what the run is about, so that both are
    /// read while its sessions still stand.
    pub fn costs_memory(self) -> bool {
        matches!(self, Self::Idle | Self::SlowReaders)
    }

    /// Whether every session has a frame's time measured.
    pub fn has_latency(self) -> bool {
        !matches!(self, Self::BulkUp | Self::BulkDown | Self::BulkBoth | Self::Idle)
    }
}

impl Role {
    /// What the backend is asked for.
    pub fn path(self) -> &'static str {
        match self {
            Self::Send => "/sink",
            Self::Receive | Self::ReadSlowly => "/push",
            Self::SendAndReceive => "/both",
            Self::Laps(_) => "/phases",
            Self::Echo | Self::EchoOnSchedule | Self::Upgrade | Self::Silent => "/echo",
        }
    }
}
