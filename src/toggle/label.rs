//! The labels that users put on the series of a watch.

use std::collections::BTreeMap;
use std::fmt;

/// The labels that a user gave a watch, sorted by name.
pub type Labels = BTreeMap<LabelName, Box<str>>;

/// A label name that Prometheus accepts and that no series of ours uses.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct LabelName(Box<str>);

/// Names that our own series use, and names that Prometheus and its operators attach. A user's
/// label of the same name would merge or hide series.
const RESERVED: [&str; 26] = [
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
    "version",
];

// === impl LabelName ===

impl LabelName {
    /// Takes a name of the form `[a-zA-Z_][a-zA-Z0-9_]*` that is not reserved.
    ///
    /// # Errors
    /// What is wrong with the name, as a sentence for the user.
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
    fn ordinary_names_are_taken_and_reserved_ones_refused() {
        for name in ["team", "_x", "Team9"] {
            assert_eq!(LabelName::parse(name).unwrap().as_str(), name);
        }
        for name in ["", "9a", "a-b", "é", "__meta", "api", "le", "severity", "status"] {
            assert!(LabelName::parse(name).is_err(), "{name} was taken");
        }
    }
}
