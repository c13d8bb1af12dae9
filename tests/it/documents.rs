//! The documents: their links work, and their tables list what the program has.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use cekura_exporter::config;
use cekura_exporter::database::SCHEMA;
use cekura_exporter::demo::simulator::Reply;
use reqwest::Method;
use serde_json::{Value, json};

use crate::harness::markdown::{broken_links, code, links, rows, section};
use crate::harness::{Authority, Exporter, Exposition, KEY, Postgres, Upstream, run};

fn file(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

fn read(path: &str) -> String {
    fs::read_to_string(file(path)).unwrap()
}

/// The Markdown files of the repository.
fn documents() -> Vec<String> {
    let mut git = Command::new("git");
    git.args(["ls-files", "--cached", "--others", "--exclude-standard", "*.md"]).current_dir(file(""));
    let output = git.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let listed = String::from_utf8(output.stdout).unwrap();
    let there = listed.lines().filter(|path| file(path).exists()).map(str::to_owned);
    there.collect()
}

/// The pages of the folder `docs`.
fn pages() -> Vec<String> {
    let pages: Vec<_> = documents().into_iter().filter(|path| path.starts_with("docs/")).collect();
    assert!(pages.len() > 8, "{pages:?}");
    // Pages in subfolders have an index of their own.
    pages.into_iter().filter(|path| path.matches('/').count() == 1).collect()
}

#[test]
fn every_relative_link_of_the_documents_leads_to_an_existing_file_and_heading() {
    let documents = documents();
    assert!(documents.iter().any(|path| path == "README.md"), "{documents:?}");
    let linked = documents.iter().map(|path| links(&read(path)).len()).sum::<usize>();
    assert!(linked > 100, "only {linked} links are seen");
    let broken: Vec<_> = documents
        .iter()
        .flat_map(|path| broken_links(&file(path)).into_iter().map(move |link| format!("{path}: {link}")))
        .collect();
    assert_eq!(broken, [""; 0]);
}

#[test]
fn the_readme_is_short_and_links_to_every_page_and_every_page_says_whom_it_is_for() {
    let readme = read("README.md");
    assert!(readme.lines().count() <= 150, "{} lines", readme.lines().count());
    let linked: BTreeSet<_> = links(&readme).into_iter().collect();
    for page in pages() {
        assert!(linked.contains(&page), "README.md does not link to {page}");
        let text = read(&page);
        let mut paragraphs = text.split("\n\n");
        assert!(paragraphs.next().unwrap().starts_with("# "), "{page} has no title");
        let first = paragraphs.next().unwrap();
        assert!(first.starts_with("For "), "{page} does not begin with whom it is for: {first}");
    }
}

#[test]
fn the_documents_name_only_metrics_and_alerts_that_exist() {
    let metrics: BTreeSet<_> = documented_metrics().into_keys().collect();
    let rules = read("deploy/prometheus/rules.yaml");
    let is_of_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
    for page in pages().into_iter().chain(["README.md".to_owned()]) {
        let text = read(&page);
        for word in text.split(|c| !is_of_name(c)) {
            if word.starts_with("cekura_") && word != SCHEMA {
                let family = FAMILY_ENDINGS.iter().find_map(|ending| word.strip_suffix(ending)).unwrap_or(word);
                assert!(metrics.contains(word) || metrics.contains(family), "{page}: there is no metric {word}");
            } else if word.strip_prefix("Cekura").is_some_and(|rest| rest.starts_with(char::is_uppercase)) {
                assert!(rules.contains(&format!("alert: {word}\n")), "{page}: there is no alert {word}");
            }
        }
    }
}

// === Flags and variables ===

/// The output of `--help`.
fn help() -> String {
    String::from_utf8(run(&["--help"], &[]).stdout).unwrap()
}

#[test]
fn the_table_of_flags_has_those_of_the_program_with_their_defaults() {
    let page = read("docs/configuration.md");
    let flag = |text: &str| text.split([' ', '=', '[']).next().unwrap().to_owned();
    let rows = rows(section(&page, "## Flags"));
    let documented: BTreeSet<_> = rows
        .iter()
        .flat_map(|row| code(row[0]).into_iter().map(flag).collect::<Vec<_>>())
        .filter(|flag| flag.starts_with("--"))
        .collect();
    let help = help();
    let lines = help.lines().map(str::trim_start).filter(|line| line.starts_with('-') && line.contains("--"));
    let of_program: BTreeSet<_> = lines.filter_map(|line| line.find("--").map(|at| flag(&line[at..]))).collect();
    assert!(of_program.len() > 8, "{of_program:?}");
    assert_eq!(documented, of_program);
    let mut defaults = 0;
    for of_flag in help.split("\n      --").skip(1) {
        let Some((_, default)) = of_flag.split_once("[default: ") else { continue };
        let (default, _) = default.split_once(']').unwrap();
        let name = format!("--{}", flag(of_flag));
        let row = rows.iter().find(|row| code(row[0]).into_iter().any(|text| flag(text) == name));
        assert_eq!(row.unwrap()[2].replace('`', ""), default, "{name}");
        defaults += 1;
    }
    assert!(defaults > 4, "{help}");
}

#[test]
fn the_table_of_variables_has_those_of_the_program() {
    let page = read("docs/configuration.md");
    let variables = section(&page, "## Variables");
    let documented: BTreeSet<_> = rows(variables).iter().flat_map(|row| code(row[0])).map(str::to_owned).collect();
    let help = help();
    let (_, environment) = help.split_once("Environment:\n").unwrap();
    let (environment, _) = environment.split_once("\n\n").unwrap();
    let is_variable = |word: &&str| word.contains('_') && word.bytes().all(|b| b.is_ascii_uppercase() || b == b'_');
    let words = environment.lines().filter_map(|line| line.strip_prefix("  ")).flat_map(|line| {
        let names = line.split("  ").next().unwrap_or_default();
        names.split([' ', ',']).map(str::to_owned).collect::<Vec<_>>()
    });
    let of_program: BTreeSet<_> = words.filter(|word| is_variable(&word.as_str())).collect();
    assert_eq!(documented, of_program);
    assert!(environment.contains("CEKURA_EXPORTER__…") && variables.contains("`CEKURA_EXPORTER__`"));
}

// === Keys ===

/// A key that no map of a configuration has.
const UNKNOWN: &str = "unheard-of";

/// The keys of each map of a file, which the program lists when it reports an unknown key. The path of a map is
/// empty or ends in a dot.
fn known_keys(errors: &[u8]) -> BTreeSet<String> {
    let errors = String::from_utf8(errors.to_vec()).unwrap();
    let mut known = BTreeSet::new();
    for line in errors.lines().filter(|line| line.contains(UNKNOWN)) {
        let (before, after) = line.split_once(UNKNOWN).unwrap();
        let map = before.rsplit(' ').next().unwrap().replace("[0]", "[]").replace("apis.default.", "apis.NAME.");
        let (_, keys) = after.split_once("nown here are ").unwrap_or_else(|| panic!("no keys in {line}"));
        known.extend(keys.split(", ").map(|key| format!("{map}{key}")));
    }
    assert!(!known.is_empty(), "{errors}");
    known
}

/// These keys without those whose values are maps with known keys.
fn leaves(known: &BTreeSet<String>) -> BTreeSet<&str> {
    let is_map =
        |key: &str| known.iter().any(|other| other.strip_prefix(key).is_some_and(|r| r.starts_with(['.', '['])));
    known.iter().map(String::as_str).filter(|key| !is_map(key)).collect()
}

/// The first and the last cell of each row of a table of keys: the key and its default.
fn documented_keys(page: &str) -> BTreeMap<String, Option<String>> {
    let page = read(page);
    let rows = rows(section(&page, "## Keys"));
    let of_row = |row: &Vec<&str>| {
        let [key] = code(row[0])[..] else { panic!("not one key in {row:?}") };
        (key.to_owned(), code(row[2]).first().map(|default| (*default).to_owned()))
    };
    let keys: BTreeMap<_, _> = rows.iter().map(of_row).collect();
    assert_eq!(keys.len(), rows.len(), "a key is there twice");
    keys
}

fn written(folder: &tempfile::TempDir, name: &str, content: &Value) -> String {
    let path = folder.path().join(name);
    fs::write(&path, content.to_string()).unwrap();
    path.to_str().unwrap().to_owned()
}

#[test]
fn the_table_of_keys_has_those_of_the_configuration() {
    let folder = tempfile::tempdir().unwrap();
    let map = || json!({UNKNOWN: "x"});
    let content = json!({
        UNKNOWN: "x",
        "apis": {"default": map()},
        "agents": [map()],
        "watches": [map()],
        "polling": map(),
        "registrations": {UNKNOWN: "x", "retention": map()},
        "database": map(),
        "shutdown": map(),
        "web": map(),
    });
    let path = written(&folder, "config.yaml", &content);
    let known = known_keys(&run(&["--config.check", "--config.file", &path], &[]).stderr);
    let documented = documented_keys("docs/configuration.md");
    assert_eq!(documented.keys().map(String::as_str).collect::<BTreeSet<_>>(), leaves(&known));
    // The reference configuration has each key.
    let reference = read("config.yaml");
    for key in documented.keys() {
        let key = key.rsplit('.').next().unwrap();
        assert!(reference.contains(&format!("{key}:")), "config.yaml lacks {key}");
    }
}

#[test]
fn the_table_of_keys_has_the_defaults_of_the_configuration() {
    let folder = tempfile::tempdir().unwrap();
    let empty = folder.path().join("config.yaml");
    fs::write(&empty, "").unwrap();
    let in_force = |variables: &[(String, String)]| {
        let variables = variables.iter().map(|(name, value)| (name.into(), value.into()));
        config::load(&empty, variables).unwrap().config.to_string()
    };
    let defaults = in_force(&[]);
    let documented = documented_keys("docs/configuration.md");
    let variable = |(key, default): (&String, &Option<String>)| {
        let name = key.replace("NAME", "DEFAULT").replace('.', "__").to_uppercase();
        let default = default.clone()?;
        // An empty configuration has no keys of list elements and of the database.
        (!key.contains("[]") && !key.starts_with("database."))
            .then(|| (format!("CEKURA_EXPORTER__{name}"), default.trim_matches('"').to_owned()))
    };
    let variables: Vec<_> = documented.iter().filter_map(variable).collect();
    assert_eq!(in_force(&variables), defaults);
    // The table is complete: it has every value that is in force without a configuration.
    let of_lists = ["agents: []", "watches: []"];
    let values: Vec<_> = defaults.lines().filter(|line| !line.ends_with(':') && !of_lists.contains(line)).collect();
    assert_eq!(variables.len(), values.len(), "{variables:#?}\n{values:#?}");
    let with_database = "database: {url: \"postgresql://u@localhost\"}\n";
    fs::write(&empty, with_database).unwrap();
    let lease = documented["database.lease"].as_deref().unwrap();
    assert!(in_force(&[]).contains(&format!("\n  lease: {lease}\n")), "{lease}");
}

#[test]
fn the_configurations_that_the_pages_show_are_good() {
    let folder = tempfile::tempdir().unwrap();
    for (page, count) in [("docs/sources.md", 5), ("docs/runbooks.md", 4)] {
        let text = read(page);
        let blocks: Vec<_> = text.split("```yaml\n").skip(1).map(|block| block.split_once("```").unwrap().0).collect();
        assert_eq!(blocks.len(), count, "{page}");
        for block in blocks {
            let path = folder.path().join("config.yaml");
            fs::write(&path, block).unwrap();
            let good = config::load(&path, []);
            assert!(good.is_ok(), "{page}: {block}{:?}", good.err());
        }
    }
}

#[test]
fn the_table_of_keys_has_those_of_the_web_configuration() {
    let folder = tempfile::tempdir().unwrap();
    let config = written(&folder, "config.yaml", &json!({}));
    let content = json!({
        UNKNOWN: "x",
        "tls_server_config": {UNKNOWN: "x"},
        "http_server_config": {UNKNOWN: "x"},
        // Its keys are user names.
        "basic_auth_users": {},
    });
    let web = written(&folder, "web.yaml", &content);
    let output = run(&["--config.check", "--config.file", &config, "--web.config.file", &web], &[]);
    let mut known = known_keys(&output.stderr);
    assert!(known.remove("basic_auth_users"), "{known:?}");
    known.insert("basic_auth_users.NAME".to_owned());
    let documented = documented_keys("docs/tls-and-logins.md");
    assert_eq!(documented.keys().map(String::as_str).collect::<BTreeSet<_>>(), leaves(&known));
}

// === Metrics ===

/// A metric's type and labels; `…` for labels that users give.
type Described = (String, BTreeSet<String>);

/// The suffixes of the series of a histogram.
const FAMILY_ENDINGS: [&str; 3] = ["_bucket", "_sum", "_count"];

/// The label of watches and agents in these tests.
const OWN_LABEL: &str = "team";

fn documented_metrics() -> BTreeMap<String, Described> {
    let page = read("docs/metrics.md");
    let rows = rows(&page);
    let rows: Vec<_> = rows.iter().filter(|row| row.len() > 4).collect();
    let of_row = |row: &&Vec<&str>| {
        let [name] = code(row[0])[..] else { panic!("not one metric in {row:?}") };
        let own = row[2].contains('…').then_some("…");
        let labels = code(row[2]).into_iter().chain(own).map(str::to_owned).collect();
        (name.to_owned(), (row[1].to_owned(), labels))
    };
    let metrics: BTreeMap<_, _> = rows.iter().map(of_row).collect();
    assert_eq!(metrics.len(), rows.len(), "a metric is there twice");
    metrics
}

/// The metrics of a scrape.
fn exposed(exposition: &Exposition) -> BTreeMap<String, Described> {
    let types = exposition.text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' '));
    let none = |kind: &str| (kind.to_owned(), BTreeSet::new());
    let mut metrics: BTreeMap<_, _> = types.map(|(name, kind)| (name.to_owned(), none(kind))).collect();
    for (name, labels) in exposition.names() {
        let family = FAMILY_ENDINGS.iter().find_map(|ending| name.strip_suffix(ending));
        let family = family.filter(|family| metrics.contains_key(*family)).unwrap_or(name);
        let (_, known) = metrics.get_mut(family).unwrap_or_else(|| panic!("{name} has no type"));
        // Only the buckets of histograms have it.
        let labels = labels.filter(|label| *label != "le");
        known.extend(labels.map(|label| if label == OWN_LABEL { "…".to_owned() } else { label.to_owned() }));
    }
    metrics
}

/// An exporter whose toggles and configuration make it expose every metric, also those that the demo lacks.
async fn configured(upstream: &Upstream, authority: &Authority, postgres: &Postgres) -> Exporter {
    for (id, reply) in [
        ("completed", Reply::task("completed", Some(true))),
        ("mismatched", Reply::task("completed", Some(false))),
        ("failed", Reply::task("failed", None)),
        ("refused", Reply::detail(401, "no")),
        ("paused", Reply::with_header(503, "retry-after", "600", "{}")),
    ] {
        upstream.script(id, [reply]);
    }
    upstream.mock_status(1, [Reply::mock_status(true, "vapi")]);
    let api = json!({"base_url": upstream.url(), "api_key": KEY});
    let labels = json!({OWN_LABEL: "bookings"});
    let watch = |id: &str, agent_id: u32, api: &str| json!({"name": id, "agent_id": agent_id, "progress_id": id, "expect": "enabled", "api": api, "labels": labels});
    let config = json!({
        "apis": {"default": api, "pausing": api},
        "agents": [
            {"agent_id": 1, "expect": "enabled", "labels": labels},
            // The API does not know this one.
            {"agent_id": 9, "labels": labels},
        ],
        "watches": [
            watch("completed", 1, "default"), watch("mismatched", 2, "default"), watch("failed", 3, "default"),
            watch("refused", 4, "default"), watch("paused", 5, "pausing"),
        ],
        "watch_files": ["nowhere/*.json"],
        "database": {"url": postgres.url()},
        "external_url": "https://exporter.example.com",
    });
    Exporter::with(config.to_string()).tls(authority, &[]).start().await
}

#[tokio::test]
async fn the_tables_of_metrics_have_those_of_the_program_with_their_types_and_labels() {
    let (upstream, authority, postgres) = (Upstream::start().await, Authority::new("servers"), Postgres::start().await);
    let exporter = configured(&upstream, &authority, &postgres).await;
    let told = |e: &Exposition| {
        let count = |name| e.count(name);
        count("cekura_toggle_up") == 5
            && count("cekura_agent_up") == 2
            && count("cekura_agent_mocks_drift") == 1
            && count("cekura_api_paused_until_timestamp_seconds") == 1
            && count("cekura_exporter_http_requests_total") > 0
    };
    let of_program = exposed(&exporter.scrape_until("everything is exposed", told).await);
    let documented = documented_metrics();
    let names = |of: &BTreeMap<String, Described>| of.keys().cloned().collect::<BTreeSet<_>>();
    assert_eq!(names(&documented), names(&of_program));
    for (name, described) in &documented {
        assert_eq!(described, &of_program[name], "{name}");
    }
    // The demo is what a newcomer sees first.
    let demo = Exporter::with("").arg("--demo").start().await;
    let demo = demo.scrape_until("it was polled", |e| e.count("cekura_toggle_up") > 0).await;
    let unknown: Vec<_> = exposed(&demo).into_keys().filter(|name| !documented.contains_key(name)).collect();
    assert_eq!(unknown, [""; 0]);
}

#[test]
fn the_table_of_reasons_has_those_of_the_program() {
    let page = read("docs/metrics.md");
    let rows = rows(section(&page, "## Reasons"));
    let documented: Vec<_> = rows.iter().flat_map(|row| code(row[0])).collect();
    let of_program: Vec<_> = cekura_exporter::toggle::Reason::ALL.iter().map(|reason| reason.as_str()).collect();
    assert_eq!(documented, of_program);
}

// === Paths ===

#[tokio::test]
async fn the_table_of_paths_has_the_methods_of_the_program() {
    let upstream = Upstream::start().await;
    let folder = tempfile::tempdir().unwrap();
    let config = Exporter::registering(&upstream, &folder.path().join("state"));
    let exporter = Exporter::with(config).start().await;
    let page = read("docs/http-api.md");
    let mut documented: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for row in rows(section(&page, "## Paths")) {
        for request in code(row[0]) {
            // A parameter without a path belongs to the previous one.
            let Some((method, target)) = request.split_once(' ') else { continue };
            let path = target.split('?').next().unwrap().to_owned();
            documented.entry(path).or_default().insert(method.to_owned());
        }
    }
    assert!(documented.len() > 10, "{documented:?}");
    for (path, methods) in &mut documented {
        methods.insert("OPTIONS".to_owned());
        if methods.contains("GET") {
            methods.insert("HEAD".to_owned());
        }
        let target = path.replace("API/ID", "default/1").replace("NAME", "bookings-enable").replace("FILE", "base.css");
        let answer = exporter.request(Method::OPTIONS, &target).await;
        assert_eq!(answer.status(), 204, "{path}");
        let allowed = answer.headers()["allow"].to_str().unwrap();
        assert_eq!(allowed.split(", ").map(str::to_owned).collect::<BTreeSet<_>>(), *methods, "{path}");
    }
}
