//! The watch list: the definitions of all sources, and which of them take effect. No IO.
//!
//! If several sources define the same name, precedence decides and not time: the configuration precedes files, files
//! precede registrations, and a file precedes those with a later path. A definition that does not take effect is
//! kept, and takes effect when those that precede it are gone.

mod contenders;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::path::Path;
use std::sync::Arc;

use self::contenders::{ByName, Contender, Contenders, Named};

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
    pub now: Option<WatchDefinition>,
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
    names: HashSet<ByName<Contenders>>,
    /// The watches that each origin defines.
    by_origin: BTreeMap<Arc<Origin>, HashSet<ByName<Arc<Watch>>>>,
    counts: [WatchCounts; Source::ALL.len()],
}

/// A change of the list. It takes effect as a whole with [`Edit::finish`].
pub struct Edit<'l> {
    list: &'l mut WatchList,
    /// The names that were edited.
    names: HashSet<WatchName>,
    /// The same in the order of the edit, with the watch that each had before.
    edited: Vec<(WatchName, Option<Arc<Watch>>)>,
}

// === impl WatchList ===

impl WatchList {
    /// Begins an edit.
    pub fn edit(&mut self) -> Edit<'_> {
        Edit { list: self, names: HashSet::new(), edited: Vec::new() }
    }

    /// The origin of the watch of that name.
    pub fn origin_of(&self, name: &WatchName) -> Option<&Origin> {
        self.contenders(name).iter().find(|contender| contender.is_of(&self.apis)).map(|contender| &*contender.origin)
    }

    /// Whether any source defines a watch of that name for which `such` holds, even if it does not take effect.
    pub fn defines_run(&self, name: &WatchName, such: impl Fn(&Watch) -> bool) -> bool {
        self.contenders(name).iter().any(|other| such(&other.definition.watch))
    }

    /// The number of definitions of each source.
    pub fn counts(&self) -> impl Iterator<Item = (Source, WatchCounts)> {
        Source::ALL.into_iter().zip(self.counts)
    }

    /// The definitions of a name.
    fn contenders(&self, name: &WatchName) -> &[Contender] {
        self.names.get(name.as_str()).map(|contenders| contenders.0.as_slice()).unwrap_or_default()
    }

    /// Puts back the definitions of a name.
    fn put_back(&mut self, contenders: Option<ByName<Contenders>>) {
        if let Some(contenders) = contenders {
            self.names.insert(contenders);
        }
    }

    /// Subtracts the definitions of a name from the counts, and returns the watch that it has.
    fn count_out(&mut self, name: &WatchName) -> Option<Arc<Watch>> {
        let contenders = self.names.get(name.as_str()).map(|contenders| contenders.0.as_slice()).unwrap_or_default();
        let winner = contenders.iter().position(|contender| contender.is_of(&self.apis));
        for (i, contender) in contenders.iter().enumerate() {
            *self.counts[contender.origin.source() as usize].of(winner == Some(i)) -= 1;
        }
        Some(contenders[winner?].definition.watch.clone())
    }

    /// Adds the definitions of a name to the counts, and to `refused` those that are newly refused. Returns the
    /// change, if the watch of the name is no longer `old`.
    fn count_in(
        &mut self,
        name: WatchName,
        old: Option<&Watch>,
        elsewhere: &impl Fn(&Watch) -> bool,
        refused: &mut Vec<RefusedDefinition>,
    ) -> Option<WatchChange> {
        let mut defined = self.names.take(name.as_str());
        let contenders = defined.as_mut().map(|contenders| contenders.0.as_mut_slice()).unwrap_or_default();
        let winner = contenders.iter().position(|contender| contender.is_of(&self.apis));
        let by = winner.filter(|_| contenders.len() > 1).map(|winner| contenders[winner].origin.clone());
        for (i, contender) in contenders.iter_mut().enumerate() {
            let is_winner = winner == Some(i);
            *self.counts[contender.origin.source() as usize].of(is_winner) += 1;
            if !is_winner && !contender.refused {
                let by = by.as_ref().filter(|_| contender.is_of(&self.apis));
                refused.push(RefusedDefinition {
                    watch: contender.definition.watch.clone(),
                    origin: Origin::clone(&contender.origin),
                    by: by.map(|by| Origin::clone(by)),
                });
            }
            contender.refused = !is_winner;
        }
        let now = winner.map(|winner| contenders[winner].definition.clone());
        let new = now.as_ref().map(|definition| &*definition.watch);
        if old == new {
            self.put_back(defined);
            return None;
        }
        let may_come_back = old.is_some_and(|old| {
            let goes_on = new.is_some_and(|new| new.same_run(old));
            let is_defined = contenders.iter().any(|contender| contender.definition.watch.same_run(old));
            !goes_on && (is_defined || elsewhere(old))
        });
        self.put_back(defined);
        Some(WatchChange { name, now, may_come_back })
    }
}

// === impl Edit ===

impl Edit<'_> {
    /// Sets the configured APIs. Watches of other APIs do not take effect.
    pub fn set_apis(&mut self, apis: BTreeSet<ApiName>) {
        let changed: HashSet<_> = self.list.apis.symmetric_difference(&apis).cloned().collect();
        let is_concerned = |contender: &Contender| changed.contains(&contender.definition.watch.api);
        let names = self.list.names.iter().filter(|contenders| contenders.0.as_slice().iter().any(is_concerned));
        let mut names: Vec<_> = names.map(|contenders| contenders.0.name().clone()).collect();
        names.sort_unstable();
        for name in &names {
            self.touch(name);
        }
        self.list.apis = apis;
    }

    /// Replaces all definitions of an origin. The names of the new ones must be unique.
    pub fn replace(&mut self, origin: &Origin, definitions: impl IntoIterator<Item = WatchDefinition>) {
        let defined = self.list.by_origin.get(origin).into_iter().flatten();
        let mut gone: BTreeSet<_> = defined.map(|watch| watch.0.name.clone()).collect();
        let definitions = definitions.into_iter();
        // A collection that grows step by step leaves freed memory of its own size behind.
        let new = definitions.size_hint().0.saturating_sub(gone.len());
        self.list.names.reserve(new);
        self.names.reserve(new);
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
        let watch = definition.watch.clone();
        let old = self.list.contenders(&watch.name).iter().find(|old| *old.origin == *origin);
        if old.is_some_and(|old| old.definition == definition) {
            return;
        }
        self.touch(&watch.name);
        let origin = match self.list.by_origin.get_key_value(origin) {
            Some((origin, _)) => origin.clone(),
            None => Arc::new(origin.clone()),
        };
        self.list.by_origin.entry(origin.clone()).or_default().replace(ByName(watch.clone()));
        let contender = Contender { origin, definition, refused: false };
        let contenders = match self.list.names.take(watch.name.as_str()) {
            Some(ByName(contenders)) => contenders.with(contender),
            None => Contenders::One(contender),
        };
        self.list.put_back(Some(ByName(contenders)));
    }

    /// Removes the definition that an origin has of a name.
    pub fn remove(&mut self, origin: &Origin, name: &WatchName) {
        self.touch(name);
        if let Some(watches) = self.list.by_origin.get_mut(origin) {
            watches.remove(name.as_str());
            if watches.is_empty() {
                self.list.by_origin.remove(origin);
            }
        }
        let contenders = self.list.names.take(name.as_str());
        self.list.put_back(contenders.and_then(|contenders| contenders.0.without(origin)).map(ByName));
    }

    /// Ends the edit and returns what it changed. `elsewhere` says whether a watch is defined somewhere that the list
    /// does not know, and may come back from there.
    pub fn finish(self, elsewhere: impl Fn(&Watch) -> bool) -> EditResult {
        let (mut changes, mut refused) = (Vec::with_capacity(self.edited.len()), Vec::new());
        for (name, old) in self.edited {
            changes.extend(self.list.count_in(name, old.as_deref(), &elsewhere, &mut refused));
        }
        // Watches that are gone make room for new ones.
        changes.sort_by_key(|change| change.now.is_some());
        EditResult { changes, refused }
    }

    /// Remembers the watch that a name had before its first edit.
    fn touch(&mut self, name: &WatchName) {
        if self.names.insert(name.clone()) {
            let old = self.list.count_out(name);
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
