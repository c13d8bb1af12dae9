//! Agents as JSON.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::board::AgentRow;
use crate::toggle::{AgentDefinition, AgentId, AgentMock, ApiName, Expect, Labels, Timestamp, ToldBy};

/// Agents, sorted by API and id.
#[derive(Serialize)]
pub(crate) struct AgentList<'a> {
    agents: Vec<AgentJson<'a>>,
}

/// The known state of one agent's mocks. Unknown fields are null.
#[derive(Serialize)]
pub(crate) struct AgentJson<'a> {
    api: &'a str,
    agent_id: u64,
    /// The labels of the toggle whose run set the mock state, otherwise those of the configuration.
    labels: BTreeMap<&'a str, &'a str>,
    /// The state that the newest completed run reported.
    mock_enabled: Option<bool>,
    mock_enabled_since: Option<String>,
    /// What the configuration says.
    expect: Option<&'static str>,
    /// What the newest completed run told, otherwise what the configuration says.
    should_be: Option<&'static str>,
    /// The toggle whose run reported it. It may have been removed since.
    told_by: Option<&'a str>,
    told_at: Option<String>,
}

/// The agents that have a watch or a known state, or that are configured.
pub(crate) struct AgentDirectory<'a> {
    agents: BTreeMap<(&'a ApiName, AgentId), AgentFacts<'a>>,
}

/// The known state of an agent, and its configuration.
type AgentFacts<'a> = (Option<&'a AgentMock>, Option<&'a AgentDefinition>);

// === impl AgentDirectory ===

impl<'a> AgentDirectory<'a> {
    pub(crate) fn new(rows: &'a [AgentRow], configured: &'a [AgentDefinition]) -> Self {
        let mut agents: BTreeMap<_, _> = rows.iter().map(|row| ((&row.api, row.id), (Some(&row.mock), None))).collect();
        for agent in configured {
            agents.entry((&agent.api, agent.agent_id)).or_default().1 = Some(agent);
        }
        Self { agents }
    }

    pub(crate) fn list(&self) -> AgentList<'a> {
        AgentList { agents: self.agents.iter().map(|(key, facts)| AgentJson::of(*key, *facts)).collect() }
    }

    /// The agent with this API and id.
    pub(crate) fn get(&self, api: &str, id: &str) -> Option<AgentJson<'a>> {
        let mut agents = self.agents.iter();
        let (key, facts) = agents.find(|((name, agent), _)| name.as_str() == api && agent.to_string() == id)?;
        Some(AgentJson::of(*key, *facts))
    }
}

// === impl AgentJson ===

impl<'a> AgentJson<'a> {
    fn of((api, id): (&'a ApiName, AgentId), (mock, configured): AgentFacts<'a>) -> Self {
        let told_by = mock.and_then(|mock| mock.told_by.as_ref());
        let mock_enabled = mock.and_then(AgentMock::enabled);
        let expect = configured.and_then(|agent| agent.expect).map(Expect::as_str);
        let said = mock_enabled.map(|on| if on { Expect::Enabled } else { Expect::Disabled }.as_str());
        let labels = told_by.map(|teller| &teller.labels).or_else(|| configured.map(|agent| &agent.labels));
        let time = |time: Option<Timestamp>| time.map(|time| time.to_string());
        Self {
            api: api.as_str(),
            agent_id: id.get(),
            labels: labels.into_iter().flat_map(Labels::iter).map(|(name, value)| (name.as_str(), value)).collect(),
            mock_enabled,
            mock_enabled_since: time(mock.and_then(|mock| mock.enabled_since)),
            expect,
            should_be: said.or(expect),
            told_by: told_by.map(|ToldBy { toggle, .. }| toggle.as_str()),
            told_at: time(mock.and_then(AgentMock::told_at)),
        }
    }
}
