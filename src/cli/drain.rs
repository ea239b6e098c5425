//! The verb that lets sessions leave a running gateway.

use clap::Args;

use super::Reaching;

/// `upsplice drain`
#[derive(Args, Clone, Debug)]
#[command(
    after_help = "Without --route and --endpoint the whole gateway drains: it closes its listeners, answers 503 to \
    new upgrades, tells its sessions to leave, and the process ends with the last of them."
)]
pub struct DrainVerb {
    /// Only this route: the others go on, and so does the process.
    #[arg(long, value_name = "NAME")]
    pub route: Option<String>,
    /// Only this endpoint, as in the configuration or by its address; of all routes, or of the one named.
    #[arg(long, value_name = "ADDR")]
    pub endpoint: Option<String>,
    /// Tell the sessions to leave spread over this time [default: the gateway's drain].
    #[arg(long, value_name = "TIME", conflicts_with = "undo")]
    pub over: Option<String>,
    /// End what is left after this time [default: what that and the rate need, and 5s].
    #[arg(long, value_name = "TIME", conflicts_with = "undo")]
    pub deadline: Option<String>,
    /// Tell at most so many per second, or off [default: the gateway's `drain_rate`].
    #[arg(long, value_name = "N/s", conflicts_with = "undo")]
    pub rate: Option<String>,
    /// Code of the Close to inspected sessions [default: 1001, of a route or endpoint 1012].
    #[arg(long, value_name = "CODE", conflicts_with = "undo")]
    pub code: Option<u16>,
    /// Whether the process ends when the whole gateway has drained [default: true].
    #[arg(long, value_name = "BOOL", conflicts_with_all = ["undo", "route", "endpoint"])]
    pub stop: Option<bool>,
    /// Show how many sessions are left until none is.
    #[arg(long, conflicts_with = "undo")]
    pub wait: bool,
    /// Let what drains take sessions again.
    #[arg(long)]
    pub undo: bool,
    /// Where to ask.
    #[command(flatten)]
    pub reaching: Reaching,
}

impl DrainVerb {
    /// What drains, as parameters of a request.
    pub fn what(&self) -> Vec<(&'static str, Option<String>)> {
        vec![("route", self.route.clone()), ("endpoint", self.endpoint.clone())]
    }

    /// That and how, as parameters of a request.
    pub fn parameters(&self) -> Vec<(&'static str, Option<String>)> {
        let mut parameters = self.what();
        parameters.extend([
            ("over", self.over.clone()),
            ("deadline", self.deadline.clone()),
            ("rate", self.rate.clone()),
            ("code", self.code.map(|code| code.to_string())),
            ("stop", self.stop.map(|stop| stop.to_string())),
        ]);
        parameters
    }
}
