//! The table row of an agent, and what rows and the page of one agent both say.

use std::fmt::{self, Write as _};

use super::agents::AgentStanding;
use super::html::{Escaped, Time, count_of, write_labels};
use super::layout::Up;
use super::toggle_rows::{begin_cell, write_poll_failure, write_polls};
use crate::board::{AgentRow, AskedAgent};
use crate::toggle::{Drift, Expect, LiveMocks, ShardOwners, should_be};

/// Writes a row of the table.
pub(super) fn write_row(page: &mut String, agent: &AgentRow, owners: Option<&ShardOwners>) -> fmt::Result {
    let (api, id) = (Escaped(agent.api.as_str()), agent.id);
    write!(page, "<tr role=\"row\" data-key=\"{api}/{id}\">")?;
    write_standing(page, agent)?;
    write!(page, "<th role=\"rowheader\" scope=\"row\" data-of=\"Agent\"><a href=\"agents/{api}/{id}\">{id}</a>")?;
    write!(page, "<span class=\"more\">{api}</span>")?;
    if let Some(labels) = agent.labels() {
        write_labels(page, labels)?;
    }
    page.push_str("</th>");
    begin_cell(page, "Mocks are")?;
    write_live(page, agent)?;
    write_danger(page, agent)?;
    page.push_str("</td>");
    begin_cell(page, "Should be")?;
    write_should_be(page, agent, Up(0))?;
    page.push_str("</td>");
    write_agent_polls(page, agent, owners)?;
    begin_cell(page, "Endpoints")?;
    if let Some(asked) = &agent.asked {
        write_endpoints(page, &asked.live)?;
    }
    page.push_str("</td>");
    begin_cell(page, "Source")?;
    if let Some(asked) = &agent.asked {
        page.push_str(asked.definition.source.as_str());
        if let Some(provider) = asked.provider() {
            write!(page, "<span class=\"more\">{}</span>", provider.as_str())?;
        }
    }
    page.push_str("</td></tr>\n");
    Ok(())
}

fn write_standing(page: &mut String, agent: &AgentRow) -> fmt::Result {
    let standing = AgentStanding::of(agent);
    begin_cell(page, "Status")?;
    standing.badge().write(page, standing.as_str())?;
    if let Some(section) = standing.runbook_section() {
        // The name of an API needs no percent-encoding in a query.
        let (api, id) = (Escaped(agent.api.as_str()), agent.id);
        write!(page, "<a class=\"more\" href=\"runbooks?agent={api}/{id}#{section}\">what to do</a>")?;
    }
    page.push_str("</td>");
    Ok(())
}

/// Writes whether mocks are on, and since when.
pub(super) fn write_live(page: &mut String, agent: &AgentRow) -> fmt::Result {
    let Some(AskedAgent { live, .. }) = &agent.asked else {
        page.push_str("not asked");
        return Ok(());
    };
    page.push_str(live.enabled.map_or("not known", on_or_off));
    if let Some(since) = live.enabled_since {
        write!(page, "<span class=\"more\">since {}</span>", Time(since))?;
    }
    Ok(())
}

/// Writes what it means if the mocks are not as they should be.
fn write_danger(page: &mut String, agent: &AgentRow) -> fmt::Result {
    match &agent.asked {
        Some(AskedAgent { live, drift: Some(Drift { drifted: true, .. }), .. }) => {
            let danger = if live.enabled == Some(true) {
                "Real callers may talk to mocks."
            } else {
                "Tests may reach the real systems."
            };
            write!(page, "<strong>{danger}</strong>")
        }
        _ => Ok(()),
    }
}

/// Writes what the mocks should be, and who said so.
pub(super) fn write_should_be(page: &mut String, agent: &AgentRow, up: Up) -> fmt::Result {
    let expect = agent.asked.as_ref().and_then(|asked| asked.definition.expect);
    page.push_str(should_be(&agent.told, expect).map_or("not known", |expect| on_or_off(expect == Expect::Enabled)));
    if let Some(told_at) = agent.told.told_at() {
        page.push_str("<span class=\"more\">told by ");
        match &agent.told.told_by {
            Some(teller) => {
                let name = Escaped(teller.toggle.as_str());
                write!(page, "<a href=\"{up}toggles/{name}\">{name}</a>")?;
            }
            None => page.push_str("a toggle"),
        }
        write!(page, ", {}</span>", Time(told_at))?;
    } else if expect.is_some() {
        page.push_str("<span class=\"more\">as configured</span>");
    }
    Ok(())
}

fn write_agent_polls(page: &mut String, agent: &AgentRow, owners: Option<&ShardOwners>) -> fmt::Result {
    begin_cell(page, "Polls")?;
    if let Some(AskedAgent { live, next_poll, .. }) = &agent.asked {
        let replica = owners.and_then(|owners| owners.of(&agent.api, agent.id));
        write_polls(page, live.last_success, *next_poll, [live.polls, live.failures], replica)?;
        if let Some(failing) = &live.failing {
            write_poll_failure(page, failing)?;
        }
    }
    page.push_str("</td>");
    Ok(())
}

/// Writes how many mock endpoints there are, as far as that is known.
pub(super) fn write_endpoints(page: &mut String, live: &LiveMocks) -> fmt::Result {
    if let Some(count) = live.mcp_endpoints {
        write!(page, "{count} MCP")?;
    }
    if let Some(count) = live.tool_endpoints {
        write!(page, "<span class=\"more\">{}</span>", count_of(count, "tool"))?;
    }
    Ok(())
}

pub(super) fn on_or_off(enabled: bool) -> &'static str {
    if enabled { "on" } else { "off" }
}
