//! Spans as OTLP, batch by batch.

use std::env;
use std::io;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use opentelemetry::trace::{
    Link, SpanContext, SpanId, SpanKind, Status, TraceFlags, TraceId, TraceState,
};
use opentelemetry::{InstrumentationScope, KeyValue};
use opentelemetry_otlp::{RetryPolicy, SpanExporter, WithExportConfig, WithHttpConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{SpanData, SpanEvents, SpanExporter as _, SpanLinks};
use tokio::runtime::Runtime;
use tracing::{info, warn};

use super::collector::Collector;
use super::{Span, Value};
use crate::config::traces::Traces;
use crate::http::traceparent::TraceParent;
use crate::metrics::Counters;

/// Spans that are sent at once.
const BATCH_MAX: usize = 512;
/// What one batch may take, unless `OTEL_EXPORTER_OTLP_TIMEOUT` says otherwise.
const PATIENCE: Duration = Duration::from_secs(10);

/// The exporting thread's work.
pub(super) struct Export {
    exporter: SpanExporter,
    runtime: Runtime,
    scope: InstrumentationScope,
    counters: Arc<Counters>,
    delay: Duration,
    is_failing: bool,
}

impl Export {
    /// Ready to send spans to where `traces` says, with what else the environment has for that.
    pub fn new(traces: &Traces, counters: Arc<Counters>) -> io::Result<Export> {
        let endpoint = traces.endpoint.as_deref().unwrap_or_default();
        let mut exporter = SpanExporter::builder()
            .with_http()
            .with_http_client(Collector { patience: patience() })
            // What a collector has refused once is counted; the next batch is as good as a second attempt.
            .with_retry_policy(RetryPolicy::disabled())
            .with_endpoint(endpoint)
            .build()
            .map_err(|error| io::Error::other(format!("traces: {error}")))?;
        if !endpoint.starts_with("http://") {
            let problem = format!("traces: {endpoint}: only plain HTTP can be spoken, to http://");
            return Err(io::Error::other(problem));
        }
        let version = KeyValue::new("service.version", env!("CARGO_PKG_VERSION"));
        let mut resource = Resource::builder().with_attribute(version);
        let named = env::var("OTEL_RESOURCE_ATTRIBUTES").is_ok_and(|v| v.contains("service.name="));
        if !named || env::var_os("OTEL_SERVICE_NAME").is_some() {
            resource = resource.with_service_name(traces.service_name.clone());
        }
        exporter.set_resource(&resource.build());
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_io().enable_time().build()?;
        let version = env!("CARGO_PKG_VERSION");
        let scope = InstrumentationScope::builder("upsplice").with_version(version).build();
        info!("spans go to {endpoint}");
        let delay = traces.delay;
        Ok(Export { exporter, runtime, scope, counters, delay, is_failing: false })
    }

    /// Sends spans until nobody makes any more and all are sent.
    pub fn run(&mut self, spans: &Receiver<Span>) {
        let mut batch = Vec::new();
        let mut is_open = true;
        while is_open {
            let Ok(first) = spans.recv() else { return };
            batch.push(first);
            let until = Instant::now() + self.delay;
            while is_open && batch.len() < BATCH_MAX {
                match spans.recv_timeout(until.saturating_duration_since(Instant::now())) {
                    Ok(span) => batch.push(span),
                    Err(RecvTimeoutError::Timeout) => break,
                    Err(RecvTimeoutError::Disconnected) => is_open = false,
                }
            }
            self.send(std::mem::take(&mut batch));
        }
    }

    fn send(&mut self, batch: Vec<Span>) {
        let count = batch.len() as u64;
        let spans = batch.into_iter().map(|span| self.data(span)).collect();
        match self.runtime.block_on(self.exporter.export(spans)) {
            Ok(()) => {
                self.counters.spans_exported.add(count);
                if std::mem::take(&mut self.is_failing) {
                    info!("spans are taken again");
                }
            }
            Err(error) => {
                self.counters.spans_failed.add(count);
                if !std::mem::replace(&mut self.is_failing, true) {
                    warn!("spans are lost, the collector does not take them: {error}");
                }
            }
        }
    }

    fn data(&self, span: Span) -> SpanData {
        let attributes = span.attributes.into_iter().map(|(name, value)| match value {
            Value::Text(text) => KeyValue::new(name, text),
            Value::Number(number) => KeyValue::new(name, number),
        });
        // A request is linked to what its client has told, a session to its own handshake.
        let link = span.link.map(|to| Link::new(context(to, span.is_server), Vec::new(), 0));
        let mut links = SpanLinks::default();
        links.links.extend(link);
        SpanData {
            span_context: context(span.place, false),
            parent_span_id: span.parent.map_or(SpanId::INVALID, SpanId::from),
            parent_span_is_remote: span.parent.is_some(),
            span_kind: if span.is_server { SpanKind::Server } else { SpanKind::Internal },
            name: span.name.into(),
            start_time: span.start,
            end_time: span.end,
            attributes: attributes.collect(),
            dropped_attributes_count: 0,
            events: SpanEvents::default(),
            links,
            status: span.error.map_or(Status::Unset, Status::error),
            instrumentation_scope: self.scope.clone(),
        }
    }
}

fn context(at: TraceParent, is_remote: bool) -> SpanContext {
    let flags = TraceFlags::new(at.flags);
    let (trace, span) = (TraceId::from(at.trace_id), SpanId::from(at.span_id));
    SpanContext::new(trace, span, flags, is_remote, TraceState::NONE)
}

/// Milliseconds, as OpenTelemetry has it.
fn patience() -> Duration {
    let names = ["OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", "OTEL_EXPORTER_OTLP_TIMEOUT"];
    let said = names.iter().find_map(|name| env::var(name).ok()?.parse().ok());
    said.map_or(PATIENCE, Duration::from_millis)
}
