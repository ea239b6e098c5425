//! The query of a request, and what it says about sessions.

use std::time::Duration;

use hyper::StatusCode;
use ulid::Ulid;

use super::Subject;
use super::reply::Problem;
use crate::config::{Engine as Wanted, value};
use crate::metrics::Engine;
use crate::session::question::Filter;

/// The names of what chooses sessions.
pub(super) const FILTERS: [&str; 7] =
    ["route", "endpoint", "client", "mode", "engine", "min_age", "min_bytes"];

/// The decoded parameters of a request, each there once.
pub(super) struct Query(Vec<(String, String)>);

impl Query {
    /// # Errors
    ///
    /// A parameter that is not `allowed`, or is there twice.
    pub fn new(text: Option<&str>, allowed: &[&str]) -> Result<Query, Problem> {
        Query::with_lists(text, allowed, &[])
    }

    /// The same; what is in `lists` may be repeated.
    pub fn with_lists(
        text: Option<&str>,
        allowed: &[&str],
        lists: &[&str],
    ) -> Result<Query, Problem> {
        let mut found: Vec<(String, String)> = Vec::new();
        for (name, value) in form_urlencoded::parse(text.unwrap_or_default().as_bytes()) {
            let is_list = lists.contains(&&*name);
            if !is_list && !allowed.contains(&&*name) {
                let all = [allowed, lists].concat();
                let known = if all.is_empty() { "none".to_owned() } else { all.join(", ") };
                return Err(Problem::wrong(
                    format!("unknown parameter {name:?}"),
                    format!("allowed here: {known}"),
                ));
            }
            if !is_list && found.iter().any(|(other, _)| *other == *name) {
                return Err(Problem::wrong(format!("{name} is there twice"), "keep one"));
            }
            found.push((name.into_owned(), value.into_owned()));
        }
        Ok(Query(found))
    }

    /// The value of a parameter.
    pub fn text(&self, name: &str) -> Option<&str> {
        self.all(name).next()
    }

    /// All values of a parameter that may be repeated.
    pub fn all(&self, name: &str) -> impl Iterator<Item = &str> {
        self.0.iter().filter(move |(other, _)| other == name).map(|(_, value)| value.as_str())
    }

    /// The value through `read`, whose error completes "NAME: …".
    pub fn read<T>(
        &self,
        name: &str,
        read: impl FnOnce(&str) -> Result<T, String>,
    ) -> Result<Option<T>, Problem> {
        let value = self.text(name).map(read).transpose();
        value.map_err(|problem| {
            Problem::wrong(format!("{name} is wrong"), format!("{name}: {problem}"))
        })
    }

    /// Whether a parameter that chooses sessions is there.
    pub fn chooses(&self) -> bool {
        FILTERS.iter().any(|name| self.text(name).is_some())
    }

    /// The slots of the route that is named, if one is.
    pub fn slots(&self, gateway: &Subject) -> Result<Option<Vec<usize>>, Problem> {
        let Some(name) = self.text("route") else { return Ok(None) };
        let plan = gateway.plan();
        let slots = plan.slots_of(name);
        if slots.is_empty() {
            let hint = format!("there are: {}", plan.names().join(", "));
            return Err(Problem::new(StatusCode::NOT_FOUND, format!("no route {name:?}"), hint));
        }
        Ok(Some(slots))
    }

    /// Which sessions are chosen.
    pub fn filter(&self, gateway: &Subject) -> Result<Filter, Problem> {
        Ok(Filter {
            id: None,
            routes: self.slots(gateway)?,
            endpoint: self.text("endpoint").map(str::to_owned),
            client: self.read("client", value::network)?,
            mode: self.read("mode", value::mode)?,
            engine: self.read("engine", engine)?,
            age_min: self.read("min_age", value::duration)?.unwrap_or(Duration::ZERO),
            bytes_min: self.read("min_bytes", value::bytes)?.unwrap_or(0),
        })
    }
}

/// The id of a session in a path.
pub(super) fn id(text: &str) -> Result<Ulid, Problem> {
    Ulid::from_string(text).map_err(|_| {
        Problem::wrong("not the id of a session", "an id has 26 characters, as in the log")
    })
}

fn engine(text: &str) -> Result<Engine, String> {
    match value::engine(text) {
        Ok(Wanted::Splice) => Ok(Engine::Splice),
        Ok(Wanted::Copy) => Ok(Engine::Copy),
        Ok(Wanted::Uring) => Ok(Engine::Uring),
        _ => Err(format!("must be \"splice\", \"copy\" or \"uring\", not {text:?}")),
    }
}
