//! A set whose elements take turns.

use std::collections::BTreeSet;
use std::ops::Bound;

/// A set whose elements are taken in turn, so that none waits for ever while others come back again and again.
#[derive(Debug)]
pub(super) struct Rotation<T> {
    elements: BTreeSet<T>,
    /// The element that was taken last.
    last: Option<T>,
}

// === impl Rotation ===

impl<T> Default for Rotation<T> {
    fn default() -> Self {
        Self { elements: BTreeSet::new(), last: None }
    }
}

impl<T: Ord + Clone> Rotation<T> {
    /// Adds an element, if it is not there.
    pub(super) fn insert(&mut self, element: T) {
        self.elements.insert(element);
    }

    /// Takes the next elements, at most `most`.
    pub(super) fn take(&mut self, most: usize) -> Vec<T> {
        let after = self.last.as_ref().map_or(Bound::Unbounded, Bound::Excluded);
        let mut taken: Vec<T> = self.elements.range((after, Bound::Unbounded)).take(most).cloned().collect();
        let more = most - taken.len();
        if let Some(last) = &self.last {
            taken.extend(self.elements.range(..=last).take(more).cloned());
        }
        for element in &taken {
            self.elements.remove(element);
        }
        self.last = taken.last().cloned().or_else(|| self.last.take());
        taken
    }

    /// Takes the elements that match.
    pub(super) fn take_matching(&mut self, matches: impl Fn(&T) -> bool) -> Vec<T> {
        self.elements.extract_if(.., |element| matches(element)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_element_has_its_turn_however_often_others_come_back() {
        let mut rotation = Rotation::default();
        let mut turn = |come: &[u32], most| {
            for element in come {
                rotation.insert(*element);
            }
            rotation.take(most)
        };
        assert_eq!(turn(&[3, 1, 2], 2), [1, 2]);
        assert_eq!(turn(&[1, 2], 2), [3, 1]);
        assert_eq!(turn(&[1, 0], 9), [2, 0, 1]);
        assert_eq!(turn(&[], 9), [0; 0]);
        assert_eq!(turn(&[0, 5], 1), [5]);
    }
}
