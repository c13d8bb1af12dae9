//! What becomes of the web configuration, as log lines.

use tracing::{error, info, warn};

use crate::config::Problem;

/// There is another web configuration in force.
pub(super) fn reloaded(warnings: &[Problem]) {
    info!("web configuration reloaded");
    warnings.iter().for_each(configuration_warning);
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
