//! Reading the configuration again, on request or on a signal.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Mutex, mpsc, oneshot, watch};

use super::{Order, problem};
use crate::config::{Checked, Problems};

/// The longest that reading the configuration may take: it may be on a network volume.
const LONGEST_READ: Duration = Duration::from_secs(5);

/// Reads the configuration anew. Blocks.
pub type Load = Arc<dyn Fn() -> Result<Checked, Problems> + Send + Sync>;

/// Reads the configuration again and has it put in force, one reload after the other. Meanwhile the
/// intake takes other orders.
pub struct Reloader {
    load: Option<Load>,
    orders: mpsc::Sender<Order>,
    turn: Mutex<()>,
}

// === impl Reloader ===

impl Reloader {
    /// `load` is `None` if there is no configuration that could be read again.
    pub fn new(load: Option<Load>, orders: mpsc::Sender<Order>) -> Self {
        Self { load, orders, turn: Mutex::new(()) }
    }

    /// Reloads. `None` if the process ends before that is done.
    pub async fn reload(&self) -> Option<Result<(), Problems>> {
        let _turn = self.turn.lock().await;
        let read = self.read().await;
        let (reply, done) = oneshot::channel();
        self.orders.send(Order::Reload(read, reply)).await.ok()?;
        done.await.ok()
    }

    /// Reloads on each signal that `hangups` counts, for ever.
    pub async fn follow(self: Arc<Self>, mut hangups: watch::Receiver<u32>) {
        while hangups.changed().await.is_ok() {
            // What is wrong is logged.
            let _ = self.reload().await;
        }
        // Nobody can send one any more.
        std::future::pending::<()>().await;
    }

    async fn read(&self) -> Result<Checked, Problems> {
        let Some(load) = self.load.clone() else {
            return Err(problem("", "there is no configuration that could be read again".to_owned()));
        };
        let reading = tokio::task::spawn_blocking(move || load());
        match tokio::time::timeout(LONGEST_READ, reading).await {
            Ok(read) => read.map_err(|panic| problem("", format!("reading it failed: {panic}")))?,
            Err(_) => Err(problem("", format!("reading it took longer than {LONGEST_READ:?}"))),
        }
    }
}
