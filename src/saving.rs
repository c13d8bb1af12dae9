//! Saving the state of the board in the background, while polls and requests change it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;
use tokio::time::MissedTickBehavior;

use crate::board::Board;
use crate::clock;
use crate::exposition::Metrics;
use crate::store::{Store, UnsavedChanges};
use crate::toggle::{Shard, ShardSet};

/// How often changes are saved, and so the most that a crash can lose. When a run finishes, that is saved at
/// once.
const INTERVAL: Duration = Duration::from_secs(2);

/// The most watches, and the most agents, that are saved in one transaction of a state file. Registrations wait for a
/// transaction to end before theirs can begin.
const FILE_BATCH: usize = 100;

/// As [`FILE_BATCH`], for a database, where registrations do not wait.
const DATABASE_BATCH: usize = 1000;

/// The most watches, and the most agents, of which only counters changed that are saved in a database at each interval,
/// by all replicas together. So what a database has to write does not depend on how much is polled.
const COUNTED: u32 = 120;

/// How long counters are saved before this replica gives its shards to others.
const COUNTERS_AT_END: Duration = Duration::from_millis(500);

/// Saves the state of the board.
struct Saver {
    board: Arc<Board>,
    metrics: Arc<Metrics>,
    store: Store,
    /// Why the last save failed, so that each reason is logged once.
    problem: Option<String>,
}

/// Saves the state of the board until `stop` resolves, and a last time after it. Without a store it only waits for
/// `stop`.
pub async fn run(board: Arc<Board>, metrics: Arc<Metrics>, store: Option<Store>, stop: oneshot::Receiver<()>) {
    match store {
        Some(store) => Saver { board, metrics, store, problem: None }.run(stop).await,
        None => drop(stop.await),
    }
}

// === impl Saver ===

impl Saver {
    async fn run(mut self, mut stop: oneshot::Receiver<()>) {
        let mut ticks = tokio::time::interval(INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = &mut stop => break,
                _ = ticks.tick() => { self.board.save_counted(self.counted()); }
                // The API may no longer know the run when the next process asks for it.
                () = self.board.run_finished() => {}
            }
            self.save().await;
        }
        let all = self.save().await;
        self.save_counters_for(COUNTERS_AT_END).await;
        if all || matches!(self.store, Store::Database(_)) {
            // If that fails for a file, the next process counts from zero, as after a crash. If it fails for a database,
            // the other replicas wait until the lease has expired.
            let _ = self.store.end().await;
        }
    }

    /// Saves watches of which only counters changed, for this long: nobody polls what this replica owns until it has given
    /// that to the others, so they wait for no more. A state file has no such watches.
    async fn save_counters_for(&mut self, time: Duration) {
        let begun = Instant::now();
        while self.board.save_counted(DATABASE_BATCH) && self.save().await && begun.elapsed() < time {}
    }

    /// How many watches are saved at each interval of which only counters changed.
    fn counted(&self) -> usize {
        let Store::Database(database) = &self.store else { return 0 };
        (COUNTED * database.leases().owned().len()).div_ceil(u32::from(Shard::COUNT)) as usize
    }

    /// Saves everything that changed until now, and returns whether that worked. What cannot be saved is
    /// saved with the next changes.
    async fn save(&mut self) -> bool {
        let round = self.board.begin_save();
        let all = self.save_batches().await;
        if all {
            self.board.finish_save(round);
        }
        all
    }

    async fn save_batches(&mut self) -> bool {
        let batch = if matches!(self.store, Store::File(_)) { FILE_BATCH } else { DATABASE_BATCH };
        loop {
            let unsaved = Arc::new(self.board.take_unsaved(batch, clock::now()));
            if unsaved.is_empty() {
                return true;
            }
            // What changes meanwhile is saved in the next round.
            let is_last = unsaved.toggles.len() < batch && unsaved.agents.len() < batch;
            match self.store.save(unsaved.clone()).await {
                Ok(shards) => {
                    self.saved(&unsaved, shards);
                    if self.board.mark_refused(&unsaved, shards) {
                        // Another replica owns some of the shards, which the coordinator will find out, or it came too late.
                        return false;
                    }
                }
                Err(error) => {
                    self.board.mark_unsaved(&unsaved);
                    self.failed(format!("{} {error}", error.subject()));
                    return false;
                }
            }
            if is_last {
                return true;
            }
        }
    }

    fn saved(&mut self, changes: &UnsavedChanges, shards: ShardSet) {
        for run in changes.finished.iter().filter(|run| shards.contains(run.shard)) {
            self.metrics.count_run(run);
        }
        if self.problem.take().is_some() {
            tracing::info!("state is saved again");
        }
    }

    fn failed(&mut self, problem: String) {
        if self.problem.as_ref() != Some(&problem) {
            tracing::error!(problem, "state could not be saved: a restart would forget it");
            self.problem = Some(problem);
        }
    }
}
