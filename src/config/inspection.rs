//! `mode = "inspect"`: what a route asks of the WebSocket sessions that it looks into.

use std::time::Duration;

/// How a session is inspected.
#[derive(Clone, Debug, PartialEq)]
pub struct Inspection {
    /// How far it looks.
    pub depth: Depth,
    /// What happens after a violation.
    pub on_violation: OnViolation,
    /// What becomes of permessage-deflate (RFC 7692).
    pub deflate: Deflate,
    /// What one message may be.
    pub limits: MessageLimits,
    /// What may come per second, by direction: to upstream, to downstream.
    pub rates: [Rates; 2],
    /// Pings of our own to a quiet side; `None`, the default: none.
    pub heartbeat: Option<Heartbeat>,
}

/// How far an inspected session is looked into.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Depth {
    /// Frame headers and control frames; payload of data frames stays in the kernel where that is cheaper.
    Frames,
    /// Every byte: UTF-8, and what permessage-deflate holds.
    Payload,
}

/// What happens after a violation of RFC 6455, RFC 7692 or a limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnViolation {
    /// The session is closed with the code that RFC 6455 §7.4.1 has for it; the offending bytes go nowhere.
    Close,
    /// It is logged and counted once, and the session goes on, opaque from there.
    Log,
}

/// What becomes of an offer of permessage-deflate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deflate {
    /// Offered upstream as far as we understand it, and looked into.
    SeeThrough,
    /// Taken out of the client's offer.
    Strip,
    /// Offered upstream as far as we understand it, and carried opaque: frames are counted, payload is not read.
    Pass,
}

/// What one message may be, by either side; `None` is unlimited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MessageLimits {
    /// Payload bytes of a frame.
    pub frame_bytes_max: Option<u64>,
    /// Payload bytes of a message, as on the wire.
    pub message_bytes_max: Option<u64>,
    /// Frames of a message.
    pub fragments_max: Option<u32>,
    /// Bytes of a message once inflated; default 64 MiB, since a bomb costs its sender a thousandth of that.
    pub inflated_bytes_max: Option<u64>,
    /// Inflated bytes per byte on the wire, judged from 64 KiB inflated on.
    pub inflated_ratio_max: Option<u32>,
}

/// What may come per second in one direction; a second's worth may come at once. `None` is unlimited.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rates {
    /// Messages.
    pub messages: Option<u32>,
    /// Bytes on the wire.
    pub bytes: Option<u64>,
    /// Control frames.
    pub control_frames: Option<u32>,
    /// Bytes that come out of compressed messages, where those are looked into: what that may cost us.
    pub inflated_bytes: Option<u64>,
    /// What happens to what is too much.
    pub on_excess: OnExcess,
}

/// What happens to a side that sends too much.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnExcess {
    /// It is read no faster.
    #[default]
    Slow,
    /// It violates a limit.
    Close,
}

/// Pings of our own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Heartbeat {
    /// A side that sent nothing for so long is sent a ping.
    pub interval: Duration,
    /// It has to send something within so long.
    pub timeout: Duration,
}

impl Default for MessageLimits {
    fn default() -> MessageLimits {
        MessageLimits {
            frame_bytes_max: None,
            message_bytes_max: None,
            fragments_max: None,
            inflated_bytes_max: Some(64 << 20),
            inflated_ratio_max: None,
        }
    }
}

impl Depth {
    /// The word in configuration and logs.
    pub fn as_str(self) -> &'static str {
        match self {
            Depth::Frames => "frames",
            Depth::Payload => "payload",
        }
    }
}

impl Default for Inspection {
    fn default() -> Inspection {
        Inspection {
            depth: Depth::Frames,
            on_violation: OnViolation::Close,
            deflate: Deflate::Pass,
            limits: MessageLimits::default(),
            rates: [Rates::default(); 2],
            heartbeat: None,
        }
    }
}
