//! What is known of runs that are not on the list now and may come back.

use std::collections::BTreeMap;
use std::ops::Bound;

use crate::store::SavedToggle;
use crate::toggle::{Event, Tally, Watch, WatchName};

/// What is known of runs that are not on the list now and may come back: what an earlier process
/// saved, and what another source's watch was put in the place of.
///
/// Each run has a place of its own, so that what is remembered of one never replaces another.
#[derive(Debug, Default)]
pub(super) struct Remembered {
    /// By name, and the newest first. No list is empty.
    runs: BTreeMap<WatchName, Vec<SavedToggle>>,
}

// === impl Remembered ===

impl Remembered {
    /// The most runs that are remembered under one name.
    pub(super) const MOST: usize = 8;

    pub(super) fn restored(runs: BTreeMap<WatchName, Vec<SavedToggle>>) -> Self {
        Self { runs }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &SavedToggle> {
        self.runs.values().flatten()
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut SavedToggle> {
        self.runs.values_mut().flatten()
    }

    pub(super) fn all_names(&self) -> impl Iterator<Item = &WatchName> {
        self.runs.keys()
    }

    /// Those under this name, the newest first.
    pub(super) fn of(&self, name: &WatchName) -> &[SavedToggle] {
        self.runs.get(name).map(Vec::as_slice).unwrap_or_default()
    }

    /// What the watch of this name had counted.
    pub(super) fn tally(&self, name: &WatchName) -> Option<&Tally> {
        Some(&self.of(name).first()?.tally)
    }

    /// The watch of this name is gone, with what it had counted and what had happened to it: when one of its
    /// runs comes back, both go on from there.
    pub(super) fn go_on(&mut self, name: &WatchName, tally: &Tally, events: Vec<Event>) {
        if let Some(newest) = self.runs.get_mut(name).and_then(|runs| runs.first_mut()) {
            newest.tally = tally.clone();
            newest.events = events;
        }
    }

    /// Takes out what had happened to the watch of this name, the newest first.
    pub(super) fn take_events(&mut self, name: &WatchName) -> Vec<Event> {
        let newest = self.runs.get_mut(name).and_then(|runs| runs.first_mut());
        newest.map(|newest| std::mem::take(&mut newest.events)).unwrap_or_default()
    }

    /// Remembers a run that is not among those of its name. Returns the one that is forgotten for it.
    pub(super) fn put(&mut self, name: &WatchName, saved: SavedToggle) -> Option<SavedToggle> {
        let runs = self.runs.entry(name.clone()).or_default();
        runs.insert(0, saved);
        (runs.len() > Self::MOST).then(|| runs.pop()).flatten()
    }

    /// Takes out the run that is in this watch.
    pub(super) fn take(&mut self, watch: &Watch) -> Option<SavedToggle> {
        let runs = self.runs.get_mut(&watch.name)?;
        let at = runs.iter().position(|saved| saved.is_run_of(watch))?;
        let taken = runs.remove(at);
        if runs.is_empty() {
            self.runs.remove(&watch.name);
        }
        Some(taken)
    }

    /// Takes out the runs under this name that are not to be kept.
    pub(super) fn forget(
        &mut self,
        name: &WatchName,
        keep: impl Fn(&WatchName, &SavedToggle) -> bool,
    ) -> Vec<SavedToggle> {
        let Some(runs) = self.runs.get_mut(name) else { return Vec::new() };
        let forgotten = runs.extract_if(.., |saved| !keep(name, saved)).collect();
        if runs.is_empty() {
            self.runs.remove(name);
        }
        forgotten
    }

    /// So many names at most, those that come next after `last`, sorted.
    pub(super) fn names(&self, last: Option<&WatchName>, most: usize) -> Vec<WatchName> {
        let from = last.map_or(Bound::Unbounded, Bound::Excluded);
        self.runs.range::<WatchName, _>((from, Bound::Unbounded)).take(most).map(|(name, _)| name.clone()).collect()
    }
}
