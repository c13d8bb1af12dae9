//! What is polled.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use cekura_exporter::demo::simulator::{Reply, Request, Simulator};

use super::{Failure, watch_list};

/// How long the first poll of every watch may take.
const FIRST_ROUND: Duration = Duration::from_secs(15);

/// The API, as far as a long watch list needs it: every task is in progress, and its polls are
/// counted.
pub(crate) struct Upstream {
    simulator: Simulator,
    polls: Arc<[AtomicU32]>,
}

// === impl Upstream ===

impl Upstream {
    pub(crate) async fn start(watches: u32) -> Result<Self, Failure> {
        let polls: Arc<[AtomicU32]> = (0..watches).map(|_| AtomicU32::new(0)).collect();
        let counted = polls.clone();
        let task = Reply::task("in_progress", None);
        let simulator = Simulator::start(move |request| match number_of(request).and_then(|n| counted.get(n)) {
            Some(polls) => {
                polls.fetch_add(1, Ordering::Relaxed);
                task.clone()
            }
            None => Reply::detail(400, "no such id"),
        });
        Ok(Self { simulator: simulator.await?, polls })
    }

    /// A configuration that has all of its tasks watched, with a budget that holds nothing back and
    /// the default polling.
    pub(crate) fn configuration(&self) -> String {
        let watches = u32::try_from(self.polls.len()).unwrap_or(u32::MAX);
        format!(
            "apis:\n  default: {{base_url: 'http://{}', api_key: load, max_in_flight: 64, requests_per_second: 20000}}\n\
             watches:\n{}",
            self.simulator.address(),
            watch_list::entries(watches)
        )
    }

    /// The polls so far, of each watch.
    pub(crate) fn polls(&self) -> Vec<u32> {
        self.polls.iter().map(|polls| polls.load(Ordering::Relaxed)).collect()
    }

    /// Waits until every watch was polled once.
    pub(crate) async fn first_round(&self) -> Result<(), Failure> {
        let deadline = Instant::now() + FIRST_ROUND;
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
