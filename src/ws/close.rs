//! Close frames: what a peer may say with one, and frames of our own.

use super::frame::{CONTROL_BYTES_MAX, Opcode};
use super::rules::Rule;

/// Judges the payload of a Close, unmasked; its code, if it has one (RFC 6455 §5.5.1, §7.4).
///
/// # Errors
///
/// One byte alone, a code that may not be on the wire, a reason that is not UTF-8.
pub fn judge(payload: &[u8]) -> Result<Option<u16>, Rule> {
    let (code, reason) = match payload {
        [] => return Ok(None),
        [_] => return Err(Rule::ClosePayload),
        [high, low, reason @ ..] => (u16::from_be_bytes([*high, *low]), reason),
    };
    match code {
        // 1004 is reserved; 1005, 1006 and 1015 stand for what no peer has said; 1012 to 1014 are registered.
        1000..=1003 | 1007..=1014 | 3000..=4999 => {}
        _ => return Err(Rule::CloseCode),
    }
    std::str::from_utf8(reason).map_err(|_| Rule::Utf8)?;
    Ok(Some(code))
}

/// A control frame of our own, ready to be sent.
#[derive(Clone, Copy, Debug)]
pub struct ControlFrame {
    bytes: [u8; 2 + 4 + CONTROL_BYTES_MAX as usize],
    len: u8,
}

impl ControlFrame {
    /// A Close. The reason has at most 123 bytes.
    pub fn close(code: u16, reason: &str, mask: Option<[u8; 4]>) -> ControlFrame {
        let mut payload = [0; CONTROL_BYTES_MAX as usize];
        payload[..2].copy_from_slice(&code.to_be_bytes());
        payload[2..2 + reason.len()].copy_from_slice(reason.as_bytes());
        ControlFrame::new(Opcode::Close, &payload[..2 + reason.len()], mask)
    }

    /// A ping.
    pub fn ping(payload: &[u8], mask: Option<[u8; 4]>) -> ControlFrame {
        ControlFrame::new(Opcode::Ping, payload, mask)
    }

    /// As it goes on the wire.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }

    fn new(opcode: Opcode, payload: &[u8], mask: Option<[u8; 4]>) -> ControlFrame {
        let mut bytes = [0; 2 + 4 + CONTROL_BYTES_MAX as usize];
        bytes[0] = 0x80 | if opcode == Opcode::Close { 8 } else { 9 };
        bytes[1] = u8::try_from(payload.len()).expect("a control frame is short");
        let mut len = 2;
        if let Some(mask) = mask {
            bytes[1] |= 0x80;
            bytes[2..6].copy_from_slice(&mask);
            len = 6;
        }
        super::mask::unmask_into(
            payload,
            mask.unwrap_or_default(),
            0,
            &mut bytes[len..len + payload.len()],
        );
        ControlFrame { bytes, len: (len + payload.len()) as u8 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_pass_that_a_peer_may_send_and_no_others() {
        let allowed = |code: u16| matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999);
        for code in 0..=u16::MAX {
            let judged = judge(&code.to_be_bytes());
            let expected = if allowed(code) { Ok(Some(code)) } else { Err(Rule::CloseCode) };
            assert_eq!(judged, expected, "{code}");
        }
        for code in [1004, 1005, 1006, 1015, 999, 2999, 5000] {
            assert_eq!(judge(&u16::to_be_bytes(code)), Err(Rule::CloseCode));
        }
    }

    #[test]
    fn a_close_is_empty_or_has_a_code_and_perhaps_a_reason_in_utf8() {
        assert_eq!(judge(b""), Ok(None));
        assert_eq!(judge(b"\x03"), Err(Rule::ClosePayload));
        assert_eq!(judge(b"\x03\xe8bye"), Ok(Some(1000)));
        assert_eq!(judge(b"\x03\xe8by\xe2\x82"), Err(Rule::Utf8));
    }

    #[test]
    fn our_own_frames_are_short_whole_and_masked_where_they_must_be() {
        let close = ControlFrame::close(1002, "mask", None);
        assert_eq!(close.as_bytes(), b"\x88\x06\x03\xeamask");
        let ping = ControlFrame::ping(&[1, 2, 3], Some([1, 1, 1, 1]));
        assert_eq!(ping.as_bytes(), b"\x89\x83\x01\x01\x01\x01\x00\x03\x02");
        let longest = ControlFrame::close(1000, &"x".repeat(123), Some([0; 4]));
        assert_eq!(longest.as_bytes().len(), 131);
    }
}
