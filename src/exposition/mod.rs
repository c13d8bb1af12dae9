//! Metrics text.
//!
//! What has a label that users write is encoded here, from label text that was rendered once per
//! watch. What has a small closed label set (APIs, the exporter, the process) is kept and encoded
//! by the `prometheus` crate. The two share no family.

mod families;
mod metrics;
mod process;
mod text;

pub use families::{SourceUp, agent_labels, watch_labels};
pub use metrics::{ApiMetrics, Metrics};
pub use text::{CONTENT_TYPE, Exposition, Labelled};
