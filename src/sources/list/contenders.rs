//! The definitions of one name, of which one takes effect.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::{Origin, RefusedDefinition, WatchDefinition};
use crate::toggle::{ApiName, Watch};

/// The definitions of one name, in the order of precedence. Nearly all names have one, and there may be very many
/// names, so a single definition takes no list.
#[derive(Debug)]
pub(super) enum Contenders {
    One(Contender),
    /// At least two.
    Several(Vec<Contender>),
}

/// The definition of a name by one origin.
#[derive(Debug)]
pub(super) struct Contender {
    pub(super) origin: Arc<Origin>,
    pub(super) definition: WatchDefinition,
    /// Whether it was already reported that it does not take effect.
    pub(super) refused: bool,
}

/// The index of the definition that takes effect: the first one whose API is configured.
pub(super) fn winner(contenders: &[Contender], apis: &BTreeSet<ApiName>) -> Option<usize> {
    contenders.iter().position(|contender| contender.is_of(apis))
}

/// The definitions that do not take effect.
pub(super) fn rejected(contenders: &[Contender], apis: &BTreeSet<ApiName>) -> Vec<RefusedDefinition> {
    let winner = winner(contenders, apis);
    let by = winner.map(|winner| &*contenders[winner].origin);
    let rejected = contenders.iter().enumerate().filter(|(i, _)| winner != Some(*i));
    rejected.map(|(_, contender)| contender.refused_by(by, apis)).collect()
}

/// Adds to `refused` the definitions that do not take effect and were not reported yet.
pub(super) fn report_refused(
    contenders: &mut [Contender],
    winner: Option<usize>,
    apis: &BTreeSet<ApiName>,
    refused: &mut Vec<RefusedDefinition>,
) {
    let by = winner.map(|winner| contenders[winner].origin.clone());
    for (i, contender) in contenders.iter_mut().enumerate() {
        let is_refused = winner != Some(i);
        if is_refused && !contender.refused {
            refused.push(contender.refused_by(by.as_deref(), apis));
        }
        contender.refused = is_refused;
    }
}

/// Whether the run of `old` ends with the change to `new`, but is still defined by a source of the list or `elsewhere`.
pub(super) fn may_come_back(
    old: &Watch,
    new: Option<&Arc<Watch>>,
    contenders: &[Contender],
    elsewhere: impl Fn(&Watch) -> bool,
) -> bool {
    let goes_on = new.is_some_and(|new| new.same_run(old));
    let is_defined = || contenders.iter().any(|contender| contender.definition.watch.same_run(old));
    !goes_on && (is_defined() || elsewhere(old))
}

// === impl Contenders ===

impl Contenders {
    pub(super) fn as_slice(&self) -> &[Contender] {
        match self {
            Self::One(contender) => std::slice::from_ref(contender),
            Self::Several(contenders) => contenders,
        }
    }

    pub(super) fn as_mut_slice(&mut self) -> &mut [Contender] {
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

    /// Adds a definition, or replaces that of the same origin, and keeps whether that was reported.
    pub(super) fn with(self, contender: Contender) -> Self {
        let mut all = self.into_vec();
        match all.binary_search_by(|old| old.origin.cmp(&contender.origin)) {
            Ok(at) => all[at].definition = contender.definition,
            Err(at) => all.insert(at, contender),
        }
        if all.len() == 1 { Self::One(all.swap_remove(0)) } else { Self::Several(all) }
    }

    /// Removes the definition of an origin; `None` if no other is left.
    pub(super) fn without(self, origin: &Origin) -> Option<Self> {
        let mut all = self.into_vec();
        all.retain(|contender| *contender.origin != *origin);
        if all.len() > 1 { Some(Self::Several(all)) } else { all.pop().map(Self::One) }
    }
}

// === impl Contender ===

impl Contender {
    /// Whether its API is one of these.
    pub(super) fn is_of(&self, apis: &BTreeSet<ApiName>) -> bool {
        apis.contains(&self.definition.watch.api)
    }

    /// Says that it does not take effect, because its API is not configured or this origin defines the name, too.
    fn refused_by(&self, by: Option<&Origin>, apis: &BTreeSet<ApiName>) -> RefusedDefinition {
        let (watch, origin) = (self.definition.watch.clone(), Origin::clone(&self.origin));
        RefusedDefinition { watch, origin, by: by.filter(|_| self.is_of(apis)).cloned() }
    }
}
