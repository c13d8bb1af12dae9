//! The demo as a compose file.

use std::process::Command;

use serde_json::Value;

use super::pods::each;
use super::{file, printed, yaml};
use crate::harness::tool;

/// The compose file as docker compose understands it.
fn understood() -> Value {
    let mut compose = Command::new(tool("docker-compose"));
    compose.arg("--file").arg(file("deploy/compose/compose.yaml")).args(["config", "--format", "json"]);
    serde_json::from_str(&printed(compose.env_clear())).unwrap()
}

#[test]
fn every_service_is_pinned_hardened_and_for_this_machine_alone() {
    let compose = understood();
    let services = compose["services"].as_object().unwrap();
    assert_eq!(services.keys().collect::<Vec<_>>(), ["alertmanager", "exporter", "grafana", "prometheus"]);
    for (name, service) in services {
        let image = service["image"].as_str().unwrap();
        let tag = image.rsplit_once(':').unwrap_or_else(|| panic!("{name} takes any {image}")).1;
        assert!(tag.matches('.').count() == 2, "{name} takes any {image}");
        assert_eq!((&service["read_only"], &service["cap_drop"][0]), (&true.into(), &"ALL".into()), "{name}");
        assert_eq!(service["security_opt"][0], "no-new-privileges:true", "{name}");
        for port in each(&service["ports"]) {
            assert_eq!(port["host_ip"], "127.0.0.1", "{name}: {port}");
        }
    }
    // By itself the demo listens for its own container alone.
    assert_eq!(services["exporter"]["command"], serde_json::json!(["--demo", "--web.listen-address=:10058"]));
    assert_eq!(services["exporter"]["image"], format!("cekura-exporter:{}", env!("CARGO_PKG_VERSION")));
    let build = &services["exporter"]["build"];
    let context = std::path::Path::new(build["context"].as_str().unwrap());
    assert!(context.join(build["dockerfile"].as_str().unwrap()).is_file(), "{build}");
}

#[test]
fn every_file_that_is_mounted_is_shipped() {
    let compose = understood();
    let mounts = compose["services"].as_object().unwrap().values().flat_map(|service| each(&service["volumes"]));
    let files: Vec<_> = mounts.filter(|mount| mount["type"] == "bind").collect();
    assert!(files.len() >= 4, "{files:?}");
    for mount in files {
        let source = std::path::Path::new(mount["source"].as_str().unwrap());
        // Docker makes a folder of what is not there, and says nothing.
        assert!(source.is_file() && source.starts_with(file("deploy")), "{mount}");
        assert_eq!(mount["read_only"], true, "{mount}");
    }
}

#[test]
fn its_prometheus_takes_its_configuration_and_the_rules() {
    let folder = tempfile::tempdir().unwrap();
    let shipped = std::fs::read_to_string(file("deploy/compose/prometheus.yml")).unwrap();
    let rules = file("deploy/prometheus/rules.yaml").display().to_string();
    assert!(shipped.contains("/etc/prometheus/rules.yaml"));
    let config = folder.path().join("prometheus.yml");
    std::fs::write(&config, shipped.replace("/etc/prometheus/rules.yaml", &rules)).unwrap();
    let said = printed(Command::new(tool("promtool")).args(["check", "config"]).arg(config));
    assert!(said.contains("rules found"), "{said}");
}

#[test]
fn links_in_its_alerts_lead_to_where_the_exporter_is_published() {
    let instance =
        &yaml("deploy/compose/prometheus.yml")["scrape_configs"][0]["static_configs"][0]["labels"]["instance"];
    let port = &understood()["services"]["exporter"]["ports"][0];
    assert_eq!(instance.as_str().unwrap(), format!("localhost:{}", port["published"].as_str().unwrap()));
}
