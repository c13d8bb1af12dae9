//! A real Alertmanager, and who it notifies.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use http_body_util::BodyExt;
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tempfile::TempDir;

use super::exporter::keep_text;
use super::{eventually, tool};

/// A running Alertmanager. Dropping it kills it.
pub(crate) struct Alertmanager {
    child: Child,
    errors: Arc<Mutex<String>>,
    /// Where it listens.
    pub(crate) address: SocketAddr,
    /// What its paths begin with. No other has it, so nobody else is taken for it.
    pub(crate) prefix: String,
    http: reqwest::Client,
    _folder: TempDir,
}

/// A loopback receiver of notifications.
pub(crate) struct Webhook {
    address: SocketAddr,
    notifications: Arc<Mutex<Vec<(String, Value)>>>,
    serving: tokio::task::JoinHandle<()>,
}

// === impl Alertmanager ===

impl Alertmanager {
    /// An Alertmanager with this configuration.
    pub(crate) async fn with(config: &Value) -> Self {
        loop {
            let mut alertmanager = Self::spawn(config);
            if alertmanager.serves().await {
                return alertmanager;
            }
        }
    }

    /// It cannot be told to take any free port, so it gets one that was free a moment ago.
    fn spawn(config: &Value) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let config_file = folder.path().join("alertmanager.yaml");
        // JSON is YAML.
        std::fs::write(&config_file, config.to_string()).unwrap();
        let prefix = format!("/{}", folder.path().file_name().unwrap().to_str().unwrap().trim_start_matches('.'));
        let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = free.local_addr().unwrap();
        drop(free);
        let mut child = Command::new(tool("prometheus-alertmanager"))
            .env_clear()
            .arg(format!("--config.file={}", config_file.display()))
            .arg(format!("--storage.path={}", folder.path().join("data").display()))
            .arg(format!("--web.listen-address={address}"))
            .arg(format!("--web.route-prefix={prefix}"))
            .arg("--cluster.listen-address=")
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
        Self { child, errors, address, prefix, http, _folder: folder }
    }

    /// Waits until it serves; false if its port was taken meanwhile.
    async fn serves(&mut self) -> bool {
        let ended = eventually("Alertmanager serves", async || {
            if self.get("/api/v2/status").await.is_some_and(|status| status["config"].is_object()) {
                return Some(false);
            }
            self.child.try_wait().unwrap().map(|_| true)
        })
        .await;
        if ended {
            eventually("Alertmanager says that its port is taken", async || {
                self.errors.lock().unwrap().contains("address already in use").then_some(())
            })
            .await;
        }
        !ended
    }

    /// The alerts that it knows, muted ones included.
    pub(crate) async fn alerts(&self) -> Vec<Value> {
        let alerts = self.get("/api/v2/alerts").await.unwrap_or_default();
        alerts.as_array().cloned().unwrap_or_default()
    }

    /// What its API answers; none while it does not answer.
    async fn get(&self, path: &str) -> Option<Value> {
        let response = self.http.get(format!("http://{}{}{path}", self.address, self.prefix)).send().await.ok()?;
        serde_json::from_str(&response.text().await.ok()?).ok()
    }
}

impl Drop for Alertmanager {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("Alertmanager:\n{}", self.errors.lock().unwrap());
        }
    }
}

// === impl Webhook ===

impl Webhook {
    pub(crate) async fn start() -> Self {
        let listener = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let notifications = Arc::new(Mutex::new(Vec::new()));
        let kept = notifications.clone();
        let serving = tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let kept = kept.clone();
                let service = service_fn(move |request| keep(request, kept.clone()));
                tokio::spawn(
                    hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service),
                );
            }
        });
        Self { address, notifications, serving }
    }

    /// The URL for a receiver of this name.
    pub(crate) fn url(&self, receiver: &str) -> String {
        format!("http://{}/{receiver}", self.address)
    }

    /// The notifications that came to this receiver so far.
    pub(crate) fn notifications(&self, receiver: &str) -> Vec<Value> {
        let kept = self.notifications.lock().unwrap();
        kept.iter().filter(|(path, _)| path[1..] == *receiver).map(|(_, notification)| notification.clone()).collect()
    }
}

impl Drop for Webhook {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

async fn keep(
    request: Request<Incoming>,
    kept: Arc<Mutex<Vec<(String, Value)>>>,
) -> Result<Response<http_body_util::Empty<Bytes>>, hyper::Error> {
    let path = request.uri().path().to_owned();
    let body = request.into_body().collect().await?.to_bytes();
    kept.lock().unwrap().push((path, serde_json::from_slice(&body).unwrap()));
    Ok(Response::default())
}
