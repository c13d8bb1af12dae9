//! Sharing watches and agents with other exporters: the shards that this one owns, and the state of the others.

use super::rows::RowEntry;
use super::state::BoardState;
use super::{OwnershipChange, RunId, StartedRun};
use crate::store::{SavedAgentChange, SavedToggle, ToggleChange};
use crate::toggle::{AgentId, ApiName, Shard, ShardSet, Tally, Timestamp, WatchName};

// === impl BoardState ===

impl BoardState {
    /// Whether this exporter polls and exposes the run.
    pub(super) fn owns(&self, run: RunId) -> bool {
        self.rows.shard(run.slot).is_some_and(|shard| self.owned.contains(shard))
    }

    /// Whether this exporter asks for the mock status of the agent, and polls and exposes its watches.
    pub(super) fn owns_agent(&self, api: &ApiName, id: AgentId) -> bool {
        self.owned.contains(Shard::of(api, id))
    }

    /// Owns these shards and no others from now on.
    pub(super) fn own(&mut self, owned: ShardSet, now: Timestamp) -> OwnershipChange {
        let (gained, lost) = (owned.without(self.owned), self.owned.without(owned));
        self.owned = owned;
        let mut change = OwnershipChange::default();
        let slots: Vec<_> = self.rows.slots().collect();
        for slot in slots {
            let Some(shard) = self.rows.shard(slot) else { continue };
            let is_gained = gained.contains(shard);
            if !is_gained && !lost.contains(shard) {
                continue;
            }
            let Some(RowEntry { row, generation, .. }) = self.rows.entry_mut(slot) else { continue };
            let run = RunId { slot, generation: *generation };
            let finished = row.toggle.run.finished.is_some();
            row.next_poll = (is_gained && !finished).then_some(now);
            if is_gained {
                change.gained_runs.push(StartedRun { run, finished });
            } else {
                change.lost_runs.push(run);
            }
        }
        change.gained_agents = self.agents.listed_in(gained);
        change.lost_agents = self.agents.listed_in(lost);
        change
    }

    /// Takes over the state of watches and agents that other exporters saved. What this one owns stays as it is.
    pub(super) fn replicate(&mut self, toggles: Vec<ToggleChange>, agents: Vec<SavedAgentChange>, now: Timestamp) {
        for (name, runs) in toggles {
            self.replicate_toggle(&name, runs, now);
        }
        for ((api, id), saved) in agents {
            if !self.owns_agent(&api, id) {
                self.agents.replicate(&api, id, saved);
            }
        }
    }

    fn replicate_toggle(&mut self, name: &WatchName, mut runs: Vec<SavedToggle>, now: Timestamp) {
        let run = self.run_of(name.as_str());
        if run.is_some_and(|run| self.owns(run)) {
            return;
        }
        let watch = run.and_then(|run| Some((run, self.entry(run)?.row.toggle.watch.clone())));
        if let Some((run, watch)) = watch {
            match runs.iter().position(|saved| saved.is_run_of(&watch)) {
                Some(at) => {
                    self.replicate_run(run, runs.remove(at));
                    self.mark_replaced(name);
                }
                None => self.replicate_history(run, &mut runs),
            }
        } else {
            self.mark_replaced(name);
        }
        for saved in &runs {
            self.agents.add_inactive_run(&saved.api, saved.agent_id);
        }
        for saved in self.inactive.replace(name, runs) {
            self.agents.remove_inactive_run(&saved.api, saved.agent_id, now);
        }
    }

    /// Takes over the saved state of a current run.
    fn replicate_run(&mut self, run: RunId, saved: SavedToggle) {
        let Some(entry) = self.entry_mut(run) else { return };
        let toggle = &mut entry.row.toggle;
        toggle.tally = counted_on(&saved.tally, &toggle.tally);
        (toggle.run, entry.place) = (saved.run, saved.place);
        let finished = toggle.run.finished.is_some();
        self.last_place = self.last_place.max(saved.place);
        self.history.clear(run.slot);
        self.history.restore(run.slot, saved.events);
        if finished {
            self.wake(run);
        }
    }

    /// Takes over what a watch has counted over other runs, because nothing is saved of its current one yet. If that one
    /// comes after them, as a run does that was registered before its owner saved them, their events are before its own.
    fn replicate_history(&mut self, run: RunId, saved: &mut [SavedToggle]) {
        let (Some(newest), Some(entry)) = (saved.first_mut(), self.entry_mut(run)) else { return };
        let toggle = &mut entry.row.toggle;
        toggle.tally = counted_on(&newest.tally, &toggle.tally);
        let (watch, started) = (toggle.watch.clone(), toggle.run.started);
        if newest.run.started < started {
            self.history.clear(run.slot);
            self.history.restore(run.slot, std::mem::take(&mut newest.events));
            self.record_start(run.slot, &watch, started);
        }
    }
}

/// What was saved of a tally. Polls are saved late, and those that this exporter exposed before must not go back.
fn counted_on(saved: &Tally, known: &Tally) -> Tally {
    Tally { polls: saved.polls.max(known.polls), failures: saved.failures.max(known.failures), ..saved.clone() }
}
