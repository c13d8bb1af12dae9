//! The demo: every kind of run and of mock state, without configuration, key or network.

use std::io::Write;
use std::process::{Command, Stdio};

use crate::harness::{Exporter, Exposition, newest_tool, tool};

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

#[tokio::test]
async fn the_demo_shows_agents_that_are_well_that_drift_and_that_are_discovered() {
    let exporter = Exporter::with("").arg("--demo").start().await;
    let drift = |e: &Exposition, id: &str, expect: &str| {
        e.value("cekura_agent_mocks_drift", &[("agent_id", id), ("expect", expect)])
    };
    let until = async |what: &str, id: &str, expect: &str, value: f64| {
        exporter.scrape_until(what, |e| drift(e, id, expect) == Some(value)).await;
    };
    until("one is switched by hand", "4440", "disabled", 1.0).await;
    until("a toggle took effect", "4321", "enabled", 0.0).await;
    until("another one did not", "4420", "enabled", 1.0).await;
    let e = exporter.scrape_until("mocks are on in the flaky API", |e| drift(e, "77", "enabled") == Some(0.0)).await;
    assert_eq!((drift(&e, "4430", "disabled"), drift(&e, "4322", "disabled")), (Some(1.0), Some(0.0)), "{}", e.text);
    let info = |id| e.value("cekura_agent_info", &[("agent_id", id), ("source", "discovered")]);
    assert_eq!((info("5100"), info("5200")), (Some(1.0), None), "one of them has no mock tools");
    let live = |id| e.value("cekura_agent_mocks_live", &[("agent_id", id)]);
    assert_eq!((live("5100"), live("5200"), drift(&e, "5100", "disabled")), (Some(1.0), None, None));
    until("it is switched back", "4440", "disabled", 0.0).await;
    check_metrics(&exporter.scrape().await.text);
}

/// `promtool check metrics` has nothing to say, neither the oldest one nor the newest.
fn check_metrics(text: &str) {
    for promtool in [tool("promtool"), newest_tool("promtool")] {
        let mut child = Command::new(promtool)
            .args(["check", "metrics"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        let said = [output.stdout, output.stderr].concat();
        assert!(output.status.success() && said.is_empty(), "{}", String::from_utf8_lossy(&said));
    }
}
