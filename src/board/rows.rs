//! The rows of all watches: cheap to share with readers while they change.

use std::num::NonZeroU32;
use std::ops::Range;
use std::sync::Arc;

use super::ToggleRow;
use crate::labels::watch_labels;

/// How many rows are copied together when one of them changes while somebody reads them.
const BLOCK: usize = 32;

/// The rows of all watches, sorted by name.
///
/// A clone shares the rows. What is changed after that is copied first, a block at a time, so a
/// reader sees everything as it was when he began, and neither he nor the writer waits.
#[derive(Debug, Clone, Default)]
pub struct ToggleRows {
    blocks: Vec<Arc<RowBlock>>,
    /// The slots that are in use, sorted by the names of their watches.
    order: Arc<Vec<u32>>,
}

/// Slots that stand together, so that who reads one after the other finds the next one near.
#[derive(Debug, Clone)]
struct RowBlock {
    entries: [Option<RowEntry>; BLOCK],
    /// The labels of the series of each slot, rendered, one after the other.
    labels: Arc<str>,
    /// Where the labels of each slot end.
    ends: [u32; BLOCK],
}

/// What is in a slot.
#[derive(Debug, Clone)]
pub(super) struct RowEntry {
    pub(super) row: ToggleRow,
    /// Which of two runs that finished before they were watched is the later one in the list.
    pub(super) place: u64,
    /// Tells the run from others that were in the slot.
    pub(super) generation: NonZeroU32,
    /// Whether a poll of the run ended in this process.
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
        all.place(slots);
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

    /// The row at this place of the order, and the labels of its series, rendered for the exposition.
    pub fn get(&self, place: usize) -> Option<(&ToggleRow, &str)> {
        let (block, within) = split(*self.order.get(place)?);
        let block = self.blocks.get(block)?;
        Some((&block.entries[within].as_ref()?.row, block.labels(within)))
    }

    /// Every row, sorted by name.
    pub fn iter(&self) -> impl Iterator<Item = &ToggleRow> {
        self.slots().filter_map(|slot| Some(&self.entry(slot)?.row))
    }

    /// Every row whose name comes after this one, sorted by name.
    pub fn iter_after(&self, name: Option<&str>) -> impl Iterator<Item = &ToggleRow> {
        let first = name.map_or(0, |name| self.place_of(name).map_or_else(|place| place, |place| place + 1));
        self.order.get(first..).unwrap_or_default().iter().filter_map(|slot| Some(&self.entry(*slot)?.row))
    }

    /// The slots that are in use, in the order of the names.
    pub(super) fn slots(&self) -> impl Iterator<Item = u32> {
        self.order.iter().copied()
    }

    /// The slot of the watch of that name.
    pub(super) fn slot_of(&self, name: &str) -> Option<u32> {
        let place = self.place_of(name).ok()?;
        self.order.get(place).copied()
    }

    pub(super) fn entry(&self, slot: u32) -> Option<&RowEntry> {
        let (block, within) = split(slot);
        self.blocks.get(block)?.entries[within].as_ref()
    }

    /// To change what is in a slot. If somebody reads it, this copies it.
    pub(super) fn entry_mut(&mut self, slot: u32) -> Option<&mut RowEntry> {
        let (block, within) = split(slot);
        Arc::make_mut(self.blocks.get_mut(block)?).entries[within].as_mut()
    }

    /// Makes room for so many more.
    pub(super) fn reserve(&mut self, many: usize) {
        self.blocks.reserve(many / BLOCK);
    }

    /// Puts an entry into a slot, with the labels of its watch. The slot keeps its place in the order or
    /// is yet to be [placed](Self::place).
    pub(super) fn put(&mut self, slot: u32, entry: RowEntry) {
        let (block, within) = split(slot);
        while self.blocks.len() <= block {
            self.blocks.push(Arc::default());
        }
        let block = Arc::make_mut(&mut self.blocks[block]);
        block.label(within, &watch_labels(&entry.row.toggle.watch));
        block.entries[within] = Some(entry);
    }

    /// Empties a slot, which must not be in the order any more.
    pub(super) fn take(&mut self, slot: u32) -> Option<RowEntry> {
        let (block, within) = split(slot);
        Arc::make_mut(self.blocks.get_mut(block)?).entries[within].take()
    }

    /// Takes up slots whose names are not in the order yet.
    pub(super) fn place(&mut self, slots: Vec<u32>) {
        if self.is_few(slots.len()) {
            for slot in slots {
                if let Err(place) = self.place_of(self.name(slot)) {
                    Arc::make_mut(&mut self.order).insert(place, slot);
                }
            }
        } else if !slots.is_empty() {
            let mut order = [&self.order[..], &slots].concat();
            // What is sorted already is merged.
            order.sort_by(|a, b| self.name(*a).cmp(self.name(*b)));
            self.order = Arc::new(order);
        }
    }

    /// Takes slots that are in use out of the order.
    pub(super) fn displace(&mut self, slots: &[u32]) {
        if self.is_few(slots.len()) {
            for slot in slots {
                if let Ok(place) = self.place_of(self.name(*slot)) {
                    Arc::make_mut(&mut self.order).remove(place);
                }
            }
        } else {
            let mut sorted = slots.to_vec();
            sorted.sort_unstable();
            Arc::make_mut(&mut self.order).retain(|slot| sorted.binary_search(slot).is_err());
        }
    }

    /// Whether moving what is behind each of so many is less work than going through all.
    fn is_few(&self, many: usize) -> bool {
        many <= self.order.len() / 256
    }

    /// Where the name is in the order, or would be.
    fn place_of(&self, name: &str) -> Result<usize, usize> {
        self.order.binary_search_by(|slot| self.name(*slot).cmp(name))
    }

    fn name(&self, slot: u32) -> &str {
        self.entry(slot).map_or("", |entry| entry.row.toggle.watch.name.as_str())
    }
}

// === impl RowBlock ===

impl Default for RowBlock {
    fn default() -> Self {
        Self { entries: [const { None }; BLOCK], labels: "".into(), ends: [0; BLOCK] }
    }
}

impl RowBlock {
    fn labels(&self, within: usize) -> &str {
        self.labels.get(self.range(within)).unwrap_or_default()
    }

    /// Where the labels of a slot are in those of the block.
    fn range(&self, within: usize) -> Range<usize> {
        let start = within.checked_sub(1).map_or(0, |before| self.ends[before]);
        start as usize..self.ends[within] as usize
    }

    /// Gives a slot its labels.
    fn label(&mut self, within: usize, labels: &str) {
        let old = self.range(within);
        let (before, after) = (self.labels.get(..old.start), self.labels.get(old.end..));
        let (before, after) = (before.unwrap_or_default(), after.unwrap_or_default());
        let whole = [before, labels, after].concat();
        // Labels of four gigabytes would show as none.
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
    fn who_reads_sees_everything_as_it_was_when_he_began() {
        let mut rows = ToggleRows::default();
        for (slot, name) in (0..).zip(["b", "a", "d"]) {
            rows.put(slot, entry(name, 0));
        }
        rows.place(vec![0, 1, 2]);
        let before = rows.clone();
        rows.entry_mut(0).unwrap().row.toggle.tally.polls = 7;
        rows.displace(&[1]);
        rows.take(1);
        rows.put(1, entry("c", 0));
        rows.place(vec![1]);
        assert_eq!(
            (names(&before), names(&rows)),
            (vec!["a".into(), "b".into(), "d".into()], vec!["b".into(), "c".into(), "d".into()])
        );
        assert_eq!((before.get(1).unwrap().0.toggle.tally.polls, rows.get(0).unwrap().0.toggle.tally.polls), (0, 7));
    }

    proptest! {
        #[test]
        fn the_order_is_that_of_the_names_however_many_come_and_go(
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
                    rows.place(placed);
                } else {
                    let gone: Vec<_> = named.filter_map(|name| expected.remove(&name)).collect();
                    rows.displace(&gone);
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
