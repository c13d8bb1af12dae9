//! Lists of watches, whose entries are taken one by one while the list is read.
//!
//! An entry that is right becomes a [`Watch`] as soon as it was read, and its tree is gone: of a long
//! list, the trees would be most of what the process ever holds. The tree of an entry that is wrong
//! is kept until it is known which APIs there are, so that its problems are told together.

use std::cell::RefCell;
use std::collections::hash_map::Entry as Taken;
use std::collections::{BTreeSet, HashMap};
use std::path::Path;
use std::sync::Arc;

use figment::Figment;
use figment::value::Value;

use crate::document::yaml::Sink;
use crate::document::{Node, Place, Reading, Section, Show, show};
use crate::toggle::{AgentId, ApiName, Expect, LabelName, Labels, ProgressId, Source, Watch, WatchName};

/// The entries of a list, as far as it was read.
pub(crate) struct Entries<'a> {
    file: &'a Path,
    source: Source,
    shared: Shared<'a>,
    read: Vec<ListEntry>,
    /// One that knows of no variables: none is laid over a list that is taken so.
    figment: Figment,
}

enum ListEntry {
    /// Nothing is wrong with it, but perhaps its API is not configured; and whether it names that.
    Watch(Arc<Watch>, bool),
    /// Something is wrong with it.
    Wrong(Value),
}

/// What the watches of a list share.
pub(crate) struct Shared<'a> {
    apis: ApiNames<'a>,
    /// Those that the last watch with labels has: its neighbours often have the same.
    labels: RefCell<Labels>,
}

/// The APIs that a watch may name.
enum ApiNames<'a> {
    /// These.
    Known(&'a BTreeSet<ApiName>),
    /// Any, while it is not known which there are. Those that were named are shared by all who name
    /// them.
    Any(RefCell<Vec<ApiName>>),
}

/// The watches of a list, whose names must differ.
struct UniqueNames<'p> {
    /// Where the list stands.
    path: &'p str,
    /// The indices of the entries that have the names, be it that something else is wrong with them.
    firsts: HashMap<WatchName, usize>,
    watches: Vec<Arc<Watch>>,
}

/// All of a watch but its name and where it comes from.
pub(super) struct Slot {
    agent_id: AgentId,
    progress_id: ProgressId,
    expect: Option<Expect>,
    api: ApiName,
    labels: Labels,
}

// === impl Entries ===

impl<'a> Entries<'a> {
    /// None yet. `apis` are those that there are, if that is known already.
    pub(crate) fn new(file: &'a Path, source: Source, apis: Option<&'a BTreeSet<ApiName>>) -> Self {
        Self { file, source, shared: Shared::of(apis), read: Vec::new(), figment: Figment::new() }
    }

    /// The watches of the list that stands at `path`, but for those with problems. It is `list` where
    /// that is in the tree. Any API's name will do where it is not known which there are.
    pub(crate) fn watches(self, list: &Node<'_>, path: &str, apis: Option<&BTreeSet<ApiName>>) -> Vec<Arc<Watch>> {
        let (source, unknown) = (self.source, self.shared.apis.has_others_than(apis));
        let shared = Shared::of(apis);
        let mut named = UniqueNames::with_room(path, self.read.len());
        let walk = |named: &mut UniqueNames<'_>, index: usize, node: &Node<'_>| {
            if let Some((name, watch)) = watch(node, &shared, source) {
                named.add(&node.place(), index, name, watch.map(Arc::new));
            }
        };
        if !list.is_empty() {
            list.items().iter().enumerate().for_each(|(index, node)| walk(&mut named, index, node));
            return named.watches;
        }
        for (index, entry) in self.read.into_iter().enumerate() {
            match entry {
                ListEntry::Watch(watch, names_api) => {
                    let place = list.place_of(index);
                    let is_good = !unknown || shared.apis.has_that_of(&watch, names_api, &place);
                    named.add(&place, index, watch.name.clone(), is_good.then_some(watch));
                }
                ListEntry::Wrong(tree) => walk(&mut named, index, &list.element(index, &tree)),
            }
        }
        named.watches
    }
}

impl Sink for Entries<'_> {
    fn begin(&mut self) {
        self.read.clear();
    }

    fn take(&mut self, element: Value) {
        let reading = Reading::new(&self.figment, self.file);
        let node = reading.root(&element);
        let read = watch(&node, &self.shared, self.source).and_then(|(_, watch)| watch);
        let entry = match read.filter(|_| reading.is_clean()) {
            Some(watch) => ListEntry::Watch(Arc::new(watch), node.has("api")),
            None => ListEntry::Wrong(element),
        };
        self.read.push(entry);
    }
}

// === impl Shared ===

impl<'a> Shared<'a> {
    /// Nothing yet but the names of the APIs, if it is known which there are.
    pub(crate) fn of(apis: Option<&'a BTreeSet<ApiName>>) -> Self {
        let apis = apis.map_or_else(|| ApiNames::Any(RefCell::default()), ApiNames::Known);
        Self { apis, labels: RefCell::default() }
    }

    /// The API that an entry names, or the default one.
    pub(crate) fn api(&self, section: &Section<'_>) -> Option<ApiName> {
        match section.take("api") {
            Some(node) => node.parsed(Show::Value, |name| self.apis.named(name)),
            None => self.apis.default_of(&section.place_of("api")),
        }
    }

    /// The labels of an entry; none where it has none.
    pub(crate) fn labels_of(&self, section: &Section<'_>) -> Option<Labels> {
        match section.take("labels") {
            Some(node) => self.labels(&node),
            None => Some(Labels::default()),
        }
    }

    fn labels(&self, node: &Node<'_>) -> Option<Labels> {
        if node.has_just(self.labels.borrow().iter().map(|(name, value)| (name.as_str(), value))) {
            return Some(self.labels.borrow().clone());
        }
        let parsed = node.entries()?.map(|(name, node)| {
            let name = LabelName::parse(name).map_err(|what| node.note(what)).ok();
            let value = node.text().map(Box::from);
            name.zip(value)
        });
        // All are read before one that is wrong decides, so that every problem is noted.
        let labels: Labels = parsed.collect::<Vec<_>>().into_iter().collect::<Option<_>>()?;
        self.labels.replace(labels.clone());
        Some(labels)
    }
}

// === impl ApiNames ===

impl ApiNames<'_> {
    /// The API of that name, which all of its watches share.
    fn named(&self, name: &str) -> Result<ApiName, String> {
        match self {
            Self::Known(apis) => apis.iter().find(|known| known.as_str() == name).cloned().ok_or_else(|| {
                let known: Vec<_> = apis.iter().map(ApiName::as_str).collect();
                format!("is not under `apis`; known are: {}", known.join(", "))
            }),
            Self::Any(apis) => {
                let mut apis = apis.borrow_mut();
                if let Some(named) = apis.iter().find(|named| named.as_str() == name) {
                    return Ok(named.clone());
                }
                let named = ApiName::parse(name)?;
                apis.push(named.clone());
                Ok(named)
            }
        }
    }

    /// The API of a watch that names none.
    fn default_of(&self, place: &Place<'_>) -> Option<ApiName> {
        let default = self.named(ApiName::DEFAULT);
        default.map_err(|what| place.note(format!("is missing, and the API `{}` {what}", ApiName::DEFAULT))).ok()
    }

    /// Whether one was named that is not among these.
    fn has_others_than(&self, apis: Option<&BTreeSet<ApiName>>) -> bool {
        match (self, apis) {
            (Self::Any(named), Some(apis)) => named.borrow().iter().any(|name| !apis.contains(name)),
            _ => false,
        }
    }

    /// Whether the API of a watch is among these, which is noted if it is not. `place` is that of the
    /// watch.
    fn has_that_of(&self, watch: &Watch, names_it: bool, place: &Place<'_>) -> bool {
        let place = place.key("api");
        if !names_it {
            return self.default_of(&place).is_some();
        }
        let name = watch.api.as_str();
        self.named(name).map_err(|what| place.note(format!("`{}` {what}", show(name)))).is_ok()
    }
}

// === impl UniqueNames ===

impl<'p> UniqueNames<'p> {
    fn with_room(path: &'p str, room: usize) -> Self {
        Self { path, firsts: HashMap::with_capacity(room), watches: Vec::with_capacity(room) }
    }

    fn add(&mut self, place: &Place<'_>, index: usize, name: WatchName, watch: Option<Arc<Watch>>) {
        match self.firsts.entry(name) {
            Taken::Occupied(first) => {
                let (name, path, first) = (first.key(), self.path, first.get());
                place.note(format!("the name `{name}` is taken by {path}[{first}]: give each watch a name of its own"));
            }
            Taken::Vacant(free) => {
                free.insert(index);
                self.watches.extend(watch);
            }
        }
    }
}

// === impl Slot ===

impl Slot {
    pub(super) fn named(self, name: WatchName, source: Source) -> Watch {
        let Self { agent_id, progress_id, expect, api, labels } = self;
        Watch { name, api, agent_id, progress_id, expect, labels, source }
    }
}

/// The watch, and its name even if something else is wrong with it.
pub(super) fn watch(node: &Node<'_>, shared: &Shared<'_>, source: Source) -> Option<(WatchName, Option<Watch>)> {
    let section = node.section()?;
    let name = section.take("name").map(|node| node.parsed(Show::Value, WatchName::parse));
    let (agent_id, slot) = slot(&section, shared);
    section.finish();
    let name = match name {
        Some(given) => given?,
        None => WatchName::of_agent(agent_id?),
    };
    Some((name.clone(), slot.map(|slot| slot.named(name, source))))
}

/// A watch that its source names by other means than the key `name`.
pub(super) fn unnamed_watch(node: &Node<'_>, shared: &Shared<'_>) -> Option<Slot> {
    let section = node.section()?;
    let (_, slot) = slot(&section, shared);
    section.finish();
    slot
}

/// The slot if all of it is right, and the agent's id even if something else is wrong.
fn slot(section: &Section<'_>, shared: &Shared<'_>) -> (Option<AgentId>, Option<Slot>) {
    let agent_id = section.require("agent_id", AgentId::parse);
    let progress_id = section.require("progress_id", ProgressId::parse);
    let expect = section.take("expect").map(|node| node.parsed(Show::Value, Expect::parse));
    let (api, labels) = (shared.api(section), shared.labels_of(section));
    let whole =
        agent_id.zip(progress_id).zip(api.zip(labels)).zip(expect.map_or(Some(None), |parsed| parsed.map(Some)));
    let slot = whole.map(|(((agent_id, progress_id), (api, labels)), expect)| Slot {
        agent_id,
        progress_id,
        expect,
        api,
        labels,
    });
    (agent_id, slot)
}

#[cfg(test)]
mod tests {
    use crate::config::parse;
    use proptest::prelude::*;

    /// What is said of this watch list, in a configuration with this beside it.
    fn said(text: &str) -> String {
        match parse(text) {
            Ok(config) => config.to_string(),
            Err(problems) => problems.to_string(),
        }
    }

    #[test]
    fn apis_may_come_after_the_watches_that_name_them() {
        let watches =
            "watches: [{name: a, agent_id: 1, progress_id: p, api: eu}, {name: b, agent_id: 1, progress_id: p}]\n";
        let config = parse(&[watches, "apis: {eu: {}, default: {}}\n"].concat()).unwrap();
        let apis: Vec<_> = config.watches.iter().map(|watch| watch.api.as_str()).collect();
        assert_eq!(apis, ["eu", "default"]);
        assert_eq!(
            said(&[watches, "apis: {us: {}}\n"].concat()),
            "configuration: watches[0].api: `eu` is not under `apis`; known are: us\n\
             configuration: watches[1].api: is missing, and the API `default` is not under `apis`; known are: us"
        );
    }

    #[test]
    fn neighbours_with_equal_labels_share_their_memory() {
        let of = |labels: [&str; 4]| {
            let entries: Vec<_> = labels
                .iter()
                .enumerate()
                .map(|(i, l)| format!("{{name: w{i}, agent_id: 1, progress_id: p, {l}}}"))
                .collect();
            parse(&format!("watches: [{}]", entries.join(", "))).unwrap().watches
        };
        let watches =
            of(["labels: {team: x, tier: y}", "expect: enabled", "labels: {tier: y, team: x}", "labels: {team: x}"]);
        let value = |i: usize| watches[i].labels.iter().next().map(|(_, value)| value.as_ptr());
        assert_eq!(watches[0].labels, watches[2].labels);
        assert_eq!(value(0), value(2));
        assert_eq!((value(1), watches[3].labels.iter().count()), (None, 1));
    }

    #[test]
    fn an_api_that_is_wrong_is_said_in_its_place_among_the_problems_of_its_watch() {
        let text = "watches: [{agent_id: 0, progress_id: p, api: eu, labels: {job: x}}, {agent_id: 1, progress_id: p, api: \
                    A-B}]\napis: {us: {}}\n";
        let paths: Vec<_> = parse(text).unwrap_err().0.into_iter().map(|problem| problem.path).collect();
        assert_eq!(paths, ["watches[0].agent_id", "watches[0].api", "watches[0].labels.job", "watches[1].api"]);
    }

    #[test]
    fn of_a_list_that_is_given_twice_the_last_one_counts() {
        let first = "watches: [{agent_id: 0, progress_id: p}]\n";
        for (second, problems) in
            [("watches: [{agent_id: 1, progress_id: p}]\n", 1), ("watches:\n", 1), ("watches: x\n", 2)]
        {
            let said = said(&[first, second].concat());
            assert_eq!(said.lines().count(), problems, "{said}");
            assert!(
                said.starts_with("configuration: watches: is given a second time: keep one of them (line 2, column 1)"),
                "{said}"
            );
        }
    }

    #[test]
    fn a_list_that_is_wanted_again_is_still_a_list() {
        let said = said("watches: &w [{agent_id: 1, progress_id: p}]\nwatch_files: *w\n");
        assert_eq!(said, "configuration: watch_files[0]: must be a single value, not a list or a map");
    }

    fn entry() -> impl Strategy<Value = String> {
        let pair = prop_oneof![
            4 => "agent_id: [1-9]",
            4 => "progress_id: [pq]",
            1 => "(agent_id|expect|progress_id|name): [0-2a&-]?",
            1 => "api: (eu|us|default|A-B)?",
            1 => "labels: (x|\\[\\]|\\{(team: [xy], )?(job: 1)?\\})",
            1 => "name: [ab]",
            1 => "nmae: \\[a\\]",
        ];
        let map = proptest::collection::vec(pair, 0..6).prop_map(|pairs| format!("{{{}}}", pairs.join(", ")));
        prop_oneof![9 => map, 1 => "(\\[\\]|\\[a\\]|x|~)"]
    }

    proptest! {
        #[test]
        fn a_stream_and_a_tree_of_the_same_list_say_the_same(
            entries in proptest::collection::vec(entry(), 0..6),
            apis in "(apis: (\\[a\\]|\\{eu: \\{\\}(, default: \\{\\})?\\})\n)?",
        ) {
            let text = |anchor: &str| format!("watches: {anchor}\n  [{}]\n{apis}", entries.join(", "));
            // A list with an anchor is read as a tree.
            prop_assert_eq!(said(&text("")), said(&text("&w")));
        }
    }
}
