//! Text that the upstream sent, made safe before it is kept anywhere.

use std::fmt;
use std::sync::Arc;

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use zeroize::Zeroizing;

/// Text of the upstream, safe to log and to show: at most [`Text::MAX_BYTES`] bytes, control
/// characters escaped, URLs replaced by `<url>`, the API key by `<secret>`.
///
/// Mock URLs lead to unauthenticated servers, so none may ever be shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Text(Arc<str>);

/// What must not show in a text, beside everything that looks like a URL.
#[derive(Debug, Clone, Default)]
pub struct Hidden {
    /// Parts of URLs that the same answer has: hosts and paths can be quoted apart.
    urls: Vec<String>,
    /// The key, as it is and percent-encoded.
    keys: Vec<Zeroizing<String>>,
}

// === impl Hidden ===

impl Hidden {
    /// Shorter texts are not hidden: they would be found in ordinary words.
    const SHORTEST: usize = 4;

    /// Hides the API key.
    #[must_use]
    pub fn key(mut self, key: &str) -> Self {
        let encoded = utf8_percent_encode(key, NON_ALPHANUMERIC).to_string();
        let forms = [key.to_owned(), encoded].map(Zeroizing::new);
        self.keys.extend(forms.into_iter().filter(|key| key.len() >= Self::SHORTEST));
        self
    }

    /// Hides a URL and its parts: the host, and the path with its query.
    #[must_use]
    pub fn url(mut self, url: &str) -> Self {
        let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
        let (host, path) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
        let host_alone = host.rsplit('@').next().and_then(|host| host.split(':').next()).unwrap_or_default();
        let parts = [url, host, host_alone, path].into_iter().filter(|part| part.len() >= Self::SHORTEST);
        self.urls.extend(parts.map(str::to_owned));
        self
    }
}

// === impl Text ===

impl Text {
    /// The longest text that is kept, in bytes, the ellipsis of a shortened one included.
    pub const MAX_BYTES: usize = 1024;

    /// Cleans what the upstream sent.
    pub fn clean(raw: &str, hidden: &Hidden) -> Self {
        // URLs go first: a key within one must not end it. Both go before the cap, which could
        // cut one of them in two.
        let mut clean = cut_urls(raw);
        let urls = hidden.urls.iter().map(|url| (url, "<url>"));
        for (text, mask) in urls.chain(hidden.keys.iter().map(|key| (&**key, "<secret>"))) {
            if clean.contains(text.as_str()) {
                clean = clean.replace(text.as_str(), mask);
            }
        }
        Self(cap(escape_controls(&clean)).into())
    }

    /// Text of our own, which has nothing to hide.
    pub fn own(text: &str) -> Self {
        Self::clean(text, &Hidden::default())
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

/// A colon as it is written plainly, by form encoders once and twice, in HTML and in JSON.
const COLONS: [&str; 6] = [":", "%3a", "%253a", "&#58;", "&#x3a;", "\\u003a"];

/// A slash, likewise.
const SLASHES: [&str; 8] = ["/", "\\/", "%2f", "%252f", "&#47;", "&#x2f;", "\\u002f", "\\"];

/// Schemes that are taken for the begin of a URL even before a single slash.
const WEB_SCHEMES: [&str; 4] = ["http", "https", "ws", "wss"];

/// Replaces URLs by `<url>`, in one pass over the text.
fn cut_urls(raw: &str) -> String {
    let mut clean = String::new();
    let mut rest = raw;
    while let Some(at) = rest.find([':', '%', '&', '\\', '/']) {
        clean.push_str(&rest[..at]);
        let after = &rest[at..];
        if begins_url(&clean, after) {
            clean.truncate(clean.trim_end_matches(is_of_scheme).len());
            clean.push_str("<url>");
            let end = after.find(|c: char| c.is_whitespace() || c.is_control() || "\"<>`".contains(c));
            rest = &after[end.unwrap_or(after.len())..];
        } else {
            clean.push_str(&after[..1]);
            rest = &after[1..];
        }
    }
    clean.push_str(rest);
    clean
}

fn is_of_scheme(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.')
}

/// Whether a URL's scheme ends between `before` and `after`, or one without a scheme begins there.
fn begins_url(before: &str, after: &str) -> bool {
    let scheme = &before[before.trim_end_matches(is_of_scheme).len()..];
    if let Some(rest) = strip_any(after, &COLONS) {
        return match count_slashes(rest) {
            0 => false,
            1 => WEB_SCHEMES.iter().any(|known| known.eq_ignore_ascii_case(scheme)),
            _ => true,
        };
    }
    // `//host/path`, which takes the scheme of the page that it is on.
    let host = after.strip_prefix("//").unwrap_or_default();
    let host = &host[..host.find(|c| !is_of_scheme(c)).unwrap_or(host.len())];
    host.trim_matches('.').contains('.') && !before.ends_with(is_of_scheme)
}

/// How many slashes the text begins with: 0, 1 or 2 for more.
fn count_slashes(text: &str) -> usize {
    let once = strip_any(text, &SLASHES);
    usize::from(once.is_some()) + usize::from(once.and_then(|rest| strip_any(rest, &SLASHES)).is_some())
}

fn strip_any<'t>(text: &'t str, starts: &[&str]) -> Option<&'t str> {
    let starts_with = |start: &&&str| text.get(..start.len()).is_some_and(|have| have.eq_ignore_ascii_case(start));
    starts.iter().find(starts_with).map(|start| &text[start.len()..])
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
        text.truncate(text.floor_char_boundary(Text::MAX_BYTES - ELLIPSIS.len()));
        text.push_str(ELLIPSIS);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn clean(raw: &str) -> String {
        Text::clean(raw, &Hidden::default().key("sk-key+1")).as_str().to_owned()
    }

    #[test]
    fn urls_are_replaced_whatever_surrounds_them() {
        for (raw, shown) in [
            ("see https://mock.example/x?y=1 now", "see <url> now"),
            ("(wss://a.b/c)", "(<url>"),
            ("é=http://a", "é=<url>"),
            (r#"{"url":"https:\/\/mock.example\/x"}"#, r#"{"url":"<url>"}"#),
            ("https://a https://b", "<url> <url>"),
            ("at https://mock.example/it's/token=1", "at <url>"),
            ("a: b %41 :// c / d\\e & f", "a: b %41 <url> c / d\\e & f"),
            ("ratio 1:/2, either/or, 50%, C:\\x", "ratio 1:/2, either/or, 50%, C:\\x"),
            ("// a comment, //x and a//b.c", "// a comment, //x and a//b.c"),
        ] {
            assert_eq!(clean(raw), shown);
        }
    }

    #[test]
    fn urls_are_found_however_they_are_escaped() {
        for url in [
            "https%3A%2F%2Fmock.example",
            "https:%2F%2Fmock.example",
            "https%3a//mock.example",
            "https%253A%252F%252Fmock.example",
            r"https:\u002f\u002fmock.example",
            "https:&#47;&#47;mock.example",
            "https&#58;//mock.example",
            "https&#x3a;&#x2f;&#x2f;mock.example",
            "https:/mock.example",
            r"https:\\mock.example",
            "//mock.example/mcp",
        ] {
            assert_eq!(clean(&format!("at {url} now")), "at <url> now");
        }
    }

    #[test]
    fn the_key_is_cut_out_plain_encoded_and_within_a_url() {
        assert_eq!(clean("bad key sk-key+1!"), "bad key <secret>!");
        assert_eq!(clean("bad key sk%2Dkey%2B1!"), "bad key <secret>!");
        assert_eq!(clean("PUT https://u:sk-key+1@mock.example/mcp?token=1 failed"), "PUT <url> failed");
        assert_eq!(clean("https://mock.example/sk-key+1/mcp?token=1"), "<url>");
    }

    #[test]
    fn parts_of_known_urls_are_cut_out_where_they_stand_alone() {
        let hidden = Hidden::default().url("https://mock.example:444/mcp/7?token=1");
        let text = "HTTPSConnectionPool(host='mock.example', port=444): no answer with url: /mcp/7?token=1";
        let shown = "HTTPSConnectionPool(host='<url>', port=444): no answer with url: <url>";
        assert_eq!(Text::clean(text, &hidden).as_str(), shown);
    }

    #[test]
    fn what_is_cut_in_two_by_the_cap_does_not_show_in_part() {
        for tail in ["https://mock.example", "sk-key+1"] {
            for padding in 900..1100 {
                for text in [format!("{} {tail}", "x".repeat(padding)), format!("{}{tail}", "sk-key+1".repeat(padding))]
                {
                    let text = clean(&text);
                    assert!(!text.contains("mock") && !text.contains("sk-"), "{padding}: {text}");
                }
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
        fn no_text_breaks_a_line_outgrows_the_cap_or_shows_a_url(
            before in ".{0,20}", after in ".{0,20}", host in "[a-z]{5,9}", slash in proptest::sample::select(&SLASHES[..])
        ) {
            let raw = format!("{before}https:{slash}{slash}{host}.sk-key+1.example{after}");
            let text = clean(&raw);
            prop_assert!(text.len() <= Text::MAX_BYTES);
            prop_assert!(!text.contains("://") && !text.contains(&host) && !text.contains("sk-key"), "{text}");
            prop_assert!(!text.chars().any(char::is_control));
        }
    }
}
