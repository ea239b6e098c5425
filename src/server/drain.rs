//! Begins drains: says to everybody what takes no new sessions, and to the workers who has to leave.

use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use tokio::sync::Notify;
use tracing::info;

use super::control::{Control, Controller};
use crate::error::Kind;
use crate::session::depart::{LAST_GRACE, Leaving, Whose};
use crate::session::drains::{Drain, Drains, Pace, What};
use crate::session::joined::GOING_AWAY;
use crate::session::plan::Plan;
use crate::upstream::watch::OnClose;

/// The way to a drain, for signals and for the operator.
#[derive(Debug)]
pub(super) struct Drainer {
    pub controls: Arc<[Controller]>,
    pub plans: Arc<ArcSwap<Plan>>,
    pub drains: Arc<Drains>,
    /// Told when the operator lets the process end.
    pub asked: Notify,
}

impl Drainer {
    /// Begins what the operator asks for; false when too many go on.
    pub fn begin(&self, drain: Drain) -> bool {
        let stops = drain.what().stops();
        let until = drain.pace().deadline + 2 * LAST_GRACE;
        if !self.spread(drain) {
            return false;
        }
        if stops {
            self.stop_accepting(until);
            self.asked.notify_one();
        }
        true
    }

    /// What a stop signal begins: as the configuration says, sessions are waited for or told to leave. The
    /// operator's own drain goes on, but no longer than this one would.
    pub fn begin_for_signal(&self) {
        let plan = self.plans.load();
        let gateway = &plan.config.gateway;
        if !self.drains.is_ending() {
            let deadline = gateway.drain.saturating_sub(LAST_GRACE);
            let pace = Pace {
                // A flag may have made the whole shorter than the file meant.
                over: gateway.drain_over.map(|over| over.min(deadline)),
                deadline,
                rate: gateway.drain_rate.map(f64::from),
                code: GOING_AWAY,
            };
            self.spread(Drain::new(What::Gateway { stop: true }, pace));
        }
        self.stop_accepting(gateway.drain);
    }

    fn spread(&self, drain: Drain) -> bool {
        let drain = Arc::new(drain);
        if !self.drains.begin(Arc::clone(&drain)) {
            return false;
        }
        let Some(leaving) = drain.leaving() else { return true };
        let Pace { over, deadline, rate, code } = drain.pace();
        info!(over = ?over.unwrap_or_default(), ?deadline, rate, code, "draining {}", drain.what());
        for control in self.controls.iter() {
            // A worker that has ended has no sessions.
            let _ = control.send(Control::Depart(Arc::clone(leaving)));
        }
        true
    }

    fn stop_accepting(&self, until: Duration) {
        let until = Instant::now() + until;
        for control in self.controls.iter() {
            let _ = control.send(Control::Drain(until));
        }
    }
}

/// Ends the sessions of endpoints that are not healthy any more, where a route asks for it.
pub(super) fn on_close(controls: &Arc<[Controller]>) -> OnClose {
    let controls = Arc::clone(controls);
    Arc::new(move |endpoint, over| {
        let whose = Whose::Unhealthy(Arc::clone(endpoint), endpoint.changes());
        let leaving = Arc::new(Leaving::new(whose, over, || Kind::EndpointUnhealthy, GOING_AWAY));
        for control in controls.iter() {
            // A worker that has ended has no sessions.
            let _ = control.send(Control::Depart(Arc::clone(&leaving)));
        }
    })
}
