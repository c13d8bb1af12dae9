//! Walking a tree of values key by key, and noting every problem.

use std::cell::RefCell;
use std::path::{Path, PathBuf};

use super::problem::{DocumentSource, KeyPath, Problem, show};
use super::value::{Map, Value, ValueKind, ValueOrigin};

/// The validation of one document: where its values were written, and the problems that were noted.
pub(crate) struct Validation<'a> {
    source: DocumentSource<'a>,
    /// The names of the environment variables that were laid over the document.
    variables: &'a [String],
    problems: RefCell<Vec<Problem>>,
}

/// A map whose keys are known to the program. The keys that were not taken are problems.
pub(crate) struct Section<'a> {
    place: Place<'a>,
    map: &'a Map,
    /// The keys that the program knows, because it asked for them.
    known: RefCell<Vec<&'static str>>,
}

/// A value and its place.
#[derive(Clone, Copy)]
pub(crate) struct Node<'a> {
    place: Place<'a>,
    value: &'a Value,
}

/// The place of a value: its key, and where it was written.
#[derive(Clone, Copy)]
pub(crate) struct Place<'a> {
    validation: &'a Validation<'a>,
    path: KeyPath<'a>,
    origin: ValueOrigin,
}

/// Whether a problem may quote the value.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Show {
    /// It may.
    Value,
    /// It may not: the value is a secret, or may be one by mistake.
    Nothing,
}

// === impl Validation ===

impl<'a> Validation<'a> {
    /// Of a document that has these environment variables laid over it.
    pub(crate) fn new(source: DocumentSource<'a>, variables: &'a [String]) -> Self {
        Self { source, variables, problems: RefCell::default() }
    }

    /// The problems that were noted, in that order.
    pub(crate) fn into_problems(self) -> Vec<Problem> {
        self.problems.into_inner()
    }

    /// The whole document.
    pub(crate) fn root(&'a self, tree: &'a Value) -> Node<'a> {
        self.node(KeyPath::Root, tree)
    }

    fn node(&'a self, path: KeyPath<'a>, value: &'a Value) -> Node<'a> {
        Node { place: Place { validation: self, path, origin: value.origin }, value }
    }

    fn variable(&self, origin: ValueOrigin) -> Option<&'a String> {
        let ValueOrigin::Variable(index) = origin else { return None };
        self.variables.get(usize::try_from(index).ok()?)
    }

    fn problem(&self, origin: ValueOrigin, path: String, what: impl Into<String>) -> Problem {
        let name = self.variable(origin).map_or_else(|| self.source.name().into_owned(), String::clone);
        let position = match (self.source, origin) {
            (DocumentSource::File(_), ValueOrigin::At(position)) => Some(position),
            _ => None,
        };
        Problem { position, ..Problem::new(name, path, what) }
    }
}

// === impl Node ===

impl<'a> Node<'a> {
    /// Whether the value is null, an empty list or an empty map.
    pub(crate) fn is_empty(&self) -> bool {
        self.value.is_empty()
    }

    /// Whether the value is a list.
    pub(crate) fn is_list(&self) -> bool {
        self.value.as_list().is_some()
    }

    /// Whether the value is a map.
    pub(crate) fn is_map(&self) -> bool {
        self.value.as_map().is_some()
    }

    /// Whether the value is a map with that key.
    pub(crate) fn has(&self, key: &str) -> bool {
        self.value.get(key).is_some_and(|value| !value.is_unset())
    }

    /// Whether the value is a map in which that key is written, even if its value is null.
    pub(crate) fn mentions(&self, key: &str) -> bool {
        self.value.get(key).is_some()
    }

    /// Whether the value is a map of these texts, which are sorted by key, and of nothing else.
    pub(crate) fn has_just<'p>(&self, pairs: impl Iterator<Item = (&'p str, &'p str)>) -> bool {
        let map = self.value.as_map();
        map.is_some_and(|map| {
            map.iter().map(|(key, value)| (key, value.as_text())).eq(pairs.map(|(key, text)| (key, Some(text))))
        })
    }

    /// Whether the value is the null of a member of a JSON object, whose key counts as not set.
    pub(crate) fn is_unset(&self) -> bool {
        self.value.is_unset()
    }

    /// The place of the value.
    pub(crate) fn place(&self) -> Place<'a> {
        self.place
    }

    /// The path that this value names. A relative one starts at the folder of the document, or at the working
    /// directory if a variable sets it.
    pub(crate) fn resolve(&self, path: &str) -> PathBuf {
        self.folder().map_or_else(|| PathBuf::from(path), |folder| folder.join(path))
    }

    /// The folder that relative paths in this value start at; `None` for the working directory.
    pub(crate) fn folder(&self) -> Option<&'a Path> {
        match (self.place.validation.source, self.place.origin) {
            (_, ValueOrigin::Variable(_)) | (DocumentSource::Text(_), _) => None,
            (DocumentSource::File(path), _) => path.parent(),
        }
    }

    /// Notes a problem with the value.
    pub(crate) fn note(&self, what: impl Into<String>) {
        self.place.note(what);
    }

    /// A warning about the value at these keys, which has the origin of the innermost map that is there.
    pub(crate) fn warning_at(&self, keys: &[&str], what: impl Into<String>) -> Problem {
        let mut innermost = self.value;
        for key in keys {
            let Some(value) = innermost.get(key) else { break };
            innermost = value;
        }
        self.place.validation.problem(innermost.origin, keys.join("."), what)
    }

    /// The value as a map with known keys. Null counts as an empty map.
    pub(crate) fn section(&self) -> Option<Section<'a>> {
        static EMPTY: Map = Map::EMPTY;
        let map = match &self.value.kind {
            ValueKind::Map(map) => map,
            ValueKind::Null | ValueKind::Unset => &EMPTY,
            _ => {
                self.note("must be a map of keys to values");
                return None;
            }
        };
        Some(Section { place: self.place, map, known: RefCell::new(Vec::with_capacity(USUAL_KEYS)) })
    }

    /// The value as a map with keys of the user's choice.
    pub(crate) fn entries(&self) -> Option<impl Iterator<Item = (&'a str, Node<'_>)>> {
        let map = self.section()?.map;
        let Place { validation, path, .. } = &self.place;
        Some(map.iter().map(move |(key, value)| (key, validation.node(KeyPath::Key(path, key), value))))
    }

    /// The value as a list. Null counts as an empty list.
    pub(crate) fn items(&self) -> impl ExactSizeIterator<Item = Node<'_>> {
        let Place { validation, path, .. } = &self.place;
        self.list().iter().enumerate().map(move |(index, value)| validation.node(KeyPath::Index(path, index), value))
    }

    /// Reads the elements that [`Value::take_elements`] took out of this value. Each is wiped from memory before the
    /// next one is read: the tree of a long list takes more memory than what is made of it.
    pub(crate) fn read_taken(&self, elements: Vec<Value>, mut read: impl FnMut(usize, Node<'_>)) {
        self.list();
        let Place { validation, path, .. } = &self.place;
        for (index, mut element) in elements.into_iter().enumerate() {
            read(index, validation.node(KeyPath::Index(path, index), &element));
            element.wipe();
        }
    }

    fn list(&self) -> &'a [Value] {
        self.value.as_list().unwrap_or_else(|| {
            if !matches!(self.value.kind, ValueKind::Null | ValueKind::Unset) {
                self.note("must be a list");
            }
            &[]
        })
    }

    /// The value as text, as it was written.
    pub(crate) fn text(&self) -> Option<&'a str> {
        match &self.value.kind {
            ValueKind::Text(text) => return Some(text),
            ValueKind::Null | ValueKind::Unset => self
                .note("has no value: give it one, or take the key away (quote it if the text `null` or `~` is meant)"),
            ValueKind::List(_) | ValueKind::Map(_) => self.note("must be a single value, not a list or a map"),
        }
        None
    }

    /// The value that `parse` makes of the text. Its error completes a sentence that begins with the value.
    pub(crate) fn parsed<T, E: AsRef<str>>(
        &self,
        show_value: Show,
        parse: impl FnOnce(&str) -> Result<T, E>,
    ) -> Option<T> {
        let text = self.text()?;
        let noted = parse(text).map_err(|what| match show_value {
            Show::Value => self.note(format!("`{}` {}", show(text), what.as_ref())),
            Show::Nothing => self.note(what.as_ref()),
        });
        noted.ok()
    }
}

// === impl Place ===

impl Place<'_> {
    /// The place of a key of this map that is not set.
    fn key<'s>(&'s self, key: &'s str) -> Place<'s> {
        Place { path: KeyPath::Key(&self.path, key), ..*self }
    }

    /// Notes a problem.
    pub(crate) fn note(&self, what: impl Into<String>) {
        self.validation.problems.borrow_mut().push(self.warning(what));
    }

    /// A problem that is only a warning, and is not noted.
    pub(crate) fn warning(&self, what: impl Into<String>) -> Problem {
        self.validation.problem(self.origin, self.path.to_string(), what)
    }
}

// === impl Section ===

/// The most characters of an unknown key that are compared with known ones.
const MAX_COMPARED: usize = 64;

/// Room for the keys of most sections.
const USUAL_KEYS: usize = 8;

impl Section<'_> {
    /// Notes a problem with `key`, whether it is set or not.
    pub(crate) fn note(&self, key: &str, what: impl Into<String>) {
        match self.map.get(key) {
            Some(value) => self.node(key, value).note(what),
            None => self.place.key(key).note(what),
        }
    }

    fn node<'s>(&'s self, key: &'s str, value: &'s Value) -> Node<'s> {
        self.place.validation.node(KeyPath::Key(&self.place.path, key), value)
    }

    /// Takes the value of `key`, if it is set.
    pub(crate) fn take(&self, key: &'static str) -> Option<Node<'_>> {
        self.known.borrow_mut().push(key);
        let value = self.map.get(key).filter(|value| !value.is_unset())?;
        Some(self.node(key, value))
    }

    /// Takes `key` and parses it. `None` if it is not set or is wrong, which is noted.
    pub(crate) fn parse<T, E: AsRef<str>>(
        &self,
        key: &'static str,
        parse: impl FnOnce(&str) -> Result<T, E>,
    ) -> Option<T> {
        self.take(key)?.parsed(Show::Value, parse)
    }

    /// Like [`Section::parse`], but problems do not quote the value.
    pub(crate) fn parse_quietly<T, E: AsRef<str>>(
        &self,
        key: &'static str,
        parse: impl FnOnce(&str) -> Result<T, E>,
    ) -> Option<T> {
        self.take(key)?.parsed(Show::Nothing, parse)
    }

    /// Like [`Section::parse`], but notes a problem if the key is not set.
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

    /// Notes every key that was not taken.
    pub(crate) fn finish(&self) {
        let known = self.known.borrow();
        for (key, value) in self.map.iter().filter(|(key, _)| !known.contains(key)) {
            let known_here = known.join(", ");
            self.node(key, value).note(match nearest(key, &known) {
                Some(meant) => format!("is not a known key: did you mean `{meant}`? Known here are {known_here}"),
                None => format!("is not a known key; known here are {known_here}"),
            });
        }
    }
}

/// The known key that was most likely meant.
pub(crate) fn nearest<'k>(key: &str, known: &[&'k str]) -> Option<&'k str> {
    // The beginning of a known key counts as a match, too. A long key may have more typing errors.
    let begun = known.iter().copied().find(|known| key.len() > 2 && known.starts_with(key));
    let compared: String = key.chars().take(MAX_COMPARED).collect();
    let near = known.iter().map(|known| (strsim::osa_distance(&compared, known), *known));
    let near = near.filter(|(edits, known)| *edits <= 1 + key.len().min(known.len()) / 4);
    begun.or(near.min().map(|(_, known)| known))
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
        assert_eq!(nearest(&"x".repeat(1_000_000), &known), None);
    }
}
