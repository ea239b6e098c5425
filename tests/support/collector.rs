//! A collector of traces: takes OTLP over HTTP and reads it by the official definitions.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener};
use std::sync::mpsc::{Receiver, channel};
use std::thread;

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value as Any;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue};
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message;
use serde_json::{Value, json};

use super::BOUND;

/// A collector that runs, and what it was sent.
pub struct Collector {
    pub address: SocketAddr,
    spans: Receiver<Taken>,
}

/// A span, and what came along with it.
pub struct Taken {
    pub span: Span,
    /// Of the span.
    pub attributes: BTreeMap<String, Value>,
    /// Of the service.
    pub resource: BTreeMap<String, Value>,
    /// The head of the request, in lower case.
    pub head: String,
}

impl Collector {
    /// Takes everything from now on.
    pub fn start() -> Collector {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("bound");
        let (sender, spans) = channel();
        thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = BufReader::new(stream.expect("a connection"));
                let (head, body) = request(&mut stream);
                let answer = "HTTP/1.1 200 OK\r\nContent-Type: application/x-protobuf\r\n\
                    Content-Length: 0\r\n\r\n";
                stream.get_mut().write_all(answer.as_bytes()).expect("it is read");
                for taken in taken(&head, &body) {
                    if sender.send(taken).is_err() {
                        return;
                    }
                }
            }
        });
        Collector { address, spans }
    }

    /// The next span.
    pub fn span(&self) -> Taken {
        self.spans.recv_timeout(BOUND).expect("a span comes")
    }

    /// All that came and was not asked for.
    pub fn more(&self) -> Vec<Taken> {
        self.spans.try_iter().collect()
    }
}

/// Head and body of one request.
fn request(stream: &mut impl BufRead) -> (String, Vec<u8>) {
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        assert!(stream.read_line(&mut head).expect("a head comes") > 0, "it ends: {head}");
    }
    let head = head.to_lowercase();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
    let length = length.and_then(|text| text.parse().ok()).expect("a length");
    let mut body = vec![0; length];
    stream.read_exact(&mut body).expect("a body comes");
    (head, body)
}

fn taken(head: &str, body: &[u8]) -> Vec<Taken> {
    assert!(head.contains("content-type: application/x-protobuf"), "{head}");
    let request = ExportTraceServiceRequest::decode(body).expect("it is as defined");
    let mut all = Vec::new();
    for of_resource in request.resource_spans {
        let resource = words(&of_resource.resource.expect("there is one").attributes);
        for span in of_resource.scope_spans.into_iter().flat_map(|scope| scope.spans) {
            let attributes = words(&span.attributes);
            all.push(Taken { span, attributes, resource: resource.clone(), head: head.into() });
        }
    }
    all
}

fn words(attributes: &[KeyValue]) -> BTreeMap<String, Value> {
    let value = |value: &Option<AnyValue>| match value.as_ref().and_then(|v| v.value.as_ref()) {
        Some(Any::StringValue(text)) => json!(text),
        Some(Any::IntValue(number)) => json!(number),
        other => json!(format!("{other:?}")),
    };
    attributes.iter().map(|pair| (pair.key.clone(), value(&pair.value))).collect()
}

/// An id as everybody writes it.
pub fn hex(id: &[u8]) -> String {
    id.iter().map(|byte| format!("{byte:02x}")).collect()
}
