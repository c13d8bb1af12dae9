//! The latest events of a toggle as JSON.

use std::time::Duration;

use serde::Serialize;

use crate::toggle::{Event, EventKind, Text};

/// The events of a toggle, the newest first.
#[derive(Serialize)]
pub(crate) struct EventList<'a> {
    events: Vec<EventJson<'a>>,
}

#[derive(Serialize)]
struct EventJson<'a> {
    at: String,
    #[serde(flatten)]
    what: EventKindJson<'a>,
}

/// Unknown fields are null.
#[derive(Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
enum EventKindJson<'a> {
    RunStarted {
        progress_id: &'a str,
    },
    StatusChanged {
        from: &'static str,
        to: &'static str,
        duration_seconds: Option<f64>,
        mismatch: bool,
        text: Option<&'a str>,
    },
    UnrecognisedStatus {
        status: &'a str,
    },
    PollFailed {
        reason: &'static str,
        detail: Option<&'a str>,
    },
    PollsRecovered {
        reason: &'static str,
        lasted_seconds: f64,
    },
}

// === impl EventList ===

impl<'a> EventList<'a> {
    pub(crate) fn of(events: &'a [Event]) -> Self {
        let shown = |event: &'a Event| EventJson { at: event.at.to_string(), what: EventKindJson::of(&event.kind) };
        Self { events: events.iter().map(shown).collect() }
    }
}

// === impl EventKindJson ===

impl<'a> EventKindJson<'a> {
    fn of(kind: &'a EventKind) -> Self {
        match kind {
            EventKind::RunStarted { progress_id } => Self::RunStarted { progress_id: progress_id.as_str() },
            EventKind::StatusChanged { from, to, duration, mismatch, text } => Self::StatusChanged {
                from: from.as_str(),
                to: to.as_str(),
                duration_seconds: duration.as_ref().map(Duration::as_secs_f64),
                mismatch: *mismatch,
                text: text.as_ref().map(Text::as_str),
            },
            EventKind::UnrecognisedStatus { status } => Self::UnrecognisedStatus { status: status.as_str() },
            EventKind::PollFailed { reason, detail } => {
                Self::PollFailed { reason: reason.as_str(), detail: detail.as_ref().map(Text::as_str) }
            }
            EventKind::Recovered { reason, lasted } => {
                Self::PollsRecovered { reason: reason.as_str(), lasted_seconds: lasted.as_secs_f64() }
            }
        }
    }
}
