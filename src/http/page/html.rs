//! HTML that all pages have in common.

use std::fmt::{self, Write as _};

/// What a page ends with. It closes `main`.
pub(super) const END: &str = "</main>\n</body>\n</html>\n";

/// Text that is escaped to stand between tags or in an attribute in double quotes.
pub(in crate::http) struct Escaped<T>(pub(in crate::http) T);

/// Begins a page: everything up to the start of `body`. `links` is HTML that belongs into the head.
pub(super) fn begin(page: &mut String, title: &str, links: &str) {
    begin_at(page, "", title, links);
}

/// As [`begin`], for a page below the root of the site. `root` is the relative URL of that root.
pub(super) fn begin_at(page: &mut String, root: &str, title: &str, links: &str) {
    // Writing to a String cannot fail.
    let _ = write!(
        page,
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta name=\"color-scheme\" content=\"light dark\">\n<title>{title}</title>\n\
         <link rel=\"icon\" href=\"data:,\">\n<link rel=\"stylesheet\" href=\"{root}assets/status.css\">\n\
         {links}</head>\n<body>\n",
    );
}

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
