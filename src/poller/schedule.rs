//! The due-time heap: which runs are due, earliest first, and in order where the times are equal.

use std::time::{Duration, Instant};

use crate::board::RunId;

/// The runs that wait for their time, each with at most one plan.
///
/// A binary heap that knows where each run is in it, so that a plan is moved or taken out in place,
/// and nothing of it is left behind.
#[derive(Debug)]
pub struct Schedule {
    heap: Vec<Plan>,
    /// Where in the heap the run of a slot is, or [`NOWHERE`].
    places: Vec<u32>,
    /// Plans so far: what was planned first comes out first among equals.
    count: u64,
    /// What times are counted from.
    epoch: Instant,
}

/// Ordered by time, and then by number, which no two plans share.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Plan {
    /// Nanoseconds from the epoch on.
    due: u64,
    number: u64,
    run: RunId,
}

const NOWHERE: u32 = u32::MAX;

// === impl Schedule ===

impl Schedule {
    /// A schedule for times from `epoch` on; what is due before is due then.
    pub fn new(epoch: Instant) -> Self {
        Self { heap: Vec::new(), places: Vec::new(), count: 0, epoch }
    }

    /// Makes room for so many more plans.
    pub fn reserve(&mut self, many: usize) {
        self.heap.reserve(many);
        self.places.reserve(many);
    }

    /// Plans `run` for `due`. Another plan for its slot no longer holds.
    pub fn plan(&mut self, due: Instant, run: RunId) {
        self.cancel(run);
        if self.places.len() <= run.slot() {
            self.places.resize(run.slot() + 1, NOWHERE);
        }
        let due = u64::try_from(due.saturating_duration_since(self.epoch).as_nanos()).unwrap_or(u64::MAX);
        self.heap.push(Plan { due, number: self.count, run });
        self.count += 1;
        self.rise(self.heap.len() - 1);
    }

    /// When the run is due; `None` if it is not planned.
    pub fn due(&self, run: RunId) -> Option<Instant> {
        let plan = self.heap.get(self.place(run)?)?;
        Some(self.time(plan))
    }

    /// Drops the plan for a run, if there is one.
    pub fn cancel(&mut self, run: RunId) {
        if let Some(place) = self.place(run) {
            self.take(place);
        }
    }

    /// Plans `run` for `due` if it is planned at all, and says whether it was; one that is queued
    /// or under way is not.
    pub fn replan(&mut self, due: Instant, run: RunId) -> bool {
        let planned = self.place(run).is_some();
        if planned {
            self.plan(due, run);
        }
        planned
    }

    /// The earliest run and when it was due, if that is `now` or before.
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

    fn place(&self, run: RunId) -> Option<usize> {
        self.places.get(run.slot()).filter(|place| **place != NOWHERE).map(|place| *place as usize)
    }

    /// Takes out the plan at a place of the heap.
    fn take(&mut self, place: usize) -> Option<Plan> {
        let last = self.heap.pop()?;
        let taken = match self.heap.get_mut(place) {
            Some(plan) => std::mem::replace(plan, last),
            None => last,
        };
        self.places[taken.run.slot()] = NOWHERE;
        if place < self.heap.len() {
            // What came from the end may belong to either side.
            let place = self.rise(place);
            self.sink(place);
        }
        Some(taken)
    }

    /// Moves the plan at a place up to where it belongs, and says where that is.
    fn rise(&mut self, mut place: usize) -> usize {
        let plan = self.heap[place];
        while place > 0 {
            let parent = (place - 1) / 2;
            if self.heap[parent] <= plan {
                break;
            }
            self.put(place, self.heap[parent]);
            place = parent;
        }
        self.put(place, plan);
        place
    }

    /// Moves the plan at a place down to where it belongs.
    fn sink(&mut self, mut place: usize) {
        let plan = self.heap[place];
        loop {
            let left = 2 * place + 1;
            let children = self.heap.get(left..(left + 2).min(self.heap.len())).unwrap_or_default();
            let Some((child, first)) = children.iter().enumerate().min_by_key(|(_, child)| **child) else { break };
            if plan <= *first {
                break;
            }
            self.put(place, *first);
            place = left + child;
        }
        self.put(place, plan);
    }

    fn put(&mut self, place: usize, plan: Plan) {
        self.heap[place] = plan;
        // There are not as many slots.
        self.places[plan.run.slot()] = u32::try_from(place).unwrap_or(NOWHERE);
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
    fn a_plan_that_is_dropped_never_comes_and_what_was_replaced_takes_no_room() {
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
        fn whatever_is_planned_replanned_and_dropped_the_rest_comes_out_by_time(
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
