//! `--config.check=online`: sends a few requests to each API, and says what it answers.

use std::error::Error;
use std::fmt;
use std::sync::Arc;

use tokio::task::JoinSet;

use super::CheckResult;
use crate::cekura::{AgentPage, Api, Client, Clients, Proxies};
use crate::toggle::{AgentId, ApiName, Failure, ProgressId, Reason, ReportedStatus, Watch};

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
    /// One of its agents.
    agent: Option<AgentId>,
    /// Whether it lists the agents that are asked.
    discovers: bool,
    /// A task that does not exist.
    no_task: ProgressId,
}

/// Sends each API of a good configuration, all at the same time, a request for a toggle task, a request for the list of
/// agents where that is needed, and a request for the mock status of an agent. Reads the key files first, which blocks.
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
    let checks = clients.map(|(Api { name, discover_agents, .. }, client)| ApiCheck {
        watch: watches.iter().find(|watch| watch.api == name).cloned(),
        agent: agents.iter().find(|agent| agent.api == name).map(|agent| agent.agent_id),
        discovers: discover_agents,
        no_task: no_task.clone(),
        api: name,
        client,
    });
    let checks: Vec<_> = checks.collect();
    Ok(async move {
        let mut under_way = JoinSet::new();
        for check in checks {
            under_way.spawn(async move { check.all().await });
        }
        let mut checks: Vec<_> = under_way.join_all().await.into_iter().flatten().collect();
        // Those of an API stay in their order.
        checks.sort_by(|one, other| one.api.cmp(&other.api));
        checks
    })
}

// === impl ApiCheck ===

impl ApiCheck {
    /// Sends all requests. Those for agents do not wait for the one for a toggle task.
    async fn all(&self) -> Vec<RequestCheck> {
        let (of_toggle, of_agents) = tokio::join!(self.toggle(), self.agents());
        std::iter::once(of_toggle).chain(of_agents).collect()
    }

    /// Whether the configuration uses the mock status of agents.
    fn uses_agents(&self) -> bool {
        self.agent.is_some() || self.discovers
    }

    /// Polls the run of a watch, or a task that does not exist.
    async fn toggle(&self) -> RequestCheck {
        let of_watch = self.watch.as_deref().map(|watch| (watch.agent_id, &watch.progress_id));
        let (agent, id) = of_watch.unwrap_or_else(|| (self.agent.unwrap_or(AgentId::FIRST), &self.no_task));
        let request = self.client.progress_request_line(agent);
        match self.client.poll(agent, id).await.outcome {
            Ok(answer) => self.valid(&request, &status_text(&answer.status)),
            Err(failure) if self.watch.is_some() => self.failed(true, request, failure),
            Err(failure) if failure.reason == Reason::BadRequest => {
                self.failed_as(true, request, failure, "reached, and the key is accepted")
            }
            Err(failure) if self.uses_agents() => self.failed(false, request, failure),
            Err(failure) if failure.reason == Reason::NotFound => {
                let meaning = "reached; either there is no such agent, or the path of base_url is wrong";
                self.failed_as(true, request, failure, meaning)
            }
            // The configuration uses nothing of this API yet. This request decides whether it could.
            Err(failure) => self.failed(true, request, failure),
        }
    }

    /// Asks for the mock status of an agent. Reads the list of agents first if the configuration uses it or names no
    /// agent of this API.
    async fn agents(&self) -> Vec<RequestCheck> {
        let of_watch = self.watch.as_deref().map(|watch| watch.agent_id);
        let mut checks = Vec::new();
        let mut listed = None;
        if self.discovers || self.agent.or(of_watch).is_none() {
            let request = self.client.agents_request_line();
            checks.push(match self.client.agents(None).await.outcome {
                Ok(page) => {
                    listed = page.agents.first().map(|(agent, _)| *agent);
                    self.valid(&request, &page_text(&page))
                }
                Err(failure) => self.failed(self.discovers, request, failure),
            });
        }
        if let Some(agent) = self.agent.or(listed).or(of_watch) {
            let is_used = self.agent.is_some() || (self.discovers && listed.is_some());
            let request = self.client.mock_status_request_line(agent);
            checks.push(match self.client.mock_status(agent).await.outcome {
                Ok(status) => self.valid(&request, if status.enabled { "mocks are on" } else { "mocks are off" }),
                Err(failure) => self.failed(is_used, request, failure),
            });
        }
        checks
    }

    fn valid(&self, request: &str, answer: &str) -> RequestCheck {
        RequestCheck { is_good: true, api: self.api.clone(), what: format!("{request}: {answer}") }
    }

    /// A request that failed, and whether the configuration uses what it asked for.
    fn failed(&self, is_used: bool, request: String, failure: Failure) -> RequestCheck {
        let unused = if is_used { "" } else { "; the configuration does not use it" };
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
