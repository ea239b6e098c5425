//! Requests that ask for no upgrade that a route here carries. upsplice carries upgraded connections
//! only, so they are told what to ask for; in demo mode they are for the test page.

use super::facts::Facts;
use super::worker::Worker;
use super::{Leave, Parting};
use crate::error::{End, Kind, Side, Stage};
use crate::http::head::RequestHead;
use crate::http::reject;
use crate::metrics::UpgradeResult;
use crate::route::Found;

/// The answer to a request without a usable `Upgrade`.
pub fn answer(worker: &Worker, facts: &mut Facts, head: &RequestHead<'_>) -> Leave {
    if let Some(page) = &worker.page {
        let answer = page(head.method(), head.path());
        let end = End::new(Side::Proxy, Stage::Response, Kind::Answered);
        return Leave { end, parting: Parting::Say(answer) };
    }
    match facts.plan().routes.find(head.route_host(), head.route_path(), &[]) {
        Found::ProtocolRefused { route, allowed } => {
            facts.note_route(route);
            upgrade_required(worker, facts, allowed, "no_upgrade")
        }
        Found::Route(_) | Found::NoRoute => no_route(worker, facts),
    }
}

/// 426: the route is there, and carries other protocols than the one asked for (rule U6).
pub fn upgrade_required(
    worker: &Worker,
    facts: &mut Facts,
    allowed: &[String],
    rule: &'static str,
) -> Leave {
    worker.counters.upgrade(UpgradeResult::Refused);
    facts.status = Some(426);
    let end = End::new(Side::Downstream, Stage::Request, Kind::Refused(rule));
    let answer = reject::upgrade_required(allowed, &facts.plan().config.gateway.name);
    Leave { end, parting: Parting::Say(answer) }
}

/// 404: nothing here has this host and path.
pub fn no_route(worker: &Worker, facts: &mut Facts) -> Leave {
    worker.counters.upgrade(UpgradeResult::Refused);
    Leave::telling(facts, End::new(Side::Proxy, Stage::Request, Kind::NoRoute))
}
