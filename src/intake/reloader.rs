//! Reading the configuration again, on request or on a signal.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{OnceCell, OwnedMutexGuard, mpsc, oneshot, watch};

use super::{Order, problem};
use crate::config::{Checked, Problems};
use crate::systemd::Notifier;
use crate::web::Looks;

/// The longest that reading the configuration may take: it may be on a network volume.
const LONGEST_READ: Duration = Duration::from_secs(5);

/// Reads the configuration anew. Blocks.
pub type Load = Arc<dyn Fn() -> Result<Checked, Problems> + Send + Sync>;

/// Reads the configuration again, the web configuration too, and has it put in force. Meanwhile the
/// intake takes other orders.
///
/// One reload is done after the other. All who ask while one is done share the next one.
pub struct Reloader {
    load: Option<Load>,
    web: Looks,
    orders: mpsc::Sender<Order>,
    notifier: Arc<Notifier>,
    turn: Arc<tokio::sync::Mutex<()>>,
    /// The one that is not begun yet.
    next: Mutex<Arc<OnceCell<Reloaded>>>,
}

/// What came of a reload; `None` if the process ends before it is done.
type Reloaded = Option<Result<(), Problems>>;

// === impl Reloader ===

impl Reloader {
    /// `load` is `None` if there is no configuration that could be read again.
    pub fn new(load: Option<Load>, web: Looks, orders: mpsc::Sender<Order>, notifier: Arc<Notifier>) -> Self {
        Self { load, web, orders, notifier, turn: Arc::default(), next: Mutex::default() }
    }

    /// Reloads. `None` if the process ends before that is done.
    ///
    /// A web configuration that is good is in force whatever comes of the rest: it is followed anyway.
    /// One that is not keeps the rest from being put in force.
    pub async fn reload(self: &Arc<Self>) -> Reloaded {
        let shared = self.next().clone();
        let reloaded = shared.get_or_init(async || {
            let turn = self.turn.clone().lock_owned().await;
            self.begin(&shared);
            // Who asked may go meanwhile. What was begun is ended.
            let reloader = self.clone();
            tokio::spawn(async move { reloader.done(turn).await }).await.ok().flatten()
        });
        reloaded.await.clone()
    }

    /// Who asks from here on may have written what this one does not read.
    fn begin(&self, begun: &Arc<OnceCell<Reloaded>>) {
        let mut next = self.next();
        if Arc::ptr_eq(&next, begun) {
            *next = Arc::default();
        }
    }

    /// Reloads in its turn, and tells systemd, of the end even if it is a panic.
    async fn done(self: Arc<Self>, _turn: OwnedMutexGuard<()>) -> Reloaded {
        self.notifier.reloading().await;
        let notifier = self.notifier.clone();
        let outcome = tokio::spawn(async move { self.put_in_force().await }).await;
        notifier.ready().await;
        outcome.ok().flatten()
    }

    fn next(&self) -> MutexGuard<'_, Arc<OnceCell<Reloaded>>> {
        // Nothing that is done under the lock can panic half way.
        self.next.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn put_in_force(&self) -> Reloaded {
        let (read, web) = tokio::join!(self.read(), self.web.look());
        let read = Problems::of_both(read, web).map(|(checked, ())| Box::new(checked));
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
