//! The table row of a toggle.

use std::fmt::{self, Write as _};
use std::time::Duration;

use super::html::{Badge, Escaped, Time, count_of, write_labels};
use crate::board::ToggleRow;
use crate::config::format_duration;
use crate::toggle::{Expect, FailureStreak, Reason, ShardOwners, Standing, Status, Text, Timestamp, Toggle};

/// The section of the runbooks for a toggle with this standing; `None` if nothing needs to be done.
pub(super) fn runbook_section(standing: Standing, toggle: &Toggle) -> Option<&'static str> {
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

/// The most characters of a text that needs no scrolling, however narrow its column is.
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
    write!(page, "<tr role=\"row\" data-key=\"{}\">", Escaped(watch.name.as_str()))?;
    write_status(page, row, standing)?;
    let name = Escaped(watch.name.as_str());
    write!(page, "<th role=\"rowheader\" scope=\"row\" data-of=\"Toggle\"><a href=\"toggles/{name}\">{name}</a>")?;
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
pub(super) fn is_from_earlier_run(standing: Standing, status: Status) -> bool {
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
    write_text(page, &poll_failure(failing))
}

/// That the last poll failed, and why.
pub(super) fn poll_failure(failing: &FailureStreak) -> String {
    format!("Poll failed, {}", failure_words(failing))
}

/// Why the last poll failed.
pub(super) fn failure_words(failing: &FailureStreak) -> String {
    let reason = failing.reason.as_str().replace('_', " ");
    let detail = failing.detail.as_ref().map_or("", Text::as_str);
    let colon = if detail.is_empty() { "" } else { ": " };
    format!("{reason}{colon}{detail}")
}

/// Writes a text. A long one is scrolled, so it must be reachable with the keyboard.
pub(super) fn write_text(page: &mut String, text: &str) -> fmt::Result {
    let focusable = if text.chars().count() > SHORT_TEXT { " tabindex=\"0\"" } else { "" };
    write!(page, "<p class=\"text\"{focusable}>{}</p>", Escaped(text))
}
