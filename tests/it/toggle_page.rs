//! The page of one toggle: as the server writes it, and in a browser as `toggle_page.mjs` says.

use std::fmt::Write;
use std::path::Path;
use std::time::SystemTime;

use cekura_exporter::demo::simulator::Reply;
use reqwest::Method;
use reqwest::header::{IF_NONE_MATCH, LOCATION};
use serde_json::json;
use tokio::process::Command;

use crate::harness::{Exporter, Exposition, Upstream, eventually, tool};

/// What means something in HTML.
const WRITTEN: &str = r#"<script>window.ran=1</script><img src=x onerror=window.ran=1>"'&amp;"#;

/// Plays a scenario in a browser.
async fn played(scenario: &str, exporter: &Exporter) {
    let mut node = Command::new(tool("node"));
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/toggle_page.mjs");
    node.args([script, scenario, &exporter.urls[0]]).kill_on_drop(true);
    let output = node.output().await.unwrap();
    let said = [output.stdout, output.stderr].concat();
    assert!(output.status.success(), "{scenario}: {}", String::from_utf8_lossy(&said));
}

/// An exporter of toggles that stand in several ways. What the API says of them means something in HTML, and is long.
async fn mixed(upstream: &Upstream) -> Exporter {
    let text = |field: &str| json!(format!("{field} {WRITTEN} https://mock.invalid/x {}", "long ".repeat(60)));
    let failed = json!({"status": "failed", "message": text("message"), "error": text("error")});
    upstream.script("failed", [Reply::task("in_progress", None)]);
    upstream.script("mismatched", [Reply::task("completed", Some(true))]);
    upstream.script("unanswered", [Reply::new(400, json!({"detail": text("detail")}).to_string())]);
    upstream.script("odd", [Reply::new(200, json!({"status": text("status")}).to_string())]);
    upstream.script("completed", [Reply::task("completed", Some(true))]);
    upstream.script("busy", [Reply::task("in_progress", None)]);
    let team = json!(format!("label {WRITTEN}"));
    let mut watches = String::new();
    for (name, expect) in
        [("failed", "enabled"), ("mismatched", "disabled"), ("unanswered", "enabled"), ("busy", "enabled")]
    {
        writeln!(
            watches,
            "  - {{name: {name}, agent_id: 77, progress_id: {name}, expect: {expect}, labels: {{team: {team}}}}}"
        )
        .unwrap();
    }
    writeln!(watches, "  - {{name: odd, agent_id: 77, progress_id: odd}}\nwatch_files: ['watches/*.yaml']").unwrap();
    let exporter = Exporter::polling(upstream, &watches)
        .file("watches/one.yaml", "{name: completed, agent_id: 78, progress_id: completed, expect: enabled}\n")
        .start()
        .await;
    exporter
        .scrape_until("all were polled", |e| {
            let up = |name: &str| e.value("cekura_toggle_up", &[("toggle", name)]).is_some();
            ["failed", "mismatched", "unanswered", "odd", "completed", "busy"].into_iter().all(up)
                && e.status("failed").as_deref() == Some("in_progress")
        })
        .await;
    let age =
        |e: &Exposition| now() - e.value("cekura_toggle_started_timestamp_seconds", &[("toggle", "failed")]).unwrap();
    exporter.scrape_until("it has been in progress for a while", |e| age(e) > 1.5).await;
    upstream.script("failed", [Reply::new(200, failed.to_string())]);
    exporter.scrape_until("it failed", |e| e.status("failed").as_deref() == Some("failed")).await;
    exporter
}

/// Seconds since the epoch.
fn now() -> f64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs_f64()
}

/// An exporter of a toggle that was registered and failed.
async fn registered(upstream: &Upstream) -> Exporter {
    upstream.script("first", [Reply::new(200, r#"{"status":"failed","error":"no room"}"#)]);
    let exporter = Exporter::with(Exporter::registering(upstream, Path::new("state"))).start().await;
    let toggle = json!({"agent_id": 77, "progress_id": "first", "expect": "enabled", "labels": {"team": "Payments"}});
    assert_eq!(exporter.put("payments-x", &toggle).await.0, 201);
    exporter.scrape_until("it failed", |e| e.status("payments-x").as_deref() == Some("failed")).await;
    exporter
}

#[tokio::test]
async fn the_page_of_a_toggle_says_how_it_stands_what_to_do_and_all_that_is_known() {
    let upstream = Upstream::start().await;
    played("tells", &mixed(&upstream).await).await;
}

#[tokio::test]
async fn the_first_screen_of_a_phone_has_the_answer_and_the_button() {
    let upstream = Upstream::start().await;
    played("begins", &mixed(&upstream).await).await;
}

#[tokio::test]
async fn the_parts_of_the_timeline_are_read_by_keyboard_mouse_and_touch() {
    let upstream = Upstream::start().await;
    played("draws", &mixed(&upstream).await).await;
}

#[tokio::test]
async fn the_commands_of_the_runbook_have_the_values_of_the_toggle() {
    let upstream = Upstream::start().await;
    played("helps", &registered(&upstream).await).await;
}

#[tokio::test]
async fn a_refresh_takes_no_focus_and_closes_nothing() {
    let upstream = Upstream::start().await;
    played("keeps", &registered(&upstream).await).await;
}

#[tokio::test]
async fn a_page_that_is_open_follows_its_toggle_until_it_is_gone() {
    let upstream = Upstream::start().await;
    upstream.script("second", [Reply::task("completed", Some(true))]);
    played("follows", &registered(&upstream).await).await;
}

#[tokio::test]
async fn what_others_wrote_is_text_on_the_page_of_a_toggle() {
    let upstream = Upstream::start().await;
    played("escapes", &mixed(&upstream).await).await;
}

#[tokio::test]
async fn the_page_of_a_toggle_is_for_everybody() {
    let upstream = Upstream::start().await;
    played("accessible", &mixed(&upstream).await).await;
}

#[tokio::test]
async fn an_unknown_toggle_has_a_page_that_says_so() {
    let exporter = Exporter::with("watches: []\n").start().await;
    for (path, shown) in [
        ("nobody", "There is no toggle <b>nobody</b> now"),
        ("%3Cscript%3E", "There is no toggle <b>&lt;script&gt;</b> now"),
        ("a%2F..%2F", "There is no toggle <b>a/../</b> now"),
    ] {
        let answer = exporter.request(Method::GET, &format!("/toggles/{path}")).await;
        assert_eq!(
            (answer.status().as_u16(), &answer.headers()["content-type"]),
            (404, &"text/html; charset=utf-8".parse().unwrap())
        );
        let policy = answer.headers()["content-security-policy"].to_str().unwrap().to_owned();
        assert!(policy.contains("script-src 'self'") && !policy.contains("unsafe"), "{policy}");
        let page = answer.text().await.unwrap();
        assert!(page.contains(shown) && page.contains("href=\"../\""), "{page}");
    }
    assert_eq!(exporter.get("/toggles").await.0, 404);
    assert_eq!(exporter.request(Method::POST, "/toggles/a").await.status(), 405);
}

#[tokio::test]
async fn addresses_of_toggles_from_before_lead_to_their_pages() {
    let exporter = Exporter::with("watches: []\n").start().await;
    let answer = exporter.request(Method::GET, "/?q=x&toggle=a.b-c").await;
    // It is relative, so that a proxy can serve the exporter below a prefix.
    assert_eq!((answer.status().as_u16(), &answer.headers()[LOCATION]), (303, &"toggles/a.b-c".parse().unwrap()));
    for odd in ["toggle=", "toggle=%2F%2Fevil.test", "toggle=a%0d%0ab", "toggles=a"] {
        assert_eq!(exporter.request(Method::GET, &format!("/?{odd}")).await.status(), 200, "{odd}");
    }
}

#[tokio::test]
async fn a_page_that_has_not_changed_is_not_sent_again() {
    let upstream = Upstream::start().await;
    let exporter = registered(&upstream).await;
    let path = "/toggles/payments-x";
    // The minute may end in between.
    eventually("the same page is asked for twice within a minute", async || {
        let known = exporter.request(Method::GET, path).await.headers()["etag"].clone();
        let again = exporter.http().get(format!("{}{path}", exporter.urls[0])).header(IF_NONE_MATCH, &known);
        (again.send().await.unwrap().status() == 304).then_some(())
    })
    .await;
    let known = exporter.request(Method::GET, path).await.headers()["etag"].clone();
    let toggle = json!({"agent_id": 77, "progress_id": "other", "expect": "enabled"});
    assert_eq!(exporter.put("payments-x", &toggle).await.0, 200);
    let again = exporter.http().get(format!("{}{path}", exporter.urls[0])).header(IF_NONE_MATCH, &known);
    assert_eq!(again.send().await.unwrap().status(), 200);
}
