//! What is known of one run. What few runs have takes a word where it is absent, and is shared by copies.

use std::sync::Arc;

use super::outcome::{Answer, Reason, ReportedStatus};
use super::text::Text;
use super::time::Timestamp;

/// What is known of one run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Run {
    /// When the run was first watched.
    pub started: Timestamp,
    /// What the last valid answer said; a failed poll changes nothing here.
    pub last_answer: LastAnswer,
    /// When and how the run was first seen finished.
    pub finished: Option<Finish>,
    /// The last valid answer.
    pub last_success: Option<Timestamp>,
    /// The failure of the last poll and those just before it; `None` after a valid answer.
    pub failing: Option<Arc<FailureStreak>>,
    /// Statuses that are none of the documented three; `None` where no answer had one.
    pub raw: Option<Arc<RawStatuses>>,
}

/// Statuses of a run, as they were sent, that are none of the documented three.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RawStatuses {
    /// That of the last valid answer.
    pub last: Option<Text>,
    /// Those that are unrecognised and were already reported, up to [`Run::MAX_UNRECOGNISED`].
    pub unrecognised: Vec<Text>,
}

/// What the last valid answer of a run said.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LastAnswer {
    /// The status.
    pub status: Status,
    /// Whether mocks are on, as answered.
    pub mock_enabled: Option<bool>,
    /// MCP mock endpoints; the last answer that had the field.
    pub mcp_endpoints: Option<u32>,
    /// Tool names over all endpoints; the last answer that had the field.
    pub mcp_tools: Option<u32>,
    /// The task's message.
    pub message: Option<Text>,
    /// The task's error.
    pub error: Option<Text>,
}

/// The status of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Status {
    /// The task runs.
    InProgress,
    /// The task succeeded.
    Completed,
    /// The task failed.
    Failed,
    /// There was no answer yet, or its status is not a documented one.
    #[default]
    Unknown,
}

/// When and how a run was first seen finished.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Finish {
    /// When it was seen.
    pub at: Timestamp,
    /// Whether the run's very first answer said so: then it finished before it was watched.
    pub at_first_answer: bool,
}

/// A row of failed polls.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FailureStreak {
    /// The last poll's reason.
    pub reason: Reason,
    /// What more is known of the last failure.
    pub detail: Option<Text>,
    /// When the first poll of the row failed.
    pub since: Timestamp,
    /// How many polls failed in a row, at least 1.
    pub polls: u32,
}

// === impl Run ===

impl Run {
    /// How many different unrecognised statuses of one run are told apart.
    pub const MAX_UNRECOGNISED: usize = 8;

    /// A run that is first watched at `started`.
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

    /// The status of the last valid answer as it was sent, where it is none of the documented three.
    pub fn raw_status(&self) -> Option<&Text> {
        self.raw.as_ref()?.last.as_ref()
    }

    /// Takes over the status of a valid answer as it was sent.
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

    /// Remembers the status; says whether it is new to this run.
    pub(super) fn remember_unrecognised(&mut self, status: &Text) -> bool {
        let known = self.unrecognised();
        let first = !known.contains(status) && known.len() < Self::MAX_UNRECOGNISED;
        if first {
            Arc::make_mut(self.raw.get_or_insert_default()).unrecognised.push(status.clone());
        }
        first
    }

    /// Changes every time in it.
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

// === impl LastAnswer ===

impl LastAnswer {
    /// Takes over what a valid answer says.
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

/// What is new; the old one where it says the same, so that memory stays where it is.
fn unless_same(old: Option<Text>, new: Option<Text>) -> Option<Text> {
    if old == new { old } else { new }
}

// === impl Status ===

impl Status {
    /// Every status, in the order in which the series are exposed.
    pub const ALL: [Self; 4] = [Self::InProgress, Self::Completed, Self::Failed, Self::Unknown];

    /// As shown in labels and JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::InProgress => "in_progress",
            Self::Completed => "completed",
            Self::Failed => "failed",
            Self::Unknown => "unknown",
        }
    }

    /// The status of that name, as [`Status::as_str`] has it.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|status| status.as_str() == name)
    }

    /// Whether a run with this status goes on no more.
    pub fn is_finished(self) -> bool {
        matches!(self, Self::Completed | Self::Failed)
    }

    fn of(reported: &ReportedStatus) -> Self {
        match reported {
            ReportedStatus::InProgress | ReportedStatus::Queued => Self::InProgress,
            ReportedStatus::Completed => Self::Completed,
            ReportedStatus::Failed => Self::Failed,
            ReportedStatus::Unrecognised(_) => Self::Unknown,
        }
    }
}
