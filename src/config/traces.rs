//! Whether spans are exported, where to, and whose traces are continued.

use std::env;
use std::time::Duration;

/// `[gateway.traces]`; the variables that OpenTelemetry has for the same come before the file.
#[derive(Clone, Debug, PartialEq)]
pub struct Traces {
    /// Where OTLP over HTTP is taken, without `/v1/traces`; `None`: what the environment says, or nowhere.
    pub endpoint: Option<String>,
    /// The name of this service in spans.
    pub service_name: String,
    /// Whose `traceparent` is continued.
    pub trust: Trust,
    /// Which traces are recorded.
    pub sampler: Sampler,
    /// How long spans wait for others; default 5 s.
    pub delay: Duration,
}

/// Whose `traceparent` is continued. Anybody else's request begins a trace of its own, with a link to the other.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Trust {
    /// That of peers among `trusted_proxies`.
    #[default]
    TrustedProxies,
    /// Everybody's.
    Any,
}

/// Which traces are recorded (OpenTelemetry's samplers).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sampler {
    /// A parent that is continued decides.
    pub by_parent: bool,
    /// The share of the others.
    pub ratio: f64,
}

impl Default for Traces {
    fn default() -> Traces {
        Traces {
            endpoint: None,
            service_name: "upsplice".to_owned(),
            trust: Trust::default(),
            sampler: Sampler { by_parent: true, ratio: 1.0 },
            delay: Duration::from_secs(5),
        }
    }
}

impl Traces {
    /// The same with what the variables of OpenTelemetry say; `None` when no spans are exported.
    ///
    /// # Errors
    ///
    /// A variable that is not what it should be.
    pub fn in_environment(&self) -> Result<Option<Traces>, String> {
        self.with(&|name| env::var(name).ok().filter(|value| !value.is_empty()))
    }

    fn with(&self, variable: &dyn Fn(&str) -> Option<String>) -> Result<Option<Traces>, String> {
        let is = |name, wanted: &str| {
            variable(name).is_some_and(|value| value.trim().eq_ignore_ascii_case(wanted))
        };
        if is("OTEL_SDK_DISABLED", "true") || is("OTEL_TRACES_EXPORTER", "none") {
            return Ok(None);
        }
        let mut traces = self.clone();
        let of_all = || Some(signal(&variable("OTEL_EXPORTER_OTLP_ENDPOINT")?));
        let of_file = || Some(signal(self.endpoint.as_ref()?));
        let endpoint = variable("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT").or_else(of_all);
        traces.endpoint = endpoint.or_else(of_file);
        if traces.endpoint.is_none() {
            return Ok(None);
        }
        if let Some(name) = variable("OTEL_SERVICE_NAME") {
            traces.service_name = name;
        }
        if let Some(word) = variable("OTEL_TRACES_SAMPLER") {
            let argument = variable("OTEL_TRACES_SAMPLER_ARG");
            traces.sampler = sampler(&word, argument.as_deref())?;
        }
        if let Some(text) = variable("OTEL_BSP_SCHEDULE_DELAY") {
            let wrong = || format!("OTEL_BSP_SCHEDULE_DELAY: must be milliseconds, not {text:?}");
            traces.delay = Duration::from_millis(text.parse().map_err(|_| wrong())?);
        }
        Ok(Some(traces))
    }
}

/// Where traces go, below what is there for all signals.
fn signal(endpoint: &str) -> String {
    format!("{}/v1/traces", endpoint.trim_end_matches('/'))
}

fn sampler(word: &str, argument: Option<&str>) -> Result<Sampler, String> {
    let (by_parent, root) = match word.strip_prefix("parentbased_") {
        Some(root) => (true, root),
        None => (false, word),
    };
    let ratio = match (root, argument) {
        ("always_on", _) => 1.0,
        ("always_off", _) => 0.0,
        ("traceidratio", None) => 1.0,
        ("traceidratio", Some(text)) => ratio(text).ok_or_else(|| {
            format!("OTEL_TRACES_SAMPLER_ARG: must be a number from 0 to 1, not {text:?}")
        })?,
        _ => {
            return Err(format!(
                "OTEL_TRACES_SAMPLER: must be always_on, always_off, traceidratio or one of these behind \
                 parentbased_, not {word:?}"
            ));
        }
    };
    Ok(Sampler { by_parent, ratio })
}

/// A share, from 0 to 1.
pub(super) fn ratio(text: &str) -> Option<f64> {
    text.parse().ok().filter(|ratio| (0.0..=1.0).contains(ratio))
}

/// What stands in front of the only endpoints that can be reached: TLS is a collector's business.
pub(super) fn endpoint(text: &str) -> Result<String, String> {
    let rest = text.strip_prefix("http://").unwrap_or_default();
    let is_sane = |byte: u8| byte.is_ascii_graphic();
    if rest.is_empty() || rest.starts_with('/') || !rest.bytes().all(is_sane) {
        return Err(format!(
            "must be like \"http://127.0.0.1:4318\", a collector that speaks OTLP over plain HTTP, not {text:?}"
        ));
    }
    Ok(text.to_owned())
}

impl Sampler {
    /// Whether a trace with this id is recorded, whose parent was or was not.
    pub fn samples(&self, trace_id: u128, parent: Option<bool>) -> bool {
        match parent.filter(|_| self.by_parent) {
            Some(is_sampled) => is_sampled,
            // As everybody does it: all services keep the same traces (OpenTelemetry, TraceIdRatioBased).
            None if self.ratio >= 1.0 => true,
            None => ((trace_id as u64 >> 1) as f64) < self.ratio * (1_u64 << 63) as f64,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(variables: &[(&str, &str)]) -> Result<Option<Traces>, String> {
        let traces = Traces { endpoint: Some("http://file:1/".into()), ..Traces::default() };
        traces.with(&|name| {
            let found = variables.iter().find(|(known, _)| *known == name);
            found.map(|(_, value)| (*value).to_owned())
        })
    }

    fn endpoint_with(variables: &[(&str, &str)]) -> Option<String> {
        with(variables).expect("they are right").and_then(|traces| traces.endpoint)
    }

    #[test]
    fn the_environment_comes_before_the_file() {
        let all = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://all:2");
        let traces = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://traces:3/here");
        assert_eq!(endpoint_with(&[]).as_deref(), Some("http://file:1/v1/traces"));
        assert_eq!(endpoint_with(&[all]).as_deref(), Some("http://all:2/v1/traces"));
        assert_eq!(endpoint_with(&[all, traces]).as_deref(), Some("http://traces:3/here"));
        assert_eq!(endpoint_with(&[all, ("OTEL_SDK_DISABLED", "true")]), None);
        assert_eq!(endpoint_with(&[all, ("OTEL_TRACES_EXPORTER", "none")]), None);
        let found = Traces::default().with(&|_| None).expect("nothing is wrong");
        assert_eq!(found, None, "nobody has asked for spans");
    }

    #[test]
    fn samplers_have_the_names_of_opentelemetry() {
        let of = |word, argument: Option<&str>| {
            sampler(word, argument).map(|sampler| (sampler.by_parent, sampler.ratio))
        };
        assert_eq!(of("always_off", None), Ok((false, 0.0)));
        assert_eq!(of("parentbased_traceidratio", Some("0.25")), Ok((true, 0.25)));
        assert!(of("traceidratio", Some("2")).is_err() && of("xray", None).is_err());
        assert!(with(&[("OTEL_TRACES_SAMPLER", "often")]).is_err());
        assert!(with(&[("OTEL_BSP_SCHEDULE_DELAY", "soon")]).is_err());
    }

    #[test]
    fn a_parent_decides_where_it_may_and_the_id_elsewhere() {
        let sampler = |by_parent, ratio| Sampler { by_parent, ratio };
        assert!(!sampler(true, 1.0).samples(1, Some(false)));
        assert!(sampler(true, 0.0).samples(1, Some(true)));
        assert!(sampler(false, 1.0).samples(u128::MAX, Some(false)));
        assert!(!sampler(true, 0.0).samples(0, None));
        let (low, high) = (u128::from(u64::MAX / 4), u128::from(u64::MAX / 4 * 3));
        assert!(sampler(true, 0.5).samples(low, None) && !sampler(true, 0.5).samples(high, None));
    }
}
