//! The due-time heap: which runs are due, earliest first, and in order where the times are equal.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Instant;

use crate::board::RunId;

/// The runs that wait for their time, each with at most one plan.
#[derive(Debug, Default)]
pub(super) struct Schedule {
    heap: BinaryHeap<Reverse<Plan>>,
    /// The plan that holds for each slot, by time and number. One with another number was replaced.
    valid: Vec<Option<(Instant, u64)>>,
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
    /// Plans that do not hold any more and are kept all the same.
    const ROOM: usize = 64;

    /// Plans `run` for `due`. Another plan for its slot no longer holds.
    pub(super) fn plan(&mut self, due: Instant, run: RunId) {
        if self.valid.len() <= run.slot() {
            self.valid.resize(run.slot() + 1, None);
        }
        self.valid[run.slot()] = Some((due, self.count));
        self.heap.push(Reverse(Plan { due, number: self.count, run }));
        self.count += 1;
        if self.heap.len() > 2 * self.valid.len() + Self::ROOM {
            // Runs that come and go would else leave plans behind for as long as these are ahead.
            self.heap.retain(|Reverse(plan)| self.valid[plan.run.slot()] == Some((plan.due, plan.number)));
        }
    }

    /// When the run is due; `None` if it is not planned.
    pub(super) fn due(&self, run: RunId) -> Option<Instant> {
        self.valid.get(run.slot())?.map(|(due, _)| due)
    }

    /// Drops the plan for a run, if there is one.
    pub(super) fn cancel(&mut self, run: RunId) {
        if let Some(valid) = self.valid.get_mut(run.slot()) {
            *valid = None;
        }
    }

    /// Plans `run` for `due` if it is planned at all, and says whether it was; one that is queued
    /// or under way is not.
    pub(super) fn replan(&mut self, due: Instant, run: RunId) -> bool {
        let planned = self.due(run).is_some();
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
            if self.valid[plan.run.slot()] == Some((plan.due, plan.number)) {
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
        RunId::of_slot(u32::try_from(slot).unwrap())
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

    #[test]
    fn a_plan_that_is_dropped_never_comes_and_what_was_replaced_takes_no_room() {
        let start = Instant::now();
        let mut schedule = Schedule::default();
        (0..10_000).for_each(|second| schedule.plan(start + Duration::from_secs(second), run(0)));
        assert!(schedule.heap.len() < 100, "{}", schedule.heap.len());
        schedule.plan(start, run(1));
        schedule.cancel(run(0));
        schedule.cancel(run(7));
        assert_eq!(schedule.pop_due(start), Some((start, run(1))));
        assert_eq!(schedule.next_due(), None);
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
