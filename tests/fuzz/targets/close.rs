//! Closes: codes as tungstenite has them, but for one that was registered since; our own control frames are read as
//! they were meant.

#![no_main]

use libfuzzer_sys::fuzz_target;
use tungstenite::protocol::frame::coding::CloseCode;
use upsplice::ws::close::{ControlFrame, judge};
use upsplice::ws::frame::{Header, Opcode, Scanner, Terms};
use upsplice::ws::mask::unmask_into;
use upsplice::ws::rules::Rule;

fuzz_target!(|data: &[u8]| {
    let payload = &data[..data.len().min(125)];
    let judged = judge(payload);
    match payload {
        [] => assert_eq!(judged, Ok(None)),
        [_] => assert_eq!(judged, Err(Rule::ClosePayload)),
        [high, low, reason @ ..] => {
            let code = u16::from_be_bytes([*high, *low]);
            let allowed = CloseCode::from(code).is_allowed() || code == 1014;
            let text = std::str::from_utf8(reason);
            match judged {
                Ok(told) => assert!(told == Some(code) && allowed && text.is_ok()),
                Err(Rule::CloseCode) => assert!(!allowed),
                Err(rule) => assert!(rule == Rule::Utf8 && allowed && text.is_err()),
            }
            if let Ok(reason) = text {
                write(code, reason, payload);
            }
        }
    }
});

/// A Close and a ping of our own, masked and not.
fn write(code: u16, reason: &str, payload: &[u8]) {
    for mask in [None, Some([code as u8, 2, 3, 4])] {
        let close = ControlFrame::close(code, reason, mask);
        assert_eq!(read(close.as_bytes(), mask), (Opcode::Close, payload.to_vec()));
        let ping = ControlFrame::ping(payload, mask);
        assert_eq!(read(ping.as_bytes(), mask), (Opcode::Ping, payload.to_vec()));
    }
}

fn read(bytes: &[u8], mask: Option<[u8; 4]>) -> (Opcode, Vec<u8>) {
    let mut scanner = Scanner::new(Terms { masked: mask.is_some(), compression: false });
    let header = scanner.header(bytes).expect("it is allowed").expect("it is whole");
    let Header { opcode, bytes: begin, payload, .. } = header;
    assert_eq!(bytes.len() - begin, payload as usize);
    let mut plain = vec![0; bytes.len() - begin];
    unmask_into(&bytes[begin..], header.mask.unwrap_or_default(), 0, &mut plain);
    (opcode, plain)
}
