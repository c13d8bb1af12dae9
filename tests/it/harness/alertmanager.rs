//! A real Alertmanager, and who it notifies.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};

use http_body_util::BodyExt;
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};

use super::server::Server;
use super::{Scraper, newest_tool, tool};

/// A running Alertmanager. Dropping it kills it.
pub(crate) struct Alertmanager(Server);

/// A loopback receiver of notifications.
pub(crate) struct Webhook {
    address: SocketAddr,
    notifications: Arc<Mutex<Vec<(String, Value)>>>,
    serving: tokio::task::JoinHandle<()>,
}

// === impl Alertmanager ===

impl Alertmanager {
    /// An Alertmanager with this configuration: the oldest beside the oldest Prometheus, else the newest there is.
    pub(crate) async fn beside(scraper: Scraper, config: &Value) -> Self {
        let find = if scraper == Scraper::Prometheus2 { tool } else { newest_tool };
        let server = Server::start(find("prometheus-alertmanager"), |place| {
            let config_file = place.folder.join("alertmanager.yaml");
            // JSON is YAML.
            std::fs::write(&config_file, config.to_string()).unwrap();
            vec![
                format!("--config.file={}", config_file.display()),
                format!("--storage.path={}", place.folder.join("data").display()),
                format!("--web.listen-address={}", place.address),
                format!("--web.route-prefix={}", place.prefix),
                "--cluster.listen-address=".to_owned(),
            ]
        });
        Self(server.await)
    }

    /// How Prometheus is told of it.
    pub(crate) fn as_target(&self) -> Value {
        json!({"path_prefix": self.0.prefix, "static_configs": [{"targets": [self.0.address]}]})
    }

    /// The alerts that it knows, muted ones included.
    pub(crate) async fn alerts(&self) -> Vec<Value> {
        let alerts = self.0.get("/api/v2/alerts").await.unwrap_or_default();
        alerts.as_array().cloned().unwrap_or_default()
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
