//! The schedule: when each run is due, as a heap.

use std::time::{Duration, Instant};

use crate::board::RunId;

/// When runs are due, the earliest first, and in the order of planning where times are equal. A run has at most one
/// plan.
///
/// This is a binary heap that knows the position of each run, so that a plan can be moved or removed in place.
#[derive(Debug)]
pub struct Schedule {
    heap: Vec<Plan>,
    /// The position in the heap of the run of each slot, or [`NOT_PLANNED`].
    positions: Vec<u32>,
    /// The number of the next plan.
    next_number: u64,
    /// The time that due times are counted from.
    epoch: Instant,
}

/// Ordered by due time, and then by number, which no two plans share.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Plan {
    /// Nanoseconds since the epoch.
    due: u64,
    number: u64,
    run: RunId,
}

const NOT_PLANNED: u32 = u32::MAX;

// === impl Schedule ===

impl Schedule {
    /// An empty schedule. Runs that are planned for a time before `epoch` are due at `epoch`.
    pub fn new(epoch: Instant) -> Self {
        Self { heap: Vec::new(), positions: Vec::new(), next_number: 0, epoch }
    }

    /// Reserves memory for this many more plans.
    pub fn reserve(&mut self, additional: usize) {
        self.heap.reserve(additional);
        self.positions.reserve(additional);
    }

    /// Plans `run` for `due`, in place of the plan that its slot had.
    pub fn plan(&mut self, due: Instant, run: RunId) {
        self.cancel(run);
        if self.positions.len() <= run.slot() {
            self.positions.resize(run.slot() + 1, NOT_PLANNED);
        }
        let due = u64::try_from(due.saturating_duration_since(self.epoch).as_nanos()).unwrap_or(u64::MAX);
        self.heap.push(Plan { due, number: self.next_number, run });
        self.next_number += 1;
        self.rise(self.heap.len() - 1);
    }

    /// When the run is due; `None` if it is not planned.
    pub fn due(&self, run: RunId) -> Option<Instant> {
        let plan = self.heap.get(self.position(run)?)?;
        Some(self.time(plan))
    }

    /// Removes the plan of a run, if it has one.
    pub fn cancel(&mut self, run: RunId) {
        if let Some(position) = self.position(run) {
            self.take(position);
        }
    }

    /// Moves the plan of a run to `due`, and returns whether it had one. A run that is queued or polled has none.
    pub fn replan(&mut self, due: Instant, run: RunId) -> bool {
        let planned = self.position(run).is_some();
        if planned {
            self.plan(due, run);
        }
        planned
    }

    /// Takes out the earliest run and its due time, if that is not after `now`.
    pub fn pop_due(&mut self, now: Instant) -> Option<(Instant, RunId)> {
        let due = self.next_due().filter(|due| *due <= now)?;
        Some((due, self.take(0)?.run))
    }

    /// When the earliest run is due.
    pub fn next_due(&self) -> Option<Instant> {
        self.heap.first().map(|plan| self.time(plan))
    }

    fn time(&self, plan: &Plan) -> Instant {
        self.epoch + Duration::from_nanos(plan.due)
    }

    fn position(&self, run: RunId) -> Option<usize> {
        self.positions.get(run.slot()).filter(|position| **position != NOT_PLANNED).map(|position| *position as usize)
    }

    /// Removes the plan at a position of the heap.
    fn take(&mut self, position: usize) -> Option<Plan> {
        let last = self.heap.pop()?;
        let taken = match self.heap.get_mut(position) {
            Some(plan) => std::mem::replace(plan, last),
            None => last,
        };
        self.positions[taken.run.slot()] = NOT_PLANNED;
        if position < self.heap.len() {
            // The plan that came from the end may belong above or below.
            let position = self.rise(position);
            self.sink(position);
        }
        Some(taken)
    }

    /// Moves the plan at a position up to where it belongs, and returns its new position.
    fn rise(&mut self, mut position: usize) -> usize {
        let plan = self.heap[position];
        while position > 0 {
            let parent = (position - 1) / 2;
            if self.heap[parent] <= plan {
                break;
            }
            self.put(position, self.heap[parent]);
            position = parent;
        }
        self.put(position, plan);
        position
    }

    /// Moves the plan at a position down to where it belongs.
    fn sink(&mut self, mut position: usize) {
        let plan = self.heap[position];
        loop {
            let left = 2 * position + 1;
            let children = self.heap.get(left..(left + 2).min(self.heap.len())).unwrap_or_default();
            let Some((child, first)) = children.iter().enumerate().min_by_key(|(_, child)| **child) else { break };
            if plan <= *first {
                break;
            }
            self.put(position, *first);
            position = left + child;
        }
        self.put(position, plan);
    }

    // It is called for each level of the heap.
    #[inline]
    fn put(&mut self, position: usize, plan: Plan) {
        self.heap[position] = plan;
        // There are fewer slots than 2^32 - 1.
        self.positions[plan.run.slot()] = u32::try_from(position).unwrap_or(NOT_PLANNED);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn run(slot: usize) -> RunId {
        RunId::of(u32::try_from(slot).unwrap(), 1)
    }

    #[test]
    fn nothing_is_due_before_its_time() {
        let start = Instant::now();
        let mut schedule = Schedule::new(start);
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
        let mut schedule = Schedule::new(start);
        schedule.plan(later, run(1));
        assert!(schedule.replan(start, run(1)) && !schedule.replan(start, run(2)));
        assert_eq!(schedule.pop_due(start), Some((start, run(1))));
        assert!(!schedule.replan(start, run(1)));
        assert_eq!(schedule.pop_due(later), None, "a run has at most one plan");
    }

    #[test]
    fn a_cancelled_run_never_comes_and_replaced_plans_take_no_memory() {
        let start = Instant::now();
        let mut schedule = Schedule::new(start);
        (0..10_000).for_each(|second| schedule.plan(start + Duration::from_secs(second), run(0)));
        assert_eq!(schedule.heap.len(), 1);
        schedule.plan(start, run(1));
        schedule.cancel(run(0));
        schedule.cancel(run(7));
        assert_eq!(schedule.heap.len(), 1);
        assert_eq!(schedule.pop_due(start), Some((start, run(1))));
        assert_eq!(schedule.next_due(), None);
    }

    proptest! {
        #[test]
        fn runs_come_out_by_time_and_then_in_the_order_they_were_planned(
            delays in proptest::collection::vec(0u64..5, 0..50)
        ) {
            let start = Instant::now();
            let mut schedule = Schedule::new(start);
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

        #[test]
        fn whatever_is_planned_replanned_and_cancelled_the_rest_comes_out_by_time(
            steps in proptest::collection::vec((0usize..40, 0u64..100, 0..4u8), 0..200)
        ) {
            let start = Instant::now();
            let at = |second| start + Duration::from_secs(second);
            let (mut schedule, mut expected) = (Schedule::new(start), std::collections::BTreeMap::new());
            for (number, (slot, second, step)) in steps.into_iter().enumerate() {
                match step {
                    0 => {
                        schedule.cancel(run(slot));
                        expected.remove(&slot);
                    }
                    1 => {
                        prop_assert_eq!(schedule.replan(at(second), run(slot)), expected.contains_key(&slot));
                        expected.entry(slot).and_modify(|plan| *plan = (second, number));
                    }
                    _ => {
                        schedule.plan(at(second), run(slot));
                        expected.insert(slot, (second, number));
                    }
                }
                for slot in 0..40 {
                    prop_assert_eq!(schedule.due(run(slot)), expected.get(&slot).map(|plan| at(plan.0)));
                }
            }
            let mut left: Vec<_> = expected.into_iter().map(|(slot, plan)| (plan, slot)).collect();
            left.sort_unstable();
            for ((second, _), slot) in left {
                prop_assert_eq!(schedule.pop_due(at(1000)), Some((at(second), run(slot))));
            }
            prop_assert_eq!(schedule.next_due(), None);
        }
    }
}
