//! The events of a toggle, which people read.

use std::time::Duration;

use super::outcome::Reason;
use super::run::Status;
use super::state_machine::{Toggle, Transition};
use super::text::Text;
use super::time::Timestamp;
use super::watch::ProgressId;

/// An event of a toggle.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// When it was observed.
    pub at: Timestamp,
    /// What happened.
    pub kind: EventKind,
}

/// What happened to a toggle.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EventKind {
    /// A new run of the watch started.
    RunStarted {
        /// Its task.
        progress_id: ProgressId,
    },
    /// The status changed.
    StatusChanged {
        /// The previous status.
        from: Status,
        /// The current status.
        to: Status,
        /// From first watched to seen finished; `None` if the run did not finish with this change, or if its
        /// first answer already had this status.
        duration: Option<Duration>,
        /// Whether the run completed in another state than expected.
        mismatch: bool,
        /// The error of the task, or its message if it has no error.
        text: Option<Text>,
    },
    /// The answer has an undocumented status that is new to this run.
    UnrecognisedStatus {
        /// The status as sent.
        status: Text,
    },
    /// A poll failed, and the previous one succeeded or failed for another reason.
    PollFailed {
        /// The reason.
        reason: Reason,
        /// Details of the failure.
        detail: Option<Text>,
    },
    /// A poll succeeded after at least one failure.
    Recovered {
        /// The reason of the last failure.
        reason: Reason,
        /// From the first failure of the streak until now.
        lasted: Duration,
    },
}

// === impl EventKind ===

impl EventKind {
    /// The event that the status of the toggle changed to `to`.
    pub fn status_changed(toggle: &Toggle, from: Status, to: Status, duration: Option<Duration>) -> Self {
        let mut texts = [&toggle.run.last_answer.error, &toggle.run.last_answer.message].into_iter().flatten();
        let text = texts.find(|text| !text.as_str().is_empty()).cloned();
        Self::StatusChanged { from, to, duration, mismatch: toggle.mismatch() == Some(true), text }
    }

    /// The event for a transition of a toggle; `None` if the transition is a repeat, or part of the event for another
    /// one of `all`.
    pub fn of(transition: &Transition, toggle: &Toggle, all: &[Transition]) -> Option<Self> {
        Some(match transition {
            Transition::StatusChanged { from, to } => {
                let duration = all.iter().find_map(|transition| match transition {
                    Transition::Finished { duration, .. } => *duration,
                    _ => None,
                });
                Self::status_changed(toggle, *from, *to, duration)
            }
            Transition::UnrecognisedStatus { status, first: true } => {
                Self::UnrecognisedStatus { status: status.clone() }
            }
            Transition::PollFailed { changed: true } => {
                let failing = toggle.run.failing.as_ref()?;
                Self::PollFailed { reason: failing.reason, detail: failing.detail.clone() }
            }
            Transition::Recovered { reason, lasted } => Self::Recovered { reason: *reason, lasted: *lasted },
            Transition::Finished { .. } | Transition::UnrecognisedStatus { .. } | Transition::PollFailed { .. } => {
                return None;
            }
        })
    }
}
