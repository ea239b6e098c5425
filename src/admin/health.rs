//! Whether the process works, and whether it should be sent more.

use hyper::StatusCode;
use serde::Serialize;
use tokio::sync::oneshot;

use super::reply::{self, Answer};
use super::{Subject, sessions};
use crate::session::question::{Filter, Question};

#[derive(Serialize)]
struct Health {
    #[serde(skip_serializing_if = "Option::is_none")]
    live: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ready: Option<bool>,
    /// Why not; empty when all is well.
    reasons: Vec<String>,
}

/// `GET /livez`: whether every worker answers.
pub(super) async fn live(gateway: &Subject) -> Answer {
    let mut reasons = Vec::new();
    for worker in (0..gateway.workers.count()).filter(|&worker| !gateway.workers.is_gone(worker)) {
        let (reply, answer) = oneshot::channel();
        // There is no such seat: the answer alone counts.
        let question = Question::Look { from: usize::MAX, filter: Filter::default().into(), reply };
        if let Err(problem) = sessions::ask(gateway, worker, question, answer).await {
            reasons.push(problem.error);
        }
    }
    answer(Health { live: Some(reasons.is_empty()), ready: None, reasons })
}

/// `GET /readyz`: whether new connections should come here.
pub(super) fn ready(gateway: &Subject) -> Answer {
    let mut reasons = Vec::new();
    let drains = gateway.workers.drains();
    if drains.is_ending() {
        reasons.push("the gateway drains: it accepts nothing new".to_owned());
    } else if drains.is_gateway_draining() {
        reasons.push("the gateway drains: it refuses new sessions".to_owned());
    }
    let gone = (0..gateway.workers.count()).filter(|&worker| gateway.workers.is_gone(worker));
    reasons.extend(gone.map(|worker| format!("worker {worker} has ended")));
    answer(Health { live: None, ready: Some(reasons.is_empty()), reasons })
}

fn answer(health: Health) -> Answer {
    let status = match health.reasons.is_empty() {
        true => StatusCode::OK,
        false => StatusCode::SERVICE_UNAVAILABLE,
    };
    reply::json(status, &health)
}
