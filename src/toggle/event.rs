//! What happened to a toggle, for people.

use std::time::Duration;

use super::outcome::Reason;
use super::run::Status;
use super::state_machine::{Toggle, Transition};
use super::text::Text;
use super::time::Timestamp;
use super::watch::ProgressId;

/// Something that happened to a toggle.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// When it was seen.
    pub at: Timestamp,
    /// What happened.
    pub kind: EventKind,
}

/// What happened to a toggle.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EventKind {
    /// Another run is watched from now on.
    RunStarted {
        /// Its task.
        progress_id: ProgressId,
    },
    /// The status is another one.
    StatusChanged {
        /// The status before.
        from: Status,
        /// The status now.
        to: Status,
        /// From first watched to seen finished; `None` if it did not finish now, or the first answer
        /// said so.
        duration: Option<Duration>,
        /// Whether it completed in another state than was expected.
        mismatch: bool,
        /// The task's error, or else its message.
        text: Option<Text>,
    },
    /// The status is not a documented one, and the run did not answer so before.
    UnrecognisedStatus {
        /// The status as sent.
        status: Text,
    },
    /// A poll failed where the one before did not, or did for another reason.
    PollFailed {
        /// The reason.
        reason: Reason,
        /// What more is known.
        detail: Option<Text>,
    },
    /// Polls succeed again.
    Recovered {
        /// The reason of the last failure.
        reason: Reason,
        /// From the first failure of the row until now.
        lasted: Duration,
    },
}

// === impl EventKind ===

impl EventKind {
    /// That the toggle has the status `to` now.
    pub fn status(toggle: &Toggle, from: Status, to: Status, duration: Option<Duration>) -> Self {
        let mut texts = [&toggle.run.last_answer.error, &toggle.run.last_answer.message].into_iter().flatten();
        let text = texts.find(|text| !text.as_str().is_empty()).cloned();
        Self::StatusChanged { from, to, duration, mismatch: toggle.mismatch() == Some(true), text }
    }

    /// What a transition of a toggle is told as; `None` where another one tells it, or it is a repeat.
    pub fn of(transition: &Transition, toggle: &Toggle, all: &[Transition]) -> Option<Self> {
        Some(match transition {
            Transition::StatusChanged { from, to } => {
                let duration = all.iter().find_map(|transition| match transition {
                    Transition::Finished { duration, .. } => *duration,
                    _ => None,
                });
                Self::status(toggle, *from, *to, duration)
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
