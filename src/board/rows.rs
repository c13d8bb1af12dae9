//! The rows of all watches. Readers share them cheaply, even while they change.

use std::num::NonZeroU32;
use std::ops::Range;
use std::sync::Arc;

use super::ToggleRow;
use crate::labels::watch_labels;
use crate::toggle::{Shard, ShardSet};

/// How many rows are copied together when one of them changes while somebody reads them.
const BLOCK: usize = 32;

/// The rows of all watches, sorted by name.
///
/// A clone shares the rows. A block of rows is copied before a row in it changes, so a clone never changes, and
/// neither its reader nor the writer waits.
#[derive(Debug, Clone, Default)]
pub struct ToggleRows {
    blocks: Vec<Arc<RowBlock>>,
    /// The used slots, sorted by the names of their watches.
    order: Arc<Vec<u32>>,
}

/// Consecutive slots, which are next to each other in memory.
#[derive(Debug, Clone)]
struct RowBlock {
    entries: [Option<RowEntry>; BLOCK],
    /// The shard of the watch in each slot that is used.
    shards: [Option<Shard>; BLOCK],
    /// The labels of the series of each slot as text, one after the other.
    labels: Arc<str>,
    /// Where the labels of each slot end in that text.
    ends: [u32; BLOCK],
}

/// The content of a slot.
#[derive(Debug, Clone)]
pub(super) struct RowEntry {
    pub(super) row: ToggleRow,
    /// The place in the watch list. It decides which of two runs is newer if both finished before they were watched.
    pub(super) place: u64,
    /// Distinguishes the run from others that were in the slot.
    pub(super) generation: NonZeroU32,
    /// Whether a poll of the run has ended in this process.
    pub(super) polled: bool,
}

// === impl ToggleRows ===

impl FromIterator<ToggleRow> for ToggleRows {
    /// The names must be unique.
    fn from_iter<I: IntoIterator<Item = ToggleRow>>(rows: I) -> Self {
        let mut all = Self::default();
        let mut slots = Vec::new();
        for (slot, row) in (0..).zip(rows) {
            all.put(slot, RowEntry { row, place: 0, generation: NonZeroU32::MIN, polled: false });
            slots.push(slot);
        }
        all.add_to_order(slots);
        all
    }
}

impl ToggleRows {
    /// How many watches there are.
    pub fn len(&self) -> usize {
        self.order.len()
    }

    /// Whether there is no watch.
    pub fn is_empty(&self) -> bool {
        self.order.is_empty()
    }

    /// The row at an index of the order, and the labels of its series as text.
    pub fn get(&self, place: usize) -> Option<(&ToggleRow, &str)> {
        let (block, within) = split(*self.order.get(place)?);
        let block = self.blocks.get(block)?;
        Some((&block.entries[within].as_ref()?.row, block.labels(within)))
    }

    /// Every row, sorted by name.
    pub fn iter(&self) -> impl Iterator<Item = &ToggleRow> {
        self.slots().filter_map(|slot| Some(&self.entry(slot)?.row))
    }

    /// Every row whose name comes after `name`, sorted by name.
    pub fn iter_after(&self, name: Option<&str>) -> impl Iterator<Item = &ToggleRow> {
        let first = name.map_or(0, |name| self.index_of(name).map_or_else(|place| place, |place| place + 1));
        self.order.get(first..).unwrap_or_default().iter().filter_map(|slot| Some(&self.entry(*slot)?.row))
    }

    /// The rows of the watches in these shards.
    #[must_use]
    pub fn in_shards(mut self, shards: ShardSet) -> Self {
        if shards != ShardSet::ALL {
            let order = self.slots().filter(|slot| self.shard(*slot).is_some_and(|shard| shards.contains(shard)));
            self.order = Arc::new(order.collect());
        }
        self
    }

    /// The shard of the watch in a used slot.
    pub(super) fn shard(&self, slot: u32) -> Option<Shard> {
        let (block, within) = split(slot);
        self.blocks.get(block)?.shards[within]
    }

    /// The used slots, sorted by name.
    pub(super) fn slots(&self) -> impl Iterator<Item = u32> {
        self.order.iter().copied()
    }

    /// The slot of the watch with this name.
    pub(super) fn slot_of(&self, name: &str) -> Option<u32> {
        let place = self.index_of(name).ok()?;
        self.order.get(place).copied()
    }

    pub(super) fn entry(&self, slot: u32) -> Option<&RowEntry> {
        let (block, within) = split(slot);
        self.blocks.get(block)?.entries[within].as_ref()
    }

    /// The content of a slot, to change it. Its block is copied if a clone shares it.
    pub(super) fn entry_mut(&mut self, slot: u32) -> Option<&mut RowEntry> {
        let (block, within) = split(slot);
        Arc::make_mut(self.blocks.get_mut(block)?).entries[within].as_mut()
    }

    /// Reserves memory for more rows.
    pub(super) fn reserve(&mut self, many: usize) {
        self.blocks.reserve(many / BLOCK);
    }

    /// Puts an entry into a slot, with the labels of its watch. The slot keeps its place in the order or
    /// is yet to be [added](Self::add_to_order).
    pub(super) fn put(&mut self, slot: u32, entry: RowEntry) {
        let (block, within) = split(slot);
        while self.blocks.len() <= block {
            self.blocks.push(Arc::default());
        }
        let block = Arc::make_mut(&mut self.blocks[block]);
        let watch = &entry.row.toggle.watch;
        block.label(within, &watch_labels(watch));
        block.shards[within] = Some(Shard::of(&watch.api, watch.agent_id));
        block.entries[within] = Some(entry);
    }

    /// Empties a slot, which must not be in the order any more.
    pub(super) fn take(&mut self, slot: u32) -> Option<RowEntry> {
        let (block, within) = split(slot);
        Arc::make_mut(self.blocks.get_mut(block)?).entries[within].take()
    }

    /// Adds slots to the order, which must not contain their names yet.
    pub(super) fn add_to_order(&mut self, slots: Vec<u32>) {
        if self.is_few(slots.len()) {
            for slot in slots {
                if let Err(place) = self.index_of(self.name(slot)) {
                    Arc::make_mut(&mut self.order).insert(place, slot);
                }
            }
        } else if !slots.is_empty() {
            let mut order = [&self.order[..], &slots].concat();
            // The sort is adaptive: it merges runs that are already sorted.
            order.sort_by(|a, b| self.name(*a).cmp(self.name(*b)));
            self.order = Arc::new(order);
        }
    }

    /// Removes used slots from the order.
    pub(super) fn remove_from_order(&mut self, slots: &[u32]) {
        if self.is_few(slots.len()) {
            for slot in slots {
                if let Ok(place) = self.index_of(self.name(*slot)) {
                    Arc::make_mut(&mut self.order).remove(place);
                }
            }
        } else {
            let mut sorted = slots.to_vec();
            sorted.sort_unstable();
            Arc::make_mut(&mut self.order).retain(|slot| sorted.binary_search(slot).is_err());
        }
    }

    /// Whether inserting or removing `many` slots one by one is less work than rebuilding the order.
    fn is_few(&self, many: usize) -> bool {
        many <= self.order.len() / 256
    }

    /// The index of a name in the order, or the index at which it would be inserted.
    fn index_of(&self, name: &str) -> Result<usize, usize> {
        self.order.binary_search_by(|slot| self.name(*slot).cmp(name))
    }

    fn name(&self, slot: u32) -> &str {
        self.entry(slot).map_or("", |entry| entry.row.toggle.watch.name.as_str())
    }
}

// === impl RowBlock ===

impl Default for RowBlock {
    fn default() -> Self {
        Self { entries: [const { None }; BLOCK], shards: [None; BLOCK], labels: "".into(), ends: [0; BLOCK] }
    }
}

impl RowBlock {
    fn labels(&self, within: usize) -> &str {
        self.labels.get(self.range(within)).unwrap_or_default()
    }

    /// Where the labels of a slot are in the text of the block.
    fn range(&self, within: usize) -> Range<usize> {
        let start = within.checked_sub(1).map_or(0, |before| self.ends[before]);
        start as usize..self.ends[within] as usize
    }

    /// Sets the labels of a slot.
    fn label(&mut self, within: usize, labels: &str) {
        let old = self.range(within);
        let (before, after) = (self.labels.get(..old.start), self.labels.get(old.end..));
        let (before, after) = (before.unwrap_or_default(), after.unwrap_or_default());
        let whole = [before, labels, after].concat();
        // Labels of more than four gigabytes in a block are not stored.
        if self.labels(within) == labels || u32::try_from(whole.len()).is_err() {
            return;
        }
        let [new, old] = [labels.len(), old.len()].map(|len| u32::try_from(len).unwrap_or(u32::MAX));
        for end in &mut self.ends[within..] {
            *end = end.saturating_sub(old).saturating_add(new);
        }
        self.labels = whole.into();
    }
}

fn split(slot: u32) -> (usize, usize) {
    let slot = slot as usize;
    (slot / BLOCK, slot % BLOCK)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;
    use crate::toggle::Toggle;
    use crate::toggle::sample::{at, watch};

    fn entry(name: &str, place: u64) -> RowEntry {
        let row = ToggleRow::new(Toggle::new(Arc::new(watch(name, "p")), at(0)));
        RowEntry { row, place, generation: NonZeroU32::MIN, polled: false }
    }

    fn names(rows: &ToggleRows) -> Vec<String> {
        rows.iter().map(|row| row.toggle.watch.name.to_string()).collect()
    }

    #[test]
    fn a_clone_stays_as_it_is_while_rows_change() {
        let mut rows = ToggleRows::default();
        for (slot, name) in (0..).zip(["b", "a", "d"]) {
            rows.put(slot, entry(name, 0));
        }
        rows.add_to_order(vec![0, 1, 2]);
        let before = rows.clone();
        rows.entry_mut(0).unwrap().row.toggle.tally.polls = 7;
        rows.remove_from_order(&[1]);
        rows.take(1);
        rows.put(1, entry("c", 0));
        rows.add_to_order(vec![1]);
        assert_eq!(
            (names(&before), names(&rows)),
            (vec!["a".into(), "b".into(), "d".into()], vec!["b".into(), "c".into(), "d".into()])
        );
        assert_eq!((before.get(1).unwrap().0.toggle.tally.polls, rows.get(0).unwrap().0.toggle.tally.polls), (0, 7));
    }

    proptest! {
        #[test]
        fn rows_stay_sorted_by_name_however_many_are_added_and_removed(
            steps in proptest::collection::vec((proptest::collection::btree_set(0u32..900, 0..300), any::<bool>()), 1..12)
        ) {
            let (mut rows, mut expected, mut free) = (ToggleRows::default(), BTreeMap::new(), Vec::new());
            for (numbers, come) in steps {
                let named = numbers.iter().map(|n| format!("w{}", n * 7919 % 900));
                if come {
                    let mut placed = Vec::new();
                    for name in named.filter(|name| !expected.contains_key(name)).collect::<Vec<_>>() {
                        let slot = free.pop().unwrap_or_else(|| u32::try_from(expected.len()).unwrap());
                        rows.put(slot, entry(&name, slot.into()));
                        expected.insert(name, slot);
                        placed.push(slot);
                    }
                    rows.add_to_order(placed);
                } else {
                    let gone: Vec<_> = named.filter_map(|name| expected.remove(&name)).collect();
                    rows.remove_from_order(&gone);
                    for slot in gone {
                        prop_assert!(rows.take(slot).is_some());
                        free.push(slot);
                    }
                }
                prop_assert_eq!(names(&rows), expected.keys().cloned().collect::<Vec<_>>());
                for (name, slot) in &expected {
                    prop_assert_eq!(rows.slot_of(name), Some(*slot));
                }
                for place in 0..rows.len() {
                    let (row, labels) = rows.get(place).unwrap();
                    prop_assert_eq!(labels, watch_labels(&row.toggle.watch));
                }
                prop_assert_eq!(rows.slot_of("nobody"), None);
            }
        }
    }
}
