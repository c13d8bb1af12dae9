//! Text in HTML.

use std::fmt;

/// Text as it is put between tags or into an attribute in double quotes, whatever is in it.
pub(in crate::http) struct Escaped<T>(pub(in crate::http) T);

// === impl Escaped ===

impl<T: fmt::Display> fmt::Display for Escaped<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        use fmt::Write as _;
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_means_something_in_html_means_itself() {
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
