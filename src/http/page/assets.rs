//! The files that pages load. They are part of the program.

/// A file that pages load.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::http) struct Asset {
    name: &'static str,
    pub(in crate::http) content_type: &'static str,
    pub(in crate::http) content: &'static str,
}

const STYLE: &str = "text/css; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";
const ICON: &str = "image/svg+xml";

/// All of them.
const ASSETS: &[Asset] = &[
    Asset { name: "base.css", content_type: STYLE, content: include_str!("assets/base.css") },
    Asset { name: "status.css", content_type: STYLE, content: include_str!("assets/status.css") },
    Asset { name: "toggle.css", content_type: STYLE, content: include_str!("assets/toggle.css") },
    Asset { name: "agents.css", content_type: STYLE, content: include_str!("assets/agents.css") },
    Asset { name: "views.css", content_type: STYLE, content: include_str!("assets/views.css") },
    Asset { name: "runbooks.css", content_type: STYLE, content: include_str!("assets/runbooks.css") },
    Asset { name: "page.js", content_type: SCRIPT, content: include_str!("assets/page.js") },
    Asset { name: "refresh.js", content_type: SCRIPT, content: include_str!("assets/refresh.js") },
    Asset { name: "searching.js", content_type: SCRIPT, content: include_str!("assets/searching.js") },
    Asset { name: "times.js", content_type: SCRIPT, content: include_str!("assets/times.js") },
    Asset { name: "timeline.js", content_type: SCRIPT, content: include_str!("assets/timeline.js") },
    Asset { name: "copying.js", content_type: SCRIPT, content: include_str!("assets/copying.js") },
    Asset { name: "well.svg", content_type: ICON, content: include_str!("assets/well.svg") },
    Asset { name: "trouble.svg", content_type: ICON, content: include_str!("assets/trouble.svg") },
];

// === impl Asset ===

impl Asset {
    /// The asset of that name.
    pub(in crate::http) fn from_name(name: &str) -> Option<Self> {
        ASSETS.iter().find(|asset| asset.name == name).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scripts_import_only_assets() {
        for script in ASSETS.iter().filter(|asset| asset.content_type == SCRIPT) {
            for import in script.content.split(" from \"./").skip(1) {
                let name = import.split('"').next().unwrap();
                assert!(Asset::from_name(name).is_some(), "{} imports {name}", script.name);
            }
        }
    }
}
