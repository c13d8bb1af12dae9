//! The JSON of the progress endpoint and of its errors.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;

use super::json::{ListLength, LossyText, Object, OptionalParts, object, saturating};
use crate::toggle::{Answer, Failure, Redactions, ReportedStatus, Text};

/// The body of an answer. Only the status is required. Other fields are ignored. The optional parts stay raw
/// here, because a malformed one must not hide the status and `mock_enabled`.
#[derive(Deserialize)]
struct ProgressBody<'b> {
    #[serde(borrow)]
    status: Cow<'b, str>,
    mock_enabled: Option<bool>,
    #[serde(borrow)]
    mcp_endpoints: Option<&'b RawValue>,
    #[serde(borrow)]
    message: Option<&'b RawValue>,
    #[serde(borrow)]
    error: Option<&'b RawValue>,
}

/// A registered mock endpoint.
#[derive(Deserialize)]
struct McpEndpoint<'b> {
    /// The URL of an unauthenticated server. It is read only to remove it from texts, so any other value than
    /// a text is ignored.
    #[serde(borrow)]
    url: Option<&'b RawValue>,
    #[serde(borrow)]
    tool_names: Option<&'b RawValue>,
}

/// Decodes the body of an answer with status 200, and removes what is `hidden` from its texts.
///
/// # Errors
/// [`Reason::Decode`](crate::toggle::Reason::Decode) if it is not the documented JSON.
pub fn decode(body: &[u8], hidden: Redactions) -> Result<Answer, Failure> {
    let body: ProgressBody<'_> = object(body)?;
    let mut parts = OptionalParts::default();
    let list: Option<Vec<&RawValue>> = parts.read("mcp_endpoints", body.mcp_endpoints);
    let endpoints: Vec<Object<McpEndpoint<'_>>> =
        list.iter().flatten().filter_map(|endpoint| parts.read("mcp_endpoints", Some(endpoint))).collect();
    let urls = endpoints.iter().filter_map(|Object(endpoint)| endpoint.url);
    let urls = urls.filter_map(|url| serde_json::from_str::<LossyText>(url.get()).ok());
    let hidden = urls.fold(hidden, |hidden, url| hidden.url(&url.0));
    let tools = tools(&mut parts, &endpoints);
    let mut text = |name, raw| parts.read(name, raw).map(|raw: LossyText| Text::clean(&raw.0, &hidden));
    let (message, error) = (text("message", body.message), text("error", body.error));
    Ok(Answer {
        status: match &*body.status {
            "in_progress" => ReportedStatus::InProgress,
            "queued" => ReportedStatus::Queued,
            "completed" => ReportedStatus::Completed,
            "failed" => ReportedStatus::Failed,
            other => ReportedStatus::Unrecognised(Text::clean(other, &hidden)),
        },
        mock_enabled: body.mock_enabled,
        mcp_endpoints: list.as_ref().map(|list| saturating(list.len())),
        mcp_tools: list.and(tools),
        message,
        error,
        malformed: parts.malformed,
    })
}

/// The detail of an error response in JSON: `{"detail": …}`, or `{"field": [text]}`.
pub fn error_detail(body: &[u8], hidden: &Redactions) -> Option<Text> {
    let Value::Object(fields) = serde_json::from_slice(body).ok()? else { return None };
    let said = if let Some(Value::String(detail)) = fields.get("detail") {
        detail.clone()
    } else {
        let errors = fields.iter().filter_map(|(field, value)| Some(format!("{field}: {}", first_text(value)?)));
        errors.collect::<Vec<_>>().join("; ")
    };
    (!said.is_empty()).then(|| Text::clean(&said, hidden))
}

fn first_text(value: &Value) -> Option<&str> {
    match value {
        Value::String(text) => Some(text),
        Value::Array(items) => items.first()?.as_str(),
        _ => None,
    }
}

/// The number of tools of all endpoints; `None` if that of one is unknown.
fn tools(parts: &mut OptionalParts, endpoints: &[Object<McpEndpoint<'_>>]) -> Option<u32> {
    let raw = endpoints.iter().filter_map(|Object(endpoint)| endpoint.tool_names);
    let counts: Vec<Option<ListLength>> = raw.map(|raw| parts.read("tool_names", Some(raw))).collect();
    let known = !parts.malformed.contains(&"mcp_endpoints");
    counts.into_iter().try_fold(0u32, |sum, count| Some(sum.saturating_add(count?.0))).filter(|_| known)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::toggle::Reason;
    use proptest::prelude::*;

    fn key() -> Redactions {
        Redactions::default().key("sk-test-1")
    }

    fn decoded(json: &str) -> Answer {
        decode(json.as_bytes(), key()).unwrap()
    }

    #[test]
    fn a_documented_answer_is_read_in_full() {
        let answer = decoded(
            r#"{"status":"completed","mock_enabled":true,"message":"done at https://m.example/1","error":null,
                "mcp_endpoints":[{"mock_index":0,"url":"https://m.example/0","tool_names":["a","b"]},
                                 {"mock_index":1,"url":"https://m.example/1","tool_names":["c"]}]}"#,
        );
        assert_eq!(answer.status, ReportedStatus::Completed);
        assert_eq!((answer.mock_enabled, answer.mcp_endpoints, answer.mcp_tools), (Some(true), Some(2), Some(3)));
        assert_eq!(answer.message.unwrap().as_str(), "done at <url>");
        assert_eq!(answer.error, None);
    }

    #[test]
    fn texts_show_neither_the_query_of_the_request_nor_a_listed_url_without_its_scheme() {
        let said = r#"{"status":"failed","error":"GET /test_framework/v2/aiagents/7/toggle-mock-tools-progress/?progress_id=p-1: h:8443/m/x no",
            "message":"https://h:8443/m/x y/z is down","mcp_endpoints":[{"url":"https://h:8443/m/x"},{"url":"https://h:8443/m/x y/z"}]}"#;
        let answer = decode(said.as_bytes(), key().query("progress_id=p-1")).unwrap();
        let shown = "GET /test_framework/v2/aiagents/7/toggle-mock-tools-progress/?<query> <url> no";
        assert_eq!(answer.error.unwrap().as_str(), shown);
        assert_eq!(answer.message.unwrap().as_str(), "<url> is down");
        let detail = error_detail(br#"{"detail":"no /a/?progress_id=p-1"}"#, &key()).unwrap();
        assert_eq!(detail.as_str(), "no /a/?<query>");
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
    fn a_malformed_part_beside_a_valid_status_is_unknown_and_named() {
        for (more, malformed, endpoints, tools) in [
            (r#""mcp_endpoints":{}"#, &["mcp_endpoints"][..], None, None),
            (r#""mcp_endpoints":"none""#, &["mcp_endpoints"], None, None),
            (r#""mcp_endpoints":["x",{"tool_names":["a"]}]"#, &["mcp_endpoints"], Some(2), None),
            (r#""mcp_endpoints":[[null,["x"]]]"#, &["mcp_endpoints"], Some(1), None),
            (r#""mcp_endpoints":[{"tool_names":"a"},{"tool_names":["b"]}]"#, &["tool_names"], Some(2), None),
            (r#""mcp_endpoints":[{"mock_index":"0","tool_names":[1,null]}]"#, &[], Some(1), Some(2)),
            (r#""message":{"a":1},"error":[115,107]"#, &["message", "error"], None, None),
            (r#""message":7,"error":null"#, &["message"], None, None),
        ] {
            let answer = decoded(&format!(r#"{{"status":"completed","mock_enabled":true,{more}}}"#));
            assert_eq!((answer.status, answer.mock_enabled), (ReportedStatus::Completed, Some(true)), "{more}");
            assert_eq!((answer.mcp_endpoints, answer.mcp_tools), (endpoints, tools), "{more}");
            assert_eq!((answer.malformed.as_slice(), answer.message, answer.error), (malformed, None, None), "{more}");
        }
    }

    #[test]
    fn half_a_surrogate_pair_in_a_text_does_not_hide_a_failed_run() {
        let answer = decoded(r#"{"status":"failed","error":"bad \ud800 x"}"#);
        assert_eq!(answer.status, ReportedStatus::Failed);
        assert!(answer.error.unwrap().as_str().starts_with("bad \u{fffd}"));
    }

    #[test]
    fn texts_do_not_show_parts_of_an_endpoints_url() {
        let answer = decoded(
            r#"{"status":"failed","error":"host mock.example refused /mcp/7","message":null,
                "mcp_endpoints":[{"url":"https://mock.example/mcp/7"},{"url":7},{"url":1e999},{"url":null}]}"#,
        );
        assert_eq!(answer.error.unwrap().as_str(), "host <url> refused <url>");
    }

    #[test]
    fn queued_is_a_known_status() {
        assert_eq!(decoded(r#"{"status":"queued"}"#).status, ReportedStatus::Queued);
    }

    #[test]
    fn another_status_is_kept_as_unrecognised() {
        for status in ["paused", "COMPLETED", "Queued", ""] {
            let answer = decoded(&format!(r#"{{"status":"{status}"}}"#));
            assert_eq!(answer.status, ReportedStatus::Unrecognised(Text::own(status)));
        }
    }

    #[test]
    fn undocumented_json_is_a_decode_failure_that_does_not_quote_it() {
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
            r#"{"status":"completed"} sk-1"#,
            r#"["completed",true,[],"sk-1",null]"#,
            r#"{"status":"compl"#,
        ];
        for body in bad {
            let failure = decode(body.as_bytes(), key()).unwrap_err();
            assert_eq!(failure.reason, Reason::Decode, "{body:.60}");
            assert!(!failure.detail.unwrap().as_str().contains("sk-1"), "{body:.60}");
        }
        assert!(decode(b"{\"status\":\"\xff\"}", key()).is_err());
    }

    #[test]
    fn the_detail_of_an_error_response_is_its_detail_or_its_field_errors() {
        let detail = |body: &str| error_detail(body.as_bytes(), &key()).map(|text| text.as_str().to_owned());
        assert_eq!(detail(r#"{"detail":"no such id sk-test-1"}"#).unwrap(), "no such id <secret>");
        assert_eq!(detail(r#"{"progress_id":["is wrong","x"]}"#).unwrap(), "progress_id: is wrong");
        assert_eq!(detail("<html>"), None);
        assert_eq!(detail("{}"), None);
        assert_eq!(detail("[1]"), None);
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(body in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = decode(&body, key());
            let _ = error_detail(&body, &key());
        }
    }
}
