//! What becomes of the web configuration, as log lines.

use tracing::warn;

use crate::config::Problem;

/// Something in the web configuration is valid, but perhaps not meant.
pub fn configuration_warning(warning: &Problem) {
    warn!(%warning, "web configuration warning");
}
