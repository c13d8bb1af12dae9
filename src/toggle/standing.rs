//! How a toggle stands: what somebody who looks for trouble wants to know first.

use std::time::Duration;

use super::run::Status;
use super::state_machine::Toggle;
use super::tally::ProblemKind;
use super::time::Timestamp;

/// How a toggle stands, the worst first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Standing {
    /// Its task failed, or an earlier one did and none has ended well since.
    Failed,
    /// Its task completed in another state than was expected, or an earlier one did and none has ended well since.
    Mismatched,
    /// Its task answers, and has not finished for long.
    Stuck,
    /// Its task has not answered for long.
    Silent,
    /// Its last poll failed.
    Failing,
    /// There was no answer yet, or its status is not a documented one.
    Unknown,
    /// Its task runs.
    InProgress,
    /// Its task succeeded.
    Completed,
}

// === impl Standing ===

impl Standing {
    /// Every standing, the worst first.
    pub const ALL: [Self; 8] = [
        Self::Failed,
        Self::Mismatched,
        Self::Stuck,
        Self::Silent,
        Self::Failing,
        Self::Unknown,
        Self::InProgress,
        Self::Completed,
    ];

    /// After this without an end, a run is stuck. The alert `CekuraToggleStuck` has the same.
    pub const STUCK_AFTER: Duration = Duration::from_mins(30);

    /// After this without an answer, a run is silent. The alert `CekuraToggleNotAnswering` has the same.
    pub const SILENT_AFTER: Duration = Duration::from_mins(15);

    /// How the toggle stands at `now`.
    pub fn of(toggle: &Toggle, now: Timestamp) -> Self {
        let run = &toggle.run;
        let goes_on = run.finished.is_none();
        let up = run.up() == Some(true);
        let heard = run.last_success.unwrap_or(run.started);
        // As the alerts do: a retry that hangs or is not answered mends nothing.
        match toggle.tally.problem.map(|problem| problem.kind) {
            Some(ProblemKind::Failed) => return Self::Failed,
            Some(ProblemKind::Mismatch) => return Self::Mismatched,
            None => {}
        }
        match run.last_answer.status {
            Status::Failed => Self::Failed,
            _ if goes_on && up && now.since(run.started) > Self::STUCK_AFTER => Self::Stuck,
            _ if goes_on && !up && now.since(heard) > Self::SILENT_AFTER => Self::Silent,
            _ if run.failing.is_some() => Self::Failing,
            Status::Unknown => Self::Unknown,
            Status::InProgress => Self::InProgress,
            Status::Completed => Self::Completed,
        }
    }

    /// As shown in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Failed => "failed",
            Self::Mismatched => "mismatched",
            Self::Stuck => "stuck",
            Self::Silent => "silent",
            Self::Failing => "failing",
            Self::Unknown => "unknown",
            Self::InProgress => "in_progress",
            Self::Completed => "completed",
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::toggle::sample::{answer, at, watch};
    use crate::toggle::{Expect, Failure, Outcome, Reason, ReportedStatus, Watch};

    const HOUR: u64 = 3600;

    #[test]
    fn the_worst_that_is_true_of_a_toggle_is_how_it_stands() {
        let says = |status, mock_enabled| Ok(answer(status, mock_enabled));
        let fails = || Outcome::Err(Failure::new(Reason::Timeout));
        for (outcomes, now, expected) in [
            (vec![], 1, Standing::Unknown),
            (vec![], HOUR, Standing::Silent),
            (vec![(1, fails())], 2, Standing::Failing),
            (vec![(1, fails())], HOUR, Standing::Silent),
            (vec![(1, says(ReportedStatus::InProgress, None))], 2, Standing::InProgress),
            (vec![(1, says(ReportedStatus::InProgress, None))], HOUR, Standing::Stuck),
            (vec![(1, says(ReportedStatus::InProgress, None)), (2, fails())], 60, Standing::Failing),
            (vec![(1, says(ReportedStatus::InProgress, None)), (2, fails())], HOUR, Standing::Silent),
            (vec![(HOUR, says(ReportedStatus::InProgress, None)), (HOUR + 1, fails())], HOUR + 2, Standing::Failing),
            (vec![(1, says(ReportedStatus::InProgress, None))], HOUR / 2, Standing::InProgress),
            (vec![(1, says(ReportedStatus::InProgress, None))], HOUR / 2 + 1, Standing::Stuck),
            (vec![(1, fails())], HOUR / 4, Standing::Failing),
            (vec![(1, fails())], HOUR / 4 + 1, Standing::Silent),
            (vec![(1, says(ReportedStatus::Completed, Some(true)))], HOUR, Standing::Completed),
            (vec![(1, says(ReportedStatus::Completed, Some(true))), (2, fails())], HOUR, Standing::Failing),
            (vec![(1, says(ReportedStatus::Completed, Some(false)))], 2, Standing::Mismatched),
            (vec![(1, says(ReportedStatus::Completed, None))], HOUR, Standing::Mismatched),
            (vec![(1, says(ReportedStatus::Failed, None)), (2, fails())], HOUR, Standing::Failed),
        ] {
            let watch = Watch { expect: Some(Expect::Enabled), ..watch("a", "1") };
            let mut toggle = Toggle::new(Arc::new(watch), at(0));
            for (second, outcome) in outcomes.clone() {
                toggle.apply(outcome, at(second));
            }
            assert_eq!(Standing::of(&toggle, at(now)), expected, "{outcomes:?} at {now}");
        }
    }

    #[test]
    fn a_toggle_stands_as_its_last_run_ended_badly_until_one_ends_well() {
        let of = |id: &str| Arc::new(Watch { expect: Some(Expect::Enabled), ..watch("a", id) });
        let mut toggle = Toggle::new(of("1"), at(0));
        toggle.apply(Ok(answer(ReportedStatus::Completed, Some(false))), at(1));
        for (id, outcome, expected) in [
            ("2", None, Standing::Mismatched),
            ("3", Some(Ok(answer(ReportedStatus::InProgress, None))), Standing::Mismatched),
            ("4", Some(Err(Failure::new(Reason::NotFound))), Standing::Mismatched),
            ("5", Some(Ok(answer(ReportedStatus::Failed, None))), Standing::Failed),
            ("6", None, Standing::Failed),
            ("7", Some(Ok(answer(ReportedStatus::Completed, Some(true)))), Standing::Completed),
        ] {
            toggle.redefine(of(id), at(2));
            if let Some(outcome) = outcome {
                toggle.apply(outcome, at(3));
            }
            assert_eq!(Standing::of(&toggle, at(HOUR)), expected, "{id}");
        }
    }

    #[test]
    fn the_worst_come_first() {
        assert!(Standing::ALL.is_sorted());
    }
}
