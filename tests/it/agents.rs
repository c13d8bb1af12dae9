//! Agents: whether their mocks are on, who said so, and how that is put right by hand.

use cekura_exporter::demo::simulator::Reply;
use reqwest::Method;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::harness::{Exporter, Exposition, Upstream};

const ON: &str = "cekura_agent_mock_enabled";
const SINCE: &str = "cekura_agent_mock_enabled_since_timestamp_seconds";

/// The configuration of an exporter that keeps its state and takes registrations, with more text.
fn registering(upstream: &Upstream, folder: &TempDir, more: &str) -> String {
    Exporter::registering(upstream, &folder.path().join("state")) + more
}

async fn agent(exporter: &Exporter, path: &str) -> (u16, Value) {
    let (status, body) = exporter.get(&format!("/api/v1/agents{path}")).await;
    (status, serde_json::from_str(&body).unwrap())
}

async fn forget(exporter: &Exporter, path: &str) -> u16 {
    exporter.request(Method::DELETE, &format!("/api/v1/agents{path}")).await.status().as_u16()
}

#[tokio::test]
async fn an_agent_has_the_labels_of_the_watch_that_said_so_also_after_that_is_gone_and_after_a_restart() {
    let (upstream, folder) = (Upstream::start().await, tempfile::tempdir().unwrap());
    upstream.script("on", [Reply::task("completed", Some(true))]);
    let config = registering(&upstream, &folder, "");
    let exporter = Exporter::with(&*config).start().await;
    let body = json!({"agent_id": 7, "progress_id": "on", "labels": {"team": "payments"}});
    assert_eq!(exporter.put("enable", &body).await.0, 201);
    let labels = [("api", "default"), ("agent_id", "7"), ("team", "payments")];
    let on = |e: &Exposition| e.value(ON, &labels) == Some(1.0) && e.value(SINCE, &labels).is_some();
    exporter.scrape_until("mocks are on", on).await;
    let relabelled = json!({"agent_id": 7, "progress_id": "on", "labels": {"team": "platform"}});
    assert_eq!(exporter.put("enable", &relabelled).await.0, 200);
    let labels = [("api", "default"), ("agent_id", "7"), ("team", "platform")];
    let on = |e: &Exposition| e.value(ON, &labels) == Some(1.0) && e.value(SINCE, &labels).is_some();
    let e = exporter.scrape_until("the labels are those of now", on).await;
    assert_eq!(e.count(ON), 1, "{}", e.text);
    assert_eq!(exporter.delete("enable").await, 204);
    exporter.stop().await;
    let exporter = Exporter::with(config).start().await;
    exporter.scrape_until("mocks are on", on).await;
    let (status, shown) = agent(&exporter, "/default/7").await;
    assert_eq!((status, &shown["told_by"], &shown["labels"]["team"]), (200, &json!("enable"), &json!("platform")));
    assert_eq!(agent(&exporter, "").await.1, json!({ "agents": [shown] }));
}

#[tokio::test]
async fn what_was_put_right_by_hand_is_forgotten_until_a_newer_run_says_something() {
    let (upstream, folder) = (Upstream::start().await, tempfile::tempdir().unwrap());
    for id in ["on", "again"] {
        upstream.script(id, [Reply::task("completed", Some(true))]);
    }
    let config = registering(&upstream, &folder, "");
    let exporter = Exporter::with(&*config).start().await;
    assert_eq!(forget(&exporter, "/default/7").await, 404, "nothing is known");
    exporter.put("enable", &json!({"agent_id": 7, "progress_id": "on"})).await;
    exporter.scrape_until("mocks are on", |e| e.value(ON, &[]) == Some(1.0)).await;
    for wrong in ["/default/8", "/default/07", "/eu/7", "/DEFAULT/7", "/default/x"] {
        assert_eq!(forget(&exporter, wrong).await, 404, "{wrong}");
    }
    assert_eq!(forget(&exporter, "/default/7").await, 204);
    assert_eq!(exporter.scrape().await.count(ON), 0);
    assert_eq!(forget(&exporter, "/default/7").await, 404, "it is forgotten");
    let known = agent(&exporter, "/default/7").await.1;
    assert_eq!((&known["mock_enabled"], &known["told_by"]), (&Value::Null, &Value::Null));
    exporter.kill().await;
    let exporter = Exporter::with(config).start().await;
    exporter.scrape_until("the run is known again", |e| e.status("enable").as_deref() == Some("completed")).await;
    assert_eq!(exporter.scrape().await.count(ON), 0, "the run that said so is not asked again");
    exporter.put("enable", &json!({"agent_id": 7, "progress_id": "again"})).await;
    exporter.scrape_until("mocks are on again", |e| e.value(ON, &[]) == Some(1.0)).await;
}

#[tokio::test]
async fn a_configured_agent_shows_what_it_should_be_until_a_toggle_says_otherwise() {
    let (upstream, folder) = (Upstream::start().await, tempfile::tempdir().unwrap());
    upstream.script("off", [Reply::task("completed", Some(false))]);
    let agents = "agents:\n  - {agent_id: 7, expect: enabled, labels: {team: payments}}\n  - {agent_id: 8}\n";
    let exporter = Exporter::with(registering(&upstream, &folder, agents)).start().await;
    let e = exporter.scrape().await;
    let labels = [("api", "default"), ("agent_id", "7"), ("team", "payments"), ("expect", "enabled")];
    assert_eq!((e.value("cekura_agent_expected", &labels), e.count("cekura_agent_expected")), (Some(1.0), 1));
    let shown = agent(&exporter, "/default/7").await.1;
    assert_eq!((&shown["expect"], &shown["should_be"]), (&json!("enabled"), &json!("enabled")));
    assert_eq!((&shown["labels"]["team"], &shown["mock_enabled"]), (&json!("payments"), &Value::Null));
    assert_eq!(agent(&exporter, "/default/8").await.1["should_be"], Value::Null);
    exporter.put("disable", &json!({"agent_id": 7, "progress_id": "off"})).await;
    exporter.scrape_until("mocks are off", |e| e.value(ON, &[]) == Some(0.0)).await;
    let shown = agent(&exporter, "/default/7").await.1;
    assert_eq!((&shown["expect"], &shown["should_be"]), (&json!("enabled"), &json!("disabled")));
    assert_eq!(agent(&exporter, "/default/9").await.0, 404);
    exporter.reconfigure(registering(&upstream, &folder, ""));
    assert_eq!(exporter.reload().await.0, 200);
    assert_eq!(exporter.scrape().await.count("cekura_agent_expected"), 0);
    let (post, allowed) =
        (exporter.request(Method::POST, "/api/v1/agents/default/7").await, "GET, HEAD, DELETE, OPTIONS");
    assert_eq!((post.status().as_u16(), post.headers()["allow"].to_str().unwrap()), (405, allowed));
}
