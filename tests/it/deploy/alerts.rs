//! The alert rules: that each is tested by promtool in every way, is explained, and asks for what the
//! exporter has.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use cekura_exporter::demo::simulator::Reply;
use cekura_exporter::toggle::Standing;
use serde_json::{Value, json};

use super::{file, yaml};
use crate::harness::{Authority, Exporter, Exposition, Upstream, tool};

const RULES: &str = "deploy/prometheus/rules.yaml";
const TESTS: &str = "deploy/prometheus/rules_test.yaml";
const ALERTMANAGER: &str = "deploy/alertmanager/alertmanager.yml";

/// Labels that Prometheus gives what it scrapes.
const TARGET_LABELS: [&str; 4] = ["job", "instance", "namespace", "pod"];

/// Words of expressions that name no metric and no label.
const WORDS: [&str; 25] = [
    "and",
    "or",
    "offset",
    "changes",
    "min_over_time",
    "unless",
    "on",
    "ignoring",
    "by",
    "without",
    "max",
    "min",
    "sum",
    "count",
    "time",
    "rate",
    "increase",
    "last_over_time",
    "up",
    "d",
    "h",
    "m",
    "s",
    "printf",
    "query",
];

fn check(program: &str, args: &[&str]) {
    let mut command = Command::new(tool(program));
    let output = command.env_clear().args(args).current_dir(file("deploy/prometheus")).output().unwrap();
    let (said, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{program} {args:?}:\n{said}{errors}");
}

#[test]
fn promtool_accepts_the_rules() {
    check("promtool", &["check", "rules", "--lint-fatal", "rules.yaml"]);
}

#[test]
fn the_rules_fire_hold_and_resolve_as_their_tests_say() {
    check("promtool", &["test", "rules", "rules_test.yaml"]);
}

#[test]
fn promtool_accepts_the_scrape_configuration() {
    check("promtool", &["check", "config", "scrape.yaml"]);
}

/// The variant for Kubernetes, which is a comment: without its `#`, and with what Debian's Prometheus
/// is built without left out.
#[test]
fn promtool_accepts_the_scrape_configuration_for_kubernetes() {
    let shipped = std::fs::read_to_string(file("deploy/prometheus/scrape.yaml")).unwrap();
    let from_the_first_job = shipped.lines().skip_while(|line| !line.starts_with("#  - job_name"));
    let variant: Vec<_> = from_the_first_job.map_while(|line| line.strip_prefix('#')).collect();
    let jobs = variant.join("\n").replace("kubernetes_sd_configs: [{role: pod}]", "static_configs: []");
    assert_eq!(jobs.matches("static_configs: []").count(), 2, "{jobs}");
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("scrape.yaml");
    std::fs::write(&config, format!("scrape_configs:\n{jobs}\n")).unwrap();
    check("promtool", &["check", "config", config.to_str().unwrap()]);
    let sidecars = jobs.lines().filter(|line| line.contains("job_name") && line.contains("sidecar")).count();
    assert_eq!(sidecars, 1, "one job is for sidecars, as the rules tell them");
}

#[test]
fn amtool_accepts_the_routes() {
    check("amtool", &["check-config", "../alertmanager/alertmanager.yml"]);
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

fn text<'a>(value: &'a Value, field: &str) -> &'a str {
    value[field].as_str().unwrap_or_else(|| panic!("no {field} in {value}"))
}

/// All rules of the file, in its order.
fn rules() -> Vec<Value> {
    let groups = yaml(RULES);
    list(&groups["groups"]).iter().flat_map(|group| list(&group["rules"]).to_vec()).collect()
}

fn alerts() -> Vec<Value> {
    rules().into_iter().filter(|rule| rule["alert"].is_string()).collect()
}

/// How often an alert is tested, in each way.
#[derive(Default)]
struct Cases {
    firing: usize,
    silent: usize,
    resolving: usize,
    /// With all labels and annotations written out.
    in_full: usize,
}

/// `1h30m` in minutes.
fn minutes(duration: &str) -> u64 {
    let unit = |unit: char| match unit {
        'd' => 24 * 60,
        'h' => 60,
        'm' => 1,
        _ => panic!("an unexpected unit in {duration}"),
    };
    let parts = duration.split_inclusive(|c: char| c.is_alphabetic());
    parts.map(|part| part[..part.len() - 1].parse::<u64>().unwrap() * unit(part.chars().last().unwrap())).sum()
}

impl Cases {
    /// Counts what one test asks of the alert. It resolves where it is silent after it has fired.
    fn count(&mut self, test: &Value, alert: &str) {
        let asked = list(&test["alert_rule_test"]).iter().filter(|case| case["alertname"] == alert);
        let mut asked: Vec<_> =
            asked.map(|case| (minutes(text(case, "eval_time")), list(&case["exp_alerts"]))).collect();
        asked.sort_by_key(|(at, _)| *at);
        let mut fired = false;
        for (_, expected) in asked {
            match (expected.is_empty(), fired) {
                (false, _) => self.firing += 1,
                (true, false) => self.silent += 1,
                (true, true) => self.resolving += 1,
            }
            fired |= !expected.is_empty();
            let in_full = |alert: &&Value| alert["exp_labels"].is_object() && alert["exp_annotations"].is_object();
            self.in_full += expected.iter().filter(in_full).count();
        }
    }
}

#[test]
fn every_alert_is_tested_to_fire_to_be_silent_and_to_resolve() {
    let tests = yaml(TESTS);
    let tests = list(&tests["tests"]);
    let mut sum = Cases::default();
    for alert in alerts() {
        let name = text(&alert, "alert");
        let mut cases = Cases::default();
        for test in tests {
            cases.count(test, name);
        }
        let Cases { firing, silent, resolving, in_full } = cases;
        assert!(
            firing > 0 && silent > 0 && resolving > 0 && in_full > 0,
            "{name}: {firing} firing, {silent} silent, {resolving} resolving, {in_full} in full"
        );
        sum.firing += firing;
        sum.silent += silent;
        sum.resolving += resolving;
    }
    let (alerts, scenarios, Cases { firing, silent, resolving, .. }) = (alerts().len(), tests.len(), sum);
    println!("{alerts} alerts, {scenarios} scenarios: {firing} firing, {silent} silent, {resolving} resolving");
}

#[test]
fn every_alert_says_what_it_means_how_bad_it_is_and_where_its_runbook_is() {
    let runbooks = std::fs::read_to_string(file("docs/runbooks.md")).unwrap();
    let sections: Vec<_> = runbooks
        .lines()
        .filter_map(|line| line.strip_prefix("## "))
        .filter(|title| title.starts_with("Cekura"))
        .collect();
    let alerts = alerts();
    let names: Vec<_> = alerts.iter().map(|alert| text(alert, "alert")).collect();
    assert_eq!(sections, names, "the sections of the runbooks, in the order of the rules");
    for (alert, name) in alerts.iter().zip(names) {
        let severity = text(&alert["labels"], "severity");
        assert!(["critical", "warning", "info"].contains(&severity), "{name} is {severity}");
        let annotations = &alert["annotations"];
        assert_eq!(text(annotations, "runbook"), format!("docs/runbooks.md#{}", name.to_lowercase()));
        assert!(text(annotations, "summary").len() > 20 && text(annotations, "description").len() > 80, "{name}");
    }
}

#[test]
fn the_readme_lists_every_alert_with_its_severity() {
    let readme = std::fs::read_to_string(file("README.md")).unwrap();
    for alert in alerts() {
        let (name, severity) = (text(&alert, "alert"), text(&alert["labels"], "severity"));
        let line = format!("| [`{name}`](docs/runbooks.md#{}) | {severity} |", name.to_lowercase());
        assert!(readme.contains(&line), "README.md lacks {line}");
    }
}

#[test]
fn the_routes_speak_of_alerts_that_there_are() {
    let alerts = alerts();
    let names: BTreeSet<_> = alerts.iter().map(|alert| text(alert, "alert")).collect();
    let routes = yaml(ALERTMANAGER).to_string();
    let spoken_of = words(&routes).into_iter().filter(|word| word.starts_with("Cekura") && *word != "Cekura");
    let unknown: Vec<_> = spoken_of.filter(|word| !names.contains(word)).collect();
    assert_eq!(unknown, [""; 0]);
}

/// The names and words in a text, without what is quoted within it.
fn words(text: &str) -> Vec<&str> {
    let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == ':';
    text.split(|c| !is_word(c)).filter(|word| !word.is_empty()).collect()
}

/// An expression without its quoted texts, which may be anything.
fn unquoted(expression: &str) -> String {
    expression.split('"').step_by(2).collect::<Vec<_>>().join("\"\"")
}

/// The metrics of an expression, each with the labels that are asked of it in braces.
fn selectors(expression: &str) -> Vec<(&str, Vec<&str>)> {
    let mut selectors = Vec::new();
    for name in words(expression).into_iter().filter(|word| word.contains("cekura_")) {
        let at = name.as_ptr() as usize - expression.as_ptr() as usize + name.len();
        let braces = expression[at..].strip_prefix('{').and_then(|rest| rest.split_once('}'));
        selectors.push((name, braces.map_or(Vec::new(), |(labels, _)| words(labels))));
    }
    selectors
}

/// The labels that the exporter gives each of its metrics.
fn exposed(exposition: &Exposition) -> BTreeMap<String, BTreeSet<String>> {
    let mut exposed: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for (name, labels) in exposition.names() {
        exposed.entry(name.to_owned()).or_default().extend(labels.map(str::to_owned));
    }
    exposed
}

/// An exporter that has something to say of everything.
async fn talkative(upstream: &Upstream, authority: &Authority) -> Exposition {
    for (id, reply) in [
        ("failed", Reply::task("failed", None)),
        ("on", Reply::task("completed", Some(true))),
        ("runs", Reply::task("in_progress", None)),
        ("refused", Reply::detail(401, "no")),
        ("paused", Reply::with_header(503, "retry-after", "600", "{}")),
    ] {
        upstream.script(id, [reply]);
    }
    let watch =
        |id: &str, api: &str| json!({"name": id, "agent_id": 1, "progress_id": id, "expect": "enabled", "api": api});
    let api = json!({"base_url": upstream.url(), "api_key": "k"});
    let config = json!({
        "apis": {"default": api, "paused": api},
        "watches": [
            watch("failed", "default"), watch("on", "default"), watch("runs", "default"), watch("refused", "default"),
            watch("paused", "paused"),
        ],
        "watch_files": ["nowhere/*.json"],
    });
    let exporter = Exporter::with(config.to_string()).tls(authority, &[]).start().await;
    let has_all = |e: &Exposition| {
        ["failed", "on", "runs", "refused"]
            .iter()
            .all(|toggle| e.value("cekura_toggle_up", &[("toggle", toggle)]).is_some())
            && e.count("cekura_api_paused_until_timestamp_seconds") > 0
    };
    exporter.scrape_until("all toggles were polled", has_all).await
}

#[test]
fn the_limits_of_alerts_are_those_of_the_status_page() {
    for (alert, limit) in
        [("CekuraToggleStuck", Standing::STUCK_AFTER), ("CekuraToggleNotAnswering", Standing::SILENT_AFTER)]
    {
        let rule = alerts().into_iter().find(|rule| rule["alert"] == alert).unwrap();
        let age = format!("(time() - cekura_toggle_started_timestamp_seconds > {})", limit.as_secs());
        assert!(text(&rule, "expr").contains(&age), "{alert}: {age}");
    }
}

#[tokio::test]
async fn the_rules_ask_for_metrics_and_labels_that_the_exporter_has() {
    let exposed = exposed(&talkative(&Upstream::start().await, &Authority::new("servers")).await);
    let rules = rules();
    let recorded: BTreeSet<_> = rules.iter().filter_map(|rule| rule["record"].as_str()).collect();
    let all_labels: BTreeSet<_> = exposed.values().flatten().map(String::as_str).chain(TARGET_LABELS).collect();
    let mut asked = BTreeSet::new();
    for rule in &rules {
        let expression = unquoted(text(rule, "expr"));
        for (metric, labels) in selectors(&expression) {
            // A recorded metric is called after the one that it is recorded from.
            let source = metric.split(':').nth(1).unwrap_or(metric);
            assert!(source == metric || recorded.contains(metric), "{metric} is not recorded");
            let own = exposed.get(source).unwrap_or_else(|| panic!("the exporter has no {source}"));
            let unknown = labels.into_iter().find(|label| !own.contains(*label) && !TARGET_LABELS.contains(label));
            assert_eq!(unknown, None, "a label that {metric} does not have");
            asked.insert(source.to_owned());
        }
        for word in words(&expression) {
            let known = word.contains("cekura_") || WORDS.contains(&word.trim_start_matches(|c: char| c.is_numeric()));
            let number = word.parse::<f64>().is_ok();
            assert!(known || number || all_labels.contains(word), "what is {word} in {expression}?");
        }
        for annotation in rule["annotations"].as_object().into_iter().flat_map(serde_json::Map::values) {
            let unknown =
                selectors(annotation.as_str().unwrap()).into_iter().find(|(metric, _)| !exposed.contains_key(*metric));
            assert_eq!(unknown, None, "an annotation asks for what the exporter has not");
        }
    }
    println!("{} metrics of {} are asked for", asked.len(), exposed.len());
}
