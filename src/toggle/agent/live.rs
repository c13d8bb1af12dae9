//! What the API says of the mocks of an agent when it is asked.

use std::sync::Arc;
use std::time::Duration;

use super::Provider;
use crate::toggle::outcome::{Failure, Reason};
use crate::toggle::run::FailureStreak;
use crate::toggle::time::Timestamp;

/// A valid answer of the mock-status endpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MockStatus {
    /// Whether mocks are on.
    pub enabled: bool,
    /// The provider; `None` if the field is absent.
    pub provider: Option<Provider>,
    /// The number of MCP mock endpoints; `None` if the field is absent.
    pub mcp_endpoints: Option<u32>,
    /// The number of mock endpoints of single tools; `None` if the field is absent.
    pub tool_endpoints: Option<u32>,
    /// The names of malformed fields, which count as absent.
    pub malformed: Vec<&'static str>,
}

/// What the API says of the mocks of an agent. A failed poll changes only `failing` and the counters. The default is
/// that the API was never asked.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LiveMocks {
    /// Whether mocks are on; `None` before the first valid answer.
    pub enabled: Option<bool>,
    /// Since when mocks are on, as seen; `None` while they are off or nothing is known.
    pub enabled_since: Option<Timestamp>,
    /// When the request of the last valid answer began.
    pub asked: Option<Timestamp>,
    /// When the last valid answer came.
    pub last_success: Option<Timestamp>,
    /// The provider, from the last answer that had the field.
    pub provider: Option<Provider>,
    /// The number of MCP mock endpoints, from the last answer that had the field.
    pub mcp_endpoints: Option<u32>,
    /// The number of mock endpoints of single tools, from the last answer that had the field.
    pub tool_endpoints: Option<u32>,
    /// The failed polls since the last valid answer; `None` after a valid answer.
    pub failing: Option<Arc<FailureStreak>>,
    /// How many polls ended.
    pub polls: u64,
    /// How many of them brought no valid answer.
    pub failures: u64,
    /// When a run of the agent was last seen to finish.
    pub run_finished: Option<Timestamp>,
    /// Since when no source lists the agent; `None` while one does.
    pub unlisted_since: Option<Timestamp>,
}

/// A change that a poll of an agent caused. Log lines are made from these only.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AgentTransition {
    /// Mocks are on or off now, and were not or were not known before.
    Switched {
        /// The previous state, if it was known.
        from: Option<bool>,
        /// The current state.
        to: bool,
    },
    /// The poll failed.
    PollFailed {
        /// Whether the previous poll succeeded, or failed for another reason.
        changed: bool,
    },
    /// The poll succeeded after at least one failure.
    Recovered {
        /// The reason of the last failure.
        reason: Reason,
        /// From the first failure of the streak until now.
        lasted: Duration,
    },
}

// === impl AgentTransition ===

impl AgentTransition {
    /// Whether it only says again what an earlier one said.
    pub fn is_repetition(&self) -> bool {
        matches!(self, Self::PollFailed { changed: false })
    }
}

// === impl LiveMocks ===

impl LiveMocks {
    /// How long the state of an agent is kept after the last source stopped listing it.
    pub const KEPT_FOR: Duration = Duration::from_hours(24);

    /// How long after the end of a run the agent is asked at the shortest interval, so that a toggle that did not take
    /// effect is seen at once.
    pub const WATCHED_CLOSELY_FOR: Duration = Duration::from_mins(1);

    /// Applies the outcome of a poll whose request began at `asked`, and returns what it changed.
    pub fn apply(
        &mut self,
        outcome: Result<MockStatus, Failure>,
        asked: Timestamp,
        now: Timestamp,
    ) -> Vec<AgentTransition> {
        self.polls += 1;
        match outcome {
            Ok(status) => self.apply_status(&status, asked, now),
            Err(failure) => {
                self.failures += 1;
                let changed = FailureStreak::extend(&mut self.failing, failure, now);
                vec![AgentTransition::PollFailed { changed }]
            }
        }
    }

    fn apply_status(&mut self, status: &MockStatus, asked: Timestamp, now: Timestamp) -> Vec<AgentTransition> {
        let mut transitions = Vec::new();
        if let Some(streak) = self.failing.take() {
            transitions.push(AgentTransition::Recovered { reason: streak.reason, lasted: now.since(streak.since) });
        }
        let from = self.enabled.replace(status.enabled);
        if from != Some(status.enabled) {
            transitions.push(AgentTransition::Switched { from, to: status.enabled });
        }
        self.enabled_since = status.enabled.then(|| self.enabled_since.unwrap_or(now));
        (self.asked, self.last_success) = (Some(asked), Some(now));
        self.provider = status.provider.or(self.provider);
        self.mcp_endpoints = status.mcp_endpoints.or(self.mcp_endpoints);
        self.tool_endpoints = status.tool_endpoints.or(self.tool_endpoints);
        transitions
    }

    /// Whether the last poll brought a valid answer; `None` before the first poll ended.
    pub fn up(&self) -> Option<bool> {
        match (&self.failing, self.last_success) {
            (Some(_), _) => Some(false),
            (None, Some(_)) => Some(true),
            (None, None) => None,
        }
    }

    /// Whether a run of the agent finished a short time ago.
    pub fn is_watched_closely(&self, now: Timestamp) -> bool {
        self.run_finished.is_some_and(|finished| now.since(finished) < Self::WATCHED_CLOSELY_FOR)
    }

    /// Notes whether a source lists the agent. Returns whether its state is to be kept.
    pub fn keep(&mut self, listed: bool, now: Timestamp) -> bool {
        if listed {
            self.unlisted_since = None;
            return true;
        }
        let since = *self.unlisted_since.get_or_insert(now);
        now.since(since) < Self::KEPT_FOR
    }

    /// Applies `map` to every time.
    pub fn map_times(&mut self, map: impl Fn(Timestamp) -> Timestamp) {
        let times = [
            &mut self.enabled_since,
            &mut self.asked,
            &mut self.last_success,
            &mut self.run_finished,
            &mut self.unlisted_since,
        ];
        for time in times {
            *time = time.map(&map);
        }
        if let Some(failing) = &mut self.failing {
            let failing = Arc::make_mut(failing);
            failing.since = map(failing.since);
        }
    }
}
