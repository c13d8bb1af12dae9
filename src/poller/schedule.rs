//! The due-time heap: which runs are due, earliest first, and in order where the times are equal.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Instant;

/// Things with the time at which each is due.
#[derive(Debug)]
pub(super) struct Schedule<T> {
    heap: BinaryHeap<Reverse<Entry<T>>>,
    /// Entries so far: what was put in first comes out first among equals.
    count: u64,
}

#[derive(Debug)]
struct Entry<T> {
    due: Instant,
    number: u64,
    thing: T,
}

// === impl Schedule ===

impl<T> Schedule<T> {
    pub(super) fn new() -> Self {
        Self { heap: BinaryHeap::new(), count: 0 }
    }

    /// Plans `thing` for `due`.
    pub(super) fn plan(&mut self, due: Instant, thing: T) {
        self.heap.push(Reverse(Entry { due, number: self.count, thing }));
        self.count += 1;
    }

    /// The earliest thing and when it was due, if that is `now` or before.
    pub(super) fn pop_due(&mut self, now: Instant) -> Option<(Instant, T)> {
        self.next_due().filter(|due| *due <= now)?;
        self.heap.pop().map(|Reverse(entry)| (entry.due, entry.thing))
    }

    /// When the earliest thing is due.
    pub(super) fn next_due(&self) -> Option<Instant> {
        self.heap.peek().map(|Reverse(entry)| entry.due)
    }
}

// === impl Entry ===

impl<T> Entry<T> {
    fn key(&self) -> (Instant, u64) {
        (self.due, self.number)
    }
}

impl<T> PartialEq for Entry<T> {
    fn eq(&self, other: &Self) -> bool {
        self.key() == other.key()
    }
}

impl<T> Eq for Entry<T> {}

impl<T> PartialOrd for Entry<T> {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl<T> Ord for Entry<T> {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.key().cmp(&other.key())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn nothing_is_due_before_its_time() {
        let start = Instant::now();
        let mut schedule = Schedule::new();
        assert_eq!((schedule.next_due(), schedule.pop_due(start)), (None, None));
        schedule.plan(start + Duration::from_secs(1), 'a');
        assert_eq!(schedule.pop_due(start), None);
        assert_eq!(schedule.next_due(), Some(start + Duration::from_secs(1)));
        assert_eq!(schedule.pop_due(start + Duration::from_secs(1)).map(|(_, thing)| thing), Some('a'));
    }

    proptest! {
        #[test]
        fn things_come_out_by_time_and_then_in_the_order_they_were_planned(
            delays in proptest::collection::vec(0u64..5, 0..50)
        ) {
            let start = Instant::now();
            let mut schedule = Schedule::new();
            for (number, delay) in delays.iter().enumerate() {
                schedule.plan(start + Duration::from_secs(*delay), number);
            }
            let out: Vec<_> = std::iter::from_fn(|| schedule.pop_due(start + Duration::from_secs(9)))
                .map(|(due, number)| ((due - start).as_secs(), number))
                .collect();
            let mut expected: Vec<_> = delays.iter().copied().zip(0..).collect();
            expected.sort_unstable();
            prop_assert_eq!(out, expected);
        }
    }
}
