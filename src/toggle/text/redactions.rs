//! What must not be shown in a text, and hiding it.

use std::collections::BTreeSet;

use zeroize::Zeroizing;

use super::escapes::{decoded, first_char, first_decoded, is_invisible};
use super::{copy_char, rewrite};

/// What must not be shown in a text, besides everything that looks like a URL.
#[derive(Debug, Clone, Default)]
pub struct Redactions {
    /// Parts of the URLs in the same answer, decoded, by length: hosts and paths can be quoted separately.
    pub(super) urls: BTreeSet<(usize, String)>,
    /// The query of the request, with its question mark.
    pub(super) query: Option<String>,
    pub(super) keys: Vec<Zeroizing<String>>,
}

// === impl Redactions ===

impl Redactions {
    /// The length, in bytes, below which a text is not hidden: it would be found in ordinary words.
    const MIN_BYTES: usize = 4;

    /// Hides an API key.
    #[must_use]
    pub fn key(mut self, key: &str) -> Self {
        if key.len() >= Self::MIN_BYTES && !self.keys.iter().any(|known| **known == key) {
            self.keys.push(Zeroizing::new(key.to_owned()));
        }
        self
    }

    /// Hides the query of the request, given without percent encoding, wherever it follows a question mark.
    #[must_use]
    pub fn query(mut self, query: &str) -> Self {
        self.query = Some(format!("?{query}"));
        self
    }

    /// Hides a URL, its host, path, query and the values of the query, and whatever directly follows one of them.
    #[must_use]
    pub fn url(mut self, url: &str) -> Self {
        let url = url.trim();
        let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
        let (authority, target) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let host = authority.rsplit('@').next().unwrap_or_default();
        let host = host.strip_prefix('[').and_then(|v6| v6.split(']').next()).or_else(|| host.split(':').next());
        let values = query.split('&').filter_map(|pair| pair.split_once('=')).map(|(_, value)| value);
        let parts = [rest, authority, host.unwrap_or_default(), target, path, query].into_iter().chain(values);
        let parts = parts.map(decoded).filter(|part| part.len() >= Self::MIN_BYTES);
        self.urls.extend(parts.map(|part| (part.len(), part)));
        self
    }
}

/// Replaces each `secret` by `mask`, in any case and however it is escaped, together with what `after` skips behind it.
pub(super) fn mask(text: &str, secret: &str, mask: &str, after: impl Fn(&str) -> &str) -> String {
    let first = secret.chars().next();
    // A secret begins with its first character or with an escape. Most characters are neither, so most are skipped.
    let may_begin =
        |c: char| matches!(c, '%' | '&' | '\\') || first.is_some_and(|first| first.eq_ignore_ascii_case(&c));
    rewrite(text, may_begin, |out, text| match strip_start(text, secret) {
        Some(rest) => {
            out.push_str(mask);
            after(rest)
        }
        None => copy_char(out, text),
    })
}

/// The rest of a text that begins with `start`, escaped or not.
pub(super) fn strip_start<'t>(text: &'t str, start: &str) -> Option<&'t str> {
    strip_start_by(first_decoded, text, start).or_else(|| strip_start_by(first_char, text, start))
}

/// As [`strip_start`], for one way to read characters. Invisible characters may stand between any two of them.
fn strip_start_by<'t>(read: impl Fn(&str) -> (Option<char>, &str), text: &'t str, start: &str) -> Option<&'t str> {
    let after = start.chars().enumerate().try_fold(text, |text, (i, wanted)| {
        let (mut found, mut rest) = read(text);
        while i > 0 && found.is_some_and(is_invisible) {
            (found, rest) = read(rest);
        }
        found.filter(|found| found.eq_ignore_ascii_case(&wanted)).map(|_| rest)
    })?;
    (after.len() < text.len()).then_some(after)
}
