//! The demo: every kind of run, without configuration, key or network.

use std::io::Write;
use std::process::{Command, Stdio};

use crate::harness::{Exporter, Exposition};

fn count_of(e: &Exposition, status: &str) -> usize {
    ["bookings-enable", "support-disable", "payments-enable", "onboarding-enable", "refunds-enable", "staging-enable"]
        .iter()
        .filter(|toggle| e.status(toggle).as_deref() == Some(status))
        .count()
}

#[tokio::test]
async fn the_demo_shows_every_documented_status_whatever_the_environment_says() {
    let exporter = Exporter::with("")
        .arg("--demo")
        .env("HTTP_PROXY", "http://127.0.0.1:1")
        .env("http_proxy", "http://127.0.0.1:1")
        .env("ALL_PROXY", "socks5://127.0.0.1:1")
        .env("CEKURA_API_KEY", "not-the-key-of-the-demo")
        .env("CEKURA_EXPORTER__POLLING__MIN_INTERVAL", "nonsense")
        .start()
        .await;
    let e = exporter
        .scrape_until("all three statuses show", |e| {
            ["in_progress", "completed", "failed"].iter().all(|status| count_of(e, status) > 0)
        })
        .await;
    assert!(e.value("cekura_toggle_mock_mismatch", &[("toggle", "refunds-enable")]) == Some(1.0));
    let welcome = exporter.errors();
    assert!(welcome.contains(&format!("{}/metrics", exporter.urls[0])), "{welcome}");
    assert!(!exporter.get("/config").await.1.contains("demo-key"));
    let info = e.text.lines().find(|line| line.contains("cekura_toggle_info") && line.contains("bookings")).unwrap();
    exporter.scrape_until("a new run began by itself", |later| !later.text.contains(info)).await;
    exporter
        .scrape_until("the flaky API failed now and then", |e| {
            let failed = |outcome| e.value("cekura_api_requests_total", &[("api", "flaky"), ("outcome", outcome)]);
            failed("rate_limited").unwrap() > 0.0 && failed("server_error").unwrap() > 0.0
        })
        .await;
    check_metrics(&exporter.scrape().await.text);
}

/// `promtool check metrics` has nothing to say.
fn check_metrics(text: &str) {
    let mut promtool = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("promtool is not there; tests/run installs it");
    promtool.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    let output = promtool.wait_with_output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    assert!(output.status.success() && said.is_empty(), "{}", String::from_utf8_lossy(&said));
}
