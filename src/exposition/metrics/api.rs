//! The metrics of APIs.

use std::collections::HashMap;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use prometheus::core::{Collector, MetricVec, MetricVecBuilder};
use prometheus::proto::MetricFamily;
use prometheus::{
    Counter, CounterVec, GaugeVec, Histogram, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec,
};

use super::declare::families;
use super::{lock, seconds};
use crate::toggle::{ApiName, Reason, Status, Timestamp};

/// Buckets from 1 s to 6 h, in seconds.
const RUN_SECONDS: [f64; 16] =
    [1.0, 2.0, 5.0, 10.0, 20.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1200.0, 1800.0, 3600.0, 7200.0, 14_400.0, 21_600.0];

/// Buckets from 5 ms to 60 s, in seconds.
const REQUEST_SECONDS: [f64; 13] = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0];

/// Buckets from 1 ms to 10 min, in seconds.
const LAG_SECONDS: [f64; 14] = [0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0];

/// The metrics of one API.
pub struct ApiMetrics {
    name: ApiName,
    ok: IntCounter,
    /// In the order of [`Reason::ALL`].
    failures: Vec<IntCounter>,
    request_duration: Histogram,
    poll_lag: Histogram,
    /// Requests in progress.
    pub in_flight: IntGauge,
    waiting: IntGauge,
    throttle: Counter,
    /// The time up to which the throttle counter has counted.
    throttle_counted: Mutex<Instant>,
    /// The family, because the API has no series in it before the first poll ended.
    up: IntGaugeVec,
    is_up: Mutex<Option<bool>>,
    /// The family, because the API has a series in it only while it is paused.
    paused_until: GaugeVec,
    pause_end: Mutex<Option<Timestamp>>,
    /// Answers with an undocumented status.
    pub unknown_statuses: IntCounter,
    /// Valid answers with a malformed part.
    pub malformed_answers: IntCounter,
    completed: IntCounter,
    failed: IntCounter,
    mismatched: IntCounter,
    completed_duration: Histogram,
    failed_duration: Histogram,
}

/// The current load of an API.
#[derive(Debug, Clone)]
pub struct ApiLoad {
    /// Its name.
    pub name: ApiName,
    /// Requests in progress.
    pub in_flight: u32,
    /// Polls that are due but held back.
    pub waiting: u32,
    /// End of the pause; `None` if the API is not paused.
    pub paused_until: Option<Timestamp>,
    /// Whether any recent poll brought a valid answer; `None` before the first poll ended.
    pub up: Option<bool>,
    /// How many requests were answered validly since the start of the process.
    pub answered: u64,
    /// How many requests failed since then, by reason, of those reasons for which any did.
    pub failed: Vec<(Reason, u64)>,
}

families! {
    /// The families of all APIs. The first label of each is `api`.
    pub(super) struct ApiFamilies {
        requests: IntCounterVec ["api", "outcome"] = "cekura_api_requests_total",
            "Requests to this API that ended, by outcome: ok or the reason of the failure.";
        request_duration: HistogramVec ["api"] in REQUEST_SECONDS = "cekura_api_request_duration_seconds",
            "Duration of requests to this API, from connecting to the last byte, in seconds.";
        poll_lag: HistogramVec ["api"] in LAG_SECONDS = "cekura_exporter_poll_lag_seconds",
            "Time from when a poll of a toggle of this API was due until it started, in seconds.";
        in_flight: IntGaugeVec ["api"] = "cekura_api_requests_in_flight",
            "Requests to this API that are in progress.";
        waiting: IntGaugeVec ["api"] = "cekura_api_polls_waiting",
            "Polls that are due but held back by the budget, the limit of concurrent requests or a pause of this API.";
        paused_until: GaugeVec ["api"] = "cekura_api_paused_until_timestamp_seconds",
            "When the pause of this API ends, as a Unix time in seconds; absent while it is not paused.";
        throttle: CounterVec ["api"] = "cekura_api_throttle_seconds_total",
            "Time that polls of this API were held back, summed over polls, in seconds.";
        unknown_statuses: IntCounterVec ["api"] = "cekura_api_unknown_statuses_total",
            "Answers with an undocumented status.";
        up: IntGaugeVec ["api"] = "cekura_api_up",
            "Whether any recent poll of this API brought a valid answer (1), or all of them failed (0).";
        malformed_answers: IntCounterVec ["api"] = "cekura_api_malformed_answers_total",
            "Valid answers with a malformed part other than status and mock_enabled; that part counts as absent.";
        runs_finished: IntCounterVec ["api", "outcome"] = "cekura_api_runs_finished_total",
            "Runs seen to finish, by outcome: completed, failed, or mismatched (completed in another state than expected).";
        run_duration: HistogramVec ["api", "status"] in RUN_SECONDS = "cekura_toggle_duration_seconds",
            "Time from when a run was first watched until it was seen finished, in seconds; without runs whose first answer was final.";
    }
}

// === impl ApiMetrics ===

impl ApiMetrics {
    pub(super) fn new(name: &ApiName, families: &ApiFamilies) -> Self {
        let api = name.as_str();
        let requests = |outcome| families.requests.with_label_values(&[api, outcome]);
        let runs = |outcome| families.runs_finished.with_label_values(&[api, outcome]);
        let run_duration = |status: Status| families.run_duration.with_label_values(&[api, status.as_str()]);
        Self {
            name: name.clone(),
            ok: requests("ok"),
            failures: Reason::ALL.iter().map(|reason| requests(reason.as_str())).collect(),
            request_duration: families.request_duration.with_label_values(&[api]),
            poll_lag: families.poll_lag.with_label_values(&[api]),
            in_flight: families.in_flight.with_label_values(&[api]),
            waiting: families.waiting.with_label_values(&[api]),
            throttle: families.throttle.with_label_values(&[api]),
            throttle_counted: Mutex::new(Instant::now()),
            up: families.up.clone(),
            is_up: Mutex::default(),
            paused_until: families.paused_until.clone(),
            pause_end: Mutex::default(),
            unknown_statuses: families.unknown_statuses.with_label_values(&[api]),
            malformed_answers: families.malformed_answers.with_label_values(&[api]),
            completed: runs("completed"),
            failed: runs("failed"),
            mismatched: runs("mismatched"),
            completed_duration: run_duration(Status::Completed),
            failed_duration: run_duration(Status::Failed),
        }
    }

    pub(super) fn name(&self) -> &ApiName {
        &self.name
    }

    /// Records how late a poll of a toggle started.
    pub fn observe_lag(&self, lag: Duration) {
        self.poll_lag.observe(lag.as_secs_f64());
    }

    /// Counts a request that ended, with the reason if it failed, and records how long it took, if it was sent.
    pub fn count_request(&self, failed: Option<Reason>, took: Option<Duration>) {
        match failed {
            None => self.ok.inc(),
            Some(reason) => self.failures[reason as usize].inc(),
        }
        if let Some(took) = took {
            self.request_duration.observe(took.as_secs_f64());
        }
    }

    /// Counts a run that was seen to finish, and records its duration, if it is known.
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

    /// Sets whether any recent poll brought a valid answer; `None` before the first poll ended.
    pub fn set_up(&self, up: Option<bool>) {
        *lock(&self.is_up) = up;
        if let Some(up) = up {
            self.up.with_label_values(&[self.name.as_str()]).set(up.into());
        }
    }

    /// Sets until when the API is paused; `None` if it is not.
    pub fn set_paused_until(&self, until: Option<Timestamp>) {
        let labels = [self.name.as_str()];
        *lock(&self.pause_end) = until;
        match until {
            Some(until) => self.paused_until.with_label_values(&labels).set(seconds(until)),
            // This fails if there was no pause.
            None => drop(self.paused_until.remove_label_values(&labels)),
        }
    }

    pub(super) fn load(&self) -> ApiLoad {
        let count = |gauge: &IntGauge| u32::try_from(gauge.get()).unwrap_or_default();
        let failed = self.failures.iter().map(IntCounter::get);
        ApiLoad {
            name: self.name.clone(),
            in_flight: count(&self.in_flight),
            waiting: count(&self.waiting),
            paused_until: *lock(&self.pause_end),
            up: *lock(&self.is_up),
            answered: self.ok.get(),
            failed: Reason::ALL.into_iter().zip(failed).filter(|(_, count)| *count > 0).collect(),
        }
    }

    /// Counts the time that polls waited since the last call.
    pub(super) fn count_throttle(&self, now: Instant) {
        let mut counted = lock(&self.throttle_counted);
        let waited = now.saturating_duration_since(*counted).as_secs_f64();
        *counted = now.max(*counted);
        let polls = u32::try_from(self.waiting.get()).unwrap_or(u32::MAX);
        self.throttle.inc_by(waited * f64::from(polls));
    }
}

// === impl ApiFamilies ===

impl ApiFamilies {
    /// Removes every series of an API.
    pub(super) fn remove(&self, api: &ApiName) {
        for counters in [&self.requests, &self.unknown_statuses, &self.malformed_answers, &self.runs_finished] {
            remove_api(counters, api);
        }
        for gauges in [&self.in_flight, &self.waiting, &self.up] {
            remove_api(gauges, api);
        }
        for histograms in [&self.request_duration, &self.poll_lag, &self.run_duration] {
            remove_api(histograms, api);
        }
        remove_api(&self.paused_until, api);
        remove_api(&self.throttle, api);
    }
}

/// Removes the series of an API from one family.
fn remove_api<T: MetricVecBuilder>(family: &MetricVec<T>, api: &ApiName) {
    for metric in family.collect().iter().flat_map(MetricFamily::get_metric) {
        let labels: HashMap<_, _> = metric.get_label().iter().map(|label| (label.name(), label.value())).collect();
        if labels.get("api") == Some(&api.as_str()) {
            // This cannot fail, because the series was just collected.
            let _ = family.remove(&labels);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exposition::Metrics;

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
    fn a_forgotten_api_has_no_series_and_starts_at_zero_when_it_comes_back() {
        let metrics = Metrics::new().unwrap();
        let api = metrics.api(&ApiName::default_api());
        api.count_run(Status::Failed, Some(Duration::from_secs(1)), false);
        api.count_request(Some(Reason::Dns), Some(Duration::from_secs(1)));
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
    fn each_reason_has_its_own_counter() {
        let metrics = Metrics::new().unwrap();
        let api = metrics.api(&ApiName::default_api());
        for reason in Reason::ALL {
            api.count_request(Some(reason), None);
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
    fn the_end_of_a_pause_is_exposed_only_while_the_pause_lasts() {
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
