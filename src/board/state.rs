//! The data that the board keeps under its lock: reading it, applying polls, and collecting what to save.
//!
//! Changes of the watch list are applied in [`update`](super::update).

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::Arc;

use tokio::sync::Notify;

use super::agents::Agents;
use super::history::History;
use super::inactive::InactiveRuns;
use super::rotation::Rotation;
use super::rows::{RowEntry, ToggleRows};
use super::{AppliedPoll, RunId, ToggleRow};
use crate::store::{FinishedRun, Leases, SavedAgent, SavedToggle, UnsavedChanges};
use crate::toggle::{
    AgentKey, ClockJump, Outcome, Run, Shard, ShardSet, Standing, Text, Timestamp, Transition, WatchName,
};

#[derive(Debug, Default)]
pub(super) struct BoardState {
    pub(super) rows: ToggleRows,
    /// Slots that were used and are free now.
    pub(super) free_slots: Vec<u32>,
    /// How many slots there are, free ones included.
    pub(super) slot_count: u32,
    pub(super) agents: Agents,
    pub(super) history: History,
    /// The last place in the watch list that was assigned.
    pub(super) last_place: u64,
    /// The last generation that was assigned. A stale id could mean another run only after this has wrapped
    /// around, and only in the same slot.
    pub(super) last_generation: u32,
    /// The latest messages of runs, newest first, so that equal ones share their memory.
    messages: VecDeque<Text>,
    /// Clients that wait until a run finishes or goes stale.
    pub(super) waiters: HashMap<RunId, Arc<Notify>>,
    pub(super) inactive: InactiveRuns,
    /// The shards whose watches and agents this exporter polls and exposes.
    pub(super) owned: ShardSet,
    /// The watches that changed since they were saved; `None` if nothing is ever saved.
    unsaved: Option<BTreeSet<WatchName>>,
    /// What is saved in another way where other exporters share the state; `None` if none do.
    deferred: Option<DeferredChanges>,
}

/// Changes of shared state that are not saved at once, because a database that many exporters write to is slower than
/// a file.
#[derive(Debug, Default)]
struct DeferredChanges {
    /// The watches of which nothing but counters and the time of the last answer changed.
    counted: Rotation<WatchName>,
    /// The runs that finished and are counted when they are saved.
    finished: Vec<FinishedRun>,
    /// The epochs of the shards in which this exporter may save.
    leases: Leases,
    /// Whether the other exporters should read the unsaved changes as soon as they are saved.
    is_news: bool,
}

// === impl BoardState ===

impl BoardState {
    /// How many of the latest messages are compared.
    const MESSAGES: usize = 8;

    /// How many events are saved for a toggle, and for a toggle in trouble.
    const SAVED_EVENTS: usize = 6;
    pub(super) const SAVED_EVENTS_IN_TROUBLE: usize = 20;

    /// The state that an earlier process saved. Changes are collected, to be saved.
    pub(super) fn restored(
        toggles: BTreeMap<WatchName, Vec<SavedToggle>>,
        agents: impl IntoIterator<Item = (AgentKey, SavedAgent)>,
    ) -> Self {
        let mut agents = Agents::restored(agents);
        let inactive = InactiveRuns::restored(toggles);
        inactive.iter().for_each(|saved| agents.add_inactive_run(&saved.api, saved.agent_id));
        Self {
            // New runs come after all that were saved.
            last_place: inactive.iter().map(|saved| saved.place).chain(agents.newest_place()).max().unwrap_or_default(),
            agents,
            inactive,
            unsaved: Some(BTreeSet::new()),
            ..Self::default()
        }
    }

    /// An empty state that other exporters share. None of it is owned yet.
    pub(super) fn shared() -> Self {
        let restored = Self::restored(BTreeMap::new(), []);
        let agents = Agents::shared();
        Self { agents, owned: ShardSet::NONE, deferred: Some(DeferredChanges::default()), ..restored }
    }

    /// Whether other exporters share the state.
    pub(super) fn is_shared(&self) -> bool {
        self.deferred.is_some()
    }

    /// Shifts every time by a jump of the clock.
    pub(super) fn shift_times(&mut self, jump: ClockJump) {
        let shifted = |time: Timestamp| time.shifted(jump);
        let slots: Vec<_> = self.rows.slots().collect();
        for slot in slots {
            if let Some(RowEntry { row, .. }) = self.rows.entry_mut(slot) {
                row.toggle.map_times(shifted);
                row.next_poll = row.next_poll.map(shifted);
            }
        }
        self.inactive.iter_mut().for_each(|saved| saved.map_times(shifted));
        self.history.map_times(shifted);
        self.agents.map_times(shifted);
        // Shared times are those of the database's clock, which did not jump.
        if let Some(unsaved) = self.unsaved.as_mut().filter(|_| self.deferred.is_none()) {
            unsaved.extend(self.rows.iter().map(|row| row.toggle.watch.name.clone()));
            unsaved.extend(self.inactive.names().cloned());
        }
    }

    pub(super) fn entry(&self, run: RunId) -> Option<&RowEntry> {
        self.rows.entry(run.slot).filter(|entry| entry.generation == run.generation)
    }

    pub(super) fn entry_mut(&mut self, run: RunId) -> Option<&mut RowEntry> {
        self.entry(run)?;
        self.rows.entry_mut(run.slot)
    }

    /// The current run of the watch with this name.
    pub(super) fn run_of(&self, name: &str) -> Option<RunId> {
        let slot = self.rows.slot_of(name)?;
        Some(RunId { slot, generation: self.rows.entry(slot)?.generation })
    }

    pub(super) fn entry_of(&self, name: &str) -> Option<&RowEntry> {
        self.rows.entry(self.rows.slot_of(name)?)
    }

    /// Every run with its row, sorted by name.
    pub(super) fn runs(&self) -> impl Iterator<Item = (RunId, &ToggleRow)> {
        self.rows.slots().filter_map(|slot| {
            let entry = self.rows.entry(slot)?;
            Some((RunId { slot, generation: entry.generation }, &entry.row))
        })
    }

    /// Applies the outcome of a poll; `None` if the run is stale or not owned, or if the poll changed neither the status
    /// of the toggle nor its agent. The transitions are empty if only the agent may have changed.
    pub(super) fn apply(
        &mut self,
        run: RunId,
        outcome: Outcome,
        now: Timestamp,
        next_poll: impl FnOnce(&Run) -> Option<Timestamp>,
    ) -> Option<AppliedPoll> {
        self.owns(run).then_some(())?;
        let answered = outcome.is_ok();
        let outcome = self.share_message(outcome);
        let entry = self.entry_mut(run)?;
        let transitions = entry.row.toggle.apply(outcome, now);
        entry.row.next_poll = next_poll(&entry.row.toggle.run);
        entry.polled = true;
        let decides_agent = answered && entry.row.toggle.run.finished.is_some();
        self.mark_polled(run, &transitions);
        if transitions.is_empty() && !decides_agent {
            return None;
        }
        let (toggle, place) = self.entry(run).map(|entry| (entry.row.toggle.clone(), entry.place))?;
        self.history.record_transitions(run.slot, &toggle, &transitions, now);
        if answered {
            self.agents.observe(&toggle.watch, &toggle.run, place, now);
        }
        let applied = AppliedPoll { toggle, transitions };
        if applied.is_finish() {
            self.wake(run);
            self.count_when_saved(&applied);
            self.agents.run_finished(&applied.toggle.watch.api, applied.toggle.watch.agent_id, now);
        }
        Some(applied)
    }

    /// Notifies the clients that wait for this run.
    pub(super) fn wake(&mut self, run: RunId) {
        if let Some(waiters) = self.waiters.remove(&run) {
            waiters.notify_waiters();
        }
    }

    /// Whether anything is ever saved.
    pub(super) fn is_saved(&self) -> bool {
        self.unsaved.is_some()
    }

    /// Marks a watch as changed since it was saved.
    pub(super) fn mark_unsaved(&mut self, name: &WatchName) {
        if let Some(unsaved) = self.unsaved.as_mut().filter(|unsaved| !unsaved.contains(name)) {
            unsaved.insert(name.clone());
        }
    }

    /// Forgets the inactive runs under a name for which `keep` returns false. Returns whether there were any.
    pub(super) fn forget_inactive(
        &mut self,
        name: &WatchName,
        keep: impl Fn(&WatchName, &SavedToggle) -> bool,
        now: Timestamp,
    ) -> bool {
        let forgotten = self.inactive.forget(name, keep);
        if !forgotten.is_empty() {
            self.mark_unsaved(name);
        }
        for saved in &forgotten {
            self.agents.remove_inactive_run(&saved.api, saved.agent_id, now);
        }
        !forgotten.is_empty()
    }

    /// Takes at most `most` watches and as many agents that changed since they were saved.
    pub(super) fn take_unsaved(&mut self, most: usize, now: Timestamp) -> UnsavedChanges {
        if self.deferred.as_ref().is_some_and(|deferred| deferred.leases == Leases::default()) {
            return UnsavedChanges::default();
        }
        let Some(mut unsaved) = self.unsaved.take() else { return UnsavedChanges::default() };
        let (mut finished, is_news, leases) = match &mut self.deferred {
            Some(of) => (std::mem::take(&mut of.finished), std::mem::take(&mut of.is_news), of.leases),
            None => (Vec::new(), false, Leases::default()),
        };
        // The others stay unsaved. If this exporter gains their shards before anybody replaces their state, it saves them.
        let names: Vec<_> = unsaved.extract_if(.., |name| self.saves(name)).take(most).collect();
        let later: Vec<_> = finished.extract_if(.., |run| unsaved.contains(&run.toggle)).collect();
        self.unsaved = Some(unsaved);
        if let Some(deferred) = &mut self.deferred {
            deferred.finished = later;
        }
        let change = |name: WatchName| {
            let current = self.entry_of(name.as_str()).map(|entry| self.to_save(entry, now));
            let runs = current.into_iter().chain(self.inactive.of(&name).iter().cloned()).collect();
            (name, runs)
        };
        let toggles = names.into_iter().map(change).collect();
        let shards = if self.is_shared() { leases.owned() } else { ShardSet::ALL };
        UnsavedChanges { toggles, agents: self.agents.take_unsaved(most, shards), finished, is_news, leases }
    }

    /// Whether this exporter may save the state under a name: it has a lease of the shard of its run, or of any if
    /// nothing is known of the name any more.
    fn saves(&self, name: &WatchName) -> bool {
        let Some(DeferredChanges { leases, .. }) = &self.deferred else { return true };
        match self.shard_of(name) {
            Some(shard) => leases.epoch(shard).is_some(),
            None => !leases.owned().is_empty(),
        }
    }

    /// Saves only in these epochs from now on.
    pub(super) fn set_leases(&mut self, leases: &Leases) {
        if let Some(deferred) = &mut self.deferred {
            deferred.leases = *leases;
        }
    }

    /// Marks changes as unsaved that were taken and are not in the shards `saved`, except for removals. Returns whether
    /// there are any. Runs whose shard had another owner since are not counted, because that one may have counted them.
    pub(super) fn mark_unsaved_in(&mut self, changes: &UnsavedChanges, saved: ShardSet) -> bool {
        let is_unsaved = |shard: Shard| !saved.contains(shard);
        let toggles =
            changes.toggles.iter().filter(|(_, runs)| runs.first().is_some_and(|run| is_unsaved(run.shard())));
        let toggles: Vec<_> = toggles.map(|(name, _)| name).collect();
        let agents: Vec<_> = changes.agents.iter().filter(|((api, id), _)| is_unsaved(Shard::of(api, *id))).collect();
        for name in &toggles {
            self.mark_unsaved(name);
        }
        for (key, _) in &agents {
            self.agents.mark_unsaved(key.clone());
        }
        let is_any = !toggles.is_empty() || !agents.is_empty();
        if let Some(deferred) = &mut self.deferred {
            let is_ours = |shard: Shard| changes.leases.epoch(shard) == deferred.leases.epoch(shard);
            let later = changes.finished.iter().filter(|run| is_unsaved(run.shard) && is_ours(run.shard));
            deferred.finished.extend(later.cloned());
            deferred.is_news |= is_any && changes.is_news;
        }
        is_any
    }

    /// Takes note that another exporter's state of a watch has replaced this one's.
    pub(super) fn mark_replaced(&mut self, name: &WatchName) {
        if let Some(unsaved) = &mut self.unsaved {
            unsaved.remove(name);
        }
        if let Some(deferred) = &mut self.deferred {
            deferred.finished.retain(|run| run.toggle != *name);
        }
    }

    /// The shard of the run under a name, or of the newest inactive one; `None` if nothing is known of the name.
    fn shard_of(&self, name: &WatchName) -> Option<Shard> {
        let of_row = self.rows.slot_of(name.as_str()).and_then(|slot| self.rows.shard(slot));
        of_row.or_else(|| self.inactive.of(name).first().map(SavedToggle::shard))
    }

    fn to_save(&self, entry: &RowEntry, now: Timestamp) -> SavedToggle {
        let toggle = &entry.row.toggle;
        let is_well = matches!(Standing::of(toggle, now), Standing::Completed | Standing::InProgress);
        let most = if is_well { Self::SAVED_EVENTS } else { Self::SAVED_EVENTS_IN_TROUBLE };
        let slot = self.rows.slot_of(toggle.watch.name.as_str());
        let events = slot.into_iter().flat_map(|slot| self.history.of(slot)).take(most).cloned().collect();
        SavedToggle { events, ..SavedToggle::of(toggle, entry.place) }
    }

    /// Marks the watch of a run as changed by a poll.
    fn mark_polled(&mut self, run: RunId, transitions: &[Transition]) {
        if self.unsaved.is_none() {
            return;
        }
        let Some(name) = self.entry(run).map(|entry| entry.row.toggle.watch.name.clone()) else { return };
        match &mut self.deferred {
            Some(deferred) if transitions.iter().all(Transition::is_repetition) => deferred.counted.insert(name),
            _ => self.mark_unsaved(&name),
        }
    }

    /// Keeps a run that finished, to be counted when it is saved, if other exporters share the state.
    fn count_when_saved(&mut self, applied: &AppliedPoll) {
        let Some(deferred) = &mut self.deferred else { return };
        let watch = &applied.toggle.watch;
        for transition in &applied.transitions {
            if let Transition::Finished { status, duration, mismatch } = *transition {
                let (toggle, api, shard) =
                    (watch.name.clone(), watch.api.clone(), Shard::of(&watch.api, watch.agent_id));
                deferred.finished.push(FinishedRun { toggle, api, shard, status, duration, mismatch });
                deferred.is_news = true;
            }
        }
    }

    /// Has other exporters read the unsaved changes as soon as they are saved.
    pub(super) fn mark_news(&mut self) {
        if let Some(deferred) = &mut self.deferred {
            deferred.is_news = true;
        }
    }

    /// Marks at most `most` watches, and as many agents, as unsaved of which only counters changed.
    /// Returns whether there were any.
    pub(super) fn save_counted(&mut self, most: usize) -> bool {
        let mut any = self.agents.save_counted(most);
        if let (Some(unsaved), Some(deferred)) = (&mut self.unsaved, &mut self.deferred) {
            let counted = deferred.counted.take(most);
            any |= !counted.is_empty();
            unsaved.extend(counted);
        }
        any
    }

    /// As [`BoardState::save_counted`], for all watches and agents in these shards.
    pub(super) fn save_counted_in(&mut self, shards: ShardSet) {
        if let Some(mut deferred) = self.deferred.take() {
            let is_in = |name: &WatchName| self.shard_of(name).is_none_or(|shard| shards.contains(shard));
            let names = deferred.counted.take_matching(is_in);
            for name in &names {
                self.mark_unsaved(name);
            }
            self.deferred = Some(deferred);
        }
        self.agents.save_counted_in(shards);
    }

    /// Replaces the message of an answer by an equal one that another run has, so that they share their memory.
    fn share_message(&mut self, mut outcome: Outcome) -> Outcome {
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
}
