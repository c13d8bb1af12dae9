//! Applying changes of the watch list: which runs start, which go stale, and what is kept of them.

use std::num::NonZeroU32;

use super::rows::RowEntry;
use super::state::BoardState;
use super::{RunChanges, RunId, StartedRun, ToggleRow};
use crate::sources::{WatchChange, WatchDefinition};
use crate::store::SavedToggle;
use crate::toggle::{Event, EventKind, Status, Timestamp, Toggle, Watch, WatchName};

// === impl BoardState ===

impl BoardState {
    /// Applies changes of the watch list, in which each name occurs at most once.
    pub(super) fn update(&mut self, changes: &[WatchChange], now: Timestamp) -> RunChanges {
        // Allocated once, because a vector that grows to a long list takes twice its size.
        let defined = changes.iter().filter(|change| change.definition.is_some()).count();
        let mut runs = RunChanges { started: Vec::with_capacity(defined), stale: Vec::new() };
        for change in changes.iter().filter(|change| change.may_come_back) {
            self.deactivate(&change.name, now);
        }
        let removed = changes.iter().filter(|change| change.definition.is_none());
        let removed: Vec<_> = removed.filter_map(|change| self.run_of(change.name.as_str())).collect();
        self.rows.remove_from_order(&removed.iter().map(|run| run.slot).collect::<Vec<_>>());
        for run in removed {
            self.clear_slot(run, now);
            runs.stale.push(run);
        }
        let mut new = Vec::with_capacity(defined);
        self.rows.reserve(defined);
        for definition in changes.iter().filter_map(|change| change.definition.as_ref()) {
            match self.run_of(definition.watch.name.as_str()) {
                Some(run) => self.redefine(run, definition, now, &mut runs),
                None => new.push(self.define(definition, now, &mut runs)),
            }
        }
        self.rows.add_to_order(new);
        runs
    }

    /// Adds a watch whose name is not on the board. Returns its slot, which is not in the order yet.
    fn define(&mut self, definition: &WatchDefinition, now: Timestamp, runs: &mut RunChanges) -> u32 {
        let watch = &definition.watch;
        self.agents.add_watch(watch, now);
        let mut toggle = Toggle::new(watch.clone(), definition.started.unwrap_or(now));
        if let Some(newest) = self.inactive.of(&watch.name).first() {
            toggle.tally = newest.tally.clone();
        }
        let follows_another_run = self.follows_another_run(watch);
        let slot = self.take_slot();
        self.history.restore(slot, self.inactive.take_events(&watch.name));
        if follows_another_run {
            self.record_start(slot, watch, now);
        }
        let place = self.reactivate(&mut toggle, now);
        if place.is_none() {
            self.mark_unsaved(&watch.name);
        }
        runs.started.push(self.start(slot, ToggleRow::new(toggle), place, now));
        slot
    }

    /// Replaces the definition of a watch that is on the board.
    fn redefine(&mut self, old: RunId, definition: &WatchDefinition, now: Timestamp, runs: &mut RunChanges) {
        let watch = &definition.watch;
        self.agents.add_watch(watch, now);
        let Some(RowEntry { mut row, place: old_place, generation, polled }) = self.rows.take(old.slot) else { return };
        let before = row.toggle.watch.clone();
        if row.toggle.redefine(watch.clone(), definition.started.unwrap_or(now)) {
            let place = self.reactivate(&mut row.toggle, now);
            self.wake(old);
            self.record_start(old.slot, watch, now);
            // A run that comes back continues with the status that it had.
            let status = row.toggle.run.last_answer.status;
            if status != Status::Unknown {
                let kind = EventKind::status_changed(&row.toggle, Status::Unknown, status, None);
                self.history.record(old.slot, Event { at: now, kind });
            }
            runs.stale.push(old);
            runs.started.push(self.start(old.slot, row, place, now));
        } else {
            self.rows.put(old.slot, RowEntry { row, place: old_place, generation, polled });
            // The state of the agent carries the labels of the watch, which may have changed.
            self.observe_finished(old);
        }
        self.mark_unsaved(&watch.name);
        self.agents.remove_watch(&before, now);
    }

    /// Whether the events that are kept of a watch belong to another run than the one that it defines now; false if
    /// there are none.
    fn follows_another_run(&self, watch: &Watch) -> bool {
        let Some(newest) = self.inactive.of(&watch.name).first() else { return false };
        let last_started = newest.events.iter().find_map(|event| match &event.kind {
            EventKind::RunStarted { progress_id } => Some(progress_id),
            _ => None,
        });
        let is_other_run = !newest.is_run_of(watch) || last_started.is_some_and(|id| *id != watch.progress_id);
        is_other_run && !newest.events.is_empty()
    }

    /// Records that the run of a watch starts.
    pub(super) fn record_start(&mut self, slot: u32, watch: &Watch, now: Timestamp) {
        let kind = EventKind::RunStarted { progress_id: watch.progress_id.clone() };
        self.history.record(slot, Event { at: now, kind });
    }

    /// Starts a run in an empty slot. `place` is the place in the watch list that it had before.
    fn start(&mut self, slot: u32, mut row: ToggleRow, place: Option<u64>, now: Timestamp) -> StartedRun {
        self.last_place += 1;
        self.last_generation = self.last_generation.wrapping_add(1).max(1);
        let generation = NonZeroU32::new(self.last_generation).unwrap_or(NonZeroU32::MIN);
        let finished = row.toggle.run.finished.is_some();
        let watch = &row.toggle.watch;
        row.next_poll = (!finished && self.owns_agent(&watch.api, watch.agent_id)).then_some(now);
        self.rows.put(slot, RowEntry { row, place: place.unwrap_or(self.last_place), generation, polled: false });
        let run = RunId { slot, generation };
        self.observe_finished(run);
        StartedRun { run, finished }
    }

    /// Updates the agent from a run that finished before. An earlier process may have ended after it saved the run
    /// and before it saved the agent.
    fn observe_finished(&mut self, run: RunId) {
        let Some(entry) = self.entry(run) else { return };
        let Some(finish) = entry.row.toggle.run.finished else { return };
        let (toggle, place) = (entry.row.toggle.clone(), entry.place);
        self.agents.observe(&toggle.watch, &toggle.run, place, finish.at);
    }

    /// Empties the slot of a run that is no longer in the order.
    fn clear_slot(&mut self, run: RunId, now: Timestamp) {
        let Some(RowEntry { row, .. }) = self.rows.take(run.slot) else { return };
        let Toggle { watch, tally, .. } = &row.toggle;
        let events = self.history.of(run.slot).take(Self::SAVED_EVENTS_IN_TROUBLE).cloned().collect();
        self.inactive.keep_history(&watch.name, tally, events);
        self.free_slots.push(run.slot);
        self.history.clear(run.slot);
        self.mark_unsaved(&watch.name);
        self.agents.remove_watch(watch, now);
        self.wake(run);
    }

    /// Takes a free slot, or adds one.
    fn take_slot(&mut self) -> u32 {
        self.free_slots.pop().unwrap_or_else(|| {
            self.slot_count += 1;
            self.slot_count - 1
        })
    }

    /// Keeps the state of a watch's current run among the inactive runs.
    fn deactivate(&mut self, name: &WatchName, now: Timestamp) {
        let Some(entry) = self.entry_of(name.as_str()) else { return };
        let saved = SavedToggle::of(&entry.row.toggle, entry.place);
        self.agents.add_inactive_run(&saved.api, saved.agent_id);
        if let Some(oldest) = self.inactive.put(name, saved) {
            self.agents.remove_inactive_run(&oldest.api, oldest.agent_id, now);
        }
    }

    /// Restores the state of a toggle's run if the run is inactive. Returns the run's place in the watch list.
    fn reactivate(&mut self, toggle: &mut Toggle, now: Timestamp) -> Option<u64> {
        let saved = self.inactive.take(&toggle.watch)?;
        self.agents.remove_inactive_run(&saved.api, saved.agent_id, now);
        toggle.run = saved.run;
        Some(saved.place)
    }
}
