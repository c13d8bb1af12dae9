//! What is known of the mocks of all agents.

use std::collections::BTreeMap;
use std::ops::Bound;

use super::{AgentKey, AgentRow};
use crate::toggle::{AgentId, AgentMock, ApiName, Run, Timestamp, Watch};

/// What is known of the mocks of all agents.
#[derive(Debug, Default)]
pub(super) struct Agents {
    apis: BTreeMap<ApiName, BTreeMap<AgentId, Agent>>,
}

/// Of many agents nothing is known yet, so they take little room.
#[derive(Debug, Default)]
struct Agent {
    mock: Option<Box<AgentMock>>,
    /// How many watches it has.
    watches: u32,
    /// How many runs of it are remembered whose watch may come yet.
    remembered: u32,
}

// === impl Agents ===

impl Agents {
    /// Agents of which an earlier process knew this.
    pub(super) fn restored(mocks: impl IntoIterator<Item = (AgentKey, AgentMock)>) -> Self {
        let mut agents = Self::default();
        for ((api, id), mock) in mocks {
            let agent = Agent { mock: Some(Box::new(mock)), ..Agent::default() };
            agents.apis.entry(api).or_default().insert(id, agent);
        }
        agents
    }

    /// Changes every time in what is known of all agents, and returns those of which something is.
    pub(super) fn map_times(&mut self, map: impl Fn(Timestamp) -> Timestamp) -> Vec<AgentKey> {
        let mut changed = Vec::new();
        for (api, agents) in &mut self.apis {
            for (id, agent) in agents {
                if let Some(mock) = &mut agent.mock {
                    mock.map_times(&map);
                    changed.push((api.clone(), *id));
                }
            }
        }
        changed
    }

    /// The latest place in the watch list of any run that counted.
    pub(super) fn newest_place(&self) -> Option<u64> {
        let mocks = self.apis.values().flat_map(BTreeMap::values).filter_map(|agent| agent.mock.as_ref());
        mocks.filter_map(|mock| Some(mock.parts().newest?.1)).max()
    }

    pub(super) fn mock(&self, api: &ApiName, id: AgentId) -> Option<AgentMock> {
        let agent = self.apis.get(api)?.get(&id)?;
        Some(agent.known())
    }

    /// The agent has one watch more. Says, as all of these do, whether what is saved of it is to be
    /// saved anew.
    pub(super) fn watched(&mut self, api: &ApiName, id: AgentId, now: Timestamp) -> bool {
        if let Some(agent) = self.entry(api, id) {
            agent.watches += 1;
        }
        self.keep(api, id, now)
    }

    /// The agent has one watch less.
    pub(super) fn unwatched(&mut self, api: &ApiName, id: AgentId, now: Timestamp) -> bool {
        if let Some(agent) = self.apis.get_mut(api).and_then(|agents| agents.get_mut(&id)) {
            agent.watches = agent.watches.saturating_sub(1);
        }
        self.keep(api, id, now)
    }

    /// A run of the agent is remembered.
    pub(super) fn remembered(&mut self, api: &ApiName, id: AgentId) {
        if let Some(agent) = self.entry(api, id) {
            agent.remembered += 1;
        }
    }

    /// A run of the agent is not remembered any more.
    pub(super) fn forgot(&mut self, api: &ApiName, id: AgentId, now: Timestamp) -> bool {
        let agent = self.apis.get_mut(api).and_then(|agents| agents.get_mut(&id));
        let Some(agent) = agent else { return false };
        agent.remembered = agent.remembered.saturating_sub(1);
        agent.is_unused() && self.keep(api, id, now)
    }

    fn entry(&mut self, api: &ApiName, id: AgentId) -> Option<&mut Agent> {
        if !self.apis.contains_key(api) {
            self.apis.insert(api.clone(), BTreeMap::new());
        }
        Some(self.apis.get_mut(api)?.entry(id).or_default())
    }

    /// Takes what a run of a watch shows after an answer.
    pub(super) fn observe(&mut self, watch: &Watch, run: &Run, place: u64, now: Timestamp) -> bool {
        let agent = self.apis.get_mut(&watch.api).and_then(|agents| agents.get_mut(&watch.agent_id));
        let Some(agent) = agent else { return false };
        let before = agent.known();
        let mut mock = before.clone();
        mock.observe(watch, run, place, now);
        let changed = before != mock;
        agent.know(mock);
        changed
    }

    /// Forgets what was said of an agent's mocks. Says whether anything was known.
    pub(super) fn forget(&mut self, api: &ApiName, id: AgentId, now: Timestamp) -> bool {
        let agent = self.apis.get_mut(api).and_then(|agents| agents.get_mut(&id));
        let forgotten = agent.and_then(|agent| agent.mock.as_mut()).is_some_and(|mock| mock.forget());
        if forgotten {
            self.keep(api, id, now);
        }
        forgotten
    }

    /// Forgets what is known of an agent without a watch, unless it is to be remembered.
    pub(super) fn keep(&mut self, api: &ApiName, id: AgentId, now: Timestamp) -> bool {
        let Some(agents) = self.apis.get_mut(api) else { return false };
        let Some(agent) = agents.get_mut(&id) else { return false };
        let before = agent.known();
        let mut mock = before.clone();
        // A watch that may come yet says nothing new: its run has finished.
        let keep = mock.keep(agent.watches > 0, now) || (agent.remembered > 0 && mock.enabled().is_some());
        let changed = !keep || before != mock;
        if keep {
            agent.know(mock);
        } else {
            agent.mock = None;
            if agent.is_unused() {
                agents.remove(&id);
            }
            if agents.is_empty() {
                self.apis.remove(api);
            }
        }
        changed
    }

    /// Those that have no watch, and that no remembered run is of.
    pub(super) fn without_watch(&self) -> Vec<AgentKey> {
        let all = self.apis.iter().flat_map(|(api, agents)| agents.iter().map(move |(id, agent)| (api, *id, agent)));
        all.filter(|(_, _, agent)| agent.is_unused()).map(|(api, id, _)| (api.clone(), id)).collect()
    }

    /// Every agent that has a watch or of which something is known, sorted by API and id.
    pub(super) fn all(&self) -> impl Iterator<Item = AgentRow> {
        self.apis.iter().flat_map(|(api, agents)| agents.iter().filter_map(|(id, agent)| agent.row(api, *id)))
    }

    /// The agent, if it has a watch or something is known of it.
    pub(super) fn get(&self, api: &ApiName, id: AgentId) -> Option<AgentRow> {
        self.apis.get(api)?.get(&id)?.row(api, id)
    }

    /// Adds agents whose mock state is known to `rows`, sorted by API and id, until all of the `most`
    /// that come next after `last` were looked at. The last of these; `None` if there are no more.
    pub(super) fn page(&self, last: Option<&AgentKey>, most: usize, rows: &mut Vec<AgentRow>) -> Option<AgentKey> {
        let mut left = most;
        let from = last.map_or(Bound::Unbounded, |(api, _)| Bound::Included(api));
        for (api, agents) in self.apis.range((from, Bound::Unbounded)) {
            let after = last.filter(|(last, _)| last == api).map_or(Bound::Unbounded, |(_, id)| Bound::Excluded(*id));
            for (id, agent) in agents.range((after, Bound::Unbounded)) {
                if let Some(mock) = &agent.mock {
                    rows.push(AgentRow { api: api.clone(), id: *id, mock: (**mock).clone() });
                }
                left -= 1;
                if left == 0 {
                    return Some((api.clone(), *id));
                }
            }
        }
        None
    }
}

// === impl Agent ===

impl Agent {
    /// Whether it has no watch, and none that may come yet.
    fn is_unused(&self) -> bool {
        self.watches == 0 && self.remembered == 0
    }

    fn row(&self, api: &ApiName, id: AgentId) -> Option<AgentRow> {
        let is_used = self.watches > 0 || self.mock.is_some();
        is_used.then(|| AgentRow { api: api.clone(), id, mock: self.known() })
    }

    fn known(&self) -> AgentMock {
        self.mock.as_deref().cloned().unwrap_or_default()
    }

    fn know(&mut self, mock: AgentMock) {
        match &mut self.mock {
            Some(known) => **known = mock,
            None if mock != AgentMock::default() => self.mock = Some(Box::new(mock)),
            None => {}
        }
    }
}
