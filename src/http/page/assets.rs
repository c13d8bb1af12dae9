//! The files that pages load. They are part of the program.

/// A file that pages load.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::http) enum Asset {
    /// The style sheet.
    Style,
    /// The script.
    Script,
}

// === impl Asset ===

impl Asset {
    /// The asset of that name.
    pub(in crate::http) fn from_name(name: &str) -> Option<Self> {
        match name {
            "status.css" => Some(Self::Style),
            "status.js" => Some(Self::Script),
            _ => None,
        }
    }

    pub(in crate::http) fn content_type(self) -> &'static str {
        match self {
            Self::Style => "text/css; charset=utf-8",
            Self::Script => "text/javascript; charset=utf-8",
        }
    }

    pub(in crate::http) fn content(self) -> &'static str {
        match self {
            Self::Style => include_str!("status.css"),
            Self::Script => include_str!("status.js"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::selection::{MAX_TEXT, MAX_WORDS};
    use crate::toggle::Standing;

    #[test]
    fn the_script_has_the_limits_of_standings() {
        for (name, limit) in [("STUCK_MS", Standing::STUCK_AFTER), ("SILENT_MS", Standing::SILENT_AFTER)] {
            let line = format!("const {name} = {} * 60e3;", limit.as_secs() / 60);
            assert!(Asset::Script.content().contains(&line), "{line}");
        }
    }

    #[test]
    fn the_script_has_the_limits_of_selections() {
        for (name, limit) in [("MAX_TEXT", MAX_TEXT), ("MAX_WORDS", MAX_WORDS)] {
            let line = format!("const {name} = {limit};");
            assert!(Asset::Script.content().contains(&line), "{line}");
        }
    }
}
