//! What real scrapers, the oldest and the newest, make of the exporter and of the rules that are shipped for it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use cekura_exporter::demo::simulator::Reply;
use serde_json::{Value, json};

use crate::harness::{Authority, Client, Exporter, FAR, Monitoring, Scraper, TLS, Upstream, by_clock, eventually};
use crate::with_scrapers::with_each_scraper;

with_each_scraper! {
    each_trouble_of_a_toggle_fires_its_own_alert_and_a_good_toggle_fires_none,
    it_scrapes_over_tls_with_a_login_or_a_certificate,
    scrape_after_scrape_it_reads_all_of_many_watches_while_some_change,
}

fn rules() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/prometheus/rules.yaml")
}

/// What an alert is about: its name, toggle, agent and team, the latter two of the API `default`.
fn subject(alert: &Value) -> String {
    let label = |name: &str| alert["labels"][name].as_str().unwrap_or("-");
    assert_eq!(label("api"), "default", "{alert}");
    assert_eq!(label("job"), "cekura-exporter", "{alert}");
    ["alertname", "toggle", "agent_id", "team"].map(label).join(" ")
}

async fn each_trouble_of_a_toggle_fires_its_own_alert_and_a_good_toggle_fires_none(scraper: Scraper) {
    let upstream = Upstream::start().await;
    let toggles = [
        ("failed", 1, "enabled", Reply::task("failed", None)),
        ("stuck", 2, "enabled", Reply::task("in_progress", None)),
        ("not-on", 3, "enabled", Reply::task("completed", Some(false))),
        ("not-off", 4, "disabled", Reply::task("completed", Some(true))),
        ("left-on", 5, "enabled", Reply::task("completed", Some(true))),
        ("good", 6, "disabled", Reply::task("completed", Some(false))),
    ];
    let mut watches = Vec::new();
    for (name, agent_id, expect, reply) in toggles {
        upstream.script(name, [reply]);
        watches.push(json!({
            "name": name, "agent_id": agent_id, "progress_id": name, "expect": expect, "labels": {"team": "bookings"},
        }));
    }
    // Each is polled once: a poll that fails later would be an alert of its own.
    let config = json!({
        "apis": {"default": {"base_url": upstream.url(), "api_key": "k", "timeout": "1m"}},
        "polling": {"min_interval": "1h", "max_interval": "1h", "backoff_max": "1h"},
        "watches": watches,
    });
    // With its clock three hours behind, what just began has lasted that long for Prometheus.
    let exporter = by_clock(Exporter::with(config.to_string()), -3.0 * 3600.0).start().await;
    exporter
        .scrape_until("all toggles answered", |e| e.count("cekura_toggle_last_success_timestamp_seconds") == 6)
        .await;

    let monitoring = Monitoring::scraping(scraper, &exporter, &rules()).await;
    let expected = BTreeSet::from(
        [
            "CekuraToggleFailed failed 1 bookings",
            "CekuraToggleStuck stuck 2 bookings",
            "CekuraToggleMocksNotOn not-on 3 bookings",
            "CekuraToggleMocksNotOff not-off 4 bookings",
            "CekuraAgentLeftEnabled - 4 bookings",
            "CekuraAgentLeftEnabled - 5 bookings",
        ]
        .map(str::to_owned),
    );
    let mut seen = BTreeSet::new();
    let firing = eventually("all of them fire", async || {
        let firing = monitoring.firing().await;
        seen = firing.iter().map(subject).collect();
        seen.is_superset(&expected).then_some(firing)
    })
    .await;
    assert_eq!(seen, expected);
    for alert in firing {
        let texts = ["summary", "description"].map(|name| alert["annotations"][name].as_str().unwrap_or_default());
        assert!(texts.iter().all(|text| !text.is_empty() && !text.contains('<')), "{alert}");
    }
    // The exporter's URL is recorded by a rule, too.
    let exporter_url = format!("http://{}/", exporter.address());
    eventually("all of them link to the exporter", async || {
        let firing = monitoring.firing().await;
        let links = |alert: &Value| alert["annotations"]["dashboard_url"].as_str().unwrap().starts_with(&exporter_url);
        firing.iter().all(links).then_some(())
    })
    .await;
}

/// The units that it knows of a family, by job.
async fn units_of(prometheus: &Monitoring, family: &str) -> BTreeMap<String, Value> {
    let path = format!("/api/v1/targets/metadata?metric={family}");
    let known = prometheus.get(&path).await.unwrap_or_default().as_array().cloned().unwrap_or_default();
    known.into_iter().map(|of| (of["target"]["job"].as_str().unwrap().to_owned(), of["unit"].clone())).collect()
}

async fn it_scrapes_over_tls_with_a_login_or_a_certificate(scraper: Scraper) {
    let upstream = Upstream::start().await;
    let (servers, clients) = (Authority::new("servers"), Authority::new("clients"));
    let client = clients.client("prometheus.example");
    let start = |id: &str| {
        upstream.script(id, [Reply::task("in_progress", None), Reply::task("completed", Some(true))]);
        Exporter::polling(&upstream, &format!("  - {{name: w, agent_id: 1, progress_id: {id}}}\n"))
    };
    let users = json!({"prometheus": bcrypt::hash("scrapes", 4).unwrap()});
    let logins = start("p").web(&format!("{TLS}basic_auth_users: {users}\n")).server(&servers.server(FAR));
    let logins = logins.client(&Client::trusting(&servers).logged_in("prometheus", "scrapes")).start().await;
    let verifying = ["client_ca_file: clients.pem", "client_auth_type: RequireAndVerifyClientCert"];
    let certificates = start("q").tls(&servers, &verifying).file("clients.pem", &clients.pem());
    let certificates = certificates.client(&Client::trusting(&servers).showing(&client)).start().await;

    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        std::fs::write(folder.path().join(name), text).unwrap();
        folder.path().join(name)
    };
    let ca_file = file("ca.pem", &servers.pem());
    let (cert_file, key_file) = (file("client.pem", &client.certificate), file("client.key", &client.key));
    let config = json!({"scrape_configs": [
        {
            "job_name": "logins",
            "scheme": "https",
            "tls_config": {"ca_file": ca_file},
            "basic_auth": {"username": "prometheus", "password": "scrapes"},
            "static_configs": [{"targets": [logins.address()]}],
        },
        {
            "job_name": "certificates",
            "scheme": "https",
            "tls_config": {"ca_file": ca_file, "cert_file": cert_file, "key_file": key_file},
            "static_configs": [{"targets": [certificates.address()]}],
        },
    ]});
    let monitoring = Monitoring::with(scraper, &config).await;
    eventually("both are up", async || (monitoring.query("up == 1").await.len() == 2).then_some(())).await;
    for (expression, series) in [
        ("cekura_toggle_polls_total{toggle='w'} >= 2", 2),
        ("cekura_toggle_status{status='completed'} == 1", 2),
        ("cekura_toggle_duration_seconds_bucket{status='completed', le=~'1([.]0)?'}", 2),
        ("cekura_toggle_duration_seconds_bucket{status='completed', le=~'21600([.]0)?'} == 1", 2),
        ("cekura_toggle_duration_seconds_bucket{status='completed', le='+Inf'} == 1", 2),
        ("cekura_api_request_duration_seconds_bucket{le='0.005'}", 2),
    ] {
        let yields = async || (monitoring.query(expression).await.len() == series).then_some(());
        eventually(&format!("{expression} yields {series}"), yields).await;
    }
    if scraper != Scraper::VictoriaMetrics {
        reads_openmetrics(&monitoring).await;
    }
}

/// All that both jobs scraped came in `OpenMetrics`, which Prometheus prefers.
async fn reads_openmetrics(prometheus: &Monitoring) {
    // Only OpenMetrics has units.
    for (family, unit) in [
        ("cekura_toggle_started_timestamp_seconds", "seconds"),
        ("cekura_toggle_duration_seconds", "seconds"),
        ("cekura_toggle_status", ""),
    ] {
        let expected = ["certificates", "logins"].map(|job| (job.to_owned(), unit.into()));
        assert_eq!(units_of(prometheus, family).await, expected.into(), "{family}");
    }
    let expression = "cekura_toggle_duration_seconds_bucket{status='completed', le='1.0'}";
    assert_eq!(prometheus.query(expression).await.len(), 2, "{expression}");
    // Nothing is there as it would be in the text format, or as anything else than it is.
    for expression in ["{le='1'}", "cekura_toggle_polls", "{__name__=~'cekura_.*_created'}", "up == 0"] {
        assert_eq!(prometheus.query(expression).await, [] as [Value; 0], "{expression}");
    }
}

async fn scrape_after_scrape_it_reads_all_of_many_watches_while_some_change(scraper: Scraper) {
    let upstream = Upstream::start().await;
    upstream.script("finished", [Reply::task("completed", Some(true))]);
    upstream.script("runs", [Reply::task("in_progress", None)]);
    let watches: Vec<_> = (1..=600)
        .map(|n| json!({"agent_id": n, "progress_id": if n % 100 == 0 { "runs" } else { "finished" }}))
        .collect();
    let config = json!({
        "apis": {"default": {"base_url": upstream.url(), "api_key": "k", "requests_per_second": 10_000}},
        "polling": {"min_interval": "100ms", "max_interval": "100ms"},
        "watches": watches,
    });
    let exporter = Exporter::with(config.to_string()).start().await;
    exporter.scrape_until("each was polled", |e| e.count("cekura_toggle_up") == 600).await;
    let monitoring = Monitoring::scraping(scraper, &exporter, &rules()).await;
    for (expression, series) in [
        ("count_over_time(cekura_toggle_info[1m]) >= 3", 600),
        ("changes(cekura_toggle_polls_total[1m]) >= 2", 6),
        ("cekura_toggle_finished_timestamp_seconds > 0", 594),
    ] {
        let yields = async || (monitoring.query(expression).await.len() == series).then_some(());
        eventually(&format!("{expression} yields {series}"), yields).await;
    }
}
