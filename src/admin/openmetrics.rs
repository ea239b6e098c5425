//! `/metrics`: OpenMetrics text. Numbers are live: read from the workers' counters at this moment. No label has more
//! values than the configuration has routes, or a closed list has words.

use std::fmt;
use std::sync::Arc;
use std::time::UNIX_EPOCH;

use hyper::StatusCode;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, text};
use prometheus_client::registry::Registry;

use super::family::{Buckets, Families, Labels};
use super::reload::Reloads;
use super::reply::{self, Answer};
use super::{Subject, limits, process};
use crate::error::{Kind, Side};
use crate::metrics::{
    Direction, Engine, MESSAGE_BYTES, RouteSnapshot, Snapshot, Sort, Times, WayWebSocket,
};
use crate::session::plan::Plan;
use crate::upstream::view::{EndpointState, EndpointView, UpstreamView};

const OPEN: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
const CLASSIC: &str = "text/plain; version=0.0.4; charset=utf-8";
/// The route of requests that found none.
const NO_ROUTE: &str = "";

/// All there is to show, at one moment.
#[derive(Debug)]
struct Page {
    sum: Snapshot,
    /// By name; the last is of requests without a route.
    routes: Vec<(String, RouteSnapshot)>,
    upstreams: Vec<UpstreamView>,
    plan: Arc<Plan>,
    reloads: Reloads,
    /// How many drains go on.
    drains: u64,
    /// Workers that have not ended.
    workers: u64,
    /// Sessions that are left of them, and those that were told to leave so far.
    drained: [u64; 2],
    /// When the configuration was taken up, in seconds since 1970.
    since: f64,
}

/// `GET /metrics`; in the format of before OpenMetrics for those who want `text/plain`, and not this.
pub(super) fn answer(gateway: &Subject, accept: Option<&str>) -> Answer {
    let counters = || gateway.counters.iter();
    let (plan, drains) = (gateway.plan(), gateway.workers.drains());
    let unrouted = RouteSnapshot::of(counters().map(|worker| worker.route(None)));
    let named =
        plan.names().into_iter().map(|name| (name.to_owned(), gateway.counts_of(&plan, name)));
    let page = Page {
        sum: Snapshot::of(counters().map(AsRef::as_ref)),
        routes: named.chain([(NO_ROUTE.to_owned(), unrouted)]).collect(),
        upstreams: plan.upstreams.view(&plan.live),
        plan: Arc::clone(&plan),
        reloads: gateway.workers.reloads(),
        drains: drains.all().len() as u64,
        workers: (0..gateway.workers.count()).filter(|&at| !gateway.workers.is_gone(at)).count()
            as u64,
        drained: [drains.left(&gateway.counters), drains.told()],
        since: plan.since.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64(),
    };
    let mut registry = Registry::default();
    registry.register_collector(Box::new(page));
    let mut page = String::new();
    text::encode(&mut page, &registry).expect("a string takes everything");
    let wants = |kind| accept.is_some_and(|accept| accept.contains(kind));
    match wants("text/plain") && !wants("application/openmetrics-text") {
        true => reply::whole(StatusCode::OK, CLASSIC, classic(&page)),
        false => reply::whole(StatusCode::OK, OPEN, page),
    }
}

/// The page in the format of before: a counter has the same name everywhere there, and the page no end.
fn classic(page: &str) -> String {
    let mut text = String::with_capacity(page.len() + 1024);
    let mut lines = page.lines().peekable();
    while let Some(line) = lines.next() {
        let next = lines.peek().copied().unwrap_or_default();
        let counter = |line: &str| line.starts_with("# TYPE ") && line.ends_with(" counter");
        let word = if counter(line) || counter(next) { line.split(' ').nth(2) } else { None };
        match word {
            Some(name) => text.push_str(&line.replacen(name, &format!("{name}_total"), 1)),
            None if line == "# EOF" => break,
            None => text.push_str(line),
        }
        text.push('\n');
    }
    text
}

impl Collector for Page {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut page = Families(encoder);
        let version = vec![("version", env!("CARGO_PKG_VERSION"))];
        page.gauges("upsplice_build_info", "What runs.", [(version, 1_u64)])?;
        page.gauge("upsplice_workers", "Threads that carry sessions.", self.workers)?;
        let help = "Whether the last configuration that was read is the one in use.";
        let succeeded = u64::from(!self.reloads.last_failed);
        page.gauge("upsplice_config_last_reload_successful", help, succeeded)?;
        let results = [("success", self.reloads.succeeded), ("failure", self.reloads.failed)];
        let results = results.map(|(result, count)| (vec![("result", result)], count));
        page.counters("upsplice_config_reloads", "Reloads.", results)?;
        let help = "Configurations that somebody goes by: more than one only while exchanges are under way.";
        page.gauge("upsplice_config_generations_live", help, self.reloads.plans_alive as u64)?;
        let (name, help) =
            ("upsplice_config_last_reload_success_timestamp_seconds", "When it was taken up.");
        page.gauge(name, help, self.since)?;
        self.connections(&mut page)?;
        self.sessions(&mut page)?;
        limits::encode(&mut page, &self.plan, &self.routes)?;
        self.times(&mut page)?;
        self.carriage(&mut page)?;
        self.upstreams(&mut page)?;
        self.websocket(&mut page)?;
        process::encode(&mut page)
    }
}

impl Page {
    fn connections(&self, page: &mut Families<'_>) -> fmt::Result {
        let sum = &self.sum;
        let accepted = [(vec![("result", "accepted")], sum.accepted)];
        page.counters("upsplice_connections", "Connections.", accepted)?;
        let help = "Connections accepted and not ended.";
        page.gauge("upsplice_connections_open", help, sum.connections_open)?;
        let help = "Times that accepting failed and backed off: no descriptors, no memory.";
        page.counter("upsplice_accept_backoffs", help, sum.accept_backoffs)?;
        let help = "Connections given to another worker before anything was read.";
        page.counter("upsplice_connections_handed_over", help, sum.handed_over)?;
        let help = "Access log lines dropped because their reader was behind.";
        page.counter("upsplice_access_log_dropped", help, sum.log_dropped)?;
        let help = "Writes of the access log that failed: the disk is full, or its folder is gone.";
        page.counter("upsplice_access_log_write_failures", help, sum.log_write_failures)?;
        let help = "Spans, by what became of them.";
        page.counters("upsplice_spans", help, words("result", &sum.spans))?;
        let help = "Drains that go on: of the gateway, of routes, of endpoints.";
        page.gauge("upsplice_drain_active", help, self.drains)?;
        let [left, told] = self.drained;
        let help = "Sessions that are left of what drains.";
        page.gauge("upsplice_drain_sessions_remaining", help, left)?;
        page.counter("upsplice_drain_closed", "Sessions that a drain told to leave.", told)
    }

    fn sessions(&self, page: &mut Families<'_>) -> fmt::Result {
        let open = self.sorts(|labels, sort, route| vec![(labels, route.open[sort as usize])]);
        page.gauges("upsplice_sessions_open", "Joined sessions.", open)?;
        let ended = self.sorts(|labels, sort, route| {
            let counts = Kind::WORDS.into_iter().zip(route.ended[sort as usize]);
            let met = counts.filter(|(_, count)| *count > 0);
            met.map(|(word, count)| ([&labels[..], &[("close_reason", word)]].concat(), count))
                .collect()
        });
        page.counters("upsplice_sessions", "Sessions that have ended.", ended)?;
        let upgrades = self.sum.upgrades.iter();
        let upgrades = upgrades.map(|(word, count)| (vec![("result", *word)], *count));
        page.counters("upsplice_upgrades", "Requests for an upgrade.", upgrades)?;
        let failed = self.routes.iter().flat_map(|(name, route)| {
            let counts = Kind::WORDS.into_iter().zip(route.failed);
            let met = counts.filter(|(_, count)| *count > 0);
            met.map(|(word, count)| (vec![("route", name.as_str()), ("reason", word)], count))
        });
        let help = "Requests that did not become a session.";
        page.counters("upsplice_upgrade_failures", help, failed)?;
        let help = "Sessions that went on in another worker or engine.";
        page.counter("upsplice_sessions_detached", help, self.sum.detached)
    }

    fn times(&self, page: &mut Families<'_>) -> fmt::Result {
        let handshakes = self.sorts(|mut labels, sort, route| {
            labels.retain(|(name, _)| *name != "mode");
            let times = &route.handshakes;
            match sort {
                // The inspected ones are WebSocket, too.
                Sort::WebSocket => {
                    vec![(
                        labels,
                        buckets(&[&times[sort as usize], &times[Sort::Inspected as usize]]),
                    )]
                }
                Sort::Other => vec![(labels, buckets(&[&times[sort as usize]]))],
                Sort::Inspected => Vec::new(),
            }
        });
        let help = "From accept to the 101.";
        page.histograms("upsplice_handshake_duration_seconds", help, handshakes)?;
        let lives = self.sorts(|mut labels, sort, route| {
            labels.retain(|(name, _)| *name != "protocol");
            let times = &route.lives;
            match sort {
                Sort::WebSocket => {
                    vec![(labels, buckets(&[&times[sort as usize], &times[Sort::Other as usize]]))]
                }
                Sort::Inspected => vec![(labels, buckets(&[&times[sort as usize]]))],
                Sort::Other => Vec::new(),
            }
        });
        let help = "From accept to the end of sessions.";
        page.histograms("upsplice_session_duration_seconds", help, lives)
    }

    fn carriage(&self, page: &mut Families<'_>) -> fmt::Result {
        let sum = &self.sum;
        let bytes = self.routes.iter().filter(|(name, _)| name != NO_ROUTE).flat_map(by_engine);
        page.counters("upsplice_bytes", "Bytes taken from their source.", bytes)?;
        let spliced =
            Direction::BOTH.iter().map(|&way| sum.bytes_by(Engine::Splice, way)).sum::<u64>();
        let help = "Bytes that never were in user memory.";
        page.counter("upsplice_splice_bytes", help, spliced)?;
        let help = "Directions that fell back to copy.";
        page.counters("upsplice_splice_fallbacks", help, words("reason", &sum.fallbacks))?;
        let help = "Directions whose traffic called for another engine.";
        page.counters("upsplice_engine_switches", help, words("engine", &sum.engine_switches))?;
        page.gauge("upsplice_pipes_used", "Pipes that hold bytes.", sum.pipes_used)?;
        page.gauge("upsplice_pipes_free", "Pipes kept for the next bytes.", sum.pipes_free)?;
        let help = "Pipes that the kernel made smaller than 64 KiB.";
        page.counter("upsplice_pipe_shrunk", help, sum.pipes_degraded)?;
        let help = "Times that a source was not read since its sink was full.";
        page.counters("upsplice_backpressure_paused", help, words("direction", &sum.paused))?;
        let (name, help) = ("upsplice_backpressure_paused_seconds", "For how long, once over.");
        page.counters(name, help, words("direction", &sum.paused_seconds))
    }

    fn websocket(&self, page: &mut Families<'_>) -> fmt::Result {
        let messages = self.ways(|way| {
            let binary = way.messages() - way.texts;
            vec![(Some(("opcode", "text")), way.texts), (Some(("opcode", "binary")), binary)]
        });
        page.counters("upsplice_ws_messages", "Messages of inspected sessions.", messages)?;
        let frames = self.ways(|way| labelled("opcode", &way.frames));
        page.counters("upsplice_ws_frames", "Their frames.", frames)?;
        let bytes = self.ways(|way| labelled("opcode", &way.frame_bytes));
        page.counters("upsplice_ws_frame_bytes", "Payload of their frames.", bytes)?;
        let sizes = self.ways(|way| {
            let bounds = MESSAGE_BYTES.map(|bound| bound as f64);
            vec![(None, Buckets::new(bounds, &way.message_sizes, way.message_bytes as f64))]
        });
        let help = "Payload of their messages, on the wire.";
        page.histograms("upsplice_ws_message_size_bytes", help, sizes)?;
        let compressed = self.ways(|way| vec![(None, way.compressed_bytes)]);
        let help = "Payload on the wire of messages that were inflated.";
        page.counters("upsplice_ws_compressed_bytes", help, compressed)?;
        let inflated = self.ways(|way| vec![(None, way.inflated_bytes)]);
        page.counters("upsplice_ws_inflated_bytes", "What they were inflated to.", inflated)?;
        let closes = Direction::BOTH.into_iter().flat_map(|direction| {
            let from = sender(direction);
            let closes = &self.sum.websocket.way(direction).closes;
            closes.iter().map(move |(code, count)| (vec![("code", *code), ("from", from)], *count))
        });
        page.counters("upsplice_ws_close", "Closes that passed.", closes)?;
        let violations = self.ways(|way| labelled("rule", &way.violations));
        page.counters("upsplice_ws_violations", "Broken rules.", violations)?;
        let pings = self.ways(|way| vec![(None, way.pings)]);
        page.counters("upsplice_ws_pings", "Pings of our own.", pings)?;
        let waits = self.ways(|way| vec![(None, way.rate_waits)]);
        let help = "Times that a sender had used up its rate.";
        page.counters("upsplice_ws_rate_waits", help, waits)
    }

    fn upstreams(&self, page: &mut Families<'_>) -> fmt::Result {
        let is_healthy = |endpoint: &EndpointView| endpoint.state == EndpointState::Healthy;
        let healthy = self.endpoints(|endpoint| u64::from(is_healthy(endpoint)));
        let help = "Whether an endpoint gets its share of new sessions: 1, or 0.";
        page.gauges("upsplice_upstream_healthy", help, healthy)?;
        let open = self.endpoints(|endpoint| endpoint.sessions);
        let help = "Sessions that use an endpoint, or are about to.";
        page.gauges("upsplice_upstream_sessions_open", help, open)?;
        let failures = self.endpoints(|endpoint| endpoint.connect_failures);
        page.counters("upsplice_upstream_connect_failures", "Connects that failed.", failures)?;
        let failures = self.endpoints(|endpoint| endpoint.answer_failures);
        let help = "Connected sessions that got no usable answer.";
        page.counters("upsplice_upstream_answer_failures", help, failures)?;
        let ejections = self.endpoints(|endpoint| endpoint.ejections);
        let help = "Times that an endpoint was left alone for that.";
        page.counters("upsplice_upstream_ejections", help, ejections)?;
        let ports = self.upstreams.iter().flat_map(|route| {
            route.endpoints.iter().filter_map(|endpoint| {
                let labels = vec![("route", &*route.route), ("endpoint", &*endpoint.endpoint)];
                Some((labels, endpoint.sessions as f64 / endpoint.ports? as f64))
            })
        });
        let help = "Part of the local ports for an endpoint that its sessions of this route have.";
        page.gauges("upsplice_upstream_ports_used_ratio", help, ports)?;
        let of = |count: fn(&UpstreamView) -> u64| {
            let each = move |route: &UpstreamView| count(route);
            self.upstreams.iter().map(move |route| (vec![("route", &*route.route)], each(route)))
        };
        let help = "Sessions that went on to another endpoint.";
        page.counters("upsplice_upstream_retries", help, of(|route| route.retries))?;
        let help = "Connects for which this machine had no port left.";
        page.counters("upsplice_upstream_no_ports", help, of(|route| route.no_ports))
    }

    /// What `each` says of each endpoint: there are as many as the configuration and its names say.
    fn endpoints(&self, each: impl Fn(&EndpointView) -> u64) -> Vec<(Labels<'_>, u64)> {
        let all = self.upstreams.iter().flat_map(|route| {
            route.endpoints.iter().map(move |endpoint| (&*route.route, endpoint))
        });
        all.map(|(route, endpoint)| {
            (vec![("route", route), ("endpoint", &*endpoint.endpoint)], each(endpoint))
        })
        .collect()
    }

    /// What `each` says of each kind of session of each route.
    fn sorts<'s, T>(
        &'s self,
        each: impl Fn(Labels<'s>, Sort, &'s RouteSnapshot) -> Vec<(Labels<'s>, T)>,
    ) -> Vec<(Labels<'s>, T)> {
        let named = self.routes.iter().filter(|(name, _)| name != NO_ROUTE);
        let all = named.flat_map(|(name, route)| Sort::ALL.map(|sort| (name, route, sort)));
        all.flat_map(|(name, route, sort)| {
            let labels = vec![
                ("route", name.as_str()),
                ("mode", sort.mode()),
                ("protocol", sort.protocol()),
            ];
            each(labels, sort, route)
        })
        .collect()
    }

    /// What `each` says of each direction of inspected sessions, with one label more or none.
    fn ways<T>(
        &self,
        each: impl Fn(&WayWebSocket) -> Vec<(Option<(&'static str, &'static str)>, T)>,
    ) -> Vec<(Labels<'static>, T)> {
        let all = Direction::BOTH.into_iter().flat_map(|direction| {
            let told = each(self.sum.websocket.way(direction));
            told.into_iter().map(move |(label, value)| {
                let direction = ("direction", direction.as_str());
                ([direction].into_iter().chain(label).collect(), value)
            })
        });
        all.collect()
    }
}

fn sender(direction: Direction) -> &'static str {
    match direction {
        Direction::ToUpstream => Side::Downstream.as_str(),
        Direction::ToDownstream => Side::Upstream.as_str(),
    }
}

fn buckets(times: &[&Times]) -> Buckets {
    let bounds = times[0].bounds.iter().copied();
    let mut counts = vec![0; times[0].counts.len()];
    for other in times {
        counts.iter_mut().zip(&other.counts).for_each(|(sum, count)| *sum += count);
    }
    Buckets::new(bounds, &counts, times.iter().map(|times| times.seconds).sum())
}

/// Bytes of one route, by direction and engine.
fn by_engine((name, route): &(String, RouteSnapshot)) -> Vec<(Labels<'_>, u64)> {
    let all = Engine::ALL.into_iter().flat_map(|engine| Direction::BOTH.map(|way| (engine, way)));
    all.map(|(engine, way)| {
        let labels = vec![
            ("route", name.as_str()),
            ("direction", way.as_str()),
            ("engine", engine.as_str()),
        ];
        (labels, route.bytes[engine as usize][way as usize])
    })
    .collect()
}

type Counted<V> = std::collections::BTreeMap<&'static str, V>;

fn words<V: Copy>(
    name: &'static str,
    counts: &Counted<V>,
) -> impl Iterator<Item = (Labels<'static>, V)> {
    counts.iter().map(move |(word, count)| (vec![(name, *word)], *count))
}

fn labelled(
    name: &'static str,
    counts: &Counted<u64>,
) -> Vec<(Option<(&'static str, &'static str)>, u64)> {
    counts.iter().map(|(word, count)| (Some((name, *word)), *count)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_have_one_name_in_the_format_of_before() {
        let page = "# HELP a What a is.\n# TYPE a gauge\na 1\n# HELP b What b is.\n\
            # TYPE b counter\nb_total{x=\"b\"} 2\n# HELP c C.\n# TYPE c counter\n# EOF\n";
        let expected = "# HELP a What a is.\n# TYPE a gauge\na 1\n# HELP b_total What b is.\n\
            # TYPE b_total counter\nb_total{x=\"b\"} 2\n# HELP c_total C.\n# TYPE c_total counter\n";
        assert_eq!(classic(page), expected);
    }
}
