//! The list of agents: the definitions of all sources, and which of them take effect. No IO.
//!
//! If several sources define the same agent, precedence decides and not time: the configuration precedes files, a file
//! precedes those with a later path, and what the API lists comes last.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use crate::toggle::{AgentDefinition, AgentKey, AgentSource, ApiName};

/// Where the definition of an agent comes from, in order of precedence.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum AgentOrigin {
    /// The configuration.
    Config,
    /// A watch file.
    File(Arc<Path>),
    /// The list of an API.
    Discovered(ApiName),
}

/// An agent that an edit added, changed or removed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AgentChange {
    /// What identifies the agent.
    pub key: AgentKey,
    /// The definition that takes effect from now on; `None` if the agent is gone.
    pub definition: Option<Arc<AgentDefinition>>,
}

/// A definition that does not take effect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RefusedAgent {
    /// The definition.
    pub definition: Arc<AgentDefinition>,
    /// Where it comes from.
    pub origin: AgentOrigin,
    /// The origin of the definition that precedes it; `None` if its API is not configured.
    pub by: Option<AgentOrigin>,
}

/// What an edit changed.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct AgentEdit {
    /// The changes, each agent at most once.
    pub changes: Vec<AgentChange>,
    /// The definitions that are newly refused. A discovered agent that is also configured is not refused.
    pub refused: Vec<RefusedAgent>,
}

/// How many definitions of a source take effect, and how many are refused.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct AgentCounts {
    /// Those that take effect.
    pub agents: usize,
    /// Those that are refused.
    pub rejected: usize,
}

/// The definitions of all sources. Edits take effect as a whole with [`AgentList::finish_edit`].
#[derive(Debug, Default)]
pub struct AgentList {
    apis: BTreeSet<ApiName>,
    by_origin: BTreeMap<AgentOrigin, Vec<Arc<AgentDefinition>>>,
    edited: bool,
    /// The definitions that take effect.
    current: BTreeMap<AgentKey, Arc<AgentDefinition>>,
    /// The definitions that are refused, and were reported.
    refused: BTreeMap<(AgentOrigin, AgentKey), RefusedAgent>,
    counts: [AgentCounts; AgentSource::ALL.len()],
}

// === impl AgentList ===

impl AgentList {
    /// Sets the configured APIs. Agents of other APIs do not take effect.
    pub fn set_apis(&mut self, apis: BTreeSet<ApiName>) {
        self.edited |= self.apis != apis;
        self.apis = apis;
    }

    /// Replaces all definitions of an origin. Each agent must be defined once.
    pub fn replace(&mut self, origin: AgentOrigin, agents: Vec<Arc<AgentDefinition>>) {
        if self.by_origin.get(&origin).map(Vec::as_slice).unwrap_or_default() == agents {
            return;
        }
        self.edited = true;
        if agents.is_empty() {
            self.by_origin.remove(&origin);
        } else {
            self.by_origin.insert(origin, agents);
        }
    }

    /// The number of definitions of each source.
    pub fn counts(&self) -> impl Iterator<Item = (AgentSource, AgentCounts)> {
        AgentSource::ALL.into_iter().zip(self.counts)
    }

    /// The first definitions that are refused, at most `most`.
    pub fn rejected(&self, most: usize) -> Vec<RefusedAgent> {
        self.refused.values().take(most).cloned().collect()
    }

    /// Ends an edit and returns what it changed.
    pub fn finish_edit(&mut self) -> AgentEdit {
        if !std::mem::take(&mut self.edited) {
            return AgentEdit::default();
        }
        let mut winners: BTreeMap<AgentKey, (&AgentOrigin, &Arc<AgentDefinition>)> = BTreeMap::new();
        let (mut edit, mut refused) = (AgentEdit::default(), BTreeMap::new());
        self.counts = Default::default();
        for (origin, definition) in self.by_origin.iter().flat_map(|(origin, of)| of.iter().map(move |d| (origin, d))) {
            let (key, counts) = (definition.key(), &mut self.counts[definition.source as usize]);
            let by = winners.get(&key).map(|(by, _)| (*by).clone());
            if by.is_none() && self.apis.contains(&definition.api) {
                counts.agents += 1;
                winners.insert(key, (origin, definition));
            } else if definition.source != AgentSource::Discovered {
                counts.rejected += 1;
                let refusal = RefusedAgent { definition: definition.clone(), origin: origin.clone(), by };
                let refused_before = (origin.clone(), key);
                if !self.refused.contains_key(&refused_before) {
                    edit.refused.push(refusal.clone());
                }
                refused.insert(refused_before, refusal);
            }
        }
        let current = winners.into_iter().map(|(key, (_, definition))| (key, definition.clone())).collect();
        let before = std::mem::replace(&mut self.current, current);
        self.refused = refused;
        let gone = before.keys().filter(|key| !self.current.contains_key(key));
        edit.changes = gone.map(|key| AgentChange { key: key.clone(), definition: None }).collect();
        let changed = self.current.iter().filter(|(key, definition)| before.get(key) != Some(definition));
        let change = |(key, definition): (&AgentKey, &Arc<AgentDefinition>)| (key.clone(), Some(definition.clone()));
        edit.changes.extend(changed.map(change).map(|(key, definition)| AgentChange { key, definition }));
        edit
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::toggle::Expect;
    use crate::toggle::sample::agent;

    fn of(id: &str, source: AgentSource, expect: Option<Expect>) -> Arc<AgentDefinition> {
        Arc::new(AgentDefinition { expect, source, ..agent(id) })
    }

    fn list() -> AgentList {
        let mut list = AgentList::default();
        list.set_apis([ApiName::default_api()].into());
        list
    }

    fn file(name: &str) -> AgentOrigin {
        AgentOrigin::File(Path::new(name).into())
    }

    fn changed(edit: &AgentEdit) -> Vec<(String, Option<AgentSource>)> {
        let told = |change: &AgentChange| {
            (change.key.1.to_string(), change.definition.as_ref().map(|definition| definition.source))
        };
        edit.changes.iter().map(told).collect()
    }

    #[test]
    fn the_configuration_precedes_files_and_files_precede_what_is_discovered() {
        let mut list = list();
        let discovered = AgentOrigin::Discovered(ApiName::default_api());
        list.replace(discovered.clone(), vec![of("1", AgentSource::Discovered, None)]);
        assert_eq!(changed(&list.finish_edit()), [("1".into(), Some(AgentSource::Discovered))]);
        list.replace(file("b"), vec![of("1", AgentSource::File, Some(Expect::Enabled))]);
        let edit = list.finish_edit();
        assert_eq!((changed(&edit), edit.refused), (vec![("1".into(), Some(AgentSource::File))], vec![]));
        list.replace(AgentOrigin::Config, vec![of("1", AgentSource::Config, None)]);
        let edit = list.finish_edit();
        assert_eq!(changed(&edit), [("1".into(), Some(AgentSource::Config))]);
        assert_eq!((&edit.refused[0].origin, &edit.refused[0].by), (&file("b"), &Some(AgentOrigin::Config)));
        let counts: Vec<_> = list.counts().map(|(_, counts)| (counts.agents, counts.rejected)).collect();
        assert_eq!(counts, [(1, 0), (0, 1), (0, 0)]);
        assert_eq!(list.rejected(9), edit.refused);
        list.replace(AgentOrigin::Config, vec![]);
        assert_eq!(changed(&list.finish_edit()), [("1".into(), Some(AgentSource::File))], "it comes back");
        assert_eq!(list.rejected(9), []);
        list.replace(file("b"), vec![]);
        list.replace(discovered, vec![]);
        assert_eq!(changed(&list.finish_edit()), [("1".into(), None)]);
    }

    #[test]
    fn a_refusal_is_reported_once_and_again_after_it_took_effect() {
        let mut list = list();
        let configured = || vec![of("1", AgentSource::Config, None)];
        list.replace(AgentOrigin::Config, configured());
        list.replace(file("a"), vec![of("1", AgentSource::File, None)]);
        assert_eq!(list.finish_edit().refused.len(), 1);
        list.replace(file("b"), vec![of("2", AgentSource::File, None)]);
        assert_eq!(list.finish_edit().refused.len(), 0);
        list.replace(AgentOrigin::Config, vec![]);
        assert_eq!(list.finish_edit().refused.len(), 0);
        list.replace(AgentOrigin::Config, configured());
        assert_eq!(list.finish_edit().refused.len(), 1);
    }

    #[test]
    fn agents_of_an_api_that_is_not_configured_are_refused_until_it_is() {
        let mut list = list();
        let eu = ApiName::parse("eu").unwrap();
        list.replace(
            file("a"),
            vec![Arc::new(AgentDefinition { api: eu.clone(), ..(*of("1", AgentSource::File, None)).clone() })],
        );
        let edit = list.finish_edit();
        assert_eq!((edit.changes.len(), &edit.refused[0].by), (0, &None));
        list.set_apis([eu].into());
        assert_eq!(changed(&list.finish_edit()), [("1".into(), Some(AgentSource::File))]);
    }

    #[test]
    fn the_same_definitions_again_change_nothing() {
        let mut list = list();
        list.replace(AgentOrigin::Config, vec![of("1", AgentSource::Config, None)]);
        list.finish_edit();
        list.replace(AgentOrigin::Config, vec![of("1", AgentSource::Config, None)]);
        assert_eq!(list.finish_edit(), AgentEdit::default());
    }
}
