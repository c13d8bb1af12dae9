//! What somebody sees who installs the chart: its README, its notes and its test.

use std::process::Command;

use serde_json::{Value, json};

use super::super::pods::{each, of_kind, pods, unrestricted};
use super::super::{all_validated, file, parsed, validated, yaml};
use super::{CHART, HELMS, helm, rendered, try_rendering};
use crate::harness::{Authority, Exporter, FAR, TLS, Upstream, tool};

/// The fenced blocks of a language in the README of the chart, without their indentation.
fn blocks(language: &str) -> Vec<String> {
    let readme = std::fs::read_to_string(file(&format!("{CHART}/README.md"))).unwrap();
    let mut blocks = Vec::new();
    let mut open: Option<Vec<String>> = None;
    for line in readme.lines() {
        let text = line.trim_start();
        if text == format!("```{language}") {
            open = Some(Vec::new());
        } else if text == "```" {
            blocks.extend(open.take().map(|lines| lines.join("\n")));
        } else if let Some(lines) = &mut open {
            lines.push(line.strip_prefix("   ").unwrap_or(line).to_owned());
        }
    }
    blocks
}

#[test]
fn all_values_in_the_readme_of_the_chart_make_valid_objects() {
    let folder = tempfile::tempdir().unwrap();
    let values = blocks("yaml").into_iter().map(|text| {
        let path = folder.path().join("values.yaml");
        std::fs::write(&path, text).unwrap();
        yaml(path.to_str().unwrap())
    });
    let values: Vec<_> = values.collect();
    assert!(values.len() >= 6, "{values:?}");
    let streams: Vec<_> =
        values.iter().map(|values| try_rendering(&file(CHART), "cekura-exporter", values).unwrap()).collect();
    let objects = all_validated(&streams);
    let of_operator: Vec<_> =
        ["ServiceMonitor", "PodMonitor", "PrometheusRule"].iter().flat_map(|kind| of_kind(&objects[0], kind)).collect();
    assert_eq!(of_operator.len(), 3);
    for of in of_operator {
        assert_eq!(of["metadata"]["labels"]["release"], "prometheus");
    }
    // A limit that is raised in the README is raised as the README says.
    let raised = values.iter().find(|values| values["config"]["registrations"]["max"].is_number()).unwrap();
    let (max, limit) = (&raised["config"]["registrations"]["max"], &raised["resources"]["limits"]["memory"]);
    let mib: u64 = limit.as_str().unwrap().strip_suffix("Mi").unwrap().parse().unwrap();
    assert!(mib * 1024 >= 64 * 1024 + 6 * max.as_u64().unwrap(), "{max} {limit}");
}

#[test]
fn the_commands_of_the_readme_of_the_chart_are_those_of_helm() {
    let commands = blocks("sh").join("\n");
    for (command, chart) in
        [("helm install", true), ("helm upgrade", true), ("helm test", false), ("helm uninstall", false)]
    {
        let line = commands.lines().find(|line| line.starts_with(command)).unwrap_or_else(|| panic!("no {command}"));
        assert_eq!(line.contains("deploy/helm/cekura-exporter"), chart, "{line}");
        assert!(line.contains("--namespace cekura"), "{line}");
        for program in HELMS {
            let [_, subcommand, ..] = line.split(' ').collect::<Vec<_>>()[..] else { panic!("{line}") };
            let help = Command::new(tool(program)).args([subcommand, "--help"]).output().unwrap();
            assert!(String::from_utf8_lossy(&help.stdout).contains(&format!("helm {subcommand} ")), "{program} {line}");
        }
    }
}

/// What is said after an installation with these values.
fn notes(values: &Value) -> String {
    // Helm 3 asks a cluster for its version first.
    let args =
        ["install", "cekura-exporter", &file(CHART).display().to_string(), "--dry-run=client", "--namespace", "cekura"];
    let output = helm(HELMS[1], &args, values);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let said = String::from_utf8(output.stdout).unwrap();
    said.split_once("\nNOTES:\n").unwrap_or_else(|| panic!("no notes in\n{said}")).1.to_owned()
}

#[test]
fn the_notes_say_what_is_missing() {
    let missing = |values: &Value| -> Vec<String> {
        let said = notes(values);
        let lines = said.lines().filter(|line| line.starts_with("MISSING"));
        lines.map(|line| line.split_inclusive(['.', ',', ':']).take(2).collect::<String>()).collect()
    };
    let [key, scraper, rules, certificate] = [
        "MISSING: the key of the API default,",
        "MISSING: nothing scrapes it,",
        "MISSING: the alerts.",
        "MISSING: the Secret cekura-exporter-tls with tls.",
    ];
    let enabled = json!({"enabled": true});
    assert_eq!(missing(&json!({})), [key, scraper, rules]);
    assert_eq!(missing(&json!({"serviceMonitor": enabled, "prometheusRule": enabled})), [key]);
    assert_eq!(missing(&json!({"scrapeAnnotations": enabled, "tls": enabled})), [key, certificate, rules]);
    let database = json!({"existingSecret": "cekura-database"});
    let of_database = "MISSING: the Secret cekura-database with the URL of the database in its key url,";
    let routed = json!({"enabled": true, "hosts": [{"host": "a.example.com"}]});
    let values =
        json!({"scrapeAnnotations": enabled, "prometheusRule": enabled, "database": database, "ingress": routed});
    assert_eq!(missing(&values), [key, of_database, "MISSING: networkPolicy."]);
    let issued = json!({"enabled": true, "certificate": {"enabled": true, "issuerRef": {"name": "internal"}}});
    assert_eq!(missing(&json!({"scrapeAnnotations": enabled, "tls": issued})), [key, rules]);
    assert_eq!(missing(&json!({"central": {"enabled": false}, "prometheusRule": enabled})), [""; 0]);
}

#[test]
fn the_notes_say_how_to_check_that_it_is_scraped_and_what_a_rollout_breaks_off() {
    let monitored = notes(&json!({"serviceMonitor": {"enabled": true}}));
    for text in [
        r#"up{namespace="cekura",job="cekura-exporter"} must be 1"#,
        "set serviceMonitor.labels",
        "set networkPolicy.scrapers",
        "helm test cekura-exporter --namespace cekura",
        "Jobs that wait at that moment must ask again",
        "no login is required",
        "Set externalUrl",
    ] {
        assert!(monitored.contains(text), "{text}\n{monitored}");
    }
    let several =
        notes(&json!({"database": {"existingSecret": "cekura-database"}, "externalUrl": "https://a.example.com"}));
    for text in ["must ask again", "Set externalUrl"] {
        assert!(!several.contains(text), "{text}\n{several}");
    }
}

/// The pod with which `helm test` tests a release.
fn test_pod(values: &Value) -> Value {
    let args = ["template", "cekura-exporter", &file(CHART).display().to_string(), "--namespace", "cekura"];
    let [old, new] = HELMS.map(|program| parsed(&helm(program, &args, values).stdout));
    assert_eq!(old, new);
    new.into_iter().find(|of| of["metadata"]["annotations"]["helm.sh/hook"] == "test").unwrap()
}

#[test]
fn the_test_is_a_restricted_pod_that_the_network_policy_admits_and_no_service_selects() {
    let values = json!({"test": {"image": "registry.example.com/busybox:1"}, "imagePullSecrets": [{"name": "pull"}]});
    let pod = test_pod(&values);
    let objects = validated(pod.to_string().as_bytes());
    let [pod] = &pods(&objects)[..] else { panic!("{objects:?}") };
    let container = pod.containers().next().unwrap();
    assert_eq!(unrestricted(pod, container), [] as [String; 0]);
    assert_eq!(container["image"], "registry.example.com/busybox:1");
    assert_eq!(pod.spec["imagePullSecrets"], json!([{"name": "pull"}]));
    assert_eq!(pod.labels["cekura-exporter/client"], "true");
    let service = rendered(&values);
    let selector = of_kind(&service, "Service").next().unwrap()["spec"]["selector"].clone();
    assert!(!super::selects(&selector, pod.labels), "{selector}");
}

/// Runs the script of the test with the wget of busybox, at this address instead of the Service. Returns whether it
/// succeeded, and what it printed.
async fn tested(values: &Value, exporter: &Exporter) -> (bool, String) {
    let pod = test_pod(values);
    let container = &pod["spec"]["containers"][0];
    let script = container["args"][0].as_str().unwrap();
    let scheme = if values["tls"]["enabled"] == true { "https" } else { "http" };
    let service = format!("{scheme}://cekura-exporter.cekura:10058/");
    assert!(script.contains(&service[..service.len() - 1]), "{script}");
    let script = script.replace(&service[..service.len() - 1], &format!("{scheme}://{}", exporter.address()));
    assert_eq!(container["command"], json!(["/bin/sh", "-euc"]));
    let mut command = tokio::process::Command::new(tool("busybox"));
    let output = command.args(["sh", "-euc", &script]).env_clear().output().await.unwrap();
    (output.status.success(), String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned())
}

#[tokio::test]
async fn the_test_asks_an_exporter_for_its_metrics_and_fails_if_it_does_not_answer() {
    let upstream = Upstream::start().await;
    let exporter = Exporter::polling(&upstream, "  - {agent_id: 1, progress_id: p}\n").start().await;
    let (succeeded, said) = tested(&json!({}), &exporter).await;
    assert!(succeeded && said.contains("cekura_exporter_build_info{"), "{said}");
    let servers = Authority::new("servers");
    let users = json!({"prometheus": bcrypt::hash("scrapes", 4).unwrap()});
    let start = Exporter::polling(&upstream, "  - {agent_id: 1, progress_id: p}\n");
    let start = start.web(&format!("{TLS}basic_auth_users: {users}\n")).server(&servers.server(FAR));
    let client = crate::harness::Client::trusting(&servers).logged_in("prometheus", "scrapes");
    let protected = start.client(&client).start().await;
    let login = json!({"tls": {"enabled": true}, "webConfig": {"existingSecret": "web"}});
    let (succeeded, said) = tested(&login, &protected).await;
    assert!(succeeded, "{said}");
    // Without a login it is refused, and it is no exporter over plain HTTP.
    for values in [json!({"tls": {"enabled": true}}), json!({})] {
        let (succeeded, said) = tested(&values, &protected).await;
        assert!(!succeeded, "{values}: {said}");
    }
}

#[test]
fn the_dashboard_is_a_config_map_that_grafana_finds() {
    let objects = rendered(&json!({"dashboard": {"enabled": true, "annotations": {"grafana_folder": "Voice"}}}));
    let map =
        of_kind(&objects, "ConfigMap").find(|map| map["metadata"]["name"] == "cekura-exporter-dashboard").unwrap();
    assert_eq!(map["metadata"]["labels"]["grafana_dashboard"], "1");
    assert_eq!(map["metadata"]["annotations"], json!({"grafana_folder": "Voice"}));
    let shipped = std::fs::read_to_string(file("deploy/grafana/dashboard.json")).unwrap();
    assert_eq!(map["data"], json!({"cekura-exporter.json": shipped}));
    // kubectl apply keeps a copy in an annotation, which may have 256 KiB.
    assert!(map.to_string().len() < 200_000, "{}", map.to_string().len());
}

#[test]
fn a_route_and_an_ingress_lead_to_the_port_of_the_service() {
    let objects = rendered(&json!({
        "fullnameOverride": "full", "service": {"port": 80}, "ingress": {"enabled": true, "hosts": [{"host": "a.example.com"}]},
        "httpRoute": {"enabled": true, "parentRefs": [{"name": "public"}]},
    }));
    let one = |kind| &of_kind(&objects, kind).next().unwrap()["spec"];
    let service = one("Service");
    assert_eq!(
        one("HTTPRoute")["rules"][0]["backendRefs"],
        json!([{"name": "full", "port": service["ports"][0]["port"]}])
    );
    let backend = &one("Ingress")["rules"][0]["http"]["paths"][0]["backend"]["service"];
    assert_eq!(backend, &json!({"name": "full", "port": {"name": service["ports"][0]["name"]}}));
    assert_eq!(each(&service["ports"]).count(), 1);
}
