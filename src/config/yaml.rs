//! YAML into figment values, every scalar as the text that was written.
//!
//! YAML's own typing turns `0123` into a number and `no` into false. Here each scalar stays text,
//! and only the key that it belongs to decides what it must be. Keys that are given twice are
//! reported, where most parsers take the last one silently.
//!
//! A list becomes a map from `[0]`, `[1]`… to its elements, so that a variable can be laid over
//! one of them. An empty list that is all there is becomes null, because it would look like an
//! empty map.

use std::collections::HashMap;

use figment::value::{Dict, Empty, Tag, Value};
use saphyr_parser::{Event, Marker, Parser, ScalarStyle, ScanError, StrInput};

use super::problem::KeyPath;

/// How deep collections may nest; the configuration needs five levels.
pub(super) const MAX_DEPTH: usize = 32;

/// How many values aliases may add; a few aliases of aliases could else fill any memory.
const MAX_ALIASED: usize = 100_000;

/// Something wrong with the text, before it is known what any key means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Fault {
    pub(super) path: KeyPath,
    pub(super) what: String,
}

/// Reads one YAML document. An empty one is null. The value comes with the faults that do not
/// hinder reading on; a syntax error is the only one of its list.
pub(super) fn parse(text: &str) -> (Value, Vec<Fault>) {
    let mut reader = Reader {
        parser: Parser::new_from_str(text.strip_prefix('\u{feff}').unwrap_or(text)),
        faults: Vec::new(),
        anchors: HashMap::new(),
        aliased: 0,
    };
    match reader.document() {
        Ok(value) => (value, reader.faults),
        Err(fault) => (null(), vec![fault]),
    }
}

struct Reader<'t> {
    parser: Parser<'t, StrInput<'t>>,
    faults: Vec<Fault>,
    anchors: HashMap<usize, Value>,
    aliased: usize,
}

/// Why reading cannot go on.
type Stop<T> = Result<T, Fault>;

// === impl Reader ===

impl<'t> Reader<'t> {
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
                    let root = self.value(event, &mark, &KeyPath::default(), 0)?;
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

    fn value(&mut self, event: Event<'t>, mark: &Marker, path: &KeyPath, depth: usize) -> Stop<Value> {
        if depth > MAX_DEPTH {
            return Err(fault_at(mark, "collections nest too deep"));
        }
        let (value, anchor) = match event {
            Event::Scalar(text, style, anchor, _) => (scalar(&text, style), anchor),
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

    fn sequence(&mut self, path: &KeyPath, depth: usize) -> Stop<Value> {
        let mut items = Dict::new();
        loop {
            let (event, mark) = self.next()?;
            if matches!(event, Event::SequenceEnd) {
                return Ok(Value::Dict(Tag::Default, items));
            }
            let index = index_key(items.len());
            let value = self.value(event, &mark, &path.key(&index), depth + 1)?;
            items.insert(index, value);
        }
    }

    fn mapping(&mut self, path: &KeyPath, depth: usize) -> Stop<Value> {
        let mut dict = Dict::new();
        loop {
            let (event, mark) = self.next()?;
            let key = match event {
                Event::MappingEnd => return Ok(Value::Dict(Tag::Default, dict)),
                Event::Scalar(text, ..) => text.into_owned(),
                _ => return Err(fault_at(&mark, "a key must be plain text")),
            };
            let path = path.key(&key);
            let (event, mark) = self.next()?;
            let value = self.value(event, &mark, &path, depth + 1)?;
            if dict.insert(key, value).is_some() {
                let what = format!("is given a second time (line {}): keep one of them", mark.line());
                self.faults.push(Fault { path, what });
            }
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

fn scalar(text: &str, style: ScalarStyle) -> Value {
    let plain = matches!(style, ScalarStyle::Plain);
    if plain && matches!(text, "" | "~" | "null" | "Null" | "NULL") {
        null()
    } else {
        Value::String(Tag::Default, text.to_owned())
    }
}

/// What stands for no value.
pub(super) fn null() -> Value {
    Value::Empty(Tag::Default, Empty::None)
}

/// The list, or null if it is empty.
pub(super) fn not_empty(list: Value) -> Value {
    if list.as_dict().is_some_and(Dict::is_empty) { null() } else { list }
}

fn size(value: &Value) -> usize {
    value.as_dict().map_or(1, |dict| 1 + dict.values().map(size).sum::<usize>())
}

/// The key of a list's element.
pub(super) fn index_key(index: usize) -> String {
    format!("[{index}]")
}

/// The index of a list's element, from its key.
pub(super) fn index_of(key: &str) -> Option<usize> {
    key.strip_prefix('[')?.strip_suffix(']')?.parse().ok()
}

/// The parser's messages describe the syntax and do not quote the text.
fn syntax(error: &ScanError) -> Fault {
    fault_at(error.marker(), &format!("is not YAML: {}", error.info()))
}

fn fault_at(mark: &Marker, what: &str) -> Fault {
    Fault { path: KeyPath::default(), what: format!("line {}, column {}: {what}", mark.line(), mark.col() + 1) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn good(text: &str) -> Value {
        let (value, faults) = parse(text);
        assert_eq!(faults, [], "{text}");
        value
    }

    fn faults(text: &str) -> String {
        let (_, faults) = parse(text);
        faults.iter().map(|f| [f.path.as_str(), "|", &f.what, "\n"].concat()).collect()
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
        assert!(faults.contains("b[0].c|is given a second time (line 3)"), "{faults}");
        assert!(faults.contains("a|is given a second time (line 4)"), "{faults}");
    }

    #[test]
    fn a_syntax_error_has_its_place() {
        assert!(faults("a: 1\nb: [1,\n").contains("is not YAML"));
        assert!(faults("a:\n\t- b").contains("line 2"), "{}", faults("a:\n\t- b"));
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
        assert!(faults(&"[".repeat(100_000)).contains("line 1"));
        assert!(faults(&"- ".repeat(10_000)).contains("too deep"));
        assert!(faults(&"{a: ".repeat(10_000)).contains("line 1"));
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in "([a-c&*!|>%@`{}\\[\\],:?#'\"~ \n\t-]|\\PC){0,80}") {
            let _ = parse(&text);
        }
    }
}
