//! Agents that follow the specification of the API: their mock status, and their list.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde_json::json;

use super::simulator::{Reply, Request};

/// The agents that the simulated API knows.
#[derive(Debug, Default)]
pub struct SimulatedAgents {
    agents: Mutex<BTreeMap<u64, SimulatedAgent>>,
}

/// One agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SimulatedAgent {
    /// Whether its mocks are on.
    pub mock_enabled: bool,
    /// Its provider.
    pub provider: &'static str,
    /// How many mock tools it has.
    pub mock_tools: u32,
}

/// The most agents on a page of the list.
const MAX_PAGE: usize = 100;

// === impl SimulatedAgents ===

impl SimulatedAgents {
    /// Adds an agent, or replaces it.
    pub fn put(&self, id: u64, agent: SimulatedAgent) {
        self.lock().insert(id, agent);
    }

    /// Turns the mocks of an agent on or off.
    pub fn switch(&self, id: u64, enabled: bool) {
        if let Some(agent) = self.lock().get_mut(&id) {
            agent.mock_enabled = enabled;
        }
    }

    /// The answer of the API; `None` if the request asks neither for a mock status nor for the list. Links to other
    /// pages begin with the URL `origin`.
    pub fn answer(&self, request: &Request, origin: &str) -> Option<Reply> {
        if let Some(page) = request.page_of_agents() {
            return Some(self.page(page, &request.path, origin));
        }
        let agent = self.lock().get(&request.mock_status_of()?).copied();
        Some(match agent {
            Some(agent) => Reply::mock_status(agent.mock_enabled, agent.provider),
            None => Reply::detail(404, "Not found."),
        })
    }

    fn page(&self, page: usize, path: &str, origin: &str) -> Reply {
        let agents = self.lock();
        let pages = agents.len().div_ceil(MAX_PAGE).max(1);
        if page == 0 || page > pages {
            return Reply::detail(404, "Invalid page.");
        }
        let link = |page: usize| format!("{origin}{path}?page={page}&page_size={MAX_PAGE}");
        let results: Vec<_> = agents
            .iter()
            .skip((page - 1) * MAX_PAGE)
            .take(MAX_PAGE)
            .map(|(id, agent)| {
                let tools: Vec<_> = (0..agent.mock_tools).map(|i| json!({"name": format!("tool_{i}")})).collect();
                json!({
                    "id": id, "name": format!("agent {id}"), "project": 1, "provider": {"type": agent.provider},
                    "mock_tools": tools, "mock_tools_provider": null, "mock_tools_enabled": true,
                })
            })
            .collect();
        let body = json!({
            "count": agents.len(), "next": (page < pages).then(|| link(page + 1)),
            "previous": (page > 1).then(|| link(page - 1)), "results": results,
        });
        Reply::new(200, body.to_string())
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<u64, SimulatedAgent>> {
        self.agents.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
