//! The state machine of a toggle: what a definition or a poll changes, and the transitions that say so.
//!
//! | event | what changes | transitions |
//! |---|---|---|
//! | a definition of another run | the run is reset; the tally stays | |
//! | a definition that expects another state | whether the run ended in a problem | |
//! | a failed poll | the failure streak and the counters of polls | `PollFailed` |
//! | a valid answer | the last answer and the counter of polls; the streak ends | `Recovered`, `UnrecognisedStatus`, `StatusChanged` |
//! | the first answer with a final status | also the finish, the counters of runs and the problem | also `Finished` |
//!
//! A failed poll changes nothing that is known about the run. A run finishes once: a recheck that finds
//! another final status changes the status, the times and the problem, but counts no second run.

use std::sync::Arc;
use std::time::Duration;

use super::outcome::{Answer, Failure, Outcome, Reason, ReportedStatus};
use super::run::{FailureStreak, Finish, Run, Status};
use super::tally::{ProblemKind, Tally, ToggleProblem};
use super::text::Text;
use super::time::Timestamp;
use super::watch::Watch;

/// A watch, its current run, and the tally of all of its runs.
#[derive(Debug, Clone)]
pub struct Toggle {
    /// The definition.
    pub watch: Arc<Watch>,
    /// The state of the current run.
    pub run: Run,
    /// The counters and times that outlive the run.
    pub tally: Tally,
}

/// A change that a poll caused. Log lines, counters and events are made from these only.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Transition {
    /// The status changed.
    StatusChanged {
        /// The previous status.
        from: Status,
        /// The current status.
        to: Status,
    },
    /// The run finished; at most once per run.
    Finished {
        /// `Completed` or `Failed`.
        status: Status,
        /// From first watched to seen finished; `None` if the first answer already had this status.
        duration: Option<Duration>,
        /// Whether the run completed in another state than expected.
        mismatch: bool,
    },
    /// The status of the answer is not documented.
    UnrecognisedStatus {
        /// The status as sent.
        status: Text,
        /// Whether this is the first answer of the run with this status.
        first: bool,
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

// === impl Transition ===

impl Transition {
    /// Whether it only says again what an earlier one said.
    pub fn is_repetition(&self) -> bool {
        matches!(self, Self::PollFailed { changed: false } | Self::UnrecognisedStatus { first: false, .. })
    }
}

// === impl Toggle ===

impl Toggle {
    /// A toggle whose run is first watched at `now`.
    pub fn new(watch: Arc<Watch>, now: Timestamp) -> Self {
        Self { watch, run: Run::new(now), tally: Tally::default() }
    }

    /// Replaces the definition, and returns whether that started a new run. A new run resets all but the tally.
    pub fn redefine(&mut self, watch: Arc<Watch>, now: Timestamp) -> bool {
        let new_run = !self.watch.same_run(&watch);
        let other_expect = self.watch.expect != watch.expect;
        self.watch = watch;
        if new_run {
            self.run = Run::new(now);
        } else if other_expect {
            self.update_problem(now);
        }
        new_run
    }

    /// Applies the outcome of a poll of the current run, and returns what it changed.
    pub fn apply(&mut self, outcome: Outcome, now: Timestamp) -> Vec<Transition> {
        self.tally.polls += 1;
        match outcome {
            Ok(answer) => self.apply_answer(answer, now),
            Err(failure) => vec![self.apply_failure(failure, now)],
        }
    }

    /// Applies `map` to every time.
    pub fn map_times(&mut self, map: impl Fn(Timestamp) -> Timestamp) {
        self.run.map_times(&map);
        self.tally.map_times(&map);
    }

    /// Whether the run completed in another state than expected; `None` if nothing is expected.
    pub fn mismatch(&self) -> Option<bool> {
        let answer = &self.run.last_answer;
        let expect = self.watch.expect?;
        Some(answer.status == Status::Completed && !expect.is_met_by(answer.mock_enabled))
    }

    fn apply_failure(&mut self, failure: Failure, now: Timestamp) -> Transition {
        self.tally.failures += 1;
        let changed = FailureStreak::extend(&mut self.run.failing, failure, now);
        Transition::PollFailed { changed }
    }

    fn apply_answer(&mut self, answer: Answer, now: Timestamp) -> Vec<Transition> {
        let mut transitions = Vec::new();
        if let Some(streak) = self.run.failing.take() {
            transitions.push(Transition::Recovered { reason: streak.reason, lasted: now.since(streak.since) });
        }
        if let ReportedStatus::Unrecognised(status) = &answer.status {
            let first = self.run.remember_unrecognised(status);
            transitions.push(Transition::UnrecognisedStatus { status: status.clone(), first });
        }
        self.run.set_raw_status(answer.status.raw());
        let at_first_answer = self.run.last_success.replace(now).is_none();
        let (from, mock_enabled) = (self.run.last_answer.status, self.run.last_answer.mock_enabled);
        self.run.last_answer.update(answer);
        let to = self.run.last_answer.status;
        if from != to {
            transitions.push(Transition::StatusChanged { from, to });
            self.tally.set_last_finish(to, now);
        }
        if from != to || mock_enabled != self.run.last_answer.mock_enabled {
            self.update_problem(now);
        }
        if to.is_finished() && self.run.finished.is_none() {
            self.run.finished = Some(Finish { at: now, at_first_answer });
            self.tally.count_finish(to);
            transitions.push(Transition::Finished {
                status: to,
                duration: (!at_first_answer).then(|| now.since(self.run.started)),
                mismatch: self.mismatch() == Some(true),
            });
        }
        transitions
    }

    /// Sets or clears the problem if the current run has finished. A run that has not finished changes nothing.
    fn update_problem(&mut self, now: Timestamp) {
        let kind = match self.run.last_answer.status {
            Status::Failed => Some(ProblemKind::Failed),
            Status::Completed => (self.mismatch() == Some(true)).then_some(ProblemKind::Mismatch),
            Status::InProgress | Status::Unknown => return,
        };
        if kind == Some(ProblemKind::Mismatch) {
            // Not before the completion itself, so that a later completion is later than both.
            self.tally.last_mismatched = self.tally.last_completed.max(Some(now));
        }
        self.tally.problem = kind.map(|kind| ToggleProblem { kind, expect: self.watch.expect });
    }
}

#[cfg(test)]
mod tests;
