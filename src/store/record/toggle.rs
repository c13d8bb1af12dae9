//! The record of a toggle: its run, what it has counted, its events, and the runs that it displaced.

use std::borrow::Cow;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{agent_id, is_default, json, parse, text, timestamp, timestamp_millis};
use crate::store::SavedToggle;
use crate::toggle::{
    ApiName, Event, EventKind, Expect, FailureStreak, Finish, LastAnswer, ProblemKind, ProgressId, RawStatuses, Reason,
    Run, Status, Tally, Text, Timestamp, ToggleProblem,
};

#[derive(Serialize, Deserialize)]
struct ToggleRecord<'r> {
    #[serde(borrow)]
    api: Cow<'r, str>,
    agent_id: u64,
    #[serde(borrow)]
    progress_id: Cow<'r, str>,
    #[serde(default, skip_serializing_if = "is_default")]
    place: u64,
    #[serde(borrow)]
    run: RunRecord<'r>,
    #[serde(default, skip_serializing_if = "is_default")]
    tally: TallyRecord,
    /// The number of the process that saved it.
    #[serde(default, skip_serializing_if = "is_default")]
    session: u64,
    /// The recent events of the watch, the newest first.
    #[serde(borrow, default, skip_serializing_if = "Vec::is_empty")]
    events: Vec<EventRecord<'r>>,
    /// The runs that a watch of another source displaced, the newest first. They have no displaced runs.
    #[serde(borrow, default, skip_serializing_if = "Vec::is_empty")]
    displaced: Vec<ToggleRecord<'r>>,
}

#[derive(Serialize, Deserialize)]
struct RunRecord<'r> {
    started: u64,
    #[serde(borrow)]
    status: Cow<'r, str>,
    #[serde(default, skip_serializing_if = "is_default")]
    mock_enabled: Option<bool>,
    #[serde(default, skip_serializing_if = "is_default")]
    mcp_endpoints: Option<u32>,
    #[serde(default, skip_serializing_if = "is_default")]
    mcp_tools: Option<u32>,
    #[serde(default, skip_serializing_if = "is_default")]
    message: Option<Cow<'r, str>>,
    #[serde(default, skip_serializing_if = "is_default")]
    error: Option<Cow<'r, str>>,
    #[serde(default, skip_serializing_if = "is_default")]
    finished: Option<u64>,
    #[serde(default, skip_serializing_if = "is_default")]
    finished_at_first_answer: bool,
    #[serde(default, skip_serializing_if = "is_default")]
    last_success: Option<u64>,
    #[serde(default, skip_serializing_if = "is_default")]
    failing: Option<FailingRecord<'r>>,
    #[serde(default, skip_serializing_if = "is_default")]
    unrecognised: Vec<Cow<'r, str>>,
    #[serde(default, skip_serializing_if = "is_default")]
    raw_status: Option<Cow<'r, str>>,
}

#[derive(Serialize, Deserialize)]
struct EventRecord<'r> {
    at: u64,
    #[serde(borrow, flatten)]
    kind: EventKindRecord<'r>,
}

/// What happened. Some variants have another word in the file, which is part of the format and must not change.
#[derive(Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
enum EventKindRecord<'r> {
    #[serde(rename = "began")]
    RunStarted {
        #[serde(borrow)]
        progress_id: Cow<'r, str>,
    },
    #[serde(rename = "status")]
    StatusChanged {
        #[serde(borrow)]
        from: Cow<'r, str>,
        #[serde(borrow)]
        to: Cow<'r, str>,
        #[serde(default, skip_serializing_if = "is_default")]
        millis: Option<u64>,
        #[serde(default, skip_serializing_if = "is_default")]
        mismatch: bool,
        #[serde(default, skip_serializing_if = "is_default")]
        text: Option<Cow<'r, str>>,
    },
    #[serde(rename = "unrecognised")]
    UnrecognisedStatus {
        #[serde(borrow)]
        status: Cow<'r, str>,
    },
    PollFailed {
        #[serde(borrow)]
        reason: Cow<'r, str>,
        #[serde(default, skip_serializing_if = "is_default")]
        detail: Option<Cow<'r, str>>,
    },
    Recovered {
        #[serde(borrow)]
        reason: Cow<'r, str>,
        millis: u64,
    },
    /// An event that only a later version knows.
    #[serde(other)]
    Other,
}

#[derive(PartialEq, Serialize, Deserialize)]
pub(super) struct FailingRecord<'r> {
    #[serde(borrow)]
    reason: Cow<'r, str>,
    #[serde(default, skip_serializing_if = "is_default")]
    detail: Option<Cow<'r, str>>,
    since: u64,
    polls: u32,
}

#[derive(Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
struct TallyRecord {
    #[serde(skip_serializing_if = "is_default")]
    polls: u64,
    #[serde(skip_serializing_if = "is_default")]
    failures: u64,
    #[serde(skip_serializing_if = "is_default")]
    completed: u64,
    #[serde(skip_serializing_if = "is_default")]
    failed: u64,
    #[serde(skip_serializing_if = "is_default")]
    last_completed: Option<u64>,
    #[serde(skip_serializing_if = "is_default")]
    last_failed: Option<u64>,
    #[serde(skip_serializing_if = "is_default")]
    last_mismatched: Option<u64>,
    #[serde(skip_serializing_if = "is_default")]
    problem: Option<ProblemRecord>,
}

#[derive(PartialEq, Serialize, Deserialize)]
struct ProblemRecord {
    kind: String,
    #[serde(default, skip_serializing_if = "is_default")]
    expect: Option<String>,
}

pub(in crate::store) fn write_toggle(
    newest: &SavedToggle,
    displaced: &[SavedToggle],
    session: u64,
) -> io::Result<Vec<u8>> {
    let displaced = displaced.iter().map(ToggleRecord::of).collect();
    json(&ToggleRecord { session, displaced, ..ToggleRecord::of(newest) })
}

/// The runs in the record, the current one first. Their counters start from zero if a process with a lower number than
/// `counting_since` saved them.
pub(in crate::store) fn read_toggle(json: &[u8], counting_since: u64) -> Result<Vec<SavedToggle>, String> {
    let mut newest: ToggleRecord<'_> = parse(json)?;
    let displaced = std::mem::take(&mut newest.displaced);
    let counts = newest.session >= counting_since;
    let mut toggles: Vec<_> =
        std::iter::once(newest).chain(displaced).map(ToggleRecord::restore).collect::<Result<_, _>>()?;
    if !counts {
        for toggle in &mut toggles {
            toggle.tally.count_from_zero();
        }
    }
    Ok(toggles)
}

impl<'r> ToggleRecord<'r> {
    fn of(toggle: &'r SavedToggle) -> Self {
        Self {
            api: toggle.api.as_str().into(),
            agent_id: toggle.agent_id.get(),
            progress_id: toggle.progress_id.as_str().into(),
            place: toggle.place,
            run: RunRecord::of(&toggle.run),
            tally: TallyRecord::of(&toggle.tally),
            session: 0,
            events: toggle.events.iter().map(EventRecord::of).collect(),
            displaced: Vec::new(),
        }
    }

    fn restore(self) -> Result<SavedToggle, String> {
        Ok(SavedToggle {
            api: ApiName::parse(&self.api)?,
            agent_id: agent_id(self.agent_id)?,
            progress_id: ProgressId::restore(&self.progress_id)?,
            run: self.run.restore(),
            tally: self.tally.restore(),
            place: self.place,
            events: self.events.into_iter().filter_map(EventRecord::restore).collect(),
        })
    }
}

impl<'r> EventRecord<'r> {
    fn of(event: &'r Event) -> Self {
        let kind = match &event.kind {
            EventKind::RunStarted { progress_id } => {
                EventKindRecord::RunStarted { progress_id: progress_id.as_str().into() }
            }
            EventKind::StatusChanged { from, to, duration, mismatch, text: said } => EventKindRecord::StatusChanged {
                from: from.as_str().into(),
                to: to.as_str().into(),
                millis: duration.map(duration_millis),
                mismatch: *mismatch,
                text: said.as_ref().map(text),
            },
            EventKind::UnrecognisedStatus { status } => EventKindRecord::UnrecognisedStatus { status: text(status) },
            EventKind::PollFailed { reason, detail } => {
                EventKindRecord::PollFailed { reason: reason.as_str().into(), detail: detail.as_ref().map(text) }
            }
            EventKind::Recovered { reason, lasted } => {
                EventKindRecord::Recovered { reason: reason.as_str().into(), millis: duration_millis(*lasted) }
            }
        };
        Self { at: event.at.as_millis(), kind }
    }

    /// `None` for an event that only a later version knows.
    fn restore(self) -> Option<Event> {
        let said = |text: Option<Cow<'_, str>>| text.as_deref().map(Text::restore);
        let kind = match self.kind {
            EventKindRecord::RunStarted { progress_id } => {
                EventKind::RunStarted { progress_id: ProgressId::restore(&progress_id).ok()? }
            }
            EventKindRecord::StatusChanged { from, to, millis, mismatch, text } => EventKind::StatusChanged {
                from: Status::parse(&from)?,
                to: Status::parse(&to)?,
                duration: millis.map(Duration::from_millis),
                mismatch,
                text: said(text),
            },
            EventKindRecord::UnrecognisedStatus { status } => {
                EventKind::UnrecognisedStatus { status: Text::restore(&status) }
            }
            EventKindRecord::PollFailed { reason, detail } => {
                EventKind::PollFailed { reason: Reason::parse(&reason)?, detail: said(detail) }
            }
            EventKindRecord::Recovered { reason, millis } => {
                EventKind::Recovered { reason: Reason::parse(&reason)?, lasted: Duration::from_millis(millis) }
            }
            EventKindRecord::Other => return None,
        };
        Some(Event { at: Timestamp::from_millis(self.at), kind })
    }
}

fn duration_millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

impl<'r> RunRecord<'r> {
    fn of(run: &'r Run) -> Self {
        Self {
            started: run.started.as_millis(),
            status: run.last_answer.status.as_str().into(),
            mock_enabled: run.last_answer.mock_enabled,
            mcp_endpoints: run.last_answer.mcp_endpoints,
            mcp_tools: run.last_answer.mcp_tools,
            message: run.last_answer.message.as_ref().map(text),
            error: run.last_answer.error.as_ref().map(text),
            finished: run.finished.map(|finish| finish.at.as_millis()),
            finished_at_first_answer: run.finished.is_some_and(|finish| finish.at_first_answer),
            last_success: timestamp_millis(run.last_success),
            failing: run.failing.as_deref().map(FailingRecord::of),
            unrecognised: run.unrecognised().iter().map(text).collect(),
            raw_status: run.raw_status().map(text),
        }
    }

    fn restore(self) -> Run {
        let last_answer = LastAnswer {
            status: Status::parse(&self.status).unwrap_or_default(),
            mock_enabled: self.mock_enabled,
            mcp_endpoints: self.mcp_endpoints,
            mcp_tools: self.mcp_tools,
            message: self.message.as_deref().map(Text::restore),
            error: self.error.as_deref().map(Text::restore),
        };
        let at_first_answer = self.finished_at_first_answer;
        let unrecognised = self.unrecognised.iter().take(Run::MAX_UNRECOGNISED).map(|text| Text::restore(text));
        let raw =
            RawStatuses { last: self.raw_status.as_deref().map(Text::restore), unrecognised: unrecognised.collect() };
        Run {
            started: Timestamp::from_millis(self.started),
            last_answer,
            finished: timestamp(self.finished).map(|at| Finish { at, at_first_answer }),
            last_success: timestamp(self.last_success),
            failing: self.failing.and_then(FailingRecord::restore).map(Arc::new),
            raw: (raw != RawStatuses::default()).then(|| Arc::new(raw)),
        }
    }
}

impl<'r> FailingRecord<'r> {
    pub(super) fn of(failing: &'r FailureStreak) -> Self {
        Self {
            reason: failing.reason.as_str().into(),
            detail: failing.detail.as_ref().map(text),
            since: failing.since.as_millis(),
            polls: failing.polls,
        }
    }

    /// `None` for a reason that only a later version knows: the next poll brings a known one.
    pub(super) fn restore(self) -> Option<FailureStreak> {
        Some(FailureStreak {
            reason: Reason::parse(&self.reason)?,
            detail: self.detail.as_deref().map(Text::restore),
            since: Timestamp::from_millis(self.since),
            polls: self.polls,
        })
    }
}

impl TallyRecord {
    fn of(tally: &Tally) -> Self {
        let Tally { polls, failures, completed, failed, last_completed, last_failed, last_mismatched, problem } = tally;
        Self {
            polls: *polls,
            failures: *failures,
            completed: (*completed).into(),
            failed: (*failed).into(),
            last_completed: timestamp_millis(*last_completed),
            last_failed: timestamp_millis(*last_failed),
            last_mismatched: timestamp_millis(*last_mismatched),
            problem: problem.map(|problem| ProblemRecord {
                kind: problem.kind.as_str().to_owned(),
                expect: problem.expect.map(|expect| expect.as_str().to_owned()),
            }),
        }
    }

    fn restore(self) -> Tally {
        let Self { polls, failures, completed, failed, last_completed, last_failed, last_mismatched, problem } = self;
        let (last_completed, last_failed) = (timestamp(last_completed), timestamp(last_failed));
        let [completed, failed] = [completed, failed].map(|runs| u32::try_from(runs).unwrap_or(u32::MAX));
        let problem = problem.and_then(|problem| {
            let expect = problem.expect.and_then(|expect| Expect::parse(&expect).ok());
            Some(ToggleProblem { kind: ProblemKind::parse(&problem.kind)?, expect })
        });
        // Earlier versions did not save it.
        let failed_last = || ToggleProblem { kind: ProblemKind::Failed, expect: None };
        let problem = problem.or_else(|| (last_failed > last_completed).then(failed_last));
        let last_mismatched = timestamp(last_mismatched);
        Tally { polls, failures, completed, failed, last_completed, last_failed, last_mismatched, problem }
    }
}
