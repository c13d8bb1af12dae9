//! Log lines about the web configuration.

use tracing::{error, info, warn};

use super::Web;
use crate::document::Problem;

/// Another web configuration is in force.
pub(super) fn reloaded(warnings: &[Problem]) {
    info!("web configuration reloaded");
    warnings.iter().for_each(configuration_warning);
}

/// TLS or logins protected the exporter before, and no longer do.
pub(super) fn protection_removed(before: &Web, now: &Web) {
    if before.tls.is_some() && now.tls.is_none() {
        warn!("connections are no longer encrypted: the web configuration has no tls_server_config now");
    }
    if !before.users.is_empty() && now.users.is_empty() {
        warn!("logins are no longer required: the web configuration has no basic_auth_users now");
    }
}

/// The web configuration is invalid now.
pub(super) fn not_reloaded(problems: &[Problem]) {
    for problem in problems {
        error!(%problem, "web configuration not reloaded: the one in force stays");
    }
}

/// Something in the web configuration is valid, but may be a mistake.
pub fn configuration_warning(warning: &Problem) {
    warn!(%warning, "web configuration warning");
}

/// A check panicked, which is a bug.
pub(super) fn no_longer_followed() {
    error!("reading the web configuration panicked: it is no longer followed, and the one in force stays");
}
