//! How all is: toggles by status and standing, and the health of each API.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::board::Rows;
use crate::cekura::Api;
use crate::config::Config;
use crate::exposition::ApiLoad;
use crate::toggle::{Reason, Standing, Status, Timestamp};

/// How all is.
#[derive(Debug, Serialize)]
pub(super) struct Overview {
    pub(super) version: &'static str,
    pub(super) revision: &'static str,
    pub(super) started_at: String,
    /// How many toggles there are in each status.
    pub(super) statuses: BTreeMap<&'static str, usize>,
    /// How many toggles stand so.
    pub(super) standings: BTreeMap<&'static str, usize>,
    pub(super) apis: Vec<ApiHealth>,
}

/// How an API is.
#[derive(Debug, Serialize)]
pub(super) struct ApiHealth {
    pub(super) name: String,
    pub(super) requests_per_second: f64,
    pub(super) max_in_flight: u32,
    pub(super) in_flight: u32,
    pub(super) waiting: u32,
    pub(super) paused_until: Option<String>,
    /// Whether any of its polls is answered validly; null before the first one ended.
    pub(super) up: Option<bool>,
    /// Toggles that were polled.
    pub(super) polled: usize,
    /// Those of them whose last poll failed, by reason.
    pub(super) failing: BTreeMap<&'static str, usize>,
}

// === impl Overview ===

impl Overview {
    /// Goes through all rows.
    pub(super) fn of(rows: &Rows, apis: Vec<ApiHealth>, started: Timestamp, now: Timestamp) -> Self {
        let [version, revision, _] = crate::BUILD;
        let mut overview = Self {
            version,
            revision,
            started_at: started.to_string(),
            statuses: Status::ALL.map(|status| (status.as_str(), 0)).into(),
            standings: Standing::ALL.map(|standing| (standing.as_str(), 0)).into(),
            apis,
        };
        for row in rows.iter() {
            let (watch, run) = (&row.toggle.watch, &row.toggle.run);
            *overview.statuses.entry(run.shown.status.as_str()).or_default() += 1;
            *overview.standings.entry(Standing::of(&row.toggle, now).as_str()).or_default() += 1;
            let api = overview.apis.iter_mut().find(|api| api.name == watch.api.as_str());
            if let Some((api, up)) = api.zip(run.up()) {
                api.note(up, run.failing.as_ref().map(|failing| failing.reason));
            }
        }
        overview
    }

    /// How many toggles there are.
    pub(super) fn toggles(&self) -> usize {
        self.statuses.values().sum()
    }
}

// === impl ApiHealth ===

impl ApiHealth {
    /// Of each API, as long as no toggle was looked at.
    pub(super) fn of_all(config: &Config, load: &[ApiLoad]) -> Vec<Self> {
        config.apis.iter().map(|api| Self::of(api, load.iter().find(|load| load.name == api.name))).collect()
    }

    fn of(api: &Api, load: Option<&ApiLoad>) -> Self {
        Self {
            name: api.name.as_str().to_owned(),
            requests_per_second: api.requests_per_second.per_second(),
            max_in_flight: api.max_in_flight.get(),
            in_flight: load.map_or(0, |load| load.in_flight),
            waiting: load.map_or(0, |load| load.waiting),
            paused_until: load.and_then(|load| load.paused_until).map(|until| until.to_string()),
            up: load.and_then(|load| load.up),
            polled: 0,
            failing: BTreeMap::new(),
        }
    }

    fn note(&mut self, up: bool, reason: Option<Reason>) {
        self.polled += 1;
        if let Some(reason) = reason.filter(|_| !up) {
            *self.failing.entry(reason.as_str()).or_default() += 1;
        }
    }

    /// What is to be said while nothing is answered validly, and the section of the runbooks on it.
    pub(super) fn verdict(&self) -> Option<(&'static str, &'static str)> {
        let refused = [Reason::Unauthorized, Reason::Forbidden, Reason::Credentials].map(Reason::as_str);
        let refused: usize = refused.iter().filter_map(|reason| self.failing.get(reason)).sum();
        if self.up != Some(false) {
            None
        } else if 2 * refused > self.failures() {
            Some(("the key is missing or refused", "cekuraapiunauthorized"))
        } else {
            Some(("nothing is answered", "cekuraapidown"))
        }
    }

    /// How many of the toggles that were polled fail now.
    pub(super) fn failures(&self) -> usize {
        self.failing.values().sum()
    }
}
