//! A document as a tree of values.

use std::sync::Arc;

use zeroize::Zeroize;

use super::problem::Position;

/// A value of a document. Scalars are kept as the text that was written, because only the key that a value belongs
/// to decides what type it must have: YAML's own rules make a number of `0123` and false of `no`.
#[derive(Debug, Clone)]
pub(crate) struct Value {
    pub(crate) origin: ValueOrigin,
    pub(crate) kind: ValueKind,
}

/// What kind of value it is.
#[derive(Debug, Clone)]
pub(crate) enum ValueKind {
    Null,
    /// The null of a member of a JSON object: the key is not set, but must be a known one.
    Unset,
    Text(Box<str>),
    List(Box<[Value]>),
    Map(Map),
}

/// Where a value was written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum ValueOrigin {
    /// In the document; the position is not known.
    #[default]
    Document,
    /// In the document. A value in a map has the position of its key.
    At(Position),
    /// In the environment variable with this index.
    Variable(u32),
}

/// The values of a map by key. A long list has very many small maps with the same keys, so this is a sorted list,
/// which takes a third of the memory of a `BTreeMap`, and maps can share their keys.
#[derive(Debug, Clone, Default)]
pub(crate) struct Map(Vec<(Arc<str>, Value)>);

// === impl Value ===

impl Value {
    /// The value that is at this key, if this is a map that has it.
    pub(crate) fn get(&self, key: &str) -> Option<&Self> {
        self.as_map()?.get(key)
    }

    /// Whether it is the null of a member of a JSON object.
    pub(crate) fn is_unset(&self) -> bool {
        matches!(self.kind, ValueKind::Unset)
    }

    pub(crate) fn as_text(&self) -> Option<&str> {
        if let ValueKind::Text(text) = &self.kind { Some(text) } else { None }
    }

    pub(crate) fn as_list(&self) -> Option<&[Self]> {
        if let ValueKind::List(list) = &self.kind { Some(list) } else { None }
    }

    pub(crate) fn as_map(&self) -> Option<&Map> {
        if let ValueKind::Map(map) = &self.kind { Some(map) } else { None }
    }

    pub(crate) fn as_map_mut(&mut self) -> Option<&mut Map> {
        if let ValueKind::Map(map) = &mut self.kind { Some(map) } else { None }
    }

    /// Takes the elements out of a list, which is empty after that; none if this is no list.
    pub(crate) fn take_elements(&mut self) -> Vec<Self> {
        if let ValueKind::List(list) = &mut self.kind { std::mem::take(list).into_vec() } else { Vec::new() }
    }

    /// Whether it is null, an empty list or an empty map.
    pub(crate) fn is_empty(&self) -> bool {
        match &self.kind {
            ValueKind::Null | ValueKind::Unset => true,
            ValueKind::Text(_) => false,
            ValueKind::List(list) => list.is_empty(),
            ValueKind::Map(map) => map.0.is_empty(),
        }
    }

    /// How many values there are in it, itself included.
    pub(super) fn size(&self) -> usize {
        let within: usize = match &self.kind {
            ValueKind::Null | ValueKind::Unset | ValueKind::Text(_) => 0,
            ValueKind::List(list) => list.iter().map(Self::size).sum(),
            ValueKind::Map(map) => map.iter().map(|(_, value)| value.size()).sum(),
        };
        1 + within
    }

    /// Wipes all text from memory: there may be secrets in it.
    pub(super) fn wipe(&mut self) {
        match &mut self.kind {
            ValueKind::Null | ValueKind::Unset => {}
            ValueKind::Text(text) => text.zeroize(),
            ValueKind::List(list) => list.iter_mut().for_each(Self::wipe),
            ValueKind::Map(map) => map.iter_mut().for_each(|(_, value)| value.wipe()),
        }
    }
}

// === impl Map ===

impl Map {
    pub(crate) const EMPTY: Self = Self(Vec::new());

    /// The map of these members. Of those with the same key the last one counts; `repeated` is called for each
    /// that follows another one, with its position.
    pub(super) fn new(mut members: Vec<(Arc<str>, Value)>, repeated: &mut dyn FnMut(&str, Position)) -> Self {
        members.sort_by(|(a, _), (b, _)| a.cmp(b));
        members.dedup_by(|next, kept| {
            if next.0 != kept.0 {
                return false;
            }
            if let ValueOrigin::At(position) = next.1.origin {
                repeated(&next.0, position);
            }
            std::mem::swap(next, kept);
            true
        });
        members.shrink_to_fit();
        Self(members)
    }

    pub(crate) fn get(&self, key: &str) -> Option<&Value> {
        self.find(key).map(|at| &self.0[at].1)
    }

    pub(crate) fn get_mut(&mut self, key: &str) -> Option<&mut Value> {
        self.find(key).map(|at| &mut self.0[at].1)
    }

    fn find(&self, key: &str) -> Option<usize> {
        self.0.binary_search_by(|(known, _)| (**known).cmp(key)).ok()
    }

    /// The members, sorted by key.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&str, &Value)> {
        self.0.iter().map(|(key, value)| (&**key, value))
    }

    /// As [`Map::iter`], with values that can be changed.
    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = (&str, &mut Value)> {
        self.0.iter_mut().map(|(key, value)| (&**key, value))
    }
}

impl FromIterator<(Arc<str>, Value)> for Map {
    fn from_iter<I: IntoIterator<Item = (Arc<str>, Value)>>(members: I) -> Self {
        Self::new(members.into_iter().collect(), &mut |_, _| {})
    }
}

impl IntoIterator for Map {
    type Item = (Arc<str>, Value);
    type IntoIter = std::vec::IntoIter<Self::Item>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::document::{DocumentSource, json, yaml};

    /// Where the value at `path` of a document is.
    fn position(document: &Value, path: &str) -> String {
        let value = path.split('/').fold(document, |value, part| match value.as_list() {
            Some(list) => &list[part.parse::<usize>().unwrap()],
            None => value.get(part).unwrap(),
        });
        match value.origin {
            ValueOrigin::At(Position { line, column }) => format!("{line}:{column}"),
            origin => panic!("{origin:?}"),
        }
    }

    #[test]
    fn values_of_maps_are_where_their_keys_begin_and_elements_where_they_begin_themselves() {
        let text = "# é\napis:\n  default: {timeout: 1, 'base_url': x}\nwatches:\n  - name: a\n    labels: {team: x, é: \
                    1}\n  - &b [c]\n  - *b\n";
        let (document, _) = yaml::parse(text, DocumentSource::Text("f")).unwrap();
        for (path, place) in [
            ("apis", "2:1"),
            ("apis/default/timeout", "3:13"),
            ("apis/default/base_url", "3:25"),
            ("watches/0", "5:5"),
            ("watches/0/name", "5:5"),
            ("watches/0/labels/é", "6:23"),
            ("watches/1/0", "7:9"),
            ("watches/2", "8:5"),
        ] {
            assert_eq!(position(&document, path), place, "{path}");
        }
    }

    #[test]
    fn json_has_the_positions_of_yaml() {
        let text = "\u{feff}[\n\t{\"é\": [], \"a\":\t1,\n\t\"b\": {\"c\\\\\":[]}}]";
        let (document, _) = json::parse(text, DocumentSource::Text("f")).unwrap();
        for (path, place) in [("0", "2:2"), ("0/é", "2:3"), ("0/a", "2:12"), ("0/b", "3:2"), ("0/b/c\\", "3:8")] {
            assert_eq!(position(&document, path), place, "{path}");
        }
    }

    #[test]
    fn of_a_key_that_is_given_twice_the_last_value_counts() {
        let (document, problems) = yaml::parse("a: 1\nb: 2\na: 3\n", DocumentSource::Text("f")).unwrap();
        assert_eq!((document.get("a").unwrap().as_text(), problems.len()), (Some("3"), 1));
        assert_eq!(position(&document, "a"), "3:1");
    }
}
