//! Text that the upstream sent, made safe before it is kept anywhere.

mod escapes;
mod redactions;
mod urls;

use std::fmt;
use std::sync::Arc;

use escapes::first_char;
pub use redactions::Redactions;
use redactions::mask;

/// Text of the upstream, safe to log and to show: at most [`Text::MAX_BYTES`] bytes, with control
/// characters escaped, URLs replaced by `<url>`, queries of paths by `<query>` and API keys by `<secret>`.
///
/// Mock URLs lead to servers without authentication, so none may ever be shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Text(Arc<str>);

// === impl Text ===

impl Text {
    /// The length limit of a text, in bytes, including the ellipsis of a shortened one.
    pub const MAX_BYTES: usize = 1024;

    /// How much of a raw text is cleaned, in bytes, because cleaning takes time for each byte.
    const MAX_RAW_BYTES: usize = 16 * 1024;

    /// Cleans a text that the upstream sent.
    pub fn clean(raw: &str, redactions: &Redactions) -> Self {
        let raw = first_words(raw);
        // URLs go before keys, because a key within a URL must not end it. The cap comes last, because it could
        // cut a URL or a key in two.
        let mut clean = match &redactions.query {
            Some(query) => mask(raw, query, "?<query>", urls::after_end),
            None => raw.to_owned(),
        };
        clean = urls::replace_urls(&clean, redactions);
        // The longest first, because a part may be within another one.
        for (_, url) in redactions.urls.iter().rev() {
            clean = mask(&clean, url, "<url>", urls::after_continuation);
        }
        clean = urls::replace_queries(&urls::replace_quoted_parts(&clean));
        for key in &redactions.keys {
            clean = mask(&clean, key, "<secret>", |rest| rest);
        }
        Self(cap(escape_controls(&clean)).into())
    }

    /// A text of this program, which has nothing to hide.
    pub fn own(text: &str) -> Self {
        Self::clean(text, &Redactions::default())
    }

    /// A text that was cleaned before it was stored. It is unchanged unless the stored text was edited;
    /// control characters are escaped and the cap holds in any case.
    pub fn restore(stored: &str) -> Self {
        Self(cap(escape_controls(stored)).into())
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

/// The part of a text that is cleaned. It ends with a whole word, because half a secret would not be found.
fn first_words(raw: &str) -> &str {
    if raw.len() <= Text::MAX_RAW_BYTES {
        return raw;
    }
    let begin = &raw[..raw.floor_char_boundary(Text::MAX_RAW_BYTES)];
    begin.rfind(char::is_whitespace).map_or("", |end| &begin[..end])
}

fn escape_controls(text: &str) -> String {
    rewrite(
        text,
        |c| c.is_control() || is_format_control(c),
        |escaped, text| {
            let (c, rest) = first_char(text);
            escaped.extend(c.into_iter().flat_map(char::escape_default));
            rest
        },
    )
}

/// Whether a character breaks lines, or changes the direction of the text around it.
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

/// Copies a text in one pass. At each character that `stops` it, `step` gets the output so far and the rest of the
/// text, writes what it likes, and returns the rest that follows what it has read.
fn rewrite<'t>(
    text: &'t str,
    stops: impl Fn(char) -> bool,
    mut step: impl FnMut(&mut String, &'t str) -> &'t str,
) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find(&stops) {
        out.push_str(&rest[..at]);
        rest = step(&mut out, &rest[at..]);
    }
    out.push_str(rest);
    out
}

/// Copies the first character of a text, and returns the rest.
fn copy_char<'t>(out: &mut String, text: &'t str) -> &'t str {
    let (_, rest) = first_char(text);
    out.push_str(&text[..text.len() - rest.len()]);
    rest
}

#[cfg(test)]
mod tests;
