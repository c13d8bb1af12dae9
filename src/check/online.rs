//! `--config.check=online`: sends a few requests to each API, and says what it answers.

use std::error::Error;
use std::fmt;
use std::sync::Arc;

use tokio::task::JoinSet;

use super::CheckResult;
use crate::cekura::{AgentPage, Api, Client, Clients, Proxies};
use crate::tasks::boxed;
use crate::toggle::{AgentId, Answer, ApiName, Failure, MockStatus, ProgressId, Reason, ReportedStatus, Watch};

/// Said of what failed, if the configuration does not need it.
const UNUSED: &str = "; the configuration does not use it";

/// The result of one request. As text, one line.
#[derive(Debug)]
pub struct RequestCheck {
    /// Whether the answer is valid, or the configuration does not need it.
    pub is_good: bool,
    api: ApiName,
    what: String,
}

/// An API to check, and what the configuration uses of it.
struct ApiCheck {
    api: ApiName,
    client: Arc<Client>,
    /// One of its watches.
    watch: Option<Arc<Watch>>,
    /// One of its agents: that of the watch, if it is one of them.
    agent: Option<AgentId>,
    /// Whether it lists the agents that are asked.
    discovers: bool,
    /// A task that does not exist.
    no_task: ProgressId,
}

/// Sends each API of a good configuration, all at the same time, a request for the list of agents where that is needed,
/// and then a request for a toggle task and one for the mock status of an agent. Reads the key files first, which blocks.
/// The returned future needs a runtime, and takes no longer than twice the longest timeout of an API.
///
/// # Errors
/// If TLS cannot be set up.
pub fn requests(
    found: CheckResult,
    proxies: Proxies,
) -> Result<impl Future<Output = Vec<RequestCheck>>, Box<dyn Error>> {
    let no_task = ProgressId::parse("cekura-exporter-config-check")?;
    let CheckResult { apis, watches, agents, .. } = found;
    let clients = Clients::new(proxies).of(apis)?.0.into_iter();
    let checks = clients.map(|(Api { name, discover_agents, .. }, client)| {
        let watch = watches.iter().find(|watch| watch.api == name).cloned();
        let mut of_api = agents.iter().filter(|agent| agent.api == name).map(|agent| agent.agent_id);
        let of_watch = of_api.clone().find(|agent| watch.as_ref().is_some_and(|watch| watch.agent_id == *agent));
        ApiCheck {
            agent: of_watch.or_else(|| of_api.next()),
            watch,
            discovers: discover_agents,
            no_task: no_task.clone(),
            api: name,
            client,
        }
    });
    let checks: Vec<_> = checks.collect();
    Ok(async move {
        let mut under_way = JoinSet::new();
        for check in checks {
            under_way.spawn(boxed(async move { check.all().await }));
        }
        let mut checks: Vec<_> = under_way.join_all().await.into_iter().flatten().collect();
        // Those of an API stay in their order.
        checks.sort_by(|one, other| one.api.cmp(&other.api));
        checks
    })
}

// === impl ApiCheck ===

impl ApiCheck {
    /// Sends all requests, and says what they were answered: that for a toggle task first.
    async fn all(&self) -> Vec<RequestCheck> {
        let (listed, of_list) = self.list().await;
        let of_watch = self.watch.as_deref().map(|watch| watch.agent_id);
        let agent = self.agent.or(listed).or(of_watch);
        let of_toggle = async {
            let agent = of_watch.or(agent).unwrap_or(AgentId::FIRST);
            let id = self.watch.as_deref().map_or(&self.no_task, |watch| &watch.progress_id);
            (agent, self.client.poll(agent, id).await.outcome)
        };
        let of_status = async {
            match agent {
                Some(agent) => Some((agent, self.client.mock_status(agent).await.outcome)),
                None => None,
            }
        };
        let ((toggles_of, toggle), status) = tokio::join!(of_toggle, of_status);
        let exists = status.as_ref().is_some_and(|(agent, outcome)| *agent == toggles_of && outcome.is_ok());
        let mut checks = vec![self.toggle(toggles_of, toggle, exists)];
        checks.extend(of_list);
        checks.extend(status.map(|(agent, outcome)| self.mock_status(agent, outcome, listed.is_some())));
        checks
    }

    /// Whether the configuration uses the mock status of agents.
    fn uses_agents(&self) -> bool {
        self.agent.is_some() || self.discovers
    }

    /// Reads the list of agents if the configuration uses it or names no agent of this API. Returns a listed agent.
    async fn list(&self) -> (Option<AgentId>, Option<RequestCheck>) {
        if !self.discovers && (self.agent.is_some() || self.watch.is_some()) {
            return (None, None);
        }
        let request = self.client.agents_request_line();
        match self.client.agents(None).await.outcome {
            Ok(page) => {
                let listed = page.agents.first().map(|(agent, _)| *agent);
                (listed, Some(self.valid(&request, &page_text(&page))))
            }
            Err(failure) => (None, Some(self.failed(self.discovers, request, failure))),
        }
    }

    /// What the poll of the run of a watch means, or that of a task that does not exist. `exists` says that this agent
    /// is known to exist.
    fn toggle(&self, agent: AgentId, outcome: Result<Answer, Failure>, exists: bool) -> RequestCheck {
        let request = self.client.progress_request_line(agent);
        let failure = match outcome {
            Ok(answer) => return self.valid(&request, &status_text(&answer.status)),
            Err(failure) => failure,
        };
        let is_used = self.watch.is_some();
        match failure.reason {
            Reason::NotFound if exists => {
                let unused = if is_used { "" } else { UNUSED };
                let meaning = format!("not_found: most likely this deployment has no toggle endpoint{unused}");
                self.failed_as(!is_used, request, failure, &meaning)
            }
            _ if is_used => self.failed(true, request, failure),
            Reason::BadRequest => self.failed_as(true, request, failure, "reached, and the key is accepted"),
            _ if self.uses_agents() => self.failed(false, request, failure),
            Reason::NotFound => {
                let meaning = "reached; either there is no such agent, or the path of base_url is wrong";
                self.failed_as(true, request, failure, meaning)
            }
            // The configuration uses nothing of this API yet. This request decides whether it could.
            _ => self.failed(true, request, failure),
        }
    }

    /// What the answer to the request for the mock status of an agent means.
    fn mock_status(&self, agent: AgentId, outcome: Result<MockStatus, Failure>, any_listed: bool) -> RequestCheck {
        let request = self.client.mock_status_request_line(agent);
        match outcome {
            Ok(status) => self.valid(&request, if status.enabled { "mocks are on" } else { "mocks are off" }),
            Err(failure) => self.failed(self.agent.is_some() || (self.discovers && any_listed), request, failure),
        }
    }

    fn valid(&self, request: &str, answer: &str) -> RequestCheck {
        RequestCheck { is_good: true, api: self.api.clone(), what: format!("{request}: {answer}") }
    }

    /// A request that failed, and whether the configuration uses what it asked for.
    fn failed(&self, is_used: bool, request: String, failure: Failure) -> RequestCheck {
        // Without a key, nothing was sent, and nothing is known of what it asked for.
        let unused = if is_used || failure.reason == Reason::Credentials { "" } else { UNUSED };
        let meaning = format!("{}{unused}", failure.reason.as_str());
        self.failed_as(!is_used, request, failure, &meaning)
    }

    /// A request that failed, and what that means.
    fn failed_as(&self, is_good: bool, request: String, failure: Failure, meaning: &str) -> RequestCheck {
        let detail = failure.detail.map_or(request, |detail| detail.to_string());
        RequestCheck { is_good, api: self.api.clone(), what: format!("{detail} ({meaning})") }
    }
}

fn status_text(status: &ReportedStatus) -> String {
    match status {
        ReportedStatus::InProgress => "in_progress".to_owned(),
        ReportedStatus::Completed => "completed".to_owned(),
        ReportedStatus::Failed => "failed".to_owned(),
        other => other.raw().map(|raw| raw.to_string()).unwrap_or_default(),
    }
}

/// How many agents a list has, according to its first page.
fn page_text(page: &AgentPage) -> String {
    let with_mock_tools = format!("{} with mock tools on the first page", page.agents.len());
    match page.count {
        Some(1) => format!("1 agent, {with_mock_tools}"),
        Some(count) => format!("{count} agents, {with_mock_tools}"),
        None => with_mock_tools,
    }
}

// === impl RequestCheck ===

impl fmt::Display for RequestCheck {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.api.as_str(), self.what)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_page_says_how_many_agents_the_list_has_and_how_many_of_its_own_have_mock_tools() {
        let said = |count, agents: u64| {
            let agents = (1..=agents).filter_map(AgentId::of).map(|agent| (agent, None)).collect();
            page_text(&AgentPage { agents, count, next: None, malformed: Vec::new() })
        };
        assert_eq!(said(Some(240), 3), "240 agents, 3 with mock tools on the first page");
        assert_eq!(said(Some(1), 0), "1 agent, 0 with mock tools on the first page");
        assert_eq!(said(None, 2), "2 with mock tools on the first page", "it does not have to say");
    }
}
