//! What a watch counts over all of its runs, and the problem that its last finished run left.

use std::time::Duration;

use super::named::named_enum;
use super::run::Status;
use super::time::Timestamp;
use super::watch::Expect;

/// Counters and times of a watch over all of its runs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tally {
    /// Polls that ended.
    pub polls: u64,
    /// Polls that ended without a valid answer.
    pub failures: u64,
    /// Runs seen to complete.
    pub completed: u32,
    /// Runs seen to fail.
    pub failed: u32,
    /// When a run last completed.
    pub last_completed: Option<Timestamp>,
    /// When a run last failed.
    pub last_failed: Option<Timestamp>,
    /// When a run last completed in another state than expected.
    pub last_mismatched: Option<Timestamp>,
    /// The problem of the run that finished last; `None` if it ended well. A retry that hangs, or whose id
    /// has expired, does not clear it.
    pub problem: Option<ToggleProblem>,
}

/// What went wrong in the last finished run of a watch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ToggleProblem {
    /// What went wrong.
    pub kind: ProblemKind,
    /// The state that was expected of the run.
    pub expect: Option<Expect>,
}

named_enum! {
    /// What can go wrong with a run.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub enum ProblemKind {
        /// It failed.
        Failed = "failed",
        /// It completed in another state than expected.
        Mismatch = "mismatch",
    }
}

// === impl Tally ===

impl Tally {
    /// Sets the time of the last completion or failure. A recheck that finds a completed run failed sets it,
    /// too, so that the alert fires; the run is still counted once.
    ///
    /// Queries compare the two times to see how the last run ended. The newer one is therefore always the
    /// later one, even within one millisecond or after the clock was set back.
    pub(super) fn set_last_finish(&mut self, status: Status, now: Timestamp) {
        let after =
            |other: Option<Timestamp>| Some(other.map_or(now, |other| now.max(other.after(Duration::from_millis(1)))));
        match status {
            Status::Completed => self.last_completed = after(self.last_failed),
            Status::Failed => self.last_failed = after(self.last_completed),
            Status::InProgress | Status::Unknown => {}
        }
    }

    pub(super) fn count_finish(&mut self, status: Status) {
        match status {
            Status::Completed => self.completed = self.completed.saturating_add(1),
            Status::Failed => self.failed = self.failed.saturating_add(1),
            Status::InProgress | Status::Unknown => {}
        }
    }

    /// Resets the counters; the times and the problem stay.
    pub fn count_from_zero(&mut self) {
        let Self { polls, failures, completed, failed, .. } = self;
        (*polls, *failures, *completed, *failed) = (0, 0, 0, 0);
    }

    /// Applies `map` to every time.
    pub fn map_times(&mut self, map: impl Fn(Timestamp) -> Timestamp) {
        for time in [&mut self.last_completed, &mut self.last_failed, &mut self.last_mismatched] {
            *time = time.map(&map);
        }
    }
}
