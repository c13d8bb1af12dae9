//! A Prometheus exporter for Cekura's toggle-mock-tools tasks.
//!
//! The data goes one way:
//!
//! ```text
//! sources ──> watch list ──> poller ──> client ──> outcome ──> run state ──> board ──> exposition ──> http
//! ```
//!
//! [`config`] and [`sources`] say what is watched. [`poller`] says when a run is polled, [`cekura`]
//! how, [`toggle`] what that means. [`board`] holds what is known, and [`exposition`] and [`http`]
//! show it. [`demo`] is a simulated upstream.

pub mod board;
pub mod cekura;
pub mod check;
pub mod cli;
mod clock;
pub mod config;
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
pub mod saving;
pub mod signals;
pub mod sources;
pub mod store;
pub mod systemd;
pub mod telemetry;
pub mod threads;
pub mod toggle;
pub mod web;

use std::error::Error;
use std::fmt;
use std::future::Future;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::{JoinError, JoinHandle, JoinSet};

use crate::board::Board;
use crate::cekura::{Clients, Proxies};
use crate::config::Config;
use crate::exposition::Metrics;
use crate::http::{Site, SiteData, WriteApi};
use crate::intake::{ConfigLoader, ConfigSnapshot, Intake, IntakeContext, Reloader};
use crate::liveness::LastStatusChange;
use crate::poller::Poller;
use crate::saving::Saver;
use crate::store::{Saved, Store, StoreError};
use crate::systemd::Notifier;
use crate::threads::{BlockingTask, Panicked, Thread, Worker};
use crate::web::{WebFile, WebFollower};

/// What this was built from: version, revision, version of the compiler.
pub const BUILD: [&str; 3] = [env!("CARGO_PKG_VERSION"), env!("BUILD_REVISION"), env!("BUILD_RUSTC")];

/// How long requests that are under way may go on after the stop signal, and the last save after them.
const DRAIN: Duration = Duration::from_secs(10);

/// Everything that the service runs on, but for its listeners.
pub struct Service {
    /// The validated configuration.
    pub config: Config,
    /// The watch list of a configuration that is in no file, as it changes.
    pub lists: watch::Receiver<Vec<Arc<toggle::Watch>>>,
    /// Reads the configuration anew; `None` if it is in no file.
    pub load: Option<ConfigLoader>,
    /// The web configuration; `None` for plain HTTP, open to everybody.
    pub web: Option<WebFile>,
    /// Counts the signals to reload.
    pub hangups: watch::Receiver<u32>,
    /// The path of the metrics.
    pub telemetry_path: String,
    /// The proxies of the APIs.
    pub proxies: Proxies,
}

/// Why the service stopped by itself, or did not start.
#[derive(Debug)]
pub struct RunError {
    what: &'static str,
    source: Option<Box<dyn Error + Send + Sync>>,
}

/// A state file that cannot be used.
#[derive(Debug)]
pub struct StateFileError {
    path: PathBuf,
    error: StoreError,
}

/// The service while it runs.
struct Running {
    site: Arc<Site>,
    /// What runs for ever, and the error if it does not.
    tasks: JoinSet<()>,
    last_change: LastStatusChange,
    in_force: watch::Receiver<ConfigSnapshot>,
    drain: watch::Sender<bool>,
    /// Ends when it is told, and then changes nothing any more.
    polling: BlockingTask<()>,
    stop_polling: oneshot::Sender<()>,
    /// Ends when it is told, after what is known is saved.
    saving: JoinHandle<()>,
    stop_saving: oneshot::Sender<()>,
}

/// Polls and serves until `shutdown` resolves, then drains.
///
/// # Errors
/// If it cannot start, or the poller dies.
pub async fn run(
    service: Service,
    listeners: Vec<TcpListener>,
    notifier: Arc<Notifier>,
    shutdown: impl Future<Output = ()>,
) -> Result<(), RunError> {
    let exposed = http::addresses(&listeners).iter().any(|address| !address.ip().to_canonical().is_loopback());
    let running = Running::start(service, exposed, notifier.clone()).await?;
    let Running { site, mut tasks, last_change, in_force, drain, mut polling, stop_polling, saving, stop_saving } =
        running;
    let mut serving = tokio::spawn(http::serve(listeners, site.clone(), drain.subscribe(), DRAIN));
    let stopped = async {
        shutdown.await;
        tracing::info!("stopping");
        site.refuse_readiness();
        notifier.stopping().await;
        let linger = in_force.borrow().config.linger;
        linger_on(&last_change, linger).await;
    };
    let mut poller_died = false;
    let ended = tokio::select! {
        () = stopped => {
            // The server holds the receiver until it is through.
            let _ = drain.send(true);
            serving.await.map_err(RunError::of_server)
        }
        Err(panic) = &mut serving => Err(RunError::of_server(panic)),
        Err(panic) = &mut polling => {
            poller_died = true;
            Err(RunError::of_poller(panic))
        }
        Some(ended) = tasks.join_next() => Err(match ended {
            Ok(()) => RunError { what: "a task that runs for ever ended", source: None },
            Err(panic) => RunError::new("a task that runs for ever died", panic),
        }),
    };
    tasks.shutdown().await;
    // Both are there until they are told, or died.
    let _ = stop_polling.send(());
    let polled = if poller_died { Ok(()) } else { polling.await.map_err(RunError::of_poller) };
    let _ = stop_saving.send(());
    let saved = match tokio::time::timeout(DRAIN, saving).await {
        Ok(saved) => saved.map_err(|panic| RunError::new("saving the state died", panic)),
        Err(late) => Err(RunError::new("the state was not saved in time: what changed last is lost", late)),
    };
    ended.and(polled).and(saved)?;
    tracing::info!("stopped");
    Ok(())
}

/// Opens the state file, if there is one, with all that is in it.
async fn open_store(config: &Config) -> Result<(Option<Arc<Store>>, Saved), RunError> {
    let Some(file) = config.state_file.clone() else { return Ok((None, Saved::default())) };
    let open = move || Store::open(&file.path).map_err(|error| StateFileError { path: file.path.clone(), error });
    match threads::try_run("state-file", open).await {
        Ok(Ok((store, saved))) => Ok((Some(Arc::new(store)), saved)),
        Ok(Err(error)) => Err(RunError::new("the state file cannot be used", error)),
        Err(lost) => Err(RunError::new("the state file could not be read", lost)),
    }
}

/// Polls on a thread of its own until told to stop. Polls are one small step after the other: between
/// threads, handing these over would cost more than doing them, and nothing that serves scrapes is ever
/// behind them.
fn poll_apart(thread: Thread, poller: Poller, stop: oneshot::Receiver<()>) -> io::Result<BlockingTask<()>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let polling = async {
        tokio::select! {
            () = poller.run() => {}
            // It is gone when nobody waits for the end any more.
            _ = stop => {}
        }
    };
    Ok(thread.run(move || runtime.block_on(polling)))
}

/// Saves what is known until told to stop, if there is a state file.
async fn save(board: Arc<Board>, store: Option<Arc<Store>>, stop: oneshot::Receiver<()>) {
    let stop = async { drop(stop.await) };
    match store {
        Some(store) => Saver::new(board, store).run(stop).await,
        None => stop.await,
    }
}

/// Says when it serves, and from then on reloads on signals.
async fn follow(site: Arc<Site>, reloader: Arc<Reloader>, hangups: watch::Receiver<u32>, notifier: Arc<Notifier>) {
    site.serves().await;
    notifier.ready().await;
    reloader.follow(hangups).await;
}

/// Waits until the last state change of any run is as old as `linger`.
async fn linger_on(last_change: &LastStatusChange, linger: Duration) {
    let mut said = false;
    loop {
        let wait = last_change.until_old(linger, Instant::now());
        if wait.is_zero() {
            return;
        }
        if !std::mem::replace(&mut said, true) {
            tracing::info!(linger_seconds = linger.as_secs_f64(), "lingering: a toggle changed state lately");
        }
        tokio::time::sleep(wait).await;
    }
}

// === impl Running ===

impl Running {
    /// Sets up all but the server, and starts what it shows. `exposed` says whether others than this
    /// machine can connect.
    async fn start(service: Service, exposed: bool, notifier: Arc<Notifier>) -> Result<Self, RunError> {
        let Service { config, lists, load, web, hangups, telemetry_path, proxies } = service;
        let (store, mut saved) = open_store(&config).await?;
        saved.no_later_than(clock::now());
        let board = Arc::new(match &store {
            Some(_) => Board::restored(saved.toggles, saved.agents),
            None => Board::default(),
        });
        let metrics = Arc::new(Metrics::new().map_err(|e| RunError::new("the metrics could not be registered", e))?);
        let (follower, web, web_checks) = WebFollower::new(web, metrics.clone());
        let (updates, for_poller) = mpsc::channel(1);
        let (renewals, renewed) = mpsc::unbounded_channel();
        let poller = Poller::new(board.clone(), metrics.clone(), for_poller, renewed);
        let (heartbeat, last_change) = (poller.heartbeat(), poller.last_change());
        let mut tasks = JoinSet::new();
        let (stop_polling, polling_stops) = oneshot::channel();
        let thread = threads::start_with_retry(|| Thread::start("poller")).await;
        let polling = thread.and_then(|thread| poll_apart(thread, poller, polling_stops));
        let polling = polling.map_err(|e| RunError::new("no thread could be started for the poller", e))?;
        // Before anything is polled: a lookup could have the last thread that is to be had.
        let renderer = threads::start_with_retry(|| Worker::start("renderer"))
            .await
            .map_err(|e| RunError::new("no thread could be started for the server", e))?;
        let clients = Arc::new(Clients::new(proxies));
        let means = IntakeContext {
            board: board.clone(),
            metrics: metrics.clone(),
            updates,
            renewals,
            store: store.clone(),
            registrations: saved.registrations,
            clients: clients.clone(),
            web: web.clone(),
            exposed,
        };
        let state_file = config.state_file.as_ref().map(|file| file.path.clone());
        let (intake, orders, files, in_force) = Intake::start(config, means)
            .await
            .map_err(|e| RunError::new("the client of an API could not be set up", e))?;
        tasks.spawn(intake.run(lists));
        tasks.spawn(follower.run());
        let reloader = Reloader::new(load, state_file, clients, files, web_checks, orders.clone(), notifier.clone());
        let reloader = Arc::new(reloader);
        let (drain, draining) = watch::channel(false);
        let desk = WriteApi::new(orders, reloader.clone(), in_force.clone());
        let known = SiteData { board: board.clone(), metrics, heartbeat };
        let site = Site::new(known, renderer, desk, web, draining, telemetry_path);
        let site = Arc::new(site.map_err(|e| RunError::new("the server could not be set up", e))?);
        tasks.spawn(follow(site.clone(), reloader, hangups, notifier.clone()));
        let watched = site.clone();
        tasks.spawn(async move { notifier.watch_over(|| watched.ailment().is_none()).await });
        let (stop_saving, saving_stops) = oneshot::channel();
        let saving = tokio::spawn(save(board, store, saving_stops));
        Ok(Self { site, tasks, last_change, in_force, drain, polling, stop_polling, saving, stop_saving })
    }
}

// === impl RunError ===

impl RunError {
    fn of_poller(panic: Panicked) -> Self {
        Self::new("the poller died", panic)
    }

    fn of_server(panic: JoinError) -> Self {
        Self::new("the server died", panic)
    }

    fn new(what: &'static str, source: impl Error + Send + Sync + 'static) -> Self {
        Self { what, source: Some(Box::new(source)) }
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

// === impl StateFileError ===

impl fmt::Display for StateFileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.path.display(), self.error)
    }
}

impl Error for StateFileError {}
