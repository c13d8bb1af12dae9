//! Keeping up with the files of an API that change: rotated keys and renewed authorities.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc::UnboundedSender;
use tracing::{info, warn};

use super::Client;
use crate::threads;
use crate::toggle::{ApiName, Reason};

/// How often the files are read.
const INTERVAL: Duration = Duration::from_secs(2);

/// What is another one for an API.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Renewal {
    /// Its key.
    Key,
    /// The authorities that its server may have its certificate of.
    Authorities,
}

/// Reads the client's files again and again, if it has any. What is wrong with one is logged when it begins
/// to be, and again when it is something else. A volume that hangs holds up its own file alone.
///
/// Each change to something usable is sent to `changes`.
pub async fn follow_files(api: ApiName, client: Arc<Client>, changes: UnboundedSender<(ApiName, Renewal)>) {
    tokio::join!(
        follow(&api, &client, &changes, Renewal::Key, Client::refresh_key),
        follow(&api, &client, &changes, Renewal::Authorities, Client::refresh_authorities),
    );
}

async fn follow(
    api: &ApiName,
    client: &Arc<Client>,
    changes: &UnboundedSender<(ApiName, Renewal)>,
    of: Renewal,
    refresh: fn(&Client) -> Result<bool, String>,
) {
    let mut last_problem = None;
    while client.reads_file_of(of) {
        let reading = client.clone();
        let read = threads::apart("api-file", move || refresh(&reading)).await;
        if is_news(api, read.unwrap_or_else(|lost| Err(lost.to_string())), &mut last_problem, of) {
            // Nobody listens only while the process stops.
            let _ = changes.send((api.clone(), of));
        }
        tokio::time::sleep(INTERVAL).await;
    }
}

/// Whether what was read is another one, or good again. What is new about it is logged.
fn is_news(api: &ApiName, read: Result<bool, String>, last_problem: &mut Option<String>, of: Renewal) -> bool {
    let api = api.as_str();
    match read {
        Ok(is_new) => {
            let mended = last_problem.take().is_some();
            match of {
                Renewal::Key if is_new || mended => info!(api, mended, "api key changed"),
                Renewal::Authorities if is_new || mended => info!(api, mended, "api authorities changed"),
                Renewal::Key | Renewal::Authorities => {}
            }
            is_new || mended
        }
        Err(problem) => {
            if last_problem.as_ref() != Some(&problem) {
                match of {
                    Renewal::Key => warn!(api, problem, "no usable api key"),
                    Renewal::Authorities => warn!(api, problem, "api authorities not changed: those in force stay"),
                }
                *last_problem = Some(problem);
            }
            false
        }
    }
}

// === impl Renewal ===

impl Renewal {
    /// Whether a poll that failed so may succeed now.
    pub fn may_mend(self, reason: Reason) -> bool {
        match self {
            Self::Key => reason.is_for_want_of_a_key(),
            Self::Authorities => reason == Reason::Tls,
        }
    }
}
