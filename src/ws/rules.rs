//! What a peer may not do, and what it is told.

/// A rule that was broken: of RFC 6455, of RFC 7692, or of the route.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Rule {
    /// A client's frame without a mask, or a server's with one (RFC 6455 §5.1).
    Mask,
    /// A reserved bit that no extension defines here (§5.2; RFC 7692 §6.1).
    ReservedBit,
    /// A reserved opcode (§5.2).
    Opcode,
    /// A control frame in fragments (§5.5).
    ControlFragmented,
    /// A control frame of more than 125 bytes (§5.5).
    ControlLength,
    /// A length that is not in its shortest form, or has its most significant bit set (§5.2).
    Length,
    /// A continuation of nothing, or a new message within a message (§5.4).
    Fragmentation,
    /// A Close whose payload is one byte (§5.5.1).
    ClosePayload,
    /// A Close with a code that may not be sent (§7.4).
    CloseCode,
    /// Text, or the reason of a Close, that is not UTF-8 (§8.1, §5.5.1).
    Utf8,
    /// A compressed message that cannot be inflated (RFC 7692 §7.2.2).
    Deflate,
    /// `limits.frame_bytes`.
    FrameBytes,
    /// `limits.message_bytes`.
    MessageBytes,
    /// `limits.fragments`.
    Fragments,
    /// `limits.inflated_bytes`.
    InflatedBytes,
    /// `limits.inflated_ratio`.
    InflatedRatio,
    /// `limits.*.messages_per_second`.
    MessageRate,
    /// `limits.*.bytes_per_second`.
    ByteRate,
    /// `limits.*.inflated_bytes_per_second`.
    InflatedRate,
    /// `limits.*.control_per_second`.
    ControlRate,
}

impl Rule {
    /// All, in the order of their counters.
    pub const ALL: [Rule; 20] = [
        Rule::Mask,
        Rule::ReservedBit,
        Rule::Opcode,
        Rule::ControlFragmented,
        Rule::ControlLength,
        Rule::Length,
        Rule::Fragmentation,
        Rule::ClosePayload,
        Rule::CloseCode,
        Rule::Utf8,
        Rule::Deflate,
        Rule::FrameBytes,
        Rule::MessageBytes,
        Rule::Fragments,
        Rule::InflatedBytes,
        Rule::InflatedRatio,
        Rule::MessageRate,
        Rule::ByteRate,
        Rule::InflatedRate,
        Rule::ControlRate,
    ];

    /// The word in logs, metrics and the API.
    pub fn as_str(self) -> &'static str {
        match self {
            Rule::Mask => "mask",
            Rule::ReservedBit => "reserved_bit",
            Rule::Opcode => "opcode",
            Rule::ControlFragmented => "control_fragmented",
            Rule::ControlLength => "control_length",
            Rule::Length => "length",
            Rule::Fragmentation => "fragmentation",
            Rule::ClosePayload => "close_payload",
            Rule::CloseCode => "close_code",
            Rule::Utf8 => "utf8",
            Rule::Deflate => "deflate",
            Rule::FrameBytes => "frame_bytes",
            Rule::MessageBytes => "message_bytes",
            Rule::Fragments => "fragments",
            Rule::InflatedBytes => "inflated_bytes",
            Rule::InflatedRatio => "inflated_ratio",
            Rule::MessageRate => "message_rate",
            Rule::ByteRate => "byte_rate",
            Rule::InflatedRate => "inflated_rate",
            Rule::ControlRate => "control_rate",
        }
    }

    /// The code that the offender's Close carries (RFC 6455 §7.4.1).
    pub fn close_code(self) -> u16 {
        match self {
            Rule::Utf8 | Rule::Deflate => 1007,
            Rule::FrameBytes
            | Rule::MessageBytes
            | Rule::Fragments
            | Rule::InflatedBytes
            | Rule::InflatedRatio => 1009,
            Rule::MessageRate | Rule::ByteRate | Rule::InflatedRate | Rule::ControlRate => 1008,
            _ => 1002,
        }
    }
}
