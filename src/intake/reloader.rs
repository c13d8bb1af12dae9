//! Reading the configuration again, on request or on a signal.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Mutex, mpsc, oneshot, watch};

use super::{Order, problem};
use crate::config::{Checked, Problems};
use crate::systemd::Notifier;
use crate::web::Looks;

/// The longest that reading the configuration may take: it may be on a network volume.
const LONGEST_READ: Duration = Duration::from_secs(5);

/// Reads the configuration anew. Blocks.
pub type Load = Arc<dyn Fn() -> Result<Checked, Problems> + Send + Sync>;

/// Reads the configuration again, the web configuration too, and has it put in force, one reload
/// after the other. Meanwhile the
/// intake takes other orders.
pub struct Reloader {
    load: Option<Load>,
    web: Looks,
    orders: mpsc::Sender<Order>,
    notifier: Arc<Notifier>,
    turn: Mutex<()>,
}

// === impl Reloader ===

impl Reloader {
    /// `load` is `None` if there is no configuration that could be read again.
    pub fn new(load: Option<Load>, web: Looks, orders: mpsc::Sender<Order>, notifier: Arc<Notifier>) -> Self {
        Self { load, web, orders, notifier, turn: Mutex::new(()) }
    }

    /// Reloads. `None` if the process ends before that is done.
    ///
    /// A web configuration that is good is in force whatever comes of the rest: it is followed anyway.
    /// One that is not keeps the rest from being put in force.
    pub async fn reload(self: &Arc<Self>) -> Option<Result<(), Problems>> {
        let reloader = self.clone();
        // Who asked may go meanwhile. What was begun is ended, and systemd is told so.
        let reloading = tokio::spawn(async move {
            let _turn = reloader.turn.lock().await;
            reloader.notifier.reloading().await;
            let done = reloader.put_in_force().await;
            reloader.notifier.ready().await;
            done
        });
        reloading.await.ok()?
    }

    async fn put_in_force(&self) -> Option<Result<(), Problems>> {
        let (read, web) = tokio::join!(self.read(), self.web.look());
        let read = Problems::of_both(read, web).map(|(checked, ())| checked);
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
