//! Environment variables into the configuration tree.
//!
//! A variable is named after the path of the key that it sets. Its value is text as it stands; for
//! a key that holds a list or a map it is YAML. An element of a list is addressed by its index.

use std::ffi::OsString;

use figment::value::{Dict, Map, Tag, Value};
use figment::{Metadata, Profile, Provider};

use super::problem::Problem;
use super::{validate, yaml};

/// What the names of our variables start with.
const PREFIX: &str = "CEKURA_EXPORTER__";

/// One variable that sets a key.
pub(super) struct Variable {
    /// Its name.
    pub(super) name: String,
    /// The keys that its name leads through; at least one.
    pub(super) keys: Vec<String>,
    /// What it sets there.
    pub(super) value: Value,
}

/// The variables of the environment that set keys, sorted by name: one that sets a whole list
/// comes before those that set its elements.
pub(super) fn variables(
    vars: impl IntoIterator<Item = (OsString, OsString)>,
    problems: &mut Vec<Problem>,
) -> Vec<Variable> {
    let mut found: Vec<_> = vars
        .into_iter()
        .map(|(name, value)| (name.to_string_lossy().into_owned(), value))
        .filter(|(name, _)| name.starts_with(PREFIX))
        .collect();
    found.sort();
    let parsed = found.into_iter().map(|(name, value)| Variable::parse(name, value));
    parsed.filter_map(|variable| variable.map_err(|faults| problems.extend(faults)).ok()).collect()
}

// === impl Variable ===

impl Variable {
    fn parse(name: String, value: OsString) -> Result<Self, Vec<Problem>> {
        let problem =
            |path: &str, what: &str| Problem { origin: name.clone(), path: path.to_owned(), what: what.to_owned() };
        let keys = keys(&name[PREFIX.len()..]);
        let Ok(value) = value.into_string() else {
            return Err(vec![problem("", "is not UTF-8 text")]);
        };
        if !validate::holds_collection(&keys) {
            return Ok(Self { name, keys, value: Value::String(Tag::Default, value) });
        }
        let (value, faults) = yaml::parse(&value);
        if faults.is_empty() {
            Ok(Self { name, keys, value })
        } else {
            Err(faults.iter().map(|fault| problem(fault.path.as_str(), &fault.what)).collect())
        }
    }

    /// The tree that has nothing but this variable's value.
    pub(super) fn tree(&self) -> Value {
        let nest = |inner, key: &String| Value::Dict(Tag::Default, Dict::from([(key.clone(), inner)]));
        self.keys.iter().rev().fold(self.value.clone(), nest)
    }
}

impl Provider for Variable {
    fn metadata(&self) -> Metadata {
        Metadata::named(self.name.clone())
    }

    fn data(&self) -> Result<Map<Profile, Dict>, figment::Error> {
        Ok(Profile::Default.collect(self.tree().into_dict().unwrap_or_default()))
    }
}

fn keys(path: &str) -> Vec<String> {
    let mut keys: Vec<String> = path.split("__").map(str::to_ascii_lowercase).collect();
    if let [list, element, ..] = &mut keys[..]
        && validate::LISTS.contains(&list.as_str())
        && let Ok(index) = element.parse()
    {
        *element = yaml::index_key(index);
    }
    keys
}
