//! A simulated API whose answers a test sets, and which keeps the requests that it got.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use cekura_exporter::demo::simulator::{Reply, Request, Simulator};

/// A scripted upstream. Without a script for a progress id it answers 400, and without one for an agent or a page 404,
/// as the API does.
pub(crate) struct Upstream {
    simulator: Simulator,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    replies: HashMap<String, Vec<Reply>>,
    requests: Vec<(Instant, Request)>,
}

impl Upstream {
    pub(crate) async fn start() -> Self {
        let state = Arc::new(Mutex::new(State::default()));
        let answering = state.clone();
        let simulator = Simulator::start(move |request| answering.lock().unwrap().answer(request)).await.unwrap();
        Self { simulator, state }
    }

    /// Answers polls of `progress_id` with these, one after the other; the last one again and again.
    pub(crate) fn script(&self, progress_id: &str, replies: impl IntoIterator<Item = Reply>) {
        let mut replies: Vec<_> = replies.into_iter().collect();
        replies.reverse();
        self.state.lock().unwrap().replies.insert(progress_id.to_owned(), replies);
    }

    /// Answers requests for the mock status of an agent with these, as [`Upstream::script`] does.
    pub(crate) fn mock_status(&self, agent: u64, replies: impl IntoIterator<Item = Reply>) {
        self.script(&mock_status(agent), replies);
    }

    /// Answers requests for a page of the list of agents with these, as [`Upstream::script`] does.
    pub(crate) fn page(&self, page: usize, replies: impl IntoIterator<Item = Reply>) {
        self.script(&page_of_agents(page), replies);
    }

    /// How many requests for the mock status of an agent there were so far.
    pub(crate) fn asked(&self, agent: u64) -> usize {
        self.count(&mock_status(agent))
    }

    /// How many requests for a page of the list of agents there were so far.
    pub(crate) fn listed(&self, page: usize) -> usize {
        self.count(&page_of_agents(page))
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.simulator.address())
    }

    /// The requests so far, with the time of each.
    pub(crate) fn requests(&self) -> Vec<(Instant, Request)> {
        self.state.lock().unwrap().requests.clone()
    }

    /// How many polls of `progress_id` there were so far.
    pub(crate) fn polls_of(&self, progress_id: &str) -> usize {
        self.count(progress_id)
    }

    fn count(&self, script: &str) -> usize {
        let state = self.state.lock().unwrap();
        state.requests.iter().filter(|(_, request)| script_of(request).as_deref() == Some(script)).count()
    }
}

fn mock_status(agent: u64) -> String {
    format!("mock status of {agent}")
}

fn page_of_agents(page: usize) -> String {
    format!("page {page} of the agents")
}

/// The name of the script that answers a request.
fn script_of(request: &Request) -> Option<String> {
    let of_agent = || request.mock_status_of().map(mock_status);
    request.progress_id().or_else(of_agent).or_else(|| request.page_of_agents().map(page_of_agents))
}

impl State {
    fn answer(&mut self, request: &Request) -> Reply {
        self.requests.push((Instant::now(), request.clone()));
        let replies = script_of(request).and_then(|script| self.replies.get_mut(&script));
        match replies {
            Some(replies) if replies.len() > 1 => replies.pop().unwrap(),
            Some(replies) => replies[0].clone(),
            None if request.mock_status_of().is_some() || request.page_of_agents().is_some() => {
                Reply::detail(404, "Not found.")
            }
            None => Reply::detail(400, "no such id"),
        }
    }
}
