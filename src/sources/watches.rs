//! Lists of watches and agents: the keys of an entry, and what must hold for a list.

use std::cell::RefCell;
use std::collections::hash_map::Entry;
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use crate::document::{Node, Section, Show, Value};
use crate::toggle::{
    AgentDefinition, AgentId, AgentKey, AgentSource, ApiName, Expect, LabelName, Labels, ProgressId, Source, Watch,
    WatchName,
};

/// The keys that watches and agents both have. Equal values share their memory.
pub(super) struct SharedKeys<'a> {
    /// The configured APIs; `None` if they are not known, because that part of the configuration is wrong. Then any
    /// name is accepted.
    apis: Option<&'a BTreeSet<ApiName>>,
    /// The labels that were read last: neighbours in a list often have the same.
    labels: RefCell<Labels>,
}

/// Labels that the exporter adds to series of agents only.
const RESERVED_OF_AGENTS: [&str; 2] = ["kind", "provider"];

const RESERVED_FOR_AGENTS: &str = "is reserved: series of agents have a label of this name; use another one";

/// All of a watch but its name and its source.
pub(super) struct Slot {
    agent_id: AgentId,
    progress_id: ProgressId,
    expect: Option<Expect>,
    api: ApiName,
    labels: Labels,
}

/// What a list defines.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Definitions {
    /// The watches, in order; names are unique.
    pub watches: Vec<Arc<Watch>>,
    /// The agents, in order; each once.
    pub agents: Vec<Arc<AgentDefinition>>,
}

/// Reads the entries of a list. Those with problems are left out. They still count as taken, so that each further
/// entry that is the same watch or agent is reported, too.
pub(crate) struct ListReader<'a> {
    /// The path of the list in its document.
    path: &'a str,
    shared: SharedKeys<'a>,
    watches: HashMap<WatchName, usize>,
    agents: HashMap<AgentKey, usize>,
    read: Definitions,
}

/// Reads the list of watches in the configuration, whose elements were taken out of it.
pub(crate) fn watches(
    list: &Node<'_>,
    elements: Vec<Value>,
    path: &str,
    apis: Option<&BTreeSet<ApiName>>,
) -> Vec<Arc<Watch>> {
    let mut reader = ListReader::new(path, apis, elements.len());
    list.read_taken(elements, |index, node| reader.read_watch(index, &node, Source::Config));
    reader.read.watches
}

/// Reads the list of agents in the configuration.
pub(crate) fn agents(list: &Node<'_>, path: &str, apis: Option<&BTreeSet<ApiName>>) -> Vec<Arc<AgentDefinition>> {
    let mut reader = ListReader::new(path, apis, 0);
    for (index, node) in list.items().enumerate() {
        reader.read_agent(index, &node, AgentSource::Config);
    }
    reader.read.agents
}

/// Reads the list in a watch file, whose elements were taken out of it.
pub(super) fn file_entries(list: &Node<'_>, elements: Vec<Value>, apis: &BTreeSet<ApiName>) -> Definitions {
    let mut reader = ListReader::new("", Some(apis), elements.len());
    list.read_taken(elements, |index, node| reader.read_entry(index, &node));
    reader.read
}

/// Reads the only entry of a watch file.
pub(super) fn file_entry(node: &Node<'_>, apis: &BTreeSet<ApiName>) -> Definitions {
    let mut reader = ListReader::new("", Some(apis), 1);
    reader.read_entry(0, node);
    reader.read
}

// === impl Definitions ===

impl Definitions {
    /// Whether nothing is defined.
    pub fn is_empty(&self) -> bool {
        self.watches.is_empty() && self.agents.is_empty()
    }
}

// === impl ListReader ===

impl<'a> ListReader<'a> {
    /// For a list with this many watches that may name these APIs.
    fn new(path: &'a str, apis: Option<&'a BTreeSet<ApiName>>, watches: usize) -> Self {
        Self {
            path,
            shared: SharedKeys::new(apis),
            watches: HashMap::with_capacity(watches),
            agents: HashMap::new(),
            read: Definitions { watches: Vec::with_capacity(watches), agents: Vec::new() },
        }
    }

    /// Reads an entry of a watch file: a watch, or an agent if it has no key that only a watch has. A `progress_id` that
    /// is null is one that a job failed to fill in.
    fn read_entry(&mut self, index: usize, node: &Node<'_>) {
        if node.is_map() && !node.mentions("progress_id") && !node.has("name") {
            self.read_agent(index, node, AgentSource::File);
        } else {
            self.read_watch(index, node, Source::File);
        }
    }

    fn read_watch(&mut self, index: usize, node: &Node<'_>, source: Source) {
        let Some((name, watch)) = watch(node, &self.shared, source) else { return };
        match self.watches.entry(name) {
            Entry::Occupied(first) => {
                let (path, name, first) = (self.path, first.key(), first.get());
                node.note(format!("the name `{name}` is taken by {path}[{first}]: give each watch a name of its own"));
            }
            Entry::Vacant(free) => {
                free.insert(index);
                self.read.watches.extend(watch.map(Arc::new));
            }
        }
    }

    fn read_agent(&mut self, index: usize, node: &Node<'_>, source: AgentSource) {
        let Some(agent) = agent(node, &self.shared, source) else { return };
        match self.agents.entry(agent.key()) {
            Entry::Occupied(first) => {
                node.note(format!("is the agent of {}[{}] again: keep one of them", self.path, first.get()));
            }
            Entry::Vacant(free) => {
                free.insert(index);
                self.read.agents.push(Arc::new(agent));
            }
        }
    }
}

fn agent(node: &Node<'_>, shared: &SharedKeys<'_>, source: AgentSource) -> Option<AgentDefinition> {
    let section = node.section()?;
    let agent_id = section.require("agent_id", AgentId::parse);
    let expect = SharedKeys::expect(&section);
    let (api, labels) = (shared.api(&section), shared.labels(&section, &RESERVED_OF_AGENTS));
    section.finish();
    let (api, agent_id, expect, labels) = (api?, agent_id?, expect?, labels?);
    Some(AgentDefinition { api, agent_id, expect, labels, source, provider: None })
}

/// Reads one watch: its name, and the watch if nothing else is wrong with it.
pub(super) fn watch(node: &Node<'_>, shared: &SharedKeys<'_>, source: Source) -> Option<(WatchName, Option<Watch>)> {
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

/// Reads a watch that has no key `name`, because its source names it in another way.
pub(super) fn unnamed_watch(node: &Node<'_>, shared: &SharedKeys<'_>) -> Option<Slot> {
    let section = node.section()?;
    let (_, slot) = slot(&section, shared);
    section.finish();
    slot
}

/// The slot if nothing is wrong with it, and the agent's id even if something else is wrong.
fn slot(section: &Section<'_>, shared: &SharedKeys<'_>) -> (Option<AgentId>, Option<Slot>) {
    let agent_id = section.require("agent_id", AgentId::parse);
    let progress_id = section.require("progress_id", ProgressId::parse);
    let expect = SharedKeys::expect(section);
    let (api, labels) = (shared.api(section), shared.labels(section, &[]));
    let slot =
        || Some(Slot { agent_id: agent_id?, progress_id: progress_id?, expect: expect?, api: api?, labels: labels? });
    (agent_id, slot())
}

// === impl SharedKeys ===

impl<'a> SharedKeys<'a> {
    /// For entries that may name these APIs; any if they are not known.
    pub(super) fn new(apis: Option<&'a BTreeSet<ApiName>>) -> Self {
        Self { apis, labels: RefCell::default() }
    }

    /// The expected state, if there is one.
    #[allow(clippy::option_option, reason = "the outer one is None if the value is wrong")]
    fn expect(section: &Section<'_>) -> Option<Option<Expect>> {
        match section.take("expect") {
            Some(node) => node.parsed(Show::Value, Expect::parse).map(Some),
            None => Some(None),
        }
    }

    /// The API that an entry names, or the default one.
    fn api(&self, section: &Section<'_>) -> Option<ApiName> {
        if let Some(node) = section.take("api") {
            return node.parsed(Show::Value, |name| self.api_named(name));
        }
        let unknown = |what| section.note("api", format!("is missing, and the API `{}` {what}", ApiName::DEFAULT));
        self.api_named(ApiName::DEFAULT).map_err(unknown).ok()
    }

    /// The API of that name. All watches of an API share its name.
    fn api_named(&self, name: &str) -> Result<ApiName, String> {
        let Some(apis) = self.apis else { return ApiName::parse(name) };
        apis.iter().find(|api| api.as_str() == name).cloned().ok_or_else(|| {
            let known: Vec<_> = apis.iter().map(ApiName::as_str).collect();
            format!("is not under `apis`; known are: {}", known.join(", "))
        })
    }

    /// The labels of an entry; none where it has none. Those that are `reserved` are refused, besides those that are
    /// reserved in any case.
    fn labels(&self, section: &Section<'_>, reserved: &[&str]) -> Option<Labels> {
        let Some(node) = section.take("labels") else { return Some(Labels::default()) };
        let is_reserved = |name: &str| reserved.contains(&name);
        if !self.labels.borrow().iter().any(|(name, _)| is_reserved(name.as_str()))
            && node.has_just(self.labels.borrow().iter().map(|(name, value)| (name.as_str(), value)))
        {
            return Some(self.labels.borrow().clone());
        }
        let parsed = node.entries()?.map(|(name, node)| {
            let refused = is_reserved(name).then_some(RESERVED_FOR_AGENTS).map(str::to_owned);
            let name = refused.map_or_else(|| LabelName::parse(name), Err).map_err(|what| node.note(what)).ok();
            let value = if node.is_unset() { Some(None) } else { node.text().map(|text| Some(Box::from(text))) };
            name.zip(value)
        });
        // All are read before one that is wrong decides, so that every problem is noted.
        let parsed: Option<Vec<_>> = parsed.collect::<Vec<_>>().into_iter().collect();
        let labels: Labels = parsed?.into_iter().filter_map(|(name, value)| Some((name, value?))).collect();
        self.labels.replace(labels.clone());
        Some(labels)
    }
}

// === impl Slot ===

impl Slot {
    pub(super) fn named(self, name: WatchName, source: Source) -> Watch {
        let Self { agent_id, progress_id, expect, api, labels } = self;
        Watch { name, api, agent_id, progress_id, expect, labels, source }
    }
}

#[cfg(test)]
mod tests {
    use crate::config::parse;

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
}
