//! What is known of every toggle now.
//!
//! The poller is the only writer. Scrapes, pages and the JSON API take copies of what they show,
//! so nothing that is slow happens under the lock.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use crate::exposition::{agent_labels, watch_labels};
use crate::toggle::{AgentId, AgentMock, ApiName, Outcome, Run, Timestamp, Toggle, Transition, Watch, WatchName};

/// What is known of every watch and every agent.
#[derive(Debug, Default)]
pub struct Board {
    state: RwLock<State>,
}

/// One run of one watch. It goes stale when the run is replaced or the watch is removed; what is
/// then asked of or told to it is ignored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RunId {
    slot: usize,
    generation: u64,
}

/// A copy of what is known of one watch.
#[derive(Debug, Clone)]
pub struct Row {
    /// The watch, its run and its tally.
    pub toggle: Toggle,
    /// The labels of its series, rendered.
    pub labels: Arc<str>,
    /// When its next poll is due; `None` if none is planned.
    pub next_poll: Option<Timestamp>,
}

/// A copy of what is known of one agent.
#[derive(Debug, Clone)]
pub struct AgentRow {
    /// Its mocks.
    pub mock: AgentMock,
    /// The labels of its series, rendered.
    pub labels: Arc<str>,
}

/// What a poll changed.
#[derive(Debug)]
pub struct Applied {
    /// The toggle as it is now.
    pub toggle: Toggle,
    /// What changed.
    pub transitions: Vec<Transition>,
}

#[derive(Debug, Default)]
struct State {
    slots: Vec<Slot>,
    /// Slots that no watch uses.
    free: Vec<usize>,
    by_name: BTreeMap<WatchName, usize>,
    agents: BTreeMap<(ApiName, AgentId), AgentRow>,
    /// Counts runs and removals, so that no [`RunId`] is ever given twice.
    generations: u64,
}

#[derive(Debug, Default)]
struct Slot {
    generation: u64,
    entry: Option<Entry>,
}

#[derive(Debug)]
struct Entry {
    row: Row,
    /// The watch's place in the watch list.
    place: u64,
}

// === impl Board ===

impl Board {
    /// Makes the board show exactly `list`, and returns the runs that are new, in the order of the
    /// list. A watch whose run is the same keeps what is known of it. Names must be unique.
    pub fn reconcile(&self, list: &[Arc<Watch>], now: Timestamp) -> Vec<RunId> {
        let mut state = self.write();
        let mut gone = std::mem::take(&mut state.by_name);
        let mut begun = Vec::new();
        for (place, watch) in (0..).zip(list) {
            let slot = match gone.remove(&watch.name) {
                Some(slot) => slot,
                None => state.free_slot(),
            };
            state.by_name.insert(watch.name.clone(), slot);
            begun.extend(state.define(slot, watch, place, now));
        }
        for slot in gone.into_values() {
            state.vacate(slot);
        }
        state.keep_agents(now);
        begun
    }

    /// What the run is a run of; `None` if it is stale.
    pub fn watch(&self, run: RunId) -> Option<Arc<Watch>> {
        Some(self.read().entry(run)?.row.toggle.watch.clone())
    }

    /// Takes what a poll of this run brought. `next_poll` says from the run's new state when it is
    /// polled next. `None` if the run is stale: then nothing changed.
    pub fn apply(
        &self,
        run: RunId,
        outcome: Outcome,
        now: Timestamp,
        next_poll: impl FnOnce(&Run) -> Option<Timestamp>,
    ) -> Option<Applied> {
        let mut state = self.write();
        let answered = outcome.is_ok();
        let entry = state.entry_mut(run)?;
        let transitions = entry.row.toggle.apply(outcome, now);
        entry.row.next_poll = next_poll(&entry.row.toggle.run);
        let (toggle, place) = (entry.row.toggle.clone(), entry.place);
        if answered && let Some(agent) = state.agents.get_mut(&agent_key(&toggle.watch)) {
            agent.mock.observe(&toggle.run, place, now);
        }
        Some(Applied { toggle, transitions })
    }

    /// Shows that the next poll of this run is due at another time.
    pub fn plan(&self, run: RunId, next_poll: Timestamp) {
        if let Some(entry) = self.write().entry_mut(run) {
            entry.row.next_poll = Some(next_poll);
        }
    }

    /// The runs at this API whose last poll failed because the key was missing or refused.
    pub fn failing_for_want_of_a_key(&self, api: &ApiName) -> Vec<RunId> {
        let wants_a_key =
            |row: &Row| row.toggle.run.failing.as_ref().is_some_and(|failing| failing.reason.is_for_want_of_a_key());
        let state = self.read();
        let slots = state.slots.iter().enumerate();
        let rows = slots.filter_map(|(i, slot)| Some((i, slot.generation, &slot.entry.as_ref()?.row)));
        rows.filter(|(.., row)| row.toggle.watch.api == *api && wants_a_key(row))
            .map(|(slot, generation, _)| RunId { slot, generation })
            .collect()
    }

    /// Forgets agents that were without a watch for long enough.
    pub fn forget_agents(&self, now: Timestamp) {
        self.write().keep_agents(now);
    }

    /// Every watch, sorted by name.
    pub fn rows(&self) -> Vec<Row> {
        let state = self.read();
        state.by_name.values().filter_map(|slot| state.slots[*slot].entry.as_ref()).map(|e| e.row.clone()).collect()
    }

    /// The watch of that name.
    pub fn row(&self, name: &str) -> Option<Row> {
        let state = self.read();
        let slot = *state.by_name.get(name)?;
        state.slots[slot].entry.as_ref().map(|entry| entry.row.clone())
    }

    /// Every agent, sorted by API and id.
    pub fn agents(&self) -> Vec<AgentRow> {
        self.read().agents.values().cloned().collect()
    }

    // Nothing that is done under the lock leaves the state half changed, so what a panic elsewhere
    // poisoned is still good.

    fn read(&self) -> RwLockReadGuard<'_, State> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, State> {
        self.state.write().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl RunId ===

impl RunId {
    /// The place on the board that the run is in: a small number, used again when it is free.
    pub fn slot(self) -> usize {
        self.slot
    }

    #[cfg(test)]
    pub(crate) fn of_slot(slot: usize) -> Self {
        Self { slot, generation: 0 }
    }
}

// === impl State ===

impl State {
    /// Puts `watch` into the slot; returns the run if that began one.
    fn define(&mut self, slot: usize, watch: &Arc<Watch>, place: u64, now: Timestamp) -> Option<RunId> {
        self.agents.entry(agent_key(watch)).or_insert_with(|| AgentRow {
            mock: AgentMock::default(),
            labels: agent_labels(&watch.api, watch.agent_id),
        });
        let labels = watch_labels(watch);
        let began = match &mut self.slots[slot].entry {
            Some(entry) => {
                entry.place = place;
                entry.row.labels = labels;
                entry.row.toggle.redefine(watch.clone(), now)
            }
            empty => {
                let row = Row { toggle: Toggle::new(watch.clone(), now), labels, next_poll: None };
                *empty = Some(Entry { row, place });
                true
            }
        };
        if !began {
            return None;
        }
        if let Some(entry) = &mut self.slots[slot].entry {
            entry.row.next_poll = Some(now);
        }
        self.slots[slot].generation = self.next_generation();
        Some(RunId { slot, generation: self.slots[slot].generation })
    }

    fn free_slot(&mut self) -> usize {
        self.free.pop().unwrap_or_else(|| {
            self.slots.push(Slot::default());
            self.slots.len() - 1
        })
    }

    fn vacate(&mut self, slot: usize) {
        self.slots[slot] = Slot { generation: self.next_generation(), entry: None };
        self.free.push(slot);
    }

    fn next_generation(&mut self) -> u64 {
        self.generations += 1;
        self.generations
    }

    fn keep_agents(&mut self, now: Timestamp) {
        let entries = self.slots.iter().filter_map(|slot| slot.entry.as_ref());
        let watched: std::collections::HashSet<_> = entries.map(|entry| agent_key(&entry.row.toggle.watch)).collect();
        self.agents.retain(|key, agent| agent.mock.keep(watched.contains(key), now));
    }

    fn entry(&self, run: RunId) -> Option<&Entry> {
        let slot = self.slots.get(run.slot).filter(|slot| slot.generation == run.generation)?;
        slot.entry.as_ref()
    }

    fn entry_mut(&mut self, run: RunId) -> Option<&mut Entry> {
        let slot = self.slots.get_mut(run.slot).filter(|slot| slot.generation == run.generation)?;
        slot.entry.as_mut()
    }
}

fn agent_key(watch: &Watch) -> (ApiName, AgentId) {
    (watch.api.clone(), watch.agent_id)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::toggle::sample::{answer, at};
    use crate::toggle::{Answer, Reported, Status, sample};

    fn watch(name: &str, progress_id: &str) -> Arc<Watch> {
        Arc::new(sample::watch(name, progress_id))
    }

    fn completed(mock_enabled: bool) -> Answer {
        answer(Reported::Completed, Some(mock_enabled))
    }

    fn names(board: &Board) -> Vec<String> {
        board.rows().iter().map(|row| row.toggle.watch.name.to_string()).collect()
    }

    #[test]
    fn the_board_shows_exactly_the_list_sorted_by_name() {
        let board = Board::default();
        assert_eq!(board.reconcile(&[watch("b", "1"), watch("a", "1")], at(0)).len(), 2);
        assert_eq!(names(&board), ["a", "b"]);
        assert_eq!(board.reconcile(&[watch("b", "1"), watch("c", "1")], at(1)).len(), 1);
        assert_eq!(names(&board), ["b", "c"]);
        assert_eq!(board.reconcile(&[], at(2)).len(), 0);
        assert_eq!(names(&board), [""; 0]);
    }

    #[test]
    fn the_same_run_keeps_its_state_and_a_new_one_begins_anew() {
        let board = Board::default();
        let first = board.reconcile(&[watch("a", "1")], at(0))[0];
        board.apply(first, Ok(completed(true)), at(1), |_| None).unwrap();
        assert!(board.reconcile(&[watch("a", "1")], at(2)).is_empty());
        assert_eq!(board.row("a").unwrap().toggle.run.shown.status, Status::Completed);
        let second = board.reconcile(&[watch("a", "2")], at(3))[0];
        let row = board.row("a").unwrap();
        assert_eq!((row.toggle.run.shown.status, row.toggle.tally.completed), (Status::Unknown, 1));
        assert_ne!(first, second);
    }

    #[test]
    fn an_answer_for_a_replaced_or_removed_run_changes_nothing() {
        let board = Board::default();
        let replaced = board.reconcile(&[watch("a", "1")], at(0))[0];
        let removed = board.reconcile(&[watch("a", "2")], at(1))[0];
        assert!(board.apply(replaced, Ok(completed(true)), at(2), |_| None).is_none());
        assert!(board.watch(replaced).is_none());
        board.reconcile(&[], at(3));
        board.reconcile(&[watch("b", "1")], at(4));
        assert!(board.apply(removed, Ok(completed(true)), at(5), |_| None).is_none());
        assert_eq!(board.row("b").unwrap().toggle.tally.polls, 0);
    }

    #[test]
    fn an_agent_whose_mocks_are_on_outlives_its_last_watch_by_seven_days() {
        let board = Board::default();
        let run = board.reconcile(&[watch("a", "1")], at(0))[0];
        board.apply(run, Ok(completed(true)), at(1), |_| None).unwrap();
        board.reconcile(&[], at(2));
        board.forget_agents(at(2 + 7 * 86_400 - 1));
        assert_eq!(board.agents()[0].mock.enabled(), Some(true));
        board.forget_agents(at(2 + 7 * 86_400));
        assert!(board.agents().is_empty());
    }
}
