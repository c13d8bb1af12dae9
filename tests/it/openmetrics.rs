//! Metrics in either format: what the parsers of others read from both is the same.

use std::path::Path;
use std::process::Command;

use cekura_exporter::board::ToggleRows;
use cekura_exporter::demo::simulator::Reply;
use cekura_exporter::exposition::{Encoder, Format, Snapshot};
use prometheus::core::Collector;
use prometheus::proto::{Metric, MetricFamily, MetricType, Quantile, Summary};
use prometheus::{CounterVec, GaugeVec, HistogramOpts, HistogramVec, Opts};
use serde_json::json;

use crate::harness::{Exporter, Upstream};

/// What Prometheus 2.42 sends.
const PROMETHEUS: &str = "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,\
                          text/plain;version=0.0.4;q=0.5,*/*;q=0.1";

/// Values that move between two scrapes: their names begin with these.
pub(crate) const MOVING: [&str; 3] =
    ["process_", "cekura_exporter_http_requests_total", "cekura_exporter_http_connections"];

/// Two parsers that are not ours read the same from both. Returns how many series that are.
fn says_the_same(text: &str, open_metrics: &str, moving: &[&str]) -> usize {
    let folder = tempfile::tempdir().unwrap();
    let files = [("text", text), ("openmetrics", open_metrics)].map(|(name, scrape)| {
        let file = folder.path().join(name);
        std::fs::write(&file, scrape).unwrap();
        file
    });
    let program = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/openmetrics.py");
    let output = Command::new(program).env_clear().args(files).args(moving).output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}\n(tests/run installs what it needs)");
    String::from_utf8(output.stdout).unwrap().trim().parse().unwrap()
}

async fn scrape(exporter: &Exporter, accept: &str) -> (String, String) {
    let request = exporter.http().get(format!("{}/metrics", exporter.urls[0])).header("accept", accept);
    let answer = request.send().await.unwrap();
    assert_eq!(answer.status(), 200);
    assert_eq!(answer.headers()["vary"], "accept, accept-encoding");
    let content_type = answer.headers()["content-type"].to_str().unwrap().to_owned();
    (content_type, answer.text().await.unwrap())
}

#[tokio::test]
async fn both_formats_say_the_same_of_toggles_in_every_state() {
    let upstream = Upstream::start().await;
    let mut watches = Vec::new();
    for (name, expect, reply) in [
        ("enabled", Some("enabled"), Reply::task("completed", Some(true))),
        ("mismatched", Some("disabled"), Reply::task("completed", Some(true))),
        ("null", Some("enabled"), Reply::task("completed", None)),
        ("failed", None, Reply::task("failed", None)),
        ("running", None, Reply::task("in_progress", None)),
        ("odd-status", None, Reply::task("paused", None)),
        ("expired", None, Reply::detail(400, "no such id")),
        ("hanging", None, Reply::Silence),
    ] {
        upstream.script(name, [reply]);
        let mut watch = json!({"name": name, "agent_id": watches.len() + 1, "progress_id": name});
        if let Some(expect) = expect {
            watch["expect"] = expect.into();
        }
        watches.push(watch);
    }
    let odd = " \"q\" \\n\\ \n\r\t {a=\"b\"},c=1 # EOF\n# EOF\nü\u{2028}🦀\u{85} ";
    // An id has no white space at its ends.
    let odd_id = odd.trim();
    upstream.script(odd_id, [Reply::task("completed", Some(false))]);
    watches.push(json!({"name": "odd", "agent_id": 99, "progress_id": odd_id, "labels": {"odd": odd, "empty": ""}}));
    watches.push(json!({"name": "no-key", "agent_id": 100, "progress_id": "p", "api": "keyless"}));
    // Each is polled once, so that what is known stands still.
    let config = json!({
        "apis": {
            "default": {"base_url": upstream.url(), "api_key": "k", "timeout": "1m"},
            "keyless": {"base_url": upstream.url()},
        },
        "polling": {"min_interval": "1h", "max_interval": "1h", "backoff_max": "1h"},
        "watches": watches,
        "watch_files": ["no \"such\" \\ folder/*.json"],
    });
    let exporter = Exporter::with(config.to_string()).start().await;
    exporter
        .scrape_until("all but one were polled", |e| {
            e.count("cekura_toggle_up") == 9
                && e.value("cekura_api_requests_in_flight", &[("api", "default")]) == Some(1.0)
        })
        .await;

    let (text_type, text) = scrape(&exporter, "text/plain").await;
    let (open_metrics_type, open_metrics) = scrape(&exporter, PROMETHEUS).await;
    assert_eq!(text_type, "text/plain; version=0.0.4; charset=utf-8");
    assert_eq!(open_metrics_type, "application/openmetrics-text; version=1.0.0; charset=utf-8");
    assert!(says_the_same(&text, &open_metrics, &MOVING) > 200);
}

fn encoded(snapshot: &Snapshot, format: Format) -> String {
    let mut encoder = Encoder::new(snapshot, format);
    let chunks: Vec<_> = std::iter::from_fn(|| encoder.next_chunk(snapshot)).collect();
    String::from_utf8(chunks.concat()).unwrap()
}

/// A summary of one quantile.
fn summary() -> MetricFamily {
    let mut quantile = Quantile::default();
    quantile.set_quantile(1.0);
    quantile.set_value(f64::INFINITY);
    let mut summary = Summary::default();
    summary.set_quantile(vec![quantile]);
    summary.set_sample_count(3);
    let mut metric = Metric::default();
    metric.set_summary(summary);
    let mut family = MetricFamily::default();
    family.set_name("summary".to_owned());
    family.set_field_type(MetricType::SUMMARY);
    family.set_metric(vec![metric]);
    family
}

#[test]
fn the_strangest_values_are_read_alike_from_both_formats() {
    let values = [
        f64::NAN,
        f64::INFINITY,
        f64::NEG_INFINITY,
        0.0,
        -0.0,
        0.1 + 0.2,
        5e-324,
        1e-5,
        f64::MAX,
        f64::MIN,
        1e21,
        9e15,
        1_790_000_000.005,
    ];
    let help = "Quotes \" and \\\" slashes \\ and \\n and\nlines, ü.";
    let gauges = GaugeVec::new(Opts::new("odd_seconds", help), &["label"]).unwrap();
    for (i, value) in values.into_iter().enumerate() {
        gauges.with_label_values(&[format!("{i} \"\\\n\\n}} ")]).set(value);
    }
    let counters = CounterVec::new(Opts::new("odd_bytes_total", help), &["label"]).unwrap();
    counters.with_label_values(&["\\"]).inc_by(1e300);
    let bounds = vec![0.0, 1e-10, 0.005, 1.0, 1e5, 1e6, 1_234_567.5, 1e21];
    let histograms = HistogramVec::new(HistogramOpts::new("histogram", "H.").buckets(bounds), &["label"]).unwrap();
    histograms.with_label_values(&["a"]).observe(0.003);
    histograms.with_label_values(&["b"]).observe(f64::INFINITY);
    let gathered = [gauges.collect(), counters.collect(), histograms.collect(), vec![summary()]].concat();
    let snapshot = Snapshot::new(ToggleRows::default(), vec![], vec![], gathered);
    let [text, open_metrics] = [Format::Text, Format::OpenMetrics].map(|format| encoded(&snapshot, format));
    assert_eq!(says_the_same(&text, &open_metrics, &[]), values.len() + 1 + 2 * 11 + 3);
}

#[test]
fn nothing_is_a_valid_scrape_too() {
    let snapshot = Snapshot::new(ToggleRows::default(), vec![], vec![], vec![]);
    assert_eq!(says_the_same("", &encoded(&snapshot, Format::OpenMetrics), &[]), 0);
}
