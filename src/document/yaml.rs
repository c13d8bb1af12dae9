//! YAML into a tree of values.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use saphyr_parser::{Event, Marker, Parser, ScalarStyle, StrInput};

use super::problem::{DocumentSource, KeyPath, Position, Problem};
use super::value::{Map, Value, ValueKind, ValueOrigin};

/// How deep collections may nest; the configuration needs five levels.
pub(super) const MAX_DEPTH: usize = 32;

/// How many values aliases may add: a few aliases of aliases could fill any memory.
const MAX_ALIASED: usize = 100_000;

/// A tree, and the problems that did not prevent reading all of it.
pub(crate) type Parsed = (Value, Vec<Problem>);

/// Reads one YAML document. An empty one is null.
///
/// # Errors
/// The first syntax error.
pub(crate) fn parse(text: &str, source: DocumentSource<'_>) -> Result<Parsed, Problem> {
    let mut reader = YamlReader {
        parser: Parser::new_from_str(text.strip_prefix('\u{feff}').unwrap_or(text)),
        source,
        problems: Vec::new(),
        keys: HashSet::new(),
        anchors: HashMap::new(),
        aliased: 0,
    };
    let value = reader.document()?;
    Ok((value, reader.problems))
}

struct YamlReader<'t> {
    parser: Parser<'t, StrInput<'t>>,
    source: DocumentSource<'t>,
    problems: Vec<Problem>,
    /// The keys that were read, which all maps share.
    keys: HashSet<Arc<str>>,
    anchors: HashMap<usize, Value>,
    /// How many values aliases have added.
    aliased: usize,
}

// === impl YamlReader ===

impl<'t> YamlReader<'t> {
    fn document(&mut self) -> Result<Value, Problem> {
        let mut document = None;
        loop {
            let (event, mark) = self.next()?;
            match event {
                Event::StreamEnd => {
                    return Ok(document.unwrap_or(Value { origin: ValueOrigin::Document, kind: ValueKind::Null }));
                }
                Event::DocumentStart(_) if document.is_some() => {
                    return Err(self.problem(mark, "a second document: only one is read"));
                }
                Event::DocumentStart(_) => {
                    let (event, mark) = self.next()?;
                    document = Some(self.value(event, mark, ValueOrigin::Document, &KeyPath::Root, 0)?);
                }
                _ => {}
            }
        }
    }

    fn next(&mut self) -> Result<(Event<'t>, Position), Problem> {
        match self.parser.next_event() {
            Some(Ok((event, span))) => Ok((event, (&span.start).into())),
            // The parser's messages describe the syntax and do not quote the text.
            Some(Err(error)) => Err(self.problem(error.marker().into(), &format!("is not YAML: {}", error.info()))),
            None => Ok((Event::StreamEnd, Position { line: 0, column: 0 })),
        }
    }

    fn value(
        &mut self,
        event: Event<'t>,
        mark: Position,
        origin: ValueOrigin,
        path: &KeyPath<'_>,
        depth: usize,
    ) -> Result<Value, Problem> {
        if depth > MAX_DEPTH {
            return Err(self.problem(mark, "collections nest too deep"));
        }
        let (kind, anchor) = match event {
            Event::Scalar(text, ScalarStyle::Plain, anchor, _) if is_null(&text) => (ValueKind::Null, anchor),
            Event::Scalar(text, _, anchor, _) => (ValueKind::Text(Box::from(&*text)), anchor),
            Event::SequenceStart(anchor, _) => (self.list(path, depth)?, anchor),
            Event::MappingStart(anchor, _) => (self.map(path, depth)?, anchor),
            Event::Alias(anchor) => (self.alias(anchor, mark)?, 0),
            _ => return Err(self.problem(mark, "a value was expected here")),
        };
        let value = Value { origin, kind };
        if anchor > 0 {
            self.anchors.insert(anchor, value.clone());
        }
        Ok(value)
    }

    fn list(&mut self, path: &KeyPath<'_>, depth: usize) -> Result<ValueKind, Problem> {
        let mut elements = Vec::new();
        loop {
            let (event, mark) = self.next()?;
            if matches!(event, Event::SequenceEnd) {
                return Ok(ValueKind::List(elements.into()));
            }
            let path = KeyPath::Index(path, elements.len());
            elements.push(self.value(event, mark, ValueOrigin::At(mark), &path, depth + 1)?);
        }
    }

    fn map(&mut self, path: &KeyPath<'_>, depth: usize) -> Result<ValueKind, Problem> {
        let mut members = Vec::new();
        loop {
            let (event, key_mark) = self.next()?;
            let key = match event {
                Event::MappingEnd => break,
                Event::Scalar(key, ..) => self.shared_key(key),
                _ => return Err(self.problem(key_mark, "a key must be plain text")),
            };
            let (event, mark) = self.next()?;
            let value = self.value(event, mark, ValueOrigin::At(key_mark), &KeyPath::Key(path, &key), depth + 1)?;
            members.push((key, value));
        }
        let (source, problems) = (self.source, &mut self.problems);
        Ok(ValueKind::Map(Map::new(members, &mut |key, position| {
            problems.push(source.repeated_key(position, &KeyPath::Key(path, key)));
        })))
    }

    fn shared_key(&mut self, key: Cow<'_, str>) -> Arc<str> {
        if let Some(key) = self.keys.get(&*key) {
            return Arc::clone(key);
        }
        let key = Arc::from(key);
        self.keys.insert(Arc::clone(&key));
        key
    }

    fn alias(&mut self, anchor: usize, mark: Position) -> Result<ValueKind, Problem> {
        let Some(value) = self.anchors.get(&anchor).cloned() else {
            return Err(self.problem(mark, "an alias of itself"));
        };
        self.aliased = self.aliased.saturating_add(value.size());
        if self.aliased > MAX_ALIASED {
            return Err(self.problem(mark, "aliases add too many values"));
        }
        Ok(value.kind)
    }

    fn problem(&self, position: Position, what: &str) -> Problem {
        self.source.syntax_problem(position, "", what)
    }
}

/// Whether YAML takes this plain scalar for null.
fn is_null(text: &str) -> bool {
    matches!(text, "" | "~" | "null" | "Null" | "NULL")
}

// === impl Position ===

impl From<&Marker> for Position {
    fn from(mark: &Marker) -> Self {
        // No text that is read is so long that this saturates.
        let number = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
        Self { line: number(mark.line()), column: number(mark.col() + 1) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    use proptest::prelude::*;

    fn good(text: &str) -> Value {
        let (value, problems) = parse(text, DocumentSource::Text("f")).unwrap();
        assert_eq!(problems, [], "{text}");
        value
    }

    fn problems(text: &str) -> String {
        let file = DocumentSource::File(Path::new("f"));
        let problems = parse(text, file).map_or_else(|problem| vec![problem], |(_, problems)| problems);
        problems.into_iter().map(|problem| problem.to_string() + "\n").collect()
    }

    #[test]
    fn scalars_stay_as_they_were_written() {
        for text in ["0123", "no", "1e5", "0x1F", "1_000", "true", ".5", "2026-01-01", "12:30:45", "-0", ".inf"] {
            let value = good(&format!("a: {text}"));
            assert_eq!(value.get("a").unwrap().as_text(), Some(text));
        }
    }

    #[test]
    fn only_plain_nulls_are_null() {
        for text in ["a:", "a: ~", "a: null", "a: NULL"] {
            assert!(matches!(good(text).get("a").unwrap().kind, ValueKind::Null), "{text}");
        }
        for (text, is) in [("a: ''", ""), ("a: 'null'", "null"), ("a: \"~\"", "~"), ("a: nil", "nil")] {
            assert_eq!(good(text).get("a").unwrap().as_text(), Some(is));
        }
        for text in ["", "~", "# only a comment\n"] {
            assert!(matches!(good(text).kind, ValueKind::Null), "{text}");
        }
    }

    #[test]
    fn every_key_given_twice_is_reported_with_its_path() {
        let problems = problems("a: 1\nb:\n  - {c: 1, c: 2}\n\"a\": 2\n");
        assert!(problems.contains("f:3:12: b[0].c: is given a second time"), "{problems}");
        assert!(problems.contains("f:4:1: a: is given a second time"), "{problems}");
    }

    #[test]
    fn a_syntax_error_has_its_place() {
        assert!(problems("a: 1\nb: [1,\n").contains("is not YAML"));
        assert!(problems("a:\n\t- b").contains("f:2:"), "{}", problems("a:\n\t- b"));
        assert!(problems("a: 1\n---\nb: 2\n").contains("a second document"));
        assert!(problems("? [a]\n: b\n").contains("a key must be plain text"));
    }

    #[test]
    fn aliases_are_followed_and_bounded() {
        let value = good("a: &x {b: [1, 2]}\nc: *x\n");
        assert_eq!(value.get("c").unwrap().get("b").unwrap().as_list().unwrap().len(), 2);
        let mut bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
        for i in 1..10 {
            let aliases = vec![format!("*a{}", i - 1); 10].join(", ");
            bomb.push_str(&["a", &i.to_string(), ": &a", &i.to_string(), " [", &aliases, "]\n"].concat());
        }
        assert!(problems(&bomb).contains("too many values"));
    }

    #[test]
    fn nesting_without_end_is_refused() {
        assert!(problems(&"[".repeat(100_000)).contains("f:1:"));
        assert!(problems(&"- ".repeat(10_000)).contains("too deep"));
        assert!(problems(&"{a: ".repeat(10_000)).contains("f:1:"));
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in "([a-c&*!|>%@`{}\\[\\],:?#'\"~ \n\t-]|\\PC){0,80}") {
            let _ = parse(&text, DocumentSource::Text("f"));
        }
    }
}
