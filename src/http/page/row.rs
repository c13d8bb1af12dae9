//! The table row of a toggle. `status.js` writes the same HTML, and a test compares the two.

use std::fmt::{self, Write as _};
use std::time::Duration;

use super::html::Escaped;
use crate::board::ToggleRow;
use crate::config::format_duration;
use crate::toggle::{Expect, FailureStreak, Labels, Reason, ShardOwners, Standing, Status, Text, Timestamp, Toggle};

/// The shape and the word that show a standing. The style adds a colour. Each of the three is enough to tell it.
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

    /// Writes the badge of a standing with this name.
    pub(super) fn write(&self, page: &mut String, name: &str) -> fmt::Result {
        let Self { shape, word } = self;
        write!(page, "<span class=\"badge {name}\"><span aria-hidden=\"true\">{shape}</span> {word}</span>")
    }
}

/// The section of the runbooks for a toggle with this standing; `None` if nothing needs to be done.
fn runbook_section(standing: Standing, toggle: &Toggle) -> Option<&'static str> {
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

/// What it means that the mocks are not as expected after a run.
fn mismatch_meaning(expect: Expect, mock_enabled: Option<bool>) -> &'static str {
    match (expect, mock_enabled) {
        (Expect::Enabled, Some(_)) => "Mocks are off: tests may reach the real systems.",
        (Expect::Enabled, None) => "Nothing was said of mocks: assume that tests reach the real systems.",
        (Expect::Disabled, Some(_)) => "Mocks are on: real callers may talk to mocks.",
        (Expect::Disabled, None) => "Nothing was said of mocks: assume that real callers talk to mocks.",
    }
}

/// The most characters of a text that needs no scrolling, however narrow its column is. `status.js` has the same limit.
const SHORT_TEXT: usize = 80;

/// Writes a row of the table. The style cuts long texts.
pub(super) fn write_row(
    page: &mut String,
    row: &ToggleRow,
    owners: Option<&ShardOwners>,
    now: Timestamp,
) -> fmt::Result {
    let (toggle, watch) = (&row.toggle, &row.toggle.watch);
    let standing = Standing::of(toggle, now);
    write!(page, "<tr role=\"row\" data-name=\"{}\">", Escaped(watch.name.as_str()))?;
    write_status(page, row, standing)?;
    let name = Escaped(watch.name.as_str());
    write!(
        page,
        "<th role=\"rowheader\" scope=\"row\" data-of=\"Toggle\"><a href=\"api/v1/toggles/{name}\">{name}</a>"
    )?;
    write_labels(page, &watch.labels)?;
    page.push_str("</th>");
    begin_cell(page, "Agent")?;
    write!(page, "{}<span class=\"more\">{}</span></td>", watch.agent_id.get(), Escaped(watch.api.as_str()))?;
    write_mocks(page, row)?;
    write_times(page, row, owners)?;
    write_texts(page, row)?;
    begin_cell(page, "Tools")?;
    let answer = &toggle.run.last_answer;
    if let Some((endpoints, tools)) = answer.mcp_endpoints.zip(answer.mcp_tools) {
        write!(page, "{}<span class=\"more\">{}</span>", count_of(endpoints, "endpoint"), count_of(tools, "tool"))?;
    }
    page.push_str("</td>");
    begin_cell(page, "Source")?;
    writeln!(page, "{}</td></tr>", watch.source.as_str())
}

pub(super) fn write_labels(page: &mut String, labels: &Labels) -> fmt::Result {
    for (label, value) in labels {
        write!(page, "<span class=\"label\">{}={}</span>", Escaped(label.as_str()), Escaped(value))?;
    }
    Ok(())
}

pub(super) fn begin_cell(page: &mut String, column: &str) -> fmt::Result {
    write!(page, "<td role=\"cell\" data-of=\"{column}\">")
}

fn write_status(page: &mut String, row: &ToggleRow, standing: Standing) -> fmt::Result {
    begin_cell(page, "Status")?;
    Badge::of(standing).write(page, standing.as_str())?;
    // The other standings imply the status.
    let status = row.toggle.run.last_answer.status;
    if matches!(standing, Standing::Stuck | Standing::Silent | Standing::Failing) && status != Status::Unknown {
        write!(page, "<span class=\"more\">{}</span>", status.as_str().replace('_', " "))?;
    }
    if is_from_earlier_run(standing, status) {
        write!(page, "<span class=\"more\">an earlier run; this one is {}</span>", status.as_str().replace('_', " "))?;
    }
    if let Some(raw) = row.toggle.run.raw_status() {
        write!(page, "<span class=\"more\">sent as {}</span>", Escaped(raw.as_str()))?;
    }
    if let Some(section) = runbook_section(standing, &row.toggle) {
        // The name of a toggle needs no percent-encoding in a query.
        let name = Escaped(row.toggle.watch.name.as_str());
        write!(page, "<a class=\"more\" href=\"runbooks?toggle={name}#{section}\">what to do</a>")?;
    }
    page.push_str("</td>");
    Ok(())
}

/// Whether the standing is from an earlier run that ended badly, while this run has not ended.
fn is_from_earlier_run(standing: Standing, status: Status) -> bool {
    matches!(standing, Standing::Failed | Standing::Mismatched)
        && matches!(status, Status::InProgress | Status::Unknown)
}

fn write_mocks(page: &mut String, row: &ToggleRow) -> fmt::Result {
    let answer = &row.toggle.run.last_answer;
    begin_cell(page, "Mocks")?;
    page.push_str(match answer.mock_enabled {
        Some(true) => "on",
        Some(false) => "off",
        None => "not known",
    });
    if let Some(expect) = row.toggle.watch.expect {
        let expected = if expect == Expect::Enabled { "on" } else { "off" };
        write!(page, "<span class=\"more\">expected {expected}</span>")?;
        if row.toggle.mismatch() == Some(true) {
            write!(page, "<strong>{}</strong>", mismatch_meaning(expect, answer.mock_enabled))?;
        }
    }
    page.push_str("</td>");
    Ok(())
}

fn write_times(page: &mut String, row: &ToggleRow, owners: Option<&ShardOwners>) -> fmt::Result {
    let (run, tally) = (&row.toggle.run, &row.toggle.tally);
    begin_cell(page, "Run")?;
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
    begin_cell(page, "Polls")?;
    let replica = owners.and_then(|owners| owners.of(&row.toggle.watch.api, row.toggle.watch.agent_id));
    write_polls(page, run.last_success, row.next_poll, [tally.polls, tally.failures], replica)?;
    page.push_str("</td>");
    Ok(())
}

/// Writes how polls went: the last answer, the next poll, how many there were, how many of them failed, and which
/// replica polls, if there are replicas. When another one polls next, this one does not know.
pub(super) fn write_polls(
    page: &mut String,
    last_success: Option<Timestamp>,
    next_poll: Option<Timestamp>,
    [polls, failures]: [u64; 2],
    replica: Option<&str>,
) -> fmt::Result {
    match last_success {
        Some(last) => write!(page, "answered {}", Time(last))?,
        None => page.push_str("no answer yet"),
    }
    match (next_poll, replica) {
        (Some(next), _) => write!(page, "<span class=\"more\">due {}</span>", Time(next))?,
        (None, None) => page.push_str("<span class=\"more\">no more polls</span>"),
        (None, Some(_)) => {}
    }
    if let Some(replica) = replica {
        write!(page, "<span class=\"more\">polled by {}</span>", Escaped(replica))?;
    }
    write!(page, "<span class=\"more\">{}, {failures} failed</span>", count_of(polls, "poll"))
}

fn write_texts(page: &mut String, row: &ToggleRow) -> fmt::Result {
    let run = &row.toggle.run;
    begin_cell(page, "What it says")?;
    if let Some(failing) = &run.failing {
        write_poll_failure(page, failing)?;
    }
    let said = [&run.last_answer.error, &run.last_answer.message].into_iter().flatten();
    for said in said.filter(|said| !said.as_str().is_empty()) {
        write_text(page, said.as_str())?;
    }
    page.push_str("</td>");
    Ok(())
}

/// Writes why the last poll failed.
pub(super) fn write_poll_failure(page: &mut String, failing: &FailureStreak) -> fmt::Result {
    let reason = failing.reason.as_str().replace('_', " ");
    let detail = failing.detail.as_ref().map_or("", Text::as_str);
    let colon = if detail.is_empty() { "" } else { ": " };
    write_text(page, &format!("Poll failed, {reason}{colon}{detail}"))
}

/// Writes a text. A long one is scrolled, so it must be reachable with the keyboard.
fn write_text(page: &mut String, text: &str) -> fmt::Result {
    let focusable = if text.chars().count() > SHORT_TEXT { " tabindex=\"0\"" } else { "" };
    write!(page, "<p class=\"text\"{focusable}>{}</p>", Escaped(text))
}

pub(super) fn count_of(count: impl Into<u64>, noun: &str) -> String {
    match count.into() {
        1 => format!("1 {noun}"),
        count => format!("{count} {noun}s"),
    }
}

/// A time in a form for people, and in another for the script.
pub(super) struct Time(pub(super) Timestamp);

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let full = self.0.to_string();
        let (date, time) = full.split_once('T').unwrap_or((&full, ""));
        write!(f, "<time datetime=\"{full}\">{date} {} UTC</time>", time.get(..8).unwrap_or_default())
    }
}
