//! Spans: what a session tells a collector of traces, when its exchange is over and when it has ended.
//!
//! A worker makes a [`Span`] and puts it into a queue that has an end; what finds it full is dropped and counted. One
//! thread ([`Exporter`]) sends them on in batches, so that no session waits for a collector. A session has two spans:
//! its handshake, which ends with the 101 and belongs to the client's trace, and the session itself, which may last for
//! days, has a trace of its own and a link to the handshake. A span is sent when it is over: that is all OTLP has.

#[cfg(feature = "otlp")]
mod collector;
#[cfg(feature = "otlp")]
mod export;

use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::{Duration, SystemTime};

use crate::config::Gateway;
use crate::config::traces::{Sampler, Traces, Trust};
use crate::http::traceparent::TraceParent;
use crate::metrics::Counters;

/// Spans that may wait for the exporter.
const SPANS_MAX: usize = 2048;
/// How long the end of the gateway waits for a collector.
const FLUSH_MAX: Duration = Duration::from_secs(5);

/// A piece of a session's life, once it is over.
#[derive(Clone, Debug, PartialEq)]
pub struct Span {
    /// What it is called.
    pub name: String,
    /// Its own place.
    pub place: TraceParent,
    /// The span that it is part of, which is somebody else's.
    pub parent: Option<u64>,
    /// Spans of other traces that it has to do with.
    pub link: Option<TraceParent>,
    /// Whether it answers a request.
    pub is_server: bool,
    /// When it began.
    pub start: SystemTime,
    /// When it ended.
    pub end: SystemTime,
    /// What is known of it.
    pub attributes: Vec<(&'static str, Value)>,
    /// Why it failed, if it did.
    pub error: Option<String>,
}

/// The value of an attribute.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// Words.
    Text(String),
    /// A number.
    Number(i64),
}

/// Where a session's handshake stands among the traces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// The span of the handshake, or, where none is made, the client's own.
    pub at: TraceParent,
    /// The client's span, which is continued.
    pub parent: Option<u64>,
    /// The client's span, which is not.
    pub link: Option<TraceParent>,
}

/// A worker's way to the exporter.
#[derive(Clone, Debug)]
pub struct Tracer {
    sampler: Sampler,
    trust: Trust,
    spans: SyncSender<Span>,
}

/// The exporting thread; ends when the last [`Tracer`] is gone.
#[derive(Debug, Default)]
pub struct Exporter(Option<Receiver<Infallible>>);

impl Tracer {
    /// Where a request belongs that came with `theirs`, if that was valid, from a peer that is trusted or not.
    pub fn place(&self, theirs: Option<TraceParent>, trusted: bool) -> Place {
        let is_continued = trusted || self.trust == Trust::Any;
        let parent = theirs.filter(|_| is_continued);
        let trace_id = parent.map_or_else(|| fastrand::u128(1..), |parent| parent.trace_id);
        let is_sampled = self.sampler.samples(trace_id, parent.map(|parent| parent.is_sampled()));
        let root = TraceParent { trace_id, span_id: 0, flags: 0 };
        Place {
            at: parent.unwrap_or(root).child(fastrand::u64(1..), is_sampled),
            parent: parent.map(|parent| parent.span_id),
            link: theirs.filter(|_| !is_continued),
        }
    }

    /// The place of a span that begins a trace because of another, recorded as that is.
    pub fn root_beside(other: TraceParent) -> TraceParent {
        let root = TraceParent { trace_id: fastrand::u128(1..), ..other };
        root.child(fastrand::u64(1..), other.is_sampled())
    }

    /// Hands over a span; false when it was dropped.
    pub fn send(&self, span: Span) -> bool {
        self.spans.try_send(span).is_ok()
    }
}

impl Exporter {
    /// Starts exporting, where that is configured. Of `counters` it is the only one to count what became of spans.
    ///
    /// # Errors
    ///
    /// What keeps spans from being exported as configured.
    pub fn start(
        gateway: &Gateway,
        counters: &Arc<Counters>,
    ) -> io::Result<(Option<Tracer>, Exporter)> {
        let Some(traces) = gateway.traces.in_environment().map_err(io::Error::other)? else {
            return Ok((None, Exporter::default()));
        };
        let (spans, waiting) = sync_channel(SPANS_MAX);
        let tracer = Tracer { sampler: traces.sampler, trust: traces.trust, spans };
        let exporter = Exporter::export(traces, waiting, Arc::clone(counters))?;
        Ok((Some(tracer), exporter))
    }

    #[cfg(feature = "otlp")]
    fn export(
        traces: Traces,
        spans: Receiver<Span>,
        counters: Arc<Counters>,
    ) -> io::Result<Exporter> {
        let mut export = export::Export::new(&traces, counters)?;
        let (working, done) = std::sync::mpsc::channel::<Infallible>();
        std::thread::Builder::new().name("traces".into()).spawn(move || {
            let _working = working;
            export.run(&spans);
        })?;
        Ok(Exporter(Some(done)))
    }

    #[cfg(not(feature = "otlp"))]
    fn export(_: Traces, _: Receiver<Span>, _: Arc<Counters>) -> io::Result<Exporter> {
        Err(io::Error::other("this program was built without OTLP: no spans can be exported"))
    }

    /// Waits until all spans are sent, or the collector has had its time; every [`Tracer`] must be gone.
    pub fn join(self) {
        if let Some(done) = self.0 {
            // Nothing is ever sent: the thread drops its end when it is through.
            let _ = done.recv_timeout(FLUSH_MAX);
        }
    }
}

impl From<&str> for Value {
    fn from(text: &str) -> Value {
        Value::Text(text.to_owned())
    }
}

impl From<String> for Value {
    fn from(text: String) -> Value {
        Value::Text(text)
    }
}

impl From<u64> for Value {
    fn from(number: u64) -> Value {
        Value::Number(i64::try_from(number).unwrap_or(i64::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tracer(trust: Trust, ratio: f64) -> (Tracer, Receiver<Span>) {
        let (spans, waiting) = sync_channel(1);
        (Tracer { sampler: Sampler { by_parent: true, ratio }, trust, spans }, waiting)
    }

    const THEIRS: TraceParent = TraceParent { trace_id: 7, span_id: 8, flags: 1 };

    #[test]
    fn a_trusted_trace_is_continued_and_another_only_linked() {
        let (tracer, _spans) = tracer(Trust::TrustedProxies, 1.0);
        let place = tracer.place(Some(THEIRS), true);
        assert_eq!((place.at.trace_id, place.parent, place.link), (7, Some(8), None));
        assert!(place.at.span_id != 8 && place.at.is_sampled());
        let place = tracer.place(Some(THEIRS), false);
        assert_ne!(place.at.trace_id, 7);
        assert_eq!((place.parent, place.link), (None, Some(THEIRS)));
        let place = tracer.place(None, true);
        assert_eq!((place.parent, place.link), (None, None));
    }

    #[test]
    fn whom_everybody_trusts_is_continued_as_its_parent_was_sampled() {
        let (tracer, _spans) = tracer(Trust::Any, 1.0);
        let unsampled = TraceParent { flags: 0, ..THEIRS };
        let place = tracer.place(Some(unsampled), false);
        assert_eq!((place.at.trace_id, place.at.is_sampled()), (7, false));
        let beside = Tracer::root_beside(place.at);
        assert!(beside.trace_id != 7 && !beside.is_sampled());
    }
}
