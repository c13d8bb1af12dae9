//! From what users write to what the program uses.
//!
//! The configuration comes as YAML and as environment variables. Both are read as text: no scalar
//! is retyped on the way, and figment lays one over the other. `validate` then turns the merged
//! tree into types that cannot be wrong, and reports every problem at once. This is why there are
//! no serde structs here: serde stops at the first one.

mod duration;
mod effective;
mod environment;
mod load;
mod merge;
mod validate;

use std::num::NonZeroU32;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

pub use duration::{format_duration, parse_duration};
pub use load::{ConfigReport, LoadedConfig, load, parse, read};

use crate::cekura::Api;
use crate::sources::WatchGlob;
use crate::toggle::{AgentDefinition, Watch};

/// The validated configuration.
#[derive(Debug, Clone)]
pub struct Config {
    /// The APIs, sorted by name; names are unique.
    pub apis: Vec<Api>,
    /// The agents that are configured; each (API, id) once, sorted, and every `api` is one of `apis`.
    pub agents: Vec<AgentDefinition>,
    /// When to poll.
    pub polling: Polling,
    /// The watch list, in the order in which it was written; names are unique, and every `api` is
    /// one of `apis`.
    pub watches: Vec<Arc<Watch>>,
    /// The files that list further watches; each glob once.
    pub watch_files: Vec<WatchGlob>,
    /// Watches handed over by HTTP.
    pub registrations: Registrations,
    /// The database of registrations and of what is known; `None` for memory only.
    pub state_file: Option<StateFile>,
    /// How people reach this exporter, without a slash at the end: what links to it begin with.
    pub external_url: Option<Arc<str>>,
    /// After the stop signal, how old the last state change of any run must be before serving ends.
    pub linger: Duration,
    /// How many connections are served.
    pub connections: ConnectionLimits,
}

/// Whether watches are taken over HTTP, and for how long they are kept.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Registrations {
    /// Whether they are taken; then there is a state file.
    pub enabled: bool,
    /// How long they are kept.
    pub retention: Retention,
}

/// How long a registration is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Retention {
    /// After its run completed.
    pub completed: Duration,
    /// After its run failed.
    pub failed: Duration,
    /// While its run is not finished: after its last valid answer, or after it was registered.
    pub unfinished: Duration,
}

/// How many connections are served at a time. What is over is closed at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConnectionLimits {
    /// In all.
    pub total: NonZeroU32,
    /// From one address.
    pub per_peer: NonZeroU32,
}

/// Where the state is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StateFile {
    /// As it is configured.
    pub configured: String,
    /// Where it is.
    pub path: PathBuf,
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
    /// Over so many watches, the series are worth a warning.
    pub const MANY_WATCHES: usize = 10_000;

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

// === impl ConnectionLimits ===

impl Default for ConnectionLimits {
    fn default() -> Self {
        Self { total: NonZeroU32::MIN.saturating_add(511), per_peer: NonZeroU32::MIN.saturating_add(127) }
    }
}

// === impl Retention ===

impl Default for Retention {
    fn default() -> Self {
        Self {
            completed: Duration::from_hours(1),
            failed: Duration::from_hours(24),
            unfinished: Duration::from_hours(24),
        }
    }
}
