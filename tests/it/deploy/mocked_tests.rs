//! The script of the worked example, run as it is, beside an exporter with the sidecar's configuration.

use std::path::Path;
use std::process::Stdio;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use cekura_exporter::demo::simulator::{Reply, Request, Simulator};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::process::{Child, Command};

use super::{file, yaml};
use crate::harness::{Exporter, KEY, eventually, tool};

/// The key that toggles, which must never show.
const TOGGLE_KEY: &str = "sk-toggles-41";

/// An API of one agent, which is asked to enable and to disable.
struct Agent {
    simulator: Simulator,
    /// What it was asked to be, in that order.
    toggles: Arc<Mutex<Vec<Value>>>,
}

impl Agent {
    /// An API whose tasks end like this. Without an end for a direction, that toggle is refused.
    async fn ending(enable: Option<Reply>, disable: Option<Reply>) -> Self {
        let toggles = Arc::new(Mutex::new(Vec::new()));
        let asked = toggles.clone();
        let script = move |request: &Request| {
            if request.method != "POST" {
                assert_eq!(request.header("x-cekura-api-key"), Some(KEY));
                let ending = if request.progress_id().as_deref() == Some("on") { &enable } else { &disable };
                return ending.clone().unwrap_or_else(|| Reply::detail(400, "no such id"));
            }
            assert_eq!(request.path, "/test_framework/v2/aiagents/7/toggle-mock-tools/");
            assert_eq!(request.header("x-cekura-api-key"), Some(TOGGLE_KEY));
            let body: Value = serde_json::from_str(&request.body).unwrap();
            asked.lock().unwrap().push(body.clone());
            let (ending, id) = if body["enabled"] == true { (&enable, "on") } else { (&disable, "off") };
            match ending {
                Some(_) => Reply::new(202, json!({"progress_id": id}).to_string()),
                None => Reply::detail(403, "no"),
            }
        };
        Self { simulator: Simulator::start(script).await.unwrap(), toggles }
    }

    fn url(&self) -> String {
        format!("http://{}", self.simulator.address())
    }

    fn toggles(&self) -> Vec<Value> {
        self.toggles.lock().unwrap().clone()
    }
}

/// A job and the exporter beside it.
struct Pod {
    exporter: Exporter,
    folder: TempDir,
}

impl Pod {
    /// The sidecar with the configuration that is shipped, and the folders of the pod elsewhere.
    async fn of(agent: &Agent) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name).display().to_string();
        for name in ["toggles", "secrets", "state"] {
            std::fs::create_dir(path(name)).unwrap();
        }
        std::fs::write(path("secrets/api-key"), KEY).unwrap();
        std::fs::write(path("secrets/toggle-key"), TOGGLE_KEY).unwrap();
        let mut config = yaml("deploy/kubernetes/components/sidecar/config.yaml");
        config["apis"]["default"]["base_url"] = agent.url().into();
        let elsewhere = config
            .to_string()
            .replace("/run/secrets/cekura", &path("secrets"))
            .replace("/var/lib/cekura-exporter", &path("state"))
            .replace("\"/toggles", &format!("\"{}", path("toggles")));
        let exporter = Exporter::with(elsewhere)
            .env("CEKURA_EXPORTER__POLLING__MIN_INTERVAL", "100ms")
            .env("CEKURA_EXPORTER__POLLING__MAX_INTERVAL", "200ms")
            .start()
            .await;
        Self { exporter, folder }
    }

    /// Starts the script with what a shell makes of the tests. They leave the file `ran` when they begin.
    fn run(&self, agent: &Agent, tests: &str) -> Child {
        let path = |name: &str| self.folder.path().join(name).display().to_string();
        let folders = std::env::join_paths([tool("curl").parent().unwrap(), Path::new("/usr/bin"), Path::new("/bin")]);
        let mut command = Command::new("/bin/sh");
        command.arg(file("deploy/kubernetes/overlays/example-cronjob/mocked-tests.sh"));
        command.args(["/bin/sh", "-c", &format!("touch '{}'; {tests}", path("ran"))]);
        command.env_clear().env("PATH", folders.unwrap()).envs([
            ("CEKURA_URL", agent.url()),
            ("CEKURA_KEY_FILE", path("secrets/toggle-key")),
            ("AGENT_ID", "7".to_owned()),
            ("SLOT", "bookings".to_owned()),
            ("TEAM", "bookings".to_owned()),
            ("TOGGLES", path("toggles")),
            ("EXPORTER", self.exporter.urls[0].clone()),
        ]);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true).spawn().unwrap()
    }

    fn ran(&self) -> bool {
        self.folder.path().join("ran").exists()
    }
}

/// How a script ended, and what it said.
async fn ended(script: Child) -> (Option<i32>, String) {
    let output = tokio::time::timeout(Duration::from_mins(1), script.wait_with_output()).await.unwrap().unwrap();
    let said = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
    assert!(!said.contains(KEY) && !said.contains(TOGGLE_KEY), "{said}");
    (output.status.code(), said)
}

fn on() -> Reply {
    Reply::task("completed", Some(true))
}

fn off() -> Reply {
    Reply::task("completed", Some(false))
}

fn failed() -> Reply {
    Reply::task("failed", None)
}

#[tokio::test]
async fn tests_run_between_enabling_and_disabling_and_decide_how_the_job_ends() {
    let agent = Agent::ending(Some(on()), Some(off())).await;
    let pod = Pod::of(&agent).await;
    for (tests, expected) in [("exit 0", 0), ("exit 7", 7)] {
        let (code, said) = ended(pod.run(&agent, tests)).await;
        assert_eq!((code, pod.ran()), (Some(expected), true), "{said}");
        std::fs::remove_file(pod.folder.path().join("ran")).unwrap();
    }
    let once = [json!({"enabled": true}), json!({"enabled": false})];
    assert_eq!(agent.toggles(), [once.clone(), once].concat());
    let e = pod.exporter.scrape().await;
    for (toggle, expect) in [("bookings-enabled", "enabled"), ("bookings-disabled", "disabled")] {
        let labels = [("toggle", toggle), ("expect", expect), ("team", "bookings"), ("agent_id", "7")];
        assert_eq!(e.value("cekura_toggle_mock_mismatch", &labels), Some(0.0), "{}", e.text);
    }
}

#[tokio::test]
async fn tests_do_not_run_unless_mocks_are_on_and_mocks_are_disabled_all_the_same() {
    for enable in [Some(failed()), Some(off()), Some(Reply::task("completed", None)), None] {
        let agent = Agent::ending(enable.clone(), Some(off())).await;
        let pod = Pod::of(&agent).await;
        let (code, said) = ended(pod.run(&agent, "exit 0")).await;
        assert_eq!((code, pod.ran()), (Some(1), false), "{enable:?}: {said}");
        assert_eq!(agent.toggles(), [json!({"enabled": true}), json!({"enabled": false})], "{enable:?}: {said}");
    }
}

#[tokio::test]
async fn the_job_fails_when_mocks_stay_on() {
    for disable in [Some(failed()), Some(on()), None] {
        let agent = Agent::ending(Some(on()), disable.clone()).await;
        let pod = Pod::of(&agent).await;
        let (code, said) = ended(pod.run(&agent, "exit 0")).await;
        assert_eq!((code, pod.ran()), (Some(1), true), "{disable:?}: {said}");
    }
}

#[tokio::test]
async fn a_job_that_is_stopped_amid_its_tests_disables() {
    let agent = Agent::ending(Some(on()), Some(off())).await;
    let pod = Pod::of(&agent).await;
    let script = pod.run(&agent, "exec sleep 600");
    eventually("the tests run", async || pod.ran().then_some(())).await;
    let id = i32::try_from(script.id().unwrap()).unwrap();
    rustix::process::kill_process(rustix::process::Pid::from_raw(id).unwrap(), rustix::process::Signal::TERM).unwrap();
    let (code, said) = ended(script).await;
    assert_eq!((code, agent.toggles().last()), (Some(143), Some(&json!({"enabled": false}))), "{said}");
}
