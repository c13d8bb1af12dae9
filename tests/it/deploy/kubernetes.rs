//! The manifests for Kubernetes, rendered by kustomize.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use super::pods::{dangling, each, hardened, name, of_kind, pods, selects, unrestricted};
use super::{all_validated, file, parsed, yaml};
use crate::harness::{Authority, FAR, Postgres, run, tool};

/// What kustomize makes of a folder of `deploy/kubernetes`, or of one beside it.
pub(super) fn rendered(folder: &Path) -> Vec<Value> {
    parsed(&built(folder))
}

/// As [`rendered`], as YAML.
pub(super) fn built(folder: &Path) -> Vec<u8> {
    let mut command = Command::new(tool("kubectl-1.31"));
    let output = command.env_clear().arg("kustomize").arg(folder).stderr(Stdio::piped()).output().unwrap();
    assert!(output.status.success(), "{}: {}", folder.display(), String::from_utf8_lossy(&output.stderr));
    output.stdout
}

/// What a user's folder beside `deploy/kubernetes` with these files makes.
fn of_user(files: &[(&str, &str)]) -> Vec<Value> {
    parsed(&built_of_user(files))
}

fn built_of_user(files: &[(&str, &str)]) -> Vec<u8> {
    let folder = tempfile::tempdir().unwrap();
    let copied = Command::new("cp").arg("-r").arg(file("deploy/kubernetes")).arg(folder.path()).status().unwrap();
    assert!(copied.success());
    let own = folder.path().join("own");
    std::fs::create_dir(&own).unwrap();
    for (name, text) in files {
        std::fs::write(own.join(name), text).unwrap();
    }
    built(&own)
}

/// The central exporter with these components.
pub(super) fn central(components: &[&str]) -> Vec<Value> {
    of_user(&[("kustomization.yaml", &kustomization(components).to_string())])
}

/// As [`central`], with a configuration of the user's, and as YAML.
pub(super) fn built_central(components: &[&str], config: Option<&str>) -> Vec<u8> {
    let mut own = kustomization(components);
    if config.is_some() {
        own["configMapGenerator"] =
            json!([{"name": "cekura-exporter", "behavior": "replace", "files": ["config.yaml"]}]);
    }
    built_of_user(&[("kustomization.yaml", &own.to_string()), ("config.yaml", config.unwrap_or_default())])
}

fn kustomization(components: &[&str]) -> Value {
    let components: Vec<_> = components.iter().map(|name| format!("../kubernetes/components/{name}")).collect();
    json!({"resources": ["../kubernetes/base"], "components": components})
}

/// All choices of components that concern scraping, and replicas with none and with all of these.
fn choices() -> Vec<Vec<&'static str>> {
    let all = ["prometheus-operator", "scrape-annotations", "tls"];
    let choice = |bits: u32| all.into_iter().enumerate().filter(move |(n, _)| bits >> n & 1 == 1).map(|(_, name)| name);
    let replicas = [0, 7].map(|bits| std::iter::once("replicas").chain(choice(bits)).collect());
    (0..8).map(|bits| choice(bits).collect()).chain(replicas).collect()
}

/// The labels of the only pod.
fn only_pod(objects: &[Value]) -> super::pods::Pod<'_> {
    let mut pods = pods(objects);
    assert_eq!(pods.len(), 1);
    pods.remove(0)
}

#[test]
fn every_choice_of_components_is_valid_hardened_and_whole() {
    let streams: Vec<_> = choices().iter().map(|components| built_central(components, None)).collect();
    for (components, objects) in choices().into_iter().zip(all_validated(&streams)) {
        let pod = only_pod(&objects);
        hardened(&pod);
        assert_eq!(dangling(&objects), [] as [String; 0], "{components:?}");
        assert_eq!(pod.spec["automountServiceAccountToken"], false);
        assert_eq!(pod.spec["enableServiceLinks"], false);
        let scheme = if components.contains(&"tls") { "HTTPS" } else { "HTTP" };
        for probe in ["startupProbe", "readinessProbe", "livenessProbe"] {
            let asked = &pod.exporter()[probe]["httpGet"];
            assert_eq!(asked["scheme"].as_str().unwrap_or("HTTP"), scheme, "{components:?} {probe}");
            assert!(asked["path"].as_str().unwrap().starts_with("/-/"), "{components:?} {probe}");
        }
    }
}

#[test]
fn selectors_find_the_exporter_and_its_port_and_nothing_else() {
    let objects = central(&["prometheus-operator"]);
    let pod = only_pod(&objects);
    let other = json!({"app.kubernetes.io/name": "something-else"});
    let one = |kind| of_kind(&objects, kind).next().unwrap();
    for (kind, path) in [
        ("Deployment", "/spec/selector/matchLabels"),
        ("Service", "/spec/selector"),
        ("NetworkPolicy", "/spec/podSelector/matchLabels"),
        ("PodDisruptionBudget", "/spec/selector/matchLabels"),
    ] {
        let selector = one(kind).pointer(path).unwrap_or(&Value::Null);
        assert!(selects(selector, pod.labels) && !selects(selector, &other), "{kind}: {selector}");
    }
    let service = one("Service");
    assert!(selects(&one("ServiceMonitor")["spec"]["selector"]["matchLabels"], &service["metadata"]["labels"]));
    assert_eq!(one("ServiceMonitor")["spec"]["endpoints"][0]["port"], service["spec"]["ports"][0]["name"]);
    let ports: Vec<_> = each(&pod.exporter()["ports"]).map(|port| &port["name"]).collect();
    assert!(ports.contains(&&service["spec"]["ports"][0]["targetPort"]));
    let policy = &one("NetworkPolicy")["spec"];
    assert!(ports.contains(&&policy["ingress"][0]["ports"][0]["port"]), "{policy}");
    let [scrapers, jobs] = &policy["ingress"][0]["from"].as_array().unwrap()[..] else { panic!("{policy}") };
    let scraper = &scrapers["podSelector"]["matchExpressions"][0];
    assert_eq!((&scraper["key"], &scraper["operator"]), (&json!("app.kubernetes.io/name"), &json!("In")));
    for name in
        ["prometheus", "prometheus-agent", "vmagent", "victoria-metrics-agent", "alloy", "opentelemetry-collector"]
    {
        assert!(each(&scraper["values"]).any(|value| value == name), "{scraper}");
    }
    assert_eq!(jobs["podSelector"]["matchLabels"], json!({"cekura-exporter/client": "true"}));
}

#[test]
fn state_outlives_the_pod_and_belongs_to_one_at_a_time() {
    let objects = central(&[]);
    let deployment = of_kind(&objects, "Deployment").next().unwrap();
    assert_eq!(
        (&deployment["spec"]["replicas"], &deployment["spec"]["strategy"]["type"]),
        (&json!(1), &json!("Recreate"))
    );
    let pod = only_pod(&objects);
    let state = each(&pod.exporter()["volumeMounts"]).find(|mount| mount["mountPath"] == "/var/lib/cekura-exporter");
    assert!(pod.volume(&state.unwrap()["name"])["persistentVolumeClaim"].is_object());
    assert_eq!(pod.spec["securityContext"]["fsGroup"], 65_532);
    // One pod may always be evicted.
    assert_eq!(of_kind(&objects, "PodDisruptionBudget").next().unwrap()["spec"]["maxUnavailable"], 1);
}

#[test]
fn replicas_keep_their_state_in_the_database_of_a_secret_and_not_on_a_volume() {
    let objects = central(&["replicas"]);
    assert_eq!(of_kind(&objects, "PersistentVolumeClaim").count(), 0);
    let pod = only_pod(&objects);
    let volumes: BTreeMap<_, _> = each(&pod.exporter()["volumeMounts"])
        .map(|mount| (mount["mountPath"].as_str().unwrap(), pod.volume(&mount["name"])))
        .collect();
    assert_eq!(
        volumes.keys().copied().collect::<Vec<_>>(),
        ["/etc/cekura-exporter", "/run/secrets/cekura", "/run/secrets/database"]
    );
    // Readable for the group of the pod, and for nobody else.
    let secret = json!({"secretName": "cekura-database", "defaultMode": 0o440});
    assert_eq!(volumes["/run/secrets/database"]["secret"], secret);
    assert_eq!(each(&pod.spec["volumes"]).count(), volumes.len());
    let policy = &of_kind(&objects, "NetworkPolicy").next().unwrap()["spec"];
    let ports: Vec<_> = each(&policy["egress"]).flat_map(|to| each(&to["ports"])).map(|port| &port["port"]).collect();
    assert_eq!(ports, [53, 53, 5353, 5353, 443, 5432]);
}

#[test]
fn replicas_are_on_different_nodes_and_all_but_one_stay_up_in_a_rollout_and_a_drain() {
    let objects = central(&["replicas"]);
    let deployment = of_kind(&objects, "Deployment").next().unwrap();
    let rollout = json!({"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}});
    assert_eq!((&deployment["spec"]["replicas"], &deployment["spec"]["strategy"]), (&json!(3), &rollout));
    let pod = only_pod(&objects);
    let [spread] = &pod.spec["topologySpreadConstraints"].as_array().unwrap()[..] else { panic!("{}", pod.spec) };
    assert_eq!(spread["topologyKey"], "kubernetes.io/hostname");
    // A cluster with fewer nodes runs all of them, too.
    assert_eq!(spread["whenUnsatisfiable"], "ScheduleAnyway");
    assert_eq!(spread["labelSelector"], deployment["spec"]["selector"]);
    assert_eq!(of_kind(&objects, "PodDisruptionBudget").next().unwrap()["spec"]["maxUnavailable"], 1);
}

#[test]
fn an_overlay_decides_how_many_replicas_there_are() {
    let mut own = kustomization(&["replicas"]);
    own["replicas"] = json!([{"name": "cekura-exporter", "count": 5}]);
    let objects = of_user(&[("kustomization.yaml", &own.to_string())]);
    assert_eq!(of_kind(&objects, "Deployment").next().unwrap()["spec"]["replicas"], 5);
    let example = rendered(&file("deploy/kubernetes/overlays/example-replicas"));
    assert_eq!(of_kind(&example, "Deployment").next().unwrap()["spec"]["replicas"], 3);
    assert_eq!(dangling(&example), [] as [String; 0]);
}

#[test]
fn tls_is_asked_for_wherever_it_is_served() {
    let objects = central(&["prometheus-operator", "scrape-annotations", "tls"]);
    let endpoint = &of_kind(&objects, "ServiceMonitor").next().unwrap()["spec"]["endpoints"][0];
    assert!(endpoint["scheme"] == "https" && endpoint["tlsConfig"]["ca"]["secret"]["key"] == "ca.crt", "{endpoint}");
    let deployment = of_kind(&objects, "Deployment").next().unwrap();
    let annotations = &deployment["spec"]["template"]["metadata"]["annotations"];
    assert_eq!(annotations["prometheus.io/scheme"], "https", "{annotations}");
    assert_eq!(annotations["prometheus.io/scrape"], "true", "{annotations}");
    let pod = only_pod(&objects);
    let args = &pod.exporter()["args"];
    assert!(each(args).any(|arg| arg == "--web.config.file=/etc/cekura-exporter-web/web.yaml"), "{args}");
}

/// The text of a file of the `ConfigMap` whose name begins so.
pub(super) fn text_of<'a>(objects: &'a [Value], map: &str, key: &str) -> &'a str {
    let map = of_kind(objects, "ConfigMap").find(|of| {
        let name = of["metadata"]["name"].as_str().unwrap();
        // With or without a hash.
        name == map || name.rsplit_once('-').is_some_and(|(name, hash)| name == map && hash.len() == 10)
    });
    map.unwrap_or_else(|| panic!("no such ConfigMap"))["data"][key].as_str().unwrap()
}

/// A database whose URL, password and authority are in a Secret.
pub(super) struct Database {
    postgres: Postgres,
    authority: Authority,
}

impl Database {
    pub(super) async fn start() -> Self {
        let authority = Authority::new("databases");
        Self { postgres: Postgres::with().tls(&authority.server(FAR)).start().await, authority }
    }

    /// The keys and values of the Secret that suits a configuration.
    fn secret(&self, config: &str) -> [(&'static str, String); 3] {
        let names_authority =
            config.lines().any(|line| line.trim_start().starts_with("ca_file: /run/secrets/database/"));
        let mode = if names_authority { "?sslmode=verify-full" } else { "" };
        let url = format!("{}{mode}", self.postgres.url());
        [("url", url), ("password", "hush".to_owned()), ("ca.crt", self.authority.pem())]
    }
}

/// Checks a configuration with the program, with the folders of a pod elsewhere.
pub(super) fn checked(config: &str, web: Option<&str>) {
    checked_with_secret(config, web, &[]);
}

/// As [`checked`], with a database.
pub(super) fn checked_with(database: &Database, config: &str) {
    checked_with_secret(config, None, &database.secret(config));
}

fn checked_with_secret(config: &str, web: Option<&str>, secret: &[(&str, String)]) {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).display().to_string();
    for name in ["state", "toggles", "tls", "secrets", "database"] {
        std::fs::create_dir(path(name)).unwrap();
    }
    for (key, value) in secret {
        std::fs::write(Path::new(&path("database")).join(key), value).unwrap();
    }
    let elsewhere = |text: &str| {
        text.replace("/var/lib/cekura-exporter", &path("state"))
            .replace("/run/secrets/cekura", &path("secrets"))
            .replace("/run/secrets/database", &path("database"))
            .replace("/toggles", &path("toggles"))
            .replace("/etc/tls", &path("tls"))
    };
    std::fs::write(path("secrets/api-key"), "key").unwrap();
    std::fs::write(path("config.yaml"), elsewhere(config)).unwrap();
    let pair = Authority::new("servers").server(FAR);
    std::fs::write(path("tls/tls.crt"), &pair.certificate).unwrap();
    std::fs::write(path("tls/tls.key"), &pair.key).unwrap();
    let mut args = vec!["--config.check".to_owned(), "--config.file".to_owned(), path("config.yaml")];
    if let Some(web) = web {
        std::fs::write(path("web.yaml"), elsewhere(web)).unwrap();
        args.extend(["--web.config.file".to_owned(), path("web.yaml")]);
    }
    let output = run(&args.iter().map(String::as_str).collect::<Vec<_>>(), &[]);
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said);
    assert!(output.status.success(), "{said}");
}

#[test]
fn the_program_accepts_each_configuration_that_is_shipped() {
    let tls = central(&["tls"]);
    checked(text_of(&tls, "cekura-exporter", "config.yaml"), Some(text_of(&tls, "cekura-exporter-web", "web.yaml")));
    let example = rendered(&file("deploy/kubernetes/overlays/example"));
    let config = text_of(&example, "cekura-exporter", "config.yaml");
    checked(config, None);
    // The one place where an overlay says what links begin with.
    assert!(config.contains("\nexternal_url: https://"), "{config}");
    let nightly = rendered(&file("deploy/kubernetes/overlays/example-cronjob"));
    checked(text_of(&nightly, "cekura-exporter-sidecar", "config.yaml"), None);
}

#[tokio::test]
async fn the_program_accepts_the_configuration_of_the_example_with_replicas() {
    let database = Database::start().await;
    let example = rendered(&file("deploy/kubernetes/overlays/example-replicas"));
    let config = text_of(&example, "cekura-exporter", "config.yaml");
    assert!(!config.contains("state_file"), "{config}");
    checked_with(&database, config);
    // The component says in a comment which lines a configuration needs.
    let component = std::fs::read_to_string(file("deploy/kubernetes/components/replicas/kustomization.yaml")).unwrap();
    let (_, lines) = component.split_once("instead of state_file:\n").unwrap();
    let lines: Vec<_> = lines.lines().map_while(|line| line.strip_prefix("#   ")).collect();
    assert_eq!(lines.first(), Some(&"database:"), "{lines:?}");
    for lines in [lines.join("\n"), lines.join("\n").replace("  # ", "  ")] {
        checked_with(&database, &lines);
    }
}

#[test]
fn the_rules_of_the_operator_are_the_rules() {
    let objects = central(&["prometheus-operator"]);
    let rule = of_kind(&objects, "PrometheusRule").next().unwrap();
    assert_eq!(
        rule["spec"],
        yaml("deploy/prometheus/rules.yaml"),
        "run deploy/kubernetes/components/prometheus-operator/generate"
    );
}

/// The overlays that are there to be copied, and their namespaces.
const EXAMPLES: [(&str, &str); 4] = [
    ("example", "cekura"),
    ("example-acme", "cekura"),
    ("example-replicas", "cekura"),
    ("example-cronjob", "voice-tests"),
];

#[test]
fn each_example_makes_its_namespace_which_demands_what_its_pods_are() {
    let streams = EXAMPLES.map(|(name, _)| built(&file(&format!("deploy/kubernetes/overlays/{name}"))));
    for ((example, namespace), objects) in EXAMPLES.into_iter().zip(all_validated(&streams)) {
        assert_eq!(dangling(&objects), [] as [String; 0], "{example}");
        let pod = only_pod(&objects);
        hardened(&pod);
        let problems: Vec<_> = pod.containers().flat_map(|container| unrestricted(&pod, container)).collect();
        assert_eq!(problems, [] as [String; 0], "{example}");
        for of in &objects {
            if of["kind"] == "Namespace" {
                assert_eq!(of["metadata"]["name"], namespace, "{example}");
                assert_eq!(of["metadata"]["labels"]["pod-security.kubernetes.io/enforce"], "restricted", "{example}");
            } else {
                assert_eq!(of["metadata"]["namespace"], namespace, "{example}: {}", name(of));
            }
        }
        assert_eq!(of_kind(&objects, "Namespace").count(), 1, "{example}");
    }
}

#[test]
fn a_patch_adds_the_label_by_which_a_prometheus_selects() {
    let component =
        std::fs::read_to_string(file("deploy/kubernetes/components/prometheus-operator/kustomization.yaml"));
    let lines = component.unwrap();
    let patch: Vec<_> = lines.lines().filter_map(|line| line.strip_prefix("#   ")).collect();
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("patch.yaml"), patch.join("\n")).unwrap();
    let patch = yaml(folder.path().join("patch.yaml").to_str().unwrap());
    let mut own = kustomization(&["prometheus-operator"]);
    own["patches"] = patch["patches"].clone();
    let objects = of_user(&[("kustomization.yaml", &own.to_string())]);
    let labelled: Vec<_> =
        objects.iter().filter(|of| of["metadata"]["labels"]["release"] == "prometheus").map(name).collect();
    assert_eq!(
        labelled,
        ["PodMonitor cekura-exporter-sidecars", "PrometheusRule cekura-exporter", "ServiceMonitor cekura-exporter"]
    );
}

#[test]
fn the_certificate_of_cert_manager_is_the_one_that_is_served_and_expected() {
    for (example, issuer, host, verified_with) in [
        ("example", "internal", "cekura-exporter", Some("ca.crt")),
        ("example-acme", "letsencrypt", "cekura-exporter.example.com", None),
    ] {
        let objects = rendered(&file(&format!("deploy/kubernetes/overlays/{example}")));
        let one = |kind| &of_kind(&objects, kind).next().unwrap()["spec"];
        let certificate = one("Certificate");
        assert_eq!(certificate["issuerRef"]["name"], issuer);
        assert_eq!(only_pod(&objects).volume(&json!("tls"))["secret"]["secretName"], certificate["secretName"]);
        let expected = &one("ServiceMonitor")["endpoints"][0]["tlsConfig"];
        assert_eq!((&expected["serverName"], &certificate["dnsNames"][0]), (&json!(host), &json!(host)));
        assert_eq!(expected["ca"]["secret"]["key"].as_str(), verified_with, "{example}");
    }
}

#[test]
fn a_changed_configuration_reaches_the_pod_without_a_new_one() {
    let pod = |interval: &str| {
        let config = format!("polling: {{min_interval: {interval}}}\n");
        let objects = parsed(&built_central(&["tls"], Some(&config)));
        let pod = only_pod(&objects);
        (pod.spec.clone(), pod.exporter()["args"].clone())
    };
    let (before, after) = (pod("5s"), pod("7s"));
    assert_eq!(before, after);
    assert!(each(&after.1).any(|arg| arg == "--config.auto-reload"), "{}", after.1);
}

#[test]
fn the_registrations_of_the_default_fit_the_memory_limits() {
    let max = yaml("config.yaml")["registrations"]["max"].as_u64().unwrap();
    // What docs/operations.md says that they take at most.
    let needed = 64 + max * 6 / 1024;
    let mib = |limit: &str| limit.trim_end_matches(['M', 'i']).parse::<u64>().unwrap();
    let base = central(&[]);
    let chart = yaml("deploy/helm/cekura-exporter/values.yaml")["resources"]["limits"]["memory"].clone();
    let unit = std::fs::read_to_string(file("deploy/systemd/cekura-exporter.service")).unwrap();
    let unit = unit.lines().find_map(|line| line.strip_prefix("MemoryMax=")).unwrap().to_owned();
    let pod = only_pod(&base);
    let limits = [&pod.exporter()["resources"]["limits"]["memory"], &chart, &json!(unit)];
    for limit in limits.map(|limit| limit.as_str().unwrap()) {
        assert!(mib(limit) >= needed, "{limit} < {needed}");
    }
}

#[test]
fn images_are_of_the_version() {
    for objects in [central(&[]), rendered(&file("deploy/kubernetes/overlays/example-cronjob"))] {
        let image = only_pod(&objects).exporter()["image"].as_str().unwrap().to_owned();
        let expected = format!("cekura-exporter:{}", env!("CARGO_PKG_VERSION"));
        assert_eq!(image.rsplit_once('/').map_or(image.as_str(), |(_, name)| name), expected);
    }
}

/// What somebody has who never heard of the exporter, of any kind that has pods.
fn strangers(kind: &str) -> Value {
    let pod = json!({
        "metadata": {"labels": {"app": "theirs"}},
        "spec": {
            "restartPolicy": if kind.contains("Job") { "Never" } else { "Always" },
            "securityContext": {"runAsUser": 1000, "fsGroup": 2000},
            "initContainers": [{"name": "migrate", "image": "theirs:1"}],
            "containers": [
                {"name": "tests", "image": "theirs:1", "ports": [{"name": "metrics", "containerPort": 9090}],
                 "volumeMounts": [{"name": "scratch", "mountPath": "/scratch"}, {"name": "cekura-toggles", "mountPath": "/toggles"}]},
                {"name": "proxy", "image": "theirs:1"},
            ],
            "volumes": [{"name": "scratch", "emptyDir": {}}],
        },
    });
    let (version, spec) = match kind {
        "Pod" => ("v1", pod["spec"].clone()),
        "Job" => ("batch/v1", json!({"template": pod, "backoffLimit": 3})),
        "CronJob" => ("batch/v1", json!({"schedule": "@daily", "jobTemplate": {"spec": {"template": pod}}})),
        "Deployment" => ("apps/v1", json!({"selector": {"matchLabels": {"app": "theirs"}}, "template": pod})),
        "StatefulSet" => (
            "apps/v1",
            json!({"selector": {"matchLabels": {"app": "theirs"}}, "serviceName": "theirs", "template": pod}),
        ),
        _ => unreachable!("{kind}"),
    };
    let metadata = json!({"name": "theirs", "labels": {"app": "theirs", "cekura-exporter/sidecar": "true"}});
    json!({"apiVersion": version, "kind": kind, "metadata": metadata, "spec": spec})
}

const KINDS: [&str; 5] = ["Pod", "Job", "CronJob", "Deployment", "StatefulSet"];

/// A stranger's object with the sidecar.
fn accompanied(theirs: &Value) -> Vec<Value> {
    parsed(&built_accompanied(theirs))
}

fn built_accompanied(theirs: &Value) -> Vec<u8> {
    let kustomization = json!({"resources": ["theirs.yaml"], "components": ["../kubernetes/components/sidecar"]});
    built_of_user(&[("kustomization.yaml", &kustomization.to_string()), ("theirs.yaml", &theirs.to_string())])
}

#[test]
fn a_sidecar_joins_whatever_has_pods_and_changes_nothing_else_of_it() {
    for kind in KINDS {
        let theirs = strangers(kind);
        let objects = all_validated(&[built_accompanied(&theirs)]).concat();
        assert_eq!(dangling(&objects), [] as [String; 0], "{kind}");
        let pod = only_pod(&objects);
        hardened(&pod);
        assert_eq!(pod.labels["cekura-exporter/sidecar"], "true", "{kind}");
        let sidecar = &pod.spec["initContainers"][0];
        assert_eq!(
            (&sidecar["name"], &sidecar["restartPolicy"]),
            (&json!("cekura-exporter"), &json!("Always")),
            "{kind}"
        );
        // A sidecar that is not ready must not take their pod out of a Service.
        assert!(sidecar["readinessProbe"].is_null() && sidecar["startupProbe"].is_object(), "{kind}");

        // Without what was added, it is theirs again.
        let mut without = of_kind(&objects, kind).next().unwrap().clone();
        let path = match kind {
            "Pod" => "",
            "CronJob" => "/spec/jobTemplate/spec/template",
            _ => "/spec/template",
        };
        let template = without.pointer_mut(path).unwrap();
        let spec = template["spec"].as_object_mut().unwrap();
        assert_eq!(spec.remove("terminationGracePeriodSeconds"), Some(json!(90)), "{kind}");
        spec["initContainers"].as_array_mut().unwrap().remove(0);
        spec["volumes"]
            .as_array_mut()
            .unwrap()
            .retain(|volume| !volume["name"].as_str().unwrap().starts_with("cekura-"));
        let is_pod = kind == "Pod";
        if !is_pod {
            template["metadata"]["labels"].as_object_mut().unwrap().remove("cekura-exporter/sidecar");
        }
        assert_eq!(without, theirs, "{kind}");
    }
}

#[test]
fn the_sidecar_is_the_same_whatever_it_joins() {
    let added = KINDS.map(|kind| {
        let objects = accompanied(&strangers(kind));
        let pod = only_pod(&objects);
        (pod.exporter().clone(), pod.spec["volumes"].clone())
    });
    assert!(added.iter().all(|other| *other == added[0]), "{added:#?}");
}

#[test]
fn a_sidecar_has_time_to_linger() {
    let objects = accompanied(&strangers("Job"));
    let config = text_of(&objects, "cekura-exporter-sidecar", "config.yaml");
    let linger: u64 = config.split("linger: ").nth(1).unwrap().trim().strip_suffix('s').unwrap().parse().unwrap();
    let grace = only_pod(&objects).spec["terminationGracePeriodSeconds"].as_u64().unwrap();
    assert!(linger >= 30 && grace > linger + 10, "{linger} {grace}");
}

#[test]
fn what_has_no_label_gets_no_sidecar() {
    let mut theirs = strangers("Job");
    theirs["metadata"]["labels"].as_object_mut().unwrap().remove("cekura-exporter/sidecar");
    let kustomization = json!({"resources": ["theirs.yaml"], "components": ["../kubernetes/components/sidecar"]});
    // What it mounts is not there then, which Kubernetes refuses; nothing runs without the exporter unseen.
    let objects = of_user(&[("kustomization.yaml", &kustomization.to_string()), ("theirs.yaml", &theirs.to_string())]);
    assert_eq!(of_kind(&objects, "Job").next(), Some(&theirs));
}

#[test]
fn the_operator_finds_sidecars_and_the_alerts_know_them() {
    let objects = central(&["prometheus-operator"]);
    let monitor = &of_kind(&objects, "PodMonitor").next().unwrap()["spec"];
    for kind in KINDS {
        let accompanied = accompanied(&strangers(kind));
        let pod = only_pod(&accompanied);
        assert!(selects(&monitor["selector"]["matchLabels"], pod.labels), "{kind}");
        let port = &monitor["podMetricsEndpoints"][0]["port"];
        assert!(each(&pod.exporter()["ports"]).any(|own| own["name"] == *port), "{kind}: {port}");
    }
    let job = monitor["podMetricsEndpoints"][0]["relabelings"][0]["replacement"].as_str().unwrap();
    assert!(job.contains("sidecar"), "the rules tell sidecars by the name of their job, and this is {job}");
}

#[test]
fn the_worked_example_is_restricted_and_whole() {
    let objects = rendered(&file("deploy/kubernetes/overlays/example-cronjob"));
    assert_eq!(dangling(&objects), [] as [String; 0]);
    let pod = only_pod(&objects);
    hardened(&pod);
    let problems: Vec<_> = pod.containers().flat_map(|container| unrestricted(&pod, container)).collect();
    assert_eq!(problems, [] as [String; 0]);
    let cron_job = of_kind(&objects, "CronJob").next().unwrap();
    assert_eq!(cron_job["spec"]["concurrencyPolicy"], "Forbid", "{}", name(cron_job));
    let tests = each(&pod.spec["containers"]).next().unwrap();
    let mounts: Vec<_> = each(&tests["volumeMounts"]).map(|mount| &mount["name"]).collect();
    assert!(mounts.contains(&&json!("cekura-toggles")), "{mounts:?}");
    for mount in mounts {
        pod.volume(mount);
    }
}
