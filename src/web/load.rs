//! Reading the web configuration.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::Web;
use super::files::Seen;
use crate::config::{self, Problem, Problems};
use crate::wall_clock;

/// How often the files are read at most, if they are swapped while they are read.
const MOST_READINGS: usize = 3;

/// The web configuration file, with what it says and what was last seen of it.
#[derive(Debug)]
pub struct WebFile {
    path: PathBuf,
    /// The last that was good.
    web: Arc<Web>,
    /// What is wrong with it now.
    problems: Vec<Problem>,
    seen: Seen,
}

/// What is other than at the look before.
#[derive(Debug)]
pub(super) enum News {
    /// Nothing is.
    None,
    /// There is another good configuration, with what is valid in it but perhaps not meant.
    Changed(Vec<Problem>),
    /// It is not good, with the problems that it did not have before. The last good one stays.
    Failed(Vec<Problem>),
}

/// What was read, and what came of it: a configuration and what is to be warned of, or problems.
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
        let Loaded { seen, outcome } = Loaded::read(path);
        let (web, warnings) = outcome?;
        Ok((Self { path: path.to_owned(), web: Arc::new(web), problems: Vec::new(), seen }, warnings))
    }

    /// What it says, or said when it was last good.
    pub fn web(&self) -> &Arc<Web> {
        &self.web
    }

    /// Where it is.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// What is wrong with it now.
    ///
    /// # Errors
    /// Every problem that there is.
    pub(super) fn judgement(&self) -> Result<(), Problems> {
        if self.problems.is_empty() { Ok(()) } else { Err(Problems(self.problems.clone())) }
    }

    /// Looks at all of its files again. Blocks.
    pub(super) fn look(&mut self) -> News {
        if self.seen.is_current() {
            return News::None;
        }
        let Loaded { seen, outcome } = Loaded::read(&self.path);
        self.seen = seen;
        match outcome {
            Ok((web, warnings)) => {
                self.web = Arc::new(web);
                self.problems.clear();
                News::Changed(warnings)
            }
            Err(Problems(problems)) => {
                let before = std::mem::replace(&mut self.problems, problems.clone());
                News::Failed(problems.into_iter().filter(|problem| !before.contains(problem)).collect())
            }
        }
    }
}

// === impl Loaded ===

impl Loaded {
    /// Reads all files as they are at one time: a certificate is not put together with the key that
    /// came after it.
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
