//! What the metrics and the JSON API say of runs.

use cekura_exporter::demo::simulator::Reply;

use crate::harness::{Exporter, Upstream, eventually};

fn watch(name: &str, agent_id: u32, more: &str) -> String {
    format!("  - {{name: {name}, agent_id: {agent_id}, progress_id: {name}{more}}}\n")
}

#[tokio::test]
async fn a_run_is_followed_from_unknown_over_in_progress_to_completed() {
    let upstream = Upstream::start().await;
    upstream.script("a", [Reply::Silence]);
    let silent = Exporter::polling(&upstream, &watch("a", 1, ", expect: enabled")).start().await;
    let before = silent.scrape().await;
    let a = [("toggle", "a"), ("api", "default"), ("agent_id", "1")];
    assert_eq!(before.status("a").as_deref(), Some("unknown"));
    assert_eq!(before.value("cekura_toggle_up", &a), None);
    assert_eq!(before.value("cekura_toggle_polls_total", &a), Some(0.0));
    assert_eq!(before.value("cekura_toggle_mock_mismatch", &a), Some(0.0));
    drop(silent);

    let completed = r#"{"status":"completed","mock_enabled":true,"message":"on","error":null,
        "mcp_endpoints":[{"mock_index":0,"url":"https://mock.invalid/0","tool_names":["x","y"]}]}"#;
    upstream.script("a", [Reply::task("in_progress", None), Reply::new(200, completed)]);
    let exporter = Exporter::polling(&upstream, &watch("a", 1, ", expect: enabled")).start().await;
    let after = exporter.scrape_until("it completed", |e| e.status("a").as_deref() == Some("completed")).await;
    for (name, value) in [
        ("cekura_toggle_up", 1.0),
        ("cekura_toggle_mock_enabled", 1.0),
        ("cekura_toggle_mock_mismatch", 0.0),
        ("cekura_toggle_mcp_endpoints", 1.0),
        ("cekura_toggle_mcp_tools", 2.0),
        ("cekura_toggle_polls_total", 2.0),
        ("cekura_toggle_poll_failures_total", 0.0),
    ] {
        assert_eq!(after.value(name, &a), Some(value), "{name}");
    }
    let info = [("progress_id", "a"), ("source", "config"), ("expect", "enabled")];
    assert_eq!(after.value("cekura_toggle_info", &info), Some(1.0));
    let finished = |status| after.value("cekura_toggle_finished_total", &[("toggle", "a"), ("status", status)]);
    assert_eq!((finished("completed"), finished("failed")), (Some(1.0), Some(0.0)));
    assert_eq!(after.value("cekura_agent_mock_enabled", &[("api", "default"), ("agent_id", "1")]), Some(1.0));
    let api = [("api", "default")];
    let outcome = |outcome| after.value("cekura_api_runs_finished_total", &[api[0], ("outcome", outcome)]);
    assert_eq!((outcome("completed"), outcome("mismatched"), outcome("failed")), (Some(1.0), Some(0.0), Some(0.0)));
    let durations = after.value("cekura_toggle_duration_seconds_count", &[api[0], ("status", "completed")]);
    assert_eq!(durations, Some(1.0));
    assert_eq!(after.value("cekura_api_request_duration_seconds_count", &api), Some(2.0));
    assert_eq!(after.value("cekura_exporter_poll_lag_seconds_count", &api), Some(2.0));
    assert_eq!(after.value("cekura_exporter_watches", &[("source", "config")]), Some(1.0));
}

#[tokio::test]
async fn a_run_that_completes_in_the_wrong_state_is_a_mismatch() {
    let upstream = Upstream::start().await;
    upstream.script("off", [Reply::task("completed", Some(false))]);
    upstream.script("nothing", [Reply::task("completed", None)]);
    upstream.script("on", [Reply::task("completed", Some(true))]);
    let watches =
        watch("off", 1, ", expect: enabled") + &watch("nothing", 2, ", expect: disabled") + &watch("on", 3, "");
    let exporter = Exporter::polling(&upstream, &watches).start().await;
    let e = exporter
        .scrape_until("all completed", |e| {
            ["off", "nothing", "on"].iter().all(|toggle| e.status(toggle).as_deref() == Some("completed"))
        })
        .await;
    let mismatch = |toggle| e.value("cekura_toggle_mock_mismatch", &[("toggle", toggle)]);
    assert_eq!((mismatch("off"), mismatch("nothing"), mismatch("on")), (Some(1.0), Some(1.0), None));
    assert_eq!(e.value("cekura_toggle_mock_enabled", &[("toggle", "nothing")]), None);
    let outcome = |outcome| e.value("cekura_api_runs_finished_total", &[("outcome", outcome)]);
    assert_eq!((outcome("mismatched"), outcome("completed")), (Some(2.0), Some(1.0)));
    assert_eq!(exporter.logged("toggle completed in another state than expected", 2).await.len(), 2);
    assert_eq!(exporter.toggle("off").await["mismatch"], true);
}

#[tokio::test]
async fn an_answer_that_is_malformed_in_part_counts_and_the_part_is_said_once() {
    let upstream = Upstream::start().await;
    let odd = r#"{"status":"in_progress","mock_enabled":true,"mcp_endpoints":"none","message":{"a":1},"error":null}"#;
    upstream.script("o", [Reply::new(200, odd)]);
    let exporter = Exporter::polling(&upstream, &watch("o", 1, "")).start().await;
    let e = exporter
        .scrape_until("it was answered often", |e| e.value("cekura_api_malformed_answers_total", &[]) >= Some(3.0))
        .await;
    assert_eq!(e.status("o").as_deref(), Some("in_progress"));
    assert_eq!(e.value("cekura_toggle_mock_enabled", &[]), Some(1.0));
    assert_eq!(e.value("cekura_toggle_up", &[]), Some(1.0));
    assert_eq!(e.value("cekura_toggle_mcp_endpoints", &[]), None);
    let said = exporter.logged("answer is malformed in part: its other fields are used", 1).await;
    assert_eq!((said.len(), &said[0]["fields"]), (1, &"mcp_endpoints, message".into()));
}

#[tokio::test]
async fn a_failed_run_shows_its_error_in_json_and_log_but_never_as_a_label() {
    let upstream = Upstream::start().await;
    let failed = r#"{"status":"failed","mock_enabled":null,"message":null,"error":"no tools at https://x.invalid/1"}"#;
    upstream.script("f", [Reply::new(200, failed)]);
    let exporter = Exporter::polling(&upstream, &watch("f", 1, "")).start().await;
    let e = exporter.scrape_until("it failed", |e| e.status("f").as_deref() == Some("failed")).await;
    assert!(!e.text.contains("no tools") && !e.text.contains("x.invalid"));
    assert!(e.value("cekura_toggle_last_failed_timestamp_seconds", &[("toggle", "f")]).is_some());
    assert!(e.value("cekura_toggle_finished_timestamp_seconds", &[("toggle", "f")]).is_some());
    assert_eq!(e.value("cekura_toggle_last_completed_timestamp_seconds", &[("toggle", "f")]), None);
    // It was finished at its first answer, so nobody knows how long it took.
    assert_eq!(e.value("cekura_toggle_duration_seconds_count", &[("status", "failed")]), Some(0.0));
    let shown = exporter.toggle("f").await;
    assert_eq!((&shown["status"], &shown["error"]), (&"failed".into(), &"no tools at <url>".into()));
    let logged = &exporter.logged("toggle changed state", 1).await[0];
    assert_eq!((&logged["to"], &logged["toggle_error"]), (&"failed".into(), &"no tools at <url>".into()));
}

#[tokio::test]
async fn a_failed_poll_keeps_what_was_known_and_recovery_clears_the_error() {
    let upstream = Upstream::start().await;
    upstream.script(
        "a",
        [
            Reply::task("in_progress", Some(true)),
            Reply::detail(500, "oops"),
            Reply::detail(500, "oops"),
            Reply::Silence,
        ],
    );
    let exporter = Exporter::polling(&upstream, &watch("a", 1, "")).start().await;
    let e = exporter
        .scrape_until("two polls failed", |e| {
            e.value("cekura_toggle_poll_failures_total", &[("toggle", "a")]) == Some(2.0)
        })
        .await;
    let a = [("toggle", "a")];
    assert_eq!((e.status("a").as_deref(), e.poll_error("a").as_deref()), (Some("in_progress"), Some("server_error")));
    assert_eq!(e.value("cekura_toggle_mock_enabled", &a), Some(1.0));
    assert_eq!(e.value("cekura_toggle_up", &a), Some(0.0));
    assert!(e.value("cekura_toggle_last_success_timestamp_seconds", &a).is_some());
    let asked = upstream.url().replace("http://", "GET ");
    let asked = format!("{asked}/test_framework/v2/aiagents/1/toggle-mock-tools-progress/");
    assert_eq!(exporter.toggle("a").await["poll_error_detail"], format!("{asked}: HTTP 500: oops"));
    let failures = exporter.logged("poll failed", 1).await;
    assert_eq!(failures[0]["detail"], format!("{asked}: HTTP 500: oops"));
    assert_eq!(failures.len(), 1, "a repeated failure is logged once");

    upstream.script("a", [Reply::task("in_progress", None)]);
    let e = exporter.scrape_until("it is up again", |e| e.value("cekura_toggle_up", &a) == Some(1.0)).await;
    assert_eq!(e.poll_error("a"), None);
    let recovered = exporter.logged("polls succeed again", 1).await;
    assert!(recovered[0]["lasted_seconds"].as_f64().unwrap() > 0.0, "{recovered:?}");
}

#[tokio::test]
async fn an_undocumented_status_is_unknown_counted_and_logged_once() {
    let upstream = Upstream::start().await;
    upstream.script("q", [Reply::task("paused", None)]);
    let exporter = Exporter::polling(&upstream, &watch("q", 1, "")).start().await;
    let api = [("api", "default")];
    let e = exporter
        .scrape_until("it answered thrice", |e| {
            e.value("cekura_api_unknown_statuses_total", &api).is_some_and(|count| count >= 3.0)
        })
        .await;
    assert_eq!((e.status("q").as_deref(), e.value("cekura_toggle_up", &[])), (Some("unknown"), Some(1.0)));
    let logged = exporter.logged("toggle has an unrecognised status", 1).await;
    assert_eq!((logged.len(), &logged[0]["status"]), (1, &"paused".into()));
    assert_eq!(exporter.toggle("q").await["raw_status"], "paused");
    assert!(exporter.get("/").await.1.contains("sent as paused"));
    assert!(exporter.get("/api/v1/toggles/q/events").await.1.contains(r#""status":"paused""#));
}

#[tokio::test]
async fn a_queued_task_is_in_progress_and_what_was_sent_is_shown() {
    let upstream = Upstream::start().await;
    upstream.script("q", [Reply::task("queued", None)]);
    let exporter = Exporter::polling(&upstream, &watch("q", 1, "")).start().await;
    let e = exporter.scrape_until("it was answered", |e| e.status("q").as_deref() != Some("unknown")).await;
    assert_eq!(e.status("q").as_deref(), Some("in_progress"));
    assert_eq!(e.value("cekura_api_unknown_statuses_total", &[("api", "default")]), Some(0.0));
    assert_eq!(exporter.toggle("q").await["raw_status"], "queued");
    upstream.script("q", [Reply::task("completed", Some(true))]);
    exporter.scrape_until("it completed", |e| e.status("q").as_deref() == Some("completed")).await;
    assert_eq!(exporter.toggle("q").await["raw_status"], serde_json::Value::Null);
}

#[tokio::test]
async fn the_mock_state_of_an_agent_is_that_of_its_newest_completed_run() {
    let upstream = Upstream::start().await;
    upstream.script("enable", [Reply::task("completed", Some(true))]);
    upstream.script("disable", [Reply::task("in_progress", None)]);
    let watches = watch("enable", 7, "") + &watch("disable", 7, "");
    let exporter = Exporter::polling(&upstream, &watches).start().await;
    let agent = [("api", "default"), ("agent_id", "7")];
    let e = exporter.scrape_until("mocks are on", |e| e.value("cekura_agent_mock_enabled", &agent) == Some(1.0)).await;
    assert!(e.value("cekura_agent_mock_enabled_since_timestamp_seconds", &agent).is_some());
    upstream.script("disable", [Reply::task("completed", Some(false))]);
    let e = exporter.scrape_until("mocks are off", |e| e.value("cekura_agent_mock_enabled", &agent) == Some(0.0)).await;
    assert_eq!(e.value("cekura_agent_mock_enabled_since_timestamp_seconds", &agent), None);
}

#[tokio::test]
async fn json_has_every_field_sorted_by_name_with_null_for_what_is_unknown() {
    let upstream = Upstream::start().await;
    upstream.script("b", [Reply::Silence]);
    let watches = watch("b", 2, ", labels: {team: x}") + &watch("a", 1, "");
    let exporter = Exporter::polling(&upstream, &watches).start().await;
    let list = eventually("the poll of a failed", async || {
        let list: serde_json::Value = serde_json::from_str(&exporter.get("/api/v1/toggles").await.1).unwrap();
        (list["toggles"][0]["up"] == false).then_some(list)
    })
    .await;
    let (a, b) = (&list["toggles"][0], &list["toggles"][1]);
    assert_eq!((&a["name"], &b["name"]), (&"a".into(), &"b".into()));
    assert_eq!(&a["poll_error"], "bad_request");
    assert!(a["poll_error_detail"].as_str().unwrap().ends_with("toggle-mock-tools-progress/: HTTP 400: no such id"));
    let mut keys: Vec<_> = b.as_object().unwrap().keys().map(String::as_str).collect();
    keys.sort_unstable();
    let mut contract = [
        "name",
        "agent_id",
        "progress_id",
        "api",
        "source",
        "expect",
        "labels",
        "status",
        "raw_status",
        "problem",
        "mock_enabled",
        "mismatch",
        "mcp_endpoints",
        "mcp_tools",
        "message",
        "error",
        "up",
        "poll_error",
        "poll_error_detail",
        "started_at",
        "finished_at",
        "last_success_at",
        "next_poll_at",
        "polls",
        "poll_failures",
    ];
    contract.sort_unstable();
    assert_eq!(keys, contract);
    assert_eq!((&b["labels"]["team"], &b["agent_id"], &b["polls"]), (&"x".into(), &2.into(), &0.into()));
    for unknown in ["expect", "mock_enabled", "mismatch", "message", "up", "finished_at", "last_success_at"] {
        assert!(b[unknown].is_null(), "{unknown}");
    }
    let started = b["started_at"].as_str().unwrap();
    assert!(started.len() == 24 && started.ends_with('Z'), "{started}");
}
