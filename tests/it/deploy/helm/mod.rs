//! The Helm chart: valid, and the same as what kustomize makes.

mod fragments;
mod install;
mod rules;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::{Command, Output};

use serde_json::{Value, json};

use super::kubernetes::{Database, built, built_central, checked, checked_with, rendered as kustomized, text_of};
use super::pods::{Pod, dangling, each, hardened, name, of_kind, pods, selects, unrestricted};
use super::{all_validated, file, parsed, printed, validated, yaml};
use crate::harness::tool;
use fragments::{Expected, Fragment};

const CHART: &str = "deploy/helm/cekura-exporter";

/// The oldest and the newest Helm that the chart is tested with.
const HELMS: [&str; 2] = ["helm-3.17", "helm-4.1"];

/// Runs Helm without a cluster and with an environment of its own.
fn helm(program: &str, args: &[&str], values: &Value) -> Output {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("values.yaml");
    std::fs::write(&file, values.to_string()).unwrap();
    let mut command = Command::new(tool(program));
    command.env_clear().env("HOME", folder.path()).args(args).arg("--values").arg(file);
    command.output().unwrap()
}

/// What the chart makes of these values in the namespace `cekura`, or what each Helm says is wrong with them.
fn try_rendering(chart: &Path, release: &str, values: &Value) -> Result<Vec<u8>, [String; 2]> {
    let args = ["template", release, chart.to_str().unwrap(), "--namespace", "cekura", "--no-hooks"];
    let [old, new] = HELMS.map(|program| {
        let output = helm(program, &args, values);
        let errors = String::from_utf8(output.stderr).unwrap();
        output.status.success().then_some(output.stdout).ok_or(errors)
    });
    match (old, new) {
        (Ok(old), Ok(new)) => {
            assert_eq!(String::from_utf8_lossy(&old), String::from_utf8_lossy(&new), "{HELMS:?} differ: {values}");
            Ok(new)
        }
        (Err(old), Err(new)) => Err([old, new]),
        (old, new) => panic!("{HELMS:?} differ: {values}: {old:?} {new:?}"),
    }
}

/// What the chart makes of these values.
fn rendered(values: &Value) -> Vec<Value> {
    parsed(&try_rendering(&file(CHART), "cekura-exporter", values).unwrap())
}

/// Lays values over others, as Helm does.
fn merge(values: &mut Value, more: &Value) {
    match (values, more) {
        (Value::Object(values), Value::Object(more)) => {
            for (key, value) in more {
                merge(values.entry(key).or_insert(Value::Null), value);
            }
        }
        (values, more) => *values = more.clone(),
    }
}

/// What is not as it must be.
fn unexpected(objects: &[Value], expected: &[Expected]) -> Vec<String> {
    let at = |pointer: &String| {
        let (kind, pointer) = pointer.split_at(pointer.find('/').unwrap_or(pointer.len()));
        objects.iter().find(|of| of["kind"] == kind).and_then(|of| of.pointer(pointer))
    };
    let problem = |expected: &Expected| {
        let (holds, pointer, what) = match expected {
            Expected::Is(pointer, value) => (at(pointer) == Some(value), pointer, value.to_string()),
            Expected::Has(pointer, value) => {
                let list = at(pointer).and_then(Value::as_array);
                (list.is_some_and(|list| list.contains(value)), pointer, value.to_string())
            }
            Expected::Says(pointer, text) => {
                let said = at(pointer).and_then(Value::as_str);
                (said.is_some_and(|said| said.contains(text)), pointer, (*text).to_owned())
            }
            Expected::Lacks(pointer) => (at(pointer).is_none(), pointer, "nothing".to_owned()),
        };
        (!holds).then(|| format!("{pointer}: {:?} instead of {what}", at(pointer).map(Value::to_string)))
    };
    expected.iter().filter_map(problem).collect()
}

/// Renders these combinations, validates all objects at once, and checks what each combination was to make. Returns the
/// objects of each.
fn check_combinations(combinations: &[(Value, Vec<&Fragment>)]) -> Vec<Vec<Value>> {
    let streams: Vec<_> = combinations
        .iter()
        .map(|(values, _)| {
            let rendered = try_rendering(&file(CHART), "cekura-exporter", values);
            rendered.unwrap_or_else(|problems| panic!("{values}: {problems:?}"))
        })
        .collect();
    let renderings = all_validated(&streams);
    for ((values, fragments), objects) in combinations.iter().zip(&renderings) {
        let problems = fragments.iter().flat_map(|fragment| unexpected(objects, &fragment.expected));
        assert_eq!(problems.collect::<Vec<_>>(), [] as [String; 0], "{values}");
        check_objects(values, objects);
    }
    renderings
}

/// Checks what must hold whatever the values are.
fn check_objects(values: &Value, objects: &[Value]) {
    // What the user brings is not among the objects.
    let theirs = ["PersistentVolumeClaim theirs", "ConfigMap company-ca", "ServiceAccount default"];
    let missing = dangling(objects).into_iter().filter(|what| !theirs.iter().any(|theirs| what.ends_with(theirs)));
    assert_eq!(missing.collect::<Vec<_>>(), [] as [String; 0], "{values}");
    assert_eq!(of_kind(objects, "Secret").count(), 0, "{values}");
    for pod in pods(objects).iter().filter(|_| values.get("securityContext").is_none()) {
        hardened(pod);
        let own = pod.containers().filter(|container| container["name"] != "proxy");
        let problems = own.flat_map(|container| unrestricted(pod, container));
        assert_eq!(problems.collect::<Vec<_>>(), [] as [String; 0], "{values}");
    }
    let chart = concat!("cekura-exporter-", env!("CARGO_PKG_VERSION"));
    for of in objects.iter().filter(|of| !["ResourceQuota", "LimitRange"].contains(&of["kind"].as_str().unwrap())) {
        for (label, value) in [
            ("app.kubernetes.io/name", values["nameOverride"].as_str().unwrap_or("cekura-exporter")),
            ("app.kubernetes.io/instance", "cekura-exporter"),
            ("app.kubernetes.io/managed-by", "Helm"),
            ("app.kubernetes.io/version", env!("CARGO_PKG_VERSION")),
            ("helm.sh/chart", chart),
        ] {
            assert_eq!(of["metadata"]["labels"][label], value, "{values}: {}: {label}", name(of));
        }
        let own = values["namespaceOverride"].as_str().unwrap_or("cekura");
        let namespace = of["metadata"]["namespace"].as_str();
        assert!([Some(own), Some("monitoring")].contains(&namespace), "{values}: {}: {namespace:?}", name(of));
    }
}

#[tokio::test]
async fn each_value_makes_what_it_is_for_and_each_configuration_is_accepted_by_the_program() {
    let groups = fragments::groups();
    let each: Vec<_> = groups.iter().flatten().map(|fragment| (fragment.values.clone(), vec![fragment])).collect();
    let objects = check_combinations(&each).concat();
    let database = Database::start().await;
    let configurations: BTreeSet<_> =
        of_kind(&objects, "ConfigMap").filter_map(|map| map["data"]["config.yaml"].as_str()).collect();
    assert!(configurations.len() > 8, "{configurations:?}");
    for configuration in configurations {
        checked_with(&database, &configuration.replace("/database/uri", "/database/url"));
    }
}

#[test]
fn values_can_be_combined_as_one_likes() {
    let groups = fragments::groups();
    let mut random = fastrand::Rng::new();
    eprintln!("seed {}", random.get_seed());
    let mut combination = || {
        let likely = random.f64();
        let mut chosen: Vec<&Fragment> = Vec::new();
        for group in &groups {
            if random.f64() < likely {
                chosen.push(&group[random.usize(..group.len())]);
            }
        }
        let mut values = json!({});
        for fragment in &chosen {
            merge(&mut values, &fragment.values);
        }
        (values, chosen)
    };
    check_combinations(&(0..24).map(|_| combination()).collect::<Vec<_>>());
}

/// The paths of all maps and values in values.
fn paths(values: &Value, path: &str, found: &mut BTreeSet<String>) {
    for (key, value) in values.as_object().into_iter().flatten() {
        let path = format!("{path}{key}");
        paths(value, &format!("{path}."), found);
        found.insert(path);
    }
}

#[test]
fn every_value_is_in_a_test() {
    let mut used = BTreeSet::new();
    for fragment in fragments::groups().iter().flatten() {
        paths(&fragment.values, "", &mut used);
    }
    let readme = std::fs::read_to_string(file(&format!("{CHART}/README.md"))).unwrap();
    let (_, table) = readme.split_once("| Key | Type | Default | Description |\n|---|---|---|---|\n").unwrap();
    let described: Vec<_> =
        table.lines().map(|row| row.split(" | ").next().unwrap().trim_start_matches("| ")).collect();
    assert!(described.len() > 100, "{described:?}");
    // These two have tests of their own.
    let unused =
        described.into_iter().filter(|key| !used.contains(*key) && !["central.enabled", "test.image"].contains(key));
    assert_eq!(unused.collect::<Vec<_>>(), [""; 0]);
}

#[test]
fn every_value_is_described_in_the_readme_of_the_chart_as_in_the_values() {
    let script = file("deploy/helm/write-readme");
    let written = printed(Command::new(tool("python3")).arg(script).arg("--print"));
    let readme = std::fs::read_to_string(file(&format!("{CHART}/README.md"))).unwrap();
    assert!(written == readme, "run deploy/helm/write-readme");
}

#[test]
fn linting_finds_no_problem() {
    for program in HELMS {
        let output = helm(program, &["lint", "--strict", file(CHART).to_str().unwrap()], &json!({}));
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success() && said.contains("1 chart(s) linted, 0 chart(s) failed"), "{program}: {said}");
        // An icon is what it asks for.
        let messages: Vec<_> = said.lines().filter(|line| line.starts_with('[')).collect();
        assert_eq!(messages, ["[INFO] Chart.yaml: icon is recommended"], "{program}");
    }
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
        annotations.remove("checksum/state");
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
        // The chart is installed in a namespace that exists.
        if of["kind"] != "Namespace" {
            substances.insert(name(of), own);
        }
    }
    substances
}

/// A configuration for kustomize that is that of the chart with a database.
const WITH_DATABASE: &str = "apis: {default: {api_key_file: /run/secrets/cekura/api-key}}\n\
                             registrations: {enabled: true}\n\
                             database: {url_file: /run/secrets/database/url, lease: 15s}\n";

/// Each choice of components, with the values that are for the same.
fn choices() -> Vec<(Vec<&'static str>, Value)> {
    let enabled = json!({"enabled": true});
    let issuer = json!({"kind": "Issuer", "name": "cekura-exporter"});
    let all = [
        ("replicas", json!({"replicas": 3, "database": {"existingSecret": "cekura-database"}})),
        ("prometheus-operator", json!({"serviceMonitor": enabled, "podMonitor": enabled, "prometheusRule": enabled})),
        ("scrape-annotations", json!({"scrapeAnnotations": enabled})),
        ("openshift", json!({"openshift": true})),
        (
            "cert-manager",
            json!({"tls": {"certificate": {"enabled": true, "issuerRef": issuer, "dnsNames": ["cekura-exporter"]}}}),
        ),
        ("tls", json!({"tls": enabled})),
    ];
    let choice = |bits: u32| {
        let (mut components, mut values) = (Vec::new(), json!({}));
        for (_, (component, more)) in all.iter().enumerate().filter(|(n, _)| bits >> n & 1 == 1) {
            components.push(*component);
            merge(&mut values, more);
        }
        (components, values)
    };
    let all = (0..1 << all.len()).map(choice);
    // cert-manager makes the Secret of tls.
    all.filter(|(components, _)| components.contains(&"tls") || !components.contains(&"cert-manager")).collect()
}

#[test]
fn the_chart_makes_what_kustomize_makes() {
    let by_kustomize = |(components, values): (Vec<&str>, Value)| {
        let config = components.contains(&"replicas").then_some(WITH_DATABASE);
        (built_central(&components, config), values)
    };
    let nightly = built(&file("deploy/kubernetes/overlays/example-cronjob"));
    let registry = json!({"repository": "registry.example.com/cekura-exporter"});
    let nightly = (nightly, json!({"central": {"enabled": false}, "cronJob": {"enabled": true}, "image": registry}));
    let (by_kustomize, all): (Vec<_>, Vec<_>) = choices().into_iter().map(by_kustomize).chain([nightly]).unzip();
    let by_helm: Vec<_> =
        all.iter().map(|values| try_rendering(&file(CHART), "cekura-exporter", values).unwrap()).collect();
    let pairs = all_validated(&by_kustomize).into_iter().zip(all_validated(&by_helm));
    for (values, (by_kustomize, by_helm)) in all.iter().zip(pairs) {
        let (by_kustomize, by_helm) = (substances(&by_kustomize), substances(&uninstanced(&by_helm)));
        let names = |of: &BTreeMap<String, Value>| of.keys().cloned().collect::<BTreeSet<_>>();
        assert_eq!(names(&by_helm), names(&by_kustomize), "{values}");
        for (name, of) in &by_kustomize {
            let sorted = |of: &Value| super::pods::in_order(of);
            assert_eq!(sorted(&by_helm[name]), sorted(of), "{values}: {name}");
        }
    }
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
fn a_changed_configuration_starts_a_new_pod_only_if_that_was_asked_for() {
    let pod = |rolls: bool, interval: &str| {
        let config = json!({"polling": {"min_interval": interval}});
        central_pod(&json!({"rolloutOnConfigChange": rolls, "config": config}))
    };
    assert_eq!(pod(false, "5s"), pod(false, "7s"));
    assert_ne!(pod(true, "5s"), pod(true, "7s"));
    assert_eq!(pod(true, "5s"), pod(true, "5s"));
    // In both cases, the exporter reads it again when it changes.
    for rolls in [true, false] {
        let args = pod(rolls, "5s")["spec"]["containers"][0]["args"].clone();
        assert!(each(&args).any(|arg| arg == "--config.auto-reload"), "{args}");
    }
}

#[test]
fn a_change_of_where_the_state_is_starts_a_new_pod() {
    let database = |lease: &str| central_pod(&json!({"database": {"existingSecret": "a", "lease": lease}}));
    assert_ne!(database("15s"), database("20s"));
    let file = |name: &str| central_pod(&json!({"config": {"state_file": format!("/var/lib/cekura-exporter/{name}")}}));
    assert_ne!(file("a"), file("b"));
}

#[test]
fn a_network_policy_without_ports_allows_none() {
    let policy = |values: Value| {
        of_kind(&rendered(&json!({"networkPolicy": values})), "NetworkPolicy").next().unwrap()["spec"]["egress"].clone()
    };
    let own = json!([{"to": [{"ipBlock": {"cidr": "10.0.0.0/8"}}]}]);
    assert_eq!(policy(json!({"ports": [], "dnsPorts": [], "egress": own})), own);
    assert_eq!(policy(json!({"ports": [], "dnsPorts": []})), Value::Null);
}

#[test]
fn labels_of_the_user_are_merged_and_replace_none_by_which_objects_are_selected() {
    let label = json!({"release": "theirs", "app.kubernetes.io/name": "theirs"});
    let values = json!({
        "commonLabels": label, "podLabels": label, "service": {"labels": label},
        "serviceMonitor": {"enabled": true, "labels": {"release": "prometheus"}},
    });
    let text = String::from_utf8(try_rendering(&file(CHART), "cekura-exporter", &values).unwrap()).unwrap();
    // A parser that allows no key twice.
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("all.yaml"), text).unwrap();
    std::fs::write(folder.path().join("kustomization.yaml"), "resources: [all.yaml]").unwrap();
    let objects = kustomized(folder.path());
    for of in &objects {
        assert_eq!(of["metadata"]["labels"]["app.kubernetes.io/name"], "cekura-exporter", "{}", name(of));
        let release = if of["kind"] == "ServiceMonitor" { "prometheus" } else { "theirs" };
        assert_eq!(of["metadata"]["labels"]["release"], release, "{}", name(of));
    }
    let pod = &pods(&objects)[0];
    assert_eq!(pod.labels["app.kubernetes.io/name"], "cekura-exporter");
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
    let all = [("0s", 30), ("500ms", 30), ("5m", 330), ("1h30m", 5430), ("1d2h3m4s5ms", 93_814)];
    let values = all.map(|(linger, _)| {
        let (config, of_sidecar) = (lingering(linger), json!({"config": lingering(linger)}));
        (json!({"config": config, "sidecar": of_sidecar, "cronJob": {"enabled": true}}), Vec::new())
    });
    for ((linger, seconds), objects) in all.into_iter().zip(check_combinations(&values)) {
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
    let release = |name: &str| parsed(&try_rendering(&file(CHART), name, &values).unwrap());
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
        (json!({"ingress": {"enabled": true}}), "ingress.hosts"),
        (json!({"httpRoute": {"enabled": true}}), "httpRoute.parentRefs"),
        (json!({"tls": {"enabled": true, "certificate": {"enabled": true}}}), "tls.certificate.issuerRef"),
        (json!({"tls": {"certificate": {"enabled": true, "issuerRef": {"name": "a"}}}}), "needs tls.enabled=true"),
        (json!({"strategy": {"type": "RollingUpdate"}}), "only one process at a time"),
        (json!({"prometheusRule": {"severities": {"fatal": "page"}}}), "fatal"),
        (json!({"image": {"digest": "sha256:short"}}), "digest"),
        (json!({"service": {"port": 0}}), "port"),
        (json!({"fullnameOverride": "Bad_Name"}), "fullnameOverride"),
    ] {
        for problem in try_rendering(&file(CHART), "cekura-exporter", &values).unwrap_err() {
            assert!(problem.contains(named) && !problem.contains("sk-inline"), "{values}: {problem}");
        }
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
fn the_packaged_chart_has_the_rules_the_dashboard_and_the_script() {
    let folder = tempfile::tempdir().unwrap();
    printed(Command::new(tool(HELMS[1])).arg("package").arg(file(CHART)).arg("--destination").arg(folder.path()));
    let package = folder.path().join(concat!("cekura-exporter-", env!("CARGO_PKG_VERSION"), ".tgz"));
    printed(Command::new("tar").arg("-xzf").arg(package).arg("-C").arg(folder.path()));
    for (packaged, original) in [
        ("rules.yaml", "deploy/prometheus/rules.yaml"),
        ("dashboard.json", "deploy/grafana/dashboard.json"),
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
