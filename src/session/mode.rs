//! Which mode a session is carried in: what its route says, unless a controller that the gateway trusts says
//! otherwise.

use crate::config::{Mode, Route};
use crate::http::fields;
use crate::http::head::Fields;
use crate::http::reject::Refusal;

/// The mode of a session, and who chose it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Chosen {
    /// How it is carried.
    pub mode: Mode,
    /// Whose word that is.
    pub by: ChosenBy,
}

/// Who chose the mode of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChosenBy {
    /// The route, or `--mode`.
    Configured,
    /// A trusted controller, for this session.
    Controller,
    /// The route: somebody who is no trusted controller wanted to choose.
    ControllerUntrusted,
}

impl ChosenBy {
    /// The word in the log.
    pub fn as_str(self) -> &'static str {
        match self {
            ChosenBy::Configured => "configured",
            ChosenBy::Controller => "controller",
            ChosenBy::ControllerUntrusted => "controller_untrusted",
        }
    }
}

/// The mode for a request with these fields; `trusted` is whether it comes from a controller.
///
/// # Errors
///
/// 400 when a controller says something that cannot be understood.
pub fn choose(route: &Route, fields: &Fields<'_>, trusted: bool) -> Result<Chosen, Refusal> {
    let configured = |by| Ok(Chosen { mode: route.mode, by });
    let chosen = |mode| Ok(Chosen { mode, by: ChosenBy::Controller });
    match fields::use_zero_copy(fields) {
        Ok(None) => configured(ChosenBy::Configured),
        _ if !trusted => configured(ChosenBy::ControllerUntrusted),
        Ok(Some(true)) => chosen(Mode::ZeroCopy),
        Ok(Some(false)) => chosen(Mode::Inspect),
        Err(refusal) => Err(refusal),
    }
}
