//! A clock that is set while the exporter runs, or between two of its lives.

use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use cekura_exporter::demo::simulator::Reply;
use serde_json::json;

use crate::harness::{Exporter, Exposition, Upstream, by_clock, set_clock};

const HOUR: f64 = 3600.0;
const YEAR: f64 = 365.0 * 24.0 * HOUR;

/// Waits until it has seen its clock set so often.
async fn seen(exporter: &Exporter, times: usize) {
    exporter.logged("system clock jumped: it is followed if that lasts", times).await;
}

fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs_f64()
}

fn stamp(e: &Exposition, toggle: &str, what: &str) -> f64 {
    e.value(&format!("cekura_toggle_{what}_timestamp_seconds"), &[("toggle", toggle)]).unwrap()
}

/// A clock that is wrong for less than half a minute is not believed: what finishes meanwhile has the right
/// time and the right place in the order, whatever the clock says.
#[tokio::test]
async fn runs_are_in_the_order_in_which_they_finish_while_the_clock_is_set() {
    let upstream = Upstream::start().await;
    upstream.script("enable", [Reply::task("completed", Some(true))]);
    upstream.script("fails", [Reply::task("failed", None)]);
    upstream.script("disable", [Reply::task("completed", Some(false))]);
    let folder = tempfile::tempdir().unwrap();
    let started = now();
    let start = Exporter::with(Exporter::registering(&upstream, &folder.path().join("state")));
    let exporter = by_clock(start, 0.0).start().await;
    let register = async |id: &str| exporter.put("w", &json!({"agent_id": 1, "progress_id": id})).await.0;
    assert_eq!(register("enable").await, 201);
    exporter.scrape_until("it completed", |e| e.status("w").as_deref() == Some("completed")).await;
    for (times, off) in [(1, -HOUR), (2, YEAR)] {
        set_clock(&exporter, off);
        seen(&exporter, times).await;
        assert_eq!(register("fails").await, 200);
        let e = exporter.scrape_until("it failed", |e| e.status("w").as_deref() == Some("failed")).await;
        assert!(stamp(&e, "w", "last_failed") > stamp(&e, "w", "last_completed"), "{off}");
        assert_eq!(register("disable").await, 200);
        let e = exporter.scrape_until("it completed", |e| e.status("w").as_deref() == Some("completed")).await;
        assert!(stamp(&e, "w", "last_completed") > stamp(&e, "w", "last_failed"), "{off}");
        assert_eq!(e.value("cekura_agent_mock_enabled", &[]), Some(0.0), "{off}");
        for what in ["last_completed", "last_failed", "started", "finished", "last_success"] {
            let stamp = stamp(&e, "w", what);
            assert!(stamp >= started - 1.0 && stamp <= now() + 1.0, "{what}: {stamp}");
        }
        assert_eq!(register("enable").await, 200);
        exporter.scrape_until("it is on again", |e| e.value("cekura_agent_mock_enabled", &[]) == Some(1.0)).await;
    }
}

#[tokio::test]
async fn a_clock_that_is_days_ahead_for_a_moment_expires_nothing_before_its_time_has_passed() {
    let upstream = Upstream::start().await;
    for (id, status) in [("runs", "in_progress"), ("fails", "failed"), ("completes", "completed")] {
        upstream.script(id, [Reply::task(status, None)]);
    }
    let folder = tempfile::tempdir().unwrap();
    let config = Exporter::registering(&upstream, &folder.path().join("state"));
    let config = config.replace("{enabled: true}", "{enabled: true, retention: {completed: 4s}}");
    let exporter = by_clock(Exporter::with(config), 0.0).start().await;
    let register = async |id: &str| exporter.put(id, &json!({"agent_id": 1, "progress_id": id})).await.0;
    for id in ["runs", "fails"] {
        assert_eq!(register(id).await, 201);
    }
    exporter.scrape_until("it failed", |e| e.status("fails").as_deref() == Some("failed")).await;
    set_clock(&exporter, 48.0 * HOUR);
    seen(&exporter, 1).await;
    // That this one expires shows that it is looked for what did.
    assert_eq!(register("completes").await, 201);
    exporter.logged("registration expired", 1).await;
    set_clock(&exporter, 0.0);
    let e = exporter.scrape().await;
    assert!(e.status("runs").is_some() && e.status("fails").is_some(), "{}", e.text);
    assert_eq!(exporter.logs_of("registration expired").len(), 1);
}

#[tokio::test]
async fn a_clock_that_is_set_for_good_is_followed_and_all_times_move_with_it() {
    let upstream = Upstream::start().await;
    upstream.script("p", [Reply::task("completed", Some(true))]);
    let folder = tempfile::tempdir().unwrap();
    let start = Exporter::with(Exporter::registering(&upstream, &folder.path().join("state")));
    let exporter = by_clock(start, YEAR).start().await;
    assert_eq!(exporter.put("w", &json!({"agent_id": 1, "progress_id": "p"})).await.0, 201);
    let e = exporter.scrape_until("it completed", |e| e.status("w").as_deref() == Some("completed")).await;
    assert!(stamp(&e, "w", "finished") > now() + YEAR - HOUR, "{}", e.text);
    set_clock(&exporter, 0.0);
    exporter.logged("system clock was set: all times that are shown are moved by as much", 1).await;
    let e = exporter.scrape_until("times are moved", |e| (stamp(e, "w", "finished") - now()).abs() < 2.0 * 60.0).await;
    for what in ["last_completed", "started", "last_success"] {
        assert!((stamp(&e, "w", what) - now()).abs() < 2.0 * 60.0, "{what}: {}", e.text);
    }
    let since = e.value("cekura_agent_mock_enabled_since_timestamp_seconds", &[]).unwrap();
    assert!((since - now()).abs() < 2.0 * 60.0, "{since}");
}

#[tokio::test]
async fn what_was_saved_with_a_clock_that_was_ahead_freezes_nothing_in_the_next_process() {
    let upstream = Upstream::start().await;
    upstream.script("enable", [Reply::task("completed", Some(true))]);
    upstream.script("disable", [Reply::task("completed", Some(false))]);
    let folder = tempfile::tempdir().unwrap();
    let start = |state: &Path| Exporter::with(Exporter::registering(&upstream, state));
    let state = folder.path().join("state");
    let exporter = by_clock(start(&state), YEAR).start().await;
    assert_eq!(exporter.put("w", &json!({"agent_id": 1, "progress_id": "enable"})).await.0, 201);
    exporter.scrape_until("it is on", |e| e.value("cekura_agent_mock_enabled", &[]) == Some(1.0)).await;
    exporter.stop().await;
    let exporter = start(&state).start().await;
    let e = exporter.scrape().await;
    assert!(stamp(&e, "w", "last_completed") <= now() + 1.0, "{}", e.text);
    assert_eq!(exporter.put("w", &json!({"agent_id": 1, "progress_id": "disable"})).await.0, 200);
    exporter.scrape_until("it is off", |e| e.value("cekura_agent_mock_enabled", &[]) == Some(0.0)).await;
}
