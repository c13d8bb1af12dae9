//! The state of one run. Parts that few runs have are behind a pointer, which copies share.

use std::sync::Arc;

use super::named::named_enum;
use super::outcome::{Answer, Failure, Reason, ReportedStatus};
use super::standing::Standing;
use super::text::Text;
use super::time::Timestamp;

/// The state of one run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Run {
    /// When the run was first watched.
    pub started: Timestamp,
    /// What the last valid answer said. A failed poll does not change it.
    pub last_answer: LastAnswer,
    /// When and how the run was first seen finished.
    pub finished: Option<Finish>,
    /// When the last valid answer came.
    pub last_success: Option<Timestamp>,
    /// The failed polls since the last valid answer; `None` after a valid answer.
    pub failing: Option<Arc<FailureStreak>>,
    /// Undocumented statuses; `None` if no answer had one.
    pub raw: Option<Arc<RawStatuses>>,
}

/// Statuses of a run, as sent, other than the documented three.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RawStatuses {
    /// The one in the last valid answer.
    pub last: Option<Text>,
    /// Unrecognised ones that were already reported, up to [`Run::MAX_UNRECOGNISED`].
    pub unrecognised: Vec<Text>,
}

/// What the last valid answer of a run said.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LastAnswer {
    /// The status.
    pub status: Status,
    /// Whether mocks are on, as answered.
    pub mock_enabled: Option<bool>,
    /// The number of MCP mock endpoints, from the last answer that had the field.
    pub mcp_endpoints: Option<u32>,
    /// The number of tool names over all endpoints, from the last answer that had the field.
    pub mcp_tools: Option<u32>,
    /// The message of the task.
    pub message: Option<Text>,
    /// The error of the task.
    pub error: Option<Text>,
}

named_enum! {
    /// The status of a run.
    #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
    pub enum Status {
        /// The task runs.
        InProgress = "in_progress",
        /// The task succeeded.
        Completed = "completed",
        /// The task failed.
        Failed = "failed",
        /// There is no answer yet, or its status is undocumented.
        #[default]
        Unknown = "unknown",
    }
}

/// When and how a run was first seen finished.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Finish {
    /// When it was seen finished.
    pub at: Timestamp,
    /// Whether the first answer of the run was final: then the run finished before it was watched.
    pub at_first_answer: bool,
}

/// Consecutive failed polls.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FailureStreak {
    /// The reason of the last failure.
    pub reason: Reason,
    /// Details of the last failure.
    pub detail: Option<Text>,
    /// When the first of them failed.
    pub since: Timestamp,
    /// How many there are, at least 1.
    pub polls: u32,
}

// === impl Run ===

impl Run {
    /// How many different unrecognised statuses of one run are reported.
    pub const MAX_UNRECOGNISED: usize = 8;

    /// A run that was first watched at `started`.
    pub(super) fn new(started: Timestamp) -> Self {
        Self {
            started,
            last_answer: LastAnswer::default(),
            finished: None,
            last_success: None,
            failing: None,
            raw: None,
        }
    }

    /// Whether the last poll brought a valid answer; `None` before the first poll ended.
    pub fn up(&self) -> Option<bool> {
        match (&self.failing, self.last_success) {
            (Some(_), _) => Some(false),
            (None, Some(_)) => Some(true),
            (None, None) => None,
        }
    }

    /// Whether the task runs as far as is known: it has not finished and is not stuck, and either its last valid answer
    /// is recent or no poll has failed yet.
    pub fn is_in_progress(&self, now: Timestamp) -> bool {
        self.finished.is_none()
            && now.since(self.started) <= Standing::STUCK_AFTER
            && match self.last_success {
                Some(last) => now.since(last) <= Standing::SILENT_AFTER,
                None => self.failing.is_none(),
            }
    }

    /// The status of the last valid answer as sent, if it is none of the documented three.
    pub fn raw_status(&self) -> Option<&Text> {
        self.raw.as_ref()?.last.as_ref()
    }

    /// Sets the status of a valid answer as sent.
    pub(super) fn set_raw_status(&mut self, raw: Option<Text>) {
        if self.raw_status() != raw.as_ref() {
            Arc::make_mut(self.raw.get_or_insert_default()).last = raw;
            self.raw.take_if(|raw| **raw == RawStatuses::default());
        }
    }

    /// Unrecognised statuses that were already reported.
    pub fn unrecognised(&self) -> &[Text] {
        self.raw.as_ref().map(|raw| raw.unrecognised.as_slice()).unwrap_or_default()
    }

    /// Adds an unrecognised status. Returns whether it is new to this run.
    pub(super) fn remember_unrecognised(&mut self, status: &Text) -> bool {
        let known = self.unrecognised();
        let first = !known.contains(status) && known.len() < Self::MAX_UNRECOGNISED;
        if first {
            Arc::make_mut(self.raw.get_or_insert_default()).unrecognised.push(status.clone());
        }
        first
    }

    /// Applies `map` to every time.
    pub fn map_times(&mut self, map: impl Fn(Timestamp) -> Timestamp) {
        self.started = map(self.started);
        if let Some(finish) = &mut self.finished {
            finish.at = map(finish.at);
        }
        self.last_success = self.last_success.map(&map);
        if let Some(failing) = &mut self.failing {
            let failing = Arc::make_mut(failing);
            failing.since = map(failing.since);
        }
    }
}

// === impl FailureStreak ===

impl FailureStreak {
    /// Adds a failure to the streak, or begins one. Returns whether the poll before did not fail for the same reason.
    pub(super) fn extend(streak: &mut Option<Arc<Self>>, failure: Failure, now: Timestamp) -> bool {
        let before = streak.take();
        let changed = before.as_ref().is_none_or(|streak| streak.reason != failure.reason);
        *streak = Some(Arc::new(Self {
            reason: failure.reason,
            detail: failure.detail,
            since: before.as_ref().map_or(now, |streak| streak.since),
            polls: before.map_or(1, |streak| streak.polls.saturating_add(1)),
        }));
        changed
    }
}

// === impl LastAnswer ===

impl LastAnswer {
    /// Updates the state from a valid answer.
    pub(super) fn update(&mut self, answer: Answer) {
        *self = Self {
            status: Status::of(&answer.status),
            mock_enabled: answer.mock_enabled,
            mcp_endpoints: answer.mcp_endpoints.or(self.mcp_endpoints),
            mcp_tools: answer.mcp_tools.or(self.mcp_tools),
            message: unless_same(self.message.take(), answer.message),
            error: unless_same(self.error.take(), answer.error),
        };
    }
}

/// The new text; the old one if they are equal, so that copies go on sharing its memory.
fn unless_same(old: Option<Text>, new: Option<Text>) -> Option<Text> {
    if old == new { old } else { new }
}

// === impl Status ===

impl Status {
    /// Whether a run with this status has finished.
    pub fn is_finished(self) -> bool {
        matches!(self, Self::Completed | Self::Failed)
    }

    /// The status that an answer reports.
    pub fn of(reported: &ReportedStatus) -> Self {
        match reported {
            ReportedStatus::InProgress | ReportedStatus::Queued => Self::InProgress,
            ReportedStatus::Completed => Self::Completed,
            ReportedStatus::Failed => Self::Failed,
            ReportedStatus::Unrecognised(_) => Self::Unknown,
        }
    }
}
