//! The endpoints as the process shows them.

use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use serde::Serialize;

use super::ejection::Admission;
use super::{Member, Upstream, Upstreams};

/// A route's endpoints at one moment, and what is counted of the route.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct UpstreamView {
    /// The route's name.
    pub route: String,
    /// Sessions that went on to another endpoint, since one could not be connected; each time counts.
    pub retries: u64,
    /// Sessions that were given to an unhealthy endpoint, since no other was left.
    pub last_resorts: u64,
    /// Connects for which this machine had no port left.
    pub no_ports: u64,
    /// Names that could not be looked up again; each time counts.
    pub failed_lookups: u64,
    /// As many as the configuration and its names say, and those that drain.
    pub endpoints: Vec<EndpointView>,
}

/// One endpoint at one moment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct EndpointView {
    /// Its address.
    pub endpoint: String,
    /// As the operator wrote it.
    pub backend: String,
    /// Its share beside the route's others.
    pub weight: u16,
    /// What holds for new sessions.
    pub state: EndpointState,
    /// Sessions that use it, those included that are being connected.
    pub sessions: u64,
    /// How often it was chosen.
    pub chosen: u64,
    /// Connects that failed.
    pub connect_failures: u64,
    /// Connected sessions that got no usable answer.
    pub answer_failures: u64,
    /// How often it was left alone for that.
    pub ejections: u64,
    /// Local ports that there are for its sessions; `None` over a Unix socket.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ports: Option<u64>,
}

/// What holds for new sessions of an endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum EndpointState {
    /// It gets its share.
    Healthy,
    /// Its checks fail, or it is ejected: it gets some only when no other is left.
    Unhealthy,
    /// Its name leads elsewhere, or the operator lets it drain: it gets none.
    Draining,
}

impl EndpointState {
    /// The word in logs, metrics and the API.
    pub fn as_str(self) -> &'static str {
        match self {
            EndpointState::Healthy => "healthy",
            EndpointState::Unhealthy => "unhealthy",
            EndpointState::Draining => "draining",
        }
    }
}

impl Upstreams {
    /// The routes of these slots.
    pub fn view(&self, slots: &[usize]) -> Vec<UpstreamView> {
        let now = self.now();
        slots.iter().map(|&slot| self.routes[slot].view(now)).collect()
    }
}

impl Upstream {
    /// What holds at `now`.
    pub fn view(&self, now: Duration) -> UpstreamView {
        let counts = &self.counts;
        UpstreamView {
            route: self.name.as_ref().to_owned(),
            retries: counts.retries.load(Relaxed),
            last_resorts: counts.last_resorts.load(Relaxed),
            no_ports: counts.no_ports.load(Relaxed),
            failed_lookups: counts.failed_lookups.load(Relaxed),
            endpoints: self
                .members
                .load()
                .all
                .iter()
                .map(|member| self.view_of(member, now))
                .collect(),
        }
    }

    fn view_of(&self, member: &Member, now: Duration) -> EndpointView {
        let endpoint = &member.endpoint;
        let is_shunned =
            self.fails_checks(endpoint) || endpoint.ejection.admission(now) != Admission::Open;
        let drains = member.is_draining || endpoint.is_drained();
        let state = match (drains, is_shunned) {
            (true, _) => EndpointState::Draining,
            (false, true) => EndpointState::Unhealthy,
            (false, false) => EndpointState::Healthy,
        };
        EndpointView {
            endpoint: endpoint.address.to_string(),
            backend: endpoint.text.as_ref().to_owned(),
            weight: member.weight,
            state,
            sessions: endpoint.sessions() as u64,
            chosen: endpoint.chosen.load(Relaxed),
            connect_failures: endpoint.connect_failures.load(Relaxed),
            answer_failures: endpoint.answer_failures.load(Relaxed),
            ejections: endpoint.ejections.load(Relaxed),
            ports: self.ports_for(endpoint),
        }
    }
}
