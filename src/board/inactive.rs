//! The state of runs that are not on the watch list at present and may come back.

use std::collections::BTreeMap;
use std::ops::Bound;

use crate::store::SavedToggle;
use crate::toggle::{Event, Tally, Watch, WatchName};

/// The state of runs that are not on the watch list at present and may come back: those that an earlier process
/// saved, and those whose watch was replaced by one of another source.
///
/// Each run is stored separately, so that the state of one never replaces that of another.
#[derive(Debug, Default)]
pub(super) struct InactiveRuns {
    /// By name, the newest first. No list is empty.
    runs: BTreeMap<WatchName, Vec<SavedToggle>>,
}

// === impl InactiveRuns ===

impl InactiveRuns {
    /// How many runs are kept under one name.
    pub(super) const MAX_PER_NAME: usize = 8;

    pub(super) fn restored(runs: BTreeMap<WatchName, Vec<SavedToggle>>) -> Self {
        Self { runs }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &SavedToggle> {
        self.runs.values().flatten()
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut SavedToggle> {
        self.runs.values_mut().flatten()
    }

    pub(super) fn names(&self) -> impl Iterator<Item = &WatchName> {
        self.runs.keys()
    }

    /// The next names after `last`, at most `most`, sorted.
    pub(super) fn names_after(&self, last: Option<&WatchName>, most: usize) -> Vec<WatchName> {
        let from = last.map_or(Bound::Unbounded, Bound::Excluded);
        self.runs.range::<WatchName, _>((from, Bound::Unbounded)).take(most).map(|(name, _)| name.clone()).collect()
    }

    /// The runs under a name, the newest first.
    pub(super) fn of(&self, name: &WatchName) -> &[SavedToggle] {
        self.runs.get(name).map(Vec::as_slice).unwrap_or_default()
    }

    /// Keeps the tally and the events of a removed watch, in case one of its runs comes back.
    pub(super) fn keep_history(&mut self, name: &WatchName, tally: &Tally, events: Vec<Event>) {
        if let Some(newest) = self.newest_mut(name) {
            newest.tally = tally.clone();
            newest.events = events;
        }
    }

    /// Takes the events of a watch, the newest first.
    pub(super) fn take_events(&mut self, name: &WatchName) -> Vec<Event> {
        self.newest_mut(name).map(|newest| std::mem::take(&mut newest.events)).unwrap_or_default()
    }

    /// Adds a run that is not among those of its name. Returns the oldest one if there are too many.
    pub(super) fn put(&mut self, name: &WatchName, saved: SavedToggle) -> Option<SavedToggle> {
        let runs = self.runs.entry(name.clone()).or_default();
        runs.insert(0, saved);
        (runs.len() > Self::MAX_PER_NAME).then(|| runs.pop()).flatten()
    }

    /// Replaces the runs under a name, and returns those that were there.
    pub(super) fn replace(&mut self, name: &WatchName, runs: Vec<SavedToggle>) -> Vec<SavedToggle> {
        let old = if runs.is_empty() { self.runs.remove(name) } else { self.runs.insert(name.clone(), runs) };
        old.unwrap_or_default()
    }

    /// Takes the run that a watch defines.
    pub(super) fn take(&mut self, watch: &Watch) -> Option<SavedToggle> {
        let runs = self.runs.get_mut(&watch.name)?;
        let at = runs.iter().position(|saved| saved.is_run_of(watch))?;
        let taken = runs.remove(at);
        if runs.is_empty() {
            self.runs.remove(&watch.name);
        }
        Some(taken)
    }

    /// Removes the runs under a name for which `keep` returns false.
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

    fn newest_mut(&mut self, name: &WatchName) -> Option<&mut SavedToggle> {
        self.runs.get_mut(name)?.first_mut()
    }
}
