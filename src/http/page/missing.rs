//! The page that says that something does not exist.

use std::fmt::Write as _;

use super::html::Escaped;
use super::layout::{Icon, Layout, SiteInfo, Up, View};

/// Says that something does not exist, and leads to what does.
pub(in crate::http) struct MissingPage<'a> {
    pub(in crate::http) site: SiteInfo<'a>,
    pub(in crate::http) view: View,
    /// In how many folders the page is.
    pub(in crate::http) depth: usize,
    /// What does not exist, as a sentence. It is escaped.
    pub(in crate::http) sentence: &'a str,
}

// === impl MissingPage ===

impl MissingPage<'_> {
    /// Renders the whole page as HTML.
    pub(in crate::http) fn render(&self) -> String {
        let (view, depth) = (self.view, self.depth);
        let layout = Layout {
            site: self.site,
            title: "Not found",
            view,
            depth,
            style: None,
            icon: Icon::Well,
            is_kept_up_to_date: true,
        };
        layout.page(|page| {
            let (up, sentence) = (Up(depth), Escaped(self.sentence));
            writeln!(page, "<h1>{sentence}</h1>")?;
            write!(page, "<p>See ")?;
            if view != View::Status && view != View::Replicas {
                write!(page, "<a href=\"{up}{}\">{}</a> or ", view.path(), view.title().to_lowercase())?;
            }
            writeln!(page, "the <a href=\"{up}./\">status page</a>.</p>")
        })
    }
}
