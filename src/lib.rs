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
pub mod cli;
pub mod config;
pub mod demo;
pub mod exposition;
pub mod http;
pub mod poller;
pub mod signals;
pub mod sources;
pub mod store;
pub mod telemetry;
pub mod toggle;

use std::error::Error;
use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use crate::board::Board;
use crate::cekura::{Api, Client};
use crate::config::Config;
use crate::exposition::Metrics;
use crate::http::Site;
use crate::poller::Poller;
use crate::sources::WatchList;

/// What this was built from: version, revision, version of the compiler.
pub const BUILD: [&str; 3] = [env!("CARGO_PKG_VERSION"), env!("BUILD_REVISION"), env!("BUILD_RUSTC")];

/// How long requests that are under way may go on after the stop signal.
const DRAIN: Duration = Duration::from_secs(10);

/// Everything that the service runs on, but for its listeners.
#[derive(Debug)]
pub struct Service {
    /// The validated configuration.
    pub config: Config,
    /// The watch list, now and as it changes.
    pub lists: watch::Receiver<WatchList>,
    /// The path of the metrics.
    pub telemetry_path: String,
    /// Whether proxy variables of the environment are used.
    pub proxies: bool,
}

/// Why the service stopped by itself, or did not start.
#[derive(Debug)]
pub struct RunError {
    what: &'static str,
    source: Option<Box<dyn Error + Send + Sync>>,
}

/// Polls and serves until `shutdown` resolves, then drains.
///
/// # Errors
/// If it cannot start, or the poller dies.
pub async fn run(
    service: Service,
    listeners: Vec<TcpListener>,
    shutdown: impl Future<Output = ()>,
) -> Result<(), RunError> {
    let Service { config, lists, telemetry_path, proxies } = service;
    let board = Arc::new(Board::default());
    let metrics = Arc::new(Metrics::new().map_err(|e| RunError::new("the metrics could not be registered", e))?);
    let effective_config = config.to_string();
    // From here on the watch list alone says what is watched.
    drop(config.watches);
    let clients = clients(config.apis, proxies)?;
    let (new_keys, key_changes) = mpsc::unbounded_channel();
    let mut background = JoinSet::new();
    for (api, client) in &clients {
        background.spawn(cekura::follow_key(api.name.clone(), client.clone(), new_keys.clone()));
    }
    let poller = Poller::new(board.clone(), metrics.clone(), config.polling, lists, key_changes, clients);
    let site = Arc::new(Site::new(board, metrics, poller.pulse(), effective_config, telemetry_path));
    let mut polling = tokio::spawn(poller.run());
    let (drain, draining) = watch::channel(false);
    let serving = tokio::spawn(http::serve(listeners, site.clone(), draining, DRAIN));

    tokio::select! {
        () = shutdown => {}
        ended = &mut polling => return Err(match ended {
            Ok(()) => RunError { what: "the poller ended", source: None },
            Err(panic) => RunError::new("the poller died", panic),
        }),
    }
    tracing::info!("stopping");
    site.drain();
    // The server holds the receiver until it is through.
    let _ = drain.send(true);
    serving.await.map_err(|panic| RunError::new("the server died", panic))?;
    polling.abort();
    tracing::info!("stopped");
    Ok(())
}

fn clients(apis: Vec<Api>, proxies: bool) -> Result<Vec<(Api, Arc<Client>)>, RunError> {
    let client = |api: Api| match Client::new(&api, proxies) {
        Ok(client) => Ok((api, Arc::new(client))),
        Err(error) => Err(RunError::new("the client of an API could not be set up", error)),
    };
    apis.into_iter().map(client).collect()
}

/// The wall clock, as the domain has it.
pub(crate) fn wall_clock() -> toggle::Timestamp {
    SystemTime::now().into()
}

// === impl RunError ===

impl RunError {
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
