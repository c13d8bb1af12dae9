//! From what users write to what the program uses.
//!
//! The configuration comes as YAML and as environment variables. Both are read as text: no scalar
//! is retyped on the way, and figment lays one over the other. `validate` then turns the merged
//! tree into types that cannot be wrong, and reports every problem at once. This is why there are
//! no serde structs here: serde stops at the first one.

mod definitions;
mod duration;
mod effective;
mod environment;
mod json;
mod load;
mod problem;
mod section;
mod validate;
mod yaml;

use std::time::Duration;

pub use definitions::{definition, definitions};
pub use duration::{format_duration, parse_duration};
pub use load::{Checked, load, parse};
pub use problem::{Problem, Problems};

use crate::cekura::Api;
use crate::toggle::Watch;

/// The validated configuration.
#[derive(Debug, Clone)]
pub struct Config {
    /// The APIs, sorted by name; names are unique.
    pub apis: Vec<Api>,
    /// When to poll.
    pub polling: Polling,
    /// The watch list, in the order in which it was written; names are unique, and every `api` is
    /// one of `apis`.
    pub watches: Vec<Watch>,
}

/// When to poll.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Polling {
    /// The time between polls of a young run.
    pub min_interval: Duration,
    /// The time between polls of an old run.
    pub max_interval: Duration,
    /// The longest time between polls that fail; at least `min_interval`.
    pub backoff_max: Duration,
    /// The time between polls of a finished run; zero to leave it alone.
    pub recheck_finished: Duration,
}

// === impl Config ===

impl Config {
    /// Series that one watch has, in a typical state: what a large list is warned about.
    pub const SERIES_PER_WATCH: usize = 17;
}

// === impl Polling ===

impl Default for Polling {
    fn default() -> Self {
        Self {
            min_interval: Duration::from_secs(5),
            max_interval: Duration::from_mins(1),
            backoff_max: Duration::from_mins(5),
            recheck_finished: Duration::ZERO,
        }
    }
}
