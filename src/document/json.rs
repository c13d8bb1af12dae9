//! JSON into a tree of values.
//!
//! `serde_json::Value` would lose how numbers were written, and keep the last of two members of the same name without
//! a word. So `serde_json` only checks the text and cuts it into parts here, one level at a time.

use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;

use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::problem::{DocumentSource, KeyPath, Position, Problem};
use super::value::{Map, Value, ValueKind, ValueOrigin};
use super::yaml::{MAX_DEPTH, Parsed};

/// Reads one JSON text.
///
/// A member that is null is left out, because programs that write JSON write null for what is absent.
///
/// # Errors
/// The first syntax error.
pub(crate) fn parse(text: &str, source: DocumentSource<'_>) -> Result<Parsed, Problem> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let lines = LineCounter { text, offset: 0, position: LineCounter::START };
    let mut reader = JsonReader { lines, source, keys: HashSet::new(), problems: Vec::new() };
    let document: &RawValue = serde_json::from_str(text).map_err(|error| reader.syntax(text, &error))?;
    let value = reader.value(document.get(), ValueOrigin::Document, &KeyPath::Root, 0)?;
    Ok((value, reader.problems))
}

struct JsonReader<'t> {
    lines: LineCounter<'t>,
    source: DocumentSource<'t>,
    /// The keys that were read, which all maps share.
    keys: HashSet<Arc<str>>,
    problems: Vec<Problem>,
}

/// Finds the positions of parts of a text. It counts on from the part before, so that the positions of all parts in
/// their order take one pass over the text.
struct LineCounter<'t> {
    text: &'t str,
    /// How many bytes were counted.
    offset: usize,
    /// The position there.
    position: Position,
}

/// Reads the members of an object as they were written, in order.
struct MembersVisitor;

// === impl JsonReader ===

impl<'t> JsonReader<'t> {
    fn value(
        &mut self,
        part: &'t str,
        origin: ValueOrigin,
        path: &KeyPath<'_>,
        depth: usize,
    ) -> Result<Value, Problem> {
        if depth > MAX_DEPTH {
            let position = self.lines.position_of(part);
            return Err(self.source.syntax_problem(position, "", "collections nest too deep"));
        }
        let kind = match part.as_bytes().first() {
            Some(b'{') => self.object(part, path, depth)?,
            Some(b'[') => self.list(part, path, depth)?,
            Some(b'"') => ValueKind::Text(self.string(part)?.into()),
            Some(b'n') => ValueKind::Null,
            _ => ValueKind::Text(part.into()),
        };
        Ok(Value { origin, kind })
    }

    fn object(&mut self, part: &'t str, path: &KeyPath<'_>, depth: usize) -> Result<ValueKind, Problem> {
        let parts = serde_json::Deserializer::from_str(part).deserialize_map(MembersVisitor);
        let mut members = Vec::new();
        for (key_part, part) in parts.map_err(|error| self.syntax(part, &error))? {
            let (key, origin) =
                (self.shared_key(key_part.get())?, ValueOrigin::At(self.lines.position_of(key_part.get())));
            let mut value = self.value(part.get(), origin, &KeyPath::Key(path, &key), depth + 1)?;
            if matches!(value.kind, ValueKind::Null) {
                value.kind = ValueKind::Unset;
            }
            members.push((key, value));
        }
        let (source, problems) = (self.source, &mut self.problems);
        Ok(ValueKind::Map(Map::new(members, &mut |key, position| {
            problems.push(source.repeated_key(position, &KeyPath::Key(path, key)));
        })))
    }

    fn list(&mut self, part: &'t str, path: &KeyPath<'_>, depth: usize) -> Result<ValueKind, Problem> {
        let parts: Vec<&RawValue> = serde_json::from_str(part).map_err(|error| self.syntax(part, &error))?;
        let elements = parts.into_iter().enumerate().map(|(index, part)| {
            let origin = ValueOrigin::At(self.lines.position_of(part.get()));
            self.value(part.get(), origin, &KeyPath::Index(path, index), depth + 1)
        });
        elements.collect::<Result<_, _>>().map(ValueKind::List)
    }

    fn shared_key(&mut self, part: &'t str) -> Result<Arc<str>, Problem> {
        let key = self.string(part)?;
        if let Some(key) = self.keys.get(&*key) {
            return Ok(Arc::clone(key));
        }
        let key = Arc::from(key);
        self.keys.insert(Arc::clone(&key));
        Ok(key)
    }

    fn string(&mut self, part: &'t str) -> Result<String, Problem> {
        serde_json::from_str(part).map_err(|error| self.syntax(part, &error))
    }

    /// The error that `serde_json` found in `part`. Its messages describe the syntax and do not quote the text.
    fn syntax(&mut self, part: &'t str, error: &serde_json::Error) -> Problem {
        // It counts lines and bytes from the start of what it was given.
        let lines = part.split_inclusive('\n').take(error.line().saturating_sub(1));
        let offset = lines.map(str::len).sum::<usize>() + error.column().saturating_sub(1);
        let position = self.lines.position_of(&part[part.floor_char_boundary(offset)..]);
        let what = error.to_string();
        let its_place = format!(" at line {} column {}", error.line(), error.column());
        let what = format!("is not JSON: {}", what.strip_suffix(&its_place).unwrap_or(&what));
        self.source.syntax_problem(position, "", &what)
    }
}

// === impl LineCounter ===

impl<'t> LineCounter<'t> {
    const START: Position = Position { line: 1, column: 1 };

    /// The position at which a part of the text begins.
    fn position_of(&mut self, part: &'t str) -> Position {
        let offset = part.as_ptr().addr().saturating_sub(self.text.as_ptr().addr());
        if offset < self.offset {
            (self.offset, self.position) = (0, Self::START);
        }
        for c in self.text.get(self.offset..offset).unwrap_or_default().chars() {
            self.position = match c {
                '\n' => Position { line: self.position.line + 1, column: 1 },
                _ => Position { column: self.position.column + 1, ..self.position },
            };
        }
        self.offset = offset;
        self.position
    }
}

// === impl MembersVisitor ===

impl<'de> Visitor<'de> for MembersVisitor {
    type Value = Vec<(&'de RawValue, &'de RawValue)>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        std::iter::from_fn(|| map.next_entry().transpose()).collect()
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
        for text in ["0", "-0", "1.50", "1E+2", "18446744073709551616", "0.1e-999", "true", "false"] {
            let value = good(&format!("{{\"a\": {text} }}"));
            assert_eq!(value.get("a").unwrap().as_text(), Some(text));
        }
        for (text, is) in [(r#""""#, ""), (r#""null""#, "null"), (r#""\u00e9\n\"""#, "é\n\""), (r#""é""#, "é")] {
            assert_eq!(good(&format!("{{\"a\":{text}}}")).get("a").unwrap().as_text(), Some(is));
        }
    }

    #[test]
    fn characters_beyond_the_basic_plane_may_be_written_as_pairs() {
        assert_eq!(good(r#""\ud83d\ude80 \uD83D\uDE80 🚀""#).as_text(), Some("🚀 🚀 🚀"));
        assert_eq!(good(r#"{"\ud83d\ude80": 1}"#).get("🚀").unwrap().as_text(), Some("1"));
        for half in [r#""\ud83d""#, r#""\ude80""#, r#""\ud83d\u0041""#] {
            assert!(problems(half).contains("is not JSON"), "{half}: {}", problems(half));
        }
    }

    #[test]
    fn null_members_are_unset_and_null_elements_are_null() {
        let value = good(r#"{"a": [1, null, {"b": null, "c": [2]}], "d": null}"#);
        let [one, null, map] = value.get("a").unwrap().as_list().unwrap() else { panic!("{value:?}") };
        assert_eq!(one.as_text(), Some("1"));
        assert!(matches!(null.kind, ValueKind::Null));
        assert_eq!(map.get("c").unwrap().as_list().unwrap()[0].as_text(), Some("2"));
        assert!(map.get("b").unwrap().is_unset() && value.get("d").unwrap().is_unset());
    }

    #[test]
    fn every_member_given_twice_is_reported_with_its_path() {
        let problems = problems("{\"a\": 1,\n\"b\": [{\"c\": 1, \"c\": 2}],\n\"\\u0061\": null}");
        assert!(problems.contains("f:2:16: b[0].c: is given a second time"), "{problems}");
        assert!(problems.contains("f:3:1: a: is given a second time"), "{problems}");
    }

    #[test]
    fn a_syntax_error_has_its_place_and_does_not_quote() {
        let place = |text: &str| problems(text).split(": ").next().unwrap_or_default().to_owned();
        assert_eq!(place("{\"a\": 1,\n  \"b\": sesame}"), "f:2:8");
        assert_eq!(place("{\"a\":\n [{\"b\": \"x\\ud83d\"}]}"), "f:2:17");
        assert_eq!(place("[1] 2"), "f:1:5");
        for bad in [
            "",
            " ",
            "sesame",
            "{'sesame': 1}",
            "{\"a\": sesame}",
            "[1,]",
            "{\"a\" 1}",
            "01",
            "+1",
            "1.",
            "NaN",
            "\"sesame",
            "\"\t\"",
            "// sesame\n1",
            "{1: 2}",
            "[1]\u{0}",
            "\u{feff}\u{feff}1",
            "\"\\x\"",
        ] {
            let problems = problems(bad);
            assert!(problems.contains("is not JSON: ") && !problems.contains("sesame"), "{bad}: {problems}");
        }
        assert_eq!(good("\u{feff}1").as_text(), Some("1"));
    }

    #[test]
    fn nesting_without_end_is_refused() {
        let nested = |depth: usize| ["[".repeat(depth), "]".repeat(depth)].concat();
        assert!(good(&nested(MAX_DEPTH)).as_list().is_some());
        for depth in [MAX_DEPTH + 2, 100_000] {
            assert!(problems(&nested(depth)).contains("f:1:34: collections nest too deep"));
        }
        assert!(problems(&"[".repeat(1_000_000)).contains("is not JSON"));
        assert!(problems(&["{\"a\":".repeat(10_000), "1".into(), "}".repeat(10_000)].concat()).contains("too deep"));
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in "([a-c{}\\[\\],:\"\\\\u0-9dDeE.+ \n-]|true|null|\\PC){0,80}") {
            let _ = parse(&text, DocumentSource::Text("f"));
        }

        #[test]
        fn it_takes_what_serde_json_takes_and_nothing_else(text in "([{}\\[\\],:\"ab0-9e. \n-]|null|true|\"a\":){0,12}") {
            let syntax = parse(&text, DocumentSource::File(Path::new("f"))).is_err_and(|problem| problem.what.contains("is not JSON"));
            prop_assert_eq!(!syntax, serde_json::from_str::<serde::de::IgnoredAny>(&text).is_ok());
        }
    }
}
