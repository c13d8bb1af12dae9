//! What the values change of the alerts.

use std::collections::BTreeSet;
use std::process::Command;

use serde_json::{Value, json};

use super::super::pods::{each, of_kind};
use super::super::{file, printed, yaml};
use super::{CHART, rendered, try_rendering};
use crate::harness::tool;

/// The rules that the chart makes of these values of `prometheusRule`, once promtool has accepted them.
fn rules(mut values: Value) -> Value {
    values["enabled"] = json!(true);
    let objects = rendered(&json!({"prometheusRule": values}));
    let spec = of_kind(&objects, "PrometheusRule").next().unwrap()["spec"].clone();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("rules.yaml");
    std::fs::write(&path, spec.to_string()).unwrap();
    printed(Command::new(tool("promtool")).args(["check", "rules", "--lint-fatal"]).arg(path));
    spec
}

fn alerts(rules: &Value) -> Vec<&Value> {
    each(&rules["groups"]).flat_map(|group| each(&group["rules"])).filter(|rule| rule["alert"].is_string()).collect()
}

/// The rules of the alert of this name.
fn alert<'a>(rules: &'a Value, name: &str) -> Vec<&'a Value> {
    let found: Vec<_> = alerts(rules).into_iter().filter(|rule| rule["alert"] == name).collect();
    assert!(!found.is_empty(), "{name}");
    found
}

/// The rules as they are shipped.
fn shipped() -> Value {
    yaml("deploy/prometheus/rules.yaml")
}

#[test]
fn without_changes_they_are_the_rules_that_are_shipped() {
    assert_eq!(rules(json!({})), shipped());
}

#[test]
fn labels_and_severities_are_those_of_the_values() {
    let changed = rules(json!({
        "alertLabels": {"team": "voice", "tier": "1"}, "severities": {"critical": "page", "warning": "ticket"},
        "alerts": {"CekuraApiDown": {"severity": "sev1", "labels": {"tier": "0"}, "annotations": {"summary": "s"}}},
    }));
    let own = |rule: &Value| rule["labels"].clone();
    for (before, after) in alerts(&shipped()).into_iter().zip(alerts(&changed)) {
        let severity = match before["labels"]["severity"].as_str().unwrap() {
            "critical" if before["alert"] == "CekuraApiDown" => "sev1",
            "critical" => "page",
            "warning" => "ticket",
            other => other,
        };
        let tier = if before["alert"] == "CekuraApiDown" { "0" } else { "1" };
        assert_eq!(own(after), json!({"severity": severity, "team": "voice", "tier": tier}), "{}", before["alert"]);
        assert_eq!(before["expr"], after["expr"], "{}", before["alert"]);
    }
    let down = alert(&changed, "CekuraApiDown")[0];
    assert_eq!(down["annotations"]["summary"], "s");
    assert!(down["annotations"]["runbook_url"].is_string(), "{down}");
}

#[test]
fn alerts_can_be_left_out_and_their_times_changed() {
    let changed = rules(json!({
        "disabled": ["CekuraWatchesRejected", "CekuraDatabaseDown"],
        "alerts": {"CekuraApiDown": {"for": "20m", "keepFiringFor": "1h"}},
    }));
    let names = |rules: &Value| {
        alerts(rules).iter().map(|rule| rule["alert"].as_str().unwrap().to_owned()).collect::<BTreeSet<_>>()
    };
    let gone: Vec<_> = names(&shipped()).difference(&names(&changed)).cloned().collect();
    assert_eq!(gone, ["CekuraDatabaseDown", "CekuraWatchesRejected"]);
    let down = alert(&changed, "CekuraApiDown")[0];
    assert_eq!((&down["for"], &down["keep_firing_for"]), (&json!("20m"), &json!("1h")));
}

#[test]
fn a_threshold_takes_the_place_of_each_one_that_is_shipped() {
    for (name, before, after) in [
        ("CekuraToggleStuck", "> 1800", "> 3600"),
        ("CekuraAgentLeftEnabled", "> 7200", "> 3600"),
        ("CekuraCertificateExpiring", "< 604800", "< 3600"),
    ] {
        let (shipped, changed) = (shipped(), rules(json!({"alerts": {(name): {"threshold": 3600}}})));
        let [was] = alert(&shipped, name)[..] else { panic!("{name}") };
        let [is] = alert(&changed, name)[..] else { panic!("{name}") };
        let expected = was["expr"].as_str().unwrap().replace(before, after);
        assert_ne!(expected, was["expr"], "{name}");
        // What sidecars told of an agent counts for a day from then on.
        let expected = expected.replace("offset 2h", "offset 3600s").replace("[26h]", "[90000s]");
        assert_eq!(is["expr"], expected, "{name}");
    }
}

#[test]
fn runbooks_can_be_elsewhere_and_an_exporter_that_was_never_scraped_be_missed() {
    let changed = rules(json!({"runbookBaseUrl": "https://wiki.example.com/runbooks", "absent": true}));
    for rule in alerts(&changed) {
        let name = rule["alert"].as_str().unwrap();
        let expected = format!("https://wiki.example.com/runbooks#{}", name.to_lowercase());
        assert_eq!(rule["annotations"]["runbook_url"], expected);
    }
    let absent = alert(&changed, "CekuraExporterAbsent")[0];
    let expected = r#"absent(cekura_exporter_build_info{namespace="cekura",job!~".*sidecar.*"})"#;
    assert_eq!((&absent["expr"], &absent["for"]), (&json!(expected), &json!("15m")));
    let changed = rules(json!({"absent": true, "alerts": {"CekuraExporterAbsent": {"severity": "page"}}}));
    assert_eq!(alert(&changed, "CekuraExporterAbsent")[0]["labels"], json!({"severity": "page"}));
    // Sidecars are gone when their jobs are.
    let only_sidecars = json!({"central": {"enabled": false}, "prometheusRule": {"enabled": true, "absent": true}});
    let objects = rendered(&only_sidecars);
    assert_eq!(of_kind(&objects, "PrometheusRule").next().unwrap()["spec"], shipped());
}

#[test]
fn an_alert_that_does_not_exist_or_has_no_threshold_is_named() {
    for (values, named) in [
        (json!({"disabled": ["CekuraTogleStuck"]}), "there is no alert CekuraTogleStuck; there are CekuraAgent"),
        (json!({"alerts": {"CekuraTogleStuck": {"for": "1m"}}}), "there is no alert CekuraTogleStuck"),
        (
            json!({"alerts": {"CekuraApiDown": {"threshold": 1}}}),
            "CekuraApiDown.threshold: only CekuraAgentLeftEnabled, ",
        ),
        (json!({"alerts": {"CekuraApiDown": {"expr": "up"}}}), "expr"),
    ] {
        let mut values = values;
        values["enabled"] = json!(true);
        let values = json!({"prometheusRule": values});
        for problem in try_rendering(&file(CHART), "cekura-exporter", &values).unwrap_err() {
            assert!(problem.contains(named), "{values}: {problem}");
        }
    }
}
