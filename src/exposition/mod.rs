//! Metrics text.
//!
//! What has a label that users write is encoded here, from label text that was rendered once per
//! watch. What has a small closed label set (APIs, the exporter, the process) is kept and encoded
//! by the `prometheus` crate. The two share no family.

mod encoder;
mod families;
mod metrics;
mod process;

pub use encoder::{CONTENT_TYPE, Encoder, Labelled, Snapshot};
pub use families::{SourceUp, agent_labels, watch_labels};
pub use metrics::{ApiMetrics, Metrics};
