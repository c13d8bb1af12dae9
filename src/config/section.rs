//! Reading one map of the configuration tree, key by key, with every problem noted.

use std::cell::RefCell;
use std::path::{Path, PathBuf};

use figment::Figment;
use figment::value::{Dict, Value};
use zeroize::Zeroizing;

use super::problem::{KeyPath, Problem, show};
use super::yaml;

/// What all sections of one reading share: where values come from, and what was found wrong.
pub(super) struct Reading<'a> {
    figment: &'a Figment,
    /// Where a key that nobody set would have been set.
    file: &'a Path,
    problems: RefCell<Vec<Problem>>,
}

/// One map, of which keys are taken until none should be left.
pub(super) struct Section<'a> {
    reading: &'a Reading<'a>,
    path: KeyPath,
    /// Where the map comes from.
    origin: String,
    dict: Dict,
    known: Vec<&'static str>,
}

/// A value with its place.
pub(super) struct Node<'a> {
    reading: &'a Reading<'a>,
    path: KeyPath,
    origin: String,
    value: Value,
}

/// Where a value is, for problems that are found after it was read.
pub(super) struct Place<'a> {
    reading: &'a Reading<'a>,
    path: KeyPath,
    origin: String,
}

/// Whether a problem may show the value that it is about.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Show {
    /// It may.
    Value,
    /// It may hold a secret, by purpose or by mistake.
    Nothing,
}

// === impl Reading ===

impl<'a> Reading<'a> {
    pub(super) fn new(figment: &'a Figment, file: &'a Path) -> Self {
        Self { figment, file, problems: RefCell::default() }
    }

    pub(super) fn into_problems(self) -> Vec<Problem> {
        self.problems.into_inner()
    }

    pub(super) fn note(&self, origin: &str, path: &KeyPath, what: impl Into<String>) {
        self.problems.borrow_mut().push(problem(origin, path, what));
    }

    /// The whole tree.
    pub(super) fn root(&'a self, tree: Value) -> Node<'a> {
        self.node(KeyPath::default(), tree)
    }

    fn origin_of(&self, value: &Value) -> String {
        let metadata = self.figment.get_metadata(value.tag());
        metadata.map_or_else(|| self.file_name(), |metadata| metadata.name.clone().into_owned())
    }

    fn file_name(&self) -> String {
        self.file.display().to_string()
    }

    fn node(&'a self, path: KeyPath, value: Value) -> Node<'a> {
        let origin = self.origin_of(&value);
        Node { reading: self, path, origin, value }
    }
}

// === impl Node ===

impl<'a> Node<'a> {
    /// Whether the value is null, an empty list or an empty map.
    pub(super) fn is_empty(&self) -> bool {
        matches!(&self.value, Value::Empty(..)) || self.value.as_dict().is_some_and(Dict::is_empty)
    }

    /// Whether the value is a list with elements.
    pub(super) fn is_list(&self) -> bool {
        self.value.as_dict().is_some_and(is_list)
    }

    /// Whether the value is a map.
    pub(super) fn is_map(&self) -> bool {
        self.value.as_dict().is_some_and(|dict| !is_list(dict))
    }

    /// Where the value is.
    pub(super) fn place(&self) -> Place<'a> {
        Place { reading: self.reading, path: self.path.clone(), origin: self.origin.clone() }
    }

    /// Where relative paths in this value start: the configuration's folder, or the working
    /// directory for what a variable says.
    pub(super) fn resolve(&self, path: &str) -> PathBuf {
        self.folder().map_or_else(|| PathBuf::from(path), |folder| folder.join(path))
    }

    /// The folder that relative paths in this value start at; `None` for the working directory.
    pub(super) fn folder(&self) -> Option<&'a Path> {
        let from_file = self.origin == self.reading.file_name();
        self.reading.file.parent().filter(|_| from_file)
    }

    pub(super) fn note(&self, what: impl Into<String>) {
        self.reading.note(&self.origin, &self.path, what);
    }

    /// The value as a map with given keys. A null is an empty one.
    pub(super) fn section(self) -> Option<Section<'a>> {
        let Self { reading, path, origin, value } = self;
        let dict = match value {
            Value::Empty(..) => Dict::new(),
            Value::Dict(_, dict) if !is_list(&dict) => dict,
            _ => {
                reading.note(&origin, &path, "must be a map of keys to values");
                return None;
            }
        };
        // What a variable lays over a map of the file is still the file's map.
        let from_file = dict.values().any(|value| reading.origin_of(value) == reading.file_name());
        let origin = if from_file { reading.file_name() } else { origin };
        Some(Section { reading, path, origin, dict, known: Vec::new() })
    }

    /// The value as a map with keys of the user's choice.
    pub(super) fn entries(self) -> Option<Vec<(String, Node<'a>)>> {
        let Section { reading, path, dict, .. } = self.section()?;
        let node = |(key, value): (String, Value)| {
            let node = reading.node(path.key(&key), value);
            (key, node)
        };
        Some(dict.into_iter().map(node).collect())
    }

    /// The value as a list. A null is an empty one.
    pub(super) fn items(self) -> Vec<Node<'a>> {
        let Self { reading, path, origin, value } = self;
        match value {
            Value::Empty(..) => Vec::new(),
            Value::Dict(_, dict) if dict.is_empty() || is_list(&dict) => {
                let mut items: Vec<_> = dict.into_iter().collect();
                items.sort_by_key(|(key, _)| yaml::index_of(key));
                items.into_iter().map(|(key, value)| reading.node(path.key(&key), value)).collect()
            }
            _ => {
                reading.note(&origin, &path, "must be a list");
                Vec::new()
            }
        }
    }

    /// The value as text, as it was written.
    pub(super) fn text(&self) -> Option<&str> {
        match &self.value {
            Value::String(_, text) => return Some(text),
            Value::Empty(..) => self
                .note("has no value: give it one, or take the key away (quote it if the text `null` or `~` is meant)"),
            _ => self.note("must be a single value, not a list or a map"),
        }
        None
    }

    /// As [`Node::text`], for text that is wiped from memory after its use.
    pub(super) fn secret(self) -> Option<Zeroizing<String>> {
        self.text()?;
        match self.value {
            Value::String(_, text) => Some(Zeroizing::new(text)),
            _ => None,
        }
    }

    /// The value as whatever `parse` makes of its text.
    pub(super) fn parsed<T, E: AsRef<str>>(
        &self,
        show_value: Show,
        parse: impl FnOnce(&str) -> Result<T, E>,
    ) -> Option<T> {
        let text = self.text()?;
        match parse(text) {
            Ok(value) => Some(value),
            Err(what) if show_value == Show::Value => {
                self.note(format!("`{}` {}", show(text), what.as_ref()));
                None
            }
            Err(what) => {
                self.note(what.as_ref());
                None
            }
        }
    }
}

// === impl Place ===

impl Place<'_> {
    pub(super) fn note(&self, what: impl Into<String>) {
        self.reading.note(&self.origin, &self.path, what);
    }

    /// Something about the value that is no more than a warning.
    pub(super) fn warning(&self, what: impl Into<String>) -> Problem {
        problem(&self.origin, &self.path, what)
    }
}

// === impl Section ===

impl<'a> Section<'a> {
    /// Notes a problem with `key`, whether it is set or not.
    pub(super) fn note(&self, key: &str, what: impl Into<String>) {
        self.reading.note(&self.origin, &self.path.key(key), what);
    }

    /// Takes the value of `key`, if it is set.
    pub(super) fn take(&mut self, key: &'static str) -> Option<Node<'a>> {
        self.known.push(key);
        let value = self.dict.remove(key)?;
        Some(self.reading.node(self.path.key(key), value))
    }

    /// Takes `key` and parses it. `None` if it is not set or is wrong; what is wrong is noted.
    pub(super) fn parse<T, E: AsRef<str>>(
        &mut self,
        key: &'static str,
        parse: impl FnOnce(&str) -> Result<T, E>,
    ) -> Option<T> {
        self.take(key)?.parsed(Show::Value, parse)
    }

    /// As [`Section::parse`], without showing what was written.
    pub(super) fn parse_quietly<T, E: AsRef<str>>(
        &mut self,
        key: &'static str,
        parse: impl FnOnce(&str) -> Result<T, E>,
    ) -> Option<T> {
        self.take(key)?.parsed(Show::Nothing, parse)
    }

    /// As [`Section::parse`], and notes if the key is not set.
    pub(super) fn require<T, E: AsRef<str>>(
        &mut self,
        key: &'static str,
        parse: impl FnOnce(&str) -> Result<T, E>,
    ) -> Option<T> {
        if !self.dict.contains_key(key) {
            self.known.push(key);
            self.note(key, "is missing");
            return None;
        }
        self.parse(key, parse)
    }

    /// Notes every key that nobody took.
    pub(super) fn finish(self) {
        let Self { reading, path, dict, known, .. } = self;
        for (key, value) in dict {
            let node = reading.node(path.key(&key), value);
            node.note(format!("is not a known key; known here are {}", known.join(", ")));
        }
    }
}

fn problem(origin: &str, path: &KeyPath, what: impl Into<String>) -> Problem {
    Problem { origin: origin.to_owned(), path: path.as_str().to_owned(), what: what.into() }
}

fn is_list(dict: &Dict) -> bool {
    !dict.is_empty() && dict.keys().all(|key| yaml::index_of(key).is_some())
}
