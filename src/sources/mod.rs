//! Where watches come from.
//!
//! What defines a watch is the same in the configuration, in watch files and in registrations. [`WatchFiles`] reads
//! watch files. [`WatchList`] has what every source says, and decides which of it
//! holds.

mod definitions;
mod files;
mod list;
mod pattern;
mod watches;

pub use definitions::{definition, definitions};
pub use files::{FileEvent, FileScan, WatchFiles, Watches, share_equal};
pub use list::{Edit, EditResult, Origin, RefusedDefinition, WatchChange, WatchCounts, WatchDefinition, WatchList};
pub use pattern::WatchGlob;
pub(crate) use watches::{SharedKeys, watches};
