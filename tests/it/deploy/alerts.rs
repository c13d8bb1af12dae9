//! The alert rules: that each is tested by promtool in every way, is explained, and asks for what the
//! exporter has.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use cekura_exporter::demo::simulator::Reply;
use cekura_exporter::toggle::Standing;
use serde_json::{Value, json};

use super::{REPLICA, file, yaml};
use crate::harness::{Authority, Exporter, Exposition, Upstream, markdown, tool};

const RULES: &str = "deploy/prometheus/rules.yaml";
const TESTS: [&str; 3] = ["rules_test.yaml", "rules_day_test.yaml", "rules_replicas_test.yaml"];
const ALERTMANAGER: &str = "deploy/alertmanager/alertmanager.yml";

/// What each link in the rules begins with.
const BASE: &str = concat!(
    "{{ with printf `job:cekura_exporter_url:info{job=%q,namespace=%q}` $labels.job $labels.namespace | query }}",
    r#"{{ . | first | label "url" }}{{ else }}http://cekura-exporter:10058{{ end }}"#,
);

/// Labels that Prometheus gives what it scrapes.
const TARGET_LABELS: [&str; 4] = ["job", "instance", "namespace", "pod"];

/// Words of expressions that name no metric and no label.
const WORDS: [&str; 29] = [
    "and",
    "or",
    "offset",
    "changes",
    "max_over_time",
    "timestamp",
    "label_replace",
    "group_left",
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
    "quantile_over_time",
    "up",
    "d",
    "h",
    "m",
    "s",
    "printf",
    "query",
];

/// The oldest promtool that the rules are for, and the newest there is.
const PROMTOOLS: [&str; 2] = ["promtool", "target/tools/forky/usr/bin/promtool"];

/// The oldest amtool that the routes are for, and the newest there is.
const AMTOOLS: [&str; 2] = ["amtool", "target/tools/forky/usr/bin/amtool"];

const VMAGENT: &str = "target/tools/forky/usr/bin/vmagent";

/// Runs a program, which is one of the machine or a file of the repository.
fn check(program: &str, args: &[&str]) {
    let path = if program.contains('/') { file(program) } else { tool(program) };
    let mut command = Command::new(path);
    let output = command.env_clear().args(args).current_dir(file("deploy/prometheus")).output().unwrap();
    let (said, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{program} {args:?}:\n{said}{errors}");
}

#[test]
fn promtool_accepts_the_rules() {
    for promtool in PROMTOOLS {
        check(promtool, &["check", "rules", "--lint-fatal", "rules.yaml"]);
    }
}

#[test]
fn vmalert_accepts_the_rules() {
    check("target/tools/forky/usr/bin/vmalert", &["-dryRun", "-rule=rules.yaml"]);
}

/// The rule for an exporter that was never scraped, which is a comment, because it has to name the job.
#[test]
fn promtool_accepts_the_rule_for_an_exporter_that_was_never_scraped() {
    let shipped = std::fs::read_to_string(file(RULES)).unwrap();
    let from_the_rule = shipped.lines().skip_while(|line| !line.trim_start().starts_with("# - alert: "));
    let rule: Vec<_> =
        from_the_rule.take_while(|line| !line.is_empty()).map(|line| line.replacen("# ", "", 1)).collect();
    let rules = shipped.lines().take_while(|line| *line != "    rules:").chain(["    rules:"]);
    let rules: Vec<_> = rules.chain(rule.iter().map(String::as_str)).collect();
    let folder = tempfile::tempdir().unwrap();
    let variant = folder.path().join("rules.yaml");
    std::fs::write(&variant, rules.join("\n")).unwrap();
    for promtool in PROMTOOLS {
        check(promtool, &["check", "rules", "--lint-fatal", variant.to_str().unwrap()]);
    }
    assert!(rule.join("\n").contains("expr: absent("), "{rule:?}");
}

#[test]
fn the_rules_fire_hold_and_resolve_as_their_tests_say() {
    for promtool in PROMTOOLS {
        check(promtool, &[&["test", "rules"], &TESTS[..]].concat());
    }
}

#[test]
fn promtool_and_vmagent_accept_the_scrape_configuration() {
    for promtool in PROMTOOLS {
        check(promtool, &["check", "config", "scrape.yaml"]);
    }
    // The rules and the Alertmanager are vmalert's part.
    check(VMAGENT, &["-dryRun", "-promscrape.config=scrape.yaml", "-promscrape.config.strictParse=false"]);
}

/// The variant for Kubernetes, which is a comment: without its `#`. For promtool, what Debian's Prometheus is built
/// without is left out.
#[test]
fn promtool_and_vmagent_accept_the_scrape_configuration_for_kubernetes() {
    let shipped = std::fs::read_to_string(file("deploy/prometheus/scrape.yaml")).unwrap();
    let from_the_first_job = shipped.lines().skip_while(|line| !line.starts_with("#  - job_name"));
    let variant: Vec<_> = from_the_first_job.map_while(|line| line.strip_prefix('#')).collect();
    let jobs = variant.join("\n");
    let without_kubernetes = jobs.replace("kubernetes_sd_configs: [{role: pod}]", "static_configs: []");
    assert_eq!(without_kubernetes.matches("static_configs: []").count(), 2, "{jobs}");
    let folder = tempfile::tempdir().unwrap();
    let config = |name: &str, jobs: &str| {
        let file = folder.path().join(name);
        std::fs::write(&file, format!("scrape_configs:\n{jobs}\n")).unwrap();
        file.display().to_string()
    };
    for promtool in PROMTOOLS {
        check(promtool, &["check", "config", &config("static.yaml", &without_kubernetes)]);
    }
    check(VMAGENT, &["-dryRun", &format!("-promscrape.config={}", config("kubernetes.yaml", &jobs))]);
    let sidecars = jobs.lines().filter(|line| line.contains("job_name") && line.contains("sidecar")).count();
    assert_eq!(sidecars, 1, "one job is for sidecars, as the rules tell them");
}

#[test]
fn amtool_accepts_the_routes() {
    for amtool in AMTOOLS {
        check(amtool, &["check-config", "../alertmanager/alertmanager.yml"]);
    }
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

fn text<'a>(value: &'a Value, field: &str) -> &'a str {
    value[field].as_str().unwrap_or_else(|| panic!("no {field} in {value}"))
}

/// All scenarios that the rules are tested with.
fn scenarios() -> Vec<Value> {
    TESTS.into_iter().flat_map(|name| list(&yaml(&format!("deploy/prometheus/{name}"))["tests"]).to_vec()).collect()
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
    let tests = scenarios();
    let mut sum = Cases::default();
    for alert in alerts() {
        let name = text(&alert, "alert");
        let mut cases = Cases::default();
        for test in &tests {
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
    // Two rules by direction are one alert.
    let mut once = names.clone();
    once.dedup();
    assert_eq!(sections, once, "the sections of the runbooks, in the order of the rules");
    for (alert, name) in alerts.iter().zip(names) {
        let severity = text(&alert["labels"], "severity");
        assert!(["critical", "warning", "info"].contains(&severity), "{name} is {severity}");
        let annotations = &alert["annotations"];
        // Every link begins with the same words, which ask for the exporter's URL.
        let runbook = text(annotations, "runbook_url").strip_prefix(BASE).unwrap_or_else(|| panic!("{name}"));
        let anchor = format!("#{}", name.to_lowercase());
        assert!(runbook.starts_with("/runbooks") && runbook.ends_with(&anchor), "{name}: {runbook}");
        let about_a_toggle = name.starts_with("CekuraToggle");
        assert_eq!(runbook.contains("?toggle={{ $labels.toggle }}"), about_a_toggle, "{name}: {runbook}");
        let page = text(annotations, "dashboard_url").strip_prefix(BASE).unwrap_or_else(|| panic!("{name}"));
        assert_eq!(page == "/toggles/{{ $labels.toggle }}", about_a_toggle, "{name}: {page}");
        let about_an_api = name.starts_with("CekuraApi");
        assert_eq!(runbook.contains("?api={{ $labels.api }}"), about_an_api, "{name}: {runbook}");
        let about_an_agent = name.starts_with("CekuraAgent");
        let of_the_agent = runbook.contains("?agent={{ $labels.api }}/{{ $labels.agent_id }}");
        assert_eq!(of_the_agent, about_an_agent, "{name}: {runbook}");
        let links_to_page = text(annotations, "description").contains(&format!("{BASE}{page}"));
        let names_page = about_a_toggle || about_an_agent;
        assert!(links_to_page || !names_page, "the description of {name} names the page of its toggle or agent");
        assert!(text(annotations, "summary").len() > 20 && text(annotations, "description").len() > 80, "{name}");
    }
}

#[test]
fn the_documents_list_the_alerts_with_their_severities_and_links_to_their_runbooks() {
    let listed = |page: &str, runbooks: &str| {
        let text = std::fs::read_to_string(file(page)).unwrap();
        let rows = markdown::rows(&text).into_iter().filter(|row| row[0].contains("`Cekura"));
        let alert = |row: Vec<&str>| {
            let name = markdown::code(row[0])[0].to_owned();
            let link = format!("[`{name}`]({runbooks}#{})", name.to_lowercase());
            assert_eq!(row[0], link, "{page}");
            (name, row[1].to_owned())
        };
        rows.map(alert).collect::<Vec<_>>()
    };
    let alerts: Vec<_> = alerts()
        .iter()
        .map(|alert| (text(alert, "alert").to_owned(), text(&alert["labels"], "severity").to_owned()))
        .collect();
    assert_eq!(listed("docs/alerts.md", "runbooks.md"), alerts, "in the order of the rules");
    let in_readme = listed("README.md", "docs/runbooks.md");
    assert_eq!(in_readme.len(), 5, "{in_readme:?}");
    for (name, severities) in in_readme {
        let of_rules: Vec<_> = alerts.iter().filter(|alert| alert.0 == name).map(|alert| alert.1.as_str()).collect();
        assert_eq!(severities, of_rules.join(" or "), "{name}");
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

/// Whether a matcher of the routes, `name OP "value"`, may hold for an alert of this name and severity.
fn may_match(matcher: &str, name: &str, severity: &str) -> bool {
    let (label, rest) = matcher.split_once(' ').unwrap();
    let (operator, value) = rest.split_once(' ').unwrap();
    let own = match label {
        "alertname" => name,
        "severity" => severity,
        // Others are not known here.
        _ => return true,
    };
    let value = value.trim_matches('"');
    match operator {
        "=" => own == value,
        "=~" => value.split('|').any(|one| one.strip_suffix(".*").map_or(own == one, |start| own.starts_with(start))),
        _ => panic!("a matcher of another kind: {matcher}"),
    }
}

#[test]
fn nothing_critical_is_ever_muted_and_every_inhibition_mutes_something() {
    let alerts = alerts();
    for inhibition in list(&yaml(ALERTMANAGER)["inhibit_rules"]) {
        let matching = |matchers: &str| {
            let matchers = list(&inhibition[matchers]);
            let all = |(name, severity): &(&str, &str)| {
                matchers.iter().all(|matcher| may_match(matcher.as_str().unwrap(), name, severity))
            };
            let named = alerts.iter().map(|alert| (text(alert, "alert"), text(&alert["labels"], "severity")));
            named.filter(all).collect::<Vec<_>>()
        };
        let (sources, targets) = (matching("source_matchers"), matching("target_matchers"));
        assert!(!sources.is_empty() && !targets.is_empty(), "{inhibition} is about no alert");
        let critical = targets.iter().find(|(_, severity)| *severity == "critical");
        assert_eq!(critical, None, "{inhibition} mutes it");
        // What is about one toggle or agent explains no other.
        let of_one =
            sources.iter().find(|(name, _)| ["CekuraToggleForbidden", "CekuraAgentNotAnswering"].contains(name));
        assert_eq!(of_one, None, "{inhibition}");
    }
}

#[test]
fn the_alerts_of_agents_wake_or_tell_their_team_or_else_the_platform() {
    for (alert, severity, team, receiver) in [
        ("CekuraAgentMocksDrifted", "critical", "team=bookings", "bookings-pager"),
        ("CekuraAgentMocksDrifted", "critical", "team=", "platform-pager"),
        ("CekuraAgentNotAnswering", "warning", "team=payments", "payments-chat"),
        ("CekuraAgentLeftEnabled", "warning", "team=bookings", "bookings-chat"),
        ("CekuraApiNoToggleEndpoint", "info", "team=", "platform-chat"),
        ("CekuraApiNoMockStatusEndpoint", "info", "team=", "platform-chat"),
    ] {
        let labels = [format!("alertname={alert}"), format!("severity={severity}"), team.to_owned()];
        let verified = format!("--verify.receivers={receiver}");
        let routes = ["config", "routes", "test", "--config.file=../alertmanager/alertmanager.yml", &verified];
        for amtool in AMTOOLS {
            check(amtool, &[&routes[..], &labels.each_ref().map(String::as_str)].concat());
        }
    }
}

/// The lines of the routes that a comment has, for a team that is to be woken for a failed enable.
#[test]
fn amtool_accepts_the_route_for_failed_enables_and_it_wakes_the_team() {
    let shipped = std::fs::read_to_string(file(ALERTMANAGER)).unwrap();
    let lines: Vec<_> = shipped.lines().filter_map(|line| line.strip_prefix("    #     ")).collect();
    assert_eq!(lines.len(), 2, "{lines:?}");
    let page = std::fs::read_to_string(file("docs/alerts.md")).unwrap();
    assert!(page.contains(&lines.join("\n")), "docs/alerts.md says the same");
    let first = "      routes:\n";
    let with = format!("{first}        {}\n        {}\n", lines[0], lines[1]);
    let folder = tempfile::tempdir().unwrap();
    for (config, receiver) in
        [(shipped.clone(), "bookings-chat"), (shipped.replacen(first, &with, 1), "bookings-pager")]
    {
        let path = folder.path().join("alertmanager.yml");
        std::fs::write(&path, config).unwrap();
        let labels = ["alertname=CekuraToggleFailed", "severity=warning", "team=bookings", "expect=enabled"];
        let config = format!("--config.file={}", path.display());
        let verified = format!("--verify.receivers={receiver}");
        for amtool in AMTOOLS {
            check(amtool, &[&["config", "routes", "test", &config, &verified], &labels[..]].concat());
        }
    }
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
        ("wrong", Reply::task("completed", None)),
        ("runs", Reply::task("in_progress", None)),
        ("refused", Reply::detail(401, "no")),
        ("paused", Reply::with_header(503, "retry-after", "600", "{}")),
    ] {
        upstream.script(id, [reply]);
    }
    // Nothing is judged of the first agent, a run of which is in progress, and the third is not answered.
    for agent in [1, 2] {
        upstream.mock_status(agent, [Reply::mock_status(true, "vapi")]);
    }
    let watch =
        |id: &str, api: &str| json!({"name": id, "agent_id": 1, "progress_id": id, "expect": "enabled", "api": api});
    let api = json!({"base_url": upstream.url(), "api_key": "k"});
    let config = json!({
        "apis": {"default": api, "paused": api},
        "watches": [
            watch("failed", "default"), watch("on", "default"), watch("wrong", "default"), watch("runs", "default"),
            watch("refused", "default"), watch("paused", "paused"),
        ],
        "agents": [{"agent_id": 1, "expect": "enabled"}, {"agent_id": 2, "expect": "disabled"}, {"agent_id": 3}],
        "external_url": "https://cekura.example.com",
        "watch_files": ["nowhere/*.json"],
    });
    let exporter = Exporter::with(config.to_string()).tls(authority, &[]).start().await;
    let has_all = |e: &Exposition| {
        ["failed", "on", "wrong", "runs", "refused"]
            .iter()
            .all(|toggle| e.value("cekura_toggle_up", &[("toggle", toggle)]).is_some())
            && e.count("cekura_api_paused_until_timestamp_seconds") > 0
            && e.count("cekura_agent_up") == 3
    };
    exporter.scrape_until("all toggles and agents were polled", has_all).await
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
    let mut exposed = exposed(&talkative(&Upstream::start().await, &Authority::new("servers")).await);
    exposed.extend(self::exposed(&Exposition::parse(REPLICA.to_owned())));
    let rules = rules();
    let recorded: BTreeSet<_> = rules.iter().filter_map(|rule| rule["record"].as_str()).collect();
    let all_labels: BTreeSet<_> = exposed.values().flatten().map(String::as_str).chain(TARGET_LABELS).collect();
    // Recorded metrics have labels of those that they are recorded from.
    let labels_of = |metric: &str| {
        let recorded = recorded.contains(metric).then(|| all_labels.clone());
        let scraped = || exposed.get(metric).map(|own| own.iter().map(String::as_str).chain(TARGET_LABELS).collect());
        recorded.or_else(scraped).unwrap_or_else(|| panic!("there is no {metric}"))
    };
    let unknown = |text: &str| -> Vec<String> {
        let asked = selectors(text).into_iter().map(|(metric, labels)| (metric, labels, labels_of(metric)));
        let unknown = asked.flat_map(|(_, labels, own)| labels.into_iter().filter(move |label| !own.contains(label)));
        unknown.map(str::to_owned).collect()
    };
    let mut asked = BTreeSet::new();
    for rule in &rules {
        let expression = unquoted(text(rule, "expr"));
        assert_eq!(unknown(&expression), [""; 0], "labels that there are not, in {expression}");
        asked.extend(selectors(&expression).into_iter().map(|(metric, _)| metric.to_owned()));
        for word in words(&expression) {
            let known = word.contains("cekura_") || WORDS.contains(&word.trim_start_matches(|c: char| c.is_numeric()));
            let number = word.parse::<f64>().is_ok();
            assert!(known || number || all_labels.contains(word), "what is {word} in {expression}?");
        }
        for annotation in rule["annotations"].as_object().into_iter().flat_map(serde_json::Map::values) {
            for (metric, _) in selectors(annotation.as_str().unwrap()) {
                labels_of(metric);
            }
        }
    }
    asked.retain(|metric| !recorded.contains(metric.as_str()));
    println!("{} metrics of {} are asked for", asked.len(), exposed.len());
}
