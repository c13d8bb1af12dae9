//! Log lines: flat JSON, and nothing secret at any level.

use cekura_exporter::demo::simulator::Reply;

use crate::harness::{Exporter, Exposition, KEY, Upstream, run};

const WATCH: &str = "  - {name: w, agent_id: 7, progress_id: p, expect: enabled}\n";

#[tokio::test]
async fn each_line_is_one_flat_object_and_a_state_change_has_its_fields() {
    let upstream = Upstream::start().await;
    let failed = r#"{"status":"failed","mock_enabled":null,"message":"two\nlines","error":"no"}"#;
    upstream.script("p", [Reply::new(200, failed)]);
    let exporter = Exporter::polling(&upstream, WATCH).start().await;
    let line = &exporter.logged("toggle changed state", 1).await[0];
    for (field, value) in [
        ("level", "WARN".into()),
        ("toggle", "w".into()),
        ("api", "default".into()),
        ("agent_id", serde_json::Value::from(7)),
        ("progress_id", "p".into()),
        ("from", "unknown".into()),
        ("to", "failed".into()),
        ("toggle_message", "two\\nlines".into()),
        ("toggle_error", "no".into()),
    ] {
        assert_eq!(line[field], value, "{field}");
    }
    for line in exporter.logs() {
        for field in ["timestamp", "level", "target", "message"] {
            assert!(line[field].is_string(), "{field} in {line}");
        }
        let flat = line.as_object().unwrap().values().all(|value| !value.is_object() && !value.is_array());
        assert!(flat, "{line}");
    }
    let start = &exporter.logs()[0];
    assert_eq!((&start["message"], &start["version"]), (&"starting".into(), &env!("CARGO_PKG_VERSION").into()));
}

#[tokio::test]
async fn a_line_of_a_request_names_its_connection_and_route_and_nothing_that_the_client_chose() {
    let exporter = Exporter::with("watches: []\n").arg("--log.level=cekura_exporter::http=debug").start().await;
    let url = format!("{}/api/v1/toggles/my-name?q=my-query", exporter.urls[0]);
    exporter.http().get(url).basic_auth("my-user", Some("my-password")).send().await.unwrap();
    let lines = exporter.logged("request answered", 1).await;
    let is_of_it = |line: &&serde_json::Value| line["path"] == "/api/v1/toggles/{name}";
    let line = lines.iter().find(is_of_it).unwrap();
    assert!(line["peer"].as_str().unwrap().starts_with("127.0.0.1:"), "{line}");
    assert_eq!(line["listener"], exporter.address());
    assert_eq!((&line["method"], &line["status"]), (&"GET".into(), &400.into()));
    let text = exporter.logs().iter().map(ToString::to_string).collect::<String>();
    assert!(!text.contains("my-") && !text.contains("bXktdXNlc"), "{text}");
}

#[tokio::test]
async fn no_key_and_no_mock_url_shows_in_any_output_at_any_level() {
    let upstream = Upstream::start().await;
    let url = "https://mock-7f3a.invalid/mcp";
    let leaky = format!(
        r#"{{"status":"failed","mock_enabled":true,"message":"key {KEY} at {url}","error":"{url}",
            "mcp_endpoints":[{{"mock_index":0,"url":"{url}","tool_names":["{url}"]}}]}}"#
    );
    upstream.script("p", [Reply::detail(401, &format!("bad key {KEY} for {url}")), Reply::new(200, leaky)]);
    let exporter = Exporter::polling(&upstream, WATCH).arg("--log.level=trace").start().await;
    exporter.scrape_until("it failed", |e| e.status("w").as_deref() == Some("failed")).await;
    let mut outputs = vec![exporter.errors()];
    outputs.extend(exporter.logs().iter().map(ToString::to_string));
    for path in ["/metrics", "/", "/api/v1/toggles", "/api/v1/toggles/w", "/config"] {
        outputs.push(exporter.get(path).await.1);
    }
    for output in &outputs {
        assert!(!output.contains(KEY) && !output.contains("mock-7f3a"), "{output}");
    }
    assert_eq!(exporter.toggle("w").await["message"], "key <secret> at <url>");
}

#[tokio::test]
async fn the_key_of_one_api_does_not_show_in_what_another_answers() {
    let upstream = Upstream::start().await;
    let other = "sk-of-the-other-41";
    upstream.script("p", [Reply::detail(400, &format!("{other}?")), Reply::task("in_progress", None)]);
    let said = format!(r#"{{"status":"failed","message":"{other}","error":"neither {KEY} nor {other}"}}"#);
    upstream.script("q", [Reply::new(200, said)]);
    let config = format!(
        "apis:\n  default: {{base_url: {url}, api_key: {KEY}}}\n  other: {{base_url: {url}, api_key_file: key}}\n\
         polling: {{min_interval: 50ms, max_interval: 50ms, backoff_max: 50ms}}\nstate_file: state\nwatches:\n  \
         - {{name: a, agent_id: 1, progress_id: p}}\n  - {{name: b, agent_id: 1, progress_id: q}}\n",
        url = upstream.url()
    );
    let exporter = Exporter::with(config).file("key", other).arg("--log.level=trace").start().await;
    let both =
        |e: &Exposition| e.status("a").as_deref() == Some("in_progress") && e.status("b").as_deref() == Some("failed");
    exporter.scrape_until("both answered", both).await;
    assert_eq!(exporter.toggle("b").await["error"], "neither <secret> nor <secret>");
    let mut outputs: Vec<_> = exporter.logs().iter().map(ToString::to_string).collect();
    for path in ["/metrics", "/", "/api/v1/toggles", "/api/v1/toggles/a/events", "/api/v1/toggles/b/events"] {
        outputs.push(exporter.get(path).await.1);
    }
    for output in &outputs {
        assert!(!output.contains(other), "{output}");
    }
}

#[tokio::test]
async fn the_level_flag_decides_what_is_written() {
    let quiet = Exporter::with("apis: {default: {api_key: k}}\n").arg("--log.level=info").start().await;
    assert_eq!(quiet.logged("configuration warning", 1).await.len(), 1, "an empty watch list is said in one warning");
    assert!(quiet.logs().iter().all(|line| line["level"] != "DEBUG"));
}

#[test]
fn errors_go_to_standard_error_and_nothing_to_standard_output() {
    let output = run(&["--config.file=/nonexistent/config.yaml"], &[]);
    assert_eq!(output.status.code(), Some(2));
    assert!(output.stdout.is_empty());
    assert!(String::from_utf8_lossy(&output.stderr).contains("/nonexistent/config.yaml"));
}
