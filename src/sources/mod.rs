//! Where watches come from.
//!
//! A watch is defined by the same keys in the configuration, in watch files and in registrations. [`WatchFiles`] reads
//! watch files. [`WatchList`] keeps the definitions of all sources, and decides which of them take effect.

mod definitions;
mod files;
mod list;
mod watches;

pub use definitions::{definition, definitions};
pub use files::{FileEvent, FileScan, WatchFiles, WatchGlob, Watches, share_equal};
pub use list::{Edit, EditResult, Origin, RefusedDefinition, WatchChange, WatchCounts, WatchDefinition, WatchList};
pub(crate) use watches::{SharedKeys, watches};
