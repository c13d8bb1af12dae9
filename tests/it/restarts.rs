//! What is known over restarts, and state files that cannot be used.

use std::path::Path;

use cekura_exporter::demo::simulator::Reply;
use cekura_exporter::store::{FileStore, SavedToggle};
use serde_json::json;

use crate::harness::{Exporter, Exposition, Upstream, eventually};

fn config(upstream: &Upstream, state: &Path, watches: &str) -> String {
    Exporter::quick(upstream, &format!("state_file: {}\nwatches:\n{watches}", state.display()))
}

const WATCHES: &str = "  - {name: good, agent_id: 1, progress_id: good, expect: enabled}\n  \
                       - {name: bad, agent_id: 2, progress_id: bad}\n  \
                       - {name: young, agent_id: 3, progress_id: young}\n";

async fn polled(upstream: &Upstream, state: &Path) -> Exporter {
    upstream.script("good", [Reply::task("in_progress", None), Reply::task("completed", Some(true))]);
    upstream.script("bad", [Reply::new(200, r#"{"status":"failed","mock_enabled":null,"message":"m","error":"e"}"#)]);
    upstream
        .script("young", [Reply::task("in_progress", None), Reply::task("in_progress", None), Reply::detail(500, "x")]);
    let exporter = Exporter::with(config(upstream, state, WATCHES)).start().await;
    let e = exporter
        .scrape_until("all were polled", |e| {
            e.status("good").as_deref() == Some("completed")
                && e.status("bad").as_deref() == Some("failed")
                && e.poll_error("young").is_some()
        })
        .await;
    assert_eq!(e.value("cekura_agent_mock_enabled", &[("agent_id", "1")]), Some(1.0));
    exporter
}

/// What must be the same after a restart, once the watches are as they were.
const KEPT: [&str; 9] = [
    "cekura_toggle_status",
    "cekura_toggle_mock_enabled",
    "cekura_toggle_mock_mismatch",
    "cekura_toggle_started_timestamp_seconds",
    "cekura_toggle_finished_timestamp_seconds",
    "cekura_toggle_last_completed_timestamp_seconds",
    "cekura_toggle_last_failed_timestamp_seconds",
    "cekura_agent_mock_enabled",
    "cekura_agent_mock_enabled_since_timestamp_seconds",
];

fn kept(text: &str) -> Vec<&str> {
    text.lines().filter(|line| KEPT.iter().any(|name| line.starts_with(name))).collect()
}

/// What two toggles have counted that are not polled any more.
fn counted(e: &Exposition) -> Vec<Option<f64>> {
    let of = |toggle, name| {
        let outcome = [("toggle", toggle), ("status", if toggle == "bad" { "failed" } else { "completed" })];
        e.value(name, if name.contains("finished") { &outcome } else { &outcome[..1] })
    };
    ["good", "bad"]
        .iter()
        .flat_map(|toggle| ["cekura_toggle_polls_total", "cekura_toggle_finished_total"].map(|name| of(*toggle, name)))
        .collect()
}

/// `ended_well` says whether the process before stopped as it should. Else counters begin at zero: what they
/// were when they were last scraped is not known, and less than that would count as all new.
async fn is_known_again(upstream: &Upstream, state: &Path, before: &Exposition, ended_well: bool) {
    let polls = (upstream.polls_of("good"), upstream.polls_of("bad"), upstream.polls_of("young"));
    let exporter = Exporter::with(config(upstream, state, WATCHES)).start().await;
    let after = exporter.scrape().await;
    assert_eq!(kept(&after.text), kept(&before.text));
    let zero = vec![Some(0.0); 4];
    assert_eq!(counted(&after), if ended_well { counted(before) } else { zero });
    eventually("the unfinished run is polled on", async || (upstream.polls_of("young") > polls.2 + 2).then_some(()))
        .await;
    assert_eq!((upstream.polls_of("good"), upstream.polls_of("bad")), (polls.0, polls.1), "finished runs are not");
    let bad = exporter.toggle("bad").await;
    assert_eq!((&bad["error"], &bad["message"]), (&json!("e"), &json!("m")));
    let (_, events) = exporter.get("/api/v1/toggles/bad/events").await;
    assert!(events.contains(r#""event":"status_changed""#) && events.contains(r#""to":"failed""#), "{events}");
}

#[tokio::test]
async fn what_is_known_of_every_watch_survives_a_restart() {
    let (upstream, folder) = (Upstream::start().await, tempfile::tempdir().unwrap());
    let state = folder.path().join("state");
    let exporter = polled(&upstream, &state).await;
    let before = exporter.scrape().await;
    exporter.stop().await;
    is_known_again(&upstream, &state, &before, true).await;
}

#[tokio::test]
async fn what_is_known_survives_a_kill_once_it_is_saved() {
    let (upstream, folder) = (Upstream::start().await, tempfile::tempdir().unwrap());
    let state = folder.path().join("state");
    let exporter = polled(&upstream, &state).await;
    let before = exporter.scrape().await;
    eventually("it was saved", async || {
        let copy = folder.path().join("copy");
        std::fs::copy(&state, &copy).unwrap();
        // A copy that was taken amid a write may be torn.
        let saved = FileStore::open(&copy).ok()?.1;
        let is_saved = |name: &str, failing: bool| {
            let run = |runs: &Vec<_>| runs.first().map(|saved: &SavedToggle| saved.run.clone());
            let run = saved.toggles.get(name).and_then(run);
            run.is_some_and(|run| run.finished.is_some() || (failing && run.failing.is_some()))
        };
        (is_saved("good", false) && is_saved("bad", false) && is_saved("young", true) && !saved.agents.is_empty())
            .then_some(())
    })
    .await;
    exporter.kill().await;
    is_known_again(&upstream, &state, &before, false).await;
}

#[tokio::test]
async fn an_agent_whose_mocks_are_off_is_known_again_too() {
    let (upstream, folder) = (Upstream::start().await, tempfile::tempdir().unwrap());
    upstream.script("off", [Reply::task("completed", Some(false))]);
    let text = config(&upstream, &folder.path().join("state"), "  - {name: w, agent_id: 1, progress_id: off}\n");
    let off = |e: &Exposition| e.value("cekura_agent_mock_enabled", &[("agent_id", "1")]) == Some(0.0);
    let exporter = Exporter::with(text.clone()).start().await;
    exporter.scrape_until("mocks are off", off).await;
    exporter.stop().await;
    let exporter = Exporter::with(text).start().await;
    assert!(off(&exporter.scrape().await));
    assert_eq!(upstream.polls_of("off"), 1);
}

#[tokio::test]
async fn without_a_state_file_a_restart_forgets() {
    let upstream = Upstream::start().await;
    upstream.script("p", [Reply::task("completed", None)]);
    for polls in 1..3 {
        let exporter = Exporter::polling(&upstream, "  - {name: w, agent_id: 1, progress_id: p}\n").start().await;
        exporter.scrape_until("it completed", |e| e.status("w").as_deref() == Some("completed")).await;
        assert_eq!(upstream.polls_of("p"), polls);
        exporter.stop().await;
    }
}

#[tokio::test]
async fn a_new_run_in_the_slot_after_a_restart_keeps_the_counters_only() {
    let (upstream, folder) = (Upstream::start().await, tempfile::tempdir().unwrap());
    let state = folder.path().join("state");
    polled(&upstream, &state).await.stop().await;
    let exporter =
        Exporter::with(config(&upstream, &state, "  - {name: bad, agent_id: 2, progress_id: young}\n")).start().await;
    let e = exporter.scrape_until("it was polled", |e| e.poll_error("bad").is_some()).await;
    assert_eq!(e.status("bad").as_deref(), Some("unknown"));
    assert_eq!(e.value("cekura_toggle_finished_total", &[("toggle", "bad"), ("status", "failed")]), Some(1.0));
    assert!(e.value("cekura_toggle_last_failed_timestamp_seconds", &[("toggle", "bad")]).is_some());
    assert_eq!(e.value("cekura_toggle_finished_timestamp_seconds", &[("toggle", "bad")]), None);
    assert_eq!(
        e.value("cekura_agent_mock_enabled", &[("agent_id", "1")]),
        Some(1.0),
        "an agent whose mocks are on is remembered without a watch"
    );
}

/// What is known of the toggle must be what was known.
async fn is_as_before(exporter: &Exporter, before: &serde_json::Value) {
    let mut after = exporter.toggle("a").await;
    after["source"] = before["source"].clone();
    assert_eq!(&after, before);
}

#[tokio::test]
async fn a_registration_that_did_not_hold_for_a_while_comes_back_with_all_that_was_known() {
    let (upstream, folder) = (Upstream::start().await, tempfile::tempdir().unwrap());
    upstream.script("p", [Reply::task("failed", None), Reply::detail(404, "expired")]);
    let state = folder.path().join("state");
    let registering = Exporter::registering(&upstream, &state) + "watch_files: [\"*.toggle\"]\n";
    let disabled = registering.replace("enabled: true", "enabled: false");
    let exporter = Exporter::with(registering.clone()).start().await;
    exporter.put("a", &json!({"agent_id": 7, "progress_id": "p"})).await;
    exporter.scrape_until("it failed", |e| e.status("a").as_deref() == Some("failed")).await;
    let before = exporter.toggle("a").await;
    let reload = async |exporter: &Exporter, config: &str| {
        exporter.reconfigure(config);
        assert_eq!(exporter.reload().await.0, 200);
    };
    let without_api = registering.replace("  default:", "  other:");
    for other in [&disabled, &without_api] {
        reload(&exporter, other).await;
        assert_eq!(exporter.get("/api/v1/toggles/a").await.0, 404);
        reload(&exporter, &registering).await;
        is_as_before(&exporter, &before).await;
    }
    let file = exporter.folder().join("a.toggle");
    for other in [&disabled, &without_api] {
        reload(&exporter, other).await;
        std::fs::write(
            &file,
            "{name: a, agent_id: 7, progress_id: q, api: other}"
                .replace(", api: other", if other.contains("other:") { ", api: other" } else { "" }),
        )
        .unwrap();
        reload(&exporter, other).await;
        assert_eq!(exporter.toggle("a").await["progress_id"], "q");
        std::fs::remove_file(&file).unwrap();
        reload(&exporter, other).await;
        assert_eq!(exporter.get("/api/v1/toggles/a").await.0, 404);
        reload(&exporter, &registering).await;
        let after = exporter.toggle("a").await;
        assert_eq!((&after["status"], &after["finished_at"]), (&before["status"], &before["finished_at"]));
    }
    std::fs::write(&file, "{name: a, agent_id: 7, progress_id: q}").unwrap();
    exporter.scrape_until("the file's holds", |e| e.value("cekura_toggle_info", &[("source", "file")]).is_some()).await;
    assert_ne!(exporter.toggle("a").await["status"], "failed");
    std::fs::remove_file(&file).unwrap();
    let e =
        exporter.scrape_until("it is back", |e| e.value("cekura_toggle_info", &[("source", "http")]).is_some()).await;
    assert_eq!(e.status("a").as_deref(), Some("failed"));
    assert_eq!(exporter.toggle("a").await["finished_at"], before["finished_at"]);
    exporter.stop().await;
    for config in [&disabled, &without_api] {
        let exporter = Exporter::with(config.clone()).start().await;
        assert_eq!(exporter.get("/api/v1/toggles/a").await.0, 404);
        reload(&exporter, &registering).await;
        let after = exporter.toggle("a").await;
        assert_eq!((&after["status"], &after["finished_at"]), (&json!("failed"), &before["finished_at"]));
        exporter.stop().await;
    }
    assert_eq!(upstream.polls_of("p"), 1);
}

#[tokio::test]
async fn a_state_file_behind_a_link_that_leads_to_nothing_yet_is_made_there() {
    let (upstream, folder) = (Upstream::start().await, tempfile::tempdir().unwrap());
    std::os::unix::fs::symlink("real", folder.path().join("state")).unwrap();
    let state = folder.path().join("state");
    Exporter::with(config(&upstream, &state, WATCHES)).start().await.stop().await;
    assert!(folder.path().join("real").is_file());
    Exporter::with(config(&upstream, &state, WATCHES)).start().await.stop().await;
}

/// The exporter must not start with this state file, say `what` and leave it as it is.
fn is_refused(upstream: &Upstream, state: &Path, what: &str) {
    let bytes = std::fs::read(state).ok();
    refuses(upstream, state, what);
    assert!(std::fs::read(state).ok() == bytes, "the file was changed");
}

fn refuses(upstream: &Upstream, state: &Path, what: &str) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("config.yaml");
    std::fs::write(&path, config(upstream, state, WATCHES)).unwrap();
    let args = ["--config.file", path.to_str().unwrap(), "--web.listen-address=127.0.0.1:0"];
    let output = crate::harness::run(&args, &[]);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{errors}");
    assert!(errors.contains(&state.display().to_string()) && errors.contains(what), "{what}: {errors}");
    assert_eq!(errors.lines().count(), 1, "{errors}");
}

#[tokio::test]
async fn a_state_file_that_cannot_be_used_is_an_error_that_leaves_it_untouched() {
    let (upstream, folder) = (Upstream::start().await, tempfile::tempdir().unwrap());
    let state = folder.path().join("state");
    let running = polled(&upstream, &state).await;
    // The one that has it goes on saving.
    refuses(&upstream, &state, "is in use");
    running.stop().await;
    let good = std::fs::read(&state).unwrap();
    let bad = |name: &str, bytes: &[u8]| {
        let path = folder.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        path
    };
    is_refused(&upstream, &bad("garbage", b"no database at all"), "is not a state file");
    is_refused(&upstream, &bad("half", &good[..good.len() / 2]), "is damaged");
    is_refused(&upstream, &folder.path().join("none/state"), "has no folder");
    let newer = folder.path().join("newer");
    std::fs::copy(&state, &newer).unwrap();
    {
        let database = redb::Database::open(&newer).unwrap();
        let writing = database.begin_write().unwrap();
        writing.open_table(redb::TableDefinition::<&str, u64>::new("meta")).unwrap().insert("version", 2).unwrap();
        writing.commit().unwrap();
    }
    is_refused(&upstream, &newer, "newer");
    Exporter::with(config(&upstream, &state, WATCHES)).start().await.stop().await;
}
