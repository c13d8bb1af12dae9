//! The pages for people: which toggles and agents have a problem, since when, why, and what to do about it.
//!
//! The server writes all of them. The script asks for the page that is shown again and again, and takes over what has
//! changed, so whatever is shown is also shown without it. All links are relative, so a proxy can serve the pages below
//! a path prefix.

mod agent;
mod agent_rows;
mod agents;
mod apis;
mod assets;
pub(crate) mod debug_poll;
mod health;
mod html;
mod layout;
mod missing;
mod problems;
mod query;
mod replicas;
pub(crate) mod runbooks;
mod runtime;
mod sources;
mod timeline;
mod toggle;
mod toggle_rows;

use std::cmp::Ordering;
use std::fmt::{self, Write as _};

pub(super) use agent::AgentPage;
pub(super) use agents::{AgentsPage, AgentsQuery};
pub(super) use apis::ApisPage;
pub(super) use assets::Asset;
pub(super) use health::{ExporterHealth, HealthSources};
pub(super) use html::Escaped;
use html::{Badge, count_of};
use layout::Layout;
pub(super) use layout::{SiteInfo, View};
pub(super) use missing::MissingPage;
use problems::ProblemList;
pub(super) use query::PageQuery;
use query::{RowOrder, SortKey};
pub(super) use replicas::ReplicasPage;
pub(super) use runtime::RuntimePage;
pub(super) use sources::SourcesPage;
pub(super) use toggle::{MissingTogglePage, TogglePage};

use crate::board::{AgentRow, ToggleRow, ToggleRows};
use crate::http::api::overview::Overview;
use crate::http::selection::MAX_TEXT;
use crate::toggle::{ShardOwners, Standing};

/// The columns of the table of toggles, each with its title and what a click on it sorts by.
const TOGGLE_COLUMNS: [(&str, Option<SortKey>); 9] = [
    ("Status", Some(SortKey::Standing)),
    ("Toggle", Some(SortKey::Name)),
    ("Agent", Some(SortKey::Agent)),
    ("Mocks", None),
    ("Run", Some(SortKey::Run)),
    ("Polls", Some(SortKey::Polls)),
    ("What it says", None),
    ("Tools", None),
    ("Source", None),
];

/// How to watch a first toggle.
const BEGINNING: &str = "<section id=\"beginning\" aria-labelledby=\"beginning-title\">
<h2 id=\"beginning-title\">Toggles</h2>
<p>No toggle is watched. To watch one, list it under <code>watches</code> in the configuration or in a watch file. If \
<code>registrations.enabled</code> is set, the job that starts a toggle can register it with \
<code>PUT /api/v1/toggles/NAME</code>. See <a href=\"sources\">what the exporter reads</a>.</p>
</section>
";

/// What the status page is made from.
pub(super) struct StatusPage<'a> {
    pub(super) site: SiteInfo<'a>,
    pub(super) overview: &'a Overview,
    pub(super) rows: &'a ToggleRows,
    /// All agents of which something is known, sorted by API and id.
    pub(super) agents: &'a [AgentRow],
    /// What is wrong with the exporter itself.
    pub(super) health: &'a ExporterHealth,
    /// Which replica polls what, if there are replicas.
    pub(super) owners: Option<&'a ShardOwners>,
    pub(super) query: &'a PageQuery,
}

// === impl StatusPage ===

impl StatusPage<'_> {
    /// Renders the whole page as HTML.
    pub(super) fn render(&self) -> String {
        let problems = ProblemList::of(self.overview, self.rows, self.agents, self.health, self.site.now);
        let layout = Layout {
            site: self.site,
            title: &problems.title(),
            view: View::Status,
            depth: 0,
            style: Some("status.css"),
            icon: problems.icon(),
            is_kept_up_to_date: true,
        };
        layout.page(|page| {
            problems.write(page, self.rows.len(), self.agents.len())?;
            if self.rows.is_empty() {
                page.push_str(BEGINNING);
            } else {
                self.write_toggles(page)?;
            }
            writeln!(
                page,
                "<p id=\"alerting\">This page notifies nobody. To be told of problems, have Prometheus scrape \
                 <a href=\"{}\">the metrics</a> and load the alert rules that come with the exporter.</p>",
                Escaped(self.site.telemetry_path.trim_start_matches('/'))
            )
        })
    }

    fn write_toggles(&self, page: &mut String) -> fmt::Result {
        page.push_str("<section aria-labelledby=\"toggles-title\" data-key=\"toggles-section\">\n<h2 id=\"toggles-title\">Toggles</h2>\n");
        self.write_chips(page)?;
        self.write_search(page)?;
        self.write_table(page)?;
        page.push_str("</section>\n");
        Ok(())
    }

    /// Writes how many toggles have each standing, each a link to those.
    fn write_chips(&self, page: &mut String) -> fmt::Result {
        page.push_str("<ul class=\"chips\" id=\"chips\">\n");
        let without = PageQuery { standing: None, more: 0, ..self.query.clone() };
        self.write_chip(page, &without, "all", None, self.overview.toggles())?;
        for standing in Standing::ALL {
            let count = self.overview.standings.get(standing.as_str()).copied().unwrap_or_default();
            if count > 0 || self.query.standing == Some(standing) {
                let query = PageQuery { standing: Some(standing), ..without.clone() };
                self.write_chip(page, &query, standing.as_str(), Some(standing), count)?;
            }
        }
        page.push_str("</ul>\n");
        Ok(())
    }

    fn write_chip(
        &self,
        page: &mut String,
        query: &PageQuery,
        key: &str,
        standing: Option<Standing>,
        count: usize,
    ) -> fmt::Result {
        let current = if self.query.standing == standing { " aria-current=\"true\"" } else { "" };
        write!(
            page,
            "<li data-key=\"{key}\"><a class=\"chip {key}\" href=\"{}#toggles-title\"{current}>",
            Escaped(query.address())
        )?;
        if let Some(Badge { shape, word }) = standing.map(Badge::of) {
            writeln!(page, "<span aria-hidden=\"true\">{shape}</span> <b>{count}</b> {word}</a></li>")
        } else {
            writeln!(page, "<b>{count}</b> in all</a></li>")
        }
    }

    /// Writes the search, a form that works without the script.
    fn write_search(&self, page: &mut String) -> fmt::Result {
        write!(
            page,
            "<form role=\"search\" method=\"get\" action=\"./\" id=\"filter\">\n\
             <label>With these words <input type=\"search\" name=\"q\" value=\"{}\" maxlength=\"{MAX_TEXT}\" autocomplete=\"off\"></label>\n",
            Escaped(&self.query.selection.text)
        )?;
        if let Some(standing) = self.query.standing {
            writeln!(page, "<input type=\"hidden\" name=\"standing\" value=\"{}\">", standing.as_str())?;
        }
        page.push_str("<button>Search</button>\n</form>\n");
        Ok(())
    }

    fn write_table(&self, page: &mut String) -> fmt::Result {
        let (rows, selected) = self.sorted_rows();
        write!(page, "<p id=\"shown\" role=\"status\">{}", count_sentence(rows.len(), selected))?;
        if !self.query.is_all() {
            page.push_str(" <a href=\"./\">Show all</a>");
        }
        page.push_str(
            "</p>\n<table id=\"toggles\" class=\"cards\" role=\"table\" tabindex=\"-1\">\n<caption>Toggles</caption>\n",
        );
        self.write_table_head(page)?;
        let more = rows.len() < selected;
        for row in rows {
            toggle_rows::write_row(page, row, self.owners, self.site.now)?;
        }
        page.push_str("</tbody>\n</table>\n");
        if more {
            let query = PageQuery { more: self.query.more.saturating_add(1), ..self.query.clone() };
            writeln!(
                page,
                "<p><a class=\"button\" id=\"more\" href=\"{}\">Show more</a></p>",
                Escaped(query.address())
            )?;
        }
        Ok(())
    }

    /// Writes the head of the table, and begins its body. A column that can be sorted by is a link to the page that is.
    fn write_table_head(&self, page: &mut String) -> fmt::Result {
        page.push_str("<thead role=\"rowgroup\"><tr role=\"row\">");
        let order = self.query.order;
        for (title, sort) in TOGGLE_COLUMNS {
            page.push_str("<th role=\"columnheader\" scope=\"col\"");
            let Some(by) = sort else {
                write!(page, ">{title}</th>")?;
                continue;
            };
            if by == order.by {
                write!(page, " aria-sort=\"{}\"", if order.descending { "descending" } else { "ascending" })?;
            }
            let query = PageQuery { order: order.clicked(by), ..self.query.clone() };
            write!(page, "><a href=\"{}#toggles-title\">{title}</a></th>", Escaped(query.address()))?;
        }
        page.push_str("</tr></thead>\n<tbody role=\"rowgroup\">\n");
        Ok(())
    }

    /// The selected toggles in the order that the query asks for, as many as it asks for; and how many are selected.
    fn sorted_rows(&self) -> (Vec<&ToggleRow>, usize) {
        let now = self.site.now;
        let mut selected: Vec<_> = self
            .query
            .selection
            .select(self.rows, now)
            .map(|row| (Standing::of(&row.toggle, now), row))
            .filter(|(standing, _)| self.query.standing.is_none_or(|wanted| wanted == *standing))
            .enumerate()
            .map(|(index, (standing, row))| SortedRow { standing, index, row })
            .collect();
        let (count, most) = (selected.len(), self.query.rows());
        let order = |a: &SortedRow, b: &SortedRow| a.compare(b, self.query.order);
        if count > most {
            selected.select_nth_unstable_by(most, order);
            selected.truncate(most);
        }
        selected.sort_unstable_by(order);
        (selected.into_iter().map(|sorted| sorted.row).collect(), count)
    }
}

/// A selected toggle, and what it is sorted by.
struct SortedRow<'a> {
    standing: Standing,
    /// Its place by name.
    index: usize,
    row: &'a ToggleRow,
}

// === impl SortedRow ===

impl SortedRow<'_> {
    fn compare(&self, other: &Self, order: RowOrder) -> Ordering {
        let (one, two) = (&self.row.toggle, &other.row.toggle);
        let compared = match order.by {
            SortKey::Standing => self.standing.cmp(&other.standing),
            SortKey::Name => self.index.cmp(&other.index),
            SortKey::Agent => one.watch.agent_id.cmp(&two.watch.agent_id),
            SortKey::Run => one.run.started.cmp(&two.run.started),
            SortKey::Polls => one.run.last_success.cmp(&two.run.last_success),
        };
        let compared = if order.descending { compared.reverse() } else { compared };
        compared.then(self.index.cmp(&other.index))
    }
}

/// How many of the selected toggles are shown.
fn count_sentence(shown: usize, selected: usize) -> String {
    match selected {
        0 => "No toggle is like that.".to_owned(),
        _ if shown < selected => format!("The first {shown} of {selected} toggles."),
        _ => format!("{}.", count_of(selected as u64, "toggle")),
    }
}
