//! What is on the wire: the JSON of the progress endpoint and of its errors.

use serde::Deserialize;
use serde::de::{IgnoredAny, SeqAccess, Visitor};
use serde_json::Value;

use crate::toggle::{Answer, Failure, Reason, Reported, Text};

/// The progress endpoint's answer. Fields may be absent or null except for the status; fields
/// that are not named here are ignored.
#[derive(Deserialize)]
struct Body {
    status: String,
    mock_enabled: Option<bool>,
    mcp_endpoints: Option<Vec<Endpoint>>,
    message: Option<String>,
    error: Option<String>,
}

/// A registered mock endpoint. Its URL leads to an unauthenticated server and is not even read.
#[derive(Deserialize)]
struct Endpoint {
    tool_names: Option<Count>,
}

/// How long a list is, whatever is in it.
struct Count(u32);

/// Reads the body of an answer with status 200.
///
/// # Errors
/// [`Reason::Decode`] if it is not the documented JSON.
pub(super) fn decode(body: &[u8], key: Option<&str>) -> Result<Answer, Failure> {
    let body: Body = serde_json::from_slice(body)
        .map_err(|error| Failure::new(Reason::Decode).with_detail(Text::clean(&describe(&error), key)))?;
    let text = |raw: Option<String>| raw.map(|raw| Text::clean(&raw, key));
    let endpoints = body.mcp_endpoints.as_deref();
    Ok(Answer {
        status: match body.status.as_str() {
            "in_progress" => Reported::InProgress,
            "completed" => Reported::Completed,
            "failed" => Reported::Failed,
            other => Reported::Unrecognised(Text::clean(other, key)),
        },
        mock_enabled: body.mock_enabled,
        mcp_endpoints: endpoints.map(|list| saturating(list.len())),
        mcp_tools: endpoints.map(|list| list.iter().filter_map(|e| e.tool_names.as_ref()).map(|count| count.0).sum()),
        message: text(body.message),
        error: text(body.error),
    })
}

/// What an error answer says, if it says it in JSON: `{"detail": …}`, or `{"field": [text]}`.
pub(super) fn error_detail(body: &[u8], key: Option<&str>) -> Option<Text> {
    let Value::Object(fields) = serde_json::from_slice(body).ok()? else { return None };
    let said = match fields.get("detail") {
        Some(Value::String(detail)) => detail.clone(),
        _ => fields
            .iter()
            .filter_map(|(field, value)| Some(format!("{field}: {}", first_text(value)?)))
            .collect::<Vec<_>>()
            .join("; "),
    };
    (!said.is_empty()).then(|| Text::clean(&said, key))
}

fn first_text(value: &Value) -> Option<&str> {
    match value {
        Value::String(text) => Some(text),
        Value::Array(items) => items.first()?.as_str(),
        _ => None,
    }
}

/// Where and how the JSON is wrong. The library's own message may quote the body, so only its
/// kind and place are taken.
fn describe(error: &serde_json::Error) -> String {
    let what = match error.classify() {
        serde_json::error::Category::Eof => "the body ends too early",
        serde_json::error::Category::Syntax => "the body is not JSON",
        serde_json::error::Category::Data | serde_json::error::Category::Io => "a field is missing or of another type",
    };
    format!("{what} (line {}, column {})", error.line(), error.column())
}

fn saturating(len: usize) -> u32 {
    u32::try_from(len).unwrap_or(u32::MAX)
}

// === impl Count ===

impl<'de> Deserialize<'de> for Count {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Elements;

        impl<'de> Visitor<'de> for Elements {
            type Value = Count;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a list")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Count, A::Error> {
                let mut len = 0usize;
                while list.next_element::<IgnoredAny>()?.is_some() {
                    len += 1;
                }
                Ok(Count(saturating(len)))
            }
        }

        deserializer.deserialize_seq(Elements)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn decoded(json: &str) -> Answer {
        decode(json.as_bytes(), None).unwrap()
    }

    #[test]
    fn a_documented_answer_is_read_in_full() {
        let answer = decoded(
            r#"{"status":"completed","mock_enabled":true,"message":"done at https://m.example/1","error":null,
                "mcp_endpoints":[{"mock_index":0,"url":"https://m.example/0","tool_names":["a","b"]},
                                 {"mock_index":1,"url":"https://m.example/1","tool_names":["c"]}]}"#,
        );
        assert_eq!(answer.status, Reported::Completed);
        assert_eq!((answer.mock_enabled, answer.mcp_endpoints, answer.mcp_tools), (Some(true), Some(2), Some(3)));
        assert_eq!(answer.message.unwrap().as_str(), "done at <url>");
        assert_eq!(answer.error, None);
    }

    #[test]
    fn absent_null_and_extra_fields_are_tolerated() {
        let answer = decoded(r#"{"status":"in_progress","extra":{"a":[1]}}"#);
        assert_eq!((answer.mock_enabled, answer.mcp_endpoints, answer.mcp_tools), (None, None, None));
        let answer =
            decoded(r#"{"status":"failed","mock_enabled":null,"mcp_endpoints":null,"message":null,"error":"x"}"#);
        assert_eq!((answer.mcp_endpoints, answer.error.unwrap().as_str()), (None, "x"));
        let answer = decoded(r#"{"status":"completed","mcp_endpoints":[{},{"tool_names":null}]}"#);
        assert_eq!((answer.mcp_endpoints, answer.mcp_tools), (Some(2), Some(0)));
    }

    #[test]
    fn another_status_is_kept_as_unrecognised() {
        for status in ["queued", "COMPLETED", ""] {
            let answer = decoded(&format!(r#"{{"status":"{status}"}}"#));
            assert_eq!(answer.status, Reported::Unrecognised(Text::clean(status, None)));
        }
    }

    #[test]
    fn what_is_not_the_documented_json_is_a_decode_failure_that_quotes_nothing() {
        let deep = format!(r#"{{"status":"failed","error":{}"#, "[".repeat(100_000));
        let bad = [
            "",
            "<html>sk-1</html>",
            "null",
            "[]",
            "{}",
            r#"{"status":null}"#,
            r#"{"status":1}"#,
            deep.as_str(),
            r#"{"status":"completed","mock_enabled":"sk-1"}"#,
            r#"{"status":"completed","mcp_endpoints":{}}"#,
            r#"{"status":"completed","mcp_endpoints":["sk-1"]}"#,
            r#"{"status":"completed"} sk-1"#,
            r#"{"status":"completed","message":{"a":1}}"#,
            r#"{"status":"compl"#,
        ];
        for body in bad {
            let failure = decode(body.as_bytes(), None).unwrap_err();
            assert_eq!(failure.reason, Reason::Decode, "{body:.60}");
            assert!(!failure.detail.unwrap().as_str().contains("sk-1"), "{body:.60}");
        }
        assert!(decode(b"{\"status\":\"\xff\"}", None).is_err());
    }

    #[test]
    fn error_answers_say_their_detail_or_their_field_errors() {
        let detail = |body: &str| error_detail(body.as_bytes(), Some("sk-test-1")).map(|text| text.as_str().to_owned());
        assert_eq!(detail(r#"{"detail":"no such id sk-test-1"}"#).unwrap(), "no such id <secret>");
        assert_eq!(detail(r#"{"progress_id":["is wrong","x"]}"#).unwrap(), "progress_id: is wrong");
        assert_eq!(detail("<html>"), None);
        assert_eq!(detail("{}"), None);
        assert_eq!(detail("[1]"), None);
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(body in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = decode(&body, None);
            let _ = error_detail(&body, None);
        }
    }
}
