//! Metrics with small closed label sets, which the `prometheus` crate keeps: those of the exporter and of its APIs.

mod api;
mod declare;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use prometheus::proto::MetricFamily;
use prometheus::{Gauge, GaugeVec, IntCounterVec, IntGauge, IntGaugeVec, Registry};

use super::SourceSeries;
use super::process::ProcessCollector;
use crate::labels::{discovery_labels, source_labels};
use crate::store::FinishedRun;
use crate::toggle::{AgentSource, ApiName, ShardSet, Source, Timestamp, named_enum};
use api::ApiFamilies;
pub use api::{ApiLoad, ApiMetrics};
use declare::families;

/// The registry of the metrics of the exporter and its APIs, and everything that sets them.
pub struct Metrics {
    registry: Registry,
    families: ExporterFamilies,
    api_families: ApiFamilies,
    apis: Mutex<Vec<Arc<ApiMetrics>>>,
    external_url: Mutex<Option<Arc<str>>>,
    /// Whether each glob of watch files is up.
    watch_files: Mutex<SourceSeries>,
    /// Whether the last listing of the agents of each API succeeded.
    discoveries: Mutex<BTreeMap<ApiName, bool>>,
    /// Open connections.
    pub http_connections: IntGauge,
}

named_enum! {
    /// Why a connection was refused or ended early.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub enum ConnectionError {
        /// The system failed to accept it.
        Accept = "accept",
        /// There were too many connections.
        Limit = "limit",
        /// The TLS handshake failed.
        Handshake = "handshake",
        /// The client missed a deadline.
        Timeout = "timeout",
        /// The client did not send HTTP.
        Protocol = "protocol",
        /// The client disconnected during a request or an answer.
        Aborted = "aborted",
        /// The client read a large answer slowly while others needed the room.
        Cut = "cut",
    }
}

families! {
    struct ExporterFamilies {
        build_info: IntGaugeVec ["version", "revision", "rustc"] = "cekura_exporter_build_info",
            "Version, Git revision and Rust compiler of this exporter; always 1.";
        external_url: IntGaugeVec ["url"] = "cekura_exporter_external_url_info",
            "URL at which people reach this exporter, as configured; always 1.";
        watches: IntGaugeVec ["source"] = "cekura_exporter_watches",
            "Watches on the watch list, by source.";
        rejected: IntGaugeVec ["source"] = "cekura_exporter_watches_rejected",
            "Watches that are refused, by source: another source has the name, or the API is not configured.";
        agents: IntGaugeVec ["source"] = "cekura_exporter_agents",
            "Agents that are asked for their mock status, by source.";
        agents_rejected: IntGaugeVec ["source"] = "cekura_exporter_agents_rejected",
            "Agents that are refused, by source: another source defines the agent, or the API is not configured.";
        reload_successful: IntGauge = "cekura_exporter_config_last_reload_successful",
            "Whether the last reload of the configuration succeeded (1) or failed (0).";
        reload_success_time: Gauge = "cekura_exporter_config_last_reload_success_timestamp_seconds",
            "When the configuration was last loaded successfully, as a Unix time in seconds.";
        web_reload_successful: IntGauge = "cekura_exporter_web_config_last_reload_successful",
            "Whether the last reload of the web configuration succeeded (1) or failed (0); 1 without one.";
        /// Without labels, so that it can be absent.
        certificate_expiry: GaugeVec [] = "cekura_exporter_tls_certificate_expiry_timestamp_seconds",
            "When the first of the served certificates expires, as a Unix time in seconds; absent without TLS.";
        http_requests: IntCounterVec ["handler", "code"] = "cekura_exporter_http_requests_total",
            "HTTP requests that were answered, by handler and status code.";
        http_connections: IntGauge = "cekura_exporter_http_connections",
            "Open HTTP connections.";
        connection_errors: IntCounterVec ["reason"] = "cekura_exporter_http_connection_errors_total",
            "Connections that were refused or ended early, by reason.";
        // Those of replicas have labels or none, so that they are absent without a database.
        database_up: IntGaugeVec [] = "cekura_exporter_database_up",
            "Whether this replica reached the database when it last tried (1) or not (0); absent without a database.";
        replicas: IntGaugeVec [] = "cekura_exporter_replicas",
            "Replicas whose lease has not expired, as the database last said; absent without a database.";
        shards: IntGaugeVec ["state"] = "cekura_exporter_shards",
            "Shards that this replica owns (owned) and that there are (all); absent without a database.";
        takeovers: IntCounterVec [] = "cekura_exporter_takeovers_total",
            "Shards that this replica took over from one that is gone; absent without a database.";
    }
}

// === impl Metrics ===

impl Metrics {
    /// Registers everything.
    ///
    /// # Errors
    /// If a name is malformed or registered twice, which a test excludes.
    pub fn new() -> Result<Self, prometheus::Error> {
        let registry = Registry::new();
        let families = ExporterFamilies::register(&registry)?;
        let api_families = ApiFamilies::register(&registry)?;
        registry.register(Box::new(ProcessCollector::new()?))?;
        families.build_info.with_label_values(&crate::BUILD).set(1);
        for error in ConnectionError::ALL {
            families.connection_errors.with_label_values(&[error.as_str()]);
        }
        let metrics = Self {
            registry,
            http_connections: families.http_connections.clone(),
            families,
            api_families,
            apis: Mutex::default(),
            external_url: Mutex::default(),
            watch_files: Mutex::default(),
            discoveries: Mutex::default(),
        };
        for source in Source::ALL {
            metrics.set_watches(source, 0, 0);
        }
        for source in AgentSource::ALL {
            metrics.set_agents(source, 0, 0);
        }
        Ok(metrics)
    }

    /// Adds an API, whose counters start at 0.
    pub fn api(&self, name: &ApiName) -> Arc<ApiMetrics> {
        let metrics = Arc::new(ApiMetrics::new(name, &self.api_families));
        lock(&self.apis).push(metrics.clone());
        metrics
    }

    /// Removes the series of an API that is no longer configured.
    pub fn forget_api(&self, name: &ApiName) {
        lock(&self.apis).retain(|api| api.name() != name);
        self.api_families.remove(name);
    }

    /// The current load of every API.
    pub fn loads(&self) -> Vec<ApiLoad> {
        lock(&self.apis).iter().map(|api| api.load()).collect()
    }

    /// Counts a run that finished.
    pub fn count_run(&self, run: &FinishedRun) {
        if let Some(api) = lock(&self.apis).iter().find(|api| *api.name() == run.api) {
            api.count_run(run.status, run.duration, run.mismatch);
        }
    }

    /// Sets whether the database was reached.
    pub fn set_database_up(&self, up: bool) {
        self.families.database_up.with_label_values::<&str>(&[]).set(i64::from(up));
    }

    /// Sets how many replicas there are.
    pub fn set_replicas(&self, replicas: u32) {
        self.families.replicas.with_label_values::<&str>(&[]).set(i64::from(replicas));
    }

    /// Sets which shards this replica owns.
    pub fn set_shards(&self, owned: ShardSet) {
        for (state, shards) in [("owned", owned), ("all", ShardSet::ALL)] {
            self.families.shards.with_label_values(&[state]).set(i64::from(shards.len()));
        }
    }

    /// Counts shards that were taken over from a replica that is gone.
    pub fn count_takeovers(&self, shards: usize) {
        self.families.takeovers.with_label_values::<&str>(&[]).inc_by(shards as u64);
    }

    /// Sets how many watches of a source are on the list, and how many are refused.
    pub fn set_watches(&self, source: Source, watches: usize, rejected: usize) {
        for (gauge, count) in [(&self.families.watches, watches), (&self.families.rejected, rejected)] {
            gauge.with_label_values(&[source.as_str()]).set(i64::try_from(count).unwrap_or(i64::MAX));
        }
    }

    /// Sets how many agents of a source are asked for their mock status, and how many are refused.
    pub fn set_agents(&self, source: AgentSource, agents: usize, rejected: usize) {
        for (gauge, count) in [(&self.families.agents, agents), (&self.families.agents_rejected, rejected)] {
            gauge.with_label_values(&[source.as_str()]).set(i64::try_from(count).unwrap_or(i64::MAX));
        }
    }

    /// Sets the watch files, each glob as configured and whether it is up.
    pub fn set_watch_files<'a>(&self, globs: impl Iterator<Item = (&'a str, bool)>) {
        *lock(&self.watch_files) = globs.map(|(path, up)| (source_labels(Source::File, path), up)).collect();
    }

    /// Sets whether the last listing of the agents of an API succeeded; `None` if none has ended, or if they are not
    /// discovered.
    pub fn set_discovery(&self, api: &ApiName, up: Option<bool>) {
        let mut discoveries = lock(&self.discoveries);
        match up {
            Some(up) => _ = discoveries.insert(api.clone(), up),
            None => _ = discoveries.remove(api),
        }
    }

    /// The current series of sources.
    pub fn sources(&self) -> SourceSeries {
        let mut sources: SourceSeries =
            lock(&self.discoveries).iter().map(|(api, up)| (discovery_labels(api), *up)).collect();
        sources.extend(lock(&self.watch_files).iter().cloned());
        sources
    }

    /// Sets whether the last reload of the configuration succeeded.
    pub fn reloaded(&self, successful: bool, now: Timestamp) {
        self.families.reload_successful.set(i64::from(successful));
        if successful {
            self.families.reload_success_time.set(seconds(now));
        }
    }

    /// Sets the URL at which people reach this exporter; `None` if it is not configured.
    pub fn set_external_url(&self, url: Option<Arc<str>>) {
        let mut current = lock(&self.external_url);
        if *current == url {
            return;
        }
        // The new series comes before the old one goes, so that every scrape finds one.
        if let Some(url) = &url {
            self.families.external_url.with_label_values(&[url]).set(1);
        }
        if let Some(old) = std::mem::replace(&mut *current, url) {
            // This cannot fail, because the series was set.
            let _ = self.families.external_url.remove_label_values(&[&*old]);
        }
    }

    /// The URL at which people reach this exporter, if it is configured.
    pub fn external_url(&self) -> Option<Arc<str>> {
        lock(&self.external_url).clone()
    }

    /// Records that the web configuration was loaded, and when its first certificate expires, if it has one.
    pub fn web_reloaded(&self, certificate_expiry: Option<Timestamp>) {
        self.families.web_reload_successful.set(1);
        match certificate_expiry {
            Some(expiry) => self.families.certificate_expiry.with_label_values::<&str>(&[]).set(seconds(expiry)),
            None => self.families.certificate_expiry.reset(),
        }
    }

    /// Records that the last reload of the web configuration failed.
    pub fn web_not_reloaded(&self) {
        self.families.web_reload_successful.set(0);
    }

    /// Whether the last reload of the web configuration succeeded.
    pub fn is_web_reloaded(&self) -> bool {
        self.families.web_reload_successful.get() != 0
    }

    /// Counts an answered request. `handler` is one of a fixed set.
    pub fn count_http(&self, handler: &'static str, code: u16) {
        self.families.http_requests.with_label_values(&[handler, itoa::Buffer::new().format(code)]).inc();
    }

    /// Counts a connection that was refused or ended early.
    pub fn count_connection_error(&self, error: ConnectionError) {
        self.families.connection_errors.with_label_values(&[error.as_str()]).inc();
    }

    /// All families with their values at `now`, sorted by name.
    pub fn gather(&self, now: Instant) -> Vec<MetricFamily> {
        for api in lock(&self.apis).iter() {
            api.count_throttle(now);
        }
        self.registry.gather()
    }
}

fn seconds(time: Timestamp) -> f64 {
    Duration::from_millis(time.as_millis()).as_secs_f64()
}

/// Locks data that stays consistent even if a thread panics while it holds the lock.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
