//! Watch files: which files the globs match, and the watches and agents in them, read again whenever a file changes.

mod glob;
mod reading;
mod state;
#[cfg(test)]
mod tests;
mod walk;

use std::collections::hash_map::RandomState;
use std::collections::{BTreeMap, BTreeSet};
use std::hash::BuildHasher;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

pub use self::glob::WatchGlob;
use self::reading::{FileReading, read_if_changed};
use self::state::FileState;
pub use self::state::share_equal;
use self::walk::GlobWalk;
use super::Definitions;
use super::definitions::definitions;
use crate::document::{Problem, Problems};
use crate::input_file::FileStamp;
use crate::toggle::ApiName;

/// The watch files that some globs match, with the last good entries of each.
///
/// Changes are found by calling stat on every file. inotify misses how Kubernetes swaps links, and what happens on
/// network volumes.
#[derive(Debug)]
pub struct WatchFiles {
    globs: Arc<[WatchGlob]>,
    apis: BTreeSet<ApiName>,
    /// The files that were found, by path.
    files: BTreeMap<Arc<Path>, FileState>,
    /// The problems of each glob, by the glob as configured.
    glob_problems: BTreeMap<Arc<str>, Vec<Problem>>,
    hasher: RandomState,
    /// [`WatchFiles::MAX_FILES`], except in tests.
    max_files: usize,
}

/// What one scan of all files found. It is complete, not a difference to the scan before.
#[derive(Debug, Clone, Default)]
pub struct FileScan {
    /// The last good entries of each file, by path. As long as they are the same, they are the same object in memory.
    /// After a reload, the last good entries of a file with problems may name an API that is no longer configured.
    pub files: BTreeMap<Arc<Path>, Arc<Definitions>>,
    /// Each glob as configured, in that order, and whether it could be followed and all of its files could be read.
    pub glob_up: Vec<(Arc<str>, bool)>,
    /// The first [`WatchFiles::MAX_PROBLEMS`] problems of each glob, by the glob as configured, and of each file, by its
    /// path, that have any; if there are more, a last one says how many.
    pub problems: BTreeMap<String, Vec<Problem>>,
    /// What has changed since the scan before.
    pub events: Vec<FileEvent>,
    /// How many files were read, because stat did not show that they are unchanged.
    pub read: usize,
}

/// A change that a scan found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FileEvent {
    /// A glob has new problems. The entries of its files are kept.
    GlobFailed {
        /// The glob as configured.
        glob: String,
        /// The first [`WatchFiles::MAX_PROBLEMS`] problems; if there are more, a last one says how many.
        problems: Vec<Problem>,
    },
    /// A glob has no problems any more.
    GlobRecovered {
        /// The glob as configured.
        glob: String,
    },
    /// A file has new problems. Its last good entries are kept.
    FileFailed {
        /// The file.
        path: String,
        /// The first [`WatchFiles::MAX_PROBLEMS`] problems; if there are more, a last one says how many.
        problems: Vec<Problem>,
    },
    /// A file has no problems any more.
    FileRecovered {
        /// The file.
        path: String,
    },
    /// A file is new, or its entries have changed.
    FileChanged {
        /// The file.
        path: String,
        /// How many watches it has now.
        watches: usize,
        /// How many agents it has now.
        agents: usize,
    },
    /// A file was removed, and so are its entries.
    FileRemoved {
        /// The file.
        path: String,
    },
}

/// A file that is matched by at least one glob.
struct MatchedFile {
    path: PathBuf,
    /// The indices of these globs.
    globs: Vec<usize>,
}

// === impl WatchFiles ===

impl WatchFiles {
    /// The largest file that is read, in bytes: 64 MiB.
    pub const MAX_FILE_BYTES: u64 = 64 * 1024 * 1024;

    /// The most files of all globs together; also the most folders that one glob looks into.
    pub const MAX_FILES: usize = 100_000;

    /// The most problems of one file or glob that are reported.
    pub const MAX_PROBLEMS: usize = 100;

    /// The files that `globs` match, with entries of `apis`. Nothing is read before the first scan.
    pub fn new(globs: Vec<WatchGlob>, apis: BTreeSet<ApiName>) -> Self {
        Self {
            globs: globs.into(),
            apis,
            files: BTreeMap::new(),
            glob_problems: BTreeMap::new(),
            hasher: RandomState::new(),
            max_files: Self::MAX_FILES,
        }
    }

    /// Sets the globs and the APIs. The next scan parses every file again. Until then the last good entries are
    /// kept, including those of APIs that were removed.
    pub fn reconfigure(&mut self, globs: Vec<WatchGlob>, apis: BTreeSet<ApiName>) {
        self.glob_problems.retain(|name, _| globs.iter().any(|glob| glob.configured() == &**name));
        self.files.values_mut().for_each(FileState::forget_content);
        self.globs = globs.into();
        self.apis = apis;
    }

    /// Whether there are no globs and no known files, so that a scan finds nothing.
    pub fn is_idle(&self) -> bool {
        self.globs.is_empty() && self.files.is_empty()
    }

    /// Scans all globs and files. Blocks.
    pub fn scan(&mut self) -> FileScan {
        self.scan_at(SystemTime::now())
    }

    fn scan_at(&mut self, now: SystemTime) -> FileScan {
        let globs = Arc::clone(&self.globs);
        let mut walks: Vec<_> = globs.iter().map(|glob| GlobWalk::run(glob, self.max_files)).collect();
        let matched = matched_files(&mut walks);
        let mut scan = FileScan { events: self.remove_unmatched(&matched, &walks), ..FileScan::default() };
        // Of each glob, whether one of its files has problems.
        let mut has_problems = vec![false; walks.len()];
        for file in &matched {
            if self.scan_file(file, &mut walks, now, &mut scan) {
                file.globs.iter().for_each(|glob| has_problems[*glob] = true);
            }
        }
        self.report_globs(walks, &has_problems, &mut scan);
        let last_good = |(path, file): (&Arc<Path>, &FileState)| Some((path.clone(), file.last_good()?.clone()));
        scan.files = self.files.iter().filter_map(last_good).collect();
        scan.problems = self.problems();
        scan
    }

    /// The problems of each glob and file that has any.
    fn problems(&self) -> BTreeMap<String, Vec<Problem>> {
        let of_globs = self.glob_problems.iter().map(|(glob, problems)| (glob.to_string(), problems.as_slice()));
        let of_files = self.files.iter().filter(|(_, file)| file.has_problems());
        let of_files = of_files.map(|(path, file)| (shown(path), file.problems()));
        let mut all: BTreeMap<String, Vec<Problem>> = BTreeMap::new();
        for (origin, problems) in of_globs.chain(of_files).filter(|(_, problems)| !problems.is_empty()) {
            let shortened = shortened(problems, &origin);
            all.entry(origin).or_default().extend(shortened);
        }
        all
    }

    /// Reads and parses a file if it may have changed. Returns whether it has problems.
    fn scan_file(
        &mut self,
        MatchedFile { path, globs }: &MatchedFile,
        walks: &mut [GlobWalk<'_>],
        now: SystemTime,
        scan: &mut FileScan,
    ) -> bool {
        // Looked up once: comparing paths is most of what an unchanged file costs.
        let known = self.files.get(&**path);
        if known.is_none() && self.files.len() >= self.max_files {
            for glob in globs {
                walks[*glob].is_over_limit = true;
            }
            return false;
        }
        match read_if_changed(path, known.and_then(FileState::stamp), now) {
            FileReading::Unchanged => known.is_some_and(FileState::has_problems),
            FileReading::Content(content, stamp) => {
                scan.read += 1;
                self.parse(path, &content, stamp, &mut scan.events)
            }
            FileReading::Unreadable(what) => {
                let problem = Problem::new(shown(path), "", what);
                let file = self.files.entry(path.as_path().into()).or_default();
                file.set_unreadable(path, problem, &mut scan.events);
                true
            }
            FileReading::Gone => {
                scan.events.extend(self.remove(path, walks));
                false
            }
        }
    }

    /// Forgets the files that no glob matches any more.
    fn remove_unmatched(&mut self, matched: &[MatchedFile], walks: &[GlobWalk<'_>]) -> Vec<FileEvent> {
        // Both are in order, so no path has to be searched for.
        let mut matched = matched.iter().map(|file| &*file.path).peekable();
        let mut unmatched = Vec::new();
        for path in self.files.keys() {
            while matched.next_if(|matched| *matched < &**path).is_some() {}
            if matched.next_if(|matched| *matched == &**path).is_none() {
                unmatched.push(path.clone());
            }
        }
        unmatched.iter().filter_map(|path| self.remove(path, walks)).collect()
    }

    /// Forgets a file that is gone, unless it may be in a folder that a walk could not read.
    fn remove(&mut self, path: &Path, walks: &[GlobWalk<'_>]) -> Option<FileEvent> {
        if walks.iter().any(|walk| walk.has_failed() && walk.glob.covers(path)) {
            return None;
        }
        self.files.remove(path).map(|_| FileEvent::FileRemoved { path: shown(path) })
    }

    /// Parses the content of a file if it is new. Returns whether the file has problems.
    fn parse(&mut self, path: &Path, content: &[u8], stamp: Option<FileStamp>, events: &mut Vec<FileEvent>) -> bool {
        let file = self.files.entry(path.into()).or_default();
        if file.needs_parsing(content, self.hasher.hash_one(content), stamp) {
            // A panic would be a bug, which must not affect the other files.
            let parsed = catch_unwind(AssertUnwindSafe(|| definitions(path, content, &self.apis)));
            let panicked = |_| Err(Problems::from(Problem::new(shown(path), "", "could not be parsed")));
            match parsed.unwrap_or_else(panicked) {
                Ok(read) => file.set_definitions(path, read, events),
                Err(problems) => file.set_problems(path, problems.0, events),
            }
        }
        file.has_problems()
    }

    /// Reports whether each glob is up, and its new problems. These events come before those of the files.
    fn report_globs(&mut self, walks: Vec<GlobWalk<'_>>, has_problems: &[bool], scan: &mut FileScan) {
        let mut glob_problems: BTreeMap<Arc<str>, Vec<Problem>> = BTreeMap::new();
        for (walk, has_problems) in walks.into_iter().zip(has_problems) {
            scan.glob_up.push((walk.glob.shared_name(), !walk.has_failed() && !has_problems));
            glob_problems.entry(walk.glob.shared_name()).or_default().extend(walk.into_problems());
        }
        let changed = glob_problems.iter().filter(|(name, problems)| {
            let before = self.glob_problems.get(*name).map_or(&[][..], Vec::as_slice);
            **problems != before
        });
        let event = |(name, problems): (&Arc<str>, &Vec<Problem>)| {
            let glob = name.to_string();
            match problems.len() {
                0 => FileEvent::GlobRecovered { glob },
                _ => FileEvent::GlobFailed { problems: shortened(problems, &glob), glob },
            }
        };
        scan.events.splice(..0, changed.map(event));
        self.glob_problems = glob_problems;
    }
}

impl Default for WatchFiles {
    /// No globs and no files.
    fn default() -> Self {
        Self::new(Vec::new(), BTreeSet::new())
    }
}

/// The files that are matched, in order of their paths and each once.
fn matched_files(walks: &mut [GlobWalk<'_>]) -> Vec<MatchedFile> {
    let mut found = Vec::new();
    for (glob, walk) in walks.iter_mut().enumerate() {
        found.extend(std::mem::take(&mut walk.files).into_iter().map(|path| (path, glob)));
    }
    // A stable sort is fast with what is nearly in order.
    found.sort();
    let mut matched: Vec<MatchedFile> = Vec::with_capacity(found.len());
    for (path, glob) in found {
        match matched.last_mut() {
            Some(last) if last.path == path => last.globs.push(glob),
            _ => matched.push(MatchedFile { path, globs: vec![glob] }),
        }
    }
    matched
}

/// The first problems of `origin`, and how many more there are.
fn shortened(problems: &[Problem], origin: &str) -> Vec<Problem> {
    let mut first: Vec<_> = problems.iter().take(WatchFiles::MAX_PROBLEMS).cloned().collect();
    if problems.len() > first.len() {
        first.push(Problem::new(origin, "", format!("{} more problems", problems.len() - first.len())));
    }
    first
}

fn shown(path: &Path) -> String {
    path.display().to_string()
}
