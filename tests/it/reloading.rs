//! Reading the configuration again.

use std::collections::HashSet;
use std::time::Duration;

use cekura_exporter::demo::simulator::Reply;
use reqwest::Method;
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::harness::{Authority, Exporter, KEY, Upstream, eventually, tool};

const W: &str = "watches:\n  - {name: w, agent_id: 1, progress_id: p}\n";

fn successful(e: &crate::harness::Exposition) -> Option<f64> {
    e.value("cekura_exporter_config_last_reload_successful", &[])
}

#[tokio::test]
async fn a_reload_by_signal_or_by_request_takes_over_what_is_new_and_keeps_what_is_the_same() {
    let upstream = Upstream::start().await;
    upstream.script("p", [Reply::task("completed", Some(true))]);
    upstream.script("q", [Reply::task("in_progress", None)]);
    let exporter = Exporter::with(Exporter::quick(&upstream, W)).start().await;
    let e = exporter.scrape_until("w completed", |e| e.status("w").as_deref() == Some("completed")).await;
    assert_eq!(successful(&e), Some(1.0));
    let first = e.value("cekura_exporter_config_last_reload_success_timestamp_seconds", &[]).unwrap();
    let before = exporter.toggle("w").await;
    let with_x = format!("{W}  - {{name: x, agent_id: 2, progress_id: q}}\n");
    exporter.reconfigure(Exporter::quick(&upstream, &with_x));
    exporter.signal(Signal::HUP);
    exporter.scrape_until("x is polled", |e| e.status("x").as_deref() == Some("in_progress")).await;
    assert_eq!(exporter.toggle("w").await, before, "it was not polled anew either");
    // The first poll of x may be answered before the reload ends.
    exporter.logged("configuration reloaded", 1).await;
    let e = exporter.scrape().await;
    assert!(e.value("cekura_exporter_config_last_reload_success_timestamp_seconds", &[]).unwrap() > first);
    assert!(exporter.get("/config").await.1.contains("name: x\n"));
    exporter.reconfigure(Exporter::quick(&upstream, W));
    assert_eq!(exporter.reload().await, (200, "reloaded\n".to_owned()));
    assert!(!exporter.scrape().await.text.contains("toggle=\"x\""), "gone when the reload is answered");
    exporter.logged("configuration reloaded", 2).await;
    let other = exporter.request(Method::GET, "/-/reload").await;
    assert_eq!((other.status().as_u16(), other.headers()["allow"].to_str().unwrap()), (405, "POST, OPTIONS"));
}

#[tokio::test]
async fn a_changed_configuration_file_is_reloaded_by_itself_only_if_that_was_asked_for() {
    let upstream = Upstream::start().await;
    for id in ["p", "q"] {
        upstream.script(id, [Reply::task("in_progress", None)]);
    }
    let with_x = format!("{W}  - {{name: x, agent_id: 2, progress_id: q}}\n");
    let start = || Exporter::with(Exporter::quick(&upstream, W));
    let (asked, other) = tokio::join!(start().arg("--config.auto-reload").start(), start().start());
    for exporter in [&asked, &other] {
        exporter.reconfigure(Exporter::quick(&upstream, &with_x));
    }
    asked.scrape_until("x is polled", |e| e.status("x").as_deref() == Some("in_progress")).await;
    assert_eq!(asked.logged("configuration reloaded", 1).await.len(), 1);
    assert!(other.logs_of("configuration reloaded").is_empty());
    assert_eq!(other.get("/api/v1/toggles/x").await.0, 404);
    let flags = asked.get("/runtime").await.1;
    assert!(flags.contains("--config.auto-reload"), "{flags}");

    asked.reconfigure("watches: [");
    asked.scrape_until("the bad one is refused", |e| successful(e) == Some(0.0)).await;
    assert_eq!(asked.get("/api/v1/toggles/x").await.0, 200);
    // A file that it names comes later.
    let named = format!("apis: {{default: {{base_url: {}, api_key: k, ca_file: late.pem}}}}\n{W}", upstream.url());
    asked.reconfigure(&named);
    let refused = async || {
        let refused = asked.logs_of("configuration not reloaded: the one in force stays");
        (refused.last()?.to_string().contains("late.pem")).then_some(refused.len())
    };
    let count = eventually("the missing file is named", refused).await;
    asked.place("late.pem", &Authority::new("late").pem());
    asked.scrape_until("it is in force", |e| successful(e) == Some(1.0)).await;
    assert_eq!(
        asked.logs_of("configuration not reloaded: the one in force stays").len(),
        count,
        "the same is said once"
    );
    asked.reconfigure(Exporter::quick(&upstream, &with_x));
    asked.scrape_until("x is polled again", |e| e.status("x").as_deref() == Some("in_progress")).await;
    asked.reconfigure(Exporter::quick(&upstream, W));
    eventually("x is gone", async || (asked.get("/api/v1/toggles/x").await.0 == 404).then_some(())).await;
}

#[tokio::test]
async fn a_bad_configuration_is_refused_whole_and_the_one_in_force_stays() {
    let upstream = Upstream::start().await;
    upstream.script("p", [Reply::task("in_progress", None)]);
    let exporter = Exporter::with(Exporter::quick(&upstream, W)).start().await;
    let good = exporter.get("/config").await.1;
    for (config, what) in [
        (
            format!("{}  - {{name: y, agent_id: 0, progress_id: p}}\n", Exporter::quick(&upstream, W)),
            "watches[1].agent_id",
        ),
        (
            Exporter::quick(&upstream, "state_file: elsewhere\n"),
            "state_file: cannot change while the exporter runs: restart",
        ),
        (
            Exporter::quick(&upstream, "database: {url: \"postgresql://u@h?sslmode=verify-full\"}\n"),
            "database: cannot change while the exporter runs: restart",
        ),
        ("watches: [".to_owned(), "is not YAML"),
    ] {
        exporter.reconfigure(config);
        let (status, text) = exporter.reload().await;
        assert!(status == 500 && text.contains(what), "{what}: {status} {text}");
        let answer: serde_json::Value = serde_json::from_str(&text).unwrap();
        let problems: Vec<_> = answer["problems"].as_array().unwrap().iter().map(|p| p.as_str().unwrap()).collect();
        assert!(problems.iter().any(|problem| problem.contains(what)), "{text}");
        assert_eq!(answer["error"], problems.join("\n"));
        assert_eq!(successful(&exporter.scrape().await), Some(0.0));
        assert_eq!(exporter.get("/config").await.1, good);
        assert_eq!(exporter.get("/api/v1/toggles/y").await.0, 404);
    }
    let polls = upstream.polls_of("p");
    eventually("it goes on polling", async || (upstream.polls_of("p") > polls + 2).then_some(())).await;
    exporter.reconfigure(Exporter::quick(&upstream, W));
    assert_eq!(exporter.reload().await.0, 200);
    assert_eq!(successful(&exporter.scrape().await), Some(1.0));
}

/// What is no file that could be read to its end, at this path.
fn put_in_place(path: &std::path::Path, kind: &str) {
    if path.is_dir() {
        std::fs::remove_dir(path).unwrap();
    } else {
        std::fs::remove_file(path).unwrap();
    }
    match kind {
        // Nobody writes to it.
        "pipe" => rustix::fs::mknodat(rustix::fs::CWD, path, rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap(),
        "folder" => std::fs::create_dir(path).unwrap(),
        device => std::os::unix::fs::symlink(device, path).unwrap(),
    }
}

#[tokio::test]
async fn a_configuration_that_is_no_file_is_refused_at_once_and_holds_nobody_up() {
    let upstream = Upstream::start().await;
    let config = Exporter::registering(&upstream, std::path::Path::new("state"));
    let exporter = Exporter::with(config.clone()).start().await;
    let file = exporter.folder().join("config.yaml");
    for (number, kind) in ["pipe", "folder", "/dev/zero"].into_iter().enumerate() {
        put_in_place(&file, kind);
        let (reload, put) = tokio::join!(exporter.reload(), async {
            let task = serde_json::json!({"agent_id": 1, "progress_id": "p"});
            exporter.put(&format!("a{number}"), &task).await.0
        });
        assert_eq!(put, 201);
        assert!(reload.0 == 500 && reload.1.contains("is not a regular file"), "{kind}: {reload:?}");
    }
    std::fs::remove_file(&file).unwrap();
    exporter.reconfigure(config);
    assert_eq!(exporter.reload().await.0, 200);
}

#[tokio::test]
async fn a_key_and_an_authority_that_are_no_files_are_refused_at_once() {
    let upstream = Upstream::start().await;
    let config = format!(
        "apis:\n  default: {{base_url: {}, api_key_file: key, ca_file: ca.pem}}\nwatches: []\n",
        upstream.url()
    );
    for kind in ["pipe", "folder", "/dev/zero"] {
        let exporter = Exporter::with("watches: []\n").file("key", KEY).file("ca.pem", "").start().await;
        put_in_place(&exporter.folder().join("key"), kind);
        put_in_place(&exporter.folder().join("ca.pem"), kind);
        exporter.reconfigure(&config);
        let (status, said) = exporter.reload().await;
        assert!(status == 500 && said.contains("ca_file") && said.contains("is not a regular file"), "{kind}: {said}");
        exporter.reconfigure(config.replace(", ca_file: ca.pem", ""));
        assert_eq!(exporter.reload().await.0, 200, "an API without a key is no error of the configuration");
    }
}

#[tokio::test]
async fn another_url_key_and_budget_take_effect_and_what_failed_in_the_old_way_is_tried_at_once() {
    let (dead, upstream) = ("http://127.0.0.1:9", Upstream::start().await);
    upstream.script("p", [Reply::task("in_progress", None)]);
    let config = |url: &str, key: &str, more: &str| {
        format!(
            "apis: {{default: {{base_url: \"{url}\", api_key: {key}{more}}}}}\n\
             polling: {{min_interval: 50ms, max_interval: 50ms, backoff_max: 1h}}\n{W}"
        )
    };
    let exporter = Exporter::with(config(dead, KEY, "")).start().await;
    exporter.scrape_until("it fails", |e| e.poll_error("w").as_deref() == Some("connect")).await;
    exporter.reconfigure(config(&upstream.url(), "first", ""));
    assert_eq!(exporter.reload().await.0, 200);
    eventually("it is polled there", async || (upstream.polls_of("p") > 3).then_some(())).await;
    exporter.reconfigure(config(&upstream.url(), "second", ""));
    assert_eq!(exporter.reload().await.0, 200);
    let last_key =
        || upstream.requests().last().and_then(|(_, request)| request.header("x-cekura-api-key").map(str::to_owned));
    eventually("the key is used", async || (last_key().as_deref() == Some("second")).then_some(())).await;
    exporter.reconfigure(config(&upstream.url(), "second", ", requests_per_second: 0.001"));
    assert_eq!(exporter.reload().await.0, 200);
    exporter.scrape_until("polls wait", |e| e.value("cekura_api_polls_waiting", &[]) == Some(1.0)).await;
}

#[tokio::test]
async fn apis_come_and_go_and_what_needs_one_that_is_gone_waits_for_it() {
    let upstream = Upstream::start().await;
    upstream.script("p", [Reply::task("in_progress", None)]);
    let api = |name: &str| format!("  {name}: {{base_url: {}, api_key: k}}\n", upstream.url());
    let rest = "state_file: state\nregistrations: {enabled: true}\n";
    let both = format!("apis:\n{}{}{rest}", api("default"), api("other"));
    let exporter = Exporter::with(both.clone()).start().await;
    let body = serde_json::json!({"agent_id": 1, "progress_id": "p", "api": "other"});
    assert_eq!(exporter.put("a", &body).await.0, 201);
    exporter.scrape_until("it is polled", |e| e.status("a").as_deref() == Some("in_progress")).await;
    exporter.reconfigure(format!("apis:\n{}{rest}", api("default")));
    assert_eq!(exporter.reload().await.0, 200);
    let e = exporter.scrape().await;
    assert!(!e.text.contains("api=\"other\""), "{}", e.text);
    assert_eq!(e.value("cekura_exporter_watches_rejected", &[("source", "http")]), Some(1.0));
    assert_eq!(exporter.logged("watch refused: its api is not configured", 1).await.len(), 1);
    exporter.reconfigure(both);
    assert_eq!(exporter.reload().await.0, 200);
    exporter.scrape_until("it is polled again", |e| e.status("a").as_deref() == Some("in_progress")).await;
}

#[tokio::test]
async fn no_request_in_flight_is_lost_to_a_reload_and_new_intervals_hold_at_once() {
    let upstream = Upstream::start().await;
    let slow = Reply::After(Duration::from_millis(700), Box::new(Reply::task("in_progress", None)));
    upstream.script("p", [slow, Reply::task("completed", None)]);
    let config = |max: &str, timeout: &str| {
        format!(
            "apis: {{default: {{base_url: {}, api_key: k, timeout: {timeout}}}}}\n\
             polling: {{min_interval: {max}, max_interval: {max}}}\n{W}",
            upstream.url()
        )
    };
    let exporter = Exporter::with(config("5m", "9s")).start().await;
    eventually("a request is under way", async || (upstream.polls_of("p") == 1).then_some(())).await;
    exporter.reconfigure(config("5m", "8s"));
    assert_eq!(exporter.reload().await.0, 200);
    let e = exporter.scrape_until("it was answered", |e| e.status("w").as_deref() == Some("in_progress")).await;
    assert_eq!(e.value("cekura_toggle_polls_total", &[]), Some(1.0));
    exporter.reconfigure(config("100ms", "8s"));
    assert_eq!(exporter.reload().await.0, 200);
    exporter.scrape_until("it was polled again", |e| e.status("w").as_deref() == Some("completed")).await;
}

#[tokio::test]
async fn a_pause_is_for_the_upstream_that_asked_for_it_whatever_else_is_reloaded() {
    let (old, new) = (Upstream::start().await, Upstream::start().await);
    let limited = || Reply::with_header(429, "retry-after", "600", "{}");
    let config = |upstream: &Upstream, more: &str| {
        format!(
            "apis: {{default: {{base_url: {}, api_key: k{more}}}}}\n\
             polling: {{min_interval: 50ms, max_interval: 50ms, backoff_max: 50ms}}\n{W}",
            upstream.url()
        )
    };
    old.script("p", [limited()]);
    let exporter = Exporter::with(config(&old, "")).start().await;
    let paused = |e: &crate::harness::Exposition| e.value("cekura_api_paused_until_timestamp_seconds", &[]);
    let until = paused(&exporter.scrape_until("the API is paused", |e| paused(e).is_some()).await).unwrap();
    for more in [", max_in_flight: 1", ", timeout: 3s", ", requests_per_second: 99"] {
        exporter.reconfigure(config(&old, more));
        assert_eq!(exporter.reload().await.0, 200);
        let still = paused(&exporter.scrape().await);
        assert!(still.is_some_and(|still| (still - until).abs() < 1.0), "{more}: {still:?}, not {until}");
    }
    assert_eq!(old.polls_of("p"), 1);

    // An answer of the old upstream that comes late does not pause the new one.
    new.script("p", [Reply::After(Duration::from_millis(700), Box::new(limited()))]);
    exporter.reconfigure(config(&new, ""));
    assert_eq!(exporter.reload().await.0, 200);
    eventually("the new one is asked", async || (new.polls_of("p") == 1).then_some(())).await;
    old.script("p", [Reply::task("in_progress", None)]);
    exporter.reconfigure(config(&old, ""));
    assert_eq!(exporter.reload().await.0, 200);
    exporter.scrape_until("the old one answers", |e| e.status("w").as_deref() == Some("in_progress")).await;
    assert_eq!(paused(&exporter.scrape().await), None);
}

#[tokio::test]
async fn a_thousand_reloads_keep_descriptors_and_the_cadence() {
    let upstream = Upstream::start().await;
    upstream.script("p", [Reply::task("in_progress", None)]);
    let config = |text: &str| {
        format!(
            "apis: {{default: {{base_url: {}, api_key_file: key}}}}\n\
             polling: {{min_interval: 200ms, max_interval: 200ms}}\nwatch_files: [\"*.toggle\"]\n{W}{text}",
            upstream.url()
        )
    };
    let start = Exporter::with(config("")).file("key", KEY).file("a.toggle", "{agent_id: 9, progress_id: p}");
    let exporter = start.start().await;
    exporter.scrape_until("it is polled", |e| e.status("agent-9").as_deref() == Some("in_progress")).await;
    let descriptors = |e: &crate::harness::Exposition| e.value("process_open_fds", &[]).unwrap();
    let before = exporter.scrape().await;
    for round in 0..1000 {
        let more = if round % 2 == 0 { "  - {name: x, agent_id: 2, progress_id: q}\n" } else { "" };
        exporter.reconfigure(config(more));
        assert_eq!(exporter.reload().await.0, 200);
    }
    let after = exporter.scrape().await;
    assert!(descriptors(&after) <= descriptors(&before) + 3.0, "{} to {}", descriptors(&before), descriptors(&after));
    // No poll came before its time: never two of one run closer together than the interval.
    let requests = upstream.requests();
    for agent in [1, 9] {
        let of_agent = requests.iter().filter(|(_, request)| request.agent_id() == Some(agent));
        let times: Vec<_> = of_agent.map(|(at, _)| *at).collect();
        let doubled = times.windows(2).filter(|pair| pair[1] - pair[0] < Duration::from_millis(100)).count();
        assert_eq!(doubled, 0, "of {} polls of agent {agent}", times.len());
        let spread = times[times.len() - 1] - times[0];
        let due = spread.as_millis() / 200;
        assert!(times.len() as u128 * 2 > due, "{} polls in {spread:?}", times.len());
    }
    let polls = |e: &crate::harness::Exposition| e.value("cekura_toggle_polls_total", &[("toggle", "w")]).unwrap();
    assert!(polls(&after) > polls(&before));
    let ids: HashSet<_> = requests.iter().filter_map(|(_, request)| request.progress_id()).collect();
    assert!(ids.contains("q"), "the watch that came and went was polled");
}

/// The folder of the watch files is on a volume that takes eight seconds to be opened, each time.
#[tokio::test]
async fn registrations_do_not_wait_for_watch_files_that_a_reload_looks_at() {
    let folder = tempfile::tempdir().unwrap();
    let slow = folder.path().join("slow");
    std::fs::create_dir(&slow).unwrap();
    let config = format!(
        "state_file: state\nregistrations: {{enabled: true}}\nwatch_files: [\"{}/*.toggle\"]\n",
        slow.display()
    );
    let (strace, slow) = (tool("strace"), slow.display().to_string());
    let delayed = ["-e", "trace=openat", "-e", "inject=openat:delay_enter=8s"];
    // -D: strace looks on from beside, and the program is the child.
    let through = [&[strace.to_str().unwrap(), "-D", "-f", "-o", "/dev/null", "-P", &slow], &delayed[..]].concat();
    let exporter = std::sync::Arc::new(Exporter::with(config).through(&through).start().await);
    let reloading = tokio::spawn({
        let exporter = exporter.clone();
        async move { exporter.reload().await.0 }
    });
    for name in ["a", "b", "c"] {
        assert_eq!(exporter.put(name, &serde_json::json!({"agent_id": 1, "progress_id": "p"})).await.0, 201);
        assert!(!reloading.is_finished(), "{name} waited for the reload");
    }
    assert_eq!(reloading.await.unwrap(), 200);
    exporter.logged("reading the watch files takes long: they are applied when it is done", 2).await;
}

#[tokio::test]
async fn the_external_url_is_a_metric_and_begins_links_in_logs_and_answers() {
    let upstream = Upstream::start().await;
    let folder = tempfile::tempdir().unwrap();
    upstream.script("p", [Reply::task("failed", None)]);
    upstream.script("q", [Reply::task("completed", Some(true))]);
    let config = |url: &str| format!("{}{url}\n", Exporter::registering(&upstream, &folder.path().join("state")));
    let exporter = Exporter::with(config("external_url: https://ops.example.com/cekura/")).start().await;
    let info = "cekura_exporter_external_url_info";
    let e = exporter.scrape().await;
    assert_eq!(e.value(info, &[("url", "https://ops.example.com/cekura")]), Some(1.0), "{}", e.text);
    let put = |name: &str, body: Value| {
        let request = exporter.http().put(format!("{}/api/v1/toggles/{name}", exporter.urls[0]));
        let request = request.header("content-type", "application/json").body(body.to_string());
        async move { request.send().await.unwrap().headers()["location"].to_str().unwrap().to_owned() }
    };
    let location = put("a", json!({"agent_id": 1, "progress_id": "p"})).await;
    assert_eq!(location, "https://ops.example.com/cekura/api/v1/toggles/a");
    let failed = async || {
        let lines = exporter.logs_of("toggle changed state");
        lines.into_iter().find(|line| line["to"] == "failed")
    };
    let failed = eventually("it failed", failed).await;
    assert_eq!(failed["runbook_url"], "https://ops.example.com/cekura/runbooks?toggle=a#cekuratogglefailed");
    exporter.reconfigure(config(""));
    assert_eq!(exporter.reload().await.0, 200);
    assert_eq!(exporter.scrape().await.count(info), 0);
    let location = put("b", json!({"agent_id": 1, "progress_id": "q", "expect": "disabled"})).await;
    assert_eq!(location, "/api/v1/toggles/b");
    let mismatch = exporter.logged("toggle completed in another state than expected", 1).await;
    assert!(mismatch[0].get("runbook_url").is_none(), "{mismatch:?}");
}
