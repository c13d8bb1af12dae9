//! What the board holds, and how it changes as a whole.

use std::collections::hash_map;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use tokio::sync::Notify;

use super::{AgentKey, AgentRow, Begun, Row, RunId, Unsaved, Updated};
use crate::exposition::{agent_labels, watch_labels};
use crate::sources::{Change, Definition};
use crate::store::SavedToggle;
use crate::toggle::{AgentMock, Timestamp, Toggle, Watch, WatchName};

#[derive(Debug, Default)]
pub(super) struct State {
    slots: Vec<Slot>,
    /// Slots that no watch uses.
    free: Vec<usize>,
    by_name: BTreeMap<WatchName, usize>,
    pub(super) agents: BTreeMap<AgentKey, Agent>,
    /// Counts runs and removals, so that no [`RunId`] is ever given twice.
    generations: u64,
    /// What is known of runs that are not on the list now and may come back: what an earlier process
    /// saved, and what another source's watch was put in the place of.
    remembered: HashMap<WatchName, SavedToggle>,
    /// What changed since it was saved; `None` if nothing is ever saved.
    changed: Option<Changed>,
}

#[derive(Debug, Default)]
struct Slot {
    generation: u64,
    entry: Option<Entry>,
}

#[derive(Debug)]
pub(super) struct Entry {
    pub(super) row: Row,
    /// Which of two runs that finished before they were watched is the later one in the list.
    pub(super) place: u64,
    /// Who waits for the run to finish, or for its end otherwise.
    waiting: Option<Arc<Notify>>,
}

#[derive(Debug)]
pub(super) struct Agent {
    pub(super) row: AgentRow,
    /// How many watches it has.
    watches: usize,
}

#[derive(Debug, Default)]
struct Changed {
    toggles: BTreeSet<WatchName>,
    agents: BTreeSet<AgentKey>,
}

// === impl State ===

impl State {
    /// A state that remembers what an earlier process saved, and says what is to be saved.
    pub(super) fn restored(
        toggles: HashMap<WatchName, SavedToggle>,
        agents: impl IntoIterator<Item = (AgentKey, AgentMock)>,
    ) -> Self {
        let agent = |(key, mock): (AgentKey, AgentMock)| {
            let agent = Agent::new(&key, mock);
            (key, agent)
        };
        let agents: BTreeMap<_, _> = agents.into_iter().map(agent).collect();
        let newest = agents.values().filter_map(|agent| Some(agent.row.mock.parts().newest?.1));
        Self {
            // What begins now comes after all that is remembered.
            generations: toggles.values().map(|saved| saved.place).chain(newest).max().unwrap_or_default(),
            agents,
            remembered: toggles,
            changed: Some(Changed::default()),
            ..Self::default()
        }
    }

    pub(super) fn update(&mut self, changes: &[Change], now: Timestamp) -> Updated {
        let mut updated = Updated::default();
        for change in changes {
            if change.may_come_back {
                self.remember(&change.name);
            }
            match &change.now {
                Some(definition) => self.define(definition, now, &mut updated),
                None => updated.gone.extend(self.vacate(&change.name, now)),
            }
        }
        updated
    }

    pub(super) fn entry(&self, run: RunId) -> Option<&Entry> {
        let slot = self.slots.get(run.slot).filter(|slot| slot.generation == run.generation)?;
        slot.entry.as_ref()
    }

    pub(super) fn entry_mut(&mut self, run: RunId) -> Option<&mut Entry> {
        let slot = self.slots.get_mut(run.slot).filter(|slot| slot.generation == run.generation)?;
        slot.entry.as_mut()
    }

    /// The run that is watched under this name.
    pub(super) fn run_of(&self, name: &str) -> Option<RunId> {
        let slot = *self.by_name.get(name)?;
        Some(RunId { slot, generation: self.slots[slot].generation })
    }

    /// Every run with what is known of it, in no order.
    pub(super) fn runs(&self) -> impl Iterator<Item = (RunId, &Row)> {
        let slots = self.slots.iter().enumerate();
        slots.filter_map(|(slot, held)| {
            let row = &held.entry.as_ref()?.row;
            Some((RunId { slot, generation: held.generation }, row))
        })
    }

    /// Every watch, sorted by name.
    pub(super) fn rows(&self) -> impl Iterator<Item = &Row> {
        self.by_name.values().filter_map(|slot| self.slots[*slot].entry.as_ref()).map(|entry| &entry.row)
    }

    /// Puts a watch into its slot.
    fn define(&mut self, definition: &Definition, now: Timestamp, updated: &mut Updated) {
        let watch = &definition.watch;
        self.keep_agent(watch, now);
        let labels = watch_labels(watch);
        let Some(old) = self.run_of(watch.name.as_str()) else {
            let (toggle, place) = self.toggle(definition, now);
            let slot = self.free_slot();
            self.by_name.insert(watch.name.clone(), slot);
            if place.is_none() {
                self.changed(&watch.name);
            }
            let row = Row { toggle, labels, next_poll: None };
            let begun = self.begin(slot, row, place, now);
            updated.begun.push(begun);
            self.tell_agent_of(begun.run);
            return;
        };
        let Some(entry) = self.slots[old.slot].entry.take() else { return };
        let mut row = Row { labels, ..entry.row };
        let before = row.toggle.watch.clone();
        let started = definition.started.unwrap_or(now);
        if row.toggle.redefine(watch.clone(), started) {
            let place = self.recall(&mut row.toggle);
            entry.waiting.inspect(|waiting| waiting.notify_waiters());
            updated.gone.push(old);
            updated.begun.push(self.begin(old.slot, row, place, now));
        } else {
            self.slots[old.slot].entry = Some(Entry { row, ..entry });
        }
        self.changed(&watch.name);
        self.release_agent(&before, now);
    }

    /// A toggle that was not on the board, with what is remembered of it, and its place if it has
    /// one.
    fn toggle(&mut self, definition: &Definition, now: Timestamp) -> (Toggle, Option<u64>) {
        let mut toggle = Toggle::new(definition.watch.clone(), definition.started.unwrap_or(now));
        let place = self.recall(&mut toggle);
        if place.is_none()
            && let Some(saved) = self.remembered.get(&toggle.watch.name)
        {
            toggle.tally = saved.tally.clone();
        }
        (toggle, place)
    }

    /// Gives a toggle what is remembered of its run, and returns the run's place; `None` if another
    /// run is remembered, or none. Counters of a toggle that was not on the board come with it.
    fn recall(&mut self, toggle: &mut Toggle) -> Option<u64> {
        let hash_map::Entry::Occupied(saved) = self.remembered.entry(toggle.watch.name.clone()) else { return None };
        if !saved.get().is_run_of(&toggle.watch) {
            return None;
        }
        let saved = saved.remove();
        toggle.run = saved.run;
        if toggle.tally.polls == 0 {
            toggle.tally = saved.tally;
        }
        Some(saved.place)
    }

    /// Remembers what is known of the run under this name.
    fn remember(&mut self, name: &WatchName) {
        if let Some(entry) = self.run_of(name.as_str()).and_then(|run| self.entry(run)) {
            let saved = SavedToggle::of(&entry.row.toggle, entry.place);
            self.remembered.insert(name.clone(), saved);
        }
    }

    /// Begins a run in a slot that was emptied for it.
    fn begin(&mut self, slot: usize, mut row: Row, place: Option<u64>, now: Timestamp) -> Begun {
        let generation = self.next_generation();
        let finished = row.toggle.run.finished.is_some();
        row.next_poll = (!finished).then_some(now);
        let entry = Entry { row, place: place.unwrap_or(generation), waiting: None };
        self.slots[slot] = Slot { generation, entry: Some(entry) };
        Begun { run: RunId { slot, generation }, finished }
    }

    /// Lets an agent know of a run that finished with an earlier process, which may have ended before
    /// both were saved.
    fn tell_agent_of(&mut self, run: RunId) {
        let Some(entry) = self.entry(run) else { return };
        let (key, place, run) = (agent_key(&entry.row.toggle.watch), entry.place, entry.row.toggle.run.clone());
        if let (Some(finish), Some(agent)) = (run.finished, self.agents.get_mut(&key)) {
            let before = agent.row.mock;
            agent.row.mock.observe(&run, place, finish.at);
            if agent.row.mock != before {
                self.agent_changed(key);
            }
        }
    }

    fn vacate(&mut self, name: &WatchName, now: Timestamp) -> Option<RunId> {
        let run = self.run_of(name.as_str())?;
        self.by_name.remove(name);
        let vacant = Slot { generation: self.next_generation(), entry: None };
        let entry = std::mem::replace(&mut self.slots[run.slot], vacant).entry?;
        self.free.push(run.slot);
        self.changed(name);
        self.release_agent(&entry.row.toggle.watch, now);
        entry.waiting.inspect(|waiting| waiting.notify_waiters());
        Some(run)
    }

    fn free_slot(&mut self) -> usize {
        self.free.pop().unwrap_or_else(|| {
            self.slots.push(Slot::default());
            self.slots.len() - 1
        })
    }

    fn next_generation(&mut self) -> u64 {
        self.generations += 1;
        self.generations
    }

    /// The agent has one watch more.
    fn keep_agent(&mut self, watch: &Watch, now: Timestamp) {
        let key = agent_key(watch);
        let agent = self.agents.entry(key.clone()).or_insert_with(|| Agent::new(&key, AgentMock::default()));
        agent.watches += 1;
        self.keep_mock(key, true, now);
    }

    /// The agent has one watch less.
    fn release_agent(&mut self, watch: &Watch, now: Timestamp) {
        let key = agent_key(watch);
        let Some(agent) = self.agents.get_mut(&key) else { return };
        agent.watches = agent.watches.saturating_sub(1);
        let is_watched = agent.watches > 0;
        self.keep_mock(key, is_watched, now);
    }

    /// Notes whether an agent has a watch, and forgets it if it is not to be remembered.
    fn keep_mock(&mut self, key: AgentKey, is_watched: bool, now: Timestamp) {
        let Some(agent) = self.agents.get_mut(&key) else { return };
        let before = agent.row.mock;
        let keep = agent.row.mock.keep(is_watched, now);
        let changed = agent.row.mock != before;
        if !keep {
            self.agents.remove(&key);
        }
        if !keep || changed {
            self.agent_changed(key);
        }
    }

    /// Forgets agents that were without a watch for long enough.
    pub(super) fn forget_agents(&mut self, now: Timestamp) {
        // Watches that are only remembered may come yet.
        let remembered: HashSet<AgentKey> =
            self.remembered.values().map(|saved| (saved.api.clone(), saved.agent_id)).collect();
        let is_unwatched = |(key, agent): &(&AgentKey, &Agent)| agent.watches == 0 && !remembered.contains(key);
        let unwatched = self.agents.iter().filter(is_unwatched).map(|(key, _)| key.clone());
        for key in unwatched.collect::<Vec<_>>() {
            self.keep_mock(key, false, now);
        }
    }

    /// Whoever waits for this run has something to see.
    pub(super) fn wake(&mut self, run: RunId) {
        if let Some(waiting) = self.entry_mut(run).and_then(|entry| entry.waiting.take()) {
            waiting.notify_waiters();
        }
    }

    /// What tells that the run finished or is gone.
    pub(super) fn waiting(&mut self, run: RunId) -> Option<Arc<Notify>> {
        Some(self.entry_mut(run)?.waiting.get_or_insert_default().clone())
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

    /// Forgets what is remembered, but for what to keep, and the agents that were known for it alone.
    pub(super) fn forget_remembered(
        &mut self,
        keep: impl Fn(&WatchName, &SavedToggle) -> bool,
        now: Timestamp,
    ) -> usize {
        let forgotten = self.remembered.extract_if(|name, saved| !keep(name, saved));
        let forgotten: Vec<_> = forgotten.map(|(name, _)| name).collect();
        for name in &forgotten {
            self.changed(name);
        }
        if !forgotten.is_empty() {
            self.forget_agents(now);
        }
        forgotten.len()
    }

    pub(super) fn take_unsaved(&mut self, most: usize) -> Unsaved {
        let Some(changed) = &mut self.changed else { return Unsaved::default() };
        let toggles: Vec<_> = std::iter::from_fn(|| changed.toggles.pop_first()).take(most).collect();
        let agents: Vec<_> = std::iter::from_fn(|| changed.agents.pop_first()).take(most).collect();
        let saved = |name: WatchName| {
            let entry = self.run_of(name.as_str()).and_then(|run| self.entry(run));
            let saved = entry.map(|entry| SavedToggle::of(&entry.row.toggle, entry.place));
            let saved = saved.or_else(|| self.remembered.get(&name).cloned());
            (name, saved)
        };
        let mock = |key: AgentKey| {
            let mock = self.agents.get(&key).map(|agent| agent.row.mock);
            (key, mock)
        };
        Unsaved { toggles: toggles.into_iter().map(saved).collect(), agents: agents.into_iter().map(mock).collect() }
    }
}

// === impl Agent ===

impl Agent {
    fn new((api, agent_id): &AgentKey, mock: AgentMock) -> Self {
        Self { row: AgentRow { mock, labels: agent_labels(api, *agent_id) }, watches: 0 }
    }
}

pub(super) fn agent_key(watch: &Watch) -> AgentKey {
    (watch.api.clone(), watch.agent_id)
}
