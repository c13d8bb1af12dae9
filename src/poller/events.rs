//! What polls changed, as log lines and counters.

use std::sync::Arc;

use tracing::{debug, error, info, warn};

use crate::board::AppliedPoll;
use crate::exposition::ApiMetrics;
use crate::toggle::{ApiName, Expect, Status, Text, Toggle, Transition, Watch};

/// One line with the fields that every event of a toggle has.
macro_rules! toggle_event {
    ($level:ident, $toggle:expr, $($rest:tt)+) => {{
        let watch = &$toggle.watch;
        $level!(
            toggle = watch.name.as_str(),
            api = watch.api.as_str(),
            agent_id = watch.agent_id.get(),
            progress_id = watch.progress_id.as_str(),
            $($rest)+
        );
    }};
}

/// Logs and counts what a poll changed. Links begin with the external URL, if there is one.
pub(super) fn report(applied: &AppliedPoll, metrics: &ApiMetrics, external_url: impl Fn() -> Option<Arc<str>>) {
    let what_to_do = |section| {
        let name = applied.toggle.watch.name.as_str();
        external_url().map(|url| format!("{url}/runbooks?toggle={name}#{section}"))
    };
    for transition in &applied.transitions {
        match transition {
            Transition::StatusChanged { from, to: Status::Failed } => {
                failed(&applied.toggle, *from, what_to_do("cekuratogglefailed").as_deref());
            }
            Transition::StatusChanged { from, to } => status_changed(&applied.toggle, *from, *to),
            Transition::Finished { status, duration, mismatch } => {
                metrics.count_run(*status, *duration, *mismatch);
                if *mismatch {
                    let section = match applied.toggle.watch.expect {
                        Some(Expect::Disabled) => "cekuratogglemocksnotoff",
                        _ => "cekuratogglemocksnoton",
                    };
                    mismatched(&applied.toggle, what_to_do(section).as_deref());
                }
            }
            Transition::UnrecognisedStatus { status, first } => {
                metrics.unknown_statuses.inc();
                unrecognised(&applied.toggle, status, *first);
            }
            Transition::PollFailed { changed } => poll_failed(&applied.toggle, *changed),
            Transition::Recovered { reason, lasted } => {
                let (reason, lasted_seconds) = (reason.as_str(), lasted.as_secs_f64());
                toggle_event!(info, applied.toggle, reason, lasted_seconds, "polls succeed again");
            }
        }
    }
}

/// Most watches of an API fail as they do when it is down.
pub(super) fn api_down(api: &ApiName) {
    warn!(api = api.as_str(), "api is down: one probe at a time");
}

/// An API that was down answers again.
pub(super) fn api_back(api: &ApiName, runs: usize) {
    info!(api = api.as_str(), runs, "api is back: polls resume");
}

/// Parts of an answer are not as documented, which was not said of this API yet.
pub(super) fn malformed(watch: &Watch, fields: &str) {
    let (toggle, api) = (watch.name.as_str(), watch.api.as_str());
    warn!(toggle, api, fields, "answer is malformed in part: the rest counts");
}

/// A poll's task ended by a panic, which is a fault of ours.
pub(super) fn poll_panicked(watch: &Watch) {
    error!(toggle = watch.name.as_str(), api = watch.api.as_str(), "a poll panicked and counts as aborted");
}

fn status_changed(toggle: &Toggle, from: Status, to: Status) {
    let (from, to) = (from.as_str(), to.as_str());
    let (toggle_message, toggle_error) = said(toggle);
    toggle_event!(info, toggle, from, to, toggle_message, toggle_error, "toggle changed state");
}

fn failed(toggle: &Toggle, from: Status, runbook_url: Option<&str>) {
    let (from, to) = (from.as_str(), Status::Failed.as_str());
    let (toggle_message, toggle_error) = said(toggle);
    toggle_event!(warn, toggle, from, to, toggle_message, toggle_error, runbook_url, "toggle changed state");
}

/// The message and the error of a task.
fn said(toggle: &Toggle) -> (&str, &str) {
    let shown = &toggle.run.last_answer;
    let [message, error] = [&shown.message, &shown.error].map(|text| text.as_ref().map_or("", Text::as_str));
    (message, error)
}

fn mismatched(toggle: &Toggle, runbook_url: Option<&str>) {
    let expect = toggle.watch.expect.map(Expect::as_str);
    let mock_enabled = toggle.run.last_answer.mock_enabled;
    toggle_event!(warn, toggle, expect, mock_enabled, runbook_url, "toggle completed in another state than expected");
}

fn unrecognised(toggle: &Toggle, status: &Text, first: bool) {
    let status = status.as_str();
    if first {
        toggle_event!(warn, toggle, status, "toggle has an unrecognised status");
    } else {
        toggle_event!(debug, toggle, status, "toggle has an unrecognised status");
    }
}

fn poll_failed(toggle: &Toggle, changed: bool) {
    let Some(failing) = &toggle.run.failing else { return };
    let reason = failing.reason.as_str();
    let detail = failing.detail.as_ref().map(Text::as_str);
    let failures = failing.polls;
    if changed {
        toggle_event!(warn, toggle, reason, detail, failures, "poll failed");
    } else {
        toggle_event!(debug, toggle, reason, detail, failures, "poll failed");
    }
}
