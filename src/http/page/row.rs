//! One toggle in the table. `status.js` writes the same HTML: a test compares the two.

use std::fmt::{self, Write as _};
use std::time::Duration;

use super::html::Escaped;
use crate::board::ToggleRow;
use crate::config::format_duration;
use crate::toggle::{Expect, Reason, Standing, Status, Text, Timestamp, Toggle};

/// How a standing is shown: by colour, shape and word, each of which suffices.
pub(super) struct Badge {
    pub(super) shape: &'static str,
    pub(super) word: &'static str,
}

// === impl Badge ===

impl Badge {
    pub(super) fn of(standing: Standing) -> Self {
        let (shape, word) = match standing {
            Standing::Failed => ("✖", "failed"),
            Standing::Mismatched => ("≠", "mismatch"),
            Standing::Stuck => ("◷", "stuck"),
            Standing::Silent => ("○", "silent"),
            Standing::Failing => ("△", "polls fail"),
            Standing::Unknown => ("?", "unknown"),
            Standing::InProgress => ("▸", "in progress"),
            Standing::Completed => ("✔", "completed"),
        };
        Self { shape, word }
    }
}

/// The section of the runbooks for a toggle with this standing.
fn runbook(standing: Standing, toggle: &Toggle) -> Option<&'static str> {
    let fails =
        |reasons: [Reason; 2]| toggle.run.failing.as_ref().is_some_and(|failing| reasons.contains(&failing.reason));
    match standing {
        Standing::Failed => Some("cekuratogglefailed"),
        Standing::Mismatched if toggle.watch.expect == Some(Expect::Disabled) => Some("cekuratogglemocksnotoff"),
        Standing::Mismatched => Some("cekuratogglemocksnoton"),
        Standing::Stuck => Some("cekuratogglestuck"),
        Standing::Silent | Standing::Failing if fails([Reason::Unauthorized, Reason::Forbidden]) => {
            Some("cekuratoggleforbidden")
        }
        // No poll was ever answered: most likely the id has expired.
        Standing::Silent | Standing::Failing
            if toggle.run.last_success.is_none() && fails([Reason::BadRequest, Reason::NotFound]) =>
        {
            Some("cekuratoggleexpiredid")
        }
        Standing::Silent | Standing::Failing => Some("cekuratogglenotanswering"),
        Standing::Unknown | Standing::InProgress | Standing::Completed => None,
    }
}

/// What it means that a run completed in another state than was expected.
fn meaning(expect: Expect, mock_enabled: Option<bool>) -> &'static str {
    match (expect, mock_enabled) {
        (Expect::Enabled, Some(_)) => "Mocks are off: tests reach the real systems.",
        (Expect::Enabled, None) => "Nothing was said of mocks: assume that tests reach the real systems.",
        (Expect::Disabled, Some(_)) => "Mocks are on: real callers talk to mocks.",
        (Expect::Disabled, None) => "Nothing was said of mocks: assume that real callers talk to mocks.",
    }
}

/// A text of up to this many characters is not scrolled, however narrow its column is. `status.js` has the same.
const SHORT_TEXT: usize = 80;

/// A row of the table. The style cuts long texts.
pub(super) fn write(page: &mut String, row: &ToggleRow, now: Timestamp) -> fmt::Result {
    let (toggle, watch) = (&row.toggle, &row.toggle.watch);
    let standing = Standing::of(toggle, now);
    write!(page, "<tr role=\"row\" data-name=\"{}\">", Escaped(watch.name.as_str()))?;
    status(page, row, standing)?;
    let name = Escaped(watch.name.as_str());
    write!(
        page,
        "<th role=\"rowheader\" scope=\"row\" data-of=\"Toggle\"><a href=\"api/v1/toggles/{name}\">{name}</a>"
    )?;
    for (label, value) in &watch.labels {
        write!(page, "<span class=\"label\">{}={}</span>", Escaped(label.as_str()), Escaped(value))?;
    }
    page.push_str("</th>");
    cell(page, "Agent")?;
    write!(page, "{}<span class=\"more\">{}</span></td>", watch.agent_id.get(), Escaped(watch.api.as_str()))?;
    mocks(page, row)?;
    times(page, row)?;
    texts(page, row)?;
    cell(page, "Tools")?;
    let shown = &toggle.run.last_answer;
    if let Some((endpoints, tools)) = shown.mcp_endpoints.zip(shown.mcp_tools) {
        write!(page, "{}<span class=\"more\">{}</span>", counted(endpoints, "endpoint"), counted(tools, "tool"))?;
    }
    page.push_str("</td>");
    cell(page, "Source")?;
    writeln!(page, "{}</td></tr>", watch.source.as_str())
}

fn cell(page: &mut String, of: &str) -> fmt::Result {
    write!(page, "<td role=\"cell\" data-of=\"{of}\">")
}

fn status(page: &mut String, row: &ToggleRow, standing: Standing) -> fmt::Result {
    let Badge { shape, word } = Badge::of(standing);
    cell(page, "Status")?;
    let class = standing.as_str();
    write!(page, "<span class=\"badge {class}\"><span aria-hidden=\"true\">{shape}</span> {word}</span>")?;
    // Only if the standing does not tell it.
    let status = row.toggle.run.last_answer.status;
    if matches!(standing, Standing::Stuck | Standing::Silent | Standing::Failing) && status != Status::Unknown {
        write!(page, "<span class=\"more\">{}</span>", status.as_str().replace('_', " "))?;
    }
    if is_of_an_earlier_run(standing, status) {
        write!(page, "<span class=\"more\">an earlier run; this one is {}</span>", status.as_str().replace('_', " "))?;
    }
    if let Some(raw) = row.toggle.run.raw_status() {
        write!(page, "<span class=\"more\">sent as {}</span>", Escaped(raw.as_str()))?;
    }
    if let Some(section) = runbook(standing, &row.toggle) {
        // Names of toggles mean nothing but themselves in a query.
        let name = Escaped(row.toggle.watch.name.as_str());
        write!(page, "<a class=\"more\" href=\"runbooks?toggle={name}#{section}\">what to do</a>")?;
    }
    page.push_str("</td>");
    Ok(())
}

/// Whether an earlier run ended badly, and this one has not ended.
fn is_of_an_earlier_run(standing: Standing, status: Status) -> bool {
    matches!(standing, Standing::Failed | Standing::Mismatched)
        && matches!(status, Status::InProgress | Status::Unknown)
}

fn mocks(page: &mut String, row: &ToggleRow) -> fmt::Result {
    let shown = &row.toggle.run.last_answer;
    cell(page, "Mocks")?;
    page.push_str(match shown.mock_enabled {
        Some(true) => "on",
        Some(false) => "off",
        None => "not known",
    });
    if let Some(expect) = row.toggle.watch.expect {
        let wanted = if expect == Expect::Enabled { "on" } else { "off" };
        write!(page, "<span class=\"more\">expected {wanted}</span>")?;
        if row.toggle.mismatch() == Some(true) {
            write!(page, "<strong>{}</strong>", meaning(expect, shown.mock_enabled))?;
        }
    }
    page.push_str("</td>");
    Ok(())
}

fn times(page: &mut String, row: &ToggleRow) -> fmt::Result {
    let (run, tally) = (&row.toggle.run, &row.toggle.tally);
    cell(page, "Run")?;
    write!(page, "watched {}", Time(run.started))?;
    if let Some(finish) = run.finished {
        write!(page, "<span class=\"more\">finished {}", Time(finish.at))?;
        let took = Duration::from_secs(finish.at.since(run.started).as_secs());
        if took > Duration::ZERO {
            write!(page, ", after {}", format_duration(took))?;
        }
        page.push_str("</span>");
    }
    page.push_str("</td>");
    cell(page, "Polls")?;
    match run.last_success {
        Some(last) => write!(page, "answered {}", Time(last))?,
        None => page.push_str("no answer yet"),
    }
    match row.next_poll {
        Some(next) => write!(page, "<span class=\"more\">due {}</span>", Time(next))?,
        None => page.push_str("<span class=\"more\">no more polls</span>"),
    }
    write!(page, "<span class=\"more\">{}, {} failed</span></td>", counted(tally.polls, "poll"), tally.failures)
}

fn texts(page: &mut String, row: &ToggleRow) -> fmt::Result {
    let run = &row.toggle.run;
    cell(page, "What it says")?;
    if let Some(failing) = &run.failing {
        let reason = failing.reason.as_str().replace('_', " ");
        let detail = failing.detail.as_ref().map_or("", Text::as_str);
        let colon = if detail.is_empty() { "" } else { ": " };
        text(page, &format!("Poll failed, {reason}{colon}{detail}"))?;
    }
    let said = [&run.last_answer.error, &run.last_answer.message].into_iter().flatten();
    for said in said.filter(|said| !said.as_str().is_empty()) {
        text(page, said.as_str())?;
    }
    page.push_str("</td>");
    Ok(())
}

/// A long text is scrolled, so the keyboard must reach it.
fn text(page: &mut String, text: &str) -> fmt::Result {
    let focusable = if text.chars().count() > SHORT_TEXT { " tabindex=\"0\"" } else { "" };
    write!(page, "<p class=\"text\"{focusable}>{}</p>", Escaped(text))
}

fn counted(count: impl Into<u64>, what: &str) -> String {
    match count.into() {
        1 => format!("1 {what}"),
        count => format!("{count} {what}s"),
    }
}

/// A time for people, and for the script.
pub(super) struct Time(pub(super) Timestamp);

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let full = self.0.to_string();
        let (date, time) = full.split_once('T').unwrap_or((&full, ""));
        write!(f, "<time datetime=\"{full}\">{date} {} UTC</time>", time.get(..8).unwrap_or_default())
    }
}
