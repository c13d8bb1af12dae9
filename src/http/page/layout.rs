//! What all pages have in common: the head, the way to the other pages, and the foot.

use std::fmt::{self, Write as _};

use super::html::{Escaped, Time};
use crate::toggle::Timestamp;

/// The pages that every page leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::http) enum View {
    Status,
    Agents,
    Apis,
    Sources,
    Replicas,
    Runbooks,
    Runtime,
}

/// How all is, as the icon of the page shows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Icon {
    Well,
    Trouble,
}

/// What the pages of one exporter have in common.
#[derive(Debug, Clone, Copy)]
pub(in crate::http) struct SiteInfo<'a> {
    /// The path of the metrics.
    pub(in crate::http) telemetry_path: &'a str,
    /// Whether several exporters share a database.
    pub(in crate::http) has_replicas: bool,
    pub(in crate::http) started_at: Timestamp,
    pub(in crate::http) now: Timestamp,
}

/// The frame of a page.
#[derive(Debug)]
pub(super) struct Layout<'a> {
    pub(super) site: SiteInfo<'a>,
    /// What the title of the window begins with. It is escaped.
    pub(super) title: &'a str,
    /// The view that the page is, or is a part of.
    pub(super) view: View,
    /// In how many folders the page is: its links lead up by as many.
    pub(super) depth: usize,
    /// The style of this page alone.
    pub(super) style: Option<&'static str>,
    pub(super) icon: Icon,
    /// Whether the script asks for the page again and again.
    pub(super) is_kept_up_to_date: bool,
}

/// Leads from a page up to the root of the site. All links are relative, so that a proxy can serve the site below a
/// path prefix.
#[derive(Debug, Clone, Copy)]
pub(super) struct Up(pub(super) usize);

// === impl View ===

impl View {
    const ALL: [Self; 7] =
        [Self::Status, Self::Agents, Self::Apis, Self::Sources, Self::Replicas, Self::Runbooks, Self::Runtime];

    pub(super) fn path(self) -> &'static str {
        match self {
            Self::Status => "",
            Self::Agents => "agents",
            Self::Apis => "apis",
            Self::Sources => "sources",
            Self::Replicas => "replicas",
            Self::Runbooks => "runbooks",
            Self::Runtime => "runtime",
        }
    }

    pub(super) fn title(self) -> &'static str {
        match self {
            Self::Status => "Status",
            Self::Agents => "Agents",
            Self::Apis => "APIs",
            Self::Sources => "Sources",
            Self::Replicas => "Replicas",
            Self::Runbooks => "Runbooks",
            Self::Runtime => "Runtime",
        }
    }
}

// === impl Layout ===

impl Layout<'_> {
    /// Writes a page whose `main` has this content.
    pub(super) fn page(&self, main: impl FnOnce(&mut String) -> fmt::Result) -> String {
        let mut page = String::new();
        // Writing to a String cannot fail.
        let _ = self.write(&mut page, main);
        page
    }

    fn write(&self, page: &mut String, main: impl FnOnce(&mut String) -> fmt::Result) -> fmt::Result {
        self.write_head(page)?;
        self.write_navigation(page)?;
        page.push_str("<p id=\"offline\" role=\"alert\" hidden></p>\n<main id=\"main\" tabindex=\"-1\">\n");
        main(page)?;
        page.push_str("</main>\n");
        self.write_foot(page)
    }

    fn write_head(&self, page: &mut String) -> fmt::Result {
        let (up, icon) = (Up(self.depth), if self.icon == Icon::Well { "well" } else { "trouble" });
        write!(
            page,
            "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
             <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
             <meta name=\"color-scheme\" content=\"light dark\">\n<title>{} – cekura-exporter</title>\n\
             <link rel=\"icon\" type=\"image/svg+xml\" href=\"{up}assets/{icon}.svg\">\n\
             <link rel=\"stylesheet\" href=\"{up}assets/base.css\">\n",
            Escaped(self.title)
        )?;
        if let Some(style) = self.style {
            writeln!(page, "<link rel=\"stylesheet\" href=\"{up}assets/{style}\">")?;
        }
        writeln!(
            page,
            "<script type=\"module\" src=\"{up}assets/page.js\"></script>\n</head>\n<body{}>",
            if self.is_kept_up_to_date { "" } else { " data-once" }
        )
    }

    fn write_navigation(&self, page: &mut String) -> fmt::Result {
        let up = Up(self.depth);
        page.push_str("<a class=\"skip\" href=\"#main\">Skip to the content</a>\n<header>\n");
        write!(page, "<a class=\"brand\" href=\"{up}./\">cekura-exporter</a>\n<nav aria-label=\"Pages\"><ul>\n")?;
        for view in View::ALL.into_iter().filter(|view| *view != View::Replicas || self.site.has_replicas) {
            let current = if view == self.view { " aria-current=\"page\"" } else { "" };
            let path = if view == View::Status { "./" } else { view.path() };
            writeln!(page, "<li><a href=\"{up}{path}\"{current}>{}</a></li>", view.title())?;
        }
        page.push_str("</ul></nav>\n</header>\n");
        Ok(())
    }

    /// Writes where the same is for programs, and which process wrote this when.
    fn write_foot(&self, page: &mut String) -> fmt::Result {
        let (up, [version, ..]) = (Up(self.depth), crate::BUILD);
        let SiteInfo { telemetry_path, started_at, now, .. } = self.site;
        writeln!(
            page,
            "<footer>\n<p>For programs: <a href=\"{up}{}\">metrics</a>, <a href=\"{up}api/v1/toggles\">toggles</a>, \
             <a href=\"{up}api/v1/agents\">agents</a>, <a href=\"{up}api/v1/status\">status</a> as JSON, \
             <a href=\"{up}config\">configuration</a> as YAML.</p>\n\
             <p>Version <span id=\"version\">{version}</span>, started {}. Shown as of <span id=\"as-of\">{}</span></p>\n\
             </footer>\n</body>\n</html>",
            Escaped(telemetry_path.trim_start_matches('/')),
            Time(started_at),
            Time(now),
        )
    }
}

// === impl Up ===

impl fmt::Display for Up {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (0..self.0).try_for_each(|_| f.write_str("../"))
    }
}
