//! One sample of a running gateway: a few requests, of which none depends on how many sessions there are.

use std::collections::HashSet;
use std::time::Instant;

use serde_json::Value;

use super::exposition::Exposition;
use super::plain;
use super::sample::{Drain, Route, Sample, Session};
use crate::admin::client::{Client, Failed, target};
use crate::config::Reach;

/// Sessions in one answer: as many as the API gives.
const PAGE: usize = 1000;
/// Pages that are asked for: a list is not felt by the gateway, but each page takes its time.
const PAGES: usize = 2;

/// Who asks, and for which sessions.
#[derive(Debug)]
pub struct Asker {
    client: Client,
    /// What chooses sessions.
    parameters: Vec<(&'static str, Option<String>)>,
    began: Instant,
}

impl Asker {
    /// Nothing is connected yet.
    ///
    /// # Errors
    ///
    /// No descriptors for a runtime.
    pub fn new(
        reach: Reach,
        parameters: Vec<(&'static str, Option<String>)>,
    ) -> std::io::Result<Asker> {
        Ok(Asker { client: Client::new(reach)?, parameters, began: Instant::now() })
    }

    /// What the gateway says now.
    ///
    /// # Errors
    ///
    /// See [`Failed`].
    pub fn sample(&self) -> Result<Sample, Failed> {
        let page = self.client.text("/metrics")?;
        let at = self.began.elapsed();
        let metrics = Exposition::parse(&page).map_err(|malformed| {
            Failed::Refused(format!("/metrics:{}: {}", malformed.line, malformed.what))
        })?;
        let health = self.client.health("/readyz")?;
        let routes = self.client.get("/v1/routes")?;
        let drains = self.client.get("/v1/drain")?;
        let (sessions, more) = self.sessions()?;
        let reasons = list(&health, "reasons").iter().filter_map(Value::as_str);
        Ok(Sample {
            at,
            listed_at: self.began.elapsed(),
            metrics,
            reasons: reasons.map(plain).collect(),
            sessions,
            more,
            routes: list(&routes, "routes").iter().map(Route::new).collect(),
            drains: list(&drains, "drains").iter().map(Drain::new).collect(),
        })
    }

    /// All that is known of one session.
    ///
    /// # Errors
    ///
    /// See [`Failed`].
    pub fn show(&self, id: &str) -> Result<Value, Failed> {
        self.client.get(&path(id))
    }

    /// Tells one session to end.
    ///
    /// # Errors
    ///
    /// See [`Failed`].
    pub fn kill(&self, id: &str) -> Result<Value, Failed> {
        self.client.delete(&path(id))
    }

    /// A session that moves meanwhile may be met twice, and is listed once.
    fn sessions(&self) -> Result<(Vec<Session>, bool), Failed> {
        let (mut found, mut known) = (Vec::new(), HashSet::new());
        let mut parameters = self.parameters.clone();
        parameters.push(("limit", Some(PAGE.to_string())));
        for _ in 0..PAGES {
            let answer = self.client.get(&target("/v1/sessions", &parameters))?;
            let sessions = list(&answer, "sessions").iter().map(Session::new);
            found.extend(sessions.filter(|session| known.insert(session.id.clone())));
            let Some(cursor) = answer["cursor"].as_str() else { return Ok((found, false)) };
            parameters.retain(|(name, _)| *name != "cursor");
            parameters.push(("cursor", Some(cursor.to_owned())));
        }
        Ok((found, true))
    }
}

fn list<'a>(answer: &'a Value, key: &str) -> &'a [Value] {
    answer[key].as_array().map(Vec::as_slice).unwrap_or_default()
}

fn path(id: &str) -> String {
    // Whatever else it is, it is one segment.
    let id: String = form_urlencoded::byte_serialize(id.as_bytes()).collect();
    format!("/v1/sessions/{id}")
}
