//! Where watches come from.
//!
//! A source yields its whole list each time.

mod files;
mod pattern;

use std::sync::Arc;

pub use files::{Files, News, Scan};
pub use pattern::WatchGlob;

use crate::toggle::Watch;

/// The whole watch list, in order; names are unique.
pub type WatchList = Arc<[Arc<Watch>]>;

/// A watch list of what one source yields.
pub fn watch_list(watches: impl IntoIterator<Item = Watch>) -> WatchList {
    watches.into_iter().map(Arc::new).collect()
}
