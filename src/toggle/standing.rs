//! The standing of a toggle: one word for people who look for trouble, from the worst to the best.

use std::time::Duration;

use super::named::named_enum;
use super::run::Status;
use super::state_machine::Toggle;
use super::tally::ProblemKind;
use super::time::Timestamp;

named_enum! {
    /// The standing of a toggle, the worst first.
    #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
    pub enum Standing {
        /// The last run that finished failed.
        Failed = "failed",
        /// The last run that finished completed in another state than expected.
        Mismatched = "mismatched",
        /// The run is polled successfully, but has not finished within [`Standing::STUCK_AFTER`].
        Stuck = "stuck",
        /// The run has had no valid answer for [`Standing::SILENT_AFTER`].
        Silent = "silent",
        /// The last poll failed.
        Failing = "failing",
        /// There is no answer yet, or its status is undocumented.
        Unknown = "unknown",
        /// The run is in progress.
        InProgress = "in_progress",
        /// The run completed, in the expected state if there is one.
        Completed = "completed",
    }
}

// === impl Standing ===

impl Standing {
    /// The age at which an unfinished run is stuck; the same as in the alert `CekuraToggleStuck`.
    pub const STUCK_AFTER: Duration = Duration::from_mins(30);

    /// The time without a valid answer after which a run is silent; the same as in the alert
    /// `CekuraToggleNotAnswering`.
    pub const SILENT_AFTER: Duration = Duration::from_mins(15);

    /// The standing of a toggle at `now`.
    pub fn of(toggle: &Toggle, now: Timestamp) -> Self {
        let run = &toggle.run;
        let unfinished = run.finished.is_none();
        let up = run.up() == Some(true);
        let last_heard = run.last_success.unwrap_or(run.started);
        // As in the alerts, a retry that hangs or is not answered does not end a problem.
        match toggle.tally.problem.map(|problem| problem.kind) {
            Some(ProblemKind::Failed) => return Self::Failed,
            Some(ProblemKind::Mismatch) => return Self::Mismatched,
            None => {}
        }
        match run.last_answer.status {
            Status::Failed => Self::Failed,
            _ if unfinished && up && now.since(run.started) > Self::STUCK_AFTER => Self::Stuck,
            _ if unfinished && !up && now.since(last_heard) > Self::SILENT_AFTER => Self::Silent,
            _ if run.failing.is_some() => Self::Failing,
            Status::Unknown => Self::Unknown,
            Status::InProgress => Self::InProgress,
            Status::Completed => Self::Completed,
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
    fn the_standing_is_the_worst_that_is_true_of_a_toggle() {
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
    fn a_bad_end_decides_the_standing_until_a_run_ends_well() {
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
    fn the_worst_standing_comes_first() {
        assert!(Standing::ALL.is_sorted());
    }
}
