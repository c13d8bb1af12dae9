//! The overview: toggles by status and standing, and the health of each API with its toggles and agents.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::board::{AgentRow, ToggleRows};
use crate::cekura::Api;
use crate::config::Config;
use crate::exposition::ApiLoad;
use crate::toggle::{LiveMocks, Reason, Standing, Status, Timestamp};

/// The overview as JSON.
#[derive(Debug, Serialize)]
pub(crate) struct Overview {
    pub(crate) version: &'static str,
    pub(crate) revision: &'static str,
    pub(crate) started_at: String,
    /// How many toggles there are in each status.
    pub(crate) statuses: BTreeMap<&'static str, usize>,
    /// How many toggles have each standing.
    pub(crate) standings: BTreeMap<&'static str, usize>,
    pub(crate) apis: Vec<ApiHealth>,
}

/// The health of an API as JSON.
#[derive(Debug, Serialize)]
pub(crate) struct ApiHealth {
    pub(crate) name: String,
    pub(crate) requests_per_second: f64,
    pub(crate) max_in_flight: u32,
    pub(crate) in_flight: u32,
    pub(crate) waiting: u32,
    pub(crate) paused_until: Option<String>,
    /// Whether any of its polls gets a valid answer; null before the first one ended.
    pub(crate) up: Option<bool>,
    /// How many toggles were polled.
    pub(crate) polled: usize,
    /// How many of them failed their last poll, by reason.
    pub(crate) failing: BTreeMap<&'static str, usize>,
    pub(crate) agents: AgentHealth,
}

/// The agents of an API as JSON.
#[derive(Debug, Default, Serialize)]
pub(crate) struct AgentHealth {
    /// How many agents are asked.
    pub(crate) asked: usize,
    /// How many of them failed their last poll, by reason.
    pub(crate) failing: BTreeMap<&'static str, usize>,
}

// === impl Overview ===

impl Overview {
    /// Counts all toggles and agents.
    pub(crate) fn of(
        rows: &ToggleRows,
        agents: &[AgentRow],
        apis: Vec<ApiHealth>,
        started_at: Timestamp,
        now: Timestamp,
    ) -> Self {
        let [version, revision, _] = crate::BUILD;
        let mut overview = Self {
            version,
            revision,
            started_at: started_at.to_string(),
            statuses: Status::ALL.map(|status| (status.as_str(), 0)).into(),
            standings: Standing::ALL.map(|standing| (standing.as_str(), 0)).into(),
            apis,
        };
        for agent in agents {
            let api = overview.apis.iter_mut().find(|api| api.name == agent.api.as_str());
            if let Some((api, asked)) = api.zip(agent.asked.as_ref()) {
                api.agents.count(&asked.live);
            }
        }
        for row in rows.iter() {
            let (watch, run) = (&row.toggle.watch, &row.toggle.run);
            *overview.statuses.entry(run.last_answer.status.as_str()).or_default() += 1;
            *overview.standings.entry(Standing::of(&row.toggle, now).as_str()).or_default() += 1;
            let api = overview.apis.iter_mut().find(|api| api.name == watch.api.as_str());
            if let Some((api, up)) = api.zip(run.up()) {
                api.count_poll(up, run.failing.as_ref().map(|failing| failing.reason));
            }
        }
        overview
    }

    /// How many toggles there are in all.
    pub(crate) fn toggles(&self) -> usize {
        self.statuses.values().sum()
    }
}

// === impl ApiHealth ===

impl ApiHealth {
    /// The health of each API, without its polls: rows are counted later.
    pub(crate) fn of_all_apis(config: &Config, load: &[ApiLoad]) -> Vec<Self> {
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
            agents: AgentHealth::default(),
        }
    }

    fn count_poll(&mut self, up: bool, reason: Option<Reason>) {
        self.polled += 1;
        if let Some(reason) = reason.filter(|_| !up) {
            *self.failing.entry(reason.as_str()).or_default() += 1;
        }
    }

    /// The problem of an API whose polls get no valid answer, and the section of the runbooks for it.
    pub(crate) fn verdict(&self) -> Option<(&'static str, &'static str)> {
        let refused = [Reason::Unauthorized, Reason::Forbidden, Reason::Credentials].map(Reason::as_str);
        let count = |reason: &&str| {
            [&self.failing, &self.agents.failing].into_iter().filter_map(|f| f.get(reason)).sum::<usize>()
        };
        let refused: usize = refused.iter().map(count).sum();
        if self.up != Some(false) {
            None
        } else if 2 * refused > self.failures() + self.agents.failures() {
            Some(("the key is missing or refused", "cekuraapiunauthorized"))
        } else {
            Some(("nothing is answered", "cekuraapidown"))
        }
    }

    /// How many toggles failed their last poll.
    pub(crate) fn failures(&self) -> usize {
        self.failing.values().sum()
    }
}

// === impl AgentHealth ===

impl AgentHealth {
    fn count(&mut self, live: &LiveMocks) {
        self.asked += 1;
        if let Some(failing) = &live.failing {
            *self.failing.entry(failing.reason.as_str()).or_default() += 1;
        }
    }

    /// How many agents failed their last poll.
    pub(crate) fn failures(&self) -> usize {
        self.failing.values().sum()
    }
}
