//! Metrics with small closed label sets, kept by the `prometheus` crate: APIs and the exporter.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use prometheus::core::Collector;
use prometheus::proto::MetricFamily;
use prometheus::{
    Counter, CounterVec, Gauge, GaugeVec, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge,
    IntGaugeVec, Opts, Registry,
};

use super::ConfiguredSeries;
use super::families::{AgentExpected, SourceUp};
use super::process::ProcessCollector;
use crate::labels::{agent_labels, source_labels};
use crate::toggle::{AgentDefinition, ApiName, Outcome, Reason, Source, Status, Timestamp};

/// From first watched to seen finished: 1 s to 6 h.
const RUN_SECONDS: [f64; 16] =
    [1.0, 2.0, 5.0, 10.0, 20.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1200.0, 1800.0, 3600.0, 7200.0, 14_400.0, 21_600.0];

/// How a run ends.
const RUN_OUTCOMES: [&str; 3] = ["completed", "failed", "mismatched"];

/// One request: 5 ms to 60 s.
const REQUEST_SECONDS: [f64; 13] = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0];

/// From due to started: 1 ms to 10 min.
const LAG_SECONDS: [f64; 14] = [0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0];

/// Every metric with a small closed label set, and the registry that they are gathered from.
pub struct Metrics {
    registry: Registry,
    apis: ApiFamilies,
    /// One per API that was asked for.
    known_apis: Mutex<Vec<Arc<ApiMetrics>>>,
    watches: IntGaugeVec,
    rejected: IntGaugeVec,
    last_reload_successful: IntGauge,
    last_reload_success: Gauge,
    web_last_reload_successful: IntGauge,
    /// Without labels, so that it can be absent.
    certificate_expiry: GaugeVec,
    external_url: IntGaugeVec,
    /// What it shows now.
    shown_external_url: Mutex<Option<Arc<str>>>,
    /// What has labels that users write, but is not on the board.
    labelled: Mutex<ConfiguredSeries>,
    http_requests: IntCounterVec,
    /// Connections that are open.
    pub http_connections: IntGauge,
    connection_errors: IntCounterVec,
}

/// Why a connection was not served, or not to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConnectionError {
    /// The system did not hand it over.
    Accept,
    /// There were too many.
    Limit,
    /// The client did not get through the TLS handshake.
    Handshake,
    /// It did not get further in time.
    Timeout,
    /// What came over it was not HTTP.
    Protocol,
    /// The client went away amid a request or an answer.
    Aborted,
    /// Its client took a large answer slowly, and others needed the room.
    Cut,
}

/// What an API has to do at the moment.
#[derive(Debug, Clone)]
pub struct ApiLoad {
    /// Its name.
    pub name: ApiName,
    /// Requests that are under way.
    pub in_flight: u32,
    /// Polls that are due and held back.
    pub waiting: u32,
    /// Until when it is paused, if it is.
    pub paused_until: Option<Timestamp>,
    /// Whether any of its polls is answered validly; `None` before the first one ended.
    pub up: Option<bool>,
}

struct ApiFamilies {
    requests: IntCounterVec,
    request_duration: HistogramVec,
    poll_lag: HistogramVec,
    in_flight: IntGaugeVec,
    waiting: IntGaugeVec,
    paused_until: GaugeVec,
    throttle: CounterVec,
    unknown_statuses: IntCounterVec,
    up: IntGaugeVec,
    malformed_answers: IntCounterVec,
    runs_finished: IntCounterVec,
    run_duration: HistogramVec,
}

/// The metrics of one API.
pub struct ApiMetrics {
    name: ApiName,
    ok: IntCounter,
    failures: Vec<IntCounter>,
    request_duration: Histogram,
    poll_lag: Histogram,
    /// Requests that are under way.
    pub in_flight: IntGauge,
    waiting: IntGauge,
    throttle: Counter,
    /// When the throttle counter was brought up to date.
    throttle_counted: Mutex<Instant>,
    /// Without the API's series until the first poll ended.
    up: IntGaugeVec,
    /// The same, for who wants it without a scrape.
    is_up: Mutex<Option<bool>>,
    paused_until: GaugeVec,
    /// The same, for who wants it as a time.
    paused: Mutex<Option<Timestamp>>,
    /// Answers with a status that is not documented.
    pub unknown_statuses: IntCounter,
    /// Valid answers of which a part is not as documented.
    pub malformed_answers: IntCounter,
    completed: IntCounter,
    failed: IntCounter,
    mismatched: IntCounter,
    completed_duration: Histogram,
    failed_duration: Histogram,
}

// === impl Metrics ===

impl Metrics {
    /// Registers everything.
    ///
    /// # Errors
    /// If a name is malformed or registered twice, which a test excludes.
    pub fn new() -> Result<Self, prometheus::Error> {
        let registry = Registry::new();
        let apis = ApiFamilies::register(&registry)?;
        let build_info = registered(
            &registry,
            IntGaugeVec::new(
                Opts::new("cekura_exporter_build_info", "What this exporter was built from; always 1."),
                &["version", "revision", "rustc"],
            ),
        )?;
        build_info.with_label_values(&crate::BUILD).set(1);
        let watches =
            int_gauges(&registry, "cekura_exporter_watches", "Watches on the watch list, by source.", &["source"])?;
        let rejected = int_gauges(
            &registry,
            "cekura_exporter_watches_rejected",
            "Watches that are not on the watch list, by source: another source has the name, or the API is unknown.",
            &["source"],
        )?;
        let last_reload_successful = registered(
            &registry,
            IntGauge::new(
                "cekura_exporter_config_last_reload_successful",
                "Whether the configuration was good when it was last read.",
            ),
        )?;
        let last_reload_success = registered(
            &registry,
            Gauge::new(
                "cekura_exporter_config_last_reload_success_timestamp_seconds",
                "When a good configuration was last read, as a Unix time.",
            ),
        )?;
        let web_last_reload_successful = registered(
            &registry,
            IntGauge::new(
                "cekura_exporter_web_config_last_reload_successful",
                "Whether the web configuration was good when it was last read; 1 without one.",
            ),
        )?;
        let certificate_expiry = registered(
            &registry,
            GaugeVec::new(
                Opts::new(
                    "cekura_exporter_tls_certificate_expiry_timestamp_seconds",
                    "When the first of the certificates that are served with expires, as a Unix time; absent without TLS.",
                ),
                &[],
            ),
        )?;
        let external_url = int_gauges(
            &registry,
            "cekura_exporter_external_url_info",
            "How people reach this exporter, as it is configured; always 1.",
            &["url"],
        )?;
        let http_requests = int_counters(
            &registry,
            "cekura_exporter_http_requests_total",
            "HTTP requests that were answered.",
            &["handler", "code"],
        )?;
        let http_connections = registered(
            &registry,
            IntGauge::new("cekura_exporter_http_connections", "HTTP connections that are open."),
        )?;
        let connection_errors = int_counters(
            &registry,
            "cekura_exporter_http_connection_errors_total",
            "Connections that were not served, or not to their end.",
            &["reason"],
        )?;
        for error in ConnectionError::ALL {
            connection_errors.with_label_values(&[error.as_str()]);
        }
        registry.register(Box::new(ProcessCollector::new()?))?;
        let metrics = Self {
            registry,
            apis,
            known_apis: Mutex::default(),
            watches,
            rejected,
            last_reload_successful,
            last_reload_success,
            web_last_reload_successful,
            certificate_expiry,
            external_url,
            shown_external_url: Mutex::default(),
            labelled: Mutex::default(),
            http_requests,
            http_connections,
            connection_errors,
        };
        for source in Source::ALL {
            metrics.set_watches(source, 0, 0);
        }
        Ok(metrics)
    }

    /// The metrics of an API; its counters start at 0 with this call.
    pub fn api(&self, name: &ApiName) -> Arc<ApiMetrics> {
        let metrics = Arc::new(ApiMetrics::new(name, &self.apis));
        self.known_apis.lock().unwrap_or_else(PoisonError::into_inner).push(metrics.clone());
        metrics
    }

    /// Takes an API that is not configured any more out of the exposition.
    pub fn forget_api(&self, name: &ApiName) {
        let mut known = self.known_apis.lock().unwrap_or_else(PoisonError::into_inner);
        for api in known.extract_if(.., |api| api.name == *name) {
            self.apis.remove(&api.name);
        }
    }

    /// What every API has to do at the moment.
    pub fn loads(&self) -> Vec<ApiLoad> {
        self.known_apis.lock().unwrap_or_else(PoisonError::into_inner).iter().map(|api| api.load()).collect()
    }

    /// Sets how many watches of a source are on the list, and how many were refused.
    pub fn set_watches(&self, source: Source, watches: usize, rejected: usize) {
        for (gauge, count) in [(&self.watches, watches), (&self.rejected, rejected)] {
            gauge.with_label_values(&[source.as_str()]).set(i64::try_from(count).unwrap_or(i64::MAX));
        }
    }

    /// Sets which sources there are, each with its path as configured, and whether it is up.
    pub fn set_sources<'a>(&self, sources: impl Iterator<Item = (Source, &'a str, bool)>) {
        let labelled = sources.map(|(source, path, up)| (source_labels(source, path), SourceUp(up))).collect();
        self.labelled.lock().unwrap_or_else(PoisonError::into_inner).sources = labelled;
    }

    /// Sets which agents are configured.
    pub fn set_agents(&self, agents: &[AgentDefinition]) {
        let labelled = agents.iter().filter_map(|agent| Some((agent_labels(agent), AgentExpected(agent.expect?))));
        self.labelled.lock().unwrap_or_else(PoisonError::into_inner).agents = labelled.collect();
    }

    /// The sources and agents of the configuration, as they are now.
    pub fn labelled(&self) -> ConfiguredSeries {
        self.labelled.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Notes that the configuration was read again.
    pub fn reloaded(&self, successful: bool, now: Timestamp) {
        self.last_reload_successful.set(i64::from(successful));
        if successful {
            self.last_reload_success.set(seconds(now));
        }
    }

    /// Sets how people reach this exporter; `None` where that is not configured.
    pub fn set_external_url(&self, url: Option<Arc<str>>) {
        let mut shown = self.shown_external_url.lock().unwrap_or_else(PoisonError::into_inner);
        if *shown == url {
            return;
        }
        // No scrape is to find none between two.
        if let Some(url) = &url {
            self.external_url.with_label_values(&[url]).set(1);
        }
        if let Some(old) = std::mem::replace(&mut *shown, url) {
            // It is there: it was set.
            let _ = self.external_url.remove_label_values(&[&*old]);
        }
    }

    /// How people reach this exporter, if that is configured.
    pub fn external_url(&self) -> Option<Arc<str>> {
        self.shown_external_url.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Notes that a web configuration is in force, with certificates that expire then if it has any.
    pub fn web_reloaded(&self, certificate_expiry: Option<Timestamp>) {
        self.web_last_reload_successful.set(1);
        match certificate_expiry {
            Some(expiry) => self.certificate_expiry.with_label_values::<&str>(&[]).set(seconds(expiry)),
            // There may be nothing to remove.
            None => drop(self.certificate_expiry.remove_label_values::<&str>(&[])),
        }
    }

    /// Notes that the web configuration was read again and is not good.
    pub fn web_not_reloaded(&self) {
        self.web_last_reload_successful.set(0);
    }

    /// Counts an answered request. `handler` is one of a fixed set.
    pub fn count_http(&self, handler: &'static str, code: u16) {
        self.http_requests.with_label_values(&[handler, itoa::Buffer::new().format(code)]).inc();
    }

    /// Counts a connection that was not served, or not to its end.
    pub fn count_connection_error(&self, error: ConnectionError) {
        self.connection_errors.with_label_values(&[error.as_str()]).inc();
    }

    /// Everything as it is at `now`, sorted by family.
    pub fn gather(&self, now: Instant) -> Vec<MetricFamily> {
        for api in self.known_apis.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            api.count_throttle(now);
        }
        self.registry.gather()
    }
}

// === impl ConnectionError ===

impl ConnectionError {
    const ALL: [Self; 7] =
        [Self::Accept, Self::Limit, Self::Handshake, Self::Timeout, Self::Protocol, Self::Aborted, Self::Cut];

    fn as_str(self) -> &'static str {
        match self {
            Self::Accept => "accept",
            Self::Limit => "limit",
            Self::Handshake => "handshake",
            Self::Timeout => "timeout",
            Self::Protocol => "protocol",
            Self::Aborted => "aborted",
            Self::Cut => "cut",
        }
    }
}

// === impl ApiFamilies ===

impl ApiFamilies {
    fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let histograms = |name: &str, help: &str, labels: &[&str], buckets: &[f64]| {
            registered(registry, HistogramVec::new(HistogramOpts::new(name, help).buckets(buckets.to_vec()), labels))
        };
        Ok(Self {
            requests: int_counters(
                registry,
                "cekura_api_requests_total",
                "Polls of this API that ended, by outcome: ok or the reason of the failure.",
                &["api", "outcome"],
            )?,
            request_duration: histograms(
                "cekura_api_request_duration_seconds",
                "Requests to this API, from connecting to the last byte.",
                &["api"],
                &REQUEST_SECONDS,
            )?,
            poll_lag: histograms(
                "cekura_exporter_poll_lag_seconds",
                "From when a poll of this API was due to its start.",
                &["api"],
                &LAG_SECONDS,
            )?,
            in_flight: int_gauges(
                registry,
                "cekura_api_requests_in_flight",
                "Requests to this API that are under way.",
                &["api"],
            )?,
            waiting: int_gauges(
                registry,
                "cekura_api_polls_waiting",
                "Polls that are due and held back by the budget, the cap or a pause of this API.",
                &["api"],
            )?,
            paused_until: registered(
                registry,
                GaugeVec::new(
                    Opts::new(
                        "cekura_api_paused_until_timestamp_seconds",
                        "Until when this API is left alone, as a Unix time; absent while it is not.",
                    ),
                    &["api"],
                ),
            )?,
            throttle: registered(
                registry,
                CounterVec::new(
                    Opts::new("cekura_api_throttle_seconds_total", "Seconds that polls waited, over all polls."),
                    &["api"],
                ),
            )?,
            unknown_statuses: int_counters(
                registry,
                "cekura_api_unknown_statuses_total",
                "Answers whose status is not a documented one.",
                &["api"],
            )?,
            up: int_gauges(
                registry,
                "cekura_api_up",
                "Whether any poll of this API is answered validly: 0 while all that were tried lately failed.",
                &["api"],
            )?,
            malformed_answers: int_counters(
                registry,
                "cekura_api_malformed_answers_total",
                "Valid answers of which a part that is not needed is malformed, and counts as absent.",
                &["api"],
            )?,
            runs_finished: int_counters(
                registry,
                "cekura_api_runs_finished_total",
                "Runs that were seen to finish: completed as expected, completed in another state, or failed.",
                &["api", "outcome"],
            )?,
            run_duration: histograms(
                "cekura_toggle_duration_seconds",
                "Runs from first watched to seen finished; not those finished at their first answer.",
                &["api", "status"],
                &RUN_SECONDS,
            )?,
        })
    }
}

impl ApiFamilies {
    /// Takes every series of an API out.
    fn remove(&self, api: &ApiName) {
        let api = api.as_str();
        // There may be nothing to remove.
        let gone = |_: Result<(), prometheus::Error>| {};
        for vec in [&self.in_flight, &self.waiting, &self.up] {
            gone(vec.remove_label_values(&[api]));
        }
        gone(self.paused_until.remove_label_values(&[api]));
        gone(self.throttle.remove_label_values(&[api]));
        gone(self.unknown_statuses.remove_label_values(&[api]));
        gone(self.malformed_answers.remove_label_values(&[api]));
        for vec in [&self.request_duration, &self.poll_lag] {
            gone(vec.remove_label_values(&[api]));
        }
        for outcome in Reason::ALL.iter().map(|reason| reason.as_str()).chain(["ok"]) {
            gone(self.requests.remove_label_values(&[api, outcome]));
        }
        for outcome in RUN_OUTCOMES {
            gone(self.runs_finished.remove_label_values(&[api, outcome]));
        }
        for status in [Status::Completed, Status::Failed] {
            gone(self.run_duration.remove_label_values(&[api, status.as_str()]));
        }
    }
}

// === impl ApiMetrics ===

impl ApiMetrics {
    fn new(name: &ApiName, families: &ApiFamilies) -> Self {
        let api = name.as_str();
        let request = |outcome| families.requests.with_label_values(&[api, outcome]);
        let run = |outcome| families.runs_finished.with_label_values(&[api, outcome]);
        let [completed, failed, mismatched] = RUN_OUTCOMES;
        let run_duration = |status: Status| families.run_duration.with_label_values(&[api, status.as_str()]);
        Self {
            name: name.clone(),
            ok: request("ok"),
            failures: Reason::ALL.iter().map(|reason| request(reason.as_str())).collect(),
            request_duration: families.request_duration.with_label_values(&[api]),
            poll_lag: families.poll_lag.with_label_values(&[api]),
            in_flight: families.in_flight.with_label_values(&[api]),
            waiting: families.waiting.with_label_values(&[api]),
            throttle: families.throttle.with_label_values(&[api]),
            throttle_counted: Mutex::new(Instant::now()),
            up: families.up.clone(),
            is_up: Mutex::default(),
            paused_until: families.paused_until.clone(),
            paused: Mutex::default(),
            unknown_statuses: families.unknown_statuses.with_label_values(&[api]),
            malformed_answers: families.malformed_answers.with_label_values(&[api]),
            completed: run(completed),
            failed: run(failed),
            mismatched: run(mismatched),
            completed_duration: run_duration(Status::Completed),
            failed_duration: run_duration(Status::Failed),
        }
    }

    /// Notes how late a poll started.
    pub fn observe_lag(&self, lag: Duration) {
        self.poll_lag.observe(lag.as_secs_f64());
    }

    /// Counts a poll that ended, and how long it took if a request was sent.
    pub fn count_poll(&self, outcome: &Outcome, took: Option<Duration>) {
        match outcome {
            Ok(_) => self.ok.inc(),
            Err(failure) => {
                let at = Reason::ALL.iter().position(|reason| *reason == failure.reason);
                at.and_then(|at| self.failures.get(at)).inspect(|counter| counter.inc());
            }
        }
        if let Some(took) = took {
            self.request_duration.observe(took.as_secs_f64());
        }
    }

    /// Counts a run that was seen to finish.
    pub fn count_run(&self, status: Status, duration: Option<Duration>, mismatch: bool) {
        let (outcome, histogram) = match status {
            Status::Completed if mismatch => (&self.mismatched, &self.completed_duration),
            Status::Completed => (&self.completed, &self.completed_duration),
            _ => (&self.failed, &self.failed_duration),
        };
        outcome.inc();
        if let Some(duration) = duration {
            histogram.observe(duration.as_secs_f64());
        }
    }

    /// Sets how many polls wait from `now` on.
    pub fn set_waiting(&self, polls: usize, now: Instant) {
        self.count_throttle(now);
        self.waiting.set(i64::try_from(polls).unwrap_or(i64::MAX));
    }

    /// Sets whether polls are answered validly; `None` before the first one ended.
    pub fn set_up(&self, up: Option<bool>) {
        *self.is_up.lock().unwrap_or_else(PoisonError::into_inner) = up;
        if let Some(up) = up {
            self.up.with_label_values(&[self.name.as_str()]).set(up.into());
        }
    }

    /// Sets until when the API is paused; `None` if it is not.
    pub fn set_paused_until(&self, until: Option<Timestamp>) {
        let labels = [self.name.as_str()];
        *self.paused.lock().unwrap_or_else(PoisonError::into_inner) = until;
        match until {
            Some(until) => self.paused_gauge().set(seconds(until)),
            // There may be nothing to remove.
            None => drop(self.paused_until.remove_label_values(&labels)),
        }
    }

    fn load(&self) -> ApiLoad {
        let count = |gauge: &IntGauge| u32::try_from(gauge.get()).unwrap_or_default();
        ApiLoad {
            name: self.name.clone(),
            in_flight: count(&self.in_flight),
            waiting: count(&self.waiting),
            paused_until: *self.paused.lock().unwrap_or_else(PoisonError::into_inner),
            up: *self.is_up.lock().unwrap_or_else(PoisonError::into_inner),
        }
    }

    fn paused_gauge(&self) -> Gauge {
        self.paused_until.with_label_values(&[self.name.as_str()])
    }

    /// Adds what polls waited since the last call.
    fn count_throttle(&self, now: Instant) {
        let mut counted = self.throttle_counted.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = now.saturating_duration_since(*counted).as_secs_f64();
        *counted = now.max(*counted);
        let polls = u32::try_from(self.waiting.get()).unwrap_or(u32::MAX);
        self.throttle.inc_by(waited * f64::from(polls));
    }
}

fn seconds(time: Timestamp) -> f64 {
    Duration::from_millis(time.as_millis()).as_secs_f64()
}

fn int_counters(
    registry: &Registry,
    name: &str,
    help: &str,
    labels: &[&str],
) -> Result<IntCounterVec, prometheus::Error> {
    registered(registry, IntCounterVec::new(Opts::new(name, help), labels))
}

fn int_gauges(registry: &Registry, name: &str, help: &str, labels: &[&str]) -> Result<IntGaugeVec, prometheus::Error> {
    registered(registry, IntGaugeVec::new(Opts::new(name, help), labels))
}

fn registered<C: Collector + Clone + 'static>(
    registry: &Registry,
    collector: Result<C, prometheus::Error>,
) -> Result<C, prometheus::Error> {
    let collector = collector?;
    registry.register(Box::new(collector.clone()))?;
    Ok(collector)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::toggle::Failure;

    fn text(metrics: &Metrics, now: Instant) -> String {
        prometheus::TextEncoder::new().encode_to_string(&metrics.gather(now)).unwrap()
    }

    #[test]
    fn every_outcome_of_an_api_starts_at_zero() {
        let metrics = Metrics::new().unwrap();
        let _api = metrics.api(&ApiName::default_api());
        let text = text(&metrics, Instant::now());
        for outcome in Reason::ALL.iter().map(|reason| reason.as_str()).chain(["ok"]) {
            let line = format!("cekura_api_requests_total{{api=\"default\",outcome=\"{outcome}\"}} 0\n");
            assert!(text.contains(&line), "{outcome}");
        }
        for outcome in ["completed", "failed", "mismatched"] {
            assert!(text.contains(&format!("outcome=\"{outcome}\"}} 0\n")), "{outcome}");
        }
    }

    #[test]
    fn an_api_that_is_forgotten_leaves_no_series_and_starts_at_zero_when_it_comes_back() {
        let metrics = Metrics::new().unwrap();
        let api = metrics.api(&ApiName::default_api());
        api.count_run(Status::Failed, Some(Duration::from_secs(1)), false);
        api.count_poll(&Err(Failure::new(Reason::Dns)), Some(Duration::from_secs(1)));
        api.set_paused_until(Some(Timestamp::from_millis(1)));
        api.set_up(Some(false));
        metrics.forget_api(&ApiName::default_api());
        let gone = text(&metrics, Instant::now());
        assert!(!gone.contains("default"), "{gone}");
        let _api = metrics.api(&ApiName::default_api());
        let back = text(&metrics, Instant::now());
        assert!(back.contains("cekura_api_requests_total{api=\"default\",outcome=\"dns\"} 0\n"), "{back}");
    }

    #[test]
    fn each_reason_counts_for_itself() {
        let metrics = Metrics::new().unwrap();
        let api = metrics.api(&ApiName::default_api());
        for reason in Reason::ALL {
            api.count_poll(&Err(Failure::new(reason)), None);
            let line = format!("cekura_api_requests_total{{api=\"default\",outcome=\"{}\"}} 1\n", reason.as_str());
            assert!(text(&metrics, Instant::now()).contains(&line), "{}", reason.as_str());
        }
    }

    #[test]
    fn the_throttle_counter_grows_while_polls_wait() {
        let metrics = Metrics::new().unwrap();
        let api = metrics.api(&ApiName::default_api());
        let start = Instant::now() + Duration::from_secs(1);
        let shows = |after: f64, seconds: &str| {
            let text = text(&metrics, start + Duration::from_secs_f64(after));
            let line = format!("cekura_api_throttle_seconds_total{{api=\"default\"}} {seconds}\n");
            assert!(text.contains(&line), "{line}{text}");
        };
        api.set_waiting(3, start);
        shows(0.0, "0");
        shows(2.0, "6");
        api.set_waiting(1, start + Duration::from_secs(3));
        shows(5.0, "11");
        api.set_waiting(0, start + Duration::from_secs(6));
        shows(60.0, "12");
    }

    #[test]
    fn the_pause_shows_only_while_it_lasts() {
        let metrics = Metrics::new().unwrap();
        let api = metrics.api(&ApiName::default_api());
        let name = "cekura_api_paused_until_timestamp_seconds";
        assert!(!text(&metrics, Instant::now()).contains(name));
        api.set_paused_until(Some(Timestamp::from_millis(1500)));
        assert!(text(&metrics, Instant::now()).contains(&format!("{name}{{api=\"default\"}} 1.5\n")));
        api.set_paused_until(None);
        assert!(!text(&metrics, Instant::now()).contains(name));
    }
}
