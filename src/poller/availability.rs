//! Whether any poll of an API is answered validly. Pure: time comes in.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use crate::board::RunId;

/// Whether any poll of an API is answered validly, whatever else its answers say.
///
/// This is not [`Outage`](super::outage::Outage), which asks whether to go on polling: a 404 for every run is
/// no outage, but nobody learns anything from it either.
#[derive(Debug, Default)]
pub(super) struct Availability {
    /// The runs that failed since the last valid answer of any.
    failed: HashSet<RunId>,
    last_valid: Option<Instant>,
    up: Option<bool>,
}

/// What there is to know of an API when one of its polls ended without a valid answer.
#[derive(Debug, Clone, Copy)]
pub(super) struct FailureContext {
    /// How many runs are polled.
    pub(super) polled: usize,
    /// Whether the API is down, and most runs are not polled for that reason.
    pub(super) outage: bool,
    /// Within this time of a valid answer, a run that is well brings another one.
    pub(super) lately: Duration,
}

// === impl Availability ===

impl Availability {
    /// Whether polls are answered validly; `None` before the first one ended.
    pub(super) fn up(&self) -> Option<bool> {
        self.up
    }

    /// A poll brought a valid answer.
    pub(super) fn answered(&mut self, now: Instant) {
        self.failed.clear();
        self.last_valid = Some(now);
        self.up = Some(true);
    }

    /// A poll failed.
    pub(super) fn failed(&mut self, run: RunId, now: Instant, circumstances: FailureContext) {
        let FailureContext { polled, outage, lately } = circumstances;
        self.failed.insert(run);
        let long_ago = self.last_valid.is_none_or(|valid| now.saturating_duration_since(valid) > lately);
        self.up = Some(!(outage || long_ago || self.failed.len() >= polled));
    }

    /// A run is polled no more. Of an API that polls nothing, nothing bad is known.
    pub(super) fn remove(&mut self, run: RunId, polled: usize) {
        self.failed.remove(&run);
        if polled == 0 {
            self.up = self.up.map(|_| true);
        }
    }

    /// The API is reached in another way from now on.
    pub(super) fn reset(&mut self) {
        self.failed.clear();
        self.last_valid = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LATELY: Duration = Duration::from_secs(130);

    fn run(slot: u32) -> RunId {
        RunId::of(slot, 1)
    }

    fn of(polled: usize) -> FailureContext {
        FailureContext { polled, outage: false, lately: LATELY }
    }

    #[test]
    fn an_api_is_not_up_while_all_that_is_polled_fails_and_up_with_the_first_valid_answer() {
        let now = Instant::now();
        let mut answering = Availability::default();
        assert_eq!(answering.up(), None, "before the first poll ended");
        answering.answered(now);
        answering.failed(run(1), now, of(2));
        answering.failed(run(1), now, of(2));
        assert_eq!(answering.up(), Some(true), "one of two fails");
        answering.failed(run(2), now, of(2));
        assert_eq!(answering.up(), Some(false));
        answering.answered(now);
        assert_eq!(answering.up(), Some(true));
    }

    #[test]
    fn the_first_polls_decide_before_any_valid_answer() {
        let mut answering = Availability::default();
        answering.failed(run(1), Instant::now(), of(1000));
        assert_eq!(answering.up(), Some(false));
    }

    #[test]
    fn an_outage_decides_for_the_runs_that_are_not_polled_in_it() {
        let now = Instant::now();
        let mut answering = Availability::default();
        answering.answered(now);
        answering.failed(run(1), now, FailureContext { outage: true, ..of(1000) });
        assert_eq!(answering.up(), Some(false));
    }

    #[test]
    fn a_valid_answer_of_long_ago_says_nothing_of_now() {
        let now = Instant::now();
        let mut answering = Availability::default();
        answering.answered(now);
        answering.failed(run(1), now + LATELY, of(1000));
        assert_eq!(answering.up(), Some(true));
        answering.failed(run(1), now + LATELY + Duration::from_millis(1), of(1000));
        assert_eq!(answering.up(), Some(false));
    }

    #[test]
    fn a_run_that_is_gone_does_not_count_and_an_api_without_runs_is_up() {
        let now = Instant::now();
        let mut answering = Availability::default();
        answering.answered(now);
        answering.failed(run(1), now, of(3));
        answering.remove(run(1), 2);
        answering.failed(run(2), now, of(2));
        assert_eq!(answering.up(), Some(true));
        answering.failed(run(3), now, of(2));
        assert_eq!(answering.up(), Some(false));
        answering.remove(run(2), 1);
        assert_eq!(answering.up(), Some(false));
        answering.remove(run(3), 0);
        assert_eq!(answering.up(), Some(true));
    }
}
