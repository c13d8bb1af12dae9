//! The agents that an API listed. No IO.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::toggle::{AgentDefinition, AgentId, AgentSource, ApiName, Labels, Provider};

/// The agents with mock tools in one complete listing, with their providers.
pub type ListedAgents = BTreeMap<AgentId, Option<Provider>>;

/// The agents of an API that are asked because the API listed them.
#[derive(Debug, Default)]
pub struct DiscoveredAgents {
    agents: BTreeMap<AgentId, Discovered>,
    /// Whether this process has seen a complete listing.
    is_listed: bool,
}

#[derive(Debug)]
struct Discovered {
    provider: Option<Provider>,
    /// Whether the last listing did not have it.
    is_missing: bool,
}

// === impl DiscoveredAgents ===

impl DiscoveredAgents {
    /// The agents that an earlier process or another replica asked.
    pub fn restored(asked: ListedAgents) -> Self {
        let restored = |(id, provider)| (id, Discovered { provider, is_missing: false });
        Self { agents: asked.into_iter().map(restored).collect(), is_listed: false }
    }

    /// Whether the API has listed them. Otherwise they are those that an earlier process asked.
    pub fn is_listed(&self) -> bool {
        self.is_listed
    }

    /// Takes note of a complete listing. An agent is forgotten when two listings in a row do not have it: while the
    /// pages are read, agents may move from one page to another, so that a listing misses one.
    pub fn update(&mut self, listed: &ListedAgents) {
        self.is_listed = true;
        self.agents.retain(|id, agent| {
            let (is_listed, was_missing) = (listed.contains_key(id), agent.is_missing);
            agent.is_missing = !is_listed;
            is_listed || !was_missing
        });
        for (id, provider) in listed {
            self.agents.insert(*id, Discovered { provider: *provider, is_missing: false });
        }
    }

    /// How many agents these are.
    pub fn count(&self) -> usize {
        self.agents.len()
    }

    /// The definitions of these agents of an API.
    pub fn definitions(&self, api: &ApiName) -> Vec<Arc<AgentDefinition>> {
        let definition = |(id, agent): (&AgentId, &Discovered)| AgentDefinition {
            api: api.clone(),
            agent_id: *id,
            expect: None,
            labels: Labels::default(),
            source: AgentSource::Discovered,
            provider: agent.provider,
        };
        self.agents.iter().map(definition).map(Arc::new).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_restored_agent_is_forgotten_like_any_other() {
        let listed = |ids: &[&str]| ids.iter().map(|id| (AgentId::parse(id).unwrap(), None)).collect();
        let mut discovered = DiscoveredAgents::restored(listed(&["1", "2"]));
        assert_eq!(discovered.definitions(&ApiName::default_api()).len(), 2);
        discovered.update(&listed(&["2", "3"]));
        let definitions = discovered.definitions(&ApiName::default_api());
        assert_eq!(definitions.iter().map(|agent| agent.agent_id.get()).collect::<Vec<_>>(), [1, 2, 3]);
        discovered.update(&listed(&["2", "3"]));
        assert_eq!(discovered.definitions(&ApiName::default_api()).len(), 2);
    }

    #[test]
    fn an_agent_is_forgotten_when_two_listings_in_a_row_do_not_have_it() {
        let mut discovered = DiscoveredAgents::default();
        let mut known_after = |listed: &[&str]| {
            discovered.update(&listed.iter().map(|id| (AgentId::parse(id).unwrap(), None)).collect());
            let definitions = discovered.definitions(&ApiName::default_api());
            definitions.iter().map(|agent| agent.agent_id.to_string()).collect::<Vec<_>>().concat()
        };
        assert_eq!(known_after(&["1", "2"]), "12");
        assert_eq!(known_after(&["1"]), "12");
        assert_eq!(known_after(&["1", "2", "3"]), "123", "it was only missed");
        assert_eq!(known_after(&["1", "3"]), "123");
        assert_eq!(known_after(&["1", "3"]), "13");
        assert_eq!(known_after(&[]), "13");
        assert_eq!(known_after(&[]), "");
    }
}
