//! A Prometheus exporter for Cekura's toggle-mock-tools tasks.
//!
//! Data flows in one direction:
//!
//! ```text
//! sources ──> watch list ──> poller ──> client ──> outcome ──> run state ──> board ──> exposition ──> http
//! ```
//!
//! [`config`] and [`sources`] define what is watched. [`poller`] decides when a run is polled, [`cekura`]
//! how, and [`toggle`] what the answer means. [`board`] holds the current state, which [`exposition`] and
//! [`http`] show. [`demo`] is a simulated API.

pub mod board;
pub mod cekura;
mod certificate;
pub mod check;
pub mod cli;
mod clock;
mod collections;
pub mod config;
pub mod database;
pub mod demo;
pub mod document;
pub mod exposition;
mod follow;
pub mod http;
mod input_file;
pub mod intake;
mod labels;
pub mod liveness;
mod pem;
pub mod poller;
pub mod process;
pub mod replicas;
mod resolve;
pub mod saving;
pub mod signals;
pub mod sources;
pub mod store;
pub mod systemd;
pub mod tasks;
pub mod telemetry;
pub mod threads;
pub mod tls;
pub mod toggle;
pub mod web;

use std::error::Error;
use std::fmt;
use std::future::Future;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::net::TcpListener;
use tokio::sync::{oneshot, watch};
use tokio::task::{JoinError, JoinHandle, JoinSet};

use crate::board::Board;
use crate::cekura::{Clients, Proxies};
use crate::config::Config;
use crate::database::Connector;
use crate::exposition::Metrics;
use crate::http::{ReplicaAccess, Site, SiteData, StartFacts, WriteApi};
use crate::intake::{
    ConfigLoader, ConfigSnapshot, FollowedConfigFile, Intake, IntakeContext, IntakeHandle, Reloader, StoreSettings,
};
use crate::liveness::LastStatusChange;
use crate::poller::{Poller, PollerHandle};
use crate::replicas::{Coordinator, ReplicaLinks, ReplicaReport};
use crate::store::{DatabaseStore, FileStore, Registration, Store};
use crate::systemd::Notifier;
use crate::tasks::boxed;
use crate::threads::{BlockingTask, Panicked, Thread, Worker};
use crate::web::{WebFile, WebFollower};

/// The version, the revision and the compiler version of this build.
pub const BUILD: [&str; 3] = [env!("CARGO_PKG_VERSION"), env!("BUILD_REVISION"), env!("BUILD_RUSTC")];

/// The time limit for the requests in progress after a signal to stop, and for saving the state after that.
const DRAIN: Duration = Duration::from_secs(10);

/// Everything that [`run`] needs besides listeners.
pub struct Service {
    /// The validated configuration.
    pub config: Config,
    /// The watches of the demo, whenever they change. They replace those of the configuration. `None` if this is not
    /// the demo.
    pub demo_watches: Option<watch::Receiver<Vec<Arc<toggle::Watch>>>>,
    /// Reads the configuration again; `None` if it is in no file.
    pub load: Option<ConfigLoader>,
    /// The file whose changes cause a reload; `None` if only requests do.
    pub followed: Option<FollowedConfigFile>,
    /// The web configuration; `None` for plain HTTP without logins.
    pub web: Option<WebFile>,
    /// Counts the signals to reload.
    pub hangups: watch::Receiver<u32>,
    /// The path of the metrics.
    pub telemetry_path: String,
    /// The proxies for requests to the APIs.
    pub proxies: Proxies,
    /// How the process was started, for people.
    pub flags: Vec<(&'static str, String)>,
}

/// Why the service did not start, or stopped without being told to.
#[derive(Debug)]
pub struct RunError {
    what: &'static str,
    source: Option<Box<dyn Error + Send + Sync>>,
}

/// What an earlier process saved.
#[derive(Default)]
struct OpenedState {
    /// Where the state is saved; `None` if it is only in memory.
    store: Option<Store>,
    /// The board, with the state of watches and agents.
    board: Arc<Board>,
    registrations: Vec<Registration>,
}

/// The service while it runs.
struct Running {
    site: Arc<Site>,
    /// Tasks that end only with an error, unless they panic.
    tasks: JoinSet<RunError>,
    last_change: LastStatusChange,
    config: watch::Receiver<ConfigSnapshot>,
    drain: watch::Sender<bool>,
    /// The poller's thread. It ends on `stop_polling`, and nothing changes the board after that.
    polling: BlockingTask<()>,
    stop_polling: oneshot::Sender<()>,
    /// Saves the board. On `stop_saving` it saves a last time and ends.
    saving: JoinHandle<()>,
    stop_saving: oneshot::Sender<()>,
}

/// Polls and serves until `shutdown` resolves. Then it lingers as configured, lets requests end, and saves
/// the state.
///
/// # Errors
/// If it cannot start, or if a part of it panics.
pub async fn run(
    service: Service,
    listeners: Vec<TcpListener>,
    notifier: Arc<Notifier>,
    shutdown: impl Future<Output = ()>,
) -> Result<(), RunError> {
    let addresses = http::addresses(&listeners);
    let running = Running::start(service, addresses, notifier.clone()).await?;
    let Running { site, mut tasks, last_change, config, drain, mut polling, stop_polling, saving, stop_saving } =
        running;
    let mut serving = tasks::spawn(http::serve(listeners, site.clone(), drain.subscribe(), DRAIN));
    let told_to_stop = async {
        shutdown.await;
        tracing::info!("stopping");
        site.refuse_readiness();
        notifier.stopping().await;
        let linger = config.borrow().config.linger;
        wait_until_old(&last_change, linger).await;
    };
    let mut poller_died = false;
    let served = tokio::select! {
        () = told_to_stop => {
            // Fails only if the server has ended, which the next line tells.
            let _ = drain.send(true);
            serving.await.map_err(RunError::of_server)
        }
        Err(panic) = &mut serving => Err(RunError::of_server(panic)),
        Err(panic) = &mut polling => {
            poller_died = true;
            Err(RunError::of_poller(panic))
        }
        Some(ended) = tasks.join_next() => Err(RunError::of_task(ended)),
    };
    tasks.shutdown().await;
    // Fails only if the poller has ended.
    let _ = stop_polling.send(());
    let polled = if poller_died { Ok(()) } else { polling.await.map_err(RunError::of_poller) };
    let saved = save_and_stop(saving, stop_saving).await;
    served.and(polled).and(saved)?;
    tracing::info!("stopped");
    Ok(())
}

/// Opens the state file, if one is configured. A database is opened later, because it may be away at the start.
async fn open_state(config: &Config) -> Result<OpenedState, RunError> {
    if let Some(database) = &config.database {
        let id = replicas::new_id();
        let store = DatabaseStore::new(&Connector::new(database.clone()), database.lease, id);
        let store = Some(Store::Database(Arc::new(store)));
        return Ok(OpenedState { store, board: Arc::new(Board::shared()), registrations: Vec::new() });
    }
    let Some(file) = config.state_file.clone() else { return Ok(OpenedState::default()) };
    let open = move || FileStore::open(&file.path).map_err(|error| format!("{} {error}", file.path.display()));
    match threads::try_run("state-file", open).await {
        Ok(Ok((store, mut saved))) => {
            saved.no_later_than(clock::now());
            let board = Arc::new(Board::restored(saved.toggles, saved.agents));
            Ok(OpenedState { store: Some(Store::File(Arc::new(store))), board, registrations: saved.registrations })
        }
        Ok(Err(error)) => Err(RunError::new("the state file cannot be used", error)),
        Err(lost) => Err(RunError::new("the state file could not be read", lost)),
    }
}

/// Starts the poller on its thread.
async fn start_poller(poller: Poller, stop: oneshot::Receiver<()>) -> Result<BlockingTask<()>, RunError> {
    let thread = threads::start_with_retry(|| Thread::start("poller")).await;
    let polling = thread.and_then(|thread| poller.run_on(thread, stop));
    polling.map_err(|error| RunError::new("no thread could be started for the poller", error))
}

/// Starts the thread that makes large answers.
async fn start_renderer() -> Result<Worker, RunError> {
    let renderer = threads::start_with_retry(|| Worker::start("renderer")).await;
    renderer.map_err(|error| RunError::new("no thread could be started for the server", error))
}

/// Tells systemd when the site serves, and then reloads on signals. Never returns.
async fn notify_and_reload(
    site: Arc<Site>,
    reloader: Arc<Reloader>,
    hangups: watch::Receiver<u32>,
    notifier: Arc<Notifier>,
) {
    site.wait_until_serving().await;
    notifier.ready().await;
    reloader.follow(hangups).await;
}

/// Feeds the watchdog of systemd for as long as the site is healthy. Never returns.
async fn feed_watchdog(site: Arc<Site>, notifier: Arc<Notifier>) {
    notifier.feed_watchdog(|| site.unhealthy_reason().is_none()).await;
}

/// A task that never ends.
async fn for_ever(task: impl Future<Output = ()>) -> RunError {
    task.await;
    RunError { what: "a task that runs for ever ended", source: None }
}

/// Waits until the last status change of any run is as old as `linger`.
async fn wait_until_old(last_change: &LastStatusChange, linger: Duration) {
    let mut logged = false;
    loop {
        let wait = last_change.until_old(linger, Instant::now());
        if wait.is_zero() {
            return;
        }
        if !std::mem::replace(&mut logged, true) {
            tracing::info!(
                linger_seconds = linger.as_secs_f64(),
                "shutdown delayed by shutdown.linger: a toggle changed state recently"
            );
        }
        tokio::time::sleep(wait).await;
    }
}

/// Waits until the state is saved for the last time, for at most [`DRAIN`].
async fn save_and_stop(saving: JoinHandle<()>, stop: oneshot::Sender<()>) -> Result<(), RunError> {
    // Fails only if saving has panicked.
    let _ = stop.send(());
    match tokio::time::timeout(DRAIN, saving).await {
        Ok(saved) => saved.map_err(|panic| RunError::new("saving the state panicked", panic)),
        Err(late) => Err(RunError::new("the state was not saved in time: the latest changes are lost", late)),
    }
}

// === impl Service ===

impl Service {
    /// The service of a configuration that was read from a file. A reload reads the file and the environment again.
    /// There is no web configuration.
    pub fn from_file(
        file: PathBuf,
        config: Config,
        proxies: Proxies,
        telemetry_path: String,
        hangups: watch::Receiver<u32>,
        followed: Option<FollowedConfigFile>,
    ) -> Self {
        let last_read = followed.as_ref().map(FollowedConfigFile::last_read);
        let load = move || {
            if let Some(last_read) = &last_read {
                last_read.note();
            }
            config::load(&file, std::env::vars_os())
        };
        let (load, flags) = (Some(Arc::new(load) as ConfigLoader), Vec::new());
        Self { config, demo_watches: None, load, followed, web: None, hangups, telemetry_path, proxies, flags }
    }
}

// === impl Running ===

impl Running {
    /// Builds all parts but the server, which listens at these addresses, and spawns them.
    async fn start(service: Service, addresses: Vec<SocketAddr>, notifier: Arc<Notifier>) -> Result<Self, RunError> {
        let Service { config, demo_watches, load, followed, web, hangups, telemetry_path, proxies, flags } = service;
        // Whether other machines can connect.
        let exposed = addresses.iter().any(|address| !address.ip().to_canonical().is_loopback());
        let OpenedState { store, board, registrations } = open_state(&config).await?;
        let asked_before = board.agents_asked_before();
        let metrics = Metrics::new().map_err(|e| RunError::new("the metrics could not be registered", e))?;
        let metrics = Arc::new(metrics);
        let (web_follower, web, web_checks) = WebFollower::new(web, metrics.clone());
        let (poller, handle) = Poller::new(board.clone(), metrics.clone());
        let PollerHandle { updates, renewals, asks, debug_polls, forwarded, listings, heartbeat, last_change } = handle;
        let (stop_polling, polling_stops) = oneshot::channel();
        let polling = start_poller(poller, polling_stops).await?;
        // Before anything is polled, because a DNS lookup could take the last thread that the machine gives.
        let renderer = start_renderer().await?;
        let clients = Arc::new(Clients::new(proxies));
        let context = IntakeContext {
            board: board.clone(),
            metrics: metrics.clone(),
            updates,
            renewals,
            listings,
            store: store.clone(),
            registrations,
            asked_before,
            clients: clients.clone(),
            web: web.clone(),
            exposed,
        };
        let store_settings = StoreSettings::of(&config);
        let intake = Intake::start(config, context).await;
        let (intake, IntakeHandle { commands, files, config, sources }) =
            intake.map_err(|e| RunError::new("the client of an API could not be set up", e))?;
        let reloader =
            Reloader::new(load, store_settings, clients, files, web_checks, commands.clone(), notifier.clone());
        let reloader = Arc::new(reloader);
        let (drain, draining) = watch::channel(false);
        let write_api = WriteApi::new(commands.clone(), reloader.clone(), config.clone());
        let (synchronized, is_synchronized) = watch::channel(false);
        let (report, replica_report) = watch::channel(ReplicaReport::default());
        let replica = match &store {
            Some(Store::Database(database)) => {
                Some(ReplicaAccess { database: database.clone(), is_synchronized, report: replica_report })
            }
            _ => None,
        };
        let data = SiteData {
            board: board.clone(),
            metrics: metrics.clone(),
            heartbeat,
            asks: asks.clone(),
            debug_polls,
            replica,
            sources,
            start: StartFacts { flags, addresses },
        };
        let site = Site::new(data, renderer, write_api, web, draining, telemetry_path);
        let site = Arc::new(site.map_err(|e| RunError::new("the server could not be set up", e))?);
        let mut tasks = JoinSet::new();
        if let Some(Store::Database(database)) = &store {
            let links = ReplicaLinks { commands, asks, forwarded, synchronized, report };
            let coordinator = Coordinator::new(database.clone(), board.clone(), metrics.clone(), links);
            let coordinating = coordinator.run();
            let ended = async { RunError::new("the database cannot be used", format!("it {}", coordinating.await)) };
            tasks.spawn(boxed(ended));
        }
        tasks.spawn(boxed(for_ever(intake.run(demo_watches))));
        tasks.spawn(boxed(for_ever(web_follower.run())));
        tasks.spawn(boxed(for_ever(feed_watchdog(site.clone(), notifier.clone()))));
        tasks.spawn(boxed(for_ever(reloader.clone().follow_file(followed))));
        tasks.spawn(boxed(for_ever(notify_and_reload(site.clone(), reloader, hangups, notifier))));
        let (stop_saving, saving_stops) = oneshot::channel();
        let saving = tasks::spawn(saving::run(board, metrics, store, saving_stops));
        Ok(Self { site, tasks, last_change, config, drain, polling, stop_polling, saving, stop_saving })
    }
}

// === impl RunError ===

impl RunError {
    fn of_poller(panic: Panicked) -> Self {
        Self::new("the poller panicked", panic)
    }

    fn of_server(panic: JoinError) -> Self {
        Self::new("the server panicked", panic)
    }

    fn of_task(ended: Result<Self, JoinError>) -> Self {
        match ended {
            Ok(error) => error,
            Err(panic) => Self::new("a task that runs for ever panicked", panic),
        }
    }

    fn new(what: &'static str, source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self { what, source: Some(source.into()) }
    }
}

impl fmt::Display for RunError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.what)
    }
}

impl Error for RunError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.source.as_ref().map(|source| &**source as &(dyn Error + 'static))
    }
}
