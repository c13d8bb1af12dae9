//! YAML into figment values, every scalar as the text that was written.
//!
//! YAML's own typing turns `0123` into a number and `no` into false. Here each scalar stays text,
//! and only the key that it belongs to decides what it must be. Keys that are given twice are
//! reported, where most parsers take the last one silently.
//!
//! A list becomes a map from `[0]`, `[1]`… to its elements, so that a variable can be laid over
//! one of them. An empty list that is all there is becomes null, because it would look like an
//! empty map.

use std::borrow::Cow;
use std::collections::HashMap;

use figment::value::{Dict, Empty, Tag, Value};
use saphyr_parser::{Event, Marker, Parser, ScalarStyle, ScanError, StrInput};

use super::problem::{KeyPath, Position, Problem};

/// How deep collections may nest; the configuration needs five levels.
pub(crate) const MAX_DEPTH: usize = 32;

/// How many values aliases may add; a few aliases of aliases could else fill any memory.
const MAX_ALIASED: usize = 100_000;

/// Something wrong with the text, before it is known what any key means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SyntaxFault {
    /// The path of the key; empty if the fault is not with a key.
    pub(crate) path: String,
    pub(crate) position: Position,
    pub(crate) what: String,
}

/// A text as it was read, with the faults that do not hinder reading on.
pub(crate) type Parsed = (Value, Vec<SyntaxFault>);

/// A list whose elements are handed over one by one, as soon as each was read, so that the tree of a
/// long list is never there as a whole. In the tree it is empty.
pub(crate) struct Stream<'s> {
    /// The key at the top that holds the list; `None` if it is all that there is.
    pub(crate) key: Option<&'static str>,
    /// Where the elements go.
    pub(crate) sink: &'s mut dyn Sink,
}

/// Takes the elements of a list.
pub(crate) trait Sink {
    /// The value of the list's key begins. If it is given twice, the last one counts.
    fn begin(&mut self);

    /// The next element.
    fn take(&mut self, element: Value);
}

/// Reads one YAML document. An empty one is null.
///
/// # Errors
/// What is wrong with its syntax.
pub(crate) fn parse(text: &str) -> Result<Parsed, SyntaxFault> {
    read(text, None)
}

/// As [`parse`], with the elements of a list handed over as they are read. A list with an anchor is
/// kept in the tree, because it may be wanted again.
///
/// # Errors
/// What is wrong with its syntax.
pub(crate) fn read(text: &str, stream: Option<Stream<'_>>) -> Result<Parsed, SyntaxFault> {
    let mut reader = YamlReader {
        parser: Parser::new_from_str(text.strip_prefix('\u{feff}').unwrap_or(text)),
        stream,
        faults: Vec::new(),
        anchors: HashMap::new(),
        aliased: 0,
    };
    let value = reader.document()?;
    Ok((value, reader.faults))
}

struct YamlReader<'t, 's> {
    parser: Parser<'t, StrInput<'t>>,
    stream: Option<Stream<'s>>,
    faults: Vec<SyntaxFault>,
    anchors: HashMap<usize, Value>,
    aliased: usize,
}

/// Why reading cannot go on.
type Stop<T> = Result<T, SyntaxFault>;

// === impl SyntaxFault ===

impl SyntaxFault {
    /// What is at `path` was given before.
    pub(crate) fn given_twice(path: String, position: Position) -> Self {
        Self { path, position, what: "is given a second time: keep one of them".to_owned() }
    }

    /// The fault as a problem of a file.
    pub(crate) fn of_file(self, file: &str) -> Problem {
        Problem { position: Some(self.position), ..Problem::new(file, self.path, self.what) }
    }

    /// The fault as a problem of a text that is no file: of a variable or of a request's body.
    pub(crate) fn of_text(self, origin: &str) -> Problem {
        let Self { path, position: Position { line, column }, what } = self;
        let what = if path.is_empty() {
            format!("line {line}, column {column}: {what}")
        } else {
            format!("{what} (line {line}, column {column})")
        };
        Problem::new(origin, path, what)
    }
}

// === impl YamlReader ===

impl<'t> YamlReader<'t, '_> {
    fn document(&mut self) -> Stop<Value> {
        let mut value = None;
        loop {
            let (event, mark) = self.next()?;
            match event {
                Event::StreamEnd => return Ok(value.unwrap_or_else(null)),
                Event::DocumentStart(_) if value.is_some() => {
                    return Err(fault_at(&mark, "a second document: only one is read"));
                }
                Event::DocumentStart(_) => {
                    let (event, mark) = self.next()?;
                    let list = matches!(event, Event::SequenceStart(..));
                    let root = self.value(event, &mark, &KeyPath::Root, 0)?;
                    value = Some(if list { not_empty(root) } else { root });
                }
                _ => {}
            }
        }
    }

    fn next(&mut self) -> Stop<(Event<'t>, Marker)> {
        match self.parser.next_event() {
            Some(Ok((event, span))) => Ok((event, span.start)),
            Some(Err(error)) => Err(syntax(&error)),
            None => Ok((Event::StreamEnd, Marker::new(0, 0, 0))),
        }
    }

    fn value(&mut self, event: Event<'t>, mark: &Marker, path: &KeyPath<'_>, depth: usize) -> Stop<Value> {
        if depth > MAX_DEPTH {
            return Err(fault_at(mark, "collections nest too deep"));
        }
        let (value, anchor) = match event {
            Event::Scalar(text, style, anchor, _) => (scalar(text, style), anchor),
            Event::SequenceStart(0, _) if self.stream.as_ref().is_some_and(|stream| stream.is_at(path)) => {
                (self.streamed(path, depth)?, 0)
            }
            Event::SequenceStart(anchor, _) => (self.sequence(path, depth)?, anchor),
            Event::MappingStart(anchor, _) => (self.mapping(path, depth)?, anchor),
            Event::Alias(anchor) => (self.alias(anchor, mark)?, 0),
            _ => return Err(fault_at(mark, "a value was expected here")),
        };
        if anchor > 0 {
            self.anchors.insert(anchor, value.clone());
        }
        Ok(value)
    }

    fn sequence(&mut self, path: &KeyPath<'_>, depth: usize) -> Stop<Value> {
        let mut items = Dict::new();
        loop {
            let (event, mark) = self.next()?;
            if matches!(event, Event::SequenceEnd) {
                return Ok(Value::Dict(Tag::Default, items));
            }
            let index = items.len();
            let value = self.value(event, &mark, &KeyPath::Index(path, index), depth + 1)?;
            items.insert(index_key(index), value);
        }
    }

    /// Hands the elements of a list over, and leaves it empty.
    fn streamed(&mut self, path: &KeyPath<'_>, depth: usize) -> Stop<Value> {
        for index in 0.. {
            let (event, mark) = self.next()?;
            if matches!(event, Event::SequenceEnd) {
                break;
            }
            let element = self.value(event, &mark, &KeyPath::Index(path, index), depth + 1)?;
            if let Some(stream) = &mut self.stream {
                stream.sink.take(element);
            }
        }
        Ok(Value::Dict(Tag::Default, Dict::new()))
    }

    fn mapping(&mut self, path: &KeyPath<'_>, depth: usize) -> Stop<Value> {
        let mut dict = Dict::new();
        loop {
            let (event, key_mark) = self.next()?;
            let key = match event {
                Event::MappingEnd => return Ok(Value::Dict(Tag::Default, dict)),
                Event::Scalar(text, ..) => text.into_owned(),
                _ => return Err(fault_at(&key_mark, "a key must be plain text")),
            };
            let at = KeyPath::Key(path, &key);
            if let Some(stream) = self.stream.as_mut().filter(|stream| stream.is_at(&at)) {
                stream.sink.begin();
            }
            let (event, mark) = self.next()?;
            let value = self.value(event, &mark, &at, depth + 1)?;
            if dict.contains_key(&key) {
                self.faults.push(SyntaxFault::given_twice(at.to_string(), (&key_mark).into()));
            }
            dict.insert(key, value);
        }
    }

    fn alias(&mut self, anchor: usize, mark: &Marker) -> Stop<Value> {
        let value = self.anchors.get(&anchor).cloned().ok_or_else(|| fault_at(mark, "an alias of itself"))?;
        self.aliased = self.aliased.saturating_add(size(&value));
        if self.aliased > MAX_ALIASED {
            return Err(fault_at(mark, "aliases add too many values"));
        }
        Ok(value)
    }
}

// === impl Stream ===

impl Stream<'_> {
    /// Whether the list is what stands at this path.
    pub(crate) fn is_at(&self, path: &KeyPath<'_>) -> bool {
        match (self.key, path) {
            (None, KeyPath::Root) => true,
            (Some(list), KeyPath::Key(KeyPath::Root, key)) => list == *key,
            _ => false,
        }
    }
}

fn scalar(text: Cow<'_, str>, style: ScalarStyle) -> Value {
    let plain = matches!(style, ScalarStyle::Plain);
    if plain && matches!(&*text, "" | "~" | "null" | "Null" | "NULL") {
        null()
    } else {
        Value::String(Tag::Default, text.into_owned())
    }
}

/// What stands for no value.
pub(crate) fn null() -> Value {
    Value::Empty(Tag::Default, Empty::None)
}

/// The list, or null if it is empty.
pub(crate) fn not_empty(list: Value) -> Value {
    if list.as_dict().is_some_and(Dict::is_empty) { null() } else { list }
}

fn size(value: &Value) -> usize {
    value.as_dict().map_or(1, |dict| 1 + dict.values().map(size).sum::<usize>())
}

/// The key of a list's element.
pub(crate) fn index_key(index: usize) -> String {
    format!("[{index}]")
}

/// The index of a list's element, from its key.
pub(crate) fn index_of(key: &str) -> Option<usize> {
    key.strip_prefix('[')?.strip_suffix(']')?.parse().ok()
}

/// The parser's messages describe the syntax and do not quote the text.
fn syntax(error: &ScanError) -> SyntaxFault {
    fault_at(error.marker(), &format!("is not YAML: {}", error.info()))
}

fn fault_at(mark: &Marker, what: &str) -> SyntaxFault {
    SyntaxFault { path: String::new(), position: mark.into(), what: what.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn good(text: &str) -> Value {
        let (value, faults) = parse(text).unwrap();
        assert_eq!(faults, [], "{text}");
        value
    }

    fn faults(text: &str) -> String {
        let faults = parse(text).map_or_else(|fault| vec![fault], |(_, faults)| faults);
        faults.into_iter().map(|fault| fault.of_file("f").to_string() + "\n").collect()
    }

    #[test]
    fn scalars_stay_as_they_were_written() {
        for text in ["0123", "no", "1e5", "0x1F", "1_000", "true", ".5", "2026-01-01", "12:30:45", "-0", ".inf"] {
            let value = good(&format!("a: {text}"));
            assert_eq!(value.find("a").unwrap().as_str(), Some(text));
        }
    }

    #[test]
    fn only_plain_nulls_are_null() {
        for text in ["a:", "a: ~", "a: null", "a: NULL"] {
            assert!(good(text).find("a").unwrap().to_empty().is_some(), "{text}");
        }
        for (text, is) in [("a: ''", ""), ("a: 'null'", "null"), ("a: \"~\"", "~"), ("a: nil", "nil")] {
            assert_eq!(good(text).find("a").unwrap().as_str(), Some(is));
        }
        for text in ["", "[]", "# nothing\n[]\n"] {
            assert!(good(text).to_empty().is_some(), "{text}");
        }
        assert!(good("{}").as_dict().is_some());
        assert!(good("# only a comment\n").to_empty().is_some());
    }

    #[test]
    fn every_key_given_twice_is_reported_with_its_path() {
        let faults = faults("a: 1\nb:\n  - {c: 1, c: 2}\n\"a\": 2\n");
        assert!(faults.contains("f:3:12: b[0].c: is given a second time"), "{faults}");
        assert!(faults.contains("f:4:1: a: is given a second time"), "{faults}");
    }

    #[test]
    fn a_syntax_error_has_its_place() {
        assert!(faults("a: 1\nb: [1,\n").contains("is not YAML"));
        assert!(faults("a:\n\t- b").contains("f:2:"), "{}", faults("a:\n\t- b"));
        assert!(faults("a: 1\n---\nb: 2\n").contains("a second document"));
        assert!(faults("? [a]\n: b\n").contains("a key must be plain text"));
    }

    #[test]
    fn aliases_are_followed_and_bounded() {
        let value = good("a: &x {b: [1, 2]}\nc: *x\n");
        assert_eq!(value.find_ref("c.b").unwrap().as_dict().unwrap().len(), 2);
        let mut bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
        for i in 1..10 {
            let aliases = vec![format!("*a{}", i - 1); 10].join(", ");
            bomb.push_str(&["a", &i.to_string(), ": &a", &i.to_string(), " [", &aliases, "]\n"].concat());
        }
        assert!(faults(&bomb).contains("too many values"));
    }

    #[test]
    fn nesting_without_end_is_refused() {
        assert!(faults(&"[".repeat(100_000)).contains("f:1:"));
        assert!(faults(&"- ".repeat(10_000)).contains("too deep"));
        assert!(faults(&"{a: ".repeat(10_000)).contains("f:1:"));
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in "([a-c&*!|>%@`{}\\[\\],:?#'\"~ \n\t-]|\\PC){0,80}") {
            let _ = parse(&text);
        }
    }
}
