//! Registrations, as a careful job sends them.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use reqwest::Client;
use serde_json::Value;
use tokio::sync::Semaphore;

use super::harness::Failure;

/// How long a job waits before it tries again, at the next exporter.
const PAUSE: Duration = Duration::from_millis(200);

/// A registration of a watch or, without a body, its removal.
pub(super) struct Registration {
    /// The exporters that may be asked, the first one first.
    pub(super) addresses: Vec<SocketAddr>,
    pub(super) name: String,
    pub(super) body: Option<Value>,
}

// === impl Registration ===

impl Registration {
    /// Sends it to one exporter after the other until one has accepted it.
    pub(super) async fn send(self, http: Client, connections: Arc<Semaphore>) -> Result<(), Failure> {
        for address in self.addresses.iter().cycle() {
            let url = format!("http://{address}/api/v1/toggles/{}", self.name);
            let connection = connections.acquire().await?;
            let request = match &self.body {
                Some(body) => http.put(&url).header("content-type", "application/json").body(body.to_string()),
                None => http.delete(&url),
            };
            let answer = request.send().await.map(|answer| answer.status().as_u16());
            drop(connection);
            match answer {
                Ok(200 | 201 | 204 | 404) => break,
                Ok(status @ (400 | 409 | 413 | 415 | 507)) => {
                    return Err(format!("{url} was answered with {status}.").into());
                }
                // This exporter is stopping or away, or its database is.
                _ => tokio::time::sleep(PAUSE).await,
            }
        }
        Ok(())
    }
}
