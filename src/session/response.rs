//! Sends the head upstream, reads the answer, and judges it: the tunnel decision in action.

use std::future::poll_fn;
use std::io;
use std::task::Poll;

use super::answer::Answer;
use super::facts::Facts;
use super::input::Input;
use super::request::Request;
use super::worker::Worker;
use super::{Leave, Parting};
use crate::error::{End, Kind, Side, Stage};
use crate::http::body::Framing;
use crate::http::fields;
use crate::http::head::{HeadKind, HeadScanner, ResponseHead};
use crate::http::upgrade::Judgement;
use crate::metrics::UpgradeResult;
use crate::sys::Errno;
use crate::sys::stream::Stream;
use crate::ws::extensions::Agreement;

/// Interim responses that are skipped before the answer must come (rule U8).
const INTERIM_MAX: usize = 8;

/// What the upstream said.
pub enum Verdict {
    /// The 101 that was asked for; it has been sent downstream.
    Switch {
        /// The upstream.
        upstream: Stream,
        /// What came along with its head and was not sent yet.
        head_data: Vec<u8>,
        /// How much of it went out with the 101.
        sent: usize,
        /// The extension that was agreed on, when the session will be inspected.
        agreement: Option<Agreement>,
    },
    /// Something else, to be relayed as an ordinary response.
    Answer {
        /// The upstream.
        upstream: Stream,
        /// Head and framing.
        answer: Answer,
    },
}

/// Sends the request and reads heads until one is final.
pub async fn read(
    worker: &Worker,
    facts: &mut Facts,
    request: &Request,
    downstream: &Stream,
    upstream: Stream,
) -> Result<Verdict, Leave> {
    if let Err(error) = upstream.send_all(&request.upstream_bytes).await {
        // An upstream may answer and close before it has read everything: its answer counts.
        let reset = matches!(Errno::of(&error), Errno::Reset | Errno::Broken);
        if !reset {
            let end = End::io(Side::Upstream, Stage::Response, "send", error);
            return Err(failed(worker, facts, end));
        }
    }
    let plan = facts.plan();
    let limits = &plan.config.gateway.limits;
    let mut input = Input::holding(usize::MAX);
    for _ in 0..=INTERIM_MAX {
        let mut scanner = HeadScanner::new(limits, HeadKind::Response);
        let len = match read_head(&mut input, &mut scanner, &upstream, downstream).await {
            Ok(len) => len,
            Err(end) => return Err(failed(worker, facts, end)),
        };
        let head_bytes = input.cut(len);
        let judged = ResponseHead::parse(&head_bytes, limits).map(|head| {
            let judgement = request.ask.judge(&head);
            (head, judgement)
        });
        match judged {
            Ok((_, Judgement::Interim)) => {}
            Ok((head, Judgement::Switch { protocol })) => {
                let agreement = match request.agreement(&head) {
                    Ok(agreement) => agreement,
                    Err(rule) => return Err(broke(worker, facts, rule)),
                };
                let mut out = Vec::with_capacity(head_bytes.len() + 128 + input.bytes().len());
                fields::write_switch(&head, &request.ask, &protocol, &mut out);
                facts.status = Some(101);
                if let Some(asked) = &mut facts.asked {
                    asked.upgrade = Some(protocol.into());
                }
                let judged_first = request.is_inspected();
                return switch(upstream, downstream, out, input, judged_first, agreement).await;
            }
            Ok((head, Judgement::Answer)) => {
                let framing = match Framing::of_answer(&head, &request.method) {
                    Ok(framing) => framing,
                    Err(rule) => return Err(broke(worker, facts, rule)),
                };
                facts.status = Some(head.status);
                let mut out = Vec::with_capacity(head_bytes.len() + 64);
                fields::write_answer(&head, framing, &mut out);
                let answer = Answer { framing, head: out, begun: input.into_rest() };
                return Ok(Verdict::Answer { upstream, answer });
            }
            Ok((_, Judgement::Fault(rule))) | Err(rule) => return Err(broke(worker, facts, rule)),
        }
    }
    Err(broke(worker, facts, "too_many_interim"))
}

/// Sends the 101 with the upstream's head data behind it, in one write where the socket takes it (rule U9).
/// The rest of the head is waited for; the rest of the head data is for the relay. So is all of it when it has to be
/// judged first.
async fn switch(
    upstream: Stream,
    downstream: &Stream,
    mut out: Vec<u8>,
    input: Input,
    judged_first: bool,
    agreement: Option<Agreement>,
) -> Result<Verdict, Leave> {
    let head_len = out.len();
    out.extend_from_slice(input.bytes());
    let gone = |error| Leave {
        end: End::io(Side::Downstream, Stage::Response, "send", error),
        parting: Parting::Quiet,
    };
    let at_once = if judged_first { head_len } else { out.len() };
    let mut sent = match downstream.send(&out[..at_once]) {
        Ok(sent) => sent,
        Err(error) if matches!(Errno::of(&error), Errno::Again | Errno::Interrupted) => 0,
        Err(error) => return Err(gone(error)),
    };
    if sent < head_len {
        downstream.send_all(&out[sent..head_len]).await.map_err(gone)?;
        sent = head_len;
    }
    let head_data = out[sent..].to_vec();
    Ok(Verdict::Switch { upstream, head_data, sent: sent - head_len, agreement })
}

/// Reads one head. Watches the client meanwhile: a reset ends the exchange, what it sends stays unread.
async fn read_head(
    input: &mut Input,
    scanner: &mut HeadScanner,
    upstream: &Stream,
    downstream: &Stream,
) -> Result<usize, End> {
    loop {
        match scanner.scan(input.bytes()) {
            Ok(Some(len)) => return Ok(len),
            Ok(None) => {}
            Err(refusal) => {
                let kind = Kind::Refused(refusal.rule);
                return Err(End::new(Side::Upstream, Stage::Response, kind));
            }
        }
        let read = poll_fn(|cx| {
            let polled = input.poll_read_more(cx, upstream, 1).map(Some);
            if polled.is_pending() && downstream.poll_hangup(cx) {
                return Poll::Ready(None);
            }
            polled
        });
        match read.await {
            Some(Ok(0)) => return Err(End::new(Side::Upstream, Stage::Response, Kind::Truncated)),
            Some(Ok(_)) => {}
            Some(Err(error)) => {
                return Err(End::io(Side::Upstream, Stage::Response, "recv", error));
            }
            None => {
                let reset = io::ErrorKind::ConnectionReset.into();
                return Err(End::io(Side::Downstream, Stage::Response, "poll", reset));
            }
        }
    }
}

/// The `handshake` timer ended in this stage, before the upstream's head was complete.
pub fn late(stage: Stage) -> End {
    End::new(Side::Upstream, stage, Kind::HandshakeTimeout)
}

/// The upstream cannot be reached, or has failed: the client is told.
pub fn failed(worker: &Worker, facts: &mut Facts, end: End) -> Leave {
    worker.counters.upgrade(UpgradeResult::Failed);
    Leave::telling(facts, end)
}

fn broke(worker: &Worker, facts: &mut Facts, rule: &'static str) -> Leave {
    failed(worker, facts, End::new(Side::Upstream, Stage::Response, Kind::Refused(rule)))
}
