//! The status page: as the server writes it, and in a browser as page.mjs says.

use std::fmt::Write;
use std::time::SystemTime;

use cekura_exporter::demo::simulator::Reply;
use reqwest::Method;
use reqwest::header::IF_NONE_MATCH;
use tokio::process::Command;

use crate::harness::{Exporter, Exposition, KEY, Upstream, eventually, tool};

/// What means something in HTML.
const WRITTEN: &str = r#"<script>window.ran=1</script><img src=x onerror=window.ran=1>"'&amp;"#;

fn watch(name: &str, more: &str) -> String {
    format!("  - {{name: {name}, agent_id: 1, progress_id: {name}{more}}}\n")
}

/// Seconds since the epoch.
fn now() -> f64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs_f64()
}

fn project(path: &str) -> String {
    format!("{}/{path}", env!("CARGO_MANIFEST_DIR"))
}

/// Plays a scenario in a browser.
async fn played(scenario: &str, exporter: &Exporter) {
    let mut node = Command::new(tool("node"));
    node.arg(project("tests/it/page.mjs")).arg(scenario).arg(&exporter.urls[0]).kill_on_drop(true);
    let output = node.output().await.unwrap();
    let said = [output.stdout, output.stderr].concat();
    assert!(output.status.success(), "{scenario}: {}", String::from_utf8_lossy(&said));
}

/// An exporter of toggles that stand in several ways and do not change any more.
async fn mixed(upstream: &Upstream) -> Exporter {
    let mut watches = String::new();
    let mut add = |name: &str, more: &str, replies: &[Reply]| {
        watches.push_str(&watch(name, more));
        upstream.script(name, replies.to_vec());
    };
    let failed = Reply::new(200, r#"{"status":"failed","error":"No Room, see https://mock.invalid/x","message":"m"}"#);
    add("a-done", ", expect: enabled, labels: {team: Voice}", &[Reply::task("completed", Some(true))]);
    add("b-failed", ", expect: enabled", &[failed]);
    add("c-later", ", api: other", &[Reply::with_header(429, "retry-after", "3600", r#"{"detail":"not now"}"#)]);
    add("d-done", "", &[Reply::task("completed", Some(false))]);
    add("e-on", ", expect: disabled", &[Reply::task("completed", Some(true))]);
    add("f-off", ", expect: enabled", &[Reply::task("completed", Some(false))]);
    add("g-nothing", ", expect: disabled", &[Reply::task("completed", None)]);
    let endpoints = r#"{"status":"completed","mcp_endpoints":[{"mock_index":0,"url":"https://mock.invalid/0","tool_names":["x","y"]}]}"#;
    add("h-tools", ", expect: enabled", &[Reply::new(200, endpoints)]);
    let config = format!(
        "apis: {{default: &api {{base_url: {}, api_key: {KEY}}}, other: *api}}\nwatches:\n{watches}",
        upstream.url()
    );
    let exporter = Exporter::with(config).start().await;
    exporter
        .scrape_until("all were polled", |e| {
            let ups = ["a-done", "b-failed", "d-done", "e-on", "f-off", "g-nothing", "h-tools"];
            let up = |name: &str| e.value("cekura_toggle_up", &[("toggle", name)]);
            ups.iter().all(|name| up(name) == Some(1.0)) && up("c-later") == Some(0.0)
        })
        .await;
    exporter
}

/// An exporter of one toggle that completed.
async fn completed(upstream: &Upstream) -> Exporter {
    upstream.script("a", [Reply::task("completed", Some(true))]);
    let exporter = Exporter::polling(upstream, &watch("a", "")).start().await;
    exporter.scrape_until("it completed", |e| e.status("a").as_deref() == Some("completed")).await;
    exporter
}

/// An exporter of agents that stand in several ways and do not change any more, and of a toggle whose agent is not
/// asked.
async fn agents(upstream: &Upstream) -> Exporter {
    upstream.script("on", [Reply::task("completed", Some(true))]);
    upstream.script("told", [Reply::task("completed", Some(true))]);
    for (id, enabled, provider) in [
        (1, false, "vapi"),
        (2, true, "retell"),
        (3, true, "bland"),
        (5, false, "vapi"),
        (6, true, "custom"),
        (8, true, "livekit"),
    ] {
        upstream.mock_status(id, [Reply::mock_status(enabled, provider)]);
    }
    let no_room = "This agent belongs to another project, and the key of this one cannot be used for it; see https://mock.invalid/why.";
    upstream.mock_status(4, [Reply::detail(403, no_room)]);
    let config = format!(
        "apis: {{default: {{base_url: {}, api_key: {KEY}}}}}\npolling: {{agent_interval: 1h}}\n\
         watches: [{{name: bookings-enable, agent_id: 1, progress_id: 'on'}}, {{name: z-enable, agent_id: 9, progress_id: told, labels: {{team: Chat}}}}]\n\
         agents: [{{agent_id: 1, labels: {{team: Voice}}}}, {{agent_id: 2, expect: disabled}}, {{agent_id: 3}}, {{agent_id: 4}}, \
                  {{agent_id: 5, expect: disabled}}, {{agent_id: 6}}, {{agent_id: 8, expect: enabled}}]\n",
        upstream.url()
    );
    let exporter = Exporter::with(config).start().await;
    exporter
        .scrape_until("all agents were asked", |e| {
            e.count("cekura_agent_up") == 7
                && e.count("cekura_agent_mocks_drift") == 4
                && e.count("cekura_agent_mock_enabled") == 2
        })
        .await;
    exporter
}

#[tokio::test]
async fn the_first_screen_says_what_is_wrong_and_what_to_do() {
    let upstream = Upstream::start().await;
    played("trouble", &mixed(&upstream).await).await;
}

#[tokio::test]
async fn if_all_is_well_the_page_says_so() {
    let upstream = Upstream::start().await;
    played("well", &completed(&upstream).await).await;
}

#[tokio::test]
async fn times_are_those_of_the_reader_and_grow_older() {
    let upstream = Upstream::start().await;
    played("times", &completed(&upstream).await).await;
}

#[tokio::test]
async fn the_page_is_another_one_when_an_agent_changed() {
    let upstream = Upstream::start().await;
    upstream.mock_status(7, [Reply::mock_status(false, "vapi")]);
    let exporter =
        Exporter::with(Exporter::quick(&upstream, "agents: [{agent_id: 7, expect: disabled}]\n")).start().await;
    let live = |e: &Exposition| e.value("cekura_agent_mocks_live", &[]);
    exporter.scrape_until("mocks are off", |e| live(e) == Some(0.0)).await;
    for path in ["/", "/agents", "/api/v1/agents"] {
        let known = exporter.request(Method::GET, path).await.headers()["etag"].clone();
        let asked = upstream.asked(7);
        eventually("it is asked again", async || (upstream.asked(7) > asked + 1).then_some(())).await;
        let again = exporter.http().get(format!("{}{path}", exporter.urls[0])).header(IF_NONE_MATCH, &known);
        assert_eq!(again.send().await.unwrap().status(), 200, "{path}");
    }
}

#[tokio::test]
async fn what_is_asked_for_is_in_the_address() {
    let upstream = Upstream::start().await;
    played("filters", &mixed(&upstream).await).await;
}

#[tokio::test]
async fn a_refresh_takes_neither_focus_nor_place() {
    let upstream = Upstream::start().await;
    played("keeps", &mixed(&upstream).await).await;
}

#[tokio::test]
async fn it_asks_for_what_is_new_and_only_while_somebody_looks() {
    let upstream = Upstream::start().await;
    played("refreshes", &completed(&upstream).await).await;
}

#[tokio::test]
async fn a_toggle_that_fails_is_shown_failed_on_a_page_that_is_open() {
    let upstream = Upstream::start().await;
    upstream.script("a", [Reply::task("in_progress", None)]);
    let exporter = Exporter::polling(&upstream, &watch("a", "")).start().await;
    exporter.scrape_until("it goes on", |e| e.status("a").as_deref() == Some("in_progress")).await;
    let looked = async {
        let asked = [("handler", "/api/v1/toggles/{name}"), ("code", "404")];
        let of = |e: &Exposition| e.value("cekura_exporter_http_requests_total", &asked);
        exporter.scrape_until("the browser has seen it", |e| of(e) == Some(1.0)).await;
        let age = |e: &Exposition| now() - e.value("cekura_toggle_started_timestamp_seconds", &[]).unwrap();
        exporter.scrape_until("it has taken a while", |e| age(e) > 1.5).await;
        upstream.script("a", [Reply::new(200, r#"{"status":"failed","error":"no room"}"#)]);
    };
    tokio::join!(played("follows", &exporter), looked);
}

#[tokio::test]
async fn it_is_for_everybody() {
    let upstream = Upstream::start().await;
    played("accessible", &mixed(&upstream).await).await;
}

#[tokio::test]
async fn of_ten_thousand_the_worst_come_first_and_the_others_when_asked_for() {
    let upstream = Upstream::start().await;
    upstream.script("z-failed", [Reply::task("failed", None)]);
    let mut watches = watch("z-failed", "");
    for number in 1..10_000 {
        writeln!(watches, "  - {{name: w{number:05}, agent_id: 1, progress_id: other}}").unwrap();
    }
    let config = format!(
        "apis: {{default: {{base_url: {}, api_key: {KEY}, requests_per_second: 5}}}}\nwatches:\n{watches}",
        upstream.url()
    );
    let exporter = Exporter::with(config).start().await;
    exporter.scrape_until("it failed", |e| e.status("z-failed").as_deref() == Some("failed")).await;
    played("many", &exporter).await;
}

#[tokio::test]
async fn what_others_wrote_is_text() {
    let upstream = Upstream::start().await;
    let text = |field: &str| serde_json::Value::String(format!("{field} {WRITTEN} https://mock.invalid/x"));
    let failed = format!(r#"{{"status":"failed","message":{},"error":{}}}"#, text("message"), text("error"));
    upstream.script("failed", [Reply::new(200, failed)]);
    upstream.script("unanswered", [Reply::new(400, format!(r#"{{"detail":{}}}"#, text("detail")))]);
    upstream.script("odd", [Reply::new(200, format!(r#"{{"status":{}}}"#, text("status")))]);
    let label = serde_json::Value::String(format!("label {WRITTEN}"));
    let mut watches = String::new();
    for name in ["failed", "unanswered", "odd"] {
        writeln!(watches, "  - {{name: {name}, agent_id: 1, progress_id: {name}, labels: {{team: {label}}}}}").unwrap();
    }
    let exporter = Exporter::polling(&upstream, &watches).start().await;
    exporter
        .scrape_until("all were polled", |e| {
            ["failed", "unanswered", "odd"]
                .iter()
                .all(|name| e.value("cekura_toggle_up", &[("toggle", name)]).is_some())
        })
        .await;
    played("escapes", &exporter).await;
}

#[tokio::test]
async fn where_nothing_is_watched_the_page_says_how_to_begin() {
    let upstream = Upstream::start().await;
    let exporter = Exporter::polling(&upstream, "").start().await;
    let page = exporter.request(Method::GET, "/").await.text().await.unwrap();
    assert!(page.contains(">Nothing is watched.</h1>"), "{page}");
    assert!(page.contains("<p>No toggle is watched. To watch one, list it under <code>watches</code>"), "{page}");
    assert!(!page.contains("<table") && !page.contains("<form"), "{page}");
}

#[tokio::test]
async fn page_style_and_script_are_sent_once_and_load_nothing_from_elsewhere() {
    let upstream = Upstream::start().await;
    let exporter = mixed(&upstream).await;
    for (path, content_type) in [
        ("/", "text/html; charset=utf-8"),
        ("/agents", "text/html; charset=utf-8"),
        ("/assets/base.css", "text/css; charset=utf-8"),
        ("/assets/page.js", "text/javascript; charset=utf-8"),
        ("/assets/well.svg", "image/svg+xml"),
        ("/runbooks", "text/html; charset=utf-8"),
    ] {
        let answer = exporter.request(Method::GET, path).await;
        let headers = answer.headers().clone();
        assert_eq!(
            (answer.status().as_u16(), headers["content-type"].to_str().unwrap()),
            (200, content_type),
            "{path}"
        );
        assert_eq!(headers["cache-control"], "private, no-cache", "{path}");
        let policy = headers["content-security-policy"].to_str().unwrap();
        assert!(policy.starts_with("default-src 'none'") && !policy.contains("unsafe"), "{path}: {policy}");
        let text = answer.text().await.unwrap();
        assert!(!text.contains("mock.invalid") && !text.contains(KEY) && !text.contains(" style="), "{path}");
        let again = async |etag| {
            let request = exporter.http().get(format!("{}{path}", exporter.urls[0]));
            request.header(IF_NONE_MATCH, etag).send().await.unwrap()
        };
        let mut answer = again(&headers["etag"]).await;
        if answer.status() == 200 {
            // It is another page with each minute, and a minute ended just then.
            let etag = answer.headers()["etag"].clone();
            answer = again(&etag).await;
        }
        let again = answer;
        assert_eq!(again.status(), 304, "{path}");
        for header in ["content-security-policy", "vary"] {
            assert_eq!(again.headers()[header], headers[header], "{path}");
        }
    }
    assert_eq!(exporter.get("/assets/nothing.js").await.0, 404);

    let known = exporter.request(Method::GET, "/").await.headers()["etag"].clone();
    exporter.reconfigure("watches: []\n");
    assert_eq!(exporter.reload().await.0, 200);
    let again = exporter.http().get(&exporter.urls[0]).header(IF_NONE_MATCH, &known).send().await.unwrap();
    assert_eq!(again.status(), 200, "it is another page");
}

#[tokio::test]
async fn how_all_is_can_be_read_by_programs() {
    let upstream = Upstream::start().await;
    let exporter = mixed(&upstream).await;
    let (status, text) = exporter.get("/api/v1/status").await;
    assert_eq!(status, 200);
    let all: serde_json::Value = serde_json::from_str(&text).unwrap();
    let statuses = serde_json::json!({"completed": 6, "failed": 1, "in_progress": 0, "unknown": 1});
    assert_eq!(all["statuses"], statuses);
    let standings = &all["standings"];
    assert_eq!(
        (&standings["failed"], &standings["mismatched"], &standings["failing"]),
        (&1.into(), &4.into(), &1.into())
    );
    let api = &all["apis"][0];
    assert_eq!((&api["name"], &api["polled"], &api["failing"]), (&"default".into(), &7.into(), &serde_json::json!({})));
    let other = &all["apis"][1];
    assert_eq!((&other["name"], &other["failing"]), (&"other".into(), &serde_json::json!({"rate_limited": 1})));
    assert!(api["paused_until"].is_null() && other["paused_until"].is_string(), "{text}");
    assert_eq!(all["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(api["agents"], serde_json::json!({"asked": 0, "failing": {}}));
    let upstream = Upstream::start().await;
    let exporter = agents(&upstream).await;
    let all: serde_json::Value = serde_json::from_str(&exporter.get("/api/v1/status").await.1).unwrap();
    let api = &all["apis"][0];
    assert_eq!(api["agents"], serde_json::json!({"asked": 7, "failing": {"forbidden": 1}}));
    assert_eq!((&api["polled"], &api["failing"]), (&2.into(), &serde_json::json!({})), "they count toggles only");
}
