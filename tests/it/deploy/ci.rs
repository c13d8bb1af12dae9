//! The GitHub Action and the GitLab component: their scripts, run with what a runner gives them, and an exporter that
//! jobs share.

use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::atomic::Ordering;

use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use serde_json::{Map, Value, json};
use tempfile::TempDir;
use tokio::process::{Child, Command};
use tokio::task::{JoinSet, LocalSet};

use super::mocked_tests::{Agent, TOGGLE_KEY, ended, failed, off, on};
use super::{file, printed, yaml};
use crate::examples::process_list;
use crate::harness::markdown::{code, rows, section};
use crate::harness::{Authority, Client, Exporter, FAR, KEY, ReservedPort, TLS, eventually, tool};

const ACTION: &str = "deploy/github/action.yml";
const COMPONENT: &str = "deploy/gitlab/templates/mocked-tests.yml";
const SCRIPT: &str = "deploy/kubernetes/overlays/example-cronjob/mocked-tests.sh";

#[derive(Clone, Copy, Debug, PartialEq)]
enum System {
    GitHub,
    GitLab,
}

use System::{GitHub, GitLab};

/// What the image of a job has: bash and the tools of GNU, or busybox and curl only.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Tools {
    Gnu,
    Busybox,
}

/// Each system with each image.
const RUNNERS: [(System, Tools); 4] =
    [(GitHub, Tools::Gnu), (GitHub, Tools::Busybox), (GitLab, Tools::Gnu), (GitLab, Tools::Busybox)];

/// What a runner runs in a shell, and the variables that it is given.
struct Step {
    script: String,
    variables: Vec<(String, String)>,
}

/// The value of an input: what is given, or the default.
fn input<'a>(given: &'a Map<String, Value>, inputs: &'a Value, name: &str) -> &'a Value {
    assert!(inputs.get(name).is_some(), "there is no input {name}");
    given.get(name).or_else(|| inputs[name].get("default")).unwrap_or_else(|| panic!("{name} is required"))
}

fn text(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

fn strings(map: &Value) -> Vec<(String, String)> {
    map.as_object().unwrap().iter().map(|(name, value)| (name.clone(), text(value))).collect()
}

/// The steps of the action: the tests, and what follows however they ended.
fn action(given: &Map<String, Value>) -> [Step; 2] {
    let action = yaml(ACTION);
    let evaluated = |expression: String| {
        let name = expression.strip_prefix("${{ inputs.").and_then(|rest| rest.strip_suffix(" }}"));
        name.map_or(expression.clone(), |name| text(input(given, &action["inputs"], name)))
    };
    let steps = super::pods::each(&action["runs"]["steps"]).map(|step| {
        let script = step["run"].as_str().unwrap().to_owned();
        assert!(!script.contains("${{"), "an input is part of a script: {script}");
        let variables = strings(&step["env"]).into_iter().map(|(name, value)| (name, evaluated(value))).collect();
        Step { script, variables }
    });
    let Ok(steps) = steps.collect::<Vec<_>>().try_into() else { panic!("there are other steps") };
    // The first one runs unless there is no command, the second one in any case.
    let conditions = [0, 1].map(|step| action["runs"]["steps"][step]["if"].clone());
    assert_eq!(conditions, ["inputs.command != ''", "always()"]);
    steps
}

/// The header of the component and the rest, as YAML.
fn component() -> (Value, String) {
    let text = std::fs::read_to_string(file(COMPONENT)).unwrap();
    let (header, rest) = text.split_once("\n---\n").unwrap();
    (parsed(header)["spec"]["inputs"].clone(), rest.to_owned())
}

fn parsed(text: &str) -> Value {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), text).unwrap();
    yaml(file.path().to_str().unwrap())
}

/// The jobs of the component. GitLab replaces inputs in the text, before it reads that as YAML.
fn jobs(given: &Map<String, Value>) -> Value {
    let (inputs, mut rest) = component();
    for name in inputs.as_object().unwrap().keys() {
        rest = rest.replace(&format!("$[[ inputs.{name} ]]"), &text(input(given, &inputs, name)));
    }
    assert!(!rest.contains("$[["), "{rest}");
    parsed(&rest)
}

/// `script` and `after_script` of the component.
fn job(given: &Map<String, Value>) -> [Step; 2] {
    let job = &jobs(given)["mocked-tests"];
    ["script", "after_script"].map(|part| Step {
        script: super::pods::each(&job[part]).map(|line| line.as_str().unwrap().to_owned() + "\n").collect(),
        variables: strings(&job["variables"]),
    })
}

/// The machine of a job, and the exporter that it shares with others.
struct Runner {
    system: System,
    tools: Tools,
    exporter: Exporter,
    folder: TempDir,
    cekura: String,
    /// What is set besides what every job sets.
    more: Vec<(&'static str, String)>,
}

impl Runner {
    async fn of(system: System, tools: Tools, agent: &Agent) -> Self {
        Self::beside(system, tools, agent, Exporter::with(Self::config(agent, &[7])).start().await)
    }

    /// The configuration of an exporter that takes registrations, and asks for the mock status of these agents.
    fn config(agent: &Agent, asked: &[u32]) -> String {
        let api = json!({"base_url": agent.url(), "api_key": KEY});
        let of_apis = |id: &u32| ["default", "staging"].map(|api| json!({"agent_id": id, "api": api}));
        let agents = asked.iter().flat_map(of_apis);
        json!({
            "apis": {"default": api, "staging": api},
            "agents": agents.collect::<Vec<_>>(),
            "polling": {"agent_interval": "100ms", "min_interval": "50ms", "max_interval": "100ms"},
            "state_file": "state",
            "registrations": {"enabled": true},
        })
        .to_string()
    }

    fn beside(system: System, tools: Tools, agent: &Agent, exporter: Exporter) -> Self {
        let folder = tempfile::tempdir().unwrap();
        for name in ["work", "temp", "bin"] {
            std::fs::create_dir(folder.path().join(name)).unwrap();
        }
        if tools == Tools::Busybox {
            let list = printed(std::process::Command::new(tool("busybox")).arg("--list"));
            for applet in list.lines() {
                symlink(tool("busybox"), folder.path().join("bin").join(applet)).unwrap();
            }
        }
        // Curl, which also writes down its arguments.
        let curl = folder.path().join("bin/curl");
        let text = "#!/bin/sh\nprintf '%s\\n' \"$@\" >>ARGUMENTS\nexec CURL \"$@\"\n"
            .replace("ARGUMENTS", folder.path().join("arguments").to_str().unwrap())
            .replace("CURL", tool("curl").to_str().unwrap());
        std::fs::write(&curl, text).unwrap();
        std::fs::set_permissions(&curl, PermissionsExt::from_mode(0o755)).unwrap();
        Self { system, tools, exporter, folder, cekura: agent.url(), more: Vec::new() }
    }

    /// Sets an input, or in GitLab what is no input there, but a variable of the project.
    fn with(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.more.push((name, value.into()));
        self
    }

    /// The steps of a job with these tests. They run in the folder `work`, and leave the file `ran` there.
    fn steps(&self, tests: &str) -> [Step; 2] {
        let mut given = json!({
            "command": format!("touch ran; {tests}"),
            "cekura-url": self.cekura,
            "agent-id": 7,
            "slot": "bookings",
            "team": r"book'ings & co",
            "exporter-url": self.exporter.urls[0],
        });
        let given = given.as_object_mut().unwrap();
        if self.system == GitHub {
            given.insert("cekura-key".to_owned(), TOGGLE_KEY.into());
            given.extend(self.more.iter().map(|(name, value)| ((*name).to_owned(), value.clone().into())));
            return action(given);
        }
        given.insert("image".to_owned(), "registry.example.com/tests:1".into());
        let (inputs, _) = component();
        let is_input = |(name, _): &&(&str, String)| inputs.get(name).is_some();
        given.extend(self.more.iter().filter(is_input).map(|(name, value)| ((*name).to_owned(), value.clone().into())));
        let variables = self.more.iter().filter(|more| !is_input(more));
        let mut variables: Vec<_> =
            variables.map(|(name, value)| (name.replace('-', "_").to_uppercase(), value.clone())).collect();
        variables.push(("CEKURA_KEY".to_owned(), TOGGLE_KEY.to_owned()));
        job(given).map(|mut step| {
            step.variables.extend(variables.iter().cloned());
            step
        })
    }

    /// Starts a step as the runner does.
    fn start(&self, step: &Step) -> Child {
        let path = |name: &str| self.folder.path().join(name);
        let (bin, work) = (path("bin"), path("work"));
        let machine: &[&Path] =
            if self.tools == Tools::Gnu { &[Path::new("/usr/bin"), Path::new("/bin")] } else { &[] };
        let folders = std::env::join_paths([bin.as_path()].iter().chain(machine)).unwrap();
        let sh = if self.tools == Tools::Gnu { PathBuf::from("/bin/sh") } else { bin.join("sh") };
        let (shell, options, start): (_, &[&str], _) = match (self.system, self.tools) {
            (GitHub, _) => (sh, &["-e"], ""),
            (GitLab, Tools::Gnu) => ("/bin/bash".into(), &[], "set -eo pipefail\n"),
            (GitLab, Tools::Busybox) => (sh, &[], "set -e\n"),
        };
        std::fs::write(path("step"), format!("{start}{}", step.script)).unwrap();
        // Where the tests run in the background, signals are ignored, and a shell cannot trap those.
        let mut command = Command::new("/usr/bin/env");
        command.arg("--default-signal").arg(shell).args(options).arg(path("step")).current_dir(&work);
        let expanded = |value: &str| value.replace("$CI_PROJECT_DIR", work.to_str().unwrap());
        command.env_clear().env("PATH", folders);
        command.envs(step.variables.iter().map(|(name, value)| (name, expanded(value))));
        match self.system {
            GitHub => command.env("RUNNER_TEMP", path("temp")).env("GITHUB_ACTION_PATH", file("deploy/github")),
            GitLab => command.env("CI_PROJECT_DIR", &work),
        };
        command.process_group(0).kill_on_drop(true);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    }

    /// Runs a whole job. Returns how it ended, which in GitLab does not depend on `after_script`, and what it said.
    async fn run(&self, tests: &str) -> (i32, String) {
        let [tests, after] = self.steps(tests);
        let (code, said) = ended(self.start(&tests)).await;
        let (code_after, said_after) = ended(self.start(&after)).await;
        let code = if self.system == GitHub && code == Some(0) { code_after } else { code };
        (code.unwrap(), said + &said_after)
    }

    fn work(&self, name: &str) -> PathBuf {
        self.folder.path().join("work").join(name)
    }

    fn ran(&self) -> bool {
        self.work("ran").exists()
    }

    /// How often tests have written to the file `beat`.
    fn beats(&self) -> Option<u64> {
        std::fs::metadata(self.work("beat")).ok().map(|beat| beat.len()).filter(|beats| *beats > 0)
    }
}

/// Runs this for each system and image, at the same time.
async fn with_each<F: Future<Output = ()> + 'static>(run: impl Fn(System, Tools) -> F) {
    let (mut all, local) = (JoinSet::new(), LocalSet::new());
    for (system, tools) in RUNNERS {
        all.spawn_local_on(run(system, tools), &local);
    }
    local.run_until(all.join_all()).await;
}

fn toggles(enabled: &[bool]) -> Vec<Value> {
    enabled.iter().map(|enabled| json!({"enabled": enabled})).collect()
}

#[tokio::test]
async fn tests_run_while_mocks_are_on_and_decide_how_the_job_ends() {
    with_each(async |system, tools| {
        let agent = Agent::ending(Some(on()), Some(off())).await;
        let runner = Runner::of(system, tools, &agent).await.with("exporter-api", "staging");
        for (tests, expected) in [(r#"[ "$(printf '%s' "a  \"b\" \$c \\")" = 'a  "b" $c \' ]"#, 0), ("exit 7", 7)] {
            let (code, said) = runner.run(tests).await;
            assert_eq!((code, runner.ran()), (expected, true), "{system:?}, {tools:?}: {said}");
            std::fs::remove_file(runner.work("ran")).unwrap();
        }
        assert_eq!(agent.toggles(), toggles(&[true, false, true, false]));
        let e = runner.exporter.scrape().await;
        for (toggle, expect) in [("bookings-enabled", "enabled"), ("bookings-disabled", "disabled")] {
            let team = ("team", "book'ings & co");
            let labels = [("toggle", toggle), ("expect", expect), team, ("agent_id", "7"), ("api", "staging")];
            assert_eq!(e.value("cekura_toggle_mock_mismatch", &labels), Some(0.0), "{}", e.text);
        }
        if tools == Tools::Gnu {
            let (code, said) = runner.run("false | true").await;
            assert_eq!(code, 1, "{system:?}: the failure of the first command of a pipe is lost: {said}");
        }
    })
    .await;
}

#[tokio::test]
async fn tests_do_not_run_unless_mocks_are_on_and_mocks_are_disabled_all_the_same() {
    with_each(async |system, tools| {
        for enable in [Some(failed()), Some(off()), None] {
            let agent = Agent::ending(enable.clone(), Some(off())).await;
            let runner = Runner::of(system, tools, &agent).await;
            let (code, said) = runner.run("exit 0").await;
            assert_eq!((code, runner.ran()), (1, false), "{system:?}, {tools:?}, {enable:?}: {said}");
            assert_eq!(agent.toggles(), toggles(&[true, false]), "{system:?}, {tools:?}, {enable:?}: {said}");
        }
    })
    .await;
}

#[tokio::test]
async fn a_job_whose_mocks_stay_on_fails_and_tries_once_more_to_disable_them() {
    with_each(async |system, tools| {
        for disable in [Some(failed()), Some(on())] {
            let agent = Agent::ending(Some(on()), disable.clone()).await;
            let runner = Runner::of(system, tools, &agent).await;
            let (code, said) = runner.run("exit 0").await;
            assert_eq!((code, runner.ran()), (1, true), "{system:?}, {tools:?}, {disable:?}: {said}");
            assert_eq!(agent.toggles(), toggles(&[true, false, false]), "{system:?}, {tools:?}, {disable:?}: {said}");
        }
        // The API is away for as long as the first attempt lasts.
        let agent = Agent::ending(Some(on()), Some(off())).await;
        agent.stumbles.store(4, Ordering::Relaxed);
        let runner = Runner::of(system, tools, &agent).await;
        let (code, said) = runner.run("exit 0").await;
        assert_eq!((code, agent.live.load(Ordering::Relaxed)), (1, false), "{system:?}, {tools:?}: {said}");
    })
    .await;
}

#[tokio::test]
async fn a_job_that_is_cancelled_disables_when_its_tests_are_over() {
    with_each(async |system, tools| {
        let agent = Agent::ending(Some(on()), Some(off())).await;
        let runner = Runner::of(system, tools, &agent).await;
        let [tests, after] = runner.steps("while :; do echo >> beat; sleep 0.1; done");
        let tests = runner.start(&tests);
        eventually("the tests run", async || runner.beats()).await;
        let id = Pid::from_raw(i32::try_from(tests.id().unwrap()).unwrap()).unwrap();
        // A runner of GitHub signals the process of the step, one of GitLab all that the shell runs in the foreground.
        match system {
            GitHub => kill_process(id, Signal::INT).unwrap(),
            GitLab => kill_process_group(id, Signal::TERM).unwrap(),
        }
        eventually("mocks are disabled", async || (agent.toggles().len() == 2).then_some(())).await;
        let beats = runner.beats();
        let (code, said) = ended(tests).await;
        assert_eq!((code, runner.beats()), (Some(143), beats), "{system:?}, {tools:?}: {said}");
        let (code, said) = ended(runner.start(&after)).await;
        assert_eq!((code, agent.toggles()), (Some(0), toggles(&[true, false])), "{system:?}, {tools:?}: {said}");
    })
    .await;
}

#[tokio::test]
async fn the_step_after_one_that_was_killed_disables() {
    with_each(async |system, tools| {
        let agent = Agent::ending(Some(on()), Some(off())).await;
        let runner = Runner::of(system, tools, &agent).await;
        let [tests, after] = runner.steps("echo $$ > leader; while :; do echo >> beat; sleep 0.1; done");
        let tests = runner.start(&tests);
        eventually("the tests run", async || runner.beats()).await;
        let leader = std::fs::read_to_string(runner.work("leader")).unwrap();
        for id in [tests.id().unwrap(), leader.trim().parse().unwrap()] {
            kill_process_group(Pid::from_raw(i32::try_from(id).unwrap()).unwrap(), Signal::KILL).unwrap();
        }
        ended(tests).await;
        assert_eq!(agent.toggles(), toggles(&[true]));
        let (code, said) = ended(runner.start(&after)).await;
        assert_eq!((code, agent.toggles()), (Some(0), toggles(&[true, false])), "{system:?}, {tools:?}: {said}");
        let (code, said) = ended(runner.start(&after)).await;
        assert_eq!((code, agent.toggles()), (Some(0), toggles(&[true, false])), "{system:?}, {tools:?}: {said}");
    })
    .await;
}

#[tokio::test]
async fn a_job_logs_in_over_tls_and_its_secrets_show_neither_in_processes_nor_in_output_nor_to_its_tests() {
    // No other test has this word in the arguments of a process.
    const PASSWORD: &str = r#"a "b" \c:$d wombat"#;
    with_each(async |system, tools| {
        let authority = Authority::new("servers");
        let agent = Agent::ending(Some(on()), Some(off())).await;
        let users = json!({"ci": bcrypt::hash(PASSWORD, 4).unwrap()});
        let exporter = Exporter::with(Runner::config(&agent, &[7]))
            .web(&format!("{TLS}basic_auth_users: {users}\n"))
            .server(&authority.server(FAR))
            .client(&Client::trusting(&authority).logged_in("ci", PASSWORD))
            .file("ca.pem", &authority.pem())
            .start()
            .await;
        let roots = exporter.folder().join("ca.pem").to_str().unwrap().to_owned();
        let runner = Runner::beside(system, tools, &agent, exporter).with("exporter-user", "ci");
        let mut runner = runner.with("exporter-password", PASSWORD).with("exporter-ca-file", roots);
        let [tests, after] = runner.steps("env > env; while [ ! -e go ]; do sleep 0.1; done; set");
        let tests = runner.start(&tests);
        eventually("the tests run", async || runner.work("env").exists().then_some(())).await;
        let processes = process_list();
        std::fs::write(runner.work("go"), "").unwrap();
        let (code, said) = ended(tests).await;
        assert_eq!(code, Some(0), "{system:?}, {tools:?}: {said}");
        let (code, said_after) = ended(runner.start(&after)).await;
        assert_eq!(code, Some(0), "{system:?}, {tools:?}: {said_after}");
        let arguments = std::fs::read_to_string(runner.folder.path().join("arguments")).unwrap();
        assert!(arguments.contains("/toggle-mock-tools/") && arguments.contains("/api/v1/toggles/"), "{arguments}");
        let environment = std::fs::read_to_string(runner.work("env")).unwrap();
        assert!(environment.contains("\nSLOT=bookings\n") || environment.starts_with("SLOT="), "{environment}");
        for shown in [processes.join("\n"), arguments, environment, said, said_after] {
            assert!(!shown.contains(TOGGLE_KEY) && !shown.contains("wombat"), "{system:?}, {tools:?}: {shown}");
        }

        runner.more.retain(|(name, _)| *name != "exporter-password");
        let runner = runner.with("exporter-password", "wrong");
        std::fs::remove_file(runner.work("ran")).unwrap();
        let (code, said) = runner.run("exit 0").await;
        assert_eq!((code, runner.ran(), agent.toggles().len()), (1, false, 2), "{system:?}, {tools:?}: {said}");
        assert!(said.contains("the exporter does not answer at https://127.0.0.1:") && said.contains("401"), "{said}");
    })
    .await;
}

#[tokio::test]
async fn nothing_is_toggled_without_a_key_or_where_the_exporter_cannot_be_reached() {
    let nobody = ReservedPort::new();
    with_each(|system, tools| {
        let nobody = format!("http://{}", nobody.address);
        async move {
            let agent = Agent::ending(Some(on()), Some(off())).await;
            let mut runner = Runner::of(system, tools, &agent).await;
            let [mut tests, _] = runner.steps("exit 0");
            tests.variables.retain(|(name, _)| name != "CEKURA_KEY");
            let (code, said) = ended(runner.start(&tests)).await;
            assert_eq!((code, runner.ran(), agent.toggles()), (Some(1), false, vec![]), "{said}");
            assert!(said.contains("set CEKURA_KEY_FILE or CEKURA_KEY"), "{said}");
            runner.exporter.urls[0] = nobody;
            let (code, said) = runner.run("exit 0").await;
            assert_eq!((code, runner.ran(), agent.toggles()), (1, false, vec![]), "{system:?}, {tools:?}: {said}");
            assert!(said.contains("the exporter does not answer at http://127.0.0.1:"), "{said}");
        }
    })
    .await;
}

#[tokio::test]
async fn an_agent_that_the_exporter_does_not_ask_for_fails_the_job_at_once_and_says_what_to_do() {
    with_each(async |system, tools| {
        let agent = Agent::ending(Some(on()), Some(off())).await;
        let exporter = Exporter::with(Runner::config(&agent, &[])).start().await;
        let runner = Runner::beside(system, tools, &agent, exporter);
        let (code, said) = runner.run("exit 0").await;
        assert_eq!((code, runner.ran()), (1, false), "{system:?}, {tools:?}: {said}");
        assert!(said.contains("list it under `agents` in its configuration"), "{said}");
    })
    .await;
}

#[tokio::test]
async fn nothing_is_toggled_where_the_exporter_would_not_register_the_run() {
    with_each(async |system, tools| {
        let agent = Agent::ending(Some(on()), Some(off())).await;
        let closed = json!({"apis": {"default": {"base_url": agent.url(), "api_key": KEY}}}).to_string();
        let runner = Runner::beside(system, tools, &agent, Exporter::with(closed).start().await);
        let (code, said) = runner.run("exit 0").await;
        assert_eq!((code, runner.ran(), agent.toggles()), (1, false, vec![]), "{system:?}, {tools:?}: {said}");
        assert!(said.contains("registrations are not enabled"), "{said}");
        let runner = Runner::of(system, tools, &agent).await.with("exporter-api", "nope");
        let (code, said) = runner.run("exit 0").await;
        assert_eq!((code, runner.ran(), agent.toggles()), (1, false, vec![]), "{system:?}, {tools:?}: {said}");
        assert!(said.contains("`nope` is not under `apis`"), "{said}");
        let mut config: Value = serde_json::from_str(&Runner::config(&agent, &[7])).unwrap();
        config["watches"] = json!([{"name": "bookings-disabled", "agent_id": 7, "progress_id": "off"}]);
        let runner = Runner::beside(system, tools, &agent, Exporter::with(config.to_string()).start().await);
        let (code, said) = runner.run("exit 0").await;
        assert_eq!((code, runner.ran(), agent.toggles()), (1, false, vec![]), "{system:?}, {tools:?}: {said}");
        assert!(said.contains("another source of the exporter has toggle bookings-disabled"), "{said}");
    })
    .await;
}

#[tokio::test]
async fn an_exporter_that_has_no_room_for_the_run_is_asked_once_and_mocks_are_disabled() {
    with_each(async |system, tools| {
        let agent = Agent::ending(Some(on()), Some(off())).await;
        let mut config: Value = serde_json::from_str(&Runner::config(&agent, &[7])).unwrap();
        config["registrations"]["max"] = 1.into();
        let exporter = Exporter::with(config.to_string()).start().await;
        assert_eq!(exporter.put("another", &json!({"agent_id": 8, "progress_id": "on"})).await.0, 201);
        let runner = Runner::beside(system, tools, &agent, exporter);
        let [mut tests, _] = runner.steps("exit 0");
        tests.variables.push(("SETTLE_SECONDS".to_owned(), "2".to_owned()));
        let (code, said) = ended(runner.start(&tests)).await;
        assert_eq!((code, runner.ran()), (Some(1), false), "{system:?}, {tools:?}: {said}");
        assert_eq!(agent.toggles(), toggles(&[true, false, false]), "{system:?}, {tools:?}: {said}");
        assert!(said.contains("did not register toggle bookings-enabled: ") && said.contains(" 507"), "{said}");
    })
    .await;
}

/// What a schema, such as that of GitHub for actions, has against a YAML text; nothing if it is good.
fn problems(schema: &str, text: &str) -> String {
    let file = tempfile::NamedTempFile::with_suffix(".yml").unwrap();
    std::fs::write(file.path(), text).unwrap();
    let mut check = std::process::Command::new(tool("check-jsonschema"));
    let output = check.args(["--builtin-schema", schema]).arg(file.path()).output().unwrap();
    let said = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
    if output.status.success() { String::new() } else { said }
}

/// The problems that GitLab finds with inputs for the component.
fn refused(inputs: &Value, given: &Map<String, Value>) -> Vec<String> {
    let inputs = inputs.as_object().unwrap();
    let unknown = given.keys().filter(|name| !inputs.contains_key(*name)).map(|name| format!("{name} is unknown"));
    let wrong = inputs.iter().filter_map(|(name, input)| {
        let Some(value) = given.get(name).or_else(|| input.get("default")) else {
            return Some(format!("{name} is missing"));
        };
        let right = match input.get("type").map_or("string", |kind| kind.as_str().unwrap()) {
            "number" => value.is_number(),
            "boolean" => value.is_boolean(),
            _ => value.is_string(),
        };
        // GitLab has RE2. What these expressions use means the same in Perl.
        let matches = |regex: &Value| {
            let program = r"exit($ARGV[1] =~ /$ARGV[0]/ ? 0 : 1)";
            let mut perl = std::process::Command::new(tool("perl"));
            perl.args(["-e", program, regex.as_str().unwrap(), &text(value)]).status().unwrap().success()
        };
        (!right || !input.get("regex").is_none_or(matches)).then(|| format!("{name} is wrong"))
    });
    unknown.chain(wrong).collect()
}

#[test]
fn the_action_and_the_component_are_valid_and_zizmor_finds_no_weakness_in_the_action() {
    let action = std::fs::read_to_string(file(ACTION)).unwrap();
    assert_eq!(problems("vendor.github-actions", &action), "");
    assert_ne!(problems("vendor.github-actions", &action.replace("using: composite", "using: compost")), "");
    let mut zizmor = std::process::Command::new(tool("zizmor"));
    printed(zizmor.args(["--offline", "--no-progress", "--quiet", "--persona", "auditor"]).arg(file(ACTION)));
    let component = std::fs::read_to_string(file(COMPONENT)).unwrap();
    let (header, _) = component.split_once("\n---\n").unwrap();
    assert_eq!(problems("vendor.gitlab-ci", header), "");
    let mut given = shown_inputs();
    for live in [true, false] {
        given.insert("live".to_owned(), live.into());
        let jobs = jobs(&given);
        assert_eq!(problems("vendor.gitlab-ci", &jobs.to_string()), "");
        assert_eq!(jobs["mocked-tests"]["variables"]["LIVE"], live.to_string());
    }
}

#[test]
fn the_component_has_the_script_as_it_is() {
    let (_, rest) = component();
    let (_, after) = rest.split_once("<<'END_OF_SCRIPT'\n").unwrap();
    let (copied, _) = after.split_once("      END_OF_SCRIPT\n").unwrap();
    let copied: String =
        copied.lines().map(|line| line.strip_prefix("      ").unwrap_or("").to_owned() + "\n").collect();
    let script = std::fs::read_to_string(file(SCRIPT)).unwrap();
    assert_eq!(copied, script, "copy {SCRIPT} into {COMPONENT}");
    // GitLab would take these for inputs.
    assert!(!script.contains("$[["));
}

#[test]
fn the_action_and_the_component_set_only_variables_that_the_script_has() {
    let script = std::fs::read_to_string(file(SCRIPT)).unwrap();
    let header: String = script.lines().take_while(|line| line.starts_with('#')).collect();
    let of_runner = ["COMMAND", "RUNNER_SCRIPT_TIMEOUT", "RUNNER_AFTER_SCRIPT_TIMEOUT"];
    let page = std::fs::read_to_string(file("docs/ci.md")).unwrap();
    let table = section(&page, "## GitLab CI");
    let of_project: Vec<_> = rows(table).iter().flat_map(|row| code(row[0])).map(str::to_owned).collect();
    assert_eq!(of_project.len(), 6, "{of_project:?}");
    let inputs = json!({"cekura-key": "k", "agent-id": 7, "slot": "s", "team": "t", "exporter-url": "u"});
    let action = action(inputs.as_object().unwrap());
    let steps = action.into_iter().chain(job(&shown_inputs()));
    let set = steps.flat_map(|step| step.variables).map(|(name, _)| name);
    for name in set.filter(|name| !of_runner.contains(&name.as_str())).chain(of_project) {
        let is_name = |word: &str| word == name;
        assert!(header.split(|c: char| !c.is_ascii_uppercase() && c != '_').any(is_name), "{name}");
    }
}

/// The inputs for the component that the page shows.
fn shown_inputs() -> Map<String, Value> {
    parsed(&shown(1))["include"][0]["inputs"].as_object().unwrap().clone()
}

/// A YAML text of the page.
fn shown(which: usize) -> String {
    let page = std::fs::read_to_string(file("docs/ci.md")).unwrap();
    let texts: Vec<_> = page.split("```yaml\n").skip(1).map(|rest| rest.split_once("```").unwrap().0).collect();
    assert_eq!(texts.len(), 2);
    texts[which].to_owned()
}

#[test]
fn the_workflow_that_the_page_shows_is_good_and_gives_the_action_what_it_needs() {
    let workflow = shown(0);
    assert_eq!(problems("vendor.github-workflows", &workflow), "");
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(".github/workflows/bookings.yaml");
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(&path, &workflow).unwrap();
    let script = file("tests/it/deploy/workflows.mjs");
    assert_eq!(printed(std::process::Command::new(tool("node")).arg(script).arg(&path)), "");
    printed(std::process::Command::new(tool("zizmor")).args(["--offline", "--no-progress", "--quiet"]).arg(&path));
    let steps = parsed(&workflow)["jobs"]["tests"]["steps"].clone();
    let ours: Vec<_> =
        super::pods::each(&steps).filter(|step| step["uses"].to_string().contains("/deploy/github@")).collect();
    assert_eq!(ours.len(), 2);
    assert_eq!((ours[0]["with"]["command"].as_str(), ours[1]["if"].as_str()), (Some("./run-tests"), Some("always()")));
    let inputs = &yaml(ACTION)["inputs"];
    for step in ours {
        let given = step["with"].as_object().unwrap();
        given.keys().for_each(|name| assert!(inputs.get(name).is_some(), "{name}"));
        action(given);
    }
}

#[test]
fn the_pipeline_that_the_page_shows_is_good_and_gives_the_component_what_it_needs() {
    assert_eq!(problems("vendor.gitlab-ci", &shown(1)), "");
    assert_eq!(refused(&component().0, &shown_inputs()), [""; 0]);
}

#[test]
fn inputs_that_could_become_part_of_the_pipeline_or_of_its_script_are_refused() {
    let ((inputs, _), shown) = (component(), shown_inputs());
    for (name, value) in [
        ("command", json!("true\nfalse")),
        ("command", json!("")),
        ("image", json!("a\", x: \"b")),
        ("job-name", json!("a\nb")),
        ("stage", json!("a\\")),
        ("cekura-url", json!("https://a b")),
        ("agent-id", json!("7; true")),
        ("slot", json!("a/b")),
        ("slot", json!("-a")),
        ("slot", json!("a b\n")),
        ("team", json!("a\"")),
        ("live", json!("true")),
        ("exporter-url", json!("http://a\n")),
        ("exporter-url", json!("http://ci:password@a")),
        ("exporter-api", json!("a-b")),
        ("timeout", json!("1m")),
        ("script-timeout", json!("1 h")),
        ("job-timeout", json!("1h\n")),
    ] {
        let mut given = shown.clone();
        given.insert(name.to_owned(), value.clone());
        assert_eq!(refused(&inputs, &given), [format!("{name} is wrong")], "{value}");
    }
    let mut given = shown;
    given.remove("slot");
    given.insert("slots".to_owned(), "a".into());
    assert_eq!(refused(&inputs, &given), ["slots is unknown", "slot is missing"]);
}
