//! Toggles as JSON.

use serde::Serialize;

use super::labels::LabelsJson;
use crate::board::{ToggleRow, ToggleRows};
use crate::http::selection::Selection;
use crate::toggle::{Expect, ShardOwners, Text, Timestamp};

/// Toggles, sorted by name.
#[derive(Serialize)]
pub(crate) struct ToggleList<'a> {
    toggles: Vec<ToggleJson<'a>>,
    /// Only if the query has a limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<NextPage<'a>>,
}

/// The name after which the next page begins; null if this is the last page.
#[derive(Serialize)]
struct NextPage<'a>(Option<&'a str>);

/// The definition and the state of one toggle. Unknown fields are null.
#[derive(Serialize)]
pub(crate) struct ToggleJson<'a> {
    name: &'a str,
    agent_id: u64,
    progress_id: &'a str,
    api: &'a str,
    source: &'static str,
    expect: Option<&'static str>,
    labels: LabelsJson<'a>,
    // The two stand together, because scripts without a parser look for both as one text.
    status: &'static str,
    mock_enabled: Option<bool>,
    mismatch: Option<bool>,
    raw_status: Option<&'a str>,
    problem: Option<&'static str>,
    mcp_endpoints: Option<u32>,
    mcp_tools: Option<u32>,
    message: Option<&'a str>,
    error: Option<&'a str>,
    up: Option<bool>,
    poll_error: Option<&'static str>,
    poll_error_detail: Option<&'a str>,
    started_at: String,
    finished_at: Option<String>,
    last_success_at: Option<String>,
    next_poll_at: Option<String>,
    polls: u64,
    poll_failures: u64,
    /// Which replica polls it; only where there are replicas.
    #[serde(skip_serializing_if = "Option::is_none")]
    replica: Option<&'a str>,
}

// === impl ToggleList ===

impl<'a> ToggleList<'a> {
    pub(crate) fn of(
        rows: &'a ToggleRows,
        owners: Option<&'a ShardOwners>,
        selection: &'a Selection,
        now: Timestamp,
    ) -> Self {
        let mut selected = selection.select(rows, now);
        let limit = selection.limit.unwrap_or(usize::MAX);
        let toggles: Vec<_> = selected.by_ref().take(limit).map(|row| ToggleJson::of(row, owners)).collect();
        let goes_on = selected.next().is_some();
        let next = selection.limit.map(|_| NextPage(toggles.last().map(|last| last.name).filter(|_| goes_on)));
        Self { toggles, next }
    }
}

// === impl ToggleJson ===

impl<'a> ToggleJson<'a> {
    pub(crate) fn of(row: &'a ToggleRow, owners: Option<&'a ShardOwners>) -> Self {
        let ToggleRow { toggle, next_poll, .. } = row;
        let (watch, run, shown) = (&toggle.watch, &toggle.run, &toggle.run.last_answer);
        let failing = run.failing.as_ref();
        let time = |time: Option<Timestamp>| time.map(|time| time.to_string());
        Self {
            name: watch.name.as_str(),
            agent_id: watch.agent_id.get(),
            progress_id: watch.progress_id.as_str(),
            api: watch.api.as_str(),
            source: watch.source.as_str(),
            expect: watch.expect.map(Expect::as_str),
            labels: LabelsJson(Some(&watch.labels)),
            status: shown.status.as_str(),
            mock_enabled: shown.mock_enabled,
            mismatch: toggle.mismatch(),
            raw_status: run.raw_status().map(Text::as_str),
            problem: toggle.tally.problem.map(|problem| problem.kind.as_str()),
            mcp_endpoints: shown.mcp_endpoints,
            mcp_tools: shown.mcp_tools,
            message: shown.message.as_ref().map(Text::as_str),
            error: shown.error.as_ref().map(Text::as_str),
            up: run.up(),
            poll_error: failing.map(|failing| failing.reason.as_str()),
            poll_error_detail: failing.and_then(|failing| failing.detail.as_ref()).map(Text::as_str),
            started_at: run.started.to_string(),
            finished_at: time(run.finished.map(|finish| finish.at)),
            last_success_at: time(run.last_success),
            next_poll_at: time(*next_poll),
            polls: toggle.tally.polls,
            poll_failures: toggle.tally.failures,
            replica: owners.and_then(|owners| owners.of(&watch.api, watch.agent_id)),
        }
    }
}
