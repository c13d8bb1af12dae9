//! Log lines and counters of what polls changed.

use std::sync::Arc;
use std::time::Duration;

use tracing::{Span, debug, error, error_span, info, warn};

use crate::board::{AppliedAgentPoll, AppliedPoll};
use crate::cekura::{RequestPhase, TracedPoll};
use crate::exposition::ApiMetrics;
use crate::toggle::{
    AgentId, AgentTransition, ApiName, Expect, FailureStreak, Reason, Status, Text, Toggle, Transition, Watch,
};

/// The span of the log lines about a poll, which gives them the fields that say whose poll it is.
///
/// It is made when there is something to log, because most polls change nothing. Its level is the highest one:
/// at a lower level, a log filter could drop the span and keep a line in it, which would lack its fields.
fn poll_span(watch: &Watch) -> Span {
    error_span!(
        "poll",
        toggle = watch.name.as_str(),
        api = watch.api.as_str(),
        agent_id = watch.agent_id.get(),
        progress_id = watch.progress_id.as_str(),
    )
}

/// The span of the log lines about a poll of an agent.
fn agent_span(api: &ApiName, agent: AgentId) -> Span {
    error_span!("poll", api = api.as_str(), agent_id = agent.get())
}

/// A poll that a person asked for has ended.
pub(super) fn debug_poll_ended(watch: &Watch, polled: &TracedPoll) {
    let _span = poll_span(watch).entered();
    let failure = polled.outcome.as_ref().err();
    let reason = failure.map(|failure| failure.reason.as_str());
    let detail = failure.and_then(|failure| failure.detail.as_ref()).map(Text::as_str);
    let phase = polled.phases.failed_in.map(RequestPhase::as_str);
    info!(reason, phase, detail, seconds = polled.took.map(|took| took.as_secs_f64()), "debug poll ended");
}

/// Logs and counts what a poll changed; runs that finished only if `counts_runs`. Links to runbooks begin with the
/// external URL, if there is one.
pub(super) fn report(
    applied: &AppliedPoll,
    metrics: &ApiMetrics,
    counts_runs: bool,
    external_url: impl Fn() -> Option<Arc<str>>,
) {
    if applied.transitions.is_empty() {
        return;
    }
    // Counters come first, because the board shows the new status already.
    for transition in &applied.transitions {
        match transition {
            Transition::Finished { status, duration, mismatch } if counts_runs => {
                metrics.count_run(*status, *duration, *mismatch);
            }
            Transition::UnrecognisedStatus { .. } => metrics.unknown_statuses.inc(),
            _ => {}
        }
    }
    let toggle = &applied.toggle;
    let _span = poll_span(&toggle.watch).entered();
    let runbook = |section| {
        let name = toggle.watch.name.as_str();
        external_url().map(|url| format!("{url}/runbooks?toggle={name}#{section}"))
    };
    for transition in &applied.transitions {
        match transition {
            Transition::StatusChanged { from, to: Status::Failed } => {
                failed(toggle, *from, runbook("cekuratogglefailed").as_deref());
            }
            Transition::StatusChanged { from, to } => status_changed(toggle, *from, *to),
            Transition::Finished { mismatch, .. } => {
                if *mismatch {
                    let section = match toggle.watch.expect {
                        Some(Expect::Disabled) => "cekuratogglemocksnotoff",
                        _ => "cekuratogglemocksnoton",
                    };
                    mismatched(toggle, runbook(section).as_deref());
                }
            }
            Transition::UnrecognisedStatus { status, first } => unrecognised(status, *first),
            Transition::PollFailed { changed } => {
                if let Some(failing) = &toggle.run.failing {
                    poll_failed(failing, *changed);
                }
            }
            Transition::Recovered { reason, lasted } => recovered(*reason, *lasted),
        }
    }
}

/// An outage of an API began.
pub(super) fn api_down(api: &ApiName) {
    warn!(api = api.as_str(), "api is down: one probe at a time");
}

/// An outage of an API ended; with the number of runs and agents that were down.
pub(super) fn api_back(api: &ApiName, down: usize) {
    info!(api = api.as_str(), down, "api is back: polls resume");
}

/// An answer has malformed fields that no earlier answer of this API had.
pub(super) fn malformed(watch: &Watch, fields: &str) {
    let _span = poll_span(watch).entered();
    warn!(fields, "answer is malformed in part: its other fields are used");
}

/// The mock status of an agent has malformed fields that no earlier answer of this API had.
pub(super) fn agent_malformed(api: &ApiName, agent: AgentId, fields: &str) {
    let _span = agent_span(api, agent).entered();
    warn!(fields, "answer is malformed in part: its other fields are used");
}

/// A page of the list of agents has malformed fields that no earlier answer of this API had.
pub(super) fn listing_malformed(api: &ApiName, fields: &str) {
    warn!(api = api.as_str(), fields, "list of agents is malformed in part: the rest of it is used");
}

/// A request panicked, which is a bug.
pub(super) fn request_panicked(api: &ApiName) {
    error!(api = api.as_str(), "a request panicked and counts as aborted");
}

/// Logs what a poll of an agent changed.
pub(super) fn report_agent(applied: &AppliedAgentPoll) {
    let AppliedAgentPoll { definition, live, transitions } = applied;
    let _span = agent_span(&definition.api, definition.agent_id).entered();
    for transition in transitions {
        match transition {
            AgentTransition::Switched { from, to } => {
                let state = |enabled: bool| if enabled { "on" } else { "off" };
                let (is_normal, from, to) = (from.is_none() && !to, from.map_or("unknown", state), state(*to));
                // After a start, very many agents are found to be off.
                if is_normal {
                    debug!(from, to, "mocks of agent changed state");
                } else {
                    info!(from, to, "mocks of agent changed state");
                }
            }
            AgentTransition::PollFailed { changed } => {
                if let Some(failing) = &live.failing {
                    poll_failed(failing, *changed);
                }
            }
            AgentTransition::Recovered { reason, lasted } => recovered(*reason, *lasted),
        }
    }
}

fn recovered(reason: Reason, lasted: Duration) {
    let (reason, lasted_seconds) = (reason.as_str(), lasted.as_secs_f64());
    info!(reason, lasted_seconds, "polls succeed again");
}

fn status_changed(toggle: &Toggle, from: Status, to: Status) {
    let (from, to) = (from.as_str(), to.as_str());
    let [toggle_message, toggle_error] = texts(toggle);
    info!(from, to, toggle_message, toggle_error, "toggle changed state");
}

fn failed(toggle: &Toggle, from: Status, runbook_url: Option<&str>) {
    let (from, to) = (from.as_str(), Status::Failed.as_str());
    let [toggle_message, toggle_error] = texts(toggle);
    warn!(from, to, toggle_message, toggle_error, runbook_url, "toggle changed state");
}

/// The message and the error of the task; empty where there is none.
fn texts(toggle: &Toggle) -> [&str; 2] {
    let answer = &toggle.run.last_answer;
    [&answer.message, &answer.error].map(|text| text.as_ref().map_or("", Text::as_str))
}

fn mismatched(toggle: &Toggle, runbook_url: Option<&str>) {
    let expect = toggle.watch.expect.map(Expect::as_str);
    let mock_enabled = toggle.run.last_answer.mock_enabled;
    warn!(expect, mock_enabled, runbook_url, "toggle completed in another state than expected");
}

fn unrecognised(status: &Text, first: bool) {
    let status = status.as_str();
    if first {
        warn!(status, "toggle has an unrecognised status");
    } else {
        debug!(status, "toggle has an unrecognised status");
    }
}

fn poll_failed(failing: &FailureStreak, changed: bool) {
    let (reason, failures) = (failing.reason.as_str(), failing.polls);
    let detail = failing.detail.as_ref().map(Text::as_str);
    if changed {
        warn!(reason, detail, failures, "poll failed");
    } else {
        debug!(reason, detail, failures, "poll failed");
    }
}
