//! The samples of a scrape are the same in every format, and whoever reads them.

use std::collections::BTreeMap;

use cekura_exporter::demo::simulator::Reply;
use serde_json::{Map, Value, json};

use crate::harness::{Exporter, Exposition, Monitoring, Recorder, Scraper, Upstream, eventually};

/// What is inherently not the same in two scrapes: series whose names begin with these change with time, with each
/// scrape, or with one that a busy machine was too slow for. They have to be there, whatever their values.
const MOVING: [&str; 3] = ["process_", "cekura_exporter_http_requests_total", "cekura_exporter_http_connection"];

/// The series that a scraper adds itself.
const OF_SCRAPERS: [&str; 2] = ["up", "scrape_"];

/// Labels that a scraper adds itself.
const TARGET: [&str; 2] = ["job", "instance"];

const TEXT: &str = "text/plain; version=0.0.4; charset=utf-8";
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// The samples of one scrape: the value of each series.
type Samples = BTreeMap<BTreeMap<String, String>, f64>;

/// Scrapes of one scraper that ask for the format in another way.
struct Job {
    name: &'static str,
    /// What is configured for it beyond the target.
    config: Value,
    /// A part of the Accept header that it has to send, so that it is known what is tested.
    accept: &'static str,
    content_type: String,
}

// === impl Job ===

impl Job {
    fn new(name: &'static str, config: Value, accept: &'static str, content_type: impl Into<String>) -> Self {
        Self { name, config, accept, content_type: content_type.into() }
    }

    /// What it asks the exporter for. The exporter ignores the query.
    fn target(&self) -> String {
        format!("/metrics?job={}", self.name)
    }
}

/// What each scraper asks for, by default and otherwise.
fn jobs(scraper: Scraper) -> Vec<Job> {
    let escaped = |scheme: &str| format!("{OPEN_METRICS}; escaping={scheme}");
    match scraper {
        Scraper::Prometheus2 => vec![Job::new("prometheus-2", json!({}), "text;version=1.0.0,", OPEN_METRICS)],
        Scraper::VictoriaMetrics => vec![Job::new("vmagent", json!({}), "text/plain;version=0.0.4;q=1,", TEXT)],
        Scraper::Prometheus3 => {
            let escaping = |name, scheme: &str, accept, content_type: &str| {
                Job::new(name, json!({"metric_name_escaping_scheme": scheme}), accept, escaped(content_type))
            };
            let protocols = |name, protocols: &[&str], accept, content_type: &str| {
                Job::new(name, json!({"scrape_protocols": protocols}), accept, content_type)
            };
            let allow_utf_8 = escaped("allow-utf-8");
            vec![
                Job::new("prometheus-3", json!({}), ";escaping=allow-utf-8;", allow_utf_8.clone()),
                escaping("underscores", "underscores", ";escaping=underscores;", "underscores"),
                escaping("values", "values", ";escaping=values;", "values"),
                // No name has a dot, so dots are never escaped.
                escaping("dots", "dots", ";escaping=dots;", "underscores"),
                protocols("openmetrics-1", &["OpenMetricsText1.0.0"], "openmetrics-text;version=1.0.0;", &allow_utf_8),
                protocols("openmetrics-0", &["OpenMetricsText0.0.1"], "openmetrics-text;version=0.0.1;", TEXT),
                protocols("text-0", &["PrometheusText0.0.4"], "text/plain;version=0.0.4;", TEXT),
                // The exporter has no text 1.0.0. Anything is accepted instead.
                protocols("text-1", &["PrometheusText1.0.0"], "text/plain;version=1.0.0;escaping=allow-utf-8;", TEXT),
                // Native histograms come as protobuf, which the exporter does not have.
                protocols(
                    "protobuf",
                    &["PrometheusProto", "OpenMetricsText1.0.0", "PrometheusText0.0.4"],
                    "application/vnd.google.protobuf;",
                    &allow_utf_8,
                ),
            ]
        }
    }
}

/// An exporter that has polled everything once, and nothing again within an hour: toggles that ended in every way, or
/// failed to be polled, agents whose mocks are on, off and unknown, and labels of all characters.
async fn frozen(upstream: &Upstream) -> Exporter {
    let odd = " \"q\" \\n\\ \n\r\t {a=\"b\"},c=1 # EOF\n# EOF\nü\u{2028}🦀\u{85} ";
    let labels = json!({"odd": odd, "empty": "", "end": "\\"});
    let mut finished = Vec::new();
    for (name, expect, replies) in [
        ("enabled", Some("enabled"), vec![Reply::task("in_progress", None), Reply::task("completed", Some(true))]),
        ("mismatched", Some("disabled"), vec![Reply::task("in_progress", None), Reply::task("completed", Some(true))]),
        ("null", Some("enabled"), vec![Reply::task("completed", None)]),
        ("failed", None, vec![Reply::task("in_progress", None), Reply::task("failed", None)]),
    ] {
        upstream.script(name, replies);
        let watch = json!({"name": name, "agent_id": finished.len() + 1, "progress_id": name, "labels": labels});
        finished.push(with_expect(watch, expect));
    }
    let mut unanswered = Vec::new();
    for (api, name, reply) in [
        ("default", "expired", Reply::detail(400, "no such id")),
        ("default", "foreign", Reply::detail(403, "no")),
        ("default", odd.trim(), Reply::new(200, "{")),
        ("paused", "paused", Reply::with_header(503, "retry-after", "3600", "{}")),
        ("keyless", "keyless", Reply::Silence),
    ] {
        upstream.script(name, [reply]);
        let watch = json!({"agent_id": 10 + unanswered.len(), "progress_id": name, "api": api, "labels": labels});
        unanswered.push(watch);
    }
    upstream.mock_status(20, [Reply::mock_status(true, "vapi")]);
    upstream.mock_status(21, [Reply::mock_status(false, "retell")]);
    let agents = [
        json!({"agent_id": 20, "expect": "disabled", "labels": labels}),
        json!({"agent_id": 21, "expect": "disabled"}),
        // Nothing is known of it.
        json!({"agent_id": 22}),
    ];
    let api = json!({"base_url": upstream.url(), "api_key": "k", "requests_per_second": 1000});
    let config = |polling: Value, watches: &[Value], agents: &[Value]| {
        json!({
            "apis": {"default": api, "paused": api, "keyless": {"base_url": upstream.url()}},
            "polling": polling,
            "external_url": "https://cekura.example.com/a%22b",
            "watches": watches,
            "agents": agents,
            "watch_files": ["no \"such\" \\ folder/*.json"],
        })
        .to_string()
    };
    let soon = json!({"min_interval": "50ms", "max_interval": "50ms", "recheck_finished": "0s"});
    let exporter = Exporter::with(config(soon, &finished, &[])).start().await;
    exporter
        .scrape_until("the runs ended", |e| e.count("cekura_toggle_finished_timestamp_seconds") == finished.len())
        .await;
    let never_again = json!({
        "min_interval": "1h", "max_interval": "1h", "backoff_max": "1h", "agent_interval": "1h", "recheck_finished": "0s",
    });
    exporter.reconfigure(config(never_again, &[&finished[..], &unanswered].concat(), &agents));
    assert_eq!(exporter.reload().await.0, 200);
    let polled = finished.len() + unanswered.len();
    exporter
        .scrape_until("all the others were polled", |e| {
            e.count("cekura_toggle_up") == polled && e.count("cekura_agent_up") == agents.len()
        })
        .await;
    exporter
}

fn with_expect(mut watch: Value, expect: Option<&str>) -> Value {
    if let Some(expect) = expect {
        watch["expect"] = expect.into();
    }
    watch
}

/// What a scrape says, as a scraper stores it: a label without a value is no label, and a bound is a number, which
/// `OpenMetrics` writes as `1.0`, text as `1`, and Prometheus 3 always as `1.0`.
fn insert(samples: &mut Samples, name: &str, labels: impl Iterator<Item = (String, String)>, value: f64) {
    if OF_SCRAPERS.iter().any(|own| name.starts_with(own)) {
        return;
    }
    let value = if MOVING.iter().any(|moving| name.starts_with(moving)) { 0.0 } else { value };
    let labels = labels.filter(|(label, value)| !value.is_empty() && !TARGET.contains(&label.as_str()));
    let labels = labels.map(|(label, value)| {
        let value = if label == "le" { value.parse::<f64>().unwrap().to_string() } else { value };
        (label, value)
    });
    let series = labels.chain([("__name__".to_owned(), name.to_owned())]).collect();
    assert_eq!(samples.insert(series, value), None, "a series of {name} is there twice");
}

/// The samples in a body, of either format.
fn samples_of(body: String) -> Samples {
    let mut samples = Samples::new();
    for (name, labels, value) in Exposition::parse(body).series() {
        insert(&mut samples, name, labels.clone().into_iter(), value);
    }
    samples
}

/// The samples that a scraper has stored of a job.
async fn stored(monitoring: &Monitoring, job: &str) -> Samples {
    let mut samples = Samples::new();
    for one in monitoring.query(&format!("{{job=\"{job}\"}}")).await {
        let labels: BTreeMap<String, String> = serde_json::from_value(one["metric"].clone()).unwrap();
        let name = labels["__name__"].clone();
        let labels = labels.into_iter().filter(|(label, _)| label != "__name__");
        insert(&mut samples, &name, labels, one["value"][1].as_str().unwrap().parse().unwrap());
    }
    samples
}

/// The store of `VictoriaMetrics` keeps about 15 digits of a number. The other one keeps all of it.
fn precision(scraper: Scraper) -> f64 {
    if scraper == Scraper::VictoriaMetrics { 1e-14 } else { 0.0 }
}

/// What is in only one of the two, or has another value there. Values may differ by this part of them.
fn differences(one: &Samples, other: &Samples, precision: f64) -> Vec<String> {
    let keys = one.keys().chain(other.keys().filter(|key| !one.contains_key(*key)));
    let is_same = |one: f64, other: f64| (one - other).abs() <= one.abs() * precision;
    let differ =
        keys.filter(|key| !one.get(*key).zip(other.get(*key)).is_some_and(|(one, other)| is_same(*one, *other)));
    differ.map(|key| format!("{key:?}: {:?} or {:?}", one.get(key), other.get(key))).collect()
}

/// Starts a scraper that scrapes a recorder, which is before the exporter, once for each job.
async fn scraping(scraper: Scraper, recorder: &Recorder) -> Monitoring {
    let configs: Vec<_> = jobs(scraper)
        .iter()
        .map(|job| {
            let target = json!({
                "job_name": job.name,
                "params": {"job": [job.name]},
                "static_configs": [{"targets": [recorder.address()]}],
            });
            let mut config: Map<_, _> = serde_json::from_value(target).unwrap();
            config.extend(job.config.as_object().unwrap().clone());
            config
        })
        .collect();
    Monitoring::with(scraper, &json!({"scrape_configs": configs})).await
}

/// Whatever a scraper asked for, it got it, and stored the samples that are there.
async fn assert_reads(scraper: Scraper, monitoring: &Monitoring, recorder: &Recorder, exporter: &Exporter) {
    for job in jobs(scraper) {
        let name = job.name;
        let up = format!("up{{job=\"{name}\"}} == 1");
        eventually(&up, async || (monitoring.query(&up).await.len() == 1).then_some(())).await;
        let accept = recorder.header(&job.target(), "accept").unwrap();
        assert!(accept.contains(job.accept), "{name}: {accept}");
        let request = exporter.http().get(format!("{}/metrics", exporter.urls[0])).header("accept", &accept);
        let answer = request.send().await.unwrap();
        assert_eq!(answer.headers()["content-type"], job.content_type, "{name}: {accept}");
        let served = samples_of(answer.text().await.unwrap());
        let text = samples_of(exporter.scrape().await.text);
        assert_eq!(differences(&text, &served, 0.0), [""; 0], "text and what {name} asks for");
        // A store does not find all of them at once, and none after a scrape that a busy machine was too slow for.
        let stored = eventually(&format!("{name} has as many series as there are"), async || {
            Some(stored(monitoring, name).await).filter(|stored| stored.len() == text.len())
        })
        .await;
        assert_eq!(differences(&text, &stored, precision(scraper)), [""; 0], "text and what {name} stored");
    }
}

#[tokio::test]
async fn every_scraper_reads_the_same_samples_whatever_it_asks_for() {
    let upstream = Upstream::start().await;
    let exporter = frozen(&upstream).await;
    let samples = samples_of(exporter.scrape().await.text);
    let recorder = Recorder::to(exporter.address()).await;
    let scrapers = [Scraper::Prometheus2, Scraper::Prometheus3, Scraper::VictoriaMetrics];
    let (a, b, c) = tokio::join!(
        scraping(scrapers[0], &recorder),
        scraping(scrapers[1], &recorder),
        scraping(scrapers[2], &recorder),
    );
    for (scraper, monitoring) in scrapers.into_iter().zip([a, b, c]) {
        assert_reads(scraper, &monitoring, &recorder, &exporter).await;
    }
    // What they read did not change meanwhile.
    assert_eq!(differences(&samples, &samples_of(exporter.scrape().await.text), 0.0), [""; 0]);
    let of = |text: &str| samples.keys().filter(|series| series["__name__"].contains(text)).count();
    assert!(of("_bucket") > 100 && of("cekura_agent_") > 10 && of("cekura_toggle_") > 100, "{samples:?}");
}
