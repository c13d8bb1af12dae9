//! The Helm chart: valid, and the same as what kustomize makes.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::{Command, Output};

use serde_json::{Value, json};

use super::kubernetes::{central, checked, rendered as kustomized, text_of};
use super::pods::{Pod, dangling, each, hardened, name, of_kind, pods, unrestricted};
use super::{file, printed, validated, yaml};
use crate::harness::tool;

const CHART: &str = "deploy/helm/cekura-exporter";

fn helm(args: &[&str]) -> Output {
    Command::new(tool("python3")).arg(file("tests/it/deploy/helm.py")).args(args).output().unwrap()
}

fn try_rendering(chart: &Path, release: &str, values: &Value) -> Result<Vec<u8>, String> {
    let output = helm(&["render", chart.to_str().unwrap(), release, &values.to_string()]);
    if output.status.success() { Ok(output.stdout) } else { Err(String::from_utf8(output.stderr).unwrap()) }
}

/// What the chart makes of these values.
fn rendered(values: &Value) -> Vec<Value> {
    validated(&try_rendering(&file(CHART), "cekura-exporter", values).unwrap())
}

/// Values that switch on what is off, and off what is on.
fn choices() -> Vec<Value> {
    let monitoring = json!({"enabled": true, "labels": {"release": "prometheus"}});
    vec![
        json!({}),
        json!({"tls": {"enabled": true}}),
        json!({"webConfig": {"existingSecret": "web"}}),
        json!({
            "tls": {"enabled": true}, "webConfig": {"existingSecret": "web"},
            "serviceMonitor": {"enabled": true, "basicAuth": {"username": {"name": "u", "key": "k"}, "password": {"name": "p", "key": "k"}}},
        }),
        json!({"scrapeAnnotations": {"enabled": true}}),
        json!({"serviceMonitor": monitoring, "podMonitor": monitoring, "prometheusRule": monitoring}),
        json!({"persistence": {"enabled": false}, "config": {"registrations": {"enabled": false}}}),
        json!({"persistence": {"existingClaim": "theirs"}}),
        json!({"networkPolicy": {"enabled": false}, "podDisruptionBudget": {"enabled": false}}),
        json!({"networkPolicy": {"from": [{"podSelector": {}}], "egress": [{"ports": [{"port": 3128}]}]}}),
        json!({"apis": {"default": null, "staging_2_": {"existingSecret": "staging", "key": "k"}}}),
        json!({"apis": {"staging": {"existingSecret": "staging", "key": "k"}}, "config": {"apis": {"staging": {"timeout": "3s"}}}}),
        json!({"cronJob": {"enabled": true}, "image": {"repository": "registry.example.com/cekura-exporter", "pullPolicy": "Always"}}),
        json!({"central": {"enabled": false}, "cronJob": {"enabled": true}, "imagePullSecrets": [{"name": "pull"}]}),
        json!({
            "args": ["--log.level=debug"],
            "env": [{"name": "HTTPS_PROXY", "valueFrom": {"secretKeyRef": {"name": "proxy", "key": "url"}}}],
            "podLabels": {"a": "b"}, "podAnnotations": {"c": "d"}, "nodeSelector": {"kubernetes.io/arch": "arm64"},
            "tolerations": [{"operator": "Exists"}], "priorityClassName": "high",
            "topologySpreadConstraints": [{"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "ScheduleAnyway"}],
            "affinity": {"nodeAffinity": {}}, "persistence": {"storageClass": "fast", "size": "5Gi"},
        }),
    ]
}

#[test]
fn whatever_is_chosen_is_valid_hardened_and_whole() {
    for values in choices() {
        let objects = rendered(&values);
        let missing: Vec<_> =
            dangling(&objects).into_iter().filter(|what| !what.ends_with("PersistentVolumeClaim theirs")).collect();
        assert_eq!(missing, [] as [String; 0], "{values}");
        let pods = pods(&objects);
        assert!(!pods.is_empty(), "{values}");
        for pod in &pods {
            hardened(pod);
            let problems: Vec<_> = pod.containers().flat_map(|container| unrestricted(pod, container)).collect();
            assert_eq!(problems, [] as [String; 0], "{values}");
        }
        assert_eq!(of_kind(&objects, "Secret").count(), 0, "{values}");
        for map in of_kind(&objects, "ConfigMap").filter(|map| map["data"]["config.yaml"].is_string()) {
            checked(map["data"]["config.yaml"].as_str().unwrap(), None);
        }
    }
}

#[test]
fn linting_finds_no_problem() {
    let output = helm(&["lint", file(CHART).to_str().unwrap()]);
    let found: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&found["total_charts_linted"], &found["errors"]), (&json!(1), &json!([])), "{found}");
    // An icon is what it asks for.
    let worse: Vec<_> = each(&found["messages"]).filter(|message| message["severity"].as_u64().unwrap() > 1).collect();
    assert_eq!(worse, [] as [&Value; 0]);
}

#[test]
fn the_chart_is_of_the_version() {
    let chart = yaml(&format!("{CHART}/Chart.yaml"));
    assert_eq!(
        (&chart["version"], &chart["appVersion"]),
        (&env!("CARGO_PKG_VERSION").into(), &env!("CARGO_PKG_VERSION").into())
    );
    assert_eq!(chart["description"], env!("CARGO_PKG_DESCRIPTION"));
}

/// An object without what the two tools name and mark in their own way.
fn substance(of: &Value) -> Value {
    let mut of = of.clone();
    let metadata = of["metadata"].as_object_mut().unwrap();
    metadata.remove("labels");
    metadata.remove("namespace");
    if let Some(annotations) = of.pointer_mut("/spec/template/metadata/annotations").and_then(Value::as_object_mut) {
        annotations.remove("checksum/config");
        if annotations.is_empty() {
            of.pointer_mut("/spec/template/metadata").and_then(Value::as_object_mut).unwrap().remove("annotations");
        }
    }
    of
}

/// The configuration in a text, without comments.
fn meaning(text: &str) -> Value {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("config.yaml"), text).unwrap();
    yaml(folder.path().join("config.yaml").to_str().unwrap())
}

/// All objects by kind and name, with names of `ConfigMap`s as the chart has them, and configurations as
/// what they mean.
fn substances(objects: &[Value]) -> BTreeMap<String, Value> {
    let mut text = json!(objects).to_string();
    for map in of_kind(objects, "ConfigMap") {
        let own = map["metadata"]["name"].as_str().unwrap();
        // A hash of ten characters is what kustomize appends.
        let plain = own.rsplit_once('-').filter(|(_, hash)| hash.len() == 10).map_or(own, |(plain, _)| plain);
        let plain = if plain == "mocked-tests" { "cekura-exporter-mocked-tests" } else { plain };
        text = text.replace(&format!("\"{own}\""), &format!("\"{plain}\""));
    }
    let objects: Vec<Value> = serde_json::from_str(&text).unwrap();
    let mut substances = BTreeMap::new();
    for of in &objects {
        let mut own = substance(of);
        for key in ["config.yaml", "web.yaml"] {
            if let Some(text) = own["data"][key].as_str() {
                own["data"][key] = meaning(text);
            }
        }
        if own["data"].is_null() {
            own.as_object_mut().unwrap().remove("data");
        }
        substances.insert(name(of), own);
    }
    substances
}

#[test]
fn the_chart_makes_what_kustomize_makes() {
    let enabled = json!({"enabled": true});
    let nightly = kustomized(&file("deploy/kubernetes/overlays/example-cronjob"));
    let registry = json!({"repository": "registry.example.com/cekura-exporter"});
    for (components, values) in [
        (central(&[]), json!({})),
        (central(&["tls"]), json!({"tls": enabled})),
        (central(&["scrape-annotations"]), json!({"scrapeAnnotations": enabled})),
        (
            central(&["prometheus-operator", "tls"]),
            json!({"tls": enabled, "serviceMonitor": enabled, "podMonitor": enabled, "prometheusRule": enabled}),
        ),
        (nightly, json!({"central": {"enabled": false}, "cronJob": enabled, "image": registry})),
    ] {
        let (by_kustomize, by_helm) = (substances(&components), substances(&rendered(&values)));
        let names = |of: &BTreeMap<String, Value>| of.keys().cloned().collect::<BTreeSet<_>>();
        assert_eq!(names(&by_helm), names(&by_kustomize), "{values}");
        for (name, of) in &by_kustomize {
            let sorted = |of: &Value| super::pods::in_order(of);
            assert_eq!(sorted(&by_helm[name]), sorted(of), "{values}: {name}");
        }
    }
}

#[test]
fn what_is_wrong_in_values_is_named() {
    for (values, named) in [
        (json!({"imgae": {}}), "imgae"),
        (json!({"config": {"apis": {"default": {"api_key": "sk-inline"}}}}), "api_key"),
        (json!({"sidecar": {"config": {"apis": {"default": {"api_key": "sk-inline"}}}}}), "api_key"),
        (json!({"tls": {"enabled": "yes"}}), "tls"),
        (json!({"apis": {"default": {"existingSecret": ""}}}), "default"),
        (json!({"apis": {"Bad-Name": {"existingSecret": "a", "key": "b"}}}), "Bad-Name"),
        (json!({"cronJob": {"runAsUser": 0}}), "runAsUser"),
    ] {
        let problem = try_rendering(&file(CHART), "cekura-exporter", &values).unwrap_err();
        assert!(problem.contains(named) && !problem.contains("sk-inline"), "{values}: {problem}");
    }
}

#[test]
fn ids_stay_as_they_were_written() {
    let watches = json!([{"agent_id": 123_456_789, "progress_id": "0123"}]);
    let objects = rendered(&json!({"config": {"watches": watches}}));
    let map = of_kind(&objects, "ConfigMap").next().unwrap();
    checked(map["data"]["config.yaml"].as_str().unwrap(), None);
}

#[test]
fn the_packaged_chart_has_the_rules_and_the_script() {
    let folder = tempfile::tempdir().unwrap();
    let package = helm(&["package", file(CHART).to_str().unwrap(), folder.path().to_str().unwrap()]);
    assert!(package.status.success(), "{}", String::from_utf8_lossy(&package.stderr));
    let package = String::from_utf8(package.stdout).unwrap();
    printed(Command::new("tar").args(["-xzf", package.trim(), "-C"]).arg(folder.path()));
    for (packaged, original) in [
        ("rules.yaml", "deploy/prometheus/rules.yaml"),
        ("mocked-tests.sh", "deploy/kubernetes/overlays/example-cronjob/mocked-tests.sh"),
    ] {
        let packaged = std::fs::read_to_string(folder.path().join("cekura-exporter/files").join(packaged)).unwrap();
        assert_eq!(packaged, std::fs::read_to_string(file(original)).unwrap());
    }
}

/// A job of somebody else's chart, as the README shows it.
const THEIRS: &str = r#"
apiVersion: batch/v1
kind: Job
metadata:
  name: theirs
spec:
  template:
    metadata:
      labels:
        {{- include "cekura-exporter.sidecar.labels" . | nindent 8 }}
    spec:
      restartPolicy: Never
      terminationGracePeriodSeconds: {{ include "cekura-exporter.sidecar.grace" (index .Subcharts "cekura-exporter") }}
      initContainers:
        -
          {{- include "cekura-exporter.sidecar.container" (index .Subcharts "cekura-exporter") | nindent 10 }}
      containers:
        - name: tests
          image: theirs:1
          volumeMounts: [{name: cekura-toggles, mountPath: /toggles}]
      volumes:
        {{- include "cekura-exporter.sidecar.volumes" (index .Subcharts "cekura-exporter") | nindent 8 }}
"#;

#[test]
fn a_strangers_chart_takes_the_sidecar_and_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let chart = folder.path().join("theirs");
    std::fs::create_dir_all(chart.join("templates")).unwrap();
    std::fs::create_dir_all(chart.join("charts")).unwrap();
    let text = "apiVersion: v2\nname: theirs\nversion: 3.0.0\nappVersion: \"9\"\n\
                dependencies: [{name: cekura-exporter, version: '*', repository: 'file://../cekura-exporter'}]\n";
    std::fs::write(chart.join("Chart.yaml"), text).unwrap();
    let values = json!({"cekura-exporter": {"central": {"enabled": false}, "sidecar": {"enabled": true}}});
    std::fs::write(chart.join("values.yaml"), values.to_string()).unwrap();
    std::fs::write(chart.join("templates/job.yaml"), THEIRS).unwrap();
    assert!(Command::new("cp").arg("-rL").arg(file(CHART)).arg(chart.join("charts")).status().unwrap().success());
    let objects = validated(&try_rendering(&chart, "nightly", &json!({})).unwrap());
    assert_eq!(
        objects.iter().map(name).collect::<BTreeSet<_>>(),
        ["ConfigMap nightly-cekura-exporter-sidecar", "Job theirs"].map(str::to_owned).into()
    );
    assert_eq!(dangling(&objects), [] as [String; 0]);
    let pods: Vec<Pod<'_>> = pods(&objects);
    hardened(&pods[0]);
    assert_eq!(pods[0].exporter()["image"], format!("cekura-exporter:{}", env!("CARGO_PKG_VERSION")));
    assert_eq!(pods[0].labels["cekura-exporter/sidecar"], "true");
    // The same sidecar as that of kustomize.
    let nightly = kustomized(&file("deploy/kubernetes/overlays/example-cronjob"));
    let theirs = super::pods::pods(&nightly);
    let mounts = |pod: &Pod<'_>| pod.exporter()["volumeMounts"].clone();
    assert_eq!(mounts(&pods[0]), mounts(&theirs[0]));
    assert!(text_of(&nightly, "cekura-exporter-sidecar", "config.yaml").contains("linger: 60s"));
}
