//! Traces: which one a session belongs to, and what a collector hears of it.

#[cfg(feature = "otlp")]
#[path = "support/collector.rs"]
mod collector;
mod support;

use std::sync::mpsc::channel;

use support::client::{field, upgrade_head};
use support::{BOUND, Backend, Client, Engine, Gw, Runtime};

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const PARENT: &str = "00f067aa0ba902b7";

fn theirs(flags: &str) -> String {
    format!("traceparent: 00-{TRACE}-{PARENT}-{flags}\r\ntracestate: vendor=1\r\n")
}

/// A backend that grants everything and tells what it was asked.
fn telling() -> (Backend, std::sync::mpsc::Receiver<String>) {
    let (tell, told) = channel();
    let backend = Backend::start(move |mut peer| {
        let head = peer.read_head();
        peer.grant(&head, "");
        let _ = tell.send(head);
        let _ = peer.receive_to_end();
    });
    (backend, told)
}

/// A session of which the client says `fields`: what the upstream has heard, and the log line.
fn session(
    gw: &Gw,
    told: &std::sync::mpsc::Receiver<String>,
    fields: &str,
) -> (String, serde_json::Value) {
    let mut client = Client::connect(gw.address());
    assert_eq!(client.ask(upgrade_head("/chat/1?token=x", "websocket", fields)).status, 101);
    client.shutdown_write();
    client.receive_to_end().expect("no reset");
    (told.recv_timeout(BOUND).expect("it was asked"), gw.line())
}

#[test]
fn without_an_exporter_a_trace_passes_untouched_whatever_it_is() {
    let (backend, told) = telling();
    let gw = Gw::to(&backend, Engine::Auto, Runtime::Epoll);
    let (head, line) = session(&gw, &told, &theirs("01"));
    assert!(head.contains(&theirs("01")), "{head}");
    assert_eq!(line["trace_id"], TRACE);
    let bad = "traceparent: 00-bad-01\r\ntracestate: a=b\r\n";
    let (head, line) = session(&gw, &told, bad);
    assert_eq!(field(&head, "traceparent"), Some("00-bad-01"));
    assert_eq!(field(&head, "tracestate"), Some("a=b"));
    assert!(line["trace_id"].is_null(), "{line}");
    let (head, line) = session(&gw, &told, "");
    assert!(field(&head, "traceparent").is_none() && line["trace_id"].is_null(), "{line}");
    gw.stop();
    backend.join();
}

#[cfg(feature = "otlp")]
mod exported {
    use std::net::TcpListener;
    use std::time::{SystemTime, UNIX_EPOCH};

    use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
    use opentelemetry_proto::tonic::trace::v1::status::StatusCode;
    use serde_json::json;

    use super::collector::{Collector, Taken, hex};
    use super::support::process::{command, config_to, refusal};
    use super::support::{Program, eventually};
    use super::*;

    fn traces(address: std::net::SocketAddr, more: &str) -> String {
        format!("[gateway.traces]\nendpoint = \"http://{address}\"\ndelay = \"10ms\"\n{more}")
    }

    fn gateway(backend: &Backend, gateway: &str) -> Gw {
        Gw::with(backend, Engine::Auto, Runtime::Epoll, gateway, "path = \"/chat\"")
    }

    fn now() -> u64 {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).expect("it is later");
        u64::try_from(since.as_nanos()).expect("not that late")
    }

    #[test]
    fn a_session_is_two_spans_of_which_the_first_continues_the_trace_of_a_trusted_client() {
        let collector = Collector::start();
        let (backend, told) = telling();
        let trusted = "trusted_proxies = [\"127.0.0.1\"]\n".to_owned();
        let gw = gateway(&backend, &(trusted + &traces(collector.address, "")));
        let before = now();
        let (head, line) = session(&gw, &told, &theirs("01"));
        let (handshake, session) = (collector.span(), collector.span());
        let after = now();
        let Taken { span, attributes, resource, head: request } = &handshake;
        assert!(request.starts_with("post /v1/traces http/1.1"), "{request}");
        assert_eq!((span.name.as_str(), span.kind()), ("GET /chat", SpanKind::Server));
        assert_eq!((hex(&span.trace_id), hex(&span.parent_span_id)), (TRACE.into(), PARENT.into()));
        assert!(span.links.is_empty() && span.status.as_ref().is_none_or(|s| s.code == 0));
        for (name, value) in [
            ("http.request.method", json!("GET")),
            ("http.response.status_code", json!(101)),
            ("http.route", json!("/chat")),
            ("url.path", json!("/chat/1")),
            ("url.scheme", json!("http")),
            ("server.address", json!("gateway.test")),
            ("server.port", json!(gw.address().port())),
            ("client.address", json!("127.0.0.1")),
            ("network.protocol.version", json!("1.1")),
            ("upsplice.route", json!("test")),
            ("upsplice.upgrade", json!("websocket")),
            ("upsplice.session.id", line["session_id"].clone()),
        ] {
            assert_eq!(attributes.get(name), Some(&value), "{name}: {attributes:?}");
        }
        assert!(!format!("{attributes:?}").contains("token"), "{attributes:?}");
        assert_eq!(resource.get("service.name"), Some(&json!("upsplice")));

        let ours = hex(&span.span_id);
        let parent = format!("00-{TRACE}-{ours}-01");
        assert_eq!(
            field(&head, "traceparent"),
            Some(&*parent),
            "our span is the upstream's parent"
        );
        assert_eq!(field(&head, "tracestate"), Some("vendor=1"));
        assert_eq!(line["trace_id"], TRACE);

        let Taken { span: life, attributes, .. } = &session;
        assert_eq!((life.name.as_str(), life.kind()), ("upsplice.session", SpanKind::Internal));
        assert!(life.trace_id != span.trace_id && life.parent_span_id.is_empty());
        let [link] = &life.links[..] else { panic!("one link: {:?}", life.links) };
        assert_eq!((&link.trace_id, &link.span_id), (&span.trace_id, &span.span_id));
        for (name, value) in [
            ("upsplice.bytes.received", line["bytes_in"].clone()),
            ("upsplice.bytes.sent", line["bytes_out"].clone()),
            ("upsplice.close.reason", json!("completed")),
            ("upsplice.engine", line["engine"].clone()),
            ("upsplice.mode", json!("zero-copy")),
            ("upsplice.session.id", line["session_id"].clone()),
        ] {
            assert_eq!(attributes.get(name), Some(&value), "{name}: {attributes:?}");
        }
        let times = [
            before,
            span.start_time_unix_nano,
            span.end_time_unix_nano,
            life.end_time_unix_nano,
            after,
        ];
        assert!(times.is_sorted(), "{times:?}");
        // The two are told from two clock readings, which are read one after the other.
        let between = life.start_time_unix_nano.abs_diff(span.end_time_unix_nano);
        assert!(between < 1_000_000_000, "the session begins where the handshake ends: {between}");
        eventually("they are counted", || gw.metrics().spans["exported"] == 2);
        gw.stop();
        backend.join();
    }

    #[test]
    fn a_trace_of_somebody_who_is_not_trusted_is_linked_and_one_that_is_bad_is_forgotten() {
        let collector = Collector::start();
        let (backend, told) = telling();
        let gw = gateway(&backend, &traces(collector.address, ""));
        let bad = "traceparent: 00-bad-01\r\ntracestate: vendor=1\r\n";
        for (fields, links) in [(theirs("00"), 1), (bad.to_owned(), 0), (String::new(), 0)] {
            let (head, line) = session(&gw, &told, &fields);
            let (handshake, _) = (collector.span(), collector.span());
            let span = &handshake.span;
            assert!(span.parent_span_id.is_empty() && hex(&span.trace_id) != TRACE, "{span:?}");
            assert_eq!(span.links.len(), links, "{fields}");
            assert!(span.links.iter().all(|link| hex(&link.trace_id) == TRACE), "{span:?}");
            let ours = format!("00-{}-{}-01", hex(&span.trace_id), hex(&span.span_id));
            assert_eq!(field(&head, "traceparent"), Some(&*ours));
            assert_eq!(field(&head, "tracestate"), None, "it belongs to the other trace");
            assert_eq!(line["trace_id"], hex(&span.trace_id));
        }
        gw.stop();
        backend.join();
    }

    #[test]
    fn who_is_not_sampled_is_continued_in_silence() {
        let collector = Collector::start();
        let (backend, told) = telling();
        let gw = gateway(&backend, &traces(collector.address, "trust = \"any\""));
        let (head, line) = session(&gw, &told, &theirs("00"));
        let parent = field(&head, "traceparent").expect("it is told");
        assert!(parent.starts_with(&format!("00-{TRACE}-")) && parent.ends_with("-00"), "{parent}");
        assert!(!parent.contains(PARENT), "{parent}");
        assert_eq!(line["trace_id"], TRACE);
        // What comes next comes first: nothing was sent before.
        session(&gw, &told, &theirs("01"));
        assert_eq!(hex(&collector.span().span.parent_span_id), PARENT);
        gw.stop();
        backend.join();
    }

    #[test]
    fn a_handshake_that_fails_says_why_and_a_mistake_of_the_client_is_no_error() {
        let collector = Collector::start();
        let backend = Backend::start(|mut peer| drop(peer.read_head()));
        let gw = gateway(&backend, &traces(collector.address, ""));
        let cases: [(&str, u16, &str, Option<&str>); 4] = [
            (&upgrade_head("/chat", "raw", ""), 502, "GET /chat", Some("truncated")),
            (&upgrade_head("/other", "raw", ""), 404, "GET", None),
            ("GET /chat HTTP/1.1\r\nHost: a\r\n\r\n", 426, "GET /chat", None),
            ("BREW /other HTTP/1.1\r\nHost: a b\r\n\r\n", 400, "HTTP", None),
        ];
        for (request, status, name, error) in cases {
            assert_eq!(Client::connect(gw.address()).ask(request).status, status);
            let Taken { span, attributes, .. } = collector.span();
            assert_eq!(span.name, name, "{request}");
            assert_eq!(attributes.get("http.response.status_code"), Some(&json!(status)));
            assert_eq!(attributes.get("error.type"), error.map(|error| json!(error)).as_ref());
            let is_error = span.status.is_some_and(|status| status.code() == StatusCode::Error);
            assert_eq!(is_error, error.is_some(), "{request}");
        }
        gw.stop();
        assert!(collector.more().is_empty(), "a refusal is one span");
        backend.join();
    }

    #[test]
    fn a_collector_that_does_not_answer_holds_up_nobody_and_spans_are_dropped_and_counted() {
        const REQUESTS: u64 = 2048 + 512 + 200;
        // It is connected by the kernel, and never answered.
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let (backend, told) = telling();
        let gw = gateway(&backend, &traces(listener.local_addr().expect("bound"), ""));
        for _ in 0..REQUESTS {
            let refused =
                Client::connect(gw.address()).ask("GET /chat HTTP/1.1\r\nHost: a\r\n\r\n");
            assert_eq!(refused.status, 426);
            gw.line();
        }
        let (_, line) = session(&gw, &told, "");
        assert_eq!(line["close_reason"], "completed");
        assert!(gw.metrics().spans["dropped"] >= 1, "{:?}", gw.metrics().spans);
        drop(listener);
        gw.stop();
        backend.join();
    }

    #[test]
    fn a_collector_that_is_not_there_is_named_once_and_found_again() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("bound");
        drop(listener);
        let (backend, _told) = telling();
        let mut program = Program::start(&config_to(backend.address, &traces(address, ""), ""));
        for _ in 0..2 {
            drop(Client::upgraded(program.address(), "/", "raw"));
            program.line();
        }
        program.diagnostic_with("spans are lost, the collector does not take them");
        eventually("they are counted", || program.counters()["spans"]["failed"] == 4);
        program.signal("TERM");
        assert_eq!(program.exit_code(), Some(0));
        assert!(!program.diagnostics_to_end().contains("spans are lost"), "it was said again");
        backend.join();
    }

    #[test]
    fn the_environment_of_opentelemetry_is_heard_inside_the_sandbox() {
        let collector = Collector::start();
        let (backend, _told) = telling();
        let (mut run, folder) = command(&config_to(backend.address, "", ""));
        // By a name, which is looked up inside.
        let endpoint = format!("http://localhost:{}/below/", collector.address.port());
        run.env("OTEL_EXPORTER_OTLP_ENDPOINT", &endpoint)
            .env("OTEL_EXPORTER_OTLP_HEADERS", "x-tenant=blue")
            .env("OTEL_SERVICE_NAME", "edge")
            .env("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment.name=test")
            .env("OTEL_BSP_SCHEDULE_DELAY", "10");
        let mut program = Program::from_command(&mut run, 1, folder);
        drop(Client::upgraded(program.address(), "/", "raw"));
        let taken = collector.span();
        assert!(taken.head.starts_with("post /below/v1/traces http/1.1"), "{}", taken.head);
        assert!(taken.head.contains("x-tenant: blue"), "{}", taken.head);
        for (name, value) in [("service.name", "edge"), ("deployment.environment.name", "test")] {
            assert_eq!(taken.resource.get(name), Some(&json!(value)), "{:?}", taken.resource);
        }
        program.signal("TERM");
        assert_eq!(program.exit_code(), Some(0));

        for (name, value, part) in [
            ("OTEL_TRACES_SAMPLER", "often", "OTEL_TRACES_SAMPLER: must be always_on"),
            ("OTEL_EXPORTER_OTLP_ENDPOINT", "https://127.0.0.1:1", "only plain HTTP"),
        ] {
            let (mut run, _folder) = command(&config_to(backend.address, "", ""));
            run.env("OTEL_EXPORTER_OTLP_ENDPOINT", &endpoint).env(name, value);
            let (code, said) = refusal(&mut run);
            assert_eq!(code, Some(1), "{said}");
            assert!(said.contains(part), "{said}");
        }
        backend.join();
    }
}
