//! Applying scans of the watch files, and forgetting saved state that no source defines any more.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use super::{Intake, events};
use crate::clock;
use crate::sources::{Edit, FileScan, Origin, WatchDefinition, WatchGlob, Watches};
use crate::store::SavedToggle;
use crate::toggle::{Source, WatchName};

/// Watches by the file that lists them.
pub(super) type WatchesByFile = BTreeMap<Arc<Path>, Watches>;

impl Intake {
    /// Applies a scan with the globs that are in force.
    pub(super) async fn apply_scan(&mut self, scan: FileScan) {
        let were_up = self.all_files_up;
        let mut edit = self.list.edit();
        let changed = replace_files(&mut edit, &mut self.watches_by_file, &scan);
        let edited = edit.finish(|old| self.registrations.has_run_of(old));
        self.publish(edited, None).await;
        self.report_scan(&scan);
        if changed || !were_up {
            self.forget_all_inactive();
        }
    }

    /// Reports a scan that was applied, so that a source that is shown as up has its watches on the board.
    pub(super) fn report_scan(&mut self, scan: &FileScan) {
        scan.events.iter().for_each(events::watch_files);
        self.context.metrics.set_sources(scan.glob_up.iter().map(|(path, up)| (Source::File, &**path, *up)));
        self.all_files_up = scan.glob_up.iter().all(|(_, up)| *up);
    }

    /// Reports that a scan with these globs takes long: none of them is known to be up.
    pub(super) fn report_late_scan(&mut self, globs: &[WatchGlob]) {
        let globs = globs.iter().map(|glob| (Source::File, glob.configured(), false));
        self.context.metrics.set_sources(globs);
        self.all_files_up = false;
    }

    /// Drops the saved state of runs under these names that no source defines. Does nothing while a watch
    /// file cannot be read, because that file may define them.
    pub(super) fn forget_inactive<'n>(&self, names: impl IntoIterator<Item = &'n WatchName>) {
        if self.all_files_up {
            let (board, now) = (&self.context.board, clock::now());
            let forget = |name: &&WatchName| board.forget_inactive(name, |name, run| self.defines(name, run), now);
            events::forgotten(names.into_iter().filter(forget).count());
        }
    }

    /// As [`Intake::forget_inactive`], for all names.
    pub(super) fn forget_all_inactive(&self) {
        if self.all_files_up {
            let keep = |name: &WatchName, run: &SavedToggle| self.defines(name, run);
            events::forgotten(self.context.board.forget_all_inactive(keep, clock::now()));
        }
    }

    /// Whether any source defines this run.
    fn defines(&self, name: &WatchName, run: &SavedToggle) -> bool {
        // While registrations are disabled they are not on the list, but they may be enabled again.
        let registered = self.registrations.get(name).is_some_and(|registration| run.is_run_of(&registration.watch));
        registered || self.list.defines_run(name, |watch| run.is_run_of(watch))
    }
}

/// Updates the list from what the scan found in the watch files. Returns whether any file changed.
pub(super) fn replace_files(edit: &mut Edit<'_>, current: &mut WatchesByFile, scan: &FileScan) -> bool {
    let mut changed = false;
    for path in current.keys().filter(|path| !scan.files.contains_key(*path)) {
        edit.replace(&Origin::File(path.clone()), []);
        changed = true;
    }
    for (path, watches) in &scan.files {
        if current.get(path).is_none_or(|current| !Arc::ptr_eq(current, watches)) {
            edit.replace(&Origin::File(path.clone()), watches.iter().cloned().map(WatchDefinition::from));
            changed = true;
        }
    }
    current.clone_from(&scan.files);
    changed
}

/// Removes the watches of files that no glob covers any more, for when the files cannot be scanned in time.
pub(super) fn remove_uncovered_files(edit: &mut Edit<'_>, current: &mut WatchesByFile, globs: &[WatchGlob]) {
    for (path, _) in current.extract_if(.., |path, _| !globs.iter().any(|glob| glob.covers(path))) {
        edit.replace(&Origin::File(path), []);
    }
}
