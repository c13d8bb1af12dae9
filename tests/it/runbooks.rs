//! The commands of the runbooks: taken from the page of a running exporter, and run as whoever was woken
//! pastes them, against a simulated API.

use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;
use std::process::{Output, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use cekura_exporter::demo::simulator::{Reply, Request, Simulator};
use reqwest::header::HOST;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::AsyncWriteExt as _;
use tokio::process::Command;

use crate::harness::{Exporter, KEY, eventually, tool};

/// The key that may write.
const WRITER: &str = "sk-writer-9";

/// The shells that the commands are for, as far as common images have them.
const SHELLS: [&str; 3] = ["/bin/sh", "/bin/bash", "/bin/busybox sh"];

/// What would run a program, end a quoted text or reach a terminal, if anything of it were taken for more than
/// text.
const HOSTILE: &str =
    "'; touch pwned; ' \" $(touch pwned) `touch pwned` \\ \n\u{1b}[2J\u{7f} </code><script>alert(1)</script> é";

/// What the path of a base URL can have.
const PREFIX: &str = "/v'$(touch%20pwned)&touch;`pwned`";

/// An API where tasks can be started: they complete in the state that was asked for. It takes polls with one
/// key, and toggles with another.
struct Api {
    simulator: Simulator,
    tasks: Arc<Mutex<Tasks>>,
}

#[derive(Default)]
struct Tasks {
    /// How polls of each id are answered.
    replies: Vec<(String, Reply)>,
    /// The agent and the body of each request that started a task.
    started: Vec<(String, Value)>,
}

impl Api {
    async fn start() -> Self {
        let tasks = Arc::new(Mutex::new(Tasks::default()));
        let answering = tasks.clone();
        let simulator = Simulator::start(move |request| answering.lock().unwrap().answer(request)).await.unwrap();
        Self { simulator, tasks }
    }

    fn url(&self) -> String {
        format!("http://{}", self.simulator.address())
    }

    fn script(&self, progress_id: &str, reply: Reply) {
        self.tasks.lock().unwrap().replies.push((progress_id.to_owned(), reply));
    }

    fn started(&self) -> Vec<(String, Value)> {
        self.tasks.lock().unwrap().started.clone()
    }
}

impl Tasks {
    fn answer(&mut self, request: &Request) -> Reply {
        let key = request.header("x-cekura-api-key");
        let agent = request.path.split_once("/test_framework/v2/aiagents/").and_then(|(_, rest)| {
            Some((rest.strip_suffix("/toggle-mock-tools/")?.to_owned(), request.method.as_str()))
        });
        match agent {
            Some((agent, "POST")) if key == Some(WRITER) => {
                let body: Value = serde_json::from_str(&request.body).unwrap_or_default();
                let Some(enabled) = body["enabled"].as_bool() else {
                    return Reply::new(400, r#"{"enabled": ["Must be a valid boolean."]}"#);
                };
                let id = format!("again-{}", self.started.len());
                self.started.push((agent, body));
                self.replies.push((id.clone(), Reply::task("completed", Some(enabled))));
                Reply::new(202, format!(r#"{{"progress_id": "{id}"}}"#))
            }
            Some(_) => Reply::detail(403, "You do not have permission to perform this action."),
            None if request.agent_id().is_none() => Reply::detail(404, "Not found."),
            None if ![Some(KEY), Some(WRITER)].contains(&key) => Reply::detail(401, "Invalid API key."),
            None => {
                let id = request.progress_id();
                let reply = self.replies.iter().find(|(known, _)| Some(known) == id.as_ref());
                reply.map_or_else(|| Reply::detail(400, "Invalid progress_id."), |(_, reply)| reply.clone())
            }
        }
    }
}

/// The configuration of an exporter that polls these APIs, with more of it.
fn configuration(apis: &[(&str, String)], more: &Value) -> String {
    let apis: serde_json::Map<_, _> = apis
        .iter()
        .map(|(name, url)| ((*name).to_owned(), json!({"base_url": url, "api_key": KEY, "requests_per_second": 100})))
        .collect();
    let mut config = json!({
        "apis": apis,
        "polling": {"min_interval": "50ms", "max_interval": "100ms", "backoff_max": "200ms"},
        "state_file": "state",
        "registrations": {"enabled": true},
    });
    config.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    config.to_string()
}

/// The blocks of shell commands of a section of the page.
fn commands(page: &str, section: &str) -> Vec<String> {
    let (_, rest) = page.split_once(&format!("<section id=\"{section}\">")).unwrap_or_else(|| panic!("no {section}"));
    let rest = rest.split("</section>").next().unwrap();
    let blocks = rest.split("<code class=\"language-sh\">").skip(1);
    blocks.map(|block| unescaped(block.split("</code>").next().unwrap())).collect()
}

fn unescaped(html: &str) -> String {
    assert!(!html.contains('<'), "{html}");
    let signs = [("&lt;", "<"), ("&gt;", ">"), ("&quot;", "\""), ("&#39;", "'"), ("&amp;", "&")];
    signs.iter().fold(html.to_owned(), |text, (escaped, sign)| text.replace(escaped, sign))
}

/// Somebody who was woken, with a shell and the key.
struct Responder {
    home: TempDir,
    shell: &'static str,
}

impl Responder {
    fn new(shell: &'static str) -> Self {
        let responder = Self { home: tempfile::tempdir().unwrap(), shell };
        let curl = tool("curl");
        responder
            .program("curl", &format!("#!/bin/sh\nexec {} --fail-with-body --max-time 30 \"$@\"\n", curl.display()));
        responder.write(".cekura-key", &format!("X-CEKURA-API-KEY: {WRITER}\n"));
        responder
    }

    fn program(&self, name: &str, text: &str) {
        let mut options = std::fs::OpenOptions::new();
        let mut file = options.write(true).create_new(true).mode(0o755).open(self.home.path().join(name)).unwrap();
        std::io::Write::write_all(&mut file, text.as_bytes()).unwrap();
    }

    fn write(&self, name: &str, text: &str) {
        std::fs::write(self.home.path().join(name), text).unwrap();
    }

    /// Pastes commands into a shell, which ends at the first that fails.
    async fn pastes(&self, commands: &str, input: &str) -> Output {
        let mut words = self.shell.split(' ').chain(["-e", "-c", commands]);
        let mut command = Command::new(words.next().unwrap());
        let path = std::env::join_paths([self.home.path(), Path::new("/usr/bin"), Path::new("/bin")]).unwrap();
        command.args(words).env_clear().env("PATH", path).env("HOME", self.home.path()).current_dir(self.home.path());
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        let mut child = command.spawn().unwrap();
        child.stdin.take().unwrap().write_all(input.as_bytes()).await.unwrap();
        tokio::time::timeout(Duration::from_mins(1), child.wait_with_output()).await.unwrap().unwrap()
    }

    /// As [`Responder::pastes`]; all of them must succeed. Returns what they print.
    async fn runs(&self, commands: &[String]) -> String {
        let commands = commands.concat();
        let output = self.pastes(&commands, "").await;
        let said = String::from_utf8(output.stdout).unwrap();
        assert!(output.status.success(), "{commands}\n{said}\n{}", String::from_utf8_lossy(&output.stderr));
        assert!(!self.home.path().join("pwned").exists(), "something else ran: {commands}");
        said
    }
}

/// The page, as it is filled in for what the query says.
async fn page(exporter: &Exporter, query: &str) -> String {
    let (status, page) = exporter.get(&format!("/runbooks{query}")).await;
    assert_eq!(status, 200);
    page
}

/// Waits until the toggle has this problem.
async fn has_problem(exporter: &Exporter, problem: Option<&str>) {
    eventually("it is so", async || (exporter.toggle("payments-x").await["problem"] == json!(problem)).then_some(()))
        .await;
}

#[tokio::test]
async fn the_commands_of_each_toggle_alert_toggle_again_hand_the_id_over_and_wait() {
    let labels = json!({"team": HOSTILE, "stage": "production"});
    for (section, shell, expect, first, problem) in [
        ("cekuratogglefailed", SHELLS[0], "enabled", Reply::task("failed", None), Some("failed")),
        ("cekuratogglefailed", SHELLS[1], "disabled", Reply::task("failed", None), Some("failed")),
        ("cekuratogglemocksnoton", SHELLS[2], "enabled", Reply::task("completed", Some(false)), Some("mismatch")),
        ("cekuratogglemocksnotoff", SHELLS[0], "disabled", Reply::task("completed", None), Some("mismatch")),
        ("cekuratogglestuck", SHELLS[1], "enabled", Reply::task("in_progress", None), None),
    ] {
        let api = Api::start().await;
        api.script("first", first);
        let config =
            configuration(&[("default", "http://127.0.0.1:9".to_owned()), ("staging", api.url() + PREFIX)], &json!({}));
        let exporter = Exporter::with(config).start().await;
        let body =
            json!({"agent_id": 77, "progress_id": "first", "expect": expect, "api": "staging", "labels": labels});
        assert_eq!(exporter.put("payments-x", &body).await.0, 201);
        has_problem(&exporter, problem).await;

        let page = page(&exporter, "?toggle=payments-x").await;
        let said = Responder::new(shell).runs(&commands(&page, section)).await;

        assert_eq!(api.started(), [("77".to_owned(), json!({"enabled": expect == "enabled"}))], "{section}");
        let toggle = exporter.toggle("payments-x").await;
        let of = |field: &str| toggle[field].clone();
        assert_eq!((of("progress_id"), of("status")), (json!("again-0"), json!("completed")), "{section}: {said}");
        assert_eq!(
            (of("mismatch"), of("problem"), of("labels")),
            (json!(false), Value::Null, labels.clone()),
            "{section}"
        );
        let last = said.rsplit_once("\n{\n").unwrap().1;
        assert!(
            last.contains("\"status\": \"completed\"") && last.contains("\"mismatch\": false"),
            "{section}: {said}"
        );
    }
}

#[tokio::test]
async fn mocks_that_were_left_on_are_switched_off_or_what_was_said_of_them_is_forgotten() {
    let api = Api::start().await;
    api.script("first", Reply::task("completed", Some(true)));
    let config = configuration(&[("staging", api.url() + PREFIX)], &json!({}));
    let exporter = Exporter::with(config).start().await;
    let enable = json!({"agent_id": 77, "progress_id": "first", "api": "staging", "labels": {"team": HOSTILE}});
    let agent = async || {
        let (status, agent) = exporter.get("/api/v1/agents/staging/77").await;
        (status, serde_json::from_str::<Value>(&agent).unwrap())
    };
    let is_on = async || {
        eventually("mocks are on", async || (agent().await.1["mock_enabled"] == json!(true)).then_some(())).await;
    };
    exporter.put("payments-x", &enable).await;
    is_on().await;
    // Who is asked may be gone by then.
    exporter.delete("payments-x").await;
    let commands = commands(&page(&exporter, "?agent=staging/77").await, "cekuraagentleftenabled");
    let [look, all, start, hand_over, wait, check, forget] = &commands[..] else { panic!("{commands:?}") };
    assert!(check.contains("/api/v1/agents/staging/77\"") && check.contains("live=disabled"), "{check}");
    let responder = Responder::new(SHELLS[1]);
    let said = responder.runs(&[look.clone(), all.clone()]).await;
    assert!(said.contains("\"told_by\": \"payments-x\"") && said.contains("\"mock_enabled_since\": \"2"), "{said}");
    responder.runs(&[start.clone(), hand_over.clone(), wait.clone()]).await;
    assert_eq!(api.started(), [("77".to_owned(), json!({"enabled": false}))]);
    assert_eq!(exporter.toggle("agent-77").await["labels"], json!({"team": HOSTILE}));
    assert_eq!(agent().await.1["mock_enabled"], json!(false));

    exporter.delete("agent-77").await;
    exporter.put("payments-x", &enable).await;
    is_on().await;
    exporter.delete("payments-x").await;
    responder.runs(std::slice::from_ref(forget)).await;
    assert_eq!(agent().await.0, 404);
}

#[tokio::test]
async fn mocks_in_the_wrong_state_are_toggled_to_what_they_should_be_or_what_was_told_of_them_is_forgotten() {
    let api = Api::start().await;
    api.script("first", Reply::task("completed", Some(false)));
    let agents = json!({"agents": [{"agent_id": 77, "api": "staging", "expect": "enabled"}]});
    let exporter = Exporter::with(configuration(&[("staging", api.url() + PREFIX)], &agents)).start().await;
    let disable = json!({"agent_id": 77, "progress_id": "first", "api": "staging", "labels": {"team": HOSTILE}});
    let should_be = async |expected: &str| {
        eventually("it should be so", async || {
            let (_, agent) = exporter.get("/api/v1/agents/staging/77").await;
            (serde_json::from_str::<Value>(&agent).unwrap()["should_be"] == json!(expected)).then_some(())
        })
        .await;
    };
    exporter.put("payments-x", &disable).await;
    should_be("disabled").await;
    let commands = commands(&page(&exporter, "?agent=staging/77").await, "cekuraagentmocksdrifted");
    let [look, start, hand_over, wait, check, forget, _reload] = &commands[..] else { panic!("{commands:?}") };
    assert!(check.contains("/api/v1/agents/staging/77\"") && check.contains("live=$expect"), "{check}");
    let responder = Responder::new(SHELLS[2]);
    let said = responder.runs(std::slice::from_ref(look)).await;
    assert!(said.contains("\"told_by\": \"payments-x\""), "{said}");
    let said = responder.runs(&[start.clone(), hand_over.clone(), wait.clone()]).await;
    assert_eq!(api.started(), [("77".to_owned(), json!({"enabled": false}))]);
    assert!(said.rsplit_once("\n{\n").unwrap().1.contains("\"mismatch\": false"), "{said}");
    assert_eq!(exporter.toggle("agent-77").await["labels"], json!({"team": HOSTILE}));

    // Somebody switched them on by hand, as the configuration says.
    responder.runs(std::slice::from_ref(forget)).await;
    should_be("enabled").await;
    let page = page(&exporter, "?agent=staging/77").await;
    assert!(page.contains("enabled=true expect=enabled"), "{page}");
}

#[tokio::test]
async fn every_command_that_only_asks_the_exporter_is_answered() {
    let api = Api::start().await;
    api.script("first", Reply::task("completed", Some(true)));
    let exporter = Exporter::with(configuration(&[("default", api.url())], &json!({}))).start().await;
    exporter.put("payments-x", &json!({"agent_id": 77, "progress_id": "first", "expect": "enabled"})).await;
    let page = page(&exporter, "?toggle=payments-x").await;
    let sections = page.split("<section id=\"").skip(1).map(|section| section.split('"').next().unwrap());
    let blocks: Vec<_> = sections.flat_map(|section| commands(&page, section)).collect();
    let only_asks = |block: &&String| {
        let lines = block.lines().all(|line| line.starts_with("exporter=") || line.contains("\"$exporter/"));
        lines && !block.contains(" -X PUT") && !block.contains(" -X DELETE")
    };
    let asking: Vec<_> = blocks.iter().filter(only_asks).cloned().collect();
    assert!(asking.len() > 20, "{asking:#?}");
    Responder::new(SHELLS[0]).runs(&asking).await;
}

#[tokio::test]
async fn the_commands_of_a_toggle_without_a_direction_toggle_nothing_before_one_is_written() {
    let api = Api::start().await;
    api.script("first", Reply::task("failed", None));
    let exporter = Exporter::with(configuration(&[("default", api.url())], &json!({}))).start().await;
    exporter.put("payments-x", &json!({"agent_id": 77, "progress_id": "first"})).await;
    let page = page(&exporter, "?toggle=payments-x").await;
    let commands = commands(&page, "cekuratogglefailed");
    let responder = Responder::new(SHELLS[0]);
    assert!(!responder.pastes(&commands.concat(), "").await.status.success());
    assert_eq!(api.started(), []);
    let commands: Vec<_> = commands
        .iter()
        .map(|block| block.replace("TRUE_OR_FALSE", "false").replace("ENABLED_OR_DISABLED", "disabled"))
        .collect();
    responder.runs(&commands).await;
    assert_eq!(api.started(), [("77".to_owned(), json!({"enabled": false}))]);
    assert_eq!(exporter.toggle("payments-x").await["mismatch"], json!(false));
}

#[tokio::test]
async fn waiting_shows_no_earlier_success_where_the_new_task_was_not_started() {
    let api = Api::start().await;
    api.script("first", Reply::task("completed", Some(true)));
    let exporter = Exporter::with(configuration(&[("default", api.url())], &json!({}))).start().await;
    for (section, toggle, expect) in [
        ("cekuratogglefailed", "payments-x", "enabled"),
        ("cekuratogglemocksnoton", "payments-x", "enabled"),
        ("cekuratogglemocksnotoff", "payments-x", "disabled"),
        ("cekuratogglestuck", "payments-x", "enabled"),
        ("cekuraagentleftenabled", "agent-77", "disabled"),
    ] {
        exporter.put(toggle, &json!({"agent_id": 77, "progress_id": "first", "expect": expect})).await;
        let query = if toggle == "agent-77" { "?agent=default/77" } else { "?toggle=payments-x" };
        let commands = commands(&page(&exporter, query).await, section);
        let first = commands.iter().position(|block| block.contains("/toggle-mock-tools/\"")).unwrap();
        let responder = Responder::new(SHELLS[0]);
        // The exporter's own key may not write.
        responder.write(".cekura-key", &format!("X-CEKURA-API-KEY: {KEY}\n"));
        let steps = format!("set +e\n{}", commands[first..first + 3].concat());
        let output = responder.pastes(&steps, "").await;
        let said = String::from_utf8(output.stdout).unwrap();
        assert!(!output.status.success() && !said.contains("completed"), "{section}: {said}");
        assert!(said.contains("You do not have permission"), "{section}: {said}");
    }
    assert_eq!(api.started(), []);
}

#[tokio::test]
async fn a_toggle_of_a_file_or_of_the_configuration_is_given_its_new_id_there() {
    let labels = json!({"team": HOSTILE});
    for source in ["file", "config"] {
        let api = Api::start().await;
        api.script("first", Reply::task("failed", None));
        let watch = |id: &str| json!({"name": "payments-x", "agent_id": 77, "progress_id": id, "expect": "disabled", "labels": labels});
        let config = |id: &str| {
            let more =
                if source == "file" { json!({"watch_files": ["*.json"]}) } else { json!({"watches": [watch(id)]}) };
            configuration(&[("default", api.url())], &more)
        };
        let start = Exporter::with(config("first"));
        let start = if source == "file" { start.file("payments-x.json", &watch("first").to_string()) } else { start };
        let exporter = start.start().await;
        has_problem(&exporter, Some("failed")).await;
        let page = page(&exporter, "?toggle=payments-x").await;
        assert!(page.contains("<code>PUT</code> of step 2 is refused for this source"), "{source}");
        let responder = Responder::new(SHELLS[0]);
        let failed = commands(&page, "cekuratogglefailed");
        let [.., start, hand_over, _] = &failed[..] else { panic!("{failed:?}") };
        responder.runs(std::slice::from_ref(start)).await;
        let refused = responder.pastes(&format!("id=again-0 expect=disabled\n{hand_over}"), "").await;
        assert!(!refused.status.success() && refused.stdout.starts_with(b"{\"error\":"), "{refused:?}");
        let [find, into_file, reload] = &commands(&page, "toggle-again")[..] else { panic!("{page}") };
        if source == "file" {
            responder.write("other.json", &watch("first").to_string().replace("payments-x", "other"));
            responder.write("payments-x.json", &watch("first").to_string());
            assert_eq!(responder.runs(std::slice::from_ref(find)).await, "payments-x.json\n");
            responder.runs(&["id=again-0\n".to_owned(), into_file.clone()]).await;
            let written = responder.home.path().join("payments-x.json");
            exporter.place("payments-x.json", &std::fs::read_to_string(written).unwrap());
        } else {
            exporter.reconfigure(config("again-0"));
            responder.runs(std::slice::from_ref(reload)).await;
        }
        has_problem(&exporter, None).await;
        let toggle = exporter.toggle("payments-x").await;
        assert_eq!((&toggle["progress_id"], &toggle["labels"]), (&json!("again-0"), &labels), "{source}");
    }
}

#[tokio::test]
async fn a_key_is_stored_for_its_owner_alone_and_shown_nowhere() {
    let exporter = Exporter::with("watches: []\n").start().await;
    let page = page(&exporter, "").await;
    let [_, store, remove] = &commands(&page, "before-you-start")[..] else { panic!("{page}") };
    for shell in SHELLS {
        let responder = Responder::new(shell);
        let file = responder.home.path().join(".cekura-key");
        std::fs::remove_file(&file).unwrap();
        // There is no terminal that could be told not to show what is typed.
        responder.program("stty", "#!/bin/sh\necho \"$@\" >>told\n");
        let output = responder.pastes(store, "sk-a\\b \"c'd$e\n").await;
        assert!(output.status.success() && output.stdout.is_empty() && output.stderr.is_empty(), "{shell}: {output:?}");
        assert_eq!(std::fs::read_to_string(&file).unwrap(), "X-CEKURA-API-KEY: sk-a\\b \"c'd$e\n", "{shell}");
        assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600, "{shell}");
        let told = std::fs::read_to_string(responder.home.path().join("told")).unwrap();
        assert_eq!(told, "-echo\necho\n", "{shell}");
        responder.runs(std::slice::from_ref(remove)).await;
        assert!(!file.exists(), "{shell}");
    }
}

#[tokio::test]
async fn what_need_not_be_watched_is_taken_off_the_list() {
    let api = Api::start().await;
    let exporter = Exporter::with(configuration(&[("default", api.url())], &json!({}))).start().await;
    for section in
        ["cekuratoggleforbidden", "cekuratogglenotanswering", "cekuratoggleexpiredid", "cekurawatchesrejected"]
    {
        exporter.put("payments-x", &json!({"agent_id": 77, "progress_id": "unknown"})).await;
        let page = page(&exporter, "?toggle=payments-x").await;
        let blocks = commands(&page, section);
        let responder = Responder::new(SHELLS[0]);
        let (asking, others): (Vec<_>, Vec<_>) =
            blocks.into_iter().partition(|block| block.contains("progress_id=none"));
        for asking in asking {
            let output = responder.pastes(&asking, "").await;
            assert!(output.stdout.starts_with(b"HTTP/1.1 400 "), "{section}: {output:?}");
        }
        responder.runs(&others).await;
        assert_eq!(exporter.get("/api/v1/toggles/payments-x").await.0, 404, "{section}");
    }
}

#[tokio::test]
async fn a_wrong_path_in_a_base_url_is_found_and_corrected() {
    let api = Api::start().await;
    api.script("first", Reply::task("in_progress", None));
    let config = |path: &str| {
        let url = api.url() + path;
        configuration(
            &[("staging", url)],
            &json!({"watches": [{"name": "payments-x", "agent_id": 77, "progress_id": "first", "api": "staging"}]}),
        )
    };
    let exporter = Exporter::with(config("/test_framework/v2/aiagents")).start().await;
    let ends = async |reason: Option<&str>| {
        eventually("polls end so", async || {
            let toggle = exporter.toggle("payments-x").await;
            (toggle["polls"] != json!(0) && toggle["poll_error"] == json!(reason)).then_some(())
        })
        .await;
    };
    let asked = async || {
        let commands = commands(&page(&exporter, "?api=staging").await, "cekuraapidown");
        let [status, detail, poll_once, ask, reload] = &commands[..] else { panic!("{commands:?}") };
        let responder = Responder::new(SHELLS[0]);
        let poll_once = poll_once.replace("bookings-enable", "payments-x");
        let said = responder.runs(&[status.clone(), detail.clone(), poll_once]).await;
        let answer = responder.pastes(ask, "").await;
        (said, String::from_utf8(answer.stdout).unwrap(), reload.clone())
    };
    ends(Some("not_found")).await;
    let (said, answer, reload) = asked().await;
    assert!(said.contains("\"not_found\": 1"), "{said}");
    let path = "/test_framework/v2/aiagents/test_framework/v2/aiagents/77/toggle-mock-tools-progress/: HTTP 404";
    assert!(said.contains(path) && answer.starts_with("404\n"), "{said}\n{answer}");
    assert!(said.contains("\"phase\": \"answer\"") && said.contains("\"http_status\": 404"), "{said}");
    exporter.reconfigure(config(""));
    Responder::new(SHELLS[0]).runs(&[reload]).await;
    ends(None).await;
    assert!(asked().await.1.starts_with("400\n"));
}

#[tokio::test]
async fn nothing_of_a_host_header_is_taken_that_is_no_address() {
    let exporter = Exporter::with("watches: []\n").start().await;
    let of = async |host: &str| {
        let request = exporter.http().get(format!("{}/runbooks", exporter.urls[0])).header(HOST, host);
        request.send().await.unwrap().text().await.unwrap()
    };
    assert!(of("exporter.test:1234").await.contains("exporter=http://exporter.test:1234\n"));
    for host in ["$(touch pwned)", "a;touch", "a'b", "a`b", "a/<script>", "a b"] {
        let page = of(host).await;
        let addresses = page.matches("exporter=").count();
        assert_eq!(page.matches("exporter=http://cekura-exporter:10058\n").count(), addresses - 1, "{host}");
    }
}

#[tokio::test]
async fn the_address_is_the_external_url_where_that_is_configured_until_another_is() {
    let config = |url: &str| json!({"external_url": url, "watches": []}).to_string();
    let exporter = Exporter::with(config("https://exporter.test/b'$(touch%20pwned)/")).start().await;
    let of = async |exporter: &Exporter| {
        let page = page(exporter, "").await;
        let block = commands(&page, "toggle-again").pop().unwrap();
        block.lines().next().unwrap().to_owned()
    };
    assert_eq!(of(&exporter).await, r"exporter='https://exporter.test/b'\''$(touch%20pwned)'");
    exporter.reconfigure(config("https://other.test"));
    assert_eq!(exporter.reload().await.0, 200);
    assert_eq!(of(&exporter).await, "exporter=https://other.test");
}

#[tokio::test]
async fn what_is_not_there_is_said_and_the_runbooks_are_shown_all_the_same() {
    let api = Api::start().await;
    let exporter = Exporter::with(configuration(&[("staging", api.url())], &json!({}))).start().await;
    for (query, said) in [
        ("?toggle=gone", "There is no toggle gone now."),
        ("?toggle=%3Cb%3Ecall%20us", "The address of this page names no toggle."),
        ("?toggle=", "The address of this page names no toggle."),
        ("?agent=default/1", "names no agent of an API that is configured"),
        ("?agent=staging/x", "names no agent of an API that is configured"),
        ("?agent=1", "names no agent of an API that is configured"),
        ("?api=default", "names no API that is configured"),
    ] {
        let page = page(&exporter, query).await;
        assert!(page.contains(said) && page.contains("/api/v1/toggles/bookings-enable"), "{query}");
        assert!(!page.contains("call us"), "{query}");
    }
    let agent = page(&exporter, "?agent=staging%2F77&x=y").await;
    assert!(agent.contains("/api/v1/agents/staging/77?pretty") && agent.contains(&format!("base={}\n", api.url())));
    let plain = page(&exporter, "").await;
    assert!(plain.contains("are <strong>examples</strong>") && plain.contains("base=https://api.cekura.ai\n"));
}

#[test]
fn toggling_again_is_the_same_for_each_alert_but_for_the_direction() {
    let text = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/runbooks.md")).unwrap();
    let section =
        |name: &str| text.split(&format!("## {name}\n")).nth(1).unwrap().split("\n## ").next().unwrap().to_owned();
    let steps = |name: &str| {
        let blocks: Vec<_> =
            section(name).split("```sh\n").skip(1).map(|rest| rest.split("```").next().unwrap().to_owned()).collect();
        let first = blocks.iter().position(|block| block.contains("toggle-mock-tools/")).unwrap();
        blocks[first..first + 3].concat()
    };
    let failed = steps("CekuraToggleFailed");
    assert_eq!(steps("CekuraToggleStuck"), failed);
    let with = |enabled: &str, expect: &str| {
        let fixed = failed.replace("enabled=TRUE_OR_FALSE expect=ENABLED_OR_DISABLED\n", "");
        fixed.replace("'$enabled'", enabled).replace("'$expect'", expect)
    };
    assert_eq!(steps("CekuraToggleMocksNotOn"), with("true", "enabled"));
    let off = with("false", "disabled").replace("bookings-enable", "bookings-disable");
    assert_eq!(steps("CekuraToggleMocksNotOff"), off);
    let agent = off.replace("/bookings-disable", "/agent-4321");
    assert_eq!(steps("CekuraAgentLeftEnabled"), agent);
}

/// How long an alert is held after its cause, as the rules say.
fn held_for<'a>(rules: &'a str, name: &str) -> Option<&'a str> {
    let (_, rule) = rules.split_once(&format!("- alert: {name}\n")).unwrap_or_else(|| panic!("no {name}"));
    let rule = rule.split("- alert: ").next().unwrap();
    rule.lines().find_map(|line| line.trim_start().strip_prefix("keep_firing_for: "))
}

#[test]
fn every_section_has_the_same_form_and_says_how_long_its_alert_outlasts_its_cause() {
    let rules = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/prometheus/rules.yaml")).unwrap();
    let text = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/runbooks.md")).unwrap();
    let mut sections = 0;
    for section in text.split("\n## Cekura").skip(1) {
        let leads: Vec<_> = section
            .lines()
            .filter_map(|line| line.strip_prefix("**")?.split_once(".**"))
            .map(|(lead, _)| lead)
            .filter(|lead| !lead.starts_with("Step "))
            .collect();
        let form = ["What it means", "Look", "Do", "When it ends", "What it is not"];
        let name = format!("Cekura{}", section.lines().next().unwrap());
        assert_eq!(leads, form, "{name}");
        let ends = section.lines().find(|line| line.starts_with("**When it ends.**")).unwrap();
        for (held, said) in
            [("10m", "The alert ends ten minutes later."), ("15m", "The alert ends fifteen minutes later.")]
        {
            assert_eq!(ends.contains(said), held_for(&rules, &name) == Some(held), "{name}: {ends}");
        }
        sections += 1;
    }
    assert!(sections > 15, "{sections}");
}

#[test]
fn every_command_is_good_for_shells_and_every_query_for_prometheus() {
    let text = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/runbooks.md")).unwrap();
    let blocks = |language: &str| -> Vec<_> {
        let fence = format!("```{language}\n");
        text.split(&fence).skip(1).map(|block| block.split("```").next().unwrap().to_owned()).collect()
    };
    for shell in SHELLS {
        let commands = blocks("sh").concat();
        // An interactive zsh does not know comments.
        assert!(!commands.contains('#'), "{commands}");
        let mut words = shell.split(' ');
        let mut command = std::process::Command::new(words.next().unwrap());
        let output = command.args(words).args(["-n", "-c", &commands]).output().unwrap();
        assert!(output.status.success(), "{shell}: {}", String::from_utf8_lossy(&output.stderr));
    }
    let rules: Vec<_> = blocks("promql")
        .iter()
        .enumerate()
        .map(|(at, query)| json!({"record": format!("query:{at}"), "expr": query}))
        .collect();
    assert!(rules.len() > 10, "{rules:?}");
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), json!({"groups": [{"name": "runbooks", "rules": rules}]}).to_string()).unwrap();
    let output =
        std::process::Command::new(tool("promtool")).args(["check", "rules"]).arg(file.path()).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[tokio::test]
async fn a_problem_is_put_right_in_its_own_direction_also_while_a_run_in_the_other_one_hangs() {
    let api = Api::start().await;
    api.script("off", Reply::task("failed", None));
    api.script("on", Reply::task("in_progress", None));
    let exporter = Exporter::with(configuration(&[("default", api.url())], &json!({}))).start().await;
    exporter.put("payments-x", &json!({"agent_id": 77, "progress_id": "off", "expect": "disabled"})).await;
    has_problem(&exporter, Some("failed")).await;
    exporter.put("payments-x", &json!({"agent_id": 77, "progress_id": "on", "expect": "enabled"})).await;
    let page = page(&exporter, "?toggle=payments-x").await;
    assert!(page.contains("enabled=false expect=disabled"), "{page}");
    assert!(!page.contains("enabled=true expect=enabled"), "{page}");
}
