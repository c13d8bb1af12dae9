//! Reading the web configuration.

use std::path::Path;
use std::sync::Arc;

use super::Web;
use super::files::Seen;
use crate::config::{self, Problem, Problems};
use crate::wall_clock;

/// How often the files are read at most, if they are swapped while they are read.
const MOST_READINGS: usize = 3;

/// The web configuration file, and what it says.
#[derive(Debug)]
pub struct WebFile {
    web: Arc<Web>,
}

/// What was read, and what came of it: a configuration, and what is valid in it but perhaps not
/// meant, or problems.
struct Loaded {
    seen: Seen,
    outcome: Result<(Web, Vec<Problem>), Problems>,
}

// === impl WebFile ===

impl WebFile {
    /// Reads the file and the files that it names. Returns what is valid but perhaps not meant beside
    /// it. Blocks.
    ///
    /// # Errors
    /// Every problem that there is.
    pub fn open(path: &Path) -> Result<(Self, Vec<Problem>), Problems> {
        let (web, warnings) = Loaded::read(path).outcome?;
        Ok((Self { web: Arc::new(web) }, warnings))
    }

    /// What it says.
    pub fn web(&self) -> &Arc<Web> {
        &self.web
    }
}

// === impl Loaded ===

impl Loaded {
    /// Reads all files as they are at one time: a certificate is not taken with the key that came
    /// after it, nor called a mismatch with it.
    fn read(path: &Path) -> Self {
        let mut loaded = Self::read_once(path);
        for _ in 1..MOST_READINGS {
            if loaded.seen.is_current() {
                break;
            }
            loaded = Self::read_once(path);
        }
        loaded
    }

    fn read_once(path: &Path) -> Self {
        let mut seen = Seen::default();
        let outcome = match seen.read(path) {
            Ok(text) => config::web(path, &text, &mut |named| seen.read(named), wall_clock()),
            Err(what) => Err(Problems(vec![Problem { origin: path.display().to_string(), path: String::new(), what }])),
        };
        Self { seen, outcome }
    }
}
