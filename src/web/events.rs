//! What becomes of the web configuration, as log lines.

use tracing::{error, info, warn};

use super::Web;
use crate::document::Problem;

/// There is another web configuration in force.
pub(super) fn reloaded(warnings: &[Problem]) {
    info!("web configuration reloaded");
    warnings.iter().for_each(configuration_warning);
}

/// What protected the exporter before does not any more.
pub(super) fn given_up(before: &Web, now: &Web) {
    if before.tls.is_some() && now.tls.is_none() {
        warn!("connections are no longer encrypted: the web configuration has no tls_server_config now");
    }
    if !before.users.is_empty() && now.users.is_empty() {
        warn!("nobody has to log in any more: the web configuration has no basic_auth_users now");
    }
}

/// The web configuration cannot be put in force as it is now.
pub(super) fn not_reloaded(problems: &[Problem]) {
    for problem in problems {
        error!(%problem, "web configuration not reloaded: the one in force stays");
    }
}

/// Something in the web configuration is valid, but perhaps not meant.
pub fn configuration_warning(warning: &Problem) {
    warn!(%warning, "web configuration warning");
}

/// A fault of ours.
pub(super) fn lost() {
    error!("reading the web configuration panicked: it is followed no more, and the one in force stays");
}
