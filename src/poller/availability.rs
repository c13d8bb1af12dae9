//! Whether an API is up, as `cekura_api_up` shows it. Pure: time is an argument.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use super::PollTarget;

/// Whether polls of an API bring valid answers.
///
/// This is not [`Outage`](super::outage::Outage), which decides how to poll: an API that answers every poll
/// with 404 has no outage, but is not up either.
#[derive(Debug, Default)]
pub(super) struct Availability {
    /// The targets that failed since the last valid answer of any of them.
    failed: HashSet<PollTarget>,
    last_valid: Option<Instant>,
    up: Option<bool>,
}

/// The state of an API when one of its polls fails.
#[derive(Debug, Clone, Copy)]
pub(super) struct FailureContext {
    /// How many of its targets are polled.
    pub(super) polled: usize,
    /// Whether it has an outage, in which most targets are not polled.
    pub(super) outage: bool,
    /// The longest time between two valid answers while all is well.
    pub(super) longest_gap: Duration,
}

// === impl Availability ===

impl Availability {
    /// Whether the API is up; `None` before the first poll has ended.
    pub(super) fn up(&self) -> Option<bool> {
        self.up
    }

    /// Records a valid answer.
    pub(super) fn answered(&mut self, now: Instant) {
        self.failed.clear();
        self.last_valid = Some(now);
        self.up = Some(true);
    }

    /// Records a failed poll.
    pub(super) fn failed(&mut self, target: PollTarget, now: Instant, context: FailureContext) {
        let FailureContext { polled, outage, longest_gap } = context;
        self.failed.insert(target);
        let long_ago = self.last_valid.is_none_or(|valid| now.saturating_duration_since(valid) > longest_gap);
        self.up = Some(!(outage || long_ago || self.failed.len() >= polled));
    }

    /// Removes a target that is no longer polled. An API without polled targets is not known to be down.
    pub(super) fn remove(&mut self, target: PollTarget, polled: usize) {
        self.failed.remove(&target);
        if polled == 0 {
            self.up = self.up.map(|_| true);
        }
    }

    /// Forgets the failures, because the API is reached in another way from now on.
    pub(super) fn reset(&mut self) {
        self.failed.clear();
        self.last_valid = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::board::RunId;

    const GAP: Duration = Duration::from_secs(130);

    fn run(slot: u32) -> PollTarget {
        PollTarget::Run(RunId::of(slot, 1))
    }

    fn context(polled: usize) -> FailureContext {
        FailureContext { polled, outage: false, longest_gap: GAP }
    }

    #[test]
    fn an_api_is_down_while_all_of_its_runs_fail_and_up_with_the_first_valid_answer() {
        let now = Instant::now();
        let mut availability = Availability::default();
        assert_eq!(availability.up(), None, "before the first poll ended");
        availability.answered(now);
        availability.failed(run(1), now, context(2));
        availability.failed(run(1), now, context(2));
        assert_eq!(availability.up(), Some(true), "one of two fails");
        availability.failed(run(2), now, context(2));
        assert_eq!(availability.up(), Some(false));
        availability.answered(now);
        assert_eq!(availability.up(), Some(true));
    }

    #[test]
    fn before_any_valid_answer_one_failure_is_enough() {
        let mut availability = Availability::default();
        availability.failed(run(1), Instant::now(), context(1000));
        assert_eq!(availability.up(), Some(false));
    }

    #[test]
    fn in_an_outage_a_failed_probe_is_enough() {
        let now = Instant::now();
        let mut availability = Availability::default();
        availability.answered(now);
        availability.failed(run(1), now, FailureContext { outage: true, ..context(1000) });
        assert_eq!(availability.up(), Some(false));
    }

    #[test]
    fn a_valid_answer_counts_for_a_limited_time() {
        let now = Instant::now();
        let mut availability = Availability::default();
        availability.answered(now);
        availability.failed(run(1), now + GAP, context(1000));
        assert_eq!(availability.up(), Some(true));
        availability.failed(run(1), now + GAP + Duration::from_millis(1), context(1000));
        assert_eq!(availability.up(), Some(false));
    }

    #[test]
    fn a_removed_run_does_not_count_and_an_api_without_runs_is_up() {
        let now = Instant::now();
        let mut availability = Availability::default();
        availability.answered(now);
        availability.failed(run(1), now, context(3));
        availability.remove(run(1), 2);
        availability.failed(run(2), now, context(2));
        assert_eq!(availability.up(), Some(true));
        availability.failed(run(3), now, context(2));
        assert_eq!(availability.up(), Some(false));
        availability.remove(run(2), 1);
        assert_eq!(availability.up(), Some(false));
        availability.remove(run(3), 0);
        assert_eq!(availability.up(), Some(true));
    }
}
