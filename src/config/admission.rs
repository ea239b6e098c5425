//! Who is let in, and how many: limits that hold before anything is connected.

/// Limits of the gateway as a whole.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Admission {
    /// Of all sessions together.
    pub all: Crowd,
    /// Connections that are still in their exchange; `None`, the default: no limit.
    pub exchanges_max: Option<u32>,
    /// Of each client.
    pub client: ClientLimits,
    /// Descriptors that accepting leaves free; `None`, the default: what [`reserve_of`] finds, 0: accepting never
    /// pauses for want of descriptors that are still there.
    pub descriptors_reserved: Option<u32>,
}

/// How many sessions there may be, and how fast they may come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Crowd {
    /// Sessions at a time, those included that are about to become one; `None`, the default: no limit.
    pub sessions_max: Option<u32>,
    /// Handshakes; `None`, the default: as fast as they come.
    pub handshakes: Option<Pace>,
}

/// So many in a second, and so many at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pace {
    /// In the long run.
    pub per_second: u32,
    /// After a pause.
    pub burst: u32,
}

/// Limits of one client: of one address, or of one network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClientLimits {
    /// Its sessions.
    pub crowd: Crowd,
    /// Its connections that are still in their exchange; `None`, the default: no limit.
    pub exchanges_max: Option<u32>,
    /// Leading bits that are the same for all addresses of one client; default 32.
    pub ipv4_prefix: u8,
    /// The same of IPv6; default 64, since one host may have so many addresses.
    pub ipv6_prefix: u8,
}

impl Default for ClientLimits {
    fn default() -> ClientLimits {
        ClientLimits {
            crowd: Crowd::default(),
            exchanges_max: None,
            ipv4_prefix: 32,
            ipv6_prefix: 64,
        }
    }
}

impl ClientLimits {
    /// Whether clients are told apart at all.
    pub fn is_on(&self) -> bool {
        self.crowd != Crowd::default() || self.exchanges_max.is_some()
    }
}

/// How many of `limit` descriptors are kept for the operator, logs, checks and connects, where nobody says.
pub fn reserve_of(limit: u64) -> u64 {
    (limit / 16).clamp(16, 256)
}
