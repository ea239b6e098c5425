//! An inspector on a stream that comes in pieces, and what has to be true of what it lets pass.

use std::io::{Cursor, Read, Write};
use std::sync::Arc;

use tungstenite::error::{CapacityError, Error, ProtocolError};
use tungstenite::protocol::{Role, WebSocketConfig};
use tungstenite::{Message as Received, WebSocket};
use upsplice::ws::extensions::Agreement;
use upsplice::ws::frame::{Header, Opcode};
use upsplice::ws::inspect::{Events, Inspector, PLAIN_BYTES, Piece, Sender, Tools, Whole};
use upsplice::ws::policy::{Deflate, Depth, Inspection};
use upsplice::ws::rules::Rule;

use super::streams::Stream;

/// What an inspector made of a stream.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// What went on to the other side.
    pub passed: Vec<u8>,
    /// How much was kept from it.
    pub dropped: usize,
    /// The rule that was broken.
    pub broken: Option<Rule>,
    /// What was said on the way.
    pub said: Said,
}

/// What an inspector said.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Said {
    /// Opcode and length.
    pub frames: Vec<(Opcode, u64)>,
    /// Of each message that ended, what it holds.
    pub messages: Vec<(Whole, Vec<u8>)>,
    /// The codes of Closes.
    pub closes: Vec<Option<u16>>,
    /// What the message holds that goes on.
    payload: Vec<u8>,
}

impl Events for Said {
    fn frame(&mut self, header: &Header) {
        self.frames.push((header.opcode, header.payload));
    }

    fn message(&mut self, message: &Whole) {
        self.messages.push((*message, std::mem::take(&mut self.payload)));
    }

    fn close(&mut self, code: Option<u16>) {
        self.closes.push(code);
    }

    fn wants_payload(&self) -> bool {
        true
    }

    fn payload(&mut self, bytes: &[u8]) {
        self.payload.extend_from_slice(bytes);
    }
}

/// Inspects all of `stream`; in depth `Frames` what need not be looked at passes unseen where `enters`.
pub fn inspect(stream: &Stream, depth: Depth, enters: bool) -> Seen {
    let deflate = if depth == Depth::Payload { Deflate::SeeThrough } else { Deflate::Pass };
    let policy = Arc::new(Inspection { depth, deflate, ..Inspection::default() });
    let sender = if stream.terms.masked { Sender::Client } else { Sender::Server };
    let agreement = stream.terms.compression.then_some(&AGREED);
    let mut inspector = Inspector::new(policy, sender, agreement, &Arc::default());
    let (mut plain, mut inflated) = (vec![0; PLAIN_BYTES], vec![0; PLAIN_BYTES]);
    let mut seen = Seen::default();
    let mut at = 0;
    for piece in stream.pieces() {
        while at < piece.end {
            let bytes = &stream.bytes[at..piece.end];
            let mut tools = Tools {
                now: 0,
                plain: &mut plain,
                inflated: &mut inflated,
                events: &mut seen.said,
            };
            match step(&mut inspector, bytes, &mut tools, enters) {
                Ok(Piece::Pass(count)) => {
                    seen.passed.extend_from_slice(&bytes[..count]);
                    at += count;
                }
                Ok(Piece::Drop(count)) => {
                    seen.dropped += count;
                    at += count;
                }
                Ok(Piece::More) => break,
                Ok(Piece::Wait(_)) => panic!("no rate is limited"),
                Err(rule) => {
                    seen.broken = Some(rule);
                    return seen;
                }
            }
            assert_eq!(inspector.offset(), at as u64);
        }
    }
    seen
}

fn step(
    inspector: &mut Inspector,
    bytes: &[u8],
    tools: &mut Tools<'_, Said>,
    enters: bool,
) -> Result<Piece, Rule> {
    if enters {
        inspector.enter(bytes, tools)?;
        // Headers behind that are looked at where they are, too.
        while let Some(behind) = behind(bytes, inspector.unseen())
            && inspector.enter_next(behind, tools)
        {}
        let unseen = bytes.len().min(usize::try_from(inspector.unseen()).unwrap_or(usize::MAX));
        if unseen > 0 {
            inspector.passed(unseen as u64, tools);
            return Ok(Piece::Pass(unseen));
        }
    }
    inspector.next(bytes, tools)
}

/// What is there behind so many bytes, if those are any and all there.
fn behind(bytes: &[u8], unseen: u64) -> Option<&[u8]> {
    bytes.get(usize::try_from(unseen).ok()?..).filter(|_| unseen > 0)
}

/// What passes is the front of what came, and, unless a rule was broken, all of it but a header or a control frame
/// that is not whole.
pub fn passes_in_order(stream: &Stream, seen: &Seen) {
    assert!(stream.bytes.starts_with(&seen.passed), "something else passed");
    let kept = stream.bytes.len() - seen.passed.len() - seen.dropped;
    assert!(seen.broken.is_some() || kept < 14 + 125, "{kept} bytes are held");
    assert!(seen.dropped == 0 || !seen.said.closes.is_empty(), "dropped before a Close");
}

/// What was made of the stream in one piece and in many is the same, but for how much of an invalid text had
/// passed before it was found out.
pub fn are_alike(whole: &Seen, pieces: &Seen) {
    assert_eq!(whole.broken, pieces.broken);
    assert_eq!(whole.said.messages, pieces.said.messages);
    assert_eq!(whole.said.closes, pieces.said.closes);
    if whole.broken.is_none() {
        assert_eq!(whole, pieces);
    }
}

/// A stream that is lawful but for what its texts hold is passed, up to the first text that is none, and its
/// messages are told as they were made.
pub fn tells_what_was_sent(stream: &Stream, seen: &Seen) {
    let Some(messages) = &stream.lawful else { return };
    let mut told = seen.said.messages.iter();
    for message in messages {
        let valid = match std::str::from_utf8(&message.payload) {
            Err(error) => message.is_text && !message.is_whole && error.error_len().is_none(),
            Ok(_) => true,
        };
        if message.is_text && !valid {
            assert_eq!(seen.broken, Some(Rule::Utf8), "{message:?}");
            assert_eq!(told.next(), None, "{message:?} was taken for a text");
            return;
        }
        if message.is_whole {
            let (whole, payload) = told.next().expect("it was passed");
            assert_eq!(whole.opcode == Opcode::Text, message.is_text);
            assert!(*payload == message.payload, "it holds something else");
        }
    }
    assert_eq!((seen.broken, told.next()), (None, None));
}

/// Whoever receives what passed finds nothing wrong with it, and whoever receives all of what is not passed finds
/// something wrong, too. Only without compression, which tungstenite does not speak.
pub fn is_what_a_receiver_judges(stream: &Stream, seen: &Seen) {
    if stream.terms.compression {
        return;
    }
    let (messages, end) = receive(stream, &seen.passed);
    assert!(is_an_end(&end), "what passed: {end:?}");
    let told: Vec<&Vec<u8>> = seen.said.messages.iter().map(|(_, payload)| payload).collect();
    assert_eq!(told, messages.iter().collect::<Vec<_>>());
    let Some(rule) = seen.broken else { return };
    // It takes any form of a length, of control frames as well, and corrects a code that may not be sent.
    if !matches!(rule, Rule::Length | Rule::ControlLength | Rule::CloseCode) {
        let (messages, end) = receive(stream, &stream.bytes);
        // What is not whole it does not judge.
        assert!(!is_an_end(&end) || messages.len() == told.len(), "{rule:?}: {end:?}");
    }
}

/// Data messages that tungstenite reads, and how it ends.
fn receive(stream: &Stream, bytes: &[u8]) -> (Vec<Vec<u8>>, Error) {
    let role = if stream.terms.masked { Role::Server } else { Role::Client };
    let config =
        WebSocketConfig::default().max_frame_size(Some(FRAME_BYTES_MAX)).max_message_size(None);
    let mut socket = WebSocket::from_raw_socket(OneWay(Cursor::new(bytes)), role, Some(config));
    let mut messages = Vec::new();
    loop {
        match socket.read() {
            Ok(Received::Text(text)) => messages.push(text.as_bytes().to_vec()),
            Ok(Received::Binary(binary)) => messages.push(binary.to_vec()),
            Ok(_) => {}
            Err(error) => return (messages, error),
        }
    }
}

/// Whether it only ended, or waits for a frame that is larger than this test would send.
fn is_an_end(error: &Error) -> bool {
    matches!(
        error,
        Error::ConnectionClosed
            | Error::Protocol(ProtocolError::ResetWithoutClosingHandshake)
            | Error::Capacity(CapacityError::MessageTooLong { .. })
    )
}

/// What comes from the other side; whatever is sent to it is lost.
struct OneWay<'b>(Cursor<&'b [u8]>);

impl Read for OneWay<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        self.0.read(buffer)
    }
}

impl Write for OneWay<'_> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// Larger than any frame of a [`Stream`].
const FRAME_BYTES_MAX: usize = 1 << 20;

const AGREED: Agreement = Agreement {
    client_no_context_takeover: false,
    server_no_context_takeover: false,
    client_max_window_bits: 15,
    server_max_window_bits: 15,
};
