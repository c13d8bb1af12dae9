//! Versions of responses, by which a client learns that it has the newest one.

use std::hash::{DefaultHasher, Hasher as _};

use hyper::StatusCode;
use hyper::header::{ETAG, HeaderMap, HeaderValue, IF_NONE_MATCH, VARY};

use super::response::{HttpResponse, response};

/// The version of a response of this process. It is weak, because the response is sent in several encodings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ETag(String);

// === impl ETag ===

impl ETag {
    /// The version of a response that is made from this and nothing else.
    pub(crate) fn from_hash_of(made_from: impl std::hash::Hash) -> Self {
        let mut hasher = DefaultHasher::new();
        made_from.hash(&mut hasher);
        Self(format!("\"{:016x}\"", hasher.finish()))
    }

    /// Whether the client that sent these headers has this version.
    pub(crate) fn is_known(&self, headers: &HeaderMap) -> bool {
        let fields = headers.get_all(IF_NONE_MATCH).iter().filter_map(|field| field.to_str().ok());
        let mut tags = fields.flat_map(|field| field.split(',')).map(str::trim);
        tags.any(|tag| tag == "*" || tag.strip_prefix("W/").unwrap_or(tag) == self.0)
    }

    /// Adds the version to a response, and the header that says what its encoding depends on.
    pub(crate) fn add_to(&self, response: &mut HttpResponse) {
        response.headers_mut().insert(VARY, HeaderValue::from_static("accept-encoding"));
        if let Ok(value) = HeaderValue::try_from(format!("W/{}", self.0)) {
            response.headers_mut().insert(ETAG, value);
        }
    }

    /// The response to a client that has this version.
    pub(crate) fn not_modified(&self) -> HttpResponse {
        let mut response = response(StatusCode::NOT_MODIFIED, None, "");
        self.add_to(&mut response);
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_has_a_version_if_one_of_its_tags_is_the_same_weak_or_strong() {
        let tag = ETag("\"0a\"".into());
        let knows = |fields: &[&str]| {
            let mut headers = HeaderMap::new();
            for field in fields {
                headers.append(IF_NONE_MATCH, field.parse().unwrap());
            }
            tag.is_known(&headers)
        };
        for fields in [&["\"0a\""][..], &["W/\"0a\""], &["*"], &["\"1\", W/\"0a\""], &["\"1\"", "\"0a\""]] {
            assert!(knows(fields), "{fields:?}");
        }
        for fields in [&[][..], &["\"0b\""], &["0a"], &["w/\"0a\""], &[""]] {
            assert!(!knows(fields), "{fields:?}");
        }
    }

    #[test]
    fn a_response_that_is_made_from_something_else_has_another_tag() {
        assert_eq!(ETag::from_hash_of((1, "a")), ETag::from_hash_of((1, "a")));
        assert_ne!(ETag::from_hash_of((1, "a")), ETag::from_hash_of((2, "a")));
    }
}
