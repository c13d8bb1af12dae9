//! The due-time heap: which runs are due, earliest first, and in order where the times are equal.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Instant;

use crate::board::RunId;

/// The runs that wait for their time, each with at most one plan.
#[derive(Debug, Default)]
pub(super) struct Schedule {
    heap: BinaryHeap<Reverse<Plan>>,
    /// The number of the plan that holds for each slot. A plan with another number was replaced.
    valid: Vec<Option<u64>>,
    /// Plans so far: what was planned first comes out first among equals.
    count: u64,
}

/// Ordered by time, and then by number, which no two plans share.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Plan {
    due: Instant,
    number: u64,
    run: RunId,
}

// === impl Schedule ===

impl Schedule {
    /// Plans `run` for `due`. Another plan for its slot no longer holds.
    pub(super) fn plan(&mut self, due: Instant, run: RunId) {
        if self.valid.len() <= run.slot() {
            self.valid.resize(run.slot() + 1, None);
        }
        self.valid[run.slot()] = Some(self.count);
        self.heap.push(Reverse(Plan { due, number: self.count, run }));
        self.count += 1;
    }

    /// Plans `run` for `due` if it is planned at all, and says whether it was; one that is queued
    /// or under way is not.
    pub(super) fn replan(&mut self, due: Instant, run: RunId) -> bool {
        let planned = self.valid.get(run.slot()).is_some_and(Option::is_some);
        if planned {
            self.plan(due, run);
        }
        planned
    }

    /// The earliest run and when it was due, if that is `now` or before.
    pub(super) fn pop_due(&mut self, now: Instant) -> Option<(Instant, RunId)> {
        self.next_due().filter(|due| *due <= now)?;
        let Reverse(plan) = self.heap.pop()?;
        self.valid[plan.run.slot()] = None;
        Some((plan.due, plan.run))
    }

    /// When the earliest run is due.
    pub(super) fn next_due(&mut self) -> Option<Instant> {
        while let Some(Reverse(plan)) = self.heap.peek() {
            if self.valid[plan.run.slot()] == Some(plan.number) {
                return Some(plan.due);
            }
            self.heap.pop();
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    fn run(slot: usize) -> RunId {
        RunId::of_slot(slot)
    }

    #[test]
    fn nothing_is_due_before_its_time() {
        let start = Instant::now();
        let mut schedule = Schedule::default();
        assert_eq!((schedule.next_due(), schedule.pop_due(start)), (None, None));
        schedule.plan(start + Duration::from_secs(1), run(7));
        assert_eq!(schedule.pop_due(start), None);
        assert_eq!(schedule.next_due(), Some(start + Duration::from_secs(1)));
        assert_eq!(schedule.pop_due(start + Duration::from_secs(1)).map(|(_, run)| run), Some(run(7)));
        assert_eq!(schedule.pop_due(start + Duration::from_secs(9)), None);
    }

    #[test]
    fn a_new_plan_replaces_the_old_one_and_only_what_is_planned_is_replanned() {
        let start = Instant::now();
        let later = start + Duration::from_secs(9);
        let mut schedule = Schedule::default();
        schedule.plan(later, run(1));
        assert!(schedule.replan(start, run(1)) && !schedule.replan(start, run(2)));
        assert_eq!(schedule.pop_due(start), Some((start, run(1))));
        assert!(!schedule.replan(start, run(1)));
        assert_eq!(schedule.pop_due(later), None, "a run has at most one plan");
    }

    proptest! {
        #[test]
        fn runs_come_out_by_time_and_then_in_the_order_they_were_planned(
            delays in proptest::collection::vec(0u64..5, 0..50)
        ) {
            let start = Instant::now();
            let mut schedule = Schedule::default();
            for (slot, delay) in delays.iter().enumerate() {
                schedule.plan(start + Duration::from_secs(*delay), run(slot));
            }
            let out: Vec<_> = std::iter::from_fn(|| schedule.pop_due(start + Duration::from_secs(9)))
                .map(|(due, run)| ((due - start).as_secs(), run.slot()))
                .collect();
            let mut expected: Vec<_> = delays.iter().copied().zip(0..).collect();
            expected.sort_unstable();
            prop_assert_eq!(out, expected);
        }
    }
}
