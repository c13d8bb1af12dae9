//! What is valid, what is refused, and how that is said.

use std::fs;
use std::path::Path;
use std::process::Output;

use cekura_exporter::config;
use cekura_exporter::demo::simulator::Reply;

use crate::harness::{Exporter, KEY, Upstream, comments, fixtures, lines, run};

fn check(path: &Path, environment: &[(&str, &str)]) -> Output {
    run(&["--config.check", "--config.file", path.to_str().unwrap()], environment)
}

#[test]
fn every_good_fixture_passes_with_the_warnings_that_it_names_and_no_more() {
    for path in fixtures("config", ".good.yaml") {
        let output = check(&path, &[]);
        let lines = lines(&path, &output.stderr);
        assert_eq!(output.status.code(), Some(0), "{}: {lines:#?}", path.display());
        let expected = comments(&path, "# warns:");
        assert_eq!(lines.len(), expected.len(), "{}: {lines:#?}", path.display());
        assert!(lines.iter().zip(&expected).all(|(line, expected)| line.starts_with(expected)), "{lines:#?}");
    }
}

#[test]
fn every_bad_fixture_is_refused_with_all_of_its_problems_and_no_other() {
    for path in fixtures("config", ".bad.yaml") {
        let output = check(&path, &[]);
        let lines = lines(&path, &output.stderr);
        assert_eq!(output.status.code(), Some(2), "{}: {lines:#?}", path.display());
        let expected = comments(&path, "# expect:");
        assert!(!expected.is_empty(), "{} expects nothing", path.display());
        for expected in &expected {
            assert!(lines.iter().any(|line| line.contains(expected)), "{}: {expected}\n{lines:#?}", path.display());
        }
        assert_eq!(lines.len(), expected.len(), "{}: {lines:#?}", path.display());
    }
}

#[test]
fn a_bad_configuration_keeps_the_exporter_from_starting_with_the_same_problems() {
    let path = fixtures("config", "ids.bad.yaml").remove(0);
    let output = run(&["--config.file", path.to_str().unwrap(), "--web.listen-address=127.0.0.1:0"], &[]);
    assert_eq!(output.status.code(), Some(2));
    assert_eq!(output.stderr, check(&path, &[]).stderr);
    assert!(output.stdout.is_empty());
}

#[test]
fn the_reference_configuration_is_valid_and_has_every_key_at_its_default() {
    let reference = Path::new(env!("CARGO_MANIFEST_DIR")).join("config.yaml");
    assert_eq!(check(&reference, &[]).status.code(), Some(0));
    let folder = tempfile::tempdir().unwrap();
    let empty = folder.path().join("empty.yaml");
    fs::write(&empty, "").unwrap();
    let load = |path: &Path| config::load(path, []).unwrap().config.to_string();
    assert_eq!(load(&reference), load(&empty));
    // What is shown as in force has every key but the optional ones, and all of those are described.
    let text = fs::read_to_string(&reference).unwrap();
    let of_apis = ["api_key_file", "api_key", "ca_file"];
    let of_watches = ["name", "agent_id", "progress_id", "expect", "api", "labels"];
    let of_database = ["database", "url", "url_file", "password_file", "ca_file", "lease"];
    for key in [&of_apis[..], &of_watches, &of_database].concat() {
        assert!(text.contains(&format!("{key}:")), "{key} is not in config.yaml");
    }
    for line in load(&empty).lines() {
        let key = line.trim().split(':').next().unwrap();
        assert!(text.contains(&format!("{key}:")), "{key} is not in config.yaml");
    }
}

#[test]
fn what_config_shows_as_in_force_can_be_read_back() {
    for path in fixtures("config", ".good.yaml") {
        let shown = config::load(&path, []).unwrap().config.to_string();
        let folder = tempfile::tempdir().unwrap();
        let again = folder.path().join("again.yaml");
        fs::write(&again, &shown).unwrap();
        assert_eq!(config::load(&again, []).unwrap().config.to_string(), shown, "{}", path.display());
    }
}

#[test]
fn scalars_stay_what_was_written() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/config/scalars-stay-text.good.yaml");
    let watches = config::load(&path, []).unwrap().config.watches;
    assert_eq!((watches[0].name.as_str(), watches[0].progress_id.as_str()), ("0123", "0123"));
    let labels: Vec<_> = watches[0].labels.iter().map(|(k, v)| (k.as_str(), v)).collect();
    assert_eq!(labels, [("on_call", "yes"), ("price", "1e5"), ("release", "1.10"), ("team", "no")]);
    assert_eq!((watches[1].name.as_str(), watches[1].progress_id.as_str()), ("true", "2026-01-01"));
}

/// A configuration in force, of this text and these variables.
fn in_force(text: &str, environment: &[(&str, &str)]) -> Result<String, String> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("c.yaml");
    fs::write(&path, text).unwrap();
    let environment = environment.iter().map(|(name, value)| ((*name).into(), (*value).into()));
    match config::load(&path, environment) {
        Ok(checked) => Ok(checked.config.to_string()),
        Err(problems) => Err(problems.to_string().replace(path.to_str().unwrap(), "FILE")),
    }
}

#[test]
fn variables_go_before_the_file_and_the_file_before_defaults() {
    let file = "apis: {default: {timeout: 3s}, b_c: {}}\npolling: {min_interval: 1s}\n";
    let shown = in_force(
        file,
        &[
            ("CEKURA_EXPORTER__APIS__DEFAULT__BASE_URL", "http://127.0.0.1:9/x"),
            ("CEKURA_EXPORTER__APIS__B_C__MAX_IN_FLIGHT", "3"),
            ("CEKURA_EXPORTER__POLLING__MIN_INTERVAL", "2s"),
            ("CEKURA_EXPORTER_PORT", "tcp://10.0.0.1:10058"),
            ("CEKURA_EXPORTER_SERVICE_HOST", "10.0.0.1"),
            ("CEKURA_API_KEY", "sk-env"),
        ],
    )
    .unwrap();
    for line in ["timeout: 3s", "base_url: http://127.0.0.1:9/x", "max_in_flight: 3", "min_interval: 2s"] {
        assert!(shown.lines().any(|l| l.trim() == line), "{line}\n{shown}");
    }
    assert_eq!(shown.matches("api_key: <secret>").count(), 1, "the key is that of the API default\n{shown}");
}

#[test]
fn lists_and_their_elements_can_be_set_by_variable() {
    let file = "watches:\n  - {name: a, agent_id: 1, progress_id: p}\n  - {name: b, agent_id: 2, progress_id: q}\n";
    let one = in_force(file, &[("CEKURA_EXPORTER__WATCHES__1__PROGRESS_ID", "0123")]).unwrap();
    assert!(one.contains("progress_id: p\n") && one.contains("progress_id: \"0123\"\n"), "{one}");
    let added = in_force(
        file,
        &[("CEKURA_EXPORTER__WATCHES__2__AGENT_ID", "3"), ("CEKURA_EXPORTER__WATCHES__2__PROGRESS_ID", "r")],
    );
    assert!(added.unwrap().contains("name: agent-3\n"));
    let replaced =
        in_force(file, &[("CEKURA_EXPORTER__WATCHES", "[{name: c, agent_id: 3, progress_id: r, labels: {team: no}}]")])
            .unwrap();
    assert!(replaced.contains("name: c\n") && !replaced.contains("name: a\n"), "{replaced}");
    let labels = in_force(file, &[("CEKURA_EXPORTER__WATCHES__0__LABELS__TEAM", "x")]).unwrap();
    assert!(labels.contains("team: x\n"), "{labels}");
}

#[test]
fn files_registrations_state_shutdown_and_web_can_be_set_by_variable() {
    let shown = in_force(
        "watch_files: [a.yaml]\nregistrations: {retention: {failed: 2h}}\n",
        &[
            ("CEKURA_EXPORTER__WATCH_FILES__1", "b*.json"),
            ("CEKURA_EXPORTER__REGISTRATIONS__ENABLED", "true"),
            ("CEKURA_EXPORTER__REGISTRATIONS__MAX", "7"),
            ("CEKURA_EXPORTER__REGISTRATIONS__RETENTION__COMPLETED", "5m"),
            ("CEKURA_EXPORTER__STATE_FILE", "state"),
            ("CEKURA_EXPORTER__SHUTDOWN", "{linger: 9s}"),
            ("CEKURA_EXPORTER__WEB__MAX_CONNECTIONS", "77"),
        ],
    )
    .unwrap();
    let lines = [
        "  - a.yaml",
        "  - \"b*.json\"",
        "enabled: true",
        "max: 7",
        "completed: 5m",
        "failed: 2h",
        "state_file: state",
        "linger: 9s",
        "max_connections: 77",
        "max_connections_per_peer: 128",
    ];
    for line in lines {
        assert!(shown.lines().any(|shown| shown.ends_with(line)), "{line}\n{shown}");
    }
    let whole = in_force("watch_files: [a.yaml]\n", &[("CEKURA_EXPORTER__WATCH_FILES", "[c.yaml]")]).unwrap();
    assert!(whole.contains("  - c.yaml\n") && !whole.contains("a.yaml"), "{whole}");
}

/// A URL of a database with a password.
const DATABASE_URL: &str = "postgresql://u:sk-fixture@h1,h2:5433/d?sslmode=verify-full";

/// It as it is shown.
const SHOWN_DATABASE_URL: &str = "url: \"postgresql://u:<secret>@h1:5432,h2:5433/d?sslmode=verify-full\"";

#[test]
fn a_database_is_shown_without_its_password_whoever_gives_the_url() {
    let all = "database: {url: x, lease: 1m}";
    for (text, variables) in [
        (format!("database:\n  url: {DATABASE_URL}\n"), vec![]),
        (String::new(), vec![("CEKURA_DATABASE_URL", DATABASE_URL)]),
        ("database: {lease: 15s}".to_owned(), vec![("CEKURA_DATABASE_URL", DATABASE_URL)]),
        (all.replace("1m", "15s"), vec![("CEKURA_EXPORTER__DATABASE__URL", DATABASE_URL)]),
        (all.replace("1m", "15s"), vec![("CEKURA_EXPORTER__DATABASE", "{url: 'DATABASE_URL'}")]),
        (format!("database: {{url: '{DATABASE_URL}'}}"), vec![("CEKURA_DATABASE_URL", "is not used")]),
        (format!("database: {{url: '{DATABASE_URL}'}}"), vec![("CEKURA_EXPORTER__DATABASE__LEASE", "15s")]),
    ] {
        let variables: Vec<_> =
            variables.into_iter().map(|(name, value)| (name, value.replace("DATABASE_URL", DATABASE_URL))).collect();
        let variables: Vec<_> = variables.iter().map(|(name, value)| (*name, &**value)).collect();
        let shown = in_force(&text, &variables).unwrap();
        let block = shown.split("database:\n").nth(1).unwrap_or_else(|| panic!("{text}: {shown}"));
        assert!(block.starts_with(&format!("  {SHOWN_DATABASE_URL}\n  lease: 15s\nstate_file: ")), "{text}: {shown}");
        assert!(!shown.contains("sk-fixture"), "{shown}");
        assert_eq!(in_force(&shown, &[]).unwrap(), shown);
    }
}

#[test]
fn the_files_of_a_database_are_shown_by_their_paths() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    fs::write(path("url"), "postgresql://u@h?sslmode=verify-full\n").unwrap();
    let text = format!("database: {{url_file: {}, password_file: {}, lease: 3s}}", path("url"), path("password"));
    let expected =
        format!("database:\n  url_file: {}\n  password_file: {}\n  lease: 3s\n", path("url"), path("password"));
    let shown = in_force(&format!("{text}\nregistrations: {{enabled: true}}"), &[]).unwrap();
    assert!(shown.contains(&expected), "{shown}");
    assert_eq!(in_force(&shown, &[]).unwrap(), shown);
    for (content, what) in [
        ("postgresql://u:sk-fixture@h:x", "database.url_file: PATH has a port that is not a number"),
        (
            "postgresql://u:sk-fixture@h",
            "database.password_file: is set beside a password in the URL: keep one of them",
        ),
        ("", "database.url_file: PATH is empty: write it like postgresql://"),
    ] {
        fs::write(path("url"), content).unwrap();
        let problems = in_force(&text, &[]).unwrap_err();
        assert!(problems.starts_with("FILE:1:") && problems.lines().count() == 1, "{problems}");
        assert!(
            problems.contains(&what.replace("PATH", &path("url"))) && !problems.contains("sk-fixture"),
            "{problems}"
        );
    }
    fs::remove_file(path("url")).unwrap();
    assert!(in_force(&text, &[]).unwrap_err().contains("database.url_file: "));
}

#[test]
fn a_bad_variable_of_the_database_is_named_and_its_value_is_not() {
    let bad = ("CEKURA_DATABASE_URL", "postgresql://u:sk-fixture@h:x");
    for (text, start) in [
        ("", "FILE: database: the variable CEKURA_DATABASE_URL has a port"),
        ("database: {lease: 15s}", "FILE:1:1: database.url: the variable CEKURA_DATABASE_URL has a port"),
    ] {
        let problems = in_force(text, &[bad]).unwrap_err();
        assert!(problems.starts_with(start) && !problems.contains("sk-fixture"), "{problems}");
    }
    let good = ("CEKURA_DATABASE_URL", DATABASE_URL);
    let both = in_force("state_file: state", &[good]).unwrap_err();
    assert!(both.ends_with("state_file: is set beside the variable CEKURA_DATABASE_URL: keep one of them"), "{both}");
    let authorities = in_force("", &[(good.0, "postgresql://u@h?sslmode=verify-ca")]).unwrap_err();
    assert!(authorities.contains("database: ca_file is missing: sslmode=verify-ca needs it"), "{authorities}");
}

#[test]
fn problems_of_variables_name_the_variable_and_never_the_secret() {
    let problems = in_force(
        "watches: [{agent_id: 1, progress_id: p}]\n",
        &[
            ("CEKURA_EXPORTER__POLLING__MIN_INTERVAL", "soon"),
            ("CEKURA_EXPORTER__NO_SUCH__KEY", "x"),
            ("CEKURA_EXPORTER__", "x"),
            ("CEKURA_EXPORTER__APIS__DEFAULT__API_KEE", "sk-env"),
            ("CEKURA_EXPORTER__POLLING__MAX_INTERVAL", "1m"),
            ("CEKURA_EXPORTER__polling__MAX_INTERVAL", "2m"),
            ("CEKURA_EXPORTER__APIS__OTHER", "{api_key: [sk-env]}"),
            ("CEKURA_EXPORTER__WATCHES__0__AGENT_ID", "0"),
        ],
    )
    .unwrap_err();
    assert!(!problems.contains("sk-env"), "{problems}");
    for expected in [
        "CEKURA_EXPORTER__POLLING__MIN_INTERVAL: polling.min_interval: `soon` is not a duration",
        "CEKURA_EXPORTER__NO_SUCH__KEY: no_such: is not a known key",
        "CEKURA_EXPORTER__APIS__DEFAULT__API_KEE: apis.default.api_kee: is not a known key",
        "CEKURA_EXPORTER__polling__MAX_INTERVAL: sets the same key as CEKURA_EXPORTER__POLLING__MAX_INTERVAL",
        "CEKURA_EXPORTER__APIS__OTHER: apis.other.api_key: must be a single value",
        "CEKURA_EXPORTER__WATCHES__0__AGENT_ID: watches[0].agent_id: `0` is not an agent id",
    ] {
        assert!(problems.contains(expected), "{expected}\n{problems}");
    }
}

#[test]
fn problems_of_a_file_have_the_line_and_the_column_where_it_has_them() {
    let text = "# the list\nwatches:\n  - name: a\n    agent_id: 0\n    progress_id: p\n    progress_id: q\n  - agent_id: 1\nwatch: x\n";
    let problems = in_force(text, &[]).unwrap_err();
    let places: Vec<_> = problems.lines().map(|line| line.splitn(4, ": ").take(2).collect::<Vec<_>>()).collect();
    let expected = [
        ["FILE:6:5", "watches[0].progress_id"],
        ["FILE:4:5", "watches[0].agent_id"],
        ["FILE:7:5", "watches[1].progress_id"],
        ["FILE:8:1", "watch"],
    ];
    assert_eq!(places, expected, "{problems}");
    let syntax = in_force("watches:\n  - {agent_id: 1\nx: y\n", &[]).unwrap_err();
    assert!(syntax.starts_with("FILE:3:2: is not YAML: "), "{syntax}");
}

#[test]
fn a_problem_is_said_of_the_file_or_the_variable_that_has_it() {
    let problems = in_force(
        "polling: {max_interval: 1s}\nwatches: [{progress_id: p}]\n",
        &[("CEKURA_EXPORTER__POLLING__BACKOFF_MAX", "6m"), ("CEKURA_EXPORTER__WATCHES__0__EXPECT", "enabled")],
    )
    .unwrap_err();
    let mut lines: Vec<_> = problems.lines().collect();
    lines.sort_unstable();
    assert_eq!(
        lines,
        [
            "FILE:1:11: polling.max_interval: is below min_interval: it must be at least as long",
            "FILE:2:11: watches[0].agent_id: is missing",
        ]
    );
    let scalar = in_force("", &[("CEKURA_EXPORTER__POLLING", "5s")]).unwrap_err();
    assert_eq!(scalar, "CEKURA_EXPORTER__POLLING: must be a list or a map, as YAML");
}

#[test]
fn a_good_check_says_in_one_line_what_was_found() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("c.yaml");
    for (text, found) in [
        ("", "0 watches, 0 agents, 1 API"),
        ("apis: {a: {}, b: {}}\nwatches: [{agent_id: 1, progress_id: p, api: a}]\n", "1 watch, 0 agents, 2 APIs"),
        ("agents: [{agent_id: 7}]\n", "0 watches, 1 agent, 1 API"),
        ("watch_files: [\"*.toggle\"]\n", "0 watches, 0 agents, 1 API, 0 watch files"),
    ] {
        fs::write(&path, text).unwrap();
        let output = check(&path, &[]);
        assert_eq!(String::from_utf8(output.stdout).unwrap(), format!("{}: {found}: good\n", path.display()));
    }
    fs::write(&path, "x: y\n").unwrap();
    assert!(check(&path, &[]).stdout.is_empty());
}

#[test]
fn variables_that_are_nearly_ours_are_warned_of() {
    let path = fixtures("config", "minimal.good.yaml").remove(0);
    let variables = [
        ("CEKURA_EXPORTER_APIS_DEFAULT_API_KEY", "sk-fixture"),
        ("CEKURA_EXPORTER_PORT", "tcp://10.0.0.1:10058"),
        ("CEKURA_EXPORTER_PORT_10058_TCP_ADDR", "10.0.0.1"),
        ("CEKURA_EXPORTER_SERVICE_HOST", "10.0.0.1"),
    ];
    let output = check(&path, &variables);
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(
        String::from_utf8(output.stderr).unwrap(),
        "warning: CEKURA_EXPORTER_APIS_DEFAULT_API_KEY: is not read, because levels are joined by two underscores: did \
         you mean CEKURA_EXPORTER__APIS__DEFAULT__API_KEY?\n"
    );
}

/// What a check that asks the APIs says on standard output behind its first line, and its exit code.
fn checked_online(text: &str) -> (Option<i32>, Vec<String>) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("c.yaml");
    fs::write(&path, text).unwrap();
    let output = run(&["--config.check=online", "--config.file", path.to_str().unwrap()], &[]);
    let said = [&output.stdout[..], &output.stderr].concat();
    assert!(!String::from_utf8_lossy(&said).contains(KEY), "a key shows");
    let lines = String::from_utf8(output.stdout).unwrap().lines().skip(1).map(str::to_owned).collect();
    (output.status.code(), lines)
}

/// The requests of a check to this API, as its lines begin.
struct Places {
    host: String,
}

impl Places {
    fn of(upstream: &Upstream) -> Self {
        Self { host: upstream.url().replace("http://", "") }
    }

    fn toggle(&self, agent: u32) -> String {
        format!("GET {}/test_framework/v2/aiagents/{agent}/toggle-mock-tools-progress/", self.host)
    }

    fn mock_status(&self, agent: u32) -> String {
        format!("GET {}/test_framework/v1/aiagents/{agent}/tools/mock-status/", self.host)
    }

    fn list(&self) -> String {
        format!("GET {}/test_framework/v2/aiagents/", self.host)
    }
}

/// What the check says of a part that is not there and that nothing uses.
const UNUSED: &str = "HTTP 404: Not found. (not_found; the configuration does not use it)";

/// What the check says of toggles of an agent whose mock status is answered, up to whether they are used.
const NO_ENDPOINT: &str = "HTTP 404: Not found. (not_found: most likely this deployment has no toggle endpoint";

#[tokio::test(flavor = "multi_thread")]
async fn an_online_check_asks_each_api_and_says_what_came_back() {
    let upstream = Upstream::start().await;
    upstream.script("p", [Reply::task("completed", Some(true))]);
    upstream.script("bad", [Reply::detail(401, &format!("no such key: {KEY}"))]);
    let api = format!("{{base_url: {}, api_key: {KEY}}}", upstream.url());
    let places = Places::of(&upstream);
    let good = format!(
        "apis: {{default: {api}, none: {api}}}\nwatches: [{{agent_id: 7, progress_id: p}}, {{agent_id: 8, progress_id: bad}}]\n"
    );
    let lines = vec![
        format!("default: {}: completed", places.toggle(7)),
        format!("default: {}: {UNUSED}", places.mock_status(7)),
        format!("none: {}: HTTP 400: no such id (reached, and the key is accepted)", places.toggle(1)),
        format!("none: {}: {UNUSED}", places.list()),
    ];
    assert_eq!(checked_online(&good), (Some(0), lines));
    assert_eq!(upstream.requests().len(), 4);
    let bad = format!(
        "apis: {{a: {api}, b: {{base_url: {}}}, c: {api}, d: {{base_url: \"http://127.0.0.1:1\", api_key: {KEY}}}}}\n\
         watches: [{{agent_id: 7, progress_id: bad, api: a}}, {{name: c, agent_id: 7, progress_id: gone, api: c}}]\n",
        upstream.url()
    );
    let (code, lines) = checked_online(&bad);
    assert_eq!((code, lines.len()), (Some(1), 8), "{lines:?}");
    assert_eq!(lines[0], format!("a: {}: HTTP 401: no such key: <secret> (unauthorized)", places.toggle(7)));
    let no_key = "b: no key is configured: set api_key_file or api_key (credentials)";
    assert_eq!((&*lines[2], &*lines[3]), (no_key, no_key));
    assert_eq!(lines[4], format!("c: {}: HTTP 400: no such id (bad_request)", places.toggle(7)), "it is not known");
    assert!(lines[6].starts_with("d: GET 127.0.0.1:1/") && lines[6].ends_with("(connect)"), "{lines:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_api_is_good_if_it_has_what_the_configuration_uses_of_it() {
    let upstream = Upstream::start().await;
    upstream.mock_status(7, [Reply::mock_status(true, "vapi")]);
    upstream.mock_status(8, [Reply::mock_status(false, "vapi")]);
    upstream.script("p", [Reply::task("completed", Some(true))]);
    upstream.script("gone", [Reply::detail(404, "Not found.")]);
    upstream.script("cekura-exporter-config-check", [Reply::detail(404, "Not found.")]);
    let api = format!("{{base_url: {}, api_key: {KEY}}}", upstream.url());
    let places = Places::of(&upstream);
    let check = |more: &str| checked_online(&format!("apis: {{default: {api}}}\n{more}"));
    // A deployment without toggles, of which nothing but agents is watched.
    let lines = vec![
        format!("default: {}: {NO_ENDPOINT}; the configuration does not use it)", places.toggle(8)),
        format!("default: {}: mocks are off", places.mock_status(8)),
    ];
    assert_eq!(check("agents: [{agent_id: 8}, {agent_id: 9}]\n"), (Some(0), lines));
    let (code, lines) = check("agents: [{agent_id: 8}]\nwatches: [{agent_id: 8, progress_id: gone}]\n");
    assert_eq!((code, &lines[0]), (Some(1), &format!("default: {}: {NO_ENDPOINT})", places.toggle(8))));
    let (code, lines) = check("agents: [{agent_id: 9}]\nwatches: [{agent_id: 8, progress_id: gone}]\n");
    let failed = format!("default: {}: HTTP 404: Not found. (not_found)", places.toggle(8));
    assert_eq!((code, &lines[0]), (Some(1), &failed), "nothing says that the agent exists");
    // A deployment without mock status for the agent that is configured.
    let (code, lines) = check("agents: [{agent_id: 9}]\nwatches: [{agent_id: 7, progress_id: p}]\n");
    let failed = format!("default: {}: HTTP 404: Not found. (not_found)", places.mock_status(9));
    assert_eq!((code, lines), (Some(1), vec![format!("default: {}: completed", places.toggle(7)), failed]));
    // Without agents, that of a watch says whether mock status is there.
    let (code, lines) = check("watches: [{agent_id: 7, progress_id: p}]\n");
    assert_eq!((code, &lines[1]), (Some(0), &format!("default: {}: mocks are on", places.mock_status(7))));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_online_check_reads_the_list_of_agents_where_they_are_discovered_or_none_is_known() {
    let upstream = Upstream::start().await;
    let places = Places::of(&upstream);
    let check = |discover: bool, more: &str| {
        let api = format!("{{base_url: {}, api_key: {KEY}, discover_agents: {discover}}}", upstream.url());
        checked_online(&format!("apis: {{default: {api}}}\n{more}"))
    };
    let (code, lines) = check(true, "");
    assert_eq!((code, lines.len()), (Some(1), 2), "{lines:?}");
    assert_eq!(lines[1], format!("default: {}: HTTP 404: Not found. (not_found)", places.list()), "it is used");
    assert_eq!(check(false, "").0, Some(0), "nothing is used yet");
    let results =
        r#"{"count": 240, "next": null, "results": [{"id": 6, "mock_tools": []}, {"id": 7, "mock_tools": [{}]}]}"#;
    upstream.page(1, [Reply::new(200, results)]);
    let listed = format!("default: {}: 240 agents, 1 with mock tools on the first page", places.list());
    let (code, lines) = check(true, "");
    assert_eq!((code, &lines[1]), (Some(1), &listed));
    assert_eq!(lines[2], format!("default: {}: HTTP 404: Not found. (not_found)", places.mock_status(7)));
    upstream.mock_status(7, [Reply::mock_status(true, "vapi")]);
    for discover in [true, false] {
        let (code, lines) = check(discover, "");
        let expected = [listed.clone(), format!("default: {}: mocks are on", places.mock_status(7))];
        assert_eq!((code, &lines[1..]), (Some(0), &expected[..]));
        assert!(lines[0].starts_with(&format!("default: {}: ", places.toggle(7))), "{lines:?}");
    }
    upstream.mock_status(8, [Reply::mock_status(true, "vapi")]);
    let (code, lines) = check(false, "agents: [{agent_id: 8}]\n");
    assert_eq!((code, lines.len()), (Some(0), 2), "the list is not needed: {lines:?}");
    let (code, lines) = check(true, "agents: [{agent_id: 8}]\n");
    let expected = [listed, format!("default: {}: mocks are on", places.mock_status(8))];
    assert_eq!((code, &lines[1..]), (Some(0), &expected[..]));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_online_check_ends_with_the_timeout_and_polls_nothing_where_the_configuration_is_bad() {
    let upstream = Upstream::start().await;
    upstream.script("p", [Reply::Silence]);
    let api = format!("apis: {{default: {{base_url: {}, api_key: {KEY}, timeout: 50ms}}}}\n", upstream.url());
    let (code, lines) = checked_online(&format!("{api}watches: [{{agent_id: 7, progress_id: p}}]\n"));
    assert!(code == Some(1) && lines[0].ends_with(": no complete answer within 50ms (timeout)"), "{lines:?}");
    let polls = upstream.requests().len();
    assert_eq!(checked_online(&format!("{api}x: y\n")), (Some(2), vec![]));
    assert_eq!(upstream.requests().len(), polls);
}

#[tokio::test]
async fn what_a_check_warns_of_is_logged_where_the_service_starts() {
    let config = "apis: {default: {base_url: \"http://127.0.0.1:1/test_framework/v2\"}}\nwatch_files: [\"*.toggle\"]\n";
    let exporter = Exporter::with(config).start().await;
    let warnings = exporter.logged("configuration warning", 2).await;
    let said: Vec<_> = warnings.iter().map(|line| line["warning"].as_str().unwrap()).collect();
    assert!(said[0].contains("config.yaml:1:18: apis.default.base_url: ends in"), "{said:?}");
    assert!(said[1].contains("config.yaml:1:8: apis.default: has no key"), "{said:?}");
}

#[test]
fn an_api_whose_name_has_two_underscores_can_be_set_by_variable() {
    let shown = in_force("apis: {a__b: {}}", &[("CEKURA_EXPORTER__APIS__A__B__TIMEOUT", "3s")]).unwrap();
    assert!(shown.contains("a__b:\n") && shown.contains("timeout: 3s\n"), "{shown}");
}

#[test]
fn an_element_is_addressed_by_its_index_only() {
    let watches = "watches: [{agent_id: 1, progress_id: p}]\n";
    let problems = in_force(watches, &[("CEKURA_EXPORTER__WATCHES__ZERO__AGENT_ID", "1")]).unwrap_err();
    assert_eq!(
        problems,
        "CEKURA_EXPORTER__WATCHES__ZERO__AGENT_ID: does not address an element of the list by its index"
    );
}

#[test]
fn a_key_by_variable_is_lifted_like_one_in_the_file() {
    for variable in [
        ("CEKURA_EXPORTER__APIS__DEFAULT__API_KEY", "sk-env"),
        ("CEKURA_EXPORTER__APIS__DEFAULT", "{api_key: sk-env}"),
        ("CEKURA_EXPORTER__APIS", "{default: {api_key: sk-env}}"),
    ] {
        let shown = in_force("apis: {default: {api_key: sk-file}}", &[variable]).unwrap();
        assert!(shown.contains("api_key: <secret>") && !shown.contains("sk-"), "{shown}");
    }
}

#[test]
fn a_file_that_is_missing_a_folder_or_no_text_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let binary = folder.path().join("binary.yaml");
    fs::write(&binary, [0xff, 0xfe, 0x00]).unwrap();
    for (path, what) in [
        (folder.path().join("none.yaml"), "cannot be read"),
        (folder.path().to_owned(), "is not a regular file"),
        (binary, "is not UTF-8 text"),
    ] {
        let output = check(&path, &[]);
        assert_eq!(output.status.code(), Some(2));
        let lines = lines(&path, &output.stderr);
        assert!(lines.len() == 1 && lines[0].contains(what), "{lines:?}");
    }
}

#[test]
fn over_ten_thousand_watches_are_valid_and_warn_once() {
    use std::fmt::Write;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("many.yaml");
    let mut text = "apis: {default: {api_key: k}}\nwatches:\n".to_owned();
    (1..=10_001).for_each(|i| writeln!(text, "  - {{agent_id: {i}, progress_id: p{i}}}").unwrap());
    fs::write(&path, text).unwrap();
    let output = check(&path, &[]);
    let lines = lines(&path, &output.stderr);
    assert_eq!((output.status.code(), lines.len()), (Some(0), 1), "{lines:?}");
    assert!(lines[0].contains("10001 watches") && lines[0].contains("series"), "{lines:?}");
}
