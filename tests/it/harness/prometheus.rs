//! A real Prometheus.

use std::net::{Ipv4Addr, TcpListener};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;

use super::exporter::keep_text;
use super::{Exporter, eventually, tool};

/// A running Prometheus. Dropping it kills it.
pub(crate) struct Prometheus {
    child: Child,
    errors: Arc<Mutex<String>>,
    url: String,
    http: reqwest::Client,
    folder: TempDir,
}

impl Prometheus {
    /// A Prometheus that scrapes an exporter and evaluates these rules, both once a second.
    pub(crate) async fn scraping(exporter: &Exporter, rules: &Path) -> Self {
        let job = json!({"job_name": "cekura-exporter", "static_configs": [{"targets": [exporter.address()]}]});
        Self::with(&json!({"rule_files": [rules], "scrape_configs": [job]})).await
    }

    /// A Prometheus with this configuration, which scrapes and evaluates once a second.
    pub(crate) async fn with(config: &Value) -> Self {
        let mut config = config.clone();
        config["global"] = json!({"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"});
        loop {
            let mut prometheus = Self::spawn(&config);
            if prometheus.serves().await {
                return prometheus;
            }
        }
    }

    /// It cannot be told to take any free port, so it gets one that was free a moment ago.
    fn spawn(config: &Value) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let config_file = folder.path().join("prometheus.yaml");
        // JSON is YAML.
        std::fs::write(&config_file, config.to_string()).unwrap();
        let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = free.local_addr().unwrap();
        drop(free);
        let mut child = Command::new(tool("prometheus"))
            .env_clear()
            .arg(format!("--config.file={}", config_file.display()))
            .arg(format!("--storage.tsdb.path={}", folder.path().join("data").display()))
            .arg(format!("--web.listen-address={address}"))
            .current_dir(folder.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let errors = Arc::new(Mutex::new(String::new()));
        keep_text(child.stderr.take().unwrap(), errors.clone());
        // It may be there already: the tests of one process share it.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let http = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(20)).build().unwrap();
        Self { child, errors, url: format!("http://{address}"), http, folder }
    }

    /// Waits until it serves; false if its port was taken meanwhile.
    async fn serves(&mut self) -> bool {
        let folder = self.folder.path().canonicalize().unwrap();
        let ended = eventually("Prometheus serves", async || {
            // Who took the port may be a Prometheus, too. Ours runs in our folder.
            let info = self.get("/api/v1/status/runtimeinfo").await;
            if info.is_some_and(|info| info["CWD"].as_str().map(Path::new) == Some(&folder)) {
                return Some(false);
            }
            self.child.try_wait().unwrap().map(|_| true)
        })
        .await;
        if ended {
            eventually("Prometheus says that its port is taken", async || {
                self.errors.lock().unwrap().contains("address already in use").then_some(())
            })
            .await;
        }
        !ended
    }

    /// The alerts that fire.
    pub(crate) async fn firing(&self) -> Vec<Value> {
        let data = self.get("/api/v1/alerts").await.unwrap_or_default();
        let alerts = data["alerts"].as_array().cloned().unwrap_or_default();
        alerts.into_iter().filter(|alert| alert["state"] == "firing").collect()
    }

    /// The series that an expression yields now.
    pub(crate) async fn query(&self, expression: &str) -> Vec<Value> {
        let query: String = url::form_urlencoded::byte_serialize(expression.as_bytes()).collect();
        let data = self.get(&format!("/api/v1/query?query={query}")).await.unwrap_or_default();
        data["result"].as_array().cloned().unwrap_or_default()
    }

    /// The data of an answer of its API; none while it does not answer.
    pub(crate) async fn get(&self, path: &str) -> Option<Value> {
        let response = self.http.get(format!("{}{path}", self.url)).send().await.ok()?;
        let mut answer: Value = serde_json::from_str(&response.text().await.ok()?).ok()?;
        Some(answer["data"].take())
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("Prometheus:\n{}", self.errors.lock().unwrap());
        }
    }
}
