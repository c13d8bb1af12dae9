//! The state of all agents.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Bound;
use std::sync::Arc;

use tokio::sync::Notify;

use super::rotation::Rotation;
use super::{AgentRow, AppliedAgentPoll, AskedAgent};
use crate::labels::agent_labels;
use crate::sources::AgentChange as AgentListChange;
use crate::store::{SavedAgent, SavedAgentChange};
use crate::toggle::{
    AgentDefinition, AgentId, AgentKey, AgentTransition, ApiName, Failure, LiveMocks, MockStatus, Provider, Run, Shard,
    ShardSet, Timestamp, ToldMocks, Watch,
};

/// All agents, and which of them are not saved yet.
#[derive(Debug, Default)]
pub(super) struct Agents {
    apis: BTreeMap<ApiName, BTreeMap<AgentId, Agent>>,
    /// The agents that changed since they were saved; `None` if nothing is ever saved.
    unsaved: Option<BTreeSet<AgentKey>>,
    /// Those of which only counters and the time of the last answer changed, where other exporters share the state.
    counted: Option<Rotation<AgentKey>>,
    /// The agents about which another exporter waits for an answer.
    urgent: BTreeSet<AgentKey>,
    /// Clients that wait for the next answer about an agent.
    waiters: HashMap<AgentKey, Arc<Notify>>,
}

/// An agent. Its parts are boxed, because most agents lack some of them.
#[derive(Debug, Default)]
struct Agent {
    told: Option<Box<ToldMocks>>,
    live: Option<Box<LiveMocks>>,
    /// `None` if no source lists the agent.
    listed: Option<Box<ListedAgent>>,
    watches: u32,
    /// How many of its runs are inactive and may come back.
    inactive_runs: u32,
}

/// An agent whose mock status is asked for.
#[derive(Debug)]
struct ListedAgent {
    definition: Arc<AgentDefinition>,
    /// The labels of its series as text.
    labels: Arc<str>,
    next_poll: Option<Timestamp>,
}

// === impl Agents ===

impl Agents {
    /// Agents that an earlier process saved. Changes are collected, to be saved.
    pub(super) fn restored(saved: impl IntoIterator<Item = (AgentKey, SavedAgent)>) -> Self {
        let mut agents = Self { unsaved: Some(BTreeSet::new()), ..Self::default() };
        for ((api, id), SavedAgent { told, live }) in saved {
            let agent = agents.entry(&api, id);
            agent.told = Some(Box::new(told));
            agent.set_live(live);
        }
        agents
    }

    /// No agents yet, of those that other exporters share.
    pub(super) fn shared() -> Self {
        Self { counted: Some(Rotation::default()), ..Self::restored([]) }
    }

    /// Applies `map` to every time.
    pub(super) fn map_times(&mut self, map: impl Fn(Timestamp) -> Timestamp) {
        for (api, agents) in &mut self.apis {
            for (id, agent) in agents {
                agent.map_times(&map);
                // Shared times are those of the database's clock, which did not jump.
                if let Some(unsaved) = &mut self.unsaved
                    && self.counted.is_none()
                    && (agent.told.is_some() || agent.live.is_some())
                {
                    unsaved.insert((api.clone(), *id));
                }
            }
        }
    }

    /// The highest place in the watch list of a run that decided what was told of an agent.
    pub(super) fn newest_place(&self) -> Option<u64> {
        let told = self.apis.values().flat_map(BTreeMap::values).filter_map(|agent| agent.told.as_ref());
        told.filter_map(|told| Some(told.newest?.1)).max()
    }

    /// Applies changes of the list of agents.
    pub(super) fn update(&mut self, changes: &[AgentListChange], now: Timestamp) {
        for AgentListChange { key: (api, id), definition } in changes {
            let agent = self.entry(api, *id);
            agent.listed = definition.as_ref().map(|definition| {
                let (definition, labels) = (definition.clone(), agent_labels(definition));
                Box::new(ListedAgent { definition, labels, next_poll: Some(now) })
            });
            self.expire(api, *id, now);
            if definition.is_none() {
                self.wake(api, *id);
            }
        }
    }

    /// Whether the mock status of an agent is asked for.
    pub(super) fn is_listed(&self, api: &ApiName, id: AgentId) -> bool {
        self.agent(api, id).is_some_and(|agent| agent.listed.is_some())
    }

    /// Applies the outcome of a poll of the mock status, whose request began at `asked`, and returns what it changed;
    /// `None` if nothing changed or the agent is not listed any more. `next_poll` returns when the agent is polled next;
    /// it is not called for an agent that is not listed.
    pub(super) fn apply(
        &mut self,
        (api, id): &AgentKey,
        outcome: Result<MockStatus, Failure>,
        asked: Timestamp,
        now: Timestamp,
        next_poll: impl FnOnce(&LiveMocks) -> Timestamp,
    ) -> Option<AppliedAgentPoll> {
        let agent = self.apis.get_mut(api)?.get_mut(id)?;
        let listed = agent.listed.as_mut()?;
        let live = agent.live.get_or_insert_default();
        let transitions = live.apply(outcome, asked, now);
        listed.next_poll = Some(next_poll(live));
        let applied = (!transitions.is_empty()).then(|| {
            let (definition, live) = (listed.definition.clone(), (**live).clone());
            AppliedAgentPoll { definition, live, transitions }
        });
        let is_repetition =
            applied.as_ref().is_none_or(|applied| applied.transitions.iter().all(AgentTransition::is_repetition));
        match &mut self.counted {
            Some(counted) if is_repetition => counted.insert((api.clone(), *id)),
            _ => self.mark_unsaved((api.clone(), *id)),
        }
        self.wake(api, *id);
        applied
    }

    /// Saves the next answer about an agent at once, if it is listed.
    pub(super) fn set_urgent(&mut self, agent: &AgentKey) {
        if self.is_listed(&agent.0, agent.1) {
            self.urgent.insert(agent.clone());
        }
    }

    /// Whether the answer about an agent that has just come is to be saved at once. Then it is marked as unsaved.
    pub(super) fn take_urgent(&mut self, agent: &AgentKey) -> bool {
        let is_urgent = self.urgent.remove(agent);
        if is_urgent {
            self.mark_unsaved(agent.clone());
        }
        is_urgent
    }

    /// Sets when the next poll of an agent is due.
    pub(super) fn set_next_poll(&mut self, api: &ApiName, id: AgentId, next_poll: Timestamp) {
        if let Some(listed) = self.agent_mut(api, id).and_then(|agent| agent.listed.as_mut()) {
            listed.next_poll = Some(next_poll);
        }
    }

    /// The state of the mock status of each listed agent of an API.
    pub(super) fn listed(&self, api: &ApiName) -> impl Iterator<Item = (AgentId, LiveMocks)> {
        let agents = self.apis.get(api).into_iter().flatten();
        agents.filter(|(_, agent)| agent.listed.is_some()).map(|(id, agent)| (*id, agent.live()))
    }

    /// The listed agents in these shards.
    pub(super) fn listed_in(&self, shards: ShardSet) -> Vec<AgentKey> {
        let of_api = |(api, agents): (&ApiName, &BTreeMap<AgentId, Agent>)| {
            let listed =
                agents.iter().filter(|(id, agent)| agent.listed.is_some() && shards.contains(Shard::of(api, **id)));
            listed.map(|(id, _)| (api.clone(), *id)).collect::<Vec<_>>()
        };
        self.apis.iter().flat_map(of_api).collect()
    }

    /// Takes over the state of an agent that another exporter saved; `None` if it removed that.
    pub(super) fn replicate(&mut self, api: &ApiName, id: AgentId, saved: Option<SavedAgent>) {
        let SavedAgent { told, mut live } = saved.unwrap_or_default();
        let agent = self.entry(api, id);
        if let Some(known) = &agent.live {
            // Counters are saved late. Those that this exporter exposed before must not go back.
            live.polls = live.polls.max(known.polls);
            live.failures = live.failures.max(known.failures);
        }
        agent.told = (told != ToldMocks::default()).then(|| Box::new(told));
        agent.set_live(live);
        if let Some(unsaved) = &mut self.unsaved {
            unsaved.remove(&(api.clone(), id));
        }
        self.remove_if_unknown(api, id);
        self.wake(api, id);
    }

    /// The agents of each API that some source listed when their state was saved, with their providers.
    pub(super) fn saved_as_listed(&self) -> BTreeMap<ApiName, BTreeMap<AgentId, Option<Provider>>> {
        let of_api = |agents: &BTreeMap<AgentId, Agent>| {
            let live = agents.iter().filter_map(|(id, agent)| Some((*id, agent.live.as_ref()?)));
            live.filter(|(_, live)| live.unlisted_since.is_none()).map(|(id, live)| (id, live.provider)).collect()
        };
        self.apis.iter().map(|(api, agents)| (api.clone(), of_api(agents))).collect()
    }

    /// Records that a run of an agent finished, if its mock status is asked for.
    pub(super) fn run_finished(&mut self, api: &ApiName, id: AgentId, now: Timestamp) {
        if let Some(agent) = self.agent_mut(api, id).filter(|agent| agent.listed.is_some()) {
            agent.live.get_or_insert_default().run_finished = Some(now);
            self.mark_unsaved((api.clone(), id));
        }
    }

    /// The next answer about an agent; `None` if its mock status is not asked for.
    pub(super) fn awaited(&mut self, api: &ApiName, id: AgentId) -> Option<Arc<Notify>> {
        self.is_listed(api, id).then(|| self.waiters.entry((api.clone(), id)).or_default().clone())
    }

    fn wake(&mut self, api: &ApiName, id: AgentId) {
        if !self.waiters.is_empty()
            && let Some(waiters) = self.waiters.remove(&(api.clone(), id))
        {
            waiters.notify_waiters();
        }
    }

    /// Adds a watch of an agent.
    pub(super) fn add_watch(&mut self, watch: &Watch, now: Timestamp) {
        self.entry(&watch.api, watch.agent_id).watches += 1;
        self.expire(&watch.api, watch.agent_id, now);
    }

    /// Removes a watch of an agent.
    pub(super) fn remove_watch(&mut self, watch: &Watch, now: Timestamp) {
        if let Some(agent) = self.agent_mut(&watch.api, watch.agent_id) {
            agent.watches = agent.watches.saturating_sub(1);
        }
        self.expire(&watch.api, watch.agent_id, now);
    }

    /// Adds an inactive run of an agent.
    pub(super) fn add_inactive_run(&mut self, api: &ApiName, id: AgentId) {
        self.entry(api, id).inactive_runs += 1;
    }

    /// Removes an inactive run of an agent.
    pub(super) fn remove_inactive_run(&mut self, api: &ApiName, id: AgentId, now: Timestamp) {
        let Some(agent) = self.agent_mut(api, id) else { return };
        agent.inactive_runs = agent.inactive_runs.saturating_sub(1);
        if agent.is_unused() {
            self.expire(api, id, now);
        }
    }

    /// Updates what was told of an agent from a run of a watch.
    pub(super) fn observe(&mut self, watch: &Watch, run: &Run, place: u64, now: Timestamp) {
        let Some(agent) = self.agent_mut(&watch.api, watch.agent_id) else { return };
        let before = agent.told();
        let mut told = before.clone();
        told.observe(watch, run, place, now);
        if before != told {
            agent.set_told(told);
            self.mark_unsaved((watch.api.clone(), watch.agent_id));
        }
    }

    /// Forgets what was told of an agent until a newer run sets it. Returns whether anything was known.
    pub(super) fn forget(&mut self, api: &ApiName, id: AgentId, now: Timestamp) -> bool {
        let agent = self.agent_mut(api, id);
        let forgotten = agent.and_then(|agent| agent.told.as_mut()).is_some_and(|told| told.forget());
        if forgotten {
            self.mark_unsaved((api.clone(), id));
            self.expire(api, id, now);
        }
        forgotten
    }

    /// Removes what has been kept for long enough of agents without a watch, and of agents that no source lists.
    pub(super) fn expire_unused(&mut self, now: Timestamp) {
        let all = self.apis.iter().flat_map(|(api, agents)| agents.iter().map(move |(id, agent)| (api, *id, agent)));
        let unused = all.filter(|(_, _, agent)| {
            agent.is_unused() && agent.told.is_some() || agent.listed.is_none() && agent.live.is_some()
        });
        let unused: Vec<AgentKey> = unused.map(|(api, id, _)| (api.clone(), id)).collect();
        for (api, id) in unused {
            self.expire(&api, id, now);
        }
    }

    /// The agent, if it is listed, has a watch or its state is known.
    pub(super) fn get(&self, api: &ApiName, id: AgentId) -> Option<AgentRow> {
        self.agent(api, id)?.row(api, id)
    }

    /// Looks at the next `most` agents after `last`, sorted by API and id, and adds to `rows` those that are listed or
    /// whose state is known or, unless `known_only`, that have a watch. Returns the last one; `None` if there are no
    /// more.
    pub(super) fn page(
        &self,
        last: Option<&AgentKey>,
        most: usize,
        known_only: bool,
        rows: &mut Vec<AgentRow>,
    ) -> Option<AgentKey> {
        let mut left = most;
        let from = last.map_or(Bound::Unbounded, |(api, _)| Bound::Included(api));
        for (api, agents) in self.apis.range((from, Bound::Unbounded)) {
            let after = last.filter(|(last, _)| last == api).map_or(Bound::Unbounded, |(_, id)| Bound::Excluded(*id));
            for (id, agent) in agents.range((after, Bound::Unbounded)) {
                if !known_only || agent.told.is_some() || agent.listed.is_some() {
                    rows.extend(agent.row(api, *id));
                }
                left -= 1;
                if left == 0 {
                    return Some((api.clone(), *id));
                }
            }
        }
        None
    }

    /// Marks an agent as changed since it was saved.
    pub(super) fn mark_unsaved(&mut self, key: AgentKey) {
        if let Some(unsaved) = &mut self.unsaved {
            unsaved.insert(key);
        }
    }

    /// Marks at most `most` agents as unsaved of which only counters changed.
    /// Returns whether there were any.
    pub(super) fn save_counted(&mut self, most: usize) -> bool {
        let (Some(unsaved), Some(counted)) = (&mut self.unsaved, &mut self.counted) else { return false };
        let counted = counted.take(most);
        let any = !counted.is_empty();
        unsaved.extend(counted);
        any
    }

    /// As [`Agents::save_counted`], for all agents in these shards.
    pub(super) fn save_counted_in(&mut self, shards: ShardSet) {
        if let (Some(unsaved), Some(counted)) = (&mut self.unsaved, &mut self.counted) {
            unsaved.extend(counted.take_matching(|(api, id)| shards.contains(Shard::of(api, *id))));
        }
    }

    /// Takes at most `most` changes of agents in these shards, which are not saved yet.
    pub(super) fn take_unsaved(&mut self, most: usize, shards: ShardSet) -> Vec<SavedAgentChange> {
        let Some(unsaved) = &mut self.unsaved else { return Vec::new() };
        let is_in = |(api, id): &AgentKey| shards == ShardSet::ALL || shards.contains(Shard::of(api, *id));
        let keys: Vec<_> = unsaved.extract_if(.., |key| is_in(key)).take(most).collect();
        let change = |key: AgentKey| {
            let saved = self.agent(&key.0, key.1).map(|agent| SavedAgent { told: agent.told(), live: agent.live() });
            (key, saved)
        };
        keys.into_iter().map(change).collect()
    }

    /// Notes whether an agent has a watch and is listed, and removes what has been kept for long enough since.
    fn expire(&mut self, api: &ApiName, id: AgentId, now: Timestamp) {
        let Some(agents) = self.apis.get_mut(api) else { return };
        let Some(agent) = agents.get_mut(&id) else { return };
        let changed = agent.expire(now);
        self.remove_if_unknown(api, id);
        if changed {
            self.mark_unsaved((api.clone(), id));
        }
    }

    /// Removes an agent of which nothing is known.
    fn remove_if_unknown(&mut self, api: &ApiName, id: AgentId) {
        let Some(agents) = self.apis.get_mut(api) else { return };
        if agents.get(&id).is_some_and(Agent::is_unknown) {
            agents.remove(&id);
        }
        if agents.is_empty() {
            self.apis.remove(api);
        }
    }

    fn agent(&self, api: &ApiName, id: AgentId) -> Option<&Agent> {
        self.apis.get(api)?.get(&id)
    }

    fn agent_mut(&mut self, api: &ApiName, id: AgentId) -> Option<&mut Agent> {
        self.apis.get_mut(api)?.get_mut(&id)
    }

    fn entry(&mut self, api: &ApiName, id: AgentId) -> &mut Agent {
        self.apis.entry(api.clone()).or_default().entry(id).or_default()
    }
}

// === impl Agent ===

impl Agent {
    /// Whether it has no watch, and no run that may come back.
    fn is_unused(&self) -> bool {
        self.watches == 0 && self.inactive_runs == 0
    }

    /// Whether nothing refers to it and nothing is known of it.
    fn is_unknown(&self) -> bool {
        self.is_unused() && self.told.is_none() && self.live.is_none() && self.listed.is_none()
    }

    fn row(&self, api: &ApiName, id: AgentId) -> Option<AgentRow> {
        let is_shown = self.watches > 0 || self.told.is_some() || self.listed.is_some();
        is_shown.then(|| AgentRow {
            api: api.clone(),
            id,
            told: self.told(),
            asked: self.listed.as_ref().map(|listed| AskedAgent {
                definition: listed.definition.clone(),
                labels: listed.labels.clone(),
                live: self.live(),
                next_poll: listed.next_poll,
                drift: None,
            }),
        })
    }

    fn told(&self) -> ToldMocks {
        self.told.as_deref().cloned().unwrap_or_default()
    }

    fn live(&self) -> LiveMocks {
        self.live.as_deref().cloned().unwrap_or_default()
    }

    fn set_told(&mut self, told: ToldMocks) {
        match &mut self.told {
            Some(known) => **known = told,
            None if told != ToldMocks::default() => self.told = Some(Box::new(told)),
            None => {}
        }
    }

    fn set_live(&mut self, live: LiveMocks) {
        self.live = (live != LiveMocks::default()).then(|| Box::new(live));
    }

    /// Removes what has been kept for long enough. Returns whether anything changed that is saved.
    fn expire(&mut self, now: Timestamp) -> bool {
        let before = self.told();
        let mut told = before.clone();
        // A run that comes back must find what it told, or that this was forgotten.
        let keep = told.keep(self.watches > 0, now) || (self.inactive_runs > 0 && told.newest.is_some());
        let told_changed = !keep || before != told;
        if !keep {
            self.told = None;
        } else if told_changed {
            self.set_told(told);
        }
        let Some(live) = &mut self.live else { return told_changed };
        let unlisted_since = live.unlisted_since;
        if !live.keep(self.listed.is_some(), now) {
            self.live = None;
            return true;
        }
        told_changed || live.unlisted_since != unlisted_since
    }

    fn map_times(&mut self, map: impl Fn(Timestamp) -> Timestamp) {
        if let Some(told) = &mut self.told {
            told.map_times(&map);
        }
        if let Some(live) = &mut self.live {
            live.map_times(&map);
        }
        if let Some(listed) = &mut self.listed {
            listed.next_poll = listed.next_poll.map(&map);
        }
    }
}

#[cfg(test)]
mod tests;
