//! Saving the state of the board in the background, while polls and requests change it.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::MissedTickBehavior;

use crate::board::Board;
use crate::clock;
use crate::store::Store;

/// How often changes are saved, and so the most that a crash can lose. When a run finishes, that is saved at
/// once.
const INTERVAL: Duration = Duration::from_secs(2);

/// The most watches, and the most agents, that are saved in one transaction. Registrations wait for a
/// transaction to end before theirs can begin.
const BATCH: usize = 100;

/// Saves the state of the board.
struct Saver {
    board: Arc<Board>,
    store: Store,
    /// Why the last save failed, so that each reason is logged once.
    problem: Option<String>,
}

/// Saves the state of the board until `stop` resolves, and a last time after it. Without a state file it only
/// waits for `stop`.
pub async fn run(board: Arc<Board>, store: Option<Store>, stop: oneshot::Receiver<()>) {
    match store {
        Some(store) => Saver { board, store, problem: None }.run(stop).await,
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
                _ = ticks.tick() => {}
                // The API may no longer know the run when the next process asks for it.
                () = self.board.run_finished() => {}
            }
            self.save().await;
        }
        if self.save().await {
            // If that fails, the next process counts from zero, as after a crash.
            let _ = self.store.end().await;
        }
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
        loop {
            let unsaved = Arc::new(self.board.take_unsaved(BATCH, clock::now()));
            if unsaved.is_empty() {
                return true;
            }
            // What changes meanwhile is saved in the next round.
            let is_last = unsaved.toggles.len() < BATCH && unsaved.agents.len() < BATCH;
            if let Err(error) = self.store.save(unsaved.clone()).await {
                self.board.mark_unsaved(&unsaved);
                self.failed(error.to_string());
                return false;
            }
            self.saved();
            if is_last {
                return true;
            }
        }
    }

    fn saved(&mut self) {
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
