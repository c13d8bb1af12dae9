//! Where watches come from.
//!
//! [`Files`] reads watch files. [`WatchList`] has what every source says, and decides which of it
//! holds.

mod files;
mod list;
mod pattern;

pub use files::{Files, News, Scan, Watches, share_equal};
pub use list::{Change, Count, Definition, Edit, Edited, Origin, Refused, WatchList};
pub use pattern::WatchGlob;
