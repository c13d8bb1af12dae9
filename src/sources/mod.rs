//! Where watches come from.
//!
//! What defines a watch is the same in the configuration, in watch files and in registrations. [`Files`] reads
//! watch files. [`WatchList`] has what every source says, and decides which of it
//! holds.

mod definitions;
mod files;
mod list;
mod pattern;
mod watches;

pub use definitions::{definition, definitions};
pub use files::{FileEvent, Files, Scan, Watches, share_equal};
pub use list::{Change, Definition, Edit, Edited, Origin, Refused, WatchCounts, WatchList};
pub use pattern::WatchGlob;
pub(crate) use watches::{SharedKeys, watches};
