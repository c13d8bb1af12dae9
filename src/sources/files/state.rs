//! The state of a watch file between scans.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use super::{FileEvent, shortened, shown};
use crate::document::Problem;
use crate::input_file::FileStamp;
use crate::sources::Definitions;
use crate::toggle::Watch;

/// The state of a watch file.
#[derive(Debug, Default)]
pub(super) struct FileState {
    /// What the last content without problems defines.
    last_good: Option<Arc<Definitions>>,
    /// The problems of the file as it is now.
    problems: Vec<Problem>,
    /// The hash of the content that was parsed last; `None` if the next content must be parsed in any case.
    content: Option<u64>,
    /// The stamp of the file when it was read last, if any change will show in it.
    stamp: Option<FileStamp>,
    /// Whether the file was empty in the last scan.
    was_empty: bool,
}

/// Replaces each watch that is equal to one of `before` by that one. Holders of the list from before then
/// share the memory of the new one.
pub fn share_equal(watches: &mut [Arc<Watch>], before: &[Arc<Watch>]) {
    if before.is_empty() {
        return;
    }
    let before: HashMap<_, _> = before.iter().map(|watch| (&watch.name, watch)).collect();
    for watch in watches {
        if let Some(same) = before.get(&watch.name).filter(|same| **same == watch) {
            *watch = Arc::clone(same);
        }
    }
}

// === impl FileState ===

impl FileState {
    pub(super) fn last_good(&self) -> Option<&Arc<Definitions>> {
        self.last_good.as_ref()
    }

    pub(super) fn stamp(&self) -> Option<&FileStamp> {
        self.stamp.as_ref()
    }

    /// The problems of the file as it is now.
    pub(super) fn problems(&self) -> &[Problem] {
        &self.problems
    }

    pub(super) fn has_problems(&self) -> bool {
        !self.problems.is_empty()
    }

    /// Makes the next scan read and parse the file.
    pub(super) fn forget_content(&mut self) {
        self.content = None;
        self.stamp = None;
    }

    /// Takes note of a content and its hash. Returns whether it has to be parsed.
    pub(super) fn needs_parsing(&mut self, content: &[u8], hash: u64, stamp: Option<FileStamp>) -> bool {
        if self.may_be_being_written(content) {
            self.stamp = None;
            return false;
        }
        self.stamp = stamp;
        self.content.replace(hash) != Some(hash)
    }

    /// Whether a file that had entries is empty for the first time: a shell empties a file before it writes to it. If
    /// it is still empty in the next scan, it is meant to be.
    fn may_be_being_written(&mut self, content: &[u8]) -> bool {
        let was_empty = std::mem::replace(&mut self.was_empty, content.is_empty());
        content.is_empty() && !was_empty && self.last_good.as_ref().is_some_and(|good| !good.is_empty())
    }

    /// Sets what a file without problems defines.
    pub(super) fn set_definitions(&mut self, path: &Path, mut read: Definitions, events: &mut Vec<FileEvent>) {
        if self.has_problems() {
            self.problems.clear();
            events.push(FileEvent::FileRecovered { path: shown(path) });
        }
        if self.last_good.as_deref() != Some(&read) {
            let (watches, agents) = (read.watches.len(), read.agents.len());
            events.push(FileEvent::FileChanged { path: shown(path), watches, agents });
            share_equal(&mut read.watches, self.last_good.as_ref().map(|good| &*good.watches).unwrap_or_default());
            self.last_good = Some(Arc::new(read));
        }
    }

    /// Sets the problems of a file. The last good entries are kept.
    pub(super) fn set_problems(&mut self, path: &Path, problems: Vec<Problem>, events: &mut Vec<FileEvent>) {
        let same = problems.len() == self.problems.len()
            && problems.iter().zip(&self.problems).all(|(now, before)| now.is_same(before));
        if !same {
            let path = shown(path);
            events.push(FileEvent::FileFailed { problems: shortened(&problems, &path), path });
        }
        self.problems = problems;
    }

    /// Sets the problem of a file that cannot be read.
    pub(super) fn set_unreadable(&mut self, path: &Path, problem: Problem, events: &mut Vec<FileEvent>) {
        self.forget_content();
        self.set_problems(path, vec![problem], events);
    }
}
