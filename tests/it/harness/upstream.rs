//! A simulated API whose answers a test sets, and which keeps the requests that it got.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use cekura_exporter::demo::simulator::{Reply, Request, Simulator};

/// A scripted upstream. Without a script for a progress id it answers 400, as the API does.
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

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.simulator.address())
    }

    /// The requests so far, with the time of each.
    pub(crate) fn requests(&self) -> Vec<(Instant, Request)> {
        self.state.lock().unwrap().requests.clone()
    }

    /// How many polls of `progress_id` there were so far.
    pub(crate) fn polls_of(&self, progress_id: &str) -> usize {
        let state = self.state.lock().unwrap();
        state.requests.iter().filter(|(_, request)| request.progress_id().as_deref() == Some(progress_id)).count()
    }
}

impl State {
    fn answer(&mut self, request: &Request) -> Reply {
        self.requests.push((Instant::now(), request.clone()));
        let replies = request.progress_id().and_then(|id| self.replies.get_mut(&id));
        match replies {
            Some(replies) if replies.len() > 1 => replies.pop().unwrap(),
            Some(replies) => replies[0].clone(),
            None => Reply::detail(400, "no such id"),
        }
    }
}
