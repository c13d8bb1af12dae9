//! Reading one map of the configuration tree, key by key, with every problem noted.

use std::borrow::Cow;
use std::cell::RefCell;
use std::path::{Path, PathBuf};

use figment::Figment;
use figment::value::{Dict, Tag, Value};

use super::problem::{KeyPath, Problem, show};
use super::yaml;

/// What all sections of one reading share: where values come from, and what was found wrong.
pub(crate) struct Reading<'a> {
    figment: &'a Figment,
    /// Where a key that nobody set would have been set.
    file: &'a Path,
    problems: RefCell<Vec<Problem>>,
}

/// One map, of which keys are taken until none should be left.
pub(crate) struct Section<'a> {
    reading: &'a Reading<'a>,
    path: KeyPath<'a>,
    /// Where the map comes from.
    tag: Tag,
    dict: &'a Dict,
    /// The keys that were asked for.
    known: RefCell<Vec<&'static str>>,
}

/// A value with its place.
#[derive(Clone, Copy)]
pub(crate) struct Node<'a> {
    place: Place<'a>,
    value: &'a Value,
}

/// Where a value is.
#[derive(Clone, Copy)]
pub(crate) struct Place<'a> {
    reading: &'a Reading<'a>,
    path: KeyPath<'a>,
    /// Where the value comes from.
    tag: Tag,
}

/// A map without keys.
static EMPTY: Dict = Dict::new();

/// Whether a problem may show the value that it is about.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Show {
    /// It may.
    Value,
    /// It may hold a secret, by purpose or by mistake.
    Nothing,
}

// === impl Reading ===

impl<'a> Reading<'a> {
    pub(crate) fn new(figment: &'a Figment, file: &'a Path) -> Self {
        Self { figment, file, problems: RefCell::default() }
    }

    pub(crate) fn into_problems(self) -> Vec<Problem> {
        self.problems.into_inner()
    }

    /// Whether nothing was found wrong.
    pub(crate) fn is_clean(&self) -> bool {
        self.problems.borrow().is_empty()
    }

    /// The whole tree.
    pub(crate) fn root(&'a self, tree: &'a Value) -> Node<'a> {
        self.node(KeyPath::Root, tree)
    }

    fn node(&'a self, path: KeyPath<'a>, value: &'a Value) -> Node<'a> {
        Node { place: Place { reading: self, path, tag: value.tag() }, value }
    }

    /// What has no origin of its own is of the file.
    fn origin_of(&self, tag: Tag) -> Cow<'a, str> {
        match self.figment.get_metadata(tag) {
            Some(metadata) => Cow::Borrowed(&*metadata.name),
            None => Cow::Owned(self.file.display().to_string()),
        }
    }

    fn is_of_file(&self, tag: Tag) -> bool {
        tag == Tag::Default || self.origin_of(tag) == self.file.display().to_string()
    }
}

// === impl Node ===

impl<'a> Node<'a> {
    /// Whether the value is null, an empty list or an empty map.
    pub(crate) fn is_empty(&self) -> bool {
        matches!(self.value, Value::Empty(..)) || self.value.as_dict().is_some_and(Dict::is_empty)
    }

    /// Whether the value is a list with elements.
    pub(crate) fn is_list(&self) -> bool {
        self.value.as_dict().is_some_and(is_list)
    }

    /// Whether the value is a map.
    pub(crate) fn is_map(&self) -> bool {
        self.value.as_dict().is_some_and(|dict| !is_list(dict))
    }

    /// Whether the value is a map with that key.
    pub(crate) fn has(&self, key: &str) -> bool {
        self.value.as_dict().is_some_and(|dict| dict.contains_key(key))
    }

    /// Whether the value is a map of these texts, which are sorted by key, and of nothing else.
    pub(crate) fn has_just<'p>(&self, pairs: impl Iterator<Item = (&'p str, &'p str)>) -> bool {
        let Some(dict) = self.value.as_dict() else { return false };
        let own = dict.iter().map(|(key, value)| (key.as_str(), value.as_str()));
        own.eq(pairs.map(|(key, text)| (key, Some(text))))
    }

    /// An element of this list that is not in the tree.
    pub(crate) fn element<'s>(&'s self, index: usize, value: &'s Value) -> Node<'s> {
        Node { place: self.place_of(index), value }
    }

    /// Where an element of this list is that is not in the tree.
    pub(crate) fn place_of(&self, index: usize) -> Place<'_> {
        let Place { reading, path, tag } = &self.place;
        Place { reading, path: KeyPath::Index(path, index), tag: *tag }
    }

    /// Where the value is.
    pub(crate) fn place(&self) -> Place<'a> {
        self.place
    }

    /// Where relative paths in this value start: the configuration's folder, or the working
    /// directory for what a variable says.
    pub(crate) fn resolve(&self, path: &str) -> PathBuf {
        self.folder().map_or_else(|| PathBuf::from(path), |folder| folder.join(path))
    }

    /// The folder that relative paths in this value start at; `None` for the working directory.
    pub(crate) fn folder(&self) -> Option<&'a Path> {
        let Place { reading, tag, .. } = self.place;
        reading.file.parent().filter(|_| reading.is_of_file(tag))
    }

    pub(crate) fn note(&self, what: impl Into<String>) {
        self.place.note(what);
    }

    /// The value as a map with given keys. A null is an empty one.
    pub(crate) fn section(&self) -> Option<Section<'a>> {
        let dict = match self.value {
            Value::Empty(..) => &EMPTY,
            Value::Dict(_, dict) if !is_list(dict) => dict,
            _ => {
                self.note("must be a map of keys to values");
                return None;
            }
        };
        let Place { reading, path, tag } = self.place;
        // What a variable lays over a map of the file is still the file's map.
        let from_file = dict.values().any(|value| reading.is_of_file(value.tag()));
        let tag = if from_file { Tag::Default } else { tag };
        Some(Section { reading, path, tag, dict, known: RefCell::new(Vec::with_capacity(USUAL_KEYS)) })
    }

    /// The value as a map with keys of the user's choice.
    pub(crate) fn entries(&self) -> Option<impl Iterator<Item = (&'a str, Node<'_>)>> {
        let Section { reading, dict, .. } = self.section()?;
        let path = &self.place.path;
        Some(dict.iter().map(move |(key, value)| (key.as_str(), reading.node(KeyPath::Key(path, key), value))))
    }

    /// The value as a list. A null is an empty one.
    pub(crate) fn items(&self) -> Vec<Node<'_>> {
        let Place { reading, path, .. } = &self.place;
        match self.value {
            Value::Empty(..) => Vec::new(),
            Value::Dict(_, dict) if dict.is_empty() || is_list(dict) => {
                let mut items: Vec<_> = dict.iter().collect();
                items.sort_by_key(|(key, _)| yaml::index_of(key));
                items.into_iter().map(|(key, value)| reading.node(KeyPath::Key(path, key), value)).collect()
            }
            _ => {
                self.note("must be a list");
                Vec::new()
            }
        }
    }

    /// The value as text, as it was written.
    pub(crate) fn text(&self) -> Option<&'a str> {
        match self.value {
            Value::String(_, text) => return Some(text),
            Value::Empty(..) => self
                .note("has no value: give it one, or take the key away (quote it if the text `null` or `~` is meant)"),
            _ => self.note("must be a single value, not a list or a map"),
        }
        None
    }

    /// The value as whatever `parse` makes of its text.
    pub(crate) fn parsed<T, E: AsRef<str>>(
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
    /// Where a key of this map is or would be.
    pub(crate) fn key<'s>(&'s self, key: &'s str) -> Place<'s> {
        Place { path: KeyPath::Key(&self.path, key), ..*self }
    }

    pub(crate) fn note(&self, what: impl Into<String>) {
        self.reading.problems.borrow_mut().push(self.warning(what));
    }

    /// Something about the value that is no more than a warning.
    pub(crate) fn warning(&self, what: impl Into<String>) -> Problem {
        let origin = self.reading.origin_of(self.tag).into_owned();
        Problem::new(origin, self.path.to_string(), what)
    }
}

// === impl Section ===

/// The most characters of a key that are compared with known ones.
const MOST_COMPARED: usize = 64;

/// Room for the keys of most sections.
const USUAL_KEYS: usize = 8;

impl Section<'_> {
    /// Notes a problem with `key`, whether it is set or not.
    pub(crate) fn note(&self, key: &str, what: impl Into<String>) {
        self.place_of(key).note(what);
    }

    /// Where `key` is or would be.
    pub(crate) fn place_of<'s>(&'s self, key: &'s str) -> Place<'s> {
        Place { reading: self.reading, path: KeyPath::Key(&self.path, key), tag: self.tag }
    }

    /// Takes the value of `key`, if it is set.
    pub(crate) fn take(&self, key: &'static str) -> Option<Node<'_>> {
        self.known.borrow_mut().push(key);
        Some(self.reading.node(KeyPath::Key(&self.path, key), self.dict.get(key)?))
    }

    /// Takes `key` and parses it. `None` if it is not set or is wrong; what is wrong is noted.
    pub(crate) fn parse<T, E: AsRef<str>>(
        &self,
        key: &'static str,
        parse: impl FnOnce(&str) -> Result<T, E>,
    ) -> Option<T> {
        self.take(key)?.parsed(Show::Value, parse)
    }

    /// As [`Section::parse`], without showing what was written.
    pub(crate) fn parse_quietly<T, E: AsRef<str>>(
        &self,
        key: &'static str,
        parse: impl FnOnce(&str) -> Result<T, E>,
    ) -> Option<T> {
        self.take(key)?.parsed(Show::Nothing, parse)
    }

    /// As [`Section::parse`], and notes if the key is not set.
    pub(crate) fn require<T, E: AsRef<str>>(
        &self,
        key: &'static str,
        parse: impl FnOnce(&str) -> Result<T, E>,
    ) -> Option<T> {
        let Some(node) = self.take(key) else {
            self.note(key, "is missing");
            return None;
        };
        node.parsed(Show::Value, parse)
    }

    /// Notes every key that nobody took.
    pub(crate) fn finish(&self) {
        let known = self.known.borrow();
        for (key, value) in self.dict.iter().filter(|(key, _)| !known.contains(&key.as_str())) {
            let node = self.reading.node(KeyPath::Key(&self.path, key), value);
            let known_here = known.join(", ");
            node.note(match nearest(key, &known) {
                Some(meant) => format!("is not a known key: did you mean `{meant}`? Known here are {known_here}"),
                None => format!("is not a known key; known here are {known_here}"),
            });
        }
    }
}

/// The known key that was most likely meant.
fn nearest<'k>(key: &str, known: &[&'k str]) -> Option<&'k str> {
    // A key that was cut short is meant, too, and one slip more is likely in a long one.
    let begun = known.iter().copied().find(|known| key.len() > 2 && known.starts_with(key));
    let near = known.iter().map(|known| (edits(key, known), *known));
    let near = near.filter(|(edits, known)| *edits <= 1 + key.len().min(known.len()) / 4);
    begun.or(near.min().map(|(_, known)| known))
}

/// How many letters have to be put in, taken out, replaced or swapped with the next to get from one to the other.
fn edits(from: &str, to: &str) -> usize {
    let (from, to): (Vec<_>, Vec<_>) = (from.chars().take(MOST_COMPARED).collect(), to.chars().collect());
    let mut rows = vec![(0..=to.len()).collect::<Vec<_>>()];
    for i in 1..=from.len() {
        let mut row = vec![i];
        for j in 1..=to.len() {
            let replaced = rows[i - 1][j - 1] + usize::from(from[i - 1] != to[j - 1]);
            let mut least = replaced.min(rows[i - 1][j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && from[i - 1] == to[j - 2] && from[i - 2] == to[j - 1] {
                least = least.min(rows[i - 2][j - 2] + 1);
            }
            row.push(least);
        }
        rows.push(row);
    }
    rows[from.len()][to.len()]
}

fn is_list(dict: &Dict) -> bool {
    !dict.is_empty() && dict.keys().all(|key| yaml::index_of(key).is_some())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_key_that_was_most_likely_meant_is_named() {
        let known = ["apis", "polling", "watches", "watch_files", "name", "agent_id", "min_interval"];
        for (key, meant) in [
            ("watch", Some("watches")),
            ("watchs", Some("watches")),
            ("nmae", Some("name")),
            ("agent", Some("agent_id")),
            ("agentId", Some("agent_id")),
            ("min-interval", Some("min_interval")),
            ("api", Some("apis")),
            ("x", None),
            ("labels", None),
            ("", None),
        ] {
            assert_eq!(nearest(key, &known), meant, "{key}");
        }
        assert_eq!(edits("kitten", "sitting"), 3);
        assert_eq!(nearest(&"x".repeat(1_000_000), &known), None);
    }
}
