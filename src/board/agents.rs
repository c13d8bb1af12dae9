//! The mock state of all agents.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

use super::{AgentKey, AgentRow};
use crate::store::AgentChange;
use crate::toggle::{AgentId, AgentMock, ApiName, Run, Timestamp, Watch};

/// The mock states of all agents, and which of them are not saved yet.
#[derive(Debug, Default)]
pub(super) struct Agents {
    apis: BTreeMap<ApiName, BTreeMap<AgentId, Agent>>,
    /// The agents that changed since they were saved; `None` if nothing is ever saved.
    unsaved: Option<BTreeSet<AgentKey>>,
}

/// An agent. The state is boxed, because it is unknown for many agents.
#[derive(Debug, Default)]
struct Agent {
    mock: Option<Box<AgentMock>>,
    watches: u32,
    /// How many of its runs are inactive and may come back.
    inactive_runs: u32,
}

// === impl Agents ===

impl Agents {
    /// Agents that an earlier process saved. Changes are collected, to be saved.
    pub(super) fn restored(mocks: impl IntoIterator<Item = (AgentKey, AgentMock)>) -> Self {
        let mut agents = Self { unsaved: Some(BTreeSet::new()), ..Self::default() };
        for ((api, id), mock) in mocks {
            agents.entry(&api, id).mock = Some(Box::new(mock));
        }
        agents
    }

    /// Applies `map` to every time.
    pub(super) fn map_times(&mut self, map: impl Fn(Timestamp) -> Timestamp) {
        for (api, agents) in &mut self.apis {
            for (id, agent) in agents {
                if let Some(mock) = &mut agent.mock {
                    mock.map_times(&map);
                    if let Some(unsaved) = &mut self.unsaved {
                        unsaved.insert((api.clone(), *id));
                    }
                }
            }
        }
    }

    /// The highest place in the watch list of a run that decided the state of an agent.
    pub(super) fn newest_place(&self) -> Option<u64> {
        let mocks = self.apis.values().flat_map(BTreeMap::values).filter_map(|agent| agent.mock.as_ref());
        mocks.filter_map(|mock| Some(mock.newest?.1)).max()
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

    /// Updates the state of an agent from a run of a watch.
    pub(super) fn observe(&mut self, watch: &Watch, run: &Run, place: u64, now: Timestamp) {
        let Some(agent) = self.agent_mut(&watch.api, watch.agent_id) else { return };
        let before = agent.state();
        let mut mock = before.clone();
        mock.observe(watch, run, place, now);
        if before != mock {
            agent.set_state(mock);
            self.mark_unsaved((watch.api.clone(), watch.agent_id));
        }
    }

    /// Forgets the state of an agent until a newer run sets it. Returns whether any was known.
    pub(super) fn forget(&mut self, api: &ApiName, id: AgentId, now: Timestamp) -> bool {
        let agent = self.agent_mut(api, id);
        let forgotten = agent.and_then(|agent| agent.mock.as_mut()).is_some_and(|mock| mock.forget());
        if forgotten {
            self.mark_unsaved((api.clone(), id));
            self.expire(api, id, now);
        }
        forgotten
    }

    /// Removes the agents that have been without a watch for long enough.
    pub(super) fn expire_unused(&mut self, now: Timestamp) {
        let all = self.apis.iter().flat_map(|(api, agents)| agents.iter().map(move |(id, agent)| (api, *id, agent)));
        let unused = all.filter(|(_, _, agent)| agent.is_unused());
        let unused: Vec<AgentKey> = unused.map(|(api, id, _)| (api.clone(), id)).collect();
        for (api, id) in unused {
            self.expire(&api, id, now);
        }
    }

    /// The agent, if it has a watch or its state is known.
    pub(super) fn get(&self, api: &ApiName, id: AgentId) -> Option<AgentRow> {
        self.apis.get(api)?.get(&id)?.row(api, id)
    }

    /// Looks at the next `most` agents after `last`, sorted by API and id, and adds to `rows` those whose state is
    /// known or, unless `known_only`, that have a watch. Returns the last one; `None` if there are no more.
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
                if !known_only || agent.mock.is_some() {
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

    /// Takes at most `most` changes that are not saved yet.
    pub(super) fn take_unsaved(&mut self, most: usize) -> Vec<AgentChange> {
        let Some(unsaved) = &mut self.unsaved else { return Vec::new() };
        let keys: Vec<_> = std::iter::from_fn(|| unsaved.pop_first()).take(most).collect();
        let change = |key: AgentKey| {
            let mock = self.apis.get(&key.0).and_then(|agents| agents.get(&key.1)).map(Agent::state);
            (key, mock)
        };
        keys.into_iter().map(change).collect()
    }

    /// Notes whether an agent has a watch, and forgets its state if it has been without one for long enough.
    fn expire(&mut self, api: &ApiName, id: AgentId, now: Timestamp) {
        let Some(agents) = self.apis.get_mut(api) else { return };
        let Some(agent) = agents.get_mut(&id) else { return };
        let before = agent.state();
        let mut mock = before.clone();
        // An inactive run has finished, so it needs no poll to keep its agent known.
        let keep = mock.keep(agent.watches > 0, now) || (agent.inactive_runs > 0 && mock.enabled().is_some());
        if keep && before == mock {
            return;
        }
        if keep {
            agent.set_state(mock);
        } else {
            agent.mock = None;
            if agent.is_unused() {
                agents.remove(&id);
            }
            if agents.is_empty() {
                self.apis.remove(api);
            }
        }
        self.mark_unsaved((api.clone(), id));
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

    fn row(&self, api: &ApiName, id: AgentId) -> Option<AgentRow> {
        let is_shown = self.watches > 0 || self.mock.is_some();
        is_shown.then(|| AgentRow { api: api.clone(), id, mock: self.state() })
    }

    fn state(&self) -> AgentMock {
        self.mock.as_deref().cloned().unwrap_or_default()
    }

    fn set_state(&mut self, mock: AgentMock) {
        match &mut self.mock {
            Some(known) => **known = mock,
            None if mock != AgentMock::default() => self.mock = Some(Box::new(mock)),
            None => {}
        }
    }
}
