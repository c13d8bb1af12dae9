//! The dashboard for Grafana: it is what its code writes, and real scrapers have data for all of it.

use std::collections::BTreeSet;
use std::process::Command;

use cekura_exporter::demo::simulator::{Reply, Simulator};
use serde_json::{Value, json};

use super::pods::each;
use super::{REPLICA, file, printed};
use crate::harness::{
    Authority, Client, Exporter, Exposition, FAR, Monitoring, Scraper, TLS, Upstream, by_clock, eventually, tool,
};
use crate::with_scrapers::with_each_scraper;

with_each_scraper! { every_query_is_promql_names_what_there_is_and_has_data }

/// Labels that Prometheus gives what it scrapes, in Kubernetes too.
const OF_PROMETHEUS: [&str; 3] = ["job", "instance", "pod"];

fn dashboard() -> Value {
    serde_json::from_slice(&std::fs::read(file("deploy/grafana/dashboard.json")).unwrap()).unwrap()
}

/// What the dashboard asks: its queries and its variables.
fn asked() -> Value {
    let script = file("tests/it/deploy/dashboard.mjs");
    let said = printed(Command::new(tool("node")).arg(script).arg(file("deploy/grafana/dashboard.json")));
    serde_json::from_str(&said).unwrap()
}

/// All panels but the rows' titles.
fn panels(dashboard: &Value) -> Vec<&Value> {
    each(&dashboard["panels"]).filter(|panel| panel["type"] != "row").collect()
}

#[test]
fn it_is_what_its_code_writes() {
    let project = file("deploy/grafana");
    let compiler = project.join("node_modules/.bin/tsc");
    assert!(compiler.exists(), "tests/run installs what writes the dashboard");
    printed(Command::new(tool("node")).arg(compiler).arg("--project").arg(&project));
    let folder = tempfile::tempdir().unwrap();
    let written = folder.path().join("dashboard.json");
    printed(Command::new(tool("node")).arg(project.join("build/write.js")).arg(&written));
    let same = std::fs::read(written).unwrap() == std::fs::read(project.join("dashboard.json")).unwrap();
    assert!(same, "run `npm run build` in deploy/grafana");
}

#[test]
fn every_panel_says_what_it_tells_and_none_covers_another() {
    let dashboard = dashboard();
    let panels = panels(&dashboard);
    assert!(panels.len() > 20, "{}", panels.len());
    for panel in &panels {
        let text = |key: &str| panel[key].as_str().unwrap_or_default().len();
        assert!(text("title") > 2 && text("description") > 20, "{}", panel["title"]);
        assert!(
            !panel["fieldConfig"]["defaults"]["unit"].as_str().unwrap_or("").is_empty()
                || panel["type"] == "heatmap"
                || panel["type"] == "state-timeline",
            "{}",
            panel["title"]
        );
        assert_eq!(panel["datasource"], json!({"type": "prometheus", "uid": "${datasource}"}), "{}", panel["title"]);
        for target in each(&panel["targets"]) {
            assert_eq!(target["datasource"], panel["datasource"], "{}", panel["title"]);
        }
    }
    let mut taken = BTreeSet::new();
    for panel in each(&dashboard["panels"]) {
        let at = |key: &str| panel["gridPos"][key].as_u64().unwrap();
        assert!(at("x") + at("w") <= 24, "{}", panel["title"]);
        for (x, y) in (at("x")..at("x") + at("w")).flat_map(|x| (at("y")..at("y") + at("h")).map(move |y| (x, y))) {
            assert!(taken.insert((x, y)), "{} covers another panel at {x}, {y}", panel["title"]);
        }
    }
    let ids: BTreeSet<_> = each(&dashboard["panels"]).map(|panel| panel["id"].as_u64().unwrap()).collect();
    assert_eq!(ids.len(), each(&dashboard["panels"]).count(), "two panels have one id");
}

#[test]
fn it_can_be_provisioned_as_it_is() {
    let dashboard = dashboard();
    assert_eq!(dashboard["uid"], "cekura-exporter");
    assert!(dashboard["__inputs"].is_null() && dashboard["__requires"].is_null());
    let variables: Vec<_> =
        each(&dashboard["templating"]["list"]).map(|variable| variable["name"].as_str().unwrap()).collect();
    assert_eq!(variables, ["datasource", "job", "api", "toggle", "labels"]);
}

/// The labels that a legend puts in.
fn legend_labels(legend: &str) -> Vec<&str> {
    legend.split("{{").skip(1).filter_map(|rest| rest.split("}}").next()).map(str::trim).collect()
}

/// An exporter for which it is three hours earlier, with everything that the demo lacks: TLS, a broken
/// glob, and toggles that are stuck, refused and paused.
async fn in_trouble(upstream: &Upstream, authority: &Authority) -> Exporter {
    upstream.script("stuck", [Reply::task("in_progress", None)]);
    upstream.script("left-on", [Reply::task("completed", Some(true))]);
    upstream.script("key", [Reply::detail(401, "no")]);
    upstream.script("slow", [Reply::with_header(429, "retry-after", "3000", "{}")]);
    let api = json!({"base_url": upstream.url(), "api_key": "k", "timeout": "1m"});
    let watch = |name: &str, api: &str| json!({"name": name, "agent_id": 9, "progress_id": name, "api": api, "expect": "enabled"});
    let config = json!({
        "apis": {"default": api, "refusing": api, "pausing": api},
        "polling": {"min_interval": "1h", "max_interval": "1h", "backoff_max": "1h"},
        "watch_files": ["missing/*.json"],
        "agents": [{"agent_id": 9, "api": "refusing"}],
        "watches": [watch("stuck", "default"), watch("left-on", "default"), watch("key", "refusing"), watch("slow", "pausing")],
    });
    let start = by_clock(Exporter::with(config.to_string()), -3.0 * 3600.0);
    let start = start.web(TLS).server(&authority.server(FAR));
    start.client(&Client::trusting(authority)).start().await
}

/// What the exposition has of names: of metrics and of labels.
fn names_of(exposition: &Exposition) -> (BTreeSet<String>, BTreeSet<String>) {
    let mut labels: BTreeSet<_> = OF_PROMETHEUS.map(str::to_owned).into();
    let mut metrics = BTreeSet::new();
    for (name, own) in exposition.names() {
        metrics.insert(name.to_owned());
        labels.extend(own.map(str::to_owned));
    }
    (metrics, labels)
}

async fn every_query_is_promql_names_what_there_is_and_has_data(scraper: Scraper) {
    let (upstream, authority) = (Upstream::start().await, Authority::new("servers"));
    let demo = Exporter::with("").arg("--demo").start().await;
    let trouble = in_trouble(&upstream, &authority).await;
    let as_text = || Reply::with_header(200, "content-type", "text/plain; version=0.0.4", REPLICA);
    let replica = Simulator::start(move |_| as_text()).await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let ca_file = folder.path().join("ca.pem");
    std::fs::write(&ca_file, authority.pem()).unwrap();
    let config = json!({"scrape_configs": [
        {"job_name": "demo", "static_configs": [{"targets": [demo.address()]}]},
        {"job_name": "replica", "static_configs": [{"targets": [replica.address()]}]},
        {
            "job_name": "trouble",
            "scheme": "https",
            "tls_config": {"ca_file": ca_file},
            "static_configs": [{"targets": [trouble.address()]}],
        },
    ]});
    let monitoring = Monitoring::with(scraper, &config).await;

    let asked = asked();
    let (mut metrics, mut labels) = names_of(
        &demo
            .scrape_until("runs ended well and badly", |e| {
                let ended = |how| e.count(&format!("cekura_toggle_last_{how}_timestamp_seconds")) > 0;
                let drifted = e.value("cekura_agent_mocks_drift", &[("agent_id", "4420")]);
                ended("failed") && ended("completed") && drifted.is_some() && e.count("cekura_agent_mock_enabled") > 0
            })
            .await,
    );
    let in_trouble = trouble.scrape_until("it is refused and paused", |e| {
        e.count("cekura_toggle_poll_error") >= 2 && e.count("cekura_api_paused_until_timestamp_seconds") > 0
    });
    for more in [in_trouble.await, Exposition::parse(REPLICA.to_owned())] {
        let (more_metrics, more_labels) = names_of(&more);
        metrics.extend(more_metrics);
        labels.extend(more_labels);
    }

    let (mut queries, mut panels_with_data) = (0, BTreeSet::new());
    for query in each(&asked["queries"]).chain(each(&asked["variables"])) {
        assert_eq!(query["errors"], json!([]), "{query}");
        assert!(each(&query["metrics"]).next().is_some(), "{query}");
        let unknown = |known: &BTreeSet<String>, named: &Value| {
            each(named)
                .map(|name| name.as_str().unwrap().to_owned())
                .filter(|name| !known.contains(name))
                .collect::<Vec<_>>()
        };
        assert_eq!(unknown(&metrics, &query["metrics"]), [] as [String; 0], "{query}");
        // `le` is of the buckets.
        assert_eq!(unknown(&labels, &query["labels"]), [] as [String; 0], "{query}");
    }
    for query in each(&asked["queries"]) {
        // What is shown in want of data has to be there beside the data, not in its place.
        for operand in each(&query["operands"]).map(|operand| operand.as_str().unwrap()) {
            eventually(&format!("{} has data for {operand}", query["panel"]), async || {
                let series = monitoring.query(operand).await;
                series.iter().any(|one| one["value"][1] != "NaN").then_some(())
            })
            .await;
        }
        let expression = query["expression"].as_str().unwrap();
        let series = monitoring.query(expression).await;
        for label in legend_labels(query["legend"].as_str().unwrap()) {
            // Grafana calls a heatmap's rows by their bounds itself.
            assert!(
                series.iter().any(|one| one["metric"][label].is_string()),
                "no {label} to call series of {expression} by"
            );
        }
        queries += 1;
        panels_with_data.insert(query["panel"].as_str().unwrap());
    }
    for variable in each(&asked["variables"]) {
        let values = monitoring.query(variable["expression"].as_str().unwrap()).await;
        let label = variable["label"].as_str().unwrap();
        assert!(values.iter().any(|one| one["metric"][label].is_string()), "{variable}");
    }
    let dashboard = dashboard();
    let all: BTreeSet<_> = panels(&dashboard).iter().map(|panel| panel["title"].as_str().unwrap()).collect();
    println!("{} panels of {}, {queries} queries with data", panels_with_data.len(), all.len());
    assert_eq!(panels_with_data, all);
}
