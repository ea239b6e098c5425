//! `POST /v1/reload`, and what a reload comes to.

use std::fmt;
use std::sync::Arc;

use hyper::StatusCode;
use serde::Serialize;

use super::Subject;
use super::reply::{self, Answer, Problem};
use crate::config::Faults;

/// What a reload has changed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Reloaded {
    /// Of the plan that holds now.
    pub generation: u64,
    /// By name.
    pub routes: Difference,
    /// By address.
    pub listeners: Listeners,
    /// Keys whose new values only a restart can bring.
    pub needs_restart: Vec<&'static str>,
}

/// Which routes are others.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Difference {
    /// New names.
    pub added: Vec<String>,
    /// Names whose routes are not what they were.
    pub changed: Vec<String>,
    /// Names that are gone.
    pub removed: Vec<String>,
}

/// Which listeners are others.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Listeners {
    /// Where it listens that it did not before.
    pub opened: Vec<String>,
    /// Where it does not listen any more.
    pub closed: Vec<String>,
}

/// Why a reload changed nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NotReloaded {
    /// The configuration did not come from a file.
    NoFile,
    /// The gateway stops.
    Draining,
    /// What is wrong with the configuration, all of it.
    Faults(Faults),
    /// It asks for what cannot be had here.
    Unable(String),
}

/// What came of all reloads so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reloads {
    /// Those after which another plan held.
    pub succeeded: u64,
    /// Those that changed nothing.
    pub failed: u64,
    /// Whether the last one did.
    pub last_failed: bool,
    /// Plans that somebody goes by: the present one, and those of exchanges that began before.
    pub plans_alive: usize,
}

/// Reads the configuration again. That may block: names are looked up.
pub(super) async fn answer(gateway: &Arc<Subject>) -> Result<Answer, Problem> {
    let asked = Arc::clone(gateway);
    let reloading = tokio::task::spawn_blocking(move || asked.workers.reload());
    match reloading.await {
        Ok(Ok(reloaded)) => Ok(reply::json(StatusCode::OK, &reloaded)),
        Ok(Err(why)) => Err(why.into()),
        Err(error) => {
            let hint = "this is a defect; the log says more";
            Err(Problem::new(StatusCode::INTERNAL_SERVER_ERROR, error.to_string(), hint))
        }
    }
}

impl From<NotReloaded> for Problem {
    fn from(why: NotReloaded) -> Problem {
        let nothing = "nothing has changed: ";
        match why {
            NotReloaded::Faults(faults) => {
                let hint = "correct the file and ask again; nothing has changed";
                let problem =
                    Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "the file is wrong", hint);
                Problem { faults: faults.iter().map(ToString::to_string).collect(), ..problem }
            }
            NotReloaded::Unable(what) => {
                let hint = "nothing has changed";
                Problem::new(StatusCode::UNPROCESSABLE_ENTITY, what, hint)
            }
            NotReloaded::NoFile => {
                let hint = format!("{nothing}start it with --config to have a file to read again");
                Problem::new(StatusCode::CONFLICT, "there is no file", hint)
            }
            NotReloaded::Draining => {
                let hint = format!("{nothing}it ends with its last session");
                Problem::new(StatusCode::CONFLICT, "the gateway drains", hint)
            }
        }
    }
}

impl fmt::Display for Reloaded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Reloaded { generation, routes, listeners, .. } = self;
        write!(f, "generation {generation}")?;
        let lists = [
            ("added", &routes.added),
            ("changed", &routes.changed),
            ("removed", &routes.removed),
            ("listening on", &listeners.opened),
            ("no longer on", &listeners.closed),
        ];
        for (what, names) in lists.into_iter().filter(|(_, names)| !names.is_empty()) {
            write!(f, "; {what} {}", names.join(", "))?;
        }
        Ok(())
    }
}

impl fmt::Display for NotReloaded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            NotReloaded::NoFile => f.write_str("there is no file: it was started without --config"),
            NotReloaded::Draining => f.write_str("the gateway is about to end"),
            NotReloaded::Faults(faults) => faults.fmt(f),
            NotReloaded::Unable(why) => f.write_str(why),
        }
    }
}

impl std::error::Error for NotReloaded {}
