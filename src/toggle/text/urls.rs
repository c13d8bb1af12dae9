//! Finding URLs, parts of URLs and queries in a text, and replacing them.

use super::escapes::{first_decoded, is_invisible};
use super::redactions::{Redactions, strip_start};
use super::{copy_char, rewrite};

/// Schemes that begin a URL even with a single slash.
const WEB_SCHEMES: [&str; 4] = ["http", "https", "ws", "wss"];

/// What Python's HTTP clients write before a host or a path, and the character that ends it.
const QUOTED_PARTS: [(&str, char); 3] = [("host='", '\''), ("host=\"", '"'), ("with url: ", ' ')];

/// The longest parameter name by which a query is recognised, in characters.
const LONGEST_NAME: usize = 64;

/// Replaces URLs by `<url>`.
pub(super) fn replace_urls(text: &str, redactions: &Redactions) -> String {
    rewrite(
        text,
        |c| matches!(c, ':' | '%' | '&' | '\\' | '/'),
        |out, text| {
            if !begins_url(out, text) {
                return copy_char(out, text);
            }
            out.truncate(out.trim_end_matches(is_of_scheme).len());
            out.push_str("<url>");
            after_url(text, redactions)
        },
    )
}

/// Replaces the hosts and paths that HTTP clients quote separately in their errors by `<url>`.
pub(super) fn replace_quoted_parts(text: &str) -> String {
    let mut clean = text.to_owned();
    for (before, end) in QUOTED_PARTS {
        let mut from = 0;
        while let Some(at) = clean[from..].find(before) {
            let start = from + at + before.len();
            let len = clean[start..].find(|c: char| c == end || c.is_whitespace()).unwrap_or(clean.len() - start);
            clean.replace_range(start..start + len, "<url>");
            from = start;
        }
    }
    clean
}

/// Replaces the queries of paths, and queries that name a parameter, by `<query>`.
pub(super) fn replace_queries(text: &str) -> String {
    let mut in_path = false;
    rewrite(
        text,
        |c| matches!(c, '?' | '/' | '%' | '&' | '\\') || ends_url(c),
        |out, text| {
            let (c, rest) = first_decoded(text);
            if c == Some('?') && begins_query(rest, in_path) {
                out.push_str("?<query>");
                return after_end(rest);
            }
            in_path = !text.starts_with(ends_url) && (in_path || c == Some('/'));
            out.push_str(&text[..text.len() - rest.len()]);
            rest
        },
    )
}

/// What follows the end of the URL that the text begins in.
pub(super) fn after_end(text: &str) -> &str {
    &text[text.find(ends_url).unwrap_or(text.len())..]
}

/// What follows the rest of a URL of which a part was just hidden: more of that part, a port, a path, a query.
pub(super) fn after_continuation(text: &str) -> &str {
    let continues = match first_decoded(text) {
        // At the end of a sentence these end the URL.
        (Some('.' | ':'), rest) => rest.starts_with(char::is_alphanumeric),
        (Some(c), _) => c.is_alphanumeric() || "/\\?#&=-_~+@%".contains(c),
        (None, _) => false,
    };
    if continues { after_end(text) } else { text }
}

/// Whether a scheme ends `before` and its URL goes on with `after`, or a URL without a scheme begins with `after`.
fn begins_url(before: &str, after: &str) -> bool {
    let scheme = &before[before.trim_end_matches(is_of_scheme).len()..];
    let (first, rest) = first_decoded(after);
    if first == Some(':') {
        return match slashes(rest).0 {
            0 => false,
            1 => WEB_SCHEMES.iter().any(|known| known.eq_ignore_ascii_case(scheme)),
            _ => true,
        };
    }
    // `//host/path`, which takes the scheme of the page that it is on.
    let host = after.strip_prefix("//").unwrap_or_default();
    let name = &host[..host.find(|c| !is_of_scheme(c)).unwrap_or(host.len())];
    let is_host = host.starts_with('[') || name.trim_matches('.').contains('.') || name == "localhost";
    is_host && !before.ends_with(is_of_scheme)
}

/// What follows the URL. There may be brackets of a template or a line break around its host. A character that
/// ends other URLs does not end a listed URL that contains it.
fn after_url<'t>(text: &'t str, redactions: &Redactions) -> &'t str {
    let (first, rest) = first_decoded(text);
    let (_, rest) = slashes(if first == Some(':') { rest } else { text });
    let after_listed = redactions.urls.iter().rev().find_map(|(_, url)| strip_start(rest, url));
    let host = || rest.trim_start_matches(|c: char| c.is_whitespace() || "\"<>`".contains(c));
    let after = after_end(after_listed.unwrap_or_else(host));
    // The query of the request was replaced before.
    after.strip_prefix("<query>").unwrap_or(after)
}

fn is_of_scheme(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.')
}

/// Whether a URL ends before this character. A control character within it does not end it.
fn ends_url(c: char) -> bool {
    c == '\n' || (c.is_whitespace() && !c.is_control()) || "\"<>`".contains(c)
}

/// Whether the text after a question mark is a query, and the question mark does not end a sentence.
fn begins_query(mut text: &str, in_path: bool) -> bool {
    let is_of_name = |c: char| c.is_alphanumeric() || is_invisible(c) || "-_.".contains(c);
    if in_path && first_decoded(text).0.is_some_and(|c| c != '.' && is_of_name(c) || "~[$@*+=&".contains(c)) {
        return true;
    }
    for length in 0..=LONGEST_NAME {
        match first_decoded(text) {
            (Some('='), _) => return length > 0,
            (Some(c), rest) if is_of_name(c) => text = rest,
            _ => return false,
        }
    }
    false
}

/// How many slashes of any kind the text begins with, and the rest.
fn slashes(mut text: &str) -> (usize, &str) {
    let mut count = 0;
    loop {
        text = match first_decoded(text) {
            (Some('/' | '\\'), rest) => rest,
            // A backslash that seems to begin an escape of another character counts as a slash, too.
            _ => match text.strip_prefix('\\') {
                Some(rest) => rest,
                None => return (count, text),
            },
        };
        count += 1;
    }
}
