//! Toggle tasks that follow the specification of the API.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde_json::json;

use super::simulator::{Reply, Request};

/// The tasks that the simulated API knows.
#[derive(Debug)]
pub struct Tasks {
    key: &'static str,
    tasks: Mutex<HashMap<String, BegunTask>>,
}

#[derive(Debug, Clone, Copy)]
struct BegunTask {
    task: Task,
    begun: Instant,
    /// Whether [`Tasks::take_ended`] returned it.
    taken: bool,
}

/// One toggle task.
#[derive(Debug, Clone, Copy)]
pub struct Task {
    /// The agent that it belongs to.
    pub agent_id: u64,
    /// How long it stays in progress.
    pub takes: Duration,
    /// How it ends.
    pub ends: Ending,
    /// Whether the mocks of the agent are afterwards as the task says.
    pub takes_effect: bool,
}

/// How a task ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// Completed with mocks on.
    Enabled {
        /// How many MCP mock endpoints are registered. Each has two tools.
        endpoints: u32,
    },
    /// Completed with mocks off.
    Disabled,
    /// Failed with this error.
    Failed(&'static str),
}

// === impl Tasks ===

impl Tasks {
    /// An API without tasks that accepts this key.
    pub fn new(key: &'static str) -> Self {
        Self { key, tasks: Mutex::default() }
    }

    /// Begins a task under this id.
    pub fn begin(&self, progress_id: &str, task: Task) {
        self.lock().insert(progress_id.to_owned(), BegunTask { task, begun: Instant::now(), taken: false });
    }

    /// Forgets a task, as the API does some time after its end.
    pub fn forget(&self, progress_id: &str) {
        self.lock().remove(progress_id);
    }

    /// The tasks that ended since the last call.
    pub fn take_ended(&self) -> Vec<Task> {
        let mut tasks = self.lock();
        let ended = tasks.values_mut().filter(|task| !task.taken && task.has_ended());
        ended
            .map(|ended| {
                ended.taken = true;
                ended.task
            })
            .collect()
    }

    /// The answer of the API.
    pub fn answer(&self, request: &Request) -> Reply {
        let (Some(agent_id), "GET") = (request.agent_id(), request.method.as_str()) else {
            return Reply::detail(404, "Not found.");
        };
        if request.header("x-cekura-api-key") != Some(self.key) {
            return Reply::detail(401, "Invalid API key.");
        }
        let found = request.progress_id().and_then(|id| self.lock().get(&id).copied());
        match found.filter(|found| found.task.agent_id == agent_id) {
            Some(found) if found.has_ended() => found.task.ends.reply(),
            Some(_) => in_progress(),
            None => Reply::detail(400, "Invalid or expired progress_id."),
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, BegunTask>> {
        self.tasks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl BegunTask ===

impl BegunTask {
    fn has_ended(&self) -> bool {
        self.begun.elapsed() >= self.task.takes
    }
}

fn in_progress() -> Reply {
    let body = json!({"status": "in_progress", "mock_enabled": null, "message": "Toggling tools", "error": null});
    Reply::new(200, body.to_string())
}

// === impl Ending ===

impl Ending {
    /// Whether mocks are on afterwards; `None` if the task changes nothing.
    pub fn mock_enabled(self) -> Option<bool> {
        match self {
            Self::Enabled { .. } => Some(true),
            Self::Disabled => Some(false),
            Self::Failed(_) => None,
        }
    }

    fn reply(self) -> Reply {
        let body = match self {
            Self::Enabled { endpoints } => {
                let endpoint = |i: u32| {
                    json!({
                        "mock_index": i,
                        "url": format!("https://mock.invalid/mcp/{i}"),
                        "tool_names": [format!("lookup_{i}"), format!("book_{i}")],
                    })
                };
                let endpoints: Vec<_> = (0..endpoints).map(endpoint).collect();
                json!({
                    "status": "completed", "mock_enabled": true, "mcp_endpoints": endpoints,
                    "message": "Mock tools enabled", "error": null,
                })
            }
            Self::Disabled => json!({
                "status": "completed", "mock_enabled": false, "mcp_endpoints": [],
                "message": "Mock tools disabled", "error": null,
            }),
            Self::Failed(error) => json!({
                "status": "failed", "mock_enabled": null, "mcp_endpoints": [], "message": null, "error": error,
            }),
        };
        Reply::new(200, body.to_string())
    }
}
