//! Keeping up with a key file that changes, as rotated keys do.

use std::sync::Arc;
use std::time::Duration;

use tracing::{info, warn};

use super::Client;
use crate::toggle::ApiName;

/// How often a key file is read.
const INTERVAL: Duration = Duration::from_secs(2);

/// Reads the client's key again and again, if it is in a file. What is wrong with it is logged
/// when it begins to be, and again when it is something else.
pub async fn follow_key(api: ApiName, client: Arc<Client>) {
    let mut last_problem = None;
    loop {
        let reading = client.clone();
        // Without a result the read panicked, and is tried again.
        let read = tokio::task::spawn_blocking(move || reading.refresh_key()).await;
        match read {
            Ok(Ok(true)) => {
                info!(api = api.as_str(), "api key changed");
                last_problem = None;
            }
            Ok(Ok(false)) => last_problem = None,
            Ok(Err(problem)) => {
                if last_problem.as_ref() != Some(&problem) {
                    warn!(api = api.as_str(), problem, "no usable api key");
                }
                last_problem = Some(problem);
            }
            Err(_) => {}
        }
        if !client.key_is_in_a_file() {
            return;
        }
        tokio::time::sleep(INTERVAL).await;
    }
}
