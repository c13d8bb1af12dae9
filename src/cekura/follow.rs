//! Keeping up with a key file that changes, as rotated keys do.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc::UnboundedSender;
use tracing::{info, warn};

use super::Client;
use crate::threads;
use crate::toggle::ApiName;

/// How often a key file is read.
const INTERVAL: Duration = Duration::from_secs(2);

/// Reads the client's key again and again, if it is in a file. What is wrong with it is logged
/// when it begins to be, and again when it is something else.
///
/// Each change to a usable key is sent to `changes`.
pub async fn follow_key(api: ApiName, client: Arc<Client>, changes: UnboundedSender<ApiName>) {
    let mut last_problem = None;
    while client.key_is_in_a_file() {
        let reading = client.clone();
        let read = threads::apart("key", move || reading.refresh_key()).await;
        match read.unwrap_or_else(|lost| Err(lost.to_string())) {
            Ok(is_new) => {
                let mended = last_problem.take().is_some();
                if is_new || mended {
                    info!(api = api.as_str(), mended, "api key changed");
                    // Nobody listens only while the process stops.
                    let _ = changes.send(api.clone());
                }
            }
            Err(problem) if last_problem.as_ref() != Some(&problem) => {
                warn!(api = api.as_str(), problem, "no usable api key");
                last_problem = Some(problem);
            }
            // Nothing new.
            Err(_) => {}
        }
        tokio::time::sleep(INTERVAL).await;
    }
}
