//! Applying scans of the watch files, and forgetting saved state that no source defines any more.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use super::{Intake, events};
use crate::clock;
use crate::sources::{AgentList, AgentOrigin, Definitions, Edit, FileScan, Origin, WatchDefinition, WatchGlob};
use crate::store::SavedToggle;
use crate::toggle::WatchName;

/// Definitions by the file that has them.
pub(super) type DefinitionsByFile = BTreeMap<Arc<Path>, Arc<Definitions>>;

impl Intake {
    /// Applies a scan with the globs that are in force.
    pub(super) async fn apply_scan(&mut self, scan: FileScan) {
        let were_up = self.all_files_up;
        let mut edit = self.list.edit();
        let changed = replace_files(&mut edit, &mut self.agents, &mut self.definitions_by_file, &scan);
        let edited = edit.finish(&|old| self.registrations.has_run_of(old));
        self.publish(edited, None).await;
        self.note_scan(&scan);
        if changed || !self.is_reported(&scan) {
            self.report_files(&self.config.watch_files, &scan);
        }
        if changed || !were_up {
            self.forget_all_inactive();
        }
    }

    /// Takes note of a scan that was applied, so that a source that is shown as up has its watches on the board.
    pub(super) fn note_scan(&mut self, scan: &FileScan) {
        scan.events.iter().for_each(events::watch_files);
        self.context.metrics.set_watch_files(scan.glob_up.iter().map(|(path, up)| (&**path, *up)));
        self.all_files_up = scan.glob_up.iter().all(|(_, up)| *up);
    }

    /// Takes note that a scan with these globs takes long: none of them is known to be up.
    pub(super) fn note_late_scan(&mut self, globs: &[WatchGlob]) {
        self.context.metrics.set_watch_files(globs.iter().map(|glob| (glob.configured(), false)));
        self.all_files_up = false;
        self.report_late_files(globs);
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

/// Updates the lists from what the scan found in the watch files. Returns whether any file changed.
pub(super) fn replace_files(
    edit: &mut Edit<'_>,
    agents: &mut AgentList,
    current: &mut DefinitionsByFile,
    scan: &FileScan,
) -> bool {
    let mut changed = false;
    for path in current.keys().filter(|path| !scan.files.contains_key(*path)) {
        remove_file(edit, agents, path.clone());
        changed = true;
    }
    for (path, read) in &scan.files {
        if current.get(path).is_none_or(|current| !Arc::ptr_eq(current, read)) {
            edit.replace(&Origin::File(path.clone()), read.watches.iter().cloned().map(WatchDefinition::from));
            agents.replace(AgentOrigin::File(path.clone()), read.agents.clone());
            changed = true;
        }
    }
    current.clone_from(&scan.files);
    changed
}

/// Removes what is defined in files that no glob covers any more, for when the files cannot be scanned in time.
pub(super) fn remove_uncovered_files(
    edit: &mut Edit<'_>,
    agents: &mut AgentList,
    current: &mut DefinitionsByFile,
    globs: &[WatchGlob],
) {
    for (path, _) in current.extract_if(.., |path, _| !globs.iter().any(|glob| glob.covers(path))) {
        remove_file(edit, agents, path);
    }
}

fn remove_file(edit: &mut Edit<'_>, agents: &mut AgentList, path: Arc<Path>) {
    edit.replace(&Origin::File(path.clone()), []);
    agents.replace(AgentOrigin::File(path), Vec::new());
}
