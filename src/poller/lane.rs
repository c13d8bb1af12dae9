//! A lane: polls that are due and wait until the budget lets them start.

use std::collections::{HashSet, VecDeque};
use std::hash::Hash;
use std::time::Instant;

/// Polls that are due, in the order in which they became due.
#[derive(Debug)]
pub(super) struct Lane<T> {
    /// Each with its due time. Some of them may have been removed.
    due: VecDeque<(Instant, T)>,
    /// Those that were not removed.
    waiting: HashSet<T>,
}

// === impl Lane ===

impl<T> Default for Lane<T> {
    fn default() -> Self {
        Self { due: VecDeque::new(), waiting: HashSet::new() }
    }
}

impl<T: Copy + Eq + Hash> Lane<T> {
    /// How many removed polls may stay in a short lane.
    const SPARE: usize = 64;

    /// How many polls wait.
    pub(super) fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Adds a poll that is due since `due`.
    pub(super) fn push(&mut self, due: Instant, poll: T) {
        self.waiting.insert(poll);
        self.due.push_back((due, poll));
    }

    /// Removes a poll. It may stay in memory for a while, because searching a long lane takes long.
    pub(super) fn remove(&mut self, poll: T) {
        if self.waiting.remove(&poll) && self.due.len() > 2 * self.waiting.len() + Self::SPARE {
            self.due.retain(|(_, poll)| self.waiting.contains(poll));
        }
    }

    /// The first poll and its due time.
    pub(super) fn first(&mut self) -> Option<(Instant, T)> {
        loop {
            let (due, poll) = *self.due.front()?;
            if self.waiting.contains(&poll) {
                return Some((due, poll));
            }
            self.due.pop_front();
        }
    }

    /// Takes out the first poll, and frees the memory of a long lane that is empty now.
    pub(super) fn pop(&mut self) {
        if let Some((_, poll)) = self.first() {
            self.due.pop_front();
            self.waiting.remove(&poll);
        }
        if self.waiting.is_empty() && self.due.capacity() > Self::SPARE {
            *self = Self::default();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn polls_come_out_in_order_without_those_that_were_removed() {
        let (mut lane, now) = (Lane::default(), Instant::now());
        (0..5).for_each(|poll| lane.push(now, poll));
        for poll in [0, 3, 9] {
            lane.remove(poll);
        }
        let mut out = Vec::new();
        while let Some((_, poll)) = lane.first() {
            out.push(poll);
            lane.pop();
        }
        assert_eq!((out, lane.len()), (vec![1, 2, 4], 0));
    }

    #[test]
    fn removed_polls_do_not_pile_up() {
        let (mut lane, now) = (Lane::default(), Instant::now());
        for poll in 0..10_000 {
            lane.push(now, poll);
            lane.remove(poll);
        }
        assert!(lane.due.len() <= Lane::<i32>::SPARE + 1, "{}", lane.due.len());
        (0..1000).for_each(|poll| lane.push(now, poll));
        (0..1000).for_each(|_| lane.pop());
        assert_eq!(lane.due.capacity(), 0);
    }
}
