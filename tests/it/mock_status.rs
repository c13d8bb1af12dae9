//! Agents whose mock status is asked for: what is, what should be, and whether the two agree.

use cekura_exporter::demo::fault::Fault;
use cekura_exporter::demo::simulator::Reply;
use serde_json::{Value, json};

use crate::harness::{Exporter, Exposition, Upstream, eventually};

const LIVE: &str = "cekura_agent_mocks_live";
const SINCE: &str = "cekura_agent_mocks_live_since_timestamp_seconds";
const DRIFT: &str = "cekura_agent_mocks_drift";

async fn agent(exporter: &Exporter, id: u64) -> Value {
    let (status, body) = exporter.get(&format!("/api/v1/agents/default/{id}")).await;
    assert_eq!(status, 200, "{body}");
    serde_json::from_str(&body).unwrap()
}

fn drift(exposition: &Exposition, expect: &str) -> Option<f64> {
    exposition.value(DRIFT, &[("agent_id", "7"), ("expect", expect)])
}

#[tokio::test]
async fn a_toggle_that_completed_and_did_not_take_effect_is_seen_at_once() {
    let upstream = Upstream::start().await;
    upstream.mock_status(7, [Reply::mock_status(false, "vapi")]);
    upstream.script("on", [Reply::task("in_progress", None), Reply::task("completed", Some(true))]);
    let watches = "  - {name: enable, agent_id: 7, progress_id: on, expect: enabled}\n\
                   agents: [{agent_id: 7, labels: {team: bookings}}]\n";
    let exporter = Exporter::polling(&upstream, watches).start().await;
    let e = exporter.scrape_until("drift", |e| drift(e, "enabled") == Some(1.0)).await;
    let labels = [("api", "default"), ("agent_id", "7"), ("team", "bookings")];
    assert_eq!((e.value(LIVE, &labels), e.count(SINCE)), (Some(0.0), 0), "{}", e.text);
    assert_eq!(e.value("cekura_toggle_mock_mismatch", &[]), Some(0.0), "the task says that all is well");
    let info = [("source", "config"), ("provider", "vapi"), ("team", "bookings")];
    assert_eq!((e.value("cekura_agent_info", &info), e.value("cekura_agent_up", &labels)), (Some(1.0), Some(1.0)));
    let shown = agent(&exporter, 7).await;
    let seen =
        ["mocks_live", "should_be", "mocks_drift", "told_by", "source", "poll_error"].map(|key| shown[key].clone());
    assert_eq!(seen, [json!(false), json!("enabled"), json!(true), json!("enable"), json!("config"), Value::Null]);
}

#[tokio::test]
async fn mocks_that_somebody_switched_by_hand_are_seen_and_so_is_that_they_are_right_again() {
    let upstream = Upstream::start().await;
    let [off, on] = [false, true].map(|on| Reply::mock_status(on, "retell"));
    upstream.mock_status(7, [off.clone()]);
    let exporter =
        Exporter::with(Exporter::quick(&upstream, "agents: [{agent_id: 7, expect: disabled}]\n")).start().await;
    let e = exporter.scrape_until("an answer", |e| drift(e, "disabled") == Some(0.0)).await;
    assert_eq!((e.count(SINCE), e.value("cekura_agent_mock_endpoints", &[("kind", "mcp")])), (0, Some(0.0)));
    upstream.mock_status(7, [on]);
    let e = exporter.scrape_until("drift", |e| drift(e, "disabled") == Some(1.0)).await;
    assert_eq!((e.value(LIVE, &[]), e.count(SINCE)), (Some(1.0), 1), "{}", e.text);
    assert_eq!(e.value("cekura_agent_mock_endpoints", &[("kind", "mcp")]), Some(1.0));
    assert!(agent(&exporter, 7).await["mocks_live_since"].is_string());
    let switched = exporter.logged("mocks of agent changed state", 1).await;
    assert_eq!(
        (&switched[0]["from"], &switched[0]["to"], &switched[0]["agent_id"]),
        (&json!("off"), &json!("on"), &json!(7))
    );
    upstream.mock_status(7, [off]);
    let e = exporter.scrape_until("all is well", |e| drift(e, "disabled") == Some(0.0)).await;
    assert_eq!(e.count(SINCE), 0);
}

#[tokio::test]
async fn nothing_is_judged_while_a_run_is_in_progress() {
    let upstream = Upstream::start().await;
    upstream.mock_status(7, [Reply::mock_status(true, "vapi")]);
    upstream.script("off", [Reply::task("in_progress", None)]);
    let config =
        |watches: &str| Exporter::quick(&upstream, &format!("{watches}agents: [{{agent_id: 7, expect: disabled}}]\n"));
    let exporter = Exporter::with(config("")).start().await;
    exporter.scrape_until("drift", |e| drift(e, "disabled") == Some(1.0)).await;
    exporter.reconfigure(config("watches: [{agent_id: 7, progress_id: 'off'}]\n"));
    assert_eq!(exporter.reload().await.0, 200);
    let e = exporter.scrape().await;
    assert_eq!((e.count(DRIFT), e.value(LIVE, &[])), (0, Some(1.0)), "{}", e.text);
    assert_eq!(agent(&exporter, 7).await["mocks_drift"], Value::Null);
    upstream.script("off", [Reply::task("failed", None)]);
    exporter.scrape_until("the run is over", |e| drift(e, "disabled") == Some(1.0)).await;
}

#[tokio::test]
async fn an_agent_that_is_refused_is_alone_in_this_and_keeps_what_is_known_of_it() {
    let upstream = Upstream::start().await;
    upstream.mock_status(7, [Reply::mock_status(true, "bland"), Fault::Forbidden.reply()]);
    upstream.mock_status(8, [Reply::mock_status(false, "bland")]);
    let exporter = Exporter::with(Exporter::quick(&upstream, "agents: [{agent_id: 7}, {agent_id: 8}]\n")).start().await;
    let refused = [("agent_id", "7"), ("reason", "forbidden")];
    let e = exporter.scrape_until("a refusal", |e| e.value("cekura_agent_poll_error", &refused) == Some(1.0)).await;
    let of = |name, id| e.value(name, &[("agent_id", id)]);
    assert_eq!(
        (of("cekura_agent_up", "7"), of(LIVE, "7"), of("cekura_agent_up", "8")),
        (Some(0.0), Some(1.0), Some(1.0))
    );
    assert_eq!(e.value("cekura_api_up", &[]), Some(1.0));
    let shown = agent(&exporter, 7).await;
    let detail = shown["poll_error_detail"].as_str().unwrap();
    assert!(detail.contains("/test_framework/v1/aiagents/7/tools/mock-status/"), "{detail}");
    assert!(shown["poll_failures"].as_u64().unwrap() >= 1);
}

#[tokio::test]
async fn an_api_without_a_toggle_endpoint_is_up_while_it_answers_for_agents() {
    let upstream = Upstream::start().await;
    upstream.mock_status(7, [Reply::mock_status(true, "vapi")]);
    upstream.script("gone", [Fault::NotFound.reply()]);
    let watches = "  - {agent_id: 7, progress_id: gone}\nagents: [{agent_id: 7, expect: disabled}]\n";
    let exporter = Exporter::polling(&upstream, watches).start().await;
    let e = exporter.scrape_until("both were polled", |e| {
        e.poll_error("agent-7").as_deref() == Some("not_found") && drift(e, "disabled") == Some(1.0)
    });
    assert_eq!(e.await.value("cekura_api_up", &[]), Some(1.0), "a run that was never answered is not in progress");
}

#[tokio::test]
async fn what_is_known_of_an_agent_survives_a_restart() {
    let (upstream, folder) = (Upstream::start().await, tempfile::tempdir().unwrap());
    upstream.mock_status(7, [Reply::mock_status(true, "vapi")]);
    let state = folder.path().join("state");
    let more = format!("state_file: {}\nagents: [{{agent_id: 7, expect: disabled}}]\n", state.display());
    let exporter = Exporter::with(Exporter::quick(&upstream, &more)).start().await;
    let e = exporter.scrape_until("drift", |e| drift(e, "disabled") == Some(1.0)).await;
    let since = e.value(SINCE, &[]);
    exporter.stop().await;
    upstream.mock_status(7, [Reply::Silence]);
    let exporter = Exporter::with(Exporter::quick(&upstream, &more)).start().await;
    let e = exporter.scrape().await;
    assert_eq!((drift(&e, "disabled"), e.value(SINCE, &[])), (Some(1.0), since), "{}", e.text);
    assert_eq!(e.value("cekura_agent_info", &[("provider", "vapi")]), Some(1.0));
}

#[tokio::test]
async fn agents_in_watch_files_come_and_go_and_those_of_the_configuration_precede_them() {
    let upstream = Upstream::start().await;
    for id in [7, 8] {
        upstream.mock_status(id, [Reply::mock_status(true, "vapi")]);
    }
    let config =
        |agents: &str| Exporter::quick(&upstream, &format!("watch_files: ['*.agents.yaml']\nagents: {agents}\n"));
    let file = "- {agent_id: 7, expect: enabled}\n- {agent_id: 8, labels: {team: x}}\n";
    let exporter = Exporter::with(config("[]")).file("a.agents.yaml", file).start().await;
    let e = exporter.scrape_until("answers", |e| drift(e, "enabled") == Some(0.0)).await;
    let of_file = |e: &Exposition, id| e.value("cekura_agent_info", &[("agent_id", id), ("source", "file")]);
    assert_eq!((of_file(&e, "7"), of_file(&e, "8")), (Some(1.0), Some(1.0)), "{}", e.text);
    exporter.reconfigure(config("[{agent_id: 7, expect: disabled}]"));
    assert_eq!(exporter.reload().await.0, 200);
    let e = exporter.scrape().await;
    assert_eq!((drift(&e, "disabled"), drift(&e, "enabled"), of_file(&e, "7")), (Some(1.0), None, None), "{}", e.text);
    let agents = |e: &Exposition, name, source| e.value(name, &[("source", source)]);
    let counts = [
        ("cekura_exporter_agents", "config"),
        ("cekura_exporter_agents", "file"),
        ("cekura_exporter_agents_rejected", "file"),
    ];
    assert_eq!(counts.map(|(name, source)| agents(&e, name, source)), [Some(1.0); 3]);
    assert_eq!(exporter.logged("agent refused: another source defines it", 1).await[0]["by_source"], "config");
    exporter.place("a.agents.yaml", "[]");
    let e =
        exporter.scrape_until("the file is empty", |e| agents(e, "cekura_exporter_agents", "file") == Some(0.0)).await;
    assert_eq!(e.count("cekura_agent_info"), 1, "{}", e.text);
}

#[tokio::test]
async fn an_agent_is_asked_at_its_interval_and_again_when_a_run_of_it_finished() {
    let upstream = Upstream::start().await;
    upstream.mock_status(7, [Reply::mock_status(false, "vapi")]);
    upstream.script("on", [Reply::task("in_progress", None)]);
    let config = format!(
        "apis: {{default: {{base_url: {}, api_key: k}}}}\npolling: {{agent_interval: 1h, min_interval: 50ms, max_interval: 50ms}}\n\
         agents: [{{agent_id: 7}}]\nwatches: [{{agent_id: 7, progress_id: 'on'}}]\n",
        upstream.url()
    );
    let exporter = Exporter::with(config).start().await;
    eventually("ten polls of the run", async || (upstream.polls_of("on") >= 10).then_some(())).await;
    assert_eq!(upstream.asked(7), 1);
    upstream.script("on", [Reply::task("completed", Some(true))]);
    exporter.scrape_until("drift", |e| drift(e, "enabled") == Some(1.0)).await;
    eventually("it is asked again and again", async || (upstream.asked(7) >= 4).then_some(())).await;
}

#[tokio::test]
async fn a_client_can_wait_for_what_is_live() {
    let upstream = Upstream::start().await;
    upstream.mock_status(7, [Reply::mock_status(false, "vapi")]);
    upstream.script("told", [Reply::task("completed", Some(true))]);
    let watches = "  - {agent_id: 8, progress_id: told}\nagents: [{agent_id: 7}]\n";
    let exporter = Exporter::polling(&upstream, watches).start().await;
    exporter
        .scrape_until("both are known", |e| e.value(LIVE, &[]) == Some(0.0) && e.count("cekura_agent_mock_enabled") > 0)
        .await;
    let waiting = exporter.get("/api/v1/agents/default/7?wait=1m&live=enabled");
    let switching = async {
        let asked = upstream.asked(7);
        eventually("it is asked for the client", async || (upstream.asked(7) >= asked + 2).then_some(())).await;
        upstream.mock_status(7, [Reply::mock_status(true, "vapi")]);
    };
    let ((status, body), ()) = tokio::join!(waiting, switching);
    let shown: Value = serde_json::from_str(&body).unwrap();
    assert_eq!((status, &shown["mocks_live"]), (200, &json!(true)));
    let (status, body) = exporter.get("/api/v1/agents/default/7?wait=300ms&live=disabled").await;
    assert!(status == 200 && body.contains(r#""mocks_live":true"#), "the time is over: {body}");
    assert_eq!(exporter.get("/api/v1/agents/default/8?wait=1m&live=enabled").await.0, 409, "it is not asked");
    assert_eq!(exporter.get("/api/v1/agents/default/9?wait=1m&live=enabled").await.0, 404);
    for query in ["wait=1m", "live=enabled", "wait=1m&live=on", "wait=1&live=enabled", "wait=1m&live=enabled&x=1"] {
        assert_eq!(exporter.get(&format!("/api/v1/agents/default/7?{query}")).await.0, 400, "{query}");
    }
}

#[tokio::test]
async fn an_answer_from_before_a_client_waited_does_not_count() {
    let upstream = Upstream::start().await;
    upstream.mock_status(7, [Reply::mock_status(true, "vapi"), Reply::mock_status(false, "vapi")]);
    let config = format!(
        "apis: {{default: {{base_url: {}, api_key: k}}}}\npolling: {{agent_interval: 1h, min_interval: 50ms}}\nagents: [{{agent_id: 7}}]\n",
        upstream.url()
    );
    let exporter = Exporter::with(config).start().await;
    exporter.scrape_until("mocks are on", |e| e.value(LIVE, &[]) == Some(1.0)).await;
    let (status, body) = exporter.get("/api/v1/agents/default/7?wait=500ms&live=enabled").await;
    assert!(status == 200 && body.contains(r#""mocks_live":false"#), "{body}");
}

#[tokio::test]
async fn neither_urls_nor_keys_nor_tool_names_of_a_mock_status_are_shown_anywhere() {
    let upstream = Upstream::start().await;
    let body = json!({
        "mock_enabled": true, "provider": "https://secret.invalid/provider", "assistant_id": "assistant-secret",
        "mcp_endpoints": [{"mock_index": 0, "url": "https://secret.invalid/mcp", "tool_names": ["tool-secret"]}],
        "tool_endpoints": [{"tool_name": "tool-secret", "url": "https://secret.invalid/tool"}],
    });
    upstream.mock_status(7, [Reply::new(200, body.to_string())]);
    upstream.mock_status(8, [Reply::detail(400, "see https://secret.invalid/why, sk-test-key-73")]);
    let agents = "agents: [{agent_id: 7, expect: disabled}, {agent_id: 8}]\n";
    let exporter = Exporter::with(Exporter::quick(&upstream, agents)).arg("--log.level=trace").start().await;
    exporter.scrape_until("both were asked", |e| e.count("cekura_agent_up") == 2).await;
    let mut said = exporter.errors();
    for path in ["/metrics", "/", "/api/v1/agents", "/api/v1/status", "/config"] {
        said += &exporter.get(path).await.1;
    }
    assert!(
        !said.contains("secret.invalid") && !said.contains("-secret") && !said.contains("sk-test-key-73"),
        "{said}"
    );
    assert!(said.contains(r#"provider="other""#));
}
