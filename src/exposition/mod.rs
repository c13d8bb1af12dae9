//! Metrics: what is counted, what a scrape exposes, and encoding it.
//!
//! Families whose labels users write are encoded here, from label text that is rendered once per watch. Families
//! with a small closed set of labels (those of APIs, the exporter and the process) are kept by the `prometheus`
//! crate. No family is in both, and one encoder writes all of them.

mod encoder;
mod families;
mod format;
mod gathered;
mod metrics;
mod process;

pub use encoder::{Encoder, Snapshot, SourceSeries};
pub use format::{Format, NameEscaping};
pub use metrics::{ApiLoad, ApiMetrics, ConnectionError, Metrics};
