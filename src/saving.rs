//! Saving what is known, off the hot path.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::MissedTickBehavior;

use crate::board::Board;
use crate::clock;
use crate::store::Store;
use crate::threads;

/// How often what changed is saved: what a crash can lose at most. That a run finished is saved at
/// once.
const INTERVAL: Duration = Duration::from_secs(2);

/// The most watches that are saved in one transaction, and the most agents. Registrations wait for
/// one to end before theirs can begin.
const BATCH: usize = 100;

/// Saves what the board knows.
pub struct Saver {
    board: Arc<Board>,
    store: Arc<Store>,
    /// What was last wrong, so that it is said once.
    problem: Option<String>,
}

// === impl Saver ===

impl Saver {
    /// One that has saved nothing yet.
    pub fn new(board: Arc<Board>, store: Arc<Store>) -> Self {
        Self { board, store, problem: None }
    }

    /// Saves again and again until `stop` resolves, and a last time after it.
    pub async fn run(mut self, stop: impl Future<Output = ()>) {
        let mut stop = std::pin::pin!(stop);
        let mut ticks = tokio::time::interval(INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = &mut stop => break,
                _ = ticks.tick() => {
                    self.save().await;
                }
                // That is not to be forgotten: its id may have expired when the next process asks.
                () = self.board.run_finished() => {
                    self.save().await;
                }
            }
        }
        if self.save().await {
            let store = self.store.clone();
            // If that fails, the next process counts from zero, as after a crash.
            let _ = threads::try_run("saver", move || store.end()).await;
        }
    }

    /// Saves all that changed until now. What cannot be saved is tried again the next time. Says whether all of
    /// it is saved.
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
            // What changes meanwhile has time until the next round.
            let is_last = unsaved.toggles.len() < BATCH && unsaved.agents.len() < BATCH;
            let (store, saving) = (self.store.clone(), unsaved.clone());
            let save = move || store.save(&saving.toggles, &saving.agents);
            let problem = match threads::try_run("saver", save).await {
                Ok(Ok(())) => None,
                Ok(Err(error)) => Some(error.to_string()),
                Err(lost) => Some(lost.to_string()),
            };
            if let Some(problem) = problem {
                self.board.mark_unsaved(&unsaved);
                self.failed(problem);
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
