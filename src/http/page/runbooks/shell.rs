//! Text in the commands of a shell.

use std::fmt::{self, Write as _};

use crate::http::api::labels::LabelsJson;
use crate::toggle::Labels;

/// Text as one word of a shell, in which no character has a special meaning.
pub(super) struct ShellWord<'a>(pub(super) &'a str);

/// Text as it is written within single quotes of a shell.
pub(super) fn quoted(text: &str) -> String {
    text.replace('\'', r"'\''")
}

/// Labels as JSON in printable ASCII: a terminal acts on control characters even where a shell quotes them.
pub(super) fn ascii_json(labels: &Labels) -> String {
    // They are texts, of which there always is a JSON.
    let json = serde_json::to_string(&LabelsJson(Some(labels))).unwrap_or_default();
    let mut ascii = String::with_capacity(json.len());
    for c in json.chars() {
        if matches!(c, ' '..='~') {
            ascii.push(c);
        } else {
            for unit in c.encode_utf16(&mut [0; 2]) {
                // Writing to a String cannot fail.
                let _ = write!(ascii, "\\u{unit:04x}");
            }
        }
    }
    ascii
}

// === impl ShellWord ===

impl fmt::Display for ShellWord<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let is_plain = |c: char| c.is_ascii_alphanumeric() || "-._/:@%+,".contains(c);
        if !self.0.is_empty() && self.0.chars().all(is_plain) {
            f.write_str(self.0)
        } else {
            write!(f, "'{}'", quoted(self.0))
        }
    }
}
