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
    let mut variables: Vec<Variable> =
        parsed.filter_map(|variable| variable.map_err(|faults| problems.extend(faults)).ok()).collect();
    // Names that differ in case alone set the same key.
    variables.sort_by(|a, b| a.keys.cmp(&b.keys));
    for pair in variables.windows(2).filter(|pair| pair[0].keys == pair[1].keys) {
        problems.push(problem(&pair[1].name, "", &format!("sets the same key as {}: keep one of them", pair[0].name)));
    }
    variables
}

fn problem(name: &str, path: &str, what: &str) -> Problem {
    Problem::new(name, path, what)
}

// === impl Variable ===

impl Variable {
    fn parse(name: String, value: OsString) -> Result<Self, Vec<Problem>> {
        let one = |what: &str| Err(vec![problem(&name, "", what)]);
        let Some(keys) = keys(&name[PREFIX.len()..]) else {
            return one("does not address an element of the list by its index");
        };
        let Ok(value) = value.into_string() else {
            return one("is not UTF-8 text");
        };
        if !validate::holds_collection(&keys) {
            return Ok(Self { name, keys, value: Value::String(Tag::Default, value) });
        }
        match yaml::parse(&value) {
            Ok((Value::String(..), _)) => one("must be a list or a map, as YAML"),
            Ok((value, faults)) if faults.is_empty() => Ok(Self { name, keys, value }),
            Ok((_, faults)) => Err(faults.into_iter().map(|fault| fault.of_text(&name)).collect()),
            Err(fault) => Err(vec![fault.of_text(&name)]),
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

/// The keys on the path; `None` if it goes into a list other than by an index.
fn keys(path: &str) -> Option<Vec<String>> {
    let mut keys: Vec<String> = path.split("__").map(str::to_ascii_lowercase).collect();
    match &mut keys[..] {
        [list, element, ..] if validate::LISTS.contains(&list.as_str()) => {
            *element = yaml::index_key(element.parse().ok()?);
        }
        // Names of APIs may have two underscores, too.
        [apis, name @ .., key] if apis == "apis" && name.len() > 1 => {
            let (name, key) = (name.join("__"), std::mem::take(key));
            keys = vec!["apis".to_owned(), name, key];
        }
        _ => {}
    }
    Some(keys)
}
