//! Where in a text the keys stand that problems are about.
//!
//! Values do not carry their positions: nearly all have no problem, and the positions of a long list
//! would take as much memory as its watches. So the text is read a second time where there are problems.

use std::borrow::Cow;
use std::collections::HashMap;

use saphyr_parser::{Event, Marker, Parser};

use super::problem::{Position, Problem, show};
use super::yaml::{MAX_DEPTH, index_key};

/// Gives every problem that is with a key of this text a position: that of the key, of the list's element, or
/// of the map that a missing key is missing in. `origin` is that of the text.
pub(crate) fn locate(text: &str, origin: &str, problems: &mut [Problem]) {
    let concerned =
        |problem: &&mut Problem| problem.origin == origin && problem.position.is_none() && !problem.path.is_empty();
    let mut wanted: HashMap<String, Option<Position>> = HashMap::new();
    for problem in problems.iter_mut().filter(concerned) {
        wanted.extend(with_all_above(&problem.path).map(|path| (path.to_owned(), None)));
    }
    if wanted.is_empty() {
        return;
    }
    TextCursor { wanted: &mut wanted, path: String::new(), open: Vec::new() }.read(text);
    for problem in problems.iter_mut().filter(concerned) {
        problem.position = with_all_above(&problem.path).find_map(|path| *wanted.get(path)?);
    }
}

/// The path, the path of what it is in, and so on.
fn with_all_above(path: &str) -> impl Iterator<Item = &str> {
    std::iter::successors(Some(path), |path| path.rfind(['.', '[']).map(|end| &path[..end]).filter(|p| !p.is_empty()))
}

/// A text while it is read.
struct TextCursor<'w> {
    wanted: &'w mut HashMap<String, Option<Position>>,
    /// The path of the value that is being read.
    path: String,
    /// The collections that it is in.
    open: Vec<Collection>,
}

/// A list or a map that is being read.
struct Collection {
    /// How much of the path is its own.
    path: usize,
    next: NextItem,
}

/// What comes next in a collection.
enum NextItem {
    /// The element with this index.
    Element(usize),
    Key,
    Value,
}

// === impl TextCursor ===

impl TextCursor<'_> {
    /// Reads as far as the text can be read, has plain keys and nests no deeper than is valid.
    fn read(&mut self, text: &str) {
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        let is_json = text.trim_start().starts_with(['{', '[']);
        // In JSON tabs may stand where they may not in YAML.
        let text: Cow<'_, str> = if is_json { text.replace('\t', " ").into() } else { text.into() };
        let mut parser = Parser::new_from_str(&text);
        while let Some(Ok((event, span))) = parser.next_event() {
            if self.open.len() > MAX_DEPTH {
                return;
            }
            match event {
                Event::Scalar(key, ..) if self.is_at_key() => self.key(&key, &span.start),
                Event::Scalar(..) | Event::Alias(_) if !self.is_at_key() => {
                    self.begin_value(&span.start);
                    self.end_value();
                }
                Event::SequenceStart(..) if !self.is_at_key() => self.open(NextItem::Element(0), &span.start),
                Event::MappingStart(..) if !self.is_at_key() => self.open(NextItem::Key, &span.start),
                Event::SequenceEnd | Event::MappingEnd => {
                    self.open.pop();
                    self.end_value();
                }
                Event::StreamStart | Event::DocumentStart(_) | Event::Nothing => {}
                _ => return,
            }
        }
    }

    fn is_at_key(&self) -> bool {
        self.open.last().is_some_and(|collection| matches!(collection.next, NextItem::Key))
    }

    fn key(&mut self, key: &str, mark: &Marker) {
        let Some(map) = self.open.last_mut() else { return };
        map.next = NextItem::Value;
        self.path.truncate(map.path);
        if !self.path.is_empty() && !key.starts_with('[') {
            self.path.push('.');
        }
        self.path.push_str(&show(key));
        self.found(mark);
    }

    fn begin_value(&mut self, mark: &Marker) {
        if let Some(&Collection { path, next: NextItem::Element(index) }) = self.open.last() {
            self.path.truncate(path);
            self.path.push_str(&index_key(index));
            self.found(mark);
        }
    }

    fn end_value(&mut self) {
        if let Some(collection) = self.open.last_mut() {
            collection.next = match collection.next {
                NextItem::Element(index) => NextItem::Element(index + 1),
                NextItem::Key | NextItem::Value => NextItem::Key,
            };
        }
    }

    fn open(&mut self, next: NextItem, mark: &Marker) {
        self.begin_value(mark);
        self.open.push(Collection { path: self.path.len(), next });
    }

    /// Of what is given twice, the last one counts.
    fn found(&mut self, mark: &Marker) {
        if let Some(position) = self.wanted.get_mut(self.path.as_str()) {
            *position = Some(mark.into());
        }
    }
}

// === impl Position ===

impl From<&Marker> for Position {
    fn from(mark: &Marker) -> Self {
        Self { line: mark.line(), column: mark.col() + 1 }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Where problems with these paths are said to be.
    fn located(text: &str, paths: &[&str]) -> Vec<String> {
        let mut problems: Vec<_> = paths.iter().map(|path| Problem::new("f", *path, "")).collect();
        locate(text, "f", &mut problems);
        let place = |Position { line, column }| format!("{line}:{column}");
        problems.into_iter().map(|problem| problem.position.map(place).unwrap_or_default()).collect()
    }

    const YAML: &str = "# é\napis:\n  default: {timeout: 1, 'base_url': x}\nwatches:\n  - name: a\n    labels: {team: x, \
                        é: 1}\n  - &b [c]\n  - *b\n";

    #[test]
    fn keys_are_where_they_begin_and_elements_where_their_values_do() {
        for (path, place) in [
            ("apis", "2:1"),
            ("apis.default.timeout", "3:13"),
            ("apis.default.base_url", "3:25"),
            ("watches[0]", "5:5"),
            ("watches[0].name", "5:5"),
            ("watches[0].labels.é", "6:23"),
            ("watches[1][0]", "7:9"),
            ("watches[2]", "8:5"),
        ] {
            assert_eq!(located(YAML, &[path]), [place], "{path}");
        }
    }

    #[test]
    fn what_is_missing_is_where_it_is_missing() {
        let paths = ["watches[0].agent_id", "watches[2][0]", "apis.other.api_key", "polling.min_interval", ""];
        assert_eq!(located(YAML, &paths), ["5:5", "8:5", "2:1", "", ""]);
    }

    #[test]
    fn json_has_positions_too_even_with_tabs() {
        let text = "\u{feff}[\n\t{\"a\":\t1,\n\t\"b\": {\"c\\/\":[]}}]";
        assert_eq!(located(text, &["[0].a", "[0].b.c/", "[0]"]), ["2:3", "3:8", "2:2"]);
    }

    #[test]
    fn of_a_key_that_is_given_twice_the_last_one_counts() {
        assert_eq!(located("a: 1\na: 2\n", &["a"]), ["2:1"]);
    }

    #[test]
    fn problems_of_other_texts_get_no_position() {
        let mut problems = [Problem::new("g", "a", "")];
        locate("a: 1\n", "f", &mut problems);
        assert_eq!(problems[0].position, None);
    }

    #[test]
    fn nesting_without_end_is_no_danger() {
        for text in ["[", "- ", "{a: ", "? "] {
            located(&text.repeat(100_000), &["a"]);
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in "([a-c&*!|>%@`{}\\[\\],:?#'\"~ \n\t-]|\\PC){0,80}") {
            located(&text, &["a", "a.b", "[0].a", "[1]"]);
        }
    }
}
