//! The JSON of the mock-status endpoint and of the list of agents.

use serde::Deserialize;
use serde_json::value::RawValue;

use super::json::{ListLength, LossyText, Object, OptionalParts, object};
use crate::toggle::{AgentId, Failure, MockStatus, Provider};

/// The body of a mock status. Only `mock_enabled` is required. The URLs of endpoints lead to servers without
/// authentication, so of the lists only the lengths are read.
#[derive(Deserialize)]
struct MockStatusBody<'b> {
    mock_enabled: bool,
    #[serde(default, borrow)]
    provider: Present<'b>,
    #[serde(borrow)]
    mcp_endpoints: Option<&'b RawValue>,
    #[serde(borrow)]
    tool_endpoints: Option<&'b RawValue>,
}

/// A page of the list of agents.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AgentPage {
    /// The agents that have mock tools, with their providers where these are known.
    pub agents: Vec<(AgentId, Option<Provider>)>,
    /// How many agents the whole list has, with or without mock tools; `None` if the page does not say.
    pub count: Option<u64>,
    /// The URL of the next page as sent; `None` on the last page.
    pub next: Option<String>,
    /// The names of malformed fields. An agent without a valid id is left out.
    pub malformed: Vec<&'static str>,
}

/// The body of a page.
#[derive(Deserialize)]
struct PageBody<'b> {
    #[serde(borrow)]
    results: Vec<&'b RawValue>,
    #[serde(borrow)]
    count: Option<&'b RawValue>,
    next: Option<String>,
}

/// An agent in a page.
#[derive(Deserialize)]
struct AgentBody<'b> {
    id: u64,
    #[serde(default, borrow)]
    provider: Present<'b>,
    #[serde(default, borrow)]
    mock_tools: Present<'b>,
}

/// The provider of an agent in a page.
#[derive(Deserialize)]
struct ProviderBody<'b> {
    #[serde(rename = "type", borrow)]
    kind: Option<&'b RawValue>,
}

/// A field that may be absent, which is not the same as null.
#[derive(Default)]
struct Present<'b>(Option<&'b RawValue>);

/// Decodes the body of a mock status.
///
/// # Errors
/// [`Reason::Decode`](crate::toggle::Reason::Decode) if it is not the documented JSON.
pub fn decode_mock_status(body: &[u8]) -> Result<MockStatus, Failure> {
    let body: MockStatusBody<'_> = object(body)?;
    let mut parts = OptionalParts::default();
    let mut length = |name, raw| parts.read(name, raw).map(|ListLength(length)| length);
    let mcp_endpoints = length("mcp_endpoints", body.mcp_endpoints);
    let tool_endpoints = length("tool_endpoints", body.tool_endpoints);
    let provider = body.provider.0.and_then(|raw| provider(&mut parts, raw));
    Ok(MockStatus { enabled: body.mock_enabled, provider, mcp_endpoints, tool_endpoints, malformed: parts.malformed })
}

/// Decodes the body of a page of the list of agents.
///
/// # Errors
/// [`Reason::Decode`](crate::toggle::Reason::Decode) if it is not the documented JSON.
pub fn decode_agent_page(body: &[u8]) -> Result<AgentPage, Failure> {
    let body: PageBody<'_> = object(body)?;
    let mut parts = OptionalParts::default();
    let agents = body.results.into_iter().filter_map(|raw| listed_agent(&mut parts, raw)).collect();
    let count = parts.read("count", body.count);
    Ok(AgentPage { agents, count, next: body.next, malformed: parts.malformed })
}

/// An agent of a page; `None` if it has no mock tools or no valid id. If the page does not say whether it has mock
/// tools, it counts as one that has.
fn listed_agent(parts: &mut OptionalParts, raw: &RawValue) -> Option<(AgentId, Option<Provider>)> {
    let Object(agent): Object<AgentBody<'_>> = parts.read("results", Some(raw))?;
    let Some(id) = AgentId::of(agent.id) else {
        parts.note_malformed("results");
        return None;
    };
    let has_mock_tools = match agent.mock_tools.0 {
        None => true,
        Some(raw) if is_null(raw) => false,
        Some(raw) => parts.read("mock_tools", Some(raw)).is_none_or(|ListLength(length)| length > 0),
    };
    let provider = agent.provider.0.filter(|raw| !is_null(raw)).and_then(|raw| {
        let Ok(Object(ProviderBody { kind })) = serde_json::from_str(raw.get()) else {
            // Not the documented form, but the name alone says as much.
            return provider(parts, raw);
        };
        provider(parts, kind?)
    });
    has_mock_tools.then_some((id, provider))
}

/// The provider that a text names; null is another provider than the known ones.
fn provider(parts: &mut OptionalParts, raw: &RawValue) -> Option<Provider> {
    if is_null(raw) {
        return Some(Provider::Other);
    }
    parts.read("provider", Some(raw)).map(|LossyText(name)| Provider::of(&name))
}

fn is_null(raw: &RawValue) -> bool {
    raw.get() == "null"
}

impl<'de: 'b, 'b> Deserialize<'de> for Present<'b> {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        <&RawValue>::deserialize(deserializer).map(|raw| Self(Some(raw)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::toggle::Reason;
    use proptest::prelude::*;

    fn status(json: &str) -> MockStatus {
        decode_mock_status(json.as_bytes()).unwrap()
    }

    fn page(json: &str) -> AgentPage {
        decode_agent_page(json.as_bytes()).unwrap()
    }

    fn ids(page: &AgentPage) -> Vec<u64> {
        page.agents.iter().map(|(id, _)| id.get()).collect()
    }

    #[test]
    fn a_documented_mock_status_is_read_in_full() {
        let read = status(
            r#"{"mock_enabled":true,"provider":"vapi","assistant_id":"a","mcp_endpoints":
                [{"mock_index":0,"url":"https://m.example/0","tool_names":["a"]}],
                "tool_endpoints":[{"tool_name":"a","url":"https://m.example/1"},{"tool_name":"b","url":"u"}]}"#,
        );
        let expected = MockStatus {
            enabled: true,
            provider: Some(Provider::Vapi),
            mcp_endpoints: Some(1),
            tool_endpoints: Some(2),
            malformed: Vec::new(),
        };
        assert_eq!(read, expected);
    }

    #[test]
    fn only_mock_enabled_is_required_of_a_mock_status() {
        let read = status(r#"{"mock_enabled":false}"#);
        assert_eq!((read.enabled, read.provider, read.mcp_endpoints, read.tool_endpoints), (false, None, None, None));
        let read = status(r#"{"mock_enabled":true,"provider":null,"mcp_endpoints":null,"more":[{}]}"#);
        assert_eq!((read.provider, read.mcp_endpoints, read.malformed), (Some(Provider::Other), None, vec![]));
        let read = status(r#"{"mock_enabled":true,"provider":7,"mcp_endpoints":{},"tool_endpoints":"x"}"#);
        assert_eq!(read.malformed, ["mcp_endpoints", "tool_endpoints", "provider"]);
        assert_eq!((read.enabled, read.provider, read.mcp_endpoints), (true, None, None));
        for bad in
            ["", "null", "[]", "{}", r#"{"mock_enabled":null}"#, r#"{"mock_enabled":"true"}"#, "[true]", "<html>"]
        {
            let failure = decode_mock_status(bad.as_bytes()).unwrap_err();
            assert_eq!(failure.reason, Reason::Decode, "{bad}");
        }
    }

    #[test]
    fn agents_without_mock_tools_are_left_out_of_a_page() {
        let read = page(
            r#"{"count":6,"next":"https://h/?page=2","previous":null,"results":[
                {"id":1,"name":"a","provider":{"type":"retell"},"mock_tools":[{"name":"x"}]},
                {"id":2,"mock_tools":[]},{"id":3,"mock_tools":null},{"id":4},{"id":5,"mock_tools":[1],"provider":"bland"},
                {"id":6,"mock_tools":[1],"provider":null}]}"#,
        );
        let expected = [(1, Some(Provider::Retell)), (4, None), (5, Some(Provider::Bland)), (6, None)];
        let found: Vec<_> = read.agents.iter().map(|(id, provider)| (id.get(), *provider)).collect();
        assert_eq!((found, read.next.as_deref(), read.malformed), (expected.into(), Some("https://h/?page=2"), vec![]));
        assert_eq!(read.count, Some(6), "those without mock tools included");
    }

    #[test]
    fn an_agent_without_a_valid_id_is_named_as_malformed_and_hides_no_other() {
        let read =
            page(r#"{"count":"4","results":[{"id":"1"},{"id":0},[7],{"id":8,"mock_tools":7,"provider":{"type":7}}]}"#);
        assert_eq!((ids(&read), read.count, read.next), (vec![8], None, None));
        assert_eq!(read.malformed, ["results", "mock_tools", "provider", "count"]);
        for bad in ["", "[]", "{}", r#"{"results":{}}"#, r#"{"results":[],"next":7}"#] {
            assert!(decode_agent_page(bad.as_bytes()).is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(body in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = decode_mock_status(&body);
            let _ = decode_agent_page(&body);
        }
    }
}
