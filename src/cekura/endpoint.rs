//! The progress endpoint of an API.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use url::Url;

use crate::toggle::{AgentId, ProgressId};

/// The path of the agents below the base URL.
const AGENTS: &str = "/test_framework/v2/aiagents/";

/// The path of the progress of toggle tasks below an agent.
const PROGRESS: &str = "/toggle-mock-tools-progress/";

/// Everything but the unreserved characters of RFC 3986.
const QUERY_VALUE: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// The progress endpoint below a base URL.
pub(super) struct ProgressEndpoint {
    /// The URL up to the agent's id.
    agents_url: String,
}

/// The base URL without the part of the endpoint's path at its end; `None` if there is no such part.
/// A poll adds the whole path, so such a base URL is a mistake.
pub fn without_endpoint(base: &Url) -> Option<String> {
    let names = |path: &'static str| path.split('/').filter(|name| !name.is_empty()).map(Some);
    // `None` stands for the id of the agent, which may be anything.
    let endpoint: Vec<Option<&str>> = names(AGENTS).chain([None]).chain(names(PROGRESS)).collect();
    let path: Vec<_> = base.path().split('/').filter(|name| !name.is_empty()).collect();
    let begins_endpoint = |part: &[&str]| {
        part.len() <= endpoint.len() && part.iter().zip(&endpoint).all(|(name, of)| of.is_none_or(|of| of == *name))
    };
    let start = (0..path.len()).find(|start| begins_endpoint(&path[*start..]))?;
    let mut corrected = base.clone();
    corrected.set_path(&path[..start].join("/"));
    Some(corrected.as_str().trim_end_matches('/').to_owned())
}

// === impl ProgressEndpoint ===

impl ProgressEndpoint {
    pub(super) fn new(base: &Url) -> Self {
        Self { agents_url: format!("{}{AGENTS}", base.as_str().trim_end_matches('/')) }
    }

    /// The URL of one poll.
    pub(super) fn url(&self, agent_id: AgentId, progress_id: &ProgressId) -> String {
        let id = utf8_percent_encode(progress_id.as_str(), QUERY_VALUE);
        format!("{}{agent_id}{PROGRESS}?progress_id={id}", self.agents_url)
    }

    /// The request of a poll as people read it: method, host and path, without the query.
    pub(super) fn request_line(&self, agent_id: AgentId) -> String {
        let agents = self.agents_url.split_once("://").map_or(&*self.agents_url, |(_, rest)| rest);
        format!("GET {agents}{agent_id}{PROGRESS}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoint(base: &str) -> ProgressEndpoint {
        ProgressEndpoint::new(&base.parse().unwrap())
    }

    #[test]
    fn the_url_keeps_a_path_prefix_and_encodes_any_progress_id() {
        let agent = AgentId::parse("7").unwrap();
        let id = ProgressId::parse("a b&c=/?#%é\0+").unwrap();
        let tail = "/test_framework/v2/aiagents/7/toggle-mock-tools-progress/?progress_id=a%20b%26c%3D%2F%3F%23%25%C3%A9%00%2B";
        for (base, prefix) in [
            ("http://h:1", "http://h:1"),
            ("http://h:1/", "http://h:1"),
            ("https://h/a/b", "https://h/a/b"),
            ("https://h/a/b/", "https://h/a/b"),
        ] {
            assert_eq!(endpoint(base).url(agent, &id), format!("{prefix}{tail}"));
        }
    }

    #[test]
    fn the_request_line_has_host_and_path_and_no_query() {
        let agent = AgentId::parse("7").unwrap();
        for (base, place) in [
            ("https://api.example", "api.example"),
            ("http://h:8080/a/b/", "h:8080/a/b"),
            ("https://[::1]:1/", "[::1]:1"),
        ] {
            let line = format!("GET {place}/test_framework/v2/aiagents/7/toggle-mock-tools-progress/");
            assert_eq!(endpoint(base).request_line(agent), line);
        }
    }

    #[test]
    fn a_base_url_that_ends_in_a_part_of_the_endpoint_is_corrected() {
        for (base, corrected) in [
            ("https://h/test_framework", Some("https://h")),
            ("https://h/test_framework/v2/", Some("https://h")),
            ("https://h/a/b/test_framework/v2/aiagents", Some("https://h/a/b")),
            ("https://h:1/test_framework/v2/aiagents/7/toggle-mock-tools-progress/", Some("https://h:1")),
            ("https://h", None),
            ("https://h/v2", None),
            ("https://h/test_framework/v1", None),
            ("https://h/test_framework/x", None),
            ("https://h/test_framework/v2/aiagents/7/toggle-mock-tools-progress/x", None),
        ] {
            assert_eq!(without_endpoint(&base.parse().unwrap()).as_deref(), corrected, "{base}");
        }
    }
}
