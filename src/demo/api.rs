//! The simulated API of the demo: its toggle tasks, its agents, and a second API that sometimes fails.

use std::sync::atomic::{AtomicU32, Ordering};

use super::agents::SimulatedAgents;
use super::fault::{self, Fault};
use super::simulator::{Reply, Request};
use super::tasks::Tasks;

/// The key that the simulated API accepts.
pub const KEY: &str = "demo-key";

/// The path prefix of the API that sometimes answers 429 or 502.
pub const FLAKY_PREFIX: &str = "/flaky";

/// Two APIs with common tasks, each with its own agents.
#[derive(Debug)]
pub struct SimulatedApi {
    /// The toggle tasks of both APIs.
    pub tasks: Tasks,
    /// The agents of the API that answers.
    pub agents: SimulatedAgents,
    /// The agents of the API that sometimes fails.
    pub flaky_agents: SimulatedAgents,
    flaky_requests: AtomicU32,
}

// === impl SimulatedApi ===

impl Default for SimulatedApi {
    fn default() -> Self {
        Self {
            tasks: Tasks::new(KEY),
            agents: SimulatedAgents::default(),
            flaky_agents: SimulatedAgents::default(),
            flaky_requests: AtomicU32::new(0),
        }
    }
}

impl SimulatedApi {
    /// The reply to a request.
    pub fn answer(&self, request: &Request) -> Reply {
        self.apply_ended_tasks();
        let is_flaky = request.path.starts_with(FLAKY_PREFIX);
        if let Some(failure) = is_flaky.then(|| self.next_failure()).flatten() {
            return failure;
        }
        let agents = if is_flaky { &self.flaky_agents } else { &self.agents };
        let origin = format!("http://{}", request.header("host").unwrap_or_default());
        match agents.answer(request, &origin) {
            Some(_) if request.header("x-cekura-api-key") != Some(KEY) => Reply::detail(401, "Invalid API key."),
            Some(reply) => reply,
            None => self.tasks.answer(request),
        }
    }

    /// Switches the mocks of the agents whose tasks ended.
    fn apply_ended_tasks(&self) {
        for task in self.tasks.take_ended().into_iter().filter(|task| task.takes_effect) {
            if let Some(enabled) = task.ends.mock_enabled() {
                // An agent belongs to one of the APIs, and the other one does not know its id.
                self.agents.switch(task.agent_id, enabled);
                self.flaky_agents.switch(task.agent_id, enabled);
            }
        }
    }

    /// The replies 429 and 502 of the flaky API; `None` most of the time.
    fn next_failure(&self) -> Option<Reply> {
        match self.flaky_requests.fetch_add(1, Ordering::Relaxed) % 9 {
            3 => Some(fault::throttled(429, "3")),
            6 => Some(Fault::BadGateway.reply()),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::demo::agents::SimulatedAgent;
    use crate::demo::tasks::{Ending, Task};

    fn request(path: &str) -> Request {
        Request {
            method: "GET".to_owned(),
            path: path.to_owned(),
            query: String::new(),
            headers: vec![("x-cekura-api-key".to_owned(), KEY.to_owned()), ("host".to_owned(), "h".to_owned())],
            body: String::new(),
            connection: 1,
        }
    }

    fn mocks_of(api: &SimulatedApi, id: u64) -> bool {
        let Reply::Answer { status, body, .. } =
            api.answer(&request(&format!("/test_framework/v1/aiagents/{id}/tools/mock-status/")))
        else {
            panic!("not an answer")
        };
        assert_eq!(status, 200, "{body}");
        body.contains(r#""mock_enabled":true"#)
    }

    #[test]
    fn a_task_that_completed_switches_the_mocks_of_its_agent_once_unless_it_does_not_take() {
        let api = SimulatedApi::default();
        for id in [1, 2, 3] {
            api.agents.put(id, SimulatedAgent { mock_enabled: false, provider: "vapi", mock_tools: 1 });
        }
        let task = |agent_id, takes_effect, ends| Task { agent_id, takes: Duration::ZERO, ends, takes_effect };
        api.tasks.begin("a", task(1, true, Ending::Enabled { endpoints: 1 }));
        api.tasks.begin("b", task(2, false, Ending::Enabled { endpoints: 1 }));
        api.tasks
            .begin("c", Task { takes: Duration::from_hours(1), ..task(3, true, Ending::Enabled { endpoints: 1 }) });
        assert_eq!([1, 2, 3].map(|id| mocks_of(&api, id)), [true, false, false]);
        api.agents.switch(1, false);
        assert!(!mocks_of(&api, 1), "the task is applied only once");
        api.tasks.begin("d", task(1, true, Ending::Failed("no")));
        api.agents.switch(1, true);
        assert!(mocks_of(&api, 1), "a task that failed switches nothing");
    }

    #[test]
    fn nothing_is_answered_without_the_key() {
        let api = SimulatedApi::default();
        let mut request = request("/test_framework/v2/aiagents/");
        request.headers.clear();
        assert!(matches!(api.answer(&request), Reply::Answer { status: 401, .. }));
    }
}
