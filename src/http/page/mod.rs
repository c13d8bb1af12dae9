//! The status page: which toggles and agents have a problem, since when, why, and what to do about it.
//!
//! Without JavaScript, it shows the first [`MAX_ROWS`] toggles and as many agents. Its script shows more, and updates the page. All links
//! are relative, so a proxy can serve the page below a path prefix.

mod agents;
mod assets;
pub(crate) mod debug_poll;
mod html;
mod row;
pub(crate) mod runbooks;

use std::fmt::{self, Write as _};

use agents::AgentSection;
pub(super) use assets::Asset;
pub(super) use html::Escaped;
use row::{Badge, count_of};

use crate::board::{AgentRow, ToggleRow, ToggleRows};
use crate::http::api::overview::{ApiHealth, Overview};
use crate::http::selection::{MAX_TEXT, Selection};
use crate::toggle::{ShardOwners, Standing, Status, Timestamp};

/// How many toggles, and how many agents, are shown without the script.
const MAX_ROWS: usize = 500;

/// The columns of a table, each with its title and the key to sort by, if it can be sorted.
type Columns = [(&'static str, Option<&'static str>)];

/// The columns of the table of toggles.
const TOGGLE_COLUMNS: &Columns = &[
    ("Status", Some("status")),
    ("Toggle", Some("name")),
    ("Agent", Some("agent")),
    ("Mocks", None),
    ("Run", Some("run")),
    ("Polls", Some("polls")),
    ("What it says", None),
    ("Tools", None),
    ("Source", None),
];

/// The columns of the table of agents.
const AGENT_COLUMNS: &Columns = &[
    ("Status", None),
    ("Agent", None),
    ("Mocks are", None),
    ("Should be", None),
    ("Polls", None),
    ("Endpoints", None),
    ("Source", None),
];

/// What the status page is made from.
pub(super) struct StatusPage<'a> {
    pub(super) overview: &'a Overview,
    pub(super) rows: &'a ToggleRows,
    /// All agents of which something is known, sorted by API and id.
    pub(super) agents: &'a [AgentRow],
    /// Which replica polls what, if there are replicas.
    pub(super) owners: Option<&'a ShardOwners>,
    pub(super) selection: &'a Selection,
    /// The path of the metrics.
    pub(super) telemetry_path: &'a str,
    pub(super) now: Timestamp,
}

// === impl StatusPage ===

impl StatusPage<'_> {
    /// Renders the whole page as HTML.
    pub(super) fn render(&self) -> String {
        let mut page = String::new();
        // Writing to a String cannot fail.
        let _ = self.write(&mut page);
        page
    }

    fn write(&self, page: &mut String) -> fmt::Result {
        html::begin(page, "cekura-exporter", "<script src=\"assets/status.js\" defer></script>\n");
        page.push_str("<a class=\"skip\" href=\"#toggles\">Skip to the toggles</a>\n");
        self.write_header(page)?;
        page.push_str("<main>\n<p id=\"trouble\" role=\"alert\" hidden></p>\n");
        let agents = AgentSection::new(self.agents, self.owners, self.selection);
        self.write_counts(page)?;
        agents.write_summary(page)?;
        self.write_apis(page)?;
        self.write_filter(page)?;
        self.write_table(page)?;
        agents.write(page)?;
        page.push_str(html::END);
        Ok(())
    }

    fn write_header(&self, page: &mut String) -> fmt::Result {
        let Overview { version, revision, started_at, .. } = self.overview;
        writeln!(
            page,
            "<header>\n<h1>cekura-exporter</h1>\n\
             <p><span id=\"build\">Version {version}, revision {revision}</span>, \
             started <span id=\"started\"><time datetime=\"{started_at}\">{started_at}</time></span>. \
             Shown as of {}</p>\n\
             <nav aria-label=\"More\"><ul>\
             <li><a href=\"{}\">Metrics</a></li><li><a href=\"config\">Configuration</a></li>\
             <li><a href=\"runbooks\">Runbooks</a></li><li><a href=\"api/v1/toggles\">Toggles as JSON</a></li>\
             <li><a href=\"api/v1/agents\">Agents as JSON</a></li>\
             </ul></nav>\n</header>",
            AsOf(self.now),
            Escaped(self.telemetry_path.trim_start_matches('/')),
        )
    }

    /// Writes how many toggles have each standing, the worst first.
    fn write_counts(&self, page: &mut String) -> fmt::Result {
        let toggles = self.overview.toggles();
        let noun = if toggles == 1 { "toggle" } else { "toggles" };
        writeln!(
            page,
            "<section aria-labelledby=\"counts\">\n<h2 id=\"counts\">{toggles} {noun}</h2>\n<ul class=\"counts\">"
        )?;
        for standing in Standing::ALL {
            let Badge { shape, word } = Badge::of(standing);
            let name = standing.as_str();
            let count = self.overview.standings.get(name).copied().unwrap_or_default();
            writeln!(
                page,
                "<li class=\"{name}{}\"><span aria-hidden=\"true\">{shape}</span> \
                 <b data-standing=\"{name}\">{count}</b> {word}</li>",
                if count == 0 { " none" } else { "" }
            )?;
        }
        page.push_str("</ul>\n</section>\n");
        Ok(())
    }

    fn write_apis(&self, page: &mut String) -> fmt::Result {
        page.push_str(
            "<section aria-labelledby=\"apis\">\n<h2 id=\"apis\">APIs</h2>\n<ul class=\"apis\" id=\"api-list\">\n",
        );
        for api in &self.overview.apis {
            writeln!(page, "<li>{}</li>", ApiLine(api))?;
        }
        page.push_str("</ul>\n</section>\n");
        Ok(())
    }

    /// Writes the filter, a form that works without the script.
    fn write_filter(&self, page: &mut String) -> fmt::Result {
        write!(
            page,
            "<section aria-labelledby=\"list\">\n<h2 id=\"list\">What they are doing</h2>\n\
             <form role=\"search\" method=\"get\" action=\"./\" id=\"filter\">\n\
             <label>With these words <input type=\"search\" name=\"q\" value=\"{}\" maxlength=\"{MAX_TEXT}\" autocomplete=\"off\"></label>\n\
             <label>Status <select name=\"status\">\n<option value=\"\">any</option>\n",
            Escaped(&self.selection.text)
        )?;
        for status in Status::ALL {
            let name = status.as_str();
            let selected = if self.selection.status == Some(status) { " selected" } else { "" };
            writeln!(page, "<option value=\"{name}\"{selected}>{}</option>", name.replace('_', " "))?;
        }
        page.push_str("</select></label>\n<button>Filter</button>\n</form>\n");
        Ok(())
    }

    fn write_table(&self, page: &mut String) -> fmt::Result {
        let (rows, selected) = self.worst_first();
        let any_watched = self.overview.toggles() > 0;
        write!(page, "<p id=\"shown\" role=\"status\">{}", count_sentence(rows.len(), selected, any_watched))?;
        if rows.len() < selected {
            page.push_str(" The worst come first; narrow the filter to see others.");
        }
        page.push_str(
            "</p>\n<table id=\"toggles\" class=\"cards\" role=\"table\" tabindex=\"-1\">\n\
             <caption>Toggles, the worst first</caption>\n",
        );
        write_table_head(page, TOGGLE_COLUMNS)?;
        for row in rows {
            row::write_row(page, row, self.owners, self.now)?;
        }
        page.push_str(
            "</tbody>\n</table>\n<p><button id=\"more\" type=\"button\" hidden>Show more</button></p>\n</section>\n",
        );
        Ok(())
    }

    /// The first [`MAX_ROWS`] selected toggles, the worst standing first and then by name; and how many are selected.
    fn worst_first(&self) -> (Vec<&ToggleRow>, usize) {
        let mut selected: Vec<_> = self
            .selection
            .select(self.rows, self.now)
            .enumerate()
            .map(|(index, row)| (Standing::of(&row.toggle, self.now), index, row))
            .collect();
        let count = selected.len();
        if count > MAX_ROWS {
            selected.select_nth_unstable_by_key(MAX_ROWS, |(standing, index, _)| (*standing, *index));
            selected.truncate(MAX_ROWS);
        }
        selected.sort_unstable_by_key(|(standing, index, _)| (*standing, *index));
        (selected.into_iter().map(|(.., row)| row).collect(), count)
    }
}

/// Writes the head of a table, and begins its body.
fn write_table_head(page: &mut String, columns: &Columns) -> fmt::Result {
    page.push_str("<thead role=\"rowgroup\"><tr role=\"row\">");
    for (title, sort) in columns {
        write!(page, "<th role=\"columnheader\" scope=\"col\"")?;
        if let Some(sort) = sort {
            write!(page, " data-sort=\"{sort}\"")?;
        }
        write!(page, ">{title}</th>")?;
    }
    page.push_str("</tr></thead>\n<tbody role=\"rowgroup\">\n");
    Ok(())
}

/// How many of the selected toggles are shown. `any_watched` is false if there are no toggles at all.
fn count_sentence(shown: usize, selected: usize, any_watched: bool) -> String {
    match selected {
        0 if !any_watched => "Nothing is watched.".to_owned(),
        0 => "No toggle is like that.".to_owned(),
        1 => "1 toggle.".to_owned(),
        _ if shown < selected => format!("The first {shown} of {selected} toggles."),
        _ => format!("{selected} toggles."),
    }
}

/// The health of an API on one line.
struct ApiLine<'a>(&'a ApiHealth);

impl fmt::Display for ApiLine<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ApiHealth { name, requests_per_second, max_in_flight, in_flight, waiting, polled, agents, .. } = self.0;
        let polled = count_of(*polled as u64, "toggle");
        write!(f, "<b>{}</b> the last poll of {} of {polled} failed", Escaped(name), self.0.failures())?;
        for (reason, count) in &self.0.failing {
            write!(f, ", {count} {}", reason.replace('_', " "))?;
        }
        if agents.asked > 0 {
            write!(f, "; {} of {} not answering", agents.failures(), count_of(agents.asked as u64, "agent"))?;
            for (reason, count) in &agents.failing {
                write!(f, ", {count} {}", reason.replace('_', " "))?;
            }
        }
        write!(
            f,
            "; {in_flight} of {max_in_flight} requests under way, {waiting} waiting, {requests_per_second} a second allowed"
        )?;
        if let Some(until) = &self.0.paused_until {
            write!(
                f,
                "; <strong>paused until <time datetime=\"{until}\">{until}</time></strong> <a href=\"runbooks?api={}#cekuraapithrottled\">what to do</a>",
                Escaped(name)
            )?;
        }
        if let Some((verdict, section)) = self.0.verdict() {
            write!(
                f,
                "; <strong>{verdict}</strong> <a href=\"runbooks?api={}#{section}\">what to do</a>",
                Escaped(name)
            )?;
        }
        write!(f, ".")
    }
}

/// When the page was rendered. The script updates it, and says how long ago that was. No text follows it, because that
/// would move with each update.
struct AsOf(Timestamp);

impl fmt::Display for AsOf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "<span id=\"as-of\">{}</span>", row::Time(self.0))
    }
}
