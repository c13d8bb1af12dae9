//! JSON into the values that [`super::yaml`] makes: every scalar as the text that was written, and
//! a list as a map from `[0]`, `[1]`… to its elements.
//!
//! `serde_json` would make numbers of numbers and lose how they were written, and take the last of
//! two members of the same name silently. So it only cuts the text into parts here, one level at a
//! time.

use std::fmt;

use figment::value::{Dict, Tag, Value};
use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::problem::{KeyPath, Position};
use super::yaml::{MAX_DEPTH, Parsed, Stream, SyntaxFault, index_key, not_empty, null};

/// Reads one JSON text, with the elements of a list handed over as they are read.
///
/// A member that is null is left out: programs that write JSON write null for what is absent.
///
/// # Errors
/// What is wrong with its syntax.
pub(crate) fn read(text: &str, stream: Option<Stream<'_>>) -> Result<Parsed, SyntaxFault> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut reader = JsonReader { text, stream, repeated: Vec::new() };
    let value = reader.document()?;
    Ok((value, reader.faults()))
}

struct JsonReader<'t, 's> {
    text: &'t str,
    stream: Option<Stream<'s>>,
    /// Members that were given before, with the offsets of their values.
    repeated: Vec<(usize, String)>,
}

/// The members of an object as they were written, in order.
struct Members;

// === impl JsonReader ===

impl<'t> JsonReader<'t, '_> {
    fn document(&mut self) -> Result<Value, SyntaxFault> {
        let whole: &RawValue = serde_json::from_str(self.text).map_err(|e| self.syntax(self.text, &e))?;
        let value = self.value(whole.get(), &KeyPath::Root, 0)?;
        Ok(if whole.get().starts_with('[') { not_empty(value) } else { value })
    }

    /// The value that `part` of the text is.
    fn value(&mut self, part: &'t str, path: &KeyPath<'_>, depth: usize) -> Result<Value, SyntaxFault> {
        if depth > MAX_DEPTH {
            let (line, column) = self.place(self.offset(part));
            return Err(fault_at(line, column, "collections nest too deep"));
        }
        match part.as_bytes().first() {
            Some(b'{') => self.object(part, path, depth),
            Some(b'[') => self.list(part, path, depth),
            Some(b'"') => {
                let text: String = serde_json::from_str(part).map_err(|e| self.syntax(part, &e))?;
                Ok(Value::String(Tag::Default, text))
            }
            Some(b'n') => Ok(null()),
            _ => Ok(Value::String(Tag::Default, part.to_owned())),
        }
    }

    fn object(&mut self, part: &'t str, path: &KeyPath<'_>, depth: usize) -> Result<Value, SyntaxFault> {
        let members = serde_json::Deserializer::from_str(part).deserialize_map(Members);
        let mut dict = Dict::new();
        for (key, part) in members.map_err(|e| self.syntax(part, &e))? {
            let at = KeyPath::Key(path, &key);
            let value = self.value(part.get(), &at, depth + 1)?;
            if dict.contains_key(&key) {
                self.repeated.push((self.offset(part.get()), at.to_string()));
            }
            dict.insert(key, value);
        }
        dict.retain(|_, value| !matches!(value, Value::Empty(..)));
        Ok(Value::Dict(Tag::Default, dict))
    }

    fn list(&mut self, part: &'t str, path: &KeyPath<'_>, depth: usize) -> Result<Value, SyntaxFault> {
        let parts: Vec<&RawValue> = serde_json::from_str(part).map_err(|e| self.syntax(part, &e))?;
        let mut items = Dict::new();
        for (index, part) in parts.into_iter().enumerate() {
            let value = self.value(part.get(), &KeyPath::Index(path, index), depth + 1)?;
            match self.stream.as_mut().filter(|stream| stream.is_at(path)) {
                Some(stream) => stream.sink.take(value),
                None => drop(items.insert(index_key(index), value)),
            }
        }
        Ok(Value::Dict(Tag::Default, items))
    }

    fn faults(self) -> Vec<SyntaxFault> {
        let Self { text, repeated, .. } = self;
        if repeated.is_empty() {
            return Vec::new();
        }
        // Listed once: a text may have very many lines and very many faults.
        let breaks: Vec<usize> = text.bytes().enumerate().filter(|(_, b)| *b == b'\n').map(|(at, _)| at).collect();
        let fault = |(offset, path): (usize, String)| {
            let before = breaks.partition_point(|at| *at < offset);
            let start = before.checked_sub(1).map_or(0, |last| breaks[last] + 1);
            SyntaxFault::given_twice(path, Position { line: before + 1, column: offset - start + 1 })
        };
        repeated.into_iter().map(fault).collect()
    }

    /// The fault that `serde_json` found in `part`. Its messages describe the syntax and do not quote
    /// the text.
    fn syntax(&self, part: &'t str, error: &serde_json::Error) -> SyntaxFault {
        let (first_line, first_column) = self.place(self.offset(part));
        // It counts from the start of what it was given.
        let line = first_line + error.line().saturating_sub(1);
        let column = error.column().max(1);
        let column = if line == first_line { first_column + column - 1 } else { column };
        let what = error.to_string();
        let its_place = format!(" at line {} column {}", error.line(), error.column());
        fault_at(line, column, &format!("is not JSON: {}", what.strip_suffix(&its_place).unwrap_or(&what)))
    }

    /// Where in the text a part of it starts.
    fn offset(&self, part: &'t str) -> usize {
        part.as_ptr().addr().saturating_sub(self.text.as_ptr().addr())
    }

    /// The line and the column, in bytes, of what is at an offset.
    fn place(&self, offset: usize) -> (usize, usize) {
        let before = self.text.as_bytes().get(..offset).unwrap_or_default();
        let mut lines = before.split(|b| *b == b'\n');
        let last = lines.next_back().map_or(0, <[u8]>::len);
        (lines.count() + 1, last + 1)
    }
}

// === impl Members ===

impl<'de> Visitor<'de> for Members {
    type Value = Vec<(String, &'de RawValue)>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut members = Vec::new();
        while let Some(member) = map.next_entry()? {
            members.push(member);
        }
        Ok(members)
    }
}

fn fault_at(line: usize, column: usize, what: &str) -> SyntaxFault {
    SyntaxFault { path: String::new(), position: Position { line, column }, what: what.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn good(text: &str) -> Value {
        let (value, faults) = read(text, None).unwrap();
        assert_eq!(faults, [], "{text}");
        value
    }

    fn faults(text: &str) -> String {
        let faults = read(text, None).map_or_else(|fault| vec![fault], |(_, faults)| faults);
        faults.into_iter().map(|fault| fault.of_file("f").to_string() + "\n").collect()
    }

    #[test]
    fn scalars_stay_as_they_were_written() {
        for text in ["0", "-0", "1.50", "1E+2", "18446744073709551616", "0.1e-999", "true", "false"] {
            let value = good(&format!("{{\"a\": {text} }}"));
            assert_eq!(value.find("a").unwrap().as_str(), Some(text));
        }
        for (text, is) in [(r#""""#, ""), (r#""null""#, "null"), (r#""\u00e9\n\"""#, "é\n\""), (r#""é""#, "é")] {
            assert_eq!(good(&format!("{{\"a\":{text}}}")).find("a").unwrap().as_str(), Some(is));
        }
    }

    #[test]
    fn characters_beyond_the_basic_plane_may_be_written_as_pairs() {
        assert_eq!(good(r#""\ud83d\ude80 \uD83D\uDE80 🚀""#).as_str(), Some("🚀 🚀 🚀"));
        assert_eq!(good(r#"{"\ud83d\ude80": 1}"#).find("🚀").unwrap().as_str(), Some("1"));
        for half in [r#""\ud83d""#, r#""\ude80""#, r#""\ud83d\u0041""#] {
            assert!(faults(half).contains("is not JSON"), "{half}: {}", faults(half));
        }
    }

    #[test]
    fn lists_are_maps_by_index_and_null_members_are_left_out() {
        let value = good(r#"{"a": [1, null, {"b": null, "c": [2]}], "d": null}"#);
        assert_eq!(value.find_ref("a").unwrap().as_dict().unwrap().len(), 3);
        assert_eq!(value.find_ref("a.[0]").unwrap().as_str(), Some("1"));
        assert!(value.find_ref("a.[1]").unwrap().to_empty().is_some());
        assert_eq!(value.find_ref("a.[2].c.[0]").unwrap().as_str(), Some("2"));
        assert!(value.find_ref("a.[2].b").is_none() && value.find_ref("d").is_none());
        for empty in ["null", " [] ", "[\n]"] {
            assert!(good(empty).to_empty().is_some(), "{empty}");
        }
        assert!(good("{}").as_dict().is_some());
    }

    #[test]
    fn every_member_given_twice_is_reported_with_its_path() {
        let faults = faults("{\"a\": 1,\n\"b\": [{\"c\": 1, \"c\": 2}],\n\"\\u0061\": null}");
        assert!(faults.contains("f:2:21: b[0].c: is given a second time"), "{faults}");
        assert!(faults.contains("f:3:11: a: is given a second time"), "{faults}");
    }

    #[test]
    fn a_syntax_error_has_its_place_and_does_not_quote() {
        let place = |text: &str| faults(text).split(": ").next().unwrap_or_default().to_owned();
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
            let faults = faults(bad);
            assert!(faults.contains("is not JSON: ") && !faults.contains("sesame"), "{bad}: {faults}");
        }
        assert_eq!(good("\u{feff}1").as_str(), Some("1"));
    }

    #[test]
    fn nesting_without_end_is_refused() {
        let nested = |depth: usize| ["[".repeat(depth), "]".repeat(depth)].concat();
        assert!(good(&nested(MAX_DEPTH)).as_dict().is_some());
        for depth in [MAX_DEPTH + 2, 100_000] {
            assert!(faults(&nested(depth)).contains("f:1:34: collections nest too deep"));
        }
        assert!(faults(&"[".repeat(1_000_000)).contains("is not JSON"));
        assert!(faults(&["{\"a\":".repeat(10_000), "1".into(), "}".repeat(10_000)].concat()).contains("too deep"));
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in "([a-c{}\\[\\],:\"\\\\u0-9dDeE.+ \n-]|true|null|\\PC){0,80}") {
            let _ = read(&text, None);
        }

        #[test]
        fn it_takes_what_serde_json_takes_and_nothing_else(text in "([{}\\[\\],:\"ab0-9e. \n-]|null|true|\"a\":){0,12}") {
            let syntax = read(&text, None).is_err_and(|fault| fault.what.contains("is not JSON"));
            prop_assert_eq!(!syntax, serde_json::from_str::<serde::de::IgnoredAny>(&text).is_ok());
        }
    }
}
