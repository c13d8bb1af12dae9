//! Reading the configuration again, on request or on a signal.

use std::path::{Path, PathBuf};
use std::sync::{Arc, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Mutex, OnceCell, OwnedMutexGuard, mpsc, oneshot, watch};
use tokio::time::{Instant, timeout_at};

use super::follow::{FileFollower, Rescan};
use super::{IntakeCommand, problem};
use crate::cekura::{ApiClients, Clients};
use crate::config::{Config, LoadedConfig};
use crate::document::Problems;
use crate::systemd::Notifier;
use crate::threads::{BlockingTask, Thread, ThreadError};
use crate::web::WebChecks;

/// The longest that reading the configuration may take: it may be on a network volume.
const LONGEST_READ: Duration = Duration::from_secs(5);

/// Reads the configuration anew. Blocks.
pub type ConfigLoader = Arc<dyn Fn() -> Result<LoadedConfig, Problems> + Send + Sync>;

/// Reads the configuration again, the web configuration too, and has it put in force. Meanwhile the
/// intake takes other orders.
///
/// One reload is done after the other. All who ask while one is done share the next one.
pub struct Reloader {
    load: Option<ConfigLoader>,
    /// The path of the state file, which cannot change.
    state_file: Option<PathBuf>,
    clients: Arc<Clients>,
    files: FileFollower,
    /// The longest that a read is waited for.
    patience: Duration,
    web: WebChecks,
    orders: mpsc::Sender<IntakeCommand>,
    notifier: Arc<Notifier>,
    turn: Arc<Mutex<Turn>>,
    /// The one that is not begun yet.
    next: std::sync::Mutex<Arc<OnceCell<ReloadResult>>>,
}

/// Whose turn it is. With it goes the read that did not end in time, if there is one: a read cannot be
/// stopped, so there is never more than one, and it takes one thread however often a reload is asked for.
#[derive(Default)]
struct Turn {
    late: Option<BlockingTask<Result<(LoadedConfig, ApiClients), Problems>>>,
}

/// A configuration that was read again, with all done that takes time: nothing in putting it in force can
/// fail or hang.
pub struct PreparedReload {
    pub(super) checked: LoadedConfig,
    pub(super) clients: ApiClients,
    pub(super) scan: Rescan,
}

/// What came of a reload; `None` if the process ends before it is done.
type ReloadResult = Option<Result<(), Problems>>;

// === impl Reloader ===

impl Reloader {
    /// `load` is `None` if there is no configuration that could be read again.
    pub fn new(
        load: Option<ConfigLoader>,
        state_file: Option<PathBuf>,
        clients: Arc<Clients>,
        files: FileFollower,
        web: WebChecks,
        orders: mpsc::Sender<IntakeCommand>,
        notifier: Arc<Notifier>,
    ) -> Self {
        Self {
            load,
            state_file,
            clients,
            files,
            patience: LONGEST_READ,
            web,
            orders,
            notifier,
            turn: Arc::default(),
            next: std::sync::Mutex::default(),
        }
    }

    /// Reloads. `None` if the process ends before that is done.
    ///
    /// A web configuration that is good is in force whatever comes of the rest: it is followed anyway.
    /// One that is not keeps the rest from being put in force.
    pub async fn reload(self: &Arc<Self>) -> ReloadResult {
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
    fn begin(&self, begun: &Arc<OnceCell<ReloadResult>>) {
        let mut next = self.next();
        if Arc::ptr_eq(&next, begun) {
            *next = Arc::default();
        }
    }

    /// Reloads in its turn, and tells systemd, of the end even if it is a panic.
    async fn done(self: Arc<Self>, mut turn: OwnedMutexGuard<Turn>) -> ReloadResult {
        self.notifier.reloading().await;
        let notifier = self.notifier.clone();
        let outcome = tokio::spawn(async move { (self.put_in_force(&mut turn).await, turn) }).await;
        notifier.ready().await;
        outcome.ok().and_then(|(reloaded, _turn)| reloaded)
    }

    fn next(&self) -> MutexGuard<'_, Arc<OnceCell<ReloadResult>>> {
        // Nothing that is done under the lock can panic half way.
        self.next.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn put_in_force(&self, turn: &mut Turn) -> ReloadResult {
        let (read, web) = tokio::join!(self.read(turn), self.web.check());
        let ready = match Problems::of_both(read, web) {
            Ok(((checked, clients), ())) => {
                let scan = self.files.rescan(checked.config.watch_files.clone(), clients.names()).await;
                Ok(Box::new(PreparedReload { checked, clients, scan }))
            }
            Err(problems) => Err(problems),
        };
        let (reply, done) = oneshot::channel();
        self.orders.send(IntakeCommand::Reload(ready, reply)).await.ok()?;
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

    /// Reads the configuration, and the keys of APIs that are new or reached otherwise.
    async fn read(&self, turn: &mut Turn) -> Result<(LoadedConfig, ApiClients), Problems> {
        let Some(load) = self.load.clone() else {
            return Err(problem("", "there is no configuration that could be read again".to_owned()));
        };
        let deadline = Instant::now() + self.patience;
        if let Some(late) = &mut turn.late {
            // What it read may have changed since.
            if timeout_at(deadline, late).await.is_err() {
                return Err(problem(
                    "",
                    "an earlier reload is still reading it: check that its volume responds".to_owned(),
                ));
            }
            turn.late = None;
        }
        let thread =
            Thread::start("reload").map_err(|refused| problem("", ThreadError::Refused(refused).to_string()))?;
        let (clients, state_file) = (self.clients.clone(), self.state_file.clone());
        let mut reading = thread.run(move || {
            let checked = load()?;
            refuse_what_needs_a_restart(&checked.config, state_file.as_deref())?;
            let clients = clients.of(checked.config.apis.clone());
            let clients = clients.map_err(|error| problem("apis", format!("cannot be set up: {error}")))?;
            Ok((checked, clients))
        });
        let Ok(read) = timeout_at(deadline, &mut reading).await else {
            turn.late = Some(reading);
            return Err(problem("", format!("reading it took longer than {:?}", self.patience)));
        };
        read.map_err(|panic| problem("", format!("reading it failed: {panic}")))?
    }
}

fn refuse_what_needs_a_restart(config: &Config, state_file: Option<&Path>) -> Result<(), Problems> {
    if config.state_file.as_ref().map(|file| &*file.path) == state_file {
        return Ok(());
    }
    let what = "cannot change while the exporter runs: restart it, or set the old one again";
    Err(problem("state_file", what.to_owned()))
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::mpsc as gate;

    use tokio::task::JoinHandle;

    use super::*;
    use crate::cekura::Proxies;
    use crate::exposition::Metrics;
    use crate::web::WebFollower;

    /// A reloader whose reads count how many began, and end when the gate lets them; and where its orders go.
    fn gated() -> (Reloader, mpsc::Receiver<IntakeCommand>, Arc<AtomicUsize>, gate::Sender<()>) {
        let (go, gate) = gate::channel::<()>();
        let (begun, gate) = (Arc::new(AtomicUsize::new(0)), std::sync::Mutex::new(gate));
        let counted = begun.clone();
        let load: ConfigLoader = Arc::new(move || {
            counted.fetch_add(1, Ordering::Relaxed);
            let _ = gate.lock().unwrap().recv();
            Err(problem("", "read".to_owned()))
        });
        let (_, _, web) = WebFollower::new(None, Arc::new(Metrics::new().unwrap()));
        let (orders, taken) = mpsc::channel(8);
        let (clients, files) = (Arc::new(Clients::new(Proxies::default())), FileFollower::start(orders.clone()));
        let notifier = Arc::new(Notifier::from_env());
        let reloader = Reloader::new(Some(load), None, clients, files, web, orders, notifier);
        (reloader, taken, begun, go)
    }

    /// Takes orders as the intake does that puts nothing in force.
    async fn refuse(mut orders: mpsc::Receiver<IntakeCommand>) {
        while let Some(order) = orders.recv().await {
            let IntakeCommand::Reload(read, reply) = order else { panic!("another order") };
            let _ = reply.send(read.map(|_| ()));
        }
    }

    /// The reloader, once nothing else has it any more.
    async fn alone(mut reloader: Arc<Reloader>) -> Reloader {
        loop {
            match Arc::try_unwrap(reloader) {
                Ok(reloader) => return reloader,
                Err(shared) => reloader = shared,
            }
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn a_read_that_does_not_end_is_the_only_one_however_often_a_reload_is_asked_for() {
        let (mut reloader, orders, begun, go) = gated();
        reloader.patience = Duration::from_millis(20);
        let reloader = Arc::new(reloader);
        let intake = tokio::spawn(refuse(orders));
        let mut said = Vec::new();
        for _ in 0..20 {
            said.push(reloader.reload().await.unwrap().unwrap_err().to_string());
        }
        assert_eq!(begun.load(Ordering::Relaxed), 1);
        assert!(
            said[0].contains("took longer than 20ms") && said[1..].iter().all(|what| what.contains("still reading it"))
        );
        // From here on a read may take as long as it does on a busy machine.
        let mut reloader = alone(reloader).await;
        reloader.patience = LONGEST_READ;
        let reloader = Arc::new(reloader);
        // Once it ended, what it read is out of date.
        (0..2).for_each(|_| go.send(()).unwrap());
        assert!(reloader.reload().await.unwrap().unwrap_err().to_string().ends_with("read"));
        assert_eq!(begun.load(Ordering::Relaxed), 2);
        intake.abort();
    }

    #[tokio::test]
    async fn a_crowd_that_asks_while_one_is_done_shares_the_next() {
        let (reloader, orders, begun, go) = gated();
        let reloader = Arc::new(reloader);
        let intake = tokio::spawn(refuse(orders));
        let first = tokio::spawn({
            let reloader = reloader.clone();
            async move { reloader.reload().await }
        });
        while begun.load(Ordering::Relaxed) == 0 {
            tokio::task::yield_now().await;
        }
        let crowd = futures(&reloader, 100);
        (0..2).for_each(|_| go.send(()).unwrap());
        for reload in crowd {
            assert!(reload.await.unwrap().is_some());
        }
        assert!(first.await.unwrap().is_some());
        assert_eq!(begun.load(Ordering::Relaxed), 2);
        intake.abort();
    }

    fn futures(reloader: &Arc<Reloader>, count: usize) -> Vec<JoinHandle<ReloadResult>> {
        let ask = |_| {
            let reloader = reloader.clone();
            tokio::spawn(async move { reloader.reload().await })
        };
        (0..count).map(ask).collect()
    }
}
