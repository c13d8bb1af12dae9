//! The script of the worked example, run as it is, beside an exporter with the sidecar's configuration.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use cekura_exporter::demo::simulator::{Reply, Request, Simulator};
use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::process::{Child, Command};
use tokio::task::{JoinSet, LocalSet};

use super::{file, yaml};
use crate::harness::{Exporter, KEY, ReservedPort, eventually, tool};

/// The key that toggles, which must never show.
pub(super) const TOGGLE_KEY: &str = "sk-toggles-41";

/// An API of one agent, which is asked to enable and to disable.
pub(super) struct Agent {
    simulator: Simulator,
    /// What it was asked to be, in that order.
    toggles: Arc<Mutex<Vec<Value>>>,
    /// How many of the next requests to disable it cannot answer.
    pub(super) stumbles: Arc<AtomicU32>,
    /// How many of the next requests to enable are cut off by a proxy. They take effect after the next one to disable.
    cut_off: Arc<AtomicU32>,
    /// Whether its mocks are on.
    pub(super) live: Arc<AtomicBool>,
}

impl Agent {
    /// An API whose tasks end like this. Without an end for a direction, that toggle is refused.
    pub(super) async fn ending(enable: Option<Reply>, disable: Option<Reply>) -> Self {
        Self::start(enable, disable, |_| true).await
    }

    /// An API whose tasks all complete as they were asked to, and take effect only in these directions.
    async fn taking(takes: impl Fn(bool) -> bool + Send + Sync + 'static) -> Self {
        Self::start(Some(on()), Some(off()), takes).await
    }

    async fn start(
        enable: Option<Reply>,
        disable: Option<Reply>,
        takes: impl Fn(bool) -> bool + Send + Sync + 'static,
    ) -> Self {
        let live = Arc::new(AtomicBool::new(false));
        let switched = live.clone();
        let toggles = Arc::new(Mutex::new(Vec::new()));
        let asked = toggles.clone();
        let stumbles = Arc::new(AtomicU32::new(0));
        let stumbling = stumbles.clone();
        let cut_off = Arc::new(AtomicU32::new(0));
        let (cutting, late) = (cut_off.clone(), AtomicBool::new(false));
        let script = move |request: &Request| {
            if request.method != "POST" {
                assert_eq!(request.header("x-cekura-api-key"), Some(KEY));
                if request.mock_status_of().is_some() {
                    return Reply::mock_status(switched.load(Ordering::Relaxed), "vapi");
                }
                let ending = if request.progress_id().as_deref() == Some("on") { &enable } else { &disable };
                return ending.clone().unwrap_or_else(|| Reply::detail(400, "no such id"));
            }
            assert_eq!(request.path, "/test_framework/v2/aiagents/7/toggle-mock-tools/");
            assert_eq!(request.header("x-cekura-api-key"), Some(TOGGLE_KEY));
            let body: Value = serde_json::from_str(&request.body).unwrap();
            asked.lock().unwrap().push(body.clone());
            let (ending, id) = if body["enabled"] == true { (&enable, "on") } else { (&disable, "off") };
            let left = |left: u32| left.checked_sub(1);
            if id == "off" && stumbling.fetch_update(Ordering::Relaxed, Ordering::Relaxed, left).is_ok() {
                return Reply::detail(503, "not now");
            }
            if id == "on" && cutting.fetch_update(Ordering::Relaxed, Ordering::Relaxed, left).is_ok() {
                late.store(true, Ordering::Relaxed);
                return Reply::detail(504, "took too long");
            }
            if id == "off" && late.swap(false, Ordering::Relaxed) {
                switched.store(true, Ordering::Relaxed);
                return Reply::new(202, json!({"progress_id": id}).to_string());
            }
            if takes(id == "on") {
                switched.store(id == "on", Ordering::Relaxed);
            }
            match ending {
                Some(_) => Reply::new(202, json!({"progress_id": id}).to_string()),
                None => Reply::detail(403, &format!("{TOGGLE_KEY} may not")),
            }
        };
        Self { simulator: Simulator::start(script).await.unwrap(), toggles, stumbles, cut_off, live }
    }

    pub(super) fn url(&self) -> String {
        format!("http://{}", self.simulator.address())
    }

    pub(super) fn toggles(&self) -> Vec<Value> {
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

    /// Starts the script with what a shell makes of the tests. They run in the folder of the pod, and leave
    /// the file `ran` when they begin.
    fn run(&self, agent: &Agent, tests: &str) -> Child {
        self.command(&["/bin/sh"], agent, tests).spawn().unwrap()
    }

    /// The same, not started, and with the shell that runs the script.
    fn command(&self, shell: &[&str], agent: &Agent, tests: &str) -> Command {
        let path = |name: &str| self.folder.path().join(name).display().to_string();
        let folders = std::env::join_paths([tool("curl").parent().unwrap(), Path::new("/usr/bin"), Path::new("/bin")]);
        // Where the tests run in the background, signals are ignored, and a shell cannot trap those.
        let mut command = Command::new("/usr/bin/env");
        command
            .arg("--default-signal")
            .args(shell)
            .arg(file("deploy/kubernetes/overlays/example-cronjob/mocked-tests.sh"));
        command.args(["/bin/sh", "-c", &format!("touch ran; {tests}")]).current_dir(self.folder.path());
        command.env_clear().env("PATH", folders.unwrap()).envs([
            ("STOP_SECONDS", "5".to_owned()),
            ("CEKURA_URL", agent.url()),
            ("CEKURA_KEY_FILE", path("secrets/toggle-key")),
            ("AGENT_ID", "7".to_owned()),
            ("SLOT", "bookings".to_owned()),
            ("TEAM", "bookings".to_owned()),
            ("TOGGLES", path("toggles")),
            ("EXPORTER", self.exporter.urls[0].clone()),
        ]);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        command
    }

    fn ran(&self) -> bool {
        self.folder.path().join("ran").exists()
    }

    /// How often tests have written to the file `beat`.
    fn beats(&self) -> Option<u64> {
        std::fs::metadata(self.folder.path().join("beat")).ok().map(|beat| beat.len())
    }
}

/// How a script ended, and what it said.
pub(super) async fn ended(script: Child) -> (Option<i32>, String) {
    let output = tokio::time::timeout(Duration::from_mins(1), script.wait_with_output()).await.unwrap().unwrap();
    let said = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
    assert!(!said.contains(KEY) && !said.contains(TOGGLE_KEY), "{said}");
    (output.status.code(), said)
}

pub(super) fn on() -> Reply {
    Reply::task("completed", Some(true))
}

pub(super) fn off() -> Reply {
    Reply::task("completed", Some(false))
}

pub(super) fn failed() -> Reply {
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

/// How a job ends that waits until its toggles have taken effect, and what it says.
async fn confirmed(pod: &Pod, agent: &Agent, shell: &[&str], seconds: &str) -> (Option<i32>, String) {
    let mut command = pod.command(shell, agent, "exit 0");
    ended(command.envs([("LIVE", "true"), ("LIVE_SECONDS", seconds)]).spawn().unwrap()).await
}

#[tokio::test]
async fn tests_run_when_the_api_confirms_that_mocks_are_on_and_the_job_ends_well_when_they_are_off_again() {
    let agent = Agent::taking(|_| true).await;
    let pod = Pod::of(&agent).await;
    for shell in SHELLS {
        let (code, said) = confirmed(&pod, &agent, shell, "60").await;
        assert_eq!((code, pod.ran(), agent.live.load(Ordering::Relaxed)), (Some(0), true, false), "{shell:?}: {said}");
    }
    let e = pod.exporter.scrape().await;
    let labels = [("agent_id", "7"), ("team", "bookings"), ("source", "file")];
    assert_eq!(e.value("cekura_agent_info", &labels), Some(1.0), "{}", e.text);
}

#[tokio::test]
async fn a_toggle_that_completed_and_did_not_take_effect_fails_the_job() {
    for (takes, ran) in [(false, false), (true, true)] {
        // Neither direction takes effect, or only enabling does.
        let agent = Agent::taking(move |enables| takes && enables).await;
        let pod = Pod::of(&agent).await;
        let (code, said) = confirmed(&pod, &agent, SHELLS[0], "4").await;
        assert_eq!((code, pod.ran()), (Some(1), ran), "{said}");
        let state = if takes { "disabled" } else { "enabled" };
        let what = format!("-{state} completed, but the API did not confirm that mocks are {state}");
        assert!(said.contains(&what) && said.contains("set LIVE to false"), "{said}");
        assert_eq!(agent.toggles(), [json!({"enabled": true}), json!({"enabled": false})]);
    }
}

/// Tests that do not end by themselves, and what they leave if they are let to end, as shells make them.
/// While they run, the file `beat` grows.
const ENDLESS: [(&str, bool); 4] = [
    // What is asked to end takes its time.
    ("trap 'sleep 2; touch over; exit' TERM; while :; do echo >> beat; sleep 0.1; done", true),
    // It is a child that works, and its parent ends at once.
    ("(while :; do echo >> beat; sleep 0.1; done) & wait", false),
    // It does not listen.
    ("trap '' TERM; while :; do echo >> beat; sleep 0.1; done", false),
    // Neither does its child.
    ("(trap '' TERM; while :; do echo >> beat; sleep 0.1; done) & wait", false),
];

/// The shells of common images.
const SHELLS: [&[&str]; 3] = [&["/bin/sh"], &["/bin/bash"], &["/bin/busybox", "sh"]];

/// Stops a job amid these tests, and expects mocks disabled when nothing of the tests runs any more.
async fn stopped_amid(shell: &[&str], signal: Signal, tests: &str, ends: bool) {
    let agent = Agent::ending(Some(on()), Some(off())).await;
    let pod = Pod::of(&agent).await;
    let script = pod.command(shell, &agent, tests).spawn().unwrap();
    eventually("the tests run", async || pod.beats().filter(|beats| *beats > 0)).await;
    let id = i32::try_from(script.id().unwrap()).unwrap();
    kill_process(Pid::from_raw(id).unwrap(), signal).unwrap();
    eventually("mocks are disabled", async || (agent.toggles().len() == 2).then_some(())).await;
    let (beats, over) = (pod.beats(), pod.folder.path().join("over").exists());
    assert_eq!(over, ends, "{shell:?}: {tests}");
    let (code, said) = ended(script).await;
    // A signal of a closed pipe only ends the wait for the tests, so the job ends with its status.
    let expected = if signal == Signal::PIPE { 141 } else { 143 };
    assert_eq!((code, agent.toggles().last()), (Some(expected), Some(&json!({"enabled": false}))), "{said}");
    assert_eq!(pod.beats(), beats, "{shell:?}: {tests}");
}

#[tokio::test]
async fn a_job_that_is_stopped_disables_when_nothing_of_its_tests_runs_any_more() {
    let mut jobs = JoinSet::new();
    let local = LocalSet::new();
    for (shell, (tests, ends)) in SHELLS.into_iter().flat_map(|shell| ENDLESS.map(|tests| (shell, tests))) {
        jobs.spawn_local_on(stopped_amid(shell, Signal::TERM, tests, ends), &local);
    }
    local.run_until(jobs.join_all()).await;
}

#[tokio::test]
async fn whatever_signal_ends_a_job_mocks_are_disabled() {
    let mut jobs = JoinSet::new();
    let local = LocalSet::new();
    let (tests, ends) = ENDLESS[1];
    let signals = [Signal::HUP, Signal::QUIT, Signal::INT, Signal::USR1, Signal::USR2, Signal::ALARM, Signal::PIPE];
    for (shell, signal) in SHELLS.into_iter().flat_map(|shell| signals.map(|signal| (shell, signal))) {
        jobs.spawn_local_on(stopped_amid(shell, signal, tests, ends), &local);
    }
    local.run_until(jobs.join_all()).await;
}

#[tokio::test]
async fn disabling_that_fails_for_a_moment_is_tried_again() {
    let agent = Agent::ending(Some(on()), Some(off())).await;
    agent.stumbles.store(2, Ordering::Relaxed);
    let pod = Pod::of(&agent).await;
    let (code, said) = ended(pod.run(&agent, "exit 0")).await;
    let toggles = [true, false, false, false].map(|enabled| json!({"enabled": enabled}));
    assert_eq!((code, agent.toggles()), (Some(0), toggles.into()), "{said}");
}

#[tokio::test]
async fn a_setting_that_is_wrong_is_refused_before_anything_is_toggled() {
    let agent = Agent::ending(Some(on()), Some(off())).await;
    let pod = Pod::of(&agent).await;
    for shell in SHELLS {
        for (name, value) in [
            ("TOGGLE_SECONDS", "30m"),
            ("TOGGLE_SECONDS", "0900"),
            ("STOP_SECONDS", "20s"),
            ("TOGGLE_SECONDS", "0"),
            ("TOGGLE_SECONDS", "9223372036854775807"),
            ("LIVE_SECONDS", "2m"),
            ("LIVE_SECONDS", "0"),
            ("SETTLE_SECONDS", "1m"),
            ("LIVE", "yes"),
            ("AGENT_ID", "0"),
            ("AGENT_ID", "07"),
            ("AGENT_ID", "7a"),
            ("SLOT", "-a"),
            ("SLOT", ".a"),
            ("SLOT", "a b"),
            ("SLOT", &"a".repeat(120)),
            ("EXPORTER_API", "a/b"),
            ("EXPORTER", "file:///etc"),
            ("TOGGLES", "/nowhere"),
            ("MARKER", "/nowhere/marker"),
        ] {
            let mut command = pod.command(shell, &agent, "exit 0");
            let (code, said) = ended(command.env(name, value).spawn().unwrap()).await;
            assert_eq!((code, pod.ran(), agent.toggles()), (Some(1), false, vec![]), "{shell:?}, {name}: {said}");
            assert!(said.contains(value), "{said}");
        }
    }
}

#[tokio::test]
async fn a_setting_with_a_line_too_many_or_a_password_in_a_url_is_refused_and_not_printed() {
    let agent = Agent::ending(Some(on()), Some(off())).await;
    let pod = Pod::of(&agent).await;
    for shell in SHELLS {
        for (name, value, expected) in [
            ("TEAM", "a\nwombat", "TEAM has control characters"),
            ("CEKURA_KEY", "a\nwombat", "the key is empty, or has more than one line"),
            ("EXPORTER_PASSWORD", "a\nwombat", "the password has more than one line"),
            ("EXPORTER", "http://ci:wombat@127.0.0.1:1/", "a URL must not contain a login"),
            ("CEKURA_URL", "http://ci:wombat@127.0.0.1:1", "a URL must not contain a login"),
        ] {
            let mut command = pod.command(shell, &agent, "exit 0");
            let (code, said) = ended(command.env(name, value).spawn().unwrap()).await;
            assert_eq!((code, pod.ran(), agent.toggles()), (Some(1), false, vec![]), "{shell:?}, {name}: {said}");
            assert!(said.contains(expected) && !said.contains("wombat"), "{name}: {said}");
        }
    }
}

/// What the script does with these arguments.
async fn called(pod: &Pod, agent: &Agent, shell: &[&str], arguments: &[&str]) -> (Option<i32>, String) {
    let like = pod.command(shell, agent, "");
    let like = like.as_std();
    let mut command = Command::new(like.get_program());
    let script = like.get_args().take_while(|argument| *argument != "-c").count() - 1;
    command.args(like.get_args().take(script)).args(arguments).env_clear().current_dir(pod.folder.path());
    command.envs(like.get_envs().filter_map(|(name, value)| Some((name, value?)))).env("LIVE", "true");
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    ended(command.spawn().unwrap()).await
}

#[tokio::test]
async fn an_option_that_does_not_exist_toggles_nothing() {
    let agent = Agent::ending(Some(on()), Some(off())).await;
    let pod = Pod::of(&agent).await;
    for shell in SHELLS {
        for (arguments, code, expected) in [
            (&["--help"][..], 0, "Usage: mocked-tests.sh"),
            (&["--disabled"], 2, "there is no option '--disabled'"),
            (&["-f", "touch", "ran"], 2, "there is no option '-f'"),
            (&["--disable", "touch", "ran"], 2, "--disable takes no arguments"),
            (&["--"], 1, "there is no command to run"),
            (&[], 1, "there is no command to run"),
        ] {
            let (ended, said) = called(&pod, &agent, shell, arguments).await;
            assert_eq!((ended, pod.ran(), agent.toggles()), (Some(code), false, vec![]), "{shell:?}: {said}");
            assert!(said.contains(expected), "{arguments:?}: {said}");
        }
        // What follows is the command, and never an option of the program that starts it.
        let (ended, said) = called(&pod, &agent, shell, &["--", "-f", "touch", "ran"]).await;
        assert_eq!((ended, pod.ran(), agent.live.load(Ordering::Relaxed)), (Some(127), false, false), "{said}");
        assert_eq!(agent.toggles().len(), 2, "{said}");
        agent.toggles.lock().unwrap().clear();
    }
}

#[tokio::test]
async fn mocks_are_disabled_from_a_pod_that_has_not_handed_the_agent_over() {
    let agent = Agent::ending(Some(on()), Some(off())).await;
    agent.live.store(true, Ordering::Relaxed);
    let pod = Pod::of(&agent).await;
    let (code, said) = called(&pod, &agent, SHELLS[0], &["--disable"]).await;
    assert_eq!((code, agent.live.load(Ordering::Relaxed)), (Some(0), false), "{said}");
}

#[tokio::test]
async fn a_request_to_enable_that_was_cut_off_is_followed_by_disabling_at_once_and_when_it_may_have_taken_effect() {
    for shell in SHELLS {
        let agent = Agent::ending(Some(on()), Some(off())).await;
        agent.cut_off.store(4, Ordering::Relaxed);
        let pod = Pod::of(&agent).await;
        let marker = pod.folder.path().join("marker");
        let mut command = pod.command(shell, &agent, "exit 0");
        let (code, said) = ended(command.env("SETTLE_SECONDS", "3").env("MARKER", &marker).spawn().unwrap()).await;
        assert_eq!((code, pod.ran(), marker.exists()), (Some(1), false, false), "{shell:?}: {said}");
        let toggles = [true, true, true, true, false, false].map(|enabled| json!({"enabled": enabled}));
        assert_eq!(agent.toggles(), toggles, "{shell:?}: {said}");
        assert!(!agent.live.load(Ordering::Relaxed), "{shell:?}: {said}");
    }
}

#[tokio::test]
async fn a_marker_says_for_how_long_an_enabling_may_still_take_effect() {
    let agent = Agent::ending(Some(on()), Some(off())).await;
    let pod = Pod::of(&agent).await;
    let marker = pod.folder.path().join("marker");
    let after = std::time::SystemTime::now() + Duration::from_secs(5);
    let after = after.duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    for (text, disabled) in [(format!("{after}\n"), 2), ("0\n".to_owned(), 1), (String::new(), 1)] {
        std::fs::write(&marker, text).unwrap();
        let mut command = pod.command(&["/bin/sh", "-c", r#"exec sh "$0" --disable"#], &agent, "");
        let (code, said) = ended(command.env("MARKER", &marker).spawn().unwrap()).await;
        assert_eq!((code, agent.toggles().len(), marker.exists()), (Some(0), disabled, false), "{said}");
        agent.toggles.lock().unwrap().clear();
    }
}

#[tokio::test]
async fn a_signal_to_the_whole_group_does_not_cut_off_a_request_to_enable() {
    for shell in SHELLS {
        let agent = Agent::ending(Some(on()), Some(off())).await;
        let pod = Pod::of(&agent).await;
        let path = |name: &str| pod.folder.path().join(name);
        std::fs::create_dir(path("bin")).unwrap();
        // Curl, which waits before it enables.
        let text = "#!/bin/sh\ncase \"$*\" in *'\"enabled\": true'*) touch asking; until [ -e go ]; do sleep 0.1; done ;; esac\n";
        std::fs::write(path("bin/curl"), format!("{text}exec {} \"$@\"\n", tool("curl").display())).unwrap();
        std::fs::set_permissions(path("bin/curl"), PermissionsExt::from_mode(0o755)).unwrap();
        let mut command = pod.command(shell, &agent, "exit 0");
        let folders = std::env::join_paths([path("bin").as_path(), Path::new("/usr/bin"), Path::new("/bin")]);
        command.env("PATH", folders.unwrap()).env("SETTLE_SECONDS", "0").env("MARKER", path("marker"));
        let script = command.process_group(0).spawn().unwrap();
        eventually("mocks are being enabled", async || path("asking").exists().then_some(())).await;
        let until = std::fs::read_to_string(path("marker")).unwrap();
        assert_ne!(until, "0\n", "the marker does not say that mocks may come on");
        let id = Pid::from_raw(i32::try_from(script.id().unwrap()).unwrap()).unwrap();
        kill_process_group(id, Signal::TERM).unwrap();
        std::fs::write(path("go"), "").unwrap();
        let (code, said) = ended(script).await;
        assert_eq!((code, pod.ran(), path("marker").exists()), (Some(143), false, false), "{shell:?}: {said}");
        let toggles = [true, false, false].map(|enabled| json!({"enabled": enabled}));
        assert_eq!(agent.toggles(), toggles, "{shell:?}: {said}");
    }
}

#[tokio::test]
async fn a_job_whose_output_nobody_reads_any_more_disables() {
    for shell in SHELLS {
        let agent = Agent::ending(Some(failed()), Some(off())).await;
        let pod = Pod::of(&agent).await;
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let (code, _) = ended(pod.command(shell, &agent, "exit 0").stderr(writer).spawn().unwrap()).await;
        let toggles = [true, false].map(|enabled| json!({"enabled": enabled}));
        assert_eq!((code, agent.toggles()), (Some(1), toggles.into()), "{shell:?}");
    }
}

#[tokio::test]
async fn tests_end_quietly_when_nobody_reads_their_output() {
    let agent = Agent::ending(Some(on()), Some(off())).await;
    let pod = Pod::of(&agent).await;
    for shell in SHELLS {
        // The status of `yes` is that of a program that the signal ended.
        let tests = "{ yes; echo $? >status; } | head -n 1; cat status; exit $(($(cat status) == 141 ? 0 : 1))";
        let (code, said) = ended(pod.command(shell, &agent, tests).spawn().unwrap()).await;
        assert_eq!(code, Some(0), "{shell:?}: {said}");
    }
}

#[tokio::test]
async fn what_curl_is_configured_to_print_is_not_printed() {
    let agent = Agent::ending(Some(failed()), Some(off())).await;
    let pod = Pod::of(&agent).await;
    std::fs::write(pod.folder.path().join(".curlrc"), "verbose\n").unwrap();
    let mut command = pod.command(&["/bin/sh"], &agent, "exit 0");
    // The key and the password are not in the output of any script, which this checks.
    let (code, said) = ended(command.env("HOME", pod.folder.path()).spawn().unwrap()).await;
    assert_eq!(code, Some(1), "{said}");
    assert!(!said.to_lowercase().contains("x-cekura-api-key"), "{said}");
}

#[tokio::test]
async fn nothing_is_toggled_where_the_sidecar_does_not_answer() {
    let agent = Agent::ending(Some(on()), Some(off())).await;
    let pod = Pod::of(&agent).await;
    let nobody = ReservedPort::new();
    let mut command = pod.command(&["/bin/sh"], &agent, "exit 0");
    let (code, said) = ended(command.env("EXPORTER", format!("http://{}", nobody.address)).spawn().unwrap()).await;
    assert_eq!((code, pod.ran(), agent.toggles()), (Some(1), false, vec![]), "{said}");
    assert!(said.contains("the exporter does not answer at http://127.0.0.1:"), "{said}");
}

#[tokio::test]
async fn what_tests_leave_behind_is_over_before_mocks_are_disabled() {
    let agent = Agent::ending(Some(on()), Some(off())).await;
    let pod = Pod::of(&agent).await;
    let (code, said) = ended(pod.run(&agent, &format!("({}) & sleep 1", ENDLESS[0].0))).await;
    assert_eq!((code, pod.folder.path().join("over").exists()), (Some(0), true), "{said}");
}

#[tokio::test]
async fn nothing_is_toggled_where_a_tool_is_missing() {
    let agent = Agent::ending(Some(on()), Some(off())).await;
    let pod = Pod::of(&agent).await;
    let bin = pod.folder.path().join("bin");
    std::fs::create_dir(&bin).unwrap();
    std::os::unix::fs::symlink(tool("curl"), bin.join("curl")).unwrap();
    let mut command = pod.command(&["/bin/sh"], &agent, "exit 0");
    let (code, said) = ended(command.env("PATH", bin).spawn().unwrap()).await;
    assert_eq!((code, agent.toggles()), (Some(1), vec![]), "{said}");
    assert!(said.contains("setsid is missing"), "{said}");
}

#[tokio::test]
async fn a_slash_at_the_end_of_a_url_changes_nothing() {
    let agent = Agent::ending(Some(on()), Some(off())).await;
    let pod = Pod::of(&agent).await;
    let mut command = pod.command(&["/bin/sh"], &agent, "exit 0");
    command.env("CEKURA_URL", agent.url() + "/").env("EXPORTER", pod.exporter.urls[0].clone() + "//");
    let (code, said) = ended(command.env("TOGGLE_SECONDS", "20").spawn().unwrap()).await;
    assert_eq!((code, pod.ran()), (Some(0), true), "{said}");
}

#[tokio::test]
async fn what_a_proxy_answers_in_place_of_the_exporter_is_no_end_of_a_toggle() {
    let agent = Agent::ending(Some(on()), Some(off())).await;
    let pod = Pod::of(&agent).await;
    let passing = Mutex::new(vec![429, 500, 502, 504]);
    let proxy = Simulator::start(move |request| {
        if request.path == "/api/v1/status" {
            return Reply::new(200, "{}");
        }
        if let Some(status) = passing.lock().unwrap().pop() {
            return Reply::new(status, "<html>no</html>");
        }
        let on = request.path == "/api/v1/toggles/bookings-enabled";
        Reply::new(200, format!(r#"{{"status":"completed","mock_enabled":{on},"up":true}}"#))
    });
    let proxy = proxy.await.unwrap();
    let mut command = pod.command(&["/bin/sh"], &agent, "exit 0");
    command.env("EXPORTER", format!("http://{}", proxy.address()));
    let (code, said) = ended(command.spawn().unwrap()).await;
    assert_eq!((code, pod.ran()), (Some(0), true), "{said}");
}
