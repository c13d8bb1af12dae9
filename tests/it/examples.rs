//! The script for CI jobs, run as it is: beside the real exporter, and beside a simulated one whose time
//! passes only as the script waits.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use cekura_exporter::demo::simulator::{Reply, Request, Simulator};
use serde_json::json;
use tempfile::TempDir;
use tokio::process::{Child, Command};

use crate::harness::{Authority, Client, Exporter, FAR, ReservedPort, TLS, Upstream, eventually, tool};

/// The shells of common images.
const SHELLS: [&str; 3] = ["/bin/sh", "/bin/bash", "/bin/busybox sh"];

/// The script in this shell, with nothing of the environment. Its programs are looked for in these folders
/// first.
fn script(shell: &str, folders: &[PathBuf]) -> Command {
    let mut words = shell.split(' ');
    let mut command = Command::new(words.next().unwrap());
    command.args(words).arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/examples/toggle.sh"));
    let machine = [tool("curl").parent().unwrap().to_owned(), "/usr/bin".into(), "/bin".into()];
    command.env_clear().env("PATH", std::env::join_paths(folders.iter().chain(&machine)).unwrap());
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    command
}

/// Starts the script of a CI job.
fn job(url: &str, progress_id: &str, expect: &str, seconds: &str) -> Child {
    script("/bin/sh", &[]).args([url, "a", "7", progress_id, expect, seconds]).spawn().unwrap()
}

/// How a job ended, and what it said.
async fn ended(job: Child) -> (Option<i32>, String) {
    let output = tokio::time::timeout(Duration::from_mins(1), job.wait_with_output()).await.unwrap().unwrap();
    (output.status.code(), String::from_utf8([output.stdout, output.stderr].concat()).unwrap())
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

#[tokio::test]
async fn a_job_registers_its_toggle_with_the_labels_and_the_api_that_it_is_given() {
    let upstream = Upstream::start().await;
    let id = r#"p "1" \ 2&3"#;
    upstream.script(id, [Reply::task("completed", Some(true))]);
    let exporter = Exporter::with(Exporter::registering(&upstream, Path::new("state")))
        .env("CEKURA_EXPORTER__APIS__STAGING__BASE_URL", &upstream.url())
        .env("CEKURA_EXPORTER__APIS__STAGING__API_KEY", "sk-staging")
        .start()
        .await;
    let labels = ["--label", r#"team=book "ings" \ = a, b"#, "--api=staging", "--label=poll_error=not_found"];
    for shell in SHELLS {
        let mut command = script(shell, &[]);
        command.args(labels).args([exporter.urls[0].as_str(), "a", "7", id, "enabled"]);
        let (code, said) = ended(command.spawn().unwrap()).await;
        assert_eq!(code, Some(0), "{shell}: {said}");
        let toggle = exporter.toggle("a").await;
        assert_eq!((&toggle["api"], &toggle["progress_id"]), (&json!("staging"), &json!(id)), "{shell}");
        let expected = json!({"team": r#"book "ings" \ = a, b"#, "poll_error": "not_found"});
        assert_eq!(toggle["labels"], expected, "{shell}");
        assert_eq!(exporter.delete("a").await, 204);
    }
}

/// The arguments of all processes that this one can see.
pub(crate) fn process_list() -> Vec<String> {
    let processes = std::fs::read_dir("/proc").unwrap().map(|entry| entry.unwrap().path());
    // Those that are no process, or not any more, have no arguments.
    processes.filter_map(|process| std::fs::read_to_string(process.join("cmdline")).ok()).collect()
}

#[tokio::test]
async fn a_job_logs_in_over_tls_and_its_password_shows_neither_in_processes_nor_in_output() {
    // No other test has this word in the arguments of a process.
    const PASSWORD: &str = r#"a "b" \c:$d marmot"#;
    // As it was given or escaped.
    let shows = |text: &str| text.contains("marmot");
    let (authority, other) = (Authority::new("servers"), Authority::new("others"));
    let upstream = Upstream::start().await;
    let users = json!({"ci": bcrypt::hash(PASSWORD, 4).unwrap()});
    let exporter = Exporter::with(Exporter::registering(&upstream, Path::new("state")))
        .web(&format!("{TLS}basic_auth_users: {users}\n"))
        .server(&authority.server(FAR))
        .client(&Client::trusting(&authority).logged_in("ci", PASSWORD))
        .file("ca.pem", &authority.pem())
        .file("other.pem", &other.pem())
        .file("password", &format!("{PASSWORD}\n"))
        .file("wrong", "no\n")
        .start()
        .await;
    let job = |shell: &str, environment: &[(&str, &str)]| {
        let mut command = script(shell, &[]);
        command.args([exporter.urls[0].as_str(), "a", "7", "p", "enabled"]).current_dir(exporter.folder());
        command.env("EXPORTER_USER", "ci").envs(environment.iter().copied()).spawn().unwrap()
    };
    for (shell, password) in [
        ("/bin/sh -x", ("EXPORTER_PASSWORD_FILE", "password")),
        ("/bin/bash -x", ("EXPORTER_PASSWORD", PASSWORD)),
        ("/bin/busybox sh -x", ("EXPORTER_PASSWORD_FILE", "password")),
    ] {
        upstream.script("p", [Reply::task("in_progress", None)]);
        let job = job(shell, &[password, ("EXPORTER_CA_FILE", "ca.pem")]);
        let waits = |line: &String| line.contains("wait=") && line.contains(&exporter.urls[0]);
        let processes =
            eventually("the job waits", async || Some(process_list()).filter(|processes| processes.iter().any(waits)));
        assert!(!processes.await.iter().any(|line| shows(line)));
        upstream.script("p", [Reply::task("completed", Some(true))]);
        let (code, said) = ended(job).await;
        assert_eq!(code, Some(0), "{shell}: {said}");
        assert!(!shows(&said), "{shell}: {said}");
        assert_eq!(exporter.delete("a").await, 204);
    }
    for (password, authority, remedy) in [
        ("wrong", "ca.pem", "check EXPORTER_USER and the password"),
        ("password", "other.pem", "set EXPORTER_CA_FILE to the certificate of its authority"),
        ("password", "", "set EXPORTER_CA_FILE to the certificate of its authority"),
    ] {
        let job = job("/bin/sh", &[("EXPORTER_PASSWORD_FILE", password), ("EXPORTER_CA_FILE", authority)]);
        let (code, said) = ended(job).await;
        assert!(code == Some(1) && said.contains(remedy), "{password}, {authority}: {code:?} {said}");
    }
}

#[tokio::test]
async fn a_job_that_is_given_too_little_or_nonsense_says_what_is_wrong_and_how_it_is_used() {
    let right = ["http://127.0.0.1:1", "a", "7", "p", "enabled", "60"];
    let with = |at: usize, value: &'static str| {
        let mut args = right.to_vec();
        args[at] = value;
        args
    };
    let mut cases: Vec<(Vec<&str>, &str)> =
        (0..5).map(|count| (right[..count].to_vec(), "arguments are needed")).collect();
    cases.extend([
        ([&right[..], &["more"]].concat(), "arguments are needed"),
        (with(0, ""), "URL is empty"),
        (with(1, "a b"), "NAME 'a b' has"),
        (with(1, ""), "NAME '' has"),
        (with(2, "x7"), "AGENT_ID 'x7' is not a number"),
        (with(3, ""), "PROGRESS_ID is empty"),
        (with(4, "on"), "'on' is neither enabled nor disabled"),
        (with(5, "30m"), "SECONDS '30m' is not"),
        (with(5, "0900"), "SECONDS '0900' is not"),
        ([&["--team", "b"], &right[..]].concat(), "there is no option '--team'"),
        ([&["--label", "team"], &right[..]].concat(), "--label needs NAME=VALUE"),
        (vec!["--label"], "--label needs NAME=VALUE"),
        (vec!["--api"], "--api needs a name"),
        ([&["--live=yes"], &right[..]].concat(), "--live takes no value"),
    ]);
    for shell in SHELLS {
        for (args, what) in &cases {
            let (code, said) = ended(script(shell, &[]).args(args).spawn().unwrap()).await;
            assert_eq!(code, Some(2), "{shell}: {args:?}: {said}");
            assert!(said.contains(what) && said.contains("\nUsage: toggle.sh "), "{shell}: {args:?}: {said}");
        }
        let (code, said) = ended(script(shell, &[]).arg("--help").spawn().unwrap()).await;
        assert!(code == Some(0) && said.starts_with("Usage: toggle.sh "), "{shell}: {said}");
    }
    for environment in [
        &[("EXPORTER_USER", "ci")][..],
        &[("EXPORTER_PASSWORD", "x")],
        &[("EXPORTER_USER", "ci"), ("EXPORTER_PASSWORD", "x"), ("EXPORTER_PASSWORD_FILE", "/dev/null")],
        &[("EXPORTER_CA_FILE", "/nowhere/ca.pem")],
    ] {
        let mut command = script("/bin/sh", &[]);
        let (code, said) = ended(command.args(right).envs(environment.iter().copied()).spawn().unwrap()).await;
        assert!(code == Some(2) && said.contains("Usage"), "{environment:?}: {code:?} {said}");
    }
}

#[tokio::test]
async fn a_slash_at_the_end_of_the_url_changes_nothing() {
    let upstream = Upstream::start().await;
    upstream.script("p", [Reply::task("completed", Some(true))]);
    let exporter = Exporter::with(Exporter::registering(&upstream, Path::new("state"))).start().await;
    for slashes in ["/", "//"] {
        let (code, said) = ended(job(&format!("{}{slashes}", exporter.urls[0]), "p", "enabled", "60")).await;
        assert_eq!(code, Some(0), "{said}");
    }
}

#[tokio::test]
async fn a_registration_that_is_refused_ends_a_job_with_the_reason_and_a_remedy() {
    let upstream = Upstream::start().await;
    let without = Exporter::polling(&upstream, "  - {name: b, agent_id: 7, progress_id: q}\n").start().await;
    let taken = Exporter::registering(&upstream, Path::new("state"));
    let taken = Exporter::with(taken + "watches: [{name: a, agent_id: 7, progress_id: q}]\n").start().await;
    for (url, reason, remedy) in [
        (without.urls[0].clone(), "registrations are not enabled", "enable registrations in the configuration"),
        (taken.urls[0].clone(), "(the name belongs to a watch of another source (config))", "choose another NAME"),
        (upstream.url(), "answered with 400", "check that URL is the address of the exporter"),
    ] {
        let (code, said) = ended(job(&url, "p", "enabled", "1800")).await;
        assert!(code == Some(1) && said.contains("did not complete"), "{code:?} {said}");
        assert!(said.contains(reason) && said.contains(remedy) && said.lines().count() == 1, "{said}");
    }
}

#[tokio::test]
async fn an_id_that_the_api_refuses_ends_a_job_within_a_minute() {
    let upstream = Upstream::start().await;
    upstream.script("unknown", [Reply::detail(404, "Not found.")]);
    let exporter = Exporter::with(Exporter::registering(&upstream, Path::new("state"))).start().await;
    let begun = Instant::now();
    let (code, said) = ended(job(&exporter.urls[0], "unknown", "enabled", "1800")).await;
    assert!(code == Some(1) && begun.elapsed() < Duration::from_mins(1), "{:?} {said}", begun.elapsed());
    let last = said.lines().last().unwrap();
    assert!(
        last.contains("with not_found (GET ") && last.contains("; check that AGENT_ID 7 and PROGRESS_ID unknown"),
        "{said}"
    );
    assert!(upstream.polls_of("unknown") > 2, "it was refused again and again");
}

#[tokio::test]
async fn a_job_with_live_goes_on_only_when_the_api_says_that_mocks_are_as_expected() {
    let upstream = Upstream::start().await;
    upstream.mock_status(7, [Reply::mock_status(false, "vapi"), Reply::mock_status(true, "vapi")]);
    for (id, enabled) in [("on", true), ("off", false), ("other", true)] {
        upstream.script(id, [Reply::task("in_progress", None), Reply::task("completed", Some(enabled))]);
    }
    let config = Exporter::registering(&upstream, Path::new("state")) + "agents: [{agent_id: 7}]\n";
    let exporter = Exporter::with(config).start().await;
    let job = |shell: &str, [agent, id, expect, seconds]: [&str; 4]| {
        let arguments = ["--live", exporter.urls[0].as_str(), id, agent, id, expect, seconds];
        script(shell, &[]).args(arguments).spawn().unwrap()
    };
    for shell in SHELLS {
        let (code, said) = ended(job(shell, ["7", "on", "enabled", "60"])).await;
        assert!(code == Some(0) && said.contains("with mocks enabled, and the API confirms it"), "{code:?} {said}");
    }
    let (code, said) = ended(job("/bin/sh", ["7", "off", "disabled", "3"])).await;
    let last = said.lines().last().unwrap();
    assert!(code == Some(1) && last.contains("did not confirm that mocks are disabled"), "{code:?} {said}");
    assert!(last.contains("mocks are on, and 3 s are over; start the toggle again"), "{said}");
    let (code, said) = ended(job("/bin/sh", ["8", "other", "enabled", "60"])).await;
    let last = said.lines().last().unwrap();
    let reason = "the exporter does not ask for the mock status of agent 8 of the API default (409)";
    assert!(code == Some(1) && last.contains(reason) && last.contains("; list it under `agents`"), "{code:?} {said}");
}

/// A simulated exporter, and a clock for the script.
struct Simulation {
    simulator: Simulator,
    /// The programs `date` and `sleep`, the clock's time, and how long was slept each time.
    folder: TempDir,
    requests: Arc<Mutex<Vec<Request>>>,
}

/// A toggle as the exporter shows it, as far as the script looks.
fn shown(status: &str, mock_enabled: Option<bool>, poll_error: Option<&str>) -> Reply {
    // Before the first poll ended, nothing is known of polls.
    let up = json!(if status == "unknown" && poll_error.is_none() { None } else { Some(poll_error.is_none()) });
    let (mock_enabled, poll_error) = (json!(mock_enabled), json!(poll_error));
    let head = r#"{"name":"a","progress_id":"p","labels":{"poll_error":"forbidden"}"#;
    let tail = format!(r#""error":null,"up":{up},"poll_error":{poll_error},"poll_error_detail":null}}"#);
    Reply::new(200, format!("{head},\"status\":\"{status}\",\"mock_enabled\":{mock_enabled},{tail}\n"))
}

/// An agent as the exporter shows it, as far as the script looks.
fn shown_agent(mocks_live: Option<bool>, poll_error: Option<&str>) -> String {
    let (mocks_live, poll_error) = (json!(mocks_live), json!(poll_error));
    let head = r#"{"api":"default","agent_id":7,"labels":{"mocks_live":"true","poll_error":"timeout"}"#;
    format!("{head},\"mocks_live\":{mocks_live},\"should_be\":\"enabled\",\"poll_error\":{poll_error},\"polls\":1}}\n")
}

/// The same, answered before the time to wait is over.
fn shown_at_once(mocks_live: bool) -> Reply {
    let body = shown_agent(Some(mocks_live), None);
    Reply::Raw(format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len()).into_bytes())
}

impl Simulation {
    /// One that is asked to wait passes that time, and answers as this says: it is given which of the
    /// requests it is, from 0, and how many seconds have passed since the first one.
    async fn answering(script: impl Fn(usize, u64) -> Reply + Send + Sync + 'static) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (clock, requests) = (folder.path().join("now"), Arc::new(Mutex::new(Vec::new())));
        let asked = requests.clone();
        let now = clock.clone();
        let simulator = Simulator::start(move |request| {
            let count = asked.lock().unwrap().len();
            asked.lock().unwrap().push(request.clone());
            let before: u64 = std::fs::read_to_string(&now).unwrap().trim().parse().unwrap();
            let reply = script(count, before);
            if matches!(reply, Reply::Answer { status: 200, .. }) {
                std::fs::write(&now, (before + wait_of(request).unwrap_or(0)).to_string()).unwrap();
            }
            reply
        });
        std::fs::write(&clock, "0").unwrap();
        let program = |name: &str, text: &str| {
            use std::os::unix::fs::OpenOptionsExt as _;
            let mut options = std::fs::OpenOptions::new();
            let mut file = options.write(true).create(true).mode(0o755).open(folder.path().join(name)).unwrap();
            std::io::Write::write_all(&mut file, text.as_bytes()).unwrap();
        };
        let folder_name = folder.path().display();
        program("date", &format!("#!/bin/sh\ncat {folder_name}/now\n"));
        let pass = "now=$(cat now)\necho $((now + $1)) >now\necho $1 >>slept";
        program("sleep", &format!("#!/bin/sh\ncd {folder_name}\n{pass}\n"));
        Self { simulator: simulator.await.unwrap(), folder, requests }
    }

    /// How a job ends, and what it says.
    async fn job(&self, seconds: &str) -> (Option<i32>, String) {
        self.job_at(&format!("http://{}", self.simulator.address()), seconds).await
    }

    async fn job_at(&self, url: &str, seconds: &str) -> (Option<i32>, String) {
        self.job_with(&[url, "a", "7", "p", "enabled", seconds]).await
    }

    /// How a job with `--live` ends, and what it says.
    async fn live_job(&self, seconds: &str) -> (Option<i32>, String) {
        let url = format!("http://{}", self.simulator.address());
        self.job_with(&["--live", &url, "a", "7", "p", "enabled", seconds]).await
    }

    async fn job_with(&self, arguments: &[&str]) -> (Option<i32>, String) {
        let mut command = script("/bin/sh", &[self.folder.path().to_owned()]);
        ended(command.args(arguments).spawn().unwrap()).await
    }

    /// For how many seconds the script slept, each time.
    fn slept(&self) -> Vec<u64> {
        let text = std::fs::read_to_string(self.folder.path().join("slept")).unwrap_or_default();
        text.lines().map(|line| line.parse().unwrap()).collect()
    }

    /// How many seconds have passed.
    fn passed(&self) -> u64 {
        std::fs::read_to_string(self.folder.path().join("now")).unwrap().trim().parse().unwrap()
    }

    /// For how many seconds it was asked to wait, each time.
    fn waits(&self) -> Vec<u64> {
        self.requests.lock().unwrap().iter().filter_map(wait_of).collect()
    }
}

/// For how many seconds a request asks to wait.
fn wait_of(request: &Request) -> Option<u64> {
    let wait = request.query.split('&').find_map(|pair| pair.strip_prefix("wait="))?;
    Some(wait.strip_suffix('s').unwrap().parse().unwrap())
}

#[tokio::test]
async fn each_reason_of_a_refused_id_or_key_ends_a_job_within_a_minute_and_others_do_not() {
    for (reason, remedy) in [
        ("not_found", "check that AGENT_ID 7 and PROGRESS_ID p"),
        ("bad_request", "check that AGENT_ID 7 and PROGRESS_ID p"),
        ("unauthorized", "give the exporter a key"),
        ("forbidden", "give the exporter a key"),
        ("credentials", "give the exporter a key"),
    ] {
        let exporter = Simulation::answering(move |_, _| shown("unknown", None, Some(reason))).await;
        let (code, said) = exporter.job("1800").await;
        assert!(code == Some(1) && (20..60).contains(&exporter.passed()), "{}: {said}", exporter.passed());
        assert!(said.contains(reason) && said.contains(remedy), "{said}");
        // An id may become known only after a moment.
        let exporter = Simulation::answering(move |_, now| match now {
            0..15 => shown("unknown", None, Some(reason)),
            _ => shown("completed", Some(true), None),
        });
        let (code, said) = exporter.await.job("1800").await;
        assert_eq!(code, Some(0), "{said}");
    }
    for reason in ["timeout", "server_error", "rate_limited", "decode"] {
        let exporter = Simulation::answering(move |_, now| match now {
            0..600 => shown("in_progress", None, Some(reason)),
            _ => shown("completed", Some(true), None),
        });
        let (code, said) = exporter.await.job("1800").await;
        assert!(code == Some(0) && said.contains(reason), "{said}");
    }
}

/// The lines of progress: what each says, and after how many seconds. None of them comes too early or late.
fn told<'a>(said: &'a str) -> Vec<(&'a str, u64)> {
    let progress = |line: &'a str| -> Option<(&'a str, u64)> {
        let (what, times) = line.strip_suffix(" s)")?.rsplit_once(" (")?;
        Some((what, times.split_once(" of ")?.0.parse().unwrap()))
    };
    let told: Vec<_> = said.lines().filter_map(progress).collect();
    for pair in told.windows(2) {
        let [(before, then), (after, now)] = pair else { unreachable!() };
        assert!((before != after || now - then >= 30) && now - then <= 60, "{pair:?}: {said}");
    }
    told
}

#[tokio::test]
async fn a_job_says_how_it_stands_when_that_changes_and_else_twice_a_minute_at_most() {
    let exporter = Simulation::answering(|_, now| match now {
        0..3 => shown("unknown", None, None),
        3..100 | 210..1000 => shown("in_progress", None, None),
        100..200 => shown("in_progress", None, Some("timeout")),
        200..210 => Reply::new(502, "<html>\r\n::error::Bad Gateway</html>"),
        _ => shown("completed", Some(true), None),
    });
    let exporter = exporter.await;
    let (code, said) = exporter.job("1800").await;
    assert_eq!(code, Some(0), "{said}");
    let lines: Vec<_> = said.lines().collect();
    assert!(lines.iter().all(|line| line.starts_with("toggle.sh: toggle a")), "{said}");
    for stands in [
        "registered, not polled yet",
        "status is in_progress",
        "polls fail with timeout",
        "answered with 502",
        "completed with mocks enabled",
    ] {
        assert!(lines.iter().any(|line| line.contains(stands)), "{stands}: {said}");
    }
    assert!(told(&said).len() > 15, "{said}");
}

#[tokio::test]
async fn no_request_waits_longer_than_25_seconds_and_all_of_them_end_with_the_patience_of_the_job() {
    let exporter = Simulation::answering(|_, _| shown("in_progress", None, None)).await;
    let (code, said) = exporter.job("123").await;
    assert!(code == Some(1) && said.contains("and 123 s are over"), "{code:?} {said}");
    let waits = exporter.waits();
    assert!(waits.iter().all(|wait| *wait <= 25) && waits.iter().sum::<u64>() == 123, "{waits:?}");
}

#[tokio::test]
async fn a_job_asks_again_after_answers_of_proxies_and_lost_connections() {
    let passing = || {
        let statuses = [429, 500, 502, 503, 504, 507, 520].map(|status| Reply::new(status, "<html>no\n\n</html>"));
        let broken = [&b""[..], b"HTTP/1.1 200 OK\r\ncontent-length: 90\r\n\r\n{"].map(|text| Reply::Raw(text.into()));
        [&statuses[..], &broken, &[Reply::Reset(Vec::new())]].concat()
    };
    let count = passing().len();
    // As it registers, and as it waits.
    let exporter = Simulation::answering(move |request, _| match request {
        request if request < count => passing()[request].clone(),
        request if request == count => shown("unknown", None, None),
        request if request <= 2 * count => passing()[request - count - 1].clone(),
        _ => shown("completed", Some(true), None),
    });
    let exporter = exporter.await;
    let (code, said) = exporter.job("1800").await;
    assert_eq!(code, Some(0), "{said}");
    let slept = exporter.slept();
    assert_eq!(slept.len(), 2 * count, "{slept:?}");
    assert!(slept.iter().all(|seconds| (1..=15).contains(seconds)), "{slept:?}");
}

#[tokio::test]
async fn a_job_gives_up_on_an_exporter_that_does_not_answer_when_its_patience_is_over() {
    let exporter = Simulation::answering(|_, _| Reply::new(502, "")).await;
    let port = ReservedPort::new();
    for (url, what) in [
        (format!("http://{}", exporter.simulator.address()), "answered with 502"),
        (format!("http://{}", port.address), "the exporter did not answer (Failed to connect"),
    ] {
        let before = exporter.passed();
        let (code, said) = exporter.job_at(&url, "300").await;
        let last = said.lines().last().unwrap();
        assert!(code == Some(1) && last.contains(what) && last.contains("300 s are over; check that"), "{said}");
        assert!((5..=11).contains(&told(&said).len()), "{said}");
        assert_eq!(exporter.passed() - before, 300);
    }
}

#[tokio::test]
async fn a_job_pauses_as_long_as_retry_after_says_but_for_a_minute_at_most() {
    for (retry_after, pause) in [("7", 7), ("0", 1), ("08", 8), ("86400", 60), ("99999999999999999999", 1), ("soon", 1)]
    {
        for status in [429, 503] {
            let exporter = Simulation::answering(move |request, _| match request {
                1 => Reply::with_header(status, "ReTry-After", retry_after, r#"{"error":"the exporter stops"}"#),
                2 => shown("completed", Some(true), None),
                _ => shown("unknown", None, None),
            });
            let exporter = exporter.await;
            let (code, said) = exporter.job("1800").await;
            assert_eq!((code, exporter.slept()), (Some(0), vec![pause]), "{retry_after}: {said}");
            assert!(said.contains(&format!("{status} (the exporter stops)")), "{said}");
        }
    }
}

#[tokio::test]
async fn an_answer_that_may_be_older_than_the_toggle_does_not_confirm_it() {
    let exporter = Simulation::answering(|request, _| match request {
        0 => shown("completed", Some(true), None),
        // The time to wait is over.
        1 => Reply::new(200, shown_agent(Some(true), None)),
        2 => Reply::new(503, "{}"),
        _ => shown_at_once(true),
    });
    let exporter = exporter.await;
    let (code, said) = exporter.live_job("1800").await;
    let paths: Vec<_> = exporter.requests.lock().unwrap().iter().map(|request| request.path.clone()).collect();
    let agent = "/api/v1/agents/default/7";
    assert_eq!(
        (code, &paths[..]),
        (Some(0), &["/api/v1/toggles/a", agent, agent, agent].map(str::to_owned)[..]),
        "{said}"
    );
    let exporter = Simulation::answering(|request, _| match request {
        0 => shown("completed", Some(true), None),
        _ => Reply::new(200, shown_agent(None, None)),
    });
    let exporter = exporter.await;
    let (code, said) = exporter.live_job("123").await;
    assert!(code == Some(1) && said.contains("mocks are unknown, and 123 s are over"), "{code:?} {said}");
    assert_eq!(exporter.waits().iter().sum::<u64>(), 123);
}

#[tokio::test]
async fn a_mock_status_that_the_api_refuses_ends_a_job_within_a_minute() {
    for (reason, remedy) in [
        ("not_found", "start the job without --live"),
        ("forbidden", "give the exporter a key"),
        ("credentials", "give the exporter a key"),
    ] {
        let exporter = Simulation::answering(move |request, _| match request {
            0 => shown("completed", Some(true), None),
            _ => Reply::new(200, shown_agent(None, Some(reason))),
        });
        let exporter = exporter.await;
        let (code, said) = exporter.live_job("1800").await;
        assert!(code == Some(1) && (20..60).contains(&exporter.passed()), "{}: {said}", exporter.passed());
        assert!(said.contains(reason) && said.contains(remedy), "{said}");
    }
}
