//! The end of a run: replicas, their database, and at last all exporters are gone for good. Each must be notified.

use std::time::{Duration, Instant};

use super::database::Database;
use super::fleet::Fleet;
use super::harness::Failure;
use super::plan::Time;
use super::truth::{Expected, GoneForGood};
use super::{Bounds, Settings};

/// What is left at the end of a run.
pub(super) struct Finale {
    pub(super) begun: Instant,
    pub(super) fleet: Fleet,
    pub(super) database: Option<Database>,
}

// === impl Finale ===

impl Finale {
    /// Ends one thing after the other, each when the notification of the one before is due. Returns the notifications
    /// that are required and allowed.
    pub(super) async fn play(mut self, settings: &Settings, bounds: &Bounds) -> Result<Vec<Expected>, Failure> {
        let gone = GoneForGood { settings, bounds };
        let mut expected = Vec::new();
        if let Some(database) = self.database.take() {
            let from = self.now();
            self.fleet.kill_one().await?;
            let missing = gone.replica(from);
            self.notified(&missing).await;
            let since = self.now();
            drop(database);
            let down = gone.database(since);
            if self.fleet.running().count() > 1 {
                // Nobody can take over what it owned.
                self.fleet.kill_one().await?;
                expected.push(gone.shards(from, since));
            }
            self.notified(&down).await;
            expected.extend([missing, down]);
        }
        let from = self.now();
        // Of these, nothing is known from now on.
        expected.iter_mut().flat_map(|expected| &mut expected.must).for_each(|must| must.until = from);
        self.fleet.kill().await?;
        let down = gone.exporters(from);
        self.notified(&down).await;
        expected.push(down);
        Ok(expected)
    }

    fn now(&self) -> Time {
        self.begun.elapsed().as_secs_f64()
    }

    /// Waits until the notification is due, and a little longer.
    async fn notified(&self, expected: &Expected) {
        let due = expected.must.iter().map(|must| must.due).fold(0.0, f64::max) + 1.0;
        tokio::time::sleep_until((self.begun + Duration::from_secs_f64(due)).into()).await;
    }
}
