//! Text that the upstream sent, made safe before it is kept anywhere.

use std::fmt;
use std::sync::Arc;

/// Text of the upstream, safe to log and to show: at most [`Text::MAX_BYTES`] bytes, control
/// characters escaped, URLs replaced by `<url>`, the API key by `<secret>`.
///
/// Mock URLs lead to unauthenticated servers, so none may ever be shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Text(Arc<str>);

// === impl Text ===

impl Text {
    /// The longest text that is kept, in bytes, the ellipsis of a shortened one included.
    pub const MAX_BYTES: usize = 1024;

    /// Keys shorter than this are not cut out: they would be found in ordinary words.
    const SHORTEST_KEY: usize = 6;

    /// Cleans what the upstream sent. `key` is the API key to cut out, if there is one.
    pub fn clean(raw: &str, key: Option<&str>) -> Self {
        let clean = match key.filter(|key| key.len() >= Self::SHORTEST_KEY) {
            Some(key) if raw.contains(key) => cut_urls(&raw.replace(key, "<secret>")),
            _ => cut_urls(raw),
        };
        Self(cap(escape_controls(&clean)).into())
    }

    /// The cleaned text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The ways in which the end of a URL's scheme is written, plain and as escaped by JSON encoders,
/// form encoders and HTML.
const SCHEME_ENDS: [&str; 4] = ["://", ":\\/\\/", "%3a%2f%2f", ":&#x2f;&#x2f;"];

/// Replaces URLs by `<url>`. Goes through the text once, and no further than what can be kept.
fn cut_urls(raw: &str) -> String {
    let mut clean = String::new();
    let mut rest = raw;
    while let Some(at) = rest.find([':', '%']).filter(|_| clean.len() <= Text::MAX_BYTES) {
        let (before, after) = rest.split_at(at);
        if !is_scheme_end(after) {
            clean.push_str(before);
            clean.push_str(&after[..1]);
            rest = &after[1..];
            continue;
        }
        clean.push_str(before);
        let scheme = |c: char| c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.');
        clean.truncate(clean.trim_end_matches(scheme).len());
        clean.push_str("<url>");
        let end = after.find(|c: char| c.is_whitespace() || c.is_control() || "\"'<>`".contains(c));
        rest = &after[end.unwrap_or(after.len())..];
    }
    clean.push_str(truncate(rest, Text::MAX_BYTES + 4));
    clean
}

fn is_scheme_end(text: &str) -> bool {
    let starts = |end: &str| text.get(..end.len()).is_some_and(|start| start.eq_ignore_ascii_case(end));
    SCHEME_ENDS.iter().any(|end| starts(end))
}

fn escape_controls(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() || is_format_control(c) {
            escaped.extend(c.escape_default());
        } else {
            escaped.push(c);
        }
    }
    escaped
}

/// Characters that break lines, or turn the direction of the text around them.
fn is_format_control(c: char) -> bool {
    matches!(c, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
}

fn cap(mut text: String) -> String {
    const ELLIPSIS: &str = "…";
    if text.len() > Text::MAX_BYTES {
        let kept = truncate(&text, Text::MAX_BYTES - ELLIPSIS.len()).len();
        text.truncate(kept);
        text.push_str(ELLIPSIS);
    }
    text
}

/// The longest prefix of at most `max` bytes that ends between two characters.
fn truncate(text: &str, max: usize) -> &str {
    &text[..text.floor_char_boundary(max)]
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn clean(raw: &str) -> String {
        Text::clean(raw, Some("sk-key")).as_str().to_owned()
    }

    #[test]
    fn urls_are_replaced_whatever_surrounds_them() {
        assert_eq!(clean("see https://mock.example/x?y=1 now"), "see <url> now");
        assert_eq!(clean("(wss://a.b/c)"), "(<url>");
        assert_eq!(clean("é=http://a"), "é=<url>");
        assert_eq!(clean(r#"{"url":"https:\/\/mock.example\/x"}"#), r#"{"url":"<url>"}"#);
        assert_eq!(clean("next=https%3A%2F%2Fmock.example"), "next=<url>");
        assert_eq!(clean("a: b %41 :// c"), "a: b %41 <url> c");
        assert_eq!(clean("https://a https://b"), "<url> <url>");
    }

    #[test]
    fn the_key_is_cut_out() {
        assert_eq!(clean("bad key sk-key!"), "bad key <secret>!");
    }

    #[test]
    fn what_is_cut_in_two_by_the_cap_does_not_show_in_part() {
        for tail in ["https://mock.example", "sk-key"] {
            for padding in 900..1100 {
                let text = clean(&format!("{} {tail}", "x".repeat(padding)));
                assert!(!text.contains("mock") && !text.contains("sk-"), "{padding}: {text}");
                let text = clean(&format!("https://{} {tail}", "x".repeat(padding * 16)));
                assert!(!text.contains("mock") && !text.contains("sk-"), "{padding}: {text}");
            }
        }
    }

    #[test]
    fn control_characters_are_escaped() {
        assert_eq!(clean("a\nb\u{1b}[31m\u{202e}"), "a\\nb\\u{1b}[31m\\u{202e}");
    }

    #[test]
    fn long_text_is_capped_between_characters() {
        let long = clean(&"é".repeat(5000));
        assert!(long.len() <= Text::MAX_BYTES && long.ends_with("é…"), "{}", long.len());
    }

    proptest! {
        #[test]
        fn no_text_breaks_a_line_outgrows_the_cap_or_shows_a_url(raw in ".*(https?://[a-z.]{1,40})?.*") {
            let text = clean(&raw);
            prop_assert!(text.len() <= Text::MAX_BYTES);
            prop_assert!(!text.contains("://"));
            prop_assert!(!text.chars().any(char::is_control));
        }
    }
}
