//! A set of runs.

use crate::board::RunId;

/// A set of runs, of which there is at most one for each slot. It takes four bytes a slot, as nearly all
/// slots are in it now and then.
#[derive(Debug, Default)]
pub(super) struct RunSet {
    /// The generation of the run that is in, by slot; 0 for none.
    generations: Vec<u32>,
    len: usize,
}

// === impl RunSet ===

impl RunSet {
    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len == 0
    }

    pub(super) fn contains(&self, run: RunId) -> bool {
        self.generations.get(run.slot()) == Some(&run.generation())
    }

    /// Puts a run in, in the place of another one in its slot.
    pub(super) fn insert(&mut self, run: RunId) {
        if self.generations.len() <= run.slot() {
            self.generations.resize(run.slot() + 1, 0);
        }
        let before = std::mem::replace(&mut self.generations[run.slot()], run.generation());
        self.len += usize::from(before == 0);
    }

    /// Takes a run out, and says whether it was in.
    pub(super) fn remove(&mut self, run: RunId) -> bool {
        let is_in = self.contains(run);
        if is_in {
            self.generations[run.slot()] = 0;
            self.len -= 1;
        }
        is_in
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_run_that_was_put_in_last_is_in_its_slot() {
        let mut set = RunSet::default();
        let [old, new, other] = [(3, 1), (3, 2), (0, 1)].map(|(slot, generation)| RunId::of(slot, generation));
        assert!(!set.contains(old) && !set.remove(old));
        set.insert(old);
        set.insert(old);
        set.insert(other);
        assert_eq!((set.len(), set.contains(old), set.contains(new)), (2, true, false));
        set.insert(new);
        assert_eq!((set.len(), set.contains(old), set.remove(old)), (2, false, false));
        assert!(set.remove(new) && set.remove(other) && set.is_empty());
    }
}
