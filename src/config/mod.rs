//! The configuration: from the text that users write to the values that the program uses.
//!
//! A YAML file and environment variables are read as text, without giving types to scalars, and `merge` lays the
//! variables over the file. `validate` turns the merged tree into a [`Config`] and reports every problem at once. That
//! is why there are no serde structs here: serde stops at the first problem.

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
pub use load::{ConfigReport, LoadedConfig, MAX_FILE_BYTES, load, parse, read};

use crate::cekura::Api;
use crate::database::DatabaseSettings;
use crate::sources::WatchGlob;
use crate::toggle::{AgentDefinition, Watch};

/// The validated configuration.
#[derive(Debug, Clone)]
pub struct Config {
    /// The APIs, sorted by name; names are unique.
    pub apis: Vec<Api>,
    /// The agents in the order of the file, each once; every `api` is one of `apis`.
    pub agents: Vec<Arc<AgentDefinition>>,
    /// The intervals of polling.
    pub polling: Polling,
    /// The watches in the order of the file; names are unique, and every `api` is one of `apis`.
    pub watches: Vec<Arc<Watch>>,
    /// The files that list further watches; each glob once.
    pub watch_files: Vec<WatchGlob>,
    /// The settings of registrations over HTTP.
    pub registrations: Registrations,
    /// The database that keeps registrations and the state of runs and agents for several exporters.
    pub database: Option<DatabaseSettings>,
    /// The file that keeps them for this exporter alone; `None` if there is a database, or to keep them in memory only.
    pub state_file: Option<StateFile>,
    /// The URL at which people reach this exporter, without a slash at the end. Links to it begin with it.
    pub external_url: Option<Arc<str>>,
    /// How long the exporter still serves after a signal to stop, counted from the last state change of any run.
    pub linger: Duration,
    /// The limits of connections.
    pub connections: ConnectionLimits,
}

/// Whether watches can be registered over HTTP, and how long they are kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Registrations {
    /// Whether watches can be registered; if so, there is a state file or a database.
    pub enabled: bool,
    /// How many are kept; a further one is refused.
    pub max: NonZeroU32,
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

/// How many connections are served at the same time. More are closed at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConnectionLimits {
    /// In total.
    pub total: NonZeroU32,
    /// From one address.
    pub per_peer: NonZeroU32,
}

/// The path of the state file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StateFile {
    /// The path as configured.
    pub configured: String,
    /// The path, with a relative one resolved.
    pub path: PathBuf,
}

/// The intervals of polling.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Polling {
    /// The time between polls of the mock status of an agent.
    pub agent_interval: Duration,
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
    /// With more watches than this, the number of series is worth a warning.
    pub const MANY_WATCHES: usize = 10_000;

    /// How many series an agent typically has, for a like warning.
    pub const SERIES_PER_AGENT: usize = 11;

    /// How many series a watch typically has, for that warning.
    pub const SERIES_PER_WATCH: usize = 17;
}

// === impl Polling ===

impl Default for Polling {
    fn default() -> Self {
        Self {
            agent_interval: Duration::from_mins(1),
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

// === impl Registrations ===

impl Default for Registrations {
    fn default() -> Self {
        Self { enabled: false, max: NonZeroU32::MIN.saturating_add(19_999), retention: Retention::default() }
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
