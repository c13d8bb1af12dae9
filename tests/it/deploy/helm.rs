//! The Helm chart: valid, and the same as what kustomize makes.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::{Command, Output};

use serde_json::{Value, json};

use super::kubernetes::{Database, central, central_with, checked, checked_with, rendered as kustomized, text_of};
use super::pods::{Pod, dangling, each, hardened, name, of_kind, pods, selects, unrestricted};
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
        json!({"database": {"existingSecret": "cekura-database"}}),
        json!({"replicas": 3, "database": {"existingSecret": "theirs", "passwordKey": "password", "caKey": "ca.crt"}}),
        json!({"replicas": 2, "persistence": {"enabled": false}, "config": {"registrations": {"enabled": false}}}),
        json!({"networkPolicy": {"enabled": false}, "podDisruptionBudget": {"enabled": false}}),
        json!({"networkPolicy": {"from": [{"podSelector": {}}], "egress": [{"ports": [{"port": 3128}]}]}}),
        json!({"externalUrl": "https://exporter.example.com"}),
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

#[tokio::test]
async fn whatever_is_chosen_is_valid_hardened_and_whole() {
    let database = Database::start().await;
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
        for of in &objects {
            let labels = &of["metadata"]["labels"];
            let chart = concat!("cekura-exporter-", env!("CARGO_PKG_VERSION"));
            for (label, value) in [
                ("app.kubernetes.io/name", "cekura-exporter"),
                ("app.kubernetes.io/instance", "cekura-exporter"),
                ("app.kubernetes.io/managed-by", "Helm"),
                ("app.kubernetes.io/version", env!("CARGO_PKG_VERSION")),
                ("helm.sh/chart", chart),
            ] {
                assert_eq!(labels[label], value, "{values}: {}: {label}", name(of));
            }
        }
        for map in of_kind(&objects, "ConfigMap").filter(|map| map["data"]["config.yaml"].is_string()) {
            checked_with(&database, map["data"]["config.yaml"].as_str().unwrap());
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

/// Objects without the name of the release, by which only the chart selects.
fn uninstanced(objects: &[Value]) -> Vec<Value> {
    let instance = r#""app.kubernetes.io/instance":"cekura-exporter","#;
    serde_json::from_str(&json!(objects).to_string().replace(instance, "")).unwrap()
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

/// A configuration for kustomize that is that of the chart with a database.
const WITH_DATABASE: &str = "apis: {default: {api_key_file: /run/secrets/cekura/api-key}}\n\
                             registrations: {enabled: true}\n\
                             database: {url_file: /run/secrets/database/url, lease: 15s}\n";

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
        (
            central_with(&["replicas", "prometheus-operator", "tls"], WITH_DATABASE),
            json!({
                "replicas": 3, "database": {"existingSecret": "cekura-database"},
                "tls": enabled, "serviceMonitor": enabled, "podMonitor": enabled, "prometheusRule": enabled,
            }),
        ),
        (nightly, json!({"central": {"enabled": false}, "cronJob": enabled, "image": registry})),
    ] {
        let (by_kustomize, by_helm) = (substances(&components), substances(&uninstanced(&rendered(&values))));
        let names = |of: &BTreeMap<String, Value>| of.keys().cloned().collect::<BTreeSet<_>>();
        assert_eq!(names(&by_helm), names(&by_kustomize), "{values}");
        for (name, of) in &by_kustomize {
            let sorted = |of: &Value| super::pods::in_order(of);
            assert_eq!(sorted(&by_helm[name]), sorted(of), "{values}: {name}");
        }
    }
}

#[test]
fn what_is_asked_for_is_there() {
    let login = json!({"username": {"name": "u", "key": "k"}, "password": {"name": "p", "key": "k"}});
    let monitor = json!({"enabled": true, "interval": "7s", "labels": {"release": "prometheus"}, "basicAuth": login});
    let spread = json!([{"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule"}]);
    let proxy = json!([{"name": "HTTPS_PROXY", "valueFrom": {"secretKeyRef": {"name": "proxy", "key": "url"}}}]);
    let objects = rendered(&json!({
        "image": {"repository": "r/e", "tag": "t", "pullPolicy": "Always"}, "imagePullSecrets": [{"name": "pull"}],
        "args": ["--log.level=debug"], "env": proxy, "resources": {"limits": {"memory": "1Gi"}},
        "podLabels": {"a": "b"}, "podAnnotations": {"c": "d"}, "nodeSelector": {"e": "f"},
        "tolerations": [{"operator": "Exists"}], "affinity": {"podAffinity": {}}, "topologySpreadConstraints": spread,
        "priorityClassName": "high", "persistence": {"size": "5Gi", "storageClass": "fast"},
        "networkPolicy": {"from": [{"podSelector": {}}], "egress": [{"ports": [{"port": 3128}]}]},
        "serviceMonitor": monitor, "podMonitor": {"enabled": true, "interval": "7s", "labels": {"release": "prometheus"}},
        "prometheusRule": {"enabled": true, "labels": {"release": "prometheus"}},
        "cronJob": {
            "enabled": true, "name": "theirs", "schedule": "0 1 * * *", "image": "i:1", "command": ["a", "b"],
            "cekuraUrl": "https://u", "toggleKey": {"existingSecret": "s", "key": "k"}, "agentId": 123_456_789,
            "slot": "slot", "team": "team", "live": false, "activeDeadlineSeconds": 60, "runAsUser": 7,
            "resources": {"limits": {"cpu": "9"}},
        },
    }));
    let pod = "Deployment/spec/template/spec";
    let job = "CronJob/spec/jobTemplate/spec";
    for (at, expected) in [
        (format!("{pod}/containers/0/image"), json!("r/e:t")),
        (format!("{pod}/containers/0/imagePullPolicy"), json!("Always")),
        (format!("{pod}/containers/0/args/1"), json!("--log.level=debug")),
        (format!("{pod}/containers/0/env"), proxy.clone()),
        (format!("{pod}/containers/0/resources/limits/memory"), json!("1Gi")),
        (format!("{pod}/imagePullSecrets/0/name"), json!("pull")),
        (format!("{pod}/nodeSelector"), json!({"e": "f"})),
        (format!("{pod}/tolerations"), json!([{"operator": "Exists"}])),
        (format!("{pod}/affinity"), json!({"podAffinity": {}})),
        (format!("{pod}/topologySpreadConstraints"), spread),
        (format!("{pod}/priorityClassName"), json!("high")),
        ("Deployment/spec/template/metadata/labels/a".into(), json!("b")),
        ("Deployment/spec/template/metadata/annotations/c".into(), json!("d")),
        ("PersistentVolumeClaim/spec/resources/requests/storage".into(), json!("5Gi")),
        ("PersistentVolumeClaim/spec/storageClassName".into(), json!("fast")),
        ("NetworkPolicy/spec/ingress/0/from/2".into(), json!({"podSelector": {}})),
        ("NetworkPolicy/spec/egress/1/ports/0/port".into(), json!(3128)),
        ("ServiceMonitor/spec/endpoints/0/basicAuth".into(), login),
        ("ServiceMonitor/spec/endpoints/0/interval".into(), json!("7s")),
        ("ServiceMonitor/metadata/labels/release".into(), json!("prometheus")),
        ("PodMonitor/spec/podMetricsEndpoints/0/interval".into(), json!("7s")),
        ("PodMonitor/spec/podMetricsEndpoints/0/scrapeTimeout".into(), json!("7s")),
        ("PodMonitor/metadata/labels/release".into(), json!("prometheus")),
        ("PrometheusRule/metadata/labels/release".into(), json!("prometheus")),
        ("CronJob/metadata/name".into(), json!("theirs")),
        ("CronJob/spec/schedule".into(), json!("0 1 * * *")),
        (format!("{job}/activeDeadlineSeconds"), json!(60)),
        (format!("{job}/template/spec/imagePullSecrets/0/name"), json!("pull")),
        (format!("{job}/template/spec/securityContext/runAsUser"), json!(7)),
        (format!("{job}/template/spec/initContainers/0/image"), json!("r/e:t")),
        (format!("{job}/template/spec/initContainers/0/imagePullPolicy"), json!("Always")),
        (format!("{job}/template/spec/initContainers/0/args/1"), json!("--log.level=debug")),
        (format!("{job}/template/spec/initContainers/0/env"), proxy),
        (format!("{job}/template/spec/initContainers/0/resources/limits/memory"), json!("1Gi")),
        (format!("{job}/template/spec/containers/0/image"), json!("i:1")),
        (format!("{job}/template/spec/containers/0/args"), json!(["a", "b"])),
        (format!("{job}/template/spec/containers/0/env/0/value"), json!("https://u")),
        (format!("{job}/template/spec/containers/0/env/1/value"), json!("/run/secrets/cekura-toggle/k")),
        (format!("{job}/template/spec/containers/0/env/2/value"), json!("123456789")),
        (format!("{job}/template/spec/containers/0/env/3/value"), json!("slot")),
        (format!("{job}/template/spec/containers/0/env/4/value"), json!("team")),
        (format!("{job}/template/spec/containers/0/env/5/value"), json!("false")),
        (format!("{job}/template/spec/containers/0/resources/limits/cpu"), json!("9")),
    ] {
        let (kind, pointer) = at.split_at(at.find('/').unwrap());
        let of = of_kind(&objects, kind).next().unwrap_or_else(|| panic!("no {kind}"));
        assert_eq!(of.pointer(pointer), Some(&expected), "{at}");
    }
    let pods = pods(&objects);
    let job = pods.iter().find(|pod| pod.of.starts_with("CronJob")).unwrap();
    assert_eq!(job.volume(&json!("toggle-key"))["secret"]["secretName"], "s");
}

/// What the chart makes of these values for the central exporter's pod.
fn central_pod(values: &Value) -> Value {
    of_kind(&rendered(values), "Deployment").next().unwrap()["spec"]["template"].clone()
}

#[test]
fn what_links_begin_with_is_one_value() {
    let objects = rendered(&json!({"externalUrl": "https://exporter.example.com/base", "cronJob": {"enabled": true}}));
    let config = |map: &str| {
        let of = of_kind(&objects, "ConfigMap").find(|of| of["metadata"]["name"] == map).unwrap();
        meaning(of["data"]["config.yaml"].as_str().unwrap())
    };
    assert_eq!(config("cekura-exporter")["external_url"], "https://exporter.example.com/base");
    // That is where the central exporter is, not a sidecar.
    assert!(config("cekura-exporter-sidecar")["external_url"].is_null());
}

#[test]
fn a_changed_configuration_starts_a_new_pod() {
    let checksum = |values| central_pod(&values)["metadata"]["annotations"]["checksum/config"].clone();
    let (before, after) = (checksum(json!({})), checksum(json!({"config": {"polling": {"min_interval": "7s"}}})));
    assert!(before.is_string() && before != after, "{before} {after}");
}

#[test]
fn a_web_configuration_claim_and_secrets_of_theirs_are_mounted() {
    let pod = central_pod(&json!({
        "webConfig": {"existingSecret": "their-web"}, "tls": {"enabled": true, "existingSecret": "their-tls"},
        "persistence": {"existingClaim": "their-claim"},
        "apis": {"default": {"existingSecret": "their-key", "key": "k"}, "b": {"existingSecret": "key-of-b", "key": "k"}},
    }));
    let exporter = &pod["spec"]["containers"][0];
    let at = |path: &str| {
        let mount = each(&exporter["volumeMounts"]).find(|mount| mount["mountPath"] == path).unwrap();
        each(&pod["spec"]["volumes"]).find(|volume| volume["name"] == mount["name"]).unwrap().clone()
    };
    for (path, secret) in [
        ("/etc/cekura-exporter-web", "their-web"),
        ("/etc/tls", "their-tls"),
        ("/run/secrets/cekura", "their-key"),
        ("/run/secrets/cekura-b", "key-of-b"),
    ] {
        assert_eq!(at(path)["secret"]["secretName"], secret);
        // Readable for the group of the pod, and for nobody else.
        assert_eq!(at(path)["secret"]["defaultMode"], 0o440);
    }
    assert_eq!(at("/var/lib/cekura-exporter")["persistentVolumeClaim"]["claimName"], "their-claim");
    assert!(each(&exporter["args"]).any(|arg| arg == "--web.config.file=/etc/cekura-exporter-web/web.yaml"));
    for probe in ["startupProbe", "readinessProbe", "livenessProbe"] {
        assert_eq!(exporter[probe]["httpGet"]["scheme"], "HTTPS", "{probe}");
    }
}

#[test]
fn the_keys_of_the_secret_of_the_database_are_the_files_of_the_configuration() {
    let database = |keys: Value| {
        let mut values = json!({"database": {"existingSecret": "theirs"}});
        values["database"].as_object_mut().unwrap().extend(keys.as_object().unwrap().clone());
        let objects = rendered(&values);
        let config = of_kind(&objects, "ConfigMap").next().unwrap()["data"]["config.yaml"].as_str().unwrap();
        let config = meaning(config);
        assert_eq!(config["state_file"], Value::Null);
        let deployment = of_kind(&objects, "Deployment").next().unwrap();
        (config["database"].clone(), deployment["spec"]["template"].clone())
    };
    let (config, pod) = database(json!({}));
    assert_eq!(config, json!({"url_file": "/run/secrets/database/url", "lease": "15s"}));
    let mount = each(&pod["spec"]["containers"][0]["volumeMounts"]);
    let mount = mount.into_iter().find(|mount| mount["mountPath"] == "/run/secrets/database").unwrap();
    let volume = each(&pod["spec"]["volumes"]).find(|volume| volume["name"] == mount["name"]).unwrap();
    assert_eq!(volume["secret"], json!({"secretName": "theirs", "defaultMode": 0o440}));
    let (config, _) =
        database(json!({"urlKey": "uri", "passwordKey": "password", "caKey": "ca.crt", "lease": "1m30s"}));
    let expected = json!({
        "url_file": "/run/secrets/database/uri", "password_file": "/run/secrets/database/password",
        "ca_file": "/run/secrets/database/ca.crt", "lease": "1m30s",
    });
    assert_eq!(config, expected);
}

/// The values that a `helm` command of a page sets.
fn values_of_command(page: &str) -> Value {
    let text = std::fs::read_to_string(file(page)).unwrap();
    let (_, command) = text.split_once("```sh\nhelm install ").unwrap();
    let (command, _) = command.split_once("```").unwrap();
    let mut values = json!({});
    for (key, value) in command.split("--set ").skip(1).map(|set| set.split_once('=').unwrap()) {
        let value = value.split_whitespace().next().unwrap();
        let keys = key.split('.');
        let place = keys.fold(&mut values, |values, key| &mut values[key]);
        *place = serde_json::from_str(value).unwrap_or_else(|_| json!(value));
    }
    values
}

#[test]
fn the_commands_of_the_pages_install_what_the_pages_say() {
    let single = rendered(&values_of_command("docs/kubernetes.md"));
    for kind in ["ServiceMonitor", "PodMonitor", "PrometheusRule", "PersistentVolumeClaim"] {
        assert_eq!(of_kind(&single, kind).count(), 1, "{kind}");
    }
    let several = rendered(&values_of_command("docs/replicas.md"));
    assert_eq!(of_kind(&several, "PersistentVolumeClaim").count(), 0);
    let deployment = &of_kind(&several, "Deployment").next().unwrap()["spec"];
    assert_eq!(deployment["replicas"], 3);
    let config = meaning(of_kind(&several, "ConfigMap").next().unwrap()["data"]["config.yaml"].as_str().unwrap());
    // The keys of the Secret that the page creates.
    let database = json!({
        "url_file": "/run/secrets/database/url", "password_file": "/run/secrets/database/password", "lease": "15s",
    });
    assert_eq!(config["database"], database);
}

#[test]
fn replicas_of_a_release_are_spread_over_nodes_unless_the_values_say_how() {
    let pod_of = |values: &Value| central_pod(values)["spec"]["topologySpreadConstraints"].clone();
    let database = json!({"existingSecret": "cekura-database"});
    let spread = pod_of(&json!({"replicas": 2, "database": database}));
    // Not over those of other releases.
    let own = json!({"app.kubernetes.io/name": "cekura-exporter", "app.kubernetes.io/instance": "cekura-exporter"});
    assert_eq!(spread[0]["labelSelector"]["matchLabels"], own);
    let theirs = json!([{"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule"}]);
    let values = json!({"replicas": 2, "database": database, "topologySpreadConstraints": theirs});
    assert_eq!(pod_of(&values), theirs);
    assert_eq!(pod_of(&json!({"database": database})), Value::Null);
}

#[test]
fn exporters_that_share_no_file_overlap_in_a_rollout() {
    let strategy_of = |values: Value| {
        let objects = rendered(&values);
        let deployment = &of_kind(&objects, "Deployment").next().unwrap()["spec"];
        (deployment["replicas"].clone(), deployment["strategy"].clone())
    };
    let overlapping = json!({"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}});
    let database = json!({"existingSecret": "cekura-database"});
    for (values, replicas) in [
        (json!({"database": database}), 1),
        (json!({"replicas": 0, "database": database}), 0),
        (json!({"replicas": 2, "persistence": {"enabled": false}, "config": {"registrations": {"enabled": false}}}), 2),
    ] {
        assert_eq!(strategy_of(values), (json!(replicas), overlapping.clone()));
    }
}

#[test]
fn a_pod_is_given_the_time_that_it_lingers() {
    let lingering = |linger: &str| json!({"shutdown": {"linger": linger}});
    for (linger, seconds) in [("0s", 30), ("500ms", 30), ("5m", 330), ("1h30m", 5430), ("1d2h3m4s5ms", 93_814)] {
        let values = json!({
            "config": lingering(linger), "sidecar": {"config": lingering(linger)}, "cronJob": {"enabled": true},
        });
        let objects = rendered(&values);
        let graces: Vec<_> =
            pods(&objects).iter().map(|pod| pod.spec["terminationGracePeriodSeconds"].clone()).collect();
        assert_eq!(graces, [json!(seconds), json!(seconds)], "{linger}");
        for map in ["cekura-exporter", "cekura-exporter-sidecar"] {
            let text = of_kind(&objects, "ConfigMap").find(|of| of["metadata"]["name"] == map).unwrap();
            assert_eq!(meaning(text["data"]["config.yaml"].as_str().unwrap())["shutdown"]["linger"], linger);
        }
    }
}

#[test]
fn a_release_selects_nothing_of_another() {
    let enabled = json!({"enabled": true});
    let values = json!({"serviceMonitor": enabled, "cronJob": enabled});
    let release = |name: &str| validated(&try_rendering(&file(CHART), name, &values).unwrap());
    let releases = ["cekura-exporter", "staging", "cekura-exporter-2"].map(release);
    for (own, objects) in releases.iter().enumerate() {
        let selectors: Vec<_> = objects.iter().filter_map(selector).collect();
        let kinds: BTreeSet<_> = selectors.iter().map(|(of, _)| of.split(' ').next().unwrap()).collect();
        let expected = ["Deployment", "NetworkPolicy", "PodDisruptionBudget", "Service", "ServiceMonitor"];
        assert_eq!(kinds, BTreeSet::from(expected));
        for (of, selector) in selectors {
            for (other, objects) in releases.iter().enumerate() {
                let labels: Vec<_> = if of.starts_with("ServiceMonitor") {
                    of_kind(objects, "Service").map(|service| &service["metadata"]["labels"]).collect()
                } else {
                    pods(objects).iter().map(|pod| pod.labels).collect()
                };
                let selected = labels.iter().filter(|labels| selects(selector, labels)).count();
                assert_eq!(selected, usize::from(own == other), "{of} of {own} in {other}");
            }
        }
    }
}

/// By what an object selects others, if it does, and its name.
fn selector(of: &Value) -> Option<(String, &Value)> {
    let selector = match of["kind"].as_str().unwrap() {
        "Service" => &of["spec"]["selector"],
        "NetworkPolicy" => &of["spec"]["podSelector"]["matchLabels"],
        "PodDisruptionBudget" | "Deployment" | "ServiceMonitor" => &of["spec"]["selector"]["matchLabels"],
        _ => return None,
    };
    Some((name(of), selector))
}

#[test]
fn what_is_wrong_in_values_is_named() {
    for (values, named) in [
        (json!({"imgae": {}}), "imgae"),
        (json!({"config": {"apis": {"default": {"api_key": "sk-inline"}}}}), "api_key"),
        (json!({"sidecar": {"config": {"apis": {"default": {"api_key": "sk-inline"}}}}}), "api_key"),
        (json!({"tls": {"enabled": "yes"}}), "tls"),
        (json!({"externalUrl": "exporter.example.com"}), "externalUrl"),
        (json!({"externalUrl": "https://a", "config": {"external_url": "https://b"}}), "set one of them"),
        (json!({"apis": {"default": {"existingSecret": ""}}}), "default"),
        (json!({"apis": {"Bad-Name": {"existingSecret": "a", "key": "b"}}}), "Bad-Name"),
        (json!({"cronJob": {"runAsUser": 0}}), "runAsUser"),
        (json!({"config": {"shutdown": {"linger": "5 minutes"}}}), "linger"),
        (json!({"persistence": {"enabled": false}}), "persistence.enabled=true"),
        (
            json!({"persistence": {"enabled": false}, "config": {"state_file": "/var/lib/cekura-exporter/state"}}),
            "config.state_file",
        ),
        (json!({"config": {"state_file": "/data/state"}}), "config.state_file"),
        (json!({"replicas": 2}), "database.existingSecret"),
        (json!({"replicas": 2, "persistence": {"enabled": false}}), "database.existingSecret"),
        (json!({"replicas": 2, "config": {"registrations": {"enabled": false}}}), "database.existingSecret"),
        (json!({"replicas": "3"}), "replicas"),
        (json!({"database": {"url": "postgresql://user:sk-inline@db/cekura"}}), "url"),
        (json!({"database": {"lease": "15 s"}}), "lease"),
        (json!({"database": {"existingSecret": "a", "urlKey": ""}}), "urlKey"),
        (json!({"config": {"database": {"url": "postgresql://user:sk-inline@db/cekura"}}}), "config.database"),
        (
            json!({"database": {"existingSecret": "a"}, "config": {"state_file": "/var/lib/cekura-exporter/state"}}),
            "config.state_file",
        ),
        (json!({"cronJob": {"name": "n".repeat(53)}}), "cronJob"),
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

/// A job of somebody else's chart, as docs/kubernetes.md shows it.
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
