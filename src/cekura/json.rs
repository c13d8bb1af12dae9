//! Reading the JSON of the API: documents of which some parts are required and others optional.

use std::fmt;
use std::marker::PhantomData;

use serde::de::value::MapAccessDeserializer;
use serde::de::{Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use crate::toggle::{Failure, Reason, Text};

/// Reads the optional parts of an answer, and collects the names of malformed ones.
#[derive(Default)]
pub(super) struct OptionalParts {
    pub(super) malformed: Vec<&'static str>,
}

/// A JSON object. The derived `Deserialize` of a struct would also accept a list of its fields.
pub(super) struct Object<T>(pub(super) T);

/// Text with invalid Unicode replaced, because half a surrogate pair in a message must not hide the message.
pub(super) struct LossyText(pub(super) String);

/// The length of a list with elements of any type.
pub(super) struct ListLength(pub(super) u32);

/// The body of an answer as an object.
///
/// # Errors
/// [`Reason::Decode`] if it is not, or if a required part is missing or of another type.
pub(super) fn object<'b, T: Deserialize<'b>>(body: &'b [u8]) -> Result<T, Failure> {
    let body = str::from_utf8(body).map_err(|_| not_documented("the body is not UTF-8"))?;
    let body = body.strip_prefix('\u{feff}').unwrap_or(body);
    let Object(read) = serde_json::from_str(body).map_err(|error| not_documented(&describe(&error)))?;
    Ok(read)
}

/// The failure for an answer that is not the documented JSON.
pub(super) fn not_documented(what: &str) -> Failure {
    Failure::new(Reason::Decode).with_detail(Text::own(what))
}

/// What is wrong with the JSON, and where. The message of the library may quote the body, so it is not used.
fn describe(error: &serde_json::Error) -> String {
    let what = match error.classify() {
        serde_json::error::Category::Eof => "the body ends too early",
        serde_json::error::Category::Syntax => "the body is not JSON",
        serde_json::error::Category::Data | serde_json::error::Category::Io => "a field is missing or of another type",
    };
    format!("{what} (line {}, column {})", error.line(), error.column())
}

// === impl OptionalParts ===

impl OptionalParts {
    /// A part, if it is present and well-formed.
    pub(super) fn read<'b, T: Deserialize<'b>>(&mut self, name: &'static str, raw: Option<&'b RawValue>) -> Option<T> {
        let read = serde_json::from_str(raw?.get()).ok();
        if read.is_none() {
            self.note_malformed(name);
        }
        read
    }

    /// Records that a part is malformed.
    pub(super) fn note_malformed(&mut self, name: &'static str) {
        if !self.malformed.contains(&name) {
            self.malformed.push(name);
        }
    }
}

pub(super) fn saturating(len: usize) -> u32 {
    u32::try_from(len).unwrap_or(u32::MAX)
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Fields<T>(PhantomData<T>);

        impl<'de, T: Deserialize<'de>> Visitor<'de> for Fields<T> {
            type Value = Object<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Object<T>, A::Error> {
                T::deserialize(MapAccessDeserializer::new(map)).map(Object)
            }
        }

        deserializer.deserialize_map(Fields(PhantomData))
    }
}

impl<'de> Deserialize<'de> for LossyText {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Bytes;

        impl Visitor<'_> for Bytes {
            type Value = LossyText;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("text")
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<LossyText, E> {
                Ok(LossyText(text.to_owned()))
            }

            fn visit_bytes<E: Error>(self, bytes: &[u8]) -> Result<LossyText, E> {
                Ok(LossyText(String::from_utf8_lossy(bytes).into_owned()))
            }
        }

        // The parser accepts half a surrogate pair only as bytes.
        deserializer.deserialize_bytes(Bytes)
    }
}

impl<'de> Deserialize<'de> for ListLength {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Elements;

        impl<'de> Visitor<'de> for Elements {
            type Value = ListLength;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<ListLength, A::Error> {
                let mut len = 0usize;
                while list.next_element::<IgnoredAny>()?.is_some() {
                    len += 1;
                }
                Ok(ListLength(saturating(len)))
            }
        }

        deserializer.deserialize_seq(Elements)
    }
}
