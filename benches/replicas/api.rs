//! The API that the replicas poll.

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use cekura_exporter::demo::simulator::{Reply, Request, Simulator};

use crate::harness::Failure;

/// How many replicas are told apart.
const REPLICAS: u64 = 8;

/// An API whose tasks are all in progress. It knows when each watch of the list was last polled, and by which replica.
pub(crate) struct EndlessTasks {
    simulator: Simulator,
    since: Instant,
    last: Arc<[AtomicU64]>,
}

/// A poll of a watch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Poll {
    pub(crate) at: Instant,
    /// The number of the replica.
    pub(crate) replica: usize,
}

/// An API whose tasks finish at the second poll. The progress id of a run is the name of its watch, a hyphen and a
/// number.
pub(crate) struct ShortTasks {
    simulator: Simulator,
    runs: Arc<Mutex<FinishedRuns>>,
}

/// The runs of which it was answered that they have finished.
#[derive(Default)]
pub(crate) struct FinishedRuns {
    polled: HashSet<String>,
    finished: HashSet<String>,
    /// How many runs of each watch have finished.
    pub(crate) by_watch: HashMap<String, u32>,
}

/// The key of the API by which a replica is known.
pub(crate) fn key(replica: usize) -> String {
    format!("replica-{replica}")
}

// === impl EndlessTasks ===

impl EndlessTasks {
    pub(crate) async fn start(watches: u32) -> Result<Self, Failure> {
        let last: Arc<[AtomicU64]> = (0..watches).map(|_| AtomicU64::new(0)).collect();
        let (since, polled, task) = (Instant::now(), last.clone(), Reply::task("in_progress", None));
        let simulator = Simulator::start(move |request| {
            let number = request.progress_id().and_then(|id| id.rsplit_once('-')?.1.parse::<usize>().ok());
            let (Some(watch), Some(replica)) = (number.and_then(|number| polled.get(number)), replica_of(request))
            else {
                return Reply::detail(400, "no such id");
            };
            let micros = u64::try_from(since.elapsed().as_micros()).unwrap_or(u64::MAX / REPLICAS);
            watch.store(micros * REPLICAS + replica, Ordering::Relaxed);
            task.clone()
        });
        Ok(Self { simulator: simulator.await?, since, last })
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.simulator.address()
    }

    /// The last poll of each watch, by its number; `None` if there was none.
    pub(crate) fn polls(&self) -> impl Iterator<Item = Option<Poll>> {
        self.last.iter().map(|last| {
            let last = last.load(Ordering::Relaxed);
            let replica = usize::try_from(last % REPLICAS).unwrap_or_default();
            (last > 0).then(|| Poll { at: self.since + Duration::from_micros(last / REPLICAS), replica })
        })
    }
}

/// The number of the replica that sends a request.
fn replica_of(request: &Request) -> Option<u64> {
    request.header("x-cekura-api-key")?.rsplit_once('-')?.1.parse().ok()
}

// === impl ShortTasks ===

impl ShortTasks {
    pub(crate) async fn start() -> Result<Self, Failure> {
        let runs: Arc<Mutex<FinishedRuns>> = Arc::default();
        let polled = runs.clone();
        let (in_progress, completed, failed) =
            (Reply::task("in_progress", None), Reply::task("completed", Some(true)), Reply::task("failed", None));
        let simulator = Simulator::start(move |request| {
            let Some(id) = request.progress_id() else { return Reply::detail(400, "no such id") };
            let fails = id.ends_with('7');
            if polled.lock().unwrap_or_else(PoisonError::into_inner).poll(id) {
                if fails { failed.clone() } else { completed.clone() }
            } else {
                in_progress.clone()
            }
        });
        Ok(Self { simulator: simulator.await?, runs })
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.simulator.address()
    }

    /// The runs that have finished, as far as anybody was told.
    pub(crate) fn with_runs<T>(&self, read: impl FnOnce(&FinishedRuns) -> T) -> T {
        read(&self.runs.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

// === impl FinishedRuns ===

impl FinishedRuns {
    /// Takes note of a poll, and returns whether the run has finished.
    fn poll(&mut self, id: String) -> bool {
        if !self.polled.contains(&id) {
            self.polled.insert(id);
            return false;
        }
        if !self.finished.contains(&id) {
            if let Some((watch, _)) = id.rsplit_once('-') {
                *self.by_watch.entry(watch.to_owned()).or_default() += 1;
            }
            self.finished.insert(id);
        }
        true
    }

    /// How many have finished.
    pub(crate) fn count(&self) -> usize {
        self.finished.len()
    }
}
