//! The endpoints of an API.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use url::Url;

use crate::toggle::{AgentId, ProgressId};

/// The path of the agents below the base URL.
const AGENTS: &str = "/test_framework/v2/aiagents/";

/// The path of the progress of toggle tasks below an agent.
const PROGRESS: &str = "/toggle-mock-tools-progress/";

/// The path of the agents whose mock status is asked for.
const STATUS_AGENTS: &str = "/test_framework/v1/aiagents/";

/// The path of the mock status below an agent.
const MOCK_STATUS: &str = "/tools/mock-status/";

/// How many agents a page of the list has.
const PAGE_SIZE: &str = "?page=1&page_size=100";

/// Everything but the unreserved characters of RFC 3986.
const QUERY_VALUE: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// The endpoints of an API below its base URL.
pub(super) struct Endpoints {
    base: String,
}

/// The base URL without the part of an endpoint's path at its end; `None` if there is no such part.
/// A poll adds the whole path, so such a base URL is a mistake.
pub fn without_endpoint(base: &Url) -> Option<String> {
    let names = |path: &'static str| path.split('/').filter(|name| !name.is_empty()).map(Some);
    let path: Vec<_> = base.path().split('/').filter(|name| !name.is_empty()).collect();
    // `None` stands for the id of the agent, which may be anything.
    let endpoints = [(AGENTS, PROGRESS), (STATUS_AGENTS, MOCK_STATUS)];
    let start = endpoints.into_iter().find_map(|(agents, below)| {
        let endpoint: Vec<Option<&str>> = names(agents).chain([None]).chain(names(below)).collect();
        let begins_endpoint = |part: &[&str]| {
            part.len() <= endpoint.len() && part.iter().zip(&endpoint).all(|(name, of)| of.is_none_or(|of| of == *name))
        };
        (0..path.len()).find(|start| begins_endpoint(&path[*start..]))
    })?;
    let mut corrected = base.clone();
    corrected.set_path(&path[..start].join("/"));
    Some(corrected.as_str().trim_end_matches('/').to_owned())
}

/// The request to a URL as people read it: method, host and path, without the query.
pub(super) fn request_line(url: &str) -> String {
    let place = url.split_once("://").map_or(url, |(_, rest)| rest);
    format!("GET {}", place.split_once('?').map_or(place, |(place, _)| place))
}

/// The URL of the page that a page names as the next one. It has the scheme of the base URL: behind a proxy that
/// terminates TLS, the server names itself with http.
///
/// # Errors
/// If it has another origin: the key goes along, and is for this one only.
pub(super) fn next_page(page: &str, next: &str) -> Result<String, String> {
    let refused = || "the page names a next one on another origin, which is not followed".to_owned();
    let page = Url::parse(page).map_err(|_| refused())?;
    let mut next = page.join(next).map_err(|_| "the URL of the next page is malformed".to_owned())?;
    if next.scheme() == "http" && page.scheme() == "https" && next.port().is_none() {
        next.set_scheme("https").map_err(|()| refused())?;
    }
    let has_login = !next.username().is_empty() || next.password().is_some();
    if next.origin() != page.origin() || has_login { Err(refused()) } else { Ok(next.into()) }
}

// === impl Endpoints ===

impl Endpoints {
    pub(super) fn new(base: &Url) -> Self {
        Self { base: base.as_str().trim_end_matches('/').to_owned() }
    }

    /// The URL of the progress of a toggle task.
    pub(super) fn progress(&self, agent_id: AgentId, progress_id: &ProgressId) -> String {
        let id = utf8_percent_encode(progress_id.as_str(), QUERY_VALUE);
        format!("{}?progress_id={id}", self.progress_of_any_task(agent_id))
    }

    /// The same without the query, which names the task.
    pub(super) fn progress_of_any_task(&self, agent_id: AgentId) -> String {
        format!("{}{AGENTS}{agent_id}{PROGRESS}", self.base)
    }

    /// The URL of the mock status of an agent.
    pub(super) fn mock_status(&self, agent_id: AgentId) -> String {
        format!("{}{STATUS_AGENTS}{agent_id}{MOCK_STATUS}", self.base)
    }

    /// The URL of the first page of the list of agents.
    pub(super) fn agents(&self) -> String {
        format!("{}{AGENTS}{PAGE_SIZE}", self.base)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoints(base: &str) -> Endpoints {
        Endpoints::new(&base.parse().unwrap())
    }

    #[test]
    fn the_urls_keep_a_path_prefix_and_encode_any_progress_id() {
        let agent = AgentId::parse("7").unwrap();
        let id = ProgressId::parse("a b&c=/?#%é\0+").unwrap();
        let progress = "/test_framework/v2/aiagents/7/toggle-mock-tools-progress/?progress_id=a%20b%26c%3D%2F%3F%23%25%C3%A9%00%2B";
        for (base, prefix) in [
            ("http://h:1", "http://h:1"),
            ("http://h:1/", "http://h:1"),
            ("https://h/a/b", "https://h/a/b"),
            ("https://h/a/b/", "https://h/a/b"),
        ] {
            let of = endpoints(base);
            assert_eq!(of.progress(agent, &id), format!("{prefix}{progress}"));
            let mock_status = "/test_framework/v1/aiagents/7/tools/mock-status/";
            assert_eq!(of.mock_status(agent), format!("{prefix}{mock_status}"));
            assert_eq!(of.agents(), format!("{prefix}/test_framework/v2/aiagents/?page=1&page_size=100"));
        }
    }

    #[test]
    fn the_request_line_has_host_and_path_and_no_query() {
        for (url, line) in [
            ("https://api.example/a/?page=1", "GET api.example/a/"),
            ("http://h:8080/a/b/", "GET h:8080/a/b/"),
            ("https://[::1]:1/?q", "GET [::1]:1/"),
        ] {
            assert_eq!(request_line(url), line);
        }
    }

    #[test]
    fn a_next_page_is_followed_on_the_same_origin_only() {
        let next = |base: &str, next: &str| next_page(&format!("{base}/list/?page=1"), next).ok();
        for (base, url, followed) in [
            ("https://h", "https://h/list/?page=2", Some("https://h/list/?page=2")),
            ("https://h", "https://h:443/list/?page=2", Some("https://h/list/?page=2")),
            ("https://h", "http://h/list/?page=2", Some("https://h/list/?page=2")),
            ("https://h", "?page=2", Some("https://h/list/?page=2")),
            ("https://h", "/other/?page=2", Some("https://h/other/?page=2")),
            ("http://h:1", "http://h:1/list/?page=2", Some("http://h:1/list/?page=2")),
            ("http://h:1", "http://h:2/list/?page=2", None),
            ("http://h", "https://h/list/?page=2", None),
            ("https://h", "http://h:80/list/?page=2", Some("https://h/list/?page=2")),
            ("https://h", "http://h:8080/list/?page=2", None),
            ("https://h", "https://evil/list/?page=2", None),
            ("https://h", "//evil/list", None),
            ("https://h", "https://h@evil/", None),
            ("https://h", "https://u:p@h/", None),
            ("https://h", "https://h.evil/", None),
            ("https://h", "file:///etc/passwd", None),
            ("https://h", "https://", None),
        ] {
            assert_eq!(next(base, url).as_deref(), followed, "{base} {url}");
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
            ("https://h/test_framework/v1", Some("https://h")),
            ("https://h/a/test_framework/v1/aiagents/7/tools/", Some("https://h/a")),
            ("https://h/test_framework/x", None),
            ("https://h/test_framework/v2/aiagents/7/toggle-mock-tools-progress/x", None),
        ] {
            assert_eq!(without_endpoint(&base.parse().unwrap()).as_deref(), corrected, "{base}");
        }
    }
}
