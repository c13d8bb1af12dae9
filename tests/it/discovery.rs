//! Discovering agents: an exporter that has only a key is of use.

use std::sync::Arc;

use cekura_exporter::demo::agents::{SimulatedAgent, SimulatedAgents};
use cekura_exporter::demo::fault::Fault;
use cekura_exporter::demo::simulator::{Reply, Simulator};
use serde_json::json;

use crate::harness::{Exporter, KEY, Postgres, Upstream, eventually};

const DISCOVERED: [(&str, &str); 1] = [("source", "discovered")];
const UP: (&str, [(&str, &str); 2]) = ("cekura_exporter_source_up", [("source", "discovery"), ("path", "default")]);

fn discovering(url: &str, more: &str) -> String {
    format!(
        "apis: {{default: {{base_url: {url}, api_key: {KEY}, discover_agents: true, requests_per_second: 1000}}}}\n\
         polling: {{agent_interval: 100ms, min_interval: 50ms, backoff_max: 100ms}}\n{more}"
    )
}

fn page(ids: &[u64], next: Option<&str>) -> Reply {
    let results: Vec<_> =
        ids.iter().map(|id| json!({"id": id, "mock_tools": [{}], "provider": {"type": "vapi"}})).collect();
    Reply::new(200, json!({"count": ids.len(), "next": next, "previous": null, "results": results}).to_string())
}

#[tokio::test]
async fn a_key_alone_is_enough_to_ask_every_agent_with_mock_tools() {
    let agents = Arc::new(SimulatedAgents::default());
    for id in 1..=250 {
        agents.put(id, SimulatedAgent { mock_enabled: id % 2 == 0, provider: "vapi", mock_tools: u32::from(id > 10) });
    }
    let answering = agents.clone();
    let address = Arc::new(std::sync::OnceLock::new());
    let origin = address.clone();
    let upstream = Simulator::start(move |request| {
        let origin: &String = origin.get().unwrap();
        answering.answer(request, origin).unwrap_or_else(|| Reply::detail(404, "Not found."))
    });
    let upstream = upstream.await.unwrap();
    let url = address.get_or_init(|| format!("http://{}", upstream.address())).clone();
    let exporter = Exporter::with(discovering(&url, "")).start().await;
    let e = exporter.scrape_until("all were asked", |e| e.count("cekura_agent_mocks_live") == 240).await;
    assert_eq!(e.value("cekura_agent_info", &[("agent_id", "10")]), None, "it has no mock tools");
    let info = [("agent_id", "250"), ("source", "discovered"), ("provider", "vapi")];
    assert_eq!((e.value("cekura_agent_info", &info), e.value(UP.0, &UP.1)), (Some(1.0), Some(1.0)));
    assert_eq!(e.value("cekura_exporter_agents", &DISCOVERED), Some(240.0));
    assert_eq!(e.count("cekura_agent_mocks_live_since_timestamp_seconds"), 120);
    assert_eq!(e.count("cekura_agent_mocks_drift"), 0, "nothing says what they should be");
    exporter.reconfigure(discovering(&url, "").replace("discover_agents: true", "discover_agents: false"));
    assert_eq!(exporter.reload().await.0, 200);
    let e = exporter.scrape().await;
    assert_eq!((e.count("cekura_agent_info"), e.value(UP.0, &UP.1)), (0, None), "{}", e.text);
}

#[tokio::test]
async fn a_list_that_cannot_be_read_is_a_source_that_is_down_until_it_can() {
    let upstream = Upstream::start().await;
    upstream.page(1, [Fault::ServerError.reply()]);
    let exporter = Exporter::with(discovering(&upstream.url(), "")).start().await;
    exporter.scrape_until("the source is down", |e| e.value(UP.0, &UP.1) == Some(0.0)).await;
    let failed = exporter.logged("agents could not be listed: the last list stays", 1).await;
    assert_eq!((&failed[0]["api"], &failed[0]["reason"]), (&json!("default"), &json!("server_error")));
    upstream.mock_status(7, [Reply::mock_status(true, "vapi")]);
    upstream.page(1, [page(&[7], None)]);
    let e = exporter.scrape_until("the agent is asked", |e| e.value("cekura_agent_mocks_live", &[]) == Some(1.0)).await;
    assert_eq!(e.value(UP.0, &UP.1), Some(1.0));
    exporter.logged("agents are listed again", 1).await;
}

#[tokio::test]
async fn discovered_agents_are_asked_after_a_restart_although_they_cannot_be_listed() {
    let upstream = Upstream::start().await;
    let state = tempfile::tempdir().unwrap();
    let config = discovering(&upstream.url(), &format!("state_file: {}\n", state.path().join("state").display()));
    for id in [7, 8] {
        upstream.mock_status(id, [Reply::mock_status(true, "vapi")]);
    }
    upstream.page(1, [page(&[7, 8], None)]);
    let exporter = Exporter::with(&config).start().await;
    exporter.scrape_until("both were asked", |e| e.count("cekura_agent_mocks_live") == 2).await;
    exporter.stop().await;

    upstream.page(1, [Fault::ServerError.reply()]);
    let asked = upstream.asked(7);
    let exporter = Exporter::with(&config).start().await;
    let e = exporter.scrape_until("the list cannot be read", |e| e.value(UP.0, &UP.1) == Some(0.0)).await;
    assert_eq!(e.value("cekura_exporter_agents", &DISCOVERED), Some(2.0));
    let info = [("agent_id", "7"), ("source", "discovered"), ("provider", "vapi")];
    assert_eq!((e.value("cekura_agent_info", &info), e.count("cekura_agent_mocks_live")), (Some(1.0), 2), "{}", e.text);
    eventually("it is asked again", async || (upstream.asked(7) >= asked + 2).then_some(())).await;

    upstream.page(1, [page(&[8], None)]);
    let e = exporter.scrape_until("the list is read", |e| e.value(UP.0, &UP.1) == Some(1.0)).await;
    assert_eq!(e.count("cekura_agent_info"), 2, "one list without it is not enough: {}", e.text);
}

#[tokio::test]
async fn a_replica_asks_agents_that_another_one_discovered_although_they_cannot_be_listed() {
    let (upstream, postgres) = (Upstream::start().await, Postgres::start().await);
    let config = discovering(&upstream.url(), &format!("database: {{url: \"{}\", lease: 3s}}\n", postgres.url()));
    for id in [7, 8] {
        upstream.mock_status(id, [Reply::mock_status(true, "vapi")]);
    }
    upstream.page(1, [page(&[7, 8], None)]);
    let first = Exporter::with(&config).start().await;
    first.scrape_until("both were asked", |e| e.count("cekura_agent_mocks_live") == 2).await;

    upstream.page(1, [Fault::ServerError.reply()]);
    let second = Exporter::with(&config).start().await;
    second.scrape_until("the list cannot be read", |e| e.value(UP.0, &UP.1) == Some(0.0)).await;
    first.stop().await;
    second.scrape_until("it has both", |e| e.count("cekura_agent_mocks_live") == 2).await;
    // The intake counts them a moment after it has handed them to the poller.
    second.scrape_until("it counts both", |e| e.value("cekura_exporter_agents", &DISCOVERED) == Some(2.0)).await;
    let asked = upstream.asked(7);
    eventually("it asks them", async || (upstream.asked(7) >= asked + 2).then_some(())).await;

    upstream.page(1, [page(&[8], None)]);
    let e = second.scrape_until("the list is read", |e| e.value(UP.0, &UP.1) == Some(1.0)).await;
    assert_eq!(e.count("cekura_agent_info"), 2, "one list without it is not enough: {}", e.text);
}

#[tokio::test]
async fn another_base_url_has_its_agents_listed_at_once() {
    let (upstream, other) = (Upstream::start().await, Upstream::start().await);
    upstream.page(1, [page(&[7], None)]);
    other.page(1, [page(&[8], None)]);
    other.mock_status(8, [Reply::mock_status(true, "vapi")]);
    let exporter = Exporter::with(discovering(&upstream.url(), "")).start().await;
    exporter.scrape_until("the first one is listed", |e| e.count("cekura_agent_info") == 1).await;
    exporter.reconfigure(discovering(&other.url(), ""));
    assert_eq!(exporter.reload().await.0, 200);
    let of_other = [("agent_id", "8")];
    exporter.scrape_until("the other one is asked", |e| e.value("cekura_agent_mocks_live", &of_other).is_some()).await;
}

#[tokio::test]
async fn a_next_page_on_another_origin_is_not_followed() {
    let (upstream, other) = (Upstream::start().await, Upstream::start().await);
    let elsewhere = format!("{}/test_framework/v2/aiagents/?page=2", other.url());
    upstream.page(1, [page(&[7], Some(&elsewhere))]);
    other.page(2, [page(&[8], None)]);
    let exporter = Exporter::with(discovering(&upstream.url(), "")).start().await;
    let e = exporter.scrape_until("the source is down", |e| e.value(UP.0, &UP.1) == Some(0.0)).await;
    assert_eq!(e.count("cekura_agent_info"), 0, "half a list is none");
    eventually("it is tried again", async || (upstream.listed(1) >= 3).then_some(())).await;
    assert_eq!(other.requests().len(), 0, "the key is for its own API only");
    let failed = exporter.logged("agents could not be listed: the last list stays", 1).await;
    assert!(failed[0]["detail"].as_str().unwrap().contains("another origin"), "{}", failed[0]);
}

#[tokio::test]
async fn a_configured_agent_precedes_the_same_agent_discovered() {
    let upstream = Upstream::start().await;
    for id in [7, 8] {
        upstream.mock_status(id, [Reply::mock_status(true, "vapi")]);
    }
    upstream.page(1, [page(&[7, 8], Some("/test_framework/v2/aiagents/?page=2"))]);
    upstream.page(2, [page(&[8], None)]);
    let agents = "agents: [{agent_id: 7, expect: disabled, labels: {team: x}}]\n";
    let exporter = Exporter::with(discovering(&upstream.url(), agents)).start().await;
    let e = exporter.scrape_until("both were asked", |e| e.count("cekura_agent_mocks_live") == 2).await;
    let info = |id, source| e.value("cekura_agent_info", &[("agent_id", id), ("source", source)]);
    assert_eq!((info("7", "config"), info("8", "discovered"), e.count("cekura_agent_info")), (Some(1.0), Some(1.0), 2));
    assert_eq!(e.value("cekura_agent_mocks_drift", &[("team", "x")]), Some(1.0));
    assert_eq!(e.value("cekura_exporter_agents_rejected", &DISCOVERED), Some(0.0), "that is no mistake");
}

#[tokio::test]
async fn an_api_that_refuses_the_key_of_a_listing_is_not_up() {
    let upstream = Upstream::start().await;
    upstream.page(1, [Fault::Unauthorized.reply()]);
    let exporter = Exporter::with(discovering(&upstream.url(), "")).start().await;
    let e = exporter.scrape_until("the API is down", |e| e.value("cekura_api_up", &[]) == Some(0.0)).await;
    assert_eq!(e.value("cekura_api_requests_total", &[("outcome", "unauthorized")]).map(|n| n > 0.0), Some(true));
}
