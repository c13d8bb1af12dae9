//! Reading the configuration again, on request or on SIGHUP.

use std::path::PathBuf;
use std::sync::{Arc, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Mutex, OnceCell, OwnedMutexGuard, mpsc, oneshot, watch};
use tokio::time::{Instant, timeout_at};

use super::config_file::{ConfigFileFollower, FollowedConfigFile};
use super::follow::{FileFollower, Rescan};
use super::{IntakeCommand, problem};
use crate::cekura::{ApiClients, Clients};
use crate::config::{Config, LoadedConfig};
use crate::database::DatabaseSettings;
use crate::document::Problems;
use crate::systemd::Notifier;
use crate::tasks;
use crate::threads::{BlockingTask, Thread, ThreadError};
use crate::web::WebChecks;

/// The longest that reading the configuration may take, which may be on a network volume.
const READ_TIMEOUT: Duration = Duration::from_secs(5);

/// After so many checks of the configuration file, which are 2 s apart, a reload that failed is tried again.
const RETRY_CHECKS: u32 = 5;

/// Reads the configuration again. Blocks.
pub type ConfigLoader = Arc<dyn Fn() -> Result<LoadedConfig, Problems> + Send + Sync>;

/// Reads the configuration and the web configuration again, and has the intake put them in force. The
/// intake carries out other commands while this reads.
///
/// Reloads run one after the other. All requests that come during one share the next one.
pub struct Reloader {
    load: Option<ConfigLoader>,
    store: StoreSettings,
    clients: Arc<Clients>,
    files: FileFollower,
    read_timeout: Duration,
    web: WebChecks,
    commands: mpsc::Sender<IntakeCommand>,
    notifier: Arc<Notifier>,
    turn: Arc<Mutex<ReloadTurn>>,
    /// The result of the next reload, which has not begun.
    next: std::sync::Mutex<Arc<OnceCell<ReloadResult>>>,
}

/// Where the state is kept, which cannot change while the exporter runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoreSettings {
    /// The path of the state file.
    state_file: Option<PathBuf>,
    database: Option<DatabaseSettings>,
}

/// Held by the reload that runs. It carries the read that timed out, if there is one: a read cannot be
/// cancelled, so at most one of them, and its thread, hangs however often a reload is requested.
#[derive(Default)]
struct ReloadTurn {
    hanging: Option<BlockingTask<Result<(LoadedConfig, ApiClients), Problems>>>,
}

/// A configuration that was read, its clients and its watch files: putting it in force can neither fail
/// nor hang.
pub struct PreparedReload {
    pub(super) checked: LoadedConfig,
    pub(super) clients: ApiClients,
    pub(super) scan: Rescan,
}

/// The result of a reload; `None` if the process ends before.
type ReloadResult = Option<Result<(), Problems>>;

// === impl Reloader ===

impl Reloader {
    /// `load` is `None` if the configuration is in no file. `store` is where the state is kept.
    pub fn new(
        load: Option<ConfigLoader>,
        store: StoreSettings,
        clients: Arc<Clients>,
        files: FileFollower,
        web: WebChecks,
        commands: mpsc::Sender<IntakeCommand>,
        notifier: Arc<Notifier>,
    ) -> Self {
        Self {
            load,
            store,
            clients,
            files,
            read_timeout: READ_TIMEOUT,
            web,
            commands,
            notifier,
            turn: Arc::default(),
            next: std::sync::Mutex::default(),
        }
    }

    /// Reloads. `None` if the process ends before that is done.
    ///
    /// A valid web configuration takes effect even if the configuration has problems, because its files are
    /// followed anyway. A web configuration with problems keeps the configuration from taking effect.
    pub async fn reload(self: &Arc<Self>) -> ReloadResult {
        let shared = self.next().clone();
        let result = shared.get_or_init(async || {
            let turn = self.turn.clone().lock_owned().await;
            self.begin(&shared);
            // The client may go meanwhile, but a reload that has begun runs to its end.
            let reloader = self.clone();
            tasks::spawn(async move { reloader.run(turn).await }).await.ok().flatten()
        });
        result.await.clone()
    }

    /// Makes later requests wait for another reload: their files may have been written after this one
    /// reads.
    fn begin(&self, begun: &Arc<OnceCell<ReloadResult>>) {
        let mut next = self.next();
        if Arc::ptr_eq(&next, begun) {
            *next = Arc::default();
        }
    }

    /// Reloads and tells systemd when that begins and ends, even if it ends with a panic.
    async fn run(self: Arc<Self>, mut turn: OwnedMutexGuard<ReloadTurn>) -> ReloadResult {
        self.notifier.reloading().await;
        let notifier = self.notifier.clone();
        let outcome = tasks::spawn(async move { (self.read_and_apply(&mut turn).await, turn) }).await;
        notifier.ready().await;
        outcome.ok().and_then(|(result, _turn)| result)
    }

    fn next(&self) -> MutexGuard<'_, Arc<OnceCell<ReloadResult>>> {
        // Nothing panics while it holds the lock.
        self.next.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn read_and_apply(&self, turn: &mut ReloadTurn) -> ReloadResult {
        let (read, web) = tokio::join!(self.read(turn), self.web.check());
        let loaded = match Problems::of_both(read, web) {
            Ok(((checked, clients), ())) => {
                let scan = self.files.rescan(checked.config.watch_files.clone(), clients.names()).await;
                Ok(Box::new(PreparedReload { checked, clients, scan }))
            }
            Err(problems) => Err(problems),
        };
        let (reply, done) = oneshot::channel();
        self.commands.send(IntakeCommand::Reload(loaded, reply)).await.ok()?;
        done.await.ok()
    }

    /// Reloads on each signal that `hangups` counts. Never returns.
    pub async fn follow(self: Arc<Self>, mut hangups: watch::Receiver<u32>) {
        while hangups.changed().await.is_ok() {
            // The intake logs the problems.
            let _ = self.reload().await;
        }
        // The task that listens for signals has ended, so there are no more.
        std::future::pending::<()>().await;
    }

    /// Reloads whenever the configuration file has changed. Never returns. A file system that hangs keeps it from
    /// noticing a change, but not from reloading on request.
    pub async fn follow_file(self: Arc<Self>, file: Option<FollowedConfigFile>) {
        let mut follower = ConfigFileFollower::new(file);
        let mut failed = None;
        loop {
            if follower.changed_within(RETRY_CHECKS).await {
                // The intake logs the problems.
                failed = self.reload().await.and_then(Result::err);
            } else if let Some(problems) = failed.take() {
                failed = self.reload_unless(problems).await;
            }
        }
    }

    /// Reloads, unless that would fail with these problems again. A configuration may name files that are there only
    /// after it, and nothing else tells of them. Returns the problems of the last reload, if there are any.
    async fn reload_unless(self: &Arc<Self>, problems: Problems) -> Option<Problems> {
        let mut turn = self.turn.clone().lock_owned().await;
        let (read, web) = tokio::join!(self.read(&mut turn), self.web.check());
        drop(turn);
        match Problems::of_both(read, web) {
            Err(again) if again == problems => Some(problems),
            _ => self.reload().await.and_then(Result::err),
        }
    }

    /// Reads the configuration, and the key files of APIs that are new or reached in another way.
    async fn read(&self, turn: &mut ReloadTurn) -> Result<(LoadedConfig, ApiClients), Problems> {
        let Some(load) = self.load.clone() else {
            return Err(problem("", "there is no configuration file that could be read again".to_owned()));
        };
        let deadline = Instant::now() + self.read_timeout;
        if let Some(hanging) = &mut turn.hanging {
            // Its result is dropped, because the file may have changed since.
            if timeout_at(deadline, hanging).await.is_err() {
                let what = "an earlier reload is still reading it: check that its volume responds";
                return Err(problem("", what.to_owned()));
            }
            turn.hanging = None;
        }
        let thread =
            Thread::start("reload").map_err(|refused| problem("", ThreadError::Refused(refused).to_string()))?;
        let (clients, store) = (self.clients.clone(), self.store.clone());
        let mut reading = thread.run(move || {
            let checked = load()?;
            store.refuse_another(&checked.config)?;
            let clients = clients.of(checked.config.apis.clone());
            let clients = clients.map_err(|error| problem("apis", format!("cannot be set up: {error}")))?;
            Ok((checked, clients))
        });
        let Ok(read) = timeout_at(deadline, &mut reading).await else {
            turn.hanging = Some(reading);
            return Err(problem("", format!("reading it took longer than {:?}", self.read_timeout)));
        };
        read.map_err(|panic| problem("", format!("reading it failed: {panic}")))?
    }
}

// === impl StoreSettings ===

impl StoreSettings {
    /// Where this configuration keeps the state.
    pub fn of(config: &Config) -> Self {
        let state_file = config.state_file.as_ref().map(|file| file.path.clone());
        Self { state_file, database: config.database.clone() }
    }

    fn refuse_another(&self, config: &Config) -> Result<(), Problems> {
        let other = Self::of(config);
        let key = if other.database != self.database {
            "database"
        } else if other.state_file != self.state_file {
            "state_file"
        } else {
            return Ok(());
        };
        let what = "cannot change while the exporter runs: restart it, or set the old one again";
        Err(problem(key, what.to_owned()))
    }
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

    /// A reloader, its commands, the number of reads that began, and a gate that each read waits for.
    fn gated() -> (Reloader, mpsc::Receiver<IntakeCommand>, Arc<AtomicUsize>, gate::Sender<()>) {
        let (go, gate) = gate::channel::<()>();
        let (begun, gate) = (Arc::new(AtomicUsize::new(0)), std::sync::Mutex::new(gate));
        let counted = begun.clone();
        let load: ConfigLoader = Arc::new(move || {
            counted.fetch_add(1, Ordering::Relaxed);
            let _ = gate.lock().unwrap().recv();
            Err(problem("", "read".to_owned()))
        });
        let (_, _, looks) = WebFollower::new(None, Arc::new(Metrics::new().unwrap()));
        let (commands, taken) = mpsc::channel(8);
        let (clients, files) = (Arc::new(Clients::new(Proxies::default())), FileFollower::start(commands.clone()));
        let notifier = Arc::new(Notifier::from_env());
        let store = StoreSettings { state_file: None, database: None };
        let reloader = Reloader::new(Some(load), store, clients, files, looks, commands, notifier);
        (reloader, taken, begun, go)
    }

    /// An intake that puts nothing in force.
    async fn refuse(mut commands: mpsc::Receiver<IntakeCommand>) {
        while let Some(command) = commands.recv().await {
            let IntakeCommand::Reload(read, reply) = command else { panic!("another command") };
            let _ = reply.send(read.map(|_| ()));
        }
    }

    /// The reloader, once this is its only owner.
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
    async fn a_read_that_hangs_is_the_only_one_however_often_a_reload_is_requested() {
        let (mut reloader, commands, begun, go) = gated();
        reloader.read_timeout = Duration::from_millis(20);
        let reloader = Arc::new(reloader);
        let intake = tokio::spawn(refuse(commands));
        let mut said = Vec::new();
        for _ in 0..20 {
            said.push(reloader.reload().await.unwrap().unwrap_err().to_string());
        }
        assert_eq!(begun.load(Ordering::Relaxed), 1);
        assert!(
            said[0].contains("took longer than 20ms") && said[1..].iter().all(|what| what.contains("still reading it"))
        );
        // From here on, a read may take as long as a busy machine needs.
        let mut reloader = alone(reloader).await;
        reloader.read_timeout = READ_TIMEOUT;
        let reloader = Arc::new(reloader);
        // The result of the hanging read is out of date, so another one begins.
        (0..2).for_each(|_| go.send(()).unwrap());
        assert!(reloader.reload().await.unwrap().unwrap_err().to_string().ends_with("read"));
        assert_eq!(begun.load(Ordering::Relaxed), 2);
        intake.abort();
    }

    #[tokio::test]
    async fn requests_during_a_reload_share_the_next_one() {
        let (reloader, commands, begun, go) = gated();
        let reloader = Arc::new(reloader);
        let intake = tokio::spawn(refuse(commands));
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
