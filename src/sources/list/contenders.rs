//! The definitions of one name, of which one takes effect.

use std::borrow::Borrow;
use std::collections::BTreeSet;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use super::{Origin, WatchDefinition};
use crate::toggle::{ApiName, Watch, WatchName};

/// A value that a set finds by the name of its watch, so that the name is not stored a second time as a key.
#[derive(Debug)]
pub(super) struct ByName<T>(pub(super) T);

/// A value that has the name of a watch.
pub(super) trait Named {
    fn name(&self) -> &WatchName;
}

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
}
