//! Agents as JSON.

use serde::Serialize;

use super::labels::LabelsJson;
use crate::board::{AgentRow, AskedAgent};
use crate::toggle::{Expect, LiveMocks, Provider, ShardOwners, Text, Timestamp, ToldBy, should_be};

/// Agents, sorted by API and id.
#[derive(Serialize)]
pub(crate) struct AgentListJson<'a> {
    agents: Vec<AgentJson<'a>>,
}

/// What is known of one agent. Unknown fields are null; most are null if the exporter does not ask for its mock status.
#[derive(Serialize)]
pub(crate) struct AgentJson<'a> {
    api: &'a str,
    agent_id: u64,
    source: Option<&'static str>,
    provider: Option<&'static str>,
    /// The labels of its definition; if it has none, those of the toggle that told its state.
    labels: LabelsJson<'a>,
    /// What the API said last. It stands beside what should be, because scripts without a parser look for both.
    mocks_live: Option<bool>,
    should_be: Option<&'static str>,
    mocks_drift: Option<bool>,
    mocks_live_since: Option<String>,
    /// What its definition says.
    expect: Option<&'static str>,
    /// What the newest completed run reported.
    mock_enabled: Option<bool>,
    mock_enabled_since: Option<String>,
    /// The toggle whose run reported it. It may have been removed since.
    told_by: Option<&'a str>,
    told_at: Option<String>,
    mcp_endpoints: Option<u32>,
    tool_endpoints: Option<u32>,
    up: Option<bool>,
    poll_error: Option<&'static str>,
    poll_error_detail: Option<&'a str>,
    last_success_at: Option<String>,
    next_poll_at: Option<String>,
    polls: Option<u64>,
    poll_failures: Option<u64>,
    /// Which replica asks for its mock status; only where there are replicas.
    #[serde(skip_serializing_if = "Option::is_none")]
    replica: Option<&'a str>,
}

// === impl AgentListJson ===

impl<'a> AgentListJson<'a> {
    pub(crate) fn of(rows: &'a [AgentRow], owners: Option<&'a ShardOwners>) -> Self {
        Self { agents: rows.iter().map(|row| AgentJson::of(row, owners)).collect() }
    }
}

// === impl AgentJson ===

impl<'a> AgentJson<'a> {
    pub(crate) fn of(row: &'a AgentRow, owners: Option<&'a ShardOwners>) -> Self {
        let AgentRow { api, id, told, asked } = row;
        let asked = asked.as_ref();
        let definition = asked.map(|asked| &*asked.definition);
        let live = asked.map(|asked| &asked.live);
        let of_live = |of: fn(&LiveMocks) -> Option<Timestamp>| live.and_then(of);
        let failing = live.and_then(|live| live.failing.as_deref());
        let expect = definition.and_then(|definition| definition.expect);
        let told_by = told.told_by.as_ref();
        let time = |time: Option<Timestamp>| time.map(|time| time.to_string());
        Self {
            api: api.as_str(),
            agent_id: id.get(),
            source: definition.map(|definition| definition.source.as_str()),
            provider: asked.and_then(AskedAgent::provider).map(Provider::as_str),
            labels: LabelsJson(row.labels()),
            mocks_live: live.and_then(|live| live.enabled),
            should_be: should_be(told, expect).map(Expect::as_str),
            mocks_drift: asked.and_then(|asked| asked.drift).map(|drift| drift.drifted),
            mocks_live_since: time(of_live(|live| live.enabled_since)),
            expect: expect.map(Expect::as_str),
            mock_enabled: told.enabled(),
            mock_enabled_since: time(told.enabled_since),
            told_by: told_by.map(|ToldBy { toggle, .. }| toggle.as_str()),
            told_at: time(told.told_at()),
            mcp_endpoints: live.and_then(|live| live.mcp_endpoints),
            tool_endpoints: live.and_then(|live| live.tool_endpoints),
            up: live.and_then(LiveMocks::up),
            poll_error: failing.map(|failing| failing.reason.as_str()),
            poll_error_detail: failing.and_then(|failing| failing.detail.as_ref()).map(Text::as_str),
            last_success_at: time(of_live(|live| live.last_success)),
            next_poll_at: time(asked.and_then(|asked| asked.next_poll)),
            polls: live.map(|live| live.polls),
            poll_failures: live.map(|live| live.failures),
            replica: owners.and_then(|owners| owners.of(api, *id)),
        }
    }
}
