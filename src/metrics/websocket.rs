//! What inspected sessions said: frames, messages, closes, violations.

use std::collections::BTreeMap;

use serde::Serialize;

use super::Counter;
use super::labels::Direction;
use crate::ws::frame::Opcode;
use crate::ws::rules::Rule;

/// Upper bounds of the message size histogram, in bytes; above the last is one bucket more.
pub const MESSAGE_BYTES: [u64; 10] =
    [64, 256, 1 << 10, 4 << 10, 16 << 10, 64 << 10, 256 << 10, 1 << 20, 4 << 20, 16 << 20];

/// Codes of a Close that are counted each by itself (RFC 6455 §7.4.1, IANA); the rest by the thousand.
const CODES: [u16; 12] = [1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014];
const CODE_WORDS: [&str; CODES.len() + 3] = [
    "1000", "1001", "1002", "1003", "1007", "1008", "1009", "1010", "1011", "1012", "1013", "1014",
    "none", "3xxx", "4xxx",
];

/// One worker's counters of what its inspected sessions said.
#[derive(Debug, Default)]
pub struct WebSocketCounters {
    ways: [WayCounters; 2],
}

#[derive(Debug, Default)]
struct WayCounters {
    frames: [Counter; Opcode::ALL.len()],
    frame_bytes: [Counter; Opcode::ALL.len()],
    messages: [Counter; MESSAGE_BYTES.len() + 1],
    texts: Counter,
    message_bytes: Counter,
    compressed_bytes: Counter,
    inflated_bytes: Counter,
    closes: [Counter; CODE_WORDS.len()],
    violations: [Counter; Rule::ALL.len()],
    pings: Counter,
    rate_waits: Counter,
}

impl WebSocketCounters {
    /// A frame with so many bytes of payload began in `direction`.
    pub fn frame(&self, direction: Direction, opcode: Opcode, payload: u64) {
        let way = self.way(direction);
        way.frames[opcode as usize].add(1);
        way.frame_bytes[opcode as usize].add(payload);
    }

    /// A message of so many bytes on the wire ended in `direction`; inflated it is `inflated` bytes.
    pub fn message(&self, direction: Direction, is_text: bool, bytes: u64, inflated: Option<u64>) {
        let way = self.way(direction);
        let bucket = MESSAGE_BYTES.iter().position(|&bound| bytes <= bound);
        way.messages[bucket.unwrap_or(MESSAGE_BYTES.len())].add(1);
        way.message_bytes.add(bytes);
        way.texts.add(is_text.into());
        if let Some(inflated) = inflated {
            way.compressed_bytes.add(bytes);
            way.inflated_bytes.add(inflated);
        }
    }

    /// The sender of `direction` has closed.
    pub fn closed(&self, direction: Direction, code: Option<u16>) {
        let index = match code {
            None => CODES.len(),
            Some(code) if code >= 4000 => CODES.len() + 2,
            Some(code) => CODES.iter().position(|&known| known == code).unwrap_or(CODES.len() + 1),
        };
        self.way(direction).closes[index].add(1);
    }

    /// The sender of `direction` broke a rule.
    pub fn violated(&self, direction: Direction, rule: Rule) {
        self.way(direction).violations[rule as usize].add(1);
    }

    /// A ping of our own went out in `direction`.
    pub fn pinged(&self, direction: Direction) {
        self.way(direction).pings.add(1);
    }

    /// The sender of `direction` has used up a rate, and is read no faster.
    pub fn slowed(&self, direction: Direction) {
        self.way(direction).rate_waits.add(1);
    }

    fn way(&self, direction: Direction) -> &WayCounters {
        &self.ways[direction as usize]
    }
}

/// The sum over all workers at one moment, by direction.
#[derive(Clone, Debug, Default, Serialize)]
pub struct WebSocketSnapshot {
    /// To upstream: what clients said.
    pub to_upstream: WayWebSocket,
    /// To downstream: what servers said.
    pub to_downstream: WayWebSocket,
}

/// What one direction said.
#[derive(Clone, Debug, Default, Serialize)]
pub struct WayWebSocket {
    /// By opcode.
    pub frames: BTreeMap<&'static str, u64>,
    /// Bytes of payload, by opcode.
    pub frame_bytes: BTreeMap<&'static str, u64>,
    /// Messages by size: how many are no larger than [`MESSAGE_BYTES`], and larger than the bound before.
    pub message_sizes: [u64; MESSAGE_BYTES.len() + 1],
    /// Text messages; the others are binary.
    pub texts: u64,
    /// Bytes of payload of all messages, on the wire.
    pub message_bytes: u64,
    /// Bytes on the wire of the messages that were inflated.
    pub compressed_bytes: u64,
    /// What they were inflated to.
    pub inflated_bytes: u64,
    /// Closes that passed, by code.
    pub closes: BTreeMap<&'static str, u64>,
    /// Violations by rule.
    pub violations: BTreeMap<&'static str, u64>,
    /// Our own pings that went this way.
    pub pings: u64,
    /// Times that its sender was read no faster.
    pub rate_waits: u64,
}

impl WebSocketSnapshot {
    /// What went in `direction`.
    pub fn way(&self, direction: Direction) -> &WayWebSocket {
        match direction {
            Direction::ToUpstream => &self.to_upstream,
            Direction::ToDownstream => &self.to_downstream,
        }
    }

    pub(super) fn add(&mut self, worker: &WebSocketCounters) {
        self.to_upstream.add(&worker.ways[Direction::ToUpstream as usize]);
        self.to_downstream.add(&worker.ways[Direction::ToDownstream as usize]);
    }
}

impl WayWebSocket {
    /// Messages of all sizes.
    pub fn messages(&self) -> u64 {
        self.message_sizes.iter().sum()
    }

    fn add(&mut self, way: &WayCounters) {
        for opcode in Opcode::ALL {
            let word = opcode.as_str();
            *self.frames.entry(word).or_default() += way.frames[opcode as usize].get();
            *self.frame_bytes.entry(word).or_default() += way.frame_bytes[opcode as usize].get();
        }
        for (sum, counter) in self.message_sizes.iter_mut().zip(&way.messages) {
            *sum += counter.get();
        }
        for (word, counter) in CODE_WORDS.into_iter().zip(&way.closes) {
            *self.closes.entry(word).or_default() += counter.get();
        }
        for rule in Rule::ALL {
            *self.violations.entry(rule.as_str()).or_default() +=
                way.violations[rule as usize].get();
        }
        self.texts += way.texts.get();
        self.message_bytes += way.message_bytes.get();
        self.compressed_bytes += way.compressed_bytes.get();
        self.inflated_bytes += way.inflated_bytes.get();
        self.pings += way.pings.get();
        self.rate_waits += way.rate_waits.get();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_codes_and_rules_are_counted_where_they_belong() {
        let counters = WebSocketCounters::default();
        let up = Direction::ToUpstream;
        for bytes in [0, 64, 65, (16 << 20) + 1] {
            counters.message(up, bytes == 0, bytes, None);
        }
        for code in [None, Some(1000), Some(1014), Some(3000), Some(3999), Some(4999)] {
            counters.closed(up, code);
        }
        counters.violated(up, Rule::ControlRate);
        counters.frame(up, Opcode::Pong, 5);
        let mut sum = WebSocketSnapshot::default();
        sum.add(&counters);
        sum.add(&counters);
        let way = sum.way(up);
        assert_eq!(way.message_sizes, [4, 2, 0, 0, 0, 0, 0, 0, 0, 0, 2]);
        assert_eq!((way.messages(), way.texts), (8, 2));
        let closes: Vec<_> = way.closes.iter().filter(|(_, n)| **n > 0).collect();
        let expected = [(&"1000", &2), (&"1014", &2), (&"3xxx", &4), (&"4xxx", &2), (&"none", &2)];
        assert_eq!(closes, expected);
        assert_eq!(way.violations["control_rate"], 2);
        assert_eq!((way.frames["pong"], way.frame_bytes["pong"]), (2, 10));
        assert_eq!(sum.way(up.reverse()).messages(), 0);
    }
}
