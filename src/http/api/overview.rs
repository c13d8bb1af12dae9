//! The overview: toggles by status and standing, and the health of each API with its toggles and agents.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::board::{AgentRow, ToggleRows};
use crate::cekura::Api;
use crate::config::Config;
use crate::exposition::ApiLoad;
use crate::intake::{DiscoveryReport, SourceReport};
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
    /// How many of the toggles that were polled are unfinished.
    #[serde(skip)]
    pub(crate) unfinished: usize,
    /// How its agents were listed last, if the exporter does that.
    #[serde(skip)]
    pub(crate) listed: Option<Result<(), Reason>>,
}

/// What is wrong with an API as a whole. Each has an alert.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum ApiProblem {
    /// Most polls are refused, and none is answered validly.
    Refused,
    /// Most polls are rate limited, and none is answered validly.
    Throttled,
    /// No poll is answered validly, for other reasons.
    Unanswered,
    /// All unfinished toggles get 404, and agents are answered.
    NoToggleEndpoint,
    /// All agents get 404, and something else is answered.
    NoMockStatusEndpoint,
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
                api.unfinished += usize::from(run.finished.is_none());
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
    pub(crate) fn of_all_apis(config: &Config, load: &[ApiLoad], sources: &SourceReport) -> Vec<Self> {
        let of = |api: &Api| Self {
            listed: sources.discoveries.get(&api.name).map(DiscoveryReport::outcome),
            ..Self::of(api, load.iter().find(|load| load.name == api.name))
        };
        config.apis.iter().map(of).collect()
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
            unfinished: 0,
            listed: None,
        }
    }

    fn count_poll(&mut self, up: bool, reason: Option<Reason>) {
        self.polled += 1;
        if let Some(reason) = reason.filter(|_| !up) {
            *self.failing.entry(reason.as_str()).or_default() += 1;
        }
    }

    /// What is wrong with the API as a whole, once all polls are counted.
    pub(crate) fn problem(&self) -> Option<ApiProblem> {
        if self.up == Some(false) {
            return Some(self.outage());
        }
        let not_found = |failing: &BTreeMap<_, usize>| failing.get(Reason::NotFound.as_str()).copied().unwrap_or(0);
        let (toggles, agents) = (not_found(&self.failing), not_found(&self.agents.failing));
        if toggles > 0 && toggles == self.unfinished && self.agents.asked > self.agents.failures() {
            return Some(ApiProblem::NoToggleEndpoint);
        }
        let is_answered =
            self.listed == Some(Ok(())) || self.unfinished > self.failures() || (toggles == 0 && self.polled > 0);
        (agents > 0 && agents == self.agents.asked && is_answered).then_some(ApiProblem::NoMockStatusEndpoint)
    }

    /// Why no poll is answered validly.
    fn outage(&self) -> ApiProblem {
        let count = |reasons: &[Reason]| {
            let of = |reason: &Reason| {
                [&self.failing, &self.agents.failing].into_iter().filter_map(|f| f.get(reason.as_str())).sum::<usize>()
            };
            // If nothing else is asked for, the list of the agents tells.
            let of_list = match self.listed {
                Some(Err(reason)) if self.polled + self.agents.asked == 0 => usize::from(reasons.contains(&reason)),
                _ => 0,
            };
            reasons.iter().map(of).sum::<usize>() + of_list
        };
        let all = (self.failures() + self.agents.failures()).max(1);
        if 2 * count(&[Reason::Unauthorized, Reason::Forbidden, Reason::Credentials]) > all {
            ApiProblem::Refused
        } else if 2 * count(&[Reason::RateLimited]) > all {
            ApiProblem::Throttled
        } else {
            ApiProblem::Unanswered
        }
    }

    /// How many toggles failed their last poll.
    pub(crate) fn failures(&self) -> usize {
        self.failing.values().sum()
    }
}

// === impl ApiProblem ===

impl ApiProblem {
    /// Whether nothing is known of what happens to the toggles and agents of the API.
    pub(crate) fn is_outage(self) -> bool {
        matches!(self, Self::Refused | Self::Throttled | Self::Unanswered)
    }

    /// What it means, as a sentence.
    pub(crate) fn sentence(self) -> &'static str {
        match self {
            Self::Refused => "This API is down: the key is missing or refused.",
            Self::Throttled => "This API is down: requests are rate limited.",
            Self::Unanswered => "This API is down: nothing is answered.",
            Self::NoToggleEndpoint => {
                "This API has no toggle endpoint: all its toggles get 404, and its agents are answered."
            }
            Self::NoMockStatusEndpoint => "This API does not tell the mock status: all its agents get 404.",
        }
    }

    /// The section of the runbooks.
    pub(crate) fn section(self) -> &'static str {
        match self {
            Self::Refused => "cekuraapiunauthorized",
            Self::Throttled => "cekuraapithrottled",
            Self::Unanswered => "cekuraapidown",
            Self::NoToggleEndpoint => "cekuraapinotoggleendpoint",
            Self::NoMockStatusEndpoint => "cekuraapinomockstatusendpoint",
        }
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

#[cfg(test)]
mod tests {
    use super::*;

    fn api(up: bool, toggles: (usize, &[(Reason, usize)]), agents: (usize, &[(Reason, usize)])) -> ApiHealth {
        let failing = |of: &[(Reason, usize)]| of.iter().map(|(reason, count)| (reason.as_str(), *count)).collect();
        ApiHealth {
            name: "default".into(),
            requests_per_second: 10.0,
            max_in_flight: 1,
            in_flight: 0,
            waiting: 0,
            paused_until: None,
            up: Some(up),
            polled: toggles.0,
            failing: failing(toggles.1),
            agents: AgentHealth { asked: agents.0, failing: failing(agents.1) },
            unfinished: toggles.0,
            listed: None,
        }
    }

    #[test]
    fn an_outage_has_the_cause_of_most_failures() {
        use Reason::{Forbidden, RateLimited, Timeout, Unauthorized};
        for (toggles, agents, problem) in [
            (&[(Timeout, 2), (Unauthorized, 1)][..], &[][..], ApiProblem::Unanswered),
            (&[(Timeout, 2), (Unauthorized, 1)], &[(Forbidden, 2)], ApiProblem::Refused),
            (&[(RateLimited, 1)], &[], ApiProblem::Throttled),
            (&[(RateLimited, 1)], &[(Timeout, 1)], ApiProblem::Unanswered),
        ] {
            assert_eq!(api(false, (9, toggles), (9, agents)).problem(), Some(problem), "{toggles:?} {agents:?}");
            assert_eq!(api(true, (9, toggles), (9, agents)).problem(), None);
        }
    }

    #[test]
    fn if_only_the_list_is_asked_for_it_has_the_cause() {
        let only = |listed| ApiHealth { listed: Some(listed), ..api(false, (0, &[]), (0, &[])) };
        assert_eq!(only(Err(Reason::Forbidden)).problem(), Some(ApiProblem::Refused));
        assert_eq!(only(Err(Reason::Timeout)).problem(), Some(ApiProblem::Unanswered));
        let polled = ApiHealth { polled: 1, failing: [("timeout", 1)].into(), ..only(Err(Reason::Forbidden)) };
        assert_eq!(polled.problem(), Some(ApiProblem::Unanswered));
    }

    #[test]
    fn an_endpoint_is_missing_if_all_of_its_polls_get_404_and_others_are_answered() {
        let not_found = |count| [(Reason::NotFound, count)];
        let problem = |toggles: (usize, usize), agents: (usize, usize)| {
            let of =
                |(all, missing): (usize, usize)| (all, if missing == 0 { vec![] } else { not_found(missing).to_vec() });
            let (toggles, agents) = (of(toggles), of(agents));
            api(true, (toggles.0, &toggles.1), (agents.0, &agents.1)).problem()
        };
        assert_eq!(problem((4, 4), (1, 0)), Some(ApiProblem::NoToggleEndpoint));
        assert_eq!(problem((4, 3), (1, 0)), None);
        assert_eq!(problem((4, 4), (0, 0)), None, "nothing is answered");
        assert_eq!(problem((1, 0), (3, 3)), Some(ApiProblem::NoMockStatusEndpoint));
        assert_eq!(problem((1, 0), (3, 2)), None);
        assert_eq!(problem((0, 0), (3, 3)), None, "nothing is answered");
    }
}
