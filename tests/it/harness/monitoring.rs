//! What scrapes an exporter, stores the samples and evaluates the rules.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::server::{Place, Server};
use super::{Exporter, newest_tool, tool};

/// The programs that scrape, store and evaluate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scraper {
    /// Debian's Prometheus, the oldest that the exporter is for.
    Prometheus2,
    /// The newest Prometheus there is.
    Prometheus3,
    /// vmagent, `VictoriaMetrics` and vmalert.
    VictoriaMetrics,
}

/// Running ones. Dropping it kills them.
pub(crate) struct Monitoring {
    /// What stores the samples and answers queries.
    store: Server,
    /// What evaluates the rules, if that is another program and there are any.
    evaluator: Option<Server>,
    /// What scrapes, if that is another program.
    _agent: Option<Server>,
}

// === impl Monitoring ===

impl Monitoring {
    /// Scrapes an exporter and evaluates these rules, both once a second.
    pub(crate) async fn scraping(scraper: Scraper, exporter: &Exporter, rules: &Path) -> Self {
        let job = json!({"job_name": "cekura-exporter", "static_configs": [{"targets": [exporter.address()]}]});
        Self::with(scraper, &json!({"rule_files": [rules], "scrape_configs": [job]})).await
    }

    /// Scrapes and evaluates once a second as this configuration of Prometheus says.
    pub(crate) async fn with(scraper: Scraper, config: &Value) -> Self {
        match scraper {
            Scraper::Prometheus2 => Self::prometheus(tool("prometheus"), config).await,
            Scraper::Prometheus3 => Self::prometheus(newest_tool("prometheus"), config).await,
            Scraper::VictoriaMetrics => Self::victoria_metrics(config).await,
        }
    }

    async fn prometheus(program: PathBuf, config: &Value) -> Self {
        let mut config = config.clone();
        config["global"] = json!({"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"});
        let args = |place: &Place| {
            vec![
                format!("--config.file={}", write(place, "prometheus.yaml", &config).display()),
                format!("--storage.tsdb.path={}", place.folder.join("data").display()),
                format!("--web.listen-address={}", place.address),
                format!("--web.route-prefix={}", place.prefix),
            ]
        };
        Self { store: Server::start(program, args).await, evaluator: None, _agent: None }
    }

    async fn victoria_metrics(config: &Value) -> Self {
        let serving = |place: &Place| {
            // Each of them would take most of the machine's memory for its caches.
            [format!("-httpListenAddr={}", place.address), format!("-http.pathPrefix={}", place.prefix)]
                .into_iter()
                .chain(["-memory.allowedBytes=64MB".to_owned()])
        };
        let store = Server::start(newest_tool("victoria-metrics"), |place| {
            // What came in is seen at once, and not after half a minute.
            let args = [
                format!("-storageDataPath={}", place.folder.join("data").display()),
                "-search.latencyOffset=0s".to_owned(),
                "-search.disableCache".to_owned(),
            ];
            serving(place).chain(args).collect()
        })
        .await;
        let evaluator = if config["rule_files"].is_array() {
            let evaluator = Server::start(newest_tool("vmalert"), |place| {
                let rules = config["rule_files"].as_array().unwrap().iter();
                let rules = rules.map(|file| format!("-rule={}", file.as_str().unwrap()));
                // It is told of one Alertmanager as Prometheus is.
                let notifier = match &config["alerting"]["alertmanagers"][0] {
                    Value::Null => "-notifier.blackhole".to_owned(),
                    one => format!("-notifier.config={}", write(place, "notifier.yaml", one).display()),
                };
                let args = [
                    format!("-datasource.url={}", store.url("")),
                    format!("-remoteRead.url={}", store.url("")),
                    format!("-remoteWrite.url={}", store.url("")),
                    "-remoteWrite.flushInterval=1s".to_owned(),
                    "-evaluationInterval=1s".to_owned(),
                    "-rule.evalDelay=0s".to_owned(),
                    notifier,
                ];
                serving(place).chain(rules).chain(args).collect()
            });
            Some(evaluator.await)
        } else {
            None
        };
        let agent = Server::start(newest_tool("vmagent"), |place| {
            let global = json!({"scrape_interval": "1s", "scrape_timeout": "1s"});
            let config = json!({"global": global, "scrape_configs": config["scrape_configs"]});
            let args = [
                format!("-promscrape.config={}", write(place, "vmagent.yaml", &config).display()),
                format!("-remoteWrite.url={}", store.url("/api/v1/write")),
                format!("-remoteWrite.tmpDataPath={}", place.folder.join("queue").display()),
            ];
            serving(place).chain(args).collect()
        })
        .await;
        Self { store, evaluator, _agent: Some(agent) }
    }

    /// The alerts that fire.
    pub(crate) async fn firing(&self) -> Vec<Value> {
        let evaluator = self.evaluator.as_ref().unwrap_or(&self.store);
        let answer = evaluator.get("/api/v1/alerts").await.unwrap_or_default();
        let alerts = answer["data"]["alerts"].as_array().cloned().unwrap_or_default();
        alerts.into_iter().filter(|alert| alert["state"] == "firing").collect()
    }

    /// The series that an expression yields now.
    pub(crate) async fn query(&self, expression: &str) -> Vec<Value> {
        let query: String = url::form_urlencoded::byte_serialize(expression.as_bytes()).collect();
        let data = self.get(&format!("/api/v1/query?query={query}")).await.unwrap_or_default();
        data["result"].as_array().cloned().unwrap_or_default()
    }

    /// The data of an answer of the API for queries; none while it does not answer.
    pub(crate) async fn get(&self, path: &str) -> Option<Value> {
        Some(self.store.get(path).await?["data"].take())
    }
}

/// Writes a file for a server. JSON is YAML.
fn write(place: &Place, name: &str, text: &Value) -> PathBuf {
    let file = place.folder.join(name);
    std::fs::write(&file, text.to_string()).unwrap();
    file
}
