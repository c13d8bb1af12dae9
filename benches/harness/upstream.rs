//! What is polled.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use cekura_exporter::demo::simulator::{Reply, Request, Simulator};

use super::{Failure, watch_list};

/// The id of the first agent that is asked for its mock status.
const FIRST_AGENT: u32 = 1_000_000;

/// How long the first poll of every watch may take.
const FIRST_ROUND: Duration = Duration::from_secs(15);

/// The API, as far as long lists need it: every task is in progress, the mocks of every agent are on, and polls are
/// counted.
pub(crate) struct Upstream {
    simulator: Simulator,
    polls: Arc<[AtomicU32]>,
    asked: Arc<[AtomicU32]>,
}

// === impl Upstream ===

impl Upstream {
    /// Knows so many tasks, and so many agents, which are not those of the tasks.
    pub(crate) async fn start(watches: u32, agents: u32) -> Result<Self, Failure> {
        let counters = |count| (0..count).map(|_| AtomicU32::new(0)).collect::<Arc<[_]>>();
        let (polls, asked) = (counters(watches), counters(agents));
        let (of_tasks, of_agents) = (polls.clone(), asked.clone());
        let (task, status) = (Reply::task("in_progress", None), Reply::mock_status(true, "vapi"));
        let answer = move |request: &Request| {
            let task = number_of(request).and_then(|n| of_tasks.get(n)).map(|polls| (polls, &task));
            let agent = || agent_of(request).and_then(|n| of_agents.get(n)).map(|asked| (asked, &status));
            let (counter, reply) = task.or_else(agent)?;
            counter.fetch_add(1, Ordering::Relaxed);
            Some(reply.clone())
        };
        let simulator =
            Simulator::start(move |request| answer(request).unwrap_or_else(|| Reply::detail(400, "no such id")));
        Ok(Self { simulator: simulator.await?, polls, asked })
    }

    /// A configuration that has all of its tasks watched and all of its agents asked, with a budget that holds nothing
    /// back and the default polling.
    pub(crate) fn configuration(&self) -> String {
        let count = |counters: &[AtomicU32]| u32::try_from(counters.len()).unwrap_or(u32::MAX);
        format!(
            "apis:\n  default: {{base_url: 'http://{}', api_key: load, max_in_flight: 64, requests_per_second: 20000}}\n\
             watches:\n{}agents:\n{}",
            self.simulator.address(),
            watch_list::entries(count(&self.polls)),
            watch_list::agents(FIRST_AGENT, count(&self.asked)),
        )
    }

    /// The requests for the mock status of all agents so far.
    pub(crate) fn asked(&self) -> u32 {
        self.asked.iter().map(|asked| asked.load(Ordering::Relaxed)).sum()
    }

    /// The polls so far, of each watch.
    pub(crate) fn polls(&self) -> Vec<u32> {
        self.polls.iter().map(|polls| polls.load(Ordering::Relaxed)).collect()
    }

    /// Waits until every watch and every agent was polled once.
    pub(crate) async fn first_round(&self) -> Result<(), Failure> {
        let deadline = Instant::now() + FIRST_ROUND;
        while let Some(number) = self.asked.iter().position(|asked| asked.load(Ordering::Relaxed) == 0) {
            if Instant::now() > deadline {
                return Err(format!("The agent {number} was never asked within {FIRST_ROUND:?}.").into());
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        while let Some(number) = self.polls().iter().position(|polls| *polls == 0) {
            if Instant::now() > deadline {
                return Err(format!("The watch load-{number:05} was never polled within {FIRST_ROUND:?}.").into());
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        Ok(())
    }
}

/// The number of the watch that is polled.
fn number_of(request: &Request) -> Option<usize> {
    request.progress_id()?.rsplit_once('-')?.1.parse().ok()
}

/// The number of the agent that is asked for its mock status.
fn agent_of(request: &Request) -> Option<usize> {
    usize::try_from(request.mock_status_of()?.checked_sub(FIRST_AGENT.into())?).ok()
}
