//! The examples that are shipped, run as they are.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use cekura_exporter::demo::simulator::Reply;
use serde_json::json;
use tokio::process::{Child, Command};

use crate::harness::{Exporter, ReservedPort, Upstream, eventually, tool};

/// Starts the script of a CI job.
fn job(url: &str, progress_id: &str, expect: &str, seconds: &str) -> Child {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/examples/toggle.sh");
    let folders = std::env::join_paths([tool("curl").parent().unwrap(), Path::new("/usr/bin"), Path::new("/bin")]);
    let mut command = Command::new(script);
    command.args([url, "a", "7", progress_id, expect, seconds]).env_clear().env("PATH", folders.unwrap());
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).kill_on_drop(true).spawn().unwrap()
}

/// How a job ended, and what it said.
async fn ended(job: Child) -> (Option<i32>, String) {
    let output = tokio::time::timeout(Duration::from_mins(1), job.wait_with_output()).await.unwrap().unwrap();
    (output.status.code(), String::from_utf8(output.stderr).unwrap())
}

#[tokio::test]
async fn a_job_goes_on_only_when_its_toggle_completed_in_the_expected_state() {
    let upstream = Upstream::start().await;
    let state = tempfile::tempdir().unwrap();
    let exporter = Exporter::with(Exporter::registering(&upstream, &state.path().join("state"))).start().await;
    let slowly = |last: Reply| [Reply::task("in_progress", None), Reply::task("in_progress", None), last];
    for (id, last, expect, code) in [
        ("on", Reply::task("completed", Some(true)), "enabled", 0),
        ("off", Reply::task("completed", Some(false)), "disabled", 0),
        ("not-on", Reply::task("completed", Some(false)), "enabled", 1),
        ("not-off", Reply::task("completed", Some(true)), "disabled", 1),
        ("nothing", Reply::task("completed", None), "disabled", 1),
        ("failed", Reply::task("failed", Some(true)), "enabled", 1),
    ] {
        upstream.script(id, slowly(last));
        let (ended, said) = ended(job(&exporter.urls[0], id, expect, "60")).await;
        assert_eq!(ended, Some(code), "{id}: {said}");
        assert_eq!(said.contains("did not complete"), code != 0, "{id}: {said}");
    }
}

#[tokio::test]
async fn a_job_fails_when_its_run_is_replaced_takes_too_long_or_cannot_be_registered() {
    let upstream = Upstream::start().await;
    upstream.script("slow", [Reply::task("in_progress", None)]);
    upstream.script("other", [Reply::task("completed", Some(true))]);
    let exporter = Exporter::with(Exporter::registering(&upstream, Path::new("state")));
    let exporter = exporter.start().await;
    let replaced = job(&exporter.urls[0], "slow", "enabled", "60");
    exporter.scrape_until("it is registered", |e| e.status("a").is_some()).await;
    exporter.put("a", &json!({"agent_id": 7, "progress_id": "other"})).await;
    let (code, said) = ended(replaced).await;
    assert!(code == Some(1) && said.contains("409"), "{said}");
    for seconds in ["0", "1"] {
        let (code, said) = ended(job(&exporter.urls[0], "slow", "enabled", seconds)).await;
        assert!(code == Some(1) && said.contains("did not complete"), "{code:?} {said}");
    }
    let (code, said) = ended(job(&exporter.urls[0], "slow", "on", "60")).await;
    assert!(code != Some(0) && said.contains("neither"), "{code:?} {said}");
}

#[tokio::test]
async fn a_job_asks_again_after_the_exporter_was_restarted() {
    let upstream = Upstream::start().await;
    upstream.script("p", [Reply::task("in_progress", None)]);
    let state = tempfile::tempdir().unwrap();
    let port = ReservedPort::new();
    let config = Exporter::registering(&upstream, &state.path().join("state"));
    let start =
        async || Exporter::with(config.clone()).arg(&format!("--web.listen-address={}", port.address)).start().await;
    let exporter = start().await;
    let job = job(&exporter.urls[0], "p", "enabled", "60");
    eventually("it is polled", async || (upstream.polls_of("p") > 2).then_some(())).await;
    exporter.stop().await;
    let exporter = start().await;
    exporter.scrape_until("it is known again", |e| e.status("a").is_some()).await;
    upstream.script("p", [Reply::task("completed", Some(true))]);
    let (code, said) = ended(job).await;
    assert_eq!(code, Some(0), "{said}");
}
