//! Sharing watches and agents with other exporters: the shards that this one owns, and the state of the others.

use super::rows::RowEntry;
use super::state::BoardState;
use super::{OwnershipChange, RunId, StartedRun};
use crate::store::{SavedAgentChange, SavedToggle, ToggleChange};
use crate::toggle::{AgentId, ApiName, Shard, ShardSet, Timestamp, WatchName};

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
        let entry = run.and_then(|run| Some((run, self.entry_mut(run)?)));
        let current = entry.and_then(|(run, entry)| {
            let at = runs.iter().position(|saved| saved.is_run_of(&entry.row.toggle.watch))?;
            let mut saved = runs.remove(at);
            // Counters are saved late. Those that this exporter exposed before must not go back.
            let known = &entry.row.toggle.tally;
            saved.tally.polls = saved.tally.polls.max(known.polls);
            saved.tally.failures = saved.tally.failures.max(known.failures);
            (entry.row.toggle.run, entry.row.toggle.tally, entry.place) = (saved.run, saved.tally, saved.place);
            Some((run, entry.row.toggle.run.finished.is_some(), saved.events, saved.place))
        });
        if let Some((run, finished, events, place)) = current {
            self.last_place = self.last_place.max(place);
            self.history.clear(run.slot);
            self.history.restore(run.slot, events);
            if finished {
                self.wake(run);
            }
        }
        for saved in &runs {
            self.agents.add_inactive_run(&saved.api, saved.agent_id);
        }
        for saved in self.inactive.replace(name, runs) {
            self.agents.remove_inactive_run(&saved.api, saved.agent_id, now);
        }
    }
}
