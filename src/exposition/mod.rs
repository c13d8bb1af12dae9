//! Metrics text.
//!
//! The series of what has a label that users write are made here, from label text that was rendered
//! once per watch. What has a small closed label set (APIs, the exporter, the process) is kept by
//! the `prometheus` crate. The two share no family, and one encoder writes both.

mod encoder;
mod families;
mod format;
mod gathered;
mod metrics;
mod process;

pub use encoder::{ConfiguredSeries, Encoder, Snapshot};
pub use families::{AgentExpected, SourceUp};
pub use format::Format;
pub use metrics::{ApiLoad, ApiMetrics, ConnectionError, Metrics};
