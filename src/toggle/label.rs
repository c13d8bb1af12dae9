//! The labels that users put on the series of a watch.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::{fmt, iter, slice};

/// The labels that a user gave a watch, sorted by name, each name once. Clones share their memory, because many
/// watches have the same labels.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Labels(Option<Arc<[Label]>>);

type Label = (LabelName, Box<str>);

/// A label name that Prometheus accepts and that no series of the exporter uses.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct LabelName(Box<str>);

/// Names that the series of the exporter use, and names that Prometheus and its operators attach. A label of a user
/// with the same name would merge or hide series.
const RESERVED: [&str; 28] = [
    "agent_id",
    "alertname",
    "api",
    "code",
    "container",
    "endpoint",
    "expect",
    "handler",
    "instance",
    "job",
    "le",
    "namespace",
    "outcome",
    "path",
    "pod",
    "problem",
    "progress_id",
    "quantile",
    "reason",
    "revision",
    "rustc",
    "service",
    "severity",
    "source",
    "status",
    "toggle",
    "url",
    "version",
];

// === impl Labels ===

impl Labels {
    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    /// The labels with their values, in order.
    pub fn iter(&self) -> <&Self as IntoIterator>::IntoIter {
        self.into_iter()
    }
}

impl FromIterator<Label> for Labels {
    fn from_iter<I: IntoIterator<Item = Label>>(labels: I) -> Self {
        // Collecting sorts first, which is for more labels than a watch has.
        let mut sorted = BTreeMap::new();
        sorted.extend(labels);
        Self((!sorted.is_empty()).then(|| sorted.into_iter().collect()))
    }
}

impl<const N: usize> From<[Label; N]> for Labels {
    fn from(labels: [Label; N]) -> Self {
        labels.into_iter().collect()
    }
}

impl<'l> IntoIterator for &'l Labels {
    type Item = (&'l LabelName, &'l str);
    type IntoIter = iter::Map<slice::Iter<'l, Label>, fn(&'l Label) -> Self::Item>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.as_deref().unwrap_or_default().iter().map(|(name, value)| (name, value))
    }
}

// === impl LabelName ===

impl LabelName {
    /// Parses a name of the form `[a-zA-Z_][a-zA-Z0-9_]*` that is not reserved.
    ///
    /// # Errors
    /// What is wrong with the name, to follow the name in a message.
    pub fn parse(name: &str) -> Result<Self, String> {
        let mut chars = name.chars();
        let well_formed = chars.next().is_some_and(|c| c.is_ascii_alphabetic() || c == '_')
            && chars.all(|c| c.is_ascii_alphanumeric() || c == '_');
        if !well_formed {
            Err("is not a label name: letters, digits and underscores, no digit first".into())
        } else if name.starts_with("__") {
            Err("is reserved: label names that start with two underscores belong to Prometheus".into())
        } else if RESERVED.contains(&name) {
            Err("is reserved: the exporter or Prometheus sets this label; choose another name".into())
        } else {
            Ok(Self(name.into()))
        }
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for LabelName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_sorted_and_each_name_occurs_once() {
        let label = |name: &str, value: &str| (LabelName::parse(name).unwrap(), value.into());
        let labels = Labels::from([label("b", "1"), label("a", "2"), label("b", "3")]);
        assert_eq!(
            labels.iter().map(|(name, value)| (name.as_str(), value)).collect::<Vec<_>>(),
            [("a", "2"), ("b", "3")]
        );
        assert_eq!(labels, Labels::from([label("a", "2"), label("b", "3")]));
        assert!(Labels::from([]).is_empty() && Labels::default().iter().next().is_none());
    }

    #[test]
    fn ordinary_names_are_accepted_and_reserved_ones_refused() {
        for name in ["team", "_x", "Team9"] {
            assert_eq!(LabelName::parse(name).unwrap().as_str(), name);
        }
        for name in ["", "9a", "a-b", "é", "__meta", "api", "le", "problem", "severity", "status"] {
            assert!(LabelName::parse(name).is_err(), "{name} was accepted");
        }
    }
}
