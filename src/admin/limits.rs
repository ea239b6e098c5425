//! What `/metrics` says of the limits at the door: what there is, what there may be, and who was refused.

use std::fmt;

use super::family::{Families, Labels};
use crate::error::{Kind, Limit};
use crate::metrics::RouteSnapshot;
use crate::session::plan::Plan;

/// Writes them. No client is named: there is no bound to clients.
pub(super) fn encode(
    page: &mut Families<'_>,
    plan: &Plan,
    routes: &[(String, RouteSnapshot)],
) -> fmt::Result {
    let (limiter, limits) = (&plan.limiter, &plan.config.gateway.admission);
    let of_all = |limit: &'static str| -> Labels<'static> { vec![("limit", limit)] };
    let named = || plan.live_routes().map(|(_, route)| route);
    let of_route = |name| -> Labels<'_> { vec![("limit", "route_sessions"), ("route", name)] };
    let used = named().map(|route| (of_route(&route.name), limiter.sessions_of(&route.name)));
    let used =
        [(of_all("sessions"), limiter.sessions()), (of_all("exchanges"), limiter.exchanges())]
            .into_iter()
            .chain(used)
            .map(|(labels, count)| (labels, u64::from(count)));
    page.gauges("upsplice_limit_used", "What a limit counts, whether or not it is set.", used)?;
    let max = named().map(|route| (of_route(&route.name), route.admission.sessions_max));
    let max = [
        (of_all("sessions"), limits.all.sessions_max),
        (of_all("exchanges"), limits.exchanges_max),
    ]
    .into_iter()
    .chain(max)
    .filter_map(|(labels, max)| Some((labels, u64::from(max?))));
    page.gauges("upsplice_limit_max", "How many of them there may be, where it is set.", max)?;
    let refused = Limit::ALL.map(|limit| {
        let kind = Kind::Limited { limit, retry_after: 0 };
        let count = routes.iter().map(|(_, route)| route.failed[kind.index()]).sum::<u64>();
        (of_all(kind.as_str().trim_start_matches("limit_")), count)
    });
    page.counters("upsplice_limit_refusals", "Requests that a limit refused.", refused)?;
    let help = "Clients that are counted apart at the moment.";
    page.gauge("upsplice_limit_clients", help, limiter.clients() as u64)?;
    let help = "Times that accepting paused since the descriptors that were left are reserved.";
    page.counter("upsplice_accept_pauses", help, limiter.descriptors.pauses())
}
