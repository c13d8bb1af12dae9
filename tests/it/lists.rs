//! Lists of toggles, and what happened to each.

use cekura_exporter::demo::simulator::Reply;
use reqwest::Method;
use reqwest::header::{ETAG, HeaderValue, IF_NONE_MATCH};
use serde_json::{Value, json};

use crate::harness::{Exporter, KEY, Upstream, eventually};

fn watch(name: &str, more: &str) -> String {
    format!("  - {{name: {name}, agent_id: 1, progress_id: {name}{more}}}\n")
}

async fn list(exporter: &Exporter, query: &str) -> Value {
    let (status, text) = exporter.get(&format!("/api/v1/toggles{query}")).await;
    assert_eq!(status, 200, "{query}: {text}");
    serde_json::from_str(&text).unwrap()
}

fn names(list: &Value) -> Vec<&str> {
    list["toggles"].as_array().unwrap().iter().map(|toggle| toggle["name"].as_str().unwrap()).collect()
}

/// An exporter of toggles that failed, completed and go on, once that is known of all of them.
async fn mixed(upstream: &Upstream) -> Exporter {
    upstream
        .script("b-failed", [Reply::new(200, r#"{"status":"failed","error":"No Room, see https://mock.invalid/x"}"#)]);
    upstream.script("a-done", [Reply::task("completed", Some(true))]);
    upstream.script("d-done", [Reply::task("completed", Some(false))]);
    let watches = [
        watch("d-done", ""),
        watch("a-done", ", labels: {team: Voice}"),
        watch("b-failed", ", expect: enabled"),
        watch("c-gone", ""),
    ];
    upstream.script("c-gone", [Reply::detail(404, "gone")]);
    let exporter = Exporter::polling(upstream, &watches.concat()).start().await;
    exporter
        .scrape_until("all were polled", |e| {
            let status = |name, status: &str| e.status(name).as_deref() == Some(status);
            let polled = e.value("cekura_toggle_up", &[("toggle", "c-gone")]) == Some(0.0);
            polled && status("a-done", "completed") && status("b-failed", "failed") && status("d-done", "completed")
        })
        .await;
    exporter
}

#[tokio::test]
async fn a_list_is_narrowed_by_status_and_by_words_wherever_they_are() {
    let upstream = Upstream::start().await;
    let exporter = mixed(&upstream).await;
    for (query, expected) in [
        ("", &["a-done", "b-failed", "c-gone", "d-done"][..]),
        ("?status=completed", &["a-done", "d-done"]),
        ("?status=failed", &["b-failed"]),
        ("?status=unknown", &["c-gone"]),
        ("?status=in_progress", &[]),
        ("?q=DONE", &["a-done", "d-done"]),
        ("?q=team+voice", &["a-done"]),
        ("?q=TEAM%3Dvoi", &["a-done"]),
        ("?q=no%20room", &["b-failed"]),
        ("?q=not_found", &["c-gone"]),
        ("?q=mock.invalid", &[]),
        ("?q=done&after=a-done&status=completed", &["d-done"]),
    ] {
        let list = list(&exporter, query).await;
        assert_eq!(names(&list), expected, "{query}");
        assert_eq!(list.as_object().unwrap().len(), 1, "{query}: no more than the toggles");
    }
}

#[tokio::test]
async fn pages_follow_each_other_until_there_is_no_next() {
    let upstream = Upstream::start().await;
    let exporter = mixed(&upstream).await;
    for limit in 1..=5 {
        let (mut query, mut found) = (format!("?limit={limit}"), Vec::new());
        loop {
            let page = list(&exporter, &query).await;
            assert!(names(&page).len() <= limit, "{page}");
            found.extend(names(&page).into_iter().map(str::to_owned));
            let Some(next) = page["next"].as_str() else {
                assert_eq!(page.get("next"), Some(&Value::Null), "that it was the last is said");
                break;
            };
            query = format!("?limit={limit}&after={next}");
        }
        assert_eq!(found, ["a-done", "b-failed", "c-gone", "d-done"], "{limit} at a time");
    }
}

#[tokio::test]
async fn what_a_list_does_not_take_is_refused_and_named() {
    let exporter = Exporter::with("watches: []\n").start().await;
    for (query, named) in
        [("limit=0", "limit"), ("limit=x", "limit"), ("status=done", "status"), ("q=a&q=b", "q"), ("wait=5m", "limit")]
    {
        let (status, text) = exporter.get(&format!("/api/v1/toggles?{query}")).await;
        assert_eq!(status, 400, "{query}");
        assert!(text.contains(named), "{query}: {text}");
    }
}

#[tokio::test]
async fn who_has_the_list_as_it_is_is_told_so_until_it_changes() {
    let upstream = Upstream::start().await;
    upstream.script("a", [Reply::task("completed", Some(true))]);
    upstream.script("b", [Reply::task("completed", Some(true))]);
    let exporter = Exporter::polling(&upstream, &watch("a", "")).start().await;
    exporter.scrape_until("it completed", |e| e.status("a").as_deref() == Some("completed")).await;
    let url = format!("{}/api/v1/toggles", exporter.urls[0]);
    let ask = async |known: &HeaderValue| exporter.http().get(&url).header(IF_NONE_MATCH, known).send().await.unwrap();
    // The poll that completed may be followed by what it changed beside.
    let tag = eventually("nothing changes any more", async || {
        let tag = exporter.request(Method::GET, "/api/v1/toggles").await.headers()[ETAG].clone();
        (ask(&tag).await.status() == 304).then_some(tag)
    })
    .await;
    let known = ask(&tag).await;
    assert_eq!(
        (&known.headers()["vary"], known.headers().get("content-length")),
        (&"accept-encoding".parse().unwrap(), None)
    );
    assert_eq!((known.status().as_u16(), known.headers().get(ETAG)), (304, Some(&tag)));
    assert_eq!(known.text().await.unwrap(), "");
    let head = exporter.http().head(&url).header(IF_NONE_MATCH, &tag).send().await.unwrap();
    assert_eq!(head.status(), 304);
    assert_eq!(ask(&HeaderValue::from_static("W/\"other\"")).await.status(), 200);

    let config = Exporter::quick(&upstream, &format!("watches:\n{}{}", watch("a", ""), watch("b", "")));
    exporter.reconfigure(config);
    assert_eq!(exporter.reload().await.0, 200);
    let changed = ask(&tag).await;
    assert!(changed.status() == 200 && changed.headers()[ETAG] != tag);
    assert!(changed.text().await.unwrap().contains("\"b\""));
}

#[tokio::test]
async fn what_happened_to_a_toggle_is_told_with_times_and_reasons() {
    let upstream = Upstream::start().await;
    let failed = r#"{"status":"failed","error":"no room at https://mock.invalid/0 for sk-test-key-73"}"#;
    upstream.script("a", [Reply::detail(500, "down"), Reply::task("in_progress", None), Reply::new(200, failed)]);
    let exporter = Exporter::polling(&upstream, &watch("a", ", expect: enabled")).start().await;
    exporter.scrape_until("it failed", |e| e.status("a").as_deref() == Some("failed")).await;
    let (status, text) = exporter.get("/api/v1/toggles/a/events").await;
    assert_eq!(status, 200, "{text}");
    assert!(!text.contains("mock.invalid") && !text.contains(KEY), "{text}");
    let mut told: Value = serde_json::from_str(&text).unwrap();
    let events = told["events"].as_array_mut().unwrap();
    let times: Vec<_> = events.iter_mut().map(|event| event.as_object_mut().unwrap().remove("at").unwrap()).collect();
    assert!(times.iter().all(|time| time.as_str().is_some_and(|time| time.ends_with('Z'))), "{times:?}");
    assert!(times.is_sorted_by(|newer, older| newer.as_str() >= older.as_str()), "{times:?}");
    assert!(events[0]["duration_seconds"].as_f64().is_some_and(|seconds| seconds > 0.0), "{text}");
    assert!(events[2]["lasted_seconds"].as_f64().is_some_and(|seconds| seconds > 0.0), "{text}");
    let detail = events[3]["detail"].clone();
    let said = detail.as_str().unwrap();
    assert!(said.starts_with("GET 127.0.0.1:") && said.ends_with("-progress/: HTTP 500: down"), "{said}");
    events[0]["duration_seconds"] = json!(0);
    events[2]["lasted_seconds"] = json!(0);
    let status = |from, to, duration, text| {
        json!({
            "event": "status_changed", "from": from, "to": to, "duration_seconds": duration, "mismatch": false,
            "text": text,
        })
    };
    assert_eq!(
        json!(events),
        json!([
            status("in_progress", "failed", json!(0), json!("no room at <url> for <secret>")),
            status("unknown", "in_progress", Value::Null, Value::Null),
            {"event": "polls_recovered", "reason": "server_error", "lasted_seconds": 0},
            {"event": "poll_failed", "reason": "server_error", "detail": detail},
        ])
    );
    assert_eq!(exporter.get("/api/v1/toggles/b/events").await.0, 404);
    let refused = exporter.request(Method::PUT, "/api/v1/toggles/a/events").await;
    assert_eq!(
        (refused.status().as_u16(), &refused.headers()["allow"]),
        (405, &HeaderValue::from_static("GET, HEAD, OPTIONS"))
    );
}

#[tokio::test]
async fn json_ends_with_a_newline_whatever_it_answers() {
    let exporter = Exporter::with("watches: [{name: a, agent_id: 1, progress_id: p}]\n").start().await;
    let paths = ["/api/v1/toggles", "/api/v1/toggles/a", "/api/v1/toggles/a/events", "/api/v1/status"];
    for path in paths.into_iter().chain(["/nowhere", "/api/v1/toggles?limit=0", "/api/v1/toggles/b"]) {
        let body = exporter.get(path).await.1;
        assert!(body.ends_with("}\n"), "{path}: {body:?}");
    }
    let refused = exporter.request(Method::PUT, "/api/v1/toggles/c").await.text().await.unwrap();
    assert!(refused.ends_with("}\n"), "{refused:?}");
}

/// Indented JSON on one line.
#[track_caller]
fn compacted(pretty: &str) -> String {
    assert!(pretty.starts_with("{\n  \"") && pretty.ends_with("\n}\n"), "{pretty}");
    pretty.lines().map(str::trim_start).collect::<String>().replace("\": ", "\":") + "\n"
}

#[tokio::test]
async fn pretty_indents_all_json_beside_other_parameters_and_is_refused_nowhere() {
    let config = "state_file: state\nregistrations: {enabled: true}\n\
                  watches: [{name: a, agent_id: 1, progress_id: p, labels: {team: 'a,{b:c}'}}]\n";
    let exporter = Exporter::with(config).start().await;
    exporter.scrape_until("it was polled", |e| e.value("cekura_toggle_up", &[("toggle", "a")]).is_some()).await;
    for (path, query) in [
        ("/api/v1/toggles", ""),
        ("/api/v1/toggles", "limit=1&status=unknown"),
        ("/api/v1/toggles/a", ""),
        ("/api/v1/toggles/a", "wait=1ms&progress_id=p"),
        ("/api/v1/toggles/a/events", ""),
        ("/api/v1/status", ""),
    ] {
        for pretty in ["pretty", "pretty=", "pretty=true"] {
            let (status, indented) = exporter.get(&format!("{path}?{query}&{pretty}")).await;
            assert_eq!(status, 200, "{path}?{query}&{pretty}: {indented}");
            let plain: Value = serde_json::from_str(&exporter.get(&format!("{path}?{query}")).await.1).unwrap();
            let fields = |value: &Value| value.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
            assert_eq!(fields(&serde_json::from_str(&indented).unwrap()), fields(&plain), "{path}");
            let compacted: Value = serde_json::from_str(&compacted(&indented)).unwrap();
            assert_eq!(compacted, serde_json::from_str::<Value>(&indented).unwrap());
        }
    }
    let list = exporter.get("/api/v1/toggles?pretty&q=a").await.1;
    assert!(list.contains("\"team\": \"a,{b:c}\""), "{list}");
    for (method, path, status) in [
        (Method::GET, "/nowhere?pretty", 404),
        (Method::GET, "/api/v1/toggles?pretty&limit=0", 400),
        (Method::GET, "/api/v1/toggles/b?pretty", 404),
        (Method::GET, "/api/v1/toggles/a?wait=1s&pretty&progress_id=other", 409),
        (Method::PUT, "/api/v1/toggles/c?pretty", 415),
        (Method::DELETE, "/api/v1/toggles/c?pretty", 404),
        (Method::POST, "/metrics?pretty", 405),
    ] {
        let answer = exporter.request(method, path).await;
        assert_eq!(answer.status(), status, "{path}");
        let text = answer.text().await.unwrap();
        assert!(text.starts_with("{\n  \"error\": \""), "{path}: {text}");
    }
    let put = exporter.http().put(format!("{}/api/v1/toggles/d?pretty=1", exporter.urls[0]));
    let put = put.header("content-type", "application/json").body(r#"{"agent_id": 1, "progress_id": "p"}"#);
    let put = put.send().await.unwrap();
    assert_eq!(put.status(), 201);
    compacted(&put.text().await.unwrap());
}

#[tokio::test]
async fn a_list_that_is_known_compact_is_not_known_indented() {
    let exporter = Exporter::with("watches: []\n").start().await;
    let tag = exporter.request(Method::GET, "/api/v1/toggles").await.headers()[ETAG].clone();
    let ask = async |query: &str| {
        let url = format!("{}/api/v1/toggles{query}", exporter.urls[0]);
        exporter.http().get(url).header(IF_NONE_MATCH, &tag).send().await.unwrap()
    };
    assert_eq!(ask("").await.status(), 304);
    let indented = ask("?pretty").await;
    assert_eq!((indented.status().as_u16(), &*indented.text().await.unwrap()), (200, "{\n  \"toggles\": []\n}\n"));
}
