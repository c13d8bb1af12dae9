//! The watch list: what every source says, and which of it holds. Pure.
//!
//! Where two sources give the same name, precedence decides and not time: the configuration goes
//! before files, files go before registrations, and among files the first path goes first. What is
//! refused is kept, and comes back when what went before it is gone.

use std::borrow::Borrow;
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::hash::{Hash, Hasher};
use std::path::Path;
use std::sync::Arc;

use crate::toggle::{ApiName, Source, Timestamp, Watch, WatchName};

/// Where a definition comes from, in the order of precedence.
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
    /// When its run started, where the source knows that.
    pub started: Option<Timestamp>,
}

/// A difference between the list before and after an edit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WatchChange {
    /// The name that it is about.
    pub name: WatchName,
    /// What is watched under it from now on, if anything.
    pub now: Option<WatchDefinition>,
    /// Whether the run that was watched before is still defined, and may come back.
    pub may_come_back: bool,
}

/// A definition that does not hold since an edit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RefusedDefinition {
    /// The definition's watch.
    pub watch: Arc<Watch>,
    /// Where it comes from.
    pub origin: Origin,
    /// Where the one comes from that goes before it; `None` if its API is not configured.
    pub by: Option<Origin>,
}

/// What an edit brought about.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct EditResult {
    /// How the list is another one, each name at most once: first what is gone, then what is
    /// watched, in the order of the edit.
    pub changes: Vec<WatchChange>,
    /// What is newly refused.
    pub refused: Vec<RefusedDefinition>,
}

/// How many definitions a source has on the list, and how many that are refused.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct WatchCounts {
    /// Those that hold.
    pub watches: usize,
    /// Those that do not.
    pub rejected: usize,
}

/// Every definition of every source.
#[derive(Debug, Default)]
pub struct WatchList {
    apis: BTreeSet<ApiName>,
    /// The definitions of each name.
    names: HashSet<ByName<Contenders>>,
    /// The watches that each origin defines.
    by_origin: BTreeMap<Arc<Origin>, HashSet<ByName<Arc<Watch>>>>,
    counts: [WatchCounts; Source::ALL.len()],
}

/// Something that is found by the name of its watch, which is not kept a second time.
#[derive(Debug)]
struct ByName<T>(T);

/// Something that has a name.
trait Named {
    fn name(&self) -> &WatchName;
}

/// The definitions of one name, in the order of precedence. Most names have one, and there may be very
/// many names.
#[derive(Debug)]
enum Contenders {
    One(Contender),
    /// Two at least.
    Several(Vec<Contender>),
}

#[derive(Debug)]
struct Contender {
    origin: Arc<Origin>,
    definition: WatchDefinition,
    /// Whether it was already said that it does not hold.
    refused: bool,
}

/// A change of the list that is under way. It takes effect as a whole with [`Edit::finish`].
pub struct Edit<'l> {
    list: &'l mut WatchList,
    /// The names that were touched.
    seen: HashSet<WatchName>,
    /// The same in the order in which they were touched, with what held under each before.
    touched: Vec<(WatchName, Option<Arc<Watch>>)>,
}

// === impl WatchList ===

impl WatchList {
    /// Begins a change.
    pub fn edit(&mut self) -> Edit<'_> {
        Edit { list: self, seen: HashSet::new(), touched: Vec::new() }
    }

    /// Where the watch of that name comes from.
    pub fn origin_of(&self, name: &WatchName) -> Option<&Origin> {
        self.contenders(name).iter().find(|contender| contender.is_of(&self.apis)).map(|contender| &*contender.origin)
    }

    /// Whether any source defines a watch of that name and of such a run, be it that it does not hold.
    pub fn defines_run(&self, name: &WatchName, such: impl Fn(&Watch) -> bool) -> bool {
        self.contenders(name).iter().any(|other| such(&other.definition.watch))
    }

    /// How many definitions there are, by source.
    pub fn counts(&self) -> impl Iterator<Item = (Source, WatchCounts)> {
        Source::ALL.into_iter().zip(self.counts)
    }

    /// The definitions of a name.
    fn contenders(&self, name: &WatchName) -> &[Contender] {
        self.names.get(name.as_str()).map(|contenders| contenders.0.as_slice()).unwrap_or_default()
    }

    /// Puts the definitions of a name where they were taken out.
    fn put_back(&mut self, contenders: Option<ByName<Contenders>>) {
        if let Some(contenders) = contenders {
            self.names.insert(contenders);
        }
    }

    /// Counts the definitions of a name out, and returns what is watched under it.
    fn take_out(&mut self, name: &WatchName) -> Option<Arc<Watch>> {
        let contenders = self.names.get(name.as_str()).map(|contenders| contenders.0.as_slice()).unwrap_or_default();
        let winner = contenders.iter().position(|contender| contender.is_of(&self.apis));
        for (i, contender) in contenders.iter().enumerate() {
            *self.counts[contender.origin.source() as usize].of(winner == Some(i)) -= 1;
        }
        Some(contenders[winner?].definition.watch.clone())
    }

    /// Counts the definitions of a name in, adds those that newly do not hold to `refused`, and
    /// returns what changed if `old` was watched under it before.
    fn put_in(
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
            let holds = winner == Some(i);
            *self.counts[contender.origin.source() as usize].of(holds) += 1;
            if !holds && !contender.refused {
                let by = by.as_ref().filter(|_| contender.is_of(&self.apis));
                refused.push(RefusedDefinition {
                    watch: contender.definition.watch.clone(),
                    origin: Origin::clone(&contender.origin),
                    by: by.map(|by| Origin::clone(by)),
                });
            }
            contender.refused = !holds;
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
    /// From now on these are the configured APIs. A watch of any other one does not hold.
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

    /// From now on an origin defines these watches and no others. Their names must be unique.
    pub fn replace(&mut self, origin: &Origin, definitions: impl IntoIterator<Item = WatchDefinition>) {
        let defined = self.list.by_origin.get(origin).into_iter().flatten();
        let mut gone: BTreeSet<_> = defined.map(|watch| watch.0.name.clone()).collect();
        let definitions = definitions.into_iter();
        // Of a long list, what it would grow through would be as much again.
        let new = definitions.size_hint().0.saturating_sub(gone.len());
        self.list.names.reserve(new);
        self.seen.reserve(new);
        self.touched.reserve(new);
        for definition in definitions {
            gone.remove(&definition.watch.name);
            self.define(origin, definition);
        }
        for name in &gone {
            self.remove(origin, name);
        }
    }

    /// From now on an origin defines this watch, too.
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

    /// From now on an origin defines no watch of this name.
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

    /// Says what all of this changed. `elsewhere` says whether a watch is defined where the list does
    /// not know of it, and may come back from there.
    pub fn finish(self, elsewhere: impl Fn(&Watch) -> bool) -> EditResult {
        let (mut changes, mut refused) = (Vec::with_capacity(self.touched.len()), Vec::new());
        for (name, old) in self.touched {
            changes.extend(self.list.put_in(name, old.as_deref(), &elsewhere, &mut refused));
        }
        // What is gone makes room for what comes.
        changes.sort_by_key(|change| change.now.is_some());
        EditResult { changes, refused }
    }

    /// Remembers what holds under a name before the first change to it.
    fn touch(&mut self, name: &WatchName) {
        if self.seen.insert(name.clone()) {
            let old = self.list.take_out(name);
            self.touched.push((name.clone(), old));
        }
    }
}

// === impl ByName ===

impl Named for Arc<Watch> {
    fn name(&self) -> &WatchName {
        &self.name
    }
}

impl Named for Contenders {
    fn name(&self) -> &WatchName {
        match self {
            Self::One(contender) => &contender.definition.watch.name,
            Self::Several(contenders) => &contenders[0].definition.watch.name,
        }
    }
}

impl<T: Named> Borrow<str> for ByName<T> {
    fn borrow(&self) -> &str {
        self.0.name().as_str()
    }
}

impl<T: Named> Hash for ByName<T> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.name().as_str().hash(state);
    }
}

impl<T: Named> PartialEq for ByName<T> {
    fn eq(&self, other: &Self) -> bool {
        self.0.name() == other.0.name()
    }
}

impl<T: Named> Eq for ByName<T> {}

// === impl Contenders ===

impl Contenders {
    fn as_slice(&self) -> &[Contender] {
        match self {
            Self::One(contender) => std::slice::from_ref(contender),
            Self::Several(contenders) => contenders,
        }
    }

    fn as_mut_slice(&mut self) -> &mut [Contender] {
        match self {
            Self::One(contender) => std::slice::from_mut(contender),
            Self::Several(contenders) => contenders,
        }
    }

    fn into_vec(self) -> Vec<Contender> {
        match self {
            Self::One(contender) => vec![contender],
            Self::Several(contenders) => contenders,
        }
    }

    /// With one more, or another one of its origin; of that it is known whether it was refused.
    fn with(self, contender: Contender) -> Self {
        let mut all = self.into_vec();
        match all.binary_search_by(|old| old.origin.cmp(&contender.origin)) {
            Ok(at) => all[at].definition = contender.definition,
            Err(at) => all.insert(at, contender),
        }
        if all.len() == 1 { Self::One(all.swap_remove(0)) } else { Self::Several(all) }
    }

    /// Without that of an origin; `None` if there is no other.
    fn without(self, origin: &Origin) -> Option<Self> {
        let mut all = self.into_vec();
        all.retain(|contender| *contender.origin != *origin);
        if all.len() > 1 { Some(Self::Several(all)) } else { all.pop().map(Self::One) }
    }
}

// === impl Contender ===

impl Contender {
    /// Whether its API is among these.
    fn is_of(&self, apis: &BTreeSet<ApiName>) -> bool {
        apis.contains(&self.definition.watch.api)
    }
}

// === impl WatchCounts ===

impl WatchCounts {
    fn of(&mut self, holds: bool) -> &mut usize {
        if holds { &mut self.watches } else { &mut self.rejected }
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::board::Board;
    use crate::toggle::sample::{at, watch};

    fn api(name: &str) -> ApiName {
        ApiName::parse(name).unwrap()
    }

    fn file(path: &str) -> Origin {
        Origin::File(Path::new(path).into())
    }

    fn of(origin: &Origin, name: &str, progress_id: &str, api_name: &str) -> WatchDefinition {
        let watch = Watch { source: origin.source(), api: api(api_name), ..watch(name, progress_id) };
        WatchDefinition::from(Arc::new(watch))
    }

    fn list(apis: &[&str]) -> WatchList {
        let mut list = WatchList::default();
        let mut edit = list.edit();
        edit.set_apis(apis.iter().map(|name| api(name)).collect());
        assert_eq!(edit.finish(|_| false), EditResult::default());
        list
    }

    fn defines(list: &mut WatchList, origin: &Origin, name: &str) -> EditResult {
        let mut edit = list.edit();
        edit.define(origin, of(origin, name, "p", "default"));
        edit.finish(|_| false)
    }

    fn watched(definition: WatchDefinition, may_come_back: bool) -> WatchChange {
        WatchChange { name: definition.watch.name.clone(), now: Some(definition), may_come_back }
    }

    fn gone(name: &str, may_come_back: bool) -> WatchChange {
        WatchChange { name: watch(name, "p").name, now: None, may_come_back }
    }

    fn counts(list: &WatchList) -> Vec<(usize, usize)> {
        list.counts().map(|(_, count)| (count.watches, count.rejected)).collect()
    }

    #[test]
    fn precedence_is_by_rule_and_not_by_time_and_a_loser_comes_back() {
        let mut list = list(&["default"]);
        let order = [Origin::Config, file("/a"), file("/b"), Origin::Http];
        // Each has a run of its own.
        let of = |i: usize| of(&order[i], "w", &format!("p{i}"), "default");
        for i in (0..order.len()).rev() {
            let mut edit = list.edit();
            edit.define(&order[i], of(i));
            assert_eq!(edit.finish(|_| false).changes, [watched(of(i), i + 1 < order.len())]);
        }
        assert_eq!(counts(&list), [(1, 0), (0, 2), (0, 1)]);
        for (i, origin) in order.iter().enumerate() {
            assert_eq!(list.origin_of(&watch("w", "p").name), Some(origin));
            let mut edit = list.edit();
            edit.remove(origin, &watch("w", "p").name);
            let is_last = i + 1 == order.len();
            let expected = if is_last { gone("w", false) } else { watched(of(i + 1), false) };
            assert_eq!(edit.finish(|_| false).changes, [expected]);
        }
        assert_eq!(counts(&list), [(0, 0); 3]);
    }

    #[test]
    fn a_loser_is_said_once_with_what_goes_before_it() {
        let mut list = list(&["default"]);
        defines(&mut list, &Origin::Config, "w");
        let edited = defines(&mut list, &Origin::Http, "w");
        assert_eq!(edited.changes, []);
        assert_eq!((&edited.refused[0].origin, &edited.refused[0].by), (&Origin::Http, &Some(Origin::Config)));
        assert_eq!(defines(&mut list, &file("/a"), "w").refused.len(), 1, "the file's, and not the other one again");
    }

    #[test]
    fn a_watch_of_an_api_that_is_not_configured_waits_for_it() {
        let mut list = list(&["default"]);
        let mut edit = list.edit();
        edit.define(&Origin::Http, of(&Origin::Http, "w", "p", "staging"));
        let edited = edit.finish(|_| false);
        assert_eq!((edited.changes.len(), edited.refused[0].by.clone()), (0, None));
        assert_eq!(counts(&list), [(0, 0), (0, 0), (0, 1)]);
        let mut edit = list.edit();
        edit.set_apis([api("default"), api("staging")].into());
        assert_eq!(edit.finish(|_| false).changes.len(), 1);
        let mut edit = list.edit();
        edit.set_apis([api("default")].into());
        assert_eq!(edit.finish(|_| false).changes, [gone("w", true)]);
    }

    #[test]
    fn a_watch_that_moves_from_one_source_to_another_in_one_edit_is_never_gone() {
        let mut list = list(&["default"]);
        defines(&mut list, &Origin::Config, "w");
        let mut edit = list.edit();
        edit.replace(&Origin::Config, []);
        edit.replace(&file("/a"), [of(&file("/a"), "w", "p", "default")]);
        assert_eq!(edit.finish(|_| false).changes, [watched(of(&file("/a"), "w", "p", "default"), false)]);
        let mut edit = list.edit();
        edit.replace(&file("/a"), [of(&file("/a"), "w", "p", "default")]);
        assert_eq!(edit.finish(|_| false), EditResult::default(), "the same again changes nothing");
    }

    /// What can happen to a list, as the model and the list are told it.
    #[derive(Debug, Clone)]
    enum Step {
        Replace(Origin, Vec<(u8, u8, bool)>),
        Register(u8, u8, bool),
        Deregister(u8),
        Apis(bool),
    }

    fn any_step() -> impl Strategy<Value = Step> {
        let entries = || proptest::collection::vec((0..6u8, 0..3u8, any::<bool>()), 0..6);
        let origin = prop_oneof![Just(Origin::Config), Just(file("/a")), Just(file("/b"))];
        prop_oneof![
            3 => (origin, entries()).prop_map(|(origin, entries)| Step::Replace(origin, entries)),
            3 => (0..6u8, 0..3u8, any::<bool>()).prop_map(|(name, run, staging)| Step::Register(name, run, staging)),
            2 => (0..6u8).prop_map(Step::Deregister),
            1 => any::<bool>().prop_map(Step::Apis),
        ]
    }

    fn definition(origin: &Origin, (name, run, staging): (u8, u8, bool)) -> WatchDefinition {
        of(origin, &format!("w{name}"), &format!("p{run}"), if staging { "staging" } else { "default" })
    }

    /// Who holds, by the rules alone: of each name the first whose API is configured.
    type Model = BTreeMap<(WatchName, Origin), WatchDefinition>;

    fn tell_model(model: &mut Model, apis: &mut Vec<&str>, step: &Step) {
        match step {
            Step::Replace(origin, entries) => {
                model.retain(|(_, from), _| from != origin);
                for entry in entries {
                    let definition = definition(origin, *entry);
                    model.insert((definition.watch.name.clone(), origin.clone()), definition);
                }
            }
            Step::Register(name, run, staging) => {
                let definition = definition(&Origin::Http, (*name, *run, *staging));
                model.insert((definition.watch.name.clone(), Origin::Http), definition);
            }
            Step::Deregister(name) => drop(model.remove(&(watch(&format!("w{name}"), "p").name, Origin::Http))),
            Step::Apis(staging) => *apis = if *staging { vec!["default", "staging"] } else { vec!["default"] },
        }
    }

    fn tell_edit(edit: &mut Edit<'_>, step: &Step) {
        match step {
            Step::Replace(origin, entries) => {
                let last: BTreeMap<_, _> = entries.iter().map(|entry| (entry.0, *entry)).collect();
                edit.replace(origin, last.into_values().map(|entry| definition(origin, entry)));
            }
            Step::Register(name, run, staging) => {
                edit.define(&Origin::Http, definition(&Origin::Http, (*name, *run, *staging)));
            }
            Step::Deregister(name) => edit.remove(&Origin::Http, &watch(&format!("w{name}"), "p").name),
            Step::Apis(true) => edit.set_apis([api("default"), api("staging")].into()),
            Step::Apis(false) => edit.set_apis([api("default")].into()),
        }
    }

    proptest! {
        #[test]
        fn any_interleaving_leaves_exactly_the_union_that_the_rules_give(
            edits in proptest::collection::vec(proptest::collection::vec(any_step(), 1..4), 0..30)
        ) {
            let (mut model, mut apis) = (Model::new(), vec!["default"]);
            let (mut list, board) = (list(&["default"]), Board::default());
            for (second, steps) in (0..).zip(edits) {
                let mut edit = list.edit();
                for step in &steps {
                    tell_model(&mut model, &mut apis, step);
                    tell_edit(&mut edit, step);
                }
                let edited = edit.finish(|_| false);
                board.update(&edited.changes, at(second));
                let mut expected: BTreeMap<WatchName, WatchDefinition> = BTreeMap::new();
                for ((name, _), definition) in &model {
                    if apis.contains(&definition.watch.api.as_str()) {
                        expected.entry(name.clone()).or_insert_with(|| definition.clone());
                    }
                }
                let shown: Vec<_> = board.rows().iter().map(|row| row.toggle.watch.clone()).collect();
                let expected: Vec<_> = expected.into_values().map(|definition| definition.watch).collect();
                prop_assert_eq!(&shown, &expected);
                for (source, count) in list.counts() {
                    let defined = model.keys().filter(|(_, origin)| origin.source() == source).count();
                    let watched = expected.iter().filter(|watch| watch.source == source).count();
                    prop_assert_eq!((count.watches, count.rejected), (watched, defined - watched));
                }
            }
        }
    }
}
