//! Pieces of HTML that all pages are made from.

use std::fmt::{self, Write as _};

use crate::toggle::{Labels, Standing, Timestamp};

/// Text that is escaped to stand between tags or in an attribute in double quotes.
pub(in crate::http) struct Escaped<T>(pub(in crate::http) T);

/// The shape and the word that show a standing. The style adds a colour. Each of the three is enough to tell it.
pub(super) struct Badge {
    pub(super) shape: &'static str,
    pub(super) word: &'static str,
}

/// A time in UTC for people, and in another form for the script, which tells it in the reader's zone.
pub(super) struct Time(pub(super) Timestamp);

// === impl Escaped ===

impl<T: fmt::Display> fmt::Display for Escaped<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(Escaping(f), "{}", self.0)
    }
}

struct Escaping<'a, 'f>(&'a mut fmt::Formatter<'f>);

impl fmt::Write for Escaping<'_, '_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let mut rest = text;
        while let Some(at) = rest.find(['&', '<', '>', '"', '\'', '\0']) {
            let (plain, special) = rest.split_at(at);
            self.0.write_str(plain)?;
            self.0.write_str(match special.as_bytes().first() {
                Some(b'&') => "&amp;",
                Some(b'<') => "&lt;",
                Some(b'>') => "&gt;",
                Some(b'"') => "&quot;",
                // HTML has no such character.
                Some(b'\0') => "\u{fffd}",
                _ => "&#39;",
            })?;
            rest = special.get(1..).unwrap_or_default();
        }
        self.0.write_str(rest)
    }
}

// === impl Badge ===

impl Badge {
    pub(super) fn of(standing: Standing) -> Self {
        let (shape, word) = match standing {
            Standing::Failed => ("✖", "failed"),
            Standing::Mismatched => ("≠", "mismatch"),
            Standing::Stuck => ("◷", "stuck"),
            Standing::Silent => ("○", "silent"),
            Standing::Failing => ("△", "poll errors"),
            Standing::Unknown => ("?", "unknown"),
            Standing::InProgress => ("▸", "in progress"),
            Standing::Completed => ("✔", "completed"),
        };
        Self { shape, word }
    }

    /// Writes the badge of a standing with this name.
    pub(super) fn write(&self, page: &mut String, name: &str) -> fmt::Result {
        let Self { shape, word } = self;
        write!(page, "<span class=\"badge {name}\"><span aria-hidden=\"true\">{shape}</span> {word}</span>")
    }
}

// === impl Time ===

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "<time datetime=\"{}\">{}</time>", self.0, utc(self.0))
    }
}

/// A time in UTC for people, to the second.
pub(super) fn utc(at: Timestamp) -> String {
    let full = at.to_string();
    let (date, time) = full.split_once('T').unwrap_or((&full, ""));
    format!("{date} {} UTC", time.get(..8).unwrap_or_default())
}

pub(super) fn write_labels(page: &mut String, labels: &Labels) -> fmt::Result {
    for (label, value) in labels {
        write!(page, "<span class=\"label\">{}={}</span>", Escaped(label.as_str()), Escaped(value))?;
    }
    Ok(())
}

pub(super) fn count_of(count: impl Into<u64>, noun: &str) -> String {
    match count.into() {
        1 => format!("1 {noun}"),
        count => format!("{count} {noun}s"),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn special_characters_are_escaped() {
        let text = "<script>alert('é & \"ü\"')</script>";
        let expected = "&lt;script&gt;alert(&#39;é &amp; &quot;ü&quot;&#39;)&lt;/script&gt;";
        assert_eq!(Escaped(text).to_string(), expected);
    }

    proptest! {
        #[test]
        fn no_text_opens_or_closes_anything(text in any::<String>()) {
            let escaped = Escaped(&text).to_string();
            prop_assert!(!escaped.contains(['<', '>', '"', '\'']));
            let back = escaped.replace("&lt;", "<").replace("&gt;", ">").replace("&quot;", "\"");
            prop_assert_eq!(back.replace("&#39;", "'").replace("&amp;", "&"), text.replace('\0', "\u{fffd}"));
        }
    }
}
