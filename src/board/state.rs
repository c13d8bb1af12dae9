//! What the board holds, and how it changes as a whole.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::num::NonZeroU32;
use std::sync::Arc;

use tokio::sync::Notify;

use super::agents::Agents;
use super::history::History;
use super::remembered::Remembered;
use super::rows::{RowEntry, ToggleRows};
use super::{AgentKey, RunChanges, RunId, StartedRun, ToggleRow, UnsavedChanges};
use crate::sources::{WatchChange, WatchDefinition};
use crate::store::SavedToggle;
use crate::toggle::{
    AgentId, AgentMock, ApiName, ClockJump, Event, EventKind, Outcome, Standing, Status, Text, Timestamp, Toggle,
    Watch, WatchName,
};

#[derive(Debug, Default)]
pub(super) struct BoardState {
    rows: ToggleRows,
    /// Slots that were used, and that no watch uses now.
    free: Vec<u32>,
    /// Slots so far.
    slots: u32,
    pub(super) agents: Agents,
    pub(super) history: History,
    /// The place in the watch list that was last given.
    places: u64,
    /// The last generation that was given. A stale id can only mean another run if this wraps around and
    /// that run is in the same slot.
    generation: u32,
    /// Messages that runs showed lately, so that those that say the same share one.
    messages: VecDeque<Text>,
    /// Who waits for a run to finish, or for its end otherwise.
    waiting: HashMap<RunId, Arc<Notify>>,
    remembered: Remembered,
    /// What changed since it was saved; `None` if nothing is ever saved.
    changed: Option<Changed>,
}

#[derive(Debug, Default)]
struct Changed {
    toggles: BTreeSet<WatchName>,
    agents: BTreeSet<AgentKey>,
}

// === impl BoardState ===

impl BoardState {
    /// How many messages are looked through.
    const MESSAGES: usize = 8;

    /// A state that remembers what an earlier process saved, and says what is to be saved.
    pub(super) fn restored(
        toggles: BTreeMap<WatchName, Vec<SavedToggle>>,
        agents: impl IntoIterator<Item = (AgentKey, AgentMock)>,
    ) -> Self {
        let mut agents = Agents::restored(agents);
        let remembered = Remembered::restored(toggles);
        remembered.iter().for_each(|saved| agents.remembered(&saved.api, saved.agent_id));
        Self {
            // What begins now comes after all that is remembered.
            places: remembered.iter().map(|saved| saved.place).chain(agents.newest_place()).max().unwrap_or_default(),
            agents,
            remembered,
            changed: Some(Changed::default()),
            ..Self::default()
        }
    }

    /// Moves every time with the clock.
    pub(super) fn shift_times(&mut self, jump: ClockJump) {
        let moved = |time: Timestamp| time.moved(jump);
        let slots: Vec<_> = self.rows.slots().collect();
        for slot in slots {
            if let Some(RowEntry { row, .. }) = self.rows.entry_mut(slot) {
                row.toggle.map_times(moved);
                row.next_poll = row.next_poll.map(moved);
            }
        }
        self.remembered.iter_mut().for_each(|saved| saved.map_times(moved));
        self.history.map_times(moved);
        let agents = self.agents.map_times(moved);
        if let Some(changed) = &mut self.changed {
            changed.agents.extend(agents);
            changed.toggles.extend(self.rows.iter().map(|row| row.toggle.watch.name.clone()));
            changed.toggles.extend(self.remembered.all_names().cloned());
        }
    }

    /// Each name is in the changes once at most.
    pub(super) fn update(&mut self, changes: &[WatchChange], now: Timestamp) -> RunChanges {
        // Of a long list, what it would grow through would be as much again.
        let coming = changes.iter().filter(|change| change.now.is_some()).count();
        let mut updated = RunChanges { started: Vec::with_capacity(coming), stale: Vec::new() };
        for change in changes.iter().filter(|change| change.may_come_back) {
            self.remember(&change.name, now);
        }
        let gone = changes.iter().filter(|change| change.now.is_none());
        let gone: Vec<_> = gone.filter_map(|change| self.run_of(change.name.as_str())).collect();
        self.rows.displace(&gone.iter().map(|run| run.slot).collect::<Vec<_>>());
        for run in gone {
            self.vacate(run, now);
            updated.stale.push(run);
        }
        let mut new = Vec::with_capacity(coming);
        self.rows.reserve(coming);
        for definition in changes.iter().filter_map(|change| change.now.as_ref()) {
            match self.run_of(definition.watch.name.as_str()) {
                Some(run) => self.redefine(run, definition, now, &mut updated),
                None => new.push(self.define(definition, now, &mut updated)),
            }
        }
        self.rows.place(new);
        updated
    }

    pub(super) fn entry(&self, run: RunId) -> Option<&RowEntry> {
        self.rows.entry(run.slot).filter(|entry| entry.generation == run.generation)
    }

    pub(super) fn entry_mut(&mut self, run: RunId) -> Option<&mut RowEntry> {
        self.entry(run)?;
        self.rows.entry_mut(run.slot)
    }

    /// The run that is watched under this name.
    pub(super) fn run_of(&self, name: &str) -> Option<RunId> {
        let slot = self.rows.slot_of(name)?;
        Some(RunId { slot, generation: self.rows.entry(slot)?.generation })
    }

    /// Every run with what is known of it, sorted by name.
    pub(super) fn runs(&self) -> impl Iterator<Item = (RunId, &ToggleRow)> {
        self.rows.slots().filter_map(|slot| {
            let entry = self.rows.entry(slot)?;
            Some((RunId { slot, generation: entry.generation }, &entry.row))
        })
    }

    /// Every watch, sorted by name.
    pub(super) fn rows(&self) -> &ToggleRows {
        &self.rows
    }

    /// Begins to watch what is new, in a slot that is to be placed.
    fn define(&mut self, definition: &WatchDefinition, now: Timestamp, updated: &mut RunChanges) -> u32 {
        let watch = &definition.watch;
        self.keep_agent(watch, now);
        let newest = self.remembered.of(&watch.name).first();
        let is_another_run = newest.is_some_and(|newest| !newest.is_run_of(watch));
        let events = self.remembered.take_events(&watch.name);
        let (toggle, place) = self.toggle(definition, now);
        if place.is_none() {
            self.changed(&watch.name);
        }
        let slot = self.free_slot();
        let last_began = events.iter().find_map(|event| match &event.kind {
            EventKind::RunStarted { progress_id } => Some(progress_id),
            _ => None,
        });
        let of_another_run = is_another_run || last_began.is_some_and(|id| *id != watch.progress_id);
        let is_news = of_another_run && !events.is_empty();
        self.history.restore(slot, events);
        if is_news {
            let kind = EventKind::RunStarted { progress_id: watch.progress_id.clone() };
            self.history.record(slot, Event { at: now, kind });
        }
        let begun = self.begin(slot, ToggleRow::new(toggle), place, now);
        self.tell_agent_of(begun.run);
        updated.started.push(begun);
        slot
    }

    /// Puts another definition in the place of one.
    fn redefine(&mut self, old: RunId, definition: &WatchDefinition, now: Timestamp, updated: &mut RunChanges) {
        let watch = &definition.watch;
        self.keep_agent(watch, now);
        let Some(RowEntry { mut row, place: old_place, generation, polled }) = self.rows.take(old.slot) else { return };
        let before = row.toggle.watch.clone();
        let started = definition.started.unwrap_or(now);
        if row.toggle.redefine(watch.clone(), started) {
            let place = self.recall(&mut row.toggle, now);
            self.wake(old);
            let kind = EventKind::RunStarted { progress_id: watch.progress_id.clone() };
            self.history.record(old.slot, Event { at: now, kind });
            // One that was watched before has gone on from there.
            let status = row.toggle.run.last_answer.status;
            if status != Status::Unknown {
                let kind = EventKind::status(&row.toggle, Status::Unknown, status, None);
                self.history.record(old.slot, Event { at: now, kind });
            }
            updated.stale.push(old);
            let begun = self.begin(old.slot, row, place, now);
            self.tell_agent_of(begun.run);
            updated.started.push(begun);
        } else {
            self.rows.put(old.slot, RowEntry { row, place: old_place, generation, polled });
            // What it said of its agent has the labels that it has now.
            self.tell_agent_of(old);
        }
        self.changed(&watch.name);
        self.release_agent(&before, now);
    }

    /// A toggle that was not on the board, with what is remembered of it, and its place if it has
    /// one.
    fn toggle(&mut self, definition: &WatchDefinition, now: Timestamp) -> (Toggle, Option<u64>) {
        let mut toggle = Toggle::new(definition.watch.clone(), definition.started.unwrap_or(now));
        if let Some(tally) = self.remembered.tally(&toggle.watch.name) {
            toggle.tally = tally.clone();
        }
        let place = self.recall(&mut toggle, now);
        (toggle, place)
    }

    /// Gives a toggle what is remembered of its run, and returns the run's place; `None` if nothing is.
    fn recall(&mut self, toggle: &mut Toggle, now: Timestamp) -> Option<u64> {
        let saved = self.remembered.take(&toggle.watch)?;
        self.forgot(&saved, now);
        toggle.run = saved.run;
        Some(saved.place)
    }

    /// Remembers what is known of the run under this name.
    fn remember(&mut self, name: &WatchName, now: Timestamp) {
        let Some(entry) = self.run_of(name.as_str()).and_then(|run| self.entry(run)) else { return };
        let saved = SavedToggle::of(&entry.row.toggle, entry.place);
        self.agents.remembered(&saved.api, saved.agent_id);
        if let Some(oldest) = self.remembered.put(name, saved) {
            self.forgot(&oldest, now);
        }
    }

    /// A run is not remembered any more.
    fn forgot(&mut self, saved: &SavedToggle, now: Timestamp) {
        if self.agents.forgot(&saved.api, saved.agent_id, now) {
            self.agent_changed((saved.api.clone(), saved.agent_id));
        }
    }

    /// Begins a run in a slot that is empty.
    fn begin(&mut self, slot: u32, mut row: ToggleRow, place: Option<u64>, now: Timestamp) -> StartedRun {
        self.places += 1;
        self.generation = self.generation.wrapping_add(1).max(1);
        let generation = NonZeroU32::MIN.saturating_add(self.generation - 1);
        let finished = row.toggle.run.finished.is_some();
        row.next_poll = (!finished).then_some(now);
        self.rows.put(slot, RowEntry { row, place: place.unwrap_or(self.places), generation, polled: false });
        StartedRun { run: RunId { slot, generation }, finished }
    }

    /// Lets an agent know of a run that finished with an earlier process, which may have ended before
    /// both were saved.
    fn tell_agent_of(&mut self, run: RunId) {
        let Some(entry) = self.entry(run) else { return };
        let (watch, place, run) = (entry.row.toggle.watch.clone(), entry.place, entry.row.toggle.run.clone());
        if let Some(finish) = run.finished
            && self.agents.observe(&watch, &run, place, finish.at)
        {
            self.agent_changed(agent_key(&watch));
        }
    }

    /// Empties the slot of a run that is not in the order any more.
    fn vacate(&mut self, run: RunId, now: Timestamp) {
        let Some(entry) = self.rows.take(run.slot) else { return };
        let events = self.history.of(run.slot).take(Self::MORE_EVENTS).cloned().collect();
        self.remembered.go_on(&entry.row.toggle.watch.name, &entry.row.toggle.tally, events);
        let watch = &entry.row.toggle.watch;
        self.free.push(run.slot);
        self.history.clear(run.slot);
        self.changed(&watch.name);
        self.release_agent(watch, now);
        self.wake(run);
    }

    fn free_slot(&mut self) -> u32 {
        self.free.pop().unwrap_or_else(|| {
            self.slots += 1;
            self.slots - 1
        })
    }

    /// The agent has one watch more.
    fn keep_agent(&mut self, watch: &Watch, now: Timestamp) {
        if self.agents.watched(&watch.api, watch.agent_id, now) {
            self.agent_changed(agent_key(watch));
        }
    }

    /// The agent has one watch less.
    fn release_agent(&mut self, watch: &Watch, now: Timestamp) {
        if self.agents.unwatched(&watch.api, watch.agent_id, now) {
            self.agent_changed(agent_key(watch));
        }
    }

    /// Forgets what was said of an agent's mocks. Says whether anything was known.
    pub(super) fn forget_agent(&mut self, api: &ApiName, id: AgentId, now: Timestamp) -> bool {
        let forgotten = self.agents.forget(api, id, now);
        if forgotten {
            self.agent_changed((api.clone(), id));
        }
        forgotten
    }

    /// Forgets agents that were without a watch for long enough.
    pub(super) fn forget_unwatched_agents(&mut self, now: Timestamp) {
        for key in self.agents.without_watch() {
            if self.agents.keep(&key.0, key.1, now) {
                self.agent_changed(key);
            }
        }
    }

    /// The same outcome, whose message is the one that other runs show if it says the same.
    pub(super) fn share_message(&mut self, mut outcome: Outcome) -> Outcome {
        if let Ok(answer) = &mut outcome
            && let Some(message) = &mut answer.message
        {
            if let Some(known) = self.messages.iter().find(|known| *known == message) {
                *message = known.clone();
            } else {
                self.messages.truncate(Self::MESSAGES - 1);
                self.messages.push_front(message.clone());
            }
        }
        outcome
    }

    /// Whoever waits for this run has something to see.
    pub(super) fn wake(&mut self, run: RunId) {
        if let Some(waiting) = self.waiting.remove(&run) {
            waiting.notify_waiters();
        }
    }

    /// What tells that the run finished or is gone.
    pub(super) fn waiting(&mut self, run: RunId) -> Option<Arc<Notify>> {
        self.entry(run)?;
        Some(self.waiting.entry(run).or_default().clone())
    }

    /// What is known of the run is to be saved.
    pub(super) fn note_change(&mut self, run: RunId) {
        if self.changed.is_some()
            && let Some(name) = self.entry(run).map(|entry| entry.row.toggle.watch.name.clone())
        {
            self.changed(&name);
        }
    }

    /// Whether anything is ever saved.
    pub(super) fn is_saved(&self) -> bool {
        self.changed.is_some()
    }

    pub(super) fn changed(&mut self, name: &WatchName) {
        if let Some(changed) = self.changed.as_mut().filter(|changed| !changed.toggles.contains(name)) {
            changed.toggles.insert(name.clone());
        }
    }

    pub(super) fn agent_changed(&mut self, key: AgentKey) {
        if let Some(changed) = &mut self.changed {
            changed.agents.insert(key);
        }
    }

    /// Forgets what is remembered under this name, but for what to keep. Says whether that was anything.
    pub(super) fn forget_inactive(
        &mut self,
        name: &WatchName,
        keep: impl Fn(&WatchName, &SavedToggle) -> bool,
        now: Timestamp,
    ) -> bool {
        let forgotten = self.remembered.forget(name, keep);
        if forgotten.is_empty() {
            return false;
        }
        self.changed(name);
        for saved in &forgotten {
            self.forgot(saved, now);
        }
        true
    }

    /// What is remembered under this name, the newest first.
    pub(super) fn remembered(&self, name: &WatchName) -> &[SavedToggle] {
        self.remembered.of(name)
    }

    /// So many names at most under which runs are remembered, those that come next after `last`, sorted.
    pub(super) fn remembered_after(&self, last: Option<&WatchName>, most: usize) -> Vec<WatchName> {
        self.remembered.names(last, most)
    }

    pub(super) fn take_unsaved(&mut self, most: usize, now: Timestamp) -> UnsavedChanges {
        let Some(changed) = &mut self.changed else { return UnsavedChanges::default() };
        let toggles: Vec<_> = std::iter::from_fn(|| changed.toggles.pop_first()).take(most).collect();
        let agents: Vec<_> = std::iter::from_fn(|| changed.agents.pop_first()).take(most).collect();
        let saved = |name: WatchName| {
            let entry = self.run_of(name.as_str()).and_then(|run| self.entry(run));
            let current = entry.map(|entry| self.to_save(entry, now));
            let saved = current.into_iter().chain(self.remembered.of(&name).iter().cloned()).collect();
            (name, saved)
        };
        let mock = |key: AgentKey| {
            let mock = self.agents.mock(&key.0, key.1);
            (key, mock)
        };
        UnsavedChanges {
            toggles: toggles.into_iter().map(saved).collect(),
            agents: agents.into_iter().map(mock).collect(),
        }
    }
}

impl BoardState {
    /// The events of a toggle that are saved: the last ones, and more where somebody will want to know what
    /// went wrong.
    const FEW_EVENTS: usize = 6;
    const MORE_EVENTS: usize = 20;

    fn to_save(&self, entry: &RowEntry, now: Timestamp) -> SavedToggle {
        let toggle = &entry.row.toggle;
        let well = matches!(Standing::of(toggle, now), Standing::Completed | Standing::InProgress);
        let most = if well { Self::FEW_EVENTS } else { Self::MORE_EVENTS };
        let slot = self.rows.slot_of(toggle.watch.name.as_str());
        let events = slot.into_iter().flat_map(|slot| self.history.of(slot)).take(most).cloned().collect();
        SavedToggle { events, ..SavedToggle::of(toggle, entry.place) }
    }
}

pub(super) fn agent_key(watch: &Watch) -> AgentKey {
    (watch.api.clone(), watch.agent_id)
}
