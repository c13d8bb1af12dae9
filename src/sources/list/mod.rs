//! The watch list: the definitions of all sources, and which of them take effect. No IO.
//!
//! If several sources define the same name, precedence decides and not time: the configuration precedes files, files
//! precede registrations, and a file precedes those with a later path. A definition that does not take effect is
//! kept, and takes effect when those that precede it are gone.

mod contenders;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::path::Path;
use std::sync::Arc;

use self::contenders::{Contender, Contenders, may_come_back, rejected, report_refused, winner};

use crate::toggle::{ApiName, Source, Timestamp, Watch, WatchName};

/// Where a definition comes from, in order of precedence.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Origin {
    /// The configuration.
    Config,
    /// A watch file.
    File(Arc<Path>),
    /// A registration over HTTP.
    Http,
}

/// A watch as one source defines it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WatchDefinition {
    /// The watch.
    pub watch: Arc<Watch>,
    /// When its run started, if the source knows it.
    pub started: Option<Timestamp>,
}

/// A watch that an edit added, changed or removed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WatchChange {
    /// The name of the watch.
    pub name: WatchName,
    /// The definition that takes effect from now on; `None` if the watch is gone.
    pub definition: Option<WatchDefinition>,
    /// Whether a source still defines the run that was watched before, so that it may come back.
    pub may_come_back: bool,
}

/// A definition that does not take effect, or no longer does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RefusedDefinition {
    /// The watch that it defines.
    pub watch: Arc<Watch>,
    /// Where it comes from.
    pub origin: Origin,
    /// The origin of the definition that precedes it; `None` if its API is not configured.
    pub by: Option<Origin>,
}

/// What an edit changed.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct EditResult {
    /// The changes of the list, each name at most once: first the watches that are gone, then the others, in the
    /// order of the edit.
    pub changes: Vec<WatchChange>,
    /// The definitions that are newly refused.
    pub refused: Vec<RefusedDefinition>,
}

/// How many definitions of a source take effect, and how many do not.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct WatchCounts {
    /// Those that take effect.
    pub watches: usize,
    /// Those that do not take effect.
    pub rejected: usize,
}

/// The definitions of all sources.
#[derive(Debug, Default)]
pub struct WatchList {
    apis: BTreeSet<ApiName>,
    /// The definitions of each name.
    by_name: HashMap<WatchName, Contenders>,
    /// The names that each origin defines.
    by_origin: BTreeMap<Arc<Origin>, HashSet<WatchName>>,
    counts: [WatchCounts; Source::ALL.len()],
    /// The names with a definition that does not take effect.
    rejected: BTreeSet<WatchName>,
}

/// A change of the list. It takes effect as a whole with [`Edit::finish`].
pub struct Edit<'l> {
    list: &'l mut WatchList,
    /// The names that were edited.
    touched: HashSet<WatchName>,
    /// The same in the order of the edit, with the watch that each had before.
    edited: Vec<(WatchName, Option<Arc<Watch>>)>,
}

// === impl WatchList ===

impl WatchList {
    /// Begins an edit.
    pub fn edit(&mut self) -> Edit<'_> {
        Edit { list: self, touched: HashSet::new(), edited: Vec::new() }
    }

    /// The origin of the watch of that name.
    pub fn origin_of(&self, name: &WatchName) -> Option<&Origin> {
        Some(&self.winner(name)?.origin)
    }

    /// Whether any source defines a watch of that name that `matches`, even if it does not take effect.
    pub fn defines_run(&self, name: &WatchName, matches: impl Fn(&Watch) -> bool) -> bool {
        self.contenders(name).iter().any(|contender| matches(&contender.definition.watch))
    }

    /// The number of definitions of each source.
    pub fn counts(&self) -> impl Iterator<Item = (Source, WatchCounts)> {
        Source::ALL.into_iter().zip(self.counts)
    }

    /// The first definitions that do not take effect, at most `most`, sorted by name.
    pub fn rejected(&self, most: usize) -> Vec<RefusedDefinition> {
        let of_name = |name: &WatchName| rejected(self.contenders(name), &self.apis);
        self.rejected.iter().flat_map(of_name).take(most).collect()
    }

    /// The definitions of a name.
    fn contenders(&self, name: &WatchName) -> &[Contender] {
        self.by_name.get(name).map(Contenders::as_slice).unwrap_or_default()
    }

    /// The definition of a name that takes effect.
    fn winner(&self, name: &WatchName) -> Option<&Contender> {
        let contenders = self.contenders(name);
        Some(&contenders[winner(contenders, &self.apis)?])
    }

    /// Subtracts the definitions of a name from the counts.
    fn subtract_counts(&mut self, name: &WatchName) {
        self.update_counts(name, |count| *count -= 1);
    }

    /// Adds the definitions of a name to the counts.
    fn add_counts(&mut self, name: &WatchName) {
        self.update_counts(name, |count| *count += 1);
        let contenders = self.contenders(name);
        // One definition at most takes effect.
        if contenders.len() > 1 || contenders.first().is_some_and(|contender| !contender.is_of(&self.apis)) {
            self.rejected.insert(name.clone());
        } else {
            self.rejected.remove(name);
        }
    }

    /// Applies `update` to the count of each definition of a name.
    fn update_counts(&mut self, name: &WatchName, update: impl Fn(&mut usize)) {
        let Some(contenders) = self.by_name.get(name).map(Contenders::as_slice) else { return };
        let winner = winner(contenders, &self.apis);
        for (i, contender) in contenders.iter().enumerate() {
            update(self.counts[contender.origin.source() as usize].of(winner == Some(i)));
        }
    }

    /// Adds the definitions of an edited name to the counts, and to `refused` those that are newly refused. Returns the
    /// change, if the watch of the name is no longer `old`.
    fn finish_edit(
        &mut self,
        name: WatchName,
        old: Option<Arc<Watch>>,
        elsewhere: &dyn Fn(&Watch) -> bool,
        refused: &mut Vec<RefusedDefinition>,
    ) -> Option<WatchChange> {
        self.add_counts(&name);
        let contenders = self.by_name.get_mut(&name).map(Contenders::as_mut_slice).unwrap_or_default();
        let winner = winner(contenders, &self.apis);
        report_refused(contenders, winner, &self.apis, refused);
        let definition = winner.map(|winner| contenders[winner].definition.clone());
        let new = definition.as_ref().map(|definition| &definition.watch);
        if old.as_ref() == new {
            return None;
        }
        let may_come_back = old.is_some_and(|old| may_come_back(&old, new, contenders, elsewhere));
        Some(WatchChange { name, definition, may_come_back })
    }
}

// === impl Edit ===

impl Edit<'_> {
    /// Sets the configured APIs. Watches of other APIs do not take effect.
    pub fn set_apis(&mut self, apis: BTreeSet<ApiName>) {
        let changed: HashSet<_> = self.list.apis.symmetric_difference(&apis).cloned().collect();
        let is_concerned = |contender: &Contender| changed.contains(&contender.definition.watch.api);
        let concerned =
            self.list.by_name.iter().filter(|(_, contenders)| contenders.as_slice().iter().any(is_concerned));
        let mut names: Vec<_> = concerned.map(|(name, _)| name.clone()).collect();
        names.sort_unstable();
        for name in &names {
            self.touch(name);
        }
        self.list.apis = apis;
    }

    /// Replaces all definitions of an origin. The names of the new ones must be unique.
    pub fn replace(&mut self, origin: &Origin, definitions: impl IntoIterator<Item = WatchDefinition>) {
        let mut gone: BTreeSet<_> = self.list.by_origin.get(origin).into_iter().flatten().cloned().collect();
        let definitions = definitions.into_iter();
        // A collection that grows step by step leaves freed memory of its own size behind.
        let new = definitions.size_hint().0.saturating_sub(gone.len());
        self.list.by_name.reserve(new);
        self.touched.reserve(new);
        self.edited.reserve(new);
        for definition in definitions {
            gone.remove(&definition.watch.name);
            self.define(origin, definition);
        }
        for name in &gone {
            self.remove(origin, name);
        }
    }

    /// Adds a definition of an origin, or replaces that of the same name.
    pub fn define(&mut self, origin: &Origin, definition: WatchDefinition) {
        let name = definition.watch.name.clone();
        let old = self.list.contenders(&name).iter().find(|old| *old.origin == *origin);
        if old.is_some_and(|old| old.definition == definition) {
            return;
        }
        self.touch(&name);
        let origin = match self.list.by_origin.get_key_value(origin) {
            Some((origin, _)) => origin.clone(),
            None => Arc::new(origin.clone()),
        };
        // Both maps get the key that the new watch has, so that the text of the old one can be freed.
        self.list.by_origin.entry(origin.clone()).or_default().replace(name.clone());
        let contender = Contender { origin, definition, refused: false };
        let contenders = match self.list.by_name.remove(&name) {
            Some(contenders) => contenders.with(contender),
            None => Contenders::One(contender),
        };
        self.list.by_name.insert(name, contenders);
    }

    /// Removes the definition that an origin has of a name.
    pub fn remove(&mut self, origin: &Origin, name: &WatchName) {
        self.touch(name);
        if let Some(names) = self.list.by_origin.get_mut(origin) {
            names.remove(name);
            if names.is_empty() {
                self.list.by_origin.remove(origin);
            }
        }
        if let Some(contenders) = self.list.by_name.remove(name).and_then(|contenders| contenders.without(origin)) {
            self.list.by_name.insert(name.clone(), contenders);
        }
    }

    /// Ends the edit and returns what it changed. `elsewhere` says whether a watch is defined somewhere that the list
    /// does not know, and may come back from there.
    pub fn finish(self, elsewhere: &dyn Fn(&Watch) -> bool) -> EditResult {
        let (mut gone, mut defined, mut refused) = (Vec::new(), Vec::with_capacity(self.edited.len()), Vec::new());
        for (name, old) in self.edited {
            if let Some(change) = self.list.finish_edit(name, old, elsewhere, &mut refused) {
                if change.definition.is_some() { &mut defined } else { &mut gone }.push(change);
            }
        }
        // Watches that are gone make room for new ones.
        gone.append(&mut defined);
        EditResult { changes: gone, refused }
    }

    /// Remembers the watch that a name had before its first edit.
    fn touch(&mut self, name: &WatchName) {
        if self.touched.insert(name.clone()) {
            let old = self.list.winner(name).map(|contender| contender.definition.watch.clone());
            self.list.subtract_counts(name);
            self.edited.push((name.clone(), old));
        }
    }
}

// === impl WatchCounts ===

impl WatchCounts {
    fn of(&mut self, takes_effect: bool) -> &mut usize {
        if takes_effect { &mut self.watches } else { &mut self.rejected }
    }
}

// === impl Origin ===

impl Origin {
    /// The kind of source.
    pub fn source(&self) -> Source {
        match self {
            Self::Config => Source::Config,
            Self::File(_) => Source::File,
            Self::Http => Source::Http,
        }
    }
}

// === impl WatchDefinition ===

impl From<Arc<Watch>> for WatchDefinition {
    fn from(watch: Arc<Watch>) -> Self {
        Self { watch, started: None }
    }
}
