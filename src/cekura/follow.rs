//! Following the files of an API: rotated keys and renewed root certificates.

use std::sync::Arc;

use tokio::sync::mpsc::UnboundedSender;
use tracing::{info, warn};

use super::Client;
use crate::follow::Follower;
use crate::toggle::{ApiName, Reason};

/// What changed about an API.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Renewal {
    /// Its key.
    Key,
    /// The root certificates that its server is verified with.
    Authorities,
}

/// Follows the files that the client reads, if there are any, until it is dropped. Each valid change
/// is sent to `changes`. A problem is logged when it begins and when it changes.
///
/// Each file is followed on its own, so that a volume that hangs does not delay a file on another one.
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
    renewal: Renewal,
    refresh: fn(&Client) -> Result<bool, String>,
) {
    let mut follower = Follower::new("api-file", client.clone());
    let mut last_problem = None;
    while client.reads_file_of(renewal) {
        follower.tick().await;
        let Ok(refreshed) = follower.check(move |client| refresh(client)).await else {
            warn!(api = api.as_str(), "reading the files of the api panicked: they are no longer followed");
            return;
        };
        if has_renewed(api, refreshed, &mut last_problem, renewal) {
            // The receiver is gone only while the process stops.
            let _ = changes.send((api.clone(), renewal));
        }
    }
}

/// Whether the file was replaced, or is usable again. Logs that, and new problems.
fn has_renewed(
    api: &ApiName,
    refreshed: Result<bool, String>,
    last_problem: &mut Option<String>,
    renewal: Renewal,
) -> bool {
    let api = api.as_str();
    match refreshed {
        Ok(is_new) => {
            let mended = last_problem.take().is_some();
            match renewal {
                Renewal::Key if is_new || mended => info!(api, mended, "api key changed"),
                Renewal::Authorities if is_new || mended => info!(api, mended, "api authorities changed"),
                Renewal::Key | Renewal::Authorities => {}
            }
            is_new || mended
        }
        Err(problem) => {
            if last_problem.as_ref() != Some(&problem) {
                match renewal {
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
    /// Whether a poll that failed for this reason may succeed now.
    pub fn may_mend(self, reason: Reason) -> bool {
        match self {
            Self::Key => reason.may_need_another_key(),
            Self::Authorities => reason == Reason::Tls,
        }
    }
}
