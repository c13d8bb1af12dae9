//! Waiting for a run to finish.

use std::path::Path;
use std::time::{Duration, Instant};

use cekura_exporter::demo::simulator::Reply;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::harness::{Exporter, Upstream, eventually};

async fn registering(upstream: &Upstream) -> Exporter {
    Exporter::with(Exporter::registering(upstream, Path::new("state"))).start().await
}

fn task(progress_id: &str) -> Value {
    json!({"agent_id": 7, "progress_id": progress_id})
}

/// Waits for the toggle in the background, and returns when the exporter has the connection.
pub(crate) async fn waiting(exporter: &Exporter, query: &str) -> tokio::task::JoinHandle<reqwest::Response> {
    let open = async || exporter.scrape().await.value("cekura_exporter_http_connections", &[]).unwrap();
    let mut before = 0.0;
    eventually("connections that ended are gone", async || {
        let last = std::mem::replace(&mut before, open().await);
        (last.to_bits() == before.to_bits()).then_some(())
    })
    .await;
    // With a client of its own, so that it takes no connection that is there.
    let http = reqwest::Client::builder().no_proxy().pool_max_idle_per_host(0).build().unwrap();
    let sending = http.get(format!("{}/api/v1/toggles/a?{query}", exporter.urls[0])).send();
    let waiting = tokio::spawn(async move { sending.await.unwrap() });
    eventually("it waits", async || (open().await > before).then_some(())).await;
    waiting
}

#[tokio::test]
async fn a_waiter_is_told_when_the_run_finishes() {
    let upstream = Upstream::start().await;
    upstream.script("p", [Reply::task("in_progress", None)]);
    let exporter = registering(&upstream).await;
    exporter.put("a", &task("p")).await;
    let waiter = waiting(&exporter, "wait=10m").await;
    let bound = waiting(&exporter, "wait=10m&progress_id=p").await;
    assert!(!waiter.is_finished());
    upstream.script("p", [Reply::task("completed", Some(true))]);
    for waiter in [waiter, bound] {
        let answer = waiter.await.unwrap();
        assert_eq!(answer.status(), 200);
        let toggle: Value = serde_json::from_str(&answer.text().await.unwrap()).unwrap();
        assert_eq!((&toggle["status"], &toggle["mock_enabled"]), (&json!("completed"), &json!(true)));
        assert_eq!(toggle, exporter.toggle("a").await, "it is the answer of GET");
    }
    let (status, _) = exporter.get("/api/v1/toggles/a?wait=10m&progress_id=p").await;
    assert_eq!(status, 200, "a finished run is answered at once");
    let head = exporter.request(Method::HEAD, "/api/v1/toggles/a?wait=10m").await;
    assert_eq!(head.status(), 200);
}

#[tokio::test]
async fn a_waiter_whose_time_is_over_is_told_the_state_as_it_is() {
    let upstream = Upstream::start().await;
    upstream.script("p", [Reply::task("in_progress", None)]);
    let exporter = registering(&upstream).await;
    exporter.put("a", &task("p")).await;
    exporter.scrape_until("it is in progress", |e| e.status("a").as_deref() == Some("in_progress")).await;
    let begun = Instant::now();
    let (status, text) = exporter.get("/api/v1/toggles/a?wait=300ms").await;
    let toggle: Value = serde_json::from_str(&text).unwrap();
    assert_eq!((status, &toggle["status"]), (200, &json!("in_progress")));
    assert!(begun.elapsed() >= Duration::from_millis(300));
}

#[tokio::test]
async fn nobody_is_told_of_another_run() {
    let upstream = Upstream::start().await;
    upstream.script("p1", [Reply::task("in_progress", None)]);
    upstream.script("p2", [Reply::task("completed", Some(true))]);
    let exporter = registering(&upstream).await;
    exporter.put("a", &task("p1")).await;
    let waiter = waiting(&exporter, "wait=10m").await;
    exporter.put("a", &task("p2")).await;
    assert_eq!(waiter.await.unwrap().status(), 409);
    exporter.scrape_until("the other one completed", |e| e.status("a").as_deref() == Some("completed")).await;
    assert_eq!(exporter.get("/api/v1/toggles/a?wait=10m&progress_id=p1").await.0, 409);
    assert_eq!(exporter.get("/api/v1/toggles/a?progress_id=p1").await.0, 409);
    assert_eq!(exporter.get("/api/v1/toggles/a?progress_id=p2").await.0, 200);
    // The same task of another agent is another run.
    exporter.put("a", &task("p1")).await;
    let waiter = waiting(&exporter, "wait=10m&progress_id=p1").await;
    exporter.put("a", &json!({"agent_id": 8, "progress_id": "p1"})).await;
    assert_eq!(waiter.await.unwrap().status(), 409);
}

#[tokio::test]
async fn a_waiter_ends_when_its_watch_is_removed() {
    let upstream = Upstream::start().await;
    upstream.script("p", [Reply::task("in_progress", None)]);
    let exporter = registering(&upstream).await;
    exporter.put("a", &task("p")).await;
    let waiter = waiting(&exporter, "wait=10m").await;
    exporter.put("a", &json!({"agent_id": 7, "progress_id": "p", "labels": {"team": "x"}})).await;
    assert_eq!(exporter.delete("a").await, 204);
    assert_eq!(waiter.await.unwrap().status(), 404);
    assert_eq!(exporter.get("/api/v1/toggles/a?wait=10m").await.0, 404);
}

#[tokio::test]
async fn a_waiter_is_asked_to_come_again_when_the_exporter_stops() {
    let upstream = Upstream::start().await;
    upstream.script("p", [Reply::task("in_progress", None)]);
    let exporter = registering(&upstream).await;
    exporter.put("a", &task("p")).await;
    let waiter = waiting(&exporter, "wait=10m").await;
    exporter.stop().await;
    let answer = waiter.await.unwrap();
    assert_eq!(answer.status(), StatusCode::SERVICE_UNAVAILABLE);
    let seconds: u64 = answer.headers()["retry-after"].to_str().unwrap().parse().unwrap();
    assert!((1..60).contains(&seconds));
}

#[tokio::test]
async fn what_cannot_be_asked_for_is_said() {
    let exporter = Exporter::with("watches: [{name: a, agent_id: 1, progress_id: p}]\n").start().await;
    for query in ["wait=5", "wait=soon", "wait=-1s", "wait", "wait=1s&wait=1s", "progres_id=p", "x"] {
        let (status, text) = exporter.get(&format!("/api/v1/toggles/a?{query}")).await;
        assert_eq!(status, 400, "{query}: {text}");
    }
    assert_eq!(exporter.get("/api/v1/toggles?wait=5m").await.0, 400);
}
