//! The current state of every toggle and agent.
//!
//! Only the poller changes it, except that a request can forget an agent. Readers take a snapshot: a row that
//! changes while somebody reads it is copied, so nothing slow happens under the lock. [`Board`] has the lock and
//! the notifications; `state` has the data under the lock.

mod agents;
mod history;
mod inactive;
mod rotation;
mod rows;
mod shards;
mod state;
mod update;

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use tokio::sync::{Notify, watch};

use crate::sources::{self, WatchChange};
use crate::store::{self, Leases, SavedAgent, SavedToggle, ToggleChange, UnsavedChanges};
use crate::toggle::{
    AgentDefinition, AgentId, AgentKey, AgentTransition, AgentView, ApiName, ClockJump, Drift, Event, Failure, Labels,
    LiveMocks, MockStatus, Outcome, Provider, Reason, Run, Shard, ShardOwners, ShardSet, Timestamp, Toggle, ToldMocks,
    Transition, Watch, WatchName,
};
pub use rows::ToggleRows;
use state::BoardState;

/// The current state of every watch and every agent.
#[derive(Debug, Default)]
pub struct Board {
    state: RwLock<BoardState>,
    /// Notified when a run finishes, or something else should be saved soon.
    finished: Notify,
    /// Incremented by every change that readers can see.
    revision: AtomicU64,
    /// How many saves have begun.
    saves: AtomicU64,
    /// The number of the last save that saved everything.
    last_save: watch::Sender<u64>,
    /// Who owns the shards, where several exporters share the state.
    owners: RwLock<Option<Arc<ShardOwners>>>,
}

/// One run of one watch. The id becomes stale when the run is replaced or the watch is removed; stale ids are ignored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RunId {
    slot: u32,
    generation: NonZeroU32,
}

/// The state of one watch.
#[derive(Debug, Clone)]
pub struct ToggleRow {
    /// The watch, its run and its tally.
    pub toggle: Toggle,
    /// When the next poll is due; `None` if none is planned.
    pub next_poll: Option<Timestamp>,
}

/// The state of one agent.
#[derive(Debug, Clone)]
pub struct AgentRow {
    /// Its API.
    pub api: ApiName,
    /// Its id.
    pub id: AgentId,
    /// What its toggle tasks told of its mocks.
    pub told: ToldMocks,
    /// What its mock status says; `None` if it is not asked for.
    pub asked: Option<AskedAgent>,
}

/// The state of an agent whose mock status is asked for.
#[derive(Debug, Clone)]
pub struct AskedAgent {
    /// Its definition.
    pub definition: Arc<AgentDefinition>,
    /// The labels of its series as text.
    pub labels: Arc<str>,
    /// What its mock status says.
    pub live: LiveMocks,
    /// When the next poll is due; `None` if it was never planned.
    pub next_poll: Option<Timestamp>,
    /// Whether its mocks are as they should be; `None` while that is not judged.
    pub drift: Option<Drift>,
}

/// What a poll of an agent changed.
#[derive(Debug)]
pub struct AppliedAgentPoll {
    /// The definition of the agent.
    pub definition: Arc<AgentDefinition>,
    /// What its mock status says after the change.
    pub live: LiveMocks,
    /// The changes.
    pub transitions: Vec<AgentTransition>,
}

/// What a poll changed.
#[derive(Debug)]
pub struct AppliedPoll {
    /// The toggle after the change.
    pub toggle: Toggle,
    /// The changes.
    pub transitions: Vec<Transition>,
}

/// The runs that started and went stale because the watch list changed.
#[derive(Debug, Default)]
pub struct RunChanges {
    /// The runs that are new on the board, in the order of the changes.
    pub started: Vec<StartedRun>,
    /// The runs that went stale.
    pub stale: Vec<RunId>,
}

/// A run that is new on the board.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StartedRun {
    /// The run.
    pub run: RunId,
    /// Whether its saved state says that it has finished.
    pub finished: bool,
}

/// What an exporter begins and ceases to poll because it owns other shards.
#[derive(Debug, Default)]
pub struct OwnershipChange {
    /// The runs in shards that it gained, sorted by the names of their watches.
    pub gained_runs: Vec<StartedRun>,
    /// The runs in shards that it lost.
    pub lost_runs: Vec<RunId>,
    /// The agents to ask in shards that it gained.
    pub gained_agents: Vec<AgentKey>,
    /// The agents in shards that it lost, whose mock status it asked for.
    pub lost_agents: Vec<AgentKey>,
}

/// A run that a client waits for.
#[derive(Debug, Clone)]
pub struct AwaitedRun {
    /// The run.
    pub run: RunId,
    /// Notified when the run finishes or goes stale.
    pub changed: Arc<Notify>,
}

// === impl Board ===

impl Board {
    /// How many agents, or names of inactive runs, are processed each time the lock is taken.
    const PAGE: usize = 1024;

    /// A board with the state that an earlier process saved. Changes are collected, to be saved.
    pub fn restored(
        toggles: BTreeMap<WatchName, Vec<SavedToggle>>,
        agents: impl IntoIterator<Item = (AgentKey, SavedAgent)>,
    ) -> Self {
        Self { state: RwLock::new(BoardState::restored(toggles, agents)), ..Self::default() }
    }

    /// A board whose state other exporters share. It owns nothing until [`Board::own`] is called. Changes are collected,
    /// to be saved.
    pub fn shared() -> Self {
        Self { state: RwLock::new(BoardState::shared()), ..Self::default() }
    }

    /// Whether other exporters share the state. Then runs that finish are counted when they are saved.
    pub fn is_shared(&self) -> bool {
        self.read().is_shared()
    }

    /// Shifts every time by a jump of the clock. `set_clock` sets the clock before any reader sees the shifted times.
    pub fn shift_times(&self, jump: ClockJump, set_clock: impl FnOnce(ClockJump)) {
        let mut state = self.write();
        set_clock(jump);
        state.shift_times(jump);
    }

    /// Applies changes of the watch list, all at once. A run that stays keeps its state, and an inactive run that
    /// comes back gets the state that it had.
    pub fn update(&self, changes: &[WatchChange], now: Timestamp) -> RunChanges {
        self.write().update(changes, now)
    }

    /// Applies changes of the list of agents, all at once. An agent that stays keeps its state.
    pub fn update_agents(&self, changes: &[sources::AgentChange], now: Timestamp) {
        if !changes.is_empty() {
            self.write().agents.update(changes, now);
        }
    }

    /// Owns these shards and no others from now on. Before, all are owned.
    pub fn own(&self, owned: ShardSet, now: Timestamp) -> OwnershipChange {
        self.write().own(owned, now)
    }

    /// Saves the state of watches and agents only in these epochs of their shards from now on.
    pub fn set_leases(&self, leases: &Leases) {
        self.write_unseen().set_leases(leases);
    }

    /// Who owns the shards; `None` if no other exporters share the state, or if it is not known yet.
    pub fn owners(&self) -> Option<Arc<ShardOwners>> {
        self.owners.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Sets who owns the shards.
    pub fn set_owners(&self, owners: ShardOwners) {
        let mut known = self.owners.write().unwrap_or_else(PoisonError::into_inner);
        if known.as_deref() != Some(&owners) {
            *known = Some(Arc::new(owners));
            drop(known);
            drop(self.write());
        }
    }

    /// Whether this exporter polls and exposes a run.
    pub fn owns(&self, run: RunId) -> bool {
        self.read().owns(run)
    }

    /// Whether this exporter asks for the mock status of an agent and exposes it.
    pub fn owns_agent(&self, api: &ApiName, id: AgentId) -> bool {
        self.read().owns_agent(api, id)
    }

    /// Takes over the state of watches and agents that other exporters saved. What this one owns stays as it is.
    pub fn replicate(&self, toggles: Vec<ToggleChange>, agents: Vec<store::SavedAgentChange>, now: Timestamp) {
        if !toggles.is_empty() || !agents.is_empty() {
            self.write().replicate(toggles, agents, now);
        }
    }

    /// The watch of a run; `None` if it is stale.
    pub fn watch(&self, run: RunId) -> Option<Arc<Watch>> {
        Some(self.read().entry(run)?.row.toggle.watch.clone())
    }

    /// Applies the outcome of a poll, and returns what it changed; `None` if nothing changed or the run is stale.
    /// `next_poll` returns when the run is polled next; it is not called for a stale run.
    pub fn apply(
        &self,
        run: RunId,
        outcome: Outcome,
        now: Timestamp,
        next_poll: impl FnOnce(&Run) -> Option<Timestamp>,
    ) -> Option<AppliedPoll> {
        let applied = self.write().apply(run, outcome, now, next_poll)?;
        if applied.is_finish() {
            self.finished.notify_one();
        }
        (!applied.transitions.is_empty()).then_some(applied)
    }

    /// Whether the mock status of an agent is asked for.
    pub fn is_asked(&self, api: &ApiName, id: AgentId) -> bool {
        self.read().agents.is_listed(api, id)
    }

    /// Applies the outcome of a poll of an agent, whose request began at `asked`, and returns what it changed; `None`
    /// if nothing changed or the agent is not asked any more. `next_poll` returns when it is polled next; it is not
    /// called for an agent that is not asked.
    pub fn apply_to_agent(
        &self,
        agent: &AgentKey,
        outcome: Result<MockStatus, Failure>,
        asked: Timestamp,
        now: Timestamp,
        next_poll: impl FnOnce(&LiveMocks) -> Timestamp,
    ) -> Option<AppliedAgentPoll> {
        let mut state = self.write();
        // An exporter that lost the shard meanwhile has no say in it.
        state.owns_agent(&agent.0, agent.1).then_some(())?;
        let applied = state.agents.apply(agent, outcome, asked, now, next_poll);
        if state.agents.take_urgent(agent) {
            state.mark_news();
            self.finished.notify_one();
        }
        applied
    }

    /// Saves the next answer about an agent at once, because another exporter waits for it.
    pub fn save_next_answer(&self, agent: &AgentKey) {
        self.write_unseen().agents.set_urgent(agent);
    }

    /// Sets when the next poll of an agent is due.
    pub fn set_next_agent_poll(&self, api: &ApiName, id: AgentId, next_poll: Timestamp) {
        self.write().agents.set_next_poll(api, id, next_poll);
    }

    /// The agents of an API that are asked, with what their mock status says.
    pub fn asked_agents(&self, api: &ApiName) -> Vec<(AgentId, LiveMocks)> {
        self.read().agents.listed(api).collect()
    }

    /// Notified when a poll of this agent ends, or when it is not asked any more; `None` if it is not asked. Create the
    /// future first, then look at the agent, then wait; otherwise a change in between is missed.
    pub fn awaited_agent(&self, api: &ApiName, id: AgentId) -> Option<Arc<Notify>> {
        self.write_unseen().agents.awaited(api, id)
    }

    /// Sets when the next poll of a run is due.
    pub fn set_next_poll(&self, run: RunId, next_poll: Option<Timestamp>) {
        if let Some(entry) = self.write().entry_mut(run) {
            entry.row.next_poll = next_poll;
        }
    }

    /// The runs of an API whose last poll failed with a reason that `matches`.
    pub fn failing(&self, api: &ApiName, matches: impl Fn(Reason) -> bool) -> Vec<RunId> {
        let fails = |row: &ToggleRow| row.toggle.run.failing.as_ref().is_some_and(|streak| matches(streak.reason));
        let state = self.read();
        let found = state.runs().filter(|(_, row)| row.toggle.watch.api == *api && fails(row));
        found.map(|(run, _)| run).collect()
    }

    /// Calls `of` for every run, sorted by name, and collects the results.
    pub fn map_runs<T>(&self, mut of: impl FnMut(RunId, &ToggleRow) -> T) -> Vec<T> {
        self.read().runs().map(|(run, row)| of(run, row)).collect()
    }

    /// The current run of the watch with this name, to wait for it. Create the future of `changed` first, then look
    /// at the row, then wait; otherwise a change in between is missed.
    pub fn awaited_run(&self, name: &str) -> Option<AwaitedRun> {
        let mut state = self.write_unseen();
        let run = state.run_of(name)?;
        Some(AwaitedRun { run, changed: state.waiters.entry(run).or_default().clone() })
    }

    /// The row of a run; `None` if it is stale.
    pub fn row_of(&self, run: RunId) -> Option<ToggleRow> {
        Some(self.read().entry(run)?.row.clone())
    }

    /// Forgets what was told of an agent until a newer run sets it. Returns whether it was known. The change is saved
    /// soon.
    pub fn forget_agent(&self, api: &ApiName, id: AgentId, now: Timestamp) -> bool {
        let mut state = self.write();
        let forgotten = state.agents.forget(api, id, now);
        if forgotten {
            state.mark_news();
            self.finished.notify_one();
        }
        forgotten
    }

    /// Forgets what has been kept for long enough of agents without a watch, and of agents that no source lists.
    pub fn forget_unused_agents(&self, now: Timestamp) {
        self.write().agents.expire_unused(now);
    }

    /// Forgets the inactive runs under a name for which `keep` returns false. Returns whether there were any.
    pub fn forget_inactive(
        &self,
        name: &WatchName,
        keep: impl Fn(&WatchName, &SavedToggle) -> bool,
        now: Timestamp,
    ) -> bool {
        // Most names have no inactive runs, and readers should not wait for these.
        !self.read().inactive.of(name).is_empty() && self.write().forget_inactive(name, keep, now)
    }

    /// Like [`Board::forget_inactive`], for all names. Returns the number of names that had any. The lock is released
    /// between batches of names, so that nobody waits long for it.
    pub fn forget_all_inactive(&self, keep: impl Fn(&WatchName, &SavedToggle) -> bool, now: Timestamp) -> usize {
        let (mut last, mut forgotten) = (None, 0);
        loop {
            let names = self.read().inactive.names_after(last.as_ref(), Self::PAGE);
            let Some(name) = names.last() else { return forgotten };
            last = Some(name.clone());
            let mut state = self.write_unseen();
            forgotten += names.iter().filter(|name| state.forget_inactive(name, &keep, now)).count();
        }
    }

    /// Waits until a run finishes. A run that finished since the last call counts, too.
    pub async fn run_finished(&self) {
        self.finished.notified().await;
    }

    /// Takes at most `most` watches and as many agents that changed since they were last taken.
    pub fn take_unsaved(&self, most: usize, now: Timestamp) -> UnsavedChanges {
        self.write_unseen().take_unsaved(most, now)
    }

    /// Marks changes as unsaved that were taken and could not be saved.
    pub fn mark_unsaved(&self, changes: &UnsavedChanges) {
        let mut state = self.write_unseen();
        changes.toggles.iter().for_each(|(name, _)| state.mark_unsaved(name));
        state.mark_unsaved_in(changes, ShardSet::NONE);
    }

    /// Marks changes as unsaved that were taken and that another exporter's ownership kept from being saved: those that
    /// are not in the shards `saved`. Returns whether there are any.
    pub fn mark_refused(&self, changes: &UnsavedChanges, saved: ShardSet) -> bool {
        self.write_unseen().mark_unsaved_in(changes, saved)
    }

    /// Marks at most `most` watches, and as many agents, as unsaved of which only counters and the time of the last answer
    /// changed. Where no other exporter shares the state, they are anyway. Returns whether there were any.
    pub fn save_counted(&self, most: usize) -> bool {
        self.write_unseen().save_counted(most)
    }

    /// As [`Board::save_counted`], for all watches and agents in these shards.
    pub fn save_counted_in(&self, shards: ShardSet) {
        self.write_unseen().save_counted_in(shards);
    }

    /// Has everything saved soon that changed until now.
    pub fn save_soon(&self) {
        self.finished.notify_one();
    }

    /// Begins a save, and returns its number for [`Board::finish_save`].
    pub fn begin_save(&self) -> u64 {
        self.saves.fetch_add(1, Ordering::AcqRel) + 1
    }

    /// Ends a save that saved everything that had changed before it began.
    pub fn finish_save(&self, save: u64) {
        self.last_save.send_replace(save);
    }

    /// Resolves when everything that has changed until now is saved; at once if nothing is ever saved.
    pub async fn all_saved(&self) {
        if self.read().is_saved() {
            let next = self.saves.load(Ordering::Acquire) + 1;
            // This cannot fail, because the board holds the sender.
            let _ = self.last_save.subscribe().wait_for(|save| *save >= next).await;
        }
    }

    /// A number that grows with every change that readers can see. What is read after it is at least as new.
    pub fn revision(&self) -> u64 {
        self.revision.load(Ordering::Acquire)
    }

    /// A snapshot of every watch, sorted by name.
    pub fn rows(&self) -> ToggleRows {
        self.read().rows.clone()
    }

    /// As [`Board::rows`], of the watches in shards that are owned.
    pub fn owned_rows(&self) -> ToggleRows {
        let state = self.read();
        let (rows, owned) = (state.rows.clone(), state.owned);
        drop(state);
        rows.in_shards(owned)
    }

    /// The row of the watch with this name.
    pub fn row(&self, name: &str) -> Option<ToggleRow> {
        self.with_row(name, ToggleRow::clone)
    }

    /// The latest events of the watch with this name, the newest first.
    pub fn events(&self, name: &str) -> Option<Vec<Event>> {
        let state = self.read();
        Some(state.history.of(state.run_of(name)?.slot).cloned().collect())
    }

    /// Calls `of` with the row of the watch with this name.
    pub fn with_row<T>(&self, name: &str, of: impl FnOnce(&ToggleRow) -> T) -> Option<T> {
        Some(of(&self.read().entry_of(name)?.row))
    }

    /// Whether a poll of the current run of the watch with this name has ended in this process.
    pub fn is_polled(&self, name: &str) -> bool {
        self.read().entry_of(name).is_some_and(|entry| entry.polled)
    }

    /// Every agent that is asked or of which something was told, sorted by API and id.
    pub fn agents(&self, now: Timestamp) -> Vec<AgentRow> {
        self.agent_rows(true, now)
    }

    /// As [`Board::agents`], of the agents in shards that are owned.
    pub fn owned_agents(&self, now: Timestamp) -> Vec<AgentRow> {
        // In one statement with the next, the lock would be held while it is taken again. A thread that does this waits
        // for ever if another one wants to write in between.
        let owned = self.read().owned;
        let mut agents = self.agents(now);
        if owned != ShardSet::ALL {
            agents.retain(|agent| owned.contains(Shard::of(&agent.api, agent.id)));
        }
        agents
    }

    /// As [`Board::agents`], and every agent that has a watch.
    pub fn all_agents(&self, now: Timestamp) -> Vec<AgentRow> {
        self.agent_rows(false, now)
    }

    /// The agent, if it is asked, has a watch or something was told of it.
    pub fn agent(&self, api: &ApiName, id: AgentId, now: Timestamp) -> Option<AgentRow> {
        let state = self.read();
        let mut row = state.agents.get(api, id)?;
        let is_of_agent = |toggle: &Toggle| toggle.watch.agent_id == id && toggle.watch.api == *api;
        row.judge(state.rows.iter().any(|row| is_of_agent(&row.toggle) && row.toggle.run.is_in_progress(now)));
        Some(row)
    }

    /// The agents of each API that an earlier process or another exporter asked, with their providers. It must be read as
    /// soon as their state was read, because the poller notes once a minute which agents no source lists here.
    pub fn agents_asked_before(&self) -> BTreeMap<ApiName, BTreeMap<AgentId, Option<Provider>>> {
        self.read().agents.saved_as_listed()
    }

    /// Copies the agents in batches. The lock is released between them, so that the poller never waits long for it.
    fn agent_rows(&self, known_only: bool, now: Timestamp) -> Vec<AgentRow> {
        // Read before the agents: if a run finishes in between, its agent is not judged.
        let rows = self.rows();
        let mut agents = Vec::new();
        let mut last = None;
        loop {
            last = self.read().agents.page(last.as_ref(), Self::PAGE, known_only, &mut agents);
            if last.is_none() {
                break;
            }
        }
        judge(&mut agents, &rows, now);
        agents
    }

    // A poisoned lock is still used, because no code under it can leave the state half changed.

    fn read(&self) -> RwLockReadGuard<'_, BoardState> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, BoardState> {
        let state = self.write_unseen();
        // Incremented under the lock, so that a reader who sees the new revision also sees the change.
        self.revision.fetch_add(1, Ordering::Release);
        state
    }

    /// Locks the state for changes that readers cannot see.
    fn write_unseen(&self) -> RwLockWriteGuard<'_, BoardState> {
        self.state.write().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Judges agents, which are sorted by API and id.
fn judge(agents: &mut [AgentRow], rows: &ToggleRows, now: Timestamp) {
    if agents.iter().all(|agent| agent.asked.is_none()) {
        return;
    }
    let mut in_progress = vec![false; agents.len()];
    for toggle in rows.iter().map(|row| &row.toggle).filter(|toggle| toggle.run.is_in_progress(now)) {
        let key = (&toggle.watch.api, toggle.watch.agent_id);
        if let Ok(index) = agents.binary_search_by(|agent| (&agent.api, agent.id).cmp(&key)) {
            in_progress[index] = true;
        }
    }
    agents.iter_mut().zip(in_progress).for_each(|(agent, in_progress)| agent.judge(in_progress));
}

// === impl AskedAgent ===

impl AskedAgent {
    /// The provider, from the latest source that knows it.
    pub fn provider(&self) -> Option<Provider> {
        self.live.provider.or(self.definition.provider)
    }
}

// === impl AgentRow ===

impl AgentRow {
    /// The labels of its definition. If that has none, as that of every discovered agent, those of the toggle that told
    /// its state.
    pub fn labels(&self) -> Option<&Labels> {
        let told_by = self.told.told_by.as_ref().map(|teller| &teller.labels);
        let own = self.asked.as_ref().map(|asked| &asked.definition.labels);
        own.filter(|labels| !labels.is_empty()).or(told_by)
    }

    fn judge(&mut self, in_progress: bool) {
        if let Some(AskedAgent { definition, live, drift, .. }) = &mut self.asked {
            *drift = AgentView { definition, told: &self.told, live, in_progress }.drift();
        }
    }
}

// === impl ToggleRow ===

impl ToggleRow {
    /// A toggle with no poll planned.
    pub fn new(toggle: Toggle) -> Self {
        Self { toggle, next_poll: None }
    }
}

// === impl AppliedPoll ===

impl AppliedPoll {
    /// Whether the run finished.
    pub fn is_finish(&self) -> bool {
        self.transitions.iter().any(|transition| matches!(transition, Transition::Finished { .. }))
    }
}

// === impl RunId ===

impl RunId {
    /// The slot of the run on the board: a small number that is used again after the run went stale.
    pub fn slot(self) -> usize {
        self.slot as usize
    }

    #[cfg(test)]
    pub(crate) fn of(slot: u32, generation: u32) -> Self {
        Self { slot, generation: NonZeroU32::new(generation).unwrap() }
    }
}

#[cfg(test)]
mod tests;
